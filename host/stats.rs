//! What the worker counts. Every thread counts on its own cache line, so that counting costs no more than an addition;
//! whoever asks gets the sum.

use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Connections of clients that are open.
    Connections = 0,
    /// Requests of clients.
    Requests = 1,
    /// Bufs that are in use.
    Bufs = 2,
}

const COUNTERS: usize = 3;

/// The counters of one thread. They outlive it, since what it counted stays counted.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard([AtomicI64; COUNTERS]);

static SHARDS: Mutex<Vec<&'static Shard>> = Mutex::new(Vec::new());
static NEXT_CONNECTION: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// Leaked: threads are few, and a sum may be asked for after a thread has ended.
    static SHARD: &'static Shard = {
        let shard: &'static Shard = Box::leak(Box::default());
        SHARDS.lock().unwrap_or_else(PoisonError::into_inner).push(shard);
        shard
    };
}

/// Adds to a counter. On a thread that is ending nothing is counted.
pub fn add(counter: Counter, amount: i64) {
    let _ = SHARD.try_with(|shard| {
        let counter = &shard.0[counter as usize];
        // Only this thread writes here, so that no atomic addition is needed.
        counter.store(counter.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
    });
}

/// The value of a counter.
pub fn get(counter: Counter) -> u64 {
    let shards = SHARDS.lock().unwrap_or_else(PoisonError::into_inner);
    let sum: i64 = shards.iter().map(|shard| shard.0[counter as usize].load(Ordering::Relaxed)).sum();
    u64::try_from(sum).unwrap_or(0)
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
