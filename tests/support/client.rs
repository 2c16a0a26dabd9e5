//! A client that sends what it is told to, and reads responses strictly: what no server should send fails the test.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::PATIENCE;

/// A connection to the server. Each read and write takes at most [`PATIENCE`].
pub struct Client {
    /// The socket.
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By the server's end of stream.
    Closed,
    /// By a reset.
    Reset,
}

/// A response, whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// The head as it came, with the empty line.
    pub head: String,
    /// Names and values.
    pub fields: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
    /// The sizes of its chunks, if it came in chunks.
    pub chunks: Option<Vec<usize>>,
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        Client::of(stream)
    }

    /// On this socket.
    pub fn of(stream: TcpStream) -> Client {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream, buffer: Vec::new() }
    }

    /// Connects to a unix socket.
    pub fn unix(path: &Path) -> Client {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        // What a client does with its socket are the same calls for both kinds.
        Client { stream: OwnedFd::from(stream).into(), buffer: Vec::new() }
    }

    /// With a small receive buffer, so that the server soon has to wait.
    pub fn slow(address: SocketAddr) -> Client {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(8192).unwrap();
        socket.connect_timeout(&address.into(), PATIENCE).unwrap();
        Client::of(socket.into())
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends bytes; false if the server has closed.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends each piece in a segment of its own.
    pub fn send_pieces<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) {
        for piece in pieces {
            self.send(piece);
        }
    }

    /// Says that nothing more comes.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    /// Reads the response to GET.
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// Reads the response to a request with this method.
    pub fn response_to(&mut self, method: &str) -> Response {
        self.try_response_to(method).unwrap_or_else(|error| {
            panic!("no whole response: {error}, after {:?}", self.buffer.escape_ascii().to_string())
        })
    }

    /// As [`response_to`](Client::response_to), unless the connection ends before its end.
    pub fn try_response_to(&mut self, method: &str) -> io::Result<Response> {
        let mut response = self.head()?;
        let length = response.field("Content-Length").map(|text| text.parse::<usize>().unwrap());
        let chunked = response.field("Transfer-Encoding").map(|coding| assert_eq!(coding, "chunked", "{response:?}"));
        assert!(length.is_none() || chunked.is_none(), "two framings: {response:?}");
        if method == "HEAD" || matches!(response.status, 100..=199 | 204 | 304) {
            return Ok(response);
        }
        match (length, chunked) {
            (Some(length), _) => response.body = self.take(length)?,
            (None, Some(())) => self.chunks(&mut response)?,
            // Until the end of the connection (RFC 9112, 6.3).
            (None, None) => {
                while self.fill()? {}
                response.body = std::mem::take(&mut self.buffer);
            }
        }
        Ok(response)
    }

    /// Reads the head of a response; its body is still to come.
    pub fn head(&mut self) -> io::Result<Response> {
        let end = self.until(b"\r\n\r\n")?;
        let head = String::from_utf8(self.take(end)?).expect("a head is UTF-8");
        let mut lines = head[..head.len() - 4].split("\r\n");
        let first = lines.next().unwrap();
        let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split_once(' ')).map(|(code, _)| code);
        let status = status.and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("status line {first:?}"));
        assert!(!head.replace("\r\n", "").contains(['\r', '\n', '\0']), "{head:?}");
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("header line {line:?} in {head:?}"));
            let token = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            assert!(!name.is_empty() && name.chars().all(token), "header line {line:?} in {head:?}");
            (name.to_owned(), value.to_owned())
        });
        let fields: Vec<(String, String)> = fields.collect();
        Ok(Response { status, fields, head, body: Vec::new(), chunks: None })
    }

    fn chunks(&mut self, response: &mut Response) -> io::Result<()> {
        let mut sizes = Vec::new();
        loop {
            let end = self.until(b"\r\n")?;
            let line = String::from_utf8(self.take(end)?).unwrap();
            let size = usize::from_str_radix(line.trim_end(), 16).unwrap_or_else(|_| panic!("chunk size {line:?}"));
            if size > 0 {
                sizes.push(size);
                response.body.extend(self.take(size)?);
            }
            let end = self.take(2)?;
            assert_eq!(end, b"\r\n", "behind a chunk of {size} bytes");
            if size == 0 {
                response.chunks = Some(sizes);
                return Ok(());
            }
        }
    }

    /// The number of bytes up to the end of `mark`.
    fn until(&mut self, mark: &[u8]) -> io::Result<usize> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|window| window == mark) {
                return Ok(at + mark.len());
            }
            assert!(self.buffer.len() < 1 << 20, "no end of a head");
            if !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Takes so many bytes of what comes.
    pub fn take(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < len {
            if !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..len).collect())
    }

    /// Reads once: false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let start = self.buffer.len();
        self.buffer.resize(start + 64 * 1024, 0);
        let result = loop {
            match self.stream.read(&mut self.buffer[start..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                result => break result,
            }
        };
        self.buffer.truncate(start + *result.as_ref().unwrap_or(&0));
        result.map(|n| n > 0)
    }

    /// How the connection ends; nothing may come before that.
    pub fn end(&mut self) -> Ending {
        let ending = loop {
            match self.fill() {
                Ok(true) => (),
                Ok(false) => break Ending::Closed,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break Ending::Reset,
                Err(error) => panic!("the connection does not end: {error}"),
            }
        };
        assert_eq!(self.buffer.escape_ascii().to_string(), "", "more than was expected");
        ending
    }

    /// All that comes until the connection ends.
    pub fn rest(&mut self) -> String {
        let (text, _) = self.rest_and_end();
        text
    }

    /// All that comes until the connection ends, and how it ends.
    pub fn rest_and_end(&mut self) -> (String, Ending) {
        let ending = loop {
            match self.fill() {
                Ok(true) => (),
                Ok(false) => break Ending::Closed,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break Ending::Reset,
                Err(error) => panic!("{error} after {:?}", self.buffer.escape_ascii().to_string()),
            }
        };
        (String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned(), ending)
    }
}

impl Response {
    /// The value of a field, of which there may be one at most.
    pub fn field(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() < 2, "{name} {} times in {self:?}", values.len());
        values.first().copied()
    }

    /// The values of a field, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|(_, value)| value.as_str()).collect()
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_else(|_| panic!("not UTF-8: {self:?}"))
    }

    /// Fails unless the status is this one.
    pub fn expect(self, status: u16) -> Response {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.body[..self.body.len().min(300)];
        write!(f, "{}{}", self.head, shown.escape_ascii())?;
        if shown.len() < self.body.len() { write!(f, "... ({} bytes)", self.body.len()) } else { Ok(()) }
    }
}
