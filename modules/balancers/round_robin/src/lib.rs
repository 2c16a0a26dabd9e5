//! Chooses peers in turn, by weight (nginx: the default method, smooth weighted round robin).
//!
//! ```toml
//! [http.upstream.backend]
//! balancer = ["round_robin"]                  # the default
//! server = [
//!     { address = "127.0.0.1:9001", weight = 5 },
//!     { address = "127.0.0.1:9002" },
//!     { address = "127.0.0.1:9003", backup = true },      # only if no other peer is available
//! ]
//! ```
//!
//! Every choice adds its weight to each available peer's current weight; the greatest is chosen, and pays the sum of
//! all weights. So weights 5, 1, 1 give a a b a c a a, and not five a in a row. A peer that fails gets a smaller
//! effective weight, which grows back by one per choice.

#![forbid(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use topnext_module_api::prelude::*;

/// The balancer of one upstream, shared by all threads.
pub struct RoundRobin {
    /// Never locked during a call of the host or of the next balancer.
    peers: Mutex<Vec<Peer>>,
    /// The number of peers, to have it without the lock.
    count: usize,
}

/// What is kept of a peer. Its failures and connections are the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Peer {
    weight: i64,
    /// At most the weight; less after failures.
    effective: i64,
    /// What it has saved up since it was chosen.
    current: i64,
    backup: bool,
}

export_module! {
    name: "round_robin",
    module: RoundRobin,
    provides: [balancer],
}

impl Module for RoundRobin {
    type Config = ();

    fn new(_: (), _: &Setup<'_>) -> Result<RoundRobin, ConfigErrors> {
        Ok(RoundRobin { peers: Mutex::new(Vec::new()), count: 0 })
    }
}

impl Balancer for RoundRobin {
    const SERVER_PARAMETERS: &'static [&'static str] =
        &["weight", "max_fails", "fail_timeout", "max_conns", "backup", "down"];

    fn init_upstream(&mut self, peers: &Selection<'_>) -> Result<(), ConfigErrors> {
        self.count = peers.len();
        let peers = (0..self.count).map(|i| Peer::new(peers.weight(i), peers.is_backup(i)));
        self.peers = Mutex::new(peers.collect());
        Ok(())
    }

    fn get(&self, s: &mut Selection<'_>, next: BalancerNext<'_>) -> Option<usize> {
        let chosen = if self.count == 1 {
            s.is_available(0).then_some(0)
        } else {
            let available = Available::ask(self.count, |i| s.is_available(i));
            choose(&mut self.lock(), &available)
        };
        chosen.or_else(|| next.get(s))
    }

    fn free(&self, s: &mut Selection<'_>, peer: usize, outcome: Outcome, next: BalancerNext<'_>) {
        if outcome == Outcome::Failed {
            let max_fails = s.max_fails(peer);
            self.lock().get_mut(peer).into_iter().for_each(|peer| peer.failed(max_fails));
        }
        next.free(s, peer, outcome);
    }
}

impl RoundRobin {
    /// The peers. What is done under the lock cannot panic half way, so that a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Vec<Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    fn new(weight: u32, backup: bool) -> Peer {
        let weight = i64::from(weight.max(1));
        Peer { weight, effective: weight, current: 0, backup }
    }

    /// It failed: so many failures make its share nothing, until it has recovered. With 0 failures do not count.
    fn failed(&mut self, max_fails: u32) {
        if max_fails > 0 {
            self.effective = (self.effective - self.weight / i64::from(max_fails)).max(0);
        }
    }
}

/// The peer whose turn it is; a backup only if no other is available.
fn choose(peers: &mut [Peer], available: &Available) -> Option<usize> {
    choose_among(peers, available, false).or_else(|| choose_among(peers, available, true))
}

fn choose_among(peers: &mut [Peer], available: &Available, backup: bool) -> Option<usize> {
    let mut total = 0;
    let mut best: Option<(usize, i64)> = None;
    for (i, peer) in peers.iter_mut().enumerate() {
        if peer.backup != backup || !available.has(i) {
            continue;
        }
        peer.current += peer.effective;
        total += peer.effective;
        peer.effective = (peer.effective + 1).min(peer.weight);
        // The first of equals wins.
        if best.is_none_or(|(_, most)| peer.current > most) {
            best = Some((i, peer.current));
        }
    }
    let (chosen, _) = best?;
    peers.get_mut(chosen)?.current -= total;
    Some(chosen)
}

/// Which peers can be chosen, asked before the lock is taken. Allocates only for more than 64 peers.
struct Available {
    first: u64,
    more: Vec<bool>,
}

impl Available {
    fn ask(count: usize, is_available: impl Fn(usize) -> bool) -> Available {
        let first = (0..count.min(64)).filter(|&i| is_available(i)).fold(0, |bits, i| bits | 1 << i);
        Available { first, more: (64..count).map(is_available).collect() }
    }

    fn has(&self, peer: usize) -> bool {
        match peer.checked_sub(64) {
            None => self.first & (1 << peer) != 0,
            Some(peer) => self.more.get(peer) == Some(&true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(weights: &[u32]) -> Vec<Peer> {
        weights.iter().map(|&weight| Peer::new(weight, false)).collect()
    }

    /// `n` choices, as letters; `-` for none.
    fn choices(peers: &mut [Peer], n: usize, is_available: impl Fn(usize) -> bool) -> String {
        let available = Available::ask(peers.len(), is_available);
        let letter = |chosen: Option<usize>| chosen.map_or('-', |i| char::from(b'a' + i as u8));
        (0..n).map(|_| letter(choose(peers, &available))).collect()
    }

    #[test]
    fn smooth_by_weight() {
        assert_eq!(choices(&mut peers(&[5, 1, 1]), 14, |_| true), "aabacaaaabacaa");
        assert_eq!(choices(&mut peers(&[1, 1, 1]), 6, |_| true), "abcabc");
    }

    #[test]
    fn a_peer_that_is_not_available_saves_nothing_up() {
        let mut peers = peers(&[1, 1]);
        assert_eq!(choices(&mut peers, 4, |i| i == 0), "aaaa");
        assert_eq!(choices(&mut peers, 4, |_| true), "abab");
        assert_eq!(choices(&mut peers, 1, |_| false), "-");
    }

    #[test]
    fn backups_only_when_no_other_is_left() {
        let mut peers = peers(&[1, 1, 2, 1]);
        peers[2].backup = true;
        peers[3].backup = true;
        assert_eq!(choices(&mut peers, 3, |_| true), "aba");
        assert_eq!(choices(&mut peers, 2, |i| i != 0), "bb");
        assert_eq!(choices(&mut peers, 3, |i| i > 1), "cdc");
    }

    #[test]
    fn a_failed_peer_recovers_step_by_step() {
        let mut peers = peers(&[4, 4]);
        peers[0].failed(1);
        assert_eq!(choices(&mut peers, 4, |_| true), "bbab");
        assert_eq!((peers[0].effective, peers[1].effective), (4, 4));
        assert_eq!(peers.iter().map(|peer| peer.current).sum::<i64>(), 0);
    }

    #[test]
    fn a_failure_costs_a_share_of_the_weight() {
        let mut peer = Peer::new(5, false);
        peer.failed(2);
        assert_eq!(peer.effective, 3);
        peer.failed(2);
        peer.failed(2);
        assert_eq!(peer.effective, 0);
        let mut peer = Peer::new(5, false);
        peer.failed(0);
        peer.failed(9);
        assert_eq!(peer.effective, 5);
    }

    #[test]
    fn more_than_64_peers() {
        let available = Available::ask(130, |i| i % 3 == 0);
        for i in 0..200 {
            assert_eq!(available.has(i), i < 130 && i % 3 == 0, "{i}");
        }
        let mut many = peers(&[1; 130]);
        let chosen: Vec<Option<usize>> = (0..3).map(|_| choose(&mut many, &available)).collect();
        assert_eq!(chosen, [Some(0), Some(3), Some(6)]);
    }
}
