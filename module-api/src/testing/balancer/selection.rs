//! The choice of a peer in a test, and the services that a balancer's handle calls.

use std::{cell::RefCell, collections::HashMap, net::IpAddr, ptr};

use abi_stable::{
    prefix_type::PrefixTypeTrait,
    std_types::{RSlice, RStr},
};

use super::BalancerTest;
use crate::{
    Level, Selection,
    balancer::peer_number,
    host::{HostData, SelectionApi, SelectionApiRef},
    running::Running,
    testing::{Line, expect_none, host, kit::Kit},
};

/// The state behind a [`Selection`].
pub(super) struct Choice<'a> {
    test: &'a BalancerTest<'a>,
    address: Vec<u8>,
    states: RefCell<HashMap<u32, u64>>,
    pub(super) tried: RefCell<Vec<usize>>,
}

impl<'a> Choice<'a> {
    pub(super) fn new(test: &'a BalancerTest<'a>, client: Option<IpAddr>) -> Choice<'a> {
        let address = match client {
            Some(IpAddr::V4(v4)) => v4.octets().to_vec(),
            Some(IpAddr::V6(v6)) => v6.octets().to_vec(),
            None => Vec::new(),
        };
        Choice { test, address, states: RefCell::default(), tried: RefCell::default() }
    }

    /// Calls a hook with a handle of this choice.
    #[track_caller]
    pub(super) fn call<T>(&self, hook: impl FnOnce(&mut Selection<'_>) -> T) -> T {
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

    pub(super) fn is_available(&self, at: usize) -> bool {
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
