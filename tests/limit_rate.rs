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
