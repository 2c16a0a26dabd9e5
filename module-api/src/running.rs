//! Which module is running: a cell per thread that every entry into a module sets and restores.
//!
//! Blame for a panic or a crash, and time accounting, read this cell. The host owns it; a module only stores to it.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use abi_stable::StableAbi;

/// The hooks through which the host calls a module.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hook(pub u32);

macro_rules! hooks {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        impl Hook {
            $(#[doc = concat!("The hook \"", $text, "\".")] pub const $name: Hook = Hook($value);)*

            /// Its name in logs and counters.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($value => $text,)*
                    _ => "unknown hook",
                }
            }

            /// Every hook this version knows.
            pub const ALL: &'static [Hook] = &[$(Hook::$name),*];
        }
    };
}
hooks! {
    NONE = 0, "host";
    INIT = 1, "init";
    CONFIGURE = 2, "configure";
    RELEASE = 3, "release";
    HEADER_FILTER = 4, "header_filter";
    BODY_FILTER = 5, "body_filter";
    HANDLER = 6, "handler";
    CONTENT = 7, "content";
    CREATE_REQUEST = 8, "create_request";
    REINIT_REQUEST = 9, "reinit_request";
    PROCESS_HEADER = 10, "process_header";
    INPUT_FILTER_INIT = 11, "input_filter_init";
    INPUT_FILTER = 12, "input_filter";
    ABORT_REQUEST = 13, "abort_request";
    FINALIZE_REQUEST = 14, "finalize_request";
    INIT_UPSTREAM = 15, "init_upstream";
    INIT_PEER = 16, "init_peer";
    GET_PEER = 17, "get";
    FREE_PEER = 18, "free";
    VARIABLE = 19, "variable";
    JOB = 20, "job";
    CONTEXT_DROP = 21, "context drop";
    BUF_RELEASE = 22, "buf release";
    UPSTREAM = 23, "upstream";
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A module's slot (1 and up, in declared order; 0 is the host) and the hook it is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Running {
    /// The slot that the host gave the module when it was loaded.
    pub module: u32,
    /// The hook.
    pub hook: Hook,
}

impl Running {
    /// Nobody but the host.
    pub const HOST: Running = Running { module: 0, hook: Hook::NONE };

    /// What a cell's first word says.
    #[inline]
    pub fn of_word(word: u64) -> Running {
        Running { module: word as u32, hook: Hook((word >> 32) as u32) }
    }
}

/// Where the host and all modules note who runs on this thread.
///
/// One per thread, owned by the host, alive as long as the thread. Atomic only because another thread or process may
/// look at it; stores are plain.
#[repr(C)]
#[derive(StableAbi, Debug, Default)]
pub struct RunningCell {
    running: AtomicU64,
    reserved: [AtomicU64; 3],
}

impl RunningCell {
    /// A cell that says "host".
    pub const fn new() -> RunningCell {
        RunningCell { running: AtomicU64::new(0), reserved: [const { AtomicU64::new(0) }; 3] }
    }

    /// Who runs.
    #[inline]
    pub fn get(&self) -> Running {
        Running::of_word(self.running.load(Ordering::Relaxed))
    }

    /// Notes who runs, and returns who ran before.
    ///
    /// # Safety
    /// Only generated entries into modules and the host say who runs: contexts are found by it.
    #[doc(hidden)]
    #[inline]
    pub unsafe fn replace(&self, running: Running) -> Running {
        let before = self.get();
        // SAFETY: the caller's promise.
        unsafe { self.set(running) };
        before
    }

    /// Notes who runs.
    ///
    /// # Safety
    /// As for [`RunningCell::replace`].
    #[doc(hidden)]
    #[inline]
    pub unsafe fn set(&self, running: Running) {
        self.running.store((u64::from(running.hook.0) << 32) | u64::from(running.module), Ordering::Relaxed);
    }
}
