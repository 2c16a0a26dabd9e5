//! The end of the chains: what the host does with a response, here with a memory for the wire.

use std::cell::{Cell, RefCell};

use super::{
    host,
    kit::{INJECTED, INNER},
    request::{FieldOf, State},
};
use crate::{
    Buf, Chain, Code, Request,
    filter::{BodyLink, HeaderLink},
    panic::enter,
    running::Hook,
};

/// What has reached the end.
#[derive(Default)]
pub(crate) struct End {
    /// The header as it was when it came here.
    pub(crate) head: RefCell<Option<Head>>,
    pub(crate) body: RefCell<Vec<u8>>,
    /// The header was accepted, but has not gone.
    header_waits: Cell<bool>,
    /// Accepted, but not gone.
    pending: RefCell<Chain>,
    pub(crate) unsent: Cell<u64>,
    /// How many bufs said that they were the last.
    pub(crate) last: Cell<u32>,
    /// Where in the body a flush came.
    pub(crate) flushes: RefCell<Vec<usize>>,
    /// When (in virtual milliseconds) how many bytes left.
    pub(crate) sent: RefCell<Vec<(u64, usize)>>,
    pub(crate) calls: Cell<u32>,
    /// At which call it panics.
    pub(crate) panic_at: Cell<Option<u32>>,
    /// From which call on it answers Error: the connection is broken.
    pub(crate) fail_at: Cell<Option<u32>>,
}

/// The header of a response.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) headers: Vec<FieldOf>,
    pub(crate) content_length: Option<u64>,
    pub(crate) allow_ranges: bool,
}

impl End {
    /// Whether something was accepted that has not left.
    pub(crate) fn is_pending(&self) -> bool {
        self.header_waits.get() || !self.pending.borrow().is_empty()
    }

    /// There is room: the header leaves. True if it had waited, and nothing else does.
    pub(crate) fn flush_header(&self) -> bool {
        self.header_waits.replace(false) && !self.is_pending()
    }

    /// Whether it answers Error.
    pub(crate) fn has_failed(&self) -> bool {
        self.fail_at.get().is_some_and(|at| self.calls.get() >= at)
    }

    fn count_call(&self) {
        self.calls.set(self.calls.get() + 1);
        if self.panic_at.get() == Some(self.calls.get()) {
            panic!("{INJECTED}");
        }
    }
}

/// The state behind the handle.
fn state<'a>(r: &Request<'a>) -> &'a State {
    // SAFETY: handles of the kit are made from a State that outlives the hook.
    unsafe { &*r.data().cast::<State>() }
}

pub(crate) unsafe extern "C" fn header(_: &HeaderLink, r: &mut Request<'_>) -> Code {
    let state = state(r);
    enter(r.cell(), INNER, Hook::HEADER_FILTER, || state.receive_header()).unwrap_or(Code::ERROR)
}

pub(crate) unsafe extern "C" fn body(_: &BodyLink, r: &mut Request<'_>, chain: Chain) -> Code {
    let state = state(r);
    enter(r.cell(), INNER, Hook::BODY_FILTER, || state.receive(chain)).unwrap_or(Code::ERROR)
}

impl State {
    /// What the end does when the request has failed: it takes nothing any more.
    fn refuses(&self) -> bool {
        self.end.count_call();
        if self.end.has_failed() {
            self.kit.fail_end();
        }
        self.end.has_failed() || self.kit.panicked()
    }

    fn receive_header(&self) -> Code {
        if self.refuses() {
            return Code::ERROR;
        }
        if self.header_sent.replace(true) {
            self.fault("the header was passed on twice");
        }
        let (status, content_length) = (self.status.get(), self.content_length.get());
        let allow_ranges = self.allow_ranges.get();
        let headers = self.headers_out.borrow().clone();
        *self.end.head.borrow_mut() = Some(Head { status, headers, content_length, allow_ranges });
        self.end.header_waits.set(self.one_in(3));
        if self.end.header_waits.get() { Code::AGAIN } else { Code::OK }
    }

    fn receive(&self, chain: Chain) -> Code {
        if self.refuses() {
            return Code::ERROR;
        }
        if !self.header_sent.get() {
            self.fault("a part of the body was passed on before the header");
        }
        let came = chain.len_bytes();
        let end = &self.end;
        end.pending.borrow_mut().append(chain);
        end.unsent.set(end.unsent.get() + came);
        if end.is_pending() && self.one_in(3) {
            return Code::AGAIN;
        }
        end.header_waits.set(false);
        loop {
            // The borrow ends before the buf is dropped, which may run code of the module.
            let next = end.pending.borrow_mut().pop();
            let Some(buf) = next else { break };
            self.consume(&buf);
        }
        end.unsent.set(0);
        Code::OK
    }

    /// A buf goes onto the wire.
    fn consume(&self, buf: &Buf) {
        let end = &self.end;
        if end.last.get() > 0 {
            match (buf.is_last(), buf.is_empty()) {
                (true, _) => self.fault("last_buf came twice"),
                (false, false) => self.fault("data came behind last_buf"),
                (false, true) => {}
            }
        }
        let mut body = end.body.borrow_mut();
        let before = body.len();
        match buf.file() {
            Some((file, pos, len)) => match host::read(file, pos, len) {
                Some(bytes) => body.extend_from_slice(&bytes),
                None => self.fault("a file buf reaches beyond the end of its file"),
            },
            None => body.extend_from_slice(buf.bytes()),
        }
        if body.len() > before {
            end.sent.borrow_mut().push((self.now.get(), body.len() - before));
        }
        if buf.is_flush() {
            end.flushes.borrow_mut().push(body.len());
        }
        if buf.is_last() {
            end.last.set(end.last.get() + 1);
        }
    }
}
