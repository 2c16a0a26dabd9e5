//! A client's HTTP/1 connection: reads heads and bodies, makes requests, writes responses, and keeps itself alive.
//!
//! ```text
//!           accept
//!             |
//!             v      first byte          head complete
//!   +-----> Idle ----------------> Head ----------------> Busy (a request runs)
//!   |         | timeout, EOF         | timeout, bad head     |
//!   |         v                      v                       | response complete
//!   |       closed               error page                  v
//!   |                                                   body read? --no--> Discard (the rest of the body)
//!   +------------------- keep alive --------------------------+---------------+
//!                                                             | close
//!                                                             v
//!                                                           Linger (read on, so that no RST takes the response away)
//! ```

use std::{
    cell::{Cell, OnceCell, RefCell},
    io,
    net::Shutdown,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use mio::{Token, net::TcpStream};
use rustix::{io::Errno, net::RecvFlags};
use topnext_module_api::{Chain, Code, running::Hook};

use super::{
    BadRequest, ChunkedDecoder, Decoded, Framing, Head, HeadParser, Limits, Method, Normalized, Progress, Seen, Span,
    Target, body_framing, encode_chunk_head, host, normalize, persistent, response,
};
use crate::{
    event::{Loop, Ready, RemoteId, Source, TimerId, remote},
    finalize,
    listen::Address,
    log::error::Level,
    log_line, phases,
    request::{Lent, Request, Text, Wait, wake_code},
    site::{Server, Site},
    stats,
    write::{Flushed, WriteQueue},
};

/// What is read at once of a head.
const SCRATCH_SIZE: usize = 16 * 1024;
/// What is read at once of the rest of a head that came in pieces.
const READ_SIZE: usize = 4096;
/// Room for a read of a body.
const BODY_READ_SIZE: usize = 32 * 1024;
/// Output that waits for more before it is written (nginx: postpone_output).
const POSTPONE: u64 = 1460;
/// Bodies are kept in memory, and this is the most of one that is, whatever client_max_body_size says.
const MAX_BODY: u64 = 64 * 1024 * 1024;
/// Reads of one connection after which others get their turn.
const MAX_READS: usize = 16;
/// How long the rest of a body is read on after the response, in all and between two reads (nginx: lingering_time,
/// lingering_timeout).
const LINGERING_TIME: Duration = Duration::from_secs(30);
const LINGERING_TIMEOUT: Duration = Duration::from_secs(5);

/// The kinds of the connection's timers.
const READ_TIMER: u32 = 0;
const SEND_TIMER: u32 = 1;
/// Posted codes.
const NEXT_REQUEST: u64 = 1;
const DISK_DONE: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Head,
    Busy,
    Discard,
    Linger,
    Closed,
}

/// What came of parsing what was read.
enum Parsed {
    /// A head.
    Head(Lent),
    /// More is needed.
    Incomplete,
    /// Nothing was read: there is nothing now, or the end.
    Nothing,
}

/// The body that is being read.
enum BodyReader {
    Nothing,
    Length(u64),
    Chunked(ChunkedDecoder),
}

/// A connection.
pub struct Http1 {
    /// The loop that it lives on.
    pub lp: Rc<Loop>,
    site: &'static Site,
    address: &'static Address,
    socket: RefCell<TcpStream>,
    token: Cell<Option<Token>>,
    /// Its number in logs.
    pub number: u64,
    remote: String,
    remote_ip: Option<std::net::IpAddr>,
    remote_port: u16,

    state: Cell<State>,
    readable: Cell<bool>,
    read_closed: Cell<bool>,
    eof: Cell<bool>,
    input: RefCell<BytesMut>,
    parser: RefCell<HeadParser>,
    asked: RefCell<Asked>,
    reader: RefCell<BodyReader>,
    queue: RefCell<WriteQueue>,
    /// Another request may follow the one that runs.
    pub keep: Cell<bool>,
    request: RefCell<Option<Rc<Request>>>,
    requests: Cell<u32>,
    read_timer: Cell<Option<TimerId>>,
    send_timer: Cell<Option<TimerId>>,
    linger_until_ms: Cell<u64>,
    /// Bytes of a file that the pool is reading into the page cache.
    disk: Cell<u64>,
    /// A turn to go on writing in has been asked for.
    more: Cell<bool>,
    /// A turn to go on reading in has been asked for.
    read_on: Cell<bool>,
    /// A turn in which the handler is asked for more has been asked for.
    room: Cell<bool>,
    /// Writing to the client has failed.
    broken: Cell<bool>,
    /// How long it may be idle, as the last request's location says.
    idle_timeout: Cell<Option<Duration>>,
    remote_id: Cell<Option<RemoteId>>,
}

thread_local! {
    /// Where heads are read to.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_SIZE].into_boxed_slice());
}

/// Takes a connection over. The loop keeps it; a benchmark, which has no loop that turns, uses what is returned.
pub fn accept(
    lp: &Rc<Loop>,
    site: &'static Site,
    address: &'static Address,
    socket: TcpStream,
    peer: std::net::SocketAddr,
) -> Rc<Http1> {
    let place = &address.names.default_server().place;
    let core = &place.core;
    let large = usize::try_from(core.large_client_header_buffers.size).unwrap_or(usize::MAX);
    let number = core.large_client_header_buffers.number as usize;
    let small = usize::try_from(core.client_header_buffer_size).unwrap_or(usize::MAX);
    let line = large.max(small);
    let limits = Limits { request_line: line, header_line: line, total: line.saturating_mul(number.max(1)) };
    let connection = Rc::new(Http1 {
        lp: lp.clone(),
        site,
        address,
        socket: RefCell::new(socket),
        token: Cell::new(None),
        number: stats::next_connection(),
        remote: peer.ip().to_string(),
        remote_ip: Some(peer.ip()),
        remote_port: peer.port(),
        state: Cell::new(State::Idle),
        readable: Cell::new(false),
        read_closed: Cell::new(false),
        eof: Cell::new(false),
        input: RefCell::new(BytesMut::new()),
        parser: RefCell::new(HeadParser::new(limits)),
        asked: RefCell::default(),
        reader: RefCell::new(BodyReader::Nothing),
        queue: RefCell::default(),
        keep: Cell::new(true),
        request: RefCell::new(None),
        requests: Cell::new(0),
        read_timer: Cell::new(None),
        send_timer: Cell::new(None),
        linger_until_ms: Cell::new(0),
        disk: Cell::new(0),
        more: Cell::new(false),
        read_on: Cell::new(false),
        room: Cell::new(false),
        broken: Cell::new(false),
        idle_timeout: Cell::new(None),
        remote_id: Cell::new(None),
    });
    stats::add(stats::Counter::Connections, 1);
    connection.start();
    connection
}

impl Http1 {
    fn start(self: &Rc<Self>) {
        let core = &self.address.names.default_server().place.core;
        if core.tcp_nodelay {
            // Only a delay is lost if it cannot be set.
            let _ = self.socket.borrow().set_nodelay(true);
        }
        self.read_timer.set(Some(self.lp.add_timer(self.clone(), READ_TIMER)));
        self.send_timer.set(Some(self.lp.add_timer(self.clone(), SEND_TIMER)));
        match self.lp.register(&mut *self.socket.borrow_mut(), self.clone()) {
            Ok(token) => self.token.set(Some(token)),
            Err(error) => {
                log_line!(Level::Alert, "*{} cannot be polled: {error}", self.number);
                return self.close();
            }
        }
        self.start_read_timer(core.client_header_timeout);
    }

    /// The client's address as text.
    pub fn remote_addr(&self) -> &[u8] {
        self.remote.as_bytes()
    }

    /// The client's address.
    pub fn remote_ip(&self) -> Option<std::net::IpAddr> {
        self.remote_ip
    }

    /// The client's port.
    pub fn remote_port(&self) -> u16 {
        self.remote_port
    }

    /// The port that the client came to.
    pub fn server_port(&self) -> u16 {
        self.address.port()
    }

    /// Whether the client has closed its side.
    pub fn client_closed(&self) -> bool {
        self.read_closed.get()
    }

    /// Requests so far, the running one included.
    pub fn requests(&self) -> u32 {
        self.requests.get()
    }

    fn start_read_timer(&self, time: Duration) {
        if let Some(timer) = self.read_timer.get() {
            self.lp.start_timer(timer, time);
        }
    }

    fn stop_read_timer(&self) {
        if let Some(timer) = self.read_timer.get() {
            self.lp.stop_timer(timer);
        }
    }

    fn stop_timers(&self) {
        for timer in [&self.read_timer, &self.send_timer] {
            if let Some(timer) = timer.get() {
                self.lp.stop_timer(timer);
            }
        }
    }

    // ---- reading

    /// Reads once into `buffer`. `Ok(0)` without `eof`: nothing there.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.readable.get() || self.eof.get() {
            return Ok(0);
        }
        let size = buffer.len();
        let result = loop {
            match rustix::net::recv(&*self.socket.borrow(), &mut *buffer, RecvFlags::empty()) {
                Err(Errno::INTR) => (),
                result => break result.map(|(_, n)| n),
            }
        };
        match result {
            Ok(0) => self.eof.set(true),
            // Edge-triggered: a short read has drained the socket, unless the end is still to come.
            Ok(n) if n < size && !self.read_closed.get() => self.readable.set(false),
            Ok(_) => (),
            Err(Errno::AGAIN) => {
                self.readable.set(false);
                return Ok(0);
            }
            Err(error) => return Err(error.into()),
        }
        result.map_err(io::Error::from)
    }

    /// Reads once, at most `size` bytes, behind what is in the input.
    fn read(&self, size: usize) -> io::Result<usize> {
        let input = &mut *self.input.borrow_mut();
        let start = input.len();
        input.resize(start + size, 0);
        let result = self.receive(&mut input[start..]);
        input.truncate(start + result.as_ref().unwrap_or(&0));
        result
    }

    fn on_readable(self: &Rc<Self>) {
        match self.state.get() {
            State::Idle | State::Head => self.read_head(),
            State::Busy => self.read_while_busy(),
            State::Discard => self.discard(),
            State::Linger => self.linger(),
            State::Closed => (),
        }
    }

    /// Reads until a head is complete, and makes a request of it.
    fn read_head(self: &Rc<Self>) {
        loop {
            let parsed = match self.parse_input() {
                Ok(Parsed::Incomplete) => match self.read_and_parse() {
                    Ok(parsed) => parsed,
                    Err(error) => {
                        log_line!(Level::Info, "*{} recv() failed ({error}), client: {}", self.number, self.remote);
                        return self.close();
                    }
                },
                parsed => parsed,
            };
            match parsed {
                Ok(Parsed::Head(parts)) => return self.begin(parts),
                Ok(Parsed::Incomplete) => (),
                Ok(Parsed::Nothing) if self.eof.get() => return self.end_of_input(),
                Ok(Parsed::Nothing) => return,
                Err(bad) => return self.refuse(bad),
            }
        }
    }

    /// Parses what has been read before.
    fn parse_input(&self) -> Result<Parsed, BadRequest> {
        let input = &mut *self.input.borrow_mut();
        if input.is_empty() {
            return Ok(Parsed::Incomplete);
        }
        let parsed = self.parse(input)?;
        if let Parsed::Head(parts) = &parsed {
            input.advance(parts.bytes.len());
        }
        Ok(parsed)
    }

    /// Reads once, and parses. A head that comes in one piece is parsed where it was read, and only copied to where it
    /// stays; so an idle connection has no buffer.
    fn read_and_parse(&self) -> io::Result<Result<Parsed, BadRequest>> {
        if !self.input.borrow().is_empty() {
            return Ok(match self.read(READ_SIZE)? {
                0 => Ok(Parsed::Nothing),
                _ => Ok(Parsed::Incomplete),
            });
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let n = self.receive(scratch)?;
            if n == 0 {
                return Ok(Ok(Parsed::Nothing));
            }
            let parsed = self.parse(&scratch[..n]);
            let used = match &parsed {
                Ok(Parsed::Head(parts)) => parts.bytes.len(),
                _ => 0,
            };
            if used < n {
                self.input.borrow_mut().extend_from_slice(&scratch[used..n]);
            }
            Ok(parsed)
        })
    }

    fn parse(&self, bytes: &[u8]) -> Result<Parsed, BadRequest> {
        let first = self.state.replace(State::Head) == State::Idle;
        let mut parts = Lent::new();
        if self.parser.borrow_mut().parse(bytes, &mut parts.head)? == Progress::Incomplete {
            if first {
                self.start_read_timer(self.address.names.default_server().place.core.client_header_timeout);
            }
            return Ok(Parsed::Incomplete);
        }
        let head = parts.head.head_len();
        parts.bytes.extend_from_slice(&bytes[..head]);
        Ok(Parsed::Head(parts))
    }

    /// The client has closed where a head could have begun, or within one.
    fn end_of_input(self: &Rc<Self>) {
        if self.state.get() == State::Head {
            let text = "client closed the connection while sending a request head";
            log_line!(Level::Info, "*{} {text}, client: {}", self.number, self.remote);
        }
        self.close();
    }

    /// Makes a request of a complete head, and runs it.
    fn begin(self: &Rc<Self>, parts: Lent) {
        self.stop_read_timer();
        let facts = Facts::of(&parts.head, &parts.bytes, &self.asked.borrow());
        let host = facts.as_ref().ok().and_then(|facts| facts.host);
        let name = host.map_or(&b""[..], |span| span.of(&parts.bytes));
        let mut lower = None;
        let server = match facts.as_ref().ok().and_then(|facts| facts.server) {
            Some(server) => server,
            None => {
                lower = name.iter().any(u8::is_ascii_uppercase).then(|| name.to_ascii_lowercase());
                let server = self.address.names.find(lower.as_deref().unwrap_or(name));
                if lower.is_none() && facts.is_ok() {
                    self.asked.borrow_mut().note(&parts.head, &parts.bytes, name.len(), server);
                }
                server
            }
        };
        let core = &server.place.core;
        self.requests.set(self.requests.get() + 1);
        stats::add(stats::Counter::Requests, 1);
        let keep = facts.is_ok()
            && persistent(&parts.head)
            && !core.keepalive_timeout.is_zero()
            && self.requests.get() < core.keepalive_requests;
        self.keep.set(keep);
        let (framing, is_head) = match &facts {
            Ok(facts) => (facts.framing, parts.head.method() == Method::Head),
            Err(_) => (Framing::None, false),
        };
        self.reader.replace(match framing {
            Framing::None => BodyReader::Nothing,
            Framing::Length(length) => BodyReader::Length(length),
            Framing::Chunked => BodyReader::Chunked(ChunkedDecoder::new()),
        });
        self.state.set(State::Busy);
        let request = Rc::new(Request::new(self.clone(), self.site, server, parts, framing, is_head));
        request.host.set(match (&lower, host) {
            (Some(lower), _) => request.store(&[lower]),
            (None, Some(span)) => Text::Head(span),
            // HTTP/1.0 may do without Host (nginx: the server's name stands in).
            (None, None) => request.store(&[server.name().as_bytes()]),
        });
        if framing == Framing::None || framing == Framing::Length(0) {
            request.body_complete.set(true);
        }
        self.request.replace(Some(request.clone()));
        match facts {
            Ok(facts) => {
                let uri = match facts.path {
                    Normalized::Same => Text::Head(facts.raw_path),
                    Normalized::Changed(path) => request.store(&[&path]),
                };
                request.uri.set(uri);
                request.args.set(facts.args.map_or_else(Text::default, Text::Head));
                phases::run(&request);
            }
            Err(bad) => {
                log_line!(Level::Info, "*{} {bad}{}", self.number, request.log_tail());
                finalize::finalize(&request, Code::status(bad.status));
            }
        }
    }

    /// Answers a head that cannot be parsed.
    #[cold]
    fn refuse(self: &Rc<Self>, bad: BadRequest) {
        let mut parts = Lent::new();
        // What was parsed so far means nothing.
        parts.head = Head::default();
        let line = {
            let input = self.input.borrow();
            let line = input[..].split(|&byte| byte == b'\n').next().unwrap_or_default();
            line[..line.len().min(256)].to_vec()
        };
        let server = self.address.names.default_server();
        self.keep.set(false);
        self.requests.set(self.requests.get() + 1);
        stats::add(stats::Counter::Requests, 1);
        self.state.set(State::Busy);
        self.reader.replace(BodyReader::Nothing);
        let request = Rc::new(Request::new(self.clone(), self.site, server, parts, Framing::None, false));
        request.extra().bad_line.replace(line.trim_ascii_end().to_vec());
        request.body_complete.set(true);
        log_line!(Level::Info, "*{} {bad}{}", self.number, request.log_tail());
        self.request.replace(Some(request.clone()));
        finalize::finalize(&request, Code::status(bad.status));
    }

    // ---- the request's body

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

    /// The handler is asked for more in the next turn: what it gave has left, and no event will say so.
    pub fn room_later(self: &Rc<Self>) {
        self.room.set(true);
        self.lp.post_later(self.clone());
    }

    /// Others get their turn; what is left to read is read in the next one.
    fn read_later(self: &Rc<Self>) {
        self.read_on.set(true);
        self.lp.post_later(self.clone());
    }

    /// No handler waits for the body any more.
    pub fn stop_reading_body(&self) {
        if self.state.get() == State::Busy {
            self.stop_read_timer();
        }
    }

    /// Whether writing to the client has failed.
    pub fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Decodes what is in the input: true when the body is complete.
    fn decode_body(&self, out: &mut impl FnMut(bytes::Bytes)) -> Result<bool, BadRequest> {
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
    fn read_while_busy(self: &Rc<Self>) {
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

    // ---- writing

    /// Queues the header of the response.
    pub fn write_header(&self, r: &Request) {
        let known = r.content_length.get();
        let http11 = r.parts.borrow().head.minor() >= 1 || r.parts.borrow().bytes.is_empty();
        let bodyless = matches!(r.status.get(), 100..=199 | 204 | 304);
        if known.is_none() && !bodyless {
            r.chunked.set(http11 && !r.header_only.get());
            if !http11 {
                self.keep.set(false);
            }
        }
        // The client waits for 100 with its body. Whether it sends one behind another answer is not known, nor what it
        // sends then: a body or a request.
        if r.parts.borrow().head.facts().expect_continue && !r.is_body_wanted() && self.input.borrow().is_empty() {
            self.keep.set(false);
        }
        let head_chunked = known.is_none() && !bodyless && http11;
        self.queue.borrow_mut().add_bytes(|out| {
            let parts = r.parts.borrow();
            let head = response::HeadOut {
                status: r.status.get(),
                tokens: r.place().core.server_tokens,
                length: if bodyless { None } else { known },
                chunked: head_chunked,
                keep: self.keep.get(),
                http11,
            };
            response::write_head(out, &head, &parts.headers_out, &parts.pool);
        });
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
            log_line!(Level::Alert, "*{} {error}{}", self.number, r.log_tail());
            return Code::ERROR;
        }
        if r.has_panicked() {
            // The release of a buf: nothing more of this response leaves.
            return Code::ERROR;
        }
        if !push && self.queue.borrow().bytes() < POSTPONE {
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
        let result = {
            let queue = &mut *self.queue.borrow_mut();
            let chunked = r.chunked.get();
            if chunked && bytes > 0 {
                queue.add_bytes(|out| out.extend_from_slice(encode_chunk_head(bytes, &mut [0; 18])));
            }
            let result = chain.into_iter().try_for_each(|buf| queue.add_buf(buf));
            if chunked && bytes > 0 {
                queue.add_bytes(|out| out.extend_from_slice(b"\r\n"));
            }
            if chunked && last {
                queue.add_bytes(|out| out.extend_from_slice(b"0\r\n\r\n"));
            }
            result
        };
        let sent = self.queue.borrow_mut().take_sent();
        if !sent.is_empty() {
            r.guarded(|| drop(sent));
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
                self.broken.set(true);
                let level = match error.kind() {
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Level::Info,
                    _ => Level::Error,
                };
                log_line!(level, "*{} send() failed ({error}){}", self.number, r.log_tail());
                Code::ERROR
            }
        }
    }

    /// True if all has left.
    fn flush(self: &Rc<Self>, r: &Rc<Request>) -> io::Result<bool> {
        if self.queue.borrow().is_empty() {
            return Ok(true);
        }
        if self.disk.get() > 0 {
            return Ok(false);
        }
        let (result, sent, progress) = {
            let queue = &mut *self.queue.borrow_mut();
            let before = queue.bytes();
            let core = &r.place().core;
            let result = queue.flush_some(&*self.socket.borrow(), core.sendfile, core.sendfile_max_chunk);
            (result, queue.take_sent(), queue.bytes() < before)
        };
        if !sent.is_empty() {
            // The memory goes back to whoever made it: code of modules.
            r.guarded(|| drop(sent));
        }
        let timer = self.send_timer.get();
        match result? {
            Flushed::Done => {
                if let Some(timer) = timer {
                    self.lp.stop_timer(timer);
                }
                Ok(true)
            }
            Flushed::Blocked => {
                if let Some(timer) = timer.filter(|timer| progress || !self.lp.timer_runs(*timer)) {
                    self.lp.start_timer(timer, r.place().core.send_timeout);
                }
                Ok(false)
            }
            Flushed::More => {
                if let Some(timer) = timer {
                    self.lp.start_timer(timer, r.place().core.send_timeout);
                }
                if !self.more.replace(true) {
                    self.lp.post_later(self.clone());
                }
                Ok(false)
            }
            Flushed::Disk(file, pos, len) => {
                if let Some(timer) = timer {
                    self.lp.start_timer(timer, r.place().core.send_timeout);
                }
                self.read_ahead(r, file, pos, len).map(|()| false)
            }
        }
    }

    /// Has the pool read a part of a file into the page cache, so that sendfile does not wait for the disk.
    fn read_ahead(
        self: &Rc<Self>,
        r: &Request,
        file: Arc<crate::open_file::OpenFile>,
        mut pos: u64,
        len: u64,
    ) -> io::Result<()> {
        let id = self.remote_id.get().unwrap_or_else(|| {
            let source: Rc<dyn Source> = self.clone();
            remote::announce(&source)
        });
        self.remote_id.set(Some(id));
        let remote = self.lp.remote().clone();
        let job = Box::new(move || {
            let end = pos + len;
            let mut buffer = vec![0; 64 * 1024];
            // An error shows again when the file is sent.
            while pos < end
                && let Ok(n @ 1..) = file.read_blocking(pos, &mut buffer)
            {
                pos += n as u64;
            }
            remote.call(id, DISK_DONE);
        });
        r.site.pool.run(job).map_err(|_| io::Error::other("the thread pool's queue is full"))?;
        self.disk.set(len);
        Ok(())
    }

    fn on_writable(self: &Rc<Self>) {
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

    // ---- after the request

    /// The response has left: what follows on this connection?
    pub fn request_done(self: &Rc<Self>, r: &Rc<Request>) {
        self.idle_timeout.set(Some(r.place().core.keepalive_timeout));
        if r.place().core.keepalive_timeout.is_zero() {
            self.keep.set(false);
        }
        self.request.replace(None);
        if !self.keep.get() {
            return self.begin_linger();
        }
        if !r.body_complete.get() && self.expects_more() {
            self.state.set(State::Discard);
            self.linger_until_ms.set(self.lp.now_ms() + LINGERING_TIME.as_millis() as u64);
            return self.lp.post(self.clone(), NEXT_REQUEST);
        }
        self.next_request();
    }

    fn next_request(self: &Rc<Self>) {
        self.state.set(State::Idle);
        if self.input.borrow().is_empty() && self.input.borrow().capacity() > 0 {
            // An idle connection costs no buffer.
            self.input.replace(BytesMut::new());
        }
        if self.eof.get() && self.input.borrow().is_empty() {
            return self.close();
        }
        let idle = self.address.names.default_server().place.core.keepalive_timeout;
        self.start_read_timer(self.idle_timeout.get().unwrap_or(idle));
        if self.readable.get() || !self.input.borrow().is_empty() {
            // Posted, so that a client that pipelines does not make this recurse.
            self.lp.post(self.clone(), NEXT_REQUEST);
        }
    }

    /// Reads the rest of a body that no handler wanted.
    fn discard(self: &Rc<Self>) {
        for _ in 0..MAX_READS {
            match self.decode_body(&mut drop) {
                Ok(true) => return self.next_request(),
                Ok(false) => (),
                Err(_) => return self.close(),
            }
            if self.lp.now_ms() > self.linger_until_ms.get() {
                return self.close();
            }
            match self.read(BODY_READ_SIZE) {
                Ok(0) if self.eof.get() => return self.close(),
                Ok(0) => return self.start_read_timer(LINGERING_TIMEOUT),
                Ok(_) => (),
                Err(_) => return self.close(),
            }
        }
        self.read_later();
    }

    /// Closes our side, and reads on for a while: a client that still sends would else lose the response to a reset.
    fn begin_linger(self: &Rc<Self>) {
        let unread = self.readable.get() || !self.input.borrow().is_empty();
        if self.eof.get() || (!unread && !self.expects_more()) {
            return self.close();
        }
        let _ = self.socket.borrow().shutdown(Shutdown::Write);
        self.state.set(State::Linger);
        self.input.borrow_mut().clear();
        self.linger_until_ms.set(self.lp.now_ms() + LINGERING_TIME.as_millis() as u64);
        self.linger();
    }

    /// Whether the client may still be sending a body, or what it took for one.
    fn expects_more(&self) -> bool {
        !matches!(&*self.reader.borrow(), BodyReader::Nothing | BodyReader::Length(0))
    }

    fn linger(self: &Rc<Self>) {
        for _ in 0..MAX_READS {
            self.input.borrow_mut().clear();
            if self.lp.now_ms() > self.linger_until_ms.get() {
                return self.close();
            }
            match self.read(BODY_READ_SIZE) {
                Ok(0) if self.eof.get() => return self.close(),
                Ok(0) => return self.start_read_timer(LINGERING_TIMEOUT),
                Ok(_) => (),
                Err(_) => return self.close(),
            }
        }
        self.read_later();
    }

    /// Closes with a reset, so that the client does not take what it has for the whole response.
    pub fn abort(self: &Rc<Self>) {
        let sent = self.queue.borrow_mut().clear();
        drop(sent);
        // The reset has to leave before the shutdown in `close`, which sends an orderly end: to a client that reads until
        // the end of the connection that would be a whole response.
        let reset = rustix::net::connect_unspec(&*self.socket.borrow());
        if reset.is_err() {
            let _ = socket2::SockRef::from(&*self.socket.borrow()).set_linger(Some(Duration::ZERO));
        }
        self.close();
    }

    /// Closes.
    fn close(self: &Rc<Self>) {
        if self.state.replace(State::Closed) == State::Closed {
            return;
        }
        self.request.replace(None);
        self.stop_timers();
        for timer in [self.read_timer.take(), self.send_timer.take()].into_iter().flatten() {
            self.lp.remove_timer(timer);
        }
        if let Some(id) = self.remote_id.take() {
            remote::forget(id);
        }
        let socket = &mut *self.socket.borrow_mut();
        if let Some(token) = self.token.take() {
            self.lp.deregister(socket, token);
        }
        // Both directions end now, though the descriptor is closed with the last owner of this connection.
        let _ = socket.shutdown(Shutdown::Both);
        stats::add(stats::Counter::Connections, -1);
    }
}

impl Source for Http1 {
    fn ready(self: Rc<Self>, ready: Ready) {
        if ready.readable {
            self.readable.set(true);
        }
        if ready.read_closed {
            self.read_closed.set(true);
        }
        if ready.writable {
            self.on_writable();
        }
        if ready.readable {
            self.on_readable();
        }
    }

    fn expired(self: Rc<Self>, kind: u32) {
        let request = self.request.borrow().clone();
        match (kind, self.state.get(), request) {
            (READ_TIMER, State::Head, _) => {
                log_line!(
                    Level::Info,
                    "*{} client timed out while sending a request head, client: {}",
                    self.number,
                    self.remote
                );
                self.refuse(BadRequest { status: 408, reason: "no complete request head in time" });
            }
            (READ_TIMER, State::Busy, Some(r)) => {
                log_line!(Level::Info, "*{} client timed out while sending its body{}", self.number, r.log_tail());
                self.keep.set(false);
                finalize::finalize(&r, Code::status(408));
            }
            (SEND_TIMER, _, Some(r)) => {
                log_line!(Level::Info, "*{} client timed out while reading the response{}", self.number, r.log_tail());
                finalize::abort(&r);
            }
            _ => self.close(),
        }
    }

    fn posted(self: Rc<Self>, code: u64) {
        match code {
            NEXT_REQUEST => self.on_readable(),
            DISK_DONE => {
                let read = self.disk.replace(0);
                self.queue.borrow_mut().trust(read, true);
                self.on_writable();
            }
            // The next turn of a large file, or of a large body.
            _ => {
                self.more.set(false);
                if self.read_on.replace(false) {
                    self.on_readable();
                }
                let request = self.request.borrow().clone().filter(|_| self.room.replace(false));
                if let Some(r) = request.filter(|_| self.queue.borrow().is_empty()) {
                    return phases::room(&r);
                }
                self.on_writable();
            }
        }
    }
}

/// The Host field of the last request on a connection, and what it led to: nearly always the next one is the same.
#[derive(Default)]
struct Asked {
    /// The value as received.
    value: Box<[u8]>,
    /// The length of the name in it, which is at its start.
    name_len: u32,
    /// None before the first.
    server: Option<&'static Server>,
}

/// A longer Host field is not remembered: it costs each idle connection as much memory.
const MAX_ASKED: usize = 64;

impl Asked {
    fn note(&mut self, head: &Head, bytes: &[u8], name_len: usize, server: &'static Server) {
        let value = head.value(head.facts().host, bytes).unwrap_or_default();
        if head.plain_target().is_some() && !value.is_empty() && value.len() <= MAX_ASKED {
            *self = Asked { value: value.into(), name_len: name_len as u32, server: Some(server) };
        }
    }

    /// The name that `head` asks for and its server, if it asks for the same.
    fn find(&self, head: &Head, bytes: &[u8]) -> Option<(Span, &'static Server)> {
        let server = self.server?;
        let Seen::One(index) = head.facts().host else { return None };
        let value = head.fields().get(usize::from(index))?.value;
        let same = value.of(bytes) == &*self.value;
        same.then_some((Span { start: value.start, end: value.start + self.name_len }, server))
    }
}

/// What a head says beyond its syntax.
struct Facts {
    host: Option<Span>,
    /// The server that the host names, if that is known already.
    server: Option<&'static Server>,
    raw_path: Span,
    path: Normalized,
    args: Option<Span>,
    framing: Framing,
}

impl Facts {
    fn of(head: &Head, bytes: &[u8], asked: &Asked) -> Result<Facts, BadRequest> {
        let framing = body_framing(head, bytes)?;
        if let Some((raw_path, args)) = head.plain_target() {
            let (host, server) = match asked.find(head, bytes) {
                Some((host, server)) => (Some(host), Some(server)),
                None => (host(head, bytes, &Target::Origin { path: raw_path, args })?.map(|host| host.name), None),
            };
            return Ok(Facts { host, server, raw_path, path: Normalized::Same, args, framing });
        }
        let target = Target::parse(head, bytes)?;
        let host = host(head, bytes, &target)?.map(|host| host.name);
        let (path, args) = match target {
            Target::Origin { path, args } | Target::Absolute { path, args, .. } => (path, args),
            Target::Asterisk => (head.target(), None),
            Target::Authority(_) => {
                return Err(BadRequest { status: 405, reason: "CONNECT, which this server does not do" });
            }
        };
        let normalized = match normalize(target.path(bytes), true)? {
            // `http://host` has no path, and means "/".
            Normalized::Same if path.start == path.end => Normalized::Changed(b"/".to_vec()),
            normalized => normalized,
        };
        Ok(Facts { host, server: None, raw_path: path, path: normalized, args, framing })
    }
}

impl Request {
    /// A request at its first step, in the server's own place. Its host and URI are still to be set.
    pub fn new(
        conn: Rc<Http1>,
        site: &'static Site,
        server: &'static Server,
        parts: Lent,
        framing: Framing,
        is_head: bool,
    ) -> Request {
        let started_ms = conn.lp.now_ms();
        Request {
            conn,
            site,
            place: Cell::new(&server.place),
            server,
            pinned: Cell::default(),
            parts: RefCell::new(parts),
            uri: Cell::default(),
            args: Cell::default(),
            host: Cell::default(),
            filename: Cell::default(),
            is_head: Cell::new(is_head),
            framing,
            body_complete: Cell::default(),
            started_ms,
            at: Cell::new((phases::Step::FIRST, 0)),
            wait: Cell::new(Wait::Nothing),
            depth: Cell::default(),
            panics_before: Cell::default(),
            failed: Cell::default(),
            bare: Cell::default(),
            redirect: Cell::default(),
            redirects: Cell::default(),
            error_page: Cell::default(),
            logged: Cell::default(),
            status: Cell::default(),
            content_length: Cell::default(),
            allow_ranges: Cell::default(),
            header_started: Cell::default(),
            header_sent: Cell::default(),
            header_only: Cell::default(),
            chunked: Cell::default(),
            need_memory: Cell::default(),
            last_in: Cell::default(),
            last_out: Cell::default(),
            body_sent: Cell::default(),
            holding: Cell::default(),
            extra: OnceCell::new(),
        }
    }

    /// The length of the body as announced; `None` if it is chunked.
    pub fn body_length(&self) -> Option<u64> {
        match self.framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        }
    }
}
