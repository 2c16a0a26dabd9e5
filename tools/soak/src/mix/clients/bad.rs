//! Clients that are broken, hostile, or gone.

use std::thread::sleep;
use std::time::Duration;

use super::failed;
use crate::http::{Connection, Target};
use crate::random::Random;

/// Requests that two servers could read in two ways. Each is refused, and what follows it is not read as a request.
const SMUGGLED: &[&str] = &[
    "POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
    "POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    "POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
    "POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
    "POST /ok HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /ok HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "POST /ok HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST /ok HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET /ok HTTP/1.1\r\nHost: a\r\nX: b\r\n c: d\r\n\r\n",
    "GET /ok HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n",
    "GET /ok HTTP/1.1\nHost: a\n\n",
    "GET /ok HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET /ok HTTP/1.1\r\n\r\n",
    "GET /ok HTTP/1.1\r\nHost: a b\r\n\r\n",
    "GET /ok HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
    "GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /ok HTTP/3.0\r\nHost: a\r\n\r\n",
    "POST /origin/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 x\r\nhello\r\n0\r\n\r\n",
    "POST /origin/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "POST /origin/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
];

/// Sends one of them, and a good request behind it, which must not be answered.
pub fn smuggler(target: &Target, random: &mut Random) -> Result<u64, String> {
    let request = *random.pick(SMUGGLED);
    let mut connection = Connection::open(target).map_err(failed("connect"))?;
    let follows = "GET /ok HTTP/1.1\r\nHost: soak\r\n\r\n";
    // The server may be done before all is sent.
    let _ = connection.send(format!("{request}{follows}").as_bytes());
    refused(&mut connection, request)
}

/// Bytes that are no request at all.
pub fn garbage(target: &Target, random: &mut Random) -> Result<u64, String> {
    let mut connection = Connection::open(target).map_err(failed("connect"))?;
    let mut bytes: Vec<u8> = (0..random.between(1, 20_000)).map(|_| random.below(256) as u8).collect();
    match random.below(4) {
        // As TLS begins.
        0 => bytes.splice(0..0, *b"\x16\x03\x01\x02\x00\x01").for_each(drop),
        // A line, a header, a value that is too long.
        1 => bytes = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100_000)).into_bytes(),
        2 => bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(20_000)).into_bytes(),
        // Behind it nothing comes: it has to be refused for what it is.
        _ => bytes.extend_from_slice(b"\r\n\r\n"),
    }
    let _ = connection.send(&bytes);
    refused(&mut connection, "garbage")
}

/// The connection is closed behind one answer, and that one refuses.
fn refused(connection: &mut Connection, what: &str) -> Result<u64, String> {
    let rest = connection.rest().map_err(failed(what))?;
    let text = String::from_utf8_lossy(&rest);
    let answers = text.matches("HTTP/1.1 ").count();
    let refuses = text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 5");
    match answers == 1 && refuses {
        true => Ok(1),
        false => Err(format!("{what:?} is answered {answers} times: {}", text.lines().next().unwrap_or_default())),
    }
}

/// A request that ends before its end.
pub fn truncated(target: &Target, random: &mut Random) -> Result<u64, String> {
    let whole = "POST /origin/echo HTTP/1.1\r\nHost: soak\r\nContent-Length: 5000\r\nX-Field: value\r\n\r\n";
    let part = &whole[..random.between(1, whole.len())];
    let mut connection = Connection::open(target).map_err(failed("connect"))?;
    connection.send(part.as_bytes()).map_err(failed("send"))?;
    sleep(Duration::from_millis(random.below(50) as u64));
    // Closes with this function.
    Ok(0)
}

/// Resets the connection at a random point of an answer, or before it.
pub fn aborted(target: &Target, random: &mut Random) -> Result<u64, String> {
    let window = random.one_in(2).then_some(8 * 1024);
    let mut connection = Connection::with_window(target, window).map_err(failed("connect"))?;
    let path = *random.pick(&[
        "/1m",
        "/100k",
        "/page.html",
        "/origin/length/1000000/1",
        "/origin/chunked/1000000/2",
        "/origin/close/300000/3",
        "/gone/",
    ]);
    let number = random.between(1, 3);
    let request = format!("GET {path} HTTP/1.1\r\nHost: soak\r\nAccept-Encoding: gzip\r\n\r\n").repeat(number);
    connection.send(request.as_bytes()).map_err(failed("send"))?;
    let mut left = *random.pick(&[0, 1, 100, 10_000, 500_000]);
    let mut buf = vec![0; 10_000];
    while left > 0 {
        let most = left.min(buf.len());
        match connection.read_some(&mut buf[..most]) {
            Ok(0) | Err(_) => break,
            Ok(read) => left -= read,
        }
    }
    connection.reset().map_err(failed("reset"))?;
    Ok(0)
}

/// Goes in the middle of a body that is passed to the origin.
pub fn aborted_upload(target: &Target, random: &mut Random) -> Result<u64, String> {
    let mut connection = Connection::open(target).map_err(failed("connect"))?;
    let framing = *random.pick(&["Content-Length: 1000000", "Transfer-Encoding: chunked"]);
    let head = format!("POST /origin/echo HTTP/1.1\r\nHost: soak\r\n{framing}\r\n\r\n");
    let body = match framing.starts_with('T') {
        true => format!("{:x}\r\n{}", 500_000, "x".repeat(random.below(400_000))),
        false => "x".repeat(random.below(900_000)),
    };
    connection.send(head.as_bytes()).and_then(|()| connection.send(body.as_bytes())).map_err(failed("send"))?;
    if random.one_in(2) {
        connection.reset().map_err(failed("reset"))?;
    }
    Ok(0)
}

/// The origin fails: before its header that is 502, behind it the answer ends too early, and the client can tell.
pub fn broken_origin(target: &Target, random: &mut Random) -> Result<u64, String> {
    let mut connection = Connection::open(target).map_err(failed("connect"))?;
    let gone = random.one_in(2);
    let path = if gone { "/gone/" } else { "/origin/break" };
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: soak\r\n\r\n").as_bytes()).map_err(failed("send"))?;
    match (connection.answer(false), gone) {
        (Ok(answer), true) if answer.status == 502 => Ok(1),
        (Err(_), false) => Ok(1),
        (answer, _) => Err(format!("{path}: {answer:?}")),
    }
}
