//! The server under load: started in a folder of its own, and ended with this value.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::origin;
use crate::site;

/// How long it has to listen, and to end.
const START_TIME: Duration = Duration::from_secs(10);
const END_TIME: Duration = Duration::from_secs(15);

/// Lines of its logs that are told about one connection.
const LOGGED: usize = 12;

pub struct Server {
    child: Child,
    worker: u32,
    address: SocketAddr,
    origin: SocketAddr,
    dir: PathBuf,
}

impl Server {
    /// Starts it on a free port of 127.0.0.1, and an origin behind it. Without a path it is the topnext beside this program.
    pub fn start(binary: Option<PathBuf>) -> Result<Server, String> {
        let beside = || std::env::current_exe().map(|path| path.with_file_name("topnext"));
        let binary = binary.map_or_else(beside, Ok).and_then(fs::canonicalize);
        let binary =
            binary.map_err(|error| format!("the server's binary: {error}; build it, or name it by --server"))?;
        let dir = std::env::temp_dir().join(format!("topnext-soak-{}", std::process::id()));
        let failed = |error: std::io::Error| format!("cannot start {}: {error}", binary.display());
        fs::create_dir(&dir).map_err(failed)?;
        let start = || {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
            let origin = origin::start()?;
            site::write(&dir, binary.parent().unwrap_or(&dir), address, origin)?;
            let stderr = File::create(dir.join(site::STDERR))?;
            // In this process group, so that Ctrl-C ends both.
            let mut command = Command::new(&binary);
            command.arg("-c").arg(dir.join("plugins.toml")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
            Ok((command.spawn()?, address, origin))
        };
        let (child, address, origin) = start().map_err(|error| {
            let _ = fs::remove_dir_all(&dir);
            failed(error)
        })?;
        let mut server = Server { child, worker: 0, address, origin, dir };
        server.wait_ready()?;
        server.worker = worker_of(server.child.id()).ok_or("the server has no worker")?;
        Ok(server)
    }

    fn wait_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_TIME;
        while TcpStream::connect_timeout(&self.address, START_TIME).is_err() {
            if Instant::now() > deadline || !matches!(self.child.try_wait(), Ok(None)) {
                return Err(format!("the server does not start:\n{}", self.said()));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The process of its worker, of which it has one.
    pub fn pid(&self) -> u32 {
        self.worker
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the server behind it.
    pub fn origin(&self) -> SocketAddr {
        self.origin
    }

    /// What its logs have about the connections from a port of a client, the last of them at the end. Empty if a log was
    /// rotated since.
    pub fn logged(&self, port: u16) -> Vec<String> {
        let read = |name: &str| fs::read(self.dir.join(name)).unwrap_or_default();
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
            let old = self.dir.join(format!("{name}.1"));
            fs::rename(self.dir.join(name), old).map_err(|error| format!("{name}: {error}"))?;
        }
        self.signal(Signal::USR1)
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).ok_or("no process")?;
        kill_process(pid, signal).map_err(|error| format!("{signal:?}: {error}"))
    }

    /// What it wrote to stderr: its error log, of level crit and worse, and notices of its start.
    fn said(&self) -> String {
        fs::read_to_string(self.dir.join(site::STDERR)).unwrap_or_default()
    }

    /// Has it end in good order; what it logged in all its life, a panic included.
    pub fn end(&mut self) -> Result<String, String> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(format!("the server ended: {status}\n{}", self.said()));
        }
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + END_TIME;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(complaints(&self.said())),
                Ok(Some(status)) => return Err(format!("the server ended with {status}\n{}", self.said())),
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
                _ => return Err(format!("the server does not end in {} s after SIGTERM", END_TIME.as_secs())),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Of what has ended already, nothing is left to do.
        let _ = (self.child.kill(), self.child.wait(), fs::remove_dir_all(&self.dir));
    }
}

/// The lines of the error log.
fn complaints(said: &str) -> String {
    let is_complaint =
        |line: &&str| ["[crit]", "[alert]", "[emerg]", "panicked at"].iter().any(|mark| line.contains(mark));
    said.lines().filter(is_complaint).collect::<Vec<_>>().join("\n")
}

/// A port that nobody listens on now. Another program may take it before the server does; then the server says so.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The process that another one has started.
fn worker_of(master: u32) -> Option<u32> {
    let has_parent = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Behind the name, which is in parentheses: the state, and the parent.
        let behind = stat.rsplit(')').next().unwrap_or_default();
        behind.split_ascii_whitespace().nth(1) == Some(&master.to_string())
    };
    let mut processes = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.find(has_parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_no_complaints() {
        assert_eq!(complaints("topnext 0.1.0 is ready\n  http://127.0.0.1:1/\n"), "");
        assert_eq!(complaints("ready\n2026/01/01 [crit] 1#2: disk\n"), "2026/01/01 [crit] 1#2: disk");
    }
}
