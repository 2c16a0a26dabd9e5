//! Requests as a client sends them, one after the other on a connection: head, target, host, framing, path, body.
//!
//! Held against a second, simple reading of the same bytes, since what two readers take differently is how requests are
//! smuggled. In pieces it must read the same requests, and refuse at the same one with the same status.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use topnext::http1::{
    BadRequest, ChunkedDecoder, Decoded, Framing, Head, HeadParser, Limits, Method, Progress, Target, body_framing,
    host, normalize, persistent,
};

/// Small, so that they are met often.
const LIMITS: Limits = Limits { request_line: 200, header_line: 100, total: 600, underscores: true };
const MAX_FIELDS: usize = 12;

fuzz_target!(|data: &[u8]| {
    let whole = read(&[data]);
    for pieces in topnext_fuzz::cuts(data) {
        assert_eq!(
            read(&pieces),
            whole,
            "in pieces of {:?}",
            pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>()
        );
    }
});

/// What was read, a line for each request, and the status that refused what followed.
fn read(pieces: &[&[u8]]) -> (Vec<String>, Option<u16>) {
    let mut connection = Connection {
        parser: HeadParser::new(LIMITS),
        head: Head::default(),
        buf: BytesMut::new(),
        body: None,
        seen: Vec::new(),
    };
    for piece in pieces {
        connection.buf.extend_from_slice(piece);
        if let Err(error) = connection.advance() {
            assert!((400..=599).contains(&error.status) && !error.reason.is_empty());
            return (connection.seen, Some(error.status));
        }
    }
    // What is incomplete says how far it came.
    let left = connection.buf.len();
    connection.seen.push(format!("{left} bytes left, body {:?}", connection.body.map(|body| body.content)));
    (connection.seen, None)
}

struct Connection {
    parser: HeadParser<MAX_FIELDS>,
    head: Head,
    buf: BytesMut,
    body: Option<Body>,
    seen: Vec<String>,
}

struct Body {
    framing: Framing,
    decoder: ChunkedDecoder,
    content: Vec<u8>,
    /// What is known of the request.
    line: String,
}

impl Connection {
    /// Reads all requests that are complete.
    fn advance(&mut self) -> Result<(), BadRequest> {
        loop {
            if self.body.is_none() {
                if self.buf.is_empty() || self.parser.parse(&self.buf, &mut self.head)? == Progress::Incomplete {
                    return Ok(());
                }
                assert!((1..=self.buf.len()).contains(&self.head.head_len()));
                let bytes = self.buf.split_to(self.head.head_len()).freeze();
                self.body = Some(begin(&self.head, &bytes)?);
            }
            let Some(body) = &mut self.body else { return Ok(()) };
            let done = match body.framing {
                Framing::None => true,
                Framing::Length(length) => {
                    let missing = usize::try_from(length).unwrap_or(usize::MAX) - body.content.len();
                    body.content.extend_from_slice(&self.buf.split_to(missing.min(self.buf.len())));
                    body.content.len() as u64 == length
                }
                Framing::Chunked => {
                    let content = &mut body.content;
                    body.decoder.decode(&mut self.buf, &mut |data| content.extend_from_slice(&data))? == Decoded::Done
                }
            };
            if !done {
                return Ok(());
            }
            if let Some(body) = self.body.take() {
                self.seen.push(format!("{} body {}", body.line, body.content.escape_ascii()));
            }
        }
    }
}

/// All that is made of a head.
fn begin(head: &Head, bytes: &[u8]) -> Result<Body, BadRequest> {
    let fields = reread(head, bytes);
    let target = Target::parse(head, bytes)?;
    let path = target.path(bytes);
    let normal = normalize(path, true);
    if let Some((plain, args)) = head.plain_target() {
        assert_eq!((plain.of(bytes), args.map(|args| args.of(bytes))), (path, target.args(bytes)));
        assert_eq!(normal.as_ref().map(|normal| normal.or(path)), Ok(path));
    }
    let host = host(head, bytes, &target)?;
    let name = host.map(|host| host.name.of(bytes)).unwrap_or_default();
    check_host(head, &fields, host.is_some(), name);
    let framing = body_framing(head, bytes)?;
    check_framing(head, &fields, framing);
    let persistent = persistent(head);
    check_persistent(head, &fields, persistent);
    // CONNECT has no path, and the server refuses it before it looks for one.
    let path = if head.method() == Method::Connect { Vec::new() } else { normal?.or(path).to_vec() };
    let line = format!("{:?} {} {} {persistent} {framing:?}", head.method(), path.escape_ascii(), name.escape_ascii());
    Ok(Body { framing, decoder: ChunkedDecoder::new(), content: Vec::new(), line })
}

type Fields<'a> = Vec<(Vec<u8>, &'a [u8])>;

/// Reads the head once more, line by line, and compares. Names are given in lowercase.
fn reread<'a>(head: &Head, bytes: &'a [u8]) -> Fields<'a> {
    let text = bytes.strip_suffix(b"\r\n\r\n").expect("a head ends in an empty line");
    let lines = || text.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    assert!(lines().all(|line| !line.contains(&b'\r') && !line.contains(&0)));
    assert_eq!(
        bytes.iter().filter(|&&byte| byte == b'\n').count(),
        bytes.windows(2).filter(|two| two == b"\r\n").count()
    );
    let mut lines = lines().skip_while(|line| line.is_empty());
    let expected = [head.method_span().of(bytes), b" ", head.target().of(bytes), b" HTTP/1."].concat();
    let line = lines.next().expect("a request line");
    assert_eq!(line, [&expected[..], if head.minor() == 0 { b"0" } else { b"1" }].concat());
    assert_eq!((head.line_len(), line.iter().filter(|&&byte| byte == b' ').count()), (line.len(), 2));
    let mut fields = Vec::new();
    for (index, line) in lines.enumerate() {
        let colon = line.iter().position(|&byte| byte == b':').expect("a colon");
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        assert!(
            !name.is_empty()
                && name.iter().all(|byte| byte.is_ascii_graphic() && !b"()<>@,;\\\"/[]?={}".contains(byte))
        );
        assert!(value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f)));
        let field = head.fields().get(index).expect("a field for each line");
        assert_eq!((field.name.of(bytes), field.value.of(bytes)), (name, value));
        fields.push((name.to_ascii_lowercase(), value));
    }
    assert_eq!(head.fields().len(), fields.len());
    fields
}

fn values<'a>(fields: &'a Fields<'a>, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |(other, _)| other == name.as_bytes()).map(|(_, value)| *value)
}

fn check_host(head: &Head, fields: &Fields<'_>, found: bool, name: &[u8]) {
    let given = values(fields, "host").count();
    assert!(given == 1 || (given == 0 && head.minor() == 0));
    assert_eq!(found, !name.is_empty());
    assert!(name.iter().all(|byte| byte.is_ascii_graphic() && !b"/\\?#@\"<>".contains(byte)));
    assert!(!name.windows(2).any(|two| two == b".."));
}

fn check_framing(head: &Head, fields: &Fields<'_>, framing: Framing) {
    let lengths: Vec<_> = values(fields, "content-length").collect();
    let codings: Vec<_> = values(fields, "transfer-encoding").collect();
    match framing {
        Framing::None => assert!(lengths.is_empty() && codings.is_empty()),
        Framing::Length(length) => {
            assert!(codings.is_empty() && lengths.len() == 1 && lengths[0].iter().all(u8::is_ascii_digit));
            assert_eq!(str::from_utf8(lengths[0]).unwrap().parse(), Ok(length));
        }
        Framing::Chunked => {
            assert!(lengths.is_empty() && codings.len() == 1 && codings[0].eq_ignore_ascii_case(b"chunked"));
            assert_eq!(head.minor(), 1);
        }
    }
}

fn check_persistent(head: &Head, fields: &Fields<'_>, persistent: bool) {
    let has = |option: &[u8]| {
        let mut options = values(fields, "connection").flat_map(|value| value.split(|&byte| byte == b','));
        options.any(|other| other.trim_ascii().eq_ignore_ascii_case(option))
    };
    assert_eq!(persistent, !has(b"close") && (head.minor() == 1 || has(b"keep-alive")));
}
