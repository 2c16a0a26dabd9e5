//! The control socket: what `topnext -s` and `topnext status` ask the master for.
//!
//! It is `topnext.sock` in the prefix, so that it is found though the configuration is broken. A client sends one word and a line
//! end, and gets one line of JSON when what it has asked for has come out: `{"ok": true, "text": "..."}`. Each question has a
//! connection of its own. A socket whose file has vanished is made again at a SIGHUP.

use std::{
    cell::{Cell, RefCell},
    io::{self, Read, Write},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::{
    change::Task,
    master::{Ending, Master},
    pid_file::cannot_rename,
    status,
};
use crate::{
    config::ListenOptions,
    error_text::ErrorText,
    event::{Loop, Ready, SocketId, Source, TimerId},
    listen::bind::{self, SocketFile},
    log::error::Level,
    log_line,
    socket::Socket,
};

/// Its name in the prefix.
pub const NAME: &str = "topnext.sock";
/// Who may connect: the user of the master, and root.
const MODE: u32 = 0o600;
/// The longest path of a socket file (unix(7)).
const MAX_PATH: usize = 107;
/// The longest question.
const MAX_QUESTION: usize = 256;
/// The most that a client may have said when it has its answer.
const MAX_DISCARDED: usize = 1 << 20;
/// How long a client may take to ask, and to read its answer; and how long it waits for what takes no time.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most clients at a time.
const MAX_CLIENTS: usize = 64;
/// When accepting is tried again after it failed for want of descriptors or memory.
const RETRY: Duration = Duration::from_millis(500);
/// How long answers that are under way are waited for when the master ends.
const LAST_TIMEOUT: Duration = Duration::from_secs(2);

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// What was asked for has been done.
    pub ok: bool,
    /// What there is to say.
    pub text: String,
}

/// A socket file in this folder, by a path that is short enough for the system; with the folder, if it has to stay open.
fn short_path(path: &Path) -> io::Result<(PathBuf, Option<OwnedFd>)> {
    use std::os::{fd::AsRawFd, unix::ffi::OsStrExt};
    if path.as_os_str().as_bytes().len() <= MAX_PATH {
        return Ok((path.to_path_buf(), None));
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    let fd = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let name = path.file_name().unwrap_or_default();
    let short = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())).join(name);
    Ok((short, Some(fd)))
}

// ---- the client

/// Asks the master whose prefix this is. The answer comes when what is asked for has come out. `otherwise` may know why there is
/// no socket.
pub fn ask(prefix: &Path, question: &str, otherwise: impl FnOnce() -> Option<String>) -> Result<Answer, String> {
    let path = prefix.join(NAME);
    let nobody =
        |why: &str| format!("no topnext runs with the prefix {} ({}: {why})", prefix.display(), path.display());
    let connected = short_path(&path).and_then(|(short, _folder)| UnixStream::connect(short));
    let mut stream = connected.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let old = super::pid_file::old(&path);
            if old.exists() {
                return format!(
                    "an upgrade is under way, and the new master does not answer yet ({} is there, {} is not); see the error log",
                    old.display(),
                    path.display()
                );
            }
            otherwise().unwrap_or_else(|| nobody("there is no such file"))
        }
        io::ErrorKind::ConnectionRefused => nobody("it was left behind, nobody listens on it"),
        io::ErrorKind::PermissionDenied => {
            format!(
                "{} is not for this user ({}); ask as the user who started the server",
                path.display(),
                ErrorText(&error)
            )
        }
        _ => format!("cannot connect to {} ({})", path.display(), ErrorText(&error)),
    })?;
    let lost = |error: io::Error| format!("the master does not answer ({})", ErrorText(&error));
    stream.set_read_timeout(Some(TIMEOUT)).map_err(lost)?;
    // A master that refuses to listen has said why.
    let sent = stream.write_all(format!("{question}\n").as_bytes());
    let text = read_answer(&mut stream, question == status::QUESTION)?;
    if text.is_empty() {
        sent.map_err(lost)?;
        return Err("the master has ended, or was too busy to answer; see its error log".to_string());
    }
    serde_json::from_slice(&text).map_err(|error| format!("the master has answered what is no answer: {error}"))
}

/// What comes until the connection ends, in whatever way. What takes no time has one; what takes its time has none, unless the
/// master is stopped.
fn read_answer(stream: &mut UnixStream, takes_no_time: bool) -> Result<Vec<u8>, String> {
    let master = rustix::net::sockopt::socket_peercred(&*stream).map_or(0, |of| of.pid.as_raw_nonzero().get());
    let mut text = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(text),
            Ok(n) => text.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if takes_no_time || is_stopped(master) {
                    let seconds = TIMEOUT.as_secs();
                    return Err(format!(
                        "the master, process {master}, has not answered within {seconds} s; it may be stopped or stuck"
                    ));
                }
            }
            Err(_) => return Ok(text),
        }
    }
}

/// Whether a signal or a debugger has stopped it (proc(5)).
fn is_stopped(process: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|behind| behind.trim_start().starts_with(['T', 't']))
}

/// A word as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.chars().all(|c| c.is_alphanumeric() || "/._-+,:@%=".contains(c)) {
        return text;
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

// ---- the master

/// The socket, and who has connected.
pub struct Listening {
    path: PathBuf,
    file: SocketFile,
    _folder: Option<OwnedFd>,
    listener: Rc<Listener>,
    id: SocketId,
    lp: Rc<Loop>,
}

impl Listening {
    /// Opens it. An error if another master has it.
    pub fn start(master: &Rc<Master>) -> Result<Listening, String> {
        Listening::open(master, master.options.prefix.join(NAME))
    }

    fn open(master: &Rc<Master>, path: PathBuf) -> Result<Listening, String> {
        let cannot = |reason: String| {
            let advice = match reason.as_str() {
                bind::IN_USE => {
                    let prefix = quoted(&master.options.prefix);
                    format!(
                        "end the other server with `topnext -p {prefix} -s quit`, or give this one another prefix with -p"
                    )
                }
                bind::NO_SOCKET => "remove it, or give this server another prefix with -p".to_string(),
                _ => {
                    "a server has to be able to make this file; give it another prefix with -p if it cannot".to_string()
                }
            };
            format!("cannot listen for commands on {}: {reason}; {advice}", path.display())
        };
        let system = |error: io::Error| cannot(format!("({})", ErrorText(&error)));
        let (short, folder) = short_path(&path).map_err(system)?;
        let (socket, file) = bind::unix(&short, &ListenOptions::default(), MODE).map_err(cannot)?;
        let clients = CLIENTS.with_borrow_mut(|clients| clients.get_or_insert_default().clone());
        let (lp, of_master) = (master.lp.clone(), Rc::downgrade(master));
        let retry = Cell::default();
        let is_failing = Cell::new(false);
        let listener = Rc::new(Listener { lp, socket, master: of_master, clients, retry, is_failing });
        let id = master.lp.register_listener(&mut &listener.socket, listener.clone()).map_err(system)?;
        listener.retry.set(Some(master.lp.add_timer(listener.clone(), 0)));
        Ok(Listening { path, file, _folder: folder, listener, id, lp: master.lp.clone() })
    }

    /// Makes it again if its file has vanished.
    pub fn restore(master: &Rc<Master>) {
        let vanished = |known: &&Listening| !known.file.is_there();
        let path = master.control.borrow().as_ref().filter(vanished).map(|known| known.path.clone());
        let Some(known) = path else { return };
        log_line!(Level::Warn, "the control socket {} has vanished, it is made again", known.display());
        // An old master that is the server again may not have got its name back.
        let path = if master.upgrade.borrow().is_under_way() { known } else { master.options.prefix.join(NAME) };
        match Listening::open(master, path) {
            Ok(made) => drop(master.control.replace(Some(made))),
            Err(reason) => log_line!(Level::Error, "{reason}"),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it another name in the same folder. An error names it.
    pub fn rename(&mut self, path: PathBuf) -> Result<(), String> {
        let name = path.file_name().unwrap_or_default().to_owned();
        self.file.rename(&name).map_err(|error| cannot_rename(&self.path, &path, &error))?;
        self.path = path;
        Ok(())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.lp.deregister(&mut &self.listener.socket, self.id);
        if let Some(timer) = self.listener.retry.take() {
            self.lp.remove_timer(timer);
        }
    }
}

thread_local! {
    /// Clients that are connected: they may outlive the socket, since the end is an answer too.
    static CLIENTS: RefCell<Option<Rc<Cell<usize>>>> = const { RefCell::new(None) };
}

/// The master has ended: gives answers that are under way some time to leave.
pub fn finish(lp: &Rc<Loop>) {
    let until = Instant::now() + LAST_TIMEOUT;
    let left = || CLIENTS.with_borrow(|clients| clients.as_ref().map_or(0, |clients| clients.get()));
    while left() > 0 && Instant::now() < until {
        if lp.turn_once(Duration::from_millis(50)).is_err() {
            return;
        }
    }
}

struct Listener {
    lp: Rc<Loop>,
    socket: Socket,
    master: Weak<Master>,
    clients: Rc<Cell<usize>>,
    retry: Cell<Option<TimerId>>,
    /// Accepting has failed, which was logged, and has not succeeded since.
    is_failing: Cell<bool>,
}

impl Listener {
    fn accept(self: &Rc<Self>) {
        let Some(master) = self.master.upgrade() else { return };
        loop {
            match self.socket.accept() {
                Ok((socket, _)) => {
                    self.is_failing.set(false);
                    if self.clients.get() < MAX_CLIENTS {
                        Client::start(&master, socket, &self.clients);
                    } else {
                        refuse(&socket);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return self.failed(&error),
            }
        }
    }

    /// Out of descriptors or memory: those who wait are not announced again.
    fn failed(&self, error: &io::Error) {
        if !self.is_failing.replace(true) {
            log_line!(Level::Crit, "accept() on the control socket failed ({})", ErrorText(error));
        }
        if let Some(timer) = self.retry.get() {
            self.lp.start_timer(timer, RETRY);
        }
    }
}

/// One client too many: it is told so, as far as that takes no time.
fn refuse(socket: &Socket) {
    let reason = format!("more than {MAX_CLIENTS} clients of the control socket");
    log_line!(Level::Warn, "{reason}");
    let answer = line_of(Err(super::of_server(&format!("{reason}; ask again when some have their answers"))));
    let _ = rustix::net::send(socket, &answer, rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT);
}

fn line_of(result: Result<String, String>) -> Vec<u8> {
    let answer = match result {
        Ok(text) => Answer { ok: true, text },
        Err(text) => Answer { ok: false, text },
    };
    let mut line = serde_json::to_vec(&answer).unwrap_or_default();
    line.push(b'\n');
    line
}

impl Source for Listener {
    fn ready(self: Rc<Self>, _: Ready) {
        self.accept();
    }

    fn expired(self: Rc<Self>, _: u32) {
        self.accept();
    }
}

/// Who asks.
struct Client {
    lp: Rc<Loop>,
    master: Weak<Master>,
    socket: Socket,
    id: Cell<Option<SocketId>>,
    timer: Cell<Option<TimerId>>,
    question: RefCell<Vec<u8>>,
    answer: RefCell<Vec<u8>>,
    /// The question is complete.
    asked: Cell<bool>,
    /// The answer has been written. What the client has said beyond its question is read, so that the end of the connection
    /// does not cost it the answer.
    answered: Cell<bool>,
    discarded: Cell<usize>,
    clients: Rc<Cell<usize>>,
}

impl Client {
    fn start(master: &Rc<Master>, socket: Socket, clients: &Rc<Cell<usize>>) {
        let client = Rc::new(Client {
            lp: master.lp.clone(),
            master: Rc::downgrade(master),
            socket,
            id: Cell::default(),
            timer: Cell::default(),
            question: RefCell::default(),
            answer: RefCell::default(),
            asked: Cell::new(false),
            answered: Cell::new(false),
            discarded: Cell::new(0),
            clients: clients.clone(),
        });
        clients.set(clients.get() + 1);
        client.timer.set(Some(client.lp.add_timer(client.clone(), 0)));
        match client.lp.register(&mut &client.socket, client.clone()) {
            Ok(id) => client.id.set(Some(id)),
            Err(_) => return client.close(),
        }
        client.start_timer();
    }

    fn start_timer(&self) {
        if let Some(timer) = self.timer.get() {
            self.lp.start_timer(timer, TIMEOUT);
        }
    }

    fn read(self: &Rc<Self>) {
        while !self.asked.get() {
            let mut buffer = [0; 16 * MAX_QUESTION];
            match self.socket.read(&mut buffer) {
                Ok(0) => return self.close(),
                Ok(n) => self.question.borrow_mut().extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.close(),
            }
            let end = memchr::memchr(b'\n', &self.question.borrow());
            match end {
                Some(end) => {
                    self.asked.set(true);
                    let question = String::from_utf8_lossy(&self.question.borrow()[..end]).into_owned();
                    if self.question.borrow().len() > end + 1 {
                        return self.refuse("there is more behind the question; ask one for each connection");
                    }
                    if let Some(timer) = self.timer.get() {
                        // What is asked for may take its time.
                        self.lp.stop_timer(timer);
                    }
                    self.clone().handle(question.trim());
                }
                None if self.question.borrow().len() >= MAX_QUESTION => {
                    self.asked.set(true);
                    self.refuse("the question is too long");
                }
                None => (),
            }
        }
    }

    fn handle(self: Rc<Self>, question: &str) {
        let Some(master) = self.master.upgrade() else { return self.close() };
        if let Err(reason) = self.may_ask() {
            log_line!(Level::Warn, "control socket: {question:?} was refused: {reason}");
            return self.refuse(&reason);
        }
        if ["reload", "reopen", "quit", "stop"].contains(&question) {
            log_line!(Level::Notice, "control socket: {question:?}");
        }
        let client = self.clone();
        let waiter = Box::new(move |result| client.reply(result));
        match question {
            "reload" => master.perform(Task::Reload(vec![waiter])),
            "reopen" => master.reopen(Some(waiter)),
            "quit" => master.end(Ending::Graceful, Some(waiter)),
            "stop" => master.end(Ending::Fast, Some(waiter)),
            status::QUESTION => waiter(Ok(status::json(&master))),
            other => {
                log_line!(Level::Warn, "control socket: {other:?} was refused: it is no question");
                self.refuse(&format!("found {other:?}, expected reload, reopen, quit, stop or {}", status::QUESTION));
            }
        }
    }

    /// The file's permissions keep others out already, where the system looks at them.
    fn may_ask(&self) -> Result<(), String> {
        let who = rustix::net::sockopt::socket_peercred(&self.socket).map_err(|error| error.to_string())?;
        let ours = rustix::process::geteuid();
        if who.uid.is_root() || who.uid == ours {
            return Ok(());
        }
        Err(format!("user {} may not; ask as user {} or root", who.uid.as_raw(), ours.as_raw()))
    }

    fn refuse(self: &Rc<Self>, reason: &str) {
        self.reply(Err(super::of_server(reason)));
    }

    fn reply(self: &Rc<Self>, result: Result<String, String>) {
        self.answer.replace(line_of(result));
        self.start_timer();
        self.write();
    }

    fn write(self: &Rc<Self>) {
        if !self.asked.get() {
            return;
        }
        loop {
            let sent = {
                let answer = self.answer.borrow();
                if answer.is_empty() {
                    return;
                }
                rustix::net::send(&self.socket, &answer, rustix::net::SendFlags::NOSIGNAL)
            };
            match sent {
                Ok(n) => {
                    let rest = self.answer.borrow_mut().split_off(n);
                    let is_done = rest.is_empty();
                    self.answer.replace(rest);
                    if is_done {
                        self.answered.set(true);
                        let _ = self.socket.shutdown(Shutdown::Write);
                        return self.discard();
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => (),
                Err(_) => return self.close(),
            }
        }
    }

    /// Waits for the client's end of the connection.
    fn discard(self: &Rc<Self>) {
        while self.discarded.get() < MAX_DISCARDED {
            match self.socket.read(&mut [0; 16 * MAX_QUESTION]) {
                Ok(0) => break,
                Ok(n) => self.discarded.set(self.discarded.get() + n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(_) => break,
            }
        }
        self.close();
    }

    fn close(self: &Rc<Self>) {
        if let Some(timer) = self.timer.take() {
            self.lp.remove_timer(timer);
            self.clients.set(self.clients.get().saturating_sub(1));
        }
        if let Some(id) = self.id.take() {
            self.lp.deregister(&mut &self.socket, id);
        }
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Source for Client {
    fn ready(self: Rc<Self>, ready: Ready) {
        if ready.readable && self.answered.get() {
            return self.discard();
        }
        if ready.readable && !self.asked.get() {
            self.read();
        }
        // One that has closed may still wait for its answer; if it does not, that cannot be written.
        if ready.writable {
            self.write();
        }
    }

    fn expired(self: Rc<Self>, _: u32) {
        self.close();
    }
}
