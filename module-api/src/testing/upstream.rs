//! Tests of upstream protocols.

mod exchange;

use std::{cell::Cell, marker::PhantomData, ptr};

use super::{
    Common, Outcome, Output, common,
    drive::run,
    expect_none,
    host::MODULE,
    inject::Injected,
    plan::{Plan, Round, torture},
    random::Random,
    request::Links,
};
use crate::{
    Code, Upstream,
    upstream::{UpstreamHooks, UpstreamLink},
};
use exchange::Exchange;

/// Starts a test of an upstream protocol.
pub fn upstream<U: Upstream>(upstream: &U) -> UpstreamTest<'_> {
    UpstreamTest {
        common: Common::default(),
        hooks: UpstreamHooks::of::<Injected<U>>(),
        link: UpstreamLink { data: ptr::from_ref(upstream).cast(), module: MODULE, reserved: [0; 2] },
        closes: false,
        header_length: Cell::new(0),
        lifetime: PhantomData,
    }
}

/// A test of an upstream protocol: see [`upstream`].
pub struct UpstreamTest<'a> {
    common: Common,
    hooks: UpstreamHooks,
    link: UpstreamLink,
    closes: bool,
    /// How long the header of the answer is, once the module has said so.
    header_length: Cell<usize>,
    lifetime: PhantomData<&'a ()>,
}

/// What came of a request to a peer.
#[derive(Clone, Debug)]
pub struct UpstreamOutput {
    /// The request as it goes to the peer.
    pub request: Vec<u8>,
    /// The response as it goes on to the client. Its status is 502 if the peer's answer was not valid.
    pub response: Output,
    /// Whether the connection may be kept.
    pub keepalive: bool,
    /// Whether the module said that the body is complete.
    pub complete: bool,
}

/// How the peer's answer comes.
#[derive(Clone, Copy, Debug)]
enum Arrival {
    /// At once.
    Whole,
    /// In two parts.
    Two(usize),
    /// In parts of this length at most.
    Parts(usize),
    /// In parts of random lengths, up to this.
    Random(usize),
    /// Twice: this much of its header from a peer that then fails, and all from the next, in random parts.
    Retried(usize),
}

impl Arrival {
    /// What the seed says.
    fn of(plan: &Plan, answer: &[u8], header: usize) -> Arrival {
        let (seed, random) = match plan.seed {
            Some(seed) if plan.split => (seed, Random::new(seed)),
            _ => return Arrival::Whole,
        };
        let part = 1 + random.below(answer.len());
        // The lowest digits choose what goes wrong: see `plan`.
        match (seed / 8) % 4 {
            0 => Arrival::Random(part),
            1 => Arrival::Retried(random.below(header)),
            2 => Arrival::Parts(1),
            _ => Arrival::Parts(part),
        }
    }

    /// The parts of the answer.
    fn split<'a>(self, answer: &'a [u8], random: &Random) -> Vec<&'a [u8]> {
        match self {
            Arrival::Whole => vec![answer],
            Arrival::Retried(_) => Arrival::Random(answer.len()).split(answer, random),
            Arrival::Two(at) => <[_; 2]>::from(answer.split_at(at.min(answer.len()))).to_vec(),
            Arrival::Parts(len) => answer.chunks(len.max(1)).collect(),
            Arrival::Random(most) => {
                let (mut parts, mut rest) = (Vec::new(), answer);
                while !rest.is_empty() {
                    let (part, behind) = rest.split_at((1 + random.below(most)).min(rest.len()));
                    parts.push(part);
                    rest = behind;
                }
                parts
            }
        }
    }
}

impl UpstreamTest<'_> {
    common!();

    /// The peer closes the connection behind its answer.
    pub fn peer_closes(mut self) -> Self {
        self.closes = true;
        self
    }

    /// Has the module make its request, and gives it this answer of the peer.
    ///
    /// # Panics
    /// If the contract is broken or something leaks. A module that panics does not make it panic: see `panics`.
    #[track_caller]
    pub fn run(&self, answer: impl AsRef<[u8]>) -> UpstreamOutput {
        let round = self.run_plan(answer.as_ref(), Arrival::Whole, &Plan::default());
        expect_none(&round.faults, "the upstream module broke the contract");
        round.output
    }

    /// The torture: the answer in two parts split at every place (at most 2000), in random parts and bufs, from a second
    /// peer after the first one failed, with a client that answers Again or Error to header and body, that leaves, with
    /// panics further on and in all seven callbacks. Everything that is complete must be as [`UpstreamTest::run`] has it,
    /// also in the request after.
    ///
    /// # Panics
    /// If it is not, with the seed.
    #[track_caller]
    pub fn check(&self, answer: impl AsRef<[u8]>) {
        let answer = answer.as_ref();
        let whole = self.run_plan(answer, Arrival::Whole, &Plan::whole());
        expect_none(&whole.faults, "seed 0, whole");
        let expected = UpstreamOutcome::of(&whole.output);
        for at in 0..=answer.len().min(2000) {
            let plan = Plan { seed: Some(at as u64), again: at % 2 == 1, ..Plan::default() };
            let round = self.run_plan(answer, Arrival::Two(at), &plan);
            let when = format!("the answer came in two parts, of {at} bytes and the rest");
            expect_none(&round.faults, &when);
            let found = UpstreamOutcome::of(&round.output);
            let hook = found.blame(&expected);
            assert_eq!(found, expected, "{when}: another outcome than when run whole, see {hook}");
        }
        let run = |plan: &Plan| {
            let arrival = Arrival::of(plan, answer, self.header_length.get());
            self.run_plan(answer, arrival, plan)
        };
        torture(&self.common, run, UpstreamOutcome::of, UpstreamOutcome::blame);
    }

    fn run_plan(&self, answer: &[u8], arrival: Arrival, plan: &Plan) -> Round<UpstreamOutput> {
        let (mut request, mut keepalive, mut complete) = (Vec::new(), false, false);
        let random = Random::new(plan.seed.unwrap_or_default());
        let round = run(&self.common.spec, &Links::new(), plan, |state| {
            let exchange = Exchange { test: self, state, random: &random, split: plan.split };
            let code = exchange.run(answer, arrival, &mut request, &mut complete);
            keepalive = state.keepalive.get();
            self.common.evaluate(state);
            code
        });
        round.map(|response| UpstreamOutput { request, response, keepalive, complete })
    }
}

/// What must be the same however the answer came.
#[derive(Debug, PartialEq)]
struct UpstreamOutcome {
    request: String,
    response: Outcome,
    keepalive: bool,
    complete: bool,
}

impl UpstreamOutcome {
    fn of(output: &UpstreamOutput) -> UpstreamOutcome {
        let response = &output.response;
        // How much of a body goes on before a fault is found in it depends on how it came.
        let broken = response.code.is_some_and(|code| code != Code::OK);
        let body = if broken { &[] } else { response.body.as_slice() };
        UpstreamOutcome {
            request: output.request.escape_ascii().to_string(),
            response: response.outcome(body),
            keepalive: output.keepalive,
            complete: output.complete,
        }
    }

    fn blame(&self, other: &UpstreamOutcome) -> &'static str {
        if self.request != other.request {
            return "create_request";
        }
        self.response.blame(&other.response, "process_header", "input_filter")
    }
}
