//! Socket options that neither socket2 nor rustix has.
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

/// SO_DETACH_FILTER and SO_DETACH_REUSEPORT_BPF: no program decides any more which packets the socket gets, or which socket of
/// an address a connection (socket(7)). An error if that cannot be changed (SO_LOCK_FILTER); that there was none is none.
pub fn detach_programs(socket: impl AsFd) -> io::Result<()> {
    for option in [libc::SO_DETACH_FILTER, SO_DETACH_REUSEPORT_BPF] {
        match set_at(&socket, libc::SOL_SOCKET, option, 0) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Err(error),
            _ => (),
        }
    }
    Ok(())
}

/// SO_BUF_LOCK: which buffers keep the sizes that they were given; the kernel adapts the others to what a connection needs
/// (socket(7)). An error before Linux 5.12.
pub fn lock_buffers(socket: impl AsFd, receive: bool, send: bool) -> io::Result<()> {
    set_at(socket, libc::SOL_SOCKET, libc::SO_BUF_LOCK, i32::from(send) | i32::from(receive) << 1)
}

/// Since Linux 5.3; not in the crate libc (asm-generic/socket.h).
const SO_DETACH_REUSEPORT_BPF: libc::c_int = 68;

fn set(socket: impl AsFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    set_at(socket, libc::IPPROTO_TCP, option, value)
}

fn set_at(socket: impl AsFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = size_of_val(&value) as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, for it is borrowed; the kernel reads `size` bytes of `value`, which are there.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// SO_LOCK_FILTER: nobody can take the filter of the socket away any more (socket(7)).
pub fn is_filter_locked(socket: impl AsFd) -> bool {
    get_at(socket, libc::SOL_SOCKET, libc::SO_LOCK_FILTER).is_ok_and(|value| value != 0)
}

/// Which buffers keep their sizes, as a number of the kernel.
#[cfg(test)]
pub fn locked_buffers(socket: impl AsFd) -> io::Result<libc::c_int> {
    get_at(socket, libc::SOL_SOCKET, libc::SO_BUF_LOCK)
}

/// The value of a TCP option.
#[cfg(test)]
pub fn get(socket: impl AsFd, option: libc::c_int) -> io::Result<libc::c_int> {
    get_at(socket, libc::IPPROTO_TCP, option)
}

fn get_at(socket: impl AsFd, level: libc::c_int, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut size = size_of_val(&value) as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, for it is borrowed; the kernel writes at most `size` bytes into `value`.
    let result = unsafe { libc::getsockopt(fd, level, option, (&raw mut value).cast(), &mut size) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
