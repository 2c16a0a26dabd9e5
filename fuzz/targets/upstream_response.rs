//! A peer's response as module proxy reads it: the header, and a chunked body behind it.
//!
//! A header that is incomplete becomes complete, or is refused, only by more bytes, never by other pieces. What is
//! accepted has one line for each field, and its framing is what a second, simple reading finds.

#![no_main]

use libfuzzer_sys::fuzz_target;
use response::{Framing, Head, field_storage};

#[allow(dead_code, reason = "the module's files, as they are")]
#[path = "../../modules/upstreams/proxy/src/hop_by_hop.rs"]
mod hop_by_hop;

#[allow(dead_code, reason = "the module's files, as they are")]
#[path = "../../modules/upstreams/proxy/src/response.rs"]
mod response;

#[allow(dead_code, reason = "the module's files, as they are")]
#[path = "../../modules/upstreams/proxy/src/chunked.rs"]
mod chunked;

fuzz_target!(|data: &[u8]| {
    let whole = header(data);
    if let Some((length, _)) = whole {
        // Bytes behind the header change nothing, and each byte of it is needed.
        assert_eq!(header(&data[..length]), whole);
        assert_eq!(header(&data[..length - 1]), None);
    }
    let Some((length, Framing::Chunked)) = whole else { return };
    let body = &data[length..];
    let read = content(std::iter::once(body));
    for pieces in topnext_fuzz::cuts(body) {
        assert_eq!(content(pieces.into_iter()), read);
    }
});

/// Length and framing of a header that is complete and accepted.
fn header(data: &[u8]) -> Option<(usize, Framing)> {
    let mut storage = field_storage();
    let head = match Head::parse(data, &mut storage) {
        Ok(head) => head?,
        Err(message) => {
            assert!(!message.is_empty() && !message.contains('\n'));
            return None;
        }
    };
    assert!((100..=599).contains(&head.status) && head.status != 101);
    let text = data[..head.length].strip_suffix(b"\r\n\r\n").expect("an empty line at the end");
    let mut lines = text.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    assert!(lines.next().expect("a status line").starts_with(b"HTTP/1."));
    let fields: Vec<(Vec<u8>, &[u8])> = lines
        .map(|line| {
            assert!(!line.contains(&b'\r') && !line.contains(&0));
            let colon = line.iter().position(|&byte| byte == b':').expect("a colon");
            (line[..colon].to_ascii_lowercase(), line[colon + 1..].trim_ascii())
        })
        .collect();
    let values = |name: &[u8]| fields.iter().filter(|field| field.0 == name).map(|field| field.1).collect::<Vec<_>>();
    match (head.framing, &values(b"content-length")[..], &values(b"transfer-encoding")[..]) {
        (Framing::Length(length), [value], []) => assert_eq!(str::from_utf8(value).unwrap().parse(), Ok(length)),
        (Framing::Chunked, [], [value]) => assert!(value.eq_ignore_ascii_case(b"chunked")),
        (Framing::UntilClose, [], []) => {}
        found => panic!("{found:?}"),
    }
    for field in head.passed() {
        let name = field.name.to_ascii_lowercase();
        assert!(!["connection", "keep-alive", "transfer-encoding", "content-length", "upgrade"].contains(&&*name));
        assert!(fields.iter().any(|other| other.0 == name.as_bytes() && other.1 == field.value));
    }
    Some((head.length, head.framing))
}

/// The content of a chunked body, and whether it is complete.
fn content<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<(Vec<u8>, bool), &'static str> {
    let mut decoder = chunked::Decoder::new();
    let mut content = Vec::new();
    for mut piece in pieces {
        while !piece.is_empty() {
            let taken = match decoder.next(piece)? {
                chunked::Piece::Content(taken) => {
                    content.extend_from_slice(&piece[..taken]);
                    taken
                }
                chunked::Piece::Framing(taken) => taken,
                chunked::Piece::End(_) => return Ok((content, true)),
            };
            assert!(taken > 0, "stands still");
            piece = &piece[taken..];
        }
    }
    Ok((content, false))
}
