//! How fast the processor runs just now. Another machine may share the core, or its clock may change, from one second to
//! the next by a third and more; a limit in nanoseconds is meant for the full speed.

use std::{hint::black_box, time::Instant};

/// Additions of a measurement, each of which waits for the one before: about 20 us.
const ADDITIONS: u32 = 10_000;
/// This much slower than the fastest is still the full speed.
const TOLERANCE: f64 = 0.04;

/// Additions in a nanosecond.
pub fn now() -> f64 {
    let start = Instant::now();
    let mut sum = 0_u64;
    for _ in 0..ADDITIONS {
        sum = black_box(sum.wrapping_add(1));
    }
    f64::from(ADDITIONS) / start.elapsed().as_nanos().max(1) as f64
}

/// Which of the rounds ran at full speed: each has the speed before it and behind it. The fastest ones are not trusted,
/// lest a single wrong one makes all others slow.
pub fn full(rounds: &[(f64, f64)]) -> Vec<bool> {
    let mut sorted: Vec<f64> = rounds.iter().map(|(before, behind)| before.min(*behind)).collect();
    sorted.sort_by(f64::total_cmp);
    let fastest = sorted.get(sorted.len().saturating_sub(1 + sorted.len() / 100)).copied().unwrap_or(0.0);
    rounds.iter().map(|(before, behind)| before.min(*behind) >= fastest * (1.0 - TOLERANCE)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_rounds_are_told_apart() {
        let mut rounds = vec![(2.0, 2.0), (1.97, 2.0), (2.0, 1.3), (1.3, 2.0), (1.3, 1.3)];
        assert_eq!(full(&rounds), [true, true, false, false, false]);
        // One of two hundred that cannot be true.
        rounds = vec![(2.0, 2.0); 199];
        rounds.push((9.0, 9.0));
        assert!(full(&rounds).iter().all(|full| *full));
        assert!(full(&[]).is_empty());
        assert!(now() > 0.0);
    }
}
