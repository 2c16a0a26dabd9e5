//! Chunked bodies of requests, and what follows them on the connection.
//!
//! In pieces they give the same content, leave the same bytes, and are refused with the same status. The content,
//! encoded again, decodes to itself. The decoder of module proxy, which reads responses, takes for
//! content what this one does.

#![no_main]

use bytes::{BufMut, BytesMut};
use libfuzzer_sys::fuzz_target;
use topnext::http1::{ChunkedDecoder, Decoded, encode_chunk_head};

#[allow(dead_code, reason = "only the decoder is used")]
#[path = "../../modules/upstreams/proxy/src/chunked.rs"]
mod of_response;

/// The content, and how many bytes are behind it; `None` while the body is not complete. Or the status.
type Read = Result<(Vec<u8>, Option<usize>), u16>;

fuzz_target!(|data: &[u8]| {
    let whole = read(&[data]);
    for pieces in topnext_fuzz::cuts(data) {
        assert_eq!(read(&pieces), whole);
    }
    let Ok((content, Some(behind))) = whole else { return };
    // At least 5 bytes of framing for each chunk, and 5 for the end.
    assert!(content.len() + behind + 5 <= data.len());
    assert_eq!(read(&[&data[..data.len() - behind]]), Ok((content.clone(), Some(0))));
    assert_eq!(read(&[&encode(&content)]), Ok((content.clone(), Some(0))));
    match read_as_response(data) {
        Ok(read) => assert_eq!(read, (content, behind)),
        // Its bounds are a little different ones.
        Err(message) => assert!(message.contains("too "), "{message}"),
    }
});

fn read(pieces: &[&[u8]]) -> Read {
    let mut decoder = ChunkedDecoder::new();
    let (mut buf, mut content) = (BytesMut::new(), Vec::new());
    let mut done = false;
    for piece in pieces {
        buf.extend_from_slice(piece);
        if !done {
            let decoded = decoder.decode(&mut buf, &mut |data| {
                assert!(!data.is_empty());
                content.extend_from_slice(&data);
            });
            done = decoded.map_err(|error| error.status)? == Decoded::Done;
            assert!(done || buf.is_empty());
        }
    }
    Ok((content, done.then_some(buf.len())))
}

/// One chunk, as a response would be written.
fn encode(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if !content.is_empty() {
        out.put_slice(encode_chunk_head(content.len() as u64, &mut [0; 18]));
        out.put_slice(content);
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"0\r\n\r\n");
    out
}

fn read_as_response(data: &[u8]) -> Result<(Vec<u8>, usize), &'static str> {
    let mut decoder = of_response::Decoder::new();
    let (mut rest, mut content) = (data, Vec::new());
    loop {
        let (taken, is_content, end) = match decoder.next(rest)? {
            of_response::Piece::Content(taken) => (taken, true, false),
            of_response::Piece::Framing(taken) => (taken, false, false),
            of_response::Piece::End(taken) => (taken, false, true),
        };
        if is_content {
            content.extend_from_slice(&rest[..taken]);
        }
        rest = &rest[taken..];
        if end {
            return Ok((content, rest.len()));
        }
        if taken == 0 {
            return Err("incomplete");
        }
    }
}
