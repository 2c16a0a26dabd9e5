//! Modules that are broken on purpose: what the kit says of each names the hook, and the seed that repeats it.

mod balancers;
mod filters;
mod handlers;
mod upstreams;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    thread,
};

/// What a test that must fail says.
#[track_caller]
fn failure(test: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(test)).expect_err("the kit noticed nothing");
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}

/// The message has all these texts.
#[track_caller]
fn says(how: &str, said: &str, texts: &[&str]) {
    for text in texts {
        assert!(said.contains(text), "{how}: {text:?} is missing in: {said}");
    }
}

/// Notes in which hooks it was dropped by a panic.
struct Noted<'a>(&'a Mutex<BTreeSet<&'static str>>, &'static str);

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(self.1);
        }
    }
}

fn noted(hooks: &Mutex<BTreeSet<&'static str>>) -> Vec<&'static str> {
    hooks.lock().expect("nobody panics with it").iter().copied().collect()
}
