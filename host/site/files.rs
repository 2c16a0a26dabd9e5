//! How the files of a place are looked for and read, from its directives.

use std::{ops::RangeInclusive, time::Duration};

use crate::{
    config::{Diagnostics, Origin, Scope, SymlinkMode},
    open_file::{Symlinks, cache, find},
    plugins::services::main,
};

/// Bounds of the size of one of output_buffers, in bytes.
const OUTPUT_BUFFER: RangeInclusive<u64> = 1024..=16 * 1024 * 1024;

/// Makes the rules of all places.
#[derive(Default)]
pub struct FileRules {
    /// Where each open_file_cache was written.
    caches: Vec<Origin>,
}

impl FileRules {
    /// How files are looked for.
    pub fn rules(&mut self, scope: &Scope, errors: &mut Diagnostics) -> find::Rules {
        let core = &scope.core;
        let size = core.output_buffers.size;
        if !OUTPUT_BUFFER.contains(&size) {
            let text = format!("found a size of {size} bytes, expected 1k to 16m");
            errors.push(scope.origin_of("output_buffers"), "output_buffers.size", text);
        }
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let cache = core.open_file_cache.map(|cache| {
            // Places that inherit it have the same origin, and share it.
            let origin = scope.origin_of("open_file_cache");
            let known = self.caches.iter().position(|known| *known == origin);
            let number = known.unwrap_or_else(|| {
                self.caches.push(origin);
                self.caches.len() - 1
            });
            let cache =
                cache::Settings { number: number as u32, max: cache.max as usize, inactive_ms: ms(cache.inactive) };
            cache::Rules {
                cache,
                valid_ms: ms(core.open_file_cache_valid),
                min_uses: core.open_file_cache_min_uses,
                errors: core.open_file_cache_errors,
            }
        });
        let symlinks = match core.disable_symlinks.mode {
            SymlinkMode::Off => Symlinks::Follow,
            SymlinkMode::On => Symlinks::Refuse,
            SymlinkMode::IfNotOwner => Symlinks::SameOwner,
        };
        let from = core.disable_symlinks.from.as_ref().and_then(|from| {
            let compiled = main::compile(from);
            let refuse = |text| errors.push(scope.origin_of("disable_symlinks"), "disable_symlinks.from", text);
            compiled.map_err(refuse).ok()
        });
        find::Rules { cache, symlinks, from, read_ahead: core.read_ahead }
    }
}
