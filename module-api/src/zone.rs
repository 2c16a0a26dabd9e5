//! Zones: named shared memory of the host, for what must outlive a reload or be seen by several workers (`[zone.NAME]`).

use std::{ops::Deref, sync::atomic::AtomicU64};

use crate::host;

/// The memory of a zone, as words that all workers read and write: those of the running configuration, and those before it
/// that still finish their requests.
///
/// There are `size / 8` words, all of them the module's: `size` is the operator's, rounded up to whole pages of 4096 bytes, so
/// that they are 512 at least. They are all 0 at first. An index behind the last one panics, as with any slice: compare what is
/// needed with `zone.len()` in `Module::new`, and use `zone.get(index)` for an index that is computed.
///
/// There is no lock, since a worker can die at any time; what belongs together has to fit into a word, or bear being seen in
/// part. Any worker can have written anything, one with a module gone wild too: an index or a length that is read from here is
/// looked at like one that a client has sent. Usable on any thread.
///
/// The words stay as long as the process, and the next workers get the same. They are given up when no worker is left that has
/// the zone: after a reload with a configuration whose modules do not open it, when the last worker before that has ended.
///
/// ```
/// use std::sync::atomic::Ordering;
/// use topnext_module_api::prelude::*;
///
/// /// What the words mean: hits, one for each hour of the day. Another meaning gets another name.
/// const LAYOUT: u64 = u64::from_be_bytes(*b"hours  1");
///
/// #[derive(Config)]
/// struct Table {
///     /// The name of the zone.
///     zone: String,
/// }
///
/// struct Hours {
///     zone: Zone,
/// }
///
/// impl Module for Hours {
///     type Config = Table;
///
///     fn new(table: Table, _: &Setup<'_>) -> Result<Hours, ConfigErrors> {
///         let zone = Zone::open(&table.zone, LAYOUT).map_err(|error| ConfigErrors::at("zone", error))?;
///         if zone.len() < 24 {
///             return Err(ConfigErrors::at("zone", "found a zone that is too small, expected 24 words"));
///         }
///         Ok(Hours { zone })
///     }
/// }
///
/// impl Content for Hours {
///     fn content(&self, r: &mut Request<'_>) -> Code {
///         let hour = r.variable("arg_hour").and_then(|hour| std::str::from_utf8(hour).ok()?.parse().ok());
///         let Some(hits) = hour.and_then(|hour: usize| self.zone[..24].get(hour)) else { return Code::status(404) };
///         let before = hits.fetch_add(1, Ordering::Relaxed);
///         r.send(200, "text/plain", (before + 1).to_string().into_bytes())
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Zone {
    words: &'static [AtomicU64],
}

impl Zone {
    /// The zone of this name. Only while configuring: in `Module::new`.
    ///
    /// `layout` says what the words mean: a number that the author chooses, and chooses anew whenever the meaning changes. Any
    /// number will do, 0 too; one that is made of the module's name is not that of another module by chance. The host knows it
    /// from whoever opens the zone first, and keeps it where no worker can change it, as long as it keeps the words. An error
    ///
    /// - if the configuration has no zone of this name: the text names the one that may have been meant, or says what to add;
    /// - if the zone is used with another layout: by another module, or by an older version of this one, in this configuration or
    ///   in workers that have not ended. The operator then gives the module a zone of another name (or another size, which makes
    ///   it another zone), or reloads without it first; when those workers have ended, the zone is free, and empty;
    /// - if there is no memory for it, or the configuration is not being read.
    ///
    /// The text is for the operator, and says that: `map_err(|error| ConfigErrors::at("zone", error))` is all that there is to
    /// do.
    pub fn open(name: &str, layout: u64) -> Result<Zone, String> {
        // SAFETY: the name lives during the call.
        let words = unsafe { host::expect().zone()(name.into(), layout) };
        words.into_result().map(|words| Zone { words: words.as_slice() }).map_err(String::from)
    }
}

impl Deref for Zone {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        self.words
    }
}

/// Why a zone is not opened with the layout `wanted`: `users` have it with another one.
#[doc(hidden)]
pub fn refusal(name: &str, layout: u64, wanted: u64, users: &str) -> String {
    format!(
        "zone {name:?} holds something else (layout {layout:#x}, not {wanted:#x}): {users}; give this module a zone of another name"
    )
}
