//! How connections end: lingering, kept connections and their limits, what is said of them, and what is sent when.

mod support;

use std::time::{Duration, Instant};

use support::{Client, Ending, PATIENCE, Response, Server, eventually};

/// Answers everything, whatever comes with it.
const ANSWERS: &str = r#"
module = [{ name = "return" }]
error_log = { level = "info" }
[[http.server]]
listen = ["127.0.0.1:PORT"]
client_max_body_size = 0
DIRECTIVES
[[http.server.location]]
path = "/"
return = { code = 200, text = "$http_a$http_a_b$uri" }
[[http.server.location]]
path = "/quick"
keepalive_timeout = { timeout = "60s", header = "55s" }
return = { code = 200, text = "quick" }
"#;

fn server(directives: &str) -> Server {
    Server::start(&ANSWERS.replace("DIRECTIVES", directives))
}

/// An answered request that ends the connection, with a body of which nothing has come yet.
fn unread_body(server: &Server) -> Client {
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 100000000\r\n\r\n");
    client.response_to("POST").expect(200);
    client
}

// ---- lingering_close, lingering_time, lingering_timeout

#[test]
fn lingering_close_reads_on_so_that_the_response_is_not_lost() {
    let server = server("");
    let mut client = unread_body(&server);
    let start = Instant::now();
    // All of this is read and ignored, though the server has closed its side.
    client.send(vec![b'x'; 8 << 20]);
    client.finish();
    assert_eq!(client.end(), Ending::Closed);
    assert!(start.elapsed() < Duration::from_secs(5), "it ends with the client: {:?}", start.elapsed());
}

#[test]
fn lingering_timeout_ends_it_when_nothing_comes() {
    let server = server("lingering_timeout = \"300ms\"");
    let before = server.open_files();
    let start = Instant::now();
    let mut client = unread_body(&server);
    assert_eq!(client.end(), Ending::Closed, "the server's side");
    eventually("the socket is closed", || server.open_files() == before);
    assert!((Duration::from_millis(290)..Duration::from_secs(5)).contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[test]
fn lingering_time_ends_it_though_the_client_goes_on() {
    let server = server("lingering_time = \"600ms\"\nlingering_timeout = \"10s\"");
    let start = Instant::now();
    let mut client = unread_body(&server);
    // The pace of a client that goes on; it ends when the server does.
    while client.try_send("x") {
        assert!(start.elapsed() < PATIENCE, "still read");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!((Duration::from_millis(600)..Duration::from_secs(9)).contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[test]
fn lingering_close_off_closes_at_once() {
    let server = server("lingering_close = \"off\"");
    let start = Instant::now();
    let mut client = unread_body(&server);
    wait_for_reset(&mut client);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn lingering_close_always_waits_for_the_client() {
    for (value, waits) in [("on", false), ("always", true)] {
        let server = server(&format!("lingering_close = \"{value}\"\nlingering_timeout = \"30s\""));
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.response().expect(200);
        assert_eq!(client.end(), Ending::Closed);
        // More than the sockets hold: it is all taken if the server reads on, and answered with a reset if it has closed.
        assert_eq!(client.try_send(vec![b'x'; 32 << 20]), waits, "{value}");
    }
}

/// Sends now and then, until the other side answers with a reset: it has closed both directions.
fn wait_for_reset(client: &mut Client) {
    let start = Instant::now();
    while client.try_send("x") {
        assert!(start.elapsed() < PATIENCE, "never closed");
        std::thread::sleep(Duration::from_millis(10));
    }
}

// ---- kept connections

fn get_with(client: &mut Client, request: &str) -> Response {
    client.send(request);
    client.response_to(request.split(' ').next().unwrap()).expect(200)
}

#[test]
fn keepalive_timeout_with_a_header_tells_the_client() {
    let server = server("");
    let mut client = server.connect();
    let response = get_with(&mut client, "GET /quick HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(response.field("Keep-Alive"), Some("timeout=55"));
    assert_eq!(response.field("Connection"), Some("keep-alive"));
    let response = get_with(&mut client, "GET /quick HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(response.field("Keep-Alive"), None);
    assert_eq!(response.field("Connection"), Some("close"));
}

#[test]
fn keepalive_time_ends_a_connection_with_its_next_response() {
    let server = server("keepalive_time = \"1s\"");
    let mut client = server.connect();
    let start = Instant::now();
    let mut kept = 0;
    loop {
        let response = get_with(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        if response.field("Connection") == Some("close") {
            break;
        }
        kept += 1;
        assert!(start.elapsed() < PATIENCE, "kept for ever");
        // Paced, since keepalive_requests would end it as well.
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(kept > 0 && start.elapsed() >= Duration::from_millis(990), "{kept} in {:?}", start.elapsed());
    assert_eq!(client.end(), Ending::Closed);
}

#[test]
fn keepalive_disable() {
    const MSIE6: &str = "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)";
    const SAFARI: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X) AppleWebKit/605 Version/16 Safari/605";
    for (directive, method, agent, closes) in [
        ("", "POST", MSIE6, true),
        ("", "GET", MSIE6, false),
        ("", "POST", SAFARI, false),
        ("keepalive_disable = [\"none\"]", "POST", MSIE6, false),
        ("keepalive_disable = [\"safari\"]", "GET", SAFARI, true),
        ("keepalive_disable = [\"safari\"]", "POST", MSIE6, false),
    ] {
        let server = server(directive);
        let mut client = server.connect();
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent}\r\nContent-Length: 0\r\n\r\n");
        let response = get_with(&mut client, &request);
        assert_eq!(response.field("Connection") == Some("close"), closes, "{directive} {method} {agent}");
    }
}

// ---- what is taken of a head

#[test]
fn underscores_in_headers() {
    let request = "GET /u HTTP/1.1\r\nHost: a\r\nA_B: 1\r\nA: 2\r\n\r\n";
    let dropping = server("");
    assert_eq!(get_with(&mut dropping.connect(), request).text(), "2/u");
    dropping.stderr(|log| log.contains("client sent 1 header fields with an underscore in their names"));
    // In pieces, and so by the other parser.
    let mut client = dropping.connect();
    client.send_pieces(request.as_bytes().chunks(7));
    assert_eq!(client.response().expect(200).text(), "2/u");
    let taking = server("underscores_in_headers = true");
    assert_eq!(get_with(&mut taking.connect(), request).text(), "21/u");
}

#[test]
fn merge_slashes() {
    let request = "GET //a///b HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(get_with(&mut server("").connect(), request).text(), "/a/b");
    assert_eq!(get_with(&mut server("merge_slashes = false").connect(), request).text(), "//a///b");
}
