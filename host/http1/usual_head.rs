//! Heads as nearly every client sends them, in one pass: a known method, a path that is normal as it is, HTTP/1.1, few
//! fields, complete.
//!
//! What is accepted here is exactly what [`super::HeadParser`] accepts step by step, and gives the same [`Head`]; at the
//! first byte that is unusual, missing or wrong the answer is `None`, and the parser starts over with what it is thorough
//! at: partial heads, limits, and saying what is wrong. Its tests parse each head both ways.

use super::{
    Head, Limits, Method,
    head::{Field, Span},
};

/// More fields than this are left to the parser.
const FIELDS: usize = 16;

/// What a byte of a request target means in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Byte {
    Plain,
    Dot,
    Slash,
    Query,
    /// In a path it has to be decoded; in arguments it stands for itself.
    Percent,
    Space,
    /// A fragment, which a target must not have, or a control character.
    Bad,
}

static BYTES: [Byte; 256] = {
    let mut table = [Byte::Plain; 256];
    let mut byte = 0;
    while byte < b' ' as usize {
        table[byte] = Byte::Bad;
        byte += 1;
    }
    table[0x7f] = Byte::Bad;
    table[b'#' as usize] = Byte::Bad;
    table[b' ' as usize] = Byte::Space;
    table[b'%' as usize] = Byte::Percent;
    table[b'.' as usize] = Byte::Dot;
    table[b'/' as usize] = Byte::Slash;
    table[b'?' as usize] = Byte::Query;
    table
};

/// Parses the head at the start of `buf` into `head`, which is empty; if the answer is `None` it has to be cleared.
/// `max_fields` and `limits` are the parser's.
pub(super) fn parse(buf: &[u8], limits: &Limits, max_fields: usize, head: &mut Head) -> Option<()> {
    let (method, method_len) = method(buf)?;
    let start = method_len + 1;
    let path_end = path_end(buf, start)?;
    let target_end = match buf.get(path_end)? {
        b'?' => args_end(buf, path_end + 1)?,
        _ => path_end,
    };
    let line_len = target_end + b" HTTP/1.1".len();
    if buf.get(target_end..line_len + 2)? != b" HTTP/1.1\r\n" {
        return None;
    }
    let section = buf.get(line_len + 2..)?;
    let mut parsed = [httparse::EMPTY_HEADER; FIELDS];
    let (len, fields) = match httparse::parse_headers(section, &mut parsed) {
        Ok(httparse::Status::Complete(complete)) => complete,
        Ok(httparse::Status::Partial) | Err(_) => return None,
    };
    let head_len = line_len + 2 + len;
    if fields.len() > max_fields || head_len > limits.request_line.min(limits.header_line).min(limits.total) {
        return None;
    }
    head.minor = 1;
    let mut at = line_len + 2;
    for header in fields.iter() {
        let (name, value) = (header.name.as_bytes(), header.value);
        if value.is_empty() {
            // Where an empty value lies is httparse's secret.
            return None;
        }
        let field = Field { name: Span::within(buf, name), value: Span::within(buf, value) };
        // Each field is one line: it starts where the one before ended, and ends in CRLF.
        if field.name.start as usize != at {
            return None;
        }
        at = line_end(buf, field.value.end as usize)?;
        if head.facts.note(head.fields.len() as u16, name, value, 1, limits.underscores) {
            head.fields.push(field);
        }
    }
    if buf.get(at..head_len)? != b"\r\n" {
        return None;
    }
    // All fit: a head is shorter than 4 GiB (Limits::total).
    let span = |start: usize, end: usize| Span { start: start as u32, end: end as u32 };
    (head.method, head.method_span) = (method, span(0, method_len));
    head.target = span(start, target_end);
    head.plain_path = Some(span(start, path_end));
    (head.line_len, head.head_len) = (line_len as u32, head_len as u32);
    Some(())
}

fn method(buf: &[u8]) -> Option<(Method, usize)> {
    match buf {
        [b'G', b'E', b'T', b' ', ..] => Some((Method::Get, 3)),
        [b'H', b'E', b'A', b'D', b' ', ..] => Some((Method::Head, 4)),
        [b'P', b'O', b'S', b'T', b' ', ..] => Some((Method::Post, 4)),
        [b'P', b'U', b'T', b' ', ..] => Some((Method::Put, 3)),
        _ => None,
    }
}

/// Where the path that begins at `start` ends: at a space or `?`. `None` if it would have to be normalized.
fn path_end(buf: &[u8], start: usize) -> Option<usize> {
    let path = buf.get(start..)?.strip_prefix(b"/")?;
    let mut after_slash = true;
    for (index, &byte) in path.iter().enumerate() {
        match BYTES[usize::from(byte)] {
            Byte::Plain => after_slash = false,
            Byte::Space | Byte::Query => return Some(start + 1 + index),
            Byte::Slash if !after_slash => after_slash = true,
            Byte::Dot if !after_slash => (),
            _ => return None,
        }
    }
    None
}

/// Where the arguments that begin at `start` end.
fn args_end(buf: &[u8], start: usize) -> Option<usize> {
    let args = buf.get(start..)?;
    let end = args.iter().position(|&byte| matches!(BYTES[usize::from(byte)], Byte::Space | Byte::Bad))?;
    (BYTES[usize::from(args[end])] == Byte::Space).then_some(start + end)
}

/// Where the line ends whose value ends at `at`.
fn line_end(buf: &[u8], mut at: usize) -> Option<usize> {
    while let Some(b' ' | b'\t') = buf.get(at) {
        at += 1;
    }
    (buf.get(at..at + 2)? == b"\r\n").then_some(at + 2)
}
