//! The compression of one response: bufs in, bufs out, a bounded amount at a time.
//!
//! ```text
//!            run(input, limit)
//! input ---> compressor ---> buffer ---> bufs, when the buffer is full, at a flush, and at the end
//!      \---> all of it, if it is short ---> one buf
//! ```

use std::{fmt, mem, sync::Arc};

use flate2::{Compress, FlushCompress, Status};
use topnext_module_api::prelude::*;

use crate::compressors::Compressors;

/// A response of at most this many bytes is compressed in one call, unless a flush comes before its end: that takes a third
/// less time. A compressor of streams keeps about as much of a text, too, before the first output.
const SHORT: u64 = 64 * 1024;

/// The compression of one response.
pub struct Deflate {
    compressors: Arc<Compressors>,
    level: u32,
    stage: Stage,
    /// The output buffer: `filled` bytes of output, the rest is room. Its memory is used again once it has been sent.
    buffer: BytesMut,
    filled: usize,
    /// The size of a new buffer, more than 0.
    size: usize,
    read: u64,
    written: u64,
}

/// How far it is.
enum Stage {
    /// A short response, of which this came so far; it is compressed when all is there.
    Short(Chain),
    /// A response that is compressed as it comes.
    Stream(Compress),
    /// The end has been written.
    Ended,
}

/// The compressor failed, or was given what it cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeflateError {
    /// A buf that is in a file, although the filter had asked for memory. A fault of the host.
    FileBuf,
    /// The compressor made no progress, or reports an error. A fault of the library.
    Stuck,
}

impl fmt::Display for DeflateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeflateError::FileBuf => "got a buf of a file, which it cannot compress",
            DeflateError::Stuck => "deflate() failed",
        })
    }
}

impl Deflate {
    /// For a response of `length` bytes, if that is known, at a level from 1 to 9, into buffers of `size` bytes.
    pub fn new(compressors: Arc<Compressors>, level: u32, size: usize, length: Option<u64>) -> Deflate {
        let stage = match length {
            Some(length) if length <= SHORT => Stage::Short(Chain::new()),
            _ => Stage::Stream(compressors.stream(level)),
        };
        let size = size.max(1);
        Deflate { compressors, level, stage, buffer: BytesMut::new(), filled: 0, size, read: 0, written: 0 }
    }

    /// Whether the end has been written.
    pub fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    /// Bytes read and bytes written so far.
    pub fn totals(&self) -> (u64, u64) {
        (self.read, self.written)
    }

    /// Compresses input until there is none left, or the output is `limit` bytes or more (by less than a buffer).
    ///
    /// Input that is left over stays in `input`. Behind the end, bufs are passed on as they are.
    pub fn run(&mut self, input: &mut Chain, limit: u64) -> Result<Chain, DeflateError> {
        let mut out = Chain::new();
        if let Stage::Short(waiting) = &mut self.stage {
            waiting.append(mem::take(input));
            if waiting.has_last() {
                let body = mem::take(waiting);
                out.push(self.short(&body)?);
                return Ok(out);
            }
            // It is longer than was said, or is not to wait for its end.
            if waiting.len_bytes() <= SHORT && !waiting.iter().any(Buf::is_flush) {
                return Ok(out);
            }
            *input = mem::take(waiting);
            self.stage = Stage::Stream(self.compressors.stream(self.level));
        }
        let stop = self.written.saturating_add(limit.max(1));
        while self.written < stop {
            let mut compress = match mem::replace(&mut self.stage, Stage::Ended) {
                Stage::Stream(compress) => compress,
                _ => {
                    out.append(mem::take(input));
                    break;
                }
            };
            let step = self.step(&mut compress, input, &mut out);
            if matches!(step, Ok(Step::End)) {
                self.compressors.put_stream(self.level, compress);
                continue;
            }
            self.stage = Stage::Stream(compress);
            if matches!(step?, Step::Starved) {
                break;
            }
        }
        Ok(out)
    }

    /// Compresses all of a response at once.
    fn short(&mut self, body: &Chain) -> Result<Buf, DeflateError> {
        if body.iter().any(|buf| buf.in_file() && !buf.is_empty()) {
            return Err(DeflateError::FileBuf);
        }
        let mut pieces = body.iter().map(Buf::bytes).filter(|bytes| !bytes.is_empty());
        let (first, more) = (pieces.next().unwrap_or_default(), pieces.next());
        // Most bodies are one piece. Others are put together: they are short.
        let compressed = match more {
            None => self.compressors.compress(self.level, first),
            Some(_) => {
                let joined: Vec<&[u8]> = body.iter().map(Buf::bytes).collect();
                self.compressors.compress(self.level, &joined.concat())
            }
        };
        let compressed = compressed.ok_or(DeflateError::Stuck)?;
        self.stage = Stage::Ended;
        self.read = body.len_bytes();
        self.written = compressed.len() as u64;
        let mut buf = Buf::from(compressed);
        buf.set_last(true);
        buf.set_last_in_chain(true);
        Ok(buf)
    }

    /// Reads from the first buf until it is used up or the output buffer is full.
    fn step(&mut self, compress: &mut Compress, input: &mut Chain, out: &mut Chain) -> Result<Step, DeflateError> {
        let Some(buf) = input.first_mut() else {
            return Ok(Step::Starved);
        };
        if buf.in_file() && !buf.is_empty() {
            return Err(DeflateError::FileBuf);
        }
        let (last, flush) = (buf.is_last(), buf.is_flush());
        let mode = match (last, flush) {
            (true, _) => FlushCompress::Finish,
            (false, true) => FlushCompress::Sync,
            (false, false) => FlushCompress::None,
        };
        let (mut used, mut wrote, mut ended) = (0, 0, false);
        // An empty buf without a flag is only taken out: zlib calls the attempt to compress nothing an error.
        if !buf.is_empty() || last || flush {
            if self.buffer.is_empty() {
                self.buffer.resize(self.size, 0);
            }
            let (read_before, written_before) = (compress.total_in(), compress.total_out());
            let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
            let status = compress.compress(buf.bytes(), room, mode).map_err(|_| DeflateError::Stuck)?;
            used = compress.total_in() - read_before;
            wrote = compress.total_out() - written_before;
            ended = status == Status::StreamEnd;
        }
        buf.advance(used);
        self.read += used;
        self.written += wrote;
        // At most what `room` holds, which is in memory.
        self.filled += wrote as usize;
        let full = self.filled == self.buffer.len() && self.filled > 0;
        // A flush that fills the buffer may have more to write; if it has not, the next step finds out.
        let done = if last { ended } else { buf.is_empty() && !(flush && full) };
        if used == 0 && wrote == 0 && !done {
            return Err(DeflateError::Stuck);
        }
        if done {
            input.pop();
        }
        if full || (done && (last || flush)) {
            let mut sent = if self.filled > 0 { Buf::from(self.cut()) } else { Buf::flush() };
            sent.set_flush(done && flush);
            if done && last {
                sent = if sent.is_empty() { Buf::last() } else { sent };
                sent.set_last(true);
                sent.set_last_in_chain(true);
            }
            out.push(sent);
        }
        Ok(if done && last { Step::End } else { Step::On })
    }

    /// Takes the output out of the buffer.
    fn cut(&mut self) -> Bytes {
        let filled = mem::take(&mut self.filled).min(self.buffer.len());
        self.buffer.split_to(filled).freeze()
    }
}

/// How a step ended.
enum Step {
    /// There was no input.
    Starved,
    /// There may be more to do.
    On,
    /// The end of the response has been written.
    End,
}
