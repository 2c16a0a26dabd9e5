//! A client that asks one thing at a time on one connection, and reads the answer whole.
//!
//! ```text
//! let mut client = Client::connect(address)?;
//! let answer = client.ask(&Request::get("/1k"))?;      // Answer { status: 200, body: 1024 bytes }
//! ```
//!
//! This reads just enough of HTTP/1.1 (RFC 9112) for that: a Content-Length or chunks, no trailers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::cases::Request;

/// How long a connection, a read or a write may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest body that is read: several times the largest file.
const MAX_BODY: u64 = 16 * 1024 * 1024;

/// The longest line, and the most lines, of a header.
const MAX_LINE: u64 = 8 * 1024;
const MAX_LINES: usize = 100;

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// A connection that is kept.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Result<Client, String> {
        let connect = || {
            let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            Ok(stream)
        };
        let stream = connect().map_err(|error: io::Error| format!("{address}: {error}"))?;
        // Ten thousand of these are kept open; a small buffer is enough for a small answer.
        Ok(Client { address, stream: BufReader::with_capacity(1024, stream) })
    }

    /// One GET.
    pub fn ask(&mut self, request: &Request) -> Result<Answer, String> {
        let text = text(request, self.address);
        self.send(request, text.as_bytes())?;
        self.answer(request)
    }

    /// Sends the first half of the head of a GET.
    pub fn send_half(&mut self, request: &Request) -> Result<(), String> {
        let text = text(request, self.address);
        self.send(request, &text.as_bytes()[..text.len() / 2])
    }

    /// Sends the other half, and reads the answer.
    pub fn send_rest(&mut self, request: &Request) -> Result<Answer, String> {
        let text = text(request, self.address);
        self.send(request, &text.as_bytes()[text.len() / 2..])?;
        self.answer(request)
    }

    fn send(&mut self, request: &Request, bytes: &[u8]) -> Result<(), String> {
        self.stream.get_mut().write_all(bytes).map_err(|error| self.failed(request, &error))
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, String> {
        read_answer(&mut self.stream).map_err(|error| self.failed(request, &error))
    }

    fn failed(&self, request: &Request, error: &io::Error) -> String {
        format!("GET http://{}{}: {error}", self.address, request.path)
    }
}

/// A request as it is sent.
fn text(request: &Request, address: SocketAddr) -> String {
    let mut text = format!("GET {} HTTP/1.1\r\n", request.path);
    if !request.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str(&format!("Host: {address}\r\n"));
    }
    for (name, value) in &request.fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n"
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn read_answer(stream: &mut impl BufRead) -> io::Result<Answer> {
    let line = read_line(stream)?;
    let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| invalid(format!("not a status line: {line:?}")))?;
    let (mut length, mut chunked) = (None, false);
    for lines in 0.. {
        let line = read_line(stream)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid(format!("not a header line: {line:?}")))?;
        match &*name.to_ascii_lowercase() {
            "content-length" => length = value.trim().parse::<u64>().ok(),
            "transfer-encoding" => chunked = value.trim() == "chunked",
            _ if lines > MAX_LINES => return Err(invalid(format!("more than {MAX_LINES} header lines"))),
            _ => {}
        }
    }
    let mut body = Vec::new();
    match length {
        _ if chunked => read_chunks(stream, &mut body)?,
        Some(length) => read_exact(stream, length, &mut body)?,
        None => return Err(invalid("the answer has neither a Content-Length nor chunks".into())),
    }
    Ok(Answer { status, body })
}

fn read_chunks(stream: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_line(stream)?;
        let size = u64::from_str_radix(&line, 16).map_err(|_| invalid(format!("not the size of a chunk: {line:?}")))?;
        read_exact(stream, size, body)?;
        match &*read_line(stream)? {
            "" if size == 0 => return Ok(()),
            "" => {}
            line => return Err(invalid(format!("{line:?} behind a chunk"))),
        }
    }
}

fn read_exact(stream: &mut impl BufRead, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
    if body.len() as u64 + length > MAX_BODY {
        return Err(invalid(format!("the body is longer than {MAX_BODY} bytes")));
    }
    match stream.take(length).read_to_end(body)? as u64 {
        read if read == length => Ok(()),
        read => Err(invalid(format!("the connection ends after {read} of {length} bytes of the body"))),
    }
}

/// A line that ends in CRLF, without it.
fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(MAX_LINE).read_until(b'\n', &mut line)?;
    let line = String::from_utf8_lossy(&line);
    let text = line.strip_suffix("\r\n");
    text.map(str::to_owned).ok_or_else(|| invalid(format!("the answer has no complete header: it ends in {line:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(answer: &str) -> Result<Answer, String> {
        read_answer(&mut answer.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn answers_with_a_length_and_in_chunks() {
        let answer = |body: &str| Ok(Answer { status: 404, body: body.as_bytes().to_vec() });
        let head = "HTTP/1.1 404 Not Found\r\nServer: x\r\n";
        assert_eq!(read(&format!("{head}content-length: 3\r\n\r\na\r\nrest")), answer("a\r\n"));
        let chunks = "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n";
        assert_eq!(read(&format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}")), answer("hello!"));
    }

    #[test]
    fn bad_answers_say_what_is_wrong() {
        let refused = |answer: &str| read(answer).unwrap_err();
        assert_eq!(refused(""), "the answer has no complete header: it ends in \"\"");
        assert_eq!(refused("HTTP/1.1 200 OK\r\nA: "), "the answer has no complete header: it ends in \"A: \"");
        assert_eq!(refused("HTTP/2 200\r\n\r\n"), "not a status line: \"HTTP/2 200\"");
        assert_eq!(refused("HTTP/1.1 2\r\n\r\n"), "not a status line: \"HTTP/1.1 2\"");
        assert_eq!(refused("HTTP/1.1 200 OK\r\n\r\nok"), "the answer has neither a Content-Length nor chunks");
        assert_eq!(
            refused("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"),
            "the connection ends after 2 of 3 bytes of the body"
        );
        assert!(refused("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n").contains("longer than"));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(refused(&format!("{chunked}x\r\n")), "not the size of a chunk: \"x\"");
        assert_eq!(refused(&format!("{chunked}1\r\nab\r\n")), "\"b\" behind a chunk");
    }

    #[test]
    fn a_host_of_its_own_replaces_the_address() {
        let address = "127.0.0.1:80".parse().unwrap();
        assert_eq!(text(&Request::get("/a"), address), "GET /a HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n");
        let request = Request::get("/a").field("Host", "x.example").field("A", "b");
        assert_eq!(text(&request, address), "GET /a HTTP/1.1\r\nHost: x.example\r\nA: b\r\n\r\n");
    }
}
