//! The torture of balancers: requests that overlap, peers that come and go, panics.

use super::{BalancerTest, Choosing};
use crate::{
    Outcome,
    testing::{Panic, expect_none, kit::INJECTED, random::Random},
};

impl BalancerTest<'_> {
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

    /// How messages start during `check`.
    pub(super) fn prefix(&self) -> String {
        let when = self.when.borrow();
        if when.is_empty() { String::new() } else { format!("{when}: ") }
    }
}
