//! nginx as the peer of the proxy: real responses, many of them, over kept connections.

mod support;

use std::thread;

use support::nginx::Nginx;
use support::proxied::proxy_to;
use support::{eventually, files};

#[test]
fn a_thousand_requests_over_kept_connections() {
    let Some(nginx) = Nginx::start(&[("html/small.txt", b"hello from nginx\n")]) else { return };
    let server = proxy_to(nginx.port, "");
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let mut client = server.connect();
                for i in 0..100 {
                    client.send(format!("GET /small.txt?{i} HTTP/1.1\r\nHost: a\r\n\r\n"));
                    let response = client.response().expect(200);
                    assert_eq!(response.text(), "hello from nginx\n", "{response:?}");
                }
            });
        }
    });
    let mut log = String::new();
    eventually("a line for each request", || {
        log = nginx.log();
        log.lines().filter(|line| line.contains("small.txt")).count() >= 1000
    });
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("small.txt")).collect();
    assert_eq!(lines.len(), 1000);
    assert!(lines.iter().all(|line| line.ends_with(" 200")));
    let connections: std::collections::HashSet<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
    assert!(connections.len() <= 10, "{} connections for 10 clients", connections.len());
}

#[test]
fn files_of_several_sizes() {
    let sizes = [0, 1, 1460, 4095, 8192, 8193, 32_768, 65_537, 1_000_000, 10_000_000];
    let names: Vec<String> = sizes.iter().map(|size| format!("html/{size}.bin")).collect();
    let contents: Vec<Vec<u8>> = sizes.iter().map(|size| files::noise(*size)).collect();
    let list: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(contents.iter().map(Vec::as_slice)).collect();
    let Some(nginx) = Nginx::start(&list) else { return };
    let server = proxy_to(nginx.port, "");
    let mut client = server.connect();
    for (size, content) in sizes.iter().zip(&contents) {
        for method in ["GET", "HEAD", "GET"] {
            client.send(format!("{method} /{size}.bin HTTP/1.1\r\nHost: a\r\n\r\n"));
            let response = client.response_to(method).expect(200);
            assert_eq!(response.field("Content-Length"), Some(size.to_string().as_str()), "{response:?}");
            assert!(method == "HEAD" || response.body == *content, "{size} bytes differ");
        }
    }
    client.send("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.response().expect(404).text().contains("nginx"));
}
