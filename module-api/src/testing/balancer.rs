//! Tests of balancers.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    marker::PhantomData,
    net::IpAddr,
    ptr,
    rc::Rc,
};

use abi_stable::{
    prefix_type::PrefixTypeTrait,
    std_types::{RSlice, RStr},
};

use super::{
    Line, Panic, expect_none,
    host::{self, MODULE},
    inject::Injected,
    kit::{INJECTED, Kit},
    random::Random,
};
use crate::{
    Balancer, BalancerNext, Config, Level, Outcome, Selection,
    balancer::{BalancerHooks, BalancerHooksRef, BalancerLink, peer_number},
    config::{ConfigErrors, Field, Table},
    host::{HostData, SelectionApi, SelectionApiRef},
    running::Running,
};

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

    /// The torture: requests of these clients that overlap, with peers that are down, that fail or answer, in random order,
    /// and panics in the balancers' hooks. Whoever got a peer before gets one after each of the rounds as well; only peers
    /// that exist and are available are chosen, and nothing leaks.
    ///
    /// # Panics
    /// If it is not so, with the seed.
    #[track_caller]
    pub fn check(&self, clients: &[&str]) {
        self.start_round("before all rounds".to_string(), None);
        let served: Vec<bool> = clients.iter().map(|client| self.select(client).is_some()).collect();
        self.expect_no_fault();
        for seed in self.seed..self.seed + self.rounds {
            self.start_round(format!("seed {seed}"), None);
            self.disturbed(clients, seed);
            self.expect_no_fault();
            if let Some(last @ 1..) = Some(self.points.get()).filter(|_| seed % 4 != 0) {
                let at = 1 + Random::new(seed ^ 0x5EED).below(last as usize) as u32;
                self.start_round(format!("seed {seed}, the balancer panics at point {at}"), Some(at));
                self.disturbed(clients, seed);
                self.expect_no_fault();
            }
            let when = self.when.take();
            self.start_round(format!("{when}; then the next request"), None);
            for (client, served) in clients.iter().zip(&served) {
                let peer = self.select(client);
                self.expect_no_fault();
                let when = self.when.borrow();
                assert!(peer.is_some() == *served, "{when}: get chose {peer:?} for {client}, which it did not before");
            }
        }
        self.when.take();
    }

    fn start_round(&self, when: String, panic_at: Option<u32>) {
        self.points.set(0);
        self.panic_at.set(panic_at);
        self.panics.borrow_mut().clear();
        self.when.replace(when);
    }

    #[track_caller]
    fn expect_no_fault(&self) {
        let panics = self.panics.borrow();
        let own = panics.iter().filter(|panic| panic.message != INJECTED).map(Panic::to_string);
        expect_none(&own.collect::<Vec<_>>(), &self.when.borrow());
        // From here on messages tell where the kit panicked.
        if let (Some(panic), when) = (panics.first(), &mut *self.when.borrow_mut())
            && !when.contains(INJECTED)
        {
            *when = format!("{when}, {panic}");
        }
    }

    /// Requests that overlap, while the peers come and go.
    #[track_caller]
    fn disturbed(&self, clients: &[&str], seed: u64) {
        let random = Random::new(seed);
        let any_peer = || random.below(self.peers.len());
        let before: Vec<_> =
            self.peers.iter().map(|peer| (peer.down.get(), peer.failed.get(), peer.fails.get())).collect();
        let mut requests = Vec::new();
        for _ in 0..4 + random.below(12) {
            match random.below(6) {
                0 if !self.peers.is_empty() => self.set_down(any_peer(), random.one_in(2)),
                1 if !self.peers.is_empty() => self.set_failed(any_peer(), random.one_in(2)),
                2 if !requests.is_empty() => drop(requests.swap_remove(random.below(requests.len()))),
                3 if !requests.is_empty() => {
                    let request: &Choosing<'_> = &requests[random.below(requests.len())];
                    request.free(if random.one_in(2) { Outcome::Failed } else { Outcome::Unknown });
                    request.get();
                }
                _ if clients.is_empty() => {}
                _ => {
                    let request = self.choose(clients[random.below(clients.len())]);
                    // The peers before the last one fail: at some time there are none left.
                    for _ in 0..=random.below(self.peers.len() + 2) {
                        request.get();
                    }
                    requests.push(request);
                }
            }
        }
        drop(requests);
        for (peer, (down, failed, fails)) in self.peers.iter().zip(before) {
            peer.down.set(down);
            peer.failed.set(failed);
            peer.fails.set(fails);
            assert_eq!(peer.connections.get(), 0, "{}: connections are left", self.when.borrow());
        }
    }

    /// What was logged so far.
    pub fn log(&self) -> Vec<Line> {
        self.log.borrow().clone()
    }

    /// Panics that were caught so far.
    pub fn panics(&self) -> Vec<Panic> {
        self.panics.borrow().clone()
    }

    /// How messages start during `check`.
    fn prefix(&self) -> String {
        let when = self.when.borrow();
        if when.is_empty() { String::new() } else { format!("{when}: ") }
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

/// The state behind a [`Selection`].
struct Choice<'a> {
    test: &'a BalancerTest<'a>,
    address: Vec<u8>,
    states: RefCell<HashMap<u32, u64>>,
    tried: RefCell<Vec<usize>>,
}

impl<'a> Choice<'a> {
    fn new(test: &'a BalancerTest<'a>, client: Option<IpAddr>) -> Choice<'a> {
        let address = match client {
            Some(IpAddr::V4(v4)) => v4.octets().to_vec(),
            Some(IpAddr::V6(v6)) => v6.octets().to_vec(),
            None => Vec::new(),
        };
        Choice { test, address, states: RefCell::default(), tried: RefCell::default() }
    }

    /// Calls a hook with a handle of this choice.
    #[track_caller]
    fn call<T>(&self, hook: impl FnOnce(&mut Selection<'_>) -> T) -> T {
        let (kit, guard) = Kit::start();
        let before = self.test.points.get();
        kit.set_panic_at(self.test.panic_at.get().and_then(|at| at.checked_sub(before)));
        // SAFETY: this value outlives the call, and the handle does not; this is the thread's cell.
        let mut s = unsafe { Selection::new(ptr::from_ref(self).cast(), host::selections(), host::cell()) };
        let answer = hook(&mut s);
        drop(guard);
        self.test.points.set(before.saturating_add(kit.points()));
        if !std::thread::panicking() {
            assert_eq!(host::cell().get(), Running::HOST, "the cell that says who runs was not restored");
            expect_none(&kit.leaks(), &format!("{}the balancer leaks", self.test.prefix()));
        }
        self.test.panics.borrow_mut().extend(kit.panics());
        self.test.log.borrow_mut().extend(kit.lines());
        answer
    }

    fn is_available(&self, at: usize) -> bool {
        self.test.peers.get(at).is_some_and(|peer| {
            let most = peer.max_connections.get();
            let room = most == 0 || peer.connections.get() < most;
            !peer.down.get() && !peer.failed.get() && room && !self.tried.borrow().contains(&at)
        })
    }
}

pub(crate) fn table() -> SelectionApiRef {
    SelectionApi { peer_number: number, peer_address, client_address, state, set_state, logs, log }.leak_into_prefix()
}

/// The choice behind the pointer in a handle.
///
/// # Safety
/// `s` is the pointer of a handle that `Choice::call` made, during the hook that was given it.
unsafe fn choice<'a>(s: HostData) -> &'a Choice<'a> {
    // SAFETY: the choice outlives the hook, and is only ever shared.
    unsafe { &*s.cast::<Choice<'_>>() }
}

unsafe extern "C" fn number(s: HostData, peer: u32, which: u32) -> i64 {
    // SAFETY: called through a handle. So in all functions below.
    let choice = unsafe { choice(s) };
    if which == peer_number::COUNT {
        return choice.test.peers.len() as i64;
    }
    let Some(found) = choice.test.peers.get(peer as usize) else {
        return -1;
    };
    match which {
        peer_number::WEIGHT => i64::from(found.weight),
        peer_number::BACKUP => i64::from(found.backup),
        peer_number::AVAILABLE => i64::from(choice.is_available(peer as usize)),
        peer_number::CONNECTIONS => i64::from(found.connections.get()),
        peer_number::FAILS => i64::from(found.fails.get()),
        peer_number::DOWN => i64::from(found.down.get()),
        peer_number::MAX_FAILS => i64::from(found.max_fails.get()),
        _ => -1,
    }
}

unsafe extern "C" fn peer_address(s: HostData, peer: u32) -> RStr<'static> {
    // SAFETY: as above.
    let choice = unsafe { choice(s) };
    let address = choice.test.peers.get(peer as usize).map_or("", |peer| peer.address.as_str());
    // SAFETY: the peers of a test stay as they are while it is used, and handles give the text out for no longer than the
    // hook.
    unsafe { RStr::from_raw_parts(address.as_ptr(), address.len()) }
}

unsafe extern "C" fn client_address(s: HostData) -> RSlice<'static, u8> {
    // SAFETY: as above.
    let address = &unsafe { choice(s) }.address;
    // SAFETY: as in `peer_address`.
    unsafe { RSlice::from_raw_parts(address.as_ptr(), address.len()) }
}

unsafe extern "C" fn state(s: HostData, module: u32) -> u64 {
    // SAFETY: as above.
    unsafe { choice(s) }.states.borrow().get(&module).copied().unwrap_or(0)
}

unsafe extern "C" fn set_state(s: HostData, module: u32, state: u64) {
    // SAFETY: as above.
    unsafe { choice(s) }.states.borrow_mut().insert(module, state);
}

unsafe extern "C" fn logs(_: u32) -> bool {
    true
}

unsafe extern "C" fn log(s: HostData, level: u32, message: RStr<'_>) {
    let level = Level::from_number(level);
    // SAFETY: as above.
    let choice = unsafe { choice(s) };
    choice.test.log.borrow_mut().push(Line { level, text: message.to_string() });
}
