//! Loads a topnext with a mix of clients, and watches what it answers and what it keeps.
//!
//! ```text
//! cargo build --release
//! cargo run --release -p topnext-soak -- --seconds 600 --clients 200
//! ```
//!
//! It starts the server, with a site and an origin of its own, on 127.0.0.1, and runs a third of the time to warm it up.
//! Clients (clients.rs) are good, slow, broken or gone; each good answer is compared byte by byte. Then the server has to
//! come back to the memory, descriptors, threads, connections and bufs that it had after the warm-up.
//!
//! Exit status: 0 if all is well, 1 if an answer was wrong or something was kept, 2 if it could not be run.

#![forbid(unsafe_code)]

mod clients;

mod http;
mod origin;
mod random;

mod server;
mod site;
mod watch;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clients::KINDS;
use random::Random;
use server::Server;
use watch::Level;

const HELP: &str = "\
Usage: topnext-soak [OPTION]...

Loads topnext with good, slow, broken and aborted clients, and checks answers and leaks.

  --seconds N     how long, 6 to 86400 (default 30); a third of it is the warm-up
  --clients N     sessions at once, 1 to 500 (default 64)
  --seed N        what clients do follows from it (default: another each time, printed)
  --server PATH   the binary (default: topnext beside this program)
  --help          this text
";

const SECONDS: RangeInclusive<u64> = 6..=86_400;
const CLIENTS: RangeInclusive<u64> = 1..=500;

/// Errors of one kind that are printed; all are counted.
const SHOWN: usize = 5;

#[derive(Debug)]
struct Options {
    seconds: u64,
    clients: u64,
    seed: Option<u64>,
    server: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = match parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("topnext-soak: {error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match soak(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(message) => {
            eprintln!("topnext-soak: {message}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut arguments: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options { seconds: 30, clients: 64, seed: None, server: None };
    let number_in = |range: RangeInclusive<u64>| {
        move |text: &str| {
            let number = text.parse().ok().filter(|number| range.contains(number));
            number.ok_or_else(|| format!("expected a number from {} to {}", range.start(), range.end()))
        }
    };
    while let Some(argument) = arguments.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("seconds") => options.seconds = arguments.value()?.parse_with(number_in(SECONDS))?,
            Long("clients") => options.clients = arguments.value()?.parse_with(number_in(CLIENTS))?,
            Long("seed") => options.seed = Some(arguments.value()?.parse()?),
            Long("server") => options.server = Some(arguments.value()?.into()),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

/// True if all is well.
fn soak(options: &Options) -> Result<bool, String> {
    let seed = options.seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("{} s, {} clients, seed {seed}", options.seconds, options.clients);
    let mut server = Server::start(options.server.clone())?;
    let (pid, address) = (server.pid(), server.address());
    let started = Level::now(pid, address)?;
    println!("at the start    {started}");

    let warm_up = Duration::from_secs(options.seconds / 3);
    let mut tally = Tally::default();
    load(&server, options.clients, seed, warm_up, &tally);
    let before = Level::at_rest(pid, address)?;
    println!("after warm-up   {before}");

    let rest = Duration::from_secs(options.seconds) - warm_up;
    let peak = load(&server, options.clients, seed.wrapping_add(1), rest, &tally);
    println!("during the load {} KiB of memory, {} descriptors at most", peak.0 / 1024, peak.1);
    let after = Level::at_rest(pid, address)?;
    println!("after the load  {after}\n");

    let mut well = tally.print();
    for leak in after.leaks(&before) {
        println!("*** kept: {leak}");
        well = false;
    }
    match server.end() {
        Ok(said) if said.is_empty() => {}
        Ok(said) => {
            println!("*** the server said:\n{said}");
            well = false;
        }
        Err(message) => {
            println!("*** {message}");
            well = false;
        }
    }
    println!("{}", if well { "all is well" } else { "*** not all is well" });
    Ok(well)
}

/// What came of the sessions of each kind.
#[derive(Default)]
struct Tally {
    sessions: [AtomicU64; KINDS.len()],
    answers: [AtomicU64; KINDS.len()],
    errors: Mutex<Vec<(usize, String)>>,
}

impl Tally {
    fn count(&self, kind: usize, outcome: Result<u64, String>) {
        self.sessions[kind].fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(answers) => drop(self.answers[kind].fetch_add(answers, Ordering::Relaxed)),
            Err(message) => {
                if let Ok(mut errors) = self.errors.lock() {
                    errors.push((kind, message));
                }
            }
        }
    }

    /// Prints a line for each kind. True if there was no error, and each kind had a session.
    fn print(&mut self) -> bool {
        let errors = self.errors.get_mut().map(std::mem::take).unwrap_or_default();
        println!("| clients | sessions | answers checked | errors |\n|---|---|---|---|");
        for (index, kind) in KINDS.iter().enumerate() {
            let (sessions, answers) = (self.sessions[index].get_mut(), self.answers[index].get_mut());
            let failed = errors.iter().filter(|(kind, _)| *kind == index).count();
            println!("| {} | {sessions} | {answers} | {failed} |", kind.name);
        }
        println!();
        for (index, kind) in KINDS.iter().enumerate() {
            for (_, message) in errors.iter().filter(|(kind, _)| *kind == index).take(SHOWN) {
                println!("*** {}: {}", kind.name, message.escape_debug());
            }
        }
        errors.is_empty() && self.answers[0].get_mut() > &mut 0
    }
}

/// Runs sessions until time is up and each has ended. The most memory and descriptors that were seen.
fn load(server: &Server, clients: u64, seed: u64, time: Duration, tally: &Tally) -> (u64, u64) {
    let deadline = Instant::now() + time;
    let mut peak = (0, 0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|number| {
                scope.spawn(move || {
                    let mut random = Random::new(seed.wrapping_mul(1000).wrapping_add(number));
                    while Instant::now() < deadline {
                        let kind = clients::choose(&mut random);
                        tally.count(kind, (KINDS[kind].run)(server.address(), &mut random));
                    }
                })
            })
            .collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(250));
            // A server that has died is reported by what comes after this.
            if let Ok(level) = Level::now(server.pid(), server.address()) {
                peak = (peak.0.max(level.memory), peak.1.max(level.descriptors));
            }
        }
    });
    peak
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Option<Options>, String> {
        parse(lexopt::Parser::from_args(arguments)).map_err(|error| error.to_string())
    }

    #[test]
    fn command_line() {
        let options = parsed(&["--seconds", "60", "--clients=3", "--seed", "7"]).unwrap().unwrap();
        assert_eq!((options.seconds, options.clients, options.seed), (60, 3, Some(7)));
        assert!(parsed(&["--help"]).unwrap().is_none());
        assert!(parsed(&["--seconds", "5"]).unwrap_err().contains("expected a number from 6 to 86400"));
        assert!(parsed(&["x"]).is_err());
    }

    #[test]
    fn an_error_or_no_answer_at_all_is_not_well() {
        assert!(!Tally::default().print());
        let mut tally = Tally::default();
        tally.count(0, Ok(3));
        assert!(tally.print());
        tally.count(1, Err("wrong".into()));
        assert!(!tally.print());
    }
}
