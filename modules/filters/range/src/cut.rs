//! Cuts ranges out of a body that comes in pieces, in memory or in files, and puts heads between them.
//!
//! ```text
//! body    0123456789...         in any pieces
//! parts   (head, 5..8) (head, 0..2) (end, nothing)
//! out     head 567 head 01 end
//! ```
//!
//! What a later part needs is kept: as a share of its memory or file, not as a copy.

use std::{collections::VecDeque, fmt};

use topnext_module_api::prelude::*;

use crate::parse::ByteRange;

/// A part of the response: a text, and bytes of the body behind it, of which there may be none.
pub struct Part {
    pub head: String,
    pub range: ByteRange,
}

/// Memory that is kept for parts that come in another order than the body. A body in one piece, and files, are not limited.
const MAX_KEPT: u64 = 1 << 20;

/// The state of a response that is being cut.
pub struct Cut {
    parts: VecDeque<Part>,
    /// For each part, the least byte that it and those behind it need; `u64::MAX` for none.
    needed: VecDeque<u64>,
    /// The head of the first part is out.
    begun: bool,
    /// Pieces of the body with the place where they start, in order, without gaps.
    kept: VecDeque<(u64, Buf)>,
    /// Behind the last byte of the body that came.
    at: u64,
    /// Behind the last byte that any part needs.
    end: u64,
}

/// Why the rest of the response cannot be made.
#[derive(Debug, PartialEq, Eq)]
pub enum CutError {
    /// The body was shorter than its header said.
    Short { bytes: u64 },
    /// Too much would have to be kept.
    TooMuch,
}

impl fmt::Display for CutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CutError::Short { bytes } => write!(f, "the body ended after {bytes} bytes, before a range asked for"),
            CutError::TooMuch => {
                f.write_str("ranges are asked for in an order that needs too much of the body in memory")
            }
        }
    }
}

impl Cut {
    /// For these parts, in this order.
    pub fn new(parts: Vec<Part>) -> Cut {
        let parts = VecDeque::from(parts);
        let mut needed = VecDeque::with_capacity(parts.len() + 1);
        needed.push_front(u64::MAX);
        for part in parts.iter().rev().map(|part| part.range) {
            let behind = needed[0];
            needed.push_front(if part.start < part.end { behind.min(part.start) } else { behind });
        }
        let end = parts.iter().map(|part| part.range.end).max().unwrap_or(0);
        Cut { parts, needed, begun: false, kept: VecDeque::new(), at: 0, end }
    }

    /// The length of what is still to be made.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.head.len() as u64 + part.range.bytes()).sum()
    }

    /// Takes the next pieces of the body, and gives what can be made of it. The flags go on with what came before them.
    pub fn run(&mut self, body: Chain) -> Result<Chain, CutError> {
        let mut out = Chain::new();
        for mut buf in body {
            let (last, flush) = (buf.is_last(), buf.is_flush());
            let start = self.at;
            self.at += buf.len();
            // Only what is needed: behind all that has been sent, before the end of the last range.
            let skip = self.least_needed().saturating_sub(start);
            buf.truncate(self.end.saturating_sub(start));
            buf.advance(skip);
            if !buf.is_empty() {
                clear_flags(&mut buf);
                self.kept.push_back((start + skip, buf));
            }
            self.make(&mut out);
            if last {
                if !self.parts.is_empty() {
                    return Err(CutError::Short { bytes: self.at });
                }
                end(&mut out);
            } else if flush {
                out.push(Buf::flush());
            }
        }
        let in_memory = self.kept.iter().filter(|(_, buf)| !buf.in_file());
        if in_memory.map(|(_, buf)| buf.len()).sum::<u64>() > MAX_KEPT {
            return Err(CutError::TooMuch);
        }
        Ok(out)
    }

    /// The least byte that is still needed; `u64::MAX` for none.
    fn least_needed(&self) -> u64 {
        self.needed.front().copied().unwrap_or(u64::MAX)
    }

    /// Makes what can be made of what is kept.
    fn make(&mut self, out: &mut Chain) {
        while let Some(part) = self.parts.front_mut() {
            let needs = part.range.bytes() > 0;
            // How many pieces end before the part: the next one, if it has come, holds its first byte.
            let at = self.kept.partition_point(|(start, buf)| start + buf.len() <= part.range.start);
            if needs && at == self.kept.len() {
                break;
            }
            if !self.begun && !part.head.is_empty() {
                out.push(Buf::from(std::mem::take(&mut part.head)));
            }
            self.begun = true;
            if needs && let Some((start, buf)) = self.kept.get(at) {
                out.push(cut(buf, *start, &mut part.range));
            }
            if part.range.bytes() == 0 {
                self.parts.pop_front();
                self.needed.pop_front();
                self.begun = false;
            } else if let [first, behind, ..] = self.needed.make_contiguous() {
                // Of this part only the rest is needed.
                *first = part.range.start.min(*behind);
            }
            let least = self.least_needed();
            while self.kept.front().is_some_and(|(start, buf)| start + buf.len() <= least) {
                self.kept.pop_front();
            }
        }
    }
}

/// The bytes of a range that are in this buf, which starts at `start` and holds its first one. What is left is the rest.
fn cut(buf: &Buf, start: u64, range: &mut ByteRange) -> Buf {
    let mut piece = buf.clone();
    piece.advance(range.start.saturating_sub(start));
    piece.truncate(range.bytes());
    range.start += piece.len();
    piece
}

fn clear_flags(buf: &mut Buf) {
    buf.set_last(false);
    buf.set_flush(false);
    buf.set_last_in_chain(false);
}

/// Marks the end of the response.
fn end(out: &mut Chain) {
    match out.last_mut() {
        Some(buf) => {
            buf.set_last(true);
            buf.set_last_in_chain(true);
        }
        None => out.push(Buf::last()),
    }
}
