//! Cuts ranges out of a body that comes in pieces, in memory or in files, and puts heads between them.
//!
//! ```text
//! body    0123456789...         in any pieces
//! parts   (head, 5..8) (head, 0..2) (end, nothing)
//! out     head 567 head 01 end
//! ```
//!
//! What a later part needs is kept: as a share of its memory or file, or as a copy if it is a small part of that.

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
    /// What the parts need of the body: from, and up to, in order; none touches another.
    wanted: Vec<(u64, u64)>,
    /// Pieces of that with the place where they start, in order: those that have come, and are needed still.
    kept: VecDeque<(u64, Buf)>,
    /// Behind the last byte of the body that came.
    at: u64,
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
        let wanted = joined(parts.iter().map(|part| (part.range.start, part.range.end)));
        Cut { parts, needed, begun: false, wanted, kept: VecDeque::new(), at: 0 }
    }

    /// The length of what is still to be made.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.head.len() as u64 + part.range.bytes()).sum()
    }

    /// Takes the next pieces of the body, and gives what can be made of it. The flags go on with what came before them.
    pub fn run(&mut self, body: Chain) -> Result<Chain, CutError> {
        let mut out = Chain::new();
        for buf in body {
            let (last, flush) = (buf.is_last(), buf.is_flush());
            let start = self.at;
            self.at += buf.len();
            self.keep(start, &buf);
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

    /// Keeps what is needed of a piece of the body that starts here.
    fn keep(&mut self, start: u64, buf: &Buf) {
        let least = self.least_needed();
        let end = start + buf.len();
        let first = self.wanted.partition_point(|(_, to)| *to <= start.max(least));
        for &(from, to) in self.wanted[first..].iter().take_while(|(from, _)| *from < end) {
            let (from, to) = (from.max(start).max(least), to.min(end));
            if from < to {
                self.kept.push_back((from, piece(buf, from - start, to - from)));
            }
        }
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

/// What is wanted by any of these, in order.
fn joined(ranges: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut sorted: Vec<(u64, u64)> = ranges.filter(|(from, to)| from < to).collect();
    sorted.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::with_capacity(sorted.len());
    for (from, to) in sorted {
        match joined.last_mut() {
            Some((_, last)) if from <= *last => *last = to.max(*last),
            _ => joined.push((from, to)),
        }
    }
    joined
}

/// A part of a buf, to be kept. A small part of memory is copied: a share of it would keep the whole.
fn piece(buf: &Buf, at: u64, len: u64) -> Buf {
    let mut piece = buf.clone();
    piece.advance(at);
    piece.truncate(len);
    if !piece.in_file() && len <= buf.len() / 2 {
        return Buf::from(Bytes::copy_from_slice(piece.bytes()));
    }
    clear_flags(&mut piece);
    piece
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

#[cfg(test)]
mod tests {
    use topnext_module_api::testing;

    use super::*;

    fn part(start: u64, end: u64) -> Part {
        Part { head: format!("[{start}]"), range: ByteRange { start, end } }
    }

    /// What these parts make of a body of so many pieces of 64 KB, and the memory that is kept on the way.
    fn of(parts: Vec<Part>, pieces: u64) -> (Vec<u8>, u64) {
        testing::set_up();
        let (mut cut, mut out, mut most) = (Cut::new(parts), Vec::new(), 0);
        for number in 0..pieces {
            let mut buf = Buf::from(Bytes::from(vec![b'a' + (number % 26) as u8; 64 << 10]));
            buf.set_last(number + 1 == pieces);
            let made = cut.run(Chain::from(buf)).expect("little is kept");
            out.extend(made.flat_map(|buf| buf.into_bytes()));
            most = most.max(cut.kept.iter().map(|(_, buf)| buf.len()).sum());
        }
        (out, most)
    }

    #[test]
    fn only_what_is_asked_for_is_kept() {
        let end = 64 * (64 << 10);
        let (out, most) = of(vec![part(end - 1, end), part(0, 1), part(65_535, 65_538)], 64);
        assert_eq!(out, format!("[{}]l[0]a[65535]abb", end - 1).into_bytes());
        assert_eq!(most, 4);
    }

    #[test]
    fn what_overlaps_is_kept_once() {
        assert_eq!(joined([(5, 9), (0, 2), (7, 12), (3, 3), (2, 4)].into_iter()), [(0, 4), (5, 12)]);
        let (out, most) = of(vec![part(65_530, 65_540), part(0, 65_536), part(65_536, 65_537)], 3);
        assert_eq!(out.len(), "[65530]".len() + 10 + "[0]".len() + 65_536 + "[65536]".len() + 1);
        assert!(most <= 65_540);
    }
}
