//! Fixed answers: `return`.

mod support;

use support::{Ending, Server};

#[test]
fn codes_texts_and_urls() {
    let server = Server::start(
        r#"
module = [{ name = "return" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
[[http.server.location]]
path = "/text"
return = { code = 200, text = "hello\n" }
[[http.server.location]]
path = "/created"
return = { code = 201, text = "made" }
[[http.server.location]]
path = "/teapot"
return = { code = 418, text = "short" }
[[http.server.location]]
path = "/busy"
return = { code = 503 }
[[http.server.location]]
path = "/none"
return = { code = 204 }
[[http.server.location]]
path = "/empty"
return = { code = 200 }
[[http.server.location]]
path = "/same"
return = { code = 304 }
[[http.server.location]]
path = "/gone"
return = { code = 410 }
[[http.server.location]]
path = "/moved"
return = { code = 301, url = "https://$host/new$uri" }
[[http.server.location]]
path = "/found"
return = { url = "/elsewhere" }
[[http.server.location]]
path = "/kept"
return = { code = 308, url = "/kept" }
"#,
    );
    let answer = |path: &str| {
        let response = server.get(path);
        let field = |name: &str| response.field(name).unwrap_or("-").to_owned();
        let title = response.text().split_once("<h1>").and_then(|(_, rest)| rest.split_once("</h1>"));
        let text = title.map_or(response.text(), |(title, _)| title);
        format!("{} {} {} {text}", response.status, field("Content-Length"), field("Location"))
    };
    assert_eq!(answer("/text"), "200 6 - hello\n");
    assert_eq!(answer("/created"), "201 4 - made");
    assert_eq!(answer("/teapot"), "418 5 - short");
    assert_eq!(answer("/busy"), "503 180 - 503 Service Temporarily Unavailable");
    assert_eq!(answer("/none"), "204 - - ");
    assert_eq!(answer("/empty"), "200 0 - ");
    assert_eq!(answer("/same"), "304 - - ");
    assert!(answer("/gone").ends_with(" - 410 Gone"), "{}", answer("/gone"));
    assert!(answer("/moved").ends_with(" https://localhost/new/moved 301 Moved Permanently"), "{}", answer("/moved"));
    assert!(answer("/found").ends_with("/elsewhere 302 Found"), "{}", answer("/found"));
    assert!(answer("/kept").ends_with("/kept 308 Permanent Redirect"), "{}", answer("/kept"));
    assert!(answer("/unknown").ends_with(" - 404 Not Found"), "{}", answer("/unknown"));
    // The connection survives each of them.
    let mut client = server.connect();
    for path in ["/none", "/same", "/empty", "/busy", "/moved", "/text"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.response();
    }
}

#[test]
fn code_444_says_nothing() {
    let server = Server::start(
        "module = [{ name = \"return\" }]\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nreturn.code = 444\n",
    );
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.end(), Ending::Closed);
    server.stdout(|log| log.contains("\"GET / HTTP/1.1\" 444 0 "));
    let server = Server::start(
        "module = [{ name = \"return\" }]\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nreturn.code = 444\n\
         reset_timedout_connection = true\n",
    );
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.end(), Ending::Reset);
}

#[test]
fn the_status_in_the_text() {
    let server = Server::start(
        "module = [{ name = \"return\" }]\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n\
         return = { code = 202, text = \"s=$status\" }\n",
    );
    assert_eq!(server.get("/").expect(202).text(), "s=202");
}

#[test]
fn variables_in_the_text() {
    let server = Server::start(
        r#"
module = [{ name = "return" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
server_name = ["the.server"]
default_type = "application/json"
return = { code = 200, text = "$request_method|$uri|$args|$is_args|${arg_x}y|$http_x_y|$cookie_c|$host|$server_name|$server_protocol|$scheme|$remote_addr|$server_port|$request_uri|$connection_requests|$request|$http_none" }
"#,
    );
    let mut client = server.connect();
    client.send("GET /a%20b/../c?x=1&z HTTP/1.1\r\nHost: Any.Host:81\r\nX-Y: v w\r\nCookie: a=b; c=d\r\n\r\n");
    let response = client.response().expect(200);
    let expected = format!(
        "GET|/c|x=1&z|?|1y|v w|d|any.host|the.server|HTTP/1.1|http|127.0.0.1|{}|/a%20b/../c?x=1&z|1|GET /a%20b/../c?x=1&z HTTP/1.1|",
        server.port
    );
    assert_eq!(response.text(), expected);
    assert_eq!(response.field("Content-Type"), Some("application/json"));
    client.send("GET /c HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(client.response().text().contains("|2|GET /c HTTP/1.1|"));
}

#[test]
fn a_line_break_in_a_variable_makes_no_header() {
    let server = Server::start(
        r#"
module = [{ name = "return" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
return = { code = 302, url = "$uri" }
"#,
    );
    let response = server.get("/a%0d%0aSet-Cookie:%20evil=1").expect(500);
    assert!(!response.head.contains("evil"), "{response:?}");
    assert_eq!(server.get("/fine").expect(302).field("Location"), Some(server.url("/fine").as_str()));
}

#[test]
fn the_servers_return_comes_before_all_locations() {
    let server = Server::start(
        r#"
module = [{ name = "return" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
return = { code = 200, text = "server" }
[[http.server.location]]
path = "/x"
return = { code = 200, text = "location" }
"#,
    );
    assert_eq!(server.get("/x").text(), "server");
}

/// nginx: return belongs to the location in which it is written.
#[test]
fn a_return_says_nothing_of_the_locations_inside() {
    let server = Server::with(
        &[("html/a/b/file", b"the file")],
        r#"
module = [{ name = "return" }, { name = "static" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
root = "html"
[[http.server.location]]
path = "/a/"
return = { code = 200, text = "outer" }
[[http.server.location.location]]
path = "/a/b/"
[[http.server.location.location]]
path = "/a/c/"
return = { code = 200, text = "inner" }
"#,
    );
    for (path, text) in [("/a/x", "outer"), ("/a/b/file", "the file"), ("/a/c/", "inner")] {
        assert_eq!(server.get(path).expect(200).text(), text);
    }
    let text = Server::fails("module = [{ name = \"return\" }]\nhttp.return = { code = 204 }\n[[http.server]]\n");
    assert_eq!(text, "plugins.toml:2:6: http.return: not valid here; this module is valid in server, location\n");
}
