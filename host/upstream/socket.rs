//! The socket to a peer: a new connection or a kept one, registered with the loop while a request uses it.

use std::{
    cell::{Cell, RefCell, RefMut},
    io::{self, Read},
    net::SocketAddr,
    rc::Rc,
};

use bytes::BytesMut;
use mio::{Token, net::TcpStream};

use super::{
    Exchange,
    peers::{Idle, Keepalive},
};
use crate::{
    event::{Loop, Ready, Source},
    stats,
};

/// A connection to a peer, in use.
pub struct Socket {
    stream: RefCell<TcpStream>,
    token: Token,
    /// Requests that it has served before.
    pub requests: u32,
    readable: bool,
    read_closed: bool,
    end: Cell<bool>,
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
        // Only a delay is lost if it cannot be set.
        let _ = stream.set_nodelay(true);
        let source: Rc<dyn Source> = exchange.clone();
        let token = exchange.r.conn.lp.register(&mut stream, source)?;
        let stream = RefCell::new(stream);
        Ok(Socket { stream, token, requests, readable: false, read_closed: false, end: Cell::new(false) })
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

    /// Reads once, at most `size` bytes, behind what is there. 0: nothing, or the end.
    pub fn read(&mut self, input: &mut BytesMut, size: usize) -> io::Result<usize> {
        if !self.readable || self.end.get() {
            return Ok(0);
        }
        let start = input.len();
        input.resize(start + size, 0);
        let result = loop {
            match self.stream.borrow_mut().read(&mut input[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                result => break result,
            }
        };
        input.truncate(start + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => {
                self.end.set(true);
                Ok(0)
            }
            Ok(n) => {
                // Edge-triggered: a short read has drained the socket, unless the end is still to come.
                self.readable = n == size || self.read_closed;
                Ok(n)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the peer has closed.
    pub fn at_end(&self) -> bool {
        self.end.get()
    }

    /// Keeps the connection for another request.
    pub fn keep(self, lp: &Loop, keepalive: &Keepalive, peer: usize) {
        let mut stream = self.stream.into_inner();
        lp.deregister(&mut stream, self.token);
        keepalive.put(peer, std::net::TcpStream::from(stream), self.requests + 1, stats::get().now_ms());
    }

    /// Closes it.
    pub fn close(self, lp: &Loop) {
        lp.deregister(&mut *self.stream.borrow_mut(), self.token);
    }
}
