//! `topnext status`: what the master knows of its workers, as JSON.

use std::rc::Rc;

use serde::Serialize;

use super::{
    child::{Child, Stage},
    generation::Generation,
    master::Master,
};
use crate::{
    site::VERSION,
    stats::{self, Counter},
};

/// What a client of the control socket asks for.
pub const QUESTION: &str = "status";

/// All of it.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The server's version.
    pub version: &'static str,
    /// The master's process.
    pub pid: u32,
    /// Seconds since the master was started.
    pub uptime: u64,
    /// The configuration's file.
    pub config: String,
    /// Generations that have workers, the oldest first.
    pub generations: Vec<OfGeneration>,
}

/// A generation.
#[derive(Debug, Serialize)]
pub struct OfGeneration {
    /// Its number.
    pub number: u64,
    /// `starting`, `serving` or `draining`.
    pub state: &'static str,
    /// Its workers.
    pub workers: Vec<OfWorker>,
}

/// A worker.
#[derive(Debug, Serialize)]
pub struct OfWorker {
    /// Its process.
    pub pid: u32,
    /// Which of its generation it is.
    pub slot: usize,
    /// `starting`, `loaded`, `ready`, `serving` or `draining`.
    pub state: &'static str,
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
}

/// What a client gets.
pub fn json(master: &Rc<Master>) -> String {
    serde_json::to_string(&of(master)).unwrap_or_default()
}

fn of(master: &Rc<Master>) -> Status {
    let (generations, serving) = master.generations();
    let of_generation = |generation: &Rc<Generation>| OfGeneration {
        number: generation.number,
        state: match &serving {
            Some(serving) if Rc::ptr_eq(serving, generation) => "serving",
            Some(serving) if serving.number > generation.number => "draining",
            _ => "starting",
        },
        workers: generation.workers().iter().map(of_worker).collect(),
    };
    Status {
        version: VERSION,
        pid: std::process::id(),
        uptime: master.started().elapsed().as_secs(),
        config: master.options.config.display().to_string(),
        generations: generations.iter().map(of_generation).collect(),
    }
}

fn of_worker(child: &Rc<Child>) -> OfWorker {
    let count = |counter| stats::sum(child.board.boards(), counter);
    OfWorker {
        pid: child.pid,
        slot: child.slot,
        state: match child.stage() {
            Stage::Starting => "starting",
            Stage::Loaded => "loaded",
            Stage::Ready => "ready",
            Stage::Serving => "serving",
            Stage::Draining => "draining",
        },
        uptime: child.started.elapsed().as_secs(),
        connections: count(Counter::Connections),
        accepted: count(Counter::Accepted),
        requests: count(Counter::Requests),
        running: count(Counter::Running),
        threads: child.whereabouts(false),
    }
}
