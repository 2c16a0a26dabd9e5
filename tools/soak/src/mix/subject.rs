//! The server that the mix of clients loads, with its worker and the origin behind it.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::process::Signal;

use super::{origin, site};
use crate::process;
use crate::server::Server;

/// Lines of its logs that are told about one connection.
const LOGGED: usize = 12;

#[derive(Debug)]
pub struct Subject {
    server: Server,
    worker: u32,
    origin: SocketAddr,
}

impl Subject {
    /// Starts both.
    pub fn start(binary: Option<PathBuf>) -> Result<Subject, String> {
        let origin = origin::start().map_err(|error| format!("cannot start the origin: {error}"))?;
        let server = Server::start(binary, |place| site::write(place, origin).map_err(|error| error.to_string()))?;
        let worker = *process::children(server.pid()).first().ok_or("the server has no worker")?;
        Ok(Subject { server, worker, origin })
    }

    /// The process of the worker, of which it has one.
    pub fn pid(&self) -> u32 {
        self.worker
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The address of the server behind it.
    pub fn origin(&self) -> SocketAddr {
        self.origin
    }

    /// What its logs have about the connections from a port of a client, the last of them at the end. Empty if a log was
    /// rotated since.
    pub fn logged(&self, port: u16) -> Vec<String> {
        let read = |name: &str| fs::read(self.server.dir().join(name)).unwrap_or_default();
        let (access, errors) = (read(site::ACCESS_LOG), read(site::ERROR_LOG));
        let (access, errors) = (String::from_utf8_lossy(&access), String::from_utf8_lossy(&errors));
        let requests =
            access.lines().filter(|line| line.split(' ').next().is_some_and(|first| first == port.to_string()));
        let requests: Vec<&str> = requests.collect();
        let numbers = requests.iter().filter_map(|line| line.split(' ').nth(1));
        let marks: BTreeSet<String> = numbers.map(|number| format!(" *{number} ")).collect();
        let of_errors = errors.lines().filter(|line| marks.iter().any(|mark| line.contains(mark)));
        let mut lines: Vec<String> = requests.iter().copied().chain(of_errors).map(str::to_owned).collect();
        lines.drain(..lines.len().saturating_sub(LOGGED));
        lines
    }

    /// Renames its logs, and has it open new ones, as logrotate does: so they do not fill the disk in a long run.
    pub fn rotate_logs(&self) -> Result<(), String> {
        for name in [site::ACCESS_LOG, site::ERROR_LOG] {
            let old = self.server.dir().join(format!("{name}.1"));
            fs::rename(self.server.dir().join(name), old).map_err(|error| format!("{name}: {error}"))?;
        }
        process::signal(self.server.pid(), Signal::USR1)
    }

    /// Has it end in good order; what it complained of in all its life.
    pub fn end(&mut self) -> Result<String, String> {
        self.server.end()
    }
}
