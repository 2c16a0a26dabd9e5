//! What the worker counts, over all threads.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The counters.
#[derive(Debug)]
pub struct Stats {
    start: Instant,
    accepted: AtomicU64,
    closed: AtomicU64,
    requests: AtomicU64,
}

/// The worker's counters; the first call starts the clock.
pub fn get() -> &'static Stats {
    static STATS: OnceLock<Stats> = OnceLock::new();
    STATS.get_or_init(|| Stats {
        start: Instant::now(),
        accepted: AtomicU64::new(0),
        closed: AtomicU64::new(0),
        requests: AtomicU64::new(0),
    })
}

impl Stats {
    /// Counts a connection, and numbers it.
    pub fn accept(&self) -> u64 {
        self.accepted.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts a connection as closed.
    pub fn close(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request.
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections of clients that are open.
    pub fn active(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed).saturating_sub(self.closed.load(Ordering::Relaxed))
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.start.elapsed()
    }

    /// Milliseconds since the start: the clock of what threads share.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
