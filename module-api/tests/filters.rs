//! Filters in the kit: good ones pass the torture, bad ones are caught; contexts, holds, timers, panics.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use topnext_module_api::{prelude::*, testing};

/// What a test that must fail says.
fn failure(test: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(test)).expect_err("the kit noticed nothing");
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}

const TEXT: &str = "The quick brown fox jumps over the lazy dog.\n";

fn response<F: Filter>(filter: &F) -> testing::FilterTest<'_> {
    testing::filter(filter).response(200, &[("Content-Type", "text/plain")], TEXT.repeat(20))
}

/// Does nothing.
#[derive(Config)]
struct Passes {}
impl Filter for Passes {}

#[test]
fn a_filter_that_does_nothing_passes_everything() {
    let filter = testing::module::<Passes>("").expect("no keys");
    let out = response(&filter).run();
    assert_eq!((out.status, out.text()), (200, TEXT.repeat(20).into()));
    assert_eq!((out.content_length, out.header("content-type")), (Some(900), Some("text/plain")));
    response(&filter).check();
    response(&filter).request("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").check();
    testing::filter(&filter).response(200, &[], "").check();
}

/// Keeps the whole body and sends it reversed, after a pause, half at a time.
#[derive(Config)]
struct Reverses {
    #[config(default = "1s")]
    pause: Duration,
}

struct Kept {
    body: Vec<u8>,
    ends: bool,
    due: Option<u64>,
    drops: Arc<AtomicUsize>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
    }
}

static MADE: AtomicUsize = AtomicUsize::new(0);
static DROPPED: std::sync::LazyLock<Arc<AtomicUsize>> = std::sync::LazyLock::new(Arc::default);

impl Filter for Reverses {
    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        r.need_memory();
        MADE.fetch_add(1, Ordering::SeqCst);
        r.set_context(Kept { body: Vec::new(), ends: false, due: None, drops: DROPPED.clone() });
        next.call(r)
    }

    fn body_filter(&self, r: &mut Request<'_>, chain: Chain, next: BodyNext<'_>) -> Code {
        let Some(mut kept) = r.context::<Kept>() else {
            return next.call(r, chain);
        };
        assert!(r.context::<Kept>().is_none(), "checked out");
        for buf in chain {
            kept.body.extend_from_slice(buf.bytes());
            kept.ends |= buf.is_last();
        }
        let now = r.now_ms();
        if kept.ends && kept.due.is_none() {
            kept.due = Some(now + self.pause.as_millis() as u64);
            r.wake_after(self.pause);
        }
        if kept.due.is_none_or(|due| now < due) {
            r.hold(true);
            drop(kept);
            return waiting(next.call(r, Chain::new()));
        }
        let mut out = Chain::new();
        let half = kept.body.len() / 2;
        let part = kept.body.split_off(half);
        out.push(Buf::from(part.into_iter().rev().collect::<Vec<u8>>()));
        if kept.body.is_empty() {
            r.hold(false);
            out.push(Buf::last());
            kept.remove();
            return next.call(r, out);
        }
        drop(kept);
        waiting(next.call(r, out))
    }
}

/// The answer of a filter that holds something.
fn waiting(code: Code) -> Code {
    if code == Code::OK { Code::AGAIN } else { code }
}

#[test]
fn a_filter_that_holds_data_passes_the_torture() {
    let filter = testing::module::<Reverses>("pause = \"2s\"").expect("valid");
    let out = response(&filter).run();
    assert_eq!(out.text(), TEXT.repeat(20).chars().rev().collect::<String>());
    assert_eq!(out.time, Duration::from_secs(2));
    assert!(out.sent.iter().all(|(time, _)| *time == Duration::from_secs(2)), "{:?}", out.sent);
    response(&filter).length_unknown().check();
    // Only this test uses the filter: each context has been dropped, however the request ended.
    assert_eq!(MADE.load(Ordering::SeqCst), DROPPED.load(Ordering::SeqCst));
    assert!(MADE.load(Ordering::SeqCst) > 100);
}

/// Breaks the contract in the way that the table says.
#[derive(Config)]
struct Breaks {
    how: How,
}

#[derive(Choice, Clone, Copy, PartialEq)]
enum How {
    TwoLasts,
    NoLast,
    HoldsForEver,
    SwallowsEmpty,
    ChangesLength,
    LosesBoundaries,
    HeaderTwice,
    LeaksBuf,
    Panics,
    IgnoresErrors,
}

impl Filter for Breaks {
    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        r.need_memory();
        if self.how == How::HeaderTwice {
            next.call(r);
        }
        next.call(r)
    }

    fn body_filter(&self, r: &mut Request<'_>, mut chain: Chain, next: BodyNext<'_>) -> Code {
        match self.how {
            How::TwoLasts if chain.has_last() => chain.push(Buf::last()),
            How::NoLast => chain.last_mut().into_iter().for_each(|last| last.set_last(false)),
            How::HoldsForEver => r.hold(true),
            How::SwallowsEmpty if chain.is_empty() => return Code::AGAIN,
            How::ChangesLength if chain.has_last() => chain.push_front(Buf::from_static(b"more")),
            // Only what is at the front of a buf: wrong as soon as the pieces are others.
            How::LosesBoundaries => {
                let upper = |buf: Buf| {
                    let mut bytes = buf.bytes().to_vec();
                    bytes.iter_mut().take(1).for_each(u8::make_ascii_uppercase);
                    let mut out = Buf::from(bytes);
                    out.set_last(buf.is_last());
                    out
                };
                chain = chain.map(upper).collect();
            }
            How::LeaksBuf => std::mem::forget(Buf::from_static(b"lost")),
            How::Panics if chain.has_last() => panic!("on purpose"),
            How::IgnoresErrors => {
                next.call(r, chain);
                return Code::OK;
            }
            _ => {}
        }
        next.call(r, chain)
    }
}

fn breaks(how: &str) -> Breaks {
    testing::module::<Breaks>(&format!("how = \"{how}\"")).expect("valid")
}

#[test]
fn what_breaks_the_contract_is_caught_in_one_run() {
    for (how, text) in [
        ("two_lasts", "last_buf came twice"),
        ("no_last", "last_buf went into the chain of filters, but did not come out"),
        ("holds_for_ever", "a filter holds data for ever"),
        ("changes_length", "the content length is 900, but the body has 904 bytes"),
        ("header_twice", "the header was passed on twice"),
        ("leaks_buf", "1 bufs are still alive"),
    ] {
        let filter = breaks(how);
        let said = failure(|| drop(response(&filter).run()));
        assert!(said.contains(text), "{how}: {said}");
    }
}

#[test]
fn what_breaks_the_contract_at_times_is_caught_by_the_torture() {
    for (how, text) in [
        ("swallows_empty", "does not pass an empty chain on"),
        ("loses_boundaries", "another outcome than when run whole"),
        ("panics", "module 1 panicked in body_filter"),
    ] {
        let filter = breaks(how);
        if how != "panics" {
            response(&filter).run();
        }
        let said = failure(|| response(&filter).check());
        assert!(said.contains(text), "{how}: {said}");
    }
}

#[test]
fn a_failure_names_its_seed_and_can_be_repeated() {
    let filter = breaks("loses_boundaries");
    let said = failure(|| response(&filter).check());
    let seed: u64 = said.split("seed ").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok()).expect("a seed");
    assert_eq!(failure(|| response(&filter).seed(seed).rounds(1).check()), said);
}

#[test]
fn a_panic_is_blamed_on_module_hook_file_and_line() {
    let filter = breaks("panics");
    let out = response(&filter).run();
    assert!(out.failed());
    let [panic] = &out.panics[..] else { panic!("{:?}", out.panics) };
    assert_eq!((panic.module, panic.hook.as_str(), panic.message.as_str()), (1, "body_filter", "on purpose"));
    assert!(panic.file.ends_with("tests/filters.rs") && panic.line > 100, "{panic}");
}

#[test]
fn a_panic_further_on_fails_the_request_whatever_the_filter_answers() {
    // The filter answers Ok, but the panic has been reported.
    let (outer, inner) = (breaks("ignores_errors"), breaks("panics"));
    let out = response(&outer).then(&inner).run();
    assert!(out.failed());
    assert_eq!(out.panics[0].module, 2);
}

/// Two contexts of the wrong type: a fault of the module, reported as a panic; the context is dropped all the same.
#[derive(Config)]
struct Confused {}

impl Filter for Confused {
    const BODY: bool = false;

    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        r.set_context(1_u32);
        {
            let mut context = r.set_context(2_u32);
            *context += 1;
        }
        assert_eq!(r.context::<u32>().map(|context| *context), Some(3));
        let code = next.call(r);
        drop(r.context::<String>());
        code
    }
}

#[test]
fn a_context_of_another_type_is_a_panic() {
    let filter = testing::module::<Confused>("").expect("no keys");
    let out = response(&filter).run();
    let [panic] = &out.panics[..] else { panic!("{:?}", out.panics) };
    assert!(panic.message.starts_with("the context of this request is not a"), "{panic}");
    assert_eq!(panic.hook, "header_filter");
}

/// Uses what a request offers.
#[derive(Config)]
struct Tells {
    text: Template,
}

impl Filter for Tells {
    const BODY: bool = false;

    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        let text = self.text.eval(r);
        r.set_header_out("X-Text", text);
        r.add_header_out("X-Text", "two");
        r.remove_header_out("content-type");
        let refused = [r.set_header_out("X-Bad", "a\r\nb"), r.set_header_out("X Bad", "a")];
        assert_eq!((refused, r.is_main(), r.version()), ([false, false], false, 10));
        log!(r, Level::Warn, "{} headers", r.headers_in().count());
        next.call(r)
    }
}

impl Variables for Tells {
    const NAMES: &'static [&'static str] = &["told", "untold"];

    fn variable(r: &mut Request<'_>, index: usize) -> Option<Vec<u8>> {
        (index == 0).then(|| r.uri().to_vec())
    }
}

#[test]
fn a_request_has_headers_variables_and_a_log() {
    let text = "text = \"$uri?$args $host ${remote_addr} $http_x_y $arg_b $mine$none.\"";
    let filter = testing::module::<Tells>(text).expect("valid");
    let test = response(&filter).request("GET /a%20b?a=1&b=2 HTTP/1.0\r\nHost: EXAMPLE.org:80\r\nX-Y: z\r\n\r\n");
    let test = test.variable("mine", "m").remote_addr("10.0.0.1").subrequest().variables::<Tells>();
    let out = test.run();
    assert_eq!(out.header("x-text"), Some("/a b?a=1&b=2 example.org 10.0.0.1 z 2 m."));
    assert_eq!((out.headers.len(), out.logged("2 headers"), out.header("Content-Type")), (2, true, None));
    assert_eq!(out.variables, [("told".to_string(), Some(b"/a b".to_vec())), ("untold".to_string(), None)]);
    test.check();
    let wrong = testing::module::<Tells>("text = \"$\"").err();
    assert!(wrong.is_some_and(|text| text.starts_with("text: no name of a variable")));
}
