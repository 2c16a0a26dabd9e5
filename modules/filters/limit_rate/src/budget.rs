//! How much of a response may be sent by now, and how long to wait for more. Knows no clock: `now` comes in.
//!
//! In the second number `n` (from 1 on) of the response, `n` times the rate may have been sent, and `after` bytes for
//! free. What was sent at once is waited for: a burst of a whole second's bytes is followed by a second's pause.

use std::time::Duration;

/// The budget of one response. Times are milliseconds of any clock that never goes back.
#[derive(Debug)]
pub struct Budget {
    /// Bytes per second, more than 0.
    rate: u64,
    /// Bytes that are free.
    after: u64,
    start: u64,
    sent: u64,
    /// Nothing is sent before this time.
    not_before: u64,
}

impl Budget {
    /// For a response that starts now, with a rate in bytes per second and a number of bytes that are free.
    pub fn new(rate: u64, after: u64, now: u64) -> Budget {
        Budget { rate: rate.max(1), after, start: now, sent: 0, not_before: now }
    }

    /// Bytes per second.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// The number of bytes that may be sent now.
    pub fn allowed(&self, now: u64) -> u64 {
        if now < self.not_before {
            return 0;
        }
        self.limit(now).saturating_sub(self.sent)
    }

    /// Notes that so many bytes were sent, and how long it is to wait for that.
    pub fn sent(&mut self, bytes: u64, now: u64) {
        let paid = |sent: u64| u128::from(sent.saturating_sub(self.after));
        let bytes_paid = paid(self.sent.saturating_add(bytes)) - paid(self.sent);
        self.sent = self.sent.saturating_add(bytes);
        let delay = u64::try_from(bytes_paid * 1000 / u128::from(self.rate)).unwrap_or(u64::MAX);
        if delay > 0 {
            self.not_before = now.saturating_add(delay);
        }
    }

    /// The time after which something may be sent again; never zero.
    pub fn wait(&self, now: u64) -> Duration {
        // The limit grows each whole second: the first one in which it is more than what was sent.
        let paid = u128::from(self.sent.saturating_sub(self.after)) + 1;
        let second = u64::try_from(paid.div_ceil(u128::from(self.rate)) - 1).unwrap_or(u64::MAX);
        let growth = self.start.saturating_add(second.saturating_mul(1000));
        Duration::from_millis(self.not_before.max(growth).saturating_sub(now).max(1))
    }

    /// The number of bytes that may have been sent by now, since the start.
    fn limit(&self, now: u64) -> u64 {
        let seconds = now.saturating_sub(self.start) / 1000 + 1;
        self.rate.saturating_mul(seconds).saturating_add(self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `total` bytes as fast as allowed; returns the time it takes, and checks the rate at every step.
    fn send(rate: u64, after: u64, total: u64) -> u64 {
        let start = 12_345;
        let mut budget = Budget::new(rate, after, start);
        let (mut now, mut left) = (start, total);
        for _ in 0..1_000_000 {
            let bytes = budget.allowed(now).min(left);
            budget.sent(bytes, now);
            left -= bytes;
            let limit = u128::from(rate) * u128::from((now - start) / 1000 + 1) + u128::from(after);
            assert!(u128::from(total - left) <= limit, "{} bytes at {}", total - left, now - start);
            if left == 0 {
                return now - start;
            }
            now += u64::try_from(budget.wait(now).as_millis()).expect("short");
        }
        panic!("does not come to an end");
    }

    #[test]
    fn keeps_the_rate() {
        assert_eq!(send(3000, 0, 6001), 2000);
        assert_eq!(send(1000, 0, 1000), 0);
        assert_eq!(send(1000, 0, 1001), 1000);
        assert_eq!(send(1000, 0, 10_000), 9000);
        assert_eq!(send(100 << 10, 1 << 20, (1 << 20) + (300 << 10)), 2000);
    }

    #[test]
    fn what_comes_first_is_free() {
        assert_eq!(send(1, 1_000_000, 1_000_001), 0);
        let mut budget = Budget::new(1000, 500, 0);
        assert_eq!(budget.allowed(0), 1500);
        budget.sent(400, 0);
        assert_eq!(budget.allowed(0), 1100, "free bytes cost no pause");
        budget.sent(1100, 0);
        assert_eq!((budget.allowed(999), budget.wait(0)), (0, Duration::from_secs(1)));
        assert_eq!(budget.allowed(1000), 1000);
    }

    #[test]
    fn pauses_by_what_was_sent() {
        let mut budget = Budget::new(1000, 0, 0);
        budget.sent(250, 0);
        assert_eq!((budget.allowed(249), budget.wait(0)), (0, Duration::from_millis(250)));
        assert_eq!(budget.allowed(250), 750);
    }

    #[test]
    fn bytes_that_trickle_are_limited_too() {
        let mut budget = Budget::new(3000, 0, 0);
        for _ in 0..3000 {
            assert!(budget.allowed(0) > 0);
            budget.sent(1, 0);
        }
        assert_eq!((budget.allowed(0), budget.wait(0)), (0, Duration::from_secs(1)));
        assert_eq!(budget.allowed(1000), 3000);
    }

    #[test]
    fn survives_the_greatest_numbers() {
        let mut budget = Budget::new(u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(budget.allowed(u64::MAX), u64::MAX);
        budget.sent(u64::MAX, u64::MAX);
        let _ = budget.wait(u64::MAX);
        let mut slow = Budget::new(1, 0, 0);
        slow.sent(u64::MAX, 0);
        assert_eq!(slow.allowed(u64::MAX - 1), 0);
        assert_eq!(slow.wait(0), Duration::from_millis(u64::MAX));
    }
}
