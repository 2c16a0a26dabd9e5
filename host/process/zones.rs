//! Zones: named shared memory, which outlives the workers that use it (`[zone.NAME]`).
//!
//! The master has the memory, and hands it to each worker that asks. A zone is known by its name and size: with another size it
//! is another one. One that no worker uses any more is given up with the last of them.
//!
//! Its layout, which says what the words mean, is that of whoever asks first. The master keeps it, out of the reach of workers:
//! one that has gone wild can spoil the words, but not who may have the zone. It stays as long as a generation that has asked for
//! the zone has workers, and until the first change is finished if another master has handed the zone over. Then another layout
//! gets a new zone, all zero.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError, atomic::AtomicU64},
};

use topnext_module_api::zone::refusal;

use super::{
    shared_memory::{self, Mapping},
    worker,
};
use crate::error_text::ErrorText;

/// The largest zone.
pub const MAX_SIZE: u64 = 1 << 40;
/// What sizes are rounded up to.
const PAGE: u64 = 4096;

/// The zones that the master has.
#[derive(Debug, Default)]
pub struct Zones {
    zones: BTreeMap<(String, u64), Zone>,
}

#[derive(Debug)]
struct Zone {
    memory: OwnedFd,
    layout: u64,
    /// The generations that have asked for it. None: it is another master's.
    users: BTreeSet<u64>,
}

impl Zones {
    /// The zone, made if need be, for a worker of this generation.
    pub fn get(
        &mut self,
        name: String,
        size: u64,
        layout: u64,
        generation: u64,
        has_workers: impl Fn(u64) -> bool,
    ) -> Result<BorrowedFd<'_>, String> {
        let key = (name, size);
        if let Some(zone) = self.zones.get_mut(&key)
            && zone.layout != layout
        {
            let is_adopted = zone.users.is_empty();
            zone.users.retain(|generation| has_workers(*generation));
            if is_adopted || !zone.users.is_empty() {
                return Err(refusal(&key.0, zone.layout, layout, &zone.users_in_words()));
            }
            self.zones.remove(&key);
        }
        let zone: &mut Zone = match self.zones.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(Zone { memory: make(size)?, layout, users: BTreeSet::new() }),
        };
        zone.users.insert(generation);
        Ok(zone.memory.as_fd())
    }

    /// Gives up those that only generations have asked for of which no worker is left.
    pub fn retain(&mut self, has_workers: impl Fn(u64) -> bool) {
        self.zones.retain(|_, zone| {
            zone.users.retain(|generation| has_workers(*generation));
            !zone.users.is_empty()
        });
    }

    /// All, with name, size and layout: for a new master.
    pub fn all(&self) -> impl Iterator<Item = (&str, u64, u64, BorrowedFd<'_>)> {
        self.zones.iter().map(|((name, size), zone)| (name.as_str(), *size, zone.layout, zone.memory.as_fd()))
    }

    /// Takes over one of another master, for whoever asks for it before the next [`Zones::retain`].
    pub fn adopt(&mut self, name: String, size: u64, layout: u64, memory: OwnedFd) {
        self.zones.insert((name, size), Zone { memory, layout, users: BTreeSet::new() });
    }
}

impl Zone {
    fn users_in_words(&self) -> String {
        let numbers = self.users.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let what = "it for another module, or for another version of this one,";
        match self.users.len() {
            0 => format!("the server before the upgrade uses {what} as long as it has workers"),
            1 => format!("generation {numbers} uses {what} as long as it has workers (see topnext status)"),
            _ => format!("generations {numbers} use {what} as long as they have workers (see topnext status)"),
        }
    }
}

fn make(size: u64) -> Result<OwnedFd, String> {
    shared_memory::create("topnext zone", size)
        .map_err(|error| format!("there is no memory for it ({})", ErrorText(&error)))
}

/// The memory of a zone, for this process: shared with other workers if there is a master.
pub fn open(name: &str, size: u64, layout: u64) -> Result<&'static [AtomicU64], String> {
    /// By name, with the layout.
    static OPEN: Mutex<BTreeMap<String, (u64, &'static [AtomicU64])>> = Mutex::new(BTreeMap::new());
    match OPEN.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
        Some((known, words)) if *known == layout => return Ok(words),
        Some((known, _)) => {
            return Err(refusal(name, *known, layout, "another module of this configuration uses it"));
        }
        None => (),
    }
    let size = size.next_multiple_of(PAGE);
    let fd = if worker::has_master() { worker::ask_for_zone(name, size, layout)? } else { make(size)? };
    let words = Mapping::new(fd).map_err(|error| format!("it cannot be mapped ({})", ErrorText(&error)))?.leak();
    OPEN.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_string(), (layout, words));
    Ok(words)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    /// Asks for the zone "a", for a generation, while these have workers: what its first word was, which is 7 from then on.
    fn first(zones: &mut Zones, layout: u64, generation: u64, alive: &[u64]) -> Result<u64, String> {
        let fd = zones.get("a".to_string(), PAGE, layout, generation, |number| alive.contains(&number))?;
        let mapping = Mapping::new(fd).expect("it can be mapped");
        assert_eq!(mapping.words().len(), 512, "all words are the module's");
        Ok(mapping.words()[0].swap(7, Ordering::Relaxed))
    }

    #[test]
    fn a_layout_stays_as_long_as_somebody_has_the_zone() {
        let mut zones = Zones::default();
        assert_eq!(first(&mut zones, 0, 1, &[1]), Ok(0));
        assert_eq!(first(&mut zones, 0, 2, &[1, 2]), Ok(7));
        let refused = |zones: &mut Zones, alive: &[u64]| first(zones, 1, 3, alive).expect_err("another layout");
        let text = refused(&mut zones, &[1, 2, 3]);
        assert!(
            text.starts_with("zone \"a\" holds something else (layout 0x0, not 0x1): generations 1, 2 use"),
            "{text}"
        );
        let text = refused(&mut zones, &[2, 3]);
        assert!(text.contains(": generation 2 uses it "), "{text}");
        assert_eq!(first(&mut zones, 1, 3, &[3]), Ok(0), "it is made anew");
        assert!(first(&mut zones, 0, 4, &[3, 4]).is_err());
        zones.retain(|_| false);
        assert_eq!(first(&mut zones, 0, 4, &[4]), Ok(0));
    }

    #[test]
    fn a_layout_is_handed_over_with_its_zone() {
        let (mut old, mut new) = (Zones::default(), Zones::default());
        assert_eq!(first(&mut old, 5, 9, &[9]), Ok(0));
        for (name, size, layout, fd) in old.all() {
            new.adopt(name.to_string(), size, layout, fd.try_clone_to_owned().expect("a descriptor"));
        }
        let text = first(&mut new, 6, 1, &[1]).expect_err("another layout");
        assert!(text.contains("(layout 0x5, not 0x6): the server before the upgrade uses it "), "{text}");
        assert_eq!(first(&mut new, 5, 1, &[1]), Ok(7));
        let text = first(&mut new, 6, 2, &[1, 2]).expect_err("another layout");
        assert!(text.contains(": generation 1 uses it "), "{text}");
        // What the first configuration does not ask for goes with it.
        new.adopt("a".to_string(), PAGE, 5, make(PAGE).expect("memory"));
        new.retain(|_| true);
        assert_eq!(first(&mut new, 6, 2, &[1, 2]), Ok(0));
    }
}
