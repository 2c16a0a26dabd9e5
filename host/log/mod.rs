//! Logs: lines go into bounded buffers, which one thread of their own writes out, so that no loop waits for a disk or a
//! terminal. When a buffer is full lines are dropped and counted. The thread is there while lines come, and ends when none
//! have come for a while.
//!
//! ```text
//! error.rs   a line of an error log  --+
//! format.rs  log_format, compiled      |
//! access.rs  a line of an access log --+--> sink.rs  one per target: its buffer, its file, its troubles
//!                                                      ^             ^
//!                 the thread: writes, flushes, reopens writer.rs     file.rs  how it is opened
//! ```

pub mod error;

pub mod format;

pub mod access;

pub mod file;

mod sink;

mod writer;

use std::{
    io::{self, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

pub use sink::{Buffering, Conflict, Sink};
pub use writer::{close_unused, files, flush, reopen, start};

/// To standard error at once, whatever logs there are. It may be full, or gone.
pub fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
