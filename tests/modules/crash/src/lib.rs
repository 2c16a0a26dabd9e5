//! A content handler that ends its process, keeps its loop from turning, or does what somebody would who has taken the worker
//! over: what module-api cannot prevent.

use std::{
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    thread,
    time::Duration,
};

use rustix::{
    fs::{FileType, OFlags},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType},
};
use topnext_module_api::prelude::*;

/// The table `crash`.
#[derive(Config)]
pub struct Crash {
    /// `segv`, `abort`, `sleep`; `junk`, `long`, `early` or `drains`, which is said to the master; `die_spoiled`, as `spoil` and the end; `descriptor`, which is sent to it; `spoil`, which
    /// shuts the listening sockets down and has them block.
    how: String,
}

export_module! {
    name: "crash",
    module: Crash,
    provides: [content],
}

impl Content for Crash {
    fn content(&self, r: &mut Request<'_>) -> Code {
        match self.how.as_str() {
            // SAFETY: none: that is what it is for.
            "segv" => unsafe { std::ptr::null_mut::<u32>().write_volatile(1) },
            "abort" => std::process::abort(),
            "junk" => tell_master(b"junk"),
            "early" => tell_master(b"\"Ready\""),
            "drains" => tell_master(b"\"Draining\""),
            "die_spoiled" => {
                sockets_of(SocketType::STREAM).filter(is_listening).for_each(spoil);
                std::process::abort();
            }
            "long" => tell_master(&[b' '; 2 << 20]),
            "descriptor" => {
                let text = if send_descriptor() { "sent" } else { "refused" };
                return r.send(200, "text/plain", text.as_bytes().to_vec());
            }
            "spoil" => sockets_of(SocketType::STREAM).filter(is_listening).for_each(spoil),
            _ => thread::sleep(Duration::from_millis(1500)),
        }
        r.send(200, "text/plain", b"still here".to_vec())
    }
}

/// Says something in the worker's name: through the one pipe that is not its output.
fn tell_master(text: &[u8]) {
    let is_pipe = |fd: &BorrowedFd<'_>| {
        let kind = rustix::fs::fstat(fd).map(|found| FileType::from_raw_mode(found.st_mode));
        let wanted = OFlags::WRONLY | OFlags::NONBLOCK;
        kind == Ok(FileType::Fifo) && rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags.contains(wanted))
    };
    for pipe in descriptors().filter(is_pipe) {
        let length = u32::try_from(text.len()).expect("not that long");
        let _ = rustix::io::write(pipe, &[&length.to_ne_bytes(), text].concat());
    }
}

/// Sends standard input through the channel to the master: the one socket that keeps packets apart. Whether that went.
fn send_descriptor() -> bool {
    let stdin = std::io::stdin();
    let fds = [stdin.as_fd()];
    sockets_of(SocketType::SEQPACKET).any(|channel| {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        rustix::net::sendmsg(channel, &[IoSlice::new(b"\"Serving\"")], &mut ancillary, SendFlags::NOSIGNAL).is_ok()
    })
}

fn is_listening(socket: &BorrowedFd<'static>) -> bool {
    rustix::net::sockopt::socket_acceptconn(socket).unwrap_or(false)
}

fn spoil(socket: BorrowedFd<'static>) {
    let on: libc::c_int = 1;
    let size = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel reads `size` bytes of `on`.
    unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LOCK_FILTER, (&raw const on).cast(), size);
    }
    let _ = rustix::io::ioctl_fionbio(socket, false);
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}

/// The sockets of this kind that the process has.
fn sockets_of(kind: SocketType) -> impl Iterator<Item = BorrowedFd<'static>> {
    descriptors().filter(move |fd| rustix::net::sockopt::socket_type(fd).is_ok_and(|found| found == kind))
}

/// Behind the standard ones.
fn descriptors() -> impl Iterator<Item = BorrowedFd<'static>> {
    // SAFETY: each is borrowed while it is looked at; those that are not open are errors.
    (3..64).map(|fd| unsafe { BorrowedFd::borrow_raw(fd) })
}
