//! The chunked transfer coding (RFC 9112, 7.1): decodes request bodies, encodes chunk heads of responses.
//!
//! ```text
//! 5;name="value"\r\n       chunk head: size in hex, extensions (checked, then ignored)
//! hello\r\n                chunk data, handed out without copying
//! 0\r\n                    last chunk
//! Trailer: value\r\n       trailers (checked, then dropped)
//! \r\n
//! ```

use bytes::{Buf, Bytes, BytesMut};

use super::target::hex_digit;
use super::{BadRequest, Reason, is_token_byte, is_value_byte};

/// Bytes of one chunk head, without CRLF.
const MAX_CHUNK_LINE: usize = 256;
/// Hex digits of a chunk size, leading zeros included.
const MAX_SIZE_DIGITS: usize = 16;
/// Largest size of one chunk: what fits a file offset.
const MAX_CHUNK_SIZE: u64 = i64::MAX as u64;
/// Bytes of all chunk extensions of one body. Without it, one-byte chunks could make us read 256 bytes for each byte.
const MAX_EXTENSION_BYTES: usize = 16 * 1024;
/// Bytes of all trailers of one body, with their line ends.
const MAX_TRAILER_BYTES: usize = 8 * 1024;
const MAX_TRAILERS: usize = 64;

/// Trailers that would change the framing or the routing of a message whose head was already acted upon (RFC 9110,
/// 6.5.1).
const FORBIDDEN_TRAILERS: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"host"];
/// Length of the longest of them.
const LONGEST_FORBIDDEN: usize = 17;

/// What [`ChunkedDecoder::decode`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The buffer is used up; call again with more bytes.
    NeedMore,
    /// The body is complete. What is left in the buffer belongs to the next request.
    Done,
}

/// Where the decoder is in the body.
///
/// ```text
/// chunk      Size --hex--> SizeDigits --CR--> SizeLf --LF--> Data --all--> DataCr --CR--> DataLf --LF--> Size
///                              |    \          ^  \
///                              |    SP         CR  LF, size 0
///                              |      v        |     v
///                             ';'   ExtGap     |   TrailerStart --CR--> EndLf --LF--> Done
///                              |      |        |
///                              v     ';'       |
/// extension  ExtStart <--------+------'      (end)
///            ExtStart --token--> ExtName ---'='---> ExtValueStart --token--> ExtValue (end)
///                                (end) \            ^        \
///                                      SP          '='       '"'--> ExtQuoted --'"'--> ExtQuotedEnd (end)
///                                        v         /                  |  ^
///                                        ExtEquals                   '\' any
///                                                                     v  |
///                                                                   ExtEscape
///
/// trailer    TrailerStart --token--> TrailerName --':'--> TrailerValue --CR--> TrailerLf --LF--> TrailerStart
/// ```
///
/// An extension may end where it says (end): CR ends the chunk head, ';' starts the next extension, and white space
/// goes to ExtGap, or after a name to ExtEquals, which both take ';' too but not CR. Anything else is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    SizeDigits,
    ExtGap,
    ExtStart,
    ExtName,
    ExtEquals,
    ExtValueStart,
    ExtValue,
    ExtQuoted,
    ExtEscape,
    ExtQuotedEnd,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

/// Decodes one chunked body. Fed with any pieces, it hands out the same bytes.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// Size of the chunk while its head is read, then what is still to come of its data.
    remaining: u64,
    /// Bytes, and hex digits, of the chunk head so far.
    line_len: usize,
    digits: usize,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailers: usize,
    /// Start of the trailer's name in lowercase, as much as is needed to know the forbidden ones.
    name: [u8; LONGEST_FORBIDDEN],
    name_len: usize,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        ChunkedDecoder::new()
    }
}

impl ChunkedDecoder {
    pub fn new() -> ChunkedDecoder {
        ChunkedDecoder {
            state: State::Size,
            remaining: 0,
            line_len: 0,
            digits: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailers: 0,
            name: [0; LONGEST_FORBIDDEN],
            name_len: 0,
        }
    }

    /// Takes what it can from `buf` and gives the data to `out`, piece by piece, each a part of `buf`'s memory and
    /// never empty. An error is final: a further call reports it again.
    pub fn decode(&mut self, buf: &mut BytesMut, out: &mut impl FnMut(Bytes)) -> Result<Decoded, BadRequest> {
        loop {
            if self.state == State::Done {
                return Ok(Decoded::Done);
            }
            if buf.is_empty() {
                return Ok(Decoded::NeedMore);
            }
            if self.state == State::Data {
                let len = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buf.len());
                self.remaining -= len as u64;
                out(buf.split_to(len).freeze());
                if self.remaining == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            let mut used = 0;
            let mut result: Result<(), Reason> = Ok(());
            for &byte in buf.iter() {
                match self.step(byte) {
                    Ok(next) => self.state = next,
                    Err(reason) => {
                        result = Err(reason);
                        break;
                    }
                }
                used += 1;
                if matches!(self.state, State::Data | State::Done) {
                    break;
                }
            }
            buf.advance(used);
            result?;
        }
    }

    /// The state after `byte`. On an error the state stays, and so does the byte in the buffer.
    fn step(&mut self, byte: u8) -> Result<State, Reason> {
        if matches!(self.state, State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf) {
            return self.step_trailer(byte);
        }
        match (self.state, byte) {
            (State::SizeLf, b'\n') if self.remaining > 0 => Ok(State::Data),
            (State::SizeLf, b'\n') => Ok(State::TrailerStart),
            (State::SizeLf, _) => Err(Reason::ChunkLineEnd),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                (self.line_len, self.digits) = (0, 0);
                Ok(State::Size)
            }
            (State::DataCr | State::DataLf, _) => Err(Reason::ChunkDataEnd),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::EndLf, _) => Err(Reason::TrailerName),
            _ => self.step_line(byte),
        }
    }

    /// RFC 9112, 7.1 and 7.1.1: the size, then extensions.
    fn step_line(&mut self, byte: u8) -> Result<State, Reason> {
        let white = matches!(byte, b' ' | b'\t');
        let next = match (self.state, byte) {
            (State::Size | State::SizeDigits, _) if byte.is_ascii_hexdigit() => self.add_digit(byte)?,
            (State::Size, _) => return Err(Reason::ChunkSize),
            // What may follow a complete size, name or value.
            (State::SizeDigits | State::ExtName | State::ExtValue | State::ExtQuotedEnd, b'\r') => {
                return Ok(State::SizeLf);
            }
            (State::SizeDigits | State::ExtValue | State::ExtQuotedEnd, _) if white => State::ExtGap,
            (State::SizeDigits | State::ExtGap, b';') => State::ExtStart,
            (State::ExtName | State::ExtEquals | State::ExtValue | State::ExtQuotedEnd, b';') => State::ExtStart,
            (State::SizeDigits, _) => return Err(Reason::ChunkSize),
            (State::ExtName, _) if white => State::ExtEquals,
            (State::ExtName | State::ExtEquals, b'=') => State::ExtValueStart,
            (State::ExtGap | State::ExtStart | State::ExtEquals | State::ExtValueStart, _) if white => self.state,
            (State::ExtStart | State::ExtName, _) if is_token_byte(byte) => State::ExtName,
            (State::ExtValueStart, b'"') => State::ExtQuoted,
            (State::ExtValueStart | State::ExtValue, _) if is_token_byte(byte) => State::ExtValue,
            (State::ExtQuoted, b'"') => State::ExtQuotedEnd,
            (State::ExtQuoted, b'\\') => State::ExtEscape,
            (State::ExtQuoted | State::ExtEscape, _) if is_value_byte(byte) => State::ExtQuoted,
            _ => return Err(Reason::ChunkExtension),
        };
        self.line_len += 1;
        if self.line_len > MAX_CHUNK_LINE {
            return Err(Reason::ChunkLineTooLong);
        }
        if next != State::SizeDigits {
            self.extension_bytes += 1;
            if self.extension_bytes > MAX_EXTENSION_BYTES {
                return Err(Reason::ChunkExtensionsTooLarge);
            }
        }
        Ok(next)
    }

    fn add_digit(&mut self, byte: u8) -> Result<State, Reason> {
        let digit = u64::from(hex_digit(byte).ok_or(Reason::ChunkSize)?);
        if self.digits >= MAX_SIZE_DIGITS || self.remaining > (MAX_CHUNK_SIZE - digit) / 16 {
            return Err(Reason::ChunkSizeTooLarge);
        }
        self.digits += 1;
        self.remaining = self.remaining * 16 + digit;
        Ok(State::SizeDigits)
    }

    /// RFC 9112, 7.1.2: trailers are header lines.
    fn step_trailer(&mut self, byte: u8) -> Result<State, Reason> {
        if self.state == State::TrailerStart && byte == b'\r' {
            return Ok(State::EndLf);
        }
        self.trailer_bytes += 1;
        if self.trailer_bytes > MAX_TRAILER_BYTES {
            return Err(Reason::TrailersTooLarge);
        }
        match (self.state, byte) {
            (State::TrailerStart, _) if is_token_byte(byte) => {
                if self.trailers >= MAX_TRAILERS {
                    return Err(Reason::TooManyTrailers);
                }
                self.trailers += 1;
                self.name_len = 0;
                self.add_to_name(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') => {
                let name = self.name.get(..self.name_len);
                let forbidden = FORBIDDEN_TRAILERS.iter().any(|&forbidden| name == Some(forbidden));
                if forbidden { Err(Reason::TrailerForbidden) } else { Ok(State::TrailerValue) }
            }
            (State::TrailerName, _) if is_token_byte(byte) => {
                self.add_to_name(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, _) if is_value_byte(byte) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::TrailerValue | State::TrailerLf, _) => Err(Reason::TrailerValue),
            _ => Err(Reason::TrailerName),
        }
    }

    /// Notes a byte of a trailer's name. A name that is longer than the array is none of the forbidden ones; its length
    /// is counted on, so that it does not look like one.
    fn add_to_name(&mut self, byte: u8) {
        if let Some(place) = self.name.get_mut(self.name_len) {
            *place = byte.to_ascii_lowercase();
        }
        self.name_len += 1;
    }
}

/// Writes the head of a chunk of `len` bytes, size and CRLF, into `buf` and returns what was written. After the data
/// comes another CRLF. A `len` of 0 would end the body: skip empty chunks, and end with "0\r\n\r\n".
pub fn encode_chunk_head(len: u64, buf: &mut [u8; 18]) -> &[u8] {
    let digits = (16 - len.leading_zeros() as usize / 4).max(1);
    for (place, out) in buf.iter_mut().take(digits).enumerate() {
        let digit = (len >> (4 * (digits - 1 - place)) & 0xf) as u8;
        *out = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
    }
    for (out, byte) in buf.iter_mut().skip(digits).zip(*b"\r\n") {
        *out = byte;
    }
    buf.get(..digits + 2).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data and what is left in the buffer, None if more is needed, or the error.
    type Outcome = Result<Option<(Vec<u8>, Vec<u8>)>, BadRequest>;

    /// Decodes a body that comes in pieces.
    fn decode_pieces(pieces: &[&[u8]]) -> Outcome {
        let (mut decoder, mut buf, mut data) = (ChunkedDecoder::new(), BytesMut::new(), Vec::new());
        let mut decoded = Decoded::NeedMore;
        for piece in pieces {
            buf.extend_from_slice(piece);
            let result = decoder.decode(&mut buf, &mut |part| {
                assert!(!part.is_empty());
                data.extend_from_slice(&part);
            });
            if result.is_err() {
                let again = decoder.decode(&mut buf, &mut |_| panic!("data after an error"));
                assert_eq!(result, again, "an error must stay");
            }
            decoded = result?;
            assert!(decoded == Decoded::Done || buf.is_empty(), "NeedMore must use up the buffer");
        }
        Ok((decoded == Decoded::Done).then(|| (data, buf.to_vec())))
    }

    /// As above in one piece, and checks that every split and single bytes give the same.
    fn decode(input: &[u8]) -> Outcome {
        let whole = decode_pieces(&[input]);
        for at in (0..input.len()).step_by(1 + input.len() / 2000) {
            let (a, b) = input.split_at(at);
            assert_eq!(decode_pieces(&[a, b]), whole, "split at {at} of {}", input.escape_ascii());
        }
        let single: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(decode_pieces(&single), whole, "byte by byte: {}", input.escape_ascii());
        whole
    }

    fn refuses(input: &[u8], reason: Reason) {
        assert_eq!(decode(input), Err(reason.into()), "{}", input.escape_ascii());
    }

    #[test]
    fn bodies() {
        let table: &[(&[u8], &[u8], &[u8])] = &[
            (b"0\r\n\r\n", b"", b""),
            (b"5\r\nhello\r\n0\r\n\r\n", b"hello", b""),
            (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET /", b"hello world", b"GET /"),
            (b"00000000000000aA\r\n", b"", b""), // data missing, see below
            (b"2\r\n\r\n\r\n0\r\n\r\n\r\n", b"\r\n", b"\r\n"),
            (b"0000000000000001\r\nx\r\n0000000000000000\r\n\r\n", b"x", b""),
            (b"0\r\nA: b\r\nc:\r\nd:\t \xff\r\n\r\nx", b"", b"x"),
            (b"0;a=b\r\nHostname: b\r\nContent-Lengths: 1\r\nTransfer-Encodings: 1\r\nhos: 1\r\n\r\n", b"", b""),
        ];
        for (input, data, left) in table {
            let expected = (!input.starts_with(b"00000000000000aA")).then(|| (data.to_vec(), left.to_vec()));
            assert_eq!(decode(input), Ok(expected), "{}", input.escape_ascii());
        }
        let long = [b"aA\r\n".to_vec(), b"x".repeat(0xaa), b"\r\n0\r\n\r\n".to_vec()].concat();
        assert_eq!(decode(&long), Ok(Some((b"x".repeat(0xaa), vec![]))));
    }

    #[test]
    fn unfinished_bodies_need_more() {
        let input = b"5;a=\"b\" ; c\r\nhello\r\n0\r\nA: b\r\n\r\n";
        for len in 0..input.len() {
            assert_eq!(decode(&input[..len]), Ok(None), "{len}");
        }
        assert_eq!(decode(input), Ok(Some((b"hello".to_vec(), vec![]))));
    }

    #[test]
    fn data_is_not_copied() {
        let mut buf = BytesMut::from(&b"5\r\nhello\r\n0\r\n\r\n"[..]);
        let place = buf.as_ptr().addr() + 3;
        let mut pieces = Vec::new();
        assert_eq!(ChunkedDecoder::new().decode(&mut buf, &mut |data| pieces.push(data)), Ok(Decoded::Done));
        assert_eq!(pieces.len(), 1);
        assert_eq!((&pieces[0][..], pieces[0].as_ptr().addr()), (&b"hello"[..], place));
    }

    #[test]
    fn sizes() {
        let bad = ["", " 1", "+1", "-1", "0x1", "g", "1g", "1,", "\t1", ":", "\"1\"", "1\u{661}"];
        for size in bad {
            refuses(format!("{size}\r\n").as_bytes(), Reason::ChunkSize);
        }
        for size in ["7fffffffffffffff", "0000000000000001", "fffffff"] {
            assert_eq!(decode(format!("{size}\r\n").as_bytes()), Ok(None), "{size}");
        }
        for size in ["8000000000000000", "ffffffffffffffff", "00000000000000001", "10000000000000000"] {
            refuses(format!("{size}\r\n").as_bytes(), Reason::ChunkSizeTooLarge);
        }
    }

    #[test]
    fn line_ends() {
        refuses(b"1\n", Reason::ChunkSize);
        refuses(b"1\rx", Reason::ChunkLineEnd);
        refuses(b"1\r\r\n", Reason::ChunkLineEnd);
        refuses(b"1;a\n", Reason::ChunkExtension);
        refuses(b"1\r\nx\n", Reason::ChunkDataEnd);
        refuses(b"1\r\nx\r\r", Reason::ChunkDataEnd);
        refuses(b"1\r\nxy\r\n", Reason::ChunkDataEnd);
        refuses(b"1\r\nx0\r\n", Reason::ChunkDataEnd);
        refuses(b"0\r\n\n", Reason::TrailerName);
        refuses(b"0\r\n\rx", Reason::TrailerName);
        refuses(b"0\n\r\n", Reason::ChunkSize);
    }

    #[test]
    fn extensions() {
        let good: &[&[u8]] = &[
            b";a",
            b"; a",
            b" ;a",
            b"\t;\ta",
            b";a=b",
            b";a = b",
            b";a=b;c",
            b";a;b;c=d",
            b";a=b ; c",
            b";a ;b",
            b";a=\"\"",
            b";a=\"b c\\\"\\\\;\r=\xff\t\"",
            b";a=\"b\" ;c=\"d\";e",
            b";!#$%&'*+-.^_`|~=!#$%&'*+-.^_`|~",
        ];
        for extension in good {
            let extension: Vec<u8> = extension.iter().copied().filter(|&byte| byte != b'\r').collect();
            let input = [b"1", &extension[..], b"\r\nx\r\n0", &extension[..], b"\r\n\r\n"].concat();
            assert_eq!(decode(&input), Ok(Some((b"x".to_vec(), vec![]))), "{}", input.escape_ascii());
        }
        let bad: &[&[u8]] = &[
            b" ",
            b";",
            b"; ",
            b";;a",
            b";a;",
            b";a ",
            b";a=b ",
            b" a",
            b";=b",
            b";a=",
            b";a= ",
            b";a=;b",
            b";a==b",
            b";a b",
            b";a=b c",
            b";a=b\"c\"",
            b";a=\"b\"c",
            b";a=\"b",
            b";a=\"b\\",
            b";a=\"b\n\"",
            b";a=\"\x00\"",
            b";a=\"\\\x7f\"",
            b";a(b)",
            b";a\x00",
            b";\xff",
            b";a=\xff",
        ];
        for extension in bad {
            refuses(&[b"1", *extension, b"\r\n"].concat(), Reason::ChunkExtension);
        }
    }

    #[test]
    fn bounds_of_extensions() {
        let chunk = |len: usize| [&b"1;"[..], &b"a".repeat(len - 2), b"\r\nx\r\n"].concat();
        assert_eq!(decode(&chunk(MAX_CHUNK_LINE)), Ok(None));
        refuses(&chunk(MAX_CHUNK_LINE + 1), Reason::ChunkLineTooLong);
        // Each chunk has 128 bytes of extension.
        let body = |count: usize| chunk(129).repeat(count);
        assert_eq!(decode_pieces(&[&body(MAX_EXTENSION_BYTES / 128)]), Ok(None));
        let more = [body(MAX_EXTENSION_BYTES / 128), b"1;".to_vec()].concat();
        assert_eq!(decode_pieces(&[&more]), Err(Reason::ChunkExtensionsTooLarge.into()));
    }

    #[test]
    fn trailers() {
        let bad_names =
            [": b", " a: b", "\ta: b", "a : b", "a", "a b: c", "a\u{0}: b", "a\u{e4}: b", "a: b\r\n c", "a\n: b"];
        for line in bad_names {
            refuses(format!("0\r\n{line}\r\n\r\n").as_bytes(), Reason::TrailerName);
        }
        for line in ["a: b\n", "a: b\rc", "a: \u{0}", "a: \u{1}", "a: \u{7f}", "a:\n", "a: b\r\r"] {
            refuses(format!("0\r\n{line}\r\n\r\n").as_bytes(), Reason::TrailerValue);
        }
        for name in ["Content-Length", "TRANSFER-ENCODING", "host"] {
            refuses(format!("0\r\nx: y\r\n{name}: 1\r\n\r\n").as_bytes(), Reason::TrailerForbidden);
        }
    }

    #[test]
    fn bounds_of_trailers() {
        let count = |count: usize| [&b"0\r\n"[..], &b"a:b\r\n".repeat(count), b"\r\n"].concat();
        assert_eq!(decode(&count(MAX_TRAILERS)), Ok(Some((vec![], vec![]))));
        refuses(&count(MAX_TRAILERS + 1), Reason::TooManyTrailers);
        let size = |size: usize| [&b"0\r\na:"[..], &b"b".repeat(size - 4), b"\r\n\r\n"].concat();
        assert_eq!(decode_pieces(&[&size(MAX_TRAILER_BYTES)]), Ok(Some((vec![], vec![]))));
        assert_eq!(decode_pieces(&[&size(MAX_TRAILER_BYTES + 1)]), Err(Reason::TrailersTooLarge.into()));
    }

    #[test]
    fn chunk_heads() {
        let mut buf = [0; 18];
        let lengths = [0, 1, 9, 10, 15, 16, 255, 256, 0x1234_abcd, u64::MAX];
        for len in lengths.into_iter().chain((0..64).map(|bit| 1 << bit)) {
            assert_eq!(encode_chunk_head(len, &mut buf), format!("{len:x}\r\n").as_bytes());
        }
    }
}
