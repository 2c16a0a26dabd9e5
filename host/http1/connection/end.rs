//! What follows a request: the next one, the rest of its body, lingering, or an end.

use std::{net::Shutdown, rc::Rc, time::Duration};

use bytes::BytesMut;

use super::{BODY_READ_SIZE, Http1, MAX_READS, NEXT_REQUEST, State, body::BodyReader};
use crate::{event::remote, request::Request, stats};

/// How long the rest of a body is read on after the response, in all and between two reads (nginx: lingering_time,
/// lingering_timeout).
const LINGERING_TIME: Duration = Duration::from_secs(30);
const LINGERING_TIMEOUT: Duration = Duration::from_secs(5);
impl Http1 {
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
        self.pipelined.set(!self.input.borrow().is_empty());
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
    pub(super) fn discard(self: &Rc<Self>) {
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

    pub(super) fn linger(self: &Rc<Self>) {
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
    pub(super) fn close(self: &Rc<Self>) {
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
