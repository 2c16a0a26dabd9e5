//! The real nginx, as a peer or to compare with.

use std::{
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::{Folder, eventually, peer::Reserved};

/// A running nginx; ended when it is dropped.
pub struct Nginx {
    child: Child,
    /// Its prefix, with the folder html in it.
    pub folder: Folder,
    /// Where it listens.
    pub port: u16,
}

impl Nginx {
    /// Starts one that serves these files; `http` stands in its block http, `server` in its server. None, loudly, if nginx is
    /// not installed and tests may be skipped.
    pub fn start(files: &[(&str, &[u8])], http: &str, server: &str) -> Option<Nginx> {
        let found = Command::new("nginx").arg("-v").output();
        if found.is_err() {
            let strict = std::env::var("TOPNEXT_NO_SKIP").is_ok_and(|value| value == "1");
            assert!(!strict, "nginx is not installed, and TOPNEXT_NO_SKIP=1");
            println!("SKIPPED: nginx not installed");
            return None;
        }
        let folder = Folder::with(files);
        std::fs::create_dir_all(folder.path("logs")).unwrap();
        let port = Reserved::new();
        let prefix = folder.path("").display().to_string();
        folder.write(
            "nginx.conf",
            format!(
                r#"daemon off; worker_processes 1; pid {prefix}/nginx.pid; error_log {prefix}/error.log;
                events {{ worker_connections 256; }}
                http {{
                    client_body_temp_path {prefix}/t1; proxy_temp_path {prefix}/t2; fastcgi_temp_path {prefix}/t3;
                    uwsgi_temp_path {prefix}/t4; scgi_temp_path {prefix}/t5;
                    keepalive_requests 100000;
                    {http}
                    server {{ listen 127.0.0.1:{port}; root {prefix}/html; {server} }}
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

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
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
