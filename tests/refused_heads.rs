//! Requests that are refused for their heads: what is sent, and what is logged.

mod support;

use support::{Ending, Server};

const SITE: &str = r#"
module = [{ name = "return" }, { name = "static" }]
error_log = { level = "info" }
[http.log_format]
refused = "$status $host $server_name $request_length $request"
[[http.server]]
listen = ["127.0.0.1:PORT"]
server_name = ["first.test"]
access_log = { format = "refused" }
return = { code = 200, text = "$request" }
[[http.server]]
listen = ["127.0.0.1:PORT"]
server_name = ["second.test"]
access_log = { format = "refused" }
return = { code = 200, text = "second" }
"#;

/// Heads, and what they are answered with.
fn heads(method: &str) -> Vec<(u16, String)> {
    let long = "x".repeat(9000);
    let fields = "X: y\r\n".repeat(200);
    vec![
        (400, format!("{method} /../x HTTP/1.1\r\nHost: a\r\n\r\n")),
        (400, format!("{method} / HTTP/1.1\r\n\r\n")),
        (400, format!("{method} / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n")),
        (400, format!("\r\n{method} / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n")),
        (400, format!("{method} /\x01 HTTP/1.1\r\nHost: a\r\n\r\n")),
        (400, format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n")),
        (505, format!("{method} / HTTP/2.0\r\nHost: a\r\n\r\n")),
        (414, format!("{method} /{long} HTTP/1.1\r\n")),
        (431, format!("{method} / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n")),
        (431, format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")),
    ]
}

#[test]
fn head_gets_no_body_whatever_is_wrong_with_it() {
    let page = "error_page = [{ code = [400, 414, 431, 505], uri = \"/page.html\" }]\nroot = \"html\"";
    let with_page = SITE.replace("return = { code = 200, text = \"$request\" }", page);
    for (config, length) in [(SITE, None), (&with_page, Some("4"))] {
        let server = Server::with(&[("html/page.html", b"page")], config);
        for (status, head) in heads("HEAD") {
            let mut client = server.connect();
            client.send(&head);
            let response = client.response_to("HEAD").expect(status);
            assert!(response.field("Content-Length").is_some_and(|is| length.is_none_or(|length| is == length)));
            assert_eq!(response.field("Connection"), Some("close"), "{head}");
            client.finish();
            assert_eq!(client.end(), Ending::Closed, "{head}");
        }
        // Others have one.
        for (status, head) in heads("GET") {
            let mut client = server.connect();
            client.send(&head);
            assert!(!client.response().expect(status).body.is_empty(), "{head}");
        }
    }
}

#[test]
fn logs_have_the_servers_name_and_the_bytes_that_were_read() {
    let server = Server::start(SITE);
    for (at, (status, head)) in heads("GET").into_iter().enumerate() {
        let mut client = server.connect();
        client.send(&head);
        client.response().expect(status);
        let log = server.stdout(|log| log.lines().count() > at);
        let line = log.lines().nth(at).unwrap();
        assert!(line.starts_with(&format!("{status} first.test first.test ")), "{line}");
        let length: usize = line.split(' ').nth(3).unwrap().parse().unwrap();
        // Of a large one less may have been read; all of a small one has.
        assert!(length <= head.len() && (length == head.len() || head.len() > 1000 && length > 1000), "{line}");
        assert!(line.split(' ').nth(4) == Some("GET"), "{line}");
    }
}

#[test]
fn trace_is_refused_by_the_server_that_it_asks_for() {
    let server = Server::start(SITE);
    for (host, fields) in [("first.test", ""), ("second.test", "Content-Length: 4\r\n"), ("other.test", "")] {
        let mut client = server.connect();
        client.send(format!("TRACE /x HTTP/1.1\r\nHost: {host}\r\nCookie: secret\r\n{fields}\r\n"));
        let response = client.response().expect(405);
        assert_eq!(response.field("Connection"), Some("close"), "{response:?}");
        assert!(response.text().contains("405 Not Allowed"), "{response:?}");
        client.finish();
        assert_eq!(client.end(), Ending::Closed);
    }
    let log = server.stdout(|log| log.lines().count() == 3);
    let starts: Vec<&str> = log.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
    assert_eq!(starts, ["first.test", "second.test", "first.test"], "{log}");
    server.stderr(|log| log.matches("client sent TRACE (405), client: ").count() == 3);
}

#[test]
fn trace_does_not_reach_a_peer() {
    let peer = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    peer.set_nonblocking(true).unwrap();
    let server = Server::start(&format!(
        "module = [{{ name = \"proxy\" }}, {{ name = \"round_robin\" }}]\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n\
         proxy.pass = \"http://{}\"\n",
        peer.local_addr().unwrap()
    ));
    let mut client = server.connect();
    client.send("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.response().expect(405);
    assert!(peer.accept().is_err(), "a connection to the peer");
}

#[test]
fn names_in_other_letters_are_an_error() {
    let errors = Server::fails(
        "[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nserver_name = [\"t\u{e9}st.test\", \"xn--tst-bma.test\"]\n",
    );
    assert!(errors.contains("plugins.toml:3:16: http.server.server_name[0]: found \"t\u{e9}st.test\""), "{errors}");
    assert!(errors.contains("punycode form \"xn--...\"") && errors.trim_end().lines().count() == 1, "{errors}");
}
