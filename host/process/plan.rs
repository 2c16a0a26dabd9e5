//! What the master has to know of a configuration, and what has changed between two.

use std::{
    fmt::Write as _,
    hash::Hasher,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use rustc_hash::FxHasher;

use super::messages::{Plan, PlannedModule};
use crate::{
    config::Listen,
    listen::sockets::{Sockets, Wanted},
    log::{self, error::Level},
    site::Loaded,
};

/// The plan of a configuration that has been loaded.
pub fn of(loaded: &Loaded, prefix: &Path) -> Plan {
    let site = &loaded.site;
    let main = &site.main;
    let module = |module: &std::sync::Arc<crate::plugins::LoadedModule>| PlannedModule {
        slot: module.slot,
        name: module.name.clone(),
        version: module.description.version.to_string(),
        file: module.file.clone(),
        identity: module.description.identity,
    };
    let log = |log: &crate::config::ErrorLog| {
        let path = (log.path != "stderr").then(|| prefix.join(&log.path));
        (path, Level::from(log.level) as u32)
    };
    let wanted = |address: &std::sync::Arc<crate::listen::Address>| Wanted {
        address: address.address.clone(),
        options: address.options,
    };
    Plan {
        processes: site.processes,
        threads: site.threads,
        addresses: site.addresses.iter().map(wanted).collect(),
        pid: prefix.join(&main.pid),
        user: site.account.as_ref().map(|account| account.ids()),
        error_log: main.error_log.iter().map(log).collect(),
        logs: log::files(),
        shutdown_timeout: main.worker_shutdown_timeout,
        watchdog_timeout: main.watchdog_timeout,
        modules: site.modules.iter().map(module).collect(),
        accounting: main.module_accounting,
        files: loaded.kept.texts.files().map(|(path, text)| (path.to_path_buf(), hash(text))).collect(),
        warnings: loaded.warnings.to_string().lines().map(str::to_string).collect(),
    }
}

/// The listening sockets of the worker in a slot: for each the address's index, the loop, and the socket. With those that were
/// prepared, if the plan is that of the configuration for which they were.
pub fn sockets_of<'s>(
    plan: &Plan,
    sockets: &'s Sockets,
    slot: usize,
    with_prepared: bool,
) -> Vec<(usize, usize, BorrowedFd<'s>)> {
    let loops = plan.processes * plan.threads;
    let mut list = Vec::new();
    for (index, wanted) in plan.addresses.iter().enumerate() {
        for thread in 0..plan.threads {
            let of_loop = sockets.of_loop(&wanted.address, slot * plan.threads + thread, loops, with_prepared);
            list.extend(of_loop.map(|socket| (index, thread, socket.as_fd())));
        }
    }
    list
}

fn hash(text: &str) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// What is new in a plan, a line each; empty if nothing is.
pub fn changes(old: &Plan, new: &Plan) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(text, "  {name:<10} {value}");
        }
    };
    line(
        "files",
        differences(&old.files, &new.files, |(path, _)| path.display().to_string(), |one, other| one.1 == other.1),
    );
    let replaced = |one: &PlannedModule, other: &PlannedModule| {
        one.version == other.version && one.identity == other.identity && one.file == other.file
    };
    let shown = |module: &PlannedModule| format!("{} {}", module.name, module.version);
    line("modules", differences_by(&old.modules, &new.modules, |module| module.name.clone(), shown, replaced));
    let order = |plan: &Plan, other: &Plan| -> Vec<String> {
        let is_in = |name: &str| other.modules.iter().any(|module| module.name == name);
        plan.modules.iter().map(|module| module.name.clone()).filter(|name| is_in(name)).collect()
    };
    if order(old, new) != order(new, old) {
        line("order", new.modules.iter().map(|module| module.name.as_str()).collect::<Vec<_>>().join(", "));
    }
    let address = |wanted: &Wanted| match &wanted.address {
        Listen::Tcp(address) => address.to_string(),
        unix => unix.to_string(),
    };
    line("listen", differences(&old.addresses, &new.addresses, address, |one, other| one.options == other.options));
    let mut number = |name: &str, old: usize, new: usize| {
        if old != new {
            line(name, format!("{old} -> {new}"));
        }
    };
    number("processes", old.processes, new.processes);
    number("threads", old.threads, new.threads);
    text
}

fn differences<T>(old: &[T], new: &[T], name: impl Fn(&T) -> String, is_same: impl Fn(&T, &T) -> bool) -> String {
    differences_by(old, new, &name, &name, is_same)
}

/// What has come, changed and gone.
fn differences_by<T>(
    old: &[T],
    new: &[T],
    key: impl Fn(&T) -> String,
    shown: impl Fn(&T) -> String,
    is_same: impl Fn(&T, &T) -> bool,
) -> String {
    let find = |list: &'_ [T], wanted: &T| list.iter().position(|one| key(one) == key(wanted));
    let mut parts = Vec::new();
    for one in new {
        match find(old, one) {
            None => parts.push(format!("added {}", shown(one))),
            Some(at) if !is_same(&old[at], one) => {
                let (before, after) = (shown(&old[at]), shown(one));
                parts.push(if before == after {
                    format!("changed {after}")
                } else {
                    format!("changed {before} -> {after}")
                });
            }
            Some(_) => (),
        }
    }
    parts.extend(old.iter().filter(|one| find(new, one).is_none()).map(|one| format!("removed {}", shown(one))));
    parts.join(", ")
}
