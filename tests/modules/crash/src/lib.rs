//! A content handler that ends its process, or keeps its loop from turning: what module-api cannot prevent.

use std::{thread, time::Duration};

use topnext_module_api::prelude::*;

/// The table `crash`.
#[derive(Config)]
pub struct Crash {
    /// `segv`, `abort`, or `sleep`.
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
            _ => thread::sleep(Duration::from_millis(1500)),
        }
        r.send(200, "text/plain", b"still here".to_vec())
    }
}
