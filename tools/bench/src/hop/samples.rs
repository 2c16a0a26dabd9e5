//! Times of many batches of calls: the middle one, and how far the others are from it.

use std::time::Instant;

/// Nanoseconds of one call, in each batch.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// No batches yet, and room for so many without an allocation.
    pub fn with_room(batches: usize) -> Samples {
        Samples(Vec::with_capacity(batches))
    }

    /// Runs a batch of so many calls, and notes what one of them took.
    pub fn run(&mut self, calls: u32, mut call: impl FnMut()) {
        let start = Instant::now();
        for _ in 0..calls {
            call();
        }
        self.add(start.elapsed().as_nanos() as f64 / f64::from(calls));
    }

    /// Those of the batches that `wanted` says, in which each has its answer; with room for as many as there were.
    pub fn only(&self, wanted: &[bool]) -> Samples {
        let mut some = Samples::with_room(self.0.len());
        some.0.extend(self.0.iter().zip(wanted).filter(|(_, wanted)| **wanted).map(|(time, _)| *time));
        some
    }

    /// Notes the time of one call.
    pub fn add(&mut self, nanoseconds: f64) {
        self.0.push(nanoseconds);
    }

    /// The middle.
    pub fn median(&self) -> f64 {
        self.at(0.5)
    }

    /// The tenth percentile: other work on the machine makes a batch longer, never shorter.
    pub fn quiet(&self) -> f64 {
        self.at(0.1)
    }

    /// Half of the distance between the tenth and the ninetieth percentile.
    pub fn spread(&self) -> f64 {
        (self.at(0.9) - self.at(0.1)) / 2.0
    }

    fn at(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let index = (sorted.len().saturating_sub(1) as f64 * part).round() as usize;
        sorted.get(index).copied().unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middle_and_spread() {
        let mut samples = Samples::default();
        (0..=10).rev().for_each(|n| samples.add(f64::from(n)));
        assert_eq!((samples.quiet(), samples.median(), samples.spread()), (1.0, 5.0, 4.0));
        assert!(Samples::default().median().is_nan());
        let (mut some, wanted) = (Samples::default(), [true, false, true]);
        [1.0, 7.0, 3.0].into_iter().for_each(|time| some.add(time));
        assert_eq!((some.only(&wanted).at(0.0), some.only(&wanted).at(1.0)), (1.0, 3.0));
    }
}
