//! A worker, as the master sees it: a process, a channel to it, a pipe from it, a scoreboard.

use std::{
    cell::{Cell, RefCell},
    io,
    ops::ControlFlow,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Command, ExitStatus, Stdio},
    rc::{Rc, Weak},
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use super::{
    change::counted,
    channel::{Channel, MAX_FDS},
    generation::{Generation, Kept},
    master::Master,
    messages::{Start, ToMaster, ToWorker},
    pipe, reopen,
    scoreboard::{self, NUMBER, TURN, View},
    signals::Signals,
    worker,
};
use crate::{
    error_text::ErrorText,
    event::{Ready, SocketId, Source},
    log::error::Level,
    log_line,
    stats::{self, Counter},
};
use mio::unix::SourceFd;
use rustix::process::{Pid, Signal};

/// The longest message of a worker that loads its configuration: that has it whole, or all its errors.
const MAX_LOADED: usize = 256 << 20;
/// And from then on.
const MAX_MESSAGE: usize = 1 << 20;
/// What is kept of a report of errors, in bytes.
const MAX_REPORT: usize = 256 * 1024;
/// What is shown of a message that has no place, in characters.
const MAX_SHOWN: usize = 200;
/// The most zones that a worker may ask for.
const MAX_ZONES: usize = 10_000;

/// How far a worker has come. It goes forward only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It reads its configuration.
    Starting,
    /// The configuration is good, and it has got, or will get, its sockets.
    Loaded,
    /// It could accept connections.
    Ready,
    /// It accepts connections.
    Serving,
    /// It finishes what it has.
    Draining,
}

/// A worker.
pub struct Child {
    /// Its process.
    pub pid: u32,
    /// Which of its generation it is.
    pub slot: usize,
    /// Its generation.
    pub generation: Rc<Generation>,
    /// When it was started.
    pub started: Instant,
    /// What it does.
    pub board: View,
    stage: Cell<Stage>,
    process: RefCell<std::process::Child>,
    channel: Channel,
    pipe: RefCell<pipe::Reader>,
    registered: Cell<Option<SocketId>>,
    is_reaped: Cell<bool>,
    /// What it is to be told once it is ready: to open its logs again, with this number.
    pub reopen_later: Cell<Option<u64>>,
    /// Zones that it has asked for.
    zones: Cell<usize>,
    /// How often it was told to open its logs again and has not answered.
    reopening: Cell<usize>,
    /// It was told to finish what it has.
    told_to_drain: Cell<bool>,
    /// It is to be gone: what it says is of no interest, but for why.
    is_killed: Cell<bool>,
    /// Why it cannot run, as it said.
    report: RefCell<Option<String>>,
    /// What the watchdog has seen of its threads.
    turns: RefCell<Vec<Seen>>,
    master: Weak<Master>,
}

/// A loop's turn, and since when it is in it.
struct Seen {
    turn: u64,
    since_ms: u64,
    is_stuck: bool,
}

impl Child {
    /// Starts one. It runs the program that this process runs, whatever has become of its file, and is in a process group of
    /// its own, so that what is typed at a terminal reaches the master only.
    pub fn start(
        master: &Rc<Master>,
        generation: &Rc<Generation>,
        start: &Start,
        kept: Option<&Kept>,
    ) -> io::Result<Rc<Child>> {
        let (channel, theirs) = Channel::pair()?;
        channel.only_send()?;
        let (pipe, writer) = pipe::pair(MAX_LOADED)?;
        let board = scoreboard::create()?;
        let view = View::new(&board)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("topnext: worker process").env(worker::VARIABLE, "1");
        super::hide_from_children(&mut command);
        let process = command.stdin(Stdio::from(theirs.into_fd())).process_group(0).spawn()?;
        let child = Rc::new(Child {
            pid: process.id(),
            slot: start.slot,
            generation: generation.clone(),
            started: Instant::now(),
            board: view,
            stage: Cell::new(Stage::Starting),
            process: RefCell::new(process),
            channel,
            pipe: RefCell::new(pipe),
            registered: Cell::new(None),
            is_reaped: Cell::default(),
            reopen_later: Cell::default(),
            zones: Cell::default(),
            reopening: Cell::default(),
            told_to_drain: Cell::default(),
            is_killed: Cell::default(),
            report: RefCell::default(),
            turns: RefCell::default(),
            master: Rc::downgrade(master),
        });
        let fds: Vec<BorrowedFd> =
            [writer.as_fd(), board.as_fd()].into_iter().chain(kept.into_iter().flat_map(Kept::fds)).collect();
        let begun = master
            .lp
            .register_listener(&mut SourceFd(&child.pipe.borrow().as_fd().as_raw_fd()), child.clone())
            .map(|id| child.registered.set(Some(id)))
            .and_then(|()| child.channel.send(&ToWorker::Start(start.clone()), &fds));
        if let Err(error) = begun {
            child.kill();
            child.forget(master);
            let _ = child.process.borrow_mut().wait();
            return Err(error);
        }
        Ok(child)
    }

    /// How far it has come.
    pub fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// It has come this far, as it says or was told.
    pub fn reach(&self, stage: Stage) {
        self.stage.set(self.stage.get().max(stage));
    }

    /// Sends it a message. One that cannot be told anything is about to end, or hangs; that is logged.
    pub fn tell(&self, message: &ToWorker, fds: &[BorrowedFd<'_>]) -> bool {
        let sent = self.channel.send(message, fds);
        if sent.is_ok() && matches!(message, ToWorker::Reopen(_)) {
            self.reopening.set(self.reopening.get() + 1);
        }
        if let Err(error) = &sent {
            // One whose end is still to be told.
            let level = if error.kind() == io::ErrorKind::BrokenPipe { Level::Debug } else { Level::Alert };
            log_line!(level, "worker {} cannot be told {message:?} ({})", self.pid, ErrorText(error));
        }
        sent.is_ok()
    }

    /// Hands it its sockets: for each the address's index, the loop, and the socket.
    pub fn give_sockets(&self, sockets: &[(usize, usize, BorrowedFd<'_>)]) -> bool {
        let mut parts = sockets.chunks(MAX_FDS).peekable();
        loop {
            let part = parts.next().unwrap_or_default();
            let last = parts.peek().is_none();
            let of = part.iter().map(|(address, number, _)| (*address, *number)).collect();
            let fds: Vec<BorrowedFd> = part.iter().map(|(.., fd)| *fd).collect();
            if !self.tell(&ToWorker::Sockets { of, last }, &fds) {
                return false;
            }
            if last {
                return true;
            }
        }
    }

    /// Has it stand in for the worker of another slot, which has these sockets.
    pub fn lend_sockets(&self, slot: usize, sockets: &[(usize, usize, BorrowedFd<'_>)]) -> bool {
        sockets.chunks(MAX_FDS).all(|part| {
            let of = part.iter().map(|(address, ..)| *address).collect();
            let fds: Vec<BorrowedFd> = part.iter().map(|(.., fd)| *fd).collect();
            self.tell(&ToWorker::Lend { slot, of }, &fds)
        })
    }

    /// Whether it was ended.
    pub fn is_killed(&self) -> bool {
        self.is_killed.get()
    }

    /// Whether it does what it is told to, or may at least: it was not told to end, in one way or another.
    pub fn is_to_stay(&self) -> bool {
        !self.is_killed.get() && !self.told_to_drain.get()
    }

    /// Has it finish what it has. Told once: it answers each time.
    pub fn drain(&self, timeout: Option<Duration>) {
        if !self.told_to_drain.get() {
            self.told_to_drain.set(self.tell(&ToWorker::Drain(timeout), &[]));
        }
    }

    /// Ends it at once, for a reason that its end is explained with.
    pub fn end_for(&self, reason: &str) {
        let text = format!("worker {} {reason}; it is ended", self.pid);
        log_line!(Level::Alert, "{text}");
        if self.report.borrow().is_none() {
            self.report.replace(Some(format!("topnext: {text}")));
        }
        self.kill();
    }

    /// Ends it at once.
    pub fn kill(&self) {
        self.is_killed.set(true);
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        if self.is_reaped.get() {
            // The number may be another process's by now.
            return;
        }
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        let status = self.process.borrow_mut().try_wait().ok().flatten();
        self.is_reaped.set(self.is_reaped.get() || status.is_some());
        status
    }

    /// Listens to it no more.
    pub fn forget(&self, master: &Rc<Master>) {
        if let Some(id) = self.registered.take() {
            master.lp.deregister(&mut SourceFd(&self.pipe.borrow().as_fd().as_raw_fd()), id);
        }
    }

    /// Why it could not run, as it said; taken once.
    pub fn take_report(&self) -> Option<String> {
        self.report.take()
    }

    /// Handles what it has said.
    pub fn read(self: &Rc<Self>, master: &Rc<Master>) {
        loop {
            let received = self.pipe.borrow_mut().receive::<ToMaster>();
            match received {
                Ok(Some(message)) => {
                    if self.handle(master, message).is_break() {
                        return;
                    }
                }
                // Its end is told by a signal.
                Ok(None) => return,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return,
                Err(error) => return self.end_for(&format!("has sent what is no message ({error})")),
            }
        }
    }

    /// Does what a message asks for. Each has its place in the worker's life, so that their number is bounded; one that says
    /// anything else is not what it should be, and is ended.
    fn handle(self: &Rc<Self>, master: &Rc<Master>, message: ToMaster) -> ControlFlow<()> {
        match (message, self.stage()) {
            // What was on its way: of interest is why it cannot run, if that is not known.
            (message, _)
                if self.is_killed.get()
                    && (self.report.borrow().is_some() || !matches!(message, ToMaster::Failed(_))) => {}
            (ToMaster::Zone { name, size, layout }, Stage::Starting) if self.zones.get() < MAX_ZONES => {
                self.zones.set(self.zones.get() + 1);
                master.give_zone(self, name, size, layout);
            }
            (ToMaster::Loaded { plan, kept }, Stage::Starting) => {
                self.reach(Stage::Loaded);
                self.pipe.borrow_mut().set_limit(MAX_MESSAGE);
                master.loaded(self, *plan, kept);
            }
            (ToMaster::Failed(reason), Stage::Starting | Stage::Loaded | Stage::Ready)
                if self.report.borrow().is_none() =>
            {
                self.report.replace(Some(shortened(printable(&reason))));
            }
            (ToMaster::Ready, Stage::Loaded) => {
                self.reach(Stage::Ready);
                if let Some(number) = self.reopen_later.take() {
                    self.tell(&ToWorker::Reopen(number), &[]);
                }
                master.moved(self);
            }
            (ToMaster::Serving, Stage::Ready) => {
                self.reach(Stage::Serving);
                master.moved(self);
            }
            (ToMaster::Draining, Stage::Ready | Stage::Serving) if self.told_to_drain.get() => {
                self.reach(Stage::Draining);
                master.moved(self);
            }
            // It left before it was told to.
            (ToMaster::Draining, Stage::Draining) if self.told_to_drain.get() => master.moved(self),
            (ToMaster::Leaving, Stage::Serving) => {
                self.reach(Stage::Draining);
                master.left(self);
            }
            (ToMaster::Reopened { number, failed }, _) if self.reopening.get() > 0 => {
                self.reopening.set(self.reopening.get() - 1);
                let failed = failed.iter().map(|text| printable(text)).collect();
                reopen::done(master, self.pid, Some(number), failed);
            }
            (message, stage) => {
                let message: String = format!("{message:?}").chars().take(MAX_SHOWN).collect();
                self.end_for(&format!("has sent {message} when it was {stage:?}"));
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Where each of its threads is, or was when it died: `loop 0: module "x", hook content`. Those in no module are left out,
    /// unless `all`.
    pub fn whereabouts(&self, all: bool) -> Vec<String> {
        let place = |board: &[AtomicU64]| {
            if scoreboard::running(board).0 == 0 && !all {
                return None;
            }
            let thread = match scoreboard::word(board, NUMBER) {
                // The loop that it is to be has no number yet.
                0 if self.stage() < Stage::Ready => "the main thread".to_string(),
                0 => "a thread of the pool".to_string(),
                number => format!("loop {}", number - 1),
            };
            Some(format!("{thread} in {}", self.place_of(board)))
        };
        self.board.boards().filter_map(place).collect()
    }

    /// The module and hook that a thread is in, and for which request.
    fn place_of(&self, board: &[AtomicU64]) -> String {
        let (slot, hook) = scoreboard::running(board);
        if slot == 0 {
            return "the host".to_string();
        }
        let request = match scoreboard::request(board).filter(|_| hook.has_request()) {
            Some((connection, line)) => format!(", *{connection}, request: \"{}\"", line.escape_ascii()),
            None => String::new(),
        };
        let plan = self.generation.plan();
        match plan.as_ref().and_then(|plan| plan.modules.iter().find(|module| module.slot == slot)) {
            Some(module) => format!("module {} {}, hook {}{request}", module.name, module.version, hook.name()),
            None => format!("the module declared as number {slot}, hook {}{request}", hook.name()),
        }
    }

    /// Logs loops that have not turned for so long, and those that turn again.
    pub fn look_for_stuck_loops(&self, now_ms: u64, timeout: Duration) {
        let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let seen = &mut *self.turns.borrow_mut();
        for (index, board) in self.board.boards().enumerate() {
            let turn = scoreboard::word(board, TURN);
            if seen.len() <= index {
                seen.push(Seen { turn, since_ms: now_ms, is_stuck: false });
                continue;
            }
            let last = &mut seen[index];
            let number = scoreboard::word(board, NUMBER);
            // An even number of turns and their ends: it waits for events, which is all right.
            if last.turn != turn || turn.is_multiple_of(2) || number == 0 {
                if last.is_stuck {
                    log_line!(Level::Notice, "worker {}: loop {} turns again", self.pid, number.saturating_sub(1));
                }
                *last = Seen { turn, since_ms: now_ms, is_stuck: false };
            } else if now_ms.saturating_sub(last.since_ms) >= timeout && !last.is_stuck {
                last.is_stuck = true;
                let seconds = now_ms.saturating_sub(last.since_ms) as f64 / 1000.0;
                log_line!(
                    Level::Alert,
                    "worker {}: loop {} has not turned for {seconds:.1} s; it is in {}",
                    self.pid,
                    number - 1,
                    self.place_of(board)
                );
            }
        }
    }

    /// What it was doing, for a line of the log.
    pub fn in_flight(&self) -> String {
        let count = |counter| stats::sum(self.board.boards(), counter);
        let (requests, connections) = (count(Counter::Running), count(Counter::Connections));
        format!("{} and {}", counted(requests, "request"), counted(connections, "connection"))
    }
}

/// What a worker says, for somebody's terminal: lines, without what terminals obey.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            out.push_str(&format!("\\x{:02X}", c as u32));
        } else {
            out.push(c);
        }
    }
    out
}

/// A report, as far as it is not too long.
fn shortened(mut report: String) -> String {
    if report.len() > MAX_REPORT {
        let end = memchr::memrchr(b'\n', &report.as_bytes()[..MAX_REPORT]).unwrap_or(0);
        let rest = memchr::memchr_iter(b'\n', &report.as_bytes()[end..]).count();
        report.truncate(end);
        report.push_str(&format!("\ntopnext: the report is cut here; it has {rest} more lines"));
    }
    report
}

/// How a process ended, in words.
pub fn describe(status: ExitStatus) -> String {
    let dumped = if status.core_dumped() { ", core dumped" } else { "" };
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("exited on signal {signal} ({}{dumped})", Signals::name(signal)),
        (None, Some(code)) => format!("exited with code {code}"),
        (None, None) => "ended".to_string(),
    }
}

impl Source for Child {
    fn ready(self: Rc<Self>, _: Ready) {
        if let Some(master) = self.master.upgrade() {
            self.read(&master);
        }
    }
}
