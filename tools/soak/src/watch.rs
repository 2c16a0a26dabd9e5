//! What the server has: memory, descriptors, threads, connections, bufs.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::http::Connection;
use crate::site::STATUS;

/// How long the server has to come to rest: longer than each of its time-outs, lingering close included.
const REST: Duration = Duration::from_secs(60);

/// How long nothing changes at rest. Longer than the origin keeps a connection, and than the server keeps a thread of its
/// pool that has no work (10 s).
const STILL: Duration = Duration::from_secs(11);

/// What may grow between the two looks without being a leak: the allocator keeps what was needed at once, and how much
/// that was is a matter of chance.
const MORE_MEMORY: u64 = 8 * 1024 * 1024;

/// One look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Resident memory, in bytes.
    pub memory: u64,
    pub descriptors: u64,
    pub threads: u64,
    /// With the one that asks.
    pub connections: u64,
    pub live_bufs: u64,
    pub module_panics: u64,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Level { memory, descriptors, threads, connections, live_bufs, module_panics } = self;
        write!(
            f,
            "{:6} KiB, {descriptors:4} descriptors, {threads:2} threads, {connections:4} connections, \
             {live_bufs:5} bufs, {module_panics} panics of modules",
            memory / 1024
        )
    }
}

impl Level {
    /// As it is now.
    pub fn now(pid: u32, address: SocketAddr) -> Result<Level, String> {
        let page = page(address).map_err(|error| format!("{STATUS}: {error}"))?;
        let [connections, live_bufs, module_panics] = page[..] else {
            return Err(format!("{STATUS}: {page:?}"));
        };
        let status =
            fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| format!("the server: {error}"))?;
        let line = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name))?;
            value.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
        };
        let folder = format!("/proc/{pid}/fd");
        let descriptors = fs::read_dir(&folder).map_err(|error| format!("{folder}: {error}"))?.count() as u64;
        Ok(Level {
            memory: line("VmRSS:").unwrap_or(0) * 1024,
            descriptors,
            threads: line("Threads:").unwrap_or(0),
            connections,
            live_bufs,
            module_panics,
        })
    }

    /// When all clients have gone and nothing changes any more, or when time is up.
    pub fn at_rest(pid: u32, address: SocketAddr) -> Result<Level, String> {
        let deadline = Instant::now() + REST;
        let (mut before, mut since) = (Level::now(pid, address)?, Instant::now());
        loop {
            thread::sleep(Duration::from_millis(250));
            let now = Level::now(pid, address)?;
            if now != before || now.connections > 1 || now.live_bufs > 0 {
                (before, since) = (now, Instant::now());
            }
            if since.elapsed() > STILL || Instant::now() > deadline {
                return Ok(now);
            }
        }
    }

    /// What this level has, at rest, that the one before the load did not have.
    pub fn leaks(&self, before: &Level) -> Vec<String> {
        let grown = |what: &str, now: u64, before: u64, more: u64| {
            (now > before + more).then(|| format!("{what}: {before} before the load, {now} after it"))
        };
        [
            grown("bytes of memory", self.memory, before.memory + before.memory / 5, MORE_MEMORY),
            grown("descriptors", self.descriptors, before.descriptors, 0),
            grown("threads", self.threads, before.threads, 0),
            grown("connections", self.connections, 1, 0),
            grown("bufs", self.live_bufs, 0, 0),
            grown("panics of modules", self.module_panics, 0, 0),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The numbers of the status page, asked for on a connection that closes.
fn page(address: SocketAddr) -> std::io::Result<Vec<u64>> {
    let mut connection = Connection::open(address)?;
    connection.send(format!("GET {STATUS} HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n").as_bytes())?;
    let answer = connection.answer(false)?;
    Ok(String::from_utf8_lossy(&answer.body).split(' ').filter_map(|number| number.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_growth_is_a_leak() {
        let before =
            Level { memory: 10_000_000, descriptors: 20, threads: 3, connections: 1, live_bufs: 0, module_panics: 0 };
        assert_eq!(Level { memory: 11_000_000, descriptors: 19, ..before }.leaks(&before), [""; 0]);
        assert_eq!(Level { live_bufs: 1, ..before }.leaks(&before), ["bufs: 0 before the load, 1 after it"]);
        let more = Level { memory: 50_000_000, descriptors: 21, threads: 4, connections: 2, ..before };
        assert_eq!(more.leaks(&before).len(), 4);
    }
}
