//! The head of a response, as bytes.

use std::{cell::RefCell, time::Duration};

use crate::{
    clock,
    config::ServerTokens,
    request::{headers_out::HeadersOut, pool::Pool},
    status,
};

/// What a head says beside the fields that modules have set.
pub struct HeadOut {
    /// The status.
    pub status: u16,
    /// Whether the version is told (nginx: server_tokens).
    pub tokens: ServerTokens,
    /// The length of the body, if it is known and there may be one.
    pub length: Option<u64>,
    /// The body is chunked.
    pub chunked: bool,
    /// Another request may follow.
    pub keep: bool,
    /// For how long the client is told that it may (keepalive_timeout's header).
    pub keep_for: Option<Duration>,
    /// The client speaks HTTP/1.1.
    pub http11: bool,
}

impl HeadOut {
    /// The value of Connection. HTTP/1.1 keeps connections unless it is told otherwise (RFC 9112, 9.3); where Keep-Alive is
    /// sent, that is an option of the connection, and is listed.
    pub fn connection(&self) -> Option<&'static str> {
        match self.keep {
            false => Some("close"),
            true if self.keep_for.is_some() || !self.http11 => Some("keep-alive"),
            true => None,
        }
    }
}

/// Writes the head at the end of `out`. A module that sets Date or Server itself replaces the host's.
pub fn write_head(out: &mut Vec<u8>, head: &HeadOut, fields: &HeadersOut, pool: &Pool) {
    out.reserve(512);
    if head.status == 200 && !fields.replaces_own() {
        usual_start(out, head.tokens);
    } else {
        let has = |name| fields.get(pool, name, 0).is_some();
        status_line(out, head.status);
        if !has(b"server") {
            server_line(head.tokens, out);
        }
        if !has(b"date") {
            clock::with_date(|date, _| date_line(out, date));
        }
    }
    for field in fields.fields() {
        out.extend_from_slice(pool.get(field.line()));
    }
    if let Some(length) = head.length {
        out.extend_from_slice(b"Content-Length: ");
        out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    } else if head.chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked");
    }
    if head.length.is_some() || head.chunked {
        out.extend_from_slice(b"\r\n");
    }
    if let Some(time) = head.keep_for.filter(|_| head.keep) {
        out.extend_from_slice(b"Keep-Alive: timeout=");
        out.extend_from_slice(itoa::Buffer::new().format(time.as_secs()).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if let Some(connection) = head.connection() {
        out.extend_from_slice(b"Connection: ");
        out.extend_from_slice(connection.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

thread_local! {
    /// The start of nearly every head, and the second that it was made in; for each of `server_tokens`.
    static USUAL_START: RefCell<[(u64, Vec<u8>); 3]> = RefCell::default();
}

/// Status 200, Server and Date, made once a second.
fn usual_start(out: &mut Vec<u8>, tokens: ServerTokens) {
    clock::with_date(|date, now| {
        USUAL_START.with_borrow_mut(|starts| {
            let (second, start) = &mut starts[tokens as usize];
            if *second != now || start.is_empty() {
                *second = now;
                start.clear();
                status_line(start, 200);
                server_line(tokens, start);
                date_line(start, date);
            }
            out.extend_from_slice(start);
        });
    });
}

fn status_line(out: &mut Vec<u8>, status: u16) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(status::reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn server_line(tokens: ServerTokens, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Server: ");
    out.extend_from_slice(tokens.server().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn date_line(out: &mut Vec<u8>, date: &str) {
    out.extend_from_slice(b"Date: ");
    out.extend_from_slice(date.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(head: &HeadOut, fields: &[(&[u8], &[u8])]) -> String {
        let (mut pool, mut headers, mut out) = (Pool::default(), HeadersOut::default(), Vec::new());
        for (name, value) in fields {
            headers.set(&mut pool, name, value, true).expect("a good field");
        }
        write_head(&mut out, head, &headers, &pool);
        String::from_utf8(out).expect("ASCII")
    }

    const HEAD: HeadOut = HeadOut {
        status: 404,
        tokens: ServerTokens::Off,
        length: Some(12),
        chunked: false,
        keep: true,
        keep_for: None,
        http11: true,
    };

    #[test]
    fn the_hosts_fields_and_the_modules() {
        let expected =
            "HTTP/1.1 404 Not Found\r\nServer: topnext\r\nX-A: 1\r\nDate: never\r\nContent-Length: 12\r\n\r\n";
        assert_eq!(text(&HEAD, &[(b"X-A", b"1"), (b"Date", b" never ")]), expected);
    }

    #[test]
    fn framing_and_connection() {
        let end = |head: HeadOut| {
            let text = text(&head, &[(b"Date", b"never")]);
            text.split_once("never\r\n").expect("the date").1.to_string()
        };
        assert_eq!(end(HeadOut { length: None, ..HEAD }), "\r\n");
        assert_eq!(end(HeadOut { length: None, chunked: true, ..HEAD }), "Transfer-Encoding: chunked\r\n\r\n");
        assert_eq!(end(HeadOut { keep: false, ..HEAD }), "Content-Length: 12\r\nConnection: close\r\n\r\n");
        assert_eq!(end(HeadOut { keep: false, length: None, ..HEAD }), "Connection: close\r\n\r\n");
        let told = "Content-Length: 12\r\nKeep-Alive: timeout=60\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(end(HeadOut { keep_for: Some(Duration::from_secs(60)), ..HEAD }), told);
        assert_eq!(end(HeadOut { http11: false, ..HEAD }), "Content-Length: 12\r\nConnection: keep-alive\r\n\r\n");
    }
}
