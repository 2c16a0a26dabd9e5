//! Services while a peer is chosen.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    sync::Arc,
};

use abi_stable::{
    prefix_type::WithMetadata,
    std_types::{RSlice, RStr},
};
use topnext_module_api::{
    balancer::peer_number,
    host::{HostData, SelectionApi, SelectionApiRef},
};

use super::{guarded, lasting};
use crate::{log::error::Level, log_line, plugins::running, upstream::peers::Peers};

static API: WithMetadata<SelectionApi> =
    WithMetadata::new(SelectionApi { peer_number: number, peer_address, client_address, state, set_state, logs, log });

/// The table.
pub const fn api() -> SelectionApiRef {
    SelectionApiRef(API.static_as_prefix())
}

/// The choice of a peer for one request: what the balancers see through a `Selection`.
pub struct Choice {
    /// The peers of the upstream.
    pub peers: Arc<Peers>,
    /// Those that have been tried, by number.
    pub tried: RefCell<Vec<bool>>,
    /// 4 or 16 bytes; none for a unix socket.
    client: Vec<u8>,
    /// A word of each balancer, by slot.
    states: RefCell<Vec<(u32, u64)>>,
    /// On the clock of the peers.
    pub now_ms: Cell<u64>,
}

impl Choice {
    /// A choice among these peers.
    pub fn new(peers: Arc<Peers>, client: Option<IpAddr>, now_ms: u64) -> Choice {
        let client = match client {
            Some(IpAddr::V4(address)) => address.octets().to_vec(),
            Some(IpAddr::V6(address)) => address.octets().to_vec(),
            None => Vec::new(),
        };
        let tried = RefCell::new(vec![false; peers.list.len()]);
        Choice { peers, tried, client, states: RefCell::default(), now_ms: Cell::new(now_ms) }
    }

    /// Whether a peer can be chosen now.
    pub fn is_available(&self, peer: usize) -> bool {
        let untried = self.tried.borrow().get(peer).is_some_and(|tried| !tried);
        untried && self.peers.list[peer].is_available(self.now_ms.get())
    }
}

/// # Safety
/// `data` is the pointer of a handle, within the call that it was made for.
unsafe fn with<T>(data: HostData, default: T, run: impl FnOnce(&Choice) -> T) -> T {
    // SAFETY: the handle was made from a reference that is alive during the call.
    let choice = unsafe { &*data.cast::<Choice>() };
    guarded(default, || run(choice))
}

unsafe extern "C" fn number(data: HostData, peer: u32, which: u32) -> i64 {
    // SAFETY: the contract of the table.
    unsafe {
        with(data, -1, |choice| {
            if which == peer_number::COUNT {
                return i64::try_from(choice.peers.list.len()).unwrap_or(i64::MAX);
            }
            let index = peer as usize;
            let Some(peer) = choice.peers.list.get(index) else { return -1 };
            match which {
                peer_number::WEIGHT => i64::from(peer.weight),
                peer_number::BACKUP => i64::from(peer.backup),
                peer_number::AVAILABLE => i64::from(choice.is_available(index)),
                peer_number::CONNECTIONS => i64::from(peer.connections()),
                peer_number::FAILS => i64::from(peer.fails(choice.now_ms.get())),
                peer_number::DOWN => i64::from(peer.down),
                peer_number::MAX_FAILS => i64::from(peer.max_fails),
                _ => -1,
            }
        })
    }
}

unsafe extern "C" fn peer_address(data: HostData, peer: u32) -> RStr<'static> {
    // SAFETY: the contract of the table; the peers are alive as long as the choice.
    unsafe {
        with(data, RStr::empty(), |choice| {
            let name = choice.peers.list.get(peer as usize).map_or("", |peer| peer.name.as_str());
            RStr::from_str(std::str::from_utf8(lasting(name.as_bytes()).as_slice()).unwrap_or_default())
        })
    }
}

unsafe extern "C" fn client_address(data: HostData) -> RSlice<'static, u8> {
    // SAFETY: the contract of the table; the bytes are alive as long as the choice.
    unsafe { with(data, RSlice::EMPTY, |choice| lasting(&choice.client)) }
}

unsafe extern "C" fn state(data: HostData, module: u32) -> u64 {
    // SAFETY: the contract of the table.
    unsafe {
        with(data, 0, |choice| {
            let states = choice.states.borrow();
            states.iter().find(|(slot, _)| *slot == module).map_or(0, |(_, state)| *state)
        })
    }
}

unsafe extern "C" fn set_state(data: HostData, module: u32, state: u64) {
    // SAFETY: the contract of the table.
    unsafe {
        with(data, (), |choice| {
            let mut states = choice.states.borrow_mut();
            match states.iter_mut().find(|(slot, _)| *slot == module) {
                Some((_, word)) => *word = state,
                None => states.push((module, state)),
            }
        })
    }
}

unsafe extern "C" fn logs(level: u32) -> bool {
    crate::log::error::logs(Level::from_number(level))
}

unsafe extern "C" fn log(_: HostData, level: u32, message: RStr<'_>) {
    let level = Level::from_number(level);
    let module = running::cell().get().module;
    guarded((), || log_line!(level, "{}: {message}", running::module_name(module)));
}
