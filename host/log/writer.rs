//! The thread that writes logs out. It is there while there is something to write, and knows when buffers are due.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::error_text::ErrorText;

use super::{
    Sink,
    error::{self, Level},
    lock,
};

/// After each round of writes the thread rests this long: lines of the meantime share a write.
const REST: Duration = Duration::from_millis(5);
/// When no line has come for this long the thread ends; the next line starts another.
const IDLE: Duration = Duration::from_secs(1);

/// How long the end of the process waits for logs that cannot be written.
const LAST_WAIT: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Writer {
    sinks: Mutex<Vec<Arc<Sink>>>,
    state: Mutex<State>,
    more: Condvar,
    /// Held by whoever takes lines out and writes them: when `flush` returns, all that came before are written.
    writing: Mutex<()>,
    /// The thread knows of the last lines, or will be told.
    pending: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Lines are to be written as they come.
    started: bool,
    /// There is a thread.
    running: bool,
    /// There are lines for it.
    work: bool,
    /// Files are to be opened again, for those who want to know when they are.
    reopen: Vec<Reopened>,
}

/// What is called when all files have been opened again: with what is to be said of those that could not be.
type Reopened = Box<dyn FnOnce(Vec<String>) + Send>;

pub(super) fn writer() -> &'static Writer {
    static WRITER: OnceLock<Writer> = OnceLock::new();
    WRITER.get_or_init(Writer::default)
}

impl Writer {
    /// The sink that `is_it` knows, or the one that `make` makes.
    pub(super) fn sink(
        &self,
        is_it: impl Fn(&Sink) -> bool,
        make: impl FnOnce() -> io::Result<Sink>,
    ) -> io::Result<Arc<Sink>> {
        let mut sinks = lock(&self.sinks);
        if let Some(sink) = sinks.iter().find(|sink| is_it(sink)) {
            return Ok(sink.clone());
        }
        let sink = Arc::new(make()?);
        sinks.push(sink.clone());
        Ok(sink)
    }

    /// There are lines to write, or a buffer whose time runs.
    pub(super) fn wake(&'static self) {
        // Looked at first: a line of a busy log writes nothing that other threads look at.
        if !self.pending.load(Ordering::Acquire) && !self.pending.swap(true, Ordering::AcqRel) {
            self.tell(|state| state.work = true);
        }
    }

    fn tell(&'static self, what: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        what(&mut state);
        if state.started && !state.running {
            state.running = thread::Builder::new().name("topnext-log".to_string()).spawn(|| self.run()).is_ok();
            if !state.running {
                // The next line tries again.
                self.pending.store(false, Ordering::Release);
            }
        }
        drop(state);
        self.more.notify_one();
    }

    fn run(&self) {
        let mut next: Option<Instant> = None;
        loop {
            let time = next.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()));
            let state = lock(&self.state);
            let waited = self.more.wait_timeout_while(state, time, |state| !state.work && state.reopen.is_empty());
            let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
            let (work, reopen) = (std::mem::take(&mut state.work), std::mem::take(&mut state.reopen));
            if !work && reopen.is_empty() && next.is_none() {
                state.running = false;
                return;
            }
            drop(state);
            self.pending.store(false, Ordering::Release);
            if !reopen.is_empty() {
                let failed = self.reopen();
                reopen.into_iter().for_each(|reopened| reopened(failed.clone()));
            }
            next = self.drain(false);
            if work {
                thread::sleep(REST);
            }
        }
    }

    /// Writes out what is due, or everything. When the next buffer is due.
    fn drain(&self, everything: bool) -> Option<Instant> {
        let _writing = lock(&self.writing);
        let sinks = lock(&self.sinks).clone();
        sinks.iter().filter_map(|sink| sink.drain(everything)).min()
    }

    /// What has been logged so far goes to the old files. Those that cannot be opened are told of.
    fn reopen(&self) -> Vec<String> {
        self.drain(true);
        let sinks = lock(&self.sinks).clone();
        let failed = sinks.iter().filter_map(|sink| sink.reopen().err());
        let failed: Vec<String> = failed
            .map(|(path, error)| format!("open() \"{}\" failed ({})", path.display(), ErrorText(&error)))
            .collect();
        for text in &failed {
            error::write(
                Level::Emerg,
                format_args!("{text} while reopening logs; the file that was open stays in use"),
            );
        }
        failed
    }
}

/// From here on lines are written as they come; those that have come so far are written now.
pub fn start() {
    writer().tell(|state| (state.started, state.work) = (true, true));
}

/// The paths of all logs that are files.
pub fn files() -> Vec<PathBuf> {
    lock(&writer().sinks).iter().filter_map(|sink| sink.path().map(Path::to_path_buf)).collect()
}

/// Closes the files that nobody writes to any more.
pub fn close_unused() {
    let writer = writer();
    writer.drain(true);
    lock(&writer.sinks).retain(|sink| Arc::strong_count(sink) > 1);
}

/// Has all log files opened again by their paths, by the thread that writes them. It calls `reopened` then, with what is to be
/// said of those that could not be; before the logs are started, once they are.
pub fn reopen(reopened: impl FnOnce(Vec<String>) + Send + 'static) {
    writer().tell(|state| state.reopen.push(Box::new(reopened)));
}

/// Writes everything out now: before the process ends. What a pipe or a disk does not take in time is lost, which is said.
pub fn flush() {
    let (done, is_done) = mpsc::channel();
    let flush = move || {
        let deadline = Instant::now() + LAST_WAIT;
        while let Some(again) = writer().drain(true).filter(|_| Instant::now() < deadline) {
            thread::sleep(again.saturating_duration_since(Instant::now()));
        }
        let _ = done.send(());
    };
    // A write to a disk that hangs cannot be given up but with the thread that waits for it.
    match thread::Builder::new().name("topnext-log".to_string()).spawn(flush) {
        Ok(_) => drop(is_done.recv_timeout(2 * LAST_WAIT)),
        Err(_) => drop(writer().drain(true)),
    }
    lock(&writer().sinks).iter().for_each(|sink| sink.settle());
}
