//! The worker: binds, runs one event loop per thread, and ends them on a signal.
//!
//! The first loop runs on the main thread, where the signals come to. So a worker with one loop is a process with one
//! thread, as long as nothing is logged or read from the disk: the kernel then spares it the counting of references to
//! descriptors, on each call.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::signals::Signals;
use crate::{
    error_text::ErrorText,
    event::{Loop, Ready, Remote, Source},
    listen::{
        Address, Listener,
        bind::{self, Bound},
    },
    log::{
        self,
        error::{self, Level},
    },
    log_line,
    site::Site,
    socket::Socket,
    stats,
};

/// How long jobs on the thread pool may take to end when the worker does.
const JOBS_TIMEOUT: Duration = Duration::from_secs(5);
/// How often kept connections to upstreams are looked through.
const PURGE: Duration = Duration::from_secs(5);

/// Runs a configuration until SIGINT, SIGTERM or SIGQUIT. `ready` is called when connections are accepted.
pub fn run(site: Site, ready: impl FnOnce(&Site)) -> Result<(), String> {
    // A worker has one configuration for its whole life (a reload starts another process), so that nothing on the path of
    // a request has to count who uses it.
    let site: &'static Site = Box::leak(Box::new(site));
    stats::uptime();
    let mut bound = bind::all(&site.addresses, site.threads)?;
    let mut threads = Vec::new();
    for number in 1..site.threads {
        match start_thread(number, site, take_one_each(&mut bound)) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                stop(threads);
                return Err(format!("cannot start event loop {number}: {error}"));
            }
        }
    }
    error::number_thread(0);
    let sockets = take_one_each(&mut bound);
    let started = start_loop(site, sockets).and_then(|lp| {
        Signals::start(&lp).map_err(|error| format!("cannot wait for signals ({})", ErrorText(&error)))?;
        Purge::start(&lp, site);
        Ok(lp)
    });
    let lp = match started {
        Ok(lp) => lp,
        Err(error) => {
            stop(threads);
            return Err(format!("cannot start event loop 0: {error}"));
        }
    };
    ready(site);
    turn(&lp, 0);
    // The files of sockets go first, so that clients see at once that nobody is there.
    drop(bound);
    stop(threads);
    // Jobs are code of modules: with one still running their state stays, and goes with the process.
    if site.pool.stop(JOBS_TIMEOUT) {
        site.end();
    } else {
        log_line!(Level::Warn, "jobs on the thread pool did not end in {} s", JOBS_TIMEOUT.as_secs());
    }
    Ok(())
}

/// The sockets of one loop.
fn take_one_each(bound: &mut Bound) -> Vec<(&'static Address, Socket)> {
    bound.sockets.iter_mut().filter_map(|(address, list)| Some((*address, list.pop()?))).collect()
}

/// A loop of this thread, which accepts connections from its next turn on.
fn start_loop(site: &'static Site, sockets: Vec<(&'static Address, Socket)>) -> Result<Rc<Loop>, String> {
    let lp = Loop::new().map_err(|error| ErrorText(&error).to_string())?;
    let max = site.main.worker_connections as usize;
    if sockets.len() >= max {
        return Err(format!("{max} worker_connections are not enough for {} listening sockets", sockets.len()));
    }
    lp.set_max_connections(max);
    for (address, socket) in sockets {
        let listening = Listener::start(&lp, site, address, socket);
        listening.map_err(|error| format!("{} ({})", address.address, ErrorText(&error)))?;
    }
    Ok(lp)
}

/// Turns a loop until it is stopped.
fn turn(lp: &Loop, number: usize) {
    match catch_unwind(AssertUnwindSafe(|| lp.run())) {
        Ok(Ok(())) => (),
        Ok(Err(error)) => give_up(&format!("event loop {number} failed ({})", ErrorText(&error))),
        Err(_) => give_up(&format!("event loop {number} panicked; this is a fault of the host, please report it")),
    }
}

struct Thread {
    remote: Arc<Remote>,
    handle: JoinHandle<()>,
}

fn start_thread(
    number: usize,
    site: &'static Site,
    sockets: Vec<(&'static Address, Socket)>,
) -> Result<Thread, String> {
    let (sender, receiver) = mpsc::channel();
    let run = move || {
        error::number_thread(number as u32);
        let lp = match start_loop(site, sockets) {
            Ok(lp) => lp,
            Err(error) => return drop(sender.send(Err(error))),
        };
        // The receiver waits for exactly this.
        let _ = sender.send(Ok(lp.remote().clone()));
        turn(&lp, number);
    };
    let name = format!("topnext-{number}");
    let handle = thread::Builder::new().name(name).spawn(run).map_err(|error| ErrorText(&error).to_string())?;
    match receiver.recv() {
        Ok(Ok(remote)) => Ok(Thread { remote, handle }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err("its thread ended".to_string()),
    }
}

/// A loop that is gone takes its connections with it: the process ends, so that whoever watches it starts another.
fn give_up(text: &str) -> ! {
    log_line!(Level::Emerg, "{text}");
    log::flush();
    std::process::abort()
}

fn stop(threads: Vec<Thread>) {
    for thread in &threads {
        thread.remote.stop();
    }
    for thread in threads {
        // A loop that panicked has said so.
        let _ = thread.handle.join();
    }
}

/// Closes kept connections that are too old.
struct Purge {
    lp: Rc<Loop>,
    site: &'static Site,
    timer: std::cell::Cell<Option<crate::event::TimerId>>,
}

impl Purge {
    fn start(lp: &Rc<Loop>, site: &'static Site) {
        if site.upstreams.is_empty() {
            return;
        }
        let purge = Rc::new(Purge { lp: lp.clone(), site, timer: Default::default() });
        let timer = lp.add_timer(purge.clone(), 0);
        purge.timer.set(Some(timer));
        lp.start_timer(timer, PURGE);
    }
}

impl Source for Purge {
    fn ready(self: Rc<Self>, _: Ready) {}

    fn expired(self: Rc<Self>, _: u32) {
        for upstream in &self.site.upstreams {
            upstream.keepalive.purge(stats::now_ms());
        }
        if let Some(timer) = self.timer.get() {
            self.lp.start_timer(timer, PURGE);
        }
    }
}
