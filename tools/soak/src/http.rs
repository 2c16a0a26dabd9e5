//! The client's side of HTTP/1.1, on blocking sockets with time-outs: just enough to know what an answer is.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

/// How long a good client waits. Longer than any time-out of the server.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// The longest body that is read.
const MAX_BODY: u64 = 16 * 1024 * 1024;
const MAX_LINE: u64 = 16 * 1024;
const MAX_LINES: usize = 100;

/// What came back.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The server closes behind it.
    pub closes: bool,
}

impl Answer {
    /// The value of a field, by its name in lowercase.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }
}

/// The server, as one client sees it.
#[derive(Debug)]
pub struct Target {
    address: SocketAddr,
    port: Cell<u16>,
}

impl Target {
    pub fn new(address: SocketAddr) -> Target {
        Target { address, port: Cell::new(0) }
    }

    /// The client's port of the connection that was opened last, by which the server's logs know it; 0: there was none.
    pub fn port(&self) -> u16 {
        self.port.get()
    }
}

/// A connection to the server.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(target: &Target) -> io::Result<Connection> {
        Connection::with_window(target, None)
    }

    /// With a receive buffer of so many bytes, so that the server soon waits for the client.
    pub fn with_window(target: &Target, window: Option<usize>) -> io::Result<Connection> {
        let address = target.address;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if let Some(window) = window {
            socket.set_recv_buffer_size(window)?;
        }
        socket.connect_timeout(&address.into(), TIMEOUT)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        socket.set_tcp_nodelay(true)?;
        let stream = TcpStream::from(socket);
        target.port.set(stream.local_addr()?.port());
        Ok(Connection { stream: BufReader::new(stream) })
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads one answer; `head` says that it has no body.
    pub fn answer(&mut self, head: bool) -> io::Result<Answer> {
        read_answer(&mut self.stream, head)
    }

    /// Reads some bytes as they come, at most the buffer's length.
    pub fn read_some(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf)
    }

    /// Reads all until the server closes. A reset ends it too: bytes that the server did not read make one.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        match self.stream.by_ref().take(MAX_BODY).read_to_end(&mut rest) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
            _ => Ok(rest),
        }
    }

    /// Closes with a reset instead of an orderly end.
    pub fn reset(self) -> io::Result<()> {
        SockRef::from(self.stream.get_ref()).set_linger(Some(Duration::ZERO))
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Reads an answer; those with status 100 before it are passed over.
pub fn read_answer(stream: &mut impl BufRead, head: bool) -> io::Result<Answer> {
    let mut answer = read_head(stream)?;
    while answer.status == 100 {
        answer = read_head(stream)?;
    }
    answer.closes = answer.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    if head || matches!(answer.status, 204 | 304) {
        return Ok(answer);
    }
    let length = answer.field("content-length").map(|value| value.parse::<u64>());
    match (answer.field("transfer-encoding"), length) {
        (Some("chunked"), None) => {
            let mut body = Vec::new();
            while read_chunk(stream, &mut body)? {}
            answer.body = body;
        }
        (None, Some(Ok(length))) => read_exact(stream, length, &mut answer.body)?,
        (None, None) if answer.closes => {
            stream.take(MAX_BODY).read_to_end(&mut answer.body)?;
        }
        found => return Err(invalid(format!("an answer whose body has no end: {found:?}"))),
    }
    Ok(answer)
}

fn read_head(stream: &mut impl BufRead) -> io::Result<Answer> {
    let line = read_line(stream)?;
    let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| invalid(format!("not a status line: {line:?}")))?;
    let mut fields = Vec::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            return Ok(Answer { status, fields, ..Answer::default() });
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid(format!("not a header line: {line:?}")))?;
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        if fields.len() > MAX_LINES {
            return Err(invalid(format!("more than {MAX_LINES} header lines")));
        }
    }
}

/// Reads a chunk; false for the last one.
pub fn read_chunk(stream: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<bool> {
    let line = read_line(stream)?;
    let size = u64::from_str_radix(&line, 16).map_err(|_| invalid(format!("not the size of a chunk: {line:?}")))?;
    read_exact(stream, size, body)?;
    match &*read_line(stream)? {
        "" => Ok(size > 0),
        line => Err(invalid(format!("{line:?} behind a chunk"))),
    }
}

pub fn read_exact(stream: &mut impl BufRead, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
    if body.len() as u64 + length > MAX_BODY {
        return Err(invalid(format!("a body longer than {MAX_BODY} bytes")));
    }
    match stream.take(length).read_to_end(body)? as u64 {
        read if read == length => Ok(()),
        read => {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the body ends after {read} of {length} bytes")))
        }
    }
}

/// A line that ends in CRLF, without it.
pub fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(MAX_LINE).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"));
    }
    let line = String::from_utf8_lossy(&line);
    let text = line.strip_suffix("\r\n");
    text.map(str::to_owned).ok_or_else(|| invalid(format!("a line that does not end in CRLF: {line:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(answer: &str) -> Result<Answer, String> {
        read_answer(&mut answer.as_bytes(), false).map_err(|error| error.to_string())
    }

    #[test]
    fn answers_of_each_form() {
        let body = |answer: &str| read(answer).map(|answer| (answer.status, String::from_utf8(answer.body).unwrap()));
        let hello = |status| Ok((status, "hello".to_owned()));
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP"), hello(200));
        let chunked = "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(body(&format!("{chunked}2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")), hello(404));
        assert_eq!(body("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"), hello(200));
        assert_eq!(body("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"), Ok((204, String::new())));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(read("").unwrap_err(), "the connection was closed");
        assert_eq!(
            read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe").unwrap_err(),
            "the body ends after 2 of 5 bytes"
        );
        assert!(read("HTTP/1.1 200 OK\r\n\r\nhe").unwrap_err().contains("has no end"));
        assert!(read("HTTP/1.1 200 OK\n\r\n").unwrap_err().contains("does not end in CRLF"));
    }
}
