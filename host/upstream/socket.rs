//! The socket to a peer: a new connection or a kept one, registered with the loop while a request uses it.

use std::{cell::RefCell, io, rc::Rc};

use super::{
    Exchange,
    peers::{Idle, Keepalive},
};
use crate::{
    event::{Loop, Ready, SocketId, Source},
    socket::{self, Endpoint},
    stats,
};

/// Bytes that one read takes at the most.
pub const READ_SIZE: usize = 32 * 1024;

thread_local! {
    /// Where reads go to first.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// A connection to a peer, in use.
pub struct Socket {
    stream: socket::Socket,
    id: SocketId,
    /// Requests that it has served before.
    pub requests: u32,
    readable: bool,
    read_closed: bool,
    end: bool,
}

impl Socket {
    /// Begins to connect.
    pub fn connect(to: &Endpoint, exchange: &Rc<Exchange>) -> io::Result<Socket> {
        let stream = socket::Socket::connect(to)?;
        if matches!(to, Endpoint::Ip(_)) {
            stream.set_nodelay(true);
        }
        Socket::register(stream, 0, exchange)
    }

    /// Takes a kept connection into use.
    pub fn kept(idle: Idle, exchange: &Rc<Exchange>) -> io::Result<Socket> {
        Socket::register(idle.socket, idle.requests, exchange)
    }

    fn register(stream: socket::Socket, requests: u32, exchange: &Rc<Exchange>) -> io::Result<Socket> {
        let source: Rc<dyn Source> = exchange.clone();
        let id = exchange.r.conn.lp.register(&mut &stream, source)?;
        Ok(Socket { stream, id, requests, readable: false, read_closed: false, end: false })
    }

    /// The stream, to write to.
    pub fn stream(&self) -> &socket::Socket {
        &self.stream
    }

    /// Notes what an event says.
    pub fn note(&mut self, ready: Ready) {
        self.readable |= ready.readable;
        self.read_closed |= ready.read_closed;
    }

    /// Whether the connection is made; an error if it failed.
    pub fn connected(&self) -> io::Result<bool> {
        self.stream.connected()
    }

    /// Reads once, at most `size` bytes, and hands them to `take`, which copies what it needs: so what waits for a slow
    /// client is as large as its content, however small the pieces are that the peer sends. `None`: nothing, or the end.
    pub fn read<T>(&mut self, size: usize, take: impl FnOnce(&[u8]) -> T) -> io::Result<Option<T>> {
        if !self.readable || self.end {
            return Ok(None);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let size = size.min(scratch.len());
            let result = self.stream.read(&mut scratch[..size]);
            match result {
                Ok(0) => {
                    self.end = true;
                    Ok(None)
                }
                Ok(n) => {
                    // Edge-triggered: a short read has drained the socket, unless the end is still to come.
                    self.readable = n == size || self.read_closed;
                    Ok(Some(take(&scratch[..n])))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        })
    }

    /// Whether the peer has closed.
    pub fn at_end(&self) -> bool {
        self.end
    }

    /// Keeps the connection for another request.
    pub fn keep(self, lp: &Loop, keepalive: &Keepalive, peer: usize) {
        lp.deregister(&mut &self.stream, self.id);
        keepalive.put(peer, self.stream, self.requests + 1, stats::now_ms());
    }

    /// Closes it.
    pub fn close(self, lp: &Loop) {
        lp.deregister(&mut &self.stream, self.id);
    }
}
