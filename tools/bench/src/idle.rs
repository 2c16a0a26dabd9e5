//! `topnext-bench idle`: what a connection costs that is kept and idle, in memory of the server.
//!
//! ```text
//! topnext-bench idle                       10,000 connections
//! topnext-bench idle --connections 1000
//! ```
//!
//! Each connection asks once for the file of 1 KB, and stays. Memory is that of the workers with all connections, less
//! that of a server which is configured for few and has answered one. nginx makes room for all of `worker_connections`
//! when it starts: that room is in the first columns, and the last one shows what is added to it by connections.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::Verdict;
use crate::cases::{Case, PLAIN, Request};
use crate::client::Client;
use crate::files;
use crate::guard::WorkDir;
use crate::machine;
use crate::server::{Nginx, ROOT, Server, Software, Topnext};

const HELP: &str = "\
Usage: topnext-bench idle [OPTION]...

Opens connections to topnext and to nginx, asks once on each, and prints the memory that each takes while idle.

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
const KEEPALIVE: &str = "600s";

/// What both do, with `worker_connections` for so many, or with their defaults.
fn case(open_connections: Option<u32>) -> Case {
    Case {
        name: "idle",
        nginx: || format!("keepalive_timeout {KEEPALIVE};"),
        topnext: || format!("keepalive_timeout = \"{KEEPALIVE}\""),
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

/// Memory of a server, in bytes.
struct Memory {
    resident: u64,
    proportional: u64,
}

impl Memory {
    fn of(server: &Server) -> Result<Memory, String> {
        Ok(Memory { resident: server.resident_memory()?, proportional: server.proportional_memory()? })
    }
}

fn measure(options: &Options) -> Result<Verdict, String> {
    let nginx = machine::program("nginx", "nginx")?;
    let topnext = machine::topnext(options.topnext.clone())?;
    allow_files(u64::from(options.connections + MORE_FILES))?;
    print!("{}", machine::describe(&nginx));
    println!("- {} idle connections; bytes a connection\n", options.connections);
    println!("| server | resident | proportional | resident, without the room made at the start |\n|---|---|---|---|");
    let dir = WorkDir::create()?;
    files::write(&dir.path().join(ROOT))?;
    let servers: [Box<dyn Software>; 2] = [Box::new(Topnext { binary: topnext }), Box::new(Nginx { binary: nginx })];
    let mut resident = Vec::new();
    for software in &servers {
        let few = with_connections(&Server::start(&**software, &case(None), &dir)?, 0)?;
        let server = Server::start(&**software, &case(Some(room_for(options.connections))), &dir)?;
        let (room, all) = (with_connections(&server, 0)?, with_connections(&server, options.connections)?);
        let each = |all: u64, before: u64| all.saturating_sub(before) as f64 / f64::from(options.connections);
        println!(
            "| {} | {:.0} | {:.0} | {:.0} |",
            server.name(),
            each(all.resident, few.resident),
            each(all.proportional, few.proportional),
            each(all.resident, room.resident)
        );
        resident.push(each(all.resident, few.resident));
    }
    match resident[..] {
        [topnext, nginx] if options.enforce && topnext > nginx => Ok(Verdict::BelowFloor),
        _ => Ok(Verdict::Passed),
    }
}

/// Memory with so many idle connections. What is made once, at the first request, is no connection's: one more asks and
/// goes.
fn with_connections(server: &Server, connections: u32) -> Result<Memory, String> {
    let request = Request::get("/1k");
    let ask = |client: &mut Client| match client.ask(&request)?.status {
        200 => Ok(()),
        status => Err(server.explain(&format!("answers with status {status}"))),
    };
    ask(&mut Client::connect(server.address())?)?;
    let mut clients = Vec::new();
    for _ in 0..connections {
        let mut client = Client::connect(server.address())?;
        ask(&mut client)?;
        clients.push(client);
    }
    let memory = at_rest(server)?;
    // All are still there.
    clients.iter_mut().step_by(100).try_for_each(ask)?;
    Ok(memory)
}

/// Memory when it changes no more.
fn at_rest(server: &Server) -> Result<Memory, String> {
    let deadline = Instant::now() + REST;
    let mut memory = Memory::of(server)?;
    loop {
        thread::sleep(Duration::from_millis(200));
        let now = Memory::of(server)?;
        if now.resident == memory.resident || Instant::now() > deadline {
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
