//! The peers of an upstream, and their state, shared by all threads and by http, stream and mail.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::socket::{Endpoint, Socket};

/// The peers of one upstream.
#[derive(Debug)]
pub struct Peers {
    /// In the order of the configuration; a name with several addresses stands for several peers.
    pub list: Vec<Peer>,
}

/// One peer.
#[derive(Debug)]
pub struct Peer {
    /// Its address, as it is logged and as balancers see it.
    pub name: String,
    /// Its address.
    pub address: Endpoint,
    /// Its share (weight).
    pub weight: u32,
    /// Failures that make it unavailable; 0: none does (max_fails).
    pub max_fails: u32,
    /// The time in which failures count, and for which it is unavailable (fail_timeout).
    pub fail_timeout: Duration,
    /// Connections at a time; 0: no limit (max_conns).
    pub max_conns: u32,
    /// Used only if no other is available (backup).
    pub backup: bool,
    /// Never used (down).
    pub down: bool,
    connections: AtomicU32,
    fails: AtomicU32,
    /// When it failed last, and when it was last tried after its time out: milliseconds of the worker's clock.
    failed_ms: AtomicU64,
    checked_ms: AtomicU64,
}

impl Peer {
    /// A peer that has not failed.
    pub fn new(address: Endpoint) -> Peer {
        Peer {
            name: address.to_string(),
            address,
            weight: 1,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            max_conns: 0,
            backup: false,
            down: false,
            connections: AtomicU32::new(0),
            fails: AtomicU32::new(0),
            failed_ms: AtomicU64::new(0),
            checked_ms: AtomicU64::new(0),
        }
    }

    /// Whether it can be chosen: not down, not failed too often, connections left.
    pub fn is_available(&self, now_ms: u64) -> bool {
        !self.down && !self.is_failed(now_ms) && (self.max_conns == 0 || self.connections() < self.max_conns)
    }

    fn is_failed(&self, now_ms: u64) -> bool {
        let fails = self.fails.load(Ordering::Relaxed);
        let waited = now_ms.saturating_sub(self.checked_ms.load(Ordering::Relaxed));
        self.max_fails > 0 && fails >= self.max_fails && u128::from(waited) <= self.fail_timeout.as_millis()
    }

    /// Connections in use.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Failures that count now.
    pub fn fails(&self, now_ms: u64) -> u32 {
        let waited = now_ms.saturating_sub(self.failed_ms.load(Ordering::Relaxed));
        if u128::from(waited) > self.fail_timeout.as_millis() { 0 } else { self.fails.load(Ordering::Relaxed) }
    }

    /// It was chosen; false if another thread has taken its last connection meanwhile. After its time out one request at
    /// a time tries it again.
    pub fn begin(&self, now_ms: u64) -> bool {
        let more = |count: u32| (self.max_conns == 0 || count < self.max_conns).then(|| count.saturating_add(1));
        if self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return false;
        }
        let waited = now_ms.saturating_sub(self.checked_ms.load(Ordering::Relaxed));
        if u128::from(waited) > self.fail_timeout.as_millis() {
            self.checked_ms.store(now_ms, Ordering::Relaxed);
        }
        true
    }

    /// The request is done with it.
    pub fn end(&self) {
        // Never below zero, even if a count was lost.
        let _ = self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1));
    }

    /// It has failed. True if it is unavailable now.
    pub fn fail(&self, now_ms: u64) -> bool {
        let was_disabled = self.max_fails > 0 && self.fails.load(Ordering::Relaxed) >= self.max_fails;
        // One that fails when it is tried again stays out. Other failures count only within fail_timeout.
        if !was_disabled && self.fails(now_ms) == 0 {
            self.fails.store(0, Ordering::Relaxed);
        }
        self.failed_ms.store(now_ms, Ordering::Relaxed);
        self.checked_ms.store(now_ms, Ordering::Relaxed);
        let fails = self.fails.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.max_fails > 0 && fails >= self.max_fails
    }

    /// It has answered: if it was tried after a failure, the failure is forgotten.
    pub fn succeed(&self) {
        if self.failed_ms.load(Ordering::Relaxed) < self.checked_ms.load(Ordering::Relaxed) {
            self.fails.store(0, Ordering::Relaxed);
        }
    }
}

/// Connections to peers that wait for another request (nginx: keepalive), shared by all threads.
#[derive(Debug)]
pub struct Keepalive {
    idle: Mutex<Vec<Idle>>,
    is_closed: AtomicBool,
    /// How many are kept (keepalive).
    pub max: usize,
    /// For how long (keepalive_timeout).
    pub timeout: Duration,
    /// Requests that one connection may serve (keepalive_requests).
    pub max_requests: u32,
}

/// A kept connection. It is in no poll: whether the peer has closed it shows when it is taken.
#[derive(Debug)]
pub struct Idle {
    /// The number of its peer.
    pub peer: usize,
    /// The socket, non-blocking.
    pub socket: Socket,
    /// Requests that it has served.
    pub requests: u32,
    since_ms: u64,
}

impl Keepalive {
    /// An empty store.
    pub fn new(max: usize, timeout: Duration, max_requests: u32) -> Keepalive {
        Keepalive { idle: Mutex::new(Vec::new()), is_closed: AtomicBool::new(false), max, timeout, max_requests }
    }

    /// The connection to this peer that was used last, if one is alive.
    pub fn take(&self, peer: usize, now_ms: u64) -> Option<Idle> {
        loop {
            let idle = {
                let mut list = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                let at = list.iter().rposition(|idle| idle.peer == peer)?;
                list.remove(at)
            };
            if self.is_alive(&idle, now_ms) {
                return Some(idle);
            }
        }
    }

    /// Closes what is kept, and keeps no more: the worker is to end.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        let list = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        drop(list);
    }

    /// Keeps a connection; the oldest goes if there are too many.
    pub fn put(&self, peer: usize, socket: Socket, requests: u32, now_ms: u64) {
        if self.max == 0 || self.is_closed.load(Ordering::Relaxed) || requests >= self.max_requests {
            return;
        }
        let closed = {
            let mut list = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let oldest = (list.len() >= self.max).then(|| list.remove(0));
            list.push(Idle { peer, socket, requests, since_ms: now_ms });
            oldest
        };
        // Closed here, where the lock is not held.
        drop(closed);
    }

    /// Closes what has been idle for too long, or was closed by its peer.
    pub fn purge(&self, now_ms: u64) {
        let list = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        let mut alive: Vec<Idle> = list.into_iter().filter(|idle| self.is_alive(idle, now_ms)).collect();
        let mut list = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        alive.append(&mut list);
        *list = alive;
    }

    fn is_alive(&self, idle: &Idle, now_ms: u64) -> bool {
        let waited = u128::from(now_ms.saturating_sub(idle.since_ms));
        // A byte, or the end, where nothing was asked for: the connection cannot be used.
        waited < self.timeout.as_millis() && idle.socket.is_silent()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer { max_fails: 2, ..Peer::new(Endpoint::Ip(([127, 0, 0, 1], 1).into())) }
    }

    #[test]
    fn fails_and_recovers_like_nginx() {
        let peer = peer();
        assert!(!peer.fail(1000));
        assert!(peer.is_available(1000));
        assert!(peer.fail(1500), "the second failure makes it unavailable");
        assert!(!peer.is_available(1500));
        assert!(!peer.is_available(11_500));
        assert!(peer.is_available(11_501), "after fail_timeout it is tried again");
        assert!(peer.begin(11_501));
        assert!(!peer.is_available(11_501), "by one request");
        assert!(peer.fail(11_502), "one failure is enough to keep it out");
        assert!(!peer.is_available(21_502));
        assert!(peer.is_available(21_503));
        assert!(peer.begin(21_503));
        peer.succeed();
        assert!(peer.is_available(21_503));
        assert!(!peer.fail(21_504), "counts from one again");
    }

    #[test]
    fn old_failures_do_not_count() {
        let peer = peer();
        assert!(!peer.fail(1000));
        assert_eq!(peer.fails(1000), 1);
        assert_eq!(peer.fails(11_001), 0);
        assert!(!peer.fail(12_000), "counts from one again");
    }

    #[test]
    fn max_conns_and_down() {
        let mut peer = peer();
        peer.max_conns = 1;
        assert!(peer.begin(0));
        assert!(!peer.is_available(0) && !peer.begin(0));
        peer.end();
        peer.end();
        assert!(peer.is_available(0));
        peer.down = true;
        assert!(!peer.is_available(0));
    }
}
