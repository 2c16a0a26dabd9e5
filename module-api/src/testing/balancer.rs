//! Tests of balancers.

mod check;
mod selection;

use std::{
    cell::{Cell, RefCell},
    fmt,
    marker::PhantomData,
    ptr,
    rc::Rc,
};

use abi_stable::prefix_type::PrefixTypeTrait;

use super::{
    Line, Panic,
    host::{self, MODULE},
    inject::Injected,
};
use crate::{
    Balancer, BalancerNext, Config, Outcome, Selection,
    balancer::{BalancerHooks, BalancerHooksRef, BalancerLink},
    config::{ConfigErrors, Field, Table},
};
use selection::Choice;
pub(crate) use selection::table;

/// Starts a test of a balancer with these peers: their addresses and weights. Runs the balancer's `init_upstream`.
///
/// # Panics
/// If the balancer refuses the peers: see [`BalancerTest::try_new`], which can also have backups.
#[track_caller]
pub fn balancer<'a, B: Balancer>(balancer: &'a mut B, peers: &[(&str, u32)]) -> BalancerTest<'a> {
    match BalancerTest::try_new(balancer, peers, &[]) {
        Ok(test) => test,
        Err(errors) => panic!("the balancer refuses its peers: {errors}"),
    }
}

/// A balancer for the end of a chain: the first peer that is available.
#[derive(Debug)]
pub struct FirstAvailable;

impl Config for FirstAvailable {
    const FIELDS: &'static [Field] = &[];

    fn from_table(_: &mut Table, _: &mut ConfigErrors) -> Option<FirstAvailable> {
        Some(FirstAvailable)
    }
}

impl Balancer for FirstAvailable {
    fn get(&self, s: &mut Selection<'_>, _: BalancerNext<'_>) -> Option<usize> {
        (0..s.len()).find(|&peer| s.is_available(peer))
    }
}

/// A test of a balancer: see [`balancer`].
pub struct BalancerTest<'a> {
    links: Vec<Rc<BalancerLink>>,
    peers: Vec<Peer>,
    log: RefCell<Vec<Line>>,
    panics: RefCell<Vec<Panic>>,
    seed: u64,
    rounds: u64,
    /// Points in hooks that were passed in this round, and at which of them to panic.
    points: Cell<u32>,
    panic_at: Cell<Option<u32>>,
    /// The round of `check`, for its messages.
    when: RefCell<String>,
    lifetime: PhantomData<&'a mut ()>,
}

/// A peer, as the host keeps it.
#[derive(Debug)]
struct Peer {
    address: String,
    weight: u32,
    backup: bool,
    down: Cell<bool>,
    failed: Cell<bool>,
    fails: Cell<u32>,
    max_fails: Cell<u32>,
    connections: Cell<u32>,
    max_connections: Cell<u32>,
}

impl<'a> BalancerTest<'a> {
    /// [`balancer`], with backups, which are numbered behind the peers, and with the errors of `init_upstream` as text.
    pub fn try_new<B: Balancer>(
        balancer: &'a mut B,
        peers: &[(&str, u32)],
        backups: &[(&str, u32)],
    ) -> Result<BalancerTest<'a>, String> {
        let all = peers.iter().map(|peer| (peer, false)).chain(backups.iter().map(|peer| (peer, true)));
        let peers = all.map(|((address, weight), backup)| Peer {
            address: address.to_string(),
            weight: *weight,
            backup,
            down: Cell::new(false),
            failed: Cell::new(false),
            fails: Cell::new(0),
            max_fails: Cell::new(1),
            connections: Cell::new(0),
            max_connections: Cell::new(0),
        });
        let test = BalancerTest {
            links: Vec::new(),
            peers: peers.collect(),
            log: RefCell::default(),
            panics: RefCell::default(),
            seed: 1,
            rounds: 120,
            points: Cell::new(0),
            panic_at: Cell::new(None),
            when: RefCell::default(),
            lifetime: PhantomData,
        };
        test.with(balancer)
    }

    /// Puts another balancer behind, to which the one before can delegate. [`FirstAvailable`] is one.
    ///
    /// # Panics
    /// If it refuses the peers.
    #[track_caller]
    pub fn then<B: Balancer>(self, balancer: &'a mut B) -> BalancerTest<'a> {
        match self.with(balancer) {
            Ok(test) => test,
            Err(errors) => panic!("the balancer refuses its peers: {errors}"),
        }
    }

    fn with<B: Balancer>(mut self, balancer: &'a mut B) -> Result<BalancerTest<'a>, String> {
        host::set_up();
        let hooks: BalancerHooksRef = BalancerHooks::of::<Injected<B>>().leak_into_prefix();
        let data = ptr::from_mut(balancer).cast::<()>();
        let module = MODULE + self.links.len() as u32;
        let choice = Choice::new(&self, None);
        // SAFETY: the balancer is borrowed exclusively, and not shared yet.
        let errors = choice.call(|s| unsafe { hooks.init_upstream()(module, data, s) });
        drop(choice);
        if !errors.is_empty() {
            let lines: Vec<String> = errors.iter().map(|error| error.message.to_string()).collect();
            return Err(lines.join("\n"));
        }
        // Links point to the one behind them, so that all are made anew, from the last to the first.
        let mut all: Vec<(BalancerHooksRef, *const ())> =
            self.links.iter().map(|link| (link.hooks, link.data)).collect();
        all.push((hooks, data.cast_const()));
        let mut next = ptr::null();
        self.links.clear();
        for (at, (hooks, data)) in all.into_iter().enumerate().rev() {
            let link = Rc::new(BalancerLink { hooks, data, next, module: MODULE + at as u32, reserved: [0; 2] });
            next = Rc::as_ptr(&link);
            self.links.insert(0, link);
        }
        Ok(self)
    }

    /// Says whether this peer is marked down in the configuration.
    pub fn set_down(&self, peer: usize, down: bool) {
        self.peers[peer].down.set(down);
    }

    /// Says whether this peer has failed too often to be chosen now (max_fails within fail_timeout).
    pub fn set_failed(&self, peer: usize, failed: bool) {
        self.peers[peer].failed.set(failed);
        self.peers[peer].fails.set(u32::from(failed));
    }

    /// How many failures make this peer unavailable (max_fails); 1 at first.
    pub fn set_max_fails(&self, peer: usize, most: u32) {
        self.peers[peer].max_fails.set(most);
    }

    /// The most connections that this peer may have; 0 for any number.
    pub fn set_max_connections(&self, peer: usize, most: u32) {
        self.peers[peer].max_connections.set(most);
    }

    /// The peer's connections in use.
    pub fn connections(&self, peer: usize) -> u32 {
        self.peers[peer].connections.get()
    }

    /// A request of this client comes, gets a peer, and is done with it at once.
    pub fn select(&self, client: &str) -> Option<usize> {
        self.choose(client).get()
    }

    /// A request of this client comes. It has its peers as long as the value lives. An address that is none stands for a
    /// unix socket.
    pub fn choose(&self, client: &str) -> Choosing<'_> {
        let choice = Choice::new(self, client.parse().ok());
        let next = self.next();
        let ready = choice.call(|s| next.init_peer(s)) == crate::Code::OK;
        Choosing { test: self, choice, ready, peer: Cell::new(None) }
    }

    /// How often each peer is chosen by `n` requests of this client, one after the other.
    pub fn count(&self, n: usize, client: &str) -> Vec<usize> {
        let mut counts = vec![0; self.peers.len()];
        for _ in 0..n {
            if let Some(count) = self.select(client).and_then(|peer| counts.get_mut(peer)) {
                *count += 1;
            }
        }
        counts
    }

    /// The seed of the first round of `check`; 1 without.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How many rounds `check` runs; 120 without.
    pub fn rounds(mut self, rounds: u64) -> Self {
        self.rounds = rounds;
        self
    }

    /// What was logged so far.
    pub fn log(&self) -> Vec<Line> {
        self.log.borrow().clone()
    }

    /// Panics that were caught so far.
    pub fn panics(&self) -> Vec<Panic> {
        self.panics.borrow().clone()
    }

    fn next(&self) -> BalancerNext<'_> {
        // SAFETY: the links are kept by the test, and their data borrowed.
        unsafe { BalancerNext::new(self.links.first().map(|link| &**link)) }
    }
}

impl fmt::Debug for BalancerTest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalancerTest").field("peers", &self.peers).finish_non_exhaustive()
    }
}

/// A request that needs a peer: see [`BalancerTest::choose`]. When it is dropped it is done with its peer (`Ok`).
pub struct Choosing<'a> {
    test: &'a BalancerTest<'a>,
    choice: Choice<'a>,
    ready: bool,
    peer: Cell<Option<usize>>,
}

impl Choosing<'_> {
    /// The next peer; `None` if there is none, or the balancer failed. A peer that it had before counts as failed.
    ///
    /// # Panics
    /// If the balancer chooses a peer that does not exist or is not available.
    #[track_caller]
    pub fn get(&self) -> Option<usize> {
        self.free(Outcome::Failed);
        if !self.ready {
            return None;
        }
        let next = self.test.next();
        let peer = self.choice.call(|s| next.get(s))?;
        let available = self.test.peers.get(peer).is_some_and(|_| self.choice.is_available(peer));
        assert!(available, "{}get chose peer {peer}, which does not exist or is not available", self.test.prefix());
        self.choice.tried.borrow_mut().push(peer);
        let connections = &self.test.peers[peer].connections;
        connections.set(connections.get() + 1);
        self.peer.set(Some(peer));
        Some(peer)
    }

    /// The request is done with its peer. A failure is counted, and the peer is not available to this request any more.
    pub fn free(&self, outcome: Outcome) {
        let Some(peer) = self.peer.take() else { return };
        let host = &self.test.peers[peer];
        host.connections.set(host.connections.get() - 1);
        if outcome == Outcome::Failed {
            host.fails.set(host.fails.get() + 1);
        }
        let next = self.test.next();
        self.choice.call(|s| next.free(s, peer, outcome));
    }
}

impl Drop for Choosing<'_> {
    fn drop(&mut self) {
        self.free(Outcome::Ok);
    }
}
