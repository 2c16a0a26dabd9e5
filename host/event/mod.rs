//! The event loop: readiness, timers, posted events, and calls from other threads. It knows nothing of HTTP.
//!
//! One loop per thread. What it calls are [`Source`]s, which are shared by `Rc` and never leave the thread:
//!
//! ```text
//! turn: poll -> ready(source) ... -> expired timers -> calls from other threads -> posted events, until there are none
//! ```
//!
//! Sockets are edge-triggered: a source reads or writes until it would block.

mod key;

pub mod remote;

pub mod room;

mod drain;

pub mod thread_pool;

pub mod answer;

pub mod timers;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use mio::{Events, Interest, Poll, Registry, Token, event::Event};
use slab::Slab;

use crate::{clock, log::error::Level, log_line, process::scoreboard};
use key::Key;

pub use answer::Answer;
pub use remote::{Remote, RemoteId, Reply};
pub use room::Room;
pub use timers::TimerId;
use timers::Timers;

/// What a loop calls.
pub trait Source {
    /// The socket that was registered is ready.
    fn ready(self: Rc<Self>, ready: Ready);

    /// A timer that was added with this `kind` has expired.
    fn expired(self: Rc<Self>, kind: u32) {
        let _ = kind;
    }

    /// A call of this source has panicked: the connection or the like that it stands for is to be closed.
    fn panicked(self: Rc<Self>) {}

    /// An event that was posted with this code, here or by another thread.
    fn posted(self: Rc<Self>, code: u64) {
        let _ = code;
    }

    /// Since when it has been idle, on the loop's clock, if it may be closed for that.
    fn idle_since(&self) -> Option<u64> {
        None
    }

    /// Another connection needs the room of this one, which is idle: it closes.
    fn give_way(self: Rc<Self>) {}

    /// The worker is to end: what is idle ends soon, and what is busy when it is done.
    fn drain(self: Rc<Self>) {}
}

/// Calls a source. A panic is a fault of the host: it costs what the source stands for, and nobody else.
fn guarded(source: &Rc<dyn Source>, call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_ok() {
        return;
    }
    let text = "the host has panicked (see above), please report it; it gives up what it was working for";
    log_line!(Level::Alert, "{text}");
    if catch_unwind(AssertUnwindSafe(|| source.clone().panicked())).is_err() {
        log_line!(Level::Alert, "the host has panicked again while it gave that up");
    }
}

/// Names a registered socket until it is deregistered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketId(Key);

/// In which ways a socket is ready.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready {
    /// There is something to read, or the end, or an error.
    pub readable: bool,
    /// There is room to write, or an error.
    pub writable: bool,
    /// The peer will send no more: reading goes on to the end of the stream.
    pub read_closed: bool,
    /// Neither side can send any more, such as after a reset.
    pub hung_up: bool,
}

/// The most events that one call of poll gives.
const EVENTS: usize = 512;
/// The token of the waker of other threads.
const REMOTE: Token = Token(usize::MAX);

/// An event loop, alive as long as its thread works.
pub struct Loop {
    poll: RefCell<Poll>,
    registry: Registry,
    sources: RefCell<Slab<Rc<dyn Source>>>,
    /// Sources removed during this turn. Their places are not used again before its end, since events of this turn may
    /// still name them.
    removed: RefCell<Vec<usize>>,
    timers: Timers,
    posted: RefCell<VecDeque<(Rc<dyn Source>, u64)>>,
    /// Sources that go on in the next turn.
    later: RefCell<Vec<Rc<dyn Source>>>,
    remote: Arc<Remote>,
    now_ms: Cell<u64>,
    max_connections: Cell<usize>,
    uncounted: Cell<usize>,
    /// Where the next look for idle connections begins, and when it was last said that some were closed.
    hand: Cell<usize>,
    warned_ms: Cell<u64>,
    /// Since when it drains, and who is told when no connection is left.
    draining_since: Cell<Option<u64>>,
    emptied: RefCell<Option<drain::Emptied>>,
}

impl Loop {
    /// A loop of this thread.
    pub fn new() -> io::Result<Rc<Loop>> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let remote = Remote::new(mio::Waker::new(&registry, REMOTE)?);
        Ok(Rc::new(Loop {
            poll: RefCell::new(poll),
            registry,
            sources: RefCell::new(Slab::new()),
            removed: RefCell::new(Vec::new()),
            timers: Timers::new(),
            posted: RefCell::new(VecDeque::new()),
            later: RefCell::new(Vec::new()),
            remote,
            now_ms: Cell::new(clock::monotonic_ms()),
            max_connections: Cell::new(usize::MAX),
            uncounted: Cell::new(0),
            hand: Cell::new(0),
            warned_ms: Cell::new(0),
            draining_since: Cell::new(None),
            emptied: RefCell::new(None),
        }))
    }

    /// Turns until [`Remote::stop`] is called.
    pub fn run(&self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.remote.stopped() {
            self.turn(&mut events, None)?;
        }
        Ok(())
    }

    /// Turns once, and waits for events no longer than this.
    pub fn turn_once(&self, limit: Duration) -> io::Result<()> {
        self.turn(&mut Events::with_capacity(EVENTS), Some(limit))
    }

    fn turn(&self, events: &mut Events, limit: Option<Duration>) -> io::Result<()> {
        let later = std::mem::take(&mut *self.later.borrow_mut());
        let wait = self.timers.next().map(|at| Duration::from_millis(at.saturating_sub(self.now_ms())));
        let wait = if later.is_empty() { wait.into_iter().chain(limit).min() } else { Some(Duration::ZERO) };
        match self.poll.borrow_mut().poll(events, wait) {
            Ok(()) => (),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            Err(error) => return Err(error),
        }
        self.look_at_clock();
        scoreboard::turn();
        let mut woken = false;
        for event in events.iter() {
            if event.token() == REMOTE {
                woken = true;
                continue;
            }
            let source = self.sources.borrow().get(event.token().0).cloned();
            let gone = self.removed.borrow().contains(&event.token().0);
            if let Some(source) = source.filter(|_| !gone) {
                guarded(&source, || source.clone().ready(Ready::of(event)));
                self.run_posted();
            }
        }
        while let Some((source, kind)) = self.timers.pop(self.now_ms()) {
            guarded(&source, || source.clone().expired(kind));
            self.run_posted();
        }
        if woken {
            for (source, code) in self.remote.take() {
                guarded(&source, || source.clone().posted(code));
                self.run_posted();
            }
        }
        for source in later {
            guarded(&source, || source.clone().posted(0));
            self.run_posted();
        }
        self.run_posted();
        let removed = std::mem::take(&mut *self.removed.borrow_mut());
        for key in removed {
            let source = self.sources.borrow_mut().try_remove(key);
            // Here, where nothing is borrowed: the last owner of a source may drop more than itself.
            drop(source);
        }
        self.tell_emptied();
        scoreboard::turn();
        Ok(())
    }

    fn look_at_clock(&self) {
        self.now_ms.set(clock::monotonic_ms());
        clock::update();
    }

    fn run_posted(&self) {
        loop {
            let next = self.posted.borrow_mut().pop_front();
            let Some((source, code)) = next else { return };
            guarded(&source, || source.clone().posted(code));
        }
    }

    /// Registers a socket for reading and writing. The source is kept until [`Loop::deregister`].
    pub fn register(&self, socket: &mut impl mio::event::Source, source: Rc<dyn Source>) -> io::Result<SocketId> {
        self.register_for(socket, source, Interest::READABLE | Interest::WRITABLE)
    }

    /// Registers a socket for reading only: a listening one.
    pub fn register_listener(
        &self,
        socket: &mut impl mio::event::Source,
        source: Rc<dyn Source>,
    ) -> io::Result<SocketId> {
        self.register_for(socket, source, Interest::READABLE)
    }

    fn register_for(
        &self,
        socket: &mut impl mio::event::Source,
        source: Rc<dyn Source>,
        interest: Interest,
    ) -> io::Result<SocketId> {
        let index = self.sources.borrow_mut().insert(source);
        let registered = self.registry.register(socket, Token(index), interest);
        if registered.is_err() {
            self.sources.borrow_mut().remove(index);
        }
        registered.map(|()| SocketId(Key::new(index)))
    }

    /// Forgets a socket and its source. The socket may be closed afterwards.
    pub fn deregister(&self, socket: &mut impl mio::event::Source, id: SocketId) {
        // An error means that the socket is not registered, which is what is wanted.
        let _ = self.registry.deregister(socket);
        self.removed.borrow_mut().push(id.0.index());
    }

    /// Calls `source.posted(code)` when the current event has been handled.
    pub fn post(&self, source: Rc<dyn Source>, code: u64) {
        self.posted.borrow_mut().push_back((source, code));
    }

    /// Calls `source.posted(0)` in the next turn, after the events that have come by then.
    pub fn post_later(&self, source: Rc<dyn Source>) {
        self.later.borrow_mut().push(source);
    }

    /// Adds a timer, not running. The source is kept until [`Loop::remove_timer`].
    pub fn add_timer(&self, source: Rc<dyn Source>, kind: u32) -> TimerId {
        self.timers.add(source, kind)
    }

    /// Starts a timer, or starts it anew.
    pub fn start_timer(&self, timer: TimerId, after: Duration) {
        // At least one: a timer of none would expire again in the turn that started it, and again.
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1);
        self.timers.set(timer, self.now_ms().saturating_add(ms));
    }

    /// Stops a timer.
    pub fn stop_timer(&self, timer: TimerId) {
        self.timers.stop(timer);
    }

    /// Whether a timer runs.
    pub fn timer_runs(&self, timer: TimerId) -> bool {
        self.timers.runs(timer)
    }

    /// When a timer that runs will expire.
    pub fn timer_deadline(&self, timer: TimerId) -> Option<u64> {
        self.timers.deadline(timer)
    }

    /// Removes a timer.
    pub fn remove_timer(&self, timer: TimerId) {
        self.timers.remove(timer);
    }

    /// How other threads reach this loop.
    pub fn remote(&self) -> &Arc<Remote> {
        &self.remote
    }

    /// When this turn began, in milliseconds of a clock that never goes back; it moves in steps of the kernel's tick.
    pub fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }
}

impl Ready {
    fn of(event: &Event) -> Ready {
        let error = event.is_error();
        Ready {
            readable: event.is_readable() || event.is_read_closed() || error,
            writable: event.is_writable() || event.is_write_closed() || error,
            read_closed: event.is_read_closed() || error,
            hung_up: event.is_write_closed() || error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Panics {
        called: Cell<u32>,
        given_up: Cell<u32>,
    }

    impl Source for Panics {
        fn ready(self: Rc<Self>, _: Ready) {}

        fn posted(self: Rc<Self>, code: u64) {
            self.called.set(self.called.get() + 1);
            assert!(code != 1, "a panic that is meant");
        }

        fn panicked(self: Rc<Self>) {
            self.given_up.set(self.given_up.get() + 1);
            panic!("another one that is meant");
        }
    }

    #[test]
    fn a_source_that_panics_is_given_up_and_the_loop_turns_on() {
        let lp = Loop::new().expect("a loop");
        let (bad, good): (Rc<Panics>, Rc<Panics>) = Default::default();
        lp.post(bad.clone(), 1);
        lp.post(good.clone(), 2);
        lp.post_later(good.clone());
        lp.turn_once(Duration::ZERO).expect("a turn");
        assert_eq!((bad.called.get(), bad.given_up.get()), (1, 1));
        assert_eq!((good.called.get(), good.given_up.get()), (2, 0));
    }
}
