//! `topnext status`: what the master knows of its workers, as JSON.

use std::{
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use serde::{Deserialize, Serialize};
use topnext_module_api::running::{self, Account, Hook};

use super::{
    child::{Child, Stage},
    generation::Generation,
    master::Master,
    messages::PlannedModule,
    scoreboard::{self, Accounting},
};
use crate::{
    site::VERSION,
    stats::{self, Counter},
};

/// What a client of the control socket asks for.
pub const QUESTION: &str = "status";

/// All of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// The server's version.
    pub version: String,
    /// The master's process.
    pub pid: u32,
    /// Seconds since the master was started.
    pub uptime: u64,
    /// The configuration's file.
    pub config: String,
    /// The process of another master that serves, or may serve, instead of this one: an upgrade is under way.
    #[serde(default)]
    pub other_master: Option<u32>,
    /// Generations that have workers, and the one that serves, the oldest first.
    pub generations: Vec<OfGeneration>,
}

/// A generation.
#[derive(Debug, Serialize, Deserialize)]
pub struct OfGeneration {
    /// Its number.
    pub number: u64,
    /// `starting`, `serving`, `draining`, `dismissed` (its workers were told to finish, since another master serves), `failed`
    /// (it has not come to serve, and its workers still end) or `ending` (the server is).
    pub state: String,
    /// What is counted of modules: `off`, `sampled` or `all`; none while the configuration is being read.
    #[serde(default)]
    pub accounting: Option<Accounting>,
    /// Slots of the generation that serves that have no worker.
    #[serde(default)]
    pub missing: Vec<Missing>,
    /// Its workers.
    pub workers: Vec<OfWorker>,
}

/// A slot without a worker.
#[derive(Debug, Serialize, Deserialize)]
pub struct Missing {
    /// Its number.
    pub slot: usize,
    /// Seconds until the next worker is started, if that is known.
    pub next_in: Option<f64>,
    /// The worker that stands in for it, if there is one.
    pub stand_in: Option<u32>,
}

/// A worker.
#[derive(Debug, Serialize, Deserialize)]
pub struct OfWorker {
    /// Its process.
    pub pid: u32,
    /// Which of its generation it is.
    pub slot: usize,
    /// `starting`, `loaded`, `ready`, `serving` or `draining`.
    pub state: String,
    /// Seconds since it was started.
    pub uptime: u64,
    /// Connections of clients that are open.
    pub connections: u64,
    /// Connections of clients that it has accepted.
    pub accepted: u64,
    /// Requests that it has got.
    pub requests: u64,
    /// Of these, those that have not ended.
    pub running: u64,
    /// Where its threads are, if they are in a module.
    pub threads: Vec<String>,
    /// What its modules have done, in declared order.
    pub modules: Vec<OfModule>,
}

/// A module of a worker.
#[derive(Debug, Serialize, Deserialize)]
pub struct OfModule {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The hooks that were called.
    pub hooks: Vec<OfHook>,
}

/// A hook of a module. Times are of the module's own code, without what it has called; of all calls if they were not all
/// timed, as far as can be told from those that were.
#[derive(Debug, Serialize, Deserialize)]
pub struct OfHook {
    /// Its name.
    pub hook: String,
    /// Calls.
    pub calls: u64,
    /// Those that answered an error of their own.
    pub errors: u64,
    /// Those that panicked.
    pub panics: u64,
    /// Those that were timed.
    pub timed: u64,
    /// Time of all, in microseconds.
    pub total_us: f64,
    /// Time of one on the average, in microseconds.
    pub mean_us: f64,
    /// The longest that was timed, in microseconds.
    pub longest_us: f64,
}

/// What a client gets.
pub fn json(master: &Rc<Master>) -> String {
    serde_json::to_string(&of(master)).unwrap_or_default()
}

fn of(master: &Rc<Master>) -> Status {
    let (generations, _) = master.generations();
    let per_us = master.ticks().per_us();
    let of_generation = |generation: &Rc<Generation>| {
        let state = state(master, generation);
        let missing = if state == "serving" { generation.missing() } else { Vec::new() };
        let missing = missing.into_iter().map(|(slot, next)| Missing {
            slot,
            next_in: next.map(|next| next.as_secs_f64()),
            stand_in: generation.stand_in(slot).map(|worker| worker.pid),
        });
        let mut workers = generation.workers();
        workers.sort_by_key(|worker| worker.slot);
        OfGeneration {
            number: generation.number,
            state: state.to_string(),
            accounting: generation.plan().map(|plan| plan.accounting),
            missing: missing.collect(),
            workers: workers.iter().map(|child| of_worker(child, per_us)).collect(),
        }
    };
    Status {
        version: VERSION.to_string(),
        pid: std::process::id(),
        uptime: master.started().elapsed().as_secs(),
        config: std::path::absolute(&master.options.config).unwrap_or_default().display().to_string(),
        other_master: master.upgrade.borrow().other_process(),
        generations: generations.iter().map(of_generation).collect(),
    }
}

fn state(master: &Rc<Master>, generation: &Rc<Generation>) -> &'static str {
    let serving = master.serving.borrow();
    match &*serving {
        _ if master.ending.get().is_some() => "ending",
        Some(serving) if Rc::ptr_eq(serving, generation) && serving.is_dismissed.get() => "dismissed",
        Some(serving) if Rc::ptr_eq(serving, generation) => "serving",
        _ if master.is_starting(generation) => "starting",
        _ if generation.has_failed.get() => "failed",
        // Until all of the next one serve.
        _ if master.is_to_serve() && generation.workers().iter().any(|worker| worker.is_to_stay()) => "serving",
        _ => "draining",
    }
}

fn of_worker(child: &Rc<Child>, per_us: f64) -> OfWorker {
    let count = |counter| stats::sum(child.board.boards(), counter);
    OfWorker {
        pid: child.pid,
        slot: child.slot,
        state: String::from(match child.stage() {
            Stage::Starting => "starting",
            Stage::Loaded => "loaded",
            Stage::Ready => "ready",
            Stage::Serving => "serving",
            Stage::Draining => "draining",
        }),
        uptime: child.started.elapsed().as_secs(),
        connections: count(Counter::Connections),
        accepted: count(Counter::Accepted),
        requests: count(Counter::Requests),
        running: count(Counter::Running),
        threads: child.whereabouts(false),
        modules: child
            .generation
            .plan()
            .map_or_else(Vec::new, |plan| plan.modules.iter().map(|module| of_module(child, module, per_us)).collect()),
    }
}

fn of_module(child: &Rc<Child>, module: &PlannedModule, per_us: f64) -> OfModule {
    let hooks = Hook::ALL.iter().filter_map(|hook| of_hook(child, module.slot as usize, *hook, per_us)).collect();
    OfModule { name: module.name.clone(), version: module.version.clone(), hooks }
}

fn of_hook(child: &Rc<Child>, slot: usize, hook: Hook, per_us: f64) -> Option<OfHook> {
    let accounts = || child.board.boards().filter_map(|board| scoreboard::account(board, slot, hook.0 as usize));
    // The worker has written them, and may have written anything.
    let sum = |of: fn(&Account) -> &AtomicU64| {
        accounts().map(|account| of(account).load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    };
    let (calls, errors, panics) = (sum(|a| &a.calls), sum(|a| &a.errors), sum(|a| &a.panics));
    let (timed, ticks) = (sum(|a| &a.timed), sum(|a| &a.ticks));
    let longest = accounts().map(|account| account.longest.load(Ordering::Relaxed)).max().unwrap_or(0);
    if calls == 0 && panics == 0 {
        return None;
    }
    let mean_us = if timed == 0 { 0.0 } else { ticks as f64 / timed as f64 / per_us };
    Some(OfHook {
        hook: hook.name().to_string(),
        calls,
        errors,
        panics,
        timed,
        total_us: mean_us * calls as f64,
        mean_us,
        longest_us: longest as f64 / per_us,
    })
}

/// How many ticks of the clock of accounts a microsecond has, as seen since the master has started.
#[derive(Clone, Copy, Debug)]
pub struct Ticks {
    at: Instant,
    ticks: u64,
}

impl Ticks {
    /// Begins to look.
    pub fn start() -> Ticks {
        Ticks { at: Instant::now(), ticks: running::ticks() }
    }

    fn per_us(self) -> f64 {
        let passed = running::ticks().wrapping_sub(self.ticks) as f64;
        (passed / (self.at.elapsed().as_nanos() as f64 / 1000.0)).max(f64::MIN_POSITIVE)
    }
}
