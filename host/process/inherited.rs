//! Descriptors that the process was started with.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::io::FdFlags;

/// Takes one over. Its number was told to this process as its own.
pub fn take(fd: i32) -> io::Result<OwnedFd> {
    if fd <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: it is only looked at; if it is not open the call says so.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and was named to this process as its own: nothing else here has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
