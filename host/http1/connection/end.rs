//! What follows a request: the next one, the rest of its body, lingering, or an end.

use std::{net::Shutdown, ops::ControlFlow, rc::Rc, time::Duration};

use super::{BODY_READ_SIZE, Http1, MAX_READS, NEXT_REQUEST, State, body::BodyReader, browsers};
use crate::{
    config::{HttpCore, Lingering},
    event::Source,
    http1::Method,
    log::error::Level,
    log_line,
    request::Request,
    stats,
};

/// How long a connection stays open while the worker drains, behind its last response: a client that is about to send
/// another request on it would lose that. It is answered, and told that the connection ends.
const LAST_REQUEST: Duration = Duration::from_secs(1);

impl Http1 {
    /// Whether another request may follow one in a place with these directives.
    pub(super) fn may_be_kept(&self, r: &Request, core: &HttpCore) -> bool {
        let disabled = core.keepalive_disable;
        self.lp.draining_since().is_none()
            && !core.keepalive_timeout.is_zero()
            && self.requests.get() < core.keepalive_requests
            && u128::from(self.lp.now_ms() - self.accepted_ms) <= core.keepalive_time.as_millis()
            && !(disabled.msie6 && r.method() == Method::Post && r.is_by(browsers::is_msie6))
            && !(disabled.safari && r.is_by(browsers::is_safari))
    }

    /// The response has left: what follows on this connection?
    pub fn request_done(self: &Rc<Self>, r: &Rc<Request>) {
        self.place.set(r.place());
        self.forget_request();
        if !self.keep.get() {
            return self.begin_linger();
        }
        if !r.body_complete.get() && self.expects_more() {
            self.state.set(State::Discard);
            self.start_lingering_time();
            return self.lp.post(self.clone(), NEXT_REQUEST);
        }
        self.next_request();
    }

    /// The worker drains, and this connection is idle.
    pub(super) fn end_soon(self: &Rc<Self>) {
        let now = self.lp.now_ms();
        let idle_for = Duration::from_millis(now.saturating_sub(self.idle_since().unwrap_or(now)));
        match LAST_REQUEST.checked_sub(idle_for).filter(|left| !left.is_zero()) {
            Some(left) => self.start_read_timer(left),
            None => {
                // What has come since the loop looked is a request still.
                self.readable.set(true);
                self.on_readable();
                if matches!(self.state.get(), State::Announced | State::Idle) {
                    self.close();
                }
            }
        }
    }

    /// The request has ended. What few of them need goes with it: an idle connection has one timer, and no other thread
    /// knows it.
    fn forget_request(&self) {
        if self.request.replace(None).is_some() {
            stats::add(stats::Counter::Running, -1);
        }
        if let Some(timer) = self.send_timer.get() {
            self.lp.remove_timer(timer);
            self.send_timer.set(None);
        }
        self.remote_id.forget();
    }

    fn next_request(self: &Rc<Self>) {
        self.state.set(State::Idle);
        let more = !self.input.borrow().is_empty();
        self.pipelined.set(more);
        // An idle connection costs no buffer.
        self.release_input();
        if self.eof.get() && !more {
            return self.close();
        }
        let is_last = self.lp.draining_since().is_some();
        self.start_read_timer(if is_last { LAST_REQUEST } else { self.place.get().core.keepalive_timeout });
        if more || self.readable.get() {
            // Not at once, so that a client that pipelines does not make this recurse; and now and then others get their
            // turn.
            match self.requests.get() as usize % MAX_READS {
                0 => self.read_later(),
                _ => self.lp.post(self.clone(), NEXT_REQUEST),
            }
        }
    }

    /// Reads the rest of a body that no handler wanted.
    pub(super) fn discard(self: &Rc<Self>) {
        self.read_past(|| {
            match self.decode_body(&mut drop) {
                Ok(false) => return ControlFlow::Continue(()),
                Ok(true) => self.next_request(),
                Err(bad) => {
                    let text = "after its response, in a body that was not wanted";
                    let tail = self.log_tail_in(self.place.get());
                    log_line!(Level::Info, "*{} {bad} {text}: the connection is closed{tail}", self.number);
                    self.close();
                }
            }
            ControlFlow::Break(())
        });
    }

    /// Reads what nobody wants, until `take`, which takes it from the input, ends that, or the client, or the time is over.
    fn read_past(self: &Rc<Self>, take: impl Fn() -> ControlFlow<()>) {
        for _ in 0..MAX_READS {
            if take().is_break() {
                return;
            }
            if self.lp.now_ms() > self.linger_until_ms.get() {
                return self.close();
            }
            match self.read(BODY_READ_SIZE) {
                Ok(0) if self.eof.get() => return self.close(),
                Ok(0) => return self.wait_lingering(),
                Ok(_) => (),
                Err(_) => return self.close(),
            }
        }
        self.read_later();
    }

    /// Closes our side, and reads on for a while: a client that still sends would else lose the response to a reset.
    fn begin_linger(self: &Rc<Self>) {
        let unread = || self.readable.get() || !self.input.borrow().is_empty() || self.expects_more();
        let lingers = match self.place.get().core.lingering_close {
            Lingering::Off => false,
            Lingering::On => unread(),
            Lingering::Always => true,
        };
        if self.eof.get() || !lingers {
            return self.close();
        }
        let _ = self.socket.shutdown(Shutdown::Write);
        self.state.set(State::Linger);
        self.start_lingering_time();
        self.linger();
    }

    fn start_lingering_time(&self) {
        let time = u64::try_from(self.place.get().core.lingering_time.as_millis()).unwrap_or(u64::MAX);
        self.linger_until_ms.set(self.lp.now_ms().saturating_add(time));
    }

    /// Waits for what else the client sends.
    fn wait_lingering(&self) {
        self.release_input();
        let left = Duration::from_millis(self.linger_until_ms.get().saturating_sub(self.lp.now_ms()));
        self.start_read_timer(self.place.get().core.lingering_timeout.min(left));
    }

    /// Whether the client may still be sending a body, or what it took for one.
    fn expects_more(&self) -> bool {
        !matches!(&*self.reader.borrow(), BodyReader::Nothing | BodyReader::Length(0))
    }

    pub(super) fn linger(self: &Rc<Self>) {
        self.read_past(|| {
            self.input.borrow_mut().clear();
            ControlFlow::Continue(())
        });
    }

    /// Closes with a reset, so that the client does not take what it has for the whole response.
    pub fn abort(self: &Rc<Self>) {
        let sent = self.queue.borrow_mut().clear();
        drop(sent);
        // The reset has to leave before the shutdown in `close`, which sends an orderly end: to a client that reads until
        // the end of the connection that would be a whole response.
        let reset = rustix::net::connect_unspec(&self.socket);
        if reset.is_err() {
            let _ = socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        }
        self.close();
    }

    /// Closes because the client did not keep its time. Without reset_timedout_connection the kernel goes on sending what
    /// it has, and the client takes the end of the connection for an end; if nothing else tells it that the response is
    /// not whole, the connection is reset in any case.
    pub fn close_timed_out(self: &Rc<Self>, r: &Request) {
        let framed = r.chunked.get() || r.content_length.get().is_some() || !r.header_sent.get();
        if r.place().core.reset_timedout_connection || !framed { self.abort() } else { self.close() }
    }

    /// Closes.
    pub fn close(self: &Rc<Self>) {
        if self.state.replace(State::Closed) == State::Closed {
            return;
        }
        self.forget_request();
        if let Some(timer) = self.read_timer.take() {
            self.lp.remove_timer(timer);
        }
        if let Some(id) = self.socket_id.take() {
            self.lp.deregister(&mut &self.socket, id);
        }
        // Both directions end now, though the descriptor is closed with the last owner of this connection.
        let _ = self.socket.shutdown(Shutdown::Both);
        stats::add(stats::Counter::Connections, -1);
    }
}
