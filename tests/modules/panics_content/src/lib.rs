//! A content handler that panics where a request asks for it: `?in=content`.
//!
//! ```text
//! content     behind_header  in_body       the handler: at once, behind the header, behind a part of the body
//! job         job_forgotten                a job on the thread pool, which the handler waits for or not
//! release&size=N                           the release of a buf of N bytes
//! release_in_job release_in_thread         the release of a buf in a job, or in a thread of the module
//! release_far                              the release of a buf by another module
//! job_refused                              the drop of a job that the pool refuses
//! half                                     does not panic: half of the response; the rest when the request's body has come
//! ```
//!
//! Jobs that keep the pool busy: `busy` runs until the gate opens, and the response waits until it runs; `waits` is one that
//! comes behind it; `open` opens the gate. With `then=panic`, `busy` panics when the gate has opened, and `waits` panics
//! if it is dropped without having run, which opens the gate.
//!
//! Otherwise it answers with its text.

#![forbid(unsafe_code)]

use std::{
    sync::{Condvar, Mutex, PoisonError},
    thread,
};

use topnext_module_api::prelude::*;

/// The table `panics_content`.
#[derive(Config)]
pub struct PanicsContent {
    /// The text of the response.
    #[config(default = "calm\n")]
    text: Template,
}

export_module! {
    name: "panics_content",
    module: PanicsContent,
    provides: [content],
}

/// Whether the request asks for this.
fn asked(r: &Request<'_>, place: &str) -> bool {
    r.variable("arg_in") == Some(place.as_bytes())
}

/// Memory whose release panics.
struct Memory(Vec<u8>);

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        panic!("asked for in buf release"); // in release
    }
}

fn memory(size: usize) -> Bytes {
    Bytes::from_owner(Memory(vec![b'x'; size]))
}

/// A job that was not run.
struct NeverRun {
    opens_gate: bool,
}

impl Drop for NeverRun {
    fn drop(&mut self) {
        if self.opens_gate {
            GATE.step(OPEN);
        }
        panic!("asked for in the drop of a job"); // in job drop
    }
}

/// How far it has come: a job runs; it may go on.
struct Gate(Mutex<u8>, Condvar);

const RUNS: u8 = 1;
const OPEN: u8 = 2;

static GATE: Gate = Gate(Mutex::new(0), Condvar::new());

impl Gate {
    fn step(&self, step: u8) {
        let mut at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *at = step.max(*at);
        self.1.notify_all();
    }

    fn wait(&self, step: u8) {
        let at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.1.wait_while(at, |at| *at < step).unwrap_or_else(PoisonError::into_inner));
    }
}

/// Half of the response has been sent.
struct Half;

impl Content for PanicsContent {
    fn content(&self, r: &mut Request<'_>) -> Code {
        if asked(r, "content") {
            panic!("asked for in content"); // in content
        }
        if asked(r, "behind_header") || asked(r, "in_body") {
            return begin_and_panic(r);
        }
        if asked(r, "job") {
            return wait_for_job(r);
        }
        if asked(r, "job_forgotten") {
            drop(r.offload(job));
        }
        if asked(r, "release") {
            let size = r.variable("arg_size").and_then(|size| std::str::from_utf8(size).ok()?.parse().ok());
            return r.send(200, "text/plain", memory(size.unwrap_or(1)));
        }
        if asked(r, "release_far") {
            return r.send(200, "text/plain", memory(1));
        }
        if asked(r, "release_in_job") {
            let buf = Buf::from(memory(1));
            drop(r.offload(move || drop(buf)));
        }
        if asked(r, "release_in_thread") {
            let buf = Buf::from(memory(1));
            thread::spawn(move || drop(buf));
        }
        if asked(r, "job_refused") {
            let job = NeverRun { opens_gate: false };
            let accepted = r.offload(move || drop(job)).is_some();
            return r.send(200, "text/plain", format!("accepted: {accepted}"));
        }
        keep_busy(r);
        if asked(r, "half") {
            return halves(r);
        }
        let text = self.text.eval(r);
        r.send(200, "text/plain", text.to_vec())
    }
}

fn begin_and_panic(r: &mut Request<'_>) -> Code {
    r.set_status(200);
    let _ = r.send_header();
    if asked(r, "behind_header") {
        panic!("asked for in content"); // in behind_header
    }
    let mut part = Buf::from_static(b"the first part");
    part.set_flush(true);
    let _ = r.output(part);
    panic!("asked for in content"); // in in_body
}

/// The work of a job.
fn job() {
    panic!("asked for in job"); // in job
}

/// See `busy`, `waits` and `open` above.
fn keep_busy(r: &mut Request<'_>) {
    let panics = r.variable("arg_then") == Some(b"panic");
    if asked(r, "busy") {
        let job = r.offload(move || {
            GATE.step(RUNS);
            GATE.wait(OPEN);
            if panics {
                job();
            }
        });
        if job.is_some() {
            GATE.wait(RUNS);
        }
    }
    if asked(r, "waits") {
        let never_run = panics.then(|| NeverRun { opens_gate: true });
        drop(r.offload(move || std::mem::forget(never_run)));
    }
    if asked(r, "open") {
        GATE.step(OPEN);
    }
}

fn wait_for_job(r: &mut Request<'_>) -> Code {
    let Some(mut job) = r.context::<Job<()>>() else {
        let Some(job) = r.offload(job) else { return Code::status(503) };
        r.set_context(job);
        return Code::AGAIN;
    };
    match job.poll() {
        None => Code::AGAIN,
        Some(Ok(())) => Code::status(204),
        Some(Err(_)) => Code::ERROR,
    }
}

fn halves(r: &mut Request<'_>) -> Code {
    if r.context::<Half>().is_none() {
        r.set_context(Half);
        r.set_status(200);
        r.set_content_length(Some(4));
        let _ = r.send_header();
        let mut half = Buf::from_static(b"ha");
        half.set_flush(true);
        let _ = r.output(half);
    }
    match r.read_body() {
        Code::OK => (),
        code => return code,
    }
    let mut half = Buf::from_static(b"lf");
    half.set_last(true);
    r.output(half)
}
