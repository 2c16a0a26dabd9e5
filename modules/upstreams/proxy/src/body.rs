//! The body of the response: where it ends. Bufs are handed on as they came, cut where needed, never copied.

use std::fmt;

use topnext_module_api::{Buf, Chain};

use crate::chunked::{Decoder, Piece};

/// What is still to come of a body (RFC 9112, 6.3).
#[derive(Debug)]
pub enum Body {
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Decoder),
    /// Everything until the peer closes.
    UntilClose,
}

impl Default for Body {
    fn default() -> Body {
        Body::Length(0)
    }
}

/// How far the body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// More is to come.
    More,
    /// It is complete.
    All {
        /// The peer sent more than the body. What is too much was dropped.
        surplus: bool,
        /// The peer has closed.
        closed: bool,
    },
}

/// Why the body cannot be completed. Reads on after "upstream".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The peer closed before the end.
    Closed,
    /// The chunks are not valid.
    Chunks(&'static str),
    /// A buf of a file, which cannot come from a connection.
    File,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Closed => f.write_str("prematurely closed connection"),
            Fault::Chunks(what) => write!(f, "sent invalid chunked response: {what}"),
            Fault::File => f.write_str("data are in a file"),
        }
    }
}

impl Body {
    /// A body in chunks, at its start.
    pub fn chunked() -> Body {
        Body::Chunked(Decoder::new())
    }

    /// Moves what is content from `input`, as it came from the peer, to `output`.
    pub fn take(&mut self, input: Chain, output: &mut Chain) -> Result<Took, Fault> {
        let (mut closed, mut surplus) = (false, false);
        for mut buf in input {
            closed |= buf.is_last();
            buf.set_last(false);
            if buf.in_file() {
                return Err(Fault::File);
            }
            if !buf.is_empty() {
                surplus |= self.take_buf(buf, output)?;
            }
        }
        match self {
            Body::Length(0) => Ok(Took::All { surplus, closed }),
            Body::UntilClose if closed => Ok(Took::All { surplus, closed }),
            _ if closed => Err(Fault::Closed),
            _ => Ok(Took::More),
        }
    }

    /// Moves content out of `buf`. True if there was more than the body.
    fn take_buf(&mut self, mut buf: Buf, output: &mut Chain) -> Result<bool, Fault> {
        match self {
            Body::UntilClose => output.push(buf),
            Body::Length(left) => {
                let surplus = buf.len() > *left;
                buf.truncate(*left);
                *left -= buf.len();
                if !buf.is_empty() {
                    output.push(buf);
                }
                return Ok(surplus);
            }
            Body::Chunked(decoder) => {
                while !buf.is_empty() {
                    match decoder.next(buf.bytes()).map_err(Fault::Chunks)? {
                        Piece::Content(n) if n as u64 == buf.len() => {
                            output.push(buf);
                            return Ok(false);
                        }
                        Piece::Content(n) => output.push(buf.split_to(n as u64)),
                        Piece::Framing(n) => buf.advance(n as u64),
                        Piece::End(n) => {
                            buf.advance(n as u64);
                            *self = Body::Length(0);
                            return Ok(!buf.is_empty());
                        }
                    }
                }
            }
        }
        Ok(false)
    }
}
