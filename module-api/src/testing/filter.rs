//! Tests of filters.

use std::{marker::PhantomData, ptr};

use bytes::Bytes;

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
    Buf, Chain, Code, Filter,
    file::FileKind,
    filter::{BodyLink, FilterHooks, HeaderLink},
};

/// Starts a test of a filter.
pub fn filter<F: Filter>(filter: &F) -> FilterTest<'_> {
    let test = FilterTest {
        common: Common::default(),
        filters: Vec::new(),
        status: 200,
        headers: Vec::new(),
        body: Bytes::new(),
        length_known: true,
        allow_ranges: false,
        decode: Box::new(<[u8]>::to_vec),
        lifetime: PhantomData,
    };
    test.then(filter)
}

/// How a body is read before it is compared.
type Decode<'a> = Box<dyn Fn(&[u8]) -> Vec<u8> + 'a>;

/// A test of a filter, or of several: see [`filter`].
pub struct FilterTest<'a> {
    common: Common,
    filters: Vec<(HeaderLink, Option<BodyLink>)>,
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Bytes,
    length_known: bool,
    allow_ranges: bool,
    decode: Decode<'a>,
    lifetime: PhantomData<&'a ()>,
}

impl<'a> FilterTest<'a> {
    common!();

    /// Puts another filter behind.
    pub fn then<F: Filter>(mut self, filter: &'a F) -> Self {
        let hooks = FilterHooks::of::<Injected<F>>();
        let (data, module) = (ptr::from_ref(filter).cast(), MODULE + self.filters.len() as u32);
        let header = HeaderLink::new(hooks.header, data, module);
        let body = hooks.has_body.then_some(BodyLink::new(hooks.body, data, module));
        self.filters.push((header, body));
        self
    }

    /// The response that the filter meets. Its length is known.
    pub fn response(mut self, status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        self.status = status;
        self.headers = headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
        self.body = Bytes::copy_from_slice(body.as_ref());
        self
    }

    /// The length of the response is not known in advance.
    pub fn length_unknown(mut self) -> Self {
        self.length_known = false;
        self
    }

    /// The handler said that the response may be sent in ranges.
    pub fn allow_ranges(mut self) -> Self {
        self.allow_ranges = true;
        self
    }

    /// How `check` reads a body before it compares it with that of other rounds: decompressed, for example.
    pub fn decode(mut self, decode: impl Fn(&[u8]) -> Vec<u8> + 'a) -> Self {
        self.decode = Box::new(decode);
        self
    }

    /// Runs the response through the filter in one buf.
    ///
    /// # Panics
    /// If the contract is broken or something leaks. A module that panics does not make it panic: see `panics`.
    #[track_caller]
    pub fn run(&self) -> Output {
        self.run_chains(|body| vec![whole(body, 0)])
    }

    /// Runs the response through the filter, one call for each chain that `chains` makes of the body. The last buf of the
    /// last chain must have `last` set; an empty chain stands for "continue".
    ///
    /// # Panics
    /// As [`FilterTest::run`].
    #[track_caller]
    pub fn run_chains(&self, chains: impl Fn(&Bytes) -> Vec<Chain>) -> Output {
        let round = self.run_plan(&Plan::default(), |body, _| chains(body));
        expect_none(&round.faults, "the filter broke the contract");
        round.output
    }

    /// The torture: whole, in random pieces (of one byte, empty, flushed, in a file), with an end that answers Again or
    /// Error to header and body, with clients that leave, with panics further on and in the filter itself. Everything that
    /// is complete must be as when it is run whole, also in the request after.
    ///
    /// # Panics
    /// If it is not, with the seed.
    #[track_caller]
    pub fn check(&self) {
        let run = |plan: &Plan| match plan.split {
            true => self.run_plan(plan, split),
            false => self.run_plan(plan, |body, _| vec![whole(body, 0)]),
        };
        torture(&self.common, run, |output| self.outcome(output), |a, b| a.blame(b, "header_filter", "body_filter"));
    }

    /// What must be the same however the response came in pieces.
    fn outcome(&self, output: &Output) -> Outcome {
        output.outcome(&(self.decode)(&output.body))
    }

    fn run_plan(&self, plan: &Plan, chains: impl Fn(&Bytes, &Random) -> Vec<Chain>) -> Round<Output> {
        let mut links = Links::new();
        self.filters.iter().rev().for_each(|(header, body)| links.push(*header, *body));
        let random = Random::new(plan.seed.unwrap_or_default());
        run(&self.common.spec, &links, plan, |state| {
            let code = self.drive(state, &random, chains(&self.body, &random));
            self.common.evaluate(state);
            code
        })
    }

    /// The host's part: the header, the body piece by piece, then whatever is still to come.
    fn drive(&self, state: &State, random: &Random, chains: Vec<Chain>) -> Code {
        state.status.set(self.status);
        *state.headers_out.borrow_mut() = self.headers.clone();
        state.content_length.set(Some(self.body.len() as u64).filter(|_| self.length_known));
        state.allow_ranges.set(self.allow_ranges);
        let mut code = state.call(|_| state.send_header());
        if code != Code::OK && code != Code::AGAIN {
            return code;
        }
        if !state.header_sent.get() && !state.given_up() {
            state.fault(format!("header_filter answered {code:?} without passing the header on"));
            return code;
        }
        if state.spec.header_only(state.status.get()) {
            return code;
        }
        for chain in chains {
            // A random round continues with what was not taken at once, or sends more before it has left.
            while !state.given_up() && code == Code::AGAIN && random.one_in(2) {
                code = state.step();
            }
            if state.given_up() || code == Code::ERROR {
                return code;
            }
            code = state.call(|_| state.output(chain));
        }
        state.settle(|_| Code::OK, code)
    }
}

/// The whole body in one buf, or with a file handle.
fn whole(body: &Bytes, flags: u32) -> Chain {
    let mut buf = if flags == 0 { Buf::from_other_image(body) } else { Buf::from(body.clone()) };
    buf.set_last(true);
    buf.set_last_in_chain(true);
    Chain::from(buf)
}

/// The body in random pieces, in random chains.
fn split(body: &Bytes, random: &Random) -> Vec<Chain> {
    let longest = match random.below(4) {
        0 if body.len() <= 2000 => 1,
        1 => 1 + body.len() / 2,
        2 => body.len().max(1),
        _ => (1 + body.len() / 16).max(16),
    };
    let mut rest = body.clone();
    let mut chains = Vec::new();
    let mut chain = Chain::new();
    while !rest.is_empty() {
        let piece = rest.split_to((1 + random.below(longest)).min(rest.len()));
        chain.push(piece_buf(&piece, random));
        match random.below(12) {
            0 => chain.push(Buf::flush()),
            1 => chain.push(Buf::copy_from(b"")),
            2 => chains.push(Chain::new()),
            _ => {}
        }
        if random.one_in(2) {
            chains.push(std::mem::take(&mut chain));
        }
    }
    match (chain.last_mut(), random.one_in(2)) {
        (Some(last), true) => {
            last.set_last(true);
            last.set_last_in_chain(true);
        }
        _ => chain.push(Buf::last()),
    }
    chains.push(chain);
    chains
}

/// A piece as memory of this or another image, as a window of longer memory, or as part of a file.
fn piece_buf(piece: &Bytes, random: &Random) -> Buf {
    let mut buf = match random.below(4) {
        0 => Buf::from(piece.clone()),
        1 => {
            let file = Bytes::from([b"before", piece.as_ref(), b"behind"].concat());
            Buf::from_file(host::open(file, 0, FileKind::Regular), 6, piece.len() as u64)
        }
        2 => {
            let mut longer = Buf::from_other_image(&[b"x", piece.as_ref()].concat());
            longer.advance(1);
            longer
        }
        _ => Buf::from_other_image(piece),
    };
    buf.set_flush(random.one_in(16));
    buf
}
