//! Error pages of the configuration: `error_page`, `recursive_error_pages`, `internal`.

mod support;

use support::peer::{Peer, Reserved};
use support::{Ending, Server};

const SITE: &str = r#"
module = [{ name = "return" }, { name = "index" }, { name = "static" }, { name = "not_modified" }, { name = "headers" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
root = "html"
"#;

const FILES: &[(&str, &[u8])] = &[
    ("html/404.html", b"not here"),
    ("html/50x.html", b"sorry"),
    ("html/a.css", b"body {}"),
    ("html/index.html", b"home"),
];

fn site(config: &str) -> Server {
    Server::with(FILES, &format!("{SITE}{config}"))
}

/// With an upstream in it.
fn proxying(config: &str) -> Server {
    let modules = "{ name = \"headers\" }, { name = \"proxy\" }, { name = \"round_robin\" }";
    Server::with(FILES, &format!("{}{config}", SITE.replace("{ name = \"headers\" }", modules)))
}

#[test]
fn error_page_404_is_a_file() {
    let server = site("error_page = [{ code = [404], uri = \"/404.html\" }]\n");
    let response = server.get("/none").expect(404);
    assert_eq!((response.text(), response.field("Content-Type")), ("not here", Some("text/html")), "{response:?}");
    assert_eq!(response.field("Content-Length"), Some("8"));
    // It can be asked for by itself, and other files are as ever.
    assert_eq!(server.get("/404.html").expect(200).text(), "not here");
    assert_eq!(server.get("/a.css").expect(200).text(), "body {}");
    server.stdout(|log| log.contains("\"GET /none HTTP/1.1\" 404 8 "));
}

#[test]
fn a_page_has_no_time_of_its_own() {
    let server = site(
        "error_page = [{ code = [404], uri = \"/404.html\" }, { code = [405], uri = \"/a.css\", response = 200 }]\n",
    );
    // As nginx: the tag stays.
    let response = server.get("/none").expect(404);
    let has = |name| response.field(name).is_some();
    assert!(!has("Last-Modified") && has("ETag") && !has("Accept-Ranges"), "{response:?}");
    for response in [server.get("/404.html").expect(200), server.request("PUT", "/x", "").expect(200)] {
        assert!(response.field("Last-Modified").is_some() && response.field("ETag").is_some(), "{response:?}");
    }
}

#[test]
fn status_is_that_of_the_error() {
    let server = site(
        r#"
error_page = [
    { code = [404], uri = "/page?$status" },
    { code = [400, 405, 414, 431, 505], uri = "/page" },
    { code = [410], uri = "@named" },
    { code = [403], uri = "/page", response = 200 },
    { code = [402], uri = "/page", response = "=" },
]
[[http.server.location]]
path = "/page"
return = { code = 202, text = "$status $args" }
[[http.server.location]]
path = "@named"
return = { code = 202, text = "named $status" }
[[http.server.location]]
path = "/410"
return.code = 410
[[http.server.location]]
path = "/403"
return.code = 403
[[http.server.location]]
path = "/402"
return.code = 402
"#,
    );
    for (path, status, text) in
        [("/none", 404, "404 404"), ("/410", 410, "named 410"), ("/403", 200, "200 "), ("/402", 202, "202 ")]
    {
        assert_eq!(server.get(path).expect(status).text(), text, "{path}");
    }
    let long = "x".repeat(9000);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n".to_owned(), 400),
        (format!("GET /{long} HTTP/1.1\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n"), 431),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 405),
    ] {
        let mut client = server.connect();
        client.send(&request);
        assert_eq!(client.response().expect(status).text(), format!("{status} "), "{request}");
    }
}

#[test]
fn the_connection_stays_open_behind_an_error_page() {
    let server = site("error_page = [{ code = [404], uri = \"/404.html\" }]\n");
    let mut client = server.connect();
    client.send(
        "HEAD /none HTTP/1.1\r\nHost: a\r\n\r\nPOST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody\
         GET /a.css HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let head = client.response_to("HEAD").expect(404);
    assert_eq!(head.field("Content-Length"), Some("8"), "{head:?}");
    assert_eq!(client.response().expect(404).text(), "not here", "a POST gets the page as by GET");
    assert_eq!(client.response().expect(200).text(), "body {}");
}

#[test]
fn conditions_are_for_the_page_that_was_asked_for() {
    let server = site("error_page = [{ code = [404], uri = \"/404.html\" }]\n");
    let etag = server.get("/404.html").field("ETag").unwrap().to_owned();
    server.get_with("/404.html", &format!("If-None-Match: {etag}\r\n")).expect(304);
    assert_eq!(server.get_with("/none", &format!("If-None-Match: {etag}\r\n")).expect(404).text(), "not here");
}

#[test]
fn response_is_a_status_or_that_of_the_uri() {
    let server = site(
        r#"
error_page = [
    { code = [404], uri = "/a.css", response = 200 },
    { code = [403], uri = "/a.css", response = "=" },
    { code = [410], uri = "/gone", response = "=" },
    { code = [402], uri = "/a.css", response = 499 },
]
[[http.server.location]]
path = "= /403"
return.code = 403
[[http.server.location]]
path = "= /410"
return.code = 410
[[http.server.location]]
path = "= /402"
return.code = 402
[[http.server.location]]
path = "= /gone"
return = { code = 404, text = "gone: $uri" }
"#,
    );
    assert_eq!(server.get("/none").expect(200).text(), "body {}");
    assert_eq!(server.get("/403").expect(200).text(), "body {}");
    assert_eq!(server.get("/410").expect(404).text(), "gone: /gone");
    assert_eq!(server.get("/402").expect(499).text(), "body {}");
}

#[test]
fn a_url_is_a_redirect_of_the_client() {
    let server = site(
        r#"
error_page = [
    { code = [404], uri = "https://example.com$request_uri" },
    { code = [403], uri = "http://$arg_h/x", response = 301 },
    { code = [410], uri = "http://a/", response = 200 },
]
[[http.server.location]]
path = "= /403"
return.code = 403
[[http.server.location]]
path = "= /410"
return.code = 410
"#,
    );
    let response = server.get("/none?x=1").expect(302);
    assert_eq!(response.field("Location"), Some("https://example.com/none?x=1"), "{response:?}");
    assert!(response.text().contains("<h1>302 Found</h1>") && response.head.starts_with("HTTP/1.1 302 Moved Temp"));
    assert_eq!(server.get("/403?h=b").expect(301).field("Location"), Some("http://b/x"));
    assert_eq!(server.get("/410").expect(302).field("Location"), Some("http://a/"));
}

#[test]
fn variables_and_arguments_in_the_uri() {
    let server = site(
        r#"
error_page = [{ code = [404], uri = "/error?from=$uri&x=1" }]
[[http.server.location]]
path = "= /error"
return = { code = 200, text = "$uri|$args|$request_method|$request_uri|$arg_from" }
"#,
    );
    assert_eq!(server.get("/no/ne?y").expect(404).text(), "/error|from=/no/ne&x=1|GET|/no/ne?y|/no/ne");
    let mut client = server.connect();
    client.send("PUT /none HTTP/1.0\r\n\r\n");
    // PUT is refused by static: the page is for 404 only.
    client.response().expect(405);
}

#[test]
fn a_variable_cannot_lead_out_of_the_root() {
    let server = Server::with(
        &[("secret", b"SECRET"), ("html/a", b"")],
        &format!("{SITE}error_page = [{{ code = [404], uri = \"/$arg_x\" }}]\n"),
    );
    let response = server.get("/none?x=../secret").expect(404);
    assert!(response.text().contains("<h1>404 Not Found</h1>"), "{response:?}");
    server.stderr(|log| log.contains("unsafe URI \"/../secret\" was detected"));
}

#[test]
fn the_list_of_an_inner_level_replaces_the_outer_one() {
    let server = site(
        r#"
error_page = [{ code = [404], uri = "/404.html" }, { code = [500, 503], uri = "/50x.html" }]
[[http.server.location]]
path = "/inner/"
error_page = [{ code = [403], uri = "/a.css" }]
[[http.server.location]]
path = "/none/"
error_page = []
[[http.server.location]]
path = "= /503"
return.code = 503
"#,
    );
    assert_eq!(server.get("/503").expect(503).text(), "sorry");
    assert_eq!(server.get("/x").expect(404).text(), "not here");
    assert!(server.get("/inner/x").expect(404).text().contains("<h1>404 Not Found</h1>"));
    assert!(server.get("/none/x").expect(404).text().contains("<h1>404 Not Found</h1>"));
}

#[test]
fn an_error_of_the_page_gets_the_servers_own() {
    let server =
        site("error_page = [{ code = [404], uri = \"/missing.html\" }, { code = [403], uri = \"/404.html\" }]\n");
    let response = server.get("/none").expect(404);
    assert!(response.text().contains("<h1>404 Not Found</h1>"), "{response:?}");
    let log = server.stderr(|log| log.matches("missing.html\" failed").count() == 1);
    assert_eq!(log.matches("/none\" failed").count(), 1, "{log}");
}

#[test]
fn recursive_error_pages() {
    let config = r#"
recursive_error_pages = RECURSIVE
error_page = [{ code = [404], uri = "/forbidden" }, { code = [403], uri = "/a.css" }]
[[http.server.location]]
path = "= /forbidden"
return.code = 403
"#;
    let server = site(&config.replace("RECURSIVE", "false"));
    assert!(server.get("/none").expect(403).text().contains("<h1>403 Forbidden</h1>"));
    let server = site(&config.replace("RECURSIVE", "true"));
    assert_eq!(server.get("/none").expect(403).text(), "body {}");
}

#[test]
fn error_pages_in_a_circle_end() {
    let server = site(
        "recursive_error_pages = true\nerror_page = [{ code = [404], uri = \"/none\" }, { code = [500], uri = \"/50x.html\" }]\n",
    );
    let response = server.get("/x").expect(500);
    assert!(response.text().contains("<h1>500 Internal Server Error</h1>"), "{response:?}");
    server.stderr(|log| {
        log.contains(
            "rewrite or internal redirection cycle while internally redirecting to \"/none\", client: 127.0.0.1",
        )
    });
}

#[test]
fn fields_of_the_error_stay() {
    let server = site(
        r#"
error_page = [{ code = [405], uri = "/404.html" }]
headers.add_header = [{ name = "X-Page", value = "$status", always = true }]
"#,
    );
    let mut client = server.connect();
    client.send("DELETE /a.css HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let response = client.response().expect(405);
    assert_eq!((response.text(), response.field("Allow")), ("not here", Some("GET, HEAD")), "{response:?}");
    assert_eq!(response.field("X-Page"), Some("405"), "{response:?}");
}

#[test]
fn bad_requests_get_the_page_of_the_default_server() {
    let server = site("error_page = [{ code = [400, 414, 405], uri = \"/404.html\" }]\n");
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GARBAGE\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
    ] {
        let mut client = server.connect();
        client.send(request);
        let response = client.response();
        assert!(matches!(response.status, 400 | 405), "{request:?}: {response:?}");
        assert_eq!((response.text(), response.field("Connection")), ("not here", Some("close")), "{request:?}");
        assert_eq!(client.end(), Ending::Closed);
    }
    let mut client = server.connect();
    client.send(format!("GET /{} HTTP/1.1\r\n", "x".repeat(9000)));
    assert_eq!(client.response().expect(414).text(), "not here");
}

#[test]
fn a_body_that_is_too_large_gets_its_page_while_it_is_sent() {
    let server = site(
        "client_max_body_size = 10\nerror_page = [{ code = [413], uri = \"/413\" }]\n\
         [[http.server.location]]\npath = \"= /413\"\nreturn = { code = 200, text = \"too much for $request_uri\" }\n",
    );
    let mut client = server.connect();
    client.send(format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(5000)));
    let response = client.response().expect(413);
    assert_eq!((response.text(), response.field("Connection")), ("too much for /up", Some("close")), "{response:?}");
    // The client goes on: the response is not lost to a reset.
    client.send("x".repeat(95000));
    client.finish();
    assert_eq!(client.end(), Ending::Closed);
}

#[test]
fn wrong_pages_are_refused() {
    let folder = support::Folder::with(FILES);
    let text = Server::fails_in(
        &folder,
        &format!(
            "{SITE}error_page = [{{ code = [401], uri = \"/x\" }}, {{ code = [404], uri = \"/x\" }}, {{ code = [600], uri = \"/x\" }}, \
             {{ code = [404] }}, {{ code = [404], uri = \"/x\", response = \"x\" }}]\n"
        ),
    );
    for part in [
        "http.server.error_page[2].code[0]: found 600, expected an integer from 300 to 599",
        "http.server.error_page[3].uri: missing, but required",
        "http.server.error_page[4].response: found \"x\", expected \"=\" or an integer from 200 to 599",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let text = Server::fails_in(
        &folder,
        &format!(
            "{SITE}error_page = [{{ code = [444], uri = \"/x\" }}, {{ code = [499], uri = \"/x\" }}, \
             {{ code = [404], uri = \"404.html\" }}, {{ code = [404], uri = \"/$nothing\" }}, {{ code = [], uri = \"/x\" }}]\n"
        ),
    );
    for part in [
        "error_page: found code 444, which closes the connection without a response",
        "error_page: found an empty list of codes, expected at least one",
        "error_page: found code 499, which closes the connection without a response",
        "error_page: found \"404.html\", expected \"/path\", \"@name\" or a URL such as \"https://example.com/\"",
        "error_page: unknown variable \"$nothing\"",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn internal_is_404_from_outside() {
    let server = site(
        r#"
error_page = [{ code = [404], uri = "/errors/404" }]
[[http.server.location]]
path = "/errors/"
internal = true
return = { code = 200, text = "page for $request_uri" }
"#,
    );
    assert_eq!(server.get("/none").expect(404).text(), "page for /none");
    assert_eq!(server.get("/errors/404").expect(404).text(), "page for /errors/404");
    let server = site("[[http.server.location]]\npath = \"= /index.html\"\ninternal = true\nroot = \"html\"\n");
    server.get("/index.html").expect(404);
    assert_eq!(server.get("/").expect(200).text(), "home", "by the redirect of index");
}

#[test]
fn a_named_location_gets_the_request_as_it_is() {
    let server = site(
        r#"
error_page = [{ code = [404], uri = "@fallback" }, { code = [403], uri = "@no${arg_x}where" }, { code = [405], uri = "@fallback", response = "=" }]
[[http.server.location]]
path = "@fallback"
return = { code = 202, text = "$request_method $uri?$args" }
[[http.server.location]]
path = "= /403"
return.code = 403
"#,
    );
    assert_eq!(server.get("/a/none?x=1").expect(404).text(), "GET /a/none?x=1");
    let mut client = server.connect();
    client.send("PUT /none HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.response().expect(202).text(), "PUT /none?");
    assert!(server.get("/403").expect(500).text().contains("<h1>500 Internal Server Error</h1>"));
    server.stderr(|log| log.contains("could not find named location \"@nowhere\""));
}

#[test]
fn a_bad_request_has_no_uri_for_a_named_location() {
    let server = site(
        "error_page = [{ code = [400], uri = \"@bad\" }]\n[[http.server.location]]\npath = \"@bad\"\nreturn = { code = 200, text = \"x\" }\n",
    );
    let mut client = server.connect();
    client.send("GARBAGE\r\n\r\n");
    client.response().expect(500);
    server.stderr(|log| log.contains("empty URI in redirect to named location \"@bad\""));
}

#[test]
fn named_locations_in_a_circle_end() {
    let server = site(
        "recursive_error_pages = true\nerror_page = [{ code = [404], uri = \"@a\" }]\n\
         [[http.server.location]]\npath = \"@a\"\nreturn.code = 404\n",
    );
    server.get("/none").expect(500);
    server.stderr(|log| {
        log.contains("rewrite or internal redirection cycle while redirect to named location \"@a\", client")
    });
}

#[test]
fn an_upstream_that_fails_is_replaced_by_another() {
    // Nobody listens there: connections are refused.
    let dead = Reserved::new();
    let server = Server::with(
        FILES,
        &format!(
            "module = [{{ name = \"return\" }}, {{ name = \"proxy\" }}, {{ name = \"round_robin\" }}]\n\
             [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nerror_page = [{{ code = [502], uri = \"@other\", response = \"=\" }}]\n\
             proxy.pass = \"http://127.0.0.1:{}\"\n\
             [[http.server.location]]\npath = \"@other\"\nproxy.pass = \"http://127.0.0.1:PORT2\"\n\
             [[http.server]]\nlisten = [\"127.0.0.1:PORT2\"]\nreturn = {{ code = 200, text = \"$request_method $request_uri $content_length\" }}\n",
            dead.port
        ),
    );
    let mut client = server.connect();
    client.send("POST /up?x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.response().expect(200).text(), "POST /up?x 4");
}

/// The field belongs to the status 405, and goes with it.
#[test]
fn what_took_the_place_of_405_says_nothing_of_methods() {
    for (response, uri, status, allow) in [
        ("", "/404.html", 405, Some("GET, HEAD")),
        (", response = 200", "/404.html", 200, None),
        (", response = \"=\"", "/404.html", 200, None),
        ("", "https://elsewhere/", 302, None),
    ] {
        let server = site(&format!("error_page = [{{ code = [405], uri = \"{uri}\"{response} }}]\n"));
        let mut client = server.connect();
        client.send("POST /a.css HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        let answer = client.response().expect(status);
        assert_eq!(answer.field("Allow"), allow, "{response} {uri}: {answer:?}");
    }
}

#[test]
fn a_uri_that_the_requests_memory_cannot_hold_costs_that_request_only() {
    let server = Server::with(
        &[("html/a", b"a")],
        r#"
module = [{ name = "static" }]
[http]
large_client_header_buffers = { number = 4, size = "512k" }
[[http.server]]
listen = ["127.0.0.1:PORT"]
root = "html"
error_page = [{ code = [404], uri = "/none?from=$request_uri&again=$request_uri&and=$request_uri" }]
"#,
    );
    let mut client = server.connect();
    let long = "a".repeat(450_000);
    client.send(format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client.response().expect(500);
    server.stderr(|log| log.contains("the pool of a request is full"));
    assert_eq!(server.get("/a").expect(200).text(), "a");
}

#[test]
fn a_head_that_is_too_large_has_the_pages_of_431_and_of_494() {
    for code in [431, 494] {
        let server = site(&format!("error_page = [{{ code = [{code}], uri = \"/404.html\" }}]\n"));
        let response = server.get_with("/", &format!("A: {}\r\n", "a".repeat(9000))).expect(431);
        assert_eq!(response.text(), "not here", "{code}");
        server.stdout(|log| log.contains("\" 431 8 "));
    }
    let server = site("error_page = [{ code = [414], uri = \"/404.html\" }]\n");
    assert_eq!(server.get(&format!("/{}", "a".repeat(9000))).expect(414).text(), "not here");
}

#[test]
fn a_client_that_is_too_slow_gets_no_page_either() {
    let server = proxying(
        r#"
client_body_timeout = "200ms"
error_page = [{ code = [408], uri = "/404.html" }]
[[http.server.location]]
path = "/none/"
proxy.pass = "http://127.0.0.1:1"
"#,
    );
    let mut client = server.connect();
    client.send("POST /none/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel");
    assert_eq!(client.end(), Ending::Closed);
    server.stdout(|log| log.contains("\"POST /none/ HTTP/1.1\" 408 0 "));
}

#[test]
fn a_body_that_breaks_off_halfway_has_an_error_page_of_an_upstream() {
    let peer = Peer::new();
    let server = proxying(&format!(
        r#"
error_page = [{{ code = [400, 413], uri = "/bad/page" }}]
client_max_body_size = 10
[[http.server.location]]
path = "/up/"
proxy.pass = "http://127.0.0.1:{port}"
[[http.server.location]]
path = "/bad/"
proxy.pass = "http://127.0.0.1:{port}"
"#,
        port = peer.port
    ));
    let mut client = server.connect();
    client.send("POST /up/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    client.send("x\r\nGET /forged HTTP/1.1\r\nHost: a\r\n\r\n");
    // The page is asked for without what had come of the body.
    let mut connection = peer.accept();
    let host = format!("Host: 127.0.0.1:{}\r\n", peer.port);
    assert_eq!(connection.head(), format!("GET /bad/page HTTP/1.1\r\n{host}Content-Length: 0\r\n\r\n"));
    connection.reply("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad");
    assert_eq!(client.response().expect(400).text(), "bad");
    assert_eq!(client.end(), Ending::Closed);
    // Too large: as announced, and as it comes.
    for body in ["Content-Length: 11\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n"] {
        let mut client = server.connect();
        client.send(format!("POST /up/ HTTP/1.1\r\nHost: a\r\n{body}"));
        assert!(connection.answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbig").starts_with("GET /bad/page "));
        assert_eq!(client.response().expect(413).text(), "big");
    }
    peer.expect_no_connection();
}
