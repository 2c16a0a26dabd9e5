//! From samples to the row of a Markdown table: ratios per round, their median and spread, and the mark.
//!
//! ```text
//! | case | requests per CPU second | requests/s | p99 latency | memory | floor | goal | mark |
//! |---|---|---|---|---|---|---|---|
//! | 1k | 1.42 [1.39..1.44] | 1.38 [1.30..1.41] | 1.20 [0.97..1.33] | 1.85 [1.85..1.85] | 1.35 | 1.50 | below goal |
//! ```
//!
//! Every ratio is above 1 where topnext is better.

use std::fmt;
use std::time::Duration;

use crate::cases::Case;
use crate::wrk::Load;

/// One run of one server.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub load: Load,
    /// CPU time of all processes of the server during the run.
    pub cpu: Duration,
    /// Resident memory of the server's workers after the run, in bytes.
    pub memory: u64,
}

impl Sample {
    pub fn requests_per_cpu_second(&self) -> f64 {
        self.load.requests as f64 / self.cpu.as_secs_f64()
    }
}

/// The runs of both servers that stood side by side.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub topnext: Sample,
    pub nginx: Sample,
    /// Requests per CPU second by turns, topnext / nginx.
    pub turns: f64,
}

/// Median and extremes of a set of ratios.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` if there are no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let half = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[half - 1], values[half]),
            _ => values[half],
        };
        Some(Spread { median, min, max })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} [{:.2}..{:.2}]", self.median, self.min, self.max)
    }
}

/// Where the median of requests per CPU second lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// At the goal or above.
    Pass,
    /// At the floor or above.
    BelowGoal,
    BelowFloor,
}

impl Mark {
    /// Judges the exact ratio, not the rounded one that the table shows.
    pub fn of(ratio: f64, case: &Case) -> Mark {
        if ratio >= case.goal {
            Mark::Pass
        } else if ratio >= case.floor {
            Mark::BelowGoal
        } else {
            Mark::BelowFloor
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mark::Pass => "pass",
            Mark::BelowGoal => "below goal",
            Mark::BelowFloor => "**below floor**",
        })
    }
}

/// The head of the table; a [`Row`] belongs under it.
pub const TABLE_HEAD: &str = "\
| case | requests per CPU second | requests/s | p99 latency | memory | floor | goal | mark |
|---|---|---|---|---|---|---|---|";

/// A case's ratios. It prints as a line of the table.
#[derive(Debug)]
pub struct Row {
    pub case: &'static Case,
    /// topnext / nginx.
    pub requests_per_cpu_second: Spread,
    /// topnext / nginx.
    pub requests_per_second: Spread,
    /// nginx / topnext.
    pub p99: Spread,
    /// nginx / topnext.
    pub memory: Spread,
}

impl Row {
    /// `None` if there are no rounds.
    pub fn of(case: &'static Case, rounds: &[Round]) -> Option<Row> {
        let spread = |ratio: fn(&Round) -> f64| Spread::of(rounds.iter().map(ratio));
        Some(Row {
            case,
            requests_per_cpu_second: spread(|round| round.turns)?,
            requests_per_second: spread(|round| {
                round.topnext.load.requests_per_second / round.nginx.load.requests_per_second
            })?,
            p99: spread(|round| round.nginx.load.p99_us / round.topnext.load.p99_us)?,
            memory: spread(|round| round.nginx.memory as f64 / round.topnext.memory as f64)?,
        })
    }

    pub fn mark(&self) -> Mark {
        Mark::of(self.requests_per_cpu_second.median, self.case)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "| {} | {} | {} | {} | {} | {:.2} | {:.2} | {} |",
            self.case.name,
            self.requests_per_cpu_second,
            self.requests_per_second,
            self.p99,
            self.memory,
            self.case.floor,
            self.case.goal,
            self.mark()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    fn sample(requests: u64, p99_us: f64, memory: u64) -> Sample {
        let load = Load { requests, requests_per_second: requests as f64 / 2.0, p99_us };
        Sample { load, cpu: Duration::from_secs(1), memory }
    }

    #[test]
    fn median_of_odd_and_even_counts() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 3.0, 2.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([1.5]), Some(Spread { median: 1.5, min: 1.5, max: 1.5 }));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn every_ratio_is_above_one_where_topnext_is_better() {
        // Twice the requests, a quarter of the latency, half of the memory.
        let better = Round { topnext: sample(2000, 100.0, 5), nginx: sample(1000, 400.0, 10), turns: 1.5 };
        let row = Row::of(cases::find("return").unwrap(), &[better]).unwrap();
        assert_eq!(row.requests_per_cpu_second.median, 1.5);
        assert_eq!(row.requests_per_second.median, 2.0);
        assert_eq!(row.p99.median, 4.0);
        assert_eq!(row.memory.median, 2.0);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine is half as fast in the second round: no reason for a spread.
        let rounds = [
            Round { topnext: sample(3000, 10.0, 1), nginx: sample(2000, 10.0, 1), turns: 1.5 },
            Round { topnext: sample(1500, 20.0, 1), nginx: sample(1000, 20.0, 1), turns: 1.5 },
        ];
        let row = Row::of(cases::find("1k").unwrap(), &rounds).unwrap();
        assert_eq!(row.requests_per_second, Spread { median: 1.5, min: 1.5, max: 1.5 });
        assert_eq!(
            row.to_string(),
            "| 1k | 1.50 [1.50..1.50] | 1.50 [1.50..1.50] | 1.00 [1.00..1.00] | 1.00 [1.00..1.00] \
             | 1.35 | 1.55 | below goal |"
        );
        assert!(Row::of(cases::find("1k").unwrap(), &[]).is_none());
    }

    #[test]
    fn marks_at_their_borders() {
        let case = cases::find("return").unwrap();
        assert_eq!(Mark::of(case.goal, case), Mark::Pass);
        assert_eq!(Mark::of(case.goal - 0.001, case), Mark::BelowGoal);
        assert_eq!(Mark::of(case.floor, case), Mark::BelowGoal);
        assert_eq!(Mark::of(case.floor - 0.001, case), Mark::BelowFloor);
        assert_eq!(Mark::of(f64::NAN, case), Mark::BelowFloor);
    }

    #[test]
    fn table_head_has_the_columns_of_a_row() {
        let round = Round { topnext: sample(1, 1.0, 1), nginx: sample(1, 1.0, 1), turns: 1.0 };
        let row = Row::of(cases::find("1m").unwrap(), &[round]).unwrap().to_string();
        for line in TABLE_HEAD.lines() {
            assert_eq!(line.matches('|').count(), row.matches('|').count(), "{line}");
        }
    }
}
