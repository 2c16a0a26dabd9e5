//! Which module is running: a cell per thread that every entry into a module sets and restores.
//!
//! Blame for a panic or a crash, and the accounts of modules, read this cell. The host owns it; a module only stores to it.

use std::{
    fmt,
    sync::atomic::{AtomicPtr, AtomicU64, Ordering},
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

impl Hook {
    /// Whether it is called for a request, always.
    pub const fn has_request(self) -> bool {
        matches!(
            self,
            Hook::HEADER_FILTER
                | Hook::BODY_FILTER
                | Hook::HANDLER
                | Hook::CONTENT
                | Hook::CREATE_REQUEST
                | Hook::REINIT_REQUEST
                | Hook::PROCESS_HEADER
                | Hook::INPUT_FILTER_INIT
                | Hook::INPUT_FILTER
                | Hook::ABORT_REQUEST
                | Hook::FINALIZE_REQUEST
                | Hook::INIT_PEER
                | Hook::GET_PEER
                | Hook::FREE_PEER
                | Hook::VARIABLE
        )
    }
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

/// Where the host and all modules note who runs on this thread, and what it costs.
///
/// One per thread, owned by the host, alive as long as the thread. Atomic only because another thread or process may
/// look at it; stores are plain.
#[repr(C)]
#[derive(StableAbi, Debug, Default)]
pub struct RunningCell {
    running: AtomicU64,
    /// What is done with calls now: [`COUNT`], [`TIME`]; 0 for nothing. One word, since each call looks at it.
    accounting: AtomicU64,
    /// Of what is timed: the ticks that the calls within the running one have taken.
    inner: AtomicU64,
    /// Errors that were answered on this thread, by whomever, and panics.
    errors: AtomicU64,
    /// The accounts of this thread, in rows of [`HOOKS`], one for each slot from 0 on; or null.
    accounts: AtomicPtr<Account>,
    /// How many rows there are.
    rows: AtomicU64,
    reserved: [AtomicU64; 2],
}

/// Calls are counted.
const COUNT: u64 = 1;
/// Counted calls are timed too.
const TIME: u64 = 2;
/// Accounts in a row: more than there are hooks.
pub const HOOKS: usize = 32;

/// What a module has done in one of its hooks, on one thread.
#[repr(C)]
#[derive(StableAbi, Debug, Default)]
pub struct Account {
    /// Calls.
    pub calls: AtomicU64,
    /// Calls whose answer was Error or a status from 500 on, unless a module or the host behind it answered that before. One that
    /// has panicked is not among them.
    pub errors: AtomicU64,
    /// Panics. Counted by the host.
    pub panics: AtomicU64,
    /// Calls that were timed.
    pub timed: AtomicU64,
    /// Ticks that these have taken, without what they have called.
    pub ticks: AtomicU64,
    /// The most that one has taken, without what it has called.
    pub longest: AtomicU64,
    reserved: [AtomicU64; 2],
}

/// A call that is counted: what there was when it began.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    errors: u64,
    is_timed: bool,
    /// When it began, if it is timed.
    start: u64,
    /// What the calls around it had taken by then.
    outer: u64,
}

impl RunningCell {
    /// A cell that says "host", and counts nothing.
    pub const fn new() -> RunningCell {
        RunningCell {
            running: AtomicU64::new(0),
            accounting: AtomicU64::new(0),
            inner: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            accounts: AtomicPtr::new(std::ptr::null_mut()),
            rows: AtomicU64::new(0),
            reserved: [const { AtomicU64::new(0) }; 2],
        }
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

    /// Gives the thread accounts: `rows` rows of [`HOOKS`].
    ///
    /// # Safety
    /// They are there, in a row, as long as the cell.
    #[doc(hidden)]
    pub unsafe fn set_accounts(&self, accounts: *mut Account, rows: usize) {
        self.rows.store(rows as u64, Ordering::Relaxed);
        self.accounts.store(accounts, Ordering::Relaxed);
    }

    /// Says what is done with calls that begin from now on: whether they are counted, and whether timed as well.
    #[inline]
    pub fn set_accounting(&self, count: bool, time: bool) {
        let word = if count { COUNT } else { 0 } | if time { TIME } else { 0 };
        self.accounting.store(word, Ordering::Relaxed);
    }

    /// The account of a module's hook on this thread.
    #[inline]
    pub fn account(&self, module: u32, hook: Hook) -> Option<&Account> {
        let accounts = self.accounts.load(Ordering::Relaxed);
        let (row, column) = (module as usize, hook.0 as usize);
        if accounts.is_null() || row as u64 >= self.rows.load(Ordering::Relaxed) || column >= HOOKS {
            return None;
        }
        // SAFETY: the index is within what `set_accounts` was told, and that lives as long as the cell.
        Some(unsafe { &*accounts.add(row * HOOKS + column) })
    }

    /// Whether calls that begin now are counted.
    #[inline(always)]
    pub(crate) fn is_counting(&self) -> bool {
        self.accounting.load(Ordering::Relaxed) != 0
    }

    /// A call begins that is counted.
    #[doc(hidden)]
    #[inline]
    pub fn begin(&self) -> Counted {
        let (mut start, mut outer) = (0, 0);
        let is_timed = self.accounting.load(Ordering::Relaxed) & TIME != 0;
        if is_timed {
            outer = self.inner.load(Ordering::Relaxed);
            self.inner.store(0, Ordering::Relaxed);
            start = ticks();
        }
        Counted { errors: self.errors(), is_timed, start, outer }
    }

    /// It ends: the ticks that it has taken itself, if it is timed. What is around it does not count them.
    #[doc(hidden)]
    #[inline]
    pub fn end(&self, counted: &Counted) -> Option<u64> {
        if !counted.is_timed {
            return None;
        }
        let whole = ticks().wrapping_sub(counted.start);
        let inner = self.inner.load(Ordering::Relaxed);
        self.inner.store(counted.outer.wrapping_add(whole), Ordering::Relaxed);
        Some(whole.saturating_sub(inner))
    }

    /// It ends, and goes into the account of whoever still runs.
    #[inline]
    pub(crate) fn end_and_count(&self, counted: &Counted, has_failed: bool) {
        let ticks = self.end(counted);
        let is_to_blame = has_failed && self.errors() == counted.errors;
        if is_to_blame {
            self.count_error();
        }
        let running = self.get();
        if let Some(account) = self.account(running.module, running.hook) {
            account.count(ticks);
            if is_to_blame {
                add(&account.errors, 1);
            }
        }
    }

    /// Errors that were answered on this thread so far, and panics.
    #[inline]
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// An error was answered, or a module has panicked. Whoever passes it on is not to be blamed.
    #[inline]
    pub fn count_error(&self) {
        add(&self.errors, 1);
    }
}

impl Account {
    /// Counts a panic.
    pub fn count_panic(&self) {
        add(&self.panics, 1);
    }

    /// Counts a call, with the ticks that it has taken if it was timed.
    #[inline]
    pub fn count(&self, ticks: Option<u64>) {
        add(&self.calls, 1);
        if let Some(ticks) = ticks {
            add(&self.timed, 1);
            add(&self.ticks, ticks);
            if ticks > self.longest.load(Ordering::Relaxed) {
                self.longest.store(ticks, Ordering::Relaxed);
            }
        }
    }
}

/// Only one thread writes, so that no atomic addition is needed.
#[inline]
fn add(to: &AtomicU64, amount: u64) {
    to.store(to.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

/// A clock for what is short: it costs some nanoseconds, and its unit is the processor's. Never goes back on one processor.
#[inline]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every processor of this architecture has the instruction.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        use std::{sync::LazyLock, time::Instant};
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed().as_nanos() as u64
    }
}
