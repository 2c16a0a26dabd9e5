//! Redirects of the server's own: `absolute_redirect` and what goes with it.

mod support;

use support::{Folder, Server};

fn site(lines: &str) -> Server {
    let folder = Folder::with(&[("html/dir/x", b"x")]);
    Server::start_in(
        folder,
        &format!(
            r#"
module = [{{ name = "return" }}, {{ name = "static" }}, {{ name = "proxy" }}, {{ name = "round_robin" }}]
[[http.server]]
listen = ["127.0.0.1:PORT"]
server_name = ["the.server", "other.name"]
root = "html"
{lines}
[[http.server.location]]
path = "= /path"
return = {{ code = 307, url = "/new?x=$arg_x" }}
[[http.server.location]]
path = "= /url"
return = {{ url = "https://elsewhere/" }}
[[http.server.location]]
path = "= /relative"
return = {{ url = "beside" }}
[[http.server.location]]
path = "/up stream/"
proxy.pass = "http://127.0.0.1:1"
"#
        ),
    )
}

/// The Location of the answer to a request with this Host field.
fn location(server: &Server, path: &str, host: &str) -> String {
    let mut client = server.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    client.response().field("Location").unwrap().replace(&server.port.to_string(), "PORT")
}

#[test]
fn redirects_are_absolute() {
    let server = site("");
    assert_eq!(location(&server, "/dir?q", "Example.com:99"), "http://example.com:PORT/dir/?q");
    assert_eq!(location(&server, "/path?x=1", "other.name"), "http://other.name:PORT/new?x=1");
    assert_eq!(location(&server, "/path", "[::1]:1"), "http://[::1]:PORT/new?x=");
    assert_eq!(location(&server, "/up%20stream?q", "a"), "http://a:PORT/up%20stream/?q");
    assert_eq!(location(&server, "/url", "a"), "https://elsewhere/");
    assert_eq!(location(&server, "/relative", "a"), "beside");
}

#[test]
fn without_a_host_it_is_the_address() {
    let server = site("");
    let mut client = server.connect();
    client.send("GET /dir HTTP/1.0\r\n\r\n");
    let response = client.response().expect(301);
    assert_eq!(response.field("Location"), Some(format!("http://127.0.0.1:{}/dir/", server.port).as_str()));
    let mut client = server.connect();
    client.send("GET http://asked.for:1/dir HTTP/1.0\r\n\r\n");
    let response = client.response().expect(301);
    assert_eq!(response.field("Location"), Some(format!("http://asked.for:{}/dir/", server.port).as_str()));
}

#[test]
fn port_name_and_absolute_can_be_switched() {
    let server = site("port_in_redirect = false");
    assert_eq!(location(&server, "/dir", "a"), "http://a/dir/");
    assert_eq!(location(&server, "/up%20stream", "a"), "http://a/up%20stream/");
    let server = site("server_name_in_redirect = true");
    assert_eq!(location(&server, "/dir", "a"), "http://the.server:PORT/dir/");
    assert_eq!(location(&server, "/up%20stream", "a"), "http://the.server:PORT/up%20stream/");
    let server = site("absolute_redirect = false");
    assert_eq!(location(&server, "/dir", "a"), "/dir/");
    assert_eq!(location(&server, "/up%20stream", "a"), "/up%20stream/");
    assert_eq!(location(&server, "/path?x=1", "a"), "/new?x=1");
}
