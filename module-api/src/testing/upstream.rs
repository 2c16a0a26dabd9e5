//! Tests of upstream protocols.

use std::{cell::Cell, marker::PhantomData, ptr};

use super::{
    Common, Outcome, Output, common,
    drive::run,
    expect_none,
    host::{self, MODULE},
    inject::Injected,
    plan::{Plan, Round, torture},
    random::Random,
    request::{Links, State},
};
use crate::{
    Buf, Bytes, Chain, Code, Upstream,
    upstream::{UpstreamHooks, UpstreamLink},
};

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

/// One request to one or two peers.
struct Exchange<'a> {
    test: &'a UpstreamTest<'a>,
    state: &'a State,
    random: &'a Random,
    /// Whether parts of the body come in several bufs.
    split: bool,
}

/// What a part of the answer led to.
enum Fed {
    More,
    Complete,
    Failed(Code),
    /// The client has gone.
    Left,
}

/// How far the answer of one peer has been read.
struct Reading {
    /// All that has come of the header; `None` behind it.
    header: Option<Vec<u8>>,
    /// The bound of the header.
    bound: u64,
}

impl Exchange<'_> {
    fn run(&self, answer: &[u8], arrival: Arrival, request: &mut Vec<u8>, complete: &mut bool) -> Code {
        let (state, hooks, link) = (self.state, &self.test.hooks, &self.test.link);
        // The host has read the body before it calls the module.
        state.body_read.set(true);
        state.producer.set("input_filter");
        // SAFETY: the link's data are borrowed by the test. So in all calls below.
        let id = state.call(|_| unsafe { (hooks.upstream)(link) });
        let Some(bound) = host::upstream_buffer_size(id) else {
            if !state.given_up() {
                state.fault("upstream() is not what UpstreamId::find gave");
            }
            return Code::status(500);
        };
        let mut chain = Chain::new();
        // SAFETY: as above.
        let created = state.call(|r| unsafe { (hooks.create_request)(link, r, &mut chain) });
        request.extend(chain.flat_map(|buf| buf.into_bytes()));
        if created != Code::OK {
            // No peer was asked: the host does not call `finalize_request`.
            return if created == Code::ERROR { Code::status(500) } else { created };
        }
        let reading = || Reading { header: Some(Vec::new()), bound };
        let fed = match arrival {
            Arrival::Retried(at) => self.retry(&answer[..at.min(answer.len())]),
            _ => Fed::More,
        };
        let fed = match fed {
            Fed::More => self.feed(reading(), &arrival.split(answer, self.random)),
            over => over,
        };
        *complete = matches!(fed, Fed::Complete);
        let code = match fed {
            Fed::Failed(code) => code,
            Fed::More | Fed::Complete => Code::OK,
            Fed::Left => {
                // SAFETY: as above.
                state.call(|r| unsafe { (hooks.abort_request)(link, r) });
                Code::status(499)
            }
        };
        // SAFETY: as above.
        state.call(|r| unsafe { (hooks.finalize_request)(link, r, code) });
        if state.drain() == Code::ERROR { Code::ERROR } else { code }
    }

    /// The first peer fails within its header.
    fn retry(&self, part: &[u8]) -> Fed {
        let (state, hooks, link) = (self.state, &self.test.hooks, &self.test.link);
        if !part.is_empty() {
            let mut taken = 0;
            // SAFETY: as above.
            let code = state.call(|r| unsafe { (hooks.process_header)(link, r, part.into(), &mut taken) });
            if state.kit.panicked() {
                return Fed::Failed(Code::status(500));
            }
            if code != Code::AGAIN {
                // Not valid, whatever follows: no other peer is asked.
                return Fed::Failed(Code::status(502));
            }
        }
        if state.closed() {
            return Fed::Left;
        }
        state.status.set(0);
        state.headers_out.borrow_mut().clear();
        state.content_length.set(None);
        state.keepalive.set(false);
        // SAFETY: as above.
        let code = state.call(|r| unsafe { (hooks.reinit_request)(link, r) });
        if code == Code::OK { Fed::More } else { Fed::Failed(Code::status(500)) }
    }

    fn feed(&self, mut reading: Reading, parts: &[&[u8]]) -> Fed {
        for part in parts.iter().filter(|part| !part.is_empty()) {
            if self.state.closed() {
                return Fed::Left;
            }
            match self.part(&mut reading, part) {
                Fed::More => {}
                other => return other,
            }
        }
        if self.state.closed() {
            return Fed::Left;
        }
        if !self.test.closes {
            return Fed::More;
        }
        match reading.header {
            Some(_) => Fed::Failed(Code::status(502)),
            None => match self.body(Chain::from(Buf::last())) {
                Fed::More => {
                    self.state
                        .fault("input_filter answered Ok to the end of the connection, rather than Done or Error");
                    Fed::More
                }
                other => other,
            },
        }
    }

    fn part(&self, reading: &mut Reading, part: &[u8]) -> Fed {
        let (state, hooks, link) = (self.state, &self.test.hooks, &self.test.link);
        let Some(header) = &mut reading.header else {
            return self.body(self.bufs(part));
        };
        header.extend_from_slice(part);
        let mut taken = 0;
        // SAFETY: as above.
        match state.call(|r| unsafe { (hooks.process_header)(link, r, header.as_slice().into(), &mut taken) }) {
            Code::OK if taken <= header.len() => {}
            Code::OK => {
                state.fault(format!("process_header took {taken} bytes of {}", header.len()));
                return Fed::Failed(Code::status(502));
            }
            Code::AGAIN if header.len() as u64 >= reading.bound => return Fed::Failed(Code::status(502)),
            Code::AGAIN => return Fed::More,
            _ => return Fed::Failed(Code::status(502)),
        }
        self.test.header_length.set(taken);
        let body = header.split_off(taken);
        reading.header = None;
        let code = state.send_header();
        if !matches!(code, Code::OK | Code::AGAIN) {
            return Fed::Failed(code);
        }
        // SAFETY: as above.
        match state.call(|r| unsafe { (hooks.input_filter_init)(link, r) }) {
            Code::OK if body.is_empty() => Fed::More,
            Code::OK if state.closed() => Fed::Left,
            Code::OK => self.body(self.bufs(&body)),
            Code::DONE => match self.send(Chain::from(Buf::last())) {
                Fed::More => Fed::Complete,
                other => other,
            },
            _ => Fed::Failed(Code::status(502)),
        }
    }

    /// A part of the body, in one buf or several, of this image and of another.
    fn bufs(&self, mut part: &[u8]) -> Chain {
        let mut chain = Chain::new();
        while !part.is_empty() {
            let len = if self.split { 1 + self.random.below(part.len()) } else { part.len() };
            let (piece, rest) = part.split_at(len);
            let own = self.split && self.random.one_in(2);
            chain.push(if own { Buf::from(Bytes::copy_from_slice(piece)) } else { Buf::from_other_image(piece) });
            part = rest;
        }
        chain
    }

    fn body(&self, input: Chain) -> Fed {
        let (state, hooks, link) = (self.state, &self.test.hooks, &self.test.link);
        let mut output = Chain::new();
        // SAFETY: as above.
        let code = state.call(|r| unsafe { (hooks.input_filter)(link, r, input, &mut output) });
        if state.kit.panicked() {
            return Fed::Failed(Code::status(502));
        }
        // The end of the body is what Done says; the flag of the buf that told of the close may have been moved along.
        let output = output.map(|mut buf| {
            buf.set_last(false);
            buf
        });
        let mut output: Chain = output.filter(|buf| !buf.is_empty()).collect();
        if code == Code::DONE {
            output.push(Buf::last());
        }
        match (self.send(output), code) {
            (Fed::More, Code::OK) => Fed::More,
            (Fed::More, Code::DONE) => Fed::Complete,
            (Fed::More, _) => Fed::Failed(Code::status(502)),
            (over, _) => over,
        }
    }

    /// Passes content on. When the client takes no more, the peer is at times asked for more before it does.
    fn send(&self, chain: Chain) -> Fed {
        if chain.is_empty() {
            return Fed::More;
        }
        let mut code = self.state.output(chain);
        while code == Code::AGAIN && !self.state.given_up() && self.random.one_in(2) {
            code = self.state.step();
        }
        if matches!(code, Code::OK | Code::AGAIN) { Fed::More } else { Fed::Failed(Code::ERROR) }
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
