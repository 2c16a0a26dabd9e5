//! Reads the bodies of requests, or past them.
//!
//! ```text
//! read_body --> pull_body <--- read_while_busy (more has come)
//!                 |   ^
//!    memory full  v   | body_done
//!               the pool writes to a temporary file; what comes meanwhile is read until memory is full again
//! ```
//!
//! Chunked bodies are decoded here; their trailers are checked and dropped by the decoder (`http1/chunked.rs`).

use std::rc::Rc;

use bytes::Bytes;
use topnext_module_api::{Code, running::Hook};

use super::{BODY_DONE, BODY_READ_SIZE, Http1, MAX_READS, State};
use crate::{
    config::InFileOnly,
    error_text::ErrorText,
    event::{Answer, Reply},
    finalize,
    http1::{BadRequest, ChunkedDecoder, Decoded, Framing},
    log::error::Level,
    log_line, phases,
    request::{Request, Wait, body::Done, wake_code},
    temp_file::TempFile,
};

/// The least client_body_buffer_size: less would only mean more system calls.
const MIN_BUFFER: u64 = 1024;

/// What is read at least, though memory is full: perhaps only the end of a chunked body is still to come.
const MIN_READ: u64 = 512;

/// The body that is being read.
pub(super) enum BodyReader {
    Nothing,
    Length(u64),
    /// Boxed, since few connections have one, and it is large.
    Chunked(Box<ChunkedDecoder>),
}

impl Http1 {
    /// Reads the whole body of the request: Ok, Again, or a status.
    pub fn read_body(self: &Rc<Self>, r: &Rc<Request>) -> Code {
        if r.extra.get().is_some_and(|extra| extra.body_refused.get()) {
            return Code::OK;
        }
        if r.body_complete.get() && r.extra.get().is_none() {
            return Code::OK;
        }
        if self.discarding.get() {
            let text = "its handler asks for the body after the response has begun: what came of it was discarded";
            log_line!(Level::Alert, "*{} {text}{}", self.number, r.log_tail());
            return Code::ERROR;
        }
        let (memory_max, received) = {
            let body = r.extra().body.borrow();
            (body.memory_max, body.received)
        };
        // The length of a chunked body is not known before it has come.
        let length = r.body_length().unwrap_or(received);
        if let Some(max) = memory_max.filter(|max| length > *max) {
            return self.too_large(r, length, max);
        }
        if r.body_complete.get() {
            return if r.is_body_to_be_loaded() { self.load(r) } else { Code::OK };
        }
        let first = {
            let body = &mut *r.extra().body.borrow_mut();
            body.wanted = true;
            !std::mem::replace(&mut body.asked, true)
        };
        if first && r.parts.borrow().head.facts().expect_continue && self.input.borrow().is_empty() {
            self.queue.borrow_mut().add_bytes(|out| out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n"));
            if self.flush(r).is_err() {
                return Code::ERROR;
            }
        }
        self.pull_body(r)
    }

    /// Takes what has come of the body: Ok when it is complete.
    fn pull_body(self: &Rc<Self>, r: &Rc<Request>) -> Code {
        let core = &r.place().core;
        let memory_max = r.extra().body.borrow().memory_max;
        let max = match core.client_max_body_size {
            0 => u64::MAX,
            max => max,
        };
        let max = max.min(memory_max.unwrap_or(u64::MAX));
        let buffer = if memory_max.is_some() { u64::MAX } else { core.client_body_buffer_size.max(MIN_BUFFER) };
        self.stop_read_timer();
        for _ in 0..MAX_READS {
            let complete = match self.decode_body(&mut |piece| r.extra().body.borrow_mut().add(&piece)) {
                Ok(complete) => complete,
                Err(bad) => {
                    log_line!(Level::Info, "*{} {bad}{}", self.number, r.log_tail());
                    self.refuse_body(r);
                    return Code::status(bad.status);
                }
            };
            let received = r.extra().body.borrow().received;
            if received > max {
                return self.too_large(r, received, max);
            }
            if complete {
                return self.body_received(r, buffer);
            }
            if r.extra().body.borrow().in_memory() > buffer {
                // The disk is slower than the client, who has to wait for it.
                if r.extra().body.borrow().is_at_work() {
                    return Code::AGAIN;
                }
                match self.spill(r) {
                    Code::AGAIN => (),
                    code => return code,
                }
            }
            let room = buffer.saturating_sub(r.extra().body.borrow().in_memory()).max(MIN_READ);
            match self.read(usize::try_from(room).unwrap_or(usize::MAX).min(BODY_READ_SIZE)) {
                Ok(0) if self.eof.get() => {
                    let text = "client prematurely closed connection while sending its body";
                    log_line!(Level::Info, "*{} {text}{}", self.number, r.log_tail());
                    return self.body_is_cut_short(r);
                }
                Ok(0) => {
                    self.release_input();
                    self.start_read_timer(core.client_body_timeout);
                    return Code::AGAIN;
                }
                Ok(_) => (),
                Err(error) => {
                    log_line!(Level::Info, "*{} recv() failed ({}){}", self.number, ErrorText(&error), r.log_tail());
                    return self.body_is_cut_short(r);
                }
            }
        }
        self.read_later();
        Code::AGAIN
    }

    fn body_is_cut_short(&self, r: &Request) -> Code {
        r.extra().body.borrow_mut().cut_short = true;
        self.keep.set(false);
        Code::status(finalize::CLIENT_CLOSED)
    }

    #[cold]
    fn too_large(&self, r: &Request, bytes: u64, max: u64) -> Code {
        let text = "client intended to send too large body";
        log_line!(Level::Error, "*{} {text}: {bytes} bytes, of at most {max}{}", self.number, r.log_tail());
        self.refuse_body(r);
        Code::status(413)
    }

    /// The rest of the body is not read, so that another request cannot follow. The handler of an error page does not wait
    /// for it in vain.
    fn refuse_body(&self, r: &Request) {
        self.keep.set(false);
        let extra = r.extra();
        if r.body_complete.get() {
            // It is too large for one handler only.
            extra.body.borrow_mut().memory_max = None;
            return;
        }
        extra.body_refused.set(true);
        extra.body.borrow_mut().give_up();
        self.stop_read_timer();
    }

    /// All has come. What has to be in a file is written to it.
    fn body_received(self: &Rc<Self>, r: &Rc<Request>, buffer: u64) -> Code {
        let to_be_written = {
            let body = r.extra().body.borrow();
            if body.is_at_work() {
                return Code::AGAIN;
            }
            let only = r.place().core.client_body_in_file_only != InFileOnly::Off && body.memory_max.is_none();
            let fits = body.in_memory() <= buffer;
            if body.spills() { body.in_memory() > 0 } else { only || !fits }
        };
        if to_be_written {
            return self.spill(r);
        }
        let ended = r.extra().body.borrow_mut().end();
        match ended {
            Ok(()) => {
                r.body_complete.set(true);
                Code::OK
            }
            Err(error) => self.disk_failed(r, &error),
        }
    }

    /// Has the pool write what is in memory to the temporary file.
    fn spill(self: &Rc<Self>, r: &Rc<Request>) -> Code {
        if !r.extra().body.borrow().spills() {
            let text = "a client request body is buffered to a temporary file";
            log_line!(Level::Warn, "*{} {text}{}", self.number, r.log_tail());
        }
        let (file, pieces) = r.extra().body.borrow_mut().begin_writing();
        let core = &r.place().core;
        let write = move || {
            let mut file = match file {
                Some(file) => file,
                None => TempFile::create(&core.client_body_temp_path, core.client_body_in_file_only)?,
            };
            file.write(&pieces)?;
            Ok(Done::Written(file))
        };
        self.offload(r, write)
    }

    /// Has the pool read a body that is in a file into memory: a handler asks for it.
    fn load(self: &Rc<Self>, r: &Rc<Request>) -> Code {
        let Some((file, len)) = r.extra().body.borrow().begin_loading() else { return Code::OK };
        let read = move || {
            let mut bytes = vec![0; usize::try_from(len).map_err(|_| std::io::ErrorKind::OutOfMemory)?];
            let mut at = 0;
            while at < bytes.len() {
                match file.read_blocking(at as u64, &mut bytes[at..])? {
                    0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                    n => at += n,
                }
            }
            Ok(Done::Loaded(Bytes::from(bytes)))
        };
        r.body_complete.set(false);
        r.extra().body.borrow_mut().wanted = true;
        self.offload(r, read)
    }

    fn offload(self: &Rc<Self>, r: &Request, job: impl FnOnce() -> std::io::Result<Done> + Send + 'static) -> Code {
        match Answer::ask(&r.site.pool, Reply::new(self.lp.remote(), self.announce(), BODY_DONE), job) {
            Ok(answer) => {
                r.extra().body.borrow_mut().begin_job(answer);
                Code::AGAIN
            }
            Err(error) => self.disk_failed(r, &error),
        }
    }

    #[cold]
    fn disk_failed(&self, r: &Request, error: &std::io::Error) -> Code {
        let folder = r.place().core.client_body_temp_path.path.display();
        let text = "a client request body cannot be kept in a temporary file";
        log_line!(Level::Crit, "*{} {text} in \"{folder}\" ({}){}", self.number, ErrorText(error), r.log_tail());
        self.refuse_body(r);
        Code::status(500)
    }

    /// The pool has written a part of the body, or has read it.
    pub(super) fn body_done(self: &Rc<Self>) {
        let Some(r) = self.request.borrow().clone() else { return };
        let done = r.extra().body.borrow_mut().job_done();
        // Without a result it was the job of an earlier request.
        let Some(done) = done.filter(|_| r.is_body_awaited()) else { return };
        let code = match done {
            Ok(()) => self.pull_body(&r),
            Err(error) => self.disk_failed(&r, &error),
        };
        self.body_has(&r, code);
    }

    /// No handler waits for the body any more.
    pub fn stop_reading_body(&self, r: &Request) {
        if r.is_body_awaited() {
            self.stop_read_timer();
            r.extra().body.borrow_mut().wanted = false;
        }
    }

    /// Decodes what is in the input: true when the body is complete.
    pub(super) fn decode_body(&self, out: &mut impl FnMut(Bytes)) -> Result<bool, BadRequest> {
        let input = &mut *self.input.borrow_mut();
        let reader = &mut *self.reader.borrow_mut();
        match reader {
            BodyReader::Nothing => Ok(true),
            BodyReader::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                if take > 0 {
                    *left -= take as u64;
                    out(input.split_to(take).freeze());
                }
                Ok(*left == 0)
            }
            BodyReader::Chunked(decoder) => {
                let complete = decoder.decode(input, out)? == Decoded::Done;
                if complete {
                    // Nothing more is expected, and an idle connection keeps no decoder.
                    *reader = BodyReader::Nothing;
                }
                Ok(complete)
            }
        }
    }

    /// The client sends while its request runs: the body if it is wanted; else only its end is of interest.
    pub(super) fn read_while_busy(self: &Rc<Self>) {
        let Some(r) = self.request.borrow().clone() else { return };
        if r.is_body_awaited() {
            let code = self.pull_body(&r);
            return self.body_has(&r, code);
        }
        if self.discarding.get() && !r.body_complete.get() {
            return self.discard_while_busy(&r);
        }
        // nginx (proxy_ignore_client_abort off): nobody waits for the answer any more. Where no peer works for it, it goes to a
        // client that has only closed its side, as a response does that is complete.
        let nobody_waits = match r.wait.get() {
            Wait::Upstream => self.client_closed(),
            Wait::Handler | Wait::HandlerOrRoom => self.is_reset(),
            _ => false,
        };
        if nobody_waits {
            finalize::client_closed(&r);
        }
    }

    /// What has come of reading the body.
    fn body_has(self: &Rc<Self>, r: &Rc<Request>, code: Code) {
        match code {
            Code::AGAIN => (),
            Code::OK => phases::wake(r, wake_code(0, Hook::HANDLER)),
            code if code == Code::status(finalize::CLIENT_CLOSED) => finalize::client_closed(r),
            code => finalize::finalize(r, code),
        }
    }

    /// Whether what has come of a body that no handler has asked for is a chunked body at all (nginx parses it in
    /// ngx_http_discard_request_body). The bytes stay: a handler may still ask. Asked before a response begins, which can
    /// then be 400; after a false answer the body counts as read, and the connection is not kept.
    pub fn is_unread_body_good(&self, r: &Request) -> bool {
        if r.framing != Framing::Chunked || r.body_complete.get() || r.is_body_asked() {
            return true;
        }
        let checked = match &*self.reader.borrow() {
            BodyReader::Chunked(decoder) => decoder.clone().decode(&mut self.input.borrow().clone(), &mut drop),
            _ => return true,
        };
        let Err(bad) = checked else { return true };
        log_line!(Level::Info, "*{} {bad}{}", self.number, r.log_tail());
        self.keep.set(false);
        r.body_complete.set(true);
        false
    }

    /// The response waits for the client, who may be sending a body that no handler wants before it reads: it is read past
    /// (nginx: ngx_http_discard_request_body), or both would wait for ever.
    pub(super) fn begin_discarding(self: &Rc<Self>, r: &Request) {
        let wanted = r.is_body_wanted() && r.wait.get() != Wait::Flush;
        if r.body_complete.get() || wanted || !r.header_sent.get() || self.discarding.replace(true) {
            return;
        }
        if self.readable.get() || !self.input.borrow().is_empty() {
            self.read_later();
        }
    }

    fn discard_while_busy(self: &Rc<Self>, r: &Rc<Request>) {
        for _ in 0..MAX_READS {
            let ended = match self.decode_body(&mut drop) {
                Ok(true) => true,
                Ok(false) => match self.read(BODY_READ_SIZE) {
                    Ok(0) if !self.eof.get() => return self.release_input(),
                    Ok(1..) => continue,
                    // The end, or an error, which the writing will meet as well.
                    _ => {
                        self.keep.set(false);
                        true
                    }
                },
                Err(bad) => {
                    log_line!(Level::Info, "*{} {bad}{}", self.number, r.log_tail());
                    self.keep.set(false);
                    true
                }
            };
            if ended {
                return r.body_complete.set(true);
            }
        }
        if self.state.get() == State::Busy {
            self.read_later();
        }
    }
}
