//! Clients that ask without a pause, on kept and on new connections, and note each request that is not answered.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::site::{self, Seen};
use super::{PATIENCE, SHOWN};
use crate::http::{Connection, Target};

/// Requests of which one is for the file.
const FILE: u64 = 4;

/// A request that was not answered, or not as it should be.
#[derive(Debug)]
pub struct Lost {
    /// When its connection was asked for.
    pub connected: Instant,
    pub begun: Instant,
    pub ended: Instant,
    /// Who has answered on this connection before.
    pub worker: Option<u32>,
    pub error: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (age, took) = (self.begun - self.connected, self.ended - self.begun);
        write!(f, "{} (after {took:?}, on a connection of {age:?}", self.error)?;
        match self.worker {
            Some(worker) => write!(f, " to worker {worker})"),
            None => f.write_str(", the first)"),
        }
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub answers: u64,
    pub lost: Vec<Lost>,
    /// The longest that a request took which was answered, with its connection if it was the first there.
    pub longest: Duration,
}

/// The clients.
#[derive(Debug)]
pub struct Load {
    address: SocketAddr,
    clients: u64,
    stop: AtomicBool,
    answers: AtomicU64,
    longest_us: AtomicU64,
    lost: Mutex<Vec<Lost>>,
}

/// The clients end, however the function does that runs meanwhile.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Load {
    pub fn new(address: SocketAddr, clients: u64) -> Load {
        let (stop, answers, longest_us) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        Load { address, clients, stop, answers, longest_us, lost: Mutex::default() }
    }

    /// Answers until now, in this run.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Waits until there were so many.
    pub fn wait_for(&self, answers: u64) -> Result<(), String> {
        wait_until("requests are answered", || self.answers() >= answers)
    }

    /// Runs the clients while `run` does. What came of their requests.
    pub fn during(&self, run: impl FnOnce() -> Result<(), String>) -> Result<Outcome, String> {
        self.stop.store(false, Ordering::Relaxed);
        let result = std::thread::scope(|scope| {
            let stop = Stop(&self.stop);
            for number in 0..self.clients {
                let keeps = number % 2 == 0;
                scope.spawn(move || {
                    while !self.stop.load(Ordering::Relaxed) {
                        self.connection(keeps);
                    }
                });
            }
            let result = self.wait_for(self.clients).and_then(|()| run());
            let answers = self.answers();
            // And a little longer, so that what the last change has broken is seen.
            let result = result.and_then(|()| self.wait_for(answers + 10 * self.clients));
            drop(stop);
            result
        });
        let lost = self.lost.lock().map(|mut lost| std::mem::take(&mut *lost)).unwrap_or_default();
        let longest = Duration::from_micros(self.longest_us.swap(0, Ordering::Relaxed));
        let outcome = Outcome { answers: self.answers.swap(0, Ordering::Relaxed), lost, longest };
        match result {
            Ok(()) => Ok(outcome),
            // What was lost may be why it could not be done.
            Err(error) => {
                let lost: String = outcome.lost.iter().take(SHOWN).map(|lost| format!("\n    lost: {lost}")).collect();
                Err(format!("{error}{lost}"))
            }
        }
    }

    /// A connection, until one of both sides ends it.
    fn connection(&self, keeps: bool) {
        let connected = Instant::now();
        let (mut begun, mut worker) = (connected, None);
        let lost = |error: String, begun: Instant, worker: Option<u32>| {
            if let Ok(mut all) = self.lost.lock() {
                all.push(Lost { connected, begun, ended: Instant::now(), worker, error });
            }
        };
        let mut connection = match Connection::open(&Target::new(self.address)) {
            Ok(connection) => connection,
            Err(error) => return lost(format!("connect: {error}"), begun, worker),
        };
        loop {
            let wants_file = self.answers().is_multiple_of(FILE);
            match ask(&mut connection, wants_file, keeps) {
                Ok((seen, closes)) => {
                    worker = seen.worker.or(worker);
                    self.answers.fetch_add(1, Ordering::Relaxed);
                    self.longest_us.fetch_max(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
                    if closes || self.stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
                Err(error) => return lost(error, begun, worker),
            }
            begun = Instant::now();
        }
    }
}

/// A request and its answer: what it says, and whether it is the last of the connection.
fn ask(connection: &mut Connection, wants_file: bool, keeps: bool) -> Result<(Seen, bool), String> {
    let path = if wants_file { site::FILE } else { "/" };
    let close = if keeps { "" } else { "Connection: close\r\n" };
    let request = format!("GET {path} HTTP/1.1\r\nHost: soak\r\n{close}\r\n");
    connection.send(request.as_bytes()).map_err(|error| format!("send: {error}"))?;
    let answer = connection.answer(false).map_err(|error| format!("answer: {error}"))?;
    let closes = answer.closes || !keeps;
    Ok((Seen::new(&answer, wants_file)?, closes))
}

/// Waits for something, not for ever.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > deadline {
            return Err(format!("{} s have passed, but not until {what}", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
