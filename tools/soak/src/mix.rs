//! `mix`: a mix of clients, and what the server answers them and keeps of them.
//!
//! It loads a site and an origin of its own twice in the same way. Clients (mix/clients.rs) are good, slow, broken or gone; each
//! good answer is compared byte by byte. After each load the server has to come to rest, and after the second it may have no
//! more memory, descriptors, threads, connections and bufs than after the first. Of an error it shows what the server has
//! logged about the connection.

mod clients;

mod origin;

mod site;
mod subject;
mod watch;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::http::Target;
use crate::random::Random;
use crate::{number_in, process};
use clients::KINDS;
use subject::Subject;
use watch::Level;

const HELP: &str = "\
Usage: topnext-soak mix [OPTION]...

Loads topnext with good, slow, broken and aborted clients, and checks answers and leaks.

  --seconds N     how long, 6 to 86400 (default 30): half of it for each of two loads, which are the same
  --clients N     sessions at once, 1 to 500 (default 64)
  --seed N        what clients do follows from it (default: another each time, printed)
  --only KIND     clients of this kind alone, named as in the table that is printed
  --server PATH   the binary (default: topnext beside this program)
  --help          this text
";

const SECONDS: RangeInclusive<u64> = 6..=86_400;
const CLIENTS: RangeInclusive<u64> = 1..=500;

/// Errors of one kind that are printed; all are counted.
const SHOWN: usize = 5;

/// The same load is run twice, and again as long as memory grows, up to so often: it is a leak if it grows each time.
const MAX_LOADS: usize = 5;

/// How long the server's logs grow.
const ROTATE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Options {
    seconds: u64,
    clients: u64,
    seed: Option<u64>,
    /// Of [`KINDS`].
    only: Option<usize>,
    server: Option<PathBuf>,
}

/// Runs the command.
pub fn run(arguments: lexopt::Parser) -> Result<bool, String> {
    match parse(arguments).map_err(|error| format!("{error}\n\n{HELP}"))? {
        Some(options) => soak(&options),
        None => {
            print!("{HELP}");
            Ok(true)
        }
    }
}

fn parse(mut arguments: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options { seconds: 30, clients: 64, seed: None, only: None, server: None };
    while let Some(argument) = arguments.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("seconds") => options.seconds = arguments.value()?.parse_with(number_in(SECONDS))?,
            Long("clients") => options.clients = arguments.value()?.parse_with(number_in(CLIENTS))?,
            Long("seed") => options.seed = Some(arguments.value()?.parse()?),
            Long("only") => options.only = Some(arguments.value()?.parse_with(kind_named)?),
            Long("server") => options.server = Some(arguments.value()?.into()),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

fn kind_named(name: &str) -> Result<usize, String> {
    let known = || KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
    KINDS.iter().position(|kind| kind.name == name).ok_or_else(|| format!("expected one of {}", known()))
}

/// True if all is well.
fn soak(options: &Options) -> Result<bool, String> {
    let seed = options.seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("{} s, {} clients, seed {seed}", options.seconds, options.clients);
    let mut server = Subject::start(options.server.clone())?;
    println!("at the start   {}", Level::now(&server)?);

    let time = Duration::from_secs(options.seconds) / 2;
    let load = Load { clients: options.clients, seed, time, only: options.only };
    let mut tally = Tally::default();
    let kept = load.repeat(&server, &tally);
    println!();

    let mut well = tally.print();
    for leak in kept {
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
                println!("*** {}: {message}", kind.name);
            }
        }
        let mut idle = Vec::new();
        for (index, kind) in KINDS.iter().enumerate() {
            if *self.sessions[index].get_mut() == 0 {
                idle.push(kind.name);
            }
        }
        if !idle.is_empty() {
            println!("*** without a session: {}; run it for longer, or with more clients", idle.join(", "));
        }
        errors.is_empty() && idle.is_empty() && self.answers.iter_mut().any(|answers| *answers.get_mut() > 0)
    }
}

/// An error of a session, with what the server has logged about its connection.
fn with_logs(message: String, server: &Subject, target: &Target) -> String {
    // Lines are written a few milliseconds later.
    std::thread::sleep(Duration::from_millis(500));
    let logged = server.logged(target.port());
    format!(
        "{}\n    from port {}; logged:\n        {}",
        message.escape_debug(),
        target.port(),
        logged.join("\n        ")
    )
}

/// What is done to the server.
struct Load {
    clients: u64,
    seed: u64,
    time: Duration,
    /// The kind of all clients.
    only: Option<usize>,
}

impl Load {
    /// Runs it at least twice. What the server has kept of it.
    fn repeat(&self, server: &Subject, tally: &Tally) -> Vec<String> {
        let mut levels: Vec<Level> = Vec::new();
        loop {
            let number = levels.len() + 1;
            let peak = self.run(server, tally);
            println!("during load {number}  {:6} KiB, {:4} descriptors at most", peak.0 / 1024, peak.1);
            let level = match Level::at_rest(server) {
                Ok(level) => level,
                Err(message) => return vec![message],
            };
            println!("after load {number}   {level}");
            let memory_grows = levels.last().is_none_or(|before| level.has_more_memory_than(before));
            levels.push(level);
            if memory_grows && number < MAX_LOADS {
                continue;
            }
            let mut kept = levels[number - 1].leaks(&levels[0]);
            if memory_grows {
                kept.push(format!("memory: it grows with each of {MAX_LOADS} loads"));
            }
            return kept;
        }
    }

    /// Runs sessions until time is up and each has ended. The most memory and descriptors that were seen.
    fn run(&self, server: &Subject, tally: &Tally) -> (u64, usize) {
        let deadline = Instant::now() + self.time;
        let sessions = |number: u64| {
            let mut random = Random::new(self.seed.wrapping_mul(1000).wrapping_add(number));
            let target = Target::new(server.address());
            while Instant::now() < deadline {
                let kind = self.only.unwrap_or_else(|| clients::choose(&mut random));
                let outcome = (KINDS[kind].run)(&target, &mut random);
                tally.count(kind, outcome.map_err(|message| with_logs(message, server, &target)));
            }
        };
        let (mut peak, mut rotated) = ((0, 0), Instant::now());
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.clients).map(|number| scope.spawn(move || sessions(number))).collect();
            while threads.iter().any(|thread| !thread.is_finished()) {
                std::thread::sleep(Duration::from_millis(250));
                // A server that has died is reported by what comes after this.
                let memory = process::memory(server.pid()).unwrap_or(0);
                let descriptors = process::number_of_descriptors(server.pid()).unwrap_or(0);
                peak = (peak.0.max(memory), peak.1.max(descriptors));
                if rotated.elapsed() > ROTATE && server.rotate_logs().is_ok() {
                    rotated = Instant::now();
                }
            }
        });
        peak
    }
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
        assert!(!tally.print(), "the others had no session");
        (1..KINDS.len()).for_each(|kind| tally.count(kind, Ok(0)));
        assert!(tally.print());
        tally.count(1, Err("wrong".into()));
        assert!(!tally.print());
    }
}
