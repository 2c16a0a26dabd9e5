//! The head of a response, as bytes.

use std::cell::RefCell;

use crate::{clock, error_page};

/// What a head says.
pub struct HeadOut<'a, Fields: Iterator<Item = (&'a [u8], &'a [u8])>> {
    /// The status.
    pub status: u16,
    /// Whether the version is told (nginx: server_tokens).
    pub tokens: bool,
    /// The fields that modules have set.
    pub fields: Fields,
    /// The length of the body, if it is known and there may be one.
    pub length: Option<u64>,
    /// The body is chunked.
    pub chunked: bool,
    /// Another request may follow.
    pub keep: bool,
    /// The client speaks HTTP/1.1.
    pub http11: bool,
}

/// Writes the head at the end of `out`. A module that sets Date or Server itself replaces the host's.
pub fn write_head<'a>(out: &mut Vec<u8>, head: &HeadOut<'a, impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone>) {
    out.reserve(512);
    let fields = || head.fields.clone();
    let has = |name: &[u8]| fields().any(|(field, _)| field.eq_ignore_ascii_case(name));
    match (has(b"server"), has(b"date")) {
        (false, false) if head.status == 200 => usual_start(out, head.tokens),
        (server, date) => {
            status_line(out, head.status);
            if !server {
                out.extend_from_slice(server_line(head.tokens));
            }
            if !date {
                clock::with_date(|date, _| date_line(out, date));
            }
        }
    }
    for (name, value) in fields() {
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    if let Some(length) = head.length {
        out.extend_from_slice(b"Content-Length: ");
        out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
        out.extend_from_slice(b"\r\n");
    } else if head.chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    match (head.keep, head.http11) {
        (false, _) => out.extend_from_slice(b"Connection: close\r\n\r\n"),
        (true, false) => out.extend_from_slice(b"Connection: keep-alive\r\n\r\n"),
        // HTTP/1.1 keeps connections unless it is told otherwise (RFC 9112, 9.3).
        (true, true) => out.extend_from_slice(b"\r\n"),
    }
}

thread_local! {
    /// The start of nearly every head, and the second that it was made in; with and without the version.
    static USUAL_START: RefCell<[(u64, Vec<u8>); 2]> = RefCell::default();
}

/// Status 200, Server and Date, made once a second.
fn usual_start(out: &mut Vec<u8>, tokens: bool) {
    clock::with_date(|date, now| {
        USUAL_START.with_borrow_mut(|starts| {
            let (second, start) = &mut starts[usize::from(tokens)];
            if *second != now || start.is_empty() {
                *second = now;
                start.clear();
                status_line(start, 200);
                start.extend_from_slice(server_line(tokens));
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
    out.extend_from_slice(error_page::reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn server_line(tokens: bool) -> &'static [u8] {
    if tokens {
        concat!("Server: topnext/", env!("CARGO_PKG_VERSION"), "\r\n").as_bytes()
    } else {
        b"Server: topnext\r\n"
    }
}

fn date_line(out: &mut Vec<u8>, date: &str) {
    out.extend_from_slice(b"Date: ");
    out.extend_from_slice(date.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<'a>(head: &HeadOut<'a, std::vec::IntoIter<(&'a [u8], &'a [u8])>>) -> String {
        let mut out = Vec::new();
        write_head(&mut out, head);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn the_hosts_fields_and_the_modules() {
        let fields: Vec<(&[u8], &[u8])> = vec![(b"X-A", b"1"), (b"Date", b"never")];
        let head = HeadOut {
            status: 404,
            tokens: false,
            fields: fields.into_iter(),
            length: Some(12),
            chunked: false,
            keep: true,
            http11: true,
        };
        let expected =
            "HTTP/1.1 404 Not Found\r\nServer: topnext\r\nX-A: 1\r\nDate: never\r\nContent-Length: 12\r\n\r\n";
        assert_eq!(text(&head), expected);
    }
}
