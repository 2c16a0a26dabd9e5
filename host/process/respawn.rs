//! When a worker that has died is replaced: at once, unless it dies again and again.

use std::{collections::VecDeque, time::Duration};

/// Deaths within [`WINDOW`] after which the next worker waits.
const AT_ONCE: usize = 10;
const WINDOW: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(60);

/// The deaths of the workers in one slot.
#[derive(Debug, Default)]
pub struct Respawn {
    /// When they were, in milliseconds of a clock that never goes back.
    recent: VecDeque<u64>,
    delay: Duration,
    /// Of those that could not start, as long as none can.
    delay_of_start: Duration,
}

impl Respawn {
    /// A worker that lived for so long has died: when the next one is to be started.
    pub fn died(&mut self, now_ms: u64, lived: Duration) -> Duration {
        let window = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
        self.recent.retain(|at| now_ms.saturating_sub(*at) < window);
        let is_calm = self.recent.len() < AT_ONCE && (self.delay.is_zero() || lived >= WINDOW);
        self.delay = if is_calm { Duration::ZERO } else { (2 * self.delay).clamp(FIRST_DELAY, MAX_DELAY) };
        self.recent.push_back(now_ms);
        self.delay_of_start = Duration::ZERO;
        self.delay
    }

    /// A worker could not start, and has said why: when it is tried again. Never at once, since that would come out the same.
    pub fn failed(&mut self) -> Duration {
        self.delay_of_start = (2 * self.delay_of_start).clamp(FIRST_DELAY, MAX_DELAY);
        self.delay_of_start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_at_once_then_longer_and_longer() {
        let mut respawn = Respawn::default();
        let lived = Duration::from_millis(100);
        let delays: Vec<u64> = (0..20).map(|n| respawn.died(n * 100, lived).as_secs()).collect();
        assert_eq!(delays, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        // It goes on while they die young, however rarely.
        assert_eq!(respawn.died(1_000_000, Duration::from_secs(59)).as_secs(), 60);
        assert_eq!(respawn.died(2_000_000, Duration::from_secs(60)), Duration::ZERO);
        assert_eq!(respawn.died(2_000_001, lived), Duration::ZERO);
    }

    #[test]
    fn what_cannot_start_is_not_tried_at_once() {
        let mut respawn = Respawn::default();
        let delays: Vec<u64> = (0..8).map(|_| respawn.failed().as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        // One has started.
        assert_eq!(respawn.died(1_000, Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(respawn.failed().as_secs(), 1);
    }

    #[test]
    fn now_and_then_is_always_at_once() {
        let mut respawn = Respawn::default();
        let lived = Duration::from_secs(7);
        assert!((0..100).all(|n| respawn.died(n * 7_000, lived).is_zero()));
    }
}
