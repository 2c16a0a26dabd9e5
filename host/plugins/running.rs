//! Which module runs on this thread, and which modules have panicked.
//!
//! Every thread has a cell that modules set when they are entered (see module-api's `running`). Panics are counted per
//! thread, which is how a request learns that a call into a module has panicked somewhere below, and per module and hook.

#![allow(unsafe_code)]

use std::{
    cell::{Cell, RefCell},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use topnext_module_api::running::{Hook, Running, RunningCell};

use crate::process::scoreboard;

/// The most modules that a configuration can load: their slots are bits of a word in each request.
pub const MAX_MODULES: usize = 127;
const HOOKS: usize = Hook::ALL.len();

static PANICS: [[AtomicU64; HOOKS]; MAX_MODULES + 1] =
    [const { [const { AtomicU64::new(0) }; HOOKS] }; MAX_MODULES + 1];
/// Of each module, in all hooks: what its panics are numbered by, also when two threads panic at once.
static OF_MODULE: [AtomicU64; MAX_MODULES + 1] = [const { AtomicU64::new(0) }; MAX_MODULES + 1];
static NAMES: OnceLock<Vec<String>> = OnceLock::new();

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// This thread's cell, which lies on its board.
#[inline]
pub fn cell() -> &'static RunningCell {
    scoreboard::cell()
}

/// Runs host code that a module has called: meanwhile the cell says so.
pub fn as_host<T>(run: impl FnOnce() -> T) -> T {
    let cell = cell();
    // SAFETY: the host says that it runs itself, and then who ran before.
    let before = unsafe { cell.replace(Running::HOST) };
    let counted = cell.begin();
    let result = run();
    // The time of the host is not the module's.
    cell.end(&counted);
    // SAFETY: as above.
    unsafe { cell.set(before) };
    result
}

/// Runs `run` as if it were a module's hook: with the cell set, and with the guard too if `guard`. For measurements of what
/// that costs. `None`: it panicked.
#[inline(always)]
pub fn as_hook<T>(hook: Hook, guard: bool, run: impl FnOnce() -> T) -> Option<T> {
    let cell = cell();
    // Slot 0 is the host's, so that no module's context can be found under it.
    if guard {
        // SAFETY: see above.
        return unsafe { topnext_module_api::panic::enter_for_host(cell, 0, hook, run) }.ok();
    }
    // SAFETY: see above.
    let before = unsafe { cell.replace(Running { module: 0, hook }) };
    let result = run();
    // SAFETY: what was there.
    unsafe { cell.set(before) };
    Some(result)
}

/// Panics that modules have had on this thread.
pub fn panics() -> u64 {
    COUNT.get()
}

/// Counts a panic of a module in a hook, and remembers what it said. Returns its number among
/// this module's, from 1 on.
pub fn count_panic(running: Running, text: String) -> u64 {
    COUNT.set(COUNT.get() + 1);
    // At the end of a thread it may be gone.
    let _ = LAST.try_with(|last| last.replace(Some(text)));
    let module = (running.module as usize).min(MAX_MODULES);
    let hook = (running.hook.0 as usize).min(HOOKS - 1);
    PANICS[module][hook].fetch_add(1, Ordering::Relaxed);
    let cell = cell();
    // The Error that the call answers, and whoever passes it on: it is a panic, and not an error as well.
    cell.count_error();
    if let Some(account) = cell.account(running.module, running.hook) {
        account.count_panic();
    }
    OF_MODULE[module].fetch_add(1, Ordering::Relaxed) + 1
}

/// What the last panic on this thread said; taken once.
pub fn last_panic() -> Option<String> {
    LAST.take()
}

/// Panics of all modules since the start.
pub fn panics_of_all() -> u64 {
    PANICS.iter().flatten().map(|count| count.load(Ordering::Relaxed)).sum()
}

/// Names the slots, from 1 on, once all modules are known.
pub fn name_modules(names: Vec<String>) {
    let _ = NAMES.set(names);
}

/// The name of the module in a slot.
pub fn module_name(slot: u32) -> &'static str {
    let index = (slot as usize).wrapping_sub(1);
    NAMES.get().and_then(|names| names.get(index)).map_or("unknown module", String::as_str)
}
