//! Built without optimization, with an allocator of its own that counts: it must load and run in any host.
//!
//! The symbol `opt0_alloc_live` tells how many of its allocations are alive. When its file is loaded, before any hook is
//! called, it says `opt0_alloc is loaded` if TOPNEXT_TEST_LOADED is set.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use topnext_module_api::prelude::*;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: the system's allocator does the work; the count changes nothing about it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// The number of allocations that are alive.
#[unsafe(no_mangle)]
pub extern "C" fn opt0_alloc_live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// The dynamic linker runs what this section holds.
#[used]
#[unsafe(link_section = ".init_array")]
static LOADED: extern "C" fn() = loaded;

extern "C" fn loaded() {
    if std::env::var_os("TOPNEXT_TEST_LOADED").is_some() {
        eprintln!("opt0_alloc is loaded");
    }
}

/// The table `opt0_alloc`.
#[derive(Config)]
pub struct Opt0Alloc {
    /// The values of the field X-Opt0.
    #[config(default = ["a"])]
    texts: Vec<String>,
}

export_module! {
    name: "opt0_alloc",
    module: Opt0Alloc,
    provides: [filter],
}

impl Filter for Opt0Alloc {
    const BODY: bool = false;

    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        r.set_header_out("X-Opt0", self.texts.join(", "));
        next.call(r)
    }
}
