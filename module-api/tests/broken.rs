//! Modules that are broken on purpose: what the kit says of each names the hook, and the seed that repeats it.

use std::{
    collections::BTreeSet,
    mem::{ManuallyDrop, forget},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    thread,
};

use topnext_module_api::{prelude::*, testing};

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

// ---- filters

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

// ---- handlers

/// Sends a text in two parts.
#[derive(Config)]
struct Handles {
    #[config(default = "not")]
    how: Fault,
}

#[derive(Choice, Clone, Copy, PartialEq)]
enum Fault {
    Not,
    TakesHeaderAgainForAnEnd,
    SwallowsHeaderError,
    SwallowsBodyError,
    SendsAfterError,
    LeaksContext,
    LeaksWaker,
    LeaksJob,
    SendsTwiceAfterAgain,
    WakesInTheLog,
}

static HANDLER_PANICS: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());

impl Handles {
    fn respond(&self, r: &mut Request<'_>) -> Code {
        if !r.header_sent() {
            r.set_status(200);
            match r.send_header() {
                Code::OK => {}
                Code::AGAIN if self.how == Fault::TakesHeaderAgainForAnEnd => return Code::DONE,
                Code::AGAIN => {}
                _ if self.how == Fault::SwallowsHeaderError => return Code::OK,
                code if self.how == Fault::SendsAfterError => {
                    r.output(Buf::last());
                    return code;
                }
                code => return code,
            }
            match self.how {
                Fault::LeaksContext => forget(r.set_context(1_u8)),
                Fault::LeaksWaker => forget(r.waker()),
                Fault::LeaksJob => forget(r.offload(|| 1)),
                _ => {}
            }
            match r.output(Buf::from_static(b"one")) {
                Code::OK => {}
                code => return code,
            }
            if self.how == Fault::SendsTwiceAfterAgain {
                r.set_context(());
            }
        } else if self.how == Fault::SendsTwiceAfterAgain && r.context::<()>().is_none() {
            r.output(Buf::from_static(b"one"));
        }
        match r.output(Buf::last()) {
            Code::ERROR if self.how == Fault::SwallowsBodyError => Code::OK,
            code => code,
        }
    }
}

impl Content for Handles {
    fn content(&self, r: &mut Request<'_>) -> Code {
        let _noted = Noted(&HANDLER_PANICS, "content");
        self.respond(r)
    }
}

impl PhaseHandler for Handles {
    const PHASES: &'static [Phase] = &[Phase::Access, Phase::Log];

    fn handler(&self, r: &mut Request<'_>, phase: Phase) -> Code {
        let _noted = Noted(&HANDLER_PANICS, "handler");
        if phase == Phase::Log && self.how == Fault::WakesInTheLog {
            r.wake_after(Duration::from_secs(1));
            return Code::OK;
        }
        self.respond(r)
    }
}

fn handles(how: &str) -> Handles {
    testing::module(&format!("how = \"{how}\"")).expect("valid")
}

#[test]
fn a_broken_handler_is_told_with_hook_and_seed() {
    for (how, texts) in [
        ("takes_header_again_for_an_end", &["seed ", "content"][..]),
        ("swallows_header_error", &["seed ", "answers Error from call 1", "content of module 1 swallowed an Error"]),
        ("swallows_body_error", &["seed ", "content of module 1 swallowed an Error"]),
        ("sends_after_error", &["seed ", "output() in content before send_header() answered Ok or Again"]),
        ("leaks_context", &["seed ", "1 contexts are still alive: content of module 1"]),
        ("leaks_waker", &["seed ", "1 wakers are still alive: content of module 1"]),
        ("leaks_job", &["seed ", "1 jobs are still alive: content of module 1"]),
        ("sends_twice_after_again", &["seed ", "with Again", "another outcome than when run whole, see content"]),
    ] {
        let handler = handles(how);
        let said = failure(|| testing::content(&handler).check());
        says(how, &said, texts);
    }
    let handler = handles("swallows_header_error");
    let said = failure(|| testing::handler(&handler, Phase::Access).check());
    says("as a phase handler", &said, &["seed ", "handler of module 1 swallowed an Error"]);
    let handler = handles("wakes_in_the_log");
    let said = failure(|| testing::handler(&handler, Phase::Log).check());
    says("in the log phase", &said, &["seed ", "handler in the log phase asks to be woken, which it never is"]);
}

#[test]
fn panics_come_within_the_hooks_of_a_handler() {
    let handler = handles("not");
    testing::content(&handler).check();
    testing::handler(&handler, Phase::Access).check();
    assert_eq!(noted(&HANDLER_PANICS), ["content", "handler"]);
}

// ---- upstreams

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

// ---- balancers

/// Chooses the first that is available.
#[derive(Config)]
struct First {
    how: Error,
}

#[derive(Choice, Clone, Copy, PartialEq)]
enum Error {
    Not,
    ChoosesWhatIsDown,
    PoisonsItsLock,
    LeaksBuf,
    KeepsCountAfterPanic,
}

static BALANCER_PANICS: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
static BALANCER_LOCK: Mutex<u32> = Mutex::new(0);
static CHOOSING: Mutex<u32> = Mutex::new(0);

impl Balancer for First {
    fn init_peer(&self, s: &mut Selection<'_>, next: BalancerNext<'_>) -> Code {
        let _noted = Noted(&BALANCER_PANICS, "init_peer");
        next.init_peer(s)
    }

    fn get(&self, s: &mut Selection<'_>, _: BalancerNext<'_>) -> Option<usize> {
        let _noted = Noted(&BALANCER_PANICS, "get");
        let _guard = (self.how == Error::PoisonsItsLock).then(|| BALANCER_LOCK.lock().expect("not poisoned"));
        if self.how == Error::KeepsCountAfterPanic {
            let mut choosing = CHOOSING.lock().expect("nothing panics with it");
            *choosing += 1;
            if *choosing > 1 {
                return None;
            }
        }
        let found = (0..s.len()).find(|&peer| self.how == Error::ChoosesWhatIsDown || s.is_available(peer));
        if self.how == Error::KeepsCountAfterPanic {
            *CHOOSING.lock().expect("nothing panics with it") -= 1;
        }
        found
    }

    fn free(&self, s: &mut Selection<'_>, peer: usize, outcome: Outcome, next: BalancerNext<'_>) {
        let _noted = Noted(&BALANCER_PANICS, "free");
        if self.how == Error::LeaksBuf {
            forget(Buf::flush());
        }
        next.free(s, peer, outcome);
    }
}

const PEERS: [(&str, u32); 3] = [("a", 1), ("b", 1), ("c", 1)];

#[test]
fn a_broken_balancer_is_told_with_hook_and_seed() {
    for (how, texts) in [
        ("chooses_what_is_down", &["seed ", "get chose peer 0, which does not exist or is not available"][..]),
        ("poisons_its_lock", &["seed ", "the balancer panics at point", "panicked in get", "not poisoned"]),
        ("leaks_buf", &["1 bufs are still alive: free of module 1"]),
        ("keeps_count_after_panic", &["seed ", "then the next request", "get chose None for 192.0.2.1"]),
    ] {
        let mut balancer: First = testing::module(&format!("how = \"{how}\"")).expect("valid");
        let test = testing::balancer(&mut balancer, &PEERS);
        let said = failure(|| test.check(&["192.0.2.1", "::1"]));
        says(how, &said, texts);
    }
}

#[test]
fn panics_come_within_the_hooks_of_a_balancer() {
    let mut balancer: First = testing::module("how = \"not\"").expect("valid");
    let mut last = testing::FirstAvailable;
    testing::balancer(&mut balancer, &PEERS).then(&mut last).check(&["192.0.2.1", "a unix socket"]);
    assert_eq!(noted(&BALANCER_PANICS), ["free", "get", "init_peer"]);
}
