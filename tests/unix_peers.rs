//! Upstream servers on unix sockets: `server = ["unix:PATH"]` and `proxy.pass = "http://unix:PATH:/URI"`.
//!
//! Front and back are servers of one process: the back listens on a unix socket and tells what it gets.

mod support;

use support::{Client, Folder, Server, proxied::TOP};

/// A front with these lines, and a back on `back.sock`.
fn config(top: &str, front: &str) -> String {
    format!(
        r#"{TOP}{top}
[[http.server]]
listen = ["127.0.0.1:PORT"]
{front}
[[http.server]]
listen = ["unix:back.sock"]
return = {{ code = 200, text = "$request_method $request_uri|$http_host|$remote_addr|$connection_requests" }}
"#
    )
}

#[test]
fn pass_names_a_socket() {
    for (pass, expected) in [
        ("http://unix:back.sock", "GET /a/b?c=d|localhost|unix:|1"),
        ("http://unix:./back.sock:/v1/", "GET /v1/b?c=d|localhost|unix:|1"),
        ("http://unix:back.sock:/", "GET /b?c=d|localhost|unix:|1"),
    ] {
        let location = format!("[[http.server.location]]\npath = \"/a/\"\nproxy.pass = \"{pass}\"");
        let server = Server::start(&config("", &location));
        assert_eq!(server.get("/a/b?c=d").expect(200).text(), expected, "{pass}");
        // Another one on the connection that was kept.
        assert_eq!(server.get("/a/b?c=d").expect(200).text(), expected.replace("|1", "|2"), "{pass}");
    }
}

#[test]
fn an_upstream_of_sockets() {
    let folder = Folder::new();
    // Nobody listens there; the next one is asked.
    drop(std::os::unix::net::UnixListener::bind(folder.path("stale")).unwrap());
    let stale = folder.path("stale");
    let top = format!("[http.upstream.app]\nserver = [\"unix:{}\", \"unix:back.sock\"]", stale.display());
    let server = Server::start(&config(&top, "proxy.pass = \"http://app\""));
    for _ in 0..3 {
        assert!(server.get("/x").expect(200).text().starts_with("GET /x|app|unix:|"));
    }
    let text = format!(
        "connect() failed (111: Connection refused) while connecting to upstream, client: 127.0.0.1, server: , \
         request: \"GET /x HTTP/1.1\", upstream: \"http://unix:{}:/x\"",
        stale.display()
    );
    server.stderr(|log| log.contains(&text));
}

#[test]
fn a_socket_that_is_not_there() {
    let server = Server::start(&config("", "proxy.pass = \"http://unix:none.sock\""));
    server.get("/").expect(502);
    server.stderr(|log| {
        log.contains("connect() failed (2: No such file or directory) while connecting to upstream, client: ")
    });
}

#[test]
fn large_bodies_both_ways() {
    let large: Vec<u8> = (0..2_000_000_u32).map(|i| (i / 11) as u8).collect();
    let config = format!(
        "{TOP}[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nclient_max_body_size = 0\nproxy.pass = \"http://unix:middle.sock\"\n\
         [[http.server]]\nlisten = [\"unix:middle.sock\"]\nclient_max_body_size = 0\nproxy.pass = \"http://unix:back.sock\"\n\
         [[http.server]]\nlisten = [\"unix:back.sock\"]\nclient_max_body_size = 0\nroot = \"html\"\n"
    );
    let config = config.replace("{ name = \"return\" },", "{ name = \"return\" }, { name = \"static\" },");
    let server = Server::with(&[("html/large", &large)], &config);
    assert!(server.get("/large").expect(200).body == large);
    let mut client = server.connect();
    client.send(format!("POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", large.len()));
    client.send(&large);
    // Files take no POST: it has come through.
    client.response().expect(405);
}

#[test]
fn ip_hash_of_clients_without_an_address() {
    let top = "[http.upstream.app]\nbalancer = [\"ip_hash\", \"round_robin\"]\nserver = [\"unix:back.sock\", \"unix:other.sock\"]";
    let front = "proxy.pass = \"http://app\"\n[[http.server]]\nlisten = [\"unix:other.sock\"]\nreturn = { code = 200, text = \"other\" }\n\
                 [[http.server]]\nlisten = [\"unix:front.sock\"]\nproxy.pass = \"http://app\"";
    let server = Server::start(&config(top, front));
    let answer = || {
        let mut client = Client::unix(&server.folder.path("front.sock"));
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.response().expect(200).text() == "other"
    };
    let first = answer();
    assert!((0..10).all(|_| answer() == first), "all on one peer");
}

#[test]
fn paths_that_do_not_fit() {
    let long = "x".repeat(120);
    let errors = Server::fails(&config(
        &format!("[http.upstream.app]\nserver = [\"unix:{long}\"]"),
        &format!("proxy.pass = \"http://unix:/{long}\""),
    ));
    let lines: Vec<&str> = errors.lines().collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line.ends_with("; at most 107 are possible")), "{errors}");
    assert!(errors.contains(": http.upstream.app.server: found a socket path of "), "{errors}");
    assert!(errors.contains(": http.server.proxy.pass: found a socket path of 121 bytes"), "{errors}");
}
