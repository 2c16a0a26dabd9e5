//! A panic costs one request: every entry into a module goes through `enter`, which catches it and reports it.
//!
//! The host learns module, hook, message, file and line; it marks the request as failed, so that no module in between
//! can turn the answer into success. File and line come from a panic hook, of which each image (`.so`) has its own.

use std::{
    any::Any,
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

use abi_stable::{StableAbi, std_types::RStr};

use crate::{
    code::Code,
    host,
    running::{Hook, Running, RunningCell},
};

/// What the host is told about a panic. The strings live during the call.
#[repr(C)]
#[derive(StableAbi)]
pub struct PanicReport<'a> {
    /// The module's slot.
    pub module: u32,
    /// The hook it was in.
    pub hook: Hook,
    /// The panic's message.
    pub message: RStr<'a>,
    /// The source file, as the compiler was given it.
    pub file: RStr<'a>,
    /// The line in it; 0 if unknown.
    pub line: u32,
    /// For later; 0.
    pub reserved: [u64; 2],
}

/// The hook panicked. It has been reported; nothing is left to do but to give up the request.
#[derive(Debug)]
pub struct Panicked;

/// Runs a hook of a module: notes who runs, catches a panic, restores who ran before, and counts.
#[inline(always)]
pub(crate) fn enter<T>(cell: &RunningCell, module: u32, hook: Hook, run: impl FnOnce() -> T) -> Result<T, Panicked> {
    enter_or(cell, module, hook, || Ok(run()), |panicked| Err(panicked), |_| false)
}

/// As `enter`, for hooks that answer a code: a panic is an Error, and errors are counted where they begin. The host counts a
/// panic, as one, when it is reported, so that its Error is not counted here.
#[inline(always)]
pub(crate) fn enter_for_code(cell: &RunningCell, module: u32, hook: Hook, run: impl FnOnce() -> Code) -> Code {
    enter_or(cell, module, hook, run, |_| Code::ERROR, |code| code.is_failure())
}

/// What a call answers is not looked at on the way back unless it is counted: each hop of a chain waits for the one behind it.
#[inline(always)]
fn enter_or<T>(
    cell: &RunningCell,
    module: u32,
    hook: Hook,
    run: impl FnOnce() -> T,
    or: impl FnOnce(Panicked) -> T,
    has_failed: impl FnOnce(&T) -> bool,
) -> T {
    // SAFETY: this is the entry into the module in this slot.
    let before = unsafe { cell.replace(Running { module, hook }) };
    // One look at one word is all that a call costs which is not counted.
    let answer = if cell.is_counting() { counted(cell, run, or, has_failed) } else { guarded(cell, run, or) };
    // SAFETY: and this its end.
    unsafe { cell.set(before) };
    answer
}

/// Not inlined, so that a call that is not counted has few registers to save.
#[inline(never)]
fn counted<T>(
    cell: &RunningCell,
    run: impl FnOnce() -> T,
    or: impl FnOnce(Panicked) -> T,
    has_failed: impl FnOnce(&T) -> bool,
) -> T {
    let counted = cell.begin();
    let answer = guarded(cell, run, or);
    cell.end_and_count(&counted, has_failed(&answer));
    answer
}

#[inline(always)]
fn guarded<T>(cell: &RunningCell, run: impl FnOnce() -> T, or: impl FnOnce(Panicked) -> T) -> T {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => value,
        Err(payload) => or(report(cell.get(), payload)),
    }
}

/// As `enter`, for the host, which measures what it costs.
///
/// # Safety
/// `module` and `hook` are what `run` is taken for: contexts are found by them.
#[doc(hidden)]
#[inline(always)]
pub unsafe fn enter_for_host<T>(
    cell: &RunningCell,
    module: u32,
    hook: Hook,
    run: impl FnOnce() -> T,
) -> Result<T, Panicked> {
    enter(cell, module, hook, run)
}

#[cold]
#[inline(never)]
fn report(Running { module, hook }: Running, payload: Box<dyn Any + Send>) -> Panicked {
    let (file, line) = take_place();
    let message = message(&*payload);
    if let Some(host) = host::get() {
        let report =
            PanicReport { module, hook, message: message.into(), file: file.as_str().into(), line, reserved: [0; 2] };
        // SAFETY: the report lives during the call, which is all that `panicked` asks for.
        unsafe { host.panicked()(&report) }
    }
    // The payload's own drop might panic again, here outside of any guard. A leak of a few bytes is the lesser harm.
    std::mem::forget(payload);
    Panicked
}

/// What a panic says.
fn message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.as_str()
    } else {
        "(the panic's payload is not a string)"
    }
}

/// The most panics of a thread whose places are kept.
const MAX_PLACES: usize = 8;

thread_local! {
    /// Where this thread has panicked, noted by the panic hook. Several, if something that is dropped while a panic
    /// unwinds panics too; what a module catches itself leaves its place behind.
    static PLACES: RefCell<Vec<(String, u32)>> = const { RefCell::new(Vec::new()) };
}

/// Notes where this thread panics.
fn put_place(place: (String, u32)) {
    // While the thread ends there may be no such list any more; a panic in here would end the process.
    let _ = PLACES.try_with(|places| {
        if let Ok(mut places) = places.try_borrow_mut() {
            if places.len() == MAX_PLACES {
                places.remove(0);
            }
            places.push(place);
        }
    });
}

/// Where the panic that was just caught began.
fn take_place() -> (String, u32) {
    let take = |places: &RefCell<Vec<(String, u32)>>| {
        let mut places = places.try_borrow_mut().ok()?;
        let place = places.pop();
        if !std::thread::panicking() {
            // No panic is under way: what is left was caught by the module.
            places.clear();
        }
        place
    };
    PLACES.try_with(take).ok().flatten().unwrap_or_default()
}

/// Sets this image's panic hook, once: it notes file and line and prints nothing, since the host logs the panic.
///
/// A panic outside of any hook (on a thread that the module started itself) is logged by the hook.
pub(crate) fn install_hook(cell: fn() -> Option<&'static RunningCell>) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().map(|at| (at.file().to_string(), at.line())).unwrap_or_default();
            let inside = cell().is_some_and(|cell| cell.get() != Running::HOST);
            if inside {
                put_place(place);
            } else {
                let (message, (file, line)) = (message(info.payload()), place);
                let text = format!("a thread of the module panicked outside of any hook: {message}, at {file}:{line}");
                host::log(crate::log::Level::Crit, crate::module::slot(), &text);
            }
        }));
    });
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::testing::host_tests;

    #[test]
    fn a_panic_is_reported_and_the_cell_restored() {
        let cell = RunningCell::new();
        let outer = Running { module: 3, hook: Hook::CONTENT };
        let mut line = 0;
        let panics = host_tests::counted(|| {
            // The panic hook asks for the thread's own cell.
            let this = host::cell().expect("the kit is the host");
            let entered = enter(this, 3, Hook::CONTENT, || {
                let inner = enter(&cell, 4, Hook::BODY_FILTER, || {
                    assert_eq!(cell.get(), Running { module: 4, hook: Hook::BODY_FILTER });
                    line = line!() + 1;
                    panic!("number {}", 5);
                });
                assert!(inner.is_err() && cell.get() == Running::HOST && this.get() == outer);
                6
            });
            assert_eq!(entered.ok(), Some(6));
            assert_eq!(this.get(), Running::HOST);
        });
        let [panic] = &panics[..] else { panic!("{panics:?}") };
        assert_eq!((panic.module, panic.hook.as_str(), panic.message.as_str()), (4, "body_filter", "number 5"));
        assert!(panic.file.ends_with("panic.rs") && panic.line == line, "{panic}");
    }

    #[test]
    fn a_panic_while_another_one_unwinds_has_its_own_place() {
        struct Grenade;
        impl Drop for Grenade {
            fn drop(&mut self) {
                let cell = host::cell().expect("the kit is the host");
                INNER.set(line!() + 1);
                assert!(enter(cell, 2, Hook::CONTEXT_DROP, || panic!("inner")).is_err());
            }
        }
        thread_local! {
            static INNER: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
        }
        let mut line = 0;
        let panics = host_tests::counted(|| {
            let cell = host::cell().expect("the kit is the host");
            let entered = enter(cell, 1, Hook::CONTENT, || {
                assert!(catch_unwind(|| panic!("caught by the module")).is_err());
                let _grenade = Grenade;
                line = line!() + 1;
                panic!("outer");
            });
            assert!(entered.is_err());
        });
        let lines: Vec<(&str, u32)> = panics.iter().map(|panic| (panic.message.as_str(), panic.line)).collect();
        assert_eq!(lines, [("inner", INNER.get()), ("outer", line)], "{panics:?}");
    }

    #[test]
    fn a_payload_that_is_not_text_is_reported_too() {
        let panics = host_tests::counted(|| {
            let cell = host::cell().expect("the kit is the host");
            let entered = enter(cell, 1, Hook::INIT, || std::panic::panic_any(7));
            assert!(entered.is_err());
        });
        assert_eq!(panics[0].message, "(the panic's payload is not a string)");
    }
}
