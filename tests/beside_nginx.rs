//! The same site in nginx and here: error pages, files, redirects. Both must answer alike.

mod support;

use support::nginx::Nginx;
use support::{Client, Folder, Response, Server};

const FILES: &[(&str, &[u8])] = &[
    ("html/404.html", b"not here"),
    ("html/a.css", b"body {}"),
    ("html/dir/index.html", b"index"),
    ("html/empty/x", b"x"),
    ("data/b.txt", b"in data"),
    ("data/sub/index.html", b"sub"),
];

const OURS: &str = r#"
module = [{ name = "return" }, { name = "try_files" }, { name = "index" }, { name = "static" }, { name = "not_modified" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
root = "html"
error_page = [
    { code = [404], uri = "/404.html" },
    { code = [403], uri = "/a.css", response = 200 },
    { code = [410], uri = "@named", response = "=" },
    { code = [402], uri = "https://example.com$uri" },
    { code = [409], uri = "http://a/", response = 307 },
    { code = [503], uri = "/missing" },
    { code = [400, 405, 413], uri = "/404.html" },
]
client_max_body_size = 10
[[http.server.location]]
path = "@named"
return = { code = 202, text = "named" }
[[http.server.location]]
path = "/c402"
return.code = 402
[[http.server.location]]
path = "/c403"
return.code = 403
[[http.server.location]]
path = "/c409"
return.code = 409
[[http.server.location]]
path = "/c410"
return.code = 410
[[http.server.location]]
path = "/c503"
return.code = 503
[[http.server.location]]
path = "/internal/"
internal = true
[[http.server.location]]
path = "/alias/"
alias = "data/"
[[http.server.location]]
path = "/try/"
alias = "data/"
try_files = { files = ["$uri", "$uri/"], fallback = "@named" }
[[http.server.location]]
path = "/moved"
return = { code = 301, url = "/new$uri" }
[[http.server.location]]
path = '~ ^/re/(.+)$'
alias = "data/$1"
"#;

const THEIRS: &str = r#"
    root PREFIX/html;
    error_page 404 /404.html;
    error_page 403 =200 /a.css;
    error_page 410 = @named;
    error_page 402 https://example.com$uri;
    error_page 409 =307 http://a/;
    error_page 503 /missing;
    error_page 400 405 413 /404.html;
    client_max_body_size 10;
    location @named { return 202 "named"; }
    location /c402 { return 402; }
    location /c403 { return 403; }
    location /c409 { return 409; }
    location /c410 { return 410; }
    location /c503 { return 503; }
    location /internal/ { internal; }
    location /alias/ { alias PREFIX/data/; }
    location /try/ { alias PREFIX/data/; try_files $uri $uri/ @named; }
    location /moved { return 301 /new$uri; }
    location ~ ^/re/(.+)$ { alias PREFIX/data/$1; }
"#;

/// What must be the same: the status line, where it leads, and the body unless it is a page of the server's own.
fn facts(response: &Response, port: u16) -> String {
    let location = response.field("Location").unwrap_or("-").replace(&format!(":{port}"), ":PORT");
    let line = response.head.lines().next().unwrap_or_default();
    let own = response.text().contains("<h1>");
    let body =
        if own { response.text().split("<h1>").nth(1).unwrap().split('<').next().unwrap() } else { response.text() };
    let connection = response.field("Connection").is_some_and(|value| value == "close");
    format!("{line} | {location} | {body} | close: {connection}")
}

fn ask(port: u16, request: &str) -> String {
    let mut client = Client::connect(([127, 0, 0, 1], port).into());
    client.send(request);
    let method = request.split(' ').next().unwrap_or_default();
    facts(&client.response_to(method), port)
}

#[test]
fn error_pages_files_and_redirects_as_nginx() {
    let folder = Folder::with(FILES);
    let prefix = folder.path("").display().to_string();
    let root = folder.path("html");
    let servers = format!("server {{ listen 127.0.0.1:PORT; {} }}", THEIRS.replace("PREFIX/", &prefix));
    let Some(nginx) = Nginx::with_servers(&servers) else { return };
    assert!(root.is_dir());
    let server = Server::start_in(folder, OURS);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut requests: Vec<String> = [
        "/none",
        "/c402",
        "/c402/x",
        "/c403",
        "/c409",
        "/c410",
        "/c503",
        "/internal/x",
        "/alias/b.txt",
        "/alias/sub",
        "/alias/sub/",
        "/alias/none",
        "/alias",
        "/try/b.txt",
        "/try/sub",
        "/try/sub/",
        "/try/none",
        "/try/",
        "/moved",
        "/moved/x?y",
        "/re/b.txt",
        "/re/none",
        "/dir",
        "/dir/",
        "/dir?a=b",
        "/empty/",
        "/404.html",
        "/a.css",
        "/re/sub",
    ]
    .iter()
    .map(|path| get(path))
    .collect();
    requests.extend(
        [
            "POST /none HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody",
            "POST /a.css HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody",
            "HEAD /none HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "HEAD /c403 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "POST /c410 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\nbodybodybodybodybodybodybodybodybodybody",
            "GET /c410 HTTP/1.0\r\n\r\n",
            "GET /dir HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET /none HTTP/1.1\r\nHost: localhost\r\nIf-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n\r\n",
        ]
        .map(String::from),
    );
    let mut different = Vec::new();
    for request in &requests {
        let (ours, theirs) = (ask(server.port, request), ask(nginx.port, request));
        if ours != theirs {
            different.push(format!("{}\n  ours   {ours}\n  nginx  {theirs}", request.escape_debug()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
