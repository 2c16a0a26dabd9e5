//! `changes`: reloads, upgrades and deaths of workers under load: what they lose, and what the master keeps of them.
//!
//! The server has two workers, and clients with kept and with new connections, which check each answer. A reload swaps the order
//! of two filters or replaces a module by its other version, and has to be seen in the answers behind it. Reloads, upgrades, and
//! both mixed, may lose no request; the death of a worker may lose what was in flight in it, and nothing else.

mod load;
mod mixed;
mod modules;
mod site;
mod subject;

use std::path::PathBuf;
use std::time::Duration;

use load::{Load, Lost};
use subject::{Death, Subject};

use crate::number_in;
use crate::random::Random;

const HELP: &str = "\
Usage: topnext-soak changes [OPTION]...

Reloads, upgrades and deaths of workers under load: what is lost, and what the master keeps.

  --reloads N     reloads under load, 0 to 10000 (default 50)
  --upgrades N    upgrades of the program under load, 0 to 100 (default 3)
  --mixed N       reloads, upgrades, ways back and reopened logs in a random order, 0 to 10000 (default 60); some begin while
                  another is under way
  --seed N        of that order (default 1)
  --deaths N      deaths of workers under load, 0 to 20 (default 20; of more, replacements would be delayed): killed, and by a
                  module that segfaults, in turn
  --steady N      reloads without load, over which the master is measured, 0 to 10000 (default 200)
  --clients N     clients, half of them with kept connections, 2 to 100 (default 8)
  --server PATH   the binary (default: topnext beside this program)
  --help          this text
";

/// Lost requests that are shown of each kind of change; all are counted.
const SHOWN: usize = 5;
/// Looks at the master while nothing but reloads happens.
const LOOKS: u64 = 10;
/// Looks of which the master may grow: until it has done all once.
const WARM_UP: usize = 2;
/// What the master's memory may differ by between two looks, in bytes.
const MORE_MEMORY: u64 = 64 * 1024;

/// Answers of each client between two deaths.
const ANSWERS_BETWEEN_DEATHS: u64 = 50;
/// Connections that a worker may have accepted, but not counted yet: one for its one thread.
const UNCOUNTED: u64 = 1;
/// How long is waited for anything that the server does.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, PartialEq, Eq)]
struct Options {
    reloads: u64,
    upgrades: u64,
    mixed: u64,
    seed: u64,
    deaths: u64,
    steady: u64,
    clients: u64,
    server: Option<PathBuf>,
}

/// Runs the command. True if nothing was lost that should not be, and the master has kept nothing.
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
    let mut options =
        Options { reloads: 50, upgrades: 3, mixed: 60, seed: 1, deaths: 20, steady: 200, clients: 8, server: None };
    while let Some(argument) = arguments.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("reloads") => options.reloads = arguments.value()?.parse_with(number_in(0..=10_000))?,
            Long("upgrades") => options.upgrades = arguments.value()?.parse_with(number_in(0..=100))?,
            Long("mixed") => options.mixed = arguments.value()?.parse_with(number_in(0..=10_000))?,
            Long("seed") => options.seed = arguments.value()?.parse()?,
            Long("deaths") => options.deaths = arguments.value()?.parse_with(number_in(0..=20))?,
            Long("steady") => options.steady = arguments.value()?.parse_with(number_in(0..=10_000))?,
            Long("clients") => options.clients = arguments.value()?.parse_with(number_in(2..=100))?,
            Long("server") => options.server = Some(arguments.value()?.into()),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

fn soak(options: &Options) -> Result<bool, String> {
    let mut subject = Subject::start(options.server.clone())?;
    let mut faults = steady(&mut subject, options.steady)?;

    println!(
        "| under load | times | requests | lost | of them in flight in a worker that died | kept connections it left | longest request, ms |\n\
         |---|---|---|---|---|---|---|"
    );
    let load = Load::new(subject.address(), options.clients);
    if options.reloads > 0 {
        let outcome = load.during(|| (0..options.reloads).try_for_each(|_| subject.reload()))?;
        faults.extend(report("reloads", options.reloads, &outcome, &[]));
    }
    if options.deaths > 0 {
        let mut dead = Vec::new();
        let outcome = load.during(|| {
            (0..options.deaths).try_for_each(|number| {
                let before = load.answers();
                dead.push(subject.kill_a_worker(number % 2 == 1)?);
                load.wait_for(before + ANSWERS_BETWEEN_DEATHS * options.clients)
            })
        })?;
        faults.extend(report("deaths of workers", options.deaths, &outcome, &dead));
    }
    if options.upgrades > 0 {
        let outcome = load.during(|| (0..options.upgrades).try_for_each(|_| subject.upgrade()))?;
        faults.extend(report("upgrades", options.upgrades, &outcome, &[]));
    }

    if options.mixed > 0 {
        let random = &mut Random::new(options.seed);
        let outcome = load.during(|| (0..options.mixed).try_for_each(|_| mixed::step(&mut subject, random)))?;
        faults.extend(report("mixed changes", options.mixed, &outcome, &[]));
    }

    faults.extend(subject.end()?);
    println!();
    faults.iter().for_each(|fault| println!("*** {fault}"));
    println!("{}", if faults.is_empty() { "all is well" } else { "*** not all is well" });
    Ok(faults.is_empty())
}

/// Reloads without load: what the master has more at the end.
fn steady(subject: &mut Subject, reloads: u64) -> Result<Vec<String>, String> {
    if reloads == 0 {
        return Ok(Vec::new());
    }
    println!("| reloads | memory of the master, KiB | its descriptors |\n|---|---|---|");
    let mut looks: Vec<(u64, usize)> = Vec::new();
    for number in 0..=reloads {
        if number > 0 {
            subject.reload()?;
        }
        if number % reloads.div_ceil(LOOKS) == 0 || number == reloads {
            let before = looks.first().map(|(_, descriptors)| *descriptors);
            let look = subject.look_at_master(before)?;
            println!("| {number} | {} | {} |", look.0 / 1024, look.1);
            looks.push(look);
        }
    }
    println!();
    let (Some(first), Some(last)) = (looks.get(WARM_UP).or(looks.first()), looks.last()) else { return Ok(Vec::new()) };
    let mut kept = Vec::new();
    if last.0 > first.0 + MORE_MEMORY {
        kept.push(format!("the master's memory grows: {} KiB, then {} KiB", first.0 / 1024, last.0 / 1024));
    }
    if last.1 > first.1 {
        kept.push(format!("the master's descriptors: {}, then {}", first.1, last.1));
    }
    Ok(kept)
}

/// Prints a line for what was lost, and returns what should not have been.
fn report(what: &str, times: u64, outcome: &load::Outcome, dead: &[Death]) -> Vec<String> {
    let of_death = |lost: &Lost| dead.iter().position(|death| death.explains(lost));
    let (mut in_flight, mut left, mut wrong) = (vec![Vec::new(); dead.len()], 0, Vec::new());
    for lost in &outcome.lost {
        match of_death(lost) {
            // It was sent when the worker was gone already: a client asks again on another connection, as of any server.
            Some(death) if lost.begun > dead[death].over => left += 1,
            Some(death) => in_flight[death].push(lost),
            None => wrong.push(lost),
        }
    }
    let total = in_flight.iter().flatten().count();
    let longest = outcome.longest.as_secs_f64() * 1000.0;
    let lost = total + wrong.len();
    println!("| {what} | {times} | {} | {lost} | {total} | {left} | {longest:.0} |", outcome.answers);
    let mut faults = Vec::new();
    for (death, lost) in dead.iter().zip(&in_flight) {
        let had = death.connections + UNCOUNTED;
        if lost.len() as u64 > had {
            faults.push(format!("{what}: {} lost with worker {}, which had at most {had}", lost.len(), death.worker));
            faults.extend(lost.iter().map(|lost| format!("{what}: {lost}")));
        }
    }
    if !wrong.is_empty() {
        faults.push(format!("{what}: {} requests were lost", wrong.len()));
    }
    faults.extend(wrong.iter().take(SHOWN).map(|lost| format!("{what}: {lost}")));
    if outcome.answers == 0 {
        faults.push(format!("{what}: no request was answered"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn command_line() {
        let parsed =
            |arguments: &[&str]| parse(lexopt::Parser::from_args(arguments)).map_err(|error| error.to_string());
        let options = parsed(&["--reloads", "5", "--deaths=3", "--steady", "0"]).unwrap().unwrap();
        assert_eq!((options.reloads, options.upgrades, options.deaths, options.steady), (5, 3, 3, 0));
        assert!(parsed(&["--help"]).unwrap().is_none());
        assert!(parsed(&["--clients", "1"]).unwrap_err().contains("expected a number from 2 to 100"));
        assert!(parsed(&["x"]).is_err());
    }

    #[test]
    fn only_what_was_in_flight_in_a_dead_worker_may_be_lost() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let lost = |connected: u64, begun: u64, ended: u64, worker: Option<u32>| Lost {
            connected: at(connected),
            begun: at(begun),
            ended: at(ended),
            worker,
            error: "closed".into(),
        };
        let death = Death { worker: 7, began: at(100), over: at(110), connections: 2 };
        assert!(death.explains(&lost(0, 99, 105, Some(7))) && death.explains(&lost(0, 99, 105, None)));
        assert!(!death.explains(&lost(0, 99, 105, Some(8))), "another worker");
        assert!(!death.explains(&lost(0, 50, 99, Some(7))), "before it died");
        assert!(!death.explains(&lost(111, 111, 120, None)), "connected when it was dead");
        let faults = |lost: Vec<Lost>| {
            let outcome = load::Outcome { answers: 1, lost, longest: Duration::ZERO };
            report("deaths", 1, &outcome, std::slice::from_ref(&death)).len()
        };
        assert_eq!(faults(vec![lost(0, 99, 105, Some(7)), lost(0, 100, 110, None), lost(0, 115, 116, Some(7))]), 0);
        assert_eq!(faults(vec![lost(111, 111, 120, None)]), 2, "the number, and one of them");
        let more = (0..4).map(|_| lost(0, 99, 105, Some(7))).collect();
        assert_eq!(faults(more), 1 + 4, "more than it had, and each of them");
        assert_eq!(report("reloads", 1, &load::Outcome::default(), &[]).len(), 1, "no answer");
    }
}
