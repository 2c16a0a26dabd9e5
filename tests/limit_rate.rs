//! Limited responses. Times are lower bounds: a slow machine may take longer, but never less.

mod support;

use std::time::{Duration, Instant};

use support::{Client, Server, files};

fn site(limit: &str) -> String {
    format!(
        "module = [{{ name = \"static\" }}, {{ name = \"gzip\" }}, {{ name = \"limit_rate\" }}]\n[[http.server]]\n\
         listen = [\"127.0.0.1:PORT\"]\nroot = \"html\"\nlimit_rate = {limit}\n"
    )
}

fn request(client: &mut Client) {
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
}

#[test]
fn three_seconds_worth_takes_two_seconds() {
    let noise = files::noise(60_000);
    let server = Server::with(&[("html/a", &noise)], &site("{ rate = 20000 }"));
    let start = Instant::now();
    let response = server.get("/a").expect(200);
    let time = start.elapsed();
    assert!(response.body == noise, "{response:?}");
    assert!(time >= Duration::from_millis(1900), "{time:?}");
    assert_eq!(response.field("Content-Length"), Some("60000"));
}

#[test]
fn what_comes_first_is_free() {
    let noise = files::noise(1_000_000);
    let server = Server::with(&[("html/a", &noise)], &site("{ rate = \"10k\", after = 985000 }"));
    let mut client = server.connect();
    let start = Instant::now();
    request(&mut client);
    client.head().unwrap();
    let mut body = client.take(985_000).unwrap();
    body.extend(client.take(15_000).unwrap());
    let time = start.elapsed();
    assert!(body == noise);
    assert!(time >= Duration::from_millis(900), "{time:?}");
}

#[test]
fn clients_are_limited_each_for_itself() {
    let noise = files::noise(40_000);
    let server = Server::with(&[("html/a", &noise)], &site("{ rate = 20000 }"));
    let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    let start = Instant::now();
    clients.iter_mut().for_each(request);
    for client in &mut clients {
        assert!(client.response().expect(200).body == noise);
    }
    let time = start.elapsed();
    assert!(time >= Duration::from_millis(900), "{time:?}");
    // One after the other would take 20 seconds.
    assert!(time < Duration::from_secs(10), "{time:?}");
}

#[test]
fn the_next_request_starts_anew() {
    let noise = files::noise(20_000);
    let server = Server::with(&[("html/a", &noise)], &site("{ rate = 20000 }"));
    let mut client = server.connect();
    for _ in 0..5 {
        request(&mut client);
        assert!(client.response().expect(200).body == noise);
    }
}

#[test]
fn compressed_bytes_count() {
    // 300,000 bytes that become about 3,000.
    let text = vec![b'a'; 300_000];
    let server = Server::with(&[("html/a.html", &text)], &(site("{ rate = 10000 }") + "gzip.enabled = true\n"));
    let start = Instant::now();
    let response = server.get_with("/a.html", "Accept-Encoding: gzip\r\n").expect(200);
    assert!(response.body.len() < 10_000, "{} bytes", response.body.len());
    assert!(start.elapsed() < Duration::from_secs(20), "as if 300,000 bytes were counted");
}

#[test]
fn a_client_that_leaves_while_it_waits() {
    let noise = files::noise(1_000_000);
    let server = Server::with(&[("html/a", &noise), ("html/b", b"free")], &site("{ rate = 1000 }"));
    for _ in 0..20 {
        let mut client = server.connect();
        request(&mut client);
        client.take(500).unwrap();
        drop(client);
    }
    assert_eq!(server.get("/b").expect(200).text(), "free");
}

/// The second part of a turn's file leaves when the filter has been asked already, and no event tells it that.
#[test]
fn turns_of_a_file_shorter_than_the_rate() {
    let noise = files::noise(3_000_000);
    let limits = "sendfile_max_chunk = \"512k\"\nlimit_rate = { rate = \"800k\", after = \"800k\" }";
    let site = site("{}").replace("limit_rate = {}", limits);
    let server = Server::with(&[("html/a", &noise)], &site);
    assert!(server.get("/a").expect(200).body == noise);
}

/// Fewer bytes than are worth a write of their own, and a buf that ends where the budget does.
#[test]
fn a_buf_that_ends_with_the_budget() {
    let (peer, server) = support::proxied::proxied("limit_rate = { rate = 100 }");
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut connection = peer.accept();
    connection.head();
    let (a, b) = ("a".repeat(100), "b".repeat(50));
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.reply(format!("{head}64\r\n{a}\r\n32\r\n{b}\r\n0\r\n\r\n"));
    assert_eq!(client.response().expect(200).text(), a + &b);
}

#[test]
fn a_rate_may_be_made_of_variables() {
    let noise = files::noise(60_000);
    let config = site("{ rate = \"$arg_rate\", after = \"${arg_after}k\" }").replace(
        "[[http.server]]",
        "[http]\nlog_format.rate = \"$args: $limit_rate\"\naccess_log = { path = \"stdout\", format = \"rate\" }\n[[http.server]]",
    );
    let server = Server::with(&[("html/a", &noise)], &config);
    let start = Instant::now();
    assert!(server.get("/a?rate=20k&after=20").expect(200).body == noise);
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    server.get("/a?rate=fast&after=0").expect(200);
    server.get("/a?rate=0&after=0").expect(200);
    server.stdout(|log| log == "rate=20k&after=20: 20480\nrate=fast&after=0: 0\nrate=0&after=0: 0\n");
    server.stderr(|log| log.contains("[error] ") && log.contains("limit_rate: invalid size \"fast\", client: "));
}
