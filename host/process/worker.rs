//! A worker: loads the configuration and its modules, and serves. It does what its master says ([`messages`](super::messages)).

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::ExitCode,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use mio::unix::SourceFd;
use signal_hook::consts::signal;

use super::{
    channel::{self, Channel, Received},
    loops::{LoopSockets, Loops},
    messages::{Start, ToMaster, ToWorker},
    pipe, plan, privileges, scoreboard,
    signals::{Signal, Signals},
};
use crate::{
    error_text::ErrorText,
    event::{Ready, Source, TimerId},
    listen::bind,
    log::{
        self,
        error::{self, Level},
    },
    log_line,
    site::{self, Kept, Loaded, Site},
    socket::Socket,
    stats,
};

/// Set for a process that is to be a worker: its standard input is the channel to its master.
pub const VARIABLE: &str = "TOPNEXT_WORKER";
/// How long a worker waits for a message that its master sends at once.
const MASTER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long jobs on the thread pool may take to end when the worker does.
const JOBS_TIMEOUT: Duration = Duration::from_secs(5);

thread_local! {
    /// The line to the master, as long as the configuration is read: modules ask for zones through it.
    static ASKING: RefCell<Option<Line>> = const { RefCell::new(None) };
}

/// Both ways between this worker and its master.
struct Line {
    /// What the master says.
    channel: Channel,
    /// What it is told.
    pipe: pipe::Writer,
}

/// What a worker is to be, and what it is given for that.
struct Given {
    start: Start,
    board: Option<OwnedFd>,
    /// What is kept of the configuration, and the files of the modules that `start` names.
    kept: Vec<OwnedFd>,
}

/// Runs as a worker, until the master says that it is to end, or ends itself.
pub fn main() -> ExitCode {
    super::set_name();
    let (line, given) = match greet() {
        Ok(greeted) => greeted,
        Err(error) => {
            log::say(&format!(
                "topnext: {VARIABLE} is set, and standard input is no channel to a master ({error}); unset it\n"
            ));
            return ExitCode::FAILURE;
        }
    };
    match serve(line, given) {
        Ok(()) => ExitCode::SUCCESS,
        Err((line, reason)) => {
            let reason = reason.trim_end().to_string();
            if let Err(error) = line.pipe.send_within(MASTER_TIMEOUT, &ToMaster::Failed(reason.clone())) {
                log::say(&format!("{reason}\ntopnext: the master cannot be told ({})\n", ErrorText(&error)));
            }
            log::flush();
            ExitCode::FAILURE
        }
    }
}

/// Takes the channel from standard input, and the first message from it.
fn greet() -> io::Result<(Line, Given)> {
    let channel = Channel::from_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    super::empty_stdin()?;
    let first = channel.receive_within(MASTER_TIMEOUT)?;
    let mut fds = first.fds.into_iter();
    let (ToWorker::Start(start), Some(pipe)) = (first.message, fds.next()) else {
        return Err(io::Error::other("the master began with another message"));
    };
    let line = Line { channel, pipe: pipe::Writer::new(pipe) };
    Ok((line, Given { start, board: fds.next(), kept: fds.collect() }))
}

/// Opens the logs again, and tells the master. It is told of as many that could not be opened as one write takes; all are logged.
fn reopen(line: &Arc<Line>, number: u64) {
    const MAX_TOLD: usize = 2048;
    let line = line.clone();
    log::reopen(move |mut failed| {
        let mut left = MAX_TOLD;
        failed.retain(|text| {
            let fits = text.len() <= left;
            left = if fits { left - text.len() } else { 0 };
            fits
        });
        line.tell(&ToMaster::Reopened { number, failed });
    });
}

/// Serves until the end. An error is the reason why it cannot, to be told to the master.
fn serve(line: Line, given: Given) -> Result<(), (Arc<Line>, String)> {
    stats::uptime();
    ASKING.set(Some(line));
    let prepared = prepare(given);
    let line = Arc::new(ASKING.take().expect("put there above, and only borrowed"));
    let (site, loaded) = match prepared {
        Ok(prepared) => prepared,
        Err(reason) => return Err((line, reason)),
    };
    match start(&line, site, &loaded).map_err(|error| super::of_server(&error)) {
        Ok(worker) => run(&worker, site).map_err(|reason| (line, super::of_server(&reason))),
        Err(reason) => Err((line, reason)),
    }
}

/// Reads the configuration, and loads all that it names. With what the master is told of it.
fn prepare(given: Given) -> Result<(&'static Site, ToMaster), String> {
    let Given { start, board, kept } = given;
    if let Some(board) = board {
        scoreboard::join(board)
            .map_err(|error| format!("topnext: the scoreboard cannot be mapped ({})", ErrorText(&error)))?;
    }
    let kept = read_kept(kept, &start.modules)
        .map_err(|error| format!("topnext: what is kept of the configuration cannot be read ({error})"))?;
    let is_kept = kept.is_some();
    let mut loaded = site::load_kept(&start.config, &start.prefix, kept)
        .map_err(|report| format!("{report}topnext: configuration file {} test failed", start.config.display()))?;
    if let Some((processes, threads)) = start.loops {
        // "auto" is what it was when the sockets were opened.
        (loaded.site.processes, loaded.site.threads) = (processes, threads);
    }
    let plan = Box::new(plan::of(&loaded, &start.prefix));
    let kept = if is_kept {
        None
    } else {
        let cannot = |error| format!("topnext: the configuration cannot be described: {error}");
        Some(serde_json::to_string(&loaded.kept).map_err(cannot)?)
    };
    Ok((take_over(loaded, &start), ToMaster::Loaded { plan, kept }))
}

/// What a worker before this one has read and found, and the files of modules. None if this is the first one.
fn read_kept(fds: Vec<OwnedFd>, modules: &[usize]) -> io::Result<Option<Kept>> {
    let mut fds = fds.into_iter();
    let Some(text) = fds.next() else { return Ok(None) };
    let mut kept: Kept = serde_json::from_slice(&channel::read_text(text)?)?;
    for (at, fd) in modules.iter().zip(fds) {
        if let Some(module) = kept.modules.get_mut(*at) {
            module.opened = Some(fd);
        }
    }
    Ok(Some(kept))
}

/// Opens the logs, and makes the site the one of the process.
fn take_over(loaded: Loaded, what: &Start) -> &'static Site {
    let Loaded { site, places, warnings, missing, .. } = loaded;
    error::open(site.error_log.clone(), places.iter().map(|place| &place.error_log));
    drop(places);
    if what.warns && site.main.error_log.iter().any(|log| log.path != "stderr") {
        // Standard error has them already, and may not be kept.
        warnings.to_string().lines().for_each(|warning| log_line!(Level::Warn, "{warning}"));
    }
    // The workers before this one have it open, and so do without.
    missing
        .to_string()
        .lines()
        .for_each(|line| log_line!(Level::Alert, "gone since the configuration was read: {line}"));
    // A worker has one configuration for its whole life (a reload starts another process), so that nothing on the path of
    // a request has to count who uses it.
    Box::leak(Box::new(site))
}

/// Gets its sockets, and everything ready.
fn start(line: &Arc<Line>, site: &'static Site, loaded: &ToMaster) -> Result<Rc<Worker>, String> {
    let Line { channel, pipe } = &**line;
    pipe.send_within(MASTER_TIMEOUT, loaded).map_err(of_line)?;
    let sockets = receive_sockets(channel, site).map_err(of_line)?;
    if let Some(folder) = &site.working_directory {
        std::env::set_current_dir(folder)
            .map_err(|error| format!("chdir() to {} failed ({})", folder.display(), ErrorText(&error)))?;
    }
    privileges::set_limits(&site.main)?;
    if let Some(account) = &site.account {
        account.assume()?;
    }
    log::start();
    let worker = Worker::start(line, site, Loops::start(site, sockets)?)
        .map_err(|error| format!("cannot wait for signals and the master ({})", ErrorText(&error)))?;
    pipe.send_within(MASTER_TIMEOUT, &ToMaster::Ready).map_err(of_line)?;
    // The others of the generation may take their time; a master that is gone ends the wait.
    loop {
        match channel.receive_within::<ToWorker>(MASTER_TIMEOUT) {
            Ok(Received { message: ToWorker::Serve, .. }) => return Ok(worker),
            Ok(Received { message: ToWorker::Reopen(number), .. }) => reopen(line, number),
            Ok(_) => return Err("the master has changed its mind".to_string()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => (),
            Err(error) => return Err(of_line(error)),
        }
    }
}

fn of_line(error: io::Error) -> String {
    format!("the master does not answer ({})", ErrorText(&error))
}

fn receive_sockets(channel: &Channel, site: &'static Site) -> io::Result<Vec<LoopSockets>> {
    let mut sockets: Vec<LoopSockets> = (0..site.threads).map(|_| Vec::new()).collect();
    loop {
        let Received { message, fds } = channel.receive_within(MASTER_TIMEOUT)?;
        let ToWorker::Sockets { of, last } = message else {
            return Err(io::Error::other("sockets were expected"));
        };
        for ((address, number), fd) in of.into_iter().zip(fds) {
            let address = site.addresses.get(address);
            if let (Some(address), Some(list)) = (address, sockets.get_mut(number)) {
                list.push((&**address, restored(fd)));
            }
        }
        if last {
            return Ok(sockets);
        }
    }
}

/// A listening socket, without what a worker may have done to it.
fn restored(fd: OwnedFd) -> Socket {
    if let Err(error) = bind::restore(&fd) {
        log_line!(Level::Alert, "a worker before this one has changed a listening socket ({})", ErrorText(&error));
    }
    Socket::from(fd)
}

/// Accepts connections until the end.
fn run(worker: &Rc<Worker>, site: &'static Site) -> Result<(), String> {
    let line = worker.line.clone();
    worker.loops.run(move || line.tell(&ToMaster::Serving))?;
    // Jobs are code of modules: with one still running their state stays, and goes with the process.
    if site.pool.stop(JOBS_TIMEOUT) {
        site.end();
    } else {
        log_line!(Level::Warn, "jobs on the thread pool did not end in {} s", JOBS_TIMEOUT.as_secs());
    }
    log_line!(Level::Notice, "exit");
    log::flush();
    Ok(())
}

impl Line {
    /// Tells the master, if there is room at once, which there is: a worker that serves says little.
    fn tell(&self, message: &ToMaster) {
        if let Err(error) = self.pipe.send_within(Duration::ZERO, message) {
            log_line!(Level::Alert, "the master cannot be told {message:?} ({})", ErrorText(&error));
        }
    }
}

/// What the worker's first loop hears from outside.
struct Worker {
    line: Arc<Line>,
    loops: Rc<Loops>,
    /// worker_shutdown_timeout.
    timeout: Option<Duration>,
    /// Runs while it drains, if it has a time to do it in.
    shutdown: Cell<Option<TimerId>>,
}

impl Worker {
    /// Waits for signals and the master from here on. What they ask for is done once the loops turn.
    fn start(line: &Arc<Line>, site: &'static Site, loops: Rc<Loops>) -> io::Result<Rc<Worker>> {
        let timeout = site.main.worker_shutdown_timeout;
        let worker = Rc::new(Worker { line: line.clone(), loops, timeout, shutdown: Cell::default() });
        let lp = &worker.loops.first;
        worker.shutdown.set(Some(lp.add_timer(worker.clone(), 0)));
        let of_signals = worker.clone();
        Signals::start(lp, move |signal| of_signals.signal(signal))?;
        lp.register_listener(&mut SourceFd(&worker.line.channel.as_fd().as_raw_fd()), worker.clone())?;
        Ok(worker)
    }

    /// Finishes what there is. `drained` is called when no loop accepts any more.
    fn finish(&self, time: Option<Duration>, drained: impl FnOnce() + 'static) {
        if self.loops.is_draining() {
            drained();
        } else {
            log_line!(Level::Notice, "gracefully shutting down");
            self.loops.drain(drained);
        }
        if let (Some(timer), Some(time)) = (self.shutdown.get(), time) {
            self.loops.first.start_timer(timer, time);
        }
    }

    /// As nginx's workers.
    fn signal(&self, received: Signal) {
        match received.number() {
            signal::SIGTERM | signal::SIGINT => {
                log_line!(Level::Notice, "{received}, exiting");
                self.loops.stop();
            }
            signal::SIGQUIT | signal::SIGWINCH => {
                if !self.loops.is_draining() {
                    self.line.tell(&ToMaster::Leaving);
                }
                self.finish(self.timeout, || ());
            }
            signal::SIGUSR1 => {
                log_line!(Level::Notice, "{received}, reopening logs");
                log::reopen(|_| ());
            }
            // Of the master: HUP, USR2. Of no use: CHLD.
            _ => log_line!(Level::Debug, "{received}"),
        }
    }

    fn handle(self: &Rc<Self>, message: ToWorker, fds: Vec<OwnedFd>) {
        match message {
            ToWorker::Reopen(number) => {
                log_line!(Level::Notice, "reopening logs");
                reopen(&self.line, number);
            }
            ToWorker::Lend { slot, of } => {
                let sockets = of.into_iter().zip(fds).map(|(address, fd)| (address, restored(fd))).collect();
                self.loops.lend(slot, sockets);
            }
            ToWorker::GiveBack(slot) => self.loops.give_back(slot),
            ToWorker::Drain(time) => {
                let worker = self.clone();
                self.finish(time, move || worker.line.tell(&ToMaster::Draining));
            }
            ToWorker::Stop => {
                log_line!(Level::Notice, "exiting");
                self.loops.stop();
            }
            other => log_line!(Level::Alert, "the master has sent {other:?}, which has no meaning now"),
        }
    }
}

impl Source for Worker {
    fn ready(self: Rc<Self>, _: Ready) {
        loop {
            match self.line.channel.receive::<ToWorker>() {
                Ok(Some(received)) => self.handle(received.message, received.fds),
                Ok(None) => return,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    log_line!(Level::Alert, "the master has sent what is no message ({error})");
                }
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    return log_line!(Level::Alert, "what the master has sent cannot be read ({})", ErrorText(&error));
                }
                Err(_) => {
                    // Who started the master can start it again, and it could not bind while this one listens.
                    log_line!(Level::Alert, "the master is gone");
                    return self.finish(self.timeout, || ());
                }
            }
        }
    }

    fn expired(self: Rc<Self>, _: u32) {
        log_line!(Level::Warn, "worker_shutdown_timeout has passed, closing the connections that are left");
        self.loops.stop();
    }
}

/// Whether this process is a worker of a master, and reads its configuration.
pub fn has_master() -> bool {
    ASKING.with_borrow(Option::is_some)
}

/// Asks the master for a zone: the file in memory that it is.
pub fn ask_for_zone(name: &str, size: u64, layout: u64) -> Result<OwnedFd, String> {
    let Received { message, fds } = ASKING.with_borrow(|line| {
        let line = line.as_ref().ok_or("zones are opened while the configuration is read")?;
        let question = ToMaster::Zone { name: name.to_string(), size, layout };
        line.pipe.send_within(MASTER_TIMEOUT, &question).map_err(of_line)?;
        line.channel.receive_within(MASTER_TIMEOUT).map_err(of_line)
    })?;
    match (message, fds.into_iter().next()) {
        (ToWorker::Zone(Ok(())), Some(fd)) => Ok(fd),
        (ToWorker::Zone(Err(error)), _) => Err(error),
        _ => Err("the master has answered something else".to_string()),
    }
}
