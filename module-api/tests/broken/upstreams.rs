//! Upstream protocols that depend on how an answer comes, leak, or do not bear panics.

use std::{
    collections::BTreeSet,
    mem::{ManuallyDrop, forget},
    sync::Mutex,
};

use topnext_module_api::{prelude::*, testing};

use crate::{Noted, failure, noted, says};

/// A status line, then a body up to a dot.
struct Dots {
    upstream: UpstreamId,
    how: Slip,
}

#[derive(Config)]
struct DotsTable {
    how: Slip,
}

#[derive(Choice, Clone, Copy, PartialEq)]
enum Slip {
    Not,
    LeaksInput,
    LeaksContext,
    DependsOnPieces,
    InvalidWhenIncomplete,
    RemembersTheLastPeer,
    WakesInProcessHeader,
    LeaksWhenItPanics,
    PoisonsItsLock,
}

static UPSTREAM_PANICS: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
static UPSTREAM_LOCK: Mutex<u32> = Mutex::new(0);

impl Module for Dots {
    type Config = DotsTable;

    fn new(table: DotsTable, _: &Setup<'_>) -> Result<Dots, ConfigErrors> {
        let upstream = UpstreamId::find("peer", 7, &UpstreamOptions::default())?;
        Ok(Dots { upstream, how: table.how })
    }
}

impl Upstream for Dots {
    fn upstream(&self) -> UpstreamId {
        self.upstream
    }

    fn create_request(&self, r: &mut Request<'_>, request: &mut Chain) -> Code {
        let _noted = Noted(&UPSTREAM_PANICS, "create_request");
        drop(r.set_context(0_usize));
        request.push(Buf::copy_from(r.uri()));
        Code::OK
    }

    fn reinit_request(&self, r: &mut Request<'_>) -> Code {
        let _noted = Noted(&UPSTREAM_PANICS, "reinit_request");
        if self.how != Slip::RemembersTheLastPeer {
            r.set_context(0_usize);
        }
        Code::OK
    }

    fn process_header(&self, r: &mut Request<'_>, input: &[u8]) -> Progress {
        let _noted = Noted(&UPSTREAM_PANICS, "process_header");
        if self.how == Slip::WakesInProcessHeader {
            drop(r.waker());
        }
        let Some(mut looked_at) = r.context::<usize>() else { return Progress::Invalid };
        if self.how == Slip::RemembersTheLastPeer && input.len() < *looked_at {
            return Progress::Invalid;
        }
        // It need not look at what it has seen before.
        let Some(end) = input.iter().skip(*looked_at).position(|&b| b == b'\n') else {
            *looked_at = input.len();
            return if self.how == Slip::InvalidWhenIncomplete { Progress::Invalid } else { Progress::Incomplete };
        };
        r.set_status(200);
        Progress::Complete(*looked_at + end + 1)
    }

    fn input_filter_init(&self, r: &mut Request<'_>) -> Code {
        let _noted = Noted(&UPSTREAM_PANICS, "input_filter_init");
        match self.how {
            Slip::LeaksContext => forget(r.set_context(0_usize)),
            Slip::PoisonsItsLock => {
                let mut count = UPSTREAM_LOCK.lock().expect("not poisoned");
                *count += u32::from(r.status() == 200);
            }
            _ => drop(r.set_context(0_usize)),
        }
        Code::OK
    }

    fn input_filter(&self, r: &mut Request<'_>, mut input: Chain, output: &mut Chain) -> Code {
        let _noted = Noted(&UPSTREAM_PANICS, "input_filter");
        if self.how == Slip::LeaksInput {
            let first = input.pop();
            input.push_front(first.clone().unwrap_or_else(Buf::flush));
            forget(first);
        }
        let kept = (self.how == Slip::LeaksWhenItPanics).then(|| ManuallyDrop::new(Buf::flush()));
        r.set_upstream_keepalive(false);
        drop(kept.map(ManuallyDrop::into_inner));
        let mut done = false;
        for mut buf in input {
            match buf.bytes().iter().position(|&b| b == b'.') {
                Some(end) => {
                    buf.truncate(end as u64);
                    done = true;
                }
                None if self.how == Slip::DependsOnPieces => buf.advance(1),
                None => {}
            }
            output.push(buf);
            if done {
                return Code::DONE;
            }
        }
        Code::OK
    }

    fn abort_request(&self, r: &mut Request<'_>) {
        let _noted = Noted(&UPSTREAM_PANICS, "abort_request");
        r.uri();
    }

    fn finalize_request(&self, r: &mut Request<'_>, _: Code) {
        let _noted = Noted(&UPSTREAM_PANICS, "finalize_request");
        r.uri();
    }
}

fn dots(how: &str) -> Dots {
    testing::module(&format!("how = \"{how}\"")).expect("valid")
}

const ANSWER: &str = "status\nsome text that comes from the peer.";

#[test]
fn a_broken_upstream_is_told_with_hook() {
    for (how, texts) in [
        ("leaks_input", &["seed 0, whole", "1 bufs are still alive: input_filter of module 1"][..]),
        ("leaks_context", &["1 contexts are still alive: input_filter_init of module 1"]),
        ("depends_on_pieces", &["another outcome than when run whole, see input_filter"]),
        (
            "invalid_when_incomplete",
            &["in two parts, of 1 bytes", "another outcome than when run whole, see process_header"],
        ),
        ("remembers_the_last_peer", &["seed ", "another outcome than when run whole, see process_header"]),
        ("wakes_in_process_header", &["process_header asks to be woken, which it never is"]),
        (
            "leaks_when_it_panics",
            &["seed ", "the module panics at", "1 bufs are still alive: input_filter of module 1"],
        ),
        ("poisons_its_lock", &["seed ", "panicked in input_filter_init", "not poisoned"]),
    ] {
        let upstream = dots(how);
        let said = failure(|| testing::upstream(&upstream).check(ANSWER));
        says(how, &said, texts);
    }
}

#[test]
fn panics_come_within_all_hooks_of_an_upstream() {
    let upstream = dots("not");
    testing::upstream(&upstream).rounds(400).check(ANSWER);
    assert_eq!(
        noted(&UPSTREAM_PANICS),
        [
            "abort_request",
            "create_request",
            "finalize_request",
            "input_filter",
            "input_filter_init",
            "process_header",
            "reinit_request"
        ]
    );
}
