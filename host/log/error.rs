//! The error log, in nginx's line shape:
//!
//! ```text
//! 2026/11/22 03:26:11 [error] 1234#0: *5 gzip: text, client: 127.0.0.1, server: example.org, request: "GET / HTTP/1.1"
//! ```
//!
//! Lines come from the host, from modules (with their name), and from other crates through `log`.

use std::{
    cell::Cell,
    fmt::{self, Arguments, Write},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
};

pub use topnext_module_api::Level;

use super::Sink;

/// The longest line, its end included (nginx: NGX_MAX_ERROR_STR).
const MAX_LINE: usize = 2048;

/// The most verbose level that any log takes, so that a line nobody wants costs a comparison.
static LEVEL: AtomicU32 = AtomicU32::new(Level::Error as u32);
/// The log of everything that is not about a request.
static MAIN: RwLock<Option<Arc<ErrorLog>>> = RwLock::new(None);

thread_local! {
    /// The number of this thread in log lines, behind the `#`.
    static THREAD: Cell<u32> = const { Cell::new(0) };
    /// The log of the request that the line being written is about.
    static ABOUT: Cell<Option<&'static ErrorLog>> = const { Cell::new(None) };
}

/// The logs of a place: where lines go, and from which level on.
pub struct ErrorLog {
    outputs: Vec<(Arc<Sink>, Level)>,
    level: Level,
}

impl ErrorLog {
    /// Lines go to each of these that takes their level.
    pub fn new(outputs: Vec<(Arc<Sink>, Level)>) -> ErrorLog {
        let level = outputs.iter().map(|(_, level)| *level).max().unwrap_or(Level::Emerg);
        ErrorLog { outputs, level }
    }

    /// Whether lines of this level are logged.
    pub fn logs(&self, level: Level) -> bool {
        level <= self.level
    }

    fn write(&self, level: Level, line: &[u8]) {
        for (sink, _) in self.outputs.iter().filter(|(_, wanted)| level <= *wanted) {
            sink.write(line);
        }
    }
}

/// The end of a line about a request. It says which log the line goes to: the one of the request's place.
pub struct Tail {
    log: &'static ErrorLog,
    text: String,
}

impl Tail {
    /// The end of a line that goes to `log`.
    pub fn new(log: &'static ErrorLog, text: String) -> Tail {
        Tail { log, text }
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ABOUT.set(Some(self.log));
        f.write_str(&self.text)
    }
}

/// Says where lines go that are about no request, and which logs places have.
pub fn open<'a>(main: Arc<ErrorLog>, of_places: impl Iterator<Item = &'a Arc<ErrorLog>>) {
    let level = of_places.map(|log| log.level).chain([main.level]).max().unwrap_or(main.level);
    LEVEL.store(level as u32, Ordering::Relaxed);
    log::set_max_level(match main.level {
        Level::Debug => log::LevelFilter::Debug,
        Level::Info | Level::Notice => log::LevelFilter::Info,
        Level::Warn => log::LevelFilter::Warn,
        _ => log::LevelFilter::Error,
    });
    *MAIN.write().unwrap_or_else(PoisonError::into_inner) = Some(main);
    // Another logger can only be set by a test.
    let _ = log::set_logger(&Bridge);
}

/// Numbers this thread in log lines.
pub fn number_thread(number: u32) {
    THREAD.set(number);
}

/// Whether some log takes lines of this level.
#[inline]
pub fn logs(level: Level) -> bool {
    level as u32 <= LEVEL.load(Ordering::Relaxed)
}

/// Logs a line, if its level is logged: about the request whose [`Tail`] is in it, if there is one.
#[cold]
pub fn write(level: Level, text: Arguments<'_>) {
    if !logs(level) {
        return;
    }
    let mut line = String::with_capacity(160);
    crate::clock::write_error_log_time(&mut line);
    let _ = write!(line, " [{}] {}#{}: ", level.name(), std::process::id(), THREAD.get());
    let start = line.len();
    ABOUT.set(None);
    let _ = line.write_fmt(text);
    let about = ABOUT.take();
    // A line stays a line, whatever a client has sent.
    if line[start..].chars().any(char::is_control) {
        let text = line.split_off(start);
        for c in text.chars() {
            if c.is_control() {
                let _ = write!(line, "\\x{:02X}", c as u32);
            } else {
                line.push(c);
            }
        }
    }
    if line.len() >= MAX_LINE {
        line.truncate(line.floor_char_boundary(MAX_LINE - 1));
    }
    line.push('\n');
    match about {
        Some(log) => log.write(level, line.as_bytes()),
        None => match main() {
            Some(log) => log.write(level, line.as_bytes()),
            // A standard error that cannot be written is nobody's fault here.
            None => super::say(&line),
        },
    }
}

fn main() -> Option<Arc<ErrorLog>> {
    MAIN.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Logs a line: `log_line!(Level::Error, "...")`.
#[macro_export]
macro_rules! log_line {
    ($level:expr, $($text:tt)+) => {
        if $crate::log::error::logs($level) {
            $crate::log::error::write($level, ::core::format_args!($($text)+));
        }
    };
}

/// Lines of other crates.
struct Bridge;

impl log::Log for Bridge {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        main().is_some_and(|main| main.logs(level_of(metadata.level())))
    }

    fn log(&self, record: &log::Record<'_>) {
        // mio tells each registration at trace and debug level, which is of no use to an operator.
        if !record.target().starts_with("mio") {
            write(level_of(record.level()), format_args!("{}", record.args()));
        }
    }

    fn flush(&self) {
        super::flush();
    }
}

fn level_of(level: log::Level) -> Level {
    match level {
        log::Level::Error => Level::Error,
        log::Level::Warn => Level::Warn,
        log::Level::Info => Level::Info,
        log::Level::Debug | log::Level::Trace => Level::Debug,
    }
}
