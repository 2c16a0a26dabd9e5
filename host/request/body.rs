//! The body of a request: in memory up to a bound, then all of it in a temporary file.
//!
//! ```text
//! add ... add         up to client_body_buffer_size in memory
//!   -> begin_writing  the pool writes it to the file (job_done gives the file back); meanwhile as much again is added
//! begin_writing       the rest, if there is a file
//!   -> end            complete: the file alone
//! ```

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use topnext_module_api::{Buf, Chain};

use crate::{
    event::Answer,
    open_file::OpenFile,
    plugins::services::bufs,
    temp_file::{FileName, TempFile},
};

/// The size of the pieces in which a body is kept.
const PIECE: usize = 16 * 1024;

/// What the pool has done.
pub enum Done {
    /// A part was written to the file, which comes back.
    Written(TempFile),
    /// The file was read into memory.
    Loaded(Bytes),
}

/// The body.
#[derive(Default)]
pub struct Body {
    /// What is in memory, in pieces of a good size.
    pieces: Vec<Bytes>,
    /// The piece that is being filled.
    piece: BytesMut,
    /// Bytes in both.
    in_memory: u64,
    /// Bytes that have come in all.
    pub received: u64,
    /// A handler waits for all of it.
    pub wanted: bool,
    /// One has asked for it, so that the client has been told to go on.
    pub asked: bool,
    /// The client has closed in the middle of it.
    pub cut_short: bool,
    /// A handler wants it in memory, if it is not larger than this.
    pub memory_max: Option<u64>,
    /// The file that is being written; none while the pool has it.
    file: Option<TempFile>,
    /// All that was received is to be in a file.
    spills: bool,
    /// What the pool is at work on.
    job: Option<Answer<Done>>,
    /// The file, complete, and its length.
    complete: Option<(Arc<OpenFile>, u64)>,
    name: Option<FileName>,
}

impl Body {
    /// Adds bytes, copied: a body that comes in tiny pieces must not cost a buffer for each.
    pub fn add(&mut self, mut bytes: &[u8]) {
        self.received += bytes.len() as u64;
        self.in_memory += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.piece.capacity() == 0 {
                self.piece.reserve(PIECE.min(bytes.len().max(1024)));
            }
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.piece.len()));
            self.piece.extend_from_slice(now);
            bytes = later;
            if self.piece.len() == PIECE {
                self.end_piece();
            }
        }
    }

    fn end_piece(&mut self) {
        if !self.piece.is_empty() {
            self.pieces.push(std::mem::take(&mut self.piece).freeze());
        }
    }

    /// Bytes in memory that the pool does not have.
    pub fn in_memory(&self) -> u64 {
        self.in_memory
    }

    /// Whether the pool writes or reads a part of it.
    pub fn is_at_work(&self) -> bool {
        self.job.is_some()
    }

    /// Whether all that was received is to be in a file.
    pub fn spills(&self) -> bool {
        self.spills
    }

    /// Whether it is complete, in a file.
    pub fn in_file(&self) -> bool {
        self.complete.is_some()
    }

    /// The path of its file, if that has a name (nginx: $request_body_file).
    pub fn file_name(&self) -> Option<&FileName> {
        self.name.as_ref()
    }

    /// For a job that writes what is in memory: the file, if there is one yet, and the pieces.
    pub fn begin_writing(&mut self) -> (Option<TempFile>, Vec<Bytes>) {
        self.end_piece();
        self.in_memory = 0;
        self.spills = true;
        (self.file.take(), std::mem::take(&mut self.pieces))
    }

    /// For a job that reads the file into memory.
    pub fn begin_loading(&self) -> Option<(Arc<OpenFile>, u64)> {
        self.complete.clone()
    }

    /// The pool has such a job.
    pub fn begin_job(&mut self, answer: Answer<Done>) {
        self.job = Some(answer);
    }

    /// Takes the result of the job. `None` if it has none yet, or belongs to a body that has gone.
    pub fn job_done(&mut self) -> Option<std::io::Result<()>> {
        let done = self.job.as_ref()?.take()?;
        self.job = None;
        Some(done.map(|done| match done {
            Done::Written(file) => self.file = Some(file),
            Done::Loaded(bytes) => {
                self.pieces = vec![bytes];
                (self.complete, self.spills) = (None, false);
            }
        }))
    }

    /// All has come, and is in the file if it is to be.
    pub fn end(&mut self) -> std::io::Result<()> {
        self.end_piece();
        if let Some(file) = self.file.take() {
            let (file, name) = file.finish()?;
            self.complete = Some((Arc::new(file), self.received));
            self.name = name;
        }
        Ok(())
    }

    /// Forgets what has come: it will not be complete. Its file goes with the request.
    pub fn give_up(&mut self) {
        (self.pieces, self.piece, self.in_memory) = (Vec::new(), BytesMut::new(), 0);
        (self.memory_max, self.wanted) = (None, false);
    }

    /// The body, once it is complete: pieces of memory, or one buf in a file. It is shared, not copied.
    pub fn chain(&self) -> Chain {
        match &self.complete {
            Some((file, len)) => Chain::from(Buf::from_file(bufs::handle(file.clone()), 0, *len)),
            None => self.pieces.iter().map(|piece| Buf::from(piece.clone())).collect(),
        }
    }

    /// What of it is in memory, once it is complete.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| &piece[..])
    }

    /// Its files, to be closed and removed where that may wait for the disk.
    pub fn into_files(self) -> Option<impl Send> {
        let has_any = self.file.is_some() || self.complete.is_some() || self.name.is_some();
        has_any.then_some((self.file, self.complete, self.name))
    }
}
