//! HTTP/1.x on a client's connection: what is answered, what is refused, and when a connection stays open.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use support::{Client, Ending, Folder, PATIENCE, Server, eventually, files};

/// Answers everything with the method and the URI.
const ECHO: &str = r#"
module = [{ name = "return" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
return = { code = 200, text = "$request_method $request_uri" }
"#;

/// Sends everything to the address `PEER`; bodies may have 1000 bytes.
const PROXY: &str = r#"
module = [{ name = "proxy" }, { name = "round_robin" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
client_max_body_size = 1000
proxy.pass = "http://PEER"
"#;

/// Answers without a look at the body: texts, files, redirects, errors.
const JUNK: &str = r#"
module = [{ name = "return" }, { name = "static" }]
error_log = { level = "info" }
[[http.server]]
listen = ["127.0.0.1:PORT"]
root = "html"
[[http.server.location]]
path = "/return"
return = { code = 200, text = "$request_method $request_uri" }
[[http.server.location]]
path = "/moved"
return = { code = 301, url = "/new" }
[[http.server.location]]
path = "/empty"
return.code = 200
[[http.server.location]]
path = "/403"
return.code = 403
[[http.server.location]]
path = "/503"
return.code = 503
[[http.server.location]]
path = "/paged/"
error_page = [{ code = [400], uri = "/page" }, { code = [404], uri = "/f" }]
"#;

fn get(uri: &str) -> String {
    format!("GET {uri} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// A server behind the server: for one connection, it reads up to `end` and answers 200. Gives what it has read.
fn peer(end: &'static str) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !request.ends_with(end.as_bytes()) {
            let n = stream.read(&mut buffer).unwrap();
            assert!(n > 0, "the request ends early: {:?}", String::from_utf8_lossy(&request));
            request.extend_from_slice(&buffer[..n]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndone").unwrap();
        String::from_utf8(request).unwrap()
    });
    (address, thread)
}

fn proxy(peer: SocketAddr) -> Server {
    Server::start(&PROXY.replace("PEER", &peer.to_string()))
}

// ---- connections that stay open

#[test]
fn get_get_get_on_one_connection() {
    let server = Server::start(ECHO);
    let mut client = server.connect();
    for uri in ["/one", "/two", "/three?x=1"] {
        client.send(get(uri));
        let response = client.response().expect(200);
        assert_eq!(response.text(), format!("GET {uri}"));
        assert_eq!(response.field("Connection"), None, "{response:?}");
    }
    client.send("GET /last HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n");
    assert_eq!(client.response().field("Connection"), Some("close"));
    assert_eq!(client.end(), Ending::Closed);
}

#[test]
fn a_thousand_requests_in_one_write() {
    let server = Server::start(&ECHO.replace("[[http.server]]", "http.keepalive_requests = 5000\n[[http.server]]"));
    let mut client = server.connect();
    let requests: String = (0..1000).map(|i| get(&format!("/{i}"))).collect();
    let mut writer = client.stream.try_clone().unwrap();
    let sending = thread::spawn(move || writer.write_all(requests.as_bytes()).unwrap());
    for i in 0..1000 {
        assert_eq!(client.response().text(), format!("GET /{i}"));
    }
    sending.join().unwrap();
    client.finish();
    assert_eq!(client.end(), Ending::Closed);
}

#[test]
fn a_head_byte_by_byte() {
    let server = Server::start(ECHO);
    let mut client = server.connect();
    client.send_pieces(get("/slow").as_bytes().chunks(1));
    assert_eq!(client.response().text(), "GET /slow");
    client.send_pieces(get("/again").as_bytes().chunks(1));
    assert_eq!(client.response().text(), "GET /again");
}

#[test]
fn empty_lines_before_a_request_are_ignored() {
    let server = Server::start(ECHO);
    let mut client = server.connect();
    client.send(format!("\r\n\r\n{}\r\n{}", get("/a"), get("/b")));
    assert_eq!(client.response().text(), "GET /a");
    assert_eq!(client.response().text(), "GET /b");
}

#[test]
fn a_half_closed_client_gets_its_responses() {
    let server = Server::start(ECHO);
    let mut client = server.connect();
    client.send(get("/a") + &get("/b"));
    client.finish();
    assert_eq!(client.response().text(), "GET /a");
    assert_eq!(client.response().text(), "GET /b");
    assert_eq!(client.end(), Ending::Closed);
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let server = Server::start(ECHO);
    let mut client = server.connect();
    client.send("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.response_to("HEAD").expect(200);
    assert_eq!(head.field("Content-Length"), Some("7"), "{head:?}");
    client.send(get("/next"));
    assert_eq!(client.response().text(), "GET /next");
}

#[test]
fn http_1_0_closes_unless_it_asks_for_more() {
    let server = Server::start(ECHO);
    let mut client = server.connect();
    client.send("GET /a HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().field("Connection"), Some("close"));
    assert_eq!(client.end(), Ending::Closed);

    let mut client = server.connect();
    client.send("GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    assert_eq!(client.response().field("Connection"), Some("keep-alive"));
    client.send("GET /b HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().text(), "GET /b");
    assert_eq!(client.end(), Ending::Closed);
}

#[test]
fn a_whole_url_as_the_target() {
    let server = Server::start(
        r#"
module = [{ name = "return" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
return = { code = 200, text = "$host $uri $args" }
"#,
    );
    let mut client = server.connect();
    for (target, expected) in [
        ("http://Example.org/a%20b?c=d", "example.org /a b c=d"),
        ("http://example.org:81/", "example.org / "),
        ("http://example.org", "example.org / "),
        ("HTTP://example.org?q", "example.org / q"),
        ("https://[::1]:8080/x", "[::1] /x "),
    ] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: other\r\n\r\n"));
        assert_eq!(client.response().expect(200).text(), expected, "{target}");
    }
}

#[test]
fn the_host_chooses_the_server() {
    let server = Server::start(
        r#"
module = [{ name = "return" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
server_name = ["one.example"]
return = { code = 200, text = "one" }
[[http.server]]
listen = ["127.0.0.1:PORT", "127.0.0.1:PORT2"]
server_name = ["two.example"]
return = { code = 200, text = "two" }
"#,
    );
    let mut client = server.connect();
    for (host, expected) in [
        ("one.example", "one"),
        ("two.example", "two"),
        ("TWO.Example:8080", "two"),
        ("two.example.", "two"),
        ("three.example", "one"),
    ] {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.response().text(), expected, "{host}");
    }
    let mut client = Client::connect(server.address2());
    client.send("GET / HTTP/1.1\r\nHost: one.example\r\n\r\n");
    assert_eq!(client.response().text(), "two", "the only server of its address");
}

#[test]
fn options_asterisk() {
    // As nginx.
    let server = Server::start(ECHO);
    server.request("OPTIONS", "*", "").expect(400);
}

#[test]
fn the_server_tells_its_version_unless_server_tokens_is_off() {
    let version = concat!("topnext/", env!("CARGO_PKG_VERSION"));
    let server = Server::start(
        r#"
[[http.server]]
listen = ["127.0.0.1:PORT"]
[[http.server.location]]
path = "/off"
server_tokens = false
"#,
    );
    let response = server.get("/").expect(404);
    assert!(response.field("Server") == Some(version) && response.text().contains(version), "{response:?}");
    let response = server.get("/off").expect(404);
    assert_eq!(response.field("Server"), Some("topnext"), "{response:?}");
    assert!(!response.text().contains(version) && response.text().contains("topnext"), "{response:?}");
    assert!(httpdate::parse_http_date(response.field("Date").unwrap()).is_ok(), "{response:?}");
}

// ---- bodies

#[test]
fn a_body_that_nobody_wants_is_skipped() {
    let server = Server::start(ECHO);
    let mut client = server.connect();
    client.send(format!("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world{}", get("/b")));
    assert_eq!(client.response().text(), "POST /a");
    assert_eq!(client.response().text(), "GET /b");
    let chunked =
        "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: v\r\n\r\n";
    client.send(format!("{chunked}{}", get("/d")));
    assert_eq!(client.response().text(), "POST /c");
    assert_eq!(client.response().text(), "GET /d");
    client.send_pieces(format!("{chunked}{}", get("/e")).as_bytes().chunks(1));
    assert_eq!(client.response().text(), "POST /c");
    assert_eq!(client.response().text(), "GET /e");
}

#[test]
fn a_body_that_comes_late_is_skipped() {
    let server = Server::start(ECHO);
    let mut client = server.connect();
    let body = vec![b'x'; 300_000];
    client.send(format!("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
    assert_eq!(client.response().text(), "POST /a");
    client.send(body);
    client.send(get("/b"));
    assert_eq!(client.response().text(), "GET /b");
}

#[test]
fn a_body_by_length_reaches_the_peer() {
    let (address, peer) = peer("hello world");
    let server = proxy(address);
    let mut client = server.connect();
    client.send("POST /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world");
    assert_eq!(client.response().expect(200).text(), "done");
    let request = peer.join().unwrap();
    assert!(request.starts_with("POST /x?y HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nContent-Length: 11\r\n"), "{request}");
}

#[test]
fn a_chunked_body_byte_by_byte_reaches_the_peer() {
    let (address, peer) = peer("hello world");
    let server = proxy(address);
    let mut client = server.connect();
    client.send_pieces(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n05\r\nworld\r\n0\r\n\r\n"
            .chunks(1),
    );
    assert_eq!(client.response().expect(200).text(), "done");
    let request = peer.join().unwrap();
    assert!(request.ends_with("\r\n\r\nhello world"), "{request}");
    assert!(request.contains("\r\nContent-Length: 11\r\n"), "{request}");
}

#[test]
fn expect_100_continue() {
    let (address, peer) = peer("hello");
    let server = proxy(address);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    let head = client.response_to("HEAD");
    assert_eq!(head.head, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    assert_eq!(client.response().expect(200).text(), "done");
    peer.join().unwrap();
}

#[test]
fn no_100_continue_if_the_body_is_there_or_for_http_1_0() {
    for version in ["1.1", "1.0"] {
        let (address, peer) = peer("hello");
        let server = proxy(address);
        let mut client = server.connect();
        let head = format!("POST / HTTP/{version}\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
        client.send(if version == "1.1" { head.clone() + "hello" } else { head });
        if version == "1.0" {
            client.send("hello");
        }
        assert_eq!(client.response().expect(200).text(), "done");
        peer.join().unwrap();
    }
}

#[test]
fn a_client_that_waits_for_100_in_vain_gets_its_answer_and_no_more() {
    let server = Server::start(ECHO);
    let head = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 47\r\nExpect: 100-continue\r\n\r\n";
    let mut client = server.connect();
    client.send(head);
    let response = client.response_to("POST").expect(200);
    assert_eq!(response.field("Connection"), Some("close"), "{response:?}");
    // What comes now may be the body or a request: it is neither answered nor mistaken.
    client.try_send(get("/smuggled"));
    client.finish();
    assert_eq!(client.end(), Ending::Closed);
    // A body that is there already leaves no doubt.
    let mut client = server.connect();
    client.send(format!("{head}{}{}", "x".repeat(47), get("/b")));
    assert_eq!(client.response_to("POST").field("Connection"), None);
    assert_eq!(client.response().text(), "GET /b");
}

#[test]
fn a_client_that_expects_100_for_an_empty_body_waits_for_nothing() {
    let server = Server::start(ECHO);
    let mut client = server.connect();
    for framing in ["Content-Length: 0\r\n", ""] {
        client.send(format!("POST /a HTTP/1.1\r\nHost: a\r\n{framing}Expect: 100-continue\r\n\r\n"));
        assert_eq!(client.response_to("POST").expect(200).field("Connection"), None);
    }
    client.send(get("/b"));
    assert_eq!(client.response().text(), "GET /b");
}

#[test]
fn a_body_that_is_too_large_gets_413() {
    let server = Server::start(
        r#"
module = [{ name = "return" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
client_max_body_size = 1000
[[http.server.location]]
path = "/"
return = { code = 200, text = "fits" }
[[http.server.location]]
path = "/large/"
client_max_body_size = "1m"
return = { code = 200, text = "fits" }
"#,
    );
    let mut client = server.connect();
    // It is sent all the same: the answer must not be lost to a reset.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000001\r\n\r\n");
    client.try_send(vec![b'x'; 1_000_001]);
    let response = client.response_to("POST").expect(413);
    assert_eq!(response.field("Connection"), Some("close"), "{response:?}");
    client.finish();
    assert_eq!(client.end(), Ending::Closed);
    let mut client = server.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{}", "x".repeat(1000)));
    client.response_to("POST").expect(200);
    client.send(format!("POST /large/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n{}", "x".repeat(1001)));
    client.response_to("POST").expect(200);
}

#[test]
fn a_chunked_body_that_is_too_large_gets_413() {
    let server = proxy(SocketAddr::from(([127, 0, 0, 1], 9)));
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..11 {
        client.try_send(format!("64\r\n{}\r\n", "x".repeat(100)));
    }
    client.response_to("POST").expect(413);
    client.finish();
    assert_eq!(client.end(), Ending::Closed);
}

#[test]
fn junk_in_a_chunked_body_gets_400() {
    let server = proxy(SocketAddr::from(([127, 0, 0, 1], 9)));
    for body in [
        "x\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\n",
        " 1\r\n",
        "\r\n",
        "ffffffffffffffffff\r\n",
        "1\nx\r\n",
        "1\rx\r\n",
        "1\r\nxy\r\n",
        "1;\r\nx\r\n",
        "1;a b\r\nx\r\n",
        "1;\x01=b\r\nx\r\n",
        "1\r\nx\n0\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\nA : b\r\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nHost: b\r\n\r\n",
        "0\r\nA: \x01\r\n\r\n",
        "0\r\nA: b\n\r\n",
    ] {
        let mut client = server.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        let response = client.response_to("POST");
        assert_eq!(response.status, 400, "{body:?}: {response:?}");
        client.finish();
        assert_eq!(client.end(), Ending::Closed, "{body:?}");
    }
}

#[test]
fn junk_in_a_chunked_body_that_nobody_wants_gets_400() {
    let folder = Folder::with(&[("html/f", b"file"), ("html/page", b"page")]);
    let server = Server::start_in(folder, JUNK);
    let bodies = ["x\r\n", "zz\r\n", "-1\r\n", "fffffffffffffffff\r\n", "5\r\nhelloGET", "1\nx\r\n0\r\n\r\n"];
    for request in ["POST /return", "GET /f", "HEAD /f", "GET /none", "GET /moved", "GET /empty", "GET /403"] {
        let method = request.split(' ').next().unwrap();
        let head = format!("{request} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for body in bodies {
            let mut client = server.connect();
            client.send(format!("{head}{body}{}", get("/return")));
            let response = client.response_to(method).expect(400);
            assert_eq!(response.field("Connection"), Some("close"), "{response:?}");
            assert!(response.field("Location").is_none() && response.field("ETag").is_none(), "{response:?}");
            assert_eq!(client.rest(), "", "{request} {body:?}");
        }
        // A good one changes nothing, whole or not.
        for body in ["1\r\nx\r\n0\r\n\r\n", "1\r"] {
            let mut client = server.connect();
            client.send(format!("{head}{body}"));
            assert_ne!(client.response_to(method).status, 400, "{request} {body:?}");
            if body.ends_with('\n') {
                client.send(get("/return"));
                assert_eq!(client.response().text(), "GET /return");
            }
        }
    }
    // What is wrong in the server is not the client's fault.
    let mut client = server.connect();
    client.send("GET /503 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    assert_eq!(client.response().expect(503).field("Connection"), Some("close"));
    // The page of the configuration is for this 400 as well, and for none of another error.
    let mut client = server.connect();
    client.send("GET /paged/none HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    assert_eq!(client.response().expect(400).text(), "page");
    server.stderr(|log| log.contains("[info]") && log.contains("client sent an invalid chunk size (400), client: "));
}

#[test]
fn junk_in_a_chunked_body_that_is_skipped_closes_the_connection() {
    let server = Server::start(&JUNK.replace("root = \"html\"", ""));
    for body in ["x\r\n", "5\r\nhelloGET", "1\nx\r\n0\r\n\r\n"] {
        let mut client = server.connect();
        client.send("POST /return HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(client.response_to("POST").text(), "POST /return");
        client.send(format!("{body}{}", get("/return")));
        let (rest, _) = client.rest_and_end();
        assert_eq!(rest, "", "{body:?}");
    }
    let why = "(400) after its response, in a body that was not wanted: the connection is closed, client: 127.0.0.1";
    server.stderr(|log| log.lines().filter(|line| line.contains("[info]") && line.contains(why)).count() == 3);
}

// ---- refusals

/// Each is answered with this status, and nothing behind it is read.
fn refused(requests: &[(u16, &str)]) {
    let server = Server::start(ECHO);
    for (status, request) in requests {
        let mut client = server.connect();
        client.try_send(format!("{request}{}", get("/smuggled")));
        let response = client.response_to("POST");
        let shown = &request[..request.len().min(200)];
        assert_eq!(response.status, *status, "{shown:?}: {response:?}");
        assert_eq!(response.field("Connection"), Some("close"), "{shown:?}: {response:?}");
        client.finish();
        assert_eq!(client.end(), Ending::Closed, "{shown:?}");
    }
    assert_eq!(server.get("/still-there").text(), "GET /still-there");
}

/// A request with these header lines besides Host.
fn fields(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

/// The same, for a table.
fn with_fields(status: u16, lines: &[&str]) -> Vec<(u16, String)> {
    lines.iter().map(|lines| (status, fields(lines))).collect()
}

fn refused_fields(status: u16, lines: &[&str]) {
    let requests = with_fields(status, lines);
    let requests: Vec<(u16, &str)> = requests.iter().map(|(status, request)| (*status, request.as_str())).collect();
    refused(&requests);
}

#[test]
fn content_length_must_be_one_number() {
    refused_fields(
        400,
        &[
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length: five\r\n",
            "Content-Length: \r\n",
            "Content-Length: 5.0\r\n",
            "Content-Length: 18446744073709551621\r\n",
            "Content-Length: 99999999999999999999999999\r\n",
        ],
    );
}

#[test]
fn transfer_encoding_must_be_chunked_and_alone() {
    refused_fields(
        400,
        &[
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        ],
    );
    refused_fields(
        501,
        &[
            "Transfer-Encoding: gzip\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked;q=1\r\n",
            "Transfer-Encoding: \r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
        ],
    );
    refused(&[(400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")]);
}

#[test]
fn header_lines_must_be_clean() {
    refused_fields(
        400,
        &[
            "A: b\n",
            "A: b\rc\r\n",
            "A: b\r\r\n",
            "A: b\r\n c\r\n",
            "A: b\r\n\tc\r\n",
            "A : b\r\n",
            " A: b\r\n",
            "A\t: b\r\n",
            ": b\r\n",
            "A\r\n",
            "A b: c\r\n",
            "A: \0\r\n",
            "A: \x01\r\n",
            "A: \x7f\r\n",
            "\x01: b\r\n",
            "A: b\0c\r\n",
            "\u{e4}: b\r\n",
            "A(: b\r\n",
            "A: b\r\n\0: c\r\n",
        ],
    );
}

#[test]
fn a_request_needs_one_good_host() {
    refused(&[
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: \r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: ..\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
        (400, "GET http://a@b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ]);
}

#[test]
fn a_request_line_has_three_parts() {
    refused(&[
        (400, "GET /\r\nHost: a\r\n\r\n"),
        (400, "GET\r\n\r\n"),
        (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        (400, "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\nHost: a\n\n"),
        (400, "GET / HTTP/1.1\rHost: a\r\r"),
        (400, "GET / http/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/11\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
        (400, "GET / ICAP/1.0\r\nHost: a\r\n\r\n"),
        (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        (505, "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
        (505, "GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
        (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (400, "\x16\x03\x01\x02\x00\x01\x00"),
        (400, "{\"json\": true}\r\n\r\n"),
        (400, "\0\0\0\0"),
        (400, &"\r\n".repeat(20)),
    ]);
}

#[test]
fn targets_that_are_none() {
    refused(&[
        (400, "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /%4 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /../a HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /a/%2e%2e/..%2fb HTTP/1.1\r\nHost: a\r\n\r\n"),
        (405, "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n"),
    ]);
}

#[test]
fn heads_that_are_too_large() {
    let many: String = (0..129).map(|i| format!("A{i}: b\r\n")).collect();
    let large: String = (0..5).map(|i| format!("A{i}: {}\r\n", "b".repeat(8000))).collect();
    refused(&[
        (414, &format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(8193 - "GET / HTTP/1.1\r\n".len()))),
        (414, &format!("GET /{}", "a".repeat(9000))),
        (431, &fields(&format!("A: {}\r\n", "b".repeat(8193 - "A: \r\n".len())))),
        (431, &format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(9000))),
        (431, &fields(&many)),
        (431, &fields(&large)),
    ]);
    let server = Server::start(ECHO);
    let uri = format!("/{}", "a".repeat(8192 - "GET / HTTP/1.1\r\n".len()));
    assert_eq!(server.get(&uri).expect(200).text(), format!("GET {uri}"), "it just fits");
    let field = format!("A: {}\r\n", "b".repeat(8192 - "A: \r\n".len()));
    server.get_with("/", &field).expect(200);
    server.get_with("/", &format!("Cookie: a={}\r\n", "b".repeat(7168))).expect(200);
    let many: String = (0..126).map(|i| format!("A{i}: b\r\n")).collect();
    server.get_with("/", &many).expect(200);
}

#[test]
fn large_client_header_buffers_of_another_size() {
    let limit = "http.large_client_header_buffers = { number = 2, size = \"2k\" }\n[[http.server]]";
    let server = Server::start(&ECHO.replace("[[http.server]]", limit));
    server.get(&format!("/{}", "a".repeat(2000))).expect(200);
    let mut client = server.connect();
    client.send(get(&format!("/{}", "a".repeat(2040))));
    client.response().expect(414);
}

// ---- time

/// Waits for the end of the connection; at least `time` must have passed since `start`.
fn ends_after(client: &mut Client, start: Instant, time: Duration) {
    assert_eq!(client.end(), Ending::Closed);
    assert!(start.elapsed() >= time, "closed after {:?}", start.elapsed());
}

#[test]
fn client_header_timeout() {
    let server =
        Server::start(&ECHO.replace("[[http.server]]", "http.client_header_timeout = \"1s\"\n[[http.server]]"));
    let start = Instant::now();
    let mut silent = server.connect();
    let mut slow = server.connect();
    slow.send("GET / HTTP/1.1\r\nHo");
    // As nginx: 408 is logged, not sent.
    ends_after(&mut slow, start, Duration::from_secs(1));
    ends_after(&mut silent, start, Duration::from_secs(1));
    // A byte now and then does not buy more time.
    let start = Instant::now();
    let mut dripping = server.connect();
    while start.elapsed() < PATIENCE && dripping.try_send("G") && !has_answer(&mut dripping) {}
    assert!(start.elapsed() < PATIENCE, "still open");
    server.stdout(|log| log.matches("\" 408 0 ").count() == 2 && log.contains("\"GET / HTTP/1.1\" 408 0 "));
}

/// Whether something can be read within 20 ms.
fn has_answer(client: &mut Client) -> bool {
    client.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let found = client.stream.peek(&mut [0]).is_ok();
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    found
}

#[test]
fn keepalive_timeout() {
    let server = Server::start(&ECHO.replace("[[http.server]]", "http.keepalive_timeout = \"300ms\"\n[[http.server]]"));
    let mut client = server.connect();
    let start = Instant::now();
    client.send(get("/a"));
    client.response().expect(200);
    ends_after(&mut client, start, Duration::from_millis(300));
}

#[test]
fn keepalive_timeout_is_that_of_the_last_requests_location() {
    let server = Server::start(
        r#"
module = [{ name = "return" }]
worker_threads = 1
[[http.server]]
listen = ["127.0.0.1:PORT"]
keepalive_timeout = "300ms"
[[http.server.location]]
path = "/"
return = { code = 200, text = "here" }
[[http.server.location]]
path = "/long"
return = { code = 200, text = "here" }
keepalive_timeout = "60s"
"#,
    );
    let [mut long, mut short, mut last] = [(); 3].map(|()| server.connect());
    for (client, paths) in [(&mut long, ["/", "/long"]), (&mut short, ["/long", "/"]), (&mut last, ["/", "/"])] {
        for path in paths {
            client.send(get(path));
            client.response().expect(200);
        }
    }
    assert_eq!(short.end(), Ending::Closed);
    assert_eq!(last.end(), Ending::Closed);
    // With the server's own time this would have ended first, since it was the first to wait.
    long.send(get("/"));
    long.response().expect(200);
}

#[test]
fn keepalive_timeout_0_closes_at_once() {
    let server = Server::start(&ECHO.replace("[[http.server]]", "http.keepalive_timeout = 0\n[[http.server]]"));
    let mut client = server.connect();
    client.send(get("/a"));
    assert_eq!(client.response().field("Connection"), Some("close"));
    assert_eq!(client.end(), Ending::Closed);
}

#[test]
fn keepalive_requests() {
    let server = Server::start(&ECHO.replace("[[http.server]]", "http.keepalive_requests = 3\n[[http.server]]"));
    let mut client = server.connect();
    client.send(get("/1") + &get("/2") + &get("/3") + &get("/4"));
    assert_eq!(client.response().field("Connection"), None);
    assert_eq!(client.response().field("Connection"), None);
    let last = client.response();
    assert_eq!((last.text(), last.field("Connection")), ("GET /3", Some("close")));
    client.finish();
    assert_eq!(client.end(), Ending::Closed);
}

#[test]
fn client_body_timeout() {
    let quick = PROXY.replace("proxy.pass", "client_body_timeout = \"300ms\"\nproxy.pass");
    let server = Server::start(&quick.replace("PEER", "127.0.0.1:9"));
    let start = Instant::now();
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel");
    assert_eq!(client.end(), Ending::Closed);
    assert!(start.elapsed() >= Duration::from_millis(300));
    server.stdout(|log| log.contains("\"POST / HTTP/1.1\" 408 0 "));
}

#[test]
fn send_timeout() {
    assert_eq!(ending_after_send_timeout(""), Ending::Closed);
}

#[test]
fn reset_timedout_connection() {
    assert_eq!(ending_after_send_timeout("reset_timedout_connection = true"), Ending::Reset);
}

/// How the connection of a client ends that has not read its response in time.
fn ending_after_send_timeout(directives: &str) -> Ending {
    let file = files::noise(24 << 20);
    let server = Server::with(
        &[("html/large", &file)],
        &r#"
module = [{ name = "static" }]
error_log = { level = "info" }
[[http.server]]
listen = ["127.0.0.1:PORT"]
root = "html"
send_timeout = "300ms"
DIRECTIVES
"#
        .replace("DIRECTIVES", directives),
    );
    let mut client = Client::slow(server.address());
    client.send(get("/large"));
    server.stderr(|log| log.contains("client timed out while reading the response, client: 127.0.0.1"));
    let head = client.head().unwrap();
    assert_eq!(head.field("Content-Length"), Some("25165824"));
    let (rest, ending) = client.rest_and_end();
    assert!(rest.len() < 24 << 20, "{} bytes", rest.len());
    ending
}

// ---- clients that misbehave

/// A server whose page is the number of open connections, that one included.
fn counting() -> Server {
    Server::with(
        &[("html/large", &files::noise(8 << 20))],
        r#"
module = [{ name = "return" }, { name = "static" }, { name = "proxy" }, { name = "round_robin" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
root = "html"
[[http.server.location]]
path = "= /count"
return = { code = 200, text = "$connections_active" }
[[http.server.location]]
path = "/proxy/"
proxy.pass = "http://127.0.0.1:PORT2"
"#,
    )
}

/// Waits until only so many connections are left, that which asks included.
fn wait_for_connections(server: &Server, count: usize) {
    eventually(&format!("{count} connections"), || server.get("/count").text() == count.to_string());
}

#[test]
fn clients_that_leave_early_leave_nothing_behind() {
    let server = counting();
    let whole = get("/large");
    for reset in [false, true] {
        for request in [
            "",
            "G",
            "GET /large HTTP/1.1\r\nHost: a\r\nA",
            &whole,
            &(get("/count") + "GET /la"),
            "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello",
            "POST /proxy/ HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello",
            "POST /proxy/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
        ] {
            for part_of_response in [0, 20, 100_000] {
                let mut client = server.connect();
                client.send(request);
                if part_of_response > 0 && request == whole {
                    client.take(part_of_response).unwrap();
                }
                if reset { client.reset() } else { drop(client) }
            }
        }
    }
    wait_for_connections(&server, 1);
}

#[test]
fn five_hundred_idle_connections() {
    let server = counting();
    let mut clients: Vec<Client> = (0..500).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(get("/count"));
    }
    for client in &mut clients {
        client.response().expect(200);
    }
    wait_for_connections(&server, 501);
    for client in &mut clients {
        client.send(get("/count"));
        client.response().expect(200);
    }
    drop(clients);
    wait_for_connections(&server, 1);
}

#[test]
fn random_bytes_do_not_hurt() {
    let server = counting();
    let request = b"POST /count?a=b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /large HTTP/1.1\r\nHost: b\r\n\r\n";
    let noise = files::noise(64 * 1024);
    let mut noise = noise.chunks(16);
    for round in 0..400 {
        let dice = noise.next().unwrap();
        let mut bytes = request.to_vec();
        match round % 4 {
            0 => bytes = dice.repeat(usize::from(dice[0]) + 1),
            1 => bytes.truncate(usize::from(dice[0]) % bytes.len()),
            _ => {
                for pair in dice[..1 + usize::from(dice[15]) % 8].chunks(2) {
                    let at = usize::from(pair[0]) % bytes.len();
                    bytes[at] = pair.get(1).copied().unwrap_or(b'\r');
                }
            }
        }
        let mut client = server.connect();
        client.try_send(&bytes);
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        client.rest_and_end();
    }
    wait_for_connections(&server, 1);
}
