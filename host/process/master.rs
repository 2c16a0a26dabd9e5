//! The master: opens the listening sockets, starts the workers, watches them, and does what signals and the control socket ask
//! for. It reads no configuration and loads no module: its workers do, and tell it what it has to know ([`Plan`]). So nothing
//! that an operator or a module author writes can end it.
//!
//! A change of the configuration (the start is the first one) goes through these steps, each of which waits for all workers:
//!
//! ```text
//! begin     the first worker reads the configuration                     or why not: nothing has changed
//! loaded    sockets that are missing are bound; the other workers start
//! commit    (all are ready) the sockets listen; the new workers serve
//! drain     (all serve) the old workers accept no more
//! finish    (none accepts) whoever asked for the change is told
//! ```

use std::{
    cell::{Cell, RefCell},
    ffi::OsString,
    io::{self, IsTerminal},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    process::ExitStatus,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use signal_hook::consts::signal;

use super::{
    alarm::Alarm,
    channel,
    child::{self, Child, Stage},
    control,
    generation::Generation,
    messages::{Plan, Start, ToWorker},
    pid_file::{self, PidFile},
    plan,
    reopen::{self, Reopening},
    signals::Signals,
    status::Ticks,
    systemd,
    upgrade::{self, Beginning, Upgrade},
    zones::Zones,
};
use crate::{
    config::Listen,
    error_text::ErrorText,
    event::Loop,
    listen::sockets::Sockets,
    log::{
        self, Sink,
        error::{self, ErrorLog, Level},
    },
    log_line,
    site::VERSION,
};

/// Set for a process that is to be the master in the background: its standard input is a channel to who started it.
pub const DAEMON: &str = "TOPNEXT_DAEMON";
/// Set for a process that is to take over from another master: its standard input is a channel to that.
pub const UPGRADE: &str = "TOPNEXT_UPGRADE";

/// How long the workers of a new configuration may take to get ready.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long old workers are waited for to say that they accept no more.
const DRAINING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long workers that are to end at once may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The most generations that may drain at a time.
const MAX_OLD: usize = 64;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration's file, absolute.
    pub config: PathBuf,
    /// Where relative paths start, absolute.
    pub prefix: PathBuf,
    /// The program, as it was called.
    pub program: PathBuf,
    /// And its arguments.
    pub arguments: Vec<OsString>,
}

/// Told how a change, or the end, has come out.
pub type Waiter = Box<dyn FnOnce(Result<String, String>)>;

/// The master.
pub struct Master {
    /// Its loop: there is one thread.
    pub lp: Rc<Loop>,
    /// What the command line says.
    pub options: Options,
    /// Its listening sockets.
    pub sockets: RefCell<Sockets>,
    /// Its shared memory.
    pub zones: RefCell<Zones>,
    /// Its pid file.
    pub pid_file: RefCell<Option<PidFile>>,
    /// Its control socket.
    pub control: RefCell<Option<control::Listening>>,
    /// Another master, which it has started, or was started by.
    pub upgrade: RefCell<Upgrade>,
    serving: RefCell<Option<Rc<Generation>>>,
    change: RefCell<Option<Change>>,
    /// Generations that drain, or have failed, and have workers still.
    old: RefCell<Vec<Rc<Generation>>>,
    /// Those who want a change after the one that is under way.
    queued: RefCell<Vec<Waiter>>,
    /// Those who want to know when the end has come.
    leaving: RefCell<Vec<Waiter>>,
    last_number: Cell<u64>,
    /// Logs that are being opened again.
    pub reopenings: RefCell<Vec<Rc<Reopening>>>,
    last_reopening: Cell<u64>,
    ending: Cell<Option<Ending>>,
    beginning: RefCell<Option<Beginning>>,
    watchdog: RefCell<Option<Alarm>>,
    outcome: RefCell<Result<(), String>>,
    started: Instant,
    ticks: Ticks,
}

/// How the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// When all requests have ended.
    Graceful,
    /// At once.
    Fast,
}

/// A change of the configuration that is under way.
struct Change {
    generation: Rc<Generation>,
    previous: Option<Rc<Generation>>,
    waiters: Vec<Waiter>,
    step: Step,
    /// When it has lasted too long.
    alarm: Option<Alarm>,
    pid_file: Option<PidFile>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Starting,
    Serving,
    Draining,
}

/// Runs until the server ends. An error is the reason why it could not start.
pub fn run(options: Options, beginning: Beginning) -> Result<(), String> {
    let lp = Loop::new().map_err(|error| format!("topnext: cannot start the master's loop ({})", ErrorText(&error)))?;
    let master = Rc::new(Master {
        lp,
        options,
        sockets: RefCell::default(),
        zones: RefCell::default(),
        pid_file: RefCell::default(),
        control: RefCell::default(),
        upgrade: RefCell::default(),
        serving: RefCell::default(),
        change: RefCell::default(),
        old: RefCell::default(),
        queued: RefCell::default(),
        leaving: RefCell::default(),
        last_number: Cell::new(0),
        reopenings: RefCell::default(),
        last_reopening: Cell::new(0),
        ending: Cell::new(None),
        beginning: RefCell::new(Some(beginning)),
        watchdog: RefCell::default(),
        outcome: RefCell::new(Ok(())),
        started: Instant::now(),
        ticks: Ticks::start(),
    });
    let result = master.start().map_err(|error| super::of_server(&error)).and_then(|()| {
        master.lp.run().map_err(|error| format!("topnext: the master's loop failed ({})", ErrorText(&error)))?;
        master.outcome.replace(Ok(()))
    });
    master.close();
    let waiting = master.leaving.take();
    waiting.into_iter().for_each(|waiter| waiter(Ok(String::new())));
    control::finish(&master.lp);
    if let (Err(text), Some(beginning)) = (&result, master.beginning.take()) {
        beginning.failed(text);
    }
    result
}

impl Master {
    fn start(self: &Rc<Self>) -> Result<(), String> {
        let of_signals = Rc::downgrade(self);
        let handle = move |signal| {
            if let Some(master) = of_signals.upgrade() {
                master.signal(signal);
            }
        };
        Signals::start(&self.lp, handle).map_err(|error| format!("cannot wait for signals ({})", ErrorText(&error)))?;
        upgrade::take_over(self)?;
        systemd::adopt(&mut self.sockets.borrow_mut())
            .map_err(|error| format!("the sockets of systemd cannot be used: {error}"))?;
        let control = control::Listening::start(self)?;
        self.control.replace(Some(control));
        self.begin(None, None);
        Ok(())
    }

    // ---- a change

    /// Reads the configuration anew, once the change that is under way has ended.
    pub fn reload(self: &Rc<Self>, waiter: Option<Waiter>) {
        if self.ending.get().is_some() {
            answer(waiter, Err("the server is ending".to_string()));
        } else if self.change.borrow().is_some() {
            let again: Waiter = waiter.unwrap_or_else(|| Box::new(|_| ()));
            self.queued.borrow_mut().push(again);
        } else {
            // Without workers (after WINCH) the configuration is the one that they had, as in nginx.
            let kept = match &*self.serving.borrow() {
                Some(serving) if serving.is_empty() => serving.texts(),
                _ => None,
            };
            self.begin(kept, waiter);
        }
    }

    fn begin(self: &Rc<Self>, kept: Option<OwnedFd>, waiter: Option<Waiter>) {
        if self.old.borrow().len() >= MAX_OLD {
            let text = format!(
                "{MAX_OLD} generations of workers have not finished their requests yet; set worker_shutdown_timeout, or end \
                 them"
            );
            log_line!(Level::Error, "{text}");
            return answer(waiter, Err(text));
        }
        let number = self.last_number.get() + 1;
        self.last_number.set(number);
        let generation = Generation::new(number, kept);
        let previous = self.serving.borrow().clone();
        if let Some(previous) = &previous {
            previous.warn_of_overwritten();
            systemd::reloading();
        }
        let waiters = waiter.into_iter().collect();
        let step = Step::Starting;
        let change = Change { generation: generation.clone(), previous, waiters, step, alarm: None, pid_file: None };
        self.change.replace(Some(change));
        self.set_step(step, START_TIMEOUT);
        if let Err(reason) = self.start_child(&generation, 0, true) {
            self.fail(&reason);
        }
    }

    fn start_child(self: &Rc<Self>, generation: &Rc<Generation>, slot: usize, warns: bool) -> Result<(), String> {
        let Options { config, prefix, .. } = self.options.clone();
        let start = Start { config, prefix, generation: generation.number, slot, warns };
        let texts = generation.texts();
        let child = Child::start(self, generation, &start, texts.as_ref().map(AsFd::as_fd))
            .map_err(|error| format!("topnext: a worker cannot be started ({})", ErrorText(&error)))?;
        generation.add(child);
        Ok(())
    }

    /// A worker has read its configuration.
    pub fn loaded(self: &Rc<Self>, child: &Rc<Child>, fds: Vec<OwnedFd>) {
        let generation = &child.generation;
        let plan = match read_plan(fds) {
            Ok((plan, texts)) => {
                if generation.plan().is_none() {
                    let plan = Rc::new(plan);
                    generation.set_plan(plan.clone(), texts);
                    if let Err(reason) = self.prepare(generation, &plan) {
                        return self.fail(&reason);
                    }
                    plan
                } else {
                    Rc::new(plan)
                }
            }
            Err(error) => {
                log_line!(Level::Alert, "worker {} has sent what is no plan ({error}); it is ended", child.pid);
                return child.kill();
            }
        };
        let Some(known) = generation.plan().filter(|known| known.is_served_like(&plan)) else {
            log_line!(
                Level::Alert,
                "worker {} does not want the same sockets as the others of generation {}; it is ended",
                child.pid,
                generation.number
            );
            return child.kill();
        };
        for module in plan.modules.iter().filter(|module| !known.modules.contains(module)) {
            log_line!(
                Level::Warn,
                "worker {} has loaded another {} than the generation {} that it belongs to: the file was replaced meanwhile; \
                 reload to have it everywhere",
                child.pid,
                module.file.display(),
                generation.number
            );
        }
        let sockets = self.sockets.borrow();
        let loops = plan.processes * plan.threads;
        let mut list: Vec<(usize, usize, BorrowedFd)> = Vec::new();
        for (index, wanted) in plan.addresses.iter().enumerate() {
            for thread in 0..plan.threads {
                let of_loop = sockets.of_loop(&wanted.address, child.slot * plan.threads + thread, loops);
                list.extend(of_loop.map(|socket| (index, thread, socket.as_fd())));
            }
        }
        if !child.give_sockets(&list) {
            child.kill();
        }
    }

    /// What a new configuration needs of the master.
    fn prepare(self: &Rc<Self>, generation: &Rc<Generation>, plan: &Plan) -> Result<(), String> {
        self.sockets
            .borrow_mut()
            .prepare(&plan.addresses, plan.processes * plan.threads)
            .map_err(|error| super::of_server(&error))?;
        let is_it = |file: &PidFile| file.path() == plan.pid || file.path() == pid_file::old(&plan.pid);
        let known = self.pid_file.borrow().as_ref().is_some_and(is_it);
        let pid_file =
            if known { None } else { Some(PidFile::create(&plan.pid).map_err(|error| super::of_server(&error))?) };
        if let Some(change) = &mut *self.change.borrow_mut() {
            change.pid_file = pid_file;
        }
        for slot in 1..plan.processes {
            self.start_child(generation, slot, false)?;
        }
        Ok(())
    }

    /// A worker has got ahead.
    pub fn moved(self: &Rc<Self>, child: &Rc<Child>) {
        let is_waited_for =
            self.change.borrow().as_ref().is_some_and(|change| {
                change.step == Step::Starting && Rc::ptr_eq(&change.generation, &child.generation)
            });
        if child.stage() == Stage::Ready && !is_waited_for {
            // One that replaces another.
            child.tell(&ToWorker::Serve, &[]);
        }
        self.advance();
    }

    /// Goes through the steps of the change whose time has come.
    fn advance(self: &Rc<Self>) {
        loop {
            let (step, generation, previous) = match &*self.change.borrow() {
                None => return,
                Some(change) => (change.step, change.generation.clone(), change.previous.clone()),
            };
            match step {
                Step::Starting if generation.has_reached(Stage::Ready) => {
                    self.commit(&generation);
                    self.set_step(Step::Serving, START_TIMEOUT);
                }
                Step::Serving if generation.has_reached(Stage::Serving) => self.drain_previous(),
                Step::Draining => {
                    let drains = |child: &Rc<Child>| child.stage() >= Stage::Draining;
                    if !previous.is_none_or(|previous| previous.workers().iter().all(drains)) {
                        return;
                    }
                    self.finish();
                }
                _ => return,
            }
        }
    }

    /// The change is at this step, which may take so long.
    fn set_step(self: &Rc<Self>, step: Step, time: Duration) {
        let alarm = Alarm::new(self, time, move |master| master.took_too_long(step));
        if let Some(change) = &mut *self.change.borrow_mut() {
            change.step = step;
            change.alarm = Some(alarm);
        }
    }

    fn drain_previous(self: &Rc<Self>) {
        let previous = self.change.borrow().as_ref().and_then(|change| change.previous.clone());
        self.set_step(Step::Draining, DRAINING_TIMEOUT);
        if let Some(previous) = previous {
            previous.drain();
        }
    }

    /// The new configuration is the one that counts.
    fn commit(self: &Rc<Self>, generation: &Rc<Generation>) {
        let Some(plan) = generation.plan() else { return };
        self.sockets.borrow_mut().commit(&plan.addresses);
        let pid_file = self.change.borrow_mut().as_mut().and_then(|change| change.pid_file.take());
        if pid_file.is_some() {
            // The one before is removed.
            self.pid_file.replace(pid_file);
        }
        self.open_logs(&plan);
        generation.tell(&ToWorker::Serve);
        let previous = self.serving.replace(Some(generation.clone()));
        self.old.borrow_mut().extend(previous.filter(|previous| !previous.is_empty()));
        self.watch(plan.watchdog_timeout);
    }

    fn open_logs(&self, plan: &Plan) {
        let open = |(path, level): &(Option<PathBuf>, u32)| {
            let sink = match path {
                None => Some(Sink::stderr()),
                Some(path) => match Sink::file(path) {
                    Ok(sink) => Some(sink),
                    Err(error) => {
                        log_line!(Level::Emerg, "open() \"{}\" failed ({})", path.display(), ErrorText(&error));
                        None
                    }
                },
            };
            sink.map(|sink| (sink, Level::from_number(*level)))
        };
        let log = ErrorLog::new(plan.error_log.iter().filter_map(open).collect());
        error::open(Arc::new(log), std::iter::empty());
        log::start();
        log::close_unused();
        self.own_logs(plan);
    }

    /// Gives log files to the user of the workers, who have to open them again one day (as in nginx).
    fn own_logs(&self, plan: &Plan) {
        let Some((user, group)) = plan.user else { return };
        for path in &plan.logs {
            let owned = Sink::file(path).and_then(|_| std::os::unix::fs::chown(path, Some(user), Some(group)));
            if let Err(error) = owned {
                log_line!(Level::Emerg, "chown() \"{}\" failed ({})", path.display(), ErrorText(&error));
            }
        }
        log::close_unused();
    }

    /// The change is complete.
    fn finish(self: &Rc<Self>) {
        let Some(change) = self.change.take() else { return };
        let generation = &change.generation;
        let Some(plan) = generation.plan() else { return };
        let text = self.describe(&change, &plan);
        log_line!(Level::Notice, "generation {} serves", generation.number);
        let first = self.beginning.take();
        if let Some(beginning) = first {
            let greeting = self.greeting(&plan);
            beginning.ready(self, &greeting);
        }
        systemd::ready();
        self.zones.borrow_mut().retain_from(self.oldest());
        change.waiters.into_iter().for_each(|waiter| waiter(Ok(text.clone())));
        self.go_on();
    }

    /// The number of the oldest generation that has workers.
    fn oldest(&self) -> u64 {
        let old = self.old.borrow();
        old.iter().chain(&*self.serving.borrow()).map(|generation| generation.number).min().unwrap_or(0)
    }

    /// Those who have waited get a change of their own: the files may be others by now.
    fn go_on(self: &Rc<Self>) {
        let mut queued = self.queued.take();
        if queued.is_empty() || self.ending.get().is_some() {
            return;
        }
        let last = queued.pop();
        self.reload(last);
        if let Some(change) = &mut *self.change.borrow_mut() {
            change.waiters.append(&mut queued);
        }
    }

    /// The change cannot be: all is as it was.
    fn fail(self: &Rc<Self>, reason: &str) {
        let Some(change) = self.change.take() else { return };
        change.generation.kill();
        if !change.generation.is_empty() {
            self.old.borrow_mut().push(change.generation.clone());
        }
        self.sockets.borrow_mut().abandon();
        let is_first = self.serving.borrow().is_none();
        if is_first {
            *self.outcome.borrow_mut() = Err(reason.to_string());
            self.end(Ending::Fast, None);
        } else {
            reason.lines().for_each(|line| log_line!(Level::Error, "reload failed: {line}"));
            systemd::ready();
        }
        let waiters = change.waiters;
        waiters.into_iter().for_each(|waiter| waiter(Err(reason.to_string())));
        self.go_on();
    }

    /// A step has not ended in time, unless it has.
    fn took_too_long(self: &Rc<Self>, step: Step) {
        let Some(generation) = self.change.borrow().as_ref().map(|change| change.generation.clone()) else { return };
        match step {
            Step::Starting => {
                let slow = |worker: &Rc<Child>| worker.stage() < Stage::Ready;
                let list: Vec<String> =
                    generation.workers().into_iter().filter(slow).map(|w| where_it_is(&w)).collect();
                let seconds = START_TIMEOUT.as_secs();
                self.fail(&format!("topnext: the new workers were not ready within {seconds} s: {}", list.join("; ")));
            }
            Step::Serving => {
                log_line!(
                    Level::Alert,
                    "not all workers of generation {} serve; the old ones are drained anyway",
                    generation.number
                );
                self.drain_previous();
                self.advance();
            }
            Step::Draining => {
                log_line!(Level::Alert, "old workers do not answer; they may accept connections still");
                self.finish();
            }
        }
    }

    // ---- workers that end

    /// The workers of all generations.
    pub fn children(&self) -> Vec<Rc<Child>> {
        let old = self.old.borrow();
        let change = self.change.borrow();
        let serving = self.serving.borrow();
        let mut all: Vec<&Rc<Generation>> = old.iter().chain(&*serving).collect();
        all.extend(change.as_ref().map(|change| &change.generation));
        all.dedup_by(|one, other| Rc::ptr_eq(one, other));
        all.iter().flat_map(|generation| generation.workers()).collect()
    }

    /// The generations that have workers, the oldest first, and which of them serves.
    pub fn generations(&self) -> (Vec<Rc<Generation>>, Option<Rc<Generation>>) {
        let serving = self.serving.borrow().clone();
        let mut all: Vec<Rc<Generation>> = self.old.borrow().clone();
        all.extend(serving.clone());
        if let Some(change) = &*self.change.borrow() {
            all.push(change.generation.clone());
        }
        all.sort_by_key(|generation| generation.number);
        all.dedup_by(|one, other| Rc::ptr_eq(one, other));
        (all, serving)
    }

    /// Since when it runs.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// How this master has come to be, until it serves.
    pub fn with_beginning<T>(&self, act: impl FnOnce(Option<&Beginning>) -> T) -> T {
        act(self.beginning.borrow().as_ref())
    }

    /// The clock of accounts.
    pub fn ticks(&self) -> Ticks {
        self.ticks
    }

    /// Looks which children have ended.
    fn reap(self: &Rc<Self>) {
        upgrade::reap(self);
        for child in self.children() {
            if let Some(status) = child.ended() {
                self.ended(&child, status);
            }
        }
        self.old.borrow_mut().retain(|generation| !generation.is_empty());
        self.advance();
        self.end_if_last();
    }

    fn ended(self: &Rc<Self>, child: &Rc<Child>, status: ExitStatus) {
        child.forget(self);
        reopen::done(self, child.pid, None, Vec::new());
        let generation = child.generation.clone();
        generation.remove(child);
        let report = child.take_report();
        let is_starting = self
            .change
            .borrow()
            .as_ref()
            .is_some_and(|change| change.step == Step::Starting && Rc::ptr_eq(&change.generation, &generation));
        let is_serving = self.serving.borrow().as_ref().is_some_and(|serving| Rc::ptr_eq(serving, &generation));
        if self.ending.get().is_some() {
            log_line!(Level::Notice, "worker {} {}", child.pid, child::describe(status));
        } else if is_starting {
            let reason = report.unwrap_or_else(|| {
                let places = child.whereabouts(true);
                let was = if places.is_empty() { String::new() } else { format!("; it was: {}", places.join("; ")) };
                format!("topnext: a new worker {} before it was ready{was}", child::describe(status))
            });
            self.fail(&reason);
        } else if is_serving && child.stage() < Stage::Draining {
            self.died(child, status, report);
        } else if status.success() {
            log_line!(Level::Notice, "worker {} of generation {} has finished", child.pid, generation.number);
        } else if child.stage() >= Stage::Draining {
            log_line!(Level::Alert, "worker {} {}{}", child.pid, child::describe(status), last_words(child));
        }
    }

    /// A worker that was to serve is gone: another one takes its place.
    fn died(self: &Rc<Self>, child: &Rc<Child>, status: ExitStatus, report: Option<String>) {
        let generation = &child.generation;
        let level = if status.success() { Level::Notice } else { Level::Alert };
        let (pid, number) = (child.pid, generation.number);
        match report {
            Some(report) => {
                log_line!(
                    Level::Alert,
                    "worker {pid}, which was to replace another of generation {number}, cannot run:"
                );
                report.lines().for_each(|line| log_line!(Level::Alert, "{line}"));
            }
            None => {
                log_line!(level, "worker {pid} of generation {number} {}{}", child::describe(status), last_words(child))
            }
        }
        generation.warn_of_overwritten();
        let lived = child.started.elapsed();
        let delay = generation.with_respawn(child.slot, |respawn| respawn.died(self.lp.now_ms(), lived));
        let (generation, slot) = (generation.clone(), child.slot);
        match delay.unwrap_or_default() {
            Duration::ZERO => self.respawn(&generation, slot),
            delay => {
                log_line!(Level::Alert, "workers die too often; the next one is started in {} s", delay.as_secs());
                Alarm::new(self, delay, move |master| master.respawn(&generation, slot)).detach();
            }
        }
    }

    fn respawn(self: &Rc<Self>, generation: &Rc<Generation>, slot: usize) {
        let is_serving = self.serving.borrow().as_ref().is_some_and(|serving| Rc::ptr_eq(serving, generation));
        if !is_serving || self.ending.get().is_some() {
            return;
        }
        if let Err(reason) = self.start_child(generation, slot, false) {
            log_line!(Level::Emerg, "{reason}");
            let delay = generation.with_respawn(slot, |respawn| respawn.died(self.lp.now_ms(), Duration::ZERO));
            let delay = delay.unwrap_or_default().max(Duration::from_secs(1));
            let generation = generation.clone();
            Alarm::new(self, delay, move |master| master.respawn(&generation, slot)).detach();
        }
    }

    /// A worker asks for a zone.
    pub fn give_zone(&self, child: &Rc<Child>, name: String, size: u64) {
        let mut zones = self.zones.borrow_mut();
        match zones.get(name, size, child.generation.number) {
            Ok(fd) => child.tell(&ToWorker::Zone(Ok(())), &[fd]),
            Err(error) => child.tell(&ToWorker::Zone(Err(error)), &[]),
        };
    }

    // ---- loops that do not turn

    /// Looks after the loops of all workers from now on.
    fn watch(self: &Rc<Self>, timeout: Duration) {
        let look = move |master: &Rc<Master>| {
            if master.ending.get().is_none() {
                master.children().iter().for_each(|child| child.look_for_stuck_loops(master.lp.now_ms(), timeout));
                master.watch(timeout);
            }
        };
        let pause = (timeout / 4).max(Duration::from_millis(100));
        self.watchdog.replace((!timeout.is_zero()).then(|| Alarm::new(self, pause, look)));
    }

    // ---- signals

    fn signal(self: &Rc<Self>, signal: i32) {
        let means = match signal {
            signal::SIGHUP => "reconfiguring",
            signal::SIGUSR1 => "reopening logs",
            signal::SIGUSR2 => "starting a new master",
            signal::SIGWINCH => "shutting the workers down",
            signal::SIGQUIT => "shutting down",
            _ => "exiting",
        };
        if signal != signal::SIGCHLD {
            log_line!(Level::Notice, "{} received, {means}", Signals::name(signal));
        }
        match signal {
            signal::SIGCHLD => self.reap(),
            signal::SIGHUP => self.reload(None),
            signal::SIGUSR1 => self.reopen(None),
            signal::SIGUSR2 => upgrade::start(self),
            signal::SIGWINCH => self.dismiss(),
            signal::SIGQUIT => self.end(Ending::Graceful, None),
            signal::SIGTERM | signal::SIGINT => self.end(Ending::Fast, None),
            _ => (),
        }
    }

    /// Has all logs opened again.
    pub fn reopen(self: &Rc<Self>, waiter: Option<Waiter>) {
        if let Some(plan) = self.serving.borrow().as_ref().and_then(|serving| serving.plan()) {
            self.own_logs(&plan);
        }
        reopen::start(self, waiter);
    }

    /// A number for a request to open them.
    pub fn next_reopening(&self) -> u64 {
        self.last_reopening.set(self.last_reopening.get() + 1);
        self.last_reopening.get()
    }

    /// Ends the workers, and stays: another master serves (nginx: WINCH). Terminals send the same signal when their size
    /// changes, so that it is ignored in the foreground unless there is another master.
    fn dismiss(self: &Rc<Self>) {
        if io::stderr().is_terminal() && !self.upgrade.borrow().is_under_way() {
            return log_line!(Level::Info, "ignored, since it comes from a terminal, and no upgrade is under way");
        }
        if self.change.borrow().is_some() {
            return log_line!(Level::Warn, "ignored, since the configuration is being changed");
        }
        if let Some(serving) = &*self.serving.borrow() {
            serving.drain();
        }
    }

    // ---- the end

    /// Ends the server.
    pub fn end(self: &Rc<Self>, how: Ending, waiter: Option<Waiter>) {
        self.leaving.borrow_mut().extend(waiter);
        if self.ending.get().is_some_and(|known| known >= how) {
            return;
        }
        let is_new = self.ending.replace(Some(how)).is_none();
        if is_new {
            systemd::stopping();
            // Queues are emptied by the workers, which have the sockets too.
            self.close_sockets();
        }
        if let Some(change) = self.change.take() {
            change.generation.kill();
            self.old.borrow_mut().push(change.generation);
            let text = "the server is ending";
            change.waiters.into_iter().for_each(|waiter| waiter(Err(text.to_string())));
        }
        let queued = self.queued.take();
        queued.into_iter().for_each(|waiter| waiter(Err("the server is ending".to_string())));
        let (all, _) = self.generations();
        match how {
            Ending::Graceful => all.iter().for_each(|generation| generation.drain()),
            Ending::Fast => {
                all.iter().for_each(|generation| generation.tell(&ToWorker::Stop));
                let kill = |master: &Rc<Master>| {
                    for child in master.children() {
                        log_line!(Level::Alert, "worker {} did not end in time, it is killed", where_it_is(&child));
                        child.kill();
                    }
                };
                Alarm::new(self, STOP_TIMEOUT, kill).detach();
            }
        }
        self.end_if_last();
    }

    fn end_if_last(&self) {
        if self.ending.get().is_some() && self.children().is_empty() {
            self.lp.remote().stop();
        }
    }

    /// Closes the listening sockets. Their files stay if another master listens on them.
    fn close_sockets(&self) {
        let is_new = matches!(&*self.beginning.borrow(), Some(Beginning::Upgrade(_)));
        let leave = is_new || self.upgrade.borrow().is_under_way();
        self.sockets.borrow_mut().close(leave);
    }

    fn close(&self) {
        self.close_sockets();
        drop(self.pid_file.take());
        drop(self.control.take());
        log_line!(Level::Notice, "exit");
        log::flush();
    }

    // ---- texts

    /// Says where to look, and what was loaded.
    fn greeting(&self, plan: &Plan) -> String {
        use std::fmt::Write;
        let workers = counted(plan.processes, "worker");
        let threads = counted(plan.threads, "thread");
        let mut text = String::new();
        for warning in &plan.warnings {
            let _ = writeln!(text, "topnext: [warn] {warning}");
        }
        let _ = writeln!(text, "topnext {VERSION} is ready, pid {}, {workers} of {threads}", std::process::id());
        for wanted in &plan.addresses {
            let _ = match &wanted.address {
                Listen::Tcp(address) => writeln!(text, "  http://{address}/"),
                // As proxy.pass would name it.
                unix => writeln!(text, "  http://{unix}:/"),
            };
        }
        let modules: Vec<String> =
            plan.modules.iter().map(|module| format!("{} {}", module.name, module.version)).collect();
        let _ =
            writeln!(text, "  modules: {}", if modules.is_empty() { "none".to_string() } else { modules.join(", ") });
        text
    }

    /// What a change has brought.
    fn describe(&self, change: &Change, plan: &Plan) -> String {
        use std::fmt::Write;
        let generation = &change.generation;
        let pids: Vec<String> = generation.workers().iter().map(|worker| worker.pid.to_string()).collect();
        let mut text = format!("generation {} serves, workers {}\n", generation.number, pids.join(", "));
        let Some(previous) = &change.previous else { return text };
        if let Some(old) = previous.plan() {
            let changes = plan::changes(&old, plan);
            text.push_str(if changes.is_empty() { "  nothing has changed\n" } else { &changes });
        }
        for worker in previous.workers() {
            let _ = writeln!(
                text,
                "  draining   worker {} of generation {}: {}",
                worker.pid,
                previous.number,
                worker.in_flight()
            );
        }
        for file in previous.overwritten() {
            let _ = writeln!(
                text,
                "  warning    {file} was overwritten while it was in use, which can crash the old workers; install modules by \
                 renaming"
            );
        }
        for warning in &plan.warnings {
            let _ = writeln!(text, "  warning    {warning}");
        }
        text
    }
}

/// Tells whoever waits for it.
pub fn answer(waiter: Option<Waiter>, result: Result<String, String>) {
    if let Some(waiter) = waiter {
        waiter(result);
    }
}

fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// A worker, with the places of its threads.
fn where_it_is(child: &Rc<Child>) -> String {
    format!("{} ({})", child.pid, child.whereabouts(true).join("; "))
}

/// What a worker was doing when it died.
fn last_words(child: &Rc<Child>) -> String {
    let place = child.whereabouts(false);
    let place = if place.is_empty() { "no thread was in a module".to_string() } else { place.join("; ") };
    format!("; {place}; in flight: {}", child.in_flight())
}

fn read_plan(fds: Vec<OwnedFd>) -> io::Result<(Plan, OwnedFd)> {
    let mut fds = fds.into_iter();
    let (Some(plan), Some(texts)) = (fds.next(), fds.next()) else { return Err(io::ErrorKind::InvalidData.into()) };
    Ok((serde_json::from_slice(&channel::read_text(plan)?)?, texts))
}

/// The path of a program as it was called: where another version of it will be found.
pub fn program(called: &Path) -> PathBuf {
    if called.components().count() > 1 {
        return std::path::absolute(called).unwrap_or_else(|_| called.to_path_buf());
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join(called)).find(|path| path.is_file());
    found.or_else(|| std::env::current_exe().ok()).unwrap_or_else(|| called.to_path_buf())
}
