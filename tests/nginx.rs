//! nginx as the peer of the proxy: real responses, many of them, over kept connections.

mod support;

use std::{
    fs,
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use support::peer::Reserved;
use support::proxied::proxy_to;
use support::{Folder, eventually, files};

/// A running nginx; ended when it is dropped.
struct Nginx {
    child: Child,
    folder: Folder,
    port: u16,
}

impl Nginx {
    /// Starts one that serves these files. None, loudly, if nginx is not installed and tests may be skipped.
    fn start(files: &[(&str, &[u8])]) -> Option<Nginx> {
        let found = Command::new("nginx").arg("-v").output();
        if found.is_err() {
            let strict = std::env::var("TOPNEXT_NO_SKIP").is_ok_and(|value| value == "1");
            assert!(!strict, "nginx is not installed, and TOPNEXT_NO_SKIP=1");
            println!("SKIPPED: nginx not installed");
            return None;
        }
        let folder = Folder::with(files);
        fs::create_dir_all(folder.path("logs")).unwrap();
        let port = Reserved::new();
        let prefix = folder.path("").display().to_string();
        folder.write(
            "nginx.conf",
            format!(
                r#"daemon off; worker_processes 1; pid {prefix}/nginx.pid; error_log {prefix}/error.log;
                events {{ worker_connections 256; }}
                http {{
                    log_format connection '$connection $request $status';
                    access_log {prefix}/access.log connection;
                    client_body_temp_path {prefix}/t1; proxy_temp_path {prefix}/t2; fastcgi_temp_path {prefix}/t3;
                    uwsgi_temp_path {prefix}/t4; scgi_temp_path {prefix}/t5;
                    keepalive_requests 100000;
                    server {{ listen 127.0.0.1:{port}; root {prefix}/html; }}
                }}"#,
                port = port.port
            )
            .as_bytes(),
        );
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&prefix).arg("-c").arg(folder.path("nginx.conf")).arg("-g").arg(user());
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let mut nginx = Nginx { child, folder, port: port.port };
        eventually("nginx listens", || {
            let ended = nginx.child.try_wait().unwrap();
            assert!(ended.is_none(), "nginx does not start: {}", nginx.folder.read("error.log"));
            TcpStream::connect(("127.0.0.1", nginx.port)).is_ok()
        });
        Some(nginx)
    }
}

/// A master that is root gives its workers to a user that cannot read the files.
fn user() -> &'static str {
    if geteuid().is_root() { "user root;" } else { "" }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            // SIGTERM, so that the master ends its worker.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

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
        log = nginx.folder.read("access.log");
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
