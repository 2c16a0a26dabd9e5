//! A content handler that ends its process, or keeps its loop from turning: what module-api cannot prevent.

use std::{os::fd::BorrowedFd, thread, time::Duration};

use rustix::net::{SendFlags, SocketType};
use topnext_module_api::prelude::*;

/// The table `crash`.
#[derive(Config)]
pub struct Crash {
    /// `segv`, `abort`, `sleep`; or `junk` or `early`, which is said to the master.
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
            _ => thread::sleep(Duration::from_millis(1500)),
        }
        r.send(200, "text/plain", b"still here".to_vec())
    }
}

/// Says something through the worker's channel, in its name: the one socket that keeps packets apart.
fn tell_master(text: &[u8]) {
    for fd in 0..64 {
        // SAFETY: the descriptor is borrowed while it is looked at; those that are not open are errors.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        if rustix::net::sockopt::socket_type(fd).is_ok_and(|kind| kind == SocketType::SEQPACKET) {
            let _ = rustix::net::send(fd, text, SendFlags::NOSIGNAL);
        }
    }
}
