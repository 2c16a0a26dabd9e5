//! `topnext-bench idle`: what a connection costs that does nothing, in memory of the server.
//!
//! ```text
//! topnext-bench idle                       10,000 connections
//! topnext-bench idle --connections 1000
//! ```
//!
//! Each connection asks once for the file of 1 KB, and stays; then, with other servers, each sends half a head, and stays.
//!
//! nginx makes room for all of `worker_connections` when it starts, topnext for each connection when it comes. So there are
//! two ways to count, and both are shown. Growth alone: memory of the workers with all connections, less that of the same
//! server before. With the room made at the start: less that of a server which is configured for few.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::Verdict;
use crate::cases::{Case, PLAIN, Request};
use crate::client::{Answer, Client};
use crate::files;
use crate::guard::WorkDir;
use crate::machine;
use crate::server::{Nginx, ROOT, Server, Software, Topnext};

const HELP: &str = "\
Usage: topnext-bench idle [OPTION]...

Opens connections to topnext and to nginx, asks once on each, or sends half a head, and prints the memory that each takes.

  --connections N  how many, 100 to 19000 (default 10000)
  --topnext PATH   the binary to measure (default: topnext beside this program)
  --enforce        exit with status 1 if topnext needs more than nginx
  --help           this text
";

/// File descriptors beside those of the connections.
const MORE_FILES: u32 = 100;

/// `worker_connections` for so many: when only a sixteenth of them is free, nginx closes idle ones to make room.
fn room_for(connections: u32) -> u32 {
    connections + connections / 16 + MORE_FILES
}

/// How long a server has to come to rest.
const REST: Duration = Duration::from_secs(2);

/// Longer than the test, so that no connection is closed while others are opened.
const TIME: &str = "600s";

/// What both do, with `worker_connections` for so many, or with their defaults.
fn case(open_connections: Option<u32>) -> Case {
    Case {
        name: "idle",
        nginx: || format!("keepalive_timeout {TIME}; client_header_timeout {TIME};"),
        topnext: || format!("keepalive_timeout = \"{TIME}\"\nclient_header_timeout = \"{TIME}\""),
        open_connections,
        ..PLAIN
    }
}

#[derive(Debug)]
struct Options {
    connections: u32,
    topnext: Option<PathBuf>,
    enforce: bool,
}

/// Reads the rest of the command line, measures, and prints a table.
pub fn run(arguments: lexopt::Parser) -> Result<Verdict, String> {
    match parse(arguments).map_err(|error| format!("{error}\n\n{HELP}"))? {
        Some(options) => measure(&options),
        None => {
            print!("{HELP}");
            Ok(Verdict::Passed)
        }
    }
}

fn parse(mut arguments: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options { connections: 10_000, topnext: None, enforce: false };
    while let Some(argument) = arguments.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("connections") => {
                options.connections = arguments.value()?.parse_with(|text| match text.parse() {
                    Ok(number @ 100..=19_000) => Ok(number),
                    _ => Err("expected a number from 100 to 19000"),
                })?;
            }
            Long("topnext") => options.topnext = Some(arguments.value()?.into()),
            Long("enforce") => options.enforce = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

/// What connections have done before they do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Asked once, and been answered.
    Kept,
    /// Sent half a head.
    HalfHead,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Kept, Kind::HalfHead];

    fn name(self) -> &'static str {
        match self {
            Kind::Kept => "kept after an answer",
            Kind::HalfHead => "half a head",
        }
    }
}

/// A head as browsers send it, in a shorter form.
fn request() -> Request {
    Request::get("/1k")
        .field("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0")
        .field("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
        .field("Accept-Language", "en-US,en;q=0.5")
        .field("Cookie", "session=0123456789abcdef0123456789abcdef")
}

/// Bytes a connection.
struct Cost {
    growth: f64,
    with_room: f64,
}

fn measure(options: &Options) -> Result<Verdict, String> {
    let nginx = machine::program("nginx", "nginx")?;
    let topnext = machine::topnext(options.topnext.clone())?;
    allow_files(u64::from(options.connections + MORE_FILES))?;
    print!("{}", machine::describe(&nginx));
    println!("- {} connections; bytes a connection\n", options.connections);
    println!("| connections | server | growth alone | with the room made at the start |\n|---|---|---|---|");
    let dir = WorkDir::create()?;
    files::write(&dir.path().join(ROOT))?;
    let (topnext, nginx) = (Topnext { binary: topnext }, Nginx { binary: nginx });
    let mut more_than_nginx = false;
    for kind in Kind::ALL {
        let of = |software: &dyn Software| -> Result<Cost, String> {
            let cost = cost(software, kind, options.connections, &dir)?;
            println!("| {} | {} | {:.0} | {:.0} |", kind.name(), software.name(), cost.growth, cost.with_room);
            Ok(cost)
        };
        let (ours, theirs) = (of(&topnext)?, of(&nginx)?);
        // By the way that is worse for each.
        more_than_nginx |= ours.growth.max(ours.with_room) > theirs.growth.min(theirs.with_room);
    }
    Ok(if options.enforce && more_than_nginx { Verdict::BelowFloor } else { Verdict::Passed })
}

fn cost(software: &dyn Software, kind: Kind, connections: u32, dir: &WorkDir) -> Result<Cost, String> {
    let few = with_connections(&Server::start(software, &case(None), dir)?, kind, 0)?;
    let server = Server::start(software, &case(Some(room_for(connections))), dir)?;
    let (room, all) = (with_connections(&server, kind, 0)?, with_connections(&server, kind, connections)?);
    let each = |before: u64| all.saturating_sub(before) as f64 / f64::from(connections);
    Ok(Cost { growth: each(room), with_room: each(few) })
}

/// Resident memory with so many connections, in bytes. What is made once, at the first request, is no connection's: one
/// more asks and goes.
fn with_connections(server: &Server, kind: Kind, connections: u32) -> Result<u64, String> {
    let request = request();
    let is_ok = |answer: Answer| match answer.status {
        200 => Ok(()),
        status => Err(server.explain(&format!("answers with status {status}"))),
    };
    is_ok(Client::connect(server.address())?.ask(&request)?)?;
    let mut clients = Vec::new();
    for _ in 0..connections {
        let mut client = Client::connect(server.address())?;
        match kind {
            Kind::Kept => is_ok(client.ask(&request)?)?,
            Kind::HalfHead => client.send_half(&request)?,
        }
        clients.push(client);
    }
    let memory = at_rest(server)?;
    // All are still there.
    for client in clients.iter_mut().step_by(100) {
        is_ok(match kind {
            Kind::Kept => client.ask(&request)?,
            Kind::HalfHead => client.send_rest(&request)?,
        })?;
    }
    Ok(memory)
}

/// Memory when it changes no more.
fn at_rest(server: &Server) -> Result<u64, String> {
    let deadline = Instant::now() + REST;
    let mut memory = server.resident_memory()?;
    loop {
        thread::sleep(Duration::from_millis(200));
        let now = server.resident_memory()?;
        if now == memory || Instant::now() > deadline {
            return Ok(now);
        }
        memory = now;
    }
}

/// Lets this process, and the servers that it starts, open so many files.
fn allow_files(wanted: u64) -> Result<(), String> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    limit.current = Some(wanted);
    if limit.maximum.is_some_and(|maximum| maximum < wanted) {
        return Err(format!(
            "at most {} files may be open (ulimit -Hn); {wanted} are needed",
            limit.maximum.unwrap_or(0)
        ));
    }
    setrlimit(Resource::Nofile, limit).map_err(|error| format!("setrlimit to {wanted} files: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Option<Options>, String> {
        parse(lexopt::Parser::from_args(arguments)).map_err(|error| error.to_string())
    }

    #[test]
    fn command_line() {
        let options = parsed(&["--connections", "200", "--enforce"]).unwrap().unwrap();
        assert_eq!((options.connections, options.enforce), (200, true));
        assert_eq!(parsed(&[]).unwrap().unwrap().connections, 10_000);
        assert!(parsed(&["--help"]).unwrap().is_none());
        assert!(parsed(&["--connections", "99"]).unwrap_err().contains("expected a number from 100 to 19000"));
        assert!(parsed(&["--rounds", "1"]).is_err());
    }

    #[test]
    fn more_files_than_the_system_allows_are_refused() {
        if getrlimit(Resource::Nofile).maximum.is_some() {
            assert!(allow_files(u64::MAX - 1).unwrap_err().contains("ulimit -Hn"));
        }
    }
}
