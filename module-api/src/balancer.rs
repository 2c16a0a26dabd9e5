//! Balancers: which peer of an upstream gets a request. Balancers are linked top/next, and delegate.

use std::{fmt, marker::PhantomData, net::IpAddr};

use abi_stable::{StableAbi, std_types::RVec};

use crate::{
    code::Code,
    config::{ConfigError, ConfigErrors},
    host::{HostData, SelectionApiRef},
    log::Level,
    module::Module,
    panic::enter,
    running::{Hook, RunningCell},
};

/// Which number of a peer is asked for.
pub mod peer_number {
    /// Its weight.
    pub const WEIGHT: u32 = 0;
    /// 1 for a backup peer.
    pub const BACKUP: u32 = 1;
    /// 1 if it can be chosen now: not down, not failed too often, not tried for this request, connections left.
    pub const AVAILABLE: u32 = 2;
    /// How many peers there are, whichever peer is asked about.
    pub const COUNT: u32 = 7;
    /// Connections in use.
    pub const CONNECTIONS: u32 = 3;
    /// Failures that count at the moment.
    pub const FAILS: u32 = 4;
    /// 1 if it is marked down in the configuration.
    pub const DOWN: u32 = 5;
    /// Failures that make it unavailable; 0: none does.
    pub const MAX_FAILS: u32 = 6;
}

/// The choice of a peer for one request (or session), and the peers to choose from. Peers have numbers from 0.
///
/// The peers' state (failures, connections) is the host's, shared by all threads and balancers.
#[repr(C)]
#[derive(StableAbi)]
pub struct Selection<'h> {
    data: HostData,
    api: SelectionApiRef,
    cell: &'h RunningCell,
    reserved: [usize; 2],
    not_send: PhantomData<*mut ()>,
}

impl<'h> Selection<'h> {
    /// Made by the host for one call into a module.
    ///
    /// # Safety
    /// `data` is what the functions of `api` expect, and stays valid during `'h`; `cell` is this thread's.
    pub unsafe fn new(data: HostData, api: SelectionApiRef, cell: &'h RunningCell) -> Selection<'h> {
        Selection { data, api, cell, reserved: [0; 2], not_send: PhantomData }
    }

    /// The host's services. In a test the kit may panic here: see [`crate::testing`].
    #[inline]
    #[track_caller]
    fn api(&self) -> SelectionApiRef {
        #[cfg(feature = "testing")]
        crate::testing::point();
        self.api
    }

    #[track_caller]
    fn number(&self, peer: usize, which: u32) -> i64 {
        let Ok(peer) = u32::try_from(peer) else { return -1 };
        // SAFETY: `data` is valid during 'h. So in all methods below.
        unsafe { self.api().peer_number()(self.data, peer, which) }
    }

    /// The number of peers, backups included.
    pub fn len(&self) -> usize {
        usize::try_from(self.number(0, peer_number::COUNT)).unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The weight of a peer; 0 if there is no such peer.
    pub fn weight(&self, peer: usize) -> u32 {
        u32::try_from(self.number(peer, peer_number::WEIGHT)).unwrap_or(0)
    }

    /// Whether it is a backup, to be used when no other peer is available.
    pub fn is_backup(&self, peer: usize) -> bool {
        self.number(peer, peer_number::BACKUP) == 1
    }

    /// Whether it can be chosen: not down, not failed too often, not tried for this request, connections left.
    pub fn is_available(&self, peer: usize) -> bool {
        self.number(peer, peer_number::AVAILABLE) == 1
    }

    /// Failures within its `fail_timeout`.
    pub fn fails(&self, peer: usize) -> u32 {
        u32::try_from(self.number(peer, peer_number::FAILS)).unwrap_or(0)
    }

    /// Failures within its `fail_timeout` that make it unavailable; 0: none does. 1, nginx's default, if the host is too
    /// old to tell.
    pub fn max_fails(&self, peer: usize) -> u32 {
        u32::try_from(self.number(peer, peer_number::MAX_FAILS)).unwrap_or(1)
    }

    /// Its connections in use.
    pub fn connections(&self, peer: usize) -> u32 {
        u32::try_from(self.number(peer, peer_number::CONNECTIONS)).unwrap_or(0)
    }

    /// Its address, as the operator wrote it.
    pub fn address(&self, peer: usize) -> &'h str {
        let Ok(peer) = u32::try_from(peer) else { return "" };
        // SAFETY: see `number`.
        unsafe { self.api().peer_address()(self.data, peer) }.as_str()
    }

    /// The client's address; `None` for a unix socket.
    pub fn client_address(&self) -> Option<IpAddr> {
        // SAFETY: see `number`.
        let bytes = unsafe { self.api().client_address()(self.data) }.as_slice();
        if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
            return Some(IpAddr::from(v4));
        }
        <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
    }

    /// A word that this balancer keeps for this choice; 0 at first.
    pub fn state(&self) -> u64 {
        // SAFETY: see `number`.
        unsafe { self.api().state()(self.data, self.cell.get().module) }
    }

    /// Sets that word.
    pub fn set_state(&mut self, state: u64) {
        // SAFETY: see `number`.
        unsafe { self.api().set_state()(self.data, self.cell.get().module, state) }
    }

    /// Whether a line of this level would be logged.
    pub fn logs(&self, level: Level) -> bool {
        // SAFETY: any level is allowed.
        unsafe { self.api().logs()(level as u32) }
    }

    /// Logs a line about this choice. Use [`crate::log!`].
    pub fn log(&self, level: Level, text: fmt::Arguments<'_>) {
        let text = text.to_string();
        // SAFETY: see `number`.
        unsafe { self.api().log()(self.data, level as u32, text.as_str().into()) }
    }
}

impl fmt::Debug for Selection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selection").field("peers", &self.len()).finish()
    }
}

/// How it went with a peer.
#[repr(u32)]
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It answered.
    Ok = 0,
    /// It failed: no connection, time out, or no valid answer. The host has counted it.
    Failed = 1,
    /// The request ended for another reason.
    Unknown = 2,
}

/// A balancer, one per upstream that names it. Its methods' defaults delegate to the next balancer.
///
/// Its state is shared by all threads; the host holds no lock while it calls.
pub trait Balancer: Module {
    /// The server parameters that it honours. One it does not is a configuration error.
    const SERVER_PARAMETERS: &'static [&'static str] = &["weight", "max_fails", "fail_timeout", "max_conns", "down"];

    /// Once, when the configuration is read: the peers of the upstream.
    fn init_upstream(&mut self, peers: &Selection<'_>) -> Result<(), ConfigErrors> {
        let _ = peers;
        Ok(())
    }

    /// A request has come: before the first `get`. Ok, or an error.
    fn init_peer(&self, s: &mut Selection<'_>, next: BalancerNext<'_>) -> Code {
        next.init_peer(s)
    }

    /// Chooses a peer that is available; `None` if there is none (502). Called again after the peer failed.
    fn get(&self, s: &mut Selection<'_>, next: BalancerNext<'_>) -> Option<usize> {
        next.get(s)
    }

    /// The request is done with this peer.
    fn free(&self, s: &mut Selection<'_>, peer: usize, outcome: Outcome, next: BalancerNext<'_>) {
        next.free(s, peer, outcome);
    }
}

/// A link of the chain of balancers of one upstream.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct BalancerLink {
    /// The module's functions.
    pub hooks: BalancerHooksRef,
    /// The balancer that `configure` made for this upstream.
    pub data: *const (),
    /// The next link; null behind the last.
    pub next: *const BalancerLink,
    /// The slot of the module.
    pub module: u32,
    /// For later; 0.
    pub reserved: [usize; 2],
}

// SAFETY: the data are a module's balancer, which is Sync by the bound on Module; links are not changed once made.
unsafe impl Send for BalancerLink {}
// SAFETY: as above.
unsafe impl Sync for BalancerLink {}

/// The rest of the chain of balancers.
#[derive(Clone, Copy)]
pub struct BalancerNext<'a>(Option<&'a BalancerLink>);

impl<'a> BalancerNext<'a> {
    /// A chain that starts with `link`.
    ///
    /// # Safety
    /// The link, and all that follow, are alive during 'a.
    pub unsafe fn new(link: Option<&'a BalancerLink>) -> BalancerNext<'a> {
        BalancerNext(link)
    }

    /// Delegates [`Balancer::init_peer`].
    #[track_caller]
    pub fn init_peer(self, s: &mut Selection<'_>) -> Code {
        #[cfg(feature = "testing")]
        crate::testing::point();
        // SAFETY: the link is alive, and the functions belong to its data.
        self.0.map_or(Code::OK, |link| unsafe { link.hooks.init_peer()(link, s) })
    }

    /// Delegates [`Balancer::get`].
    #[track_caller]
    pub fn get(self, s: &mut Selection<'_>) -> Option<usize> {
        #[cfg(feature = "testing")]
        crate::testing::point();
        // SAFETY: as above.
        let peer = self.0.map_or(-1, |link| unsafe { link.hooks.get()(link, s) });
        usize::try_from(peer).ok()
    }

    /// Delegates [`Balancer::free`].
    #[track_caller]
    pub fn free(self, s: &mut Selection<'_>, peer: usize, outcome: Outcome) {
        #[cfg(feature = "testing")]
        crate::testing::point();
        if let (Some(link), Ok(peer)) = (self.0, u32::try_from(peer)) {
            // SAFETY: as above.
            unsafe { link.hooks.free()(link, s, peer, outcome as u32) }
        }
    }
}

/// The balancer hooks of a module.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = BalancerHooksRef, prefix_fields = BalancerHooksPrefix)))]
#[sabi(missing_field(option))]
pub struct BalancerHooks {
    /// Called once, before any other; `data` is not shared yet.
    pub init_upstream: unsafe extern "C" fn(module: u32, data: *mut (), peers: &Selection<'_>) -> RVec<ConfigError>,
    /// See [`Balancer::init_peer`].
    pub init_peer: unsafe extern "C" fn(&BalancerLink, &mut Selection<'_>) -> Code,
    /// The peer's number, -1 for none, -2 if it panicked. See [`Balancer::get`].
    pub get: unsafe extern "C" fn(&BalancerLink, &mut Selection<'_>) -> i64,
    /// See [`Balancer::free`].
    #[sabi(last_prefix_field)]
    pub free: unsafe extern "C" fn(&BalancerLink, &mut Selection<'_>, u32, u32),
}

impl BalancerHooks {
    /// The hooks of a balancer, with their guards.
    pub const fn of<B: Balancer>() -> BalancerHooks {
        BalancerHooks { init_upstream: init_upstream::<B>, init_peer: init_peer::<B>, get: get::<B>, free: free::<B> }
    }
}

unsafe extern "C" fn init_upstream<B: Balancer>(
    module: u32,
    data: *mut (),
    peers: &Selection<'_>,
) -> RVec<ConfigError> {
    // SAFETY: made by this module's `configure`, and not shared yet, so that it may be borrowed exclusively.
    let run = || unsafe { &mut *data.cast::<B>() }.init_upstream(peers);
    let errors = match enter(peers.cell, module, Hook::INIT_UPSTREAM, run) {
        Ok(Ok(())) => ConfigErrors::new(),
        Ok(Err(errors)) => errors,
        Err(_) => ConfigErrors::from("panicked in init_upstream".to_string()),
    };
    errors.into_vec()
}

/// Runs a hook with the balancer and the rest of the chain.
#[inline(always)]
fn call<B: Balancer, T>(
    link: &BalancerLink,
    s: &mut Selection<'_>,
    hook: Hook,
    run: impl FnOnce(&B, &mut Selection<'_>, BalancerNext<'_>) -> T,
) -> Option<T> {
    let cell = s.cell;
    let run = || {
        // SAFETY: the host made `data` by this module's `configure`, and keeps it and the chain while a request uses them.
        let (balancer, next) = unsafe { (&*link.data.cast::<B>(), BalancerNext::new(link.next.as_ref())) };
        run(balancer, s, next)
    };
    enter(cell, link.module, hook, run).ok()
}

unsafe extern "C" fn init_peer<B: Balancer>(link: &BalancerLink, s: &mut Selection<'_>) -> Code {
    call::<B, _>(link, s, Hook::INIT_PEER, |b, s, next| b.init_peer(s, next)).unwrap_or(Code::ERROR)
}

unsafe extern "C" fn get<B: Balancer>(link: &BalancerLink, s: &mut Selection<'_>) -> i64 {
    match call::<B, _>(link, s, Hook::GET_PEER, |b, s, next| b.get(s, next)) {
        Some(Some(peer)) => i64::try_from(peer).unwrap_or(-1),
        Some(None) => -1,
        None => -2,
    }
}

unsafe extern "C" fn free<B: Balancer>(link: &BalancerLink, s: &mut Selection<'_>, peer: u32, outcome: u32) {
    let outcome = match outcome {
        0 => Outcome::Ok,
        1 => Outcome::Failed,
        _ => Outcome::Unknown,
    };
    call::<B, _>(link, s, Hook::FREE_PEER, |b, s, next| b.free(s, peer as usize, outcome, next));
}
