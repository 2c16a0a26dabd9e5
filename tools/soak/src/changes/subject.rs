//! The server, and what is done to it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::process::Signal;

use super::load::{Lost, wait_until};
use super::modules::Modules;
use super::site::{self, Seen, Shape};
use crate::http::{Connection, Target};
use crate::process;
use crate::server::{CONFIG, Place, Server};

/// The master's, in its folder.
const PID_FILE: &str = "topnext.pid";
/// Workers that it has.
const WORKERS: usize = 2;
/// Connections that are tried until one leads to a certain worker.
const TRIES: usize = 200;

/// A worker's death.
#[derive(Debug)]
pub struct Death {
    pub worker: u32,
    /// Just before it.
    pub began: Instant,
    /// When all of its connections were closed.
    pub over: Instant,
    /// Those that it had, as the master has logged.
    pub connections: u64,
}

impl Death {
    /// Whether a request may have been lost by it.
    pub fn explains(&self, lost: &Lost) -> bool {
        let may_be_its = lost.worker.is_none_or(|worker| worker == self.worker);
        may_be_its && lost.connected < self.over && lost.ended > self.began
    }
}

#[derive(Debug)]
pub struct Subject {
    server: Server,
    modules: Modules,
    /// The folder of the bundled modules.
    bundled: PathBuf,
    /// The master's process: not the server's first one, once there was an upgrade.
    master: u32,
    /// Reloads that there were.
    changes: u64,
}

impl Subject {
    /// Starts it.
    pub fn start(binary: Option<PathBuf>) -> Result<Subject, String> {
        let mut made = None;
        let server = Server::start(binary, |place| {
            let modules = Modules::build(place.dir)?;
            let written = site::write_files(place.dir)
                .and_then(|()| Shape::numbered(0).install(place, &modules.crash, &modules.versioned));
            made = Some((modules, place.modules.to_owned()));
            written.map_err(|error| format!("cannot write the site: {error}"))
        })?;
        let master = server.pid();
        let (modules, bundled) = made.ok_or("no modules")?;
        Ok(Subject { server, modules, bundled, master, changes: 0 })
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Waits until there are no workers but those that serve.
    pub fn wait_for_rest(&self) -> Result<(), String> {
        wait_until("old workers have ended", || process::children(self.master).len() == WORKERS)
    }

    /// Memory and descriptors of the master when it rests. It is given time to close what it no longer needs: if there was a
    /// look before, until it has no more descriptors than then, or time is up.
    pub fn look_at_master(&self, before: Option<usize>) -> Result<(u64, usize), String> {
        self.wait_for_rest()?;
        let mut descriptors = process::number_of_descriptors(self.master)?;
        let _ = wait_until("it has closed them", || {
            descriptors = process::number_of_descriptors(self.master).unwrap_or(0);
            before.is_none_or(|before| descriptors <= before)
        });
        Ok((process::memory(self.master)?, descriptors))
    }

    /// Gives it another shape, and sees that it has it.
    pub fn reload(&mut self) -> Result<(), String> {
        self.install_next()?;
        self.ask("reload")?;
        self.expect_shape()
    }

    /// As `reload`, by many who ask at the same time: each is answered.
    pub fn reload_at_once(&mut self, number: usize) -> Result<(), String> {
        self.install_next()?;
        let this = &*self;
        std::thread::scope(|scope| {
            let asked: Vec<_> = (0..number).map(|_| scope.spawn(move || this.ask("reload"))).collect();
            asked.into_iter().try_for_each(|asked| asked.join().unwrap_or_else(|_| Err("it panicked".into())))
        })?;
        self.expect_shape()
    }

    /// Gives it another shape by SIGHUP, and does not wait for that.
    pub fn change_by_signal(&mut self) -> Result<(), String> {
        self.install_next()?;
        self.signal(Signal::HUP)
    }

    /// Has it refuse a configuration, and puts the right one back.
    pub fn reload_broken(&mut self) -> Result<(), String> {
        let config = self.server.dir().join(CONFIG);
        let write = |text: &str| fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()));
        let good = process::read(&config.to_string_lossy())?;
        write(&format!("{good}\nbroken = 1\n"))?;
        let answer = self.server.ask(&["-s", "reload"])?;
        write(&good)?;
        let said = String::from_utf8_lossy(&answer.stderr);
        if answer.status.code() != Some(1) || !said.contains("broken: ") {
            return Err(format!("{}: {said}", answer.status));
        }
        Ok(())
    }

    /// Has the master do what `topnext -s` can ask for.
    pub fn ask(&self, question: &str) -> Result<(), String> {
        let answer = self.server.ask(&["-s", question])?;
        let said = String::from_utf8_lossy(&answer.stderr);
        if answer.status.success() { Ok(()) } else { Err(format!("{question}: {said}")) }
    }

    /// Sends the master a signal.
    pub fn signal(&self, signal: Signal) -> Result<(), String> {
        process::signal(self.master, signal)
    }

    /// Writes the next shape.
    fn install_next(&mut self) -> Result<(), String> {
        self.changes += 1;
        let place = Place { dir: self.server.dir(), modules: &self.bundled, address: self.address() };
        let installed = Shape::numbered(self.changes).install(&place, &self.modules.crash, &self.modules.versioned);
        installed.map_err(|error| format!("cannot write the site: {error}"))
    }

    /// Sees that it has the shape that was written last.
    fn expect_shape(&self) -> Result<(), String> {
        let (seen, _) = self.look()?;
        let shape = Shape::numbered(self.changes);
        if seen.shape != shape {
            return Err(format!("behind change {} an answer shows {:?}, not {shape:?}", self.changes, seen.shape));
        }
        Ok(())
    }

    /// An answer on a new connection.
    fn look(&self) -> Result<(Seen, Connection), String> {
        let look = || -> std::io::Result<_> {
            let mut connection = Connection::open(&Target::new(self.address()))?;
            connection.send(b"GET / HTTP/1.1\r\nHost: soak\r\n\r\n")?;
            Ok((connection.answer(false)?, connection))
        };
        let (answer, connection) = look().map_err(|error| format!("a request of the soak itself: {error}"))?;
        Ok((Seen::new(&answer, false)?, connection))
    }

    /// Has a worker die: killed, or by a module. Waits for its replacement, and sees that the master has logged it.
    pub fn kill_a_worker(&mut self, by_module: bool) -> Result<Death, String> {
        self.wait_for_rest()?;
        let worker = *process::children(self.master).iter().min().ok_or("there is no worker")?;
        let began = Instant::now();
        let signal = if by_module {
            let mut connection = self.connect_to(worker)?;
            let request = format!("GET {} HTTP/1.1\r\nHost: soak\r\n\r\n", site::CRASH);
            connection.send(request.as_bytes()).map_err(|error| format!("{}: {error}", site::CRASH))?;
            let _ = connection.rest();
            "signal 11 (SIGSEGV"
        } else {
            process::signal(worker, Signal::KILL)?;
            "signal 9 (SIGKILL"
        };
        wait_until("the worker is dead", || process::has_ended(worker))?;
        let over = Instant::now();
        let text = format!("worker {worker} of generation ");
        let line =
            || self.server.said().lines().find(|line| line.contains(&text) && line.contains(signal)).map(str::to_owned);
        wait_until("the master has logged it", || line().is_some())?;
        let line = line().unwrap_or_default();
        if by_module && !line.contains("in module crash 0.1.0, hook content") {
            return Err(format!("the log does not name the module: {line}"));
        }
        let connections = line.rsplit(" and ").next().and_then(|rest| rest.split(' ').next()?.parse().ok());
        let connections = connections.ok_or_else(|| format!("the log does not say what was in flight: {line}"))?;
        self.wait_for_rest()?;
        Ok(Death { worker, began, over, connections })
    }

    /// A connection that this worker has taken.
    fn connect_to(&self, worker: u32) -> Result<Connection, String> {
        for _ in 0..TRIES {
            let (seen, connection) = self.look()?;
            if seen.worker == Some(worker) {
                return Ok(connection);
            }
        }
        Err(format!("of {TRIES} connections none leads to worker {worker}"))
    }

    /// Has another master take over, as nginx's manual describes it.
    pub fn upgrade(&mut self) -> Result<(), String> {
        let old = self.master;
        self.master = self.start_another_master()?;
        process::signal(old, Signal::WINCH)?;
        wait_until("the old workers have ended", || process::children(old) == [self.master])?;
        process::signal(old, Signal::QUIT)?;
        self.wait_for_end_of(old)?;
        self.look()?;
        self.wait_for_rest()
    }

    /// Has another master take over, and the old one again.
    pub fn upgrade_and_go_back(&mut self) -> Result<(), String> {
        let new = self.start_another_master()?;
        let dismissed = format!("{}#0: SIGWINCH received", self.master);
        let before = self.server.said().matches(&dismissed).count();
        self.signal(Signal::WINCH)?;
        // Signals that come at the same time have no order. Its workers may have work to do still.
        wait_until("it has got the signal", || self.server.said().matches(&dismissed).count() > before)?;
        let serves = format!("{}#0: generation ", self.master);
        let before = self.server.said().matches(&serves).count();
        self.signal(Signal::HUP)?;
        wait_until("the old master has workers again", || self.server.said().matches(&serves).count() > before)?;
        process::signal(new, Signal::QUIT)?;
        let pid_file = self.server.dir().join(PID_FILE);
        wait_until("it has its names back", || pid_in(&pid_file) == Some(self.master))?;
        self.look()?;
        self.wait_for_rest()
    }

    /// Waits until it serves beside the old one: its process.
    fn start_another_master(&mut self) -> Result<u32, String> {
        const SERVES: &str = "the new master serves";
        let before = self.server.said().matches(SERVES).count();
        self.signal(Signal::USR2)?;
        wait_until(SERVES, || self.server.said().matches(SERVES).count() > before)?;
        let new = pid_in(&self.server.dir().join(PID_FILE)).filter(|pid| *pid != self.master);
        new.ok_or_else(|| "the pid file does not name the new master".to_string())
    }

    fn wait_for_end_of(&mut self, master: u32) -> Result<(), String> {
        let is_first = master == self.server.pid();
        wait_until(
            "the master has ended",
            || {
                if is_first { self.server.has_ended() } else { process::has_ended(master) }
            },
        )
    }

    /// Has it end in good order: what it should not have logged.
    pub fn end(&mut self) -> Result<Vec<String>, String> {
        self.ask("quit")?;
        self.wait_for_end_of(self.master)?;
        let said = crate::server::complaints(&self.server.said());
        // Deaths were meant.
        let is_meant = |line: &&str| line.contains(" exited on signal ");
        Ok(said.lines().filter(|line| !is_meant(line)).map(|line| format!("it logged: {line}")).collect())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // The first one ends with `server`.
        if self.master != self.server.pid() && !process::has_ended(self.master) {
            let _ = process::signal(self.master, Signal::KILL);
        }
    }
}

fn pid_in(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}
