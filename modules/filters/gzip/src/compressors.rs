//! Idle compressors of the worker, by level: making one costs more than compressing a small response.
//!
//! There are two kinds. libdeflate takes a whole body at once, and needs a third less time for it; zlib-rs takes a body in
//! pieces. Both make no more of a page of HTML than zlib does at the same level, which is what nginx uses.

use std::sync::{Mutex, MutexGuard, PoisonError};

use flate2::{Compress, Compression};
use libdeflater::{CompressionLvl, Compressor};
use topnext_module_api::prelude::*;

/// The compressors.
#[derive(Default)]
pub struct Compressors {
    streams: Idle<Compress>,
    wholes: Idle<Whole>,
}

/// Those of one kind, by level.
type Idle<T> = [Mutex<Vec<T>>; 9];

/// A compressor for whole bodies, with room for what it makes.
struct Whole {
    compressor: Compressor,
    out: Vec<u8>,
}

/// Idle compressors that are kept for each level and kind. One takes about 300 KiB.
const IDLE: usize = 16;

/// The binary logarithm of the window's size; 15 is the greatest of zlib.
const WINDOW_BITS: u8 = 15;

impl State for Compressors {
    fn create() -> Result<Compressors, String> {
        Ok(Compressors::default())
    }
}

impl Compressors {
    /// A compressor for a stream, that has compressed nothing yet.
    ///
    /// Level 1 is level 2 of zlib-rs: of a page of HTML it makes a little less than level 1 of zlib, in about 0.6 of the
    /// time. Level 1 of zlib-rs knows the fixed codes only, and makes a quarter more.
    pub fn stream(&self, level: u32) -> Compress {
        let idle = idle(&self.streams, level).and_then(|mut idle| idle.pop());
        idle.unwrap_or_else(|| Compress::new_gzip(Compression::new(level.max(2)), WINDOW_BITS))
    }

    /// Takes one back that has come to the end of its stream.
    ///
    /// Never one that stopped before: zlib-rs 0.6.8 forgets on reset that a block of level 1 is open, and the next stream
    /// is then corrupt. The test `bufs_of_any_size_and_of_files_come_out_whole` finds it. Those are dropped.
    pub fn put_stream(&self, level: u32, mut compress: Compress) {
        compress.reset();
        put(&self.streams, level, compress);
    }

    /// Compresses a whole body; `None` if the library fails.
    pub fn compress(&self, level: u32, body: &[u8]) -> Option<Bytes> {
        let known = idle(&self.wholes, level).and_then(|mut idle| idle.pop());
        let mut whole = match known {
            Some(whole) => whole,
            None => {
                let level = CompressionLvl::new(i32::try_from(level).ok()?).ok()?;
                Whole { compressor: Compressor::new(level), out: Vec::new() }
            }
        };
        let room = whole.compressor.gzip_compress_bound(body.len());
        if whole.out.len() < room {
            whole.out.resize(room, 0);
        }
        let len = whole.compressor.gzip_compress(body, &mut whole.out).ok()?;
        let compressed = Bytes::copy_from_slice(whole.out.get(..len)?);
        put(&self.wholes, level, whole);
        Some(compressed)
    }
}

fn idle<T>(all: &Idle<T>, level: u32) -> Option<MutexGuard<'_, Vec<T>>> {
    let slot = all.get(level.checked_sub(1)? as usize)?;
    Some(slot.lock().unwrap_or_else(PoisonError::into_inner))
}

fn put<T>(all: &Idle<T>, level: u32, compressor: T) {
    if let Some(mut idle) = idle(all, level)
        && idle.len() < IDLE
    {
        idle.push(compressor);
    }
}
