//! Output: from a handler through the header filters, or the body filters, to what is behind the last of them.
//!
//! ```text
//! send_header: header filters -> header_end
//! output:      copy (a file becomes memory, if a filter needs it) -> body filters -> body_end -> the connection
//! ```

use std::{rc::Rc, sync::Arc};

use topnext_module_api::{Buf, Bytes, Chain, Code};

use crate::{
    error_text::ErrorText,
    event::{Answer, Reply},
    log::error::Level,
    log_line,
    open_file::{NoWait, OpenFile},
    plugins::{link, services},
    request::{COPY_DONE, JOB_DONE, Request, Wait},
    status,
};

/// Memory that a response may have queued when its producer does not stop at Again.
const MAX_QUEUED: u64 = 32 * 1024 * 1024;

/// Runs the header filters.
pub fn send_header(r: &Rc<Request>) -> Code {
    if r.header_started.replace(true) {
        log_line!(Level::Alert, "*{} the header was sent before{}", r.conn.number, r.log_tail());
        return Code::ERROR;
    }
    if !r.conn.is_unread_body_good(r) {
        // The same way out as for an answer that a filter gives up.
        r.header_started.set(false);
        return Code::status(400);
    }
    if r.status.get() == 0 {
        r.status.set(200);
    }
    if let Some(extra) = r.extra.get()
        && extra.error.status.get() != 0
    {
        // The page of an error may be an answer without a body (304 of an upstream, say), whose length is of another one.
        if status::is_bodyless(r.status.get()) {
            r.content_length.set(Some(0));
        }
        r.status.set(extra.error.status.get());
    }
    let place = r.place();
    r.pinned.set(Some(place));
    let code = r.guarded(|| link::call_header_filters(r, place));
    if r.has_panicked() {
        return Code::ERROR;
    }
    if !r.header_sent.get() {
        // A filter gave the response up: another may be made in its place.
        r.header_started.set(false);
        r.pinned.set(None);
        r.allow_ranges.set(false);
    }
    code
}

/// The end of the header filters.
pub fn header_end(r: &Rc<Request>) -> Code {
    if r.has_panicked() {
        return Code::ERROR;
    }
    if r.header_sent.get() {
        log_line!(Level::Alert, "*{} a filter has passed the header on twice{}", r.conn.number, r.log_tail());
        return Code::ERROR;
    }
    let bodyless = status::is_bodyless(r.status.get());
    r.header_only.set(bodyless || r.is_head.get());
    if bodyless {
        r.content_length.set(None);
    }
    r.conn.write_header(r);
    r.header_sent.set(true);
    Code::OK
}

/// Runs the body filters.
pub fn output(r: &Rc<Request>, chain: Chain) -> Code {
    if r.has_panicked() || !r.header_sent.get() {
        if !r.header_sent.get() && !r.has_panicked() {
            log_line!(Level::Alert, "*{} a body before its header{}", r.conn.number, r.log_tail());
        }
        return Code::ERROR;
    }
    if r.last_in.get() && !chain.is_empty() {
        log_line!(Level::Alert, "*{} a body goes on behind its end{}", r.conn.number, r.log_tail());
        return Code::ERROR;
    }
    if chain.has_last() {
        r.last_in.set(true);
    }
    if r.header_only.get() {
        // No body goes out (HEAD, 204, 304): the filters are spared it (nginx: header_only).
        let last = chain.has_last();
        r.guarded(|| drop(chain));
        return if last { body_end(r, Chain::from(Buf::last())) } else { Code::OK };
    }
    if r.conn.unsent() > MAX_QUEUED {
        log_line!(Level::Alert, "*{} its producer does not stop at Again{}", r.conn.number, r.log_tail());
        return Code::ERROR;
    }
    if r.need_memory.get() && (r.is_copying() || chain.iter().any(Buf::in_file)) {
        r.extra().copy.borrow_mut().waiting.append(chain);
        return copy(r);
    }
    filter(r, chain)
}

/// The body filters proper.
fn filter(r: &Rc<Request>, chain: Chain) -> Code {
    let Some(place) = r.pinned.get() else { return Code::ERROR };
    let code = r.guarded(|| link::call_body_filters(r, place, chain));
    if r.has_panicked() { Code::ERROR } else { code }
}

/// Files that wait to be read into memory for the filters.
#[derive(Default)]
pub struct Copy {
    waiting: Chain,
    /// What the pool reads.
    reading: Option<Answer<Vec<u8>>>,
}

impl Copy {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.reading.is_none()
    }
}

/// Passes on what waits, as memory, until the client is slower than the disk: as much as output_buffers may wait.
fn copy(r: &Rc<Request>) -> Code {
    let buffers = r.place().core.output_buffers;
    let may_wait = buffers.size.saturating_mul(u64::from(buffers.number) - 1);
    let goes_on =
        |code| code == Code::OK || (code == Code::AGAIN && !is_filter_holding(r) && r.conn.unsent() <= may_wait);
    loop {
        if r.extra().copy.borrow().reading.is_some() {
            return Code::AGAIN;
        }
        let Some(mut buf) = r.extra().copy.borrow_mut().waiting.pop() else { return Code::OK };
        let Some((file, pos, len)) = buf.file() else {
            match filter(r, Chain::from(buf)) {
                code if goes_on(code) => continue,
                code => return code,
            }
        };
        let want = len.min(buffers.size) as usize;
        let Some(file) = services::bufs::share(file) else { return Code::ERROR };
        let mut data = vec![0; want];
        match file.read_nowait(pos, &mut data) {
            Ok(NoWait::Done(n)) => {
                data.truncate(n);
                match copied(r, &file, &mut buf, data) {
                    Ok(piece) => {
                        if !buf.is_empty() {
                            r.extra().copy.borrow_mut().waiting.push_front(buf);
                        }
                        match filter(r, Chain::from(piece)) {
                            code if goes_on(code) => continue,
                            code => return code,
                        }
                    }
                    Err(code) => return code,
                }
            }
            Ok(NoWait::WouldBlock) => {
                r.extra().copy.borrow_mut().waiting.push_front(buf);
                return read_on_pool(r, file, pos, want);
            }
            Err(error) => return read_failed(r, &file, &error),
        }
    }
}

/// The piece of memory in place of the start of a file buf; the flags go with the last piece.
fn copied(r: &Request, file: &OpenFile, buf: &mut Buf, data: Vec<u8>) -> Result<Buf, Code> {
    if data.is_empty() {
        let (left, name) = (buf.len(), file.name());
        let text = format!("\"{name}\": the file was truncated while it was sent: {left} bytes are missing");
        log_line!(Level::Alert, "*{} {text}{}", r.conn.number, r.log_tail());
        return Err(Code::ERROR);
    }
    buf.advance(data.len() as u64);
    let mut piece = Buf::from(Bytes::from(data));
    if buf.is_empty() {
        piece.set_last(buf.is_last());
        piece.set_flush(buf.is_flush());
        piece.set_last_in_chain(buf.is_last_in_chain());
    }
    Ok(piece)
}

#[cold]
fn read_failed(r: &Request, file: &OpenFile, error: &std::io::Error) -> Code {
    let (name, error) = (file.name(), ErrorText(error));
    log_line!(Level::Crit, "*{} read() \"{name}\" failed ({error}){}", r.conn.number, r.log_tail());
    Code::ERROR
}

fn read_on_pool(r: &Rc<Request>, file: Arc<OpenFile>, pos: u64, want: usize) -> Code {
    let reply = Reply::new(r.conn.lp.remote(), r.announce(), COPY_DONE | JOB_DONE);
    let read = move || {
        let mut data = vec![0; want];
        let n = file.read_blocking(pos, &mut data)?;
        data.truncate(n);
        Ok(data)
    };
    match Answer::ask(&r.site.pool, reply, read) {
        Ok(reading) => r.extra().copy.borrow_mut().reading = Some(reading),
        Err(error) => {
            log_line!(Level::Error, "*{} {}{}", r.conn.number, ErrorText(&error), r.log_tail());
            return Code::ERROR;
        }
    }
    r.extra().job_started();
    Code::AGAIN
}

/// The pool has read a piece.
pub fn copy_done(r: &Rc<Request>) {
    let Some(reading) = r.extra().copy.borrow_mut().reading.take() else { return };
    if r.wait.get() == Wait::Ended {
        return;
    }
    let read = reading.take();
    let Some(mut buf) = r.extra().copy.borrow_mut().waiting.pop() else { return };
    let Some(file) = buf.file().and_then(|(file, ..)| services::bufs::share(file)) else { return };
    let code = match read {
        Some(Ok(data)) => match copied(r, &file, &mut buf, data) {
            Ok(piece) => {
                if !buf.is_empty() {
                    r.extra().copy.borrow_mut().waiting.push_front(buf);
                }
                filter(r, Chain::from(piece))
            }
            Err(code) => code,
        },
        Some(Err(error)) => read_failed(r, &file, &error),
        None => Code::ERROR,
    };
    let code = if code == Code::OK { copy(r) } else { code };
    progress(r, code);
}

fn is_filter_holding(r: &Request) -> bool {
    r.holding.get() != 0
}

/// Whether a filter holds data, or a file waits to be read for the filters.
pub fn is_held(r: &Request) -> bool {
    r.holding.get() != 0 || r.is_copying()
}

/// There is room: every stage that waits goes on.
pub fn continue_all(r: &Rc<Request>) {
    if r.wait.get() == Wait::Ended || !r.header_sent.get() {
        return;
    }
    if r.holding.get() != 0 {
        let code = filter(r, Chain::new());
        if !matches!(code, Code::OK | Code::AGAIN) {
            return crate::finalize::finalize(r, Code::ERROR);
        }
    }
    if r.wait.get() == Wait::Ended || flush_beside_held(r) == Code::ERROR {
        return crate::finalize::client_closed(r);
    }
    if r.is_copying() && r.conn.unsent() == 0 && r.holding.get() == 0 {
        let code = copy(r);
        if !matches!(code, Code::OK | Code::AGAIN) {
            crate::finalize::finalize(r, Code::ERROR);
        }
    }
}

/// Writes what no filter holds. If all of that leaves at once, those that hold data learn in the next turn that there is
/// room, for no event will say so.
pub fn flush_beside_held(r: &Rc<Request>) -> Code {
    let waited = r.conn.unsent() > 0;
    let code = r.conn.flush_request(r);
    if waited && code == Code::OK && is_held(r) {
        r.conn.room_later();
    }
    code
}

/// A module's body filter was woken: it goes on with what it holds.
pub fn continue_filter(r: &Rc<Request>, module: u32) {
    if !r.header_sent.get() || r.bare.get() {
        return;
    }
    let Some(place) = r.pinned.get() else { return };
    let code = r.guarded(|| link::call_one_body_filter(r, place, module));
    let code = if r.has_panicked() { Code::ERROR } else { code };
    progress(r, code);
}

/// What comes after a stage has gone on by itself.
fn progress(r: &Rc<Request>, code: Code) {
    if !matches!(code, Code::OK | Code::AGAIN) {
        return crate::finalize::finalize(r, Code::ERROR);
    }
    match r.conn.flush_request(r) {
        Code::OK => crate::phases::room(r),
        Code::AGAIN => (),
        _ => crate::finalize::client_closed(r),
    }
}

/// The end of the body filters: framing, and the connection's queue.
pub fn body_end(r: &Rc<Request>, chain: Chain) -> Code {
    if r.has_panicked() {
        return Code::ERROR;
    }
    if chain.has_last() {
        r.last_out.set(true);
    }
    r.conn.write_body(r, chain)
}
