//! Writes responses.

use std::{io, rc::Rc, sync::Arc};

use topnext_module_api::{Chain, Code};

use super::{DISK_DONE, Http1, SEND_TIMER};
use crate::{
    clock,
    error_text::ErrorText,
    event::Reply,
    finalize,
    http1::{encode_chunk_head, response},
    log::error::Level,
    log_line,
    open_file::OpenFile,
    phases,
    request::Request,
    write::{Flushed, Sending},
};

impl Http1 {
    /// Queues the header of the response.
    pub fn write_header(&self, r: &Request) {
        let length = r.content_length.get();
        let http11 = r.parts.borrow().head.minor() >= 1 || r.parts.borrow().bytes.is_empty();
        let core = &r.place().core;
        // Where no body is sent, none needs an end, not even in HEAD's answer (nginx: the chunked filter).
        let must_say_end = length.is_none() && !r.header_only.get();
        r.chunked.set(must_say_end && http11 && core.chunked_transfer_encoding);
        if must_say_end && !r.chunked.get() {
            self.keep.set(false);
        }
        self.set_nodelay(core.tcp_nodelay);
        if self.keep.get() && !self.may_be_kept(r, core) {
            self.keep.set(false);
        }
        // The client waits for 100 with its body, if it has one. Whether it sends that behind another answer is not known,
        // nor what it sends then: a body or a request.
        let waits = r.parts.borrow().head.facts().expect_continue && !r.is_body_asked() && !r.body_complete.get();
        if waits && self.input.borrow().is_empty() {
            self.keep.set(false);
        }
        let queue = &mut *self.queue.borrow_mut();
        queue.add_bytes(|out| {
            let parts = r.parts.borrow();
            let head = response::HeadOut {
                status: r.status.get(),
                tokens: core.server_tokens,
                length,
                chunked: r.chunked.get(),
                keep: self.keep.get(),
                keep_for: core.keepalive_header,
                http11,
            };
            r.connection_sent.set(head.connection());
            response::write_head(out, &head, &parts.headers_out, &parts.pool);
        });
        r.header_size.set(queue.written() + queue.bytes());
        r.header_second.set(clock::second());
        r.header_sent.set(true);
    }

    /// Queues a part of the body, and writes if it is time to.
    pub fn write_body(self: &Rc<Self>, r: &Rc<Request>, chain: Chain) -> Code {
        let mut push = chain.is_empty();
        let mut bytes = 0;
        for buf in &chain {
            push |= buf.is_last() || buf.is_flush();
            bytes += buf.len();
        }
        let last = chain.has_last();
        if r.header_only.get() {
            drop(chain);
        } else if let Err(error) = self.queue_body(r, chain, bytes, last) {
            log_line!(Level::Alert, "*{} {}{}", self.number, ErrorText(&error), r.log_tail());
            // What the client was told cannot be kept, whatever the modules answer.
            r.failed.set(true);
            return Code::ERROR;
        }
        if r.has_panicked() {
            // The release of a buf: nothing more of this response leaves.
            return Code::ERROR;
        }
        if !push && self.queue.borrow().bytes() < r.place().core.postpone_output {
            return Code::OK;
        }
        self.flush_request(r)
    }

    fn queue_body(&self, r: &Request, chain: Chain, bytes: u64, last: bool) -> io::Result<()> {
        let sent = r.body_sent.get() + bytes;
        if let Some(length) = r.content_length.get()
            && (sent > length || (last && sent < length))
        {
            return Err(io::Error::other(format!("a module announced {length} bytes of body and has sent {sent}")));
        }
        r.body_sent.set(sent);
        let mut done = Chain::new();
        let result = {
            let queue = &mut *self.queue.borrow_mut();
            let chunked = r.chunked.get();
            if chunked && bytes > 0 {
                queue.add_bytes(|out| out.extend_from_slice(encode_chunk_head(bytes, &mut [0; 18])));
            }
            let result = chain.into_iter().try_for_each(|buf| queue.add_buf(buf, &mut done));
            if chunked && bytes > 0 {
                queue.add_bytes(|out| out.extend_from_slice(b"\r\n"));
            }
            if chunked && last {
                queue.add_bytes(|out| out.extend_from_slice(b"0\r\n\r\n"));
            }
            result
        };
        if !done.is_empty() {
            r.guarded(|| drop(done));
        }
        result
    }

    /// Bytes that wait to be sent.
    pub fn unsent(&self) -> u64 {
        self.queue.borrow().bytes()
    }

    /// Writes what waits: Ok if all has left, Again, or Error.
    pub fn flush_request(self: &Rc<Self>, r: &Rc<Request>) -> Code {
        match self.flush(r) {
            Ok(true) => Code::OK,
            Ok(false) => Code::AGAIN,
            Err(error) => {
                let level = match error.kind() {
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Level::Info,
                    _ => Level::Error,
                };
                log_line!(level, "*{} send() failed ({}){}", self.number, ErrorText(&error), r.log_tail());
                match error.raw_os_error() {
                    Some(_) => self.broken.set(true),
                    // Of a file, or of the server: the client is not to blame.
                    None => r.failed.set(true),
                }
                Code::ERROR
            }
        }
    }

    /// True if all has left.
    pub(super) fn flush(self: &Rc<Self>, r: &Rc<Request>) -> io::Result<bool> {
        if self.queue.borrow().is_empty() {
            return Ok(true);
        }
        if self.disk.get() > 0 {
            return Ok(false);
        }
        let mut done = Chain::new();
        let (result, progress) = {
            let queue = &mut *self.queue.borrow_mut();
            let before = queue.written();
            let core = &r.place().core;
            let how = Sending {
                sendfile: core.sendfile,
                max_chunk: core.sendfile_max_chunk,
                buffer: core.output_buffers.size,
                now_ms: self.lp.now_ms(),
            };
            let result = queue.flush(&self.socket, &how, &mut done);
            (result, queue.written() > before)
        };
        if !done.is_empty() {
            // The memory goes back to whoever made it: code of modules.
            r.guarded(|| drop(done));
        }
        match result? {
            Flushed::Done => {
                self.stop_send_timer();
                Ok(true)
            }
            Flushed::Blocked => {
                self.begin_discarding(r);
                if progress || !self.send_timer.get().is_some_and(|timer| self.lp.timer_runs(timer)) {
                    self.start_send_timer(r);
                }
                Ok(false)
            }
            Flushed::More => {
                self.start_send_timer(r);
                if !self.more.replace(true) {
                    self.lp.post_later(self.clone());
                }
                Ok(false)
            }
            Flushed::Disk(file, pos, len) => {
                // It is not the client that is slow now.
                self.stop_send_timer();
                self.read_ahead(r, file, pos, len).map(|()| false)
            }
        }
    }

    /// Most connections never wait for their clients, and have no such timer.
    fn start_send_timer(self: &Rc<Self>, r: &Request) {
        let timer = self.send_timer.get().unwrap_or_else(|| self.lp.add_timer(self.clone(), SEND_TIMER));
        self.send_timer.set(Some(timer));
        self.lp.start_timer(timer, r.place().core.send_timeout);
    }

    fn stop_send_timer(&self) {
        if let Some(timer) = self.send_timer.get() {
            self.lp.stop_timer(timer);
        }
    }

    /// Has the pool read a part of a file into the page cache, so that sendfile does not wait for the disk.
    fn read_ahead(self: &Rc<Self>, r: &Request, file: Arc<OpenFile>, pos: u64, len: u64) -> io::Result<()> {
        file.load_on(&r.site.pool, pos, len, Reply::new(self.lp.remote(), self.announce(), DISK_DONE))?;
        self.disk.set(len);
        Ok(())
    }

    pub(super) fn on_writable(self: &Rc<Self>) {
        let Some(r) = self.request.borrow().clone() else { return };
        if self.queue.borrow().is_empty() || !r.header_sent.get() {
            return;
        }
        match self.flush_request(&r) {
            Code::OK => phases::room(&r),
            Code::AGAIN => (),
            _ => finalize::client_closed(&r),
        }
    }
}
