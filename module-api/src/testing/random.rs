//! Reproducible random numbers: the same seed gives the same test.

use std::cell::Cell;

/// Marsaglia's xorshift64*, seeded through one step of splitmix64 so that small seeds differ at once.
#[derive(Debug)]
pub(crate) struct Random(Cell<u64>);

impl Random {
    /// Any seed will do.
    pub(crate) fn new(seed: u64) -> Random {
        let mut x = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Random(Cell::new((x ^ (x >> 31)).max(1)))
    }

    fn next(&self) -> u64 {
        let mut x = self.0.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// From 0 to `bound - 1`; 0 for a bound of 0.
    pub(crate) fn below(&self, bound: usize) -> usize {
        if bound == 0 { 0 } else { ((self.next() >> 32) as usize) % bound }
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_numbers() {
        let (a, b, c) = (Random::new(1), Random::new(1), Random::new(2));
        let take = |random: &Random| (0..8).map(|_| random.below(1000)).collect::<Vec<_>>();
        let first = take(&a);
        assert_eq!(first, take(&b));
        assert_ne!(first, take(&c));
        assert!(first.iter().all(|number| *number < 1000));
        assert_eq!(a.below(0), 0);
    }
}
