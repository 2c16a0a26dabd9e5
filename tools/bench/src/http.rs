//! `topnext-bench http`: topnext beside nginx, with the same work and one worker each, loaded by wrk.
//!
//! ```text
//! topnext-bench http                              all cases, 9 rounds of 2 + 2 s for each server
//! topnext-bench http --case 1k --rounds 3         a quick look
//! topnext-bench http --enforce                    exit status 1 below a floor
//! ```
//!
//! A round runs both servers, one after the other, and then both by turns of some milliseconds (turns.rs); the order swaps
//! with every round, and ratios are taken within a round, so that a machine that changes its speed harms neither. Requests
//! per CPU second are those of the turns, all else that of the runs. Progress goes to stderr, the report to stdout.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::Verdict;
use crate::cases::{self, CASES, Case};
use crate::check;
use crate::files;
use crate::guard::WorkDir;
use crate::machine;
use crate::report::{Mark, Round, Row, Sample, TABLE_HEAD};
use crate::server::{Nginx, ROOT, Server, Software, Topnext};
use crate::turns;
use crate::wrk::{self, Work};

const HELP: &str = "\
Usage: topnext-bench http [OPTION]...

Runs topnext and nginx side by side and prints ratios, above 1 where topnext is better.

  --case NAME      run this case only; may be given several times
  --list           list the cases
  --rounds N       rounds per case, 1 to 101 (default 9)
  --seconds N      length of a run, and of all turns of a round, 1 to 60 (default 2)
  --topnext PATH   the binary to measure (default: topnext beside this program)
  --enforce        exit with status 1 if a case is below its floor
  --help           this text
";

/// Bounds of `--rounds` and `--seconds`.
const ROUNDS: RangeInclusive<u32> = 1..=101;
const SECONDS: RangeInclusive<u32> = 1..=60;

/// Length in seconds of the run of each server that is not counted, in which it fills its caches and pools.
const WARM_UP: u32 = 1;

/// What the command line asks for.
#[derive(Debug)]
struct Options {
    cases: Vec<&'static Case>,
    rounds: u32,
    seconds: u32,
    topnext: Option<PathBuf>,
    enforce: bool,
}

/// The programs that take part.
struct Programs {
    wrk: PathBuf,
    nginx: Box<dyn Software>,
    topnext: Box<dyn Software>,
}

/// Reads the rest of the command line, measures, and prints the report.
pub fn run(arguments: lexopt::Parser) -> Result<Verdict, String> {
    match parse(arguments).map_err(|error| format!("{error}\n\n{HELP}"))? {
        Request::Help => print!("{HELP}"),
        Request::List => CASES.iter().for_each(|case| println!("{:10} {}", case.name, case.about)),
        Request::Measure(options) => return measure(&options),
    }
    Ok(Verdict::Passed)
}

#[derive(Debug)]
enum Request {
    Help,
    List,
    Measure(Options),
}

fn parse(mut arguments: lexopt::Parser) -> Result<Request, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options { cases: Vec::new(), rounds: 9, seconds: 2, topnext: None, enforce: false };
    while let Some(argument) = arguments.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Request::Help),
            Long("list") => return Ok(Request::List),
            Long("case") => options.cases.push(arguments.value()?.parse_with(cases::find)?),
            Long("rounds") => options.rounds = arguments.value()?.parse_with(|text| number_in(text, ROUNDS))?,
            Long("seconds") => options.seconds = arguments.value()?.parse_with(|text| number_in(text, SECONDS))?,
            Long("topnext") => options.topnext = Some(arguments.value()?.into()),
            Long("enforce") => options.enforce = true,
            other => return Err(other.unexpected()),
        }
    }
    if options.cases.is_empty() {
        options.cases = CASES.iter().collect();
    }
    Ok(Request::Measure(options))
}

fn number_in(text: &str, range: RangeInclusive<u32>) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("expected a number from {} to {}", range.start(), range.end()))
}

fn measure(options: &Options) -> Result<Verdict, String> {
    let nginx = machine::program("nginx", "nginx")?;
    let wrk = machine::program("wrk", "wrk")?;
    let topnext = machine::topnext(options.topnext.clone())?;
    print!("{}", machine::describe(&nginx));
    println!("- {} rounds of {} s; median [min..max], above 1 = topnext is better\n", options.rounds, options.seconds);
    println!("{TABLE_HEAD}");
    let programs =
        Programs { wrk, nginx: Box::new(Nginx { binary: nginx }), topnext: Box::new(Topnext { binary: topnext }) };
    let dir = WorkDir::create()?;
    files::write(&dir.path().join(ROOT))?;
    let mut verdict = Verdict::Passed;
    let mut failed = Vec::new();
    for &case in &options.cases {
        match run_case(case, options, &programs, &dir) {
            Ok(row) => {
                println!("{row}");
                if options.enforce && row.mark() == Mark::BelowFloor {
                    verdict = Verdict::BelowFloor;
                }
            }
            Err(message) => {
                eprintln!("{}: {message}", case.name);
                failed.push(case.name);
            }
        }
    }
    match failed.is_empty() {
        true => Ok(verdict),
        false => Err(format!("could not measure: {}", failed.join(", "))),
    }
}

/// Starts both servers afresh, compares what they answer, and runs all rounds.
fn run_case(case: &'static Case, options: &Options, programs: &Programs, dir: &WorkDir) -> Result<Row, String> {
    let nginx = Server::start(&*programs.nginx, case, dir)?;
    let topnext = Server::start(&*programs.topnext, case, dir)?;
    check::same(case, &topnext, &nginx)?;
    let work = Work::of(case, dir.path())?;
    let sample = |server: &Server, seconds| {
        sample(&work, server, programs, seconds)
            .map_err(|message| server.explain(&format!("was not measured: {message}")))
    };
    for server in [&nginx, &topnext] {
        sample(server, WARM_UP)?;
    }
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let counted = |server: &Server| {
            let sample = sample(server, options.seconds)?;
            progress(case, number, options.rounds, server, &sample);
            Ok::<Sample, String>(sample)
        };
        let (of_nginx, of_topnext) = if number % 2 == 1 {
            let first = counted(&nginx)?;
            (first, counted(&topnext)?)
        } else {
            let first = counted(&topnext)?;
            (counted(&nginx)?, first)
        };
        let turns = turns::run(&programs.wrk, &work, [&nginx, &topnext], options.seconds)?;
        let turns = turns[1].requests_per_cpu_second() / turns[0].requests_per_cpu_second();
        eprintln!(
            "{:8} {number:3}/{} by turns: {turns:.3} of nginx's requests per CPU second",
            case.name, options.rounds
        );
        rounds.push(Round { nginx: of_nginx, topnext: of_topnext, turns });
    }
    Row::of(case, &rounds).ok_or_else(|| "no rounds".into())
}

/// One run of one server.
fn sample(work: &Work, server: &Server, programs: &Programs, seconds: u32) -> Result<Sample, String> {
    let before = server.cpu_times()?;
    let load = wrk::run(&programs.wrk, server.address(), work, seconds)?;
    let cpu = server.cpu_times()?.since(&before)?;
    Ok(Sample { load, cpu, memory: server.resident_memory()? })
}

/// A line per run, so that one sees what a long benchmark does.
fn progress(case: &Case, number: u32, rounds: u32, server: &Server, sample: &Sample) {
    eprintln!(
        "{:8} {number:3}/{rounds} {:8} {:9.0} req/CPU-s {:9.0} req/s   p99 {:8.2} ms {:6} KiB",
        case.name,
        server.name(),
        sample.requests_per_cpu_second(),
        sample.load.requests_per_second,
        sample.load.p99_us / 1e3,
        sample.memory / 1024
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Request, String> {
        parse(lexopt::Parser::from_args(arguments)).map_err(|error| error.to_string())
    }

    #[test]
    fn command_line() {
        let Ok(Request::Measure(options)) = parsed(&[]) else { panic!("not a measurement") };
        assert_eq!((options.cases.len(), options.rounds, options.seconds), (CASES.len(), 9, 2));
        assert!(!options.enforce && options.topnext.is_none());

        let arguments =
            ["--case", "1m", "--case=return", "--rounds", "3", "--seconds=5", "--topnext", "t", "--enforce"];
        let Ok(Request::Measure(options)) = parsed(&arguments) else { panic!("not a measurement") };
        let names: Vec<_> = options.cases.iter().map(|case| case.name).collect();
        assert_eq!((names, options.rounds, options.seconds), (vec!["1m", "return"], 3, 5));
        assert!(options.enforce && options.topnext == Some("t".into()));

        assert!(matches!(parsed(&["--list"]), Ok(Request::List)));
        assert!(matches!(parsed(&["--help"]), Ok(Request::Help)));
    }

    #[test]
    fn bad_command_lines_say_what_is_valid() {
        let refused = |arguments: &[&str]| parsed(arguments).unwrap_err();
        for rounds in ["0", "102", "-1", "x"] {
            assert!(refused(&["--rounds", rounds]).contains("expected a number from 1 to 101"), "{rounds}");
        }
        assert!(refused(&["--seconds", "61"]).contains("expected a number from 1 to 60"));
        assert!(refused(&["--case", "2k"]).contains("there are: return, 1k, 1k-off, 1k-all, 100k, 1m"));
        assert!(refused(&["--case"]).contains("missing argument"));
        assert!(refused(&["1k"]).contains("unexpected argument"));
    }
}
