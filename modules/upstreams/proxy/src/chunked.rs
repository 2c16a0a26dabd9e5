//! The chunked transfer coding (RFC 9112, 7.1) of a response: says which bytes are content, without copying any.
//!
//! ```text
//! 5;name=value\r\n    size in hex; extensions are skipped
//! hello\r\n           content
//! 0\r\n               the last chunk
//! Trailer: x\r\n      trailers are dropped
//! \r\n
//! ```

/// The most bytes of a line with a chunk's size.
const MAX_SIZE_LINE: usize = 256;
/// The most hex digits of a size, leading zeros included.
const MAX_DIGITS: usize = 16;
/// The most bytes of all trailers.
const MAX_TRAILERS: usize = 8 * 1024;

/// What the first bytes of the input are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// This many bytes (at least one) are content.
    Content(usize),
    /// This many bytes are not content; more input is needed, or content follows.
    Framing(usize),
    /// This many bytes, which are not content, end the body.
    End(usize),
}

/// What comes next.
///
/// ```text
/// Size --hex--> Size --';', SP--> Extension --CR--> SizeLf --> Content(n) --> ContentCr --> ContentLf --> Size
///                 \------CR--------------------------^  \
///                                                 size 0 `--> TrailerStart --CR--> EndLf --> Done
///                                                                |  ^
///                                                                v  | LF
///                                                      Trailer --CR--> TrailerLf
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Content,
    ContentCr,
    ContentLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

/// Decodes one body.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoder {
    state: State,
    /// The chunk's size while it is read, then what is still to come of its content.
    left: u64,
    digits: usize,
    line: usize,
    trailers: usize,
}

impl Decoder {
    /// At the start of a body.
    pub fn new() -> Decoder {
        Decoder { state: State::Size, left: 0, digits: 0, line: 0, trailers: 0 }
    }

    /// Looks at the first bytes of `input`, which are never empty for [`Piece::Content`]. The error says what is wrong.
    pub fn next(&mut self, input: &[u8]) -> Result<Piece, &'static str> {
        let mut used = 0;
        for &byte in input {
            if self.state == State::Content || self.state == State::Done {
                break;
            }
            self.state = self.step(byte)?;
            used += 1;
        }
        if self.state == State::Done {
            return Ok(Piece::End(used));
        }
        if used > 0 || self.state != State::Content || input.is_empty() {
            return Ok(Piece::Framing(used));
        }
        let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
        self.left -= here as u64;
        if self.left == 0 {
            self.state = State::ContentCr;
        }
        Ok(Piece::Content(here))
    }

    /// The state after a byte that is not content.
    fn step(&mut self, byte: u8) -> Result<State, &'static str> {
        match (self.state, byte) {
            (State::Size | State::Extension, _) => self.step_size(byte),
            (State::SizeLf, b'\n') if self.left > 0 => Ok(State::Content),
            (State::SizeLf, b'\n') => Ok(State::TrailerStart),
            (State::ContentCr, b'\r') => Ok(State::ContentLf),
            (State::ContentLf, b'\n') => {
                (self.digits, self.line) = (0, 0);
                Ok(State::Size)
            }
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::TrailerStart | State::Trailer | State::TrailerLf, _) => self.step_trailer(byte),
            _ => Err("a line that does not end in CRLF"),
        }
    }

    fn step_size(&mut self, byte: u8) -> Result<State, &'static str> {
        self.line += 1;
        if self.line > MAX_SIZE_LINE {
            return Err("a line with a chunk size that is too long");
        }
        let digit = char::from(byte).to_digit(16);
        match (self.state, digit, byte) {
            (State::Size, Some(digit), _) => {
                self.digits += 1;
                // A size is at most what a file offset can be.
                if self.digits > MAX_DIGITS || self.left > (i64::MAX as u64 - u64::from(digit)) / 16 {
                    return Err("a chunk size that is too large");
                }
                self.left = self.left * 16 + u64::from(digit);
                Ok(State::Size)
            }
            (State::Size, None, _) if self.digits == 0 => Err("a chunk without a size"),
            (_, _, b'\r') => Ok(State::SizeLf),
            (State::Size, None, b';' | b' ' | b'\t') => Ok(State::Extension),
            (State::Size, None, _) => Err("a chunk size that is not a number"),
            (_, _, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::Extension),
            _ => Err("a control character in a chunk extension"),
        }
    }

    fn step_trailer(&mut self, byte: u8) -> Result<State, &'static str> {
        self.trailers += 1;
        if self.trailers > MAX_TRAILERS {
            return Err("trailers that are too large");
        }
        match (self.state, byte) {
            (State::Trailer, b'\r') => Ok(State::TrailerLf),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::TrailerStart, b' ' | b'\t' | b':') => Err("a trailer without a name"),
            (State::TrailerStart | State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::Trailer),
            _ => Err("a control character in a trailer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content, and what is left behind the end if it was met; given in pieces of `step` bytes.
    fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, Option<Vec<u8>>), &'static str> {
        let mut decoder = Decoder::new();
        let mut content = Vec::new();
        let mut at = 0;
        while at < input.len() {
            let mut piece = &input[at..(at + step).min(input.len())];
            at += piece.len();
            while !piece.is_empty() {
                let used = match decoder.next(piece)? {
                    Piece::Content(n) => {
                        content.extend_from_slice(&piece[..n]);
                        n
                    }
                    Piece::Framing(n) => n,
                    Piece::End(n) => {
                        let rest = [&piece[n..], &input[at..]].concat();
                        return Ok((content, Some(rest)));
                    }
                };
                assert!(used > 0, "no progress at {piece:?}");
                piece = &piece[used..];
            }
        }
        Ok((content, None))
    }

    #[test]
    fn content_is_the_same_in_any_pieces() {
        let input = b"5;a=\"b\"\r\nhello\r\n00A \r\n0123456789\r\n0\r\nX: y\r\nZ: 1\r\n\r\nHTTP/1.1";
        for step in 1..=input.len() {
            let (content, rest) = decode(input, step).expect("valid");
            assert_eq!(
                (content.as_slice(), rest.as_deref()),
                (&b"hello0123456789"[..], Some(&b"HTTP/1.1"[..])),
                "{step}"
            );
        }
    }

    #[test]
    fn a_cut_body_has_no_end() {
        let input = b"3\r\nabc\r\n0\r\nA: b\r\n\r\n";
        for end in 0..input.len() {
            assert_eq!(decode(&input[..end], 4).expect("valid so far").1, None, "{end}");
        }
    }

    #[test]
    fn refuses_what_is_not_chunked() {
        for (input, why) in [
            ("\r\n", "without a size"),
            (";x\r\n", "without a size"),
            ("-1\r\n", "without a size"),
            ("0x5\r\n", "not a number"),
            ("5\nhello", "not a number"),
            ("5\rhello", "CRLF"),
            ("5;a\nb\r\n", "control character in a chunk"),
            ("3\r\nabcd\r\n", "CRLF"),
            ("3\r\nabc\n", "CRLF"),
            ("3\r\nabc\r0", "CRLF"),
            ("8000000000000000\r\n", "too large"),
            ("00000000000000001\r\n", "too large"),
            ("0\r\n\n", "control character in a trailer"),
            ("0\r\n x\r\n", "without a name"),
            ("0\r\nA: b\n\r\n", "control character in a trailer"),
            ("0\r\n\rx", "CRLF"),
        ] {
            let found = decode(input.as_bytes(), 3).expect_err(input);
            assert!(found.contains(why), "{input:?}: {found}");
        }
    }

    #[test]
    fn the_largest_size_is_read() {
        let mut decoder = Decoder::new();
        assert_eq!(decoder.next(b"7fffffffffffffff\r\nab"), Ok(Piece::Framing(18)));
        assert_eq!(decoder.next(b"ab"), Ok(Piece::Content(2)));
    }

    #[test]
    fn lines_and_trailers_are_bounded() {
        let line = |n: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(n));
        assert!(decode(line(MAX_SIZE_LINE - 3).as_bytes(), 1000).is_ok());
        assert_eq!(decode(line(MAX_SIZE_LINE - 2).as_bytes(), 1000), Err("a line with a chunk size that is too long"));
        let trailer = |n: usize| format!("0\r\nA: {}\r\n\r\n", "b".repeat(n));
        assert!(decode(trailer(8000).as_bytes(), 1000).is_ok());
        assert_eq!(decode(trailer(MAX_TRAILERS).as_bytes(), 1000), Err("trailers that are too large"));
    }
}
