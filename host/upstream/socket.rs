//! The socket to a peer: a new connection or a kept one, registered with the loop while a request uses it.

use std::{
    cell::{RefCell, RefMut},
    io::{self, Read},
    net::SocketAddr,
    rc::Rc,
};

use mio::{Token, net::TcpStream};

use super::{
    Exchange,
    peers::{Idle, Keepalive},
};
use crate::{
    event::{Loop, Ready, Source},
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
    stream: RefCell<TcpStream>,
    token: Token,
    /// Requests that it has served before.
    pub requests: u32,
    readable: bool,
    read_closed: bool,
    end: bool,
}

impl Socket {
    /// Begins to connect.
    pub fn connect(address: SocketAddr, exchange: &Rc<Exchange>) -> io::Result<Socket> {
        Socket::register(TcpStream::connect(address)?, 0, exchange)
    }

    /// Takes a kept connection into use.
    pub fn kept(idle: Idle, exchange: &Rc<Exchange>) -> io::Result<Socket> {
        Socket::register(TcpStream::from_std(idle.socket), idle.requests, exchange)
    }

    fn register(mut stream: TcpStream, requests: u32, exchange: &Rc<Exchange>) -> io::Result<Socket> {
        if requests == 0 {
            // Only a delay is lost if it cannot be set.
            let _ = stream.set_nodelay(true);
        }
        let source: Rc<dyn Source> = exchange.clone();
        let token = exchange.r.conn.lp.register(&mut stream, source)?;
        let stream = RefCell::new(stream);
        Ok(Socket { stream, token, requests, readable: false, read_closed: false, end: false })
    }

    /// The stream, to write to.
    pub fn stream(&self) -> RefMut<'_, TcpStream> {
        self.stream.borrow_mut()
    }

    /// Notes what an event says.
    pub fn note(&mut self, ready: Ready) {
        self.readable |= ready.readable;
        self.read_closed |= ready.read_closed;
    }

    /// Whether the connection is made; an error if it failed.
    pub fn connected(&self) -> io::Result<bool> {
        let stream = self.stream.borrow();
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads once, at most `size` bytes, and hands them to `take`, which copies what it needs: so what waits for a slow
    /// client is as large as its content, however small the pieces are that the peer sends. `None`: nothing, or the end.
    pub fn read<T>(&mut self, size: usize, take: impl FnOnce(&[u8]) -> T) -> io::Result<Option<T>> {
        if !self.readable || self.end {
            return Ok(None);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let size = size.min(scratch.len());
            let result = loop {
                match self.stream.borrow_mut().read(&mut scratch[..size]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                    result => break result,
                }
            };
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
        let mut stream = self.stream.into_inner();
        lp.deregister(&mut stream, self.token);
        keepalive.put(peer, std::net::TcpStream::from(stream), self.requests + 1, stats::now_ms());
    }

    /// Closes it.
    pub fn close(self, lp: &Loop) {
        lp.deregister(&mut *self.stream.borrow_mut(), self.token);
    }
}
