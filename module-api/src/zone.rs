//! Zones: named shared memory of the host, for what must outlive a reload or be seen by several workers (`[zone.NAME]`).

use std::{
    ops::Deref,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::host;

/// The memory of a zone, as words that all workers read and write: those of the running configuration, and those before it
/// that still finish their requests.
///
/// All words are 0 at first. There is no lock, since a worker can die at any time; what belongs together has to fit into a
/// word, or bear being seen in part. Any worker can have written anything, one with a module gone wild too: an index or a length
/// that is read from here is looked at like one that a client has sent. The memory stays as long as the process; a later worker
/// gets the same. Usable on any thread.
///
/// ```ignore
/// // In Module::new; `config.zone` is the name that the operator has chosen.
/// let zone = Zone::open(&config.zone, LAYOUT).map_err(|error| ConfigErrors::at("zone", error))?;
/// // In a hook, on any thread.
/// zone[0].fetch_add(1, Ordering::Relaxed);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Zone {
    words: &'static [AtomicU64],
}

impl Zone {
    /// The zone of this name. Only while configuring.
    ///
    /// `layout` says what the words mean: a number that the author chooses, and chooses anew whenever the meaning changes. An
    /// error if the zone is used with another one: by another module, or by an older version of this one. The operator then
    /// gives the module a zone of another name.
    pub fn open(name: &str, layout: u64) -> Result<Zone, String> {
        // SAFETY: the name lives during the call.
        let words = unsafe { host::expect().zone()(name.into()) };
        let words = words.into_result().map_err(String::from)?.as_slice();
        let (tag, words) = words.split_first().ok_or("the zone has no memory")?;
        // 0 stands for nobody.
        let layout = layout.max(1);
        match tag.compare_exchange(0, layout, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(Zone { words }),
            Err(found) if found == layout => Ok(Zone { words }),
            Err(found) => Err(format!(
                "zone {name:?} holds something else (layout {found:#x}, not {layout:#x}): another module, or another version of \
                 this one, uses it; give this one a zone of another name"
            )),
        }
    }
}

impl Deref for Zone {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        self.words
    }
}
