//! `$request_id`: 128 bits that nobody can guess, at little cost.
//!
//! The standard library keys its hasher, SipHash, with bytes of the operating system, once a thread. A keyed hash of a
//! counter is as good as random to whoever does not know the key, and costs no call of the system.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
};

thread_local! {
    static KEYS: (RandomState, RandomState) = (RandomState::new(), RandomState::new());
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Another one on each call.
pub fn next() -> u128 {
    let count = COUNT.replace(COUNT.get() + 1);
    KEYS.with(|(high, low)| u128::from(high.hash_one(count)) << 64 | u128::from(low.hash_one(count)))
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    #[test]
    fn ids_differ_also_between_threads() {
        let ids = || (0..1000).map(|_| super::next()).collect::<Vec<u128>>();
        let (a, b) = (thread::spawn(ids), thread::spawn(ids));
        let all: HashSet<u128> = a.join().expect("it ends").into_iter().chain(b.join().expect("it ends")).collect();
        assert_eq!(all.len(), 2000);
        // All bits are used.
        assert_eq!(all.iter().fold(0, |bits, id| bits | id), u128::MAX);
    }
}
