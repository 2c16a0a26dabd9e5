//! What a worker says to its master: messages over a pipe, each behind its length.
//!
//! A pipe and no socket, since nothing but bytes comes through it: a worker need not be trusted, and the last close of a
//! descriptor that it could send takes as long as it likes (SO_LINGER), in the master or in what the master starts at that moment.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{event::PollFlags, io::Errno, pipe::PipeFlags};
use serde::{Serialize, de::DeserializeOwned};

use super::channel::wait;

/// Bytes of a length.
const LENGTH: usize = size_of::<u32>();
/// What is read at once.
const STEP: usize = 64 * 1024;

/// The master's end. It does not block.
#[derive(Debug)]
pub struct Reader {
    fd: OwnedFd,
    messages: Messages,
}

/// Takes messages out of bytes.
#[derive(Debug)]
pub struct Messages {
    /// What has come of the next one, and what is behind it.
    bytes: Vec<u8>,
    /// The longest that is taken.
    limit: usize,
}

/// The worker's end, for all its threads.
#[derive(Debug)]
pub struct Writer(Mutex<OwnedFd>);

/// A pipe: the end that reads, which takes messages up to this length, and what is to become the one that writes.
pub fn pair(limit: usize) -> io::Result<(Reader, OwnedFd)> {
    let (fd, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    Ok((Reader { fd, messages: Messages::new(limit) }, writer))
}

impl Reader {
    /// Takes no longer messages than these from here on.
    pub fn set_limit(&mut self, limit: usize) {
        self.messages.limit = limit;
    }

    /// The next message; none if it has not come whole. An error of kind `UnexpectedEof`: the other side is gone.
    pub fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(message) = self.messages.take()? {
                return Ok(Some(message));
            }
            let mut bytes = [0; STEP];
            match rustix::io::read(&self.fd, &mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.messages.put(&bytes[..n]),
                Err(Errno::INTR) => (),
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Messages {
    /// None has come yet.
    pub fn new(limit: usize) -> Messages {
        Messages { bytes: Vec::new(), limit }
    }

    /// These have come.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next one, if it has come whole. After an error there is nothing to be had any more.
    pub fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<LENGTH>() else { return Ok(None) };
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        if length > self.limit {
            return Err(io::Error::other(format!("a message of {length} bytes is too long")));
        }
        let Some(text) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(text)?;
        // A long one leaves no memory behind.
        self.bytes = self.bytes.split_off(LENGTH + length);
        Ok(Some(message))
    }
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Writer {
    /// The end that was handed to this process.
    pub fn new(fd: OwnedFd) -> Writer {
        Writer(Mutex::new(fd))
    }

    /// Sends a message, waiting for at most so long while there is no room. One that is short comes whole or not at all; of a longer one,
    /// that has come in part, the other side makes no sense.
    pub fn send_within(&self, time: Duration, message: &impl Serialize) -> io::Result<()> {
        let until = Instant::now() + time;
        let mut bytes = vec![0; LENGTH];
        serde_json::to_writer(&mut bytes, message)?;
        let length = u32::try_from(bytes.len() - LENGTH).map_err(io::Error::other)?;
        bytes[..LENGTH].copy_from_slice(&length.to_ne_bytes());
        let fd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = &bytes[..];
        while !left.is_empty() {
            match rustix::io::write(&*fd, left) {
                Ok(written) => left = &left[written..],
                Err(Errno::INTR) => (),
                Err(Errno::AGAIN) => wait(&*fd, PollFlags::OUT, until)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(10);

    #[test]
    fn messages_come_whole_and_in_order() {
        let (mut reader, writer) = pair(1 << 20).expect("a pipe");
        let writer = Writer::new(writer);
        assert!(reader.receive::<String>().expect("open").is_none());
        // More than the pipe takes at once.
        let long = "x".repeat(1_000_000);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for text in ["first", &long, "last"] {
                    writer.send_within(TIME, &text).expect("it is read");
                }
            });
            for expected in ["first", &long, "last"] {
                let text = loop {
                    if let Some(text) = reader.receive::<String>().expect("open") {
                        break text;
                    }
                };
                assert_eq!(text, expected);
            }
        });
        drop(writer);
        assert_eq!(reader.receive::<String>().expect_err("gone").kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let (mut reader, writer) = pair(1 << 20).expect("a pipe");
        let writer = Writer::new(writer);
        reader.set_limit(100);
        writer.send_within(TIME, &"x".repeat(99)).expect("room");
        assert_eq!(reader.receive::<String>().expect_err("too long").to_string(), "a message of 101 bytes is too long");
        let error = writer.send_within(Duration::ZERO, &"x".repeat(1_000_000)).expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (mut reader, writer) = pair(1 << 20).expect("a pipe");
        let writer = Writer::new(writer);
        writer.send_within(TIME, &7).expect("room");
        assert!(reader.receive::<String>().is_err(), "a number is no text");
        drop(reader);
        assert_eq!(writer.send_within(TIME, &7).expect_err("nobody is there").kind(), io::ErrorKind::BrokenPipe);
    }
}
