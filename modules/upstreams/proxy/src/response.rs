//! The header of the peer's response, read strictly: what two servers could read in two ways is refused.
//!
//! Refused are line ends without CR, folded lines, a space before the colon, Content-Length beside Transfer-Encoding,
//! a Content-Length that is repeated or not a plain number, a transfer coding other than chunked, a status outside of
//! 100 to 599, and 101, which no request of ours asks for (RFC 9112, 2.2, 5 and 6).

use std::{borrow::Cow, mem::MaybeUninit};

use httparse::Header;

use crate::hop_by_hop;

/// The most fields of a response.
pub const MAX_FIELDS: usize = 256;

/// Room for the fields of one header.
pub type Storage<'a> = [MaybeUninit<Header<'a>>; MAX_FIELDS];

/// Room for [`Head::parse`].
pub fn field_storage<'a>() -> Storage<'a> {
    [const { MaybeUninit::uninit() }; MAX_FIELDS]
}

/// Where the fields say that the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After this many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// A complete header.
#[derive(Debug)]
pub struct Head<'f, 'a> {
    /// 100 to 599.
    pub status: u16,
    /// The bytes of the header, with the empty line.
    pub length: usize,
    /// Where the body ends, if this response has one.
    pub framing: Framing,
    /// Whether the peer keeps the connection (RFC 9112, 9.3).
    pub keepalive: bool,
    fields: &'f [Header<'a>],
    /// The options of Connection.
    options: Vec<&'a [u8]>,
}

impl<'f, 'a> Head<'f, 'a> {
    /// Reads the header at the start of `input`. `None` if it is not complete; the error says what is wrong with it.
    pub fn parse(input: &'a [u8], storage: &'f mut Storage<'a>) -> Result<Option<Head<'f, 'a>>, Cow<'static, str>> {
        check_start(input)?;
        let mut response = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let length = match parser.parse_response_with_uninit_headers(&mut response, input, storage) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return check_line_ends(input).map(|()| None),
            Err(httparse::Error::TooManyHeaders) => return Err(format!("more than {MAX_FIELDS} fields").into()),
            Err(error) => return Err(error.to_string().into()),
        };
        check_line_ends(input.get(..length).unwrap_or_default())?;
        let (status, minor) = (response.code.unwrap_or(0), response.version.unwrap_or(0));
        let fields: &'f [Header<'a>] = response.headers;
        match status {
            101 => return Err("101 Switching Protocols, which was not asked for".into()),
            100..=599 => {}
            _ => return Err(format!("status {status}").into()),
        }
        let connection = fields.iter().filter(|field| field.name.eq_ignore_ascii_case("connection"));
        let Some(options) = hop_by_hop::options(connection.map(|field| field.value)) else {
            return Err(format!("more than {} options in Connection", hop_by_hop::MAX_OPTIONS).into());
        };
        let has = |word: &[u8]| options.iter().any(|option| option.eq_ignore_ascii_case(word));
        let keepalive = !has(b"close") && (minor == 1 || has(b"keep-alive"));
        Ok(Some(Head { status, length, framing: framing(fields, minor)?, keepalive, fields, options }))
    }

    /// Whether another header follows: that of the final response.
    pub fn is_interim(&self) -> bool {
        self.status < 200
    }

    /// The fields that are not the connection's, nor Content-Length, which the host writes.
    pub fn passed(&self) -> impl Iterator<Item = &Header<'a>> {
        self.fields.iter().filter(|field| {
            !field.name.eq_ignore_ascii_case("content-length")
                && !hop_by_hop::is_hop_by_hop(field.name.as_bytes(), &self.options)
        })
    }
}

/// The parser would skip empty lines before the status line.
fn check_start(input: &[u8]) -> Result<(), Cow<'static, str>> {
    let start = b"HTTP/1.";
    let n = input.len().min(start.len());
    if input.get(..n) == start.get(..n) { Ok(()) } else { Err("no HTTP/1.x status line at the start".into()) }
}

/// The parser would take LF for CRLF.
fn check_line_ends(input: &[u8]) -> Result<(), Cow<'static, str>> {
    let bare = |(i, &byte): (usize, &u8)| byte == b'\n' && (i == 0 || input.get(i - 1) != Some(&b'\r'));
    // Several lines in one read are usual, so that this goes over bytes rather than lines; it is short and bounded.
    if input.iter().enumerate().any(bare) { Err("a line ends in LF without CR".into()) } else { Ok(()) }
}

/// RFC 9112, 6.3, without what depends on the request.
fn framing(fields: &[Header<'_>], minor: u8) -> Result<Framing, Cow<'static, str>> {
    let values = |name: &'static str| {
        let named = fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value)
    };
    let (mut lengths, mut codings) = (values("content-length"), values("transfer-encoding"));
    match (lengths.next(), codings.next()) {
        (Some(_), Some(_)) => Err("both Content-Length and Transfer-Encoding".into()),
        (None, None) => Ok(Framing::UntilClose),
        (Some(_), None) if lengths.next().is_some() => Err("Content-Length twice".into()),
        (Some(value), None) => match content_length(value) {
            Some(length) => Ok(Framing::Length(length)),
            None => Err(format!("Content-Length: {}", String::from_utf8_lossy(value).escape_debug()).into()),
        },
        (None, Some(_)) if minor == 0 => Err("Transfer-Encoding in an HTTP/1.0 response".into()),
        (None, Some(value)) if codings.next().is_some() || !value.eq_ignore_ascii_case(b"chunked") => {
            Err("a Transfer-Encoding other than chunked".into())
        }
        (None, Some(_)) => Ok(Framing::Chunked),
    }
}

/// Digits only, and no more than a file offset can be.
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse::<i64>().ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status, framing, keepalive and passed fields as text; "incomplete"; or the error.
    fn parse(input: &str) -> String {
        let mut storage = field_storage();
        match Head::parse(input.as_bytes(), &mut storage) {
            Ok(None) => "incomplete".to_string(),
            Err(fault) => format!("error: {fault}"),
            Ok(Some(head)) => {
                assert_eq!(head.length, input.find("\r\n\r\n").map_or(input.len(), |end| end + 4));
                let passed: Vec<&str> = head.passed().map(|field| field.name).collect();
                format!("{} {:?} {} [{}]", head.status, head.framing, head.keepalive, passed.join(","))
            }
        }
    }

    #[test]
    fn status_fields_and_framing() {
        for (input, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\nhello", "200 Length(5) true [A]"),
            ("HTTP/1.1 204\r\n\r\n", "204 UntilClose true []"),
            ("HTTP/1.1 200 \r\nTransfer-Encoding: Chunked\r\n\r\n", "200 Chunked true []"),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200", "100 UntilClose true []"),
            ("HTTP/1.1 599 X\r\nA: 1\r\nA: 2\r\n\r\n", "599 UntilClose true [A,A]"),
        ] {
            assert_eq!(parse(input), expected, "{input:?}");
        }
    }

    #[test]
    fn keepalive_and_hop_by_hop_fields() {
        for (input, expected) in [
            ("HTTP/1.1 200 OK\r\nConnection: CLOSE\r\n\r\n", "200 UntilClose false []"),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "200 Length(0) false []"),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n", "200 UntilClose true []"),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive, close\r\n\r\n", "200 UntilClose false []"),
            (
                "HTTP/1.1 200 OK\r\nConnection: x\r\nX: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nY: 2\r\n\r\n",
                "200 UntilClose true [Y]",
            ),
        ] {
            assert_eq!(parse(input), expected, "{input:?}");
        }
    }

    #[test]
    fn refuses_what_can_be_read_in_two_ways() {
        for (input, why) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "both"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", "twice"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", "Content-Length: 5, 5"),
            ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", "Content-Length: +5"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "Content-Length: -1"),
            ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", "Content-Length: "),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n", "Content-Length: 9"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "other than chunked"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "other than"),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0"),
            ("HTTP/1.1 200 OK\nA: b\r\n\r\n", "LF without CR"),
            ("HTTP/1.1 200 OK\r\nA: b\n\r\n", "LF without CR"),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\n", "LF without CR"),
            ("HTTP/1.1 200 OK\nA: b", "LF without CR"),
            ("\r\nHTTP/1.1 200 OK\r\n\r\n", "no HTTP/1.x"),
            ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "invalid header name"),
            ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "invalid header name"),
            ("HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n", "invalid header value"),
            ("HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", "invalid header value"),
            ("HTTP/1.1 099 OK\r\n\r\n", "status 99"),
            ("HTTP/1.1 600 OK\r\n\r\n", "status 600"),
            ("HTTP/1.1 20 OK\r\n\r\n", "invalid response status"),
            ("HTTP/2.0 200 OK\r\n\r\n", "no HTTP/1.x"),
            ("HTTP/1.1 101 Switching\r\n\r\n", "101"),
            ("<html>", "no HTTP/1.x"),
        ] {
            let found = parse(input);
            assert!(found.starts_with("error: ") && found.contains(why), "{input:?}: {found}");
        }
    }

    #[test]
    fn every_prefix_is_incomplete() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), "incomplete", "{:?}", &whole[..end]);
        }
    }

    #[test]
    fn fields_are_bounded() {
        let of = |n: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(n));
        assert!(parse(&of(MAX_FIELDS)).starts_with("200 "));
        assert_eq!(parse(&of(MAX_FIELDS + 1)), "error: more than 256 fields");
    }
}
