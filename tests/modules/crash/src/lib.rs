//! A content handler that ends its process, keeps its loop from turning, or does what somebody would who has taken the worker
//! over: what module-api cannot prevent.

use std::{
    io::{IoSlice, Write},
    mem::MaybeUninit,
    net::{Ipv4Addr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    thread,
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType};
use topnext_module_api::prelude::*;

/// The table `crash`.
#[derive(Config)]
pub struct Crash {
    /// `segv`, `abort`, `sleep`; `junk` or `early`, which is said to the master; `linger`, which sends it a connection to the port in
    /// the arguments that takes an hour to close; `spoil`, which shuts the listening sockets down and has them block.
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
            "junk" => tell_master(b"junk", None),
            "early" => tell_master(b"\"Ready\"", None),
            "linger" => {
                let port = std::str::from_utf8(r.args()).ok().and_then(|port| port.parse().ok());
                let stream = port.map(|port| lingering(port).expect("a connection that lingers"));
                tell_master(b"\"Serving\"", stream.as_ref().map(AsFd::as_fd));
            }
            "spoil" => sockets_of(SocketType::STREAM).filter(is_listening).for_each(spoil),
            _ => thread::sleep(Duration::from_millis(1500)),
        }
        r.send(200, "text/plain", b"still here".to_vec())
    }
}

/// Says something through the worker's channel, in its name: the one socket that keeps packets apart.
fn tell_master(text: &[u8], fd: Option<BorrowedFd<'_>>) {
    for channel in sockets_of(SocketType::SEQPACKET) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = fd.as_slice();
        assert!(fds.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        let _ = rustix::net::sendmsg(channel, &[IoSlice::new(text)], &mut ancillary, SendFlags::NOSIGNAL);
    }
}

/// A connection to somebody who does not read, with more to be sent than the kernel takes, and whose last close waits for that.
fn lingering(port: u16) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nonblocking(true)?;
    while stream.write(&[0; 65536]).is_ok() {}
    stream.set_nonblocking(false)?;
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::from_secs(3600)))?;
    Ok(stream)
}

fn is_listening(socket: &BorrowedFd<'static>) -> bool {
    rustix::net::sockopt::socket_acceptconn(socket).unwrap_or(false)
}

fn spoil(socket: BorrowedFd<'static>) {
    let _ = rustix::io::ioctl_fionbio(socket, false);
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}

/// The sockets of this kind that the process has.
fn sockets_of(kind: SocketType) -> impl Iterator<Item = BorrowedFd<'static>> {
    // SAFETY: the descriptor is borrowed while it is looked at; those that are not open are errors.
    let all = (0..64).map(|fd| unsafe { BorrowedFd::borrow_raw(fd) });
    all.filter(move |fd| rustix::net::sockopt::socket_type(fd).is_ok_and(|found| found == kind))
}
