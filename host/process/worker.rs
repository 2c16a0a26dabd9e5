//! A worker: loads the configuration and its modules, and serves. It does what its master says ([`messages`](super::messages)).

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsFd, OwnedFd},
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
    plan, privileges, scoreboard,
    signals::{Signal, Signals},
};
use crate::{
    config::Texts,
    error_text::ErrorText,
    event::{Ready, Source, TimerId},
    listen::bind,
    log::{
        self,
        error::{self, Level},
    },
    log_line,
    site::{self, Loaded, Site},
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
    /// The channel to the master, as long as the configuration is read: modules ask for zones through it.
    static ASKING: RefCell<Option<Channel>> = const { RefCell::new(None) };
}

/// Runs as a worker, until the master says that it is to end, or ends itself.
pub fn main() -> ExitCode {
    let (channel, start) = match greet() {
        Ok(greeted) => greeted,
        Err(error) => {
            eprintln!("topnext: {VARIABLE} is set, and standard input is no channel to a master ({error}); unset it");
            return ExitCode::FAILURE;
        }
    };
    match serve(channel, start) {
        Ok(()) => ExitCode::SUCCESS,
        Err((channel, reason)) => {
            let report = channel::text_file("report", reason.trim_end().as_bytes());
            let told = report.and_then(|file| channel.send_within(MASTER_TIMEOUT, &ToMaster::Failed, &[file.as_fd()]));
            if let Err(error) = told {
                eprintln!("topnext: {reason}\ntopnext: the master cannot be told ({})", ErrorText(&error));
            }
            log::flush();
            ExitCode::FAILURE
        }
    }
}

/// Takes the channel from standard input, and the first message from it.
fn greet() -> io::Result<(Channel, Received<ToWorker>)> {
    let channel = Channel::from_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    super::close_stdin()?;
    let start = channel.receive_within(MASTER_TIMEOUT)?;
    Ok((channel, start))
}

/// Opens the logs again, and tells the master. It is told of this many that could not be opened; all of them are logged.
fn reopen(channel: &Arc<Channel>, number: u64) {
    const MAX_TOLD: usize = 20;
    let channel = channel.clone();
    log::reopen(move |mut failed| {
        failed.truncate(MAX_TOLD);
        if let Err(error) = channel.send_within(MASTER_TIMEOUT, &ToMaster::Reopened { number, failed }, &[]) {
            log_line!(Level::Alert, "the master cannot be told that logs are open ({})", ErrorText(&error));
        }
    });
}

/// Serves until the end. An error is the reason why it cannot, to be told to the master.
fn serve(channel: Channel, first: Received<ToWorker>) -> Result<(), (Arc<Channel>, String)> {
    stats::uptime();
    ASKING.set(Some(channel));
    let prepared = prepare(first);
    let channel = ASKING.take().expect("put there above, and only borrowed");
    let (site, plan_text, texts) = match prepared {
        Ok(prepared) => prepared,
        Err(reason) => return Err((Arc::new(channel), reason)),
    };
    let channel = Arc::new(channel);
    match start(&channel, site, &plan_text, &texts).map_err(|error| super::of_server(&error)) {
        Ok(loops) => {
            run(channel, site, &loops);
            Ok(())
        }
        Err(reason) => Err((channel, reason)),
    }
}

/// Reads the configuration, and loads all that it names.
fn prepare(first: Received<ToWorker>) -> Result<(&'static Site, Vec<u8>, Vec<u8>), String> {
    let ToWorker::Start(what) = first.message else {
        return Err("topnext: the master began with another message".to_string());
    };
    let mut fds = first.fds.take().into_iter();
    if let Some(board) = fds.next() {
        scoreboard::join(board)
            .map_err(|error| format!("topnext: the scoreboard cannot be mapped ({})", ErrorText(&error)))?;
    }
    let kept = fds.next().map(read_texts).transpose()?;
    let mut loaded = site::load_kept(&what.config, &what.prefix, kept)
        .map_err(|report| format!("{report}topnext: configuration file {} test failed", what.config.display()))?;
    if let Some((processes, threads)) = what.loops {
        // "auto" is what it was when the sockets were opened.
        (loaded.site.processes, loaded.site.threads) = (processes, threads);
    }
    let plan = plan::of(&loaded, &what.prefix);
    let (plan, texts) = match (serde_json::to_vec(&plan), serde_json::to_vec(&*loaded.texts)) {
        (Ok(plan), Ok(texts)) => (plan, texts),
        (plan, texts) => {
            let error = plan.err().or(texts.err()).map(|error| error.to_string()).unwrap_or_default();
            return Err(format!("topnext: the configuration cannot be described: {error}"));
        }
    };
    let site = take_over(loaded, &what);
    Ok((site, plan, texts))
}

fn read_texts(fd: OwnedFd) -> Result<Texts, String> {
    let text =
        channel::read_text(fd).map_err(|error| format!("topnext: the texts cannot be read ({})", ErrorText(&error)))?;
    serde_json::from_slice(&text).map_err(|error| format!("topnext: the texts cannot be read: {error}"))
}

/// Opens the logs, and makes the site the one of the process.
fn take_over(loaded: Loaded, what: &Start) -> &'static Site {
    let Loaded { site, places, warnings, .. } = loaded;
    error::open(site.error_log.clone(), places.iter().map(|place| &place.error_log));
    drop(places);
    if what.warns && site.main.error_log.iter().any(|log| log.path != "stderr") {
        // Standard error has them already, and may not be kept.
        warnings.to_string().lines().for_each(|warning| log_line!(Level::Warn, "{warning}"));
    }
    // A worker has one configuration for its whole life (a reload starts another process), so that nothing on the path of
    // a request has to count who uses it.
    Box::leak(Box::new(site))
}

/// Gets its sockets, and everything ready.
fn start(channel: &Arc<Channel>, site: &'static Site, plan: &[u8], texts: &[u8]) -> Result<Rc<Loops>, String> {
    let of_channel = |error: io::Error| format!("the master does not answer ({})", ErrorText(&error));
    let plan = channel::text_file("plan", plan).map_err(of_channel)?;
    let texts = channel::text_file("configuration", texts).map_err(of_channel)?;
    channel.send_within(MASTER_TIMEOUT, &ToMaster::Loaded, &[plan.as_fd(), texts.as_fd()]).map_err(of_channel)?;
    let sockets = receive_sockets(channel, site).map_err(of_channel)?;
    if let Some(folder) = &site.working_directory {
        std::env::set_current_dir(folder)
            .map_err(|error| format!("chdir() to {} failed ({})", folder.display(), ErrorText(&error)))?;
    }
    privileges::set_limits(&site.main)?;
    if let Some(account) = &site.account {
        account.assume()?;
    }
    log::start();
    let loops = Loops::start(site, sockets)?;
    channel.send_within(MASTER_TIMEOUT, &ToMaster::Ready, &[]).map_err(of_channel)?;
    // The others of the generation may take their time; a master that is gone ends the wait.
    loop {
        match channel.receive_within::<ToWorker>(MASTER_TIMEOUT) {
            Ok(Received { message: ToWorker::Serve, .. }) => return Ok(loops),
            Ok(Received { message: ToWorker::Reopen(number), .. }) => reopen(channel, number),
            Ok(_) => return Err("the master has changed its mind".to_string()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => (),
            Err(error) => return Err(of_channel(error)),
        }
    }
}

fn receive_sockets(channel: &Channel, site: &'static Site) -> io::Result<Vec<LoopSockets>> {
    let mut sockets: Vec<LoopSockets> = (0..site.threads).map(|_| Vec::new()).collect();
    loop {
        let Received { message, fds } = channel.receive_within(MASTER_TIMEOUT)?;
        let ToWorker::Sockets { of, last } = message else {
            return Err(io::Error::other("sockets were expected"));
        };
        for ((address, number), fd) in of.into_iter().zip(fds.take()) {
            bind::restore(&fd)?;
            let address = site.addresses.get(address);
            if let (Some(address), Some(list)) = (address, sockets.get_mut(number)) {
                list.push((&**address, Socket::from(fd)));
            }
        }
        if last {
            return Ok(sockets);
        }
    }
}

/// Accepts connections until the end.
fn run(channel: Arc<Channel>, site: &'static Site, loops: &Rc<Loops>) {
    let lp = &loops.first;
    let worker = Rc::new(Worker {
        channel,
        loops: loops.clone(),
        timeout: site.main.worker_shutdown_timeout,
        shutdown: Cell::default(),
    });
    worker.shutdown.set(Some(lp.add_timer(worker.clone(), 0)));
    let of_signals = worker.clone();
    let signals = Signals::start(lp, move |signal| of_signals.signal(signal));
    let listening = lp.register_listener(&mut SourceFd(&fd_of(&worker.channel)), worker.clone());
    if let Err(error) = signals.and(listening.map(drop)) {
        log_line!(Level::Emerg, "cannot wait for signals and the master ({})", ErrorText(&error));
        log::flush();
        return;
    }
    if let Err(error) = loops.serve() {
        log_line!(Level::Emerg, "{error}");
    }
    worker.tell(&ToMaster::Serving);
    loops.run();
    // Jobs are code of modules: with one still running their state stays, and goes with the process.
    if site.pool.stop(JOBS_TIMEOUT) {
        site.end();
    } else {
        log_line!(Level::Warn, "jobs on the thread pool did not end in {} s", JOBS_TIMEOUT.as_secs());
    }
    log_line!(Level::Notice, "exit");
    log::flush();
}

fn fd_of(channel: &Channel) -> i32 {
    use std::os::fd::AsRawFd;
    channel.as_fd().as_raw_fd()
}

/// What the worker's first loop hears from outside.
struct Worker {
    channel: Arc<Channel>,
    loops: Rc<Loops>,
    /// worker_shutdown_timeout.
    timeout: Option<Duration>,
    /// Runs while it drains, if it has a time to do it in.
    shutdown: Cell<Option<TimerId>>,
}

impl Worker {
    fn tell(&self, message: &ToMaster) {
        if let Err(error) = self.channel.send(message, &[]) {
            log_line!(Level::Alert, "the master cannot be told {message:?} ({})", ErrorText(&error));
        }
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
            // Not said to the master, which replaces a worker that others have end.
            signal::SIGQUIT | signal::SIGWINCH => self.finish(self.timeout, || ()),
            signal::SIGUSR1 => {
                log_line!(Level::Notice, "{received}, reopening logs");
                log::reopen(|_| ());
            }
            // Of the master: HUP, USR2. Of no use: CHLD.
            _ => log_line!(Level::Debug, "{received}"),
        }
    }

    fn handle(self: &Rc<Self>, message: ToWorker) {
        match message {
            ToWorker::Reopen(number) => {
                log_line!(Level::Notice, "reopening logs");
                reopen(&self.channel, number);
            }
            ToWorker::Drain(time) => {
                let worker = self.clone();
                self.finish(time, move || worker.tell(&ToMaster::Draining));
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
            match self.channel.receive::<ToWorker>() {
                Ok(Some(received)) => self.handle(received.message),
                Ok(None) => return,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    log_line!(Level::Alert, "the master has sent what is no message ({error})");
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
pub fn ask_for_zone(name: &str, size: u64) -> Result<OwnedFd, String> {
    let of_channel = |error: io::Error| format!("the master does not answer ({})", ErrorText(&error));
    let Received { message, fds } = ASKING.with_borrow(|channel| {
        let channel = channel.as_ref().ok_or("zones are opened while the configuration is read")?;
        let question = ToMaster::Zone { name: name.to_string(), size };
        channel.send_within(MASTER_TIMEOUT, &question, &[]).map_err(of_channel)?;
        channel.receive_within(MASTER_TIMEOUT).map_err(of_channel)
    })?;
    match (message, fds.take().into_iter().next()) {
        (ToWorker::Zone(Ok(())), Some(fd)) => Ok(fd),
        (ToWorker::Zone(Err(error)), _) => Err(error),
        _ => Err("the master has answered something else".to_string()),
    }
}
