//! Logs: lines go into bounded buffers, which one thread of their own writes out, so that no loop waits for a disk or a
//! terminal. When a buffer is full lines are dropped, counted, and the count is logged once there is room again. The thread
//! is there while lines come, and ends when none have come for a while.

pub mod access;

pub mod error;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// The most bytes that wait to be written to one log.
const MAX_WAITING: usize = 1024 * 1024;
/// After each round of writes the thread rests this long: lines of the meantime share a write.
const REST: Duration = Duration::from_millis(5);
/// When no line has come for this long the thread ends; the next line starts another.
const IDLE: Duration = Duration::from_secs(1);

/// One log, shared by all threads.
pub struct Sink {
    target: Target,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, PartialEq, Eq)]
enum Target {
    Stdout,
    Stderr,
    File(PathBuf),
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    dropped: u64,
    /// Opened when the sink was made; none for stdout and stderr.
    file: Option<File>,
    /// The last write failed, and that has been said.
    failing: bool,
}

#[derive(Default)]
struct Writer {
    sinks: Mutex<Vec<Arc<Sink>>>,
    state: Mutex<WriterState>,
    more: Condvar,
    /// Held by whoever takes lines out and writes them: when `flush` returns, all that came before are written.
    writing: Mutex<()>,
    /// The thread knows of the last lines, or will be told.
    pending: AtomicBool,
}

#[derive(Default)]
struct WriterState {
    /// Lines are to be written as they come.
    started: bool,
    /// There is a thread.
    running: bool,
    /// There are lines for it.
    work: bool,
}

fn writer() -> &'static Writer {
    static WRITER: OnceLock<Writer> = OnceLock::new();
    WRITER.get_or_init(Writer::default)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink {
    /// Standard output.
    pub fn stdout() -> Arc<Sink> {
        Sink::of(Target::Stdout, None)
    }

    /// Standard error.
    pub fn stderr() -> Arc<Sink> {
        Sink::of(Target::Stderr, None)
    }

    /// A file, which is appended to, and created if need be.
    pub fn file(path: &Path) -> io::Result<Arc<Sink>> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Sink::of(Target::File(path.to_path_buf()), Some(file)))
    }

    /// The sink of this target: one that exists, or a new one.
    fn of(target: Target, file: Option<File>) -> Arc<Sink> {
        let mut sinks = lock(&writer().sinks);
        if let Some(sink) = sinks.iter().find(|sink| sink.target == target) {
            return sink.clone();
        }
        let sink = Arc::new(Sink { target, waiting: Mutex::new(Waiting { file, ..Waiting::default() }) });
        sinks.push(sink.clone());
        sink
    }

    /// Adds whole lines. Never waits for the target.
    pub fn write(&self, lines: &[u8]) {
        {
            let mut waiting = lock(&self.waiting);
            if waiting.lines.len() + lines.len() > MAX_WAITING {
                waiting.dropped += 1;
                return;
            }
            waiting.lines.extend_from_slice(lines);
        }
        let writer = writer();
        if !writer.pending.swap(true, Ordering::AcqRel) {
            writer.wake();
        }
    }

    fn drain(&self) {
        let (lines, dropped, file) = {
            let mut waiting = lock(&self.waiting);
            let lines = std::mem::take(&mut waiting.lines);
            let dropped = std::mem::take(&mut waiting.dropped);
            (lines, dropped, waiting.file.as_ref().and_then(|file| file.try_clone().ok()))
        };
        if lines.is_empty() && dropped == 0 {
            return;
        }
        let mut result = self.write_out(file.as_ref(), &lines);
        if dropped > 0 && result.is_ok() {
            let text = format!("{dropped} log lines were dropped here: the log was not written out fast enough\n");
            result = self.write_out(file.as_ref(), text.as_bytes());
        }
        let mut waiting = lock(&self.waiting);
        let was_failing = std::mem::replace(&mut waiting.failing, result.is_err());
        drop(waiting);
        if let (Err(error), false, Target::File(path)) = (&result, was_failing, &self.target) {
            let _ = writeln!(io::stderr(), "cannot write log {}: {error}", path.display());
        }
        // The capacity goes back, so that a busy log does not allocate.
        let mut waiting = lock(&self.waiting);
        if waiting.lines.is_empty() && lines.capacity() <= MAX_WAITING {
            waiting.lines = lines;
            waiting.lines.clear();
        }
    }

    fn write_out(&self, file: Option<&File>, bytes: &[u8]) -> io::Result<()> {
        match (&self.target, file) {
            (Target::Stdout, _) => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            (Target::Stderr, _) => io::stderr().lock().write_all(bytes),
            (Target::File(_), Some(mut file)) => file.write_all(bytes),
            (Target::File(_), None) => Err(io::Error::other("no file descriptor is left")),
        }
    }
}

impl Writer {
    fn wake(&'static self) {
        let mut state = lock(&self.state);
        state.work = true;
        if state.started && !state.running {
            state.running = self.start_thread();
            if !state.running {
                // The next line tries again.
                self.pending.store(false, Ordering::Release);
            }
        }
        drop(state);
        self.more.notify_one();
    }

    fn start_thread(&'static self) -> bool {
        thread::Builder::new().name("topnext-log".to_string()).spawn(|| self.write()).is_ok()
    }

    fn write(&self) {
        loop {
            let state = lock(&self.state);
            let waited = self.more.wait_timeout_while(state, IDLE, |state| !state.work);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if !std::mem::take(&mut state.work) {
                state.running = false;
                return;
            }
            drop(state);
            self.pending.store(false, Ordering::Release);
            flush();
            thread::sleep(REST);
        }
    }
}

/// From here on lines are written as they come; those that have come so far are written now.
pub fn start() {
    lock(&writer().state).started = true;
    writer().wake();
}

/// Writes everything out now: before the process ends.
pub fn flush() {
    let _writing = lock(&writer().writing);
    let sinks = lock(&writer().sinks).clone();
    for sink in sinks {
        sink.drain();
    }
}
