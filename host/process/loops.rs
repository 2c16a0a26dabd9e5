//! The event loops of a worker: one for each thread. The first is on the main thread.
//!
//! ```text
//! start    threads, loops, all that can fail          nothing is accepted yet
//! serve    listening sockets join their loops
//! drain    they leave them; a loop ends when its last connection has ended
//! stop     loops end after their current turn
//! ```

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::scoreboard;
use crate::{
    error_text::ErrorText,
    event::{Loop, Ready, Remote, RemoteId, Source, TimerId, remote},
    listen::{Address, Listener},
    log::{
        self,
        error::{self, Level},
    },
    log_line,
    site::Site,
    socket::Socket,
    stats,
};

/// How often kept connections to upstreams are looked through.
const PURGE: Duration = Duration::from_secs(5);

/// Posted codes of [`Intake`].
const SERVE: u64 = 1;
const DRAIN: u64 = 2;
const EMPTIED: u64 = 3;
const THREAD_ENDED: u64 = 4;
const DRAINED: u64 = 5;

/// The listening sockets of one loop.
pub type LoopSockets = Vec<(&'static Address, Socket)>;

/// All loops of a worker, on its main thread.
pub struct Loops {
    /// The loop of the main thread.
    pub first: Rc<Loop>,
    intake: Rc<Intake>,
    threads: RefCell<Vec<Thread>>,
}

struct Thread {
    remote: Arc<Remote>,
    intake: RemoteId,
    handle: JoinHandle<()>,
}

impl Loops {
    /// Starts the threads of a site, with the sockets of each loop. Nothing is accepted before [`Loops::serve`].
    pub fn start(site: &'static Site, mut sockets: Vec<LoopSockets>) -> Result<Rc<Loops>, String> {
        scoreboard::set_accounting(site.main.module_accounting);
        let others = sockets.split_off(1);
        let of_first = sockets.pop().unwrap_or_default();
        let (first, intake) = start_loop(0, site, of_first, None, others.len()).map_err(cannot_start(0))?;
        Purge::start(&first, site);
        let told = intake.announced();
        let loops = Rc::new(Loops { first, intake, threads: RefCell::default() });
        for (number, sockets) in (1..).zip(others) {
            match start_thread(number, site, sockets, told.clone()) {
                Ok(thread) => loops.threads.borrow_mut().push(thread),
                Err(error) => {
                    loops.stop();
                    return Err(cannot_start(number)(error));
                }
            }
        }
        Ok(loops)
    }

    /// Has all loops accept connections. An error is one of the first loop; those of others are logged.
    pub fn serve(&self) -> Result<(), String> {
        self.threads.borrow().iter().for_each(|thread| thread.remote.call(thread.intake, SERVE));
        self.intake.serve()
    }

    /// Has all loops finish what they have. What is kept of upstreams is closed. `drained` is called when none of them accepts any
    /// more.
    pub fn drain(&self, drained: impl FnOnce() + 'static) {
        let threads = self.threads.borrow();
        self.intake.accepting.set(threads.len() + 1);
        self.intake.drained.replace(Some(Box::new(drained)));
        threads.iter().for_each(|thread| thread.remote.call(thread.intake, DRAIN));
        self.intake.clone().drain_loop();
        self.intake.tell_drained();
    }

    /// Whether [`Loops::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.first.draining_since().is_some()
    }

    /// Ends all loops after their current turn.
    pub fn stop(&self) {
        self.threads.borrow().iter().for_each(|thread| thread.remote.stop());
        self.first.remote().stop();
    }

    /// Turns the first loop until all have ended.
    pub fn run(&self) {
        // What is registered by now, signals and the like, does not keep the loop from ending.
        turn(&self.first, 0);
        self.stop();
        for thread in self.threads.take() {
            // A loop that panicked has said so.
            let _ = thread.handle.join();
        }
    }
}

fn cannot_start(number: usize) -> impl Fn(String) -> String {
    move |error| format!("cannot start event loop {number}: {error}")
}

/// A loop of this thread, with sockets that it does not poll yet.
fn start_loop(
    number: usize,
    site: &'static Site,
    sockets: LoopSockets,
    first: Option<Told>,
    others: usize,
) -> Result<(Rc<Loop>, Rc<Intake>), String> {
    error::number_thread(number as u32);
    scoreboard::number_loop(number);
    let lp = Loop::new().map_err(|error| ErrorText(&error).to_string())?;
    let max = site.main.worker_connections as usize;
    if sockets.len() >= max {
        return Err(format!("{max} worker_connections are not enough for {} listening sockets", sockets.len()));
    }
    lp.set_max_connections(max);
    let intake = Intake {
        lp: lp.clone(),
        site,
        sockets: RefCell::new(sockets),
        first,
        others: Cell::new(others),
        is_empty: Cell::new(false),
        accepting: Cell::new(0),
        drained: RefCell::default(),
    };
    Ok((lp, Rc::new(intake)))
}

fn start_thread(number: usize, site: &'static Site, sockets: LoopSockets, first: Told) -> Result<Thread, String> {
    let (sender, receiver) = mpsc::channel();
    let run = move || {
        let (lp, intake) = match start_loop(number, site, sockets, Some(first.clone()), 0) {
            Ok(started) => started,
            Err(error) => return drop(sender.send(Err(error))),
        };
        // The receiver waits for exactly this.
        let _ = sender.send(Ok(intake.announced()));
        turn(&lp, number);
        let (remote, id) = first;
        remote.call(id, THREAD_ENDED);
    };
    let name = format!("topnext-{number}");
    let handle = thread::Builder::new().name(name).spawn(run).map_err(|error| ErrorText(&error).to_string())?;
    match receiver.recv() {
        Ok(Ok((remote, intake))) => Ok(Thread { remote, intake, handle }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err("its thread ended".to_string()),
    }
}

/// Turns a loop until it is stopped.
fn turn(lp: &Loop, number: usize) {
    match catch_unwind(AssertUnwindSafe(|| lp.run())) {
        Ok(Ok(())) => (),
        Ok(Err(error)) => give_up(&format!("event loop {number} failed ({})", ErrorText(&error))),
        Err(_) => give_up(&format!("event loop {number} panicked; this is a fault of the host, please report it")),
    }
}

/// A loop that is gone takes its connections with it: the process ends, so that the master starts another.
fn give_up(text: &str) -> ! {
    log_line!(Level::Emerg, "{text}");
    log::flush();
    std::process::abort()
}

/// A loop's intake, as other threads reach it.
type Told = (Arc<Remote>, RemoteId);

/// Where connections come into a loop: what it listens on, and whether it does.
struct Intake {
    lp: Rc<Loop>,
    site: &'static Site,
    /// Before the loop serves.
    sockets: RefCell<LoopSockets>,
    /// The first loop's, which is told how it goes; none in that itself.
    first: Option<Told>,
    /// Loops of other threads that have not ended: the first one ends last.
    others: Cell<usize>,
    is_empty: Cell<bool>,
    /// Of the first one: loops that may still accept connections, and what is to be done when there is none.
    accepting: Cell<usize>,
    drained: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl Intake {
    /// As other threads know it, as long as somebody holds it here.
    fn announced(self: &Rc<Self>) -> Told {
        let source: Rc<dyn Source> = self.clone();
        (self.lp.remote().clone(), remote::announce(&source))
    }

    fn serve(&self) -> Result<(), String> {
        self.lp.leave_uncounted();
        let mut errors = Vec::new();
        for (address, socket) in self.sockets.take() {
            if let Err(error) = Listener::start(&self.lp, self.site, address, socket) {
                errors.push(format!("{} cannot be polled ({})", address.address, ErrorText(&error)));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors.join("\n")) }
    }

    fn drain_loop(self: Rc<Self>) {
        self.sockets.take();
        for upstream in &self.site.upstreams {
            upstream.keepalive.close();
        }
        self.lp.drain(self.clone(), EMPTIED);
    }

    /// Another loop accepts no more, or this one.
    fn tell_drained(&self) {
        self.accepting.set(self.accepting.get().saturating_sub(1));
        let drained = if self.accepting.get() == 0 { self.drained.take() } else { None };
        if let Some(drained) = drained {
            drained();
        }
    }

    fn end_if_last(&self) {
        if self.is_empty.get() && self.others.get() == 0 {
            self.lp.remote().stop();
        }
    }
}

impl Source for Intake {
    fn ready(self: Rc<Self>, _: Ready) {}

    fn posted(self: Rc<Self>, code: u64) {
        match code {
            SERVE => {
                if let Err(error) = self.serve() {
                    log_line!(Level::Emerg, "{error}");
                }
            }
            DRAIN => {
                self.clone().drain_loop();
                if let Some((remote, id)) = &self.first {
                    remote.call(*id, DRAINED);
                }
            }
            DRAINED => self.tell_drained(),
            EMPTIED => {
                self.is_empty.set(true);
                self.end_if_last();
            }
            THREAD_ENDED => {
                self.others.set(self.others.get().saturating_sub(1));
                self.end_if_last();
            }
            _ => (),
        }
    }
}

/// Closes kept connections that are too old.
struct Purge {
    lp: Rc<Loop>,
    site: &'static Site,
    timer: Cell<Option<TimerId>>,
}

impl Purge {
    fn start(lp: &Rc<Loop>, site: &'static Site) {
        if site.upstreams.is_empty() {
            return;
        }
        let purge = Rc::new(Purge { lp: lp.clone(), site, timer: Cell::default() });
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
