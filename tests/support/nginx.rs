//! The real nginx: as a peer of the server, or beside it, to compare what they answer.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::peer::Reserved;
use super::{Client, Folder, Response, eventually};

/// A running nginx; ended when it is dropped.
pub struct Nginx {
    child: Child,
    /// Its prefix.
    pub folder: Folder,
    /// Where it listens.
    pub port: u16,
}

impl Nginx {
    /// Starts one that serves these files, which are below `html`. None, loudly, if nginx is not installed and tests may be
    /// skipped.
    pub fn start(files: &[(&str, &[u8])]) -> Option<Nginx> {
        let folder = Folder::with(files);
        let server = server(&folder.path("html"), "");
        Nginx::start_in(folder, &server)
    }

    /// Starts one with these directives in its block http, and those in its server. Otherwise like [`Nginx::start`].
    pub fn configured(http: &str, directives: &str) -> Option<Nginx> {
        let folder = Folder::new();
        let server = server(&folder.path("html"), directives);
        Nginx::start_in(folder, &format!("{http}\n{server}"))
    }

    /// Starts one that serves this folder, with more directives in its server. Otherwise like [`Nginx::start`].
    pub fn serving(root: &Path, directives: &str) -> Option<Nginx> {
        Nginx::start_in(Folder::new(), &server(root, directives))
    }

    /// Starts one with these servers; `PORT` stands for its port. Otherwise like [`Nginx::start`].
    pub fn with_servers(servers: &str) -> Option<Nginx> {
        Nginx::start_in(Folder::new(), servers)
    }

    fn start_in(folder: Folder, servers: &str) -> Option<Nginx> {
        let found = Command::new("nginx").arg("-v").output();
        if found.is_err() {
            super::skip("nginx is not installed");
            return None;
        }
        fs::create_dir_all(folder.path("logs")).unwrap();
        let port = Reserved::new();
        let prefix = folder.path("").display().to_string();
        let servers = servers.replace("PORT", &port.port.to_string());
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
                    types {{
                        text/html html; text/css css; text/plain txt; application/json json; image/png png;
                        application/octet-stream bin;
                    }}
                    keepalive_requests 100000;
                    {servers}
                }}"#
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

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Its access log so far: connection, request and status of each request.
    pub fn log(&self) -> String {
        self.folder.read("access.log")
    }

    /// A new connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// The response to a request without a body, on a connection of its own.
    pub fn request(&self, method: &str, path: &str, fields: &str) -> Response {
        let mut client = self.connect();
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n"));
        client.response_to(method)
    }
}

fn server(root: &Path, directives: &str) -> String {
    format!("server {{ listen 127.0.0.1:PORT; root {}; {directives} }}", root.display())
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
