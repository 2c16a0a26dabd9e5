//! Tests of filters.

use std::{marker::PhantomData, ptr};

use bytes::Bytes;

use super::{
    Common, Outcome, Output, common,
    drive::{Plan, run},
    end::INJECTED,
    expect_none,
    host::{self, MODULE},
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
    decode: Decode<'a>,
    lifetime: PhantomData<&'a ()>,
}

impl<'a> FilterTest<'a> {
    common!();

    /// Puts another filter behind.
    pub fn then<F: Filter>(mut self, filter: &'a F) -> Self {
        let hooks = FilterHooks::of::<F>();
        let (data, module) = (ptr::from_ref(filter).cast(), MODULE + self.filters.len() as u32);
        let header = HeaderLink { call: hooks.header, data, next: ptr::null(), module, reserved: [0; 2] };
        let body =
            hooks.has_body.then_some(BodyLink { call: hooks.body, data, next: ptr::null(), module, reserved: [0; 2] });
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
        let (output, faults) = self.run_plan(&Plan::default(), |body, _| chains(body));
        expect_none(&faults, "the filter broke the contract");
        output
    }

    /// The torture: whole, in random pieces (of one byte, empty, flushed, in a file), with an end that answers Again, with
    /// clients that leave, with panics further on. Everything that is complete must be as when it is run whole.
    ///
    /// # Panics
    /// If it is not, with the seed.
    #[track_caller]
    pub fn check(&self) {
        let (expected, faults) =
            self.run_plan(&Plan { seed: Some(0), ..Plan::default() }, |body, _| vec![whole(body, 0)]);
        expect_none(&faults, "run whole");
        let expected = self.outcome(&expected);
        for seed in self.common.seed..self.common.seed + self.common.rounds {
            let plan = plan(seed, self.body.len());
            let when = format!("seed {seed}, {plan:?}");
            let (output, faults) = self.run_plan(&plan, split);
            expect_none(&faults, &when);
            let injected = output.panics.iter().any(|panic| panic.message == INJECTED);
            if plan.is_kind() || (plan.panic_at.is_some() && !injected) {
                let _told = TellOnPanic(&when);
                assert_eq!(self.outcome(&output), expected, "{when}: another outcome than when run whole");
            }
        }
    }

    /// What must be the same however the response came in pieces.
    fn outcome(&self, output: &Output) -> Outcome {
        output.outcome(&(self.decode)(&output.body))
    }

    fn run_plan(&self, plan: &Plan, chains: impl Fn(&Bytes, &Random) -> Vec<Chain>) -> (Output, Vec<String>) {
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
        let mut code = state.call(|_| state.send_header());
        if code != Code::OK && code != Code::AGAIN {
            return code;
        }
        if !state.header_sent.get() && !state.kit.panicked() {
            state.fault(format!("the header filter answered {code:?} without passing the header on"));
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

/// Says which round it was if the test's own `decode` panics.
struct TellOnPanic<'a>(&'a str);

impl Drop for TellOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in the round with {}", self.0);
        }
    }
}

/// The whole body in one buf, or with a file handle.
fn whole(body: &Bytes, flags: u32) -> Chain {
    let mut buf = if flags == 0 { Buf::from_other_image(body) } else { Buf::from(body.clone()) };
    buf.set_last(true);
    buf.set_last_in_chain(true);
    Chain::from(buf)
}

/// What is unusual in this round.
fn plan(seed: u64, len: usize) -> Plan {
    let random = Random::new(seed ^ 0x5EED);
    let at = 1 + random.below(4 + len.min(12)) as u32;
    let kind = seed % 4;
    let plan = Plan { seed: Some(seed), again: kind != 0, ..Plan::default() };
    match kind {
        2 => Plan { close_after: Some(at), ..plan },
        3 => Plan { panic_at: Some(at), ..plan },
        _ => plan,
    }
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
