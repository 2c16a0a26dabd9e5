//! The proxy in the real server: what a peer gets, what the client gets back, and what happens when one of them fails.

mod support;

use std::{
    io::{ErrorKind, Read, Write},
    thread,
    time::{Duration, Instant},
};

use support::peer::{Peer, Reserved};
use support::proxied::{GET, OK, TOP, at_peer, at_peer_with_head, proxied, proxy_to};
use support::{Client, Ending, Folder, PATIENCE, Server, eventually, files};

/// The request that the peer gets, up to the empty line, for this one of a client.
fn sent(peer: &Peer, server: &Server, request: &str) -> String {
    let (mut client, mut connection) = at_peer_with_head(peer, server, request);
    connection.1.reply("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    client.response().expect(200);
    connection.0
}

// ---- the request

#[test]
fn get_reaches_the_peer_without_the_fields_of_the_clients_connection() {
    let (peer, server) = proxied("");
    let mut client = server.connect();
    client.send(
        "GET /a/%41/../b?c=d HTTP/1.1\r\nHost: example.org\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\n\
         Keep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\nAccept: */*\r\nCookie: a=b\r\nAccept: text/x\r\n\r\n",
    );
    let mut connection = peer.accept();
    connection.expect(&format!(
        "GET /a/%41/../b?c=d HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAccept: */*\r\nCookie: a=b\r\nAccept: text/x\r\n\r\n",
        peer.port
    ));
    connection.reply(OK);
    assert_eq!(client.response().expect(200).text(), "hello");
}

#[test]
fn a_uri_part_cannot_be_left_by_dots() {
    let peer = Peer::new();
    let top = |pass: &str, path: &str| {
        format!(
            "{TOP}[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n[[http.server.location]]\npath = \"{path}\"\n\
             proxy.pass = \"http://127.0.0.1:{}{pass}\"\n",
            peer.port
        )
    };
    let server = Server::start(&top("/v1/", "/api"));
    for path in ["/api../admin/secret", "/api..", "/api%2e./x"] {
        server.get(path).expect(404);
    }
    peer.expect_no_connection();
    server.stderr(|log| log.contains("unsafe URI \"/api../admin/secret\": it leads out of the URI part of pass"));
    assert!(sent(&peer, &server, "GET /api/..x HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("GET /v1//..x HTTP/1.1\r\n"));

    let warnings = |config: &str| {
        let answer = Server::tests(&Folder::new(), config);
        assert_eq!(answer.code, Some(0), "{answer:#?}");
        answer
            .stderr
            .matches("proxy.pass: it ends with a slash, and the path of the location \"/api\" does not")
            .count()
    };
    let counts = [("/v1/", "/api"), ("/v1/", "/api/"), ("/v1", "/api"), ("", "/api")]
        .map(|(pass, path)| warnings(&top(pass, path)));
    assert_eq!(counts, [1, 0, 0, 0]);
}

#[test]
fn an_error_page_without_a_body_has_no_length_of_another() {
    let peer = Peer::new();
    let server = Server::start(&format!(
        "{TOP}[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nerror_page = [{{ code = [404], uri = \"@app\" }}]\n\
         [[http.server.location]]\npath = \"/\"\nreturn = {{ code = 404 }}\n\
         [[http.server.location]]\npath = \"@app\"\nproxy.pass = \"http://127.0.0.1:{}\"\n",
        peer.port
    ));
    for answer in ["304 Not Modified\r\nContent-Length: 1234", "304 Not Modified", "204 No Content"] {
        let (mut client, mut connection) = at_peer(&peer, &server, GET);
        connection.reply(format!("HTTP/1.1 {answer}\r\nConnection: close\r\n\r\n"));
        let response = client.response().expect(404);
        assert_eq!((response.field("Content-Length"), response.text()), (Some("0"), ""), "{answer}");
        client.send("GET /again HTTP/1.1\r\nHost: a\r\n\r\n");
        peer.accept().answer(OK);
        assert_eq!(client.response().expect(404).text(), "hello", "{answer}");
    }
}

#[test]
fn post_with_content_length() {
    let (peer, server) = proxied("");
    let mut client = server.connect();
    client.send("POST /form HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nab");
    // The peer hears of it when the body is there.
    client.send("cde");
    let mut connection = peer.accept();
    let host = format!("Host: 127.0.0.1:{}\r\n", peer.port);
    connection
        .expect(&format!("POST /form HTTP/1.1\r\n{host}Content-Length: 5\r\nContent-Type: text/plain\r\n\r\nabcde"));
    connection.reply("HTTP/1.1 201 Created\r\nLocation: /form/1\r\nContent-Length: 0\r\n\r\n");
    let response = client.response().expect(201);
    assert_eq!((response.field("Location"), response.text()), (Some("/form/1"), ""));
}

#[test]
fn post_in_chunks_goes_on_with_its_length() {
    let (peer, server) = proxied("");
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n");
    client.send("3\r\ndef\r\n0\r\nX-Trailer: 1\r\n\r\n");
    let mut connection = peer.accept();
    let host = format!("Host: 127.0.0.1:{}\r\n", peer.port);
    connection.expect(&format!("POST / HTTP/1.1\r\n{host}Content-Length: 6\r\n\r\nabcdef"));
    connection.reply(OK);
    client.response().expect(200);
}

#[test]
fn expect_100_continue_is_answered_by_the_server_itself() {
    let (peer, server) = proxied("");
    let mut client = server.connect();
    client.send("PUT /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 100);
    client.send("ok");
    let mut connection = peer.accept();
    connection.expect(&format!("PUT /x HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: 2\r\n\r\nok", peer.port));
    connection.reply(OK);
    client.response().expect(200);
}

#[test]
fn set_header_with_variables() {
    let more = r#"proxy.set_header = [{ name = "Host", value = "$host" }, { name = "X-Real-IP", value = "$remote_addr" },
        { name = "X-Uri", value = "[$request_uri]" }, { name = "Cookie", value = "" }]"#;
    let (peer, server) = proxied(more);
    let request = "GET /a?b HTTP/1.1\r\nHost: Example.org\r\nCookie: c\r\nX-Real-IP: 6.6.6.6\r\n\r\n";
    assert_eq!(
        sent(&peer, &server, request),
        "GET /a?b HTTP/1.1\r\nHost: example.org\r\nX-Real-IP: 127.0.0.1\r\nX-Uri: [/a?b]\r\n\r\n"
    );
}

#[test]
fn fields_with_an_underscore_are_not_passed() {
    let (peer, server) = proxied("proxy.set_header = [{ name = \"X-Real-IP\", value = \"$remote_addr\" }]");
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX_Real_IP: 6.6.6.6\r\nX-A: 1\r\n_: 2\r\nX-B_: 3\r\nX-C: a_b\r\n\r\n";
    assert_eq!(
        sent(&peer, &server, request),
        format!(
            "GET / HTTP/1.1\r\nX-Real-IP: 127.0.0.1\r\nHost: 127.0.0.1:{}\r\nX-A: 1\r\nX-C: a_b\r\n\r\n",
            peer.port
        )
    );
}

#[test]
fn pass_with_a_uri_replaces_the_locations_path_and_location_is_rewritten() {
    let peer = Peer::new();
    let server = Server::start(&format!(
        r#"{TOP}
        [[http.server]]
        listen = ["127.0.0.1:PORT"]
        [[http.server.location]]
        path = "/api/"
        proxy.pass = "http://127.0.0.1:{}/v1/""#,
        peer.port
    ));
    let (mut client, mut connection) =
        at_peer_with_head(&peer, &server, "GET /api/a%20b?c=d HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.0, format!("GET /v1/a%20b?c=d HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", peer.port));
    let url = format!("http://127.0.0.1:{}/v1/elsewhere?x", peer.port);
    connection.1.reply(format!("HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(client.response().expect(302).field("Location"), Some("/api/elsewhere?x"));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (peer, server) = proxied("");
    let mut client = server.connect();
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut connection = peer.accept();
    assert!(connection.answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none").starts_with("GET /1 "));
    assert_eq!(client.response().text(), "one");
    assert!(connection.answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo").starts_with("GET /2 "));
    assert_eq!(client.response().text(), "two");
}

// ---- the response

#[test]
fn response_with_a_length_goes_on_with_it() {
    let (peer, server) = proxied("");
    let (mut client, mut connection) = at_peer(&peer, &server, GET);
    connection.reply("HTTP/1.1 200 OK\r\nServer: x\r\nDate: y\r\nX-Own: 1\r\nContent-Length: 5\r\n\r\nhello");
    let response = client.response().expect(200);
    assert_eq!((response.field("Content-Length"), response.text()), (Some("5"), "hello"));
    assert_eq!((response.field("X-Own"), response.field("Connection")), (Some("1"), None));
    assert!(response.field("Server").unwrap().starts_with("topnext") && response.field("Date") != Some("y"));
}

#[test]
fn response_in_chunks_goes_on_in_chunks() {
    let (peer, server) = proxied("");
    let (mut client, mut connection) = at_peer(&peer, &server, GET);
    connection.reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\nT: 1\r\n\r\n");
    let response = client.response().expect(200);
    assert_eq!((response.chunks.is_some(), response.text()), (true, "hello"));
    assert_eq!(response.field("T"), None);
}

#[test]
fn response_until_close_goes_on_in_chunks_or_until_close() {
    let (peer, server) = proxied("");
    let (mut client, mut connection) = at_peer(&peer, &server, GET);
    connection.reply("HTTP/1.1 200 OK\r\n\r\nhel");
    connection.reply("lo");
    drop(connection);
    let response = client.response().expect(200);
    assert_eq!((response.chunks.is_some(), response.text()), (true, "hello"));

    let (mut client, mut connection) = at_peer(&peer, &server, "GET / HTTP/1.0\r\n\r\n");
    connection.reply("HTTP/1.0 200 OK\r\n\r\nhello");
    drop(connection);
    let response = client.response().expect(200);
    assert_eq!((response.chunks.is_some(), response.text()), (false, "hello"));
    assert_eq!(client.end(), Ending::Closed);
}

#[test]
fn responses_without_a_body() {
    let (peer, server) = proxied("");
    let mut client = server.connect();
    client.send(GET);
    let mut connection = peer.accept();
    // All on the same two connections: a byte too much or too few would show in the next response.
    connection.answer("HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n");
    let response = client.response().expect(204);
    assert_eq!((response.field("X-A"), response.field("Content-Length")), (Some("1"), None));
    client.send("GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"x\"\r\n\r\n");
    assert!(connection.answer("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n").contains("If-None-Match: \"x\"\r\n"));
    assert_eq!(client.response().expect(304).field("ETag"), Some("\"x\""));
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(connection.answer("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").starts_with("HEAD / "));
    assert_eq!(client.response_to("HEAD").expect(200).field("Content-Length"), Some("1000000"));
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    connection.answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    // As in nginx: where no body follows, nothing says how it would end.
    assert_eq!(client.response_to("HEAD").expect(200).field("Transfer-Encoding"), None);
    client.send(GET);
    connection.answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response().expect(200).field("Content-Length"), Some("0"));
    client.send(GET);
    connection.answer(OK);
    assert_eq!(client.response().expect(200).text(), "hello");
    peer.expect_no_connection();
}

#[test]
fn interim_responses_are_skipped() {
    let (peer, server) = proxied("");
    let (mut client, mut connection) = at_peer(&peer, &server, GET);
    connection.reply("HTTP/1.1 100 Continue\r\n\r\n");
    connection.reply("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
    connection.reply(OK);
    let response = client.response().expect(200);
    assert_eq!((response.field("Link"), response.text()), (None, "hello"));
}

#[test]
fn a_response_is_the_same_at_every_split() {
    let (peer, server) = proxied("");
    let (mut client, mut connection) = at_peer(&peer, &server, GET);
    connection.reply(OK);
    client.response().expect(200);
    for response in [
        "HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nT: 1\r\n\r\n",
    ] {
        for at in 0..response.len() {
            client.send(GET);
            connection.head();
            connection.reply(&response[..at]);
            // Two segments, which mostly are read one by one.
            thread::yield_now();
            connection.reply(&response[at..]);
            assert_eq!(client.response().expect(200).text(), "hello", "split at {at}");
        }
        client.send(GET);
        connection.head();
        for byte in response.bytes() {
            connection.reply([byte]);
        }
        assert_eq!(client.response().expect(200).text(), "hello", "byte by byte");
    }
    peer.expect_no_connection();
}

#[test]
fn a_response_is_passed_on_as_it_comes() {
    let (peer, server) = proxied("");
    let (mut client, mut connection) = at_peer(&peer, &server, GET);
    connection.reply("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 200);
    for byte in [b"a", b"b", b"c", b"d", b"e", b"f"] {
        connection.reply(byte);
        assert_eq!(client.take(1).unwrap(), byte);
    }
}

#[test]
fn gzip_compresses_what_the_peer_sends() {
    let (peer, server) = proxied("gzip = { enabled = true, types = [\"text/plain\"], proxied = [\"any\"] }");
    let body = String::from_utf8(files::text(100_000)).unwrap();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n";
    let (mut client, mut connection) = at_peer(&peer, &server, request);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
    connection.reply(head + &body);
    let response = client.response().expect(200);
    assert_eq!((response.field("Content-Encoding"), response.field("Content-Length")), (Some("gzip"), None));
    assert!(response.body.starts_with(&[0x1f, 0x8b]) && response.body.len() < body.len() / 5, "{response:?}");
    assert_eq!(unzipped(&response.body), body);
}

fn unzipped(bytes: &[u8]) -> String {
    let folder = Folder::with(&[("body.gz", bytes)]);
    let out = std::process::Command::new("gzip").arg("-dc").arg(folder.path("body.gz")).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn error_pages_of_the_proxy_pass_the_filters() {
    let refused = Reserved::new();
    let server =
        proxy_to(refused.port, r#"headers.add_header = [{ name = "X-Filter", value = "seen", always = true }]"#);
    let response = server.get("/").expect(502);
    assert_eq!((response.field("X-Filter"), response.field("Content-Type")), (Some("seen"), Some("text/html")));
    assert!(response.text().contains("502 Bad Gateway"), "{response:?}");
}

#[test]
fn a_filter_that_answers_304_spares_the_rest_of_the_body() {
    let (peer, server) = proxied("");
    let request = "GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"x\"\r\n\r\n";
    let (mut client, mut connection) = at_peer(&peer, &server, request);
    connection.reply("HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 1000000000\r\n\r\nhello");
    client.response().expect(304);
    connection.expect_closed();
    // A body that is there already is read, and its connection kept.
    client.send(request);
    let mut connection = peer.accept();
    connection.answer("HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\nhello");
    client.response().expect(304);
    client.send(GET);
    connection.answer(OK);
    assert_eq!(client.response().expect(200).text(), "hello");
}

// ---- large bodies

#[test]
fn a_slow_client_slows_the_peer_down_and_costs_no_memory() {
    let (peer, server) = proxied("");
    let body = files::noise(20 * 1024 * 1024);
    let before = server.memory_kb();
    let mut client = Client::slow(server.address());
    client.send(GET);
    let mut connection = peer.accept();
    connection.head();
    connection.reply(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
    // Nothing is read by the client, so that the peer comes to a halt at what the sockets take.
    connection.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut written = 0;
    loop {
        match connection.stream.write(&body[written..(written + 64 * 1024).min(body.len())]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        assert!(written < body.len(), "the peer was never slowed down");
    }
    let grown = server.memory_kb().saturating_sub(before);
    assert!(grown < 4 * 1024, "{grown} kB more while {written} bytes were under way");
    connection.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let rest = body.clone();
    let writer = thread::spawn(move || connection.reply(&rest[written..]));
    let response = client.response().expect(200);
    writer.join().unwrap();
    assert!(response.body == body, "{} bytes differ from the peer's {}", response.body.len(), body.len());
    let grown = server.memory_kb().saturating_sub(before);
    assert!(grown < 4 * 1024, "{grown} kB more afterwards");
}

#[test]
fn small_pieces_for_a_client_that_does_not_read_cost_no_memory() {
    let (peer, server) = proxied("");
    let before = server.memory_kb();
    let mut client = Client::slow(server.address());
    client.send(GET);
    let mut connection = peer.accept();
    connection.head();
    connection.reply("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
    // More than the client's side holds, and slow enough that most are a read of their own, as from a network.
    connection.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    for _ in 0..5000 {
        if connection.stream.write_all(&[b'x'; 1500]).is_err() {
            break;
        }
        thread::sleep(Duration::from_micros(200));
    }
    let grown = server.memory_kb().saturating_sub(before);
    assert!(grown < 4 * 1024, "{grown} kB more");
    drop(client);
}

#[test]
fn limit_rate_slows_the_peer_down() {
    let (peer, server) = proxied("limit_rate = { rate = \"4m\" }");
    let body = files::noise(8 * 1024 * 1024);
    let start = Instant::now();
    let (mut client, mut connection) = at_peer(&peer, &server, GET);
    let theirs = body.clone();
    let writer = thread::spawn(move || {
        connection.reply(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", theirs.len()));
        connection.reply(&theirs);
        connection
    });
    assert!(client.response().expect(200).body == body, "other bytes");
    assert!(start.elapsed() > Duration::from_millis(900), "8 MB in {:?}", start.elapsed());
    drop(writer.join().unwrap());
}

#[test]
fn a_large_body_of_the_client_arrives() {
    let (peer, server) = proxied("client_max_body_size = \"32m\"");
    let body = files::noise(8 * 1024 * 1024);
    let mut client = server.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
    client.send(&body);
    let mut connection = peer.accept();
    connection.head();
    let mut found = vec![0; body.len()];
    connection.stream.read_exact(&mut found).unwrap();
    assert!(found == body, "the peer has got other bytes");
    connection.reply(OK);
    client.response().expect(200);
}

#[test]
fn an_early_answer_to_a_large_body_ends_the_sending() {
    let (peer, server) = proxied("client_max_body_size = \"64m\"");
    let body = vec![b'x'; 32 * 1024 * 1024];
    let mut client = server.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
    client.send(&body);
    let mut connection = peer.accept();
    connection.head();
    connection.reply("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 413);
    connection.reply("end");
    assert_eq!(client.take(3).unwrap(), b"end");
    // What the sockets hold still comes, but nothing is sent any more, and the connection is not kept.
    let mut received = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match connection.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => received += n,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                break;
            }
        }
    }
    assert!(received < body.len(), "all of the body was sent");
    client.send(GET);
    peer.accept().answer(OK);
    assert_eq!(client.response().expect(200).text(), "hello");
}

// ---- the client goes

#[test]
fn client_closes_before_the_header() {
    let (peer, server) = proxied("");
    let (client, mut connection) = at_peer(&peer, &server, GET);
    drop(client);
    connection.expect_closed();
    server.stdout(|text| text.contains("\"GET / HTTP/1.1\" 499 0 "));
}

#[test]
fn client_closes_together_with_its_request() {
    let (_peer, server) = proxied("");
    // Both come in one event if the server is busy, in two if it is not: the answer is the same.
    for i in 0..20 {
        let mut client = server.connect();
        client.send(format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.finish();
        let (rest, _) = client.rest_and_end();
        assert_eq!(rest, "");
    }
    server.stdout(|text| text.matches(" HTTP/1.1\" 499 0 ").count() == 20);
}

#[test]
fn client_closes_in_the_body() {
    for reset in [false, true] {
        let (peer, server) = proxied("");
        let (mut client, mut connection) = at_peer(&peer, &server, GET);
        connection.reply("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        assert_eq!(client.head().unwrap().status, 200);
        assert_eq!(client.take(5).unwrap(), b"hello");
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        connection.expect_closed();
        server.stdout(|text| text.contains("\"GET / HTTP/1.1\" 499 5 "));
    }
}

#[test]
fn client_closes_while_it_is_slower_than_the_peer() {
    let (peer, server) = proxied("");
    let mut client = Client::slow(server.address());
    client.send(GET);
    let mut connection = peer.accept();
    connection.head();
    connection.reply("HTTP/1.1 200 OK\r\n\r\n");
    connection.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while connection.stream.write_all(&[b'x'; 65536]).is_ok() {}
    drop(client);
    connection.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let start = Instant::now();
    let error = loop {
        match connection.stream.write_all(&[b'x'; 65536]) {
            Ok(()) => assert!(start.elapsed() < PATIENCE, "the peer may go on writing"),
            Err(error) => break error.kind(),
        }
    };
    assert!(matches!(error, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    server.stdout(|text| text.contains("\"GET / HTTP/1.1\" 499 "));
}

#[test]
fn client_closes_in_its_own_body() {
    let (peer, server) = proxied("");
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    drop(client);
    server.stdout(|text| text.contains("\"POST / HTTP/1.1\" 400 0 "));
    peer.expect_no_connection();
}

// ---- the peer fails

#[test]
fn peer_closes_before_the_header() {
    let (peer, server) = proxied("");
    let (mut client, connection) = at_peer(&peer, &server, GET);
    drop(connection);
    assert_eq!(client.response().expect(502).field("Connection"), None);
    server.stderr(|text| text.contains("upstream prematurely closed connection while reading response header"));
    server.stdout(|text| text.contains("\"GET / HTTP/1.1\" 502 "));
}

#[test]
fn peer_resets_before_the_header() {
    let (peer, server) = proxied("");
    let (mut client, connection) = at_peer(&peer, &server, GET);
    connection.reset();
    client.response().expect(502);
    server.stderr(|text| text.contains("recv() failed (104: Connection reset by peer"));
}

#[test]
fn peer_closes_in_the_header() {
    let (peer, server) = proxied("");
    let (mut client, mut connection) = at_peer(&peer, &server, GET);
    connection.reply("HTTP/1.1 200 OK\r\nSet-Cookie: secret\r\nContent-Le");
    drop(connection);
    assert_eq!(client.response().expect(502).field("Set-Cookie"), None);
}

#[test]
fn peer_closes_in_the_body() {
    for (head, protocol) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "HTTP/1.1"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "HTTP/1.1"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "HTTP/1.0"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", "HTTP/1.1"),
    ] {
        let (peer, server) = proxied("");
        let (mut client, mut connection) = at_peer(&peer, &server, &format!("GET / {protocol}\r\nHost: a\r\n\r\n"));
        connection.reply(head);
        let begun = client.head().unwrap();
        assert_eq!(begun.status, 200, "{head:?}");
        let chunks = begun.field("Transfer-Encoding").is_some();
        assert_eq!(client.take(5).unwrap(), if chunks { b"5\r\nhe" } else { b"hello" }, "{head:?}");
        drop(connection);
        let (rest, ending) = client.rest_and_end();
        assert!(!rest.contains("0\r\n\r\n") && ending == Ending::Reset, "{head:?}: {rest:?} {ending:?}");
        server.stderr(|text| text.contains("upstream prematurely closed connection"));
    }
}

#[test]
fn peer_sends_invalid_chunks() {
    let (peer, server) = proxied("");
    let (mut client, mut connection) = at_peer(&peer, &server, GET);
    connection.reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    assert_eq!(client.head().unwrap().status, 200);
    connection.reply("what?\r\n");
    let (rest, ending) = client.rest_and_end();
    assert!(!rest.contains("0\r\n\r\n") && ending == Ending::Reset, "{rest:?} {ending:?}");
    connection.expect_closed();
    server.stderr(|text| text.contains("upstream sent invalid chunked response: a chunk without a size"));
}

#[test]
fn peer_sends_garbage() {
    let (peer, server) = proxied("");
    for garbage in
        ["SSH-2.0-OpenSSH\r\n", "HTTP/1.1 200 OK\r\nSet-Cookie: x\r\nA b\r\n\r\n", "HTTP/1.1 999 X\r\n\r\n", "\0"]
    {
        let (mut client, mut connection) = at_peer(&peer, &server, GET);
        connection.reply(garbage);
        assert_eq!(client.response().expect(502).field("Set-Cookie"), None, "{garbage:?}");
        connection.expect_closed();
    }
    server.stderr(|text| text.matches("upstream sent invalid header").count() == 4);
}

#[test]
fn peer_sends_too_many_fields() {
    let (peer, server) = proxied("");
    let response = |n: usize| {
        let fields: String = (1..n).map(|i| format!("X-{i}: y\r\n")).collect();
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 5\r\n\r\nhello")
    };
    let fields =
        |response: &support::Response| response.fields.iter().filter(|(name, _)| name.starts_with("X-")).count();
    let (mut client, mut connection) = at_peer(&peer, &server, GET);
    connection.reply(response(256));
    assert_eq!(fields(&client.response().expect(200)), 255);
    client.send(GET);
    connection.answer(&response(257));
    assert_eq!(fields(&client.response().expect(502)), 0);
    connection.expect_closed();
    server.stderr(|text| text.contains("upstream sent invalid header: more than 256 fields"));
}

#[test]
fn peer_sends_a_header_that_is_too_large() {
    let (peer, server) = proxied("proxy.buffer_size = \"4k\"");
    let (mut client, mut connection) = at_peer(&peer, &server, GET);
    connection.reply(format!("HTTP/1.1 200 OK\r\nX-Large: {}\r\n\r\n", "x".repeat(5000)));
    client.response().expect(502);
    connection.expect_closed();
    server.stderr(|text| text.contains("upstream sent too big header: it exceeds 4096 bytes"));
}

#[test]
fn nobody_listens() {
    let refused = Reserved::new();
    let server = proxy_to(refused.port, "");
    assert_eq!(server.get("/").expect(502).field("Content-Type"), Some("text/html"));
    assert_eq!(server.request("POST", "/", "Content-Length: 0\r\n").status, 502);
    let text = server.stderr(|text| text.contains("connect() failed (111: Connection refused"));
    assert!(text.contains(&format!("upstream: \"http://127.0.0.1:{}/", refused.port)), "{text}");
}

#[test]
fn connect_timeout() {
    let stalled = Reserved::new().stall();
    let server = proxy_to(stalled.port, "proxy.connect_timeout = \"100ms\"");
    server.get("/").expect(504);
    server.stderr(|text| text.contains("upstream timed out (110: Connection timed out) while connecting to upstream"));
}

#[test]
fn read_timeout_before_the_header() {
    let (peer, server) = proxied("proxy.read_timeout = \"100ms\"");
    let (mut client, mut connection) = at_peer(&peer, &server, GET);
    connection.reply("HTTP/1.1 200 OK\r\nX-");
    client.response().expect(504);
    connection.expect_closed();
    server.stderr(|text| {
        text.contains("upstream timed out (110: Connection timed out) while reading response header from upstream")
    });
}

#[test]
fn read_timeout_in_the_body() {
    // Long enough for the peer to answer on a slow machine.
    let (peer, server) = proxied("proxy.read_timeout = \"2s\"");
    let (mut client, mut connection) = at_peer(&peer, &server, GET);
    connection.reply("HTTP/1.1 200 OK\r\n\r\nhello");
    assert_eq!(client.head().unwrap().status, 200);
    let (rest, ending) = client.rest_and_end();
    assert!(!rest.contains("0\r\n\r\n") && ending == Ending::Reset, "{rest:?} {ending:?}");
    connection.expect_closed();
    server.stderr(|text| text.contains("upstream timed out (110: Connection timed out) while reading upstream"));
}

#[test]
fn read_timeout_counts_between_two_reads() {
    // The pauses are the subject: each below the time out, all together above it. If the machine has stalled, so that one
    // was above it, that says nothing, and is done again with more time.
    let read_timeouts = [600, 2400, 9600].map(Duration::from_millis);
    assert!(read_timeouts.into_iter().any(read_timeout_counts_between), "the machine stalls for seconds");
}

/// True if the response came although it took longer than the time out; false if a pause was longer than that.
fn read_timeout_counts_between(read_timeout: Duration) -> bool {
    let (peer, server) = proxied(&format!("proxy.read_timeout = \"{}ms\"", read_timeout.as_millis()));
    let mut client = server.connect();
    let start = Instant::now();
    client.send(GET);
    let mut connection = peer.accept();
    connection.head();
    let (mut last, mut longest) = (start, Duration::ZERO);
    let mut send = |text: &str| {
        // To a connection that timed out nothing can be sent, which shows below.
        let _ = connection.stream.write_all(text.as_bytes());
        let now = Instant::now();
        longest = longest.max(now - last);
        // The server may have read it as early as this.
        last = now;
    };
    send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
    for _ in 0..10 {
        thread::sleep(read_timeout / 6);
        send("x");
    }
    let response = client.try_response_to("GET");
    if longest >= read_timeout {
        return false;
    }
    assert_eq!(response.unwrap().expect(200).text(), "xxxxxxxxxx", "pauses of at most {longest:?}");
    assert!(start.elapsed() > read_timeout, "it took no longer than the time out");
    true
}

#[test]
fn read_timeout_does_not_count_while_the_client_is_slow() {
    // Long enough for a peer on a slow machine, as long as the client is not slow.
    let (peer, server) = proxied("proxy.read_timeout = \"2s\"");
    let body = files::noise(20 * 1024 * 1024);
    let mut client = Client::slow(server.address());
    client.send(GET);
    let mut connection = peer.accept();
    connection.head();
    let theirs = body.clone();
    let writer = thread::spawn(move || {
        connection.reply(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", theirs.len()));
        connection.reply(&theirs);
        connection
    });
    // Longer than the time out, which must not count; a slow machine only waits longer.
    thread::sleep(Duration::from_millis(3000));
    assert!(client.response().expect(200).body == body, "other bytes");
    drop(writer.join().unwrap());
}

#[test]
fn send_timeout() {
    let (peer, server) = proxied("client_max_body_size = \"64m\"\nproxy.send_timeout = \"200ms\"");
    let body = vec![b'x'; 32 * 1024 * 1024];
    let mut client = server.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
    client.send(&body);
    let _connection = peer.accept();
    client.response().expect(504);
    server.stderr(|text| {
        text.contains("upstream timed out (110: Connection timed out) while sending request to upstream")
    });
}

// ---- what stays behind

/// Requests that end in all ways.
fn all_endings(peer: &Peer, server: &Server) {
    // Well.
    let (mut client, mut connection) = at_peer(peer, server, GET);
    connection.reply("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello");
    client.response().expect(200);
    // The client goes: before the header, in the body, in its own body.
    let (client, mut connection) = at_peer(peer, server, GET);
    drop(client);
    connection.expect_closed();
    let (mut client, mut connection) = at_peer(peer, server, GET);
    connection.reply("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    client.head().unwrap();
    drop(client);
    connection.expect_closed();
    server.connect().send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    // The peer goes: before the header, in the body; it sends no header, or invalid chunks.
    let (mut client, connection) = at_peer(peer, server, GET);
    drop(connection);
    client.response().expect(502);
    let (mut client, mut connection) = at_peer(peer, server, GET);
    connection.reply("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    drop(connection);
    client.rest_and_end();
    let (mut client, mut connection) = at_peer(peer, server, GET);
    connection.reply("what?\r\n");
    client.response().expect(502);
    let (mut client, mut connection) = at_peer(peer, server, GET);
    connection.reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx");
    client.rest_and_end();
    connection.expect_closed();
    // Nobody listens.
    let mut client = server.connect();
    client.send("GET /refused HTTP/1.1\r\nHost: a\r\n\r\n");
    client.response().expect(502);
}

#[test]
fn requests_leave_neither_sockets_nor_memory_behind() {
    let (peer, refused) = (Peer::new(), Reserved::new());
    let server = Server::start(&format!(
        r#"{TOP}
        [[http.server]]
        listen = ["127.0.0.1:PORT"]
        client_max_body_size = 0
        [[http.server.location]]
        path = "/"
        proxy.pass = "http://127.0.0.1:{}"
        [[http.server.location]]
        path = "/refused"
        proxy.pass = "http://127.0.0.1:{}""#,
        peer.port, refused.port
    ));
    let before = server.open_files();
    // Buffers and pools grow at first.
    for _ in 0..50 {
        all_endings(&peer, &server);
    }
    let memory = server.memory_kb();
    for _ in 0..200 {
        all_endings(&peer, &server);
    }
    eventually("no socket stays open", || server.open_files() <= before);
    // 1600 requests: a kilobyte of each would show.
    let grown = server.memory_kb().saturating_sub(memory);
    assert!(grown < 1024, "{grown} kB more after 1600 requests");
}

// ---- the configuration

#[test]
fn a_name_that_does_not_resolve_is_an_error_of_the_configuration() {
    let text = Server::fails(&format!(
        r#"{TOP}
[[http.server]]
listen = ["127.0.0.1:PORT"]
[[http.server.location]]
path = "/"
proxy.pass = "http://backedn"
[http.upstream.backend]
server = [{{ address = "127.0.0.1:1" }}]
[http.upstream.other]
server = [{{ address = "nobody.invalid:1" }}]
"#
    ));
    assert!(text.contains("plugins.toml:13:14: http.server.location.proxy.pass: "), "{text}");
    assert!(text.contains("found \"backedn\", which cannot be resolved"), "{text}");
    assert!(text.contains("is the upstream \"backend\" meant?"), "{text}");
    assert!(text.contains("found \"nobody.invalid\", which cannot be resolved"), "{text}");
}

#[test]
fn two_locations_with_the_same_address_share_its_peer() {
    let peer = Peer::new();
    let server = Server::start(&format!(
        r#"{TOP}
        [[http.server]]
        listen = ["127.0.0.1:PORT"]
        [[http.server.location]]
        path = "/a"
        proxy.pass = "http://127.0.0.1:{port}"
        [[http.server.location]]
        path = "/b"
        proxy.pass = "http://localhost:{port}""#,
        port = peer.port
    ));
    let (mut client, mut connection) = at_peer(&peer, &server, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    connection.reply(OK);
    client.response().expect(200);
    client.send("GET /b HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut other = peer.accept();
    assert_eq!(other.head(), format!("GET /b HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", peer.port));
    other.reply(OK);
    client.response().expect(200);
}

#[test]
fn a_uri_part_needs_a_path_that_it_can_replace() {
    let location = |path: &str, pass: &str| {
        format!("[[http.server.location]]\npath = '{path}'\nproxy.pass = \"http://127.0.0.1:1{pass}\"\n")
    };
    let top =
        "module = [{ name = \"proxy\" }, { name = \"round_robin\" }]\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n";
    let text = Server::fails(&[top, &location("~ \\.php$", "/v1/"), &location("@app", "/")].concat());
    let why = |place: &str, what: &str| {
        format!(
            "http.server.location.proxy.pass: its URI part replaces the path of the location, but \"{place}\" is a {what}, \
             which no URI begins with; expected a value without a URI part\n"
        )
    };
    let expected = [
        format!("plugins.toml:6:14: {}", why("~ \\.php$", "regular expression")),
        format!("plugins.toml:9:14: {}", why("@app", "name")),
    ];
    assert_eq!(text, expected.concat());
    // Without one, and where there is a path, it is as good as elsewhere.
    let valid = [("~ \\.php$", ""), ("@app", ""), ("/a/", "/v1/"), ("= /b", "/v1/"), ("^~ /c", "/v1/")]
        .map(|(path, pass)| location(path, pass));
    let answer = Server::tests(&Folder::new(), &[top, &valid.concat()].concat());
    assert_eq!(answer.code, Some(0), "{answer:#?}");
}

#[test]
fn a_uri_part_outside_of_locations_replaces_the_root() {
    let peer = Peer::new();
    let pass = format!("proxy.pass = \"http://127.0.0.1:{}/v1/\"\n", peer.port);
    let server = Server::start(&format!("{TOP}[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n{pass}"));
    let (mut client, (head, mut connection)) = at_peer_with_head(&peer, &server, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("GET /v1/x HTTP/1.1\r\n"), "{head}");
    let to = format!("http://127.0.0.1:{}/v1/y", peer.port);
    connection.reply(format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(client.response().expect(302).field("Location"), Some("/y"));
}

/// nginx: proxy_pass belongs to the location in which it is written; proxy_read_timeout and others hold inside of it, too.
#[test]
fn pass_is_not_inherited_and_the_other_keys_are() {
    let peer = Peer::new();
    let server = Server::with(
        &[("html/x/static/file", b"the file")],
        &format!(
            "module = [{{ name = \"static\" }}, {{ name = \"proxy\" }}, {{ name = \"round_robin\" }}]\n\
             [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nroot = \"html\"\n\
             [[http.server.location]]\npath = \"/x/\"\n\
             proxy = {{ pass = \"http://127.0.0.1:{0}/up/\", set_header = [{{ name = \"X-From\", value = \"outer\" }}] }}\n\
             [[http.server.location.location]]\npath = \"/x/static/\"\n\
             [[http.server.location.location]]\npath = \"/x/slow/\"\nproxy.pass = \"http://127.0.0.1:{0}/late/\"\n",
            peer.port
        ),
    );
    assert_eq!(server.get("/x/static/file").expect(200).text(), "the file");
    for (path, line) in [("/x/slow/report", "GET /late/report HTTP/1.1\r\n"), ("/x/a", "GET /up/a HTTP/1.1\r\n")] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let (mut client, (head, mut connection)) = at_peer_with_head(&peer, &server, &request);
        assert!(head.starts_with(line) && head.contains("X-From: outer\r\n"), "{head}");
        connection.reply("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        client.response().expect(204);
    }
    // Where pass alone is missing, somebody has forgotten it.
    let top =
        "module = [{ name = \"proxy\" }, { name = \"round_robin\" }]\n[http]\nproxy.pass = \"http://127.0.0.1:1\"\n";
    let places = "[[http.server]]\n[[http.server.location]]\npath = \"/x/\"\nproxy.pass = \"http://127.0.0.1:1\"\n\
                  [[http.server.location.location]]\npath = \"/x/slow/\"\nproxy.read_timeout = \"60s\"\n";
    assert_eq!(
        Server::fails(&[top, places].concat()),
        "plugins.toml:3:7: http.proxy.pass: not valid here, where it would hold nowhere; valid in server, location\n\
         plugins.toml:10:1: http.server.location.location.proxy.pass: missing, but required: a string; that of the level \
         around does not hold here\n"
    );
}
