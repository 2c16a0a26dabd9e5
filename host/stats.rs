//! What the worker counts. Every thread counts on its own board of the scoreboard, so that counting costs no more than an
//! addition; whoever asks gets the sum.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::process::scoreboard::{self, COUNTERS};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Connections of clients that are open.
    Connections = 0,
    /// Requests of clients.
    Requests = 1,
    /// Bufs that are in use.
    Bufs = 2,
    /// Connections that have been accepted.
    Accepted = 3,
    /// Requests that have not ended.
    Running = 4,
}

static NEXT_CONNECTION: AtomicU64 = AtomicU64::new(1);

/// Adds to a counter. On a thread that is ending nothing is counted.
pub fn add(counter: Counter, amount: i64) {
    if let Some(board) = scoreboard::mine() {
        let counter = &board[COUNTERS + counter as usize];
        // Only this thread writes here, so that no atomic addition is needed.
        counter.store(counter.load(Ordering::Relaxed).wrapping_add_signed(amount), Ordering::Relaxed);
    }
}

/// The value of a counter.
pub fn get(counter: Counter) -> u64 {
    sum(scoreboard::all().into_iter(), counter)
}

/// The value of a counter on these boards. What one thread has begun another may have ended, so that only the sum counts.
pub fn sum<'b>(boards: impl Iterator<Item = &'b [AtomicU64]>, counter: Counter) -> u64 {
    let sum =
        boards.fold(0u64, |sum, board| sum.wrapping_add(board[COUNTERS + counter as usize].load(Ordering::Relaxed)));
    u64::try_from(sum.cast_signed()).unwrap_or(0)
}

/// A number for a connection, unique in the process.
pub fn next_connection() -> u64 {
    NEXT_CONNECTION.fetch_add(1, Ordering::Relaxed)
}

/// Time since the start; the first call is the start.
pub fn uptime() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// The same in milliseconds: the clock of what threads share.
pub fn now_ms() -> u64 {
    u64::try_from(uptime().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_together_and_stay_counted() {
        let before = get(Counter::Bufs);
        let threads: Vec<_> =
            (0..4).map(|_| std::thread::spawn(|| (0..1000).for_each(|_| add(Counter::Bufs, 1)))).collect();
        for thread in threads {
            thread.join().expect("counts");
        }
        add(Counter::Bufs, -4000);
        assert_eq!(get(Counter::Bufs), before);
    }
}
