//! Support for tests of the server as a program: it is started with a configuration, and spoken to byte by byte.
//!
//! ```text
//! let server = Server::start(
//!     r#"
//! module = [{ name = "return" }]
//! [[http.server]]
//! listen = ["127.0.0.1:PORT"]
//! return = { code = 200, text = "hello" }
//! "#,
//! );
//! assert_eq!(server.get("/").text(), "hello");
//! ```

// Not every test uses all of it.
#![allow(dead_code, unused_imports)]

pub mod client;

pub mod files;

pub mod nginx;

pub mod peer;

pub mod proxied;

pub mod server;

pub use client::{Client, Ending, Response};
pub use files::Folder;
pub use server::{Answer, Server, command};

/// How long anything may take. Nothing does, unless it hangs.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Waits until this holds, which comes by itself.
#[track_caller]
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, holds);
}

/// As [`eventually`], for what has a time-out of its own that is longer.
#[track_caller]
pub fn eventually_within(patience: std::time::Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < patience, "never: {what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Says loudly that a test is skipped. With `TOPNEXT_NO_SKIP=1`, as in CI, that is a failure.
#[allow(dead_code, reason = "not every test is ever skipped")]
pub fn skip(why: &str) {
    println!("SKIPPED: {why}");
    let strict = std::env::var("TOPNEXT_NO_SKIP").is_ok_and(|value| value == "1");
    assert!(!strict, "skipped, with TOPNEXT_NO_SKIP=1: {why}");
}
