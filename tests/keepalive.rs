//! Connections to peers that are kept for the next request, and those that must not be.

mod support;

use std::{thread, time::Duration};

use support::peer::{Connection, Named, Peer};
use support::proxied::{GET, OK, at, balanced};
use support::{Client, Server};

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy";

/// A peer, and a server that passes everything to it by an upstream with more lines.
fn proxied(upstream: &str) -> (Peer, Server) {
    let peer = Peer::new();
    let server = balanced(&[at(peer.port, "")], upstream, "");
    (peer, server)
}

/// One request on a new connection to the peer, answered by it.
fn first(peer: &Peer, server: &Server, response: &str) -> (Client, Connection) {
    let mut client = server.connect();
    client.send(GET);
    let mut connection = peer.accept();
    connection.answer(response);
    client.response().expect(200);
    (client, connection)
}

/// The server has closed this connection, and the next request goes well on another.
fn is_not_reused(peer: &Peer, client: &mut Client, connection: &mut Connection) {
    connection.expect_closed();
    client.send(GET);
    peer.accept().answer(OK);
    assert_eq!(client.response().expect(200).text(), "hello");
}

#[test]
fn connections_are_used_again() {
    let peer = Named::new("a");
    let server = balanced(&[at(peer.port, "")], "", "");
    let mut client = server.connect();
    for _ in 0..20 {
        client.send(GET);
        assert_eq!(client.response().expect(200).text(), "a");
    }
    // The clients' connections, and the threads that have them, do not matter.
    for _ in 0..20 {
        assert_eq!(server.get("/").expect(200).text(), "a");
    }
    assert_eq!((peer.accepted(), peer.requests()), (1, 40));
}

#[test]
fn each_peer_has_connections_of_its_own() {
    let (a, b) = (Named::new("a"), Named::new("b"));
    let server = balanced(&[at(a.port, ""), at(b.port, "")], "", "");
    let all: String = (0..10).map(|_| server.get("/").expect(200).text().to_owned()).collect();
    assert_eq!(all, "ababababab");
    assert_eq!((a.accepted(), b.accepted()), (1, 1));
}

#[test]
fn connections_of_requests_at_the_same_time_are_kept_too() {
    let (peer, server) = proxied("");
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    let mut connections: Vec<Connection> = (0..3).map(|_| peer.accept()).collect();
    for _ in 0..2 {
        // All have a request before one is answered.
        connections.iter_mut().for_each(|connection| drop(connection.head()));
        connections.iter_mut().for_each(|connection| connection.reply(OK));
        clients.iter_mut().for_each(|client| drop(client.response().expect(200)));
        clients.iter_mut().for_each(|client| client.send(GET));
    }
    connections.iter_mut().for_each(|connection| drop(connection.head()));
    connections.iter_mut().for_each(|connection| connection.reply(OK));
    clients.iter_mut().for_each(|client| drop(client.response().expect(200)));
    peer.expect_no_connection();
}

#[test]
fn keepalive_bounds_the_idle_connections() {
    let (peer, server) = proxied("keepalive = 1");
    let mut clients: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    let mut connections = Vec::new();
    for client in &mut clients {
        client.send(GET);
        let mut connection = peer.accept();
        connection.head();
        connections.push(connection);
    }
    for (client, connection) in clients.iter_mut().zip(&mut connections) {
        connection.reply(OK);
        client.response().expect(200);
    }
    // The one that was used last stays.
    connections[0].expect_closed();
    connections[1].expect_open();
}

#[test]
fn keepalive_0_closes() {
    let (peer, server) = proxied("keepalive = 0");
    let (mut client, mut connection) = first(&peer, &server, OK);
    is_not_reused(&peer, &mut client, &mut connection);
}

#[test]
fn keepalive_requests() {
    let (peer, server) = proxied("keepalive_requests = 3");
    let (mut client, mut connection) = first(&peer, &server, OK);
    for _ in 0..2 {
        client.send(GET);
        connection.answer(OK);
        client.response().expect(200);
    }
    is_not_reused(&peer, &mut client, &mut connection);
}

#[test]
fn keepalive_timeout() {
    let (peer, server) = proxied("keepalive_timeout = \"100ms\"");
    let (mut client, mut connection) = first(&peer, &server, OK);
    // It is closed without another request.
    is_not_reused(&peer, &mut client, &mut connection);
}

#[test]
fn keepalive_timeout_counts_when_a_connection_is_taken() {
    let (peer, server) = proxied("keepalive_timeout = \"50ms\"");
    let (mut client, mut connection) = first(&peer, &server, OK);
    // The time out is the subject. The connection is kept before the response leaves, so that a slow machine only waits longer.
    thread::sleep(Duration::from_millis(60));
    client.send(GET);
    peer.accept().answer(OK);
    client.response().expect(200);
    connection.expect_closed();
}

#[test]
fn connection_close_in_the_response() {
    let (peer, server) = proxied("");
    let response = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
    let (mut client, mut connection) = first(&peer, &server, response);
    is_not_reused(&peer, &mut client, &mut connection);
}

#[test]
fn http_1_0_in_the_response() {
    let (peer, server) = proxied("");
    let (mut client, mut connection) = first(&peer, &server, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    is_not_reused(&peer, &mut client, &mut connection);

    let response = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello";
    let (peer, server) = proxied("");
    let (mut client, mut connection) = first(&peer, &server, response);
    client.send(GET);
    connection.answer(OK);
    client.response().expect(200);
}

#[test]
fn http_version_1_0() {
    let peer = Peer::new();
    let server = balanced(&[at(peer.port, "")], "", "proxy.http_version = \"1.0\"");
    let mut client = server.connect();
    client.send(GET);
    let mut connection = peer.accept();
    assert_eq!(connection.answer(OK), "GET / HTTP/1.0\r\nHost: backend\r\nConnection: close\r\n\r\n");
    client.response().expect(200);
    connection.expect_closed();
}

#[test]
fn bytes_behind_the_body() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    ] {
        let (peer, server) = proxied("");
        let (mut client, mut connection) = first(&peer, &server, response);
        is_not_reused(&peer, &mut client, &mut connection);
    }
}

#[test]
fn bytes_that_come_while_the_connection_is_kept() {
    let (peer, server) = proxied("");
    let (mut client, mut connection) = first(&peer, &server, OK);
    connection.reply("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    client.send(GET);
    peer.accept().answer(OK);
    assert_eq!(client.response().expect(200).text(), "hello");
    connection.expect_closed();
}

#[test]
fn a_head_or_304_with_a_body_is_not_kept() {
    let (peer, server) = proxied("");
    let mut client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut connection = peer.accept();
    connection.answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    client.response_to("HEAD").expect(200);
    is_not_reused(&peer, &mut client, &mut connection);
}

#[test]
fn the_peer_closes_a_kept_connection() {
    let (peer, server) = proxied("");
    let (mut client, connection) = first(&peer, &server, OK);
    drop(connection);
    // Even what may not be sent twice, since it was not sent once.
    client.send(POST);
    let mut connection = peer.accept();
    connection.head();
    connection.expect("xy");
    connection.reply(OK);
    client.response().expect(200);
    assert_eq!(server.stderr(|_| true).matches("[error]").count(), 0);
}

#[test]
fn the_peer_closes_a_kept_connection_when_the_request_comes() {
    for reset in [false, true] {
        let (peer, server) = proxied("");
        let (mut client, mut connection) = first(&peer, &server, OK);
        client.send(GET);
        connection.head();
        if reset {
            connection.reset();
        } else {
            drop(connection);
        }
        peer.accept().answer(OK);
        assert_eq!(client.response().expect(200).text(), "hello");
    }
}

#[test]
fn several_kept_connections_are_stale() {
    let (peer, server) = proxied("");
    let (mut clients, mut connections) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut client = server.connect();
        client.send(GET);
        let mut connection = peer.accept();
        connection.head();
        clients.push(client);
        connections.push(connection);
    }
    for (client, connection) in clients.iter_mut().zip(&mut connections) {
        connection.reply(OK);
        client.response().expect(200);
    }
    clients[0].send(GET);
    // Each is tried, the one that was used last first, and closed by the peer, before a new one is made.
    while let Some(mut connection) = connections.pop() {
        connection.head();
    }
    peer.accept().answer(OK);
    assert_eq!(clients[0].response().expect(200).text(), "hello");
}

#[test]
fn post_that_was_sent_on_a_stale_connection_is_not_sent_again() {
    let (peer, server) = proxied("");
    let (mut client, mut connection) = first(&peer, &server, OK);
    client.send(POST);
    connection.head();
    connection.expect("xy");
    drop(connection);
    client.response().expect(502);
    peer.expect_no_connection();
}

#[test]
fn a_stale_connection_does_not_count_as_a_failure() {
    let (a, b) = (Peer::new(), Named::new("b"));
    let server = balanced(&[at(a.port, ""), at(b.port, "")], "", "");
    let (mut client, mut connection) = first(&a, &server, OK);
    assert_eq!(server.get("/").text(), "b");
    client.send(GET);
    connection.head();
    drop(connection);
    // Round robin's turn is b's now.
    assert_eq!(client.response().expect(200).text(), "b");
    assert!(!server.stderr(|_| true).contains("temporarily disabled"));
    client.send(GET);
    a.accept().answer(OK);
    assert_eq!(client.response().expect(200).text(), "hello");
}

#[test]
fn a_response_that_was_not_read_to_its_end_is_not_kept() {
    let (peer, server) = proxied("");
    let mut client = server.connect();
    client.send(GET);
    let mut connection = peer.accept();
    connection.answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    assert_eq!(client.head().unwrap().status, 200);
    drop(client);
    connection.expect_closed();
}
