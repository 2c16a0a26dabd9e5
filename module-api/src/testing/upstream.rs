//! Tests of upstream protocols.

use std::{marker::PhantomData, ptr};

use super::{
    Common, Outcome, Output, common,
    drive::{Plan, run},
    expect_none,
    host::{self, MODULE},
    random::Random,
    request::{Links, State},
};
use crate::{
    Buf, Chain, Code, Upstream,
    upstream::{UpstreamHooks, UpstreamLink},
};

/// Starts a test of an upstream protocol.
pub fn upstream<U: Upstream>(upstream: &U) -> UpstreamTest<'_> {
    UpstreamTest {
        common: Common::default(),
        hooks: UpstreamHooks::of::<U>(),
        link: UpstreamLink { data: ptr::from_ref(upstream).cast(), module: MODULE, reserved: [0; 2] },
        closes: false,
        lifetime: PhantomData,
    }
}

/// A test of an upstream protocol: see [`upstream`].
pub struct UpstreamTest<'a> {
    common: Common,
    hooks: UpstreamHooks,
    link: UpstreamLink,
    closes: bool,
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
    /// Twice: this much of it from a peer that then fails, and all from the next.
    Retried(usize),
    /// This much of it; then the client leaves.
    Abandoned(usize),
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
        let (output, faults) = self.run_as(answer.as_ref(), Arrival::Whole, None);
        expect_none(&faults, "the upstream module broke the contract");
        output
    }

    /// The torture: the answer in two parts split at every place (at most 2000), in random parts, from a second peer after
    /// the first one failed, and with clients that leave. Everything that is complete must be as [`UpstreamTest::run`]
    /// has it.
    ///
    /// # Panics
    /// If it is not, with the seed.
    #[track_caller]
    pub fn check(&self, answer: impl AsRef<[u8]>) {
        let answer = answer.as_ref();
        let (expected, faults) = self.run_as(answer, Arrival::Whole, Some(0));
        expect_none(&faults, "the answer came whole");
        let expected = outcome(&expected);
        let splits = (0..=answer.len().min(2000)).map(|at| (at as u64, Arrival::Two(at)));
        let rounds = (self.common.seed..self.common.seed + self.common.rounds).map(|seed| {
            let random = Random::new(seed);
            let part = 1 + random.below(answer.len());
            let arrival = match seed % 4 {
                0 => Arrival::Parts(1),
                1 => Arrival::Parts(part),
                2 => Arrival::Retried(part),
                _ => Arrival::Abandoned(part),
            };
            (seed, arrival)
        });
        for (seed, arrival) in splits.chain(rounds) {
            let when = format!("seed {seed}, the answer came as {arrival:?}");
            let (output, faults) = self.run_as(answer, arrival, Some(seed));
            expect_none(&faults, &when);
            if !matches!(arrival, Arrival::Abandoned(_)) {
                assert_eq!(outcome(&output), expected, "{when}: another outcome than when it came whole");
            }
        }
    }

    fn run_as(&self, answer: &[u8], arrival: Arrival, seed: Option<u64>) -> (UpstreamOutput, Vec<String>) {
        let (mut request, mut keepalive, mut complete) = (Vec::new(), false, false);
        let plan = Plan { seed, ..Plan::default() };
        let (response, faults) = run(&self.common.spec, &Links::new(), &plan, |state| {
            let exchange = Exchange { test: self, state };
            let code = exchange.run(answer, arrival, &mut request, &mut complete);
            keepalive = state.keepalive.get();
            self.common.evaluate(state);
            code
        });
        (UpstreamOutput { request, response, keepalive, complete }, faults)
    }
}

/// One request to one or two peers.
struct Exchange<'a> {
    test: &'a UpstreamTest<'a>,
    state: &'a State,
}

/// What a part of the answer led to.
enum Fed {
    More,
    Complete,
    Failed(Code),
}

/// How far the answer of one peer has been read.
#[derive(Default)]
struct Reading {
    /// All that has come of the header; `None` behind it.
    header: Option<Vec<u8>>,
}

impl Exchange<'_> {
    fn run(&self, answer: &[u8], arrival: Arrival, request: &mut Vec<u8>, complete: &mut bool) -> Code {
        let (state, hooks, link) = (self.state, &self.test.hooks, &self.test.link);
        // The host has read the body before it calls the module.
        state.body_read.set(true);
        let mut chain = Chain::new();
        // SAFETY: the link's data are borrowed by the test. So in all calls below.
        let created = state.call(|r| unsafe { (hooks.create_request)(link, r, &mut chain) });
        request.extend(chain.flat_map(|buf| buf.into_bytes()));
        if created != Code::OK {
            return self.finalize(if created == Code::ERROR { Code::status(500) } else { created });
        }
        let fed = match arrival {
            Arrival::Whole => self.feed([answer].into_iter()),
            Arrival::Two(at) => {
                let (head, tail) = answer.split_at(at.min(answer.len()));
                self.feed([head, tail].into_iter())
            }
            Arrival::Parts(len) => self.feed(answer.chunks(len.max(1))),
            Arrival::Retried(at) => match self.retry(&answer[..at.min(answer.len())]) {
                Some(code) => return self.finalize(code),
                None => self.feed([answer].into_iter()),
            },
            Arrival::Abandoned(at) => {
                let mut reading = Reading { header: Some(Vec::new()) };
                for part in answer[..at.min(answer.len())].chunks(7) {
                    if !matches!(self.part(&mut reading, part), Fed::More) {
                        break;
                    }
                }
                // SAFETY: as above.
                state.call(|r| unsafe { (hooks.abort_request)(link, r) });
                return self.finalize(Code::status(499));
            }
        };
        *complete = matches!(fed, Fed::Complete);
        match fed {
            Fed::Failed(code) => self.finalize(code),
            Fed::More | Fed::Complete => self.finalize(Code::OK),
        }
    }

    /// The first peer fails within its header.
    fn retry(&self, part: &[u8]) -> Option<Code> {
        let (state, hooks, link) = (self.state, &self.test.hooks, &self.test.link);
        let mut taken = 0;
        // SAFETY: as above.
        let code = state.call(|r| unsafe { (hooks.process_header)(link, r, part.into(), &mut taken) });
        let _ = code;
        state.status.set(0);
        state.headers_out.borrow_mut().clear();
        state.content_length.set(None);
        state.keepalive.set(false);
        // SAFETY: as above.
        let code = state.call(|r| unsafe { (hooks.reinit_request)(link, r) });
        (code != Code::OK).then_some(Code::status(500))
    }

    fn feed<'b>(&self, parts: impl Iterator<Item = &'b [u8]>) -> Fed {
        let mut reading = Reading { header: Some(Vec::new()) };
        for part in parts.filter(|part| !part.is_empty()) {
            match self.part(&mut reading, part) {
                Fed::More => {}
                other => return other,
            }
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
            return self.body(Chain::from(Buf::from_other_image(part)));
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
            Code::AGAIN => {
                // SAFETY: as above.
                let id = unsafe { (hooks.upstream)(link) };
                let Some(bound) = host::upstream_buffer_size(id) else {
                    state.fault("upstream() is not what UpstreamId::find gave");
                    return Fed::Failed(Code::status(500));
                };
                return if header.len() as u64 >= bound { Fed::Failed(Code::status(502)) } else { Fed::More };
            }
            _ => return Fed::Failed(Code::status(502)),
        }
        let body = header.split_off(taken);
        reading.header = None;
        if state.send_header() == Code::ERROR {
            return Fed::Failed(Code::status(500));
        }
        // SAFETY: as above.
        match state.call(|r| unsafe { (hooks.input_filter_init)(link, r) }) {
            Code::OK if body.is_empty() => Fed::More,
            Code::OK => self.body(Chain::from(Buf::from_other_image(&body))),
            Code::DONE => {
                self.send(Chain::from(Buf::last()));
                Fed::Complete
            }
            _ => Fed::Failed(Code::status(502)),
        }
    }

    fn body(&self, input: Chain) -> Fed {
        let (state, hooks, link) = (self.state, &self.test.hooks, &self.test.link);
        let mut output = Chain::new();
        // SAFETY: as above.
        let code = state.call(|r| unsafe { (hooks.input_filter)(link, r, input, &mut output) });
        // The end of the body is what Done says; the flag of the buf that told of the close may have been moved along.
        let output = output.map(|mut buf| {
            buf.set_last(false);
            buf
        });
        let mut output: Chain = output.filter(|buf| !buf.is_empty()).collect();
        if code == Code::DONE {
            output.push(Buf::last());
        }
        self.send(output);
        match code {
            Code::OK => Fed::More,
            Code::DONE => Fed::Complete,
            _ => Fed::Failed(Code::status(502)),
        }
    }

    fn send(&self, chain: Chain) {
        if !chain.is_empty() {
            self.state.output(chain);
        }
    }

    fn finalize(&self, code: Code) -> Code {
        let (hooks, link) = (&self.test.hooks, &self.test.link);
        // SAFETY: as above.
        self.state.call(|r| unsafe { (hooks.finalize_request)(link, r, code) });
        code
    }
}

/// What must be the same however the answer came.
fn outcome(output: &UpstreamOutput) -> (String, Outcome, bool, bool) {
    let response = &output.response;
    // How much of a body goes on before a fault is found in it depends on how it came.
    let broken = response.code.is_some_and(|code| code != Code::OK);
    let body = if broken { &[] } else { response.body.as_slice() };
    (output.request.escape_ascii().to_string(), response.outcome(body), output.keepalive, output.complete)
}
