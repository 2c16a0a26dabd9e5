//! A filter that does nothing but pass on. `topnext-bench hop` loads many copies of its file, each of which is an image
//! of its own with a slot of its own, so that a hop is what it is between two different modules.

#![forbid(unsafe_code)]

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use topnext_module_api::prelude::*;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes in front of the code. Files that differ in nothing would have their hooks at the same place in a page, and so in
/// the same few lines of the processor's cache, which modules of different authors do not.
#[used]
static SHIFT: [u8; shift(option_env!("NOOP_SHIFT"))] = [1; _];

const fn shift(text: Option<&str>) -> usize {
    match text {
        Some(text) => match usize::from_str_radix(text, 10) {
            Ok(bytes) => bytes,
            Err(_) => panic!("NOOP_SHIFT is a number"),
        },
        None => 0,
    }
}

/// The table `noop`, which has no keys.
#[derive(Config)]
pub struct Noop;

export_module! {
    name: "noop",
    module: Noop,
    provides: [filter, variables],
}

impl Filter for Noop {
    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        next.call(r)
    }

    fn body_filter(&self, r: &mut Request<'_>, chain: Chain, next: BodyNext<'_>) -> Code {
        next.call(r, chain)
    }
}

impl Variables for Noop {
    const NAMES: &'static [&'static str] = &["noop_allocations"];

    /// How often this image has allocated.
    fn variable(_: &mut Request<'_>, _: usize) -> Option<Vec<u8>> {
        let stats = ALLOCATOR.stats();
        Some((stats.allocations + stats.reallocations).to_string().into_bytes())
    }
}
