//! The server under load: started in a folder of its own, and ended with this value.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::process;

/// How long it has to listen, and to end.
const START_TIME: Duration = Duration::from_secs(10);
const END_TIME: Duration = Duration::from_secs(15);

/// Where its standard error goes, in its folder.
pub const STDERR: &str = "stderr";
/// Its configuration, in its folder.
pub const CONFIG: &str = "plugins.toml";

/// A server, in a folder of its own, which ends with it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    binary: PathBuf,
    address: SocketAddr,
    dir: PathBuf,
}

/// What a configuration is written for.
#[derive(Debug)]
pub struct Place<'a> {
    /// The folder, which is there.
    pub dir: &'a Path,
    /// Where the bundled modules are.
    pub modules: &'a Path,
    /// A free port of 127.0.0.1.
    pub address: SocketAddr,
}

impl Server {
    /// Starts it. Without a path it is the topnext beside this program. `write` writes the configuration.
    pub fn start(
        binary: Option<PathBuf>,
        write: impl FnOnce(&Place<'_>) -> Result<(), String>,
    ) -> Result<Server, String> {
        let beside = || std::env::current_exe().map(|path| path.with_file_name("topnext"));
        let binary = binary.map_or_else(beside, Ok).and_then(fs::canonicalize);
        let binary =
            binary.map_err(|error| format!("the server's binary: {error}; build it, or name it by --server"))?;
        let dir = std::env::temp_dir().join(format!("topnext-soak-{}", std::process::id()));
        let failed = |error: io::Error| format!("cannot start {}: {error}", binary.display());
        fs::create_dir(&dir).map_err(failed)?;
        let start = || {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().map_err(failed)?));
            write(&Place { dir: &dir, modules: binary.parent().unwrap_or(&dir), address })?;
            let stderr = File::create(dir.join(STDERR)).map_err(failed)?;
            // In this process group, so that Ctrl-C ends both.
            let mut command = Command::new(&binary);
            command.arg("-c").arg(dir.join(CONFIG)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
            Ok((command.spawn().map_err(failed)?, address))
        };
        let (child, address) = start().inspect_err(|_: &String| {
            let _ = fs::remove_dir_all(&dir);
        })?;
        let mut server = Server { child, binary, address, dir };
        server.wait_ready()?;
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

    /// The process that was started: the master, until another one takes over.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs its program with these arguments, for its folder.
    pub fn ask(&self, arguments: &[&str]) -> Result<Output, String> {
        let output = Command::new(&self.binary).arg("-c").arg(self.dir.join(CONFIG)).args(arguments).output();
        output.map_err(|error| format!("{}: {error}", self.binary.display()))
    }

    /// What it wrote to stderr.
    pub fn said(&self) -> String {
        fs::read_to_string(self.dir.join(STDERR)).unwrap_or_default()
    }

    /// Whether the process that was started has ended; its status is asked for.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Has it end in good order; what it logged in all its life, a panic included.
    pub fn end(&mut self) -> Result<String, String> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(format!("the server ended: {status}\n{}", self.said()));
        }
        process::signal(self.pid(), Signal::TERM)?;
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

/// The lines of the error log that are of level crit or worse, and panics.
pub fn complaints(said: &str) -> String {
    let is_complaint =
        |line: &&str| ["[crit]", "[alert]", "[emerg]", "panicked at"].iter().any(|mark| line.contains(mark));
    said.lines().filter(is_complaint).collect::<Vec<_>>().join("\n")
}

/// A port that nobody listens on now. Another program may take it before the server does; then the server says so.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
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
