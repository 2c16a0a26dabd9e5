//! What the master and a worker say to each other.
//!
//! ```text
//! master                          worker
//!   Start           ---------->   reads the configuration, loads its modules, prepares everything
//!                   <----------   Zone (as often as a module asks for one)
//!   Zone            ---------->
//!                   <----------   Loaded, or Failed and its end
//!   Sockets ...     ---------->   opens logs, gives up privileges, starts its threads
//!                   <----------   Ready, or Failed and its end
//!   Serve           ---------->   accepts connections
//!                   <----------   Serving
//!   Lend, GiveBack  ---------->   accepts for another worker that has died, until that is replaced
//!   Reopen          ---------->   opens its logs again
//!                   <----------   Reopened
//!   Drain           ---------->   accepts no more, finishes what it has, and ends
//!                   <----------   Draining
//!   Stop            ---------->   ends at once
//!                   <----------   Leaving, if it drains because of a signal
//! ```

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::scoreboard::Accounting;
use crate::{listen::sockets::Wanted, plugins::description::Identity};

/// From the master to a worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// What it is to be. With the pipe to the master, the scoreboard, and, if a worker before it has read the configuration, what is
    /// kept of that ([`Kept`](crate::site::Kept)) and the files of modules.
    Start(Start),
    /// The zone that it has asked for, with the memory; or why there is none.
    Zone(Result<(), String>),
    /// Listening sockets, one for each descriptor.
    Sockets {
        /// For each: the index of the address, and the loop that gets it.
        of: Vec<(usize, usize)>,
        /// No more will come.
        last: bool,
    },
    /// The worker accepts connections from now on.
    Serve,
    /// It stands in for the worker of another slot, and accepts from that one's listening sockets too, one for each descriptor.
    Lend {
        /// The slot.
        slot: usize,
        /// For each: the index of the address.
        of: Vec<usize>,
    },
    /// The slot has a worker again.
    GiveBack(usize),
    /// It opens its logs again, and says so with this number.
    Reopen(u64),
    /// It finishes what it has, and ends; in this time, if there is one.
    Drain(Option<Duration>),
    /// It ends.
    Stop,
}

/// From a worker to the master.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToMaster {
    /// A module wants a zone.
    Zone {
        /// Its name.
        name: String,
        /// Its size in bytes.
        size: u64,
        /// What its words mean to the module.
        layout: u64,
    },
    /// The configuration is good.
    Loaded {
        /// What the master has to know of it. Of a worker that is not the first of its generation it is only held against that one's.
        plan: Box<Plan>,
        /// What is kept of it, if that was not handed to this worker.
        kept: Option<String>,
    },
    /// The worker cannot run, for this reason, and ends.
    Failed(String),
    /// It could accept connections.
    Ready,
    /// It accepts connections.
    Serving,
    /// It has opened its logs again.
    Reopened {
        /// As it was told to.
        number: u64,
        /// What is to be said of those that could not be opened.
        failed: Vec<String>,
    },
    /// It accepts no connections any more.
    Draining,
    /// Somebody else has told it to finish what it has.
    Leaving,
}

/// What a worker is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// The configuration's file.
    pub config: PathBuf,
    /// Where relative paths start.
    pub prefix: PathBuf,
    /// The number of the generation: one for each configuration that was tried.
    pub generation: u64,
    /// Which of the generation's workers it is, from 0 on.
    pub slot: usize,
    /// Workers and the loops of each, if its generation has a plan.
    pub loops: Option<(usize, usize)>,
    /// It is the first of its generation: it logs what it warns of.
    pub warns: bool,
    /// The modules whose files it gets: their places in the list of those that were loaded.
    pub modules: Vec<usize>,
}

/// What the master has to know of a configuration. It reads none itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Workers.
    pub processes: usize,
    /// Event loops of each.
    pub threads: usize,
    /// What to listen on.
    pub addresses: Vec<Wanted>,
    /// The pid file.
    pub pid: PathBuf,
    /// Whom workers run as, if another than the master.
    pub user: Option<(u32, u32)>,
    /// The logs of the main level: a path, or none for stderr, and the least severe level.
    pub error_log: Vec<(Option<PathBuf>, u32)>,
    /// All files that are logs.
    pub logs: Vec<PathBuf>,
    /// What workers have to finish in.
    pub shutdown_timeout: Option<Duration>,
    /// When a loop counts as stuck; zero: never.
    pub watchdog_timeout: Duration,
    /// The modules, in declared order.
    pub modules: Vec<PlannedModule>,
    /// What is counted of them.
    pub accounting: Accounting,
    /// The files of the configuration, with a hash of each text.
    pub files: Vec<(PathBuf, u64)>,
    /// What is not wrong, but has no effect.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Whether its workers get the same sockets as those of another.
    pub fn is_served_like(&self, other: &Plan) -> bool {
        let addresses = |plan: &Plan| plan.addresses.iter().map(|wanted| wanted.address.clone()).collect::<Vec<_>>();
        (self.processes, self.threads) == (other.processes, other.threads) && addresses(self) == addresses(other)
    }
}

/// A module of a configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedModule {
    /// Its slot: 1 and up.
    pub slot: u32,
    /// Its name in the configuration.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its file.
    pub file: PathBuf,
    /// The file that was loaded.
    pub identity: Identity,
}
