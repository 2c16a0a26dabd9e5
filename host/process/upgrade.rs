//! Another master takes over: a new version of the program, or the one in the background.
//!
//! ```text
//! old master                         new master
//!   SIGUSR2: renames pid file and
//!   control socket to *.oldbin
//!   starts it            -------->
//!   Sockets, Zone, End   -------->   adopts them, starts its workers
//!                        <--------   Ready, or Failed and its end: then the files get their names back
//!   SIGWINCH: its workers drain; SIGQUIT: it ends             SIGHUP: it has workers again; SIGQUIT to the new one: the way back
//! ```
//!
//! Both may reload meanwhile. A socket file is removed by the last of them that has it: the end of one leaves what the other
//! listens on, and takes with it what only this one has.

use std::{
    cell::Cell,
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use mio::unix::SourceFd;
use serde::{Deserialize, Serialize};

use super::{
    change::Task,
    channel::{self, Channel, MAX_FDS, Received},
    child,
    master::{DAEMON, Master, Options, UPGRADE},
    pid_file, systemd,
};
use crate::{
    config::Listen,
    error_text::ErrorText,
    event::{Ready, Source},
    listen::{
        bind::{Identity, SocketFile},
        sockets::{Kind, Wanted},
    },
    log::{self, error::Level},
    log_line,
    socket::Socket,
};

/// How long the other side is waited for, when a message is to be there at once.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long whoever has started a server in the background waits for it.
const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(120);

/// What an old master hands over.
#[derive(Serialize, Deserialize)]
enum Handover {
    /// Sockets of one address.
    Sockets {
        /// The address, with the options that it has.
        wanted: Wanted,
        /// How they have come to be.
        kind: Kind,
        /// More sockets of this address come.
        more: bool,
    },
    /// The socket file of the sockets that come next, with what tells whether another process has it.
    File {
        /// Which file it is.
        identity: Identity,
    },
    /// A zone.
    Zone {
        /// Its name.
        name: String,
        /// Its size.
        size: u64,
        /// What its words mean.
        layout: u64,
    },
    /// That is all.
    End,
}

/// What a new master says, with a text.
#[derive(Debug, Serialize, Deserialize)]
enum Outcome {
    Ready,
    Failed,
}

/// How a master has come to be, and so who is told whether it serves.
pub enum Beginning {
    /// Started at a terminal, or by a service manager.
    Foreground,
    /// In the background, by one that waits.
    Daemon(Channel),
    /// By another master.
    Upgrade(Channel),
}

impl Beginning {
    /// How this process has come to be.
    pub fn of_process() -> Result<Beginning, String> {
        let make = if std::env::var_os(DAEMON).is_some() {
            Beginning::Daemon
        } else if std::env::var_os(UPGRADE).is_some() {
            Beginning::Upgrade
        } else {
            return Ok(Beginning::Foreground);
        };
        let channel = io::stdin().as_fd().try_clone_to_owned().and_then(Channel::from_fd);
        let channel = channel.and_then(|channel| super::empty_stdin().map(|()| channel)).map_err(|error| {
            format!("{DAEMON} or {UPGRADE} is set, and standard input is no channel ({}); unset it", ErrorText(&error))
        })?;
        Ok(make(channel))
    }

    /// The server serves.
    pub fn ready(self, master: &Rc<Master>, greeting: &str) {
        match self {
            // At once, so that whoever reads it does not see a part.
            Beginning::Foreground => log::say(greeting),
            Beginning::Daemon(channel) => {
                tell(&channel, &Outcome::Ready, greeting);
            }
            Beginning::Upgrade(channel) => {
                tell(&channel, &Outcome::Ready, greeting);
                Other::watch(master, channel);
            }
        }
    }

    /// It cannot serve.
    pub fn failed(self, reason: &str) {
        match self {
            // The command line says it.
            Beginning::Foreground => (),
            Beginning::Daemon(channel) | Beginning::Upgrade(channel) => tell(&channel, &Outcome::Failed, reason),
        }
    }
}

fn tell(channel: &Channel, outcome: &Outcome, text: &str) {
    let sent = channel::text_file("outcome", text.as_bytes())
        .and_then(|file| channel.send_within(TIMEOUT, outcome, &[file.as_fd()]));
    if let Err(error) = sent {
        log_line!(Level::Alert, "who has started this process cannot be told {outcome:?} ({})", ErrorText(&error));
    }
}

/// What comes with an outcome.
fn text_of(fds: &[OwnedFd]) -> String {
    let text = fds.first().map(channel::read_text).and_then(Result::ok).unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}

/// Starts the server in the background, and waits until it serves: what it says then, or why it does not.
pub fn start_daemon(options: &Options) -> Result<String, String> {
    let cannot = |error: io::Error| format!("the server cannot be started in the background ({})", ErrorText(&error));
    let (channel, theirs) = Channel::pair().map_err(cannot)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0(&options.program).args(&options.arguments).env(DAEMON, "1").stdin(Stdio::from(theirs.into_fd()));
    command.spawn().map_err(cannot)?;
    drop(command);
    match channel.receive_within::<Outcome>(BACKGROUND_TIMEOUT) {
        Ok(Received { message, fds }) => {
            let text = text_of(&fds);
            match message {
                Outcome::Ready => Ok(text),
                Outcome::Failed => Err(text),
            }
        }
        Err(error) => Err(cannot(error)),
    }
}

/// Leaves the terminal and the session of who started this process.
pub fn enter_background() -> io::Result<()> {
    super::set_name();
    rustix::process::setsid()?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

/// Another master beside this one.
#[derive(Default)]
pub struct Upgrade {
    /// The one that this one has started.
    new: Option<std::process::Child>,
    /// The one that has started this one, or was started by it, lives.
    other: Option<Rc<Other>>,
}

impl Upgrade {
    /// Whether another master has started this one, and lives.
    pub fn is_new_one(&self) -> bool {
        self.new.is_none() && self.other.is_some()
    }

    /// The process of the other master, if there is one.
    pub fn other_process(&self) -> Option<u32> {
        let parent = || rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get().cast_unsigned());
        self.new.as_ref().map(std::process::Child::id).or_else(|| self.is_new_one().then(parent).flatten())
    }

    /// Whether there is another master, with the same sockets.
    pub fn is_under_way(&self) -> bool {
        self.new.is_some() || self.other.is_some()
    }
}

/// Takes over what an old master hands over, if this one was started by it.
pub fn take_over(master: &Rc<Master>) -> Result<(), String> {
    master.with_beginning(|beginning| match beginning {
        Some(Beginning::Upgrade(channel)) => adopt(master, channel)
            .map_err(|error| format!("the old master does not hand over its sockets ({})", ErrorText(&error))),
        _ => Ok(()),
    })
}

fn adopt(master: &Rc<Master>, channel: &Channel) -> io::Result<()> {
    let mut collected = Vec::new();
    let mut of_file = None;
    loop {
        let Received { message, fds } = channel.receive_within::<Handover>(TIMEOUT)?;
        match message {
            Handover::Sockets { wanted, kind, more } => {
                collected.extend(fds.into_iter().map(Socket::from));
                if !more {
                    let sockets = std::mem::take(&mut collected);
                    let file = match (of_file.take(), &wanted.address) {
                        (Some((identity, holders)), Listen::Unix(path)) => {
                            Some(SocketFile::of_other(path, identity, holders))
                        }
                        _ => None,
                    };
                    master.sockets.borrow_mut().adopt(wanted, sockets, kind, file);
                }
            }
            Handover::File { identity } => of_file = fds.try_into().ok().map(|holders| (identity, holders)),
            Handover::Zone { name, size, layout } => {
                fds.into_iter().for_each(|fd| master.zones.borrow_mut().adopt(name.clone(), size, layout, fd));
            }
            Handover::End => return Ok(()),
        }
    }
}

/// Starts a new master (SIGUSR2).
pub fn start(master: &Rc<Master>) {
    if master.upgrade.borrow().is_under_way() {
        return log_line!(Level::Warn, "ignored, since another master runs already");
    }
    if let Err(reason) = rename(master, pid_file::old) {
        log_line!(Level::Alert, "no new master is started: {reason}");
        return give_names_back(master);
    }
    match spawn(master) {
        Ok(process) => {
            log_line!(Level::Notice, "a new master is started, process {}", process.id());
            master.upgrade.borrow_mut().new = Some(process);
        }
        Err(reason) => {
            log_line!(Level::Alert, "no new master is started: {} {reason}", master.options.program.display());
            give_names_back(master);
        }
    }
}

fn spawn(master: &Rc<Master>) -> Result<std::process::Child, String> {
    let failed = |error: io::Error| format!("cannot be started ({})", ErrorText(&error));
    let Options { program, arguments, .. } = &master.options;
    let (channel, theirs) = Channel::pair().map_err(failed)?;
    let mut command = Command::new(program);
    super::hide_from_children(&mut command);
    // It tells systemd that it is the main process by now.
    if let Some(notify) = std::env::var_os("NOTIFY_SOCKET") {
        command.env("NOTIFY_SOCKET", notify);
    }
    let process = command.args(arguments).env(UPGRADE, "1").stdin(Stdio::from(theirs.into_fd())).spawn();
    drop(command);
    let mut process = process.map_err(failed)?;
    if let Err(error) = hand_over(master, &channel) {
        let _ = process.kill();
        let end = process.wait().map_or_else(|_| "is gone".to_string(), child::describe);
        return Err(format!("does not take over ({}); it {end}", ErrorText(&error)));
    }
    Other::watch(master, channel);
    Ok(process)
}

/// All of it within [`TIMEOUT`]. The channel has room for the sockets of some hundred addresses, so that it waits only with more.
fn hand_over(master: &Rc<Master>, channel: &Channel) -> io::Result<()> {
    let until = Instant::now() + TIMEOUT;
    let send = |message: &Handover, fds: &[BorrowedFd<'_>]| {
        channel.send_within(until.saturating_duration_since(Instant::now()), message, fds)
    };
    for (wanted, sockets, kind, file) in master.sockets.borrow().all() {
        if let Some((identity, holders)) = file.and_then(SocketFile::to_hand_over) {
            send(&Handover::File { identity }, &holders)?;
        }
        let mut parts = sockets.chunks(MAX_FDS).peekable();
        while let Some(part) = parts.next() {
            let more = parts.peek().is_some();
            let fds: Vec<BorrowedFd> = part.iter().map(AsFd::as_fd).collect();
            send(&Handover::Sockets { wanted: wanted.clone(), kind, more }, &fds)?;
        }
    }
    for (name, size, layout, fd) in master.zones.borrow().all() {
        send(&Handover::Zone { name: name.to_string(), size, layout }, &[fd])?;
    }
    send(&Handover::End, &[])
}

/// Gives pid file and control socket other names, unless they have them. One that has vanished does not keep the other from it.
fn rename(master: &Rc<Master>, name: impl Fn(&Path) -> PathBuf) -> Result<(), String> {
    let of_pid_file = master.pid_file.borrow_mut().as_mut().map_or(Ok(()), |file| {
        let path = name(file.path());
        if path == file.path() { Ok(()) } else { file.rename(path) }
    });
    let of_control = master.control.borrow_mut().as_mut().map_or(Ok(()), |control| {
        let path = name(control.path());
        if path == control.path() { Ok(()) } else { control.rename(path) }
    });
    of_pid_file.and(of_control)
}

/// There is no new master, or no more: this one is the server again.
fn give_names_back(master: &Rc<Master>) {
    let without_ending = |path: &Path| {
        let bytes = path.as_os_str().as_bytes().strip_suffix(pid_file::OLD.as_bytes());
        bytes.map_or(path.to_path_buf(), |bytes| PathBuf::from(OsStr::from_bytes(bytes)))
    };
    if let Err(reason) = rename(master, without_ending) {
        log_line!(Level::Alert, "{reason}");
    }
}

/// Looks whether a new master has ended.
pub fn reap(master: &Rc<Master>) {
    let status = master.upgrade.borrow_mut().new.as_mut().and_then(|process| process.try_wait().ok().flatten());
    let Some(status) = status else { return };
    let other = master.upgrade.borrow_mut().other.take();
    if let Some(other) = other {
        // What it has said before its end.
        other.ready_of(master);
        other.forget(master);
    }
    master.upgrade.borrow_mut().new = None;
    log_line!(Level::Notice, "the new master {}; this one goes on", child::describe(status));
    systemd::ready();
    give_names_back(master);
    if master.is_dismissed() {
        // Else nobody would serve (as in nginx).
        master.perform(Task::Restart);
    }
}

/// The channel to the other master: its end tells that it is gone.
struct Other {
    channel: Channel,
    master: Weak<Master>,
    registered: Cell<Option<crate::event::SocketId>>,
}

impl Other {
    fn watch(master: &Rc<Master>, channel: Channel) {
        let other = Rc::new(Other { channel, master: Rc::downgrade(master), registered: Cell::default() });
        match master.lp.register_listener(&mut SourceFd(&other.channel.as_fd().as_raw_fd()), other.clone()) {
            Ok(id) => {
                other.registered.set(Some(id));
                master.upgrade.borrow_mut().other = Some(other);
            }
            Err(error) => log_line!(Level::Alert, "the other master cannot be watched ({})", ErrorText(&error)),
        }
    }

    fn forget(&self, master: &Rc<Master>) {
        if let Some(id) = self.registered.take() {
            master.lp.deregister(&mut SourceFd(&self.channel.as_fd().as_raw_fd()), id);
        }
    }

    fn ready_of(&self, master: &Rc<Master>) {
        loop {
            match self.channel.receive::<Outcome>() {
                Ok(Some(Received { message: Outcome::Ready, .. })) => {
                    log_line!(Level::Notice, "the new master serves; SIGWINCH has the workers of this one finish");
                }
                Ok(Some(Received { message: Outcome::Failed, fds })) => {
                    text_of(&fds)
                        .lines()
                        .for_each(|line| log_line!(Level::Error, "the new master cannot serve: {line}"));
                }
                Ok(None) => return,
                Err(_) => {
                    // A new one that has ended is reaped; an old one is simply gone.
                    if master.upgrade.borrow().new.is_none() {
                        log_line!(Level::Notice, "the old master is gone");
                        master.upgrade.borrow_mut().other = None;
                        self.forget(master);
                    }
                    return;
                }
            }
        }
    }
}

impl Source for Other {
    fn ready(self: Rc<Self>, _: Ready) {
        if let Some(master) = self.master.upgrade() {
            self.ready_of(&master);
        }
    }
}
