//! What a configuration asks of the system, held against what the system gives. It is looked at when the configuration is read, so
//! that `-t` and a reload say it with the place, and not only a start when it fails.

use std::fs;

use rustix::process::{Resource, getrlimit};

use crate::{
    config::{Diagnostics, Main},
    process::scoreboard,
};

/// What is looked at.
pub struct Demands<'a> {
    /// The directives at top level.
    pub main: &'a Main,
    /// Event loops of a worker.
    pub threads: usize,
    /// Addresses to listen on.
    pub addresses: usize,
}

impl Demands<'_> {
    /// What cannot be is missing. What may turn out to be too little is a warning.
    pub fn check(&self, missing: &mut Diagnostics, warnings: &mut Diagnostics) {
        self.check_threads(missing);
        self.check_connections(missing, warnings);
        self.check_limits(missing);
    }

    fn check_threads(&self, missing: &mut Diagnostics) {
        let (loops, pool) = (self.threads, self.main.thread_pool.threads as usize);
        if loops + pool > scoreboard::MAX_OWN_THREADS {
            let most = scoreboard::MAX_OWN_THREADS;
            let text = format!(
                "found {loops} event loops, which are {} threads with the {pool} of thread_pool, expected at most {most} in a \
                 worker; have more worker_processes with fewer threads each",
                loops + pool
            );
            missing.push(self.main.origin_of("worker_threads"), "worker_threads", text);
        }
    }

    fn check_connections(&self, missing: &mut Diagnostics, warnings: &mut Diagnostics) {
        let (main, name) = (self.main, "worker_connections");
        let connections = main.worker_connections as usize;
        if connections <= self.addresses {
            let text = format!(
                "found {connections}, expected more than the {} sockets that each thread listens on, which count too",
                self.addresses
            );
            missing.push(main.origin_of(name), name, text);
        }
        // Of what nobody has written nobody wants to be warned.
        if [name, "worker_rlimit_nofile"].iter().all(|name| main.origin_of(name).line == 0) {
            return;
        }
        let (is_of, limit) = match main.worker_rlimit_nofile {
            Some(limit) => ("worker_rlimit_nofile", Some(u64::from(limit))),
            None => ("the limit of open files (ulimit -n)", getrlimit(Resource::Nofile).current),
        };
        let needed = connections * self.threads;
        if let Some(limit) = limit.filter(|limit| (needed as u64) > *limit) {
            let text = format!(
                "{needed} connections of {} exceed {is_of}, which is {limit}; raise that, or have fewer",
                if self.threads == 1 { "one thread".to_string() } else { format!("{} threads", self.threads) }
            );
            warnings.push(main.origin_of(name), name, text);
        }
    }

    /// What only root can have, or nobody.
    fn check_limits(&self, missing: &mut Diagnostics) {
        let main = self.main;
        let is_root = rustix::process::geteuid().is_root();
        let limits = [
            ("worker_rlimit_nofile", Resource::Nofile, main.worker_rlimit_nofile.map(u64::from)),
            ("worker_rlimit_core", Resource::Core, main.worker_rlimit_core),
        ];
        for (name, resource, value) in limits {
            let Some(value) = value else { continue };
            let most = getrlimit(resource).maximum;
            if let Some(most) = most.filter(|most| value > *most && !is_root) {
                let text =
                    format!("found {value}, expected at most {most}: only root can raise the limit that there is");
                missing.push(main.origin_of(name), name, text);
            }
        }
        let most = fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
        if let (Some(value), Some(most)) = (main.worker_rlimit_nofile, most)
            && value > most
        {
            let text = format!("found {value}, expected at most {most}, which is fs.nr_open");
            missing.push(main.origin_of("worker_rlimit_nofile"), "worker_rlimit_nofile", text);
        }
        if let Some(priority) = main.worker_priority.filter(|priority| *priority < 0 && !is_root) {
            let text = format!("found {priority}, expected 0 to 19: only root can go below 0");
            missing.push(main.origin_of("worker_priority"), "worker_priority", text);
        }
    }
}
