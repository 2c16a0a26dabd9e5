//! Upstreams: a location hands its requests to a peer, by a protocol of a module, chosen by balancers.
//!
//! The order of calls for one request, as nginx has it:
//!
//! ```text
//! start:    the client's body is read; create_request
//! connect:  balancers get a peer; a kept connection or a new one        <-----------------+
//! send:     the request                                                                   |
//! read:     process_header until it is complete                         -- failed: next --+  reinit_request
//! body:     input_filter_init, then input_filter -> the filters; a slow client stops the reading
//! end:      finalize_request; the connection is kept or closed; balancers free the peer
//! ```

pub mod attempts;

pub mod names;

pub mod peers;

pub mod registry;

mod socket;

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use topnext_module_api::{Buf, Chain, Code, Outcome};

use crate::{
    error_text::ErrorText,
    event::{Ready, Reply, Room, Source, TimerId, remote::Announcement},
    finalize,
    http1::Method,
    log::error::Level,
    log_line,
    open_file::OpenFile,
    output,
    plugins::{link::Balancers, services::selections::Choice},
    request::{Request, Wait},
    site::Place,
    stats,
    write::{Flushed, Sending, WriteQueue},
};
use attempts::Attempt;
use peers::{Keepalive, Peers};
use registry::Target;
use socket::{READ_SIZE, Socket};

/// Reads after which other events get their turn.
const MAX_READS: usize = 16;
/// Bytes that may wait for the client before the peer is not read any more.
const MAX_UNSENT: u64 = 256 * 1024;
/// In a posted code: the pool has read the part of a file with the number in the other bits.
const READ_AHEAD: u64 = 1 << 63;
/// Bytes of a request's body that are read from its file at once, without sendfile.
const FILE_READ: u64 = 32 * 1024;

/// An upstream of the configuration.
pub struct Upstream {
    /// Its name, or the address that implied it.
    pub name: String,
    /// Its peers.
    pub peers: Arc<Peers>,
    /// Who chooses among them.
    pub balancers: Balancers,
    /// Kept connections.
    pub keepalive: Keepalive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Sending,
    Header,
    Body,
    Done,
}

/// The exchange of one request with its upstream.
pub struct Exchange {
    r: Rc<Request>,
    place: &'static Place,
    upstream: &'static Upstream,
    target: &'static Target,
    choice: Choice,
    peer: Cell<Option<usize>>,
    socket: RefCell<Option<Socket>>,
    state: Cell<State>,
    /// The request as the protocol made it, to be sent again if need be.
    request: RefCell<Chain>,
    queue: RefCell<WriteQueue>,
    request_sent: Cell<bool>,
    input: RefCell<BytesMut>,
    /// The peer has closed.
    eof: Cell<bool>,
    keep: Cell<bool>,
    /// The client is slower than the peer.
    paused: Cell<bool>,
    /// The header has passed the filters, and may leave together with the start of the body if that is there.
    header_waits: Cell<bool>,
    /// Whether a peer has been asked.
    attempted: Cell<bool>,
    /// Peers that may still be tried.
    tries: Cell<usize>,
    /// Fields of the response that were there before a peer answered.
    fields_before: usize,
    timer: Cell<Option<TimerId>>,
    /// The pool is reading a part of a file of the request, this long.
    reading_ahead: Cell<bool>,
    ahead_len: Cell<u64>,
    /// Which part, so that an answer that comes too late is known.
    ahead: Cell<u64>,
    remote_id: Announcement,
}

/// Why an exchange with a peer ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Error,
    Timeout,
    InvalidHeader,
}

/// Hands a request to its upstream. Called again when the client's body has been read.
pub fn start(r: &Rc<Request>) {
    match r.conn.read_body(r) {
        Code::OK => (),
        Code::AGAIN => return r.wait.set(Wait::Handler),
        code if code == Code::status(finalize::CLIENT_CLOSED) => return finalize::client_closed(r),
        code => return finalize::finalize(r, code),
    }
    if r.conn.client_closed() {
        return finalize::client_closed(r);
    }
    let place = r.place();
    let Some(protocol) = &place.upstream else { return finalize::finalize(r, Code::ERROR) };
    let target = r.site.targets.get(r.guarded(|| protocol.upstream()) as usize);
    let upstream = target.and_then(|target| r.site.upstreams.get(target.upstream));
    let (Some(target), Some(upstream)) = (target, upstream) else {
        log_line!(Level::Alert, "*{} its module names no upstream{}", r.conn.number, r.log_tail());
        return finalize::finalize(r, Code::ERROR);
    };
    let (code, request) = protocol.create_request(r);
    if code != Code::OK || r.failed.get() {
        r.guarded(|| drop(request));
        return finalize::finalize(r, if code == Code::OK { Code::ERROR } else { code });
    }
    let choice = Choice::new(upstream.peers.clone(), r.conn.remote_ip(), stats::now_ms());
    let exchange = Rc::new(Exchange {
        r: r.clone(),
        place,
        target,
        choice,
        peer: Cell::new(None),
        socket: RefCell::new(None),
        state: Cell::new(State::Connecting),
        request: RefCell::new(request),
        queue: RefCell::default(),
        request_sent: Cell::new(false),
        input: RefCell::new(BytesMut::new()),
        eof: Cell::new(false),
        keep: Cell::new(false),
        paused: Cell::new(false),
        header_waits: Cell::new(false),
        attempted: Cell::new(false),
        tries: Cell::new(upstream.peers.list.iter().filter(|peer| !peer.down).count()),
        fields_before: r.parts.borrow().headers_out.fields().len(),
        timer: Cell::new(None),
        reading_ahead: Cell::new(false),
        ahead_len: Cell::new(0),
        ahead: Cell::new(0),
        remote_id: Announcement::default(),
        upstream,
    });
    exchange.timer.set(Some(r.conn.lp.add_timer(exchange.clone(), 0)));
    r.extra().upstream.replace(Some(exchange.clone()));
    r.wait.set(Wait::Upstream);
    if r.guarded(|| exchange.upstream.balancers.init_peer(&exchange.choice)) != Code::OK {
        return exchange.give_up(500);
    }
    exchange.connect();
}

/// The protocol says whether the connection may be kept.
pub fn set_keepalive(r: &Request, keep: bool) {
    if let Some(exchange) = r.exchange() {
        exchange.keep.set(keep);
    }
}

/// The client has room again.
pub fn room(r: &Rc<Request>) {
    if let Some(exchange) = r.exchange()
        && exchange.paused.get()
        && exchange.state.get() == State::Body
        && r.conn.unsent() == 0
        && r.holding.get() == 0
    {
        exchange.paused.set(false);
        exchange.start_timer(exchange.target.wanted.read_timeout);
        exchange.read_body();
    }
}

/// The request ends before its upstream is done.
pub fn detach(r: &Rc<Request>) {
    if let Some(exchange) = r.exchange()
        && exchange.state.get() != State::Done
    {
        if let Some(protocol) = &exchange.place.upstream {
            protocol.abort_request(r);
        }
        exchange.end(Code::status(finalize::CLIENT_CLOSED), Outcome::Unknown);
    }
}

impl Exchange {
    /// The address of the peer, and while there is none the name of the upstream, for logs.
    pub fn peer_name(&self) -> &str {
        let peer = self.peer.get().and_then(|peer| self.upstream.peers.list.get(peer));
        peer.map_or(&self.upstream.name, |peer| &peer.name)
    }

    // ---- what is told of it in logs

    fn begin_attempt(&self, peer: &'static str) {
        let is_first = !self.attempted.replace(true);
        let attempt = Attempt::new(peer, is_first, self.r.conn.lp.now_ms());
        self.r.extra().attempts.borrow_mut().push(attempt);
    }

    fn note(&self, what: impl FnOnce(&mut Attempt, u64)) {
        if let Some(attempt) = self.r.extra().attempts.borrow_mut().last_mut().filter(|_| self.attempted.get()) {
            what(attempt, self.r.conn.lp.now_ms());
        }
    }

    fn end_attempt(&self, failed: Option<u16>) {
        let sent = self.queue.borrow().written();
        self.note(|attempt, now| attempt.end(failed, sent, now));
    }

    // ---- its timer

    fn start_timer(&self, time: Duration) {
        if let Some(timer) = self.timer.get() {
            self.r.conn.lp.start_timer(timer, time);
        }
    }

    fn stop_timer(&self) {
        if let Some(timer) = self.timer.get() {
            self.r.conn.lp.stop_timer(timer);
        }
    }

    // ---- connect

    fn connect(self: &Rc<Self>) {
        let lp = &self.r.conn.lp;
        if lp.room() == Room::Full {
            let (max, number) = (lp.max_connections(), self.r.conn.number);
            let text = "worker_connections are not enough while connecting to upstream";
            log_line!(Level::Alert, "*{number} {max} {text}{}", self.r.log_tail());
            return self.give_up(500);
        }
        let now = stats::now_ms();
        self.choice.now_ms.set(now);
        let peer = loop {
            let chosen = self.r.guarded(|| self.upstream.balancers.get(&self.choice));
            if self.r.failed.get() {
                return self.give_up(500);
            }
            let Some(peer) = chosen.filter(|peer| self.choice.tried.borrow().get(*peer) == Some(&false)) else {
                log_line!(
                    Level::Error,
                    "*{} no live upstreams while connecting to upstream{}",
                    self.r.conn.number,
                    self.r.log_tail()
                );
                self.begin_attempt(&self.upstream.name);
                self.end_attempt(Some(502));
                return self.give_up(502);
            };
            self.choice.tried.borrow_mut()[peer] = true;
            if self.upstream.peers.list[peer].begin(now) {
                break peer;
            }
            // Another thread was faster and has its last connection (max_conns).
            self.r.guarded(|| self.upstream.balancers.free(&self.choice, peer, Outcome::Unknown));
        };
        let upstream: &'static Upstream = self.upstream;
        self.begin_attempt(&upstream.peers.list[peer].name);
        self.peer.set(Some(peer));
        self.keep.set(false);
        self.eof.set(false);
        self.request_sent.set(false);
        self.input.borrow_mut().clear();
        self.state.set(State::Connecting);
        let socket = match self.upstream.keepalive.take(peer, now) {
            Some(idle) => Socket::kept(idle, self),
            None => Socket::connect(&self.upstream.peers.list[peer].address, self),
        };
        match socket {
            Ok(socket) => {
                let kept = socket.requests > 0;
                self.socket.replace(Some(socket));
                if let Err(error) = self.queue_request() {
                    return self.file_failed(&error);
                }
                if kept {
                    self.state.set(State::Sending);
                    self.start_timer(self.target.wanted.send_timeout);
                    self.send();
                } else {
                    self.start_timer(self.target.wanted.connect_timeout);
                }
            }
            Err(error) => self.connect_failed(&error),
        }
    }

    fn connect_failed(self: &Rc<Self>, error: &io::Error) {
        log_line!(
            Level::Error,
            "*{} connect() failed ({}) while connecting to upstream{}",
            self.r.conn.number,
            ErrorText(error),
            self.r.log_tail()
        );
        self.next(Failure::Error);
    }

    // ---- send

    /// Queues the request, from its start.
    fn queue_request(&self) -> io::Result<()> {
        let copy: Chain = self.request.borrow().iter().cloned().collect();
        self.reading_ahead.set(false);
        let (done, queued) = {
            let queue = &mut *self.queue.borrow_mut();
            let mut done = queue.clear();
            queue.begin_count();
            let queued = copy.into_iter().try_for_each(|buf| queue.add_buf(buf, &mut done));
            (done, queued)
        };
        self.r.guarded(|| drop(done));
        queued
    }

    /// The client's body, or another file of the request, cannot be read: no fault of the peer.
    fn file_failed(self: &Rc<Self>, error: &io::Error) {
        let text = "reading a file for the request to the upstream failed";
        log_line!(Level::Crit, "*{} {text} ({}){}", self.r.conn.number, ErrorText(error), self.r.log_tail());
        self.give_up(500);
    }

    /// How the request is sent.
    fn sending(&self) -> Sending {
        let core = &self.place.core;
        let now_ms = self.r.conn.lp.now_ms();
        Sending { sendfile: core.sendfile, max_chunk: core.sendfile_max_chunk, buffer: FILE_READ, now_ms }
    }

    /// Only before the header of the response is there: then nothing more is sent (nginx: preserve_output is off).
    /// False if the connection has failed.
    fn send(self: &Rc<Self>) -> bool {
        self.request_sent.set(true);
        self.note(Attempt::connected);
        if self.reading_ahead.get() {
            return true;
        }
        let mut done = Chain::new();
        let result = {
            let socket = self.socket.borrow();
            let Some(socket) = &*socket else { return false };
            self.queue.borrow_mut().flush(socket.stream(), &self.sending(), &mut done)
        };
        self.r.guarded(|| drop(done));
        match result {
            Ok(Flushed::Done) => {
                self.state.set(State::Header);
                self.start_timer(self.target.wanted.read_timeout);
                true
            }
            Ok(Flushed::Disk(file, pos, len)) => {
                // It is not the peer that is slow now.
                self.stop_timer();
                self.read_ahead(file, pos, len)
            }
            Ok(blocked) => {
                self.start_timer(self.target.wanted.send_timeout);
                if matches!(blocked, Flushed::More) {
                    self.r.conn.lp.post_later(self.clone());
                }
                true
            }
            Err(error) => {
                log_line!(
                    Level::Error,
                    "*{} send() failed ({}) while sending request to upstream{}",
                    self.r.conn.number,
                    ErrorText(&error),
                    self.r.log_tail()
                );
                self.next(Failure::Error);
                false
            }
        }
    }

    /// Has the pool read a part of a file into the page cache, so that sendfile does not wait for the disk. False if the
    /// exchange is over.
    fn read_ahead(self: &Rc<Self>, file: Arc<OpenFile>, pos: u64, len: u64) -> bool {
        // A connection that failed meanwhile does not wait for what this one did.
        self.ahead.set(self.ahead.get() + 1);
        let code = READ_AHEAD | self.ahead.get();
        let reply = Reply::new(self.r.conn.lp.remote(), self.remote_id.id(self), code);
        if let Err(error) = file.load_on(&self.r.site.pool, pos, len, reply) {
            self.file_failed(&error);
            return false;
        }
        self.reading_ahead.set(true);
        self.ahead_len.set(len);
        true
    }

    // ---- read

    /// Reads once, at most `size` bytes. `None` if there is nothing, or it is the end (`eof`).
    fn read<T>(&self, size: usize, take: impl FnOnce(&[u8]) -> T) -> io::Result<Option<T>> {
        let mut socket = self.socket.borrow_mut();
        let Some(socket) = socket.as_mut().filter(|_| !self.eof.get()) else { return Ok(None) };
        let result = socket.read(size, |bytes| {
            self.note(|attempt, _| attempt.received(bytes.len()));
            take(bytes)
        });
        self.eof.set(socket.at_end());
        result
    }

    fn read_header(self: &Rc<Self>) {
        let Some(protocol) = &self.place.upstream else { return };
        loop {
            let bound = self.target.wanted.buffer_size;
            let room = bound.saturating_sub(self.input.borrow().len());
            if room == 0 {
                log_line!(
                    Level::Error,
                    "*{} upstream sent too big header: it exceeds {bound} bytes{}",
                    self.r.conn.number,
                    self.r.log_tail()
                );
                return self.next(Failure::InvalidHeader);
            }
            match self.read(room, |bytes| self.input.borrow_mut().extend_from_slice(bytes)) {
                Ok(None) if self.eof.get() => {
                    log_line!(
                        Level::Error,
                        "*{} upstream prematurely closed connection while reading response header from upstream{}",
                        self.r.conn.number,
                        self.r.log_tail()
                    );
                    return self.next(Failure::Error);
                }
                Ok(None) => return,
                Ok(Some(())) => self.start_timer(self.target.wanted.read_timeout),
                Err(error) => {
                    log_line!(
                        Level::Error,
                        "*{} recv() failed ({}) while reading response header from upstream{}",
                        self.r.conn.number,
                        ErrorText(&error),
                        self.r.log_tail()
                    );
                    return self.next(Failure::Error);
                }
            }
            let head = self.input.borrow_mut().split().freeze();
            let (code, length) = protocol.process_header(&self.r, &head);
            if self.r.failed.get() {
                return self.give_up(500);
            }
            match code {
                Code::AGAIN => {
                    self.input.replace(BytesMut::from(head));
                }
                Code::OK if length <= head.len() => return self.header_done(head.slice(length..)),
                _ => return self.next(Failure::InvalidHeader),
            }
        }
    }

    fn header_done(self: &Rc<Self>, rest: Bytes) {
        let Some(protocol) = &self.place.upstream else { return };
        self.upstream_succeeded();
        self.note(|attempt, now| attempt.header_done(self.r.status.get(), rest.len(), now));
        self.state.set(State::Body);
        match output::send_header(&self.r) {
            Code::OK | Code::AGAIN => self.header_waits.set(true),
            code => return self.finish(code),
        }
        let code = protocol.input_filter_init(&self.r);
        if self.r.failed.get() || !matches!(code, Code::OK | Code::DONE) {
            return self.give_up(502);
        }
        if code == Code::DONE {
            if !rest.is_empty() {
                self.keep.set(false);
            }
            return self.complete();
        }
        if !rest.is_empty() && !self.filter(Chain::from(Buf::from(rest))) {
            return;
        }
        if self.r.header_only.get() {
            // A filter has made it a response without a body: the rest of the peer's is of no use to anybody.
            self.keep.set(false);
            return self.complete();
        }
        self.read_body();
    }

    fn upstream_succeeded(&self) {
        if let Some(peer) = self.peer.get() {
            self.upstream.peers.list[peer].succeed();
        }
    }

    fn read_body(self: &Rc<Self>) {
        for _ in 0..MAX_READS {
            if self.paused.get() || self.state.get() != State::Body {
                return;
            }
            match self.read(READ_SIZE, Bytes::copy_from_slice) {
                Ok(None) if self.eof.get() => {
                    let mut end = Chain::from(Buf::last());
                    if let Some(last) = end.first_mut() {
                        last.set_last(true);
                    }
                    if self.filter(end) {
                        self.truncated("upstream prematurely closed connection while reading upstream");
                    }
                    return;
                }
                Ok(None) => return self.flush_header(),
                Ok(Some(piece)) => {
                    self.start_timer(self.target.wanted.read_timeout);
                    if !self.filter(Chain::from(Buf::from(piece))) {
                        return;
                    }
                }
                Err(error) => {
                    return self.truncated(&format!("recv() failed ({}) while reading upstream", ErrorText(&error)));
                }
            }
        }
        // Others get their turn; what is left is read in the next one.
        self.r.conn.lp.post_later(self.clone());
    }

    /// There is no body yet: the client need not wait for the header.
    fn flush_header(self: &Rc<Self>) {
        if !self.header_waits.get() {
            return;
        }
        self.output(Chain::from(Buf::flush()));
    }

    /// Passes a part of the body through the protocol and the filters. False if the exchange is over, or pauses.
    fn filter(self: &Rc<Self>, input: Chain) -> bool {
        let Some(protocol) = &self.place.upstream else { return false };
        let (code, out) = protocol.input_filter(&self.r, input);
        if self.r.failed.get() || !matches!(code, Code::OK | Code::DONE) {
            self.truncated("the upstream's body is not valid");
            return false;
        }
        if code == Code::DONE {
            self.complete_with(out);
            return false;
        }
        if out.is_empty() {
            return true;
        }
        let mut out = out;
        if let Some(last) = out.last_mut() {
            // The client sees what the peer has sent, as soon as it is there.
            last.set_flush(true);
        }
        self.output(out)
    }

    /// Passes content through the filters. False if the exchange is over, or pauses.
    fn output(self: &Rc<Self>, out: Chain) -> bool {
        self.header_waits.set(false);
        match output::output(&self.r, out) {
            Code::OK => true,
            Code::AGAIN => {
                if self.r.conn.unsent() > MAX_UNSENT || output::is_held(&self.r) {
                    self.paused.set(true);
                    self.stop_timer();
                    if output::flush_beside_held(&self.r) == Code::ERROR {
                        finalize::client_closed(&self.r);
                    }
                    return false;
                }
                true
            }
            _ => {
                self.finish(Code::ERROR);
                false
            }
        }
    }

    // ---- end

    fn complete(self: &Rc<Self>) {
        self.complete_with(Chain::new());
    }

    /// The response is complete: the peer is free, and the client gets the end.
    fn complete_with(self: &Rc<Self>, mut out: Chain) {
        self.end(Code::OK, Outcome::Ok);
        out.push(Buf::last());
        let code = output::output(&self.r, out);
        finalize::finalize(&self.r, code);
    }

    fn finish(self: &Rc<Self>, code: Code) {
        self.end(code, Outcome::Unknown);
        finalize::finalize(&self.r, code);
    }

    /// The body ends before its end: the client must learn it. The peer has answered, so that this is no failure of it
    /// that counts (nginx: max_fails is about next_upstream, which ends with the header).
    fn truncated(self: &Rc<Self>, what: &str) {
        log_line!(Level::Error, "*{} {what}{}", self.r.conn.number, self.r.log_tail());
        self.end(Code::status(502), Outcome::Unknown);
        finalize::finalize(&self.r, Code::status(502));
    }

    fn give_up(self: &Rc<Self>, status: u16) {
        self.forget_header();
        self.end(Code::status(status), Outcome::Unknown);
        finalize::finalize(&self.r, Code::status(status));
    }

    /// A peer has failed before anything of its answer went to the client: the next one, if there is one.
    fn next(self: &Rc<Self>, failure: Failure) {
        let kept = self.socket.borrow().as_ref().is_some_and(|socket| socket.requests > 0);
        // A kept connection that the peer closed meanwhile says nothing about the peer (nginx: u->peer.cached).
        let stale = kept && failure == Failure::Error && self.input.borrow().is_empty();
        let status = if failure == Failure::Timeout { 504 } else { 502 };
        self.end_attempt(Some(status));
        self.drop_socket();
        if let Some(peer) = self.peer.take() {
            if stale {
                self.choice.tried.borrow_mut()[peer] = false;
            } else {
                self.tries.set(self.tries.get().saturating_sub(1));
                self.count_failure(peer);
            }
            self.free(peer, if stale { Outcome::Unknown } else { Outcome::Failed });
        }
        if self.r.failed.get() {
            return self.give_up(500);
        }
        // nginx's default, "error timeout": and what is not idempotent is not sent twice.
        let resend = !self.request_sent.get() || is_idempotent(&self.r);
        let another = self.tries.get() > 0 && failure != Failure::InvalidHeader && resend;
        let Some(protocol) = self.place.upstream.as_ref().filter(|_| another) else {
            return self.give_up(status);
        };
        self.forget_header();
        if protocol.reinit_request(&self.r) != Code::OK {
            return self.give_up(500);
        }
        self.connect();
    }

    /// What a peer's header has left in the response, unless that has begun, goes.
    fn forget_header(&self) {
        if self.r.header_started.get() {
            return;
        }
        self.r.parts.borrow_mut().headers_out.truncate(self.fields_before);
        self.r.content_length.set(None);
        self.r.allow_ranges.set(false);
        self.r.status.set(0);
    }

    fn count_failure(&self, peer: usize) {
        let list = &self.upstream.peers.list;
        // nginx: the only peer of an upstream is never taken out.
        if list.len() > 1 && list[peer].fail(stats::now_ms()) {
            log_line!(
                Level::Warn,
                "upstream server {} of \"{}\" temporarily disabled",
                list[peer].name,
                self.upstream.name
            );
        }
    }

    fn free(&self, peer: usize, outcome: Outcome) {
        self.upstream.peers.list[peer].end();
        self.r.guarded(|| self.upstream.balancers.free(&self.choice, peer, outcome));
    }

    /// Lets go of peer, socket and timer, and tells the protocol. Once.
    fn end(self: &Rc<Self>, code: Code, outcome: Outcome) {
        if self.state.replace(State::Done) == State::Done {
            return;
        }
        self.end_attempt(None);
        if let Some(timer) = self.timer.take() {
            self.r.conn.lp.remove_timer(timer);
        }
        self.remote_id.forget();
        if let Some(peer) = self.peer.get() {
            let socket = self.socket.take();
            let clean = outcome == Outcome::Ok && self.keep.get() && !self.eof.get() && self.input.borrow().is_empty();
            if let Some(socket) = socket {
                if clean && self.queue.borrow().is_empty() {
                    socket.keep(&self.r.conn.lp, &self.upstream.keepalive, peer);
                } else {
                    socket.close(&self.r.conn.lp);
                }
            }
            self.free(peer, outcome);
        }
        self.drop_socket();
        let unsent = self.queue.borrow_mut().clear();
        let request = self.request.take();
        self.r.guarded(|| {
            drop(unsent);
            drop(request);
        });
        if let Some(protocol) = &self.place.upstream {
            protocol.finalize_request(&self.r, code);
        }
    }

    fn drop_socket(&self) {
        if let Some(socket) = self.socket.take() {
            socket.close(&self.r.conn.lp);
        }
    }

    fn go_on(self: &Rc<Self>) {
        match self.state.get() {
            State::Header => self.read_header(),
            State::Body => self.read_body(),
            _ => (),
        }
    }
}

/// Whether the method may be sent again (nginx: all but POST, LOCK and PATCH).
fn is_idempotent(r: &Request) -> bool {
    match r.method() {
        Method::Post | Method::Patch => false,
        Method::Other => {
            let parts = r.parts.borrow();
            parts.head.method_span().of(&parts.bytes) != b"LOCK"
        }
        _ => true,
    }
}

impl Source for Exchange {
    fn panicked(self: Rc<Self>) {
        Source::panicked(self.r.clone());
    }

    fn ready(self: Rc<Self>, ready: Ready) {
        if let Some(socket) = &mut *self.socket.borrow_mut() {
            socket.note(ready);
        }
        let connecting = self.state.get() == State::Connecting;
        if connecting {
            let result = match &*self.socket.borrow() {
                Some(socket) if ready.writable || ready.readable => socket.connected(),
                _ => return,
            };
            match result {
                Ok(true) => {
                    self.state.set(State::Sending);
                    self.start_timer(self.target.wanted.send_timeout);
                }
                Ok(false) => return,
                Err(error) => return self.connect_failed(&error),
            }
        }
        let unsent = ready.writable
            && matches!(self.state.get(), State::Sending | State::Header)
            && !self.queue.borrow().is_empty();
        // Also an empty request is sent: some protocols have their peers speak first.
        if (connecting || unsent) && !self.send() {
            // That connection is gone, and this event with it.
            return;
        }
        if self.state.get() == State::Sending && ready.readable {
            // A peer may answer before it has read the whole request.
            self.state.set(State::Header);
        }
        self.go_on();
    }

    fn expired(self: Rc<Self>, _: u32) {
        let doing = match self.state.get() {
            State::Connecting => "connecting to upstream",
            State::Sending => "sending request to upstream",
            State::Header => "reading response header from upstream",
            State::Body => "reading upstream",
            State::Done => return,
        };
        log_line!(
            Level::Error,
            "*{} upstream timed out ({}) while {doing}{}",
            self.r.conn.number,
            ErrorText(&rustix::io::Errno::TIMEDOUT.into()),
            self.r.log_tail()
        );
        if self.state.get() == State::Body {
            self.end(Code::status(504), Outcome::Unknown);
            return finalize::finalize(&self.r, Code::status(504));
        }
        self.next(Failure::Timeout);
    }

    fn posted(self: Rc<Self>, code: u64) {
        if code == READ_AHEAD | self.ahead.get() && self.reading_ahead.replace(false) {
            self.queue.borrow_mut().trust(self.ahead_len.get(), true);
        }
        let sending = matches!(self.state.get(), State::Sending | State::Header) && !self.queue.borrow().is_empty();
        if sending && !self.send() {
            return;
        }
        self.go_on();
    }
}
