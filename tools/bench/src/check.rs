//! Asks a server once, so that two servers can be compared before they are measured.
//!
//! ```text
//! let answer = check::fetch(address, "/1k")?;      // Answer { status: 200, body: 1024 bytes }
//! ```
//!
//! This reads just enough of HTTP/1.1 (RFC 9112) for that: one answer with a Content-Length, no more.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long one read or write may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer that is read: several times the largest file.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// One GET on a connection of its own.
pub fn fetch(address: SocketAddr, path: &str) -> Result<Answer, String> {
    let failed = |error: std::io::Error| format!("GET http://{address}{path}: {error}");
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(failed)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let answer = read_to_end(&mut stream).map_err(failed)?;
    parse(&answer).map_err(|reason| format!("GET http://{address}{path}: {reason}"))
}

/// Reads until the server closes; refuses an answer that is too long or takes longer than [`TIMEOUT`] in all.
fn read_to_end(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let deadline = Instant::now() + TIMEOUT;
    let mut answer = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if answer.len() > MAX_ANSWER {
            return Err(std::io::Error::other(format!("the answer is longer than {MAX_ANSWER} bytes")));
        }
        if Instant::now() > deadline {
            return Err(ErrorKind::TimedOut.into());
        }
    }
}

/// Splits an answer into status and body, and checks the body against its Content-Length.
fn parse(answer: &[u8]) -> Result<Answer, String> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("the answer has no complete header")?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| "the header is not text")?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| format!("not a status line: {status_line:?}"))?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .ok_or("the answer has no Content-Length")?;
    if body.len() != length {
        return Err(format!("the body has {} bytes, but Content-Length is {length}", body.len()));
    }
    Ok(Answer { status, body: body.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_split() {
        let answer = parse(b"HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\nServer: x\r\n\r\na\r\n").unwrap();
        assert_eq!(answer, Answer { status: 404, body: b"a\r\n".to_vec() });
    }

    #[test]
    fn bad_answers_say_what_is_wrong() {
        let refused = |answer: &str| parse(answer.as_bytes()).unwrap_err();
        assert_eq!(refused(""), "the answer has no complete header");
        assert_eq!(refused("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"), "the answer has no complete header");
        assert_eq!(refused("HTTP/2 200\r\n\r\n"), "not a status line: \"HTTP/2 200\"");
        assert_eq!(refused("HTTP/1.1 2\r\n\r\n"), "not a status line: \"HTTP/1.1 2\"");
        assert_eq!(refused("HTTP/1.1 200 OK\r\n\r\nok"), "the answer has no Content-Length");
        assert_eq!(
            refused("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"),
            "the body has 2 bytes, but Content-Length is 3"
        );
    }
}
