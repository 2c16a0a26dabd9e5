//! The queue of what a socket has to send: bytes of the host, and bufs in memory or files.
//!
//! What is small is put together, so that a header and a small file leave in one write; what is large is never copied.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, IoSlice},
    os::fd::AsFd,
    sync::Arc,
};

use rustix::{io::Errno, net::SendFlags};
use topnext_module_api::{Buf, Chain};

use crate::{
    error_text::ErrorText,
    open_file::{FILE_STEP, NoWait, OpenFile},
    plugins::services::bufs,
};

/// A file of at most this many bytes is read into the bytes before it, if it is in the page cache.
const SMALL_FILE: u64 = 16 * 1024;
/// A buf of at most this many bytes is copied behind the bytes before it.
const SMALL_BUF: u64 = 1024;
/// Bytes of one item behind which a new one begins. An item's memory goes back when all of it has been sent, so that a
/// stream of small pieces to a client that is always a little late must not be one item.
const FULL: usize = 32 * 1024;
/// Pieces that one write takes.
const MAX_PIECES: usize = 64;

thread_local! {
    /// The memory of a queue that has become empty, for the one that fills next: most are emptied by the flush that follows,
    /// so that one is enough.
    static SPARE: Cell<Option<Box<Waiting>>> = const { Cell::new(None) };
    /// What files are read into that are sent without sendfile.
    static COPY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

enum Item {
    /// The host's own bytes, from `start` on.
    Bytes { bytes: Vec<u8>, start: usize },
    /// A buf with data.
    Buf(Buf),
}

/// The queue. While nothing waits, as on an idle connection, it is only this: the memory for what waits is lent.
///
/// Bufs that are no longer needed are handed back in a chain, `done`. It is to be dropped when no borrow of the queue is
/// held, since that may run code of modules.
#[derive(Default)]
pub struct WriteQueue {
    waiting: Option<Box<Waiting>>,
    /// Bytes that have left since the count began.
    written: u64,
}

/// What waits.
#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    bytes: u64,
    /// Bytes of the file in front that are known to be in memory.
    trusted: u64,
    /// Because the pool has read them.
    from_disk: bool,
    /// An empty vector with capacity, for the next bytes.
    spare: Vec<u8>,
}

/// How a queue is sent.
#[derive(Clone, Copy, Debug)]
pub struct Sending {
    /// Files by sendfile(2) (nginx: sendfile).
    pub sendfile: bool,
    /// Bytes of files after which others have their turn, so that a fast client cannot hold the loop; 0: no limit (nginx:
    /// sendfile_max_chunk).
    pub max_chunk: u64,
    /// Bytes that are read at once without sendfile (nginx: output_buffers).
    pub buffer: u64,
    /// The loop's clock.
    pub now_ms: u64,
}

/// How far a flush came.
#[derive(Debug)]
pub enum Flushed {
    /// All has been sent.
    Done,
    /// The socket takes no more.
    Blocked,
    /// It may take more, but others are to have their turn first.
    More,
    /// This part of a file has to be read from the disk first.
    Disk(Arc<OpenFile>, u64, u64),
}

impl WriteQueue {
    /// Bytes that wait.
    pub fn bytes(&self) -> u64 {
        self.waiting.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    /// Bytes that have left since [`begin_count`](WriteQueue::begin_count).
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Counts what leaves from here on.
    pub fn begin_count(&mut self) {
        self.written = 0;
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.as_ref().is_none_or(|waiting| waiting.items.is_empty())
    }

    /// Adds bytes by having them written at the end of a vector.
    pub fn add_bytes(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.waiting().add_bytes(write);
    }

    /// Adds the data of a buf. An error if its file cannot be read, or is shorter than it was.
    pub fn add_buf(&mut self, buf: Buf, done: &mut Chain) -> io::Result<()> {
        if buf.is_empty() {
            done.push(buf);
            return Ok(());
        }
        self.waiting().add_buf(buf, done)
    }

    /// Sends until all is gone, the socket takes no more, or what `how` says.
    pub fn flush(&mut self, socket: &impl AsFd, how: &Sending, done: &mut Chain) -> io::Result<Flushed> {
        let Some(waiting) = &mut self.waiting else { return Ok(Flushed::Done) };
        let before = waiting.bytes;
        let result = waiting.flush(socket, how, done);
        self.written += before - waiting.bytes;
        if waiting.items.is_empty() {
            self.give_back();
        }
        result
    }

    /// The next `bytes` of the file in front are in memory, and are not asked for again. `from_disk`: because the pool has
    /// just read them. (Not every file system can tell whether a read would block; those that cannot say that it would,
    /// always.)
    pub fn trust(&mut self, bytes: u64, from_disk: bool) {
        if let Some(waiting) = &mut self.waiting {
            (waiting.trusted, waiting.from_disk) = (bytes, from_disk);
        }
    }

    /// Forgets what waits.
    pub fn clear(&mut self) -> Chain {
        let waiting = self.waiting.take();
        let bufs = waiting.into_iter().flat_map(|waiting| waiting.items).filter_map(|item| match item {
            Item::Bytes { .. } => None,
            Item::Buf(buf) => Some(buf),
        });
        bufs.collect()
    }

    fn waiting(&mut self) -> &mut Waiting {
        self.waiting.get_or_insert_with(|| SPARE.take().unwrap_or_default())
    }

    /// Gives the memory of an empty queue back.
    fn give_back(&mut self) {
        let Some(mut waiting) = self.waiting.take() else { return };
        waiting.trusted = 0;
        if waiting.items.capacity() <= MAX_PIECES {
            SPARE.set(Some(waiting));
        }
    }
}

impl Waiting {
    fn add_bytes(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let has_room = |item: &Item| matches!(item, Item::Bytes { bytes, .. } if bytes.len() < FULL);
        if !self.items.back().is_some_and(has_room) {
            self.items.push_back(Item::Bytes { bytes: std::mem::take(&mut self.spare), start: 0 });
        }
        if let Some(Item::Bytes { bytes, .. }) = self.items.back_mut() {
            let before = bytes.len();
            write(bytes);
            self.bytes += (bytes.len() - before) as u64;
        }
    }

    fn add_buf(&mut self, buf: Buf, done: &mut Chain) -> io::Result<()> {
        let len = buf.len();
        if let Some((file, pos, len)) = buf.file() {
            if len <= SMALL_FILE {
                let copied = self.add_small_file(file, pos, len);
                if !matches!(copied, Ok(false)) {
                    done.push(buf);
                    return copied.map(drop);
                }
            }
        } else if len <= SMALL_BUF && matches!(self.items.back(), Some(Item::Bytes { .. })) {
            self.add_bytes(|bytes| bytes.extend_from_slice(buf.bytes()));
            done.push(buf);
            return Ok(());
        }
        self.bytes += len;
        self.items.push_back(Item::Buf(buf));
        Ok(())
    }

    /// Reads a small file into the bytes before it; false if the disk is needed.
    fn add_small_file(&mut self, file: &topnext_module_api::File, pos: u64, len: u64) -> io::Result<bool> {
        let Some(Item::Bytes { bytes, .. }) = self.items.back_mut() else { return Ok(false) };
        let Some(file) = bufs::open_file(file) else { return Ok(false) };
        let start = bytes.len();
        bytes.resize(start + len as usize, 0);
        match file.read_nowait(pos, &mut bytes[start..]) {
            Ok(NoWait::Done(n)) if n as u64 == len => {
                self.bytes += len;
                Ok(true)
            }
            Ok(NoWait::Done(0)) => {
                bytes.truncate(start);
                Err(truncated(file, len))
            }
            Ok(_) => {
                bytes.truncate(start);
                Ok(false)
            }
            Err(error) => {
                bytes.truncate(start);
                Err(of_file(file, &error))
            }
        }
    }

    fn flush(&mut self, socket: &impl AsFd, how: &Sending, done: &mut Chain) -> io::Result<Flushed> {
        let mut of_files = 0;
        loop {
            let sent = match self.items.front() {
                None => return Ok(Flushed::Done),
                Some(Item::Buf(buf)) if buf.in_file() && how.max_chunk > 0 && of_files >= how.max_chunk => {
                    return Ok(Flushed::More);
                }
                Some(Item::Buf(buf)) if buf.in_file() => {
                    let Some((handle, pos, len)) = buf.file() else { return Ok(Flushed::Done) };
                    let Some(file) = bufs::open_file(handle) else { return Err(io::ErrorKind::InvalidInput.into()) };
                    let on_disk = || {
                        let len = len.min(FILE_STEP);
                        bufs::share(handle).map_or(Flushed::Done, |file| Flushed::Disk(file, pos, len))
                    };
                    if self.trusted == 0 {
                        let known = file.in_memory(pos, len, how.now_ms).map_err(|error| of_file(file, &error))?;
                        if known == 0 {
                            return Ok(on_disk());
                        }
                        (self.trusted, self.from_disk) = (known, false);
                    }
                    let turn = if how.max_chunk > 0 { how.max_chunk - of_files } else { u64::MAX };
                    let step = len.min(self.trusted).min(turn);
                    let sent = if how.sendfile {
                        send_file(socket, file, pos, step)?
                    } else {
                        match copy_file(socket, file, pos, step.min(how.buffer), self.from_disk)? {
                            NoWait::Done(sent) => sent,
                            NoWait::WouldBlock => return Ok(on_disk()),
                        }
                    };
                    let Some(sent) = sent else { return Err(truncated(file, len)) };
                    self.trusted = self.trusted.saturating_sub(sent as u64);
                    of_files += sent as u64;
                    sent
                }
                Some(_) => self.send_memory(socket)?,
            };
            match sent {
                0 => return Ok(Flushed::Blocked),
                sent => self.advance(sent as u64, done),
            }
        }
    }

    /// Writes pieces in memory, as many as one call takes. 0: the socket takes no more.
    fn send_memory(&self, socket: &impl AsFd) -> io::Result<usize> {
        // Most responses are one piece, the header with a small body behind it, or such a piece and a file. (MSG_MORE, which
        // would put the start of the file into the packet of the header, was measured with 32 connections at once: a
        // quarter fewer responses a second of 100 KB.)
        let is_alone = self.items.get(1).is_none_or(|next| matches!(next, Item::Buf(buf) if buf.in_file()));
        if is_alone && let Some(Item::Bytes { bytes, start }) = self.items.front() {
            return write_once(|| rustix::net::send(socket, &bytes[*start..], SendFlags::NOSIGNAL));
        }
        let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
        let mut count = 0;
        for item in self.items.iter().take(MAX_PIECES) {
            pieces[count] = match item {
                Item::Bytes { bytes, start } => IoSlice::new(&bytes[*start..]),
                Item::Buf(buf) if !buf.in_file() => IoSlice::new(buf.bytes()),
                Item::Buf(_) => break,
            };
            count += 1;
        }
        write_once(|| rustix::io::writev(socket, &pieces[..count]))
    }

    fn advance(&mut self, mut sent: u64, done: &mut Chain) {
        self.bytes = self.bytes.saturating_sub(sent);
        while let Some(item) = self.items.front_mut() {
            let left = match item {
                Item::Bytes { bytes, start } => (bytes.len() - *start) as u64,
                Item::Buf(buf) => buf.len(),
            };
            if sent < left {
                match item {
                    Item::Bytes { start, .. } => *start += sent as usize,
                    Item::Buf(buf) => buf.advance(sent),
                }
                return;
            }
            sent -= left;
            match self.items.pop_front() {
                Some(Item::Bytes { mut bytes, .. }) => {
                    bytes.clear();
                    // A queue that goes on waiting, perhaps for long, keeps little.
                    let most = if self.items.is_empty() { 2 * SMALL_FILE } else { SMALL_BUF };
                    if bytes.capacity() as u64 <= most {
                        self.spare = bytes;
                    }
                }
                Some(Item::Buf(buf)) => {
                    self.trusted = 0;
                    done.push(buf);
                }
                None => return,
            }
        }
    }
}

/// One write. 0: the socket takes no more.
fn write_once(mut write: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> {
    loop {
        match write() {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(Errno::AGAIN) => return Ok(0),
            Err(Errno::INTR) => (),
            result => return result.map_err(io::Error::from),
        }
    }
}

/// Sends a part of a file by sendfile(2). 0: the socket takes no more; none: the file ends before.
fn send_file(socket: &impl AsFd, file: &OpenFile, pos: u64, len: u64) -> io::Result<Option<usize>> {
    let (fd, mut at) = (file.fd()?, pos);
    loop {
        return match rustix::fs::sendfile(socket, fd, Some(&mut at), len as usize) {
            Ok(0) => Ok(None),
            Ok(n) => Ok(Some(n)),
            Err(Errno::AGAIN) => Ok(Some(0)),
            Err(Errno::INTR) => continue,
            Err(error @ (Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN)) => Err(error.into()),
            Err(error) => Err(of_file(file, &error.into())),
        };
    }
}

/// Sends a part of a file through memory (sendfile = false). Answers as [`send_file`].
fn copy_file(
    socket: &impl AsFd,
    file: &OpenFile,
    pos: u64,
    len: u64,
    trusted: bool,
) -> io::Result<NoWait<Option<usize>>> {
    COPY.with_borrow_mut(|buffer| {
        let len = len as usize;
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        let read = if trusted {
            file.read_blocking(pos, &mut buffer[..len]).map(NoWait::Done)
        } else {
            file.read_nowait(pos, &mut buffer[..len])
        };
        match read.map_err(|error| of_file(file, &error))? {
            NoWait::Done(0) => Ok(NoWait::Done(None)),
            NoWait::Done(n) => {
                let sent = write_once(|| rustix::net::send(socket, &buffer[..n], SendFlags::NOSIGNAL))?;
                Ok(NoWait::Done(Some(sent)))
            }
            NoWait::WouldBlock => Ok(NoWait::WouldBlock),
        }
    })
}

/// What is said of a file that ends before the length that the client was told. A reset says so to the client.
#[cold]
fn truncated(file: &OpenFile, missing: u64) -> io::Error {
    let name = file.name();
    io::Error::other(format!("\"{name}\": the file was truncated while it was sent: {missing} bytes are missing"))
}

/// An error with the name of the file that it is about.
#[cold]
fn of_file(file: &OpenFile, error: &io::Error) -> io::Error {
    io::Error::other(format!("\"{}\": {}", file.name(), ErrorText(error)))
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::net::UnixStream};

    use super::*;

    const HOW: Sending = Sending { sendfile: true, max_chunk: 0, buffer: 4096, now_ms: 0 };

    #[test]
    fn what_is_empty_keeps_no_memory() {
        let (socket, mut peer) = UnixStream::pair().unwrap();
        let (mut queue, mut done) = (WriteQueue::default(), Chain::new());
        for count in 1..3 {
            queue.add_bytes(|out| out.extend_from_slice(b"header"));
            assert_eq!((queue.bytes(), queue.is_empty()), (6, false));
            assert!(matches!(queue.flush(&socket, &HOW, &mut done), Ok(Flushed::Done)));
            assert!(queue.waiting.is_none());
            assert_eq!((queue.bytes(), queue.written(), queue.is_empty()), (0, 6 * count, true));
            let mut read = [0; 6];
            peer.read_exact(&mut read).unwrap();
            assert_eq!(&read, b"header");
        }
        queue.begin_count();
        assert_eq!(queue.written(), 0);
    }

    #[test]
    fn what_was_not_sent_is_counted_as_waiting() {
        let (socket, _peer) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let (mut queue, mut done) = (WriteQueue::default(), Chain::new());
        queue.add_bytes(|out| out.resize(16 * 1024 * 1024, 0));
        assert!(matches!(queue.flush(&socket, &HOW, &mut done), Ok(Flushed::Blocked)));
        assert!(queue.written() > 0 && queue.bytes() > 0);
        assert_eq!(queue.written() + queue.bytes(), 16 * 1024 * 1024);
        queue.clear();
        assert!(queue.waiting.is_none());
        assert_eq!((queue.bytes(), queue.is_empty()), (0, true));
    }
}
