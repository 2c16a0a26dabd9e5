//! Balancers that choose wrongly, leak, or do not bear panics.

use std::{collections::BTreeSet, mem::forget, sync::Mutex};

use topnext_module_api::{prelude::*, testing};

use crate::{Noted, failure, noted, says};

/// Chooses the first that is available.
#[derive(Config)]
struct First {
    how: Error,
}

#[derive(Choice, Clone, Copy, PartialEq)]
enum Error {
    Not,
    ChoosesWhatIsDown,
    PoisonsItsLock,
    LeaksBuf,
    KeepsCountAfterPanic,
}

static BALANCER_PANICS: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
static BALANCER_LOCK: Mutex<u32> = Mutex::new(0);
static CHOOSING: Mutex<u32> = Mutex::new(0);

impl Balancer for First {
    fn init_peer(&self, s: &mut Selection<'_>, next: BalancerNext<'_>) -> Code {
        let _noted = Noted(&BALANCER_PANICS, "init_peer");
        next.init_peer(s)
    }

    fn get(&self, s: &mut Selection<'_>, _: BalancerNext<'_>) -> Option<usize> {
        let _noted = Noted(&BALANCER_PANICS, "get");
        let _guard = (self.how == Error::PoisonsItsLock).then(|| BALANCER_LOCK.lock().expect("not poisoned"));
        if self.how == Error::KeepsCountAfterPanic {
            let mut choosing = CHOOSING.lock().expect("nothing panics with it");
            *choosing += 1;
            if *choosing > 1 {
                return None;
            }
        }
        let found = (0..s.len()).find(|&peer| self.how == Error::ChoosesWhatIsDown || s.is_available(peer));
        if self.how == Error::KeepsCountAfterPanic {
            *CHOOSING.lock().expect("nothing panics with it") -= 1;
        }
        found
    }

    fn free(&self, s: &mut Selection<'_>, peer: usize, outcome: Outcome, next: BalancerNext<'_>) {
        let _noted = Noted(&BALANCER_PANICS, "free");
        if self.how == Error::LeaksBuf {
            forget(Buf::flush());
        }
        next.free(s, peer, outcome);
    }
}

const PEERS: [(&str, u32); 3] = [("a", 1), ("b", 1), ("c", 1)];

#[test]
fn a_broken_balancer_is_told_with_hook_and_seed() {
    for (how, texts) in [
        ("chooses_what_is_down", &["seed ", "get chose peer 0, which does not exist or is not available"][..]),
        ("poisons_its_lock", &["seed ", "the balancer panics at point", "panicked in get", "not poisoned"]),
        ("leaks_buf", &["1 bufs are still alive: free of module 1"]),
        ("keeps_count_after_panic", &["seed ", "then the next request", "get chose None for 192.0.2.1"]),
    ] {
        let mut balancer: First = testing::module(&format!("how = \"{how}\"")).expect("valid");
        let test = testing::balancer(&mut balancer, &PEERS);
        let said = failure(|| test.check(&["192.0.2.1", "::1"]));
        says(how, &said, texts);
    }
}

#[test]
fn panics_come_within_the_hooks_of_a_balancer() {
    let mut balancer: First = testing::module("how = \"not\"").expect("valid");
    let mut last = testing::FirstAvailable;
    testing::balancer(&mut balancer, &PEERS).then(&mut last).check(&["192.0.2.1", "a unix socket"]);
    assert_eq!(noted(&BALANCER_PANICS), ["free", "get", "init_peer"]);
}
