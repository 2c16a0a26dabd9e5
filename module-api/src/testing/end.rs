//! The end of the chains: what the host does with a response, here with a memory for the wire.

use std::cell::{Cell, RefCell};

use super::{
    host,
    request::{FieldOf, State},
};
use crate::{
    Buf, Chain, Code, Request,
    filter::{BodyLink, HeaderLink},
    panic::enter,
    running::Hook,
};

/// The slot of the kit's own inner filter, which panics when a test wants it to.
pub(crate) const INNER: u32 = 1000;

/// The text of that panic.
pub(crate) const INJECTED: &str = "injected by the kit";

/// What has reached the end.
#[derive(Default)]
pub(crate) struct End {
    /// The header as it was when it came here.
    pub(crate) head: RefCell<Option<Head>>,
    pub(crate) body: RefCell<Vec<u8>>,
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
}

/// The header of a response.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) headers: Vec<FieldOf>,
    pub(crate) content_length: Option<u64>,
}

impl End {
    /// Whether something was accepted that has not left.
    pub(crate) fn is_pending(&self) -> bool {
        !self.pending.borrow().is_empty()
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
    fn receive_header(&self) -> Code {
        self.end.count_call();
        if self.header_sent.replace(true) {
            self.fault("the header was passed on twice");
        }
        let (status, content_length) = (self.status.get(), self.content_length.get());
        let headers = self.headers_out.borrow().clone();
        *self.end.head.borrow_mut() = Some(Head { status, headers, content_length });
        Code::OK
    }

    fn receive(&self, chain: Chain) -> Code {
        if !self.header_sent.get() {
            self.fault("a part of the body was passed on before the header");
        }
        let came = chain.len_bytes();
        let end = &self.end;
        end.pending.borrow_mut().append(chain);
        end.unsent.set(end.unsent.get() + came);
        end.count_call();
        if end.is_pending() && self.one_in(3) {
            return Code::AGAIN;
        }
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
