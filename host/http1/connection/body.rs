//! Reads the bodies of requests.

use std::rc::Rc;

use topnext_module_api::{Code, running::Hook};

use super::{BODY_READ_SIZE, Http1, MAX_READS, State};
use crate::{
    finalize,
    http1::{BadRequest, ChunkedDecoder, Decoded},
    log::error::Level,
    log_line, phases,
    request::{Request, Wait, wake_code},
};

/// Bodies are kept in memory, and this is the most of one that is, whatever client_max_body_size says.
const MAX_BODY: u64 = 64 * 1024 * 1024;

/// The body that is being read.
pub(super) enum BodyReader {
    Nothing,
    Length(u64),
    Chunked(ChunkedDecoder),
}
impl Http1 {
    /// Reads the whole body of the request into memory: Ok, Again, or a status.
    pub fn read_body(self: &Rc<Self>, r: &Rc<Request>) -> Code {
        if r.body_complete.get() {
            return Code::OK;
        }
        let first = !std::mem::replace(&mut r.extra().body.borrow_mut().wanted, true);
        if first && r.parts.borrow().head.facts().expect_continue && self.input.borrow().is_empty() {
            self.queue.borrow_mut().add_bytes(|out| out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n"));
            if self.flush(r).is_err() {
                return Code::ERROR;
            }
        }
        let code = self.pull_body(r);
        if code == Code::AGAIN {
            self.start_read_timer(r.place().core.client_body_timeout);
        } else {
            self.stop_read_timer();
        }
        code
    }

    /// Takes what has come of the body: Ok when it is complete.
    fn pull_body(self: &Rc<Self>, r: &Rc<Request>) -> Code {
        let max = match r.place().core.client_max_body_size {
            0 => MAX_BODY,
            max => max.min(MAX_BODY),
        };
        for _ in 0..MAX_READS {
            match self.decode_body(&mut |piece| r.extra().body.borrow_mut().add(&piece)) {
                Ok(true) => {
                    r.extra().body.borrow_mut().end();
                    r.body_complete.set(true);
                    return Code::OK;
                }
                Ok(false) => (),
                Err(bad) => {
                    log_line!(Level::Info, "*{} {bad}{}", self.number, r.log_tail());
                    self.keep.set(false);
                    return Code::status(bad.status);
                }
            }
            let received = r.extra().body.borrow().received;
            if received > max {
                log_line!(
                    Level::Error,
                    "*{} client intended to send too large body: {received} bytes so far, at most {max} are kept{}",
                    self.number,
                    r.log_tail()
                );
                self.keep.set(false);
                return Code::status(413);
            }
            match self.read(BODY_READ_SIZE) {
                Ok(0) if self.eof.get() => {
                    self.keep.set(false);
                    return Code::status(finalize::CLIENT_CLOSED);
                }
                Ok(0) => return Code::AGAIN,
                Ok(_) => (),
                Err(error) => {
                    log_line!(Level::Info, "*{} recv() failed ({error}){}", self.number, r.log_tail());
                    self.keep.set(false);
                    return Code::status(finalize::CLIENT_CLOSED);
                }
            }
        }
        self.read_later();
        Code::AGAIN
    }

    /// No handler waits for the body any more.
    pub fn stop_reading_body(&self) {
        if self.state.get() == State::Busy {
            self.stop_read_timer();
        }
    }

    /// Decodes what is in the input: true when the body is complete.
    pub(super) fn decode_body(&self, out: &mut impl FnMut(bytes::Bytes)) -> Result<bool, BadRequest> {
        let input = &mut *self.input.borrow_mut();
        match &mut *self.reader.borrow_mut() {
            BodyReader::Nothing => Ok(true),
            BodyReader::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                if take > 0 {
                    *left -= take as u64;
                    out(input.split_to(take).freeze());
                }
                Ok(*left == 0)
            }
            BodyReader::Chunked(decoder) => Ok(decoder.decode(input, out)? == Decoded::Done),
        }
    }

    /// The client sends while its request runs: the body if it is wanted; else only its end is of interest.
    pub(super) fn read_while_busy(self: &Rc<Self>) {
        let Some(r) = self.request.borrow().clone() else { return };
        if r.is_body_awaited() {
            match self.pull_body(&r) {
                Code::AGAIN => self.start_read_timer(r.place().core.client_body_timeout),
                Code::OK => {
                    self.stop_read_timer();
                    phases::wake(&r, wake_code(0, Hook::HANDLER));
                }
                code if code == Code::status(finalize::CLIENT_CLOSED) => finalize::client_closed(&r),
                code => finalize::finalize(&r, code),
            }
        } else if self.read_closed.get() && matches!(r.wait.get(), Wait::Upstream | Wait::Handler | Wait::HandlerOrRoom)
        {
            // nginx (proxy_ignore_client_abort off): nobody waits for the answer any more.
            finalize::client_closed(&r);
        }
    }
}
