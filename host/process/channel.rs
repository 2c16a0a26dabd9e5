//! What processes of the server say to those that they have started: messages with descriptors, over a pair of sockets.
//!
//! A message is one packet (SOCK_SEQPACKET), so that none comes in part, and the end of the other process is the end of the
//! channel. What may be large travels as a file in memory ([`text_file`]). Two masters talk both ways; what a worker says comes
//! through pipe.rs.

use std::{
    io::{self, IoSlice, IoSliceMut, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    time::{Duration, Instant},
};

use rustix::{
    cmsg_space,
    event::{PollFd, PollFlags, poll},
    fs::{MemfdFlags, SealFlags},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
    },
    time::Timespec,
};
use serde::{Serialize, de::DeserializeOwned};

/// The longest message.
const MAX_MESSAGE: usize = 64 * 1024;
/// The most descriptors of one message (the kernel's SCM_MAX_FD is 253).
pub const MAX_FDS: usize = 200;
/// The largest text that is read from a file in memory.
const MAX_TEXT: u64 = 256 << 20;

/// What makes a file in memory one that nobody can change.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE).union(SealFlags::SEAL);

/// One end. It does not block.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// A message that has come.
pub struct Received<T> {
    /// What it says.
    pub message: T,
    /// The descriptors that came with it.
    pub fds: Vec<OwnedFd>,
}

impl Channel {
    /// Both ends.
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, other) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Channel(one), Channel(other)))
    }

    /// The end that this process was started with. An error if it is something else.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Channel> {
        if rustix::net::sockopt::socket_type(&fd)? != SocketType::SEQPACKET {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Channel(fd))
    }

    /// The other end can say nothing from here on, and send no descriptor.
    pub fn only_send(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.0, Shutdown::Read)?)
    }

    /// The end, to be handed to a process that is started.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Sends a message with at most [`MAX_FDS`] descriptors. An error: the other side is gone, or does not read.
    pub fn send(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        if text.len() > MAX_MESSAGE {
            return Err(io::Error::other("the message is too long"));
        }
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        loop {
            match rustix::net::sendmsg(&self.0, &[IoSlice::new(&text)], &mut ancillary, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => (),
                result => return Ok(result.map(drop)?),
            }
        }
    }

    /// As [`Channel::send`], waiting for at most so long while the other side has no room.
    pub fn send_within(&self, time: Duration, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let until = Instant::now() + time;
        loop {
            match self.send(message, fds) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(self, PollFlags::OUT, until)?,
                result => return result,
            }
        }
    }

    /// The next message; none if there is none yet. An error of kind `UnexpectedEof`: the other side is gone.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<Received<T>>> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut text = vec![0; MAX_MESSAGE];
        let received = loop {
            let buffers = &mut [IoSliceMut::new(&mut text)];
            match rustix::net::recvmsg(&self.0, buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => (),
                Err(Errno::AGAIN) => return Ok(None),
                // It has left something unread.
                Err(Errno::CONNRESET) => return Err(io::ErrorKind::UnexpectedEof.into()),
                result => break result?,
            }
        };
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(list) = message {
                fds.extend(list);
            }
        }
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::other("a message has come in part: too long, or out of descriptors"));
        }
        Ok(Some(Received { message: serde_json::from_slice(&text[..received.bytes])?, fds }))
    }

    /// As [`Channel::receive`], waiting for at most so long.
    pub fn receive_within<T: DeserializeOwned>(&self, time: Duration) -> io::Result<Received<T>> {
        let until = Instant::now() + time;
        loop {
            match self.receive()? {
                Some(received) => return Ok(received),
                None => wait(self, PollFlags::IN, until)?,
            }
        }
    }
}

/// Waits until a descriptor is ready, at most until then.
pub fn wait(fd: impl AsFd, flags: PollFlags, until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let time = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
    match poll(&mut [PollFd::new(&fd, flags)], Some(&time)) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A text as a file in memory, which nobody can change any more.
pub fn text_file(name: &str, text: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(text)?;
    rustix::fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

/// The text of such a file. Several processes can read it at the same time: its position, which all of them share, stays out of
/// it. An error if it is no such file.
pub fn read_text(fd: impl AsFd) -> io::Result<Vec<u8>> {
    if !rustix::fs::fcntl_get_seals(&fd).is_ok_and(|seals| seals.contains(SEALS)) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a sealed file in memory"));
    }
    let file = std::fs::File::from(fd.as_fd().try_clone_to_owned()?);
    // It is sealed, so that this stays its size.
    let size = file.metadata()?.len();
    if size > MAX_TEXT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut text = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    file.read_exact_at(&mut text, 0)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(10);

    #[test]
    fn messages_come_whole_with_their_descriptors() {
        let (one, other) = Channel::pair().expect("a pair");
        assert!(one.receive::<String>().expect("open").is_none());
        let text = text_file("test", b"a long text").expect("a file");
        let many: Vec<BorrowedFd> = (0..MAX_FDS).map(|_| text.as_fd()).collect();
        other.send(&"first", &[text.as_fd()]).expect("room");
        other.send_within(TIME, &"second", &many).expect("room");
        let first = one.receive_within::<String>(TIME).expect("sent");
        assert_eq!((first.message.as_str(), first.fds.len()), ("first", 1));
        assert_eq!(read_text(&first.fds[0]).expect("a text"), b"a long text");
        assert_eq!(read_text(&first.fds[0]).expect("again"), b"a long text");
        assert_eq!(one.receive_within::<String>(TIME).expect("sent").fds.len(), MAX_FDS);
        drop(other);
        assert_eq!(one.receive::<String>().err().expect("gone").kind(), io::ErrorKind::UnexpectedEof);
        assert!(one.send(&"late", &[]).is_err());
    }

    #[test]
    fn a_text_is_read_by_many_at_once() {
        let long = "a text of the configuration\n".repeat(100_000);
        let text = text_file("test", long.as_bytes()).expect("a file");
        std::thread::scope(|scope| {
            let read = || (0..20).all(|_| read_text(&text).is_ok_and(|text| text == long.as_bytes()));
            let readers: Vec<_> = (0..4).map(|_| scope.spawn(read)).collect();
            assert!(readers.into_iter().all(|reader| reader.join().expect("no panic")));
        });
    }

    #[test]
    fn what_only_one_end_says_cannot_be_answered() {
        let (one, other) = Channel::pair().expect("a pair");
        one.only_send().expect("a socket");
        assert_eq!(other.send(&"no", &[]).expect_err("it is shut").kind(), io::ErrorKind::BrokenPipe);
        one.send(&"yes", &[]).expect("room");
        assert_eq!(other.receive_within::<String>(TIME).expect("sent").message, "yes");
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let (one, other) = Channel::pair().expect("a pair");
        assert!(other.send(&"x".repeat(MAX_MESSAGE), &[]).is_err());
        let error = one.receive_within::<String>(Duration::from_millis(1)).err().expect("nothing was sent");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(read_text(std::fs::File::open("/dev/zero").expect("there")).is_err(), "it would not end");
        other.send(&7, &[]).expect("room");
        assert!(one.receive::<String>().is_err(), "a number is no text");
    }
}
