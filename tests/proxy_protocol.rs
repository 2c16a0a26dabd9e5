//! `listen = [{ ..., proxy_protocol = true }]`: connections begin with a header of the PROXY protocol.

mod support;

use std::time::{Duration, Instant};

use support::{Client, Ending, Server, eventually};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n";
/// What the server answers behind it.
const ANNOUNCED: &str = "192.0.2.1|56324|198.51.100.7|443|127.0.0.1";
/// What it answers if nothing was announced.
const NOTHING: &str = "||||127.0.0.1";

fn start(server: &str) -> Server {
    Server::start(&format!(
        r#"
module = [{{ name = "return" }}]
worker_threads = 1
error_log = {{ path = "stderr", level = "info" }}
[[http.server]]
listen = [{{ address = "127.0.0.1:PORT", proxy_protocol = true }}, "127.0.0.1:PORT2"]
{server}
return = {{ code = 200, text = "$proxy_protocol_addr|$proxy_protocol_port|$proxy_protocol_server_addr|$proxy_protocol_server_port|$remote_addr" }}
"#
    ))
}

/// A header of version 2.
fn v2(command: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, kind][..], &(body.len() as u16).to_be_bytes(), body].concat()
}

const IPV4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 0x01, 0xbb];

fn ipv6() -> Vec<u8> {
    let octets = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    [&octets("2001:db8::1")[..], &octets("::2"), &[0xff, 0xff, 0, 80]].concat()
}

/// The answer to a request behind this header, on a connection of its own that stays.
fn answer(server: &Server, header: &[u8]) -> String {
    let mut client = server.connect();
    client.send([header, GET].concat());
    client.response().expect(200).text().to_owned()
}

#[test]
fn version_1() {
    let server = start("");
    assert_eq!(answer(&server, V1), ANNOUNCED);
    assert_eq!(answer(&server, b"PROXY TCP6 2001:DB8::1 ::2 65535 80\r\n"), "2001:db8::1|65535|::2|80|127.0.0.1");
    assert_eq!(answer(&server, b"PROXY UNKNOWN\r\n"), NOTHING);
    assert_eq!(answer(&server, b"PROXY UNKNOWN ::1 ::1 1 1\r\n"), NOTHING);
    // The log has the address of who has connected.
    assert!(server.stdout(|text| text.lines().count() == 4).lines().all(|line| line.starts_with("127.0.0.1 - - [")));
}

#[test]
fn version_2() {
    let server = start("");
    assert_eq!(answer(&server, &v2(0x21, 0x11, IPV4)), ANNOUNCED);
    assert_eq!(answer(&server, &v2(0x21, 0x21, &ipv6())), "2001:db8::1|65535|::2|80|127.0.0.1");
    // With additional fields, up to the longest header that is read.
    assert_eq!(answer(&server, &v2(0x21, 0x11, &[IPV4, &[0x20, 0, 1, 7]].concat())), ANNOUNCED);
    let longest = [IPV4, &[4, 0x0f, 0xe1], &[0; 4065]].concat();
    assert_eq!(v2(0x21, 0x11, &longest).len(), 4096);
    assert_eq!(answer(&server, &v2(0x21, 0x11, &longest)), ANNOUNCED);
    // A connection of the proxy's own, and what is not TCP over IP.
    for (command, kind, body) in [(0x20, 0, &[][..]), (0x20, 0x11, IPV4), (0x21, 0, &[1]), (0x21, 0x31, &[0; 216])] {
        assert_eq!(answer(&server, &v2(command, kind, body)), NOTHING, "{command:x} {kind:x}");
    }
}

#[test]
fn byte_by_byte() {
    let server = start("");
    for header in [V1.to_vec(), v2(0x21, 0x11, &[IPV4, &[0x20, 0, 1, 7]].concat())] {
        let mut client = server.connect();
        let bytes = [&header[..], GET].concat();
        client.send_pieces(bytes.chunks(1));
        assert_eq!(client.response().expect(200).text(), ANNOUNCED);
        // In two pieces, cut at each byte.
        for at in 1..bytes.len() {
            let mut client = server.connect();
            client.send_pieces([&bytes[..at], &bytes[at..]]);
            assert_eq!(client.response().expect(200).text(), ANNOUNCED, "{at}");
        }
    }
}

#[test]
fn it_holds_for_the_whole_connection_and_comes_once() {
    let server = start("");
    let mut client = server.connect();
    client.send([V1, GET, GET].concat());
    for _ in 0..2 {
        assert_eq!(client.response().expect(200).text(), ANNOUNCED);
    }
    client.send(GET);
    assert_eq!(client.response().expect(200).text(), ANNOUNCED);
    // A second header is a bad request.
    client.send([V1, GET].concat());
    client.response().expect(400);
    assert_eq!(client.end(), Ending::Closed);
    // The header alone, and the request when it likes.
    let mut client = server.connect();
    client.send(V1);
    let mut other = server.connect();
    other.send([V1, GET].concat());
    other.response().expect(200);
    client.send(GET);
    assert_eq!(client.response().expect(200).text(), ANNOUNCED);
}

#[test]
fn without_a_good_header_the_connection_is_closed_without_an_answer() {
    let server = start("");
    let long = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200], b"\r\n".to_vec()].concat();
    let cases: [(&[u8], &str); 7] = [
        (GET, "\"GET / HTTP/1.1\" (no header of the PROXY protocol)"),
        (b"\x16\x03\x01", "\"\\x16\\x03\\x01\" (no header of the PROXY protocol)"),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 99999\r\n", "\"PROXY TCP4 1.1.1.1 1.1.1.1 1 99999\" (an invalid port)"),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n", "(the line does not end in CRLF)"),
        (&long, "(the line is longer than 107 bytes)"),
        (&v2(0x31, 0x11, IPV4), "(an unknown version)"),
        (&v2(0x21, 0x11, &[0; 4081]), "(longer than 4096 bytes)"),
    ];
    for (bytes, reason) in cases {
        let mut client = server.connect();
        client.send(bytes);
        let (text, _) = client.rest_and_end();
        assert_eq!(text, "", "{reason}");
        let tail =
            format!("{reason} while reading PROXY protocol, client: 127.0.0.1, server: 127.0.0.1:{}\n", server.port);
        let log = server.stderr(|text| text.contains(&tail));
        let line = log.lines().find(|line| line.contains(reason)).unwrap();
        assert!(line.contains(" [error] ") && line.contains(" broken header: \""), "{line}");
    }
    assert_eq!(server.stdout(|_| true), "", "no request, no line of the access log");
    // What a client sends that knows no proxy is not for the log.
    for end in ["\r\n", "\r", "\n"] {
        server.connect().send(format!("GET /{end}Authorization: Basic c2VjcmV0{end}Cookie: secret{end}{end}"));
    }
    let log = server.stderr(|log| log.matches("broken header: \"GET /\"").count() == 3);
    assert!(!log.contains("ecret") && !log.contains("c2Vj"), "{log}");
    assert_eq!(answer(&server, V1), ANNOUNCED);
}

#[test]
fn a_client_that_leaves_within_the_header() {
    let server = start("");
    for at in [0, 1, 20] {
        let mut client = server.connect();
        client.send(&V1[..at]);
        client.finish();
        assert_eq!(client.rest(), "");
    }
    let text = "client prematurely closed connection while reading PROXY protocol, client: 127.0.0.1";
    server.stderr(|log| log.matches(text).count() == 3);
}

#[test]
fn the_header_must_come_within_client_header_timeout() {
    let server = start("client_header_timeout = \"300ms\"");
    let began = Instant::now();
    let mut silent = server.connect();
    let mut slow = server.connect();
    slow.send(&V1[..20]);
    for client in [&mut silent, &mut slow] {
        assert_eq!(client.rest(), "");
    }
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
    server.stderr(|log| log.matches("client timed out while reading PROXY protocol, client: 127.0.0.1").count() == 2);
    // Behind it a request head has its own time, and 408 in the log if it does not come.
    let mut client = server.connect();
    client.send([V1, b"GET / HT"].concat());
    assert_eq!(client.rest(), "");
    server.stdout(|log| log.contains(" 408 "));
}

#[test]
fn other_addresses_of_the_server_expect_none() {
    let server = start("");
    let mut client = Client::connect(server.address2());
    client.send(GET);
    assert_eq!(client.response().expect(200).text(), NOTHING);
    client.send([V1, GET].concat());
    client.response().expect(400);
}

#[test]
fn on_a_unix_socket() {
    let server = Server::start(
        "module = [{ name = \"return\" }]\n[[http.server]]\nlisten = [{ address = \"unix:a\", proxy_protocol = true }]\n\
         return = { code = 200, text = \"$proxy_protocol_addr $remote_addr\" }\n",
    );
    let mut client = Client::unix(&server.folder.path("a"));
    client.send([V1, GET].concat());
    assert_eq!(client.response().text(), "192.0.2.1 unix:");
}

#[test]
fn clients_that_never_finish_the_header_leave_nothing_behind() {
    let server = start("client_header_timeout = \"500ms\"");
    let before = server.open_files();
    let clients: Vec<Client> = (0..200)
        .map(|n| {
            let mut client = server.connect();
            client.send(&V1[..n % V1.len()]);
            client
        })
        .collect();
    server.stderr(|log| log.matches("client timed out while reading PROXY protocol").count() == 200);
    eventually("all are closed", || server.open_files() <= before);
    drop(clients);
}
