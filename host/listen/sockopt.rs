//! Socket options of TCP that neither socket2 nor rustix has.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// TCP_FASTOPEN: the length of the queue of connections whose first bytes came with the SYN (RFC 7413; tcp(7)).
pub fn set_fastopen(socket: impl AsFd, queue: u32) -> io::Result<()> {
    set(socket, libc::TCP_FASTOPEN, i32::try_from(queue).unwrap_or(i32::MAX))
}

/// TCP_DEFER_ACCEPT: a connection is accepted when its first bytes have come, or after about so many seconds (tcp(7)).
pub fn set_defer_accept(socket: impl AsFd, seconds: i32) -> io::Result<()> {
    set(socket, libc::TCP_DEFER_ACCEPT, seconds)
}

fn set(socket: impl AsFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = size_of_val(&value) as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, for it is borrowed; the kernel reads `size` bytes of `value`, which are there.
    let result = unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, option, (&raw const value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The value of a TCP option.
#[cfg(test)]
pub fn get(socket: impl AsFd, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut size = size_of_val(&value) as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, for it is borrowed; the kernel writes at most `size` bytes into `value`.
    let result = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, option, (&raw mut value).cast(), &mut size) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
