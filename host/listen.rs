//! Listening: each loop accepts the connections of its own sockets.
//!
//! Of an address of IP each loop has a socket of its own, with SO_REUSEPORT, so that the kernel spreads connections. A
//! socket file is one socket, so its loops share it: all are woken by a connection, and one gets it.

pub mod sockets;

pub mod bind;

mod sockopt;

use std::{cell::Cell, io, rc::Rc, time::Duration};

use crate::{
    config::{Listen, ListenOptions},
    error_text::ErrorText,
    event::{Loop, Ready, Room, SocketId, Source, TimerId},
    http1::{Limits, connection},
    log::error::Level,
    log_line,
    server_name::Names,
    site::Site,
    socket::Socket,
};

/// Connections that are accepted before other events get their turn.
const BATCH: usize = 64;
/// The most that are accepted at last, when the worker is to end.
const MAX_LAST: usize = 1024;
/// When accepting is tried again after it failed for want of descriptors or memory (nginx: accept_mutex_delay).
const RETRY: Duration = Duration::from_millis(500);
/// How often it is logged that accepting fails, in milliseconds.
const LOG_EVERY: u64 = 100;

/// An address that servers listen on.
#[derive(Debug)]
pub struct Address {
    /// The address. The path of a unix socket is absolute.
    pub address: Listen,
    /// The options of its socket.
    pub options: ListenOptions,
    /// The servers, by name.
    pub names: Names,
    /// The limits of the heads that come to it, which are those of the default server.
    pub head_limits: Limits,
}

/// A listening socket of one loop.
pub struct Listener {
    lp: Rc<Loop>,
    site: &'static Site,
    address: &'static Address,
    socket: Socket,
    id: Cell<Option<SocketId>>,
    retry: Cell<Option<TimerId>>,
    /// When the last failure was logged.
    logged_ms: Cell<u64>,
}

impl Listener {
    /// Has the loop accept connections.
    pub fn start(
        lp: &Rc<Loop>,
        site: &'static Site,
        address: &'static Address,
        socket: Socket,
    ) -> io::Result<Rc<Listener>> {
        let listener = Rc::new(Listener {
            lp: lp.clone(),
            site,
            address,
            socket,
            id: Cell::new(None),
            retry: Cell::new(None),
            logged_ms: Cell::new(0),
        });
        listener.retry.set(Some(lp.add_timer(listener.clone(), 0)));
        listener.id.set(Some(lp.register_listener(&mut &listener.socket, listener.clone())?));
        Ok(listener)
    }

    /// Accepts no more.
    pub fn stop(&self) {
        if let Some(id) = self.id.take() {
            self.lp.deregister(&mut &self.socket, id);
        }
        if let Some(timer) = self.retry.take() {
            self.lp.remove_timer(timer);
        }
    }

    fn accept(self: &Rc<Self>) {
        if self.id.get().is_none() {
            return;
        }
        for _ in 0..BATCH {
            let accepted = self.socket.accept();
            match accepted {
                Ok((socket, peer)) => {
                    if self.has_room() {
                        connection::accept(&self.lp, self.site, self.address, socket, peer);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_of_the_connection(&error) => (),
                Err(error) => return self.failed(&error),
            }
        }
        // Edge-triggered: there may be more.
        self.lp.post_later(self.clone());
    }

    /// Whether the loop may have another connection. One that it may not is closed at once, as in nginx: in the queue it
    /// would wait for an answer that nobody knows the time of.
    fn has_room(&self) -> bool {
        let max = self.lp.max_connections();
        match self.lp.room() {
            Room::Enough | Room::Short { warn: false } => true,
            Room::Short { warn: true } => {
                log_line!(Level::Warn, "{max} worker_connections are not enough, reusing connections");
                true
            }
            Room::Full => {
                log_line!(Level::Alert, "{max} worker_connections are not enough");
                false
            }
        }
    }

    /// Out of descriptors or memory: the connections wait in the kernel's queue.
    fn failed(self: &Rc<Self>, error: &io::Error) {
        let now = self.lp.now_ms();
        if now >= self.logged_ms.get().saturating_add(LOG_EVERY) {
            self.logged_ms.set(now);
            log_line!(Level::Crit, "accept() on {} failed ({})", self.address.address, ErrorText(error));
        }
        if self.lp.close_idle() > 0 {
            // Their descriptors are free in the next turn.
            self.lp.post_later(self.clone());
        } else if let Some(timer) = self.retry.get() {
            self.lp.start_timer(timer, RETRY);
        }
    }
}

/// Errors that only say that a connection has gone before it was accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

impl Source for Listener {
    fn panicked(self: Rc<Self>) {
        // The connection that it was accepting is lost; those behind it are not announced again.
        self.lp.post_later(self.clone());
    }

    fn ready(self: Rc<Self>, _: Ready) {
        self.accept();
    }

    fn expired(self: Rc<Self>, _: u32) {
        self.accept();
    }

    fn posted(self: Rc<Self>, _: u64) {
        self.accept();
    }

    /// Accepts what is in the queue, and no more: the address may not be there any more.
    fn drain(self: Rc<Self>) {
        for _ in 0..=MAX_LAST / BATCH {
            self.accept();
        }
        self.stop();
    }
}
