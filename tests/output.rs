//! How responses leave: what waits for more, and what their end is.

#[path = "support/build.rs"]
mod build;
mod support;

use support::proxied::{GET, TOP, at_peer, proxied};
use support::{Ending, Server};

/// A server with the module of tests/modules/wakes.
fn wakes(lines: &str) -> Server {
    Server::start(&format!(
        "module = [{{ name = \"wakes\", path = {:?} }}]\n\
         [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nwakes = {{}}\n{lines}\n",
        build::module("wakes")
    ))
}

#[test]
fn postpone_output() {
    // What has left before its handler failed is all that its client sees.
    let seen = |lines: &str| {
        let server = wakes(lines);
        let mut client = server.connect();
        client.send("GET /?do=part HTTP/1.0\r\n\r\n");
        let (text, ending) = client.rest_and_end();
        assert_eq!(ending, Ending::Reset, "{text}");
        text
    };
    assert_eq!(seen(""), "");
    let text = seen("postpone_output = 0");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\npart"), "{text}");
}

#[test]
fn chunked_transfer_encoding_false_ends_by_the_end_of_the_connection() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let (peer, server) = proxied("chunked_transfer_encoding = false");
    let (mut client, mut connection) = at_peer(&peer, &server, GET);
    connection.reply(CHUNKED);
    let text = client.rest();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "hello");
    assert!(head.contains("\r\nConnection: close"), "{head}");
    assert!(!head.contains("Transfer-Encoding") && !head.contains("Content-Length"), "{head}");
    // HEAD's answer has no end to be told.
    client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    connection.answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    let head = client.response_to("HEAD").expect(200);
    assert_eq!((head.field("Transfer-Encoding"), head.field("Connection")), (None, None), "{head:?}");
    client.send(GET);
    connection.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.response().expect(200).text(), "ok");
    // Compressed, the length is not known either.
    let zipped = format!(
        "{TOP}[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nchunked_transfer_encoding = false\n\
         gzip = {{ enabled = true, types = [\"*\"] }}\nreturn = {{ code = 200, text = \"{}\" }}\n",
        "hello ".repeat(100)
    );
    let server = Server::start(&zipped);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    let head = client.head().unwrap();
    assert_eq!((head.field("Content-Encoding"), head.field("Connection")), (Some("gzip"), Some("close")), "{head:?}");
    assert_eq!((head.field("Transfer-Encoding"), head.field("Content-Length")), (None, None), "{head:?}");
    let (_, ending) = client.rest_and_end();
    assert_eq!(ending, Ending::Closed);
}

#[test]
fn a_filter_that_refuses_the_error_page_of_the_configuration() {
    let server = wakes(
        "error_page = [{ code = [404], uri = \"/page?do=refuse\" }]\n\
         [[http.server.location]]\npath = \"= /none\"\ninternal = true\n",
    );
    let mut client = server.connect();
    client.send("GET /none HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response().expect(500);
    assert!(response.text().contains("500 Internal Server Error"), "{response:?}");
    server.get("/").expect(200);
    // HEAD has no body then either.
    let mut client = server.connect();
    client.send("HEAD /none HTTP/1.1\r\nHost: a\r\n\r\n");
    client.response_to("HEAD").expect(500);
    assert_eq!(client.end(), Ending::Closed);
}
