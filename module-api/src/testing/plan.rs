//! What is unusual in a round, and the rounds of `check`.

use std::fmt::{self, Debug};

use super::{Common, Panic, expect_none, random::Random};

/// How a request is run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plan {
    /// The seed of what is random; nothing is without one.
    pub(crate) seed: Option<u64>,
    /// Whether what comes, comes in random pieces.
    pub(crate) split: bool,
    /// Whether services and the end answer Again at random.
    pub(crate) again: bool,
    /// After how many hooks the client goes away.
    pub(crate) close_after: Option<u32>,
    /// At which call the end of the chain panics.
    pub(crate) end_panics_at: Option<u32>,
    /// From which call on the end of the chain answers Error.
    pub(crate) end_fails_at: Option<u32>,
    /// At which point in its hooks the module panics.
    pub(crate) module_panics_at: Option<u32>,
}

impl Plan {
    /// Nothing unusual, but what breaks the contract counts.
    pub(crate) fn whole() -> Plan {
        Plan { seed: Some(0), ..Plan::default() }
    }

    pub(crate) fn random(&self) -> Option<Random> {
        self.seed.map(Random::new)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, ", self.seed.unwrap_or_default())?;
        f.write_str(if self.split { "in pieces" } else { "whole" })?;
        let mut tell = |what: &str, at: Option<u32>| match at {
            Some(at) => write!(f, ", {what} {at}"),
            None => Ok(()),
        };
        tell("the client leaves after hook", self.close_after)?;
        tell("the end panics at call", self.end_panics_at)?;
        tell("the end answers Error from call", self.end_fails_at)?;
        tell("the module panics at point", self.module_panics_at)?;
        f.write_str(if self.again { ", with Again" } else { "" })
    }
}

/// What happened how often in a round, so that the next one can be disturbed at one of these.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Hooks that were called.
    pub(crate) hooks: u32,
    /// Calls that came to the end of the chain.
    pub(crate) end: u32,
    /// Points in hooks of the module.
    pub(crate) points: u32,
}

/// What came of one run.
pub(crate) struct Round<T> {
    pub(crate) output: T,
    /// What broke the contract.
    pub(crate) faults: Vec<String>,
    pub(crate) panics: Vec<Panic>,
    /// The hook that was the first to fail by itself, without a panic.
    pub(crate) failed: Option<&'static str>,
    pub(crate) counts: Counts,
    /// Whether the client left, or something panicked or failed: the response need not be complete.
    pub(crate) disturbed: bool,
}

impl<T> Round<T> {
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Round<U> {
        let Round { output, faults, panics, failed, counts, disturbed } = self;
        Round { output: change(output), faults, panics, failed, counts, disturbed }
    }
}

/// How many places of one kind at the start of a whole run, and at its end, are those at which it is disturbed.
const FIRST: u32 = 24;
const LAST: u32 = 8;

/// Runs the rounds of a test: whole, and whole but disturbed at the places that this came by; then each seed in pieces and
/// undisturbed, and disturbed at some place. After each disturbance comes one more whole run, since a request must not see
/// what happened to the one before.
///
/// `blame` names the hook to look at, for two outcomes that differ.
///
/// # Panics
/// If an outcome differs or the contract is broken, with the seed.
#[track_caller]
pub(crate) fn torture<T, O: PartialEq + Debug>(
    common: &Common,
    run: impl Fn(&Plan) -> Round<T>,
    outcome: impl Fn(&T) -> O,
    blame: impl Fn(&O, &O) -> &'static str,
) {
    let whole = run(&Plan::whole());
    expect_none(&whole.faults, "seed 0, whole");
    let expected = outcome(&whole.output);
    let same = Same { run: &run, outcome: &outcome, blame: &blame, expected };
    for plan in everywhere(whole.counts) {
        same.expect_after(&plan, &run(&plan));
    }
    for seed in common.seed..common.seed + common.rounds {
        let plan = Plan { seed: Some(seed), split: true, again: seed % 8 != 0, ..Plan::default() };
        let round = run(&plan);
        same.expect(&round, &plan.to_string());
        if let Some((plan, round)) = disturb(plan, round.counts, &run) {
            same.expect_after(&plan, &round);
        }
    }
}

/// Whole runs that are disturbed, each at another place.
fn everywhere(counts: Counts) -> impl Iterator<Item = Plan> {
    let places = |count: u32| (1..=count).filter(move |at| *at <= FIRST || *at > count.saturating_sub(LAST));
    let panics = places(counts.points).map(|at| Plan { module_panics_at: Some(at), ..Plan::whole() });
    let end_panics = places(counts.end).map(|at| Plan { end_panics_at: Some(at), ..Plan::whole() });
    let end_fails = places(counts.end).map(|at| Plan { end_fails_at: Some(at), ..Plan::whole() });
    let closes = places(counts.hooks).map(|at| Plan { close_after: Some(at), ..Plan::whole() });
    panics.chain(end_panics).chain(end_fails).chain(closes)
}

/// Runs the plan with what its seed wants to go wrong; `None` if nothing does.
fn disturb<T>(plan: Plan, counts: Counts, run: impl Fn(&Plan) -> Round<T>) -> Option<(Plan, Round<T>)> {
    let seed = plan.seed.unwrap_or_default();
    let random = Random::new(seed ^ 0x5EED);
    let any = |count: u32| (count > 0).then(|| 1 + random.below(count as usize) as u32);
    // Half of them early: the rest would nearly all be in the body.
    let early = |count: u32| any(if random.one_in(2) { count.min(12) } else { count });
    let plan = match seed % 8 {
        2 => Plan { close_after: Some(any(counts.hooks)?), ..plan },
        3 => Plan { end_panics_at: Some(early(counts.end)?), ..plan },
        4 | 6 => Plan { module_panics_at: Some(early(counts.points)?), ..plan },
        5 => Plan { end_fails_at: Some(early(counts.end)?), ..plan },
        // A panic in what is called when the client has gone.
        7 => {
            let plan = Plan { close_after: Some(any(counts.hooks)?), ..plan };
            let points = run(&plan).counts.points;
            let late = any(points.min(8))?;
            Plan { module_panics_at: Some(points + 1 - late), ..plan }
        }
        _ => return None,
    };
    let round = run(&plan);
    Some((plan, round))
}

/// What all runs that are not disturbed have in common.
struct Same<'a, T, O> {
    run: &'a dyn Fn(&Plan) -> Round<T>,
    outcome: &'a dyn Fn(&T) -> O,
    blame: &'a dyn Fn(&O, &O) -> &'static str,
    expected: O,
}

impl<T, O: PartialEq + Debug> Same<'_, T, O> {
    #[track_caller]
    fn expect(&self, round: &Round<T>, when: &str) {
        expect_none(&round.faults, when);
        let found = {
            let _told = TellOnPanic(when);
            (self.outcome)(&round.output)
        };
        let expected = &self.expected;
        if found != *expected {
            let hook = round.failed.unwrap_or_else(|| (self.blame)(&found, expected));
            panic!(
                "{when}: another outcome than when run whole, see {hook}\n  found    {found:?}\n  expected {expected:?}"
            );
        }
    }

    /// For a round that was to be disturbed, and the request that comes next.
    #[track_caller]
    fn expect_after(&self, plan: &Plan, round: &Round<T>) {
        let when = when(plan, &round.panics);
        if round.disturbed {
            expect_none(&round.faults, &when);
        } else {
            self.expect(round, &when);
        }
        self.expect(&(self.run)(&Plan::whole()), &format!("{when}; then the next request, whole"));
    }
}

/// The plan, and where it has led to a panic.
fn when(plan: &Plan, panics: &[Panic]) -> String {
    match panics.first() {
        Some(panic) => format!("{plan}, {panic}"),
        None => plan.to_string(),
    }
}

/// Says which round it was if the test's own `decode` panics.
struct TellOnPanic<'a>(&'a str);

impl Drop for TellOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in the round with {}", self.0);
        }
    }
}
