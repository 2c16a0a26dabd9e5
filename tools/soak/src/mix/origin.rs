//! The server behind the proxy: a thread for each connection, and an answer for each path.
//!
//! ```text
//! /length/N/SEED    N bytes of noise, with a Content-Length
//! /chunked/N/SEED   the same, in chunks
//! /close/N/SEED     the same, up to the end of the connection
//! /echo             length and sum of the request's body
//! /break            ends in the middle of a body
//! ```

use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::http::{read_chunk, read_exact, read_line};
use crate::random::noise;

/// Connections at once; more are closed at once, which a test of proxies has to bear.
const MAX_CONNECTIONS: usize = 1000;

/// How long an idle connection is kept. Longer than the server keeps one (site.rs), or a POST could meet its end: that is
/// answered with 502, since it must not be sent twice.
const IDLE: Duration = Duration::from_secs(5);

/// Starts it on a free port. It runs until the program ends.
pub fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let open = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if open.fetch_add(1, Ordering::Relaxed) < MAX_CONNECTIONS {
                let open = open.clone();
                thread::spawn(move || {
                    // An error is a peer that has gone, or is the proxy's to report.
                    let _ = serve(stream);
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            } else {
                open.fetch_sub(1, Ordering::Relaxed);
            }
        }
    });
    Ok(address)
}

/// What `/echo` answers for a body.
pub fn echo(body: &[u8]) -> String {
    let sum = body.iter().fold(0u32, |sum, &byte| sum.rotate_left(5) ^ u32::from(byte));
    format!("{} {sum:08x}", body.len())
}

fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    let mut out = stream.try_clone()?;
    let mut stream = BufReader::new(stream);
    loop {
        let line = read_line(&mut stream)?;
        stream.get_ref().set_read_timeout(Some(Duration::from_secs(30)))?;
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = read_line(&mut stream)?.to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap_or(0),
                Some(("transfer-encoding", _)) => chunked = true,
                Some(_) => {}
                None => break,
            }
        }
        let mut body = Vec::new();
        if chunked {
            while read_chunk(&mut stream, &mut body)? {}
        } else {
            read_exact(&mut stream, length, &mut body)?;
        }
        if !answer(&mut out, &path, &body)? {
            return Ok(());
        }
        stream.get_ref().set_read_timeout(Some(IDLE))?;
    }
}

/// True if the connection goes on.
fn answer(out: &mut TcpStream, path: &str, body: &[u8]) -> io::Result<bool> {
    let mut parts = path.split('/').skip(1);
    let kind = parts.next().unwrap_or_default();
    let mut number = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(0u64);
    let (size, seed) = (number().min(4 * 1024 * 1024), number());
    let content = || noise(seed, size as usize);
    let with_length =
        |body: &[u8]| [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat();
    match kind {
        "length" => out.write_all(&with_length(&content()))?,
        "echo" => out.write_all(&with_length(echo(body).as_bytes()))?,
        "chunked" => {
            out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            for piece in content().chunks(7000) {
                out.write_all(&[format!("{:x};a=b\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())?;
            }
            out.write_all(b"0\r\nX-Trailer: 1\r\n\r\n")?;
        }
        "close" => {
            out.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            out.write_all(&content())?;
            return Ok(false);
        }
        "break" => {
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nonly this")?;
            return Ok(false);
        }
        _ => out.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?,
    }
    Ok(true)
}
