//! Zones: named shared memory, which outlives the workers that use it (`[zone.NAME]`).
//!
//! The master has the memory, and hands it to each worker that asks. A zone is known by its name and size: with another size it
//! is another one. One that no worker uses any more is given up with the last of them.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError, atomic::AtomicU64},
};

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
    /// With the generations that have asked for each.
    zones: BTreeMap<(String, u64), (OwnedFd, BTreeSet<u64>)>,
}

impl Zones {
    /// The zone, made if need be, for a worker of this generation.
    pub fn get(&mut self, name: String, size: u64, generation: u64) -> Result<BorrowedFd<'_>, String> {
        let zone: &mut (OwnedFd, BTreeSet<u64>) = match self.zones.entry((name, size)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => vacant.insert((make(size)?, BTreeSet::new())),
        };
        zone.1.insert(generation);
        Ok(zone.0.as_fd())
    }

    /// Gives up those that only generations have asked for of which no worker is left.
    pub fn retain(&mut self, has_workers: impl Fn(u64) -> bool) {
        self.zones.retain(|_, (_, users)| {
            users.retain(|generation| has_workers(*generation));
            !users.is_empty()
        });
    }

    /// All, with name and size: for a new master.
    pub fn all(&self) -> impl Iterator<Item = (&str, u64, BorrowedFd<'_>)> {
        self.zones.iter().map(|((name, size), (fd, _))| (name.as_str(), *size, fd.as_fd()))
    }

    /// Takes over one of another master, for whoever asks for it before the next [`Zones::retain`].
    pub fn adopt(&mut self, name: String, size: u64, fd: OwnedFd) {
        self.zones.insert((name, size), (fd, BTreeSet::new()));
    }
}

fn make(size: u64) -> Result<OwnedFd, String> {
    shared_memory::create("topnext zone", size)
        .map_err(|error| format!("there is no memory for it ({})", ErrorText(&error)))
}

/// The memory of a zone, for this process: shared with other workers if there is a master.
pub fn open(name: &str, size: u64) -> Result<&'static [AtomicU64], String> {
    static OPEN: Mutex<BTreeMap<String, &'static [AtomicU64]>> = Mutex::new(BTreeMap::new());
    if let Some(words) = OPEN.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
        return Ok(words);
    }
    let size = size.next_multiple_of(PAGE);
    let fd = if worker::has_master() { worker::ask_for_zone(name, size)? } else { make(size)? };
    let words = Mapping::new(fd).map_err(|error| format!("it cannot be mapped ({})", ErrorText(&error)))?.leak();
    OPEN.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_string(), words);
    Ok(words)
}
