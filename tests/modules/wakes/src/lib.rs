//! A content handler and filter that are woken from threads that the module starts itself, and by jobs of the pool.
//!
//! What it does is in the request: `?do=NAME`.
//!
//! ```text
//! thread    the handler waits for a thread, which wakes it once
//! many      ... which wakes it 10000 times, and as often again when the request may have ended
//! filter    the body filter holds the response back until a thread wakes it
//! late      the response is sent at once; the wakes come when the request has ended
//! job       the handler waits for a job, which waits for the gate
//! forget    the handler does not wait for such a job
//! panic     a thread of the module panics, outside of any hook
//! room      the handler sends a part, too small to leave alone, and waits for room to send the rest
//! part      the handler sends a part, too small to leave alone, and fails
//! refuse    the header filter refuses the response, whatever it is
//! open      opens the gate
//! state     says how many contexts and threads of the module there are, and how many jobs have run
//! ```

#![forbid(unsafe_code)]

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use topnext_module_api::prelude::*;

/// Wakes of `many`.
const MANY: usize = 10_000;

/// The table `wakes`, which has no keys.
#[derive(Config)]
pub struct Table {}

/// With the module's state.
pub struct Wakes(Arc<Shared>);

/// The module's state.
#[derive(Default)]
pub struct Shared {
    contexts: AtomicUsize,
    threads: AtomicUsize,
    jobs: AtomicUsize,
    gate: Mutex<bool>,
    opened: Condvar,
}

export_module! {
    name: "wakes",
    module: Wakes,
    provides: [content, filter],
    state: Shared,
}

impl State for Shared {
    fn create() -> Result<Shared, String> {
        Ok(Shared::default())
    }
}

impl Shared {
    fn gate(&self) -> MutexGuard<'_, bool> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_gate(&self) {
        let mut open = self.gate();
        while !*open {
            open = self.opened.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A context: it counts itself, and tells threads when the request has ended.
struct Waiting {
    shared: Arc<Shared>,
    done: Arc<Signal>,
    ended: Arc<Signal>,
    calls: usize,
    held: Chain,
    job: Option<Job<u32>>,
}

impl Waiting {
    fn new(shared: &Arc<Shared>) -> Waiting {
        shared.contexts.fetch_add(1, SeqCst);
        Waiting {
            shared: shared.clone(),
            done: Arc::default(),
            ended: Arc::default(),
            calls: 0,
            held: Chain::new(),
            job: None,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.shared.contexts.fetch_sub(1, SeqCst);
        self.ended.set();
    }
}

/// Something that happens once.
#[derive(Default)]
struct Signal(Mutex<bool>, Condvar);

impl Signal {
    fn set(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.1.notify_all();
    }

    fn is_set(&self) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) {
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*set {
            set = self.1.wait(set).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Module for Wakes {
    type Config = Table;

    fn new(_: Table, setup: &Setup<'_>) -> Result<Wakes, ConfigErrors> {
        Ok(Wakes(setup.state()))
    }
}

impl Wakes {
    /// Starts a thread, and counts it while it runs.
    fn start(&self, work: impl FnOnce() + Send + 'static) {
        /// Counts down also when the work panics.
        struct Running(Arc<Shared>);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.threads.fetch_sub(1, SeqCst);
            }
        }
        self.0.threads.fetch_add(1, SeqCst);
        let running = Running(self.0.clone());
        thread::spawn(move || {
            let _running = running;
            work();
        });
    }

    /// Waits for a thread that wakes `times` times before it is done, and `after` times more.
    fn wait_for_thread(&self, r: &mut Request<'_>, times: usize, after: usize) -> Code {
        let Some(mut waiting) = r.context::<Waiting>() else {
            let waiting = Waiting::new(&self.0);
            let (waker, done) = (r.waker(), waiting.done.clone());
            self.start(move || {
                (1..times).for_each(|_| waker.wake());
                done.set();
                waker.wake();
                (0..after).for_each(|_| waker.clone().wake());
            });
            r.set_context(waiting);
            return Code::AGAIN;
        };
        waiting.calls += 1;
        if !waiting.done.is_set() {
            return Code::AGAIN;
        }
        let calls = waiting.calls;
        drop(waiting);
        r.send(200, "text/plain", format!("woken {}\n", calls <= times))
    }

    fn wait_for_job(&self, r: &mut Request<'_>) -> Code {
        let Some(mut waiting) = r.context::<Waiting>() else {
            let mut waiting = Waiting::new(&self.0);
            let shared = self.0.clone();
            waiting.job = r.offload(move || {
                shared.wait_for_gate();
                shared.jobs.fetch_add(1, SeqCst);
                7
            });
            r.set_context(waiting);
            return Code::AGAIN;
        };
        match waiting.job.as_mut().and_then(Job::poll) {
            Some(Ok(number)) => {
                drop(waiting);
                r.send(200, "text/plain", format!("job {number}\n"))
            }
            Some(Err(_)) => Code::ERROR,
            None => Code::AGAIN,
        }
    }

    fn state(&self, r: &mut Request<'_>) -> Code {
        let shared = &self.0;
        let (contexts, threads) = (shared.contexts.load(SeqCst), shared.threads.load(SeqCst));
        let text = format!("contexts {contexts}, threads {threads}, jobs {}\n", shared.jobs.load(SeqCst));
        r.send(200, "text/plain", text)
    }
}

impl Content for Wakes {
    fn content(&self, r: &mut Request<'_>) -> Code {
        match r.variable("arg_do").unwrap_or_default() {
            b"thread" => self.wait_for_thread(r, 1, 0),
            b"many" => self.wait_for_thread(r, MANY, MANY),
            b"job" => self.wait_for_job(r),
            b"forget" => {
                let shared = self.0.clone();
                let job = r.offload(move || {
                    shared.wait_for_gate();
                    shared.jobs.fetch_add(1, SeqCst);
                });
                r.send(200, "text/plain", format!("forgotten {}\n", job.is_some()))
            }
            b"late" => {
                let waiting = Waiting::new(&self.0);
                let (waker, ended) = (r.waker(), waiting.ended.clone());
                self.start(move || {
                    ended.wait();
                    (0..MANY).for_each(|_| waker.wake());
                });
                r.set_context(waiting);
                r.send(200, "text/plain", "late\n".to_string())
            }
            b"panic" => {
                self.start(|| panic!("in a thread of its own")); // in thread
                r.send(200, "text/plain", "started\n".to_string())
            }
            b"open" => {
                *self.0.gate() = true;
                self.0.opened.notify_all();
                r.send(200, "text/plain", "open\n".to_string())
            }
            b"room" => {
                if !r.header_sent() {
                    r.set_status(200);
                    r.set_content_length(Some(10));
                    let _ = r.send_header();
                    let _ = r.output(Buf::from_static(b"first "));
                    return Code::AGAIN;
                }
                let mut rest = Buf::from_static(b"last");
                rest.set_last(true);
                r.output(rest)
            }
            b"part" => {
                r.set_status(200);
                let _ = r.send_header();
                let _ = r.output(Buf::from_static(b"part"));
                Code::ERROR
            }
            b"filter" => r.send(200, "text/plain", "held\n".to_string()),
            _ => self.state(r),
        }
    }
}

impl Filter for Wakes {
    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        if r.variable("arg_do") == Some(b"refuse".as_slice()) {
            return Code::ERROR;
        }
        next.call(r)
    }

    fn body_filter(&self, r: &mut Request<'_>, chain: Chain, next: BodyNext<'_>) -> Code {
        if r.variable("arg_do") != Some(b"filter") {
            return next.call(r, chain);
        }
        let Some(mut waiting) = r.context::<Waiting>() else {
            let mut waiting = Waiting::new(&self.0);
            waiting.held = chain;
            let (waker, done) = (r.waker(), waiting.done.clone());
            self.start(move || {
                waker.wake();
                done.set();
                waker.wake();
            });
            r.set_context(waiting);
            r.hold(true);
            return Code::AGAIN;
        };
        waiting.held.append(chain);
        if !waiting.done.is_set() {
            return Code::AGAIN;
        }
        let held = std::mem::take(&mut waiting.held);
        drop(waiting);
        r.hold(false);
        next.call(r, held)
    }
}
