//! The clients: each function is a session of one kind, on connections of its own, from a seed.
//!
//! A session ends by itself: its steps are counted, and each read has a time-out. `Ok` carries the answers that were
//! checked; an error says what a client of this kind must never see.

mod bad;
mod good;
mod slow;

use std::io;

use crate::http::Target;
use crate::random::Random;

/// A kind of client.
#[derive(Debug)]
pub struct Kind {
    pub name: &'static str,
    /// How often it is chosen, among all.
    pub weight: usize,
    /// A session; the number of answers that were checked.
    pub run: fn(&Target, &mut Random) -> Result<u64, String>,
}

/// All kinds.
pub static KINDS: &[Kind] = &[
    Kind { name: "keepalive", weight: 20, run: good::keepalive },
    Kind { name: "pipelined", weight: 10, run: good::pipelined },
    Kind { name: "ranges", weight: 8, run: good::ranges },
    Kind { name: "listing", weight: 4, run: good::listing },
    Kind { name: "compressed", weight: 8, run: good::compressed },
    Kind { name: "proxied", weight: 12, run: good::proxied },
    Kind { name: "bodies", weight: 8, run: good::bodies },
    Kind { name: "slow reader", weight: 4, run: slow::reader },
    Kind { name: "stalled reader", weight: 2, run: slow::stalled },
    Kind { name: "slow sender", weight: 4, run: slow::sender },
    Kind { name: "idle", weight: 2, run: slow::idle },
    Kind { name: "smuggler", weight: 10, run: bad::smuggler },
    Kind { name: "garbage", weight: 6, run: bad::garbage },
    Kind { name: "truncated", weight: 6, run: bad::truncated },
    Kind { name: "aborted", weight: 12, run: bad::aborted },
    Kind { name: "aborted upload", weight: 5, run: bad::aborted_upload },
    Kind { name: "broken origin", weight: 4, run: bad::broken_origin },
];

/// Which kind is next.
pub fn choose(random: &mut Random) -> usize {
    let mut left = random.below(KINDS.iter().map(|kind| kind.weight).sum());
    for (index, kind) in KINDS.iter().enumerate() {
        match left.checked_sub(kind.weight) {
            Some(less) => left = less,
            None => return index,
        }
    }
    0
}

/// An error of the connection, with what was being done.
fn failed(doing: &str) -> impl Fn(io::Error) -> String {
    move |error| format!("{doing}: {error}")
}

/// The body is the one expected; else where they part.
fn same(what: &str, body: &[u8], expected: &[u8]) -> Result<(), String> {
    if body == expected {
        return Ok(());
    }
    let at = body.iter().zip(expected).take_while(|(one, other)| one == other).count();
    Err(format!("{what}: {} bytes that differ from byte {at} on, expected {}", body.len(), expected.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_chosen() {
        let mut random = Random::new(1);
        let mut chosen = vec![0; KINDS.len()];
        (0..10_000).for_each(|_| chosen[choose(&mut random)] += 1);
        assert!(chosen.iter().all(|&times| times > 50), "{chosen:?}");
    }
}
