//! The head of a request: request line and header lines, up to the empty line (RFC 9112, 2 to 5).
//!
//! ```text
//! let mut parser: HeadParser = HeadParser::new(Limits { request_line: 8192, header_line: 8192, total: 32768, underscores: false });
//! let mut head = Head::default();
//! while parser.parse(&buf, &mut head)? == Progress::Incomplete { /* read more into buf */ }
//! let bytes = buf.split_to(head.head_len()).freeze();
//! assert_eq!(head.target().of(&bytes), b"/index.html");
//! ```
//!
//! A usual head that comes in one piece is parsed in one pass (usual_head.rs). What follows is for all others.
//!
//! The parser goes from LF to LF once, also when the head comes in many pieces; on the way it measures lines and
//! refuses an LF without CR. The request line is read as soon as it is whole, the header lines (by httparse) when
//! all are. Everything found is kept as offsets into the head, so a request costs no allocation if the memory of an earlier
//! head is used again.
//!
//! What httparse 1.10 would let pass and is refused here: LF without CR as a line end, any number of leading empty
//! lines. Its request line parser is not used: it takes no target that is not UTF-8, and does not tell an unknown
//! version from junk.

use super::{BadRequest, Reason, is_token_byte, usual_head};

/// The usual number of header lines a head may have.
pub const MAX_FIELDS: usize = 128;

/// How many empty lines may come before a request line (RFC 9112, 2.2 asks for at least one).
const MAX_EMPTY_LINES: u8 = 8;

/// How large the parts of a head may be, in bytes. Line lengths are without CRLF.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// A longer request line gives 414.
    pub request_line: usize,
    /// A longer header line gives 431.
    pub header_line: usize,
    /// A longer head, with all its line ends and the empty lines before it, gives 431. At most `u32::MAX`.
    pub total: usize,
    /// Whether fields with an underscore in their names are taken; else they are dropped.
    pub underscores: bool,
}

/// What [`HeadParser::parse`] made of the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Call again with the same bytes and more.
    Incomplete,
    /// The head is filled, and the parser ready for the next one.
    Complete,
}

/// A range of bytes in a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// The bytes that this span names in `head`; empty if `head` is not the one it was made from and too short.
    #[inline]
    pub fn of(self, head: &[u8]) -> &[u8] {
        head.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The span of `part`, which must be a slice of `head`. Heads are shorter than 4 GiB (see [`Limits::total`]).
    #[inline]
    pub(super) fn within(head: &[u8], part: &[u8]) -> Span {
        let start = part.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
        debug_assert!(start + part.len() <= head.len());
        Span { start: start as u32, end: (start + part.len()) as u32 }
    }
}

/// One header line. The value is without the white space around it.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: Span,
    pub value: Span,
}

/// A request method. Methods are case-sensitive (RFC 9110, 9.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    /// Any other token; see [`Head::method_span`].
    #[default]
    Other,
}

/// How often a known field occurs, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    #[default]
    None,
    /// Once, at this index of [`Head::fields`].
    One(u16),
    Many,
}

impl Seen {
    #[inline]
    fn add(&mut self, index: u16) {
        *self = if *self == Seen::None { Seen::One(index) } else { Seen::Many };
    }
}

/// What the parser noted about well-known fields while it passed them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    pub host: Seen,
    pub content_length: Seen,
    pub transfer_encoding: Seen,
    pub connection: Seen,
    pub expect: Seen,
    pub upgrade: Seen,
    pub te: Seen,
    pub trailer: Seen,
    pub content_type: Seen,
    pub accept: Seen,
    pub accept_encoding: Seen,
    pub authorization: Seen,
    pub cookie: Seen,
    pub range: Seen,
    pub if_range: Seen,
    pub if_match: Seen,
    pub if_none_match: Seen,
    pub if_modified_since: Seen,
    pub if_unmodified_since: Seen,
    pub referer: Seen,
    pub user_agent: Seen,
    pub x_forwarded_for: Seen,
    /// A Connection header lists `close`.
    pub connection_close: bool,
    /// A Connection header lists `keep-alive`.
    pub connection_keep_alive: bool,
    /// A Connection header lists `upgrade`.
    pub connection_upgrade: bool,
    /// `Expect: 100-continue` in an HTTP/1.1 request; in HTTP/1.0 it must be ignored (RFC 9110, 10.1.1).
    pub expect_continue: bool,
    /// An HTTP/1.1 request expects something else; 417 is the answer for that.
    pub expect_unknown: bool,
    /// Fields that were dropped for an underscore in their names.
    pub dropped: u16,
}

/// A parsed head: offsets into the bytes it was parsed from.
#[derive(Debug, Default)]
pub struct Head {
    pub(super) method: Method,
    pub(super) method_span: Span,
    pub(super) target: Span,
    pub(super) plain_path: Option<Span>,
    pub(super) minor: u8,
    pub(super) head_len: u32,
    pub(super) line_len: u32,
    pub(super) fields: Vec<Field>,
    pub(super) facts: Facts,
}

impl Head {
    pub fn method(&self) -> Method {
        self.method
    }

    pub fn method_span(&self) -> Span {
        self.method_span
    }

    /// The request target as sent; [`super::Target::parse`] takes it apart.
    pub fn target(&self) -> Span {
        self.target
    }

    /// The path, and the arguments if there are any, where the target is a path that is normal as it is. `None`: it may
    /// be all the same, and [`super::Target::parse`] and [`super::normalize`] know.
    pub fn plain_target(&self) -> Option<(Span, Option<Span>)> {
        let path = self.plain_path?;
        Some((path, (path.end < self.target.end).then_some(Span { start: path.end + 1, end: self.target.end })))
    }

    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub fn minor(&self) -> u8 {
        self.minor
    }

    /// The header lines as sent.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The value of a known field that occurs once, from `bytes`, the head's own.
    #[inline]
    pub fn value<'a>(&self, seen: Seen, bytes: &'a [u8]) -> Option<&'a [u8]> {
        match seen {
            Seen::One(index) => self.fields.get(index as usize).map(|field| field.value.of(bytes)),
            Seen::None | Seen::Many => None,
        }
    }

    /// Bytes to take off the buffer: everything up to and including the empty line.
    pub fn head_len(&self) -> usize {
        self.head_len as usize
    }

    /// Length of the request line without CRLF.
    pub fn line_len(&self) -> usize {
        self.line_len as usize
    }

    /// Empties it for another head, and keeps its memory.
    pub fn clear(&mut self) {
        self.fields.clear();
        *self = Head { fields: std::mem::take(&mut self.fields), ..Head::default() };
    }
}

/// Parses the heads of a connection, one after the other. `FIELDS` bounds the number of header lines.
#[derive(Debug)]
pub struct HeadParser<const FIELDS: usize = MAX_FIELDS> {
    limits: Limits,
    /// Where the search for the next LF goes on.
    scanned: usize,
    /// Where the line starts in which `scanned` is.
    line: usize,
    /// Where the header lines start; None until the request line was read.
    fields_at: Option<usize>,
    empty_lines: u8,
    field_count: usize,
    /// What is known so far of a head that comes in pieces.
    head: Head,
}

impl<const FIELDS: usize> HeadParser<FIELDS> {
    pub fn new(limits: Limits) -> Self {
        HeadParser {
            limits: Limits { total: limits.total.min(u32::MAX as usize), ..limits },
            scanned: 0,
            line: 0,
            fields_at: None,
            empty_lines: 0,
            field_count: 0,
            head: Head::default(),
        }
    }

    /// Sets other limits, for the heads that begin from here on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = Limits { total: limits.total.min(u32::MAX as usize), ..limits };
    }

    /// Goes on where the last call stopped. `buf` starts with the first byte of the head, and only grows from call to
    /// call until the head is complete and in `out`. A broken limit is reported as soon as it is certain. After an error
    /// the parser is of no more use.
    pub fn parse(&mut self, buf: &[u8], out: &mut Head) -> Result<Progress, BadRequest> {
        if self.scanned == 0 {
            out.clear();
            if usual_head::parse(buf, &self.limits, FIELDS, out).is_some() {
                return Ok(Progress::Complete);
            }
        }
        let progress = self.parse_lines(buf)?;
        if progress == Progress::Complete {
            std::mem::swap(&mut self.head, out);
            self.head.clear();
            (self.scanned, self.line, self.fields_at) = (0, 0, None);
            (self.empty_lines, self.field_count) = (0, 0);
        }
        Ok(progress)
    }

    fn parse_lines(&mut self, buf: &[u8]) -> Result<Progress, BadRequest> {
        loop {
            let Some(lf) = memchr::memchr(b'\n', buf.get(self.scanned..).unwrap_or_default()) else {
                self.scanned = buf.len();
                self.check_unfinished_line(buf)?;
                return Ok(Progress::Incomplete);
            };
            let lf = self.scanned + lf;
            let with_cr = buf.get(self.line..lf).unwrap_or_default();
            let line = with_cr.strip_suffix(b"\r");
            self.check_line(with_cr, line.unwrap_or(with_cr).len(), lf + 1)?;
            let line = line.ok_or(Reason::BareLf)?;
            match self.fields_at {
                None if line.is_empty() => self.empty_lines += 1,
                None => {
                    self.parse_request_line(buf, line)?;
                    self.fields_at = Some(lf + 1);
                }
                Some(fields_at) if line.is_empty() => {
                    self.parse_fields(buf, buf.get(fields_at..lf + 1).unwrap_or_default())?;
                    self.head.head_len = (lf + 1) as u32;
                    return Ok(Progress::Complete);
                }
                Some(_) => self.field_count += 1,
            }
            (self.scanned, self.line) = (lf + 1, lf + 1);
        }
    }

    /// Checks what is known of a line before its LF has come.
    fn check_unfinished_line(&self, buf: &[u8]) -> Result<(), BadRequest> {
        let line = buf.get(self.line..).unwrap_or_default();
        let len = line.strip_suffix(b"\r").unwrap_or(line).len();
        // At least the LF is missing, and one byte more than `total` is too many.
        self.check_line(line, len, buf.len() + 1)
    }

    /// Checks a line's first byte and its length, `len`, without CRLF; the head has at least `total` bytes.
    /// The same line gives the same answer whether it came in one piece or in many.
    fn check_line(&self, line: &[u8], len: usize, total: usize) -> Result<(), BadRequest> {
        if self.fields_at.is_some() {
            if len > self.limits.header_line {
                return Err(Reason::HeaderLineTooLong.into());
            }
            if len > 0 && self.field_count >= FIELDS {
                return Err(Reason::TooManyFields.into());
            }
            if total > self.limits.total {
                return Err(Reason::HeadTooLarge.into());
            }
            return Ok(());
        }
        // Junk, such as a TLS handshake, is answered at its first byte instead of after a time-out.
        match line {
            [] | [b'\r'] => {}
            [first, ..] if is_token_byte(*first) => {}
            _ => return Err(Reason::Method.into()),
        }
        if self.empty_lines > MAX_EMPTY_LINES || (self.empty_lines == MAX_EMPTY_LINES && line == b"\r") {
            return Err(Reason::LeadingEmptyLines.into());
        }
        if len > self.limits.request_line || total > self.limits.total {
            return Err(Reason::RequestLineTooLong.into());
        }
        Ok(())
    }

    /// RFC 9112, 3: `method SP request-target SP HTTP-version`, with exactly one SP each.
    fn parse_request_line(&mut self, buf: &[u8], line: &[u8]) -> Result<(), BadRequest> {
        let Some((method, rest)) = split_at_space(line) else {
            let known = line.iter().all(|&byte| is_token_byte(byte));
            return Err(if known { Reason::NoVersion } else { Reason::Method }.into());
        };
        if method.is_empty() || !method.iter().all(|&byte| is_token_byte(byte)) {
            return Err(Reason::Method.into());
        }
        let (target, version) = split_at_space(rest).unwrap_or((rest, b""));
        // Without early exit, so that it is vectorized.
        let forbidden = target.iter().fold(false, |found, &byte| found | (byte <= b' ') | (byte == 0x7f));
        if target.is_empty() || forbidden {
            return Err(Reason::TargetByte.into());
        }
        self.head.minor = match version {
            b"HTTP/1.1" => 1,
            b"HTTP/1.0" => 0,
            b"" => return Err(Reason::NoVersion.into()),
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
                return Err(Reason::VersionNotSupported.into());
            }
            _ => return Err(Reason::Version.into()),
        };
        self.head.method = match method {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"CONNECT" => Method::Connect,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            _ => Method::Other,
        };
        self.head.method_span = Span::within(buf, method);
        self.head.target = Span::within(buf, target);
        self.head.line_len = line.len() as u32;
        Ok(())
    }

    /// `section` is all header lines and the empty line, every line known to end in CRLF.
    fn parse_fields(&mut self, buf: &[u8], section: &[u8]) -> Result<(), BadRequest> {
        // The number is known, and preparing the largest array would cost as much as parsing a usual head.
        match self.field_count {
            0..=8 => self.parse_fields_into(buf, section, &mut [httparse::EMPTY_HEADER; 8]),
            9..=24 => self.parse_fields_into(buf, section, &mut [httparse::EMPTY_HEADER; 24]),
            _ => self.parse_fields_into(buf, section, &mut [httparse::EMPTY_HEADER; FIELDS]),
        }
    }

    fn parse_fields_into<'a>(
        &mut self,
        buf: &'a [u8],
        section: &'a [u8],
        parsed: &mut [httparse::Header<'a>],
    ) -> Result<(), BadRequest> {
        let parsed = match httparse::parse_headers(section, parsed) {
            // Anything but one field a line would mean that httparse sees other lines than we do.
            Ok(httparse::Status::Complete((len, parsed))) if len == section.len() => parsed,
            Err(httparse::Error::TooManyHeaders) => return Err(Reason::TooManyFields.into()),
            Err(httparse::Error::HeaderValue) => return Err(Reason::FieldValue.into()),
            Ok(_) | Err(_) => return Err(Reason::FieldName.into()),
        };
        if parsed.len() != self.field_count {
            return Err(Reason::FieldValue.into());
        }
        let head = &mut self.head;
        for header in parsed {
            let name = header.name.as_bytes();
            if !head.facts.note(head.fields.len() as u16, name, header.value, head.minor, self.limits.underscores) {
                continue;
            }
            head.fields.push(Field { name: Span::within(buf, name), value: Span::within(buf, header.value) });
        }
        Ok(())
    }
}

impl Facts {
    /// Whether there is a precondition (RFC 9110, section 13.1; If-Range goes with Range).
    pub fn is_conditional(&self) -> bool {
        let conditions = [self.if_match, self.if_none_match, self.if_modified_since, self.if_unmodified_since];
        conditions.iter().any(|seen| *seen != Seen::None)
    }

    /// Notes a field, unless it is to be dropped: then it answers false. Length and first letter rule out nearly all other
    /// names, so at most two are compared.
    pub(super) fn note(&mut self, index: u16, name: &[u8], value: &[u8], minor: u8, underscores: bool) -> bool {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let first = name.first().map_or(0, u8::to_ascii_lowercase);
        let seen = match (name.len(), first) {
            (2, b't') if is("te") => &mut self.te,
            (4, b'h') if is("host") => &mut self.host,
            (5, b'r') if is("range") => &mut self.range,
            (6, b'a') if is("accept") => &mut self.accept,
            (6, b'c') if is("cookie") => &mut self.cookie,
            (6, b'e') if is("expect") => {
                if minor > 0 {
                    let known = value.eq_ignore_ascii_case(b"100-continue");
                    self.expect_continue |= known;
                    self.expect_unknown |= !known;
                }
                &mut self.expect
            }
            (7, b'r') if is("referer") => &mut self.referer,
            (7, b't') if is("trailer") => &mut self.trailer,
            (7, b'u') if is("upgrade") => &mut self.upgrade,
            (8, b'i') if is("if-range") => &mut self.if_range,
            (8, b'i') if is("if-match") => &mut self.if_match,
            (10, b'c') if is("connection") => {
                self.note_connection(value);
                &mut self.connection
            }
            (10, b'u') if is("user-agent") => &mut self.user_agent,
            (12, b'c') if is("content-type") => &mut self.content_type,
            (13, b'a') if is("authorization") => &mut self.authorization,
            (13, b'i') if is("if-none-match") => &mut self.if_none_match,
            (14, b'c') if is("content-length") => &mut self.content_length,
            (15, b'a') if is("accept-encoding") => &mut self.accept_encoding,
            (15, b'x') if is("x-forwarded-for") => &mut self.x_forwarded_for,
            (17, b'i') if is("if-modified-since") => &mut self.if_modified_since,
            (17, b't') if is("transfer-encoding") => &mut self.transfer_encoding,
            (19, b'i') if is("if-unmodified-since") => &mut self.if_unmodified_since,
            _ if !underscores && name.contains(&b'_') => {
                self.dropped += 1;
                return false;
            }
            _ => return true,
        };
        seen.add(index);
        true
    }

    /// RFC 9110, 7.6.1: a list of options, case-insensitive.
    fn note_connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',') {
            let option = option.trim_ascii();
            self.connection_close |= option.eq_ignore_ascii_case(b"close");
            self.connection_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }
}

fn split_at_space(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = memchr::memchr(b' ', bytes)?;
    Some((bytes.get(..space)?, bytes.get(space + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { request_line: 64, header_line: 128, total: 4096, underscores: true };

    /// Parses `input` in one piece, and checks that every split and single bytes give the same.
    fn parse_with<const FIELDS: usize>(limits: Limits, input: &[u8]) -> Result<Head, u16> {
        let run = |pieces: &mut dyn Iterator<Item = usize>| {
            let mut parser = HeadParser::<FIELDS>::new(limits);
            let mut head = Head::default();
            for end in pieces {
                match parser.parse(&input[..end], &mut head) {
                    Ok(Progress::Incomplete) => {}
                    Ok(Progress::Complete) => return Ok(head),
                    Err(error) => return Err(error.status),
                }
            }
            Err(0)
        };
        let whole = run(&mut [input.len()].into_iter());
        // Whether the target is known to be plain is the one thing that may differ.
        let show = |result: &Result<Head, u16>| {
            let text = format!("{result:?}");
            let plain = text.find("plain_path").map_or(0..0, |at| at..at + text[at..].find("minor").unwrap_or(0));
            [&text[..plain.start], &text[plain.end..]].concat()
        };
        for at in 0..input.len() {
            let split = run(&mut [at, input.len()].into_iter());
            assert_eq!(show(&split), show(&whole), "split at {at} of {}", input.escape_ascii());
        }
        assert_eq!(show(&run(&mut (0..=input.len()))), show(&whole), "byte by byte: {}", input.escape_ascii());
        whole
    }

    /// The status that `input` gives: 200 if complete, 0 if more is needed.
    fn status(input: &[u8]) -> u16 {
        parse_with::<MAX_FIELDS>(LIMITS, input).map_or_else(|status| status, |_| 200)
    }

    #[test]
    fn a_whole_head() {
        let input = b"\r\nPOST /a?b=c HTTP/1.1\r\nHost: example\r\nX-Empty:\r\nX-Blank: \t \r\n\
            Accept:\t text/html ,*/* \t\r\nhOST: again\r\nIf-Modified-Since: x\r\n\r\nBODY";
        let head = parse_with::<MAX_FIELDS>(LIMITS, input).unwrap();
        assert_eq!(head.method(), Method::Post);
        assert_eq!(head.method_span().of(input), b"POST");
        assert_eq!(head.target().of(input), b"/a?b=c");
        assert_eq!((head.minor(), head.line_len()), (1, 20));
        assert_eq!(&input[head.head_len()..], b"BODY");
        let fields: Vec<_> = head
            .fields()
            .iter()
            .map(|field| format!("{}={}", field.name.of(input).escape_ascii(), field.value.of(input).escape_ascii()))
            .collect();
        let expected = ["Host=example", "X-Empty=", "X-Blank=", "Accept=text/html ,*/*", "hOST=again"];
        assert_eq!(fields[..5], expected);
        assert_eq!(head.facts().host, Seen::Many);
        assert_eq!(head.facts().accept, Seen::One(3));
        assert_eq!(head.value(head.facts().if_modified_since, input), Some(&b"x"[..]));
        assert_eq!(head.value(head.facts().host, input), None);
        assert_eq!(head.facts().content_length, Seen::None);
    }

    #[test]
    fn request_lines() {
        let table: &[(&[u8], u16)] = &[
            (b"GET / HTTP/1.1", 200),
            (b"GET / HTTP/1.0", 200),
            (b"M-SEARCH * HTTP/1.1", 200),
            (b"get / HTTP/1.1", 200),
            (b"!#$%&'*+-.^_`|~09azAZ / HTTP/1.1", 200),
            (b"GET /\xc3\xa4 HTTP/1.1", 200),
            (b"GET /\xff HTTP/1.1", 200),
            (b"GET /\"<>\\^`{|} HTTP/1.1", 200),
            (b"GET anything HTTP/1.1", 200), // the form is target.rs's business
            (b"GET /", 400),
            (b"GET / ", 400),
            (b"GET", 400),
            (b"GET ", 400),
            (b"GET  HTTP/1.1", 400),
            (b"GET  / HTTP/1.1", 400),
            (b"GET /  HTTP/1.1", 400),
            (b"GET / HTTP/1.1 ", 400),
            (b" GET / HTTP/1.1", 400),
            (b"GET\t/ HTTP/1.1", 400),
            (b"GET /\tHTTP/1.1", 400),
            (b"GET /\x0b HTTP/1.1", 400),
            (b"GET /a b HTTP/1.1", 400),
            (b"GET /\x00 HTTP/1.1", 400),
            (b"GET /\x7f HTTP/1.1", 400),
            (b"GET /\r HTTP/1.1", 400),
            (b"GET / HTTP/1.1\r", 400),
            (b"\rGET / HTTP/1.1", 400),
            (b"G@T / HTTP/1.1", 400),
            (b"G\xc3\xa4T / HTTP/1.1", 400),
            (b"GET / HTTP/1.", 400),
            (b"GET / HTTP/1.10", 400),
            (b"GET / HTTP/11", 400),
            (b"GET / http/1.1", 400),
            (b"GET / HTTP/1,1", 400),
            (b"GET / HTTP/a.b", 400),
            (b"GET / XTTP/1.1", 400),
            (b"GET / HTTP", 400),
            (b"GET / HTTP/2.0", 505),
            (b"GET / HTTP/0.9", 505),
            (b"GET / HTTP/1.2", 505),
            (b"PRI * HTTP/2.0", 505),
            (b"\x16\x03\x01\x02\x00\x01", 400),
        ];
        for (line, expected) in table {
            let input = [line, &b"\r\nHost: a\r\n\r\n"[..]].concat();
            assert_eq!(status(&input), *expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn methods() {
        let table = [
            ("GET", Method::Get),
            ("HEAD", Method::Head),
            ("POST", Method::Post),
            ("PUT", Method::Put),
            ("DELETE", Method::Delete),
            ("CONNECT", Method::Connect),
            ("OPTIONS", Method::Options),
            ("TRACE", Method::Trace),
            ("PATCH", Method::Patch),
            ("get", Method::Other),
            ("GETS", Method::Other),
        ];
        for (name, method) in table {
            let head = parse_with::<MAX_FIELDS>(LIMITS, format!("{name} / HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
            assert_eq!(head.method(), method, "{name}");
        }
    }

    #[test]
    fn header_lines() {
        let table: &[(&[u8], u16)] = &[
            (b"a: b\r\n", 200),
            (b"a:b\r\n", 200),
            (b"a:\r\n", 200),
            (b"a: b:c\r\n", 200),
            (b"a: \xff\x80\r\n", 200),
            (b"a: b\tc\r\n", 200),
            (b"a_b: c\r\n", 200),
            (b"a: b\n", 400),
            (b"a:\n", 400),
            (b"a: \n", 400),
            (b"a: b\r\nc: d\ne: f\r\n", 400),
            (b"a: b\rc\r\n", 400),
            (b"a: b\r\r\n", 400),
            (b"a\r: b\r\n", 400),
            (b"\ra: b\r\n", 400),
            (b"a: b\r\n c\r\n", 400),
            (b"a: b\r\n\tc\r\n", 400),
            (b"a: b\r\n \r\n", 400),
            (b"a:\r\n b\r\n", 400),
            (b" a: b\r\n", 400),
            (b"\ta: b\r\n", 400),
            (b"a : b\r\n", 400),
            (b"a\t: b\r\n", 400),
            (b": b\r\n", 400),
            (b":\r\n", 400),
            (b"a\r\n", 400),
            (b"a b\r\n", 400),
            (b"a(b): c\r\n", 400),
            (b"a\x00: c\r\n", 400),
            (b"\xc3\xa4: c\r\n", 400),
            (b"a: b\x00\r\n", 400),
            (b"a: b\x01c\r\n", 400),
            (b"a: b\x7fc\r\n", 400),
            (b"a:\x0bb\r\n", 400),
            (b"a:\x0cb\r\n", 400),
        ];
        for (lines, expected) in table {
            let input = [b"GET / HTTP/1.1\r\n", *lines, b"\r\n"].concat();
            assert_eq!(status(&input), *expected, "{}", lines.escape_ascii());
        }
    }

    /// httparse looks at many bytes at a time; every byte must mean the same wherever it stands.
    #[test]
    fn every_byte_at_every_place_of_names_and_values() {
        let parse = |input: &[u8]| {
            HeadParser::<4>::new(LIMITS).parse(input, &mut Head::default()).is_ok_and(|p| p == Progress::Complete)
        };
        for place in 0..70 {
            for byte in 0..=255_u8 {
                let mut part = [b'x'; 70];
                part[place] = byte;
                let value = [b"GET / HTTP/1.1\r\na: ", &part[..], b"\r\n\r\n"].concat();
                assert_eq!(parse(&value), super::super::is_value_byte(byte), "value byte {byte} at {place}");
                let name = [b"GET / HTTP/1.1\r\n", &part[..], b": b\r\n\r\n"].concat();
                // A colon inside ends the name early, which is well-formed.
                let expected = is_token_byte(byte) || (byte == b':' && place > 0);
                assert_eq!(parse(&name), expected, "name byte {byte} at {place}");
            }
        }
    }

    #[test]
    fn empty_lines_before_the_request_line() {
        let with = |count: usize| status(&[b"\r\n".repeat(count), b"GET / HTTP/1.1\r\n\r\n".to_vec()].concat());
        assert_eq!([with(0), with(1), with(8), with(9), with(20)], [200, 200, 200, 400, 400]);
        assert_eq!(status(b"\nGET / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status(b"\r\n\nGET / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status(b"\r\n \r\nGET / HTTP/1.1\r\n\r\n"), 400);
    }

    #[test]
    fn unfinished_heads_need_more() {
        let input = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for len in 0..input.len() {
            assert_eq!(status(&input[..len]), 0, "{len}");
        }
        assert_eq!(status(input), 200);
    }

    #[test]
    fn limits_are_exact_and_known_early() {
        let line = |len: usize| format!("GET /{} HTTP/1.1\r\n", "x".repeat(len - 14));
        let field = |len: usize| format!("a:{}\r\n", "x".repeat(len - 2));
        assert_eq!(status((line(64) + "\r\n").as_bytes()), 200);
        assert_eq!(status((line(65) + "\r\n").as_bytes()), 414);
        assert_eq!(status(&b"x".repeat(64)), 0);
        assert_eq!(status(&b"x".repeat(65)), 414);
        assert_eq!(status((line(64) + &field(128) + "\r\n").as_bytes()), 200);
        assert_eq!(status((line(64) + &field(129) + "\r\n").as_bytes()), 431);
        assert_eq!(status((line(64) + &"x".repeat(128)).as_bytes()), 0);
        assert_eq!(status((line(64) + &"x".repeat(129)).as_bytes()), 431);

        let total = |total: usize, input: &str| {
            let limits = Limits { total, ..LIMITS };
            parse_with::<MAX_FIELDS>(limits, input.as_bytes()).map_or_else(|status| status, |_| 200)
        };
        let head = line(20) + &field(10) + "\r\n";
        assert_eq!(head.len(), 36);
        assert_eq!(
            [total(36, &head), total(35, &head), total(35, &head[..35]), total(35, &head[..34])],
            [200, 431, 431, 0]
        );
        assert_eq!(total(10, &head), 414);
    }

    #[test]
    fn number_of_header_lines() {
        let few = |count: usize| {
            let input = format!("GET / HTTP/1.1\r\n{}\r\n", "a:b\r\n".repeat(count));
            parse_with::<3>(LIMITS, input.as_bytes()).map_or_else(|status| status as usize, |head| head.fields().len())
        };
        assert_eq!([few(0), few(2), few(3), few(4), few(30)], [0, 2, 3, 431, 431]);
        let many = |count: usize| {
            let input = format!("GET / HTTP/1.1\r\n{}\r\n", "a:b\r\n".repeat(count));
            let mut parser: HeadParser = HeadParser::new(LIMITS);
            let mut head = Head::default();
            parser
                .parse(input.as_bytes(), &mut head)
                .map_or_else(|error| error.status as usize, |_| head.fields().len())
        };
        assert_eq!([8, 9, 24, 25, 128, 129].map(many), [8, 9, 24, 25, 128, 431]);
    }

    #[test]
    fn facts_of_every_known_field() {
        type Getter = fn(&Facts) -> Seen;
        let table: &[(&str, Getter)] = &[
            ("Host", |f| f.host),
            ("Content-Length", |f| f.content_length),
            ("Transfer-Encoding", |f| f.transfer_encoding),
            ("Connection", |f| f.connection),
            ("Expect", |f| f.expect),
            ("Upgrade", |f| f.upgrade),
            ("TE", |f| f.te),
            ("Trailer", |f| f.trailer),
            ("Content-Type", |f| f.content_type),
            ("Accept", |f| f.accept),
            ("Accept-Encoding", |f| f.accept_encoding),
            ("Authorization", |f| f.authorization),
            ("Cookie", |f| f.cookie),
            ("Range", |f| f.range),
            ("If-Range", |f| f.if_range),
            ("If-Match", |f| f.if_match),
            ("If-None-Match", |f| f.if_none_match),
            ("If-Modified-Since", |f| f.if_modified_since),
            ("If-Unmodified-Since", |f| f.if_unmodified_since),
            ("Referer", |f| f.referer),
            ("User-Agent", |f| f.user_agent),
            ("X-Forwarded-For", |f| f.x_forwarded_for),
        ];
        for (name, get) in table {
            for name in [name.to_string(), name.to_lowercase(), name.to_uppercase()] {
                let once = format!("GET / HTTP/1.1\r\nx: y\r\n{name}: v\r\n\r\n");
                let twice = format!("GET / HTTP/1.1\r\n{name}: v\r\n{name}: v\r\n\r\n");
                for (input, expected) in [(once, Seen::One(1)), (twice, Seen::Many)] {
                    let facts = *parse_with::<MAX_FIELDS>(LIMITS, input.as_bytes()).unwrap().facts();
                    assert_eq!(get(&facts), expected, "{name}");
                    let text = format!("{facts:?}");
                    assert_eq!(text.matches("One(").count() + text.matches("Many").count(), 1, "{name}: {text}");
                }
            }
        }
        // Other names of the same length and first letter are none of them.
        for (name, _) in table {
            let other = format!("{}{}", &name[..1], "q".repeat(name.len() - 1));
            let input = format!("GET / HTTP/1.1\r\n{other}: v\r\n\r\n");
            let facts = *parse_with::<MAX_FIELDS>(LIMITS, input.as_bytes()).unwrap().facts();
            assert_eq!(format!("{facts:?}"), format!("{:?}", Facts::default()), "{other}");
        }
    }

    #[test]
    fn connection_and_expect() {
        let facts = |version: &str, lines: &str| {
            let input = format!("GET / {version}\r\n{lines}\r\n");
            let f = *parse_with::<MAX_FIELDS>(LIMITS, input.as_bytes()).unwrap().facts();
            let flags = [f.connection_close, f.connection_keep_alive, f.connection_upgrade];
            (flags, f.expect_continue, f.expect_unknown)
        };
        let (no, none) = ([false; 3], (false, false));
        let table = [
            ("", no, none),
            ("Connection: close\r\n", [true, false, false], none),
            ("Connection: CLOSE\r\n", [true, false, false], none),
            ("Connection: Keep-Alive, Upgrade\r\n", [false, true, true], none),
            ("Connection: ,close\t,, keep-alive\r\n", [true, true, false], none),
            ("Connection: upgrade\r\nConnection: close\r\n", [true, false, true], none),
            ("Connection: closed, keep alive\r\n", no, none),
            ("Expect: 100-Continue\r\n", no, (true, false)),
            ("Expect: 200-ok\r\n", no, (false, true)),
            ("Expect: 100-continue\r\nExpect: x\r\n", no, (true, true)),
        ];
        for (lines, flags, (known, unknown)) in table {
            assert_eq!(facts("HTTP/1.1", lines), (flags, known, unknown), "{lines}");
            assert_eq!(facts("HTTP/1.0", lines), (flags, false, false), "{lines}");
        }
    }

    #[test]
    fn a_parser_is_used_again() {
        let (mut parser, mut head): (HeadParser, _) = (HeadParser::new(LIMITS), Head::default());
        let first = b"\r\nGET /first HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert_eq!(parser.parse(&first[..20], &mut head), Ok(Progress::Incomplete));
        assert_eq!(parser.parse(first, &mut head), Ok(Progress::Complete));
        assert_eq!(head.fields().len(), 2);
        let second = b"PUT /2 HTTP/1.0\r\n\r\n";
        assert_eq!(parser.parse(second, &mut head), Ok(Progress::Complete));
        assert_eq!((head.method(), head.minor(), head.fields().len()), (Method::Put, 0, 0));
        assert_eq!((head.target().of(second), head.head_len()), (&b"/2"[..], second.len()));
        assert_eq!((head.facts().host, head.facts().connection_close), (Seen::None, false));
    }

    #[test]
    fn a_plain_target_is_known() {
        let plain = |target: &str| {
            let input = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let head = parse_with::<MAX_FIELDS>(LIMITS, input.as_bytes()).unwrap();
            head.plain_target().map(|(path, args)| {
                let text = |span: Span| String::from_utf8_lossy(span.of(input.as_bytes())).into_owned();
                (text(path), args.map(text))
            })
        };
        let some = |path: &str, args: Option<&str>| Some((path.to_string(), args.map(str::to_string)));
        assert_eq!(plain("/"), some("/", None));
        assert_eq!(plain("/a/b.c/"), some("/a/b.c/", None));
        assert_eq!(plain("/a?"), some("/a", Some("")));
        assert_eq!(plain("/a?x=%20/../?"), some("/a", Some("x=%20/../?")));
        for target in ["/%61", "//", "/a//b", "/.", "/../a", "/a/.b", "/a#b", "/a?b#c", "*", "http://a/", "a"] {
            assert_eq!(plain(target), None, "{target}");
        }
    }
}
