//! HTTP/1.x requests (RFC 9112, 9110): bytes in, parsed facts out. No sockets and no clocks.
//!
//! The order of calls for one request on a connection:
//!
//! ```text
//! HeadParser::parse(buf, head)      until Complete; then the caller splits head_len() bytes off its buffer
//!   -> Target::parse(head, bytes)   the form of the request target, its path and its arguments
//!   -> normalize(path, ..)          the path that locations are chosen by
//!   -> host(head, bytes, target)    the name that servers are chosen by
//!   -> body_framing(head, bytes)    None | Length(n) | Chunked
//! ChunkedDecoder::decode(buf, out)  while the body is chunked
//!   -> persistent(head)             may another request follow on this connection?
//! ```
//!
//! Nothing here is lenient. Two servers that read one byte stream differently can be made to disagree on where a
//! request ends (request smuggling), so whatever the RFCs leave to the taste of the recipient is refused.

use std::fmt;

// In the order in which a request meets them.
pub mod head;

mod usual_head;

pub mod target;

pub mod framing;

pub mod chunked;

pub mod response;

pub mod connection;

pub use chunked::{ChunkedDecoder, Decoded, encode_chunk_head};
pub use framing::{Framing, Host, body_framing, host, persistent};
pub use head::{Facts, Field, Head, HeadParser, Limits, MAX_FIELDS, Method, Progress, Seen, Span};
pub use target::{Normalized, Target, normalize};

/// A request that is refused because of what the client sent. The connection cannot be used for another request, since
/// where the next one starts is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRequest {
    /// The response status, 4xx or 5xx.
    pub status: u16,
    /// What the client sent, worded to stand after "client sent".
    pub reason: &'static str,
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client sent {} ({})", self.reason, self.status)
    }
}

impl std::error::Error for BadRequest {}

impl From<Reason> for BadRequest {
    #[cold]
    fn from(reason: Reason) -> BadRequest {
        let (status, reason) = reason.describe();
        BadRequest { status, reason }
    }
}

/// Every reason for which these parsers refuse a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    // The head as a whole.
    BareLf,
    LeadingEmptyLines,
    HeadTooLarge,
    // The request line.
    RequestLineTooLong,
    Method,
    TargetByte,
    NoVersion,
    Version,
    VersionNotSupported,
    // Header lines.
    HeaderLineTooLong,
    TooManyFields,
    FieldName,
    FieldValue,
    // The request target.
    TargetForm,
    Fragment,
    Scheme,
    Asterisk,
    Connect,
    Escape,
    EscapedNul,
    AboveRoot,
    // Host and framing.
    HostMissing,
    HostRepeated,
    Authority,
    ContentLength,
    ContentLengthRepeated,
    LengthAndEncoding,
    TransferEncodingRepeated,
    TransferEncodingIn10,
    TransferEncoding,
    // The chunked body.
    ChunkSize,
    ChunkSizeTooLarge,
    ChunkExtension,
    ChunkLineTooLong,
    ChunkExtensionsTooLarge,
    ChunkLineEnd,
    ChunkDataEnd,
    TrailerName,
    TrailerValue,
    TrailerForbidden,
    TrailersTooLarge,
    TooManyTrailers,
}

impl Reason {
    /// The response status and the text for [`BadRequest`].
    pub const fn describe(self) -> (u16, &'static str) {
        match self {
            Reason::BareLf => (400, "a line that ends in LF without CR"),
            Reason::LeadingEmptyLines => (400, "too many empty lines before the request line"),
            Reason::HeadTooLarge => (431, "a request head that is too large"),
            Reason::RequestLineTooLong => (414, "a request line that is too long"),
            Reason::Method => (400, "an invalid method"),
            Reason::TargetByte => (400, "an empty request target, or one with a forbidden byte"),
            Reason::NoVersion => (400, "a request line without an HTTP version"),
            Reason::Version => (400, "an invalid HTTP version"),
            Reason::VersionNotSupported => (505, "an HTTP version other than 1.0 and 1.1"),
            Reason::HeaderLineTooLong => (431, "a header line that is too long"),
            Reason::TooManyFields => (431, "too many header lines"),
            Reason::FieldName => (400, "an invalid header name"),
            Reason::FieldValue => (400, "an invalid header value"),
            Reason::TargetForm => (400, "a request target that is neither a path nor a URL"),
            Reason::Fragment => (400, "a fragment in the request target"),
            Reason::Scheme => (400, "a request target whose scheme is neither http nor https"),
            Reason::Asterisk => (400, "the request target \"*\" with a method other than OPTIONS"),
            Reason::Connect => (400, "CONNECT without a host and port as its request target"),
            Reason::Escape => (400, "an invalid percent escape in the path"),
            Reason::EscapedNul => (400, "an escaped NUL in the path"),
            Reason::AboveRoot => (400, "a path that leads above the root"),
            Reason::HostMissing => (400, "an HTTP/1.1 request without a Host header"),
            Reason::HostRepeated => (400, "several Host headers"),
            Reason::Authority => (400, "an invalid host"),
            Reason::ContentLength => (400, "an invalid Content-Length header"),
            Reason::ContentLengthRepeated => (400, "several Content-Length headers"),
            Reason::LengthAndEncoding => (400, "both Content-Length and Transfer-Encoding headers"),
            Reason::TransferEncodingRepeated => (400, "several Transfer-Encoding headers"),
            Reason::TransferEncodingIn10 => (400, "a Transfer-Encoding header in an HTTP/1.0 request"),
            Reason::TransferEncoding => (501, "a Transfer-Encoding other than \"chunked\""),
            Reason::ChunkSize => (400, "an invalid chunk size"),
            Reason::ChunkSizeTooLarge => (400, "a chunk size that is too large"),
            Reason::ChunkExtension => (400, "an invalid chunk extension"),
            Reason::ChunkLineTooLong => (400, "a chunk size line that is too long"),
            Reason::ChunkExtensionsTooLarge => (400, "too many bytes of chunk extensions"),
            Reason::ChunkLineEnd => (400, "a chunk size line that does not end in CRLF"),
            Reason::ChunkDataEnd => (400, "a chunk that is not followed by CRLF"),
            Reason::TrailerName => (400, "an invalid trailer name"),
            Reason::TrailerValue => (400, "an invalid trailer value"),
            Reason::TrailerForbidden => (400, "a trailer that would change the framing or the host"),
            Reason::TrailersTooLarge => (431, "trailers that are too large"),
            Reason::TooManyTrailers => (431, "too many trailers"),
        }
    }
}

/// RFC 9110, 5.6.2 `tchar`: the bytes of methods, field names and chunk extension names.
#[inline]
pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(
            byte as u8,
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*'
                | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        );
        byte += 1;
    }
    table
};

/// RFC 9110, 5.5: HTAB, SP, VCHAR and obs-text, the bytes of a field value.
#[inline]
pub(crate) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    #[test]
    fn an_error_names_the_client_and_the_status() {
        let error = BadRequest::from(Reason::HostMissing);
        assert_eq!(error.to_string(), "client sent an HTTP/1.1 request without a Host header (400)");
    }

    /// Reads pipelined requests as a connection would, fed in the given pieces, and writes down what it saw.
    fn transcript(pieces: &[&[u8]]) -> Result<Vec<String>, BadRequest> {
        let limits = Limits { request_line: 100, header_line: 100, total: 500, underscores: true };
        let (mut parser, mut head): (HeadParser, _) = (HeadParser::new(limits), Head::default());
        let (mut buf, mut seen) = (BytesMut::new(), Vec::new());
        // The body that is being read: how, what came of it, and the line to write once it is whole.
        let mut body: Option<(Framing, ChunkedDecoder, Vec<u8>, String)> = None;
        for piece in pieces {
            buf.extend_from_slice(piece);
            loop {
                let Some((framing, decoder, content, line)) = &mut body else {
                    if buf.is_empty() || parser.parse(&buf, &mut head)? == Progress::Incomplete {
                        break;
                    }
                    let head = &head;
                    let bytes = buf.split_to(head.head_len()).freeze();
                    let target = Target::parse(head, &bytes)?;
                    let name =
                        host(head, &bytes, &target)?.map(|host| host.name.of(&bytes).to_vec()).unwrap_or_default();
                    let path = normalize(target.path(&bytes), true)?;
                    let path = path.or(target.path(&bytes));
                    let line = format!(
                        "{:?} {} {} keepalive={}",
                        head.method(),
                        path.escape_ascii(),
                        name.escape_ascii(),
                        persistent(head)
                    );
                    body = Some((body_framing(head, &bytes)?, ChunkedDecoder::new(), Vec::new(), line));
                    continue;
                };
                let done = match framing {
                    Framing::None => true,
                    Framing::Length(length) => {
                        let missing = *length as usize - content.len();
                        content.extend_from_slice(&buf.split_to(missing.min(buf.len())));
                        content.len() as u64 == *length
                    }
                    Framing::Chunked => {
                        decoder.decode(&mut buf, &mut |data| content.extend_from_slice(&data))? == Decoded::Done
                    }
                };
                if !done {
                    break;
                }
                seen.push(format!("{line} body={}", content.escape_ascii()));
                body = None;
            }
        }
        Ok(seen)
    }

    const PIPELINE: &[u8] = b"GET /a/../b%20c?x=1 HTTP/1.1\r\nHost: One.example:80\r\n\r\n\
        \r\nPOST http://two.example HTTP/1.1\r\nhost: other\r\ncontent-length:  5 \r\n\r\nhello\
        PUT /c HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n\
        5;a=\"b\"\r\nworld\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n\
        GET / HTTP/1.0\r\n\r\n";

    #[test]
    fn pipelined_requests_read_the_same_at_every_split() {
        let whole = transcript(&[PIPELINE]).unwrap();
        assert_eq!(
            whole,
            [
                "Get /b c One.example keepalive=true body=",
                "Post / two.example keepalive=true body=hello",
                "Put /c [::1] keepalive=false body=world!",
                "Get /  keepalive=false body=",
            ]
        );
        for at in 0..=PIPELINE.len() {
            let (a, b) = PIPELINE.split_at(at);
            assert_eq!(transcript(&[a, b]).unwrap(), whole, "split at {at}");
        }
        let bytes: Vec<&[u8]> = PIPELINE.chunks(1).collect();
        assert_eq!(transcript(&bytes).unwrap(), whole);
    }

    #[test]
    fn mutated_requests_never_panic_and_read_the_same_byte_by_byte() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let interesting = b"\r\n\0 \t:;,%/.?#*@[]\"\\0123456789abcfHTP\x7f\x80\xff";
        let (mut read, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let mut input = PIPELINE.to_vec();
            for _ in 0..1 + random(3) {
                let at = random(input.len());
                let byte = interesting[random(interesting.len())];
                match random(4) {
                    0 => input[at] = byte,
                    1 => input.insert(at, byte),
                    2 => drop(input.remove(at)),
                    _ => input.truncate(at.max(3)),
                }
            }
            let whole = transcript(&[&input]);
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            let single = transcript(&bytes);
            // A refusal may come with fewer bytes, so its reason may be another, but never its place or status.
            match (&whole, &single) {
                (Ok(a), Ok(b)) => assert_eq!(a, b, "{}", input.escape_ascii()),
                (Err(a), Err(b)) => assert_eq!(a.status, b.status, "{}", input.escape_ascii()),
                _ => panic!("{whole:?} {single:?} {}", input.escape_ascii()),
            }
            if whole.is_ok() { read += 1 } else { refused += 1 }
        }
        assert!(read > 1000 && refused > 1000, "{read} read, {refused} refused");
    }
}
