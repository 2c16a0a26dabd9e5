//! What the kernel knows of a TCP connection (tcp(7), TCP_INFO), for the variables `$tcpinfo_...`.

#![allow(unsafe_code)]

use std::{
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd, AsRawFd},
};

/// None on a socket that is not of TCP.
pub fn of(socket: &impl AsFd) -> Option<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open during the call, which writes at most `len` bytes, the size of `info`.
    let result = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut len) };
    // SAFETY: it was zeroed, and a structure of integers may have any bytes; an older kernel writes fewer of them.
    (result == 0).then(|| unsafe { info.assume_init() })
}
