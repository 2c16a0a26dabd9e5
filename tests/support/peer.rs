//! Peers of an upstream: scripted ones, whose test reads as a transcript, and ones that answer by themselves.
//!
//! ```text
//! let peer = Peer::new();
//! client.send("GET / HTTP/1.1\r\n...");
//! let mut connection = peer.accept();
//! connection.expect("GET / HTTP/1.1\r\n...");
//! connection.reply("HTTP/1.1 200 OK\r\n...");
//! ```

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, SockRef, Socket, Type};

use super::PATIENCE;

/// A server that does what the test says.
pub struct Peer {
    listener: TcpListener,
    /// Where it is.
    pub port: u16,
}

/// A connection to it.
pub struct Connection {
    /// The socket.
    pub stream: TcpStream,
}

impl Peer {
    /// One that listens.
    pub fn new() -> Peer {
        Reserved::new().listen()
    }

    /// The next connection.
    pub fn accept(&self) -> Connection {
        let start = Instant::now();
        loop {
            if let Some(connection) = self.try_accept() {
                return connection;
            }
            assert!(start.elapsed() < PATIENCE, "no connection comes to the peer");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The next connection, if there is one.
    pub fn try_accept(&self) -> Option<Connection> {
        match self.listener.accept() {
            Ok((stream, _)) => Some(Connection::of(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Fails if there is a connection that was not accepted.
    pub fn expect_no_connection(&self) {
        assert!(self.try_accept().is_none(), "another connection has come to the peer");
    }
}

impl Connection {
    fn of(stream: TcpStream) -> Connection {
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Connection { stream }
    }

    /// Reads once, whatever signals come.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                result => return result,
            }
        }
    }

    /// Reads these bytes, and no other.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let mut found = vec![0; text.len()];
        let mut read = 0;
        while read < found.len() {
            match self.read(&mut found[read..]) {
                Ok(0) => panic!("closed after {:?}", String::from_utf8_lossy(&found[..read])),
                Ok(n) => read += n,
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&found[..read])),
            }
            let found = String::from_utf8_lossy(&found[..read]);
            assert!(text.starts_with(&*found), "expected {text:?}, found {found:?}");
        }
    }

    /// Reads a head, with its empty line.
    #[track_caller]
    pub fn head(&mut self) -> String {
        self.try_head().expect("closed before the end of a head")
    }

    /// As [`head`](Connection::head); none if the connection is closed.
    pub fn try_head(&mut self) -> Option<String> {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            match self.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return None,
            }
        }
        Some(String::from_utf8(head).unwrap())
    }

    /// Reads a request, and answers it.
    #[track_caller]
    pub fn answer(&mut self, response: &str) -> String {
        let head = self.head();
        self.reply(response);
        head
    }

    /// Sends bytes.
    #[track_caller]
    pub fn reply(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Closes it with a reset.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// The server has closed it, and sent nothing before that.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let mut bytes = [0; 256];
        match self.read(&mut bytes) {
            Ok(0) => (),
            Ok(n) => panic!("expected the end, found {:?}", String::from_utf8_lossy(&bytes[..n])),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }

    /// The server has left it open, and sent nothing.
    #[track_caller]
    pub fn expect_open(&mut self) {
        self.stream.set_nonblocking(true).unwrap();
        let result = self.stream.read(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        assert!(matches!(&result, Err(error) if error.kind() == ErrorKind::WouldBlock), "{result:?}");
    }
}

/// A port where nobody listens, yet: connections are refused.
pub struct Reserved {
    socket: Socket,
    /// Its number.
    pub port: u16,
}

impl Reserved {
    /// Any free port.
    pub fn new() -> Reserved {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        Reserved { socket, port }
    }

    /// From now on connections are accepted.
    pub fn listen(self) -> Peer {
        self.socket.listen(128).unwrap();
        self.socket.set_nonblocking(true).unwrap();
        Peer { listener: self.socket.into(), port: self.port }
    }

    /// From now on connections are neither accepted nor refused, since the queue is full.
    pub fn stall(self) -> Stalled {
        self.socket.listen(0).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let mut waiting = Vec::new();
        // A slow machine may be slow to accept one: it is full when two in a row are not accepted.
        let mut refused = 0;
        while refused < 2 {
            match TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
                Ok(stream) => waiting.push(stream),
                Err(_) => refused += 1,
            }
            assert!(waiting.len() < 64, "the queue is never full");
        }
        Stalled { _socket: self.socket, _waiting: waiting, port: self.port }
    }
}

/// A port whose queue of connections is full.
pub struct Stalled {
    _socket: Socket,
    _waiting: Vec<TcpStream>,
    /// Its number.
    pub port: u16,
}

/// A peer that answers every request with its name, in threads of its own.
pub struct Named {
    /// Where it is.
    pub port: u16,
    accepted: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Named {
    /// One of this name.
    pub fn new(name: &'static str) -> Named {
        Named::at(Reserved::new(), name)
    }

    /// One of this name, at a port that was reserved.
    pub fn at(port: Reserved, name: &'static str) -> Named {
        let number = port.port;
        let listener = port.listen().listener;
        listener.set_nonblocking(false).unwrap();
        let (accepted, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let named = Named { port: number, accepted: accepted.clone(), requests: requests.clone() };
        // Its threads end with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                accepted.fetch_add(1, Ordering::SeqCst);
                let requests = requests.clone();
                thread::spawn(move || {
                    let mut connection = Connection::of(stream.unwrap());
                    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                    while connection.try_head().is_some() {
                        requests.fetch_add(1, Ordering::SeqCst);
                        if connection.stream.write_all(response.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        named
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}
