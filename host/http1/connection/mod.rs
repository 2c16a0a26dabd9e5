//! A client's HTTP/1 connection: reads heads and bodies, makes requests, writes responses, and keeps itself alive.
//!
//! ```text
//!           accept (--> Announced, if a header of the PROXY protocol comes first)
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
//!
//! A request goes through the files of this folder in this order; the type, its states and its events are here:
//!
//! ```text
//! announced.rs   the header of the PROXY protocol, if the listening socket expects one
//! head.rs    reads until a head is complete       facts.rs  what the head says, and which server it asks for
//! body.rs    reads the body, if a handler wants it
//! write.rs   the response: framing, the queue, the socket
//! end.rs     what follows: the next request, the rest of a body, lingering, an abort
//! ```

// In the order in which a request meets them.
mod announced;

mod head;

mod facts;

mod body;

mod write;

mod end;

mod browsers;

use std::{
    cell::{Cell, RefCell},
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use bytes::BytesMut;
use rustix::{io::Errno, net::RecvFlags};

use self::body::BodyReader;
use super::HeadParser;
use crate::{
    config::Listen,
    error_text::ErrorText,
    event::{Loop, Ready, RemoteId, SocketId, Source, TimerId, remote::Announcement},
    finalize,
    listen::Address,
    log::error::{Level, Tail},
    log_line, phases,
    proxy_protocol::Addresses,
    request::Request,
    site::{Place, Site},
    socket::{Ends, Socket},
    stats, tcp_info,
    write::WriteQueue,
};

/// What is read at once, at the most.
const SCRATCH_SIZE: usize = 32 * 1024;
/// What is read at once of a body.
const BODY_READ_SIZE: usize = SCRATCH_SIZE;
/// Reads of one connection after which others get their turn.
const MAX_READS: usize = 16;

/// How long a new connection is not taken for an idle one, in milliseconds: its first bytes may be on their way.
const FIRST_BYTES: u64 = 1000;

/// The kinds of the connection's timers.
const READ_TIMER: u32 = 0;
const SEND_TIMER: u32 = 1;
/// Posted codes.
const NEXT_REQUEST: u64 = 1;
const DISK_DONE: u64 = 2;
const BODY_DONE: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A header of the PROXY protocol has to come first.
    Announced,
    Idle,
    Head,
    Busy,
    Discard,
    Linger,
    Closed,
}

/// Which sides of the connection are closed, as far as events have told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Closed {
    No,
    /// The client sends no more.
    Read,
    /// Neither side can send, such as after a reset.
    Both,
}

/// A connection.
pub struct Http1 {
    /// The loop that it lives on.
    pub lp: Rc<Loop>,
    site: &'static Site,
    address: &'static Address,
    socket: Socket,
    socket_id: Cell<Option<SocketId>>,
    /// Its number in logs.
    pub number: u64,
    ends: Ends,

    state: Cell<State>,
    readable: Cell<bool>,
    closed: Cell<Closed>,
    eof: Cell<bool>,
    input: RefCell<BytesMut>,
    /// What is known of a head that has come in part.
    parser: RefCell<Option<Box<HeadParser>>>,
    reader: RefCell<BodyReader>,
    queue: RefCell<WriteQueue>,
    /// Another request may follow the one that runs.
    pub keep: Cell<bool>,
    request: RefCell<Option<Rc<Request>>>,
    requests: Cell<u32>,
    /// The running request came before the response to the one before it had left.
    pipelined: Cell<bool>,
    read_timer: Cell<Option<TimerId>>,
    send_timer: Cell<Option<TimerId>>,
    linger_until_ms: Cell<u64>,
    /// Bytes of a file that the pool is reading into the page cache.
    disk: Cell<u64>,
    /// A turn to go on writing in has been asked for.
    more: Cell<bool>,
    /// A turn to go on reading in has been asked for.
    read_on: Cell<bool>,
    /// The body of the running request is read past.
    discarding: Cell<bool>,
    /// A turn in which the handler is asked for more has been asked for.
    room: Cell<bool>,
    /// Writing to the client has failed.
    broken: Cell<bool>,
    /// Where the last request was; before the first, the default server.
    place: Cell<&'static Place>,
    /// When it was accepted, on the loop's clock.
    pub accepted_ms: u64,
    /// TCP_NODELAY is set.
    nodelay: Cell<bool>,
    remote_id: Announcement,
}

thread_local! {
    /// Where everything is read to first.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_SIZE].into_boxed_slice());
}

/// Takes a connection over. The loop keeps it; a benchmark, which has no loop that turns, uses what is returned.
pub fn accept(
    lp: &Rc<Loop>,
    site: &'static Site,
    address: &'static Address,
    socket: Socket,
    peer: Option<SocketAddr>,
) -> Rc<Http1> {
    let place = &address.names.default_server().place;
    let connection = Rc::new(Http1 {
        lp: lp.clone(),
        site,
        address,
        socket,
        socket_id: Cell::new(None),
        number: stats::next_connection(),
        ends: Ends::new(peer),
        state: Cell::new(if address.options.proxy_protocol { State::Announced } else { State::Idle }),
        readable: Cell::new(false),
        closed: Cell::new(Closed::No),
        eof: Cell::new(false),
        input: RefCell::new(BytesMut::new()),
        parser: RefCell::new(None),
        reader: RefCell::new(BodyReader::Nothing),
        queue: RefCell::default(),
        keep: Cell::new(true),
        request: RefCell::new(None),
        requests: Cell::new(0),
        pipelined: Cell::new(false),
        read_timer: Cell::new(None),
        send_timer: Cell::new(None),
        linger_until_ms: Cell::new(0),
        disk: Cell::new(0),
        more: Cell::new(false),
        read_on: Cell::new(false),
        discarding: Cell::new(false),
        room: Cell::new(false),
        broken: Cell::new(false),
        place: Cell::new(place),
        accepted_ms: lp.now_ms(),
        nodelay: Cell::new(false),
        remote_id: Announcement::default(),
    });
    stats::add(stats::Counter::Connections, 1);
    stats::add(stats::Counter::Accepted, 1);
    connection.start();
    connection
}

impl Http1 {
    fn start(self: &Rc<Self>) {
        let core = &self.address.names.default_server().place.core;
        self.set_nodelay(core.tcp_nodelay);
        self.read_timer.set(Some(self.lp.add_timer(self.clone(), READ_TIMER)));
        match self.lp.register(&mut &self.socket, self.clone()) {
            Ok(id) => self.socket_id.set(Some(id)),
            Err(error) => {
                log_line!(Level::Alert, "*{} cannot be polled ({})", self.number, ErrorText(&error));
                return self.close();
            }
        }
        self.start_read_timer(core.client_header_timeout);
    }

    /// Sets TCP_NODELAY, if it is not as it should be.
    fn set_nodelay(&self, on: bool) {
        if self.nodelay.get() != on && self.ends.remote_ip().is_some() {
            self.nodelay.set(on);
            self.socket.set_nodelay(on);
        }
    }

    /// Writes the client's address as text; `unix:` on a unix socket.
    pub fn write_remote_addr(&self, out: &mut Vec<u8>) {
        self.ends.write_remote(out);
    }

    /// The client's address; `None` on a unix socket.
    pub fn remote_ip(&self) -> Option<IpAddr> {
        self.ends.remote_ip()
    }

    /// The client's port; `None` on a unix socket.
    pub fn remote_port(&self) -> Option<u16> {
        self.ends.remote_port()
    }

    /// The addresses that the client's proxy has announced.
    pub fn announced(&self) -> Option<&Addresses> {
        self.ends.announced()
    }

    /// The address that the client came to.
    pub fn local_addr(&self) -> Listen {
        self.ends.local(self.address, &self.socket)
    }

    /// The port that the client came to; 0 on a unix socket.
    pub fn server_port(&self) -> u16 {
        self.address.address.port()
    }

    /// Whether the client has closed its side.
    pub fn client_closed(&self) -> bool {
        self.closed.get() >= Closed::Read
    }

    /// Requests so far, the running one included.
    pub fn requests(&self) -> u32 {
        self.requests.get()
    }

    /// Whether the running request came before the response to the one before it had left.
    pub fn is_pipelined(&self) -> bool {
        self.pipelined.get()
    }

    /// Bytes that have left for the running request.
    pub fn sent(&self) -> u64 {
        self.queue.borrow().written()
    }

    /// The end of a line of the error log about it, before there is a request. The line goes to the log of the default server.
    #[cold]
    fn log_tail(&self) -> Tail {
        self.log_tail_in(&self.address.names.default_server().place)
    }

    /// The same, for the log of a place.
    #[cold]
    fn log_tail_in(&self, place: &'static Place) -> Tail {
        let mut client = Vec::new();
        self.write_remote_addr(&mut client);
        let text = format!(", client: {}, server: {}", client.escape_ascii(), self.address.address);
        Tail::new(&place.error_log, text)
    }

    /// What the kernel knows of it, if it is of TCP.
    pub fn tcp_info(&self) -> Option<libc::tcp_info> {
        tcp_info::of(&self.socket)
    }

    /// Whether the client has reset it: it will read nothing any more.
    pub fn is_reset(&self) -> bool {
        self.closed.get() == Closed::Both
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

    /// Reads once into `buffer`. `Ok(0)` without `eof`: nothing there.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.readable.get() || self.eof.get() {
            return Ok(0);
        }
        let size = buffer.len();
        let result = loop {
            match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Err(Errno::INTR) => (),
                result => break result.map(|(_, n)| n),
            }
        };
        match result {
            Ok(0) => self.eof.set(true),
            // Edge-triggered: a short read has drained the socket, unless the end is still to come.
            Ok(n) if n < size && !self.client_closed() => self.readable.set(false),
            Ok(_) => (),
            Err(Errno::AGAIN) => {
                self.readable.set(false);
                return Ok(0);
            }
            Err(error) => return Err(error.into()),
        }
        result.map_err(io::Error::from)
    }

    /// Reads once, at most `size` bytes, behind what is in the input. That grows by what has come only: a client that sends
    /// in small pieces costs small memory.
    fn read(&self, size: usize) -> io::Result<usize> {
        SCRATCH.with_borrow_mut(|scratch| {
            let size = size.min(scratch.len());
            let n = self.receive(&mut scratch[..size])?;
            self.input.borrow_mut().extend_from_slice(&scratch[..n]);
            Ok(n)
        })
    }

    /// Gives the memory of the input back while it is empty.
    fn release_input(&self) {
        let input = &mut *self.input.borrow_mut();
        if input.is_empty() && input.capacity() > 0 {
            *input = BytesMut::new();
        }
    }

    /// As other threads know it, announced when first asked for.
    fn announce(self: &Rc<Self>) -> RemoteId {
        self.remote_id.id(self)
    }

    fn on_readable(self: &Rc<Self>) {
        match self.state.get() {
            State::Announced => self.read_proxy_header(),
            State::Idle | State::Head => self.read_head(),
            State::Busy => self.read_while_busy(),
            State::Discard => self.discard(),
            State::Linger => self.linger(),
            State::Closed => (),
        }
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

    /// Whether writing to the client has failed.
    pub fn is_broken(&self) -> bool {
        self.broken.get()
    }
}

impl Source for Http1 {
    fn panicked(self: Rc<Self>) {
        let request = self.request.borrow().clone();
        if let Some(r) = request {
            finalize::abort(&r);
        }
        if self.state.get() != State::Closed {
            self.abort();
        }
    }

    fn ready(self: Rc<Self>, ready: Ready) {
        if ready.readable {
            self.readable.set(true);
        }
        let closed = match (ready.hung_up, ready.read_closed) {
            (true, _) => Closed::Both,
            (false, true) => Closed::Read,
            (false, false) => Closed::No,
        };
        self.closed.set(self.closed.get().max(closed));
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
            (READ_TIMER, State::Announced, _) => self.proxy_header_timed_out(),
            (READ_TIMER, State::Head, _) => {
                log_line!(
                    Level::Info,
                    "*{} client timed out while sending a request head{}",
                    self.number,
                    self.log_tail()
                );
                self.give_up_head(408);
            }
            (READ_TIMER, State::Busy, Some(r)) => {
                log_line!(Level::Info, "*{} client timed out while sending its body{}", self.number, r.log_tail());
                finalize::close_unanswered(&r, Some(408));
            }
            (SEND_TIMER, _, Some(r)) => {
                log_line!(Level::Info, "*{} client timed out while reading the response{}", self.number, r.log_tail());
                finalize::close_unanswered(&r, None);
            }
            _ => self.close(),
        }
    }

    /// Between two requests, before the first, and while nothing is left but to see the client leave (as in nginx).
    fn idle_since(&self) -> Option<u64> {
        let core = &self.address.names.default_server().place.core;
        let time = match self.state.get() {
            State::Idle if self.requests.get() > 0 => self.place.get().core.keepalive_timeout,
            State::Announced | State::Idle => core.client_header_timeout,
            // These come last: a response may still be on its way to the client.
            State::Linger => Duration::ZERO,
            State::Head | State::Busy | State::Discard | State::Closed => return None,
        };
        // Kept nowhere: the timer says it.
        let until = self.lp.timer_deadline(self.read_timer.get()?)?;
        let since = until.saturating_sub(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let is_new = self.requests.get() == 0 && self.lp.now_ms() < since.saturating_add(FIRST_BYTES);
        (!is_new).then_some(since)
    }

    fn give_way(self: Rc<Self>) {
        self.close();
    }

    fn drain(self: Rc<Self>) {
        if matches!(self.state.get(), State::Announced | State::Idle) {
            self.end_soon();
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
            BODY_DONE => self.body_done(),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten thousand idle connections are ten thousand of these, with a timer and a place in the loop's list each.
    #[test]
    fn a_connection_is_small() {
        assert!(size_of::<Http1>() <= 280, "{}", size_of::<Http1>());
    }
}
