//! What a filter costs, in process, through the server's own chains.
//!
//! ```text
//! cargo run --release -p topnext-bench -- hop --enforce
//! ```
//!
//! One configuration has chains of 0, 1, 8 and 32 filters that only pass on (tools/bench/noop), and behind them one that
//! answers (tools/bench/probe). Each filter is a file of its own, since one file is one image and has one slot. The chains
//! are called as the server calls them, in turns, so that a slower moment of the machine hits all alike. What a hop costs is
//! the difference to the chain of 0, divided by the number of filters; of the quietest tenth of the batches, so that work
//! beside it does not count, and only while the processor runs at its full speed (speed.rs).

mod boxed;
mod build;
mod load;
mod samples;
mod site;
mod speed;

use std::alloc::System;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use topnext::plugins::{link, running};
use topnext::request::Request;
use topnext_module_api::{Buf, Chain};

use crate::Verdict;
use crate::guard::WorkDir;
use boxed::Around;
use samples::Samples;
use site::{Driver, LENGTHS};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const HELP: &str = "\
Usage: topnext-bench hop [OPTION]...

What a filter in the chain costs, beside the same filter as a trait object in one binary; what a module's calls to the
host cost; how long a module takes to load.

  --samples N  batches of each measurement (default 300)
  --enforce    exit with 1 if a hop takes more than 2 ns or allocates
  --help       this text
";

/// The most that a hop may take, in nanoseconds, in a chain of 8. In one of 32 each costs more, with `Box<dyn>` as well
/// (probably since the processor runs out of room for return addresses): that says nothing about the ABI.
const MAX_HOP: f64 = 2.0;
/// Calls in a batch.
const CALLS: u32 = 1000;
/// Calls in a measurement of the probe (its `CALLS`).
const PROBE_CALLS: f64 = 500.0;
const DEFAULT_SAMPLES: usize = 300;
/// Rounds that are tried for each that is wanted at full speed, and how long.
const MAX_TRIES: usize = 100;
const MAX_TIME: Duration = Duration::from_secs(60);

/// Runs the command.
pub fn run(mut arguments: lexopt::Parser) -> Result<Verdict, String> {
    // But for where it is what is measured.
    topnext::process::scoreboard::set_accounting(topnext::process::scoreboard::Accounting::Off);
    use lexopt::prelude::*;
    let (mut samples, mut enforce) = (DEFAULT_SAMPLES, false);
    while let Some(argument) = arguments.next().map_err(|error| error.to_string())? {
        match argument {
            Long("samples") => {
                let value = arguments.value().map_err(|error| error.to_string())?;
                samples = value.parse().map_err(|error| format!("--samples: {error}"))?;
            }
            Long("enforce") => enforce = true,
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(Verdict::Passed);
            }
            other => return Err(format!("{}\n\n{HELP}", other.unexpected())),
        }
    }
    if samples == 0 {
        return Err("--samples: at least 1".to_owned());
    }
    if cfg!(debug_assertions) {
        eprintln!("topnext-bench: this is a debug build, and measures nothing of worth: use --release");
    }
    let folder = WorkDir::create()?;
    let driver = Driver::new(folder.path())?;
    let passed = hops(&driver, samples)?;
    services(&driver, samples)?;
    println!("\n## Loading a module, in ms\n\n| module | file | describe | load |\n|---|---|---|---|");
    load::print("noop", &build::module("noop")?, folder.path())?;
    match build::bundled("gzip") {
        Some(file) => load::print("gzip", &file, folder.path())?,
        None => println!("\n(gzip was not built beside this program: cargo build --release)"),
    }
    Ok(if passed || !enforce { Verdict::Passed } else { Verdict::BelowFloor })
}

/// A kind of chain, called once.
enum Kind {
    Header,
    /// With the accounting of modules: calls are counted, and timed if so.
    HeaderCounted {
        timed: bool,
    },
    Body,
    BodyWithBuf,
    Boxed(Around),
}

impl Kind {
    const ALL: [Kind; 8] = [
        Kind::Header,
        Kind::HeaderCounted { timed: false },
        Kind::HeaderCounted { timed: true },
        Kind::Body,
        Kind::BodyWithBuf,
        Kind::Boxed(Around::ALL[0]),
        Kind::Boxed(Around::ALL[1]),
        Kind::Boxed(Around::ALL[2]),
    ];

    fn name(&self) -> &'static str {
        match self {
            Kind::Header => "header filter, .so",
            Kind::HeaderCounted { timed: false } => "header filter, .so, counted",
            Kind::HeaderCounted { timed: true } => "header filter, .so, timed",
            Kind::Body => "body filter, .so",
            Kind::BodyWithBuf => "body filter, .so, a buf",
            Kind::Boxed(around) => around.name(),
        }
    }

    /// Whether the limits hold for it.
    fn is_limited(&self) -> bool {
        matches!(self, Kind::Header | Kind::Body)
    }
}

/// One chain: of a kind and a length.
struct Case {
    request: Rc<Request>,
    filters: usize,
    boxed: Option<Box<dyn boxed::Header>>,
    samples: Samples,
    allocations: u64,
}

impl Case {
    fn new(driver: &Driver, kind: &Kind, filters: usize) -> Result<Case, String> {
        let boxed = match kind {
            Kind::Boxed(around) => Some(boxed::chain(*around, filters)),
            _ => None,
        };
        Ok(Case { request: driver.request(filters)?, filters, boxed, samples: Samples::default(), allocations: 0 })
    }

    /// A batch.
    fn sample(&mut self, kind: &Kind) {
        let (r, place) = (&self.request, self.request.place());
        match (kind, &self.boxed) {
            (Kind::Boxed(_), Some(chain)) => {
                let mut count = 0;
                self.samples.run(CALLS, || {
                    black_box(black_box(chain).call(&mut count));
                });
            }
            (Kind::Header, _) => self.samples.run(CALLS, || {
                black_box(link::call_header_filters(r, place));
            }),
            (Kind::HeaderCounted { timed }, _) => {
                running::cell().set_accounting(true, *timed);
                self.samples.run(CALLS, || {
                    black_box(link::call_header_filters(r, place));
                });
                running::cell().set_accounting(false, false);
            }
            (Kind::BodyWithBuf, _) => self.samples.run(CALLS, || {
                black_box(link::call_body_filters(r, place, Chain::from(Buf::from_static(b"static"))));
            }),
            _ => self.samples.run(CALLS, || {
                black_box(link::call_body_filters(r, place, Chain::new()));
            }),
        }
    }

    /// A batch of which the allocations are counted, of the server and of the modules.
    fn count(&mut self, driver: &Driver, kind: &Kind) {
        let asking = {
            let before = driver.allocations_of_modules(&self.request);
            driver.allocations_of_modules(&self.request) - before
        };
        // The list of times grows by one in a batch: it has the room already.
        self.sample(kind);
        let before = driver.allocations_of_modules(&self.request);
        let region = Region::new(ALLOCATOR);
        self.sample(kind);
        let change = region.change();
        let modules = driver.allocations_of_modules(&self.request) - before - asking;
        self.allocations = (change.allocations + change.reallocations) as u64 + modules;
    }
}

/// Prints the cost of hops; whether they are within the limits.
fn hops(driver: &Driver, samples: usize) -> Result<bool, String> {
    println!("## A hop\n");
    println!(
        "Nanoseconds of a whole call, median of {samples} batches of {CALLS} calls ± half of the 10..90 % range.\n"
    );
    let heads: Vec<String> = LENGTHS.iter().map(|length| format!("of {length}")).collect();
    println!("| chain | {} | ns a hop of 8 | ns a hop of 32 | allocations a hop |", heads.join(" | "));
    println!("|---|{}", "---|".repeat(LENGTHS.len() + 3));
    let mut cases = Vec::new();
    for kind in Kind::ALL {
        let of_kind: Result<Vec<Case>, String> =
            LENGTHS.iter().map(|length| Case::new(driver, &kind, *length)).collect();
        cases.push((kind, of_kind?));
    }
    // The first round warms up, and is forgotten; the next ones go round all cases, until enough of them were at the
    // processor's full speed.
    let (mut speeds, mut full, began) = (Vec::new(), Vec::new(), Instant::now());
    let mut before = speed::now();
    for round in 0.. {
        for (kind, of_kind) in &mut cases {
            for case in of_kind {
                case.sample(kind);
                if round == 0 {
                    case.samples = Samples::with_room(samples * MAX_TRIES);
                }
            }
        }
        let behind = speed::now();
        if round > 0 {
            speeds.push((before, behind));
        }
        before = behind;
        if speeds.len() >= samples {
            full = speed::full(&speeds);
            let enough = full.iter().filter(|full| **full).count() >= samples;
            if enough || speeds.len() >= samples * MAX_TRIES || began.elapsed() > MAX_TIME {
                break;
            }
        }
    }
    for case in cases.iter_mut().flat_map(|(_, of_kind)| of_kind) {
        case.samples = case.samples.only(&full);
    }
    let at_full = full.iter().filter(|full| **full).count();
    let mut verdicts = Vec::new();
    for (kind, of_kind) in &mut cases {
        let times: Vec<String> =
            of_kind.iter().map(|case| format!("{:.1} ± {:.1}", case.samples.median(), case.samples.spread())).collect();
        let quiet: Vec<f64> = of_kind.iter().map(|case| case.samples.quiet()).collect();
        of_kind.iter_mut().for_each(|case| case.count(driver, kind));
        let [none, _, short, long] = &of_kind[..] else { return Err("not four chains".to_owned()) };
        let hops = [(quiet[2] - quiet[0]) / short.filters as f64, (quiet[3] - quiet[0]) / long.filters as f64];
        let more = long.allocations.saturating_sub(none.allocations);
        let allocations = more as f64 / (long.filters as f64 * f64::from(CALLS));
        println!("| {} | {} | {:.2} | {:.2} | {allocations} |", kind.name(), times.join(" | "), hops[0], hops[1]);
        if kind.is_limited() {
            verdicts.push((kind.name(), hops[0], more));
        }
    }
    println!("\n{at_full} of {} rounds were at the processor's full speed; the others are left out.\n", speeds.len());
    for (name, hop, allocations) in &verdicts {
        let verdict = |ok: bool| if ok { "pass" } else { "FAIL" };
        println!("- {name}: {hop:.2} ns a hop, limit {MAX_HOP}: {}", verdict(*hop <= MAX_HOP));
        println!("- {name}: {allocations} allocations in {CALLS} calls, limit 0: {}", verdict(*allocations == 0));
    }
    Ok(verdicts.iter().all(|(_, hop, allocations)| *hop <= MAX_HOP && *allocations == 0))
}

/// Prints what a module's calls to the host cost.
fn services(driver: &Driver, samples: usize) -> Result<(), String> {
    println!("\n## A module's call to the host\n\n| service | ns | allocations in the server |\n|---|---|---|");
    let probe = driver.probe()?;
    let names: Vec<String> = link::variables(probe).into_iter().map(|(name, _)| name).collect();
    let mut results = vec![(Samples::with_room(samples), 0); names.len()];
    for _ in 0..samples {
        for (index, (times, allocations)) in results.iter_mut().enumerate() {
            // A new one each time: what it was given stays in its pool until it ends.
            let r = driver.request(0)?;
            let region = Region::new(ALLOCATOR);
            let text = link::call_variable(&r, probe.slot, index as u32);
            let change = region.change();
            *allocations = change.allocations + change.reallocations;
            let time = text.and_then(|text| String::from_utf8(text.into()).ok()?.parse::<f64>().ok());
            times.add(time.ok_or_else(|| format!("the probe gives no {}", names[index]))? / PROBE_CALLS);
            r.release();
        }
    }
    let (nothing, asking) = (results[0].0.median(), results[0].1);
    for (name, (times, allocations)) in names.iter().zip(&results).skip(1) {
        let name = name.trim_start_matches("probe_");
        let allocations = allocations.saturating_sub(asking) as f64 / PROBE_CALLS;
        println!("| {name} | {:.1} ± {:.1} | {allocations} |", times.median() - nothing, times.spread());
    }
    Ok(())
}
