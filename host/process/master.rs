//! The master: opens the listening sockets, starts the workers, watches them, and does what signals and the control socket ask
//! for. It loads no module, and leaves the configuration to its workers, which tell it what it has to know ([`Plan`]). Before it
//! begins the command line has looked into the file for two flags, `daemon` and `master_process`, and passed over what is wrong. So
//! nothing that an operator or a module author writes can end it.
//!
//! A change of the configuration, of which the start is the first, is in change.rs; what becomes of workers that end in deaths.rs.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    ffi::OsString,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use signal_hook::consts::signal;

use super::{
    alarm::Alarm,
    change::{Change, Step, Task},
    child::Child,
    control,
    deaths::where_it_is,
    generation::Generation,
    messages::{Plan, ToWorker},
    pid_file::PidFile,
    reopen::{self, Reopening},
    signals::{Signal, Signals},
    status::Ticks,
    systemd,
    upgrade::{self, Beginning, Upgrade},
    zones::Zones,
};
use crate::{
    error_text::ErrorText,
    event::Loop,
    listen::sockets::Sockets,
    log::{
        self, Sink,
        error::{self, ErrorLog, Level},
    },
    log_line,
};

/// Set for a process that is to be the master in the background: its standard input is a channel to who started it.
pub const DAEMON: &str = "TOPNEXT_DAEMON";
/// Set for a process that is to take over from another master: its standard input is a channel to that.
pub const UPGRADE: &str = "TOPNEXT_UPGRADE";

/// How long workers that are to end at once may take.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration's file as it was written, which is how errors name it. A relative one is found from the working directory
    /// in which the server was started: neither the master nor a new one leaves it, and a worker does (`working_directory`) when it
    /// has read the file. It is that folder whatever its name becomes, while the prefix is a name.
    pub config: PathBuf,
    /// Where relative paths start, absolute.
    pub prefix: PathBuf,
    /// The program, as it was called.
    pub program: PathBuf,
    /// And its arguments.
    pub arguments: Vec<OsString>,
}

/// Why nothing is begun any more.
pub(super) const ENDING: &str = "topnext: the server is ending";

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
    pub(super) serving: RefCell<Option<Rc<Generation>>>,
    pub(super) change: RefCell<Option<Change>>,
    /// Generations that drain, or have failed, and have workers still.
    pub(super) old: RefCell<Vec<Rc<Generation>>>,
    /// What is to be done after the change that is under way.
    pub(super) queued: RefCell<VecDeque<Task>>,
    /// Those who want to know when the end has come.
    pub(super) leaving: RefCell<Vec<Waiter>>,
    pub(super) last_number: Cell<u64>,
    /// Logs that are being opened again.
    pub reopenings: RefCell<Vec<Rc<Reopening>>>,
    last_reopening: Cell<u64>,
    pub(super) ending: Cell<Option<Ending>>,
    pub(super) beginning: RefCell<Option<Beginning>>,
    pub(super) watchdog: RefCell<Option<Alarm>>,
    pub(super) outcome: RefCell<Result<(), String>>,
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
    answer(master.leaving.take(), &Ok(String::new()));
    control::finish(&master.lp);
    if let (Err(text), Some(beginning)) = (&result, master.beginning.take()) {
        beginning.failed(text);
    }
    result
}

impl Master {
    fn start(self: &Rc<Self>) -> Result<(), String> {
        let of_signals = Rc::downgrade(self);
        let handle = move |received| {
            if let Some(master) = of_signals.upgrade() {
                master.signal(received);
            }
        };
        Signals::start(&self.lp, handle).map_err(|error| format!("cannot wait for signals ({})", ErrorText(&error)))?;
        upgrade::take_over(self)?;
        systemd::adopt(&mut self.sockets.borrow_mut())
            .map_err(|error| format!("the sockets of systemd cannot be used: {error}"))?;
        let control = control::Listening::start(self)?;
        self.control.replace(Some(control));
        self.begin(None, Vec::new());
        Ok(())
    }

    pub(super) fn open_logs(&self, plan: &Plan) {
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
    pub(super) fn own_logs(&self, plan: &Plan) {
        let Some(ids) = plan.user else { return };
        for path in &plan.logs {
            if let Err(error) = log::file::give(path, ids) {
                log_line!(Level::Emerg, "chown() \"{}\" failed ({})", path.display(), ErrorText(&error));
            }
        }
    }

    // ---- workers

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

    /// A worker asks for a zone.
    pub fn give_zone(&self, child: &Rc<Child>, name: String, size: u64, layout: u64) {
        let (all, _) = self.generations();
        let has_workers = |number| all.iter().any(|generation| generation.number == number);
        let mut zones = self.zones.borrow_mut();
        match zones.get(name, size, layout, child.generation.number, has_workers) {
            Ok(fd) => child.tell(&ToWorker::Zone(Ok(())), &[fd]),
            Err(error) => child.tell(&ToWorker::Zone(Err(error)), &[]),
        };
    }

    // ---- signals

    fn signal(self: &Rc<Self>, received: Signal) {
        let signal = received.number();
        let means = match signal {
            signal::SIGHUP => "reconfiguring",
            signal::SIGUSR1 => "reopening logs",
            signal::SIGUSR2 => "starting a new master",
            signal::SIGWINCH if received.is_of_kernel() => "ignored",
            signal::SIGWINCH => "shutting the workers down",
            signal::SIGQUIT => "shutting down",
            _ => "exiting",
        };
        if signal != signal::SIGCHLD {
            log_line!(Level::Notice, "{received}, {means}");
        }
        match signal {
            signal::SIGCHLD => self.reap(),
            signal::SIGHUP => {
                control::Listening::restore(self);
                self.perform(Task::Reload(Vec::new()));
            }
            signal::SIGUSR1 => self.reopen(None),
            signal::SIGUSR2 => self.perform(Task::Upgrade),
            // Of a terminal whose size has changed, which it tells those in its foreground.
            signal::SIGWINCH if received.is_of_kernel() => (),
            signal::SIGWINCH => self.perform(Task::Dismiss),
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

    /// Ends the workers, and stays: another master serves.
    pub(super) fn dismiss(self: &Rc<Self>) {
        if let Some(serving) = &*self.serving.borrow() {
            serving.is_dismissed.set(true);
            serving.drain(self);
        }
    }

    /// Whether its workers were dismissed, and it has no others.
    pub fn is_dismissed(&self) -> bool {
        self.serving.borrow().as_ref().is_some_and(|serving| serving.is_dismissed.get())
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
            self.tell_systemd_of_end();
            // Queues are emptied by the workers, which have the sockets too.
            self.sockets.borrow_mut().close();
        }
        if let Some(change) = self.change.take() {
            // What serves already ends like all that serves.
            if change.step == Step::Starting {
                change.generation.kill();
                self.old.borrow_mut().push(change.generation);
            }
            answer(change.waiters, &Err(ENDING.to_string()));
        }
        for task in self.queued.take() {
            if let Task::Reload(waiters) = task {
                answer(waiters, &Err(ENDING.to_string()));
            }
        }
        let (all, _) = self.generations();
        match how {
            Ending::Graceful => all.iter().for_each(|generation| generation.drain(self)),
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

    /// While another master serves, the end of this one is not that of the server.
    fn tell_systemd_of_end(&self) {
        let is_new = matches!(&*self.beginning.borrow(), Some(Beginning::Upgrade(_)));
        let upgrade = self.upgrade.borrow();
        match rustix::process::getppid() {
            _ if !is_new && !upgrade.is_under_way() => systemd::stopping(),
            // This one was said to be the main process when it served.
            Some(old) if !is_new && upgrade.is_new_one() => {
                systemd::hand_back(old.as_raw_nonzero().get().cast_unsigned())
            }
            _ => (),
        }
    }

    pub(super) fn end_if_last(&self) {
        if self.ending.get().is_some() && self.children().is_empty() {
            self.lp.remote().stop();
        }
    }

    fn close(&self) {
        self.sockets.borrow_mut().close();
        drop(self.pid_file.take());
        drop(self.control.take());
        log_line!(Level::Notice, "exit");
        log::flush();
    }
}

/// Tells those who wait for it.
pub fn answer(waiters: impl IntoIterator<Item = Waiter>, result: &Result<String, String>) {
    waiters.into_iter().for_each(|waiter| waiter(result.clone()));
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
