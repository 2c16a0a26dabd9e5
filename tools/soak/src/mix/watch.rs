//! What the server has: memory, descriptors, threads, connections, bufs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::site::{ACCESS_LOG, ERROR_LOG, STATUS};
use super::subject::Subject;
use crate::http::{Connection, Target};
use crate::process::{entries, memory, read};
use crate::server::STDERR;

/// How long the server has to come to rest: longer than each of its time-outs, those of lingering (30 s) included.
const REST: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// Percent by which memory may differ after the same load.
const MORE_MEMORY: u64 = 3;

/// The names of threads that end when they have had no work for a while: those of the pool after 10 s, the one that writes
/// logs after 1 s.
const PASSING_THREADS: [&str; 2] = ["topnext-pool", "topnext-log"];

/// One look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// Resident memory that belongs to no file, in bytes. (Pages of programs and libraries come and go as the kernel likes.)
    pub memory: u64,
    /// How many there are of each kind, with the connection that asks.
    pub descriptors: BTreeMap<Descriptor, usize>,
    /// How many there are of each name.
    pub threads: BTreeMap<String, usize>,
    /// With the one that asks.
    pub connections: u64,
    pub live_bufs: u64,
    pub module_panics: u64,
}

/// What a descriptor leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Descriptor {
    /// A socket that listens.
    Listening,
    /// A connection of a client.
    Client,
    /// A connection to the origin.
    Origin,
    /// A socket that is connected to neither: not yet, or no more.
    Unconnected,
    /// A file, a device, a pipe, or what has no name: as the kernel calls it, without its number.
    Named(PathBuf),
}

impl Descriptor {
    /// Whether it stays without any client.
    fn is_lasting(&self) -> bool {
        match self {
            Descriptor::Listening => true,
            Descriptor::Client | Descriptor::Origin | Descriptor::Unconnected => false,
            Descriptor::Named(path) => {
                let logs = [ACCESS_LOG, ERROR_LOG, STDERR];
                let is_log = || path.file_name().is_some_and(|name| logs.iter().any(|log| name == *log));
                !path.is_absolute() || path.starts_with("/dev") || is_log()
            }
        }
    }
}

impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Descriptor::Listening => f.write_str("listening socket"),
            Descriptor::Client => f.write_str("connection of a client"),
            Descriptor::Origin => f.write_str("connection to the origin"),
            Descriptor::Unconnected => f.write_str("socket without connection"),
            Descriptor::Named(path) => path.display().fmt(f),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Level { memory, descriptors, threads, connections, live_bufs, module_panics } = self;
        let (descriptors, threads): (usize, usize) = (descriptors.values().sum(), threads.values().sum());
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
    pub fn now(server: &Subject) -> Result<Level, String> {
        let target = Target::new(server.address());
        let asked = ask(&target).map_err(|error| format!("{STATUS}: {error}"))?;
        let [connections, live_bufs, module_panics] = asked.1[..] else {
            return Err(format!("{STATUS}: {:?}", asked.1));
        };
        let level = Level {
            memory: memory(server.pid())?,
            descriptors: descriptors(server)?,
            threads: threads(server.pid())?,
            connections,
            live_bufs,
            module_panics,
        };
        // Until here it is one of the descriptors, for certain.
        drop(asked);
        Ok(level)
    }

    /// When nothing is left of the clients. An error says what is left when time is up.
    pub fn at_rest(server: &Subject) -> Result<Level, String> {
        let deadline = Instant::now() + REST;
        loop {
            let level = Level::now(server)?;
            let left = level.left();
            if left.is_empty() {
                return Ok(level);
            }
            if Instant::now() > deadline {
                return Err(format!("{} s after the last client there is still: {}", REST.as_secs(), left.join(", ")));
            }
            thread::sleep(PAUSE);
        }
    }

    /// What is there of clients, without the one that asks, and of what is done for them.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let mut most = |what: &dyn fmt::Display, number: u64, most: u64| {
            if number > most {
                left.push(format!("{what}: {number}"));
            }
        };
        for (descriptor, number) in self.descriptors.iter().filter(|(descriptor, _)| !descriptor.is_lasting()) {
            most(descriptor, *number as u64, u64::from(*descriptor == Descriptor::Client));
        }
        for name in PASSING_THREADS {
            most(&format_args!("threads named {name}"), self.threads.get(name).copied().unwrap_or(0) as u64, 0);
        }
        most(&"connections", self.connections, 1);
        most(&"bufs", self.live_bufs, 0);
        left
    }

    /// Whether memory has grown since a level before by more than is a matter of chance: the allocator keeps what was needed
    /// at once.
    pub fn has_more_memory_than(&self, before: &Level) -> bool {
        self.memory > before.memory + before.memory * MORE_MEMORY / 100
    }

    /// What this level has, at rest, that it did not have after the same load before, memory apart.
    pub fn leaks(&self, before: &Level) -> Vec<String> {
        let mut leaks = Vec::new();
        let mut grown = |what: &dyn fmt::Display, now: u64, before: u64| {
            if now > before {
                leaks.push(format!("{what}: {before} before the load, {now} after it"));
            }
        };
        for (descriptor, number) in &self.descriptors {
            let before = before.descriptors.get(descriptor).copied().unwrap_or(0) as u64;
            grown(descriptor, *number as u64, before);
        }
        for (name, number) in &self.threads {
            let before = before.threads.get(name).copied().unwrap_or(0) as u64;
            grown(&format_args!("threads named {name}"), *number as u64, before);
        }
        grown(&"connections", self.connections, before.connections);
        grown(&"bufs", self.live_bufs, before.live_bufs);
        grown(&"panics of modules", self.module_panics, 0);
        leaks
    }
}

/// The numbers of the status page, and the connection on which they came, which is still open.
fn ask(target: &Target) -> std::io::Result<(Connection, Vec<u64>)> {
    let mut connection = Connection::open(target)?;
    connection.send(format!("GET {STATUS} HTTP/1.1\r\nHost: soak\r\n\r\n").as_bytes())?;
    let answer = connection.answer(false)?;
    let numbers = String::from_utf8_lossy(&answer.body).split(' ').filter_map(|number| number.parse().ok()).collect();
    Ok((connection, numbers))
}

fn counted<T: Ord>(all: Vec<T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    counts
}

fn threads(pid: u32) -> Result<BTreeMap<String, usize>, String> {
    let name = |path: PathBuf| Some(fs::read_to_string(path.join("comm")).ok()?.trim().to_owned());
    Ok(counted(entries(&format!("/proc/{pid}/task"), name)?))
}

fn descriptors(server: &Subject) -> Result<BTreeMap<Descriptor, usize>, String> {
    let links = entries(&format!("/proc/{}/fd", server.pid()), |path| fs::read_link(path).ok())?;
    let table = |name: &str| read(&format!("/proc/{}/net/{name}", server.pid()));
    let (sockets, unix_sockets) = (sockets(&table("tcp")?), unix_sockets(&table("unix")?));
    let (own, origin) = (server.address().port(), server.origin().port());
    let lead_to = links.into_iter().map(|link| match number_of(&link, "socket:") {
        Some(number) => match sockets.get(number) {
            Some((_, _, true)) => Descriptor::Listening,
            Some((local, _, _)) if *local == own => Descriptor::Client,
            Some((_, remote, _)) if *remote == origin => Descriptor::Origin,
            _ if unix_sockets.contains(number) => Descriptor::Named("unix socket".into()),
            _ => Descriptor::Unconnected,
        },
        None if number_of(&link, "pipe:").is_some() => Descriptor::Named("pipe".into()),
        None => Descriptor::Named(link),
    });
    Ok(counted(lead_to.collect()))
}

/// The number in `socket:[12345]`.
fn number_of<'a>(link: &'a Path, kind: &str) -> Option<&'a str> {
    link.to_str()?.strip_prefix(kind)?.strip_prefix('[')?.strip_suffix(']')
}

/// The sockets of a table as /proc/net/tcp has it, by their numbers: local port, remote port, whether it listens.
fn sockets(table: &str) -> BTreeMap<String, (u16, u16, bool)> {
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let socket = |line: &str| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, local, remote, state, _, _, _, _, _, number, ..] = columns[..] else { return None };
        Some((number.to_owned(), (port(local)?, port(remote)?, state == "0A")))
    };
    table.lines().filter_map(socket).collect()
}

/// The numbers of the sockets of a table as /proc/net/unix has it. By such a pair signals reach the server's main thread.
fn unix_sockets(table: &str) -> BTreeSet<String> {
    table.lines().filter_map(|line| line.split_ascii_whitespace().nth(6).map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level() -> Level {
        let descriptors = [(Descriptor::Listening, 2), (Descriptor::Client, 1), (Descriptor::Named("pipe".into()), 2)];
        Level {
            memory: 10_000_000,
            descriptors: descriptors.into(),
            threads: [("topnext".to_owned(), 1), ("topnext-1".to_owned(), 1)].into(),
            connections: 1,
            live_bufs: 0,
            module_panics: 0,
        }
    }

    #[test]
    fn only_growth_is_a_leak() {
        let before = level();
        assert_eq!(before.left(), [""; 0]);
        let mut after = level();
        after.descriptors.remove(&Descriptor::Named("pipe".into()));
        assert_eq!(after.leaks(&before), [""; 0]);
        assert_eq!(Level { live_bufs: 1, ..level() }.leaks(&before), ["bufs: 0 before the load, 1 after it"]);
        let more = Level { connections: 2, module_panics: 1, ..level() };
        assert_eq!(more.leaks(&before).len(), 2);
        assert!(!Level { memory: 10_299_999, ..level() }.has_more_memory_than(&before));
        assert!(Level { memory: 10_300_001, ..level() }.has_more_memory_than(&before));
    }

    #[test]
    fn descriptors_and_threads_are_compared_by_kind() {
        let mut after = level();
        // As many as before, but not the same.
        after.descriptors.insert(Descriptor::Named("pipe".into()), 1);
        after.descriptors.insert(Descriptor::Origin, 1);
        assert_eq!(after.leaks(&level()), ["connection to the origin: 0 before the load, 1 after it"]);
        let mut after = level();
        after.threads = [("topnext".to_owned(), 2)].into();
        assert_eq!(after.leaks(&level()), ["threads named topnext: 1 before the load, 2 after it"]);
    }

    #[test]
    fn what_belongs_to_clients_is_no_rest() {
        let with = |descriptor: Descriptor| {
            let mut level = level();
            *level.descriptors.entry(descriptor).or_default() += 1;
            level.left().is_empty()
        };
        assert!(!with(Descriptor::Client));
        assert!(!with(Descriptor::Unconnected));
        assert!(!with(Descriptor::Named("/srv/soak/cached/1m".into())));
        assert!(!with(Descriptor::Named("/srv/soak/client_body_temp/#123 (deleted)".into())));
        assert!(with(Descriptor::Named("/srv/soak/access.log".into())));
        assert!(with(Descriptor::Named("anon_inode:[eventpoll]".into())));
        let mut level = level();
        level.threads.insert("topnext-pool".to_owned(), 1);
        assert!(!level.left().is_empty());
    }

    #[test]
    fn a_table_of_sockets() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 123 1 0 100 0 0 10 0\n\
            1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 124 1 0 20 4 30 10 -1\n";
        let all = [("123".to_owned(), (8080, 0, true)), ("124".to_owned(), (8080, 50_000, false))];
        assert_eq!(sockets(table), all.into());
        let unix = "Num       RefCount Protocol Flags    Type St Inode Path\n0000000000000000: 00000003 00000000 00000000 0001 03 512\n";
        assert!(unix_sockets(unix).contains("512"));
        assert_eq!(number_of(Path::new("socket:[123]"), "socket:"), Some("123"));
        assert_eq!(number_of(Path::new("/srv/socket:[123]"), "socket:"), None);
    }
}
