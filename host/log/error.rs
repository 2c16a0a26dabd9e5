//! The error log, in nginx's line shape:
//!
//! ```text
//! 2026/11/22 03:26:11 [error] 1234#0: *5 gzip: text, client: 127.0.0.1, server: example.org, request: "GET / HTTP/1.1"
//! ```
//!
//! Lines come from the host, from modules (with their name), and from other crates through `log`.

use std::{
    fmt::{Arguments, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

pub use topnext_module_api::Level;

use super::Sink;

static LEVEL: AtomicU32 = AtomicU32::new(Level::Error as u32);
static SINK: OnceLock<Arc<Sink>> = OnceLock::new();

thread_local! {
    /// The number of this thread in log lines, behind the `#`.
    static THREAD: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Says where the log goes, and from which level on. Once, at the start.
pub fn open(sink: Arc<Sink>, level: Level) {
    LEVEL.store(level as u32, Ordering::Relaxed);
    let _ = SINK.set(sink);
    // Another logger can only be set by a test.
    let _ = log::set_logger(&Bridge);
    log::set_max_level(match level {
        Level::Debug => log::LevelFilter::Debug,
        Level::Info | Level::Notice => log::LevelFilter::Info,
        Level::Warn => log::LevelFilter::Warn,
        _ => log::LevelFilter::Error,
    });
}

/// Numbers this thread in log lines.
pub fn number_thread(number: u32) {
    THREAD.set(number);
}

/// Whether lines of this level are logged.
#[inline]
pub fn logs(level: Level) -> bool {
    level as u32 <= LEVEL.load(Ordering::Relaxed)
}

/// Logs a line, if its level is logged.
#[cold]
pub fn write(level: Level, text: Arguments<'_>) {
    if !logs(level) {
        return;
    }
    let mut line = String::with_capacity(160);
    crate::clock::write_error_log_time(&mut line);
    let _ = write!(line, " [{}] {}#{}: ", level.name(), std::process::id(), THREAD.get());
    let start = line.len();
    let _ = line.write_fmt(text);
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
    line.push('\n');
    match SINK.get() {
        Some(sink) => sink.write(line.as_bytes()),
        None => eprint!("{line}"),
    }
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
        logs(level_of(metadata.level()))
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
