//! The module under test, with the kit around each of its hooks: it may panic before and after, follows who has the bufs,
//! and looks at the answer. What is wrapped goes through the same guards as any module.
//!
//! Within a hook the kit may panic wherever the module uses a handle, or passes on to the next (see [`point`]). So a panic
//! comes while the module has its context checked out, bufs in its hands, a lock taken.

use super::{
    host,
    kit::{Kit, point},
};
use crate::{
    Balancer, BalancerNext, BodyNext, Chain, Code, ConfigErrors, Content, Filter, HeaderNext, Module, Outcome, Phase,
    PhaseHandler, Progress, Request, Selection, Setup, Upstream, UpstreamId, Variables,
};

/// A module of the author, called by way of the kit. The tests' links point to the author's value itself.
#[repr(transparent)]
pub(crate) struct Injected<M>(M);

impl<M: Module> Module for Injected<M> {
    type Config = M::Config;

    fn new(config: M::Config, setup: &Setup<'_>) -> Result<Injected<M>, ConfigErrors> {
        M::new(config, setup).map(Injected)
    }
}

/// Runs a hook between two points.
fn between<T>(hook: impl FnOnce() -> T) -> T {
    point();
    let answer = hook();
    point();
    answer
}

/// [`between`] for hooks that answer what the chain behind them answered.
fn answering(hook: impl FnOnce() -> Code) -> Code {
    between(|| {
        let code = hook();
        if let Some(kit) = Kit::current() {
            kit.check_answer(code);
        }
        code
    })
}

/// The module has these bufs from here on.
fn given(chain: Chain) -> Chain {
    host::hand_over(&chain);
    chain
}

impl<F: Filter> Filter for Injected<F> {
    const BODY: bool = F::BODY;

    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        answering(|| self.0.header_filter(r, next))
    }

    fn body_filter(&self, r: &mut Request<'_>, chain: Chain, next: BodyNext<'_>) -> Code {
        let chain = given(chain);
        answering(|| self.0.body_filter(r, chain, next))
    }
}

impl<H: PhaseHandler> PhaseHandler for Injected<H> {
    const PHASES: &'static [Phase] = H::PHASES;

    fn handler(&self, r: &mut Request<'_>, phase: Phase) -> Code {
        answering(|| self.0.handler(r, phase))
    }
}

impl<H: Content> Content for Injected<H> {
    fn content(&self, r: &mut Request<'_>) -> Code {
        answering(|| self.0.content(r))
    }
}

impl<U: Upstream> Upstream for Injected<U> {
    fn upstream(&self) -> UpstreamId {
        between(|| self.0.upstream())
    }

    fn replaces_prefix(&self) -> Option<&'static str> {
        between(|| self.0.replaces_prefix())
    }

    fn create_request(&self, r: &mut Request<'_>, request: &mut Chain) -> Code {
        between(|| self.0.create_request(r, request))
    }

    fn reinit_request(&self, r: &mut Request<'_>) -> Code {
        between(|| self.0.reinit_request(r))
    }

    fn process_header(&self, r: &mut Request<'_>, input: &[u8]) -> Progress {
        between(|| self.0.process_header(r, input))
    }

    fn input_filter_init(&self, r: &mut Request<'_>) -> Code {
        between(|| self.0.input_filter_init(r))
    }

    fn input_filter(&self, r: &mut Request<'_>, input: Chain, output: &mut Chain) -> Code {
        let input = given(input);
        between(|| self.0.input_filter(r, input, output))
    }

    fn abort_request(&self, r: &mut Request<'_>) {
        between(|| self.0.abort_request(r));
    }

    fn finalize_request(&self, r: &mut Request<'_>, code: Code) {
        between(|| self.0.finalize_request(r, code));
    }
}

impl<B: Balancer> Balancer for Injected<B> {
    const SERVER_PARAMETERS: &'static [&'static str] = B::SERVER_PARAMETERS;

    /// The configuration is refused if this panics, and the balancer never used: nothing is injected.
    fn init_upstream(&mut self, peers: &Selection<'_>) -> Result<(), ConfigErrors> {
        self.0.init_upstream(peers)
    }

    fn init_peer(&self, s: &mut Selection<'_>, next: BalancerNext<'_>) -> Code {
        between(|| self.0.init_peer(s, next))
    }

    fn get(&self, s: &mut Selection<'_>, next: BalancerNext<'_>) -> Option<usize> {
        between(|| self.0.get(s, next))
    }

    fn free(&self, s: &mut Selection<'_>, peer: usize, outcome: Outcome, next: BalancerNext<'_>) {
        between(|| self.0.free(s, peer, outcome, next));
    }
}

impl<V: Variables> Variables for Injected<V> {
    const NAMES: &'static [&'static str] = V::NAMES;
    const NOCACHEABLE: &'static [&'static str] = V::NOCACHEABLE;

    fn variable(r: &mut Request<'_>, index: usize) -> Option<Vec<u8>> {
        between(|| V::variable(r, index))
    }
}
