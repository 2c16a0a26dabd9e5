//! Sends a client always to the same peer, by its address (nginx: ip_hash).
//!
//! ```toml
//! [http.upstream.backend]
//! balancer = ["ip_hash", "round_robin"]       # who finds no peer by the hash asks the next
//! server = [{ address = "127.0.0.1:9001", weight = 2 }, { address = "127.0.0.1:9002" }]
//! ```
//!
//! The hash is nginx's, over the first three octets of an IPv4 address or all of an IPv6 address, so that clients keep
//! their peers when nginx is replaced. If the peer is not available the hash goes on to another, up to 20 times in all;
//! then the next balancer chooses, backups among them. A peer that is gone for a while should be marked `down` rather than removed: then
//! the clients of the others keep theirs.

#![forbid(unsafe_code)]

use std::net::IpAddr;

use topnext_module_api::prelude::*;

/// How often another peer is tried for one request before the next balancer is asked.
const MAX_TRIES: u32 = 20;

/// The balancer of one upstream.
pub struct IpHash {
    /// The peers' weights.
    weights: Vec<u32>,
    /// Their sum.
    total: u64,
}

/// What is kept for one choice, in the word of the selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Choice {
    /// The hash for the next try; below 6271.
    hash: u32,
    /// Peers that were not available.
    tries: u32,
}

export_module! {
    name: "ip_hash",
    module: IpHash,
    provides: [balancer],
}

impl Module for IpHash {
    type Config = ();

    fn new(_: (), _: &Setup<'_>) -> Result<IpHash, ConfigErrors> {
        Ok(IpHash::of(Vec::new()))
    }
}

impl Balancer for IpHash {
    const SERVER_PARAMETERS: &'static [&'static str] = &["weight", "max_fails", "fail_timeout", "max_conns", "down"];

    fn init_upstream(&mut self, peers: &Selection<'_>) -> Result<(), ConfigErrors> {
        // A backup has no share of the hash: it is for the next balancer to use when no other peer is left.
        let share = |i| if peers.is_backup(i) { 0 } else { peers.weight(i) };
        *self = IpHash::of((0..peers.len()).map(share).collect());
        Ok(())
    }

    fn init_peer(&self, s: &mut Selection<'_>, next: BalancerNext<'_>) -> Code {
        let hash = advance(START, &Key::of(s.client_address()));
        s.set_state(Choice { hash, tries: 0 }.pack());
        next.init_peer(s)
    }

    fn get(&self, s: &mut Selection<'_>, next: BalancerNext<'_>) -> Option<usize> {
        if self.weights.len() < 2 {
            return next.get(s);
        }
        let key = Key::of(s.client_address());
        let mut choice = Choice::unpack(s.state());
        let found = self.choose(&mut choice, &key, |peer| s.is_available(peer));
        s.set_state(choice.pack());
        found.or_else(|| next.get(s))
    }
}

impl IpHash {
    fn of(weights: Vec<u32>) -> IpHash {
        let total = weights.iter().map(|&weight| u64::from(weight)).sum();
        IpHash { weights, total }
    }

    /// Tries peer after peer. `None` if too many were not available, in this call and those before it.
    fn choose(&self, choice: &mut Choice, key: &Key, is_available: impl Fn(usize) -> bool) -> Option<usize> {
        while choice.tries <= MAX_TRIES {
            let peer = self.peer(choice.hash)?;
            choice.hash = advance(choice.hash, key);
            if is_available(peer) {
                return Some(peer);
            }
            choice.tries += 1;
        }
        None
    }

    /// The peer on whose share of the weights the hash falls.
    fn peer(&self, hash: u32) -> Option<usize> {
        let mut at = u64::from(hash).checked_rem(self.total)?;
        for (peer, &weight) in self.weights.iter().enumerate() {
            match at.checked_sub(u64::from(weight)) {
                Some(rest) => at = rest,
                None => return Some(peer),
            }
        }
        None
    }
}

impl Choice {
    fn pack(self) -> u64 {
        (u64::from(self.tries) << 32) | u64::from(self.hash)
    }

    fn unpack(word: u64) -> Choice {
        Choice { hash: word as u32, tries: (word >> 32) as u32 }
    }
}

/// The octets of a client's address that count.
struct Key {
    octets: [u8; 16],
    len: usize,
}

impl Key {
    /// Three octets for IPv4, so that a client keeps its peer within its network; 16 for IPv6; zeros for a unix socket.
    fn of(address: Option<IpAddr>) -> Key {
        match address {
            Some(IpAddr::V6(v6)) => Key { octets: v6.octets(), len: 16 },
            v4 => {
                let mut octets = [0; 16];
                if let Some(IpAddr::V4(v4)) = v4 {
                    octets[..4].copy_from_slice(&v4.octets());
                }
                Key { octets, len: 3 }
            }
        }
    }
}

/// Where nginx's hash starts.
const START: u32 = 89;

/// The next hash: nginx's, below 6271.
fn advance(hash: u32, key: &Key) -> u32 {
    key.octets.iter().take(key.len).fold(hash, |hash, &octet| (hash * 113 + u32::from(octet)) % 6271)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> Key {
        Key::of(Some(address.parse().expect("an address")))
    }

    /// The first `n` peers that are tried for a client, when none is available.
    fn tried(weights: &[u32], address: &str, n: usize) -> Vec<usize> {
        let hashes = IpHash::of(weights.to_vec());
        let key = key(address);
        let hashed = std::iter::successors(Some(advance(START, &key)), |&hash| Some(advance(hash, &key)));
        hashed.take(n).filter_map(|hash| hashes.peer(hash)).collect()
    }

    #[test]
    fn the_hash_is_nginx() {
        // By hand: 89 * 113 + 127, then twice * 113 + 0, each modulo 6271.
        assert_eq!(advance(START, &key("127.0.0.1")), 4040);
        assert_eq!(advance(START, &key("127.0.0.200")), 4040);
        assert_ne!(advance(START, &key("127.0.1.1")), 4040);
        assert_eq!(advance(START, &Key::of(None)), advance(START, &key("0.0.0.9")));
        assert_ne!(advance(START, &key("::1")), advance(START, &key("::2")));
    }

    #[test]
    fn weights_are_shares() {
        let hashes = IpHash::of(vec![1, 3]);
        let peers: Vec<Option<usize>> = (0..5).map(|hash| hashes.peer(hash)).collect();
        assert_eq!(peers, [Some(0), Some(1), Some(1), Some(1), Some(0)]);
        assert_eq!(IpHash::of(vec![]).peer(7), None);
        assert_eq!(IpHash::of(vec![0, 0]).peer(7), None);
    }

    #[test]
    fn goes_on_to_the_next_try_when_a_peer_is_not_available() {
        let order = tried(&[1, 1, 1], "10.1.2.3", 30);
        let first = order[0];
        let other = *order.iter().find(|&&peer| peer != first).expect("the hash moves on");
        let (hashes, key) = (IpHash::of(vec![1; 3]), key("10.1.2.3"));
        let mut choice = Choice { hash: advance(START, &key), tries: 0 };
        assert_eq!(hashes.choose(&mut choice, &key, |_| true), Some(first));
        // Called again, after that peer failed.
        assert_eq!(hashes.choose(&mut choice, &key, |peer| peer != first), Some(other));
    }

    #[test]
    fn gives_up_after_20_tries() {
        let (hashes, key) = (IpHash::of(vec![1; 3]), key("10.1.2.3"));
        let mut choice = Choice { hash: advance(START, &key), tries: 0 };
        assert_eq!(hashes.choose(&mut choice, &key, |_| false), None);
        assert_eq!(choice.tries, MAX_TRIES + 1);
        assert_eq!(hashes.choose(&mut choice, &key, |_| true), None);
    }

    #[test]
    fn the_word_keeps_both() {
        let choice = Choice { hash: 6270, tries: 21 };
        assert_eq!(Choice::unpack(choice.pack()), choice);
    }
}
