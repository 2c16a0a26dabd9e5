//! Which peer gets a request, and which one gets it next when that one fails.

mod support;

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use support::peer::{Named, Peer, Reserved};
use support::proxied::{GET, OK, at, balanced};
use support::{Client, Server, eventually};

/// The peers that so many requests meet, one after the other.
fn met(server: &Server, requests: usize) -> String {
    (0..requests).map(|_| server.get("/").expect(200).text().to_owned()).collect()
}

// ---- round robin

#[test]
fn requests_go_round() {
    let (a, b, c) = (Named::new("a"), Named::new("b"), Named::new("c"));
    let server = balanced(&[at(a.port, ""), at(b.port, ""), at(c.port, "")], "", "");
    assert_eq!(met(&server, 9), "abcabcabc");
}

#[test]
fn weights_are_exact_over_a_cycle() {
    let (a, b, c) = (Named::new("a"), Named::new("b"), Named::new("c"));
    let server = balanced(&[at(a.port, ", weight = 5"), at(b.port, ""), at(c.port, "")], "", "");
    // nginx's order: smooth, rather than five a in a row.
    assert_eq!(met(&server, 14), "aabacaaaabacaa");
}

#[test]
fn weights_are_exact_with_many_clients_at_once() {
    let (a, b) = (Named::new("a"), Named::new("b"));
    let server = balanced(&[at(a.port, ", weight = 3"), at(b.port, "")], "", "");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = server.connect();
                for _ in 0..50 {
                    client.send(GET);
                    client.response().expect(200);
                }
            });
        }
    });
    assert_eq!((a.requests(), b.requests()), (300, 100));
}

#[test]
fn a_peer_that_is_down_gets_nothing() {
    let (a, b) = (Named::new("a"), Named::new("b"));
    let server = balanced(&[at(a.port, ", down = true"), at(b.port, "")], "", "");
    assert_eq!(met(&server, 4), "bbbb");
    assert_eq!(a.accepted(), 0);
}

#[test]
fn all_peers_are_down() {
    let a = Named::new("a");
    let server = balanced(&[at(a.port, ", down = true")], "", "");
    server.get("/").expect(502);
    server.stderr(|text| {
        text.contains("no live upstreams while connecting to upstream, ")
            && text.contains("upstream: \"http://backend/\"")
    });
    assert_eq!(a.accepted(), 0);
}

#[test]
fn a_backup_is_used_when_no_other_peer_is_left() {
    let (a, backup) = (Reserved::new(), Named::new("x"));
    let list = [at(a.port, ", fail_timeout = \"100ms\""), at(backup.port, ", backup = true")];
    let server = balanced(&list, "", "");
    assert_eq!(met(&server, 3), "xxx");
    let _a = Named::at(a, "a");
    eventually("the first peer comes back", || met(&server, 1) == "a");
    assert_eq!(met(&server, 3), "aaa");
}

// ---- the next peer

#[test]
fn refused_connections_go_to_the_next_peer() {
    let (dead, b) = (Reserved::new(), Named::new("b"));
    let server = balanced(&[at(dead.port, ", max_fails = 0"), at(b.port, "")], "", "");
    assert_eq!(met(&server, 6), "bbbbbb");
    // Nothing was sent to the first, so that this may go on too.
    assert_eq!(server.request("POST", "/", "Content-Length: 0\r\n").expect(200).text(), "b");
    server.stderr(|text| text.contains("connect() failed (111: Connection refused"));
}

#[test]
fn all_peers_refuse() {
    let (a, b) = (Reserved::new(), Reserved::new());
    let server = balanced(&[at(a.port, ""), at(b.port, "")], "", "");
    server.get("/").expect(502);
    let text = server.stderr(|text| text.matches("connect() failed").count() == 2);
    assert_eq!(text.matches("temporarily disabled").count(), 2, "{text}");
    server.get("/").expect(502);
    let text = server.stderr(|text| text.contains("no live upstreams"));
    assert_eq!(text.matches("connect() failed").count(), 2, "{text}");
}

#[test]
fn get_goes_to_the_next_peer_when_the_first_closes_before_its_header() {
    for method in ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"] {
        let (a, b) = (Peer::new(), Peer::new());
        let server = balanced(&[at(a.port, ""), at(b.port, "")], "", "");
        let mut client = server.connect();
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy"));
        let mut first = a.accept();
        let head = first.head();
        first.expect("xy");
        first.reply("HTTP/1.1 200 OK\r\nSet-Cookie: of-a\r\n");
        drop(first);
        let mut second = b.accept();
        assert_eq!(second.head(), head);
        second.expect("xy");
        second.reply(OK);
        assert_eq!(client.response_to(method).expect(200).field("Set-Cookie"), None, "{method}");
        server.stderr(|text| text.contains("upstream prematurely closed connection while reading response header"));
    }
}

#[test]
fn post_is_not_sent_twice() {
    for method in ["POST", "PATCH", "LOCK"] {
        let (a, b) = (Peer::new(), Peer::new());
        let server = balanced(&[at(a.port, ""), at(b.port, "")], "", "");
        let mut client = server.connect();
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy"));
        let mut first = a.accept();
        first.head();
        first.expect("xy");
        drop(first);
        assert_eq!(client.response().status, 502, "{method}");
        b.expect_no_connection();
    }
}

#[test]
fn a_time_out_goes_to_the_next_peer() {
    let (a, b) = (Peer::new(), Named::new("b"));
    // Long enough for the second one's answer on a slow machine.
    let server = balanced(&[at(a.port, ""), at(b.port, "")], "", "proxy.read_timeout = \"2s\"");
    assert_eq!(met(&server, 1), "b");
    let mut first = a.accept();
    first.head();
    first.expect_closed();
}

#[test]
fn the_last_failure_is_the_clients_status() {
    let (dead, silent, down) = (Reserved::new(), Peer::new(), Reserved::new());
    let list = [at(dead.port, ""), at(silent.port, ""), at(down.port, ", down = true")];
    let server = balanced(&list, "", "proxy.read_timeout = \"100ms\"");
    server.get("/").expect(504);
}

#[test]
fn an_invalid_header_is_not_passed_over() {
    let (a, b) = (Peer::new(), Peer::new());
    let server = balanced(&[at(a.port, ""), at(b.port, "")], "", "");
    let mut client = server.connect();
    client.send(GET);
    a.accept().answer("what?\r\n\r\n");
    client.response().expect(502);
    b.expect_no_connection();
}

#[test]
fn a_body_that_ends_early_does_not_disable_its_peer() {
    let (a, b) = (Peer::new(), Named::new("b"));
    let server = balanced(&[at(a.port, ""), at(b.port, "")], "", "");
    for _ in 0..2 {
        let mut client = server.connect();
        client.send(GET);
        a.accept().answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        assert_eq!(client.head().unwrap().status, 200);
        let (rest, _) = client.rest_and_end();
        assert!(rest.len() < 10, "{rest:?}");
        assert_eq!(met(&server, 1), "b");
    }
}

// ---- max_fails and fail_timeout

#[test]
fn max_fails_takes_a_peer_out_and_fail_timeout_brings_it_back() {
    let (a, b) = (Reserved::new(), Named::new("b"));
    let list = [at(a.port, ", max_fails = 2, fail_timeout = \"1s\""), at(b.port, "")];
    let server = balanced(&list, "", "");
    let failures = || server.stderr(|_| true).matches("connect() failed").count();
    let start = Instant::now();
    let mut last = start;
    eventually("the peer is taken out", || {
        let (now, before) = (Instant::now(), failures());
        assert_eq!(met(&server, 1), "b");
        if failures() > before {
            last = now;
        }
        server.stderr(|_| true).contains("temporarily disabled")
    });
    // On a machine that is so slow that the times are over before all is done, it may take a try more.
    let in_time = |since: Instant| since.elapsed() < Duration::from_secs(1);
    let text = server.stderr(|_| true);
    assert!(failures() == 2 || !in_time(start), "{text}");
    let disabled = format!("upstream server 127.0.0.1:{} of \"backend\" temporarily disabled", a.port);
    assert!(text.contains(&disabled), "{text}");
    let is_out = |failed: usize, last: Instant| {
        assert_eq!(met(&server, 20), "b".repeat(20));
        assert!(failures() == failed || !in_time(last), "{}", server.stderr(|_| true));
    };
    let failed = failures();
    is_out(failed, last);
    // It is tried again by one request, and one failure is enough to keep it out.
    eventually("it is tried again", || {
        last = Instant::now();
        assert_eq!(met(&server, 1), "b");
        failures() > failed
    });
    is_out(failures(), last);
    let _a = Named::at(a, "a");
    eventually("it comes back", || met(&server, 1) == "a");
    let all = met(&server, 10);
    assert_eq!((all.matches('a').count(), all.matches('b').count()), (5, 5), "{all}");
}

#[test]
fn the_only_peer_is_never_taken_out() {
    let a = Reserved::new();
    let server = balanced(&[at(a.port, "")], "", "");
    for _ in 0..5 {
        server.get("/").expect(502);
    }
    let text = server.stderr(|text| text.matches("connect() failed").count() == 5);
    assert!(!text.contains("no live upstreams") && !text.contains("disabled"), "{text}");
    let _a = Named::at(a, "a");
    assert_eq!(met(&server, 2), "aa");
}

// ---- max_conns

#[test]
fn max_conns_bounds_the_connections_of_a_peer() {
    let (a, b) = (Peer::new(), Named::new("b"));
    let server = balanced(&[at(a.port, ", max_conns = 1"), at(b.port, "")], "", "");
    let mut client = server.connect();
    client.send(GET);
    let mut busy = a.accept();
    busy.head();
    assert_eq!(met(&server, 6), "bbbbbb");
    a.expect_no_connection();
    busy.reply(OK);
    assert_eq!(client.response().expect(200).text(), "hello");
    // It is free again: one of two requests goes there, on the kept connection.
    let mut clients: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    busy.answer(OK);
    let mut bodies: Vec<String> = clients.iter_mut().map(|client| client.response().text().to_owned()).collect();
    bodies.sort();
    assert_eq!(bodies, ["b", "hello"]);
}

#[test]
fn max_conns_of_the_only_peer() {
    let a = Peer::new();
    let server = balanced(&[at(a.port, ", max_conns = 1")], "", "");
    let mut client = server.connect();
    client.send(GET);
    let mut busy = a.accept();
    busy.head();
    server.get("/").expect(502);
    // A client that goes gives the connection back.
    drop(client);
    busy.expect_closed();
    let mut client = server.connect();
    client.send(GET);
    a.accept().answer(OK);
    client.response().expect(200);
}

// ---- ip_hash

const IP_HASH: &str = "balancer = [\"ip_hash\", \"round_robin\"]\n";

/// The peers that so many requests from this address meet.
fn met_from(server: &Server, address: &str, requests: usize) -> String {
    let one = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let source: SocketAddr = format!("{address}:0").parse().unwrap();
        socket.bind(&source.into()).unwrap();
        socket.connect(&server.address().into()).unwrap();
        let mut client = Client::of(socket.into());
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.response().expect(200).text().to_owned()
    };
    (0..requests).map(|_| one()).collect()
}

#[test]
fn ip_hash_keeps_a_client_at_its_peer() {
    let (a, b) = (Named::new("a"), Named::new("b"));
    let server = balanced(&[at(a.port, ""), at(b.port, "")], IP_HASH, "");
    // nginx's hash of 127.0.N.x is 4040 + N, as long as that is below 6271; the fourth octet does not count.
    assert_eq!(met_from(&server, "127.0.0.1", 5), "aaaaa");
    assert_eq!(met_from(&server, "127.0.0.77", 2), "aa");
    assert_eq!(met_from(&server, "127.0.1.1", 5), "bbbbb");
    assert_eq!(met_from(&server, "127.0.2.1", 2), "aa");
}

#[test]
fn ip_hash_goes_on_when_the_peer_is_down() {
    let (a, b) = (Named::new("a"), Named::new("b"));
    let list = [at(a.port, ", down = true"), at(b.port, "")];
    let server = balanced(&list, IP_HASH, "");
    assert_eq!(met_from(&server, "127.0.0.1", 5), "bbbbb");
    assert_eq!(met_from(&server, "127.0.1.1", 2), "bb");
    assert_eq!(a.accepted(), 0);
}

#[test]
fn ip_hash_goes_on_when_the_peer_refuses_and_comes_back_to_it() {
    let (a, b) = (Reserved::new(), Named::new("b"));
    let list = [at(a.port, ", fail_timeout = \"200ms\""), at(b.port, "")];
    let server = balanced(&list, IP_HASH, "");
    assert_eq!(met_from(&server, "127.0.0.1", 5), "bbbbb");
    let _a = Named::at(a, "a");
    eventually("the client comes back to its peer", || met_from(&server, "127.0.0.1", 1) == "a");
    assert_eq!(met_from(&server, "127.0.0.1", 3), "aaa");
}

#[test]
fn ip_hash_leaves_backups_to_the_next_balancer() {
    let (a, b, backup) = (Named::new("a"), Named::new("b"), Named::new("x"));
    let list = [at(a.port, ""), at(b.port, ""), at(backup.port, ", backup = true")];
    let server = balanced(&list, IP_HASH, "");
    let clients = (1..20).map(|n| met_from(&server, &format!("127.0.{n}.1"), 1)).collect::<String>();
    assert!(!clients.contains('x'), "{clients}");
    let (a, b) = (Reserved::new(), Reserved::new());
    let list = [at(a.port, ""), at(b.port, ""), at(backup.port, ", backup = true")];
    let server = balanced(&list, IP_HASH, "");
    assert_eq!(met_from(&server, "127.0.0.1", 2), "xx");
}

#[test]
fn ip_hash_alone_knows_no_backup() {
    let list = [at(1, ""), at(2, ", backup = true")];
    let text = Server::fails(&format!(
        "module = [{{ name = \"proxy\" }}, {{ name = \"round_robin\" }}, {{ name = \"ip_hash\" }}]\n\
         [http.upstream.backend]\nbalancer = [\"ip_hash\"]\nserver = [{}]\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n",
        list.join(", ")
    ));
    assert!(text.contains("http.upstream.backend.server.backup: the balancer \"ip_hash\" does not support"), "{text}");
}
