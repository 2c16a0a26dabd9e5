//! The compressor of one response: bufs in, bufs out, a bounded amount at a time.
//!
//! ```text
//!            run(input, limit)
//! input ---> compressor ---> buffer ---> bufs, when the buffer is full, at a flush, and at the end
//! ```

use std::{
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use flate2::{Compress, Compression, FlushCompress, Status};
use topnext_module_api::prelude::*;

/// Idle compressors of the worker, by level: making one costs more than compressing a small response.
pub struct Compressors([Mutex<Vec<Compress>>; 9]);

/// Idle compressors that are kept for each level. One takes about 300 KiB.
const IDLE: usize = 16;

/// The binary logarithm of the window's size; 15 is the greatest of zlib.
const WINDOW_BITS: u8 = 15;

impl State for Compressors {
    fn create() -> Result<Compressors, String> {
        Ok(Compressors(Default::default()))
    }
}

impl Compressors {
    /// One that has compressed nothing yet.
    ///
    /// Level 1 is level 2 of zlib-rs: of a page of HTML it makes a little less than level 1 of zlib, in about 0.6 of the
    /// time. Level 1 of zlib-rs knows the fixed codes only, and makes a quarter more.
    fn take(&self, level: u32) -> Compress {
        let idle = self.idle(level).and_then(|mut idle| idle.pop());
        idle.unwrap_or_else(|| Compress::new_gzip(Compression::new(level.max(2)), WINDOW_BITS))
    }

    /// Takes one back that has come to the end of its stream.
    ///
    /// Never one that stopped before: zlib-rs 0.6.8 forgets on reset that a block of level 1 is open, and the next stream
    /// is then corrupt. The test `bufs_of_any_size_and_of_files_come_out_whole` finds it. Those are dropped.
    fn put(&self, level: u32, mut compress: Compress) {
        compress.reset();
        if let Some(mut idle) = self.idle(level)
            && idle.len() < IDLE
        {
            idle.push(compress);
        }
    }

    fn idle(&self, level: u32) -> Option<MutexGuard<'_, Vec<Compress>>> {
        let slot = self.0.get(level.checked_sub(1)? as usize)?;
        Some(slot.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The compression of one response.
pub struct Deflate {
    compressors: Arc<Compressors>,
    level: u32,
    /// None once the end has been written.
    compress: Option<Compress>,
    /// The output buffer: `filled` bytes of output, the rest is room. Its memory is used again once it has been sent.
    buffer: BytesMut,
    filled: usize,
    /// The size of a new buffer, more than 0.
    size: usize,
    read: u64,
    written: u64,
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
    /// For a response, at a level from 1 to 9, into buffers of `size` bytes.
    pub fn new(compressors: Arc<Compressors>, level: u32, size: usize) -> Deflate {
        let compress = Some(compressors.take(level));
        let size = size.max(1);
        Deflate { compressors, level, compress, buffer: BytesMut::new(), filled: 0, size, read: 0, written: 0 }
    }

    /// Whether the end has been written.
    pub fn is_finished(&self) -> bool {
        self.compress.is_none()
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
        let stop = self.written.saturating_add(limit.max(1));
        while self.written < stop {
            let Some(mut compress) = self.compress.take() else {
                out.append(mem::take(input));
                break;
            };
            let step = self.step(&mut compress, input, &mut out);
            if matches!(step, Ok(Step::End)) {
                self.compressors.put(self.level, compress);
                continue;
            }
            self.compress = Some(compress);
            if matches!(step?, Step::Starved) {
                break;
            }
        }
        Ok(out)
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
