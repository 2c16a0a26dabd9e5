//! The event loops of a worker: one for each thread. The first is on the main thread.
//!
//! ```text
//! start    threads, loops, all that can fail          nothing is accepted yet
//! run      listening sockets join their loops
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
const SERVED: u64 = 6;
const NOT_SERVED: u64 = 7;

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
    /// Starts the threads of a site, with the sockets of each loop. Nothing is accepted before [`Loops::run`].
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

    /// Has all loops accept connections, and turns the first one until all have ended. `served` is called when all accept; an error
    /// if they cannot.
    pub fn run(&self, served: impl FnOnce() + 'static) -> Result<(), String> {
        self.serve(served);
        // What is registered by now, signals and the like, does not keep the loop from ending.
        turn(&self.first, 0);
        self.stop();
        for thread in self.threads.take() {
            // A loop that panicked has said so.
            let _ = thread.handle.join();
        }
        let troubles = self.intake.troubles.take();
        if troubles.is_empty() { Ok(()) } else { Err(troubles.join("\n")) }
    }

    fn serve(&self, served: impl FnOnce() + 'static) {
        let threads = self.threads.borrow();
        let intake = Rc::downgrade(&self.intake);
        self.intake.served.begin(threads.len() + 1, move || match intake.upgrade() {
            Some(intake) if !intake.troubles.borrow().is_empty() => intake.lp.remote().stop(),
            _ => served(),
        });
        threads.iter().for_each(|thread| thread.remote.call(thread.intake, SERVE));
        self.intake.serve();
        self.intake.served.tell();
    }

    /// Has the first loop accept from the listening sockets of another slot too: for each, the address's index.
    pub fn lend(&self, slot: usize, sockets: Vec<(usize, Socket)>) {
        if self.is_draining() {
            return;
        }
        let addresses = &self.intake.site.addresses;
        for (address, socket) in sockets {
            if let Some(address) = addresses.get(address) {
                let listener = self.intake.listen(address, socket);
                self.intake.lent.borrow_mut().extend(listener.ok().map(|listener| (slot, listener)));
            }
        }
    }

    /// That slot has a worker again.
    pub fn give_back(&self, slot: usize) {
        self.intake.lent.borrow_mut().retain(|(of, listener)| {
            if *of == slot {
                listener.stop();
            }
            *of != slot
        });
    }

    /// Has all loops finish what they have. What is kept of upstreams is closed. `drained` is called when none of them accepts any
    /// more.
    pub fn drain(&self, drained: impl FnOnce() + 'static) {
        let threads = self.threads.borrow();
        self.intake.drained.begin(threads.len() + 1, drained);
        threads.iter().for_each(|thread| thread.remote.call(thread.intake, DRAIN));
        self.intake.clone().drain_loop();
        self.intake.drained.tell();
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
        served: WhenAll::default(),
        troubles: RefCell::default(),
        drained: WhenAll::default(),
        lent: RefCell::default(),
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
    /// Of the first one: all loops accept connections, or cannot for these reasons.
    served: WhenAll,
    troubles: RefCell<Vec<String>>,
    /// Of the first one: no loop accepts connections any more.
    drained: WhenAll,
    /// Of the first one: what it listens on for other slots.
    lent: RefCell<Vec<(usize, Rc<Listener>)>>,
}

/// Something that is done when all loops have said that they are so far.
#[derive(Default)]
struct WhenAll {
    left: Cell<usize>,
    act: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl WhenAll {
    fn begin(&self, loops: usize, act: impl FnOnce() + 'static) {
        self.left.set(loops);
        self.act.replace(Some(Box::new(act)));
    }

    /// One more is.
    fn tell(&self) {
        self.left.set(self.left.get().saturating_sub(1));
        let act = if self.left.get() == 0 { self.act.take() } else { None };
        if let Some(act) = act {
            act();
        }
    }
}

impl Intake {
    /// As other threads know it, as long as somebody holds it here.
    fn announced(self: &Rc<Self>) -> Told {
        let source: Rc<dyn Source> = self.clone();
        (self.lp.remote().clone(), remote::announce(&source))
    }

    fn serve(&self) {
        self.lp.leave_uncounted();
        for (address, socket) in self.sockets.take() {
            self.troubles.borrow_mut().extend(self.listen(address, socket).err());
        }
    }

    /// An error is logged.
    fn listen(&self, address: &'static Address, socket: Socket) -> Result<Rc<Listener>, String> {
        Listener::start(&self.lp, self.site, address, socket).map_err(|error| {
            let text = format!("{} cannot be polled ({})", address.address, ErrorText(&error));
            log_line!(Level::Emerg, "{text}");
            text
        })
    }

    fn drain_loop(self: Rc<Self>) {
        self.sockets.take();
        self.lent.take();
        for upstream in &self.site.upstreams {
            upstream.keepalive.close();
        }
        self.lp.drain(self.clone(), EMPTIED);
    }

    /// To the first one.
    fn tell_first(&self, code: u64) {
        if let Some((remote, id)) = &self.first {
            remote.call(*id, code);
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
                self.serve();
                self.tell_first(if self.troubles.borrow().is_empty() { SERVED } else { NOT_SERVED });
            }
            DRAIN => {
                self.clone().drain_loop();
                self.tell_first(DRAINED);
            }
            SERVED => self.served.tell(),
            NOT_SERVED => {
                self.troubles.borrow_mut().push("not all loops accept connections; see the error log".to_string());
                self.served.tell();
            }
            DRAINED => self.drained.tell(),
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
