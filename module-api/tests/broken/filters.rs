//! Filters that break their contract, leak, or do not bear what may happen.

use std::{
    collections::BTreeSet,
    mem::{ManuallyDrop, forget},
    sync::{Mutex, PoisonError},
};

use topnext_module_api::{prelude::*, testing};

use crate::{Noted, failure, noted, says};

/// Breaks in one way.
#[derive(Config)]
struct Breaks {
    how: How,
}

#[derive(Choice, Clone, Copy, PartialEq)]
enum How {
    /// Not at all.
    Not,
    LeaksInput,
    LeaksContext,
    LeaksCheckedOutContext,
    LeaksWaker,
    LeaksJob,
    LeaksWhenItPanics,
    DependsOnPieces,
    LosesDataOnAgain,
    FailsOnHeaderAgain,
    SwallowsHeaderError,
    SwallowsBodyError,
    PoisonsItsLock,
    KeepsBadStateAfterPanic,
}

/// Shared by all requests to the module that breaks in this way.
static LOCK: Mutex<u32> = Mutex::new(0);
static BUSY: Mutex<bool> = Mutex::new(false);

#[derive(Default)]
struct Seen {
    again: bool,
}

impl Filter for Breaks {
    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        r.need_memory();
        r.set_context(Seen::default());
        match self.how {
            How::LeaksContext => forget(r.set_context(Seen::default())),
            How::LeaksWaker => forget(r.waker()),
            How::LeaksJob => forget(r.offload(|| 1)),
            _ => {}
        }
        let code = next.call(r);
        match (self.how, code) {
            (How::FailsOnHeaderAgain, Code::AGAIN) => Code::ERROR,
            (How::SwallowsHeaderError, Code::ERROR) => Code::OK,
            _ => code,
        }
    }

    fn body_filter(&self, r: &mut Request<'_>, mut chain: Chain, next: BodyNext<'_>) -> Code {
        match self.how {
            How::LeaksInput if chain.first().is_some_and(|buf| buf.len() == 1) => {
                forget(chain.pop());
            }
            How::LeaksCheckedOutContext if chain.has_last() => forget(r.context::<Seen>()),
            How::LeaksWhenItPanics => {
                // Freed by hand, which a panic in between does not do.
                let kept = ManuallyDrop::new(Buf::from_static(b"kept"));
                let code = next.call(r, chain);
                drop(ManuallyDrop::into_inner(kept));
                return code;
            }
            How::DependsOnPieces => {
                if let Some(mut first) = chain.pop() {
                    let mut bytes = first.bytes().to_vec();
                    bytes.reverse();
                    let mut reversed = Buf::from(bytes);
                    reversed.set_last(first.is_last());
                    first.set_last(false);
                    chain.push_front(reversed);
                }
            }
            How::LosesDataOnAgain => {
                let mut seen = r.context::<Seen>().expect("set with the header");
                // What comes while the next is busy is dropped, but for its end.
                if seen.again && !chain.is_empty() {
                    let last = chain.has_last();
                    chain = if last { Chain::from(Buf::last()) } else { Chain::new() };
                }
                drop(seen);
                let code = next.call(r, chain);
                seen = r.context::<Seen>().expect("set with the header");
                seen.again = code == Code::AGAIN;
                return code;
            }
            How::SwallowsBodyError => {
                let code = next.call(r, chain);
                return if code == Code::ERROR { Code::OK } else { code };
            }
            How::PoisonsItsLock => {
                let mut count = LOCK.lock().expect("not poisoned");
                *count += 1;
                return next.call(r, chain);
            }
            How::KeepsBadStateAfterPanic => {
                let set = |busy| *BUSY.lock().unwrap_or_else(PoisonError::into_inner) = busy;
                if *BUSY.lock().unwrap_or_else(PoisonError::into_inner) {
                    return next.call(r, Buf::last());
                }
                set(true);
                let code = next.call(r, chain);
                set(false);
                return code;
            }
            _ => {}
        }
        next.call(r, chain)
    }
}

const TEXT: &str = "The quick brown fox jumps over the lazy dog.\n";

fn check(how: &str, seed: u64, rounds: u64) {
    let filter = testing::module::<Breaks>(&format!("how = \"{how}\"")).expect("valid");
    let test = testing::filter(&filter).response(200, &[("Content-Type", "text/plain")], TEXT.repeat(4));
    test.seed(seed).rounds(rounds).check();
}

#[test]
fn a_broken_filter_is_told_with_hook_and_seed() {
    for (how, texts) in [
        ("leaks_input", &["bufs are still alive: body_filter of module 1 had them last"][..]),
        ("leaks_context", &["1 contexts are still alive: header_filter of module 1"]),
        ("leaks_checked_out_context", &["1 contexts are still alive: header_filter of module 1"]),
        ("leaks_waker", &["1 wakers are still alive: header_filter of module 1"]),
        ("leaks_job", &["1 jobs are still alive: header_filter of module 1"]),
        ("leaks_when_it_panics", &["the module panics at point", "1 bufs are still alive: body_filter of module 1"]),
        ("depends_on_pieces", &["in pieces", "another outcome than when run whole, see body_filter"]),
        ("loses_data_on_again", &["with Again", "body_filter"]),
        ("fails_on_header_again", &["with Again", "another outcome than when run whole, see header_filter"]),
        ("swallows_header_error", &["answers Error from call", "header_filter of module 1 swallowed an Error"]),
        ("swallows_body_error", &["answers Error from call", "body_filter of module 1 swallowed an Error"]),
        ("poisons_its_lock", &["injected by the kit", "panicked in body_filter", "not poisoned"]),
        (
            "keeps_bad_state_after_panic",
            &["panicked in body_filter", "then the next request, whole", "see body_filter"],
        ),
    ] {
        let said = failure(|| check(how, 1, 120));
        says(how, &said, texts);
        says(how, &said, &["seed "]);
    }
}

#[test]
fn the_seed_repeats_what_was_found() {
    for how in ["leaks_when_it_panics", "loses_data_on_again", "swallows_header_error"] {
        let said = failure(|| check(how, 1, 120));
        let seed = said.strip_prefix("seed ").and_then(|rest| rest.split(',').next()?.parse().ok()).expect("a seed");
        assert_eq!(failure(|| check(how, seed, 1)), said, "{how}");
    }
}

#[test]
fn a_filter_that_does_not_break_passes() {
    check("not", 1, 400);
}

/// Notes where it panics.
#[derive(Config)]
struct Notes {}

static FILTER_PANICS: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());

impl Filter for Notes {
    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        let _noted = Noted(&FILTER_PANICS, "header_filter");
        next.call(r)
    }

    fn body_filter(&self, r: &mut Request<'_>, chain: Chain, next: BodyNext<'_>) -> Code {
        let _noted = Noted(&FILTER_PANICS, "body_filter");
        next.call(r, chain)
    }
}

#[test]
fn panics_come_within_both_hooks_of_a_filter() {
    let filter = testing::module::<Notes>("").expect("no keys");
    testing::filter(&filter).response(200, &[], TEXT).check();
    assert_eq!(noted(&FILTER_PANICS), ["body_filter", "header_filter"]);
}
