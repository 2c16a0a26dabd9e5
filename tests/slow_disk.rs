//! A disk that is slow: the pool is busy, and a file is not in memory. Nobody else is to blame for that.

#[path = "support/build.rs"]
mod build;
mod support;

use std::{fs::File, io::IoSliceMut, path::Path};

use rustix::{
    fs::{Advice, fadvise, fsync},
    io::{Errno, ReadWriteFlags, preadv2},
};
use support::{Client, Server, files};

const LARGE: usize = 24 << 20;
const COLD: usize = 1 << 20;

/// A server whose pool has one thread, which waits until the gate is opened (see tests/modules/wakes).
fn server() -> Server {
    let server = Server::with(
        &[("html/large", &files::noise(LARGE)), ("html/cold", &files::noise(COLD))],
        &r#"
worker_threads = 1
thread_pool = { threads = 1 }
module = [{ name = "static" }, { name = "wakes", path = WAKES }]
error_log = { path = "stderr", level = "info" }
[[http.server]]
listen = ["127.0.0.1:PORT"]
root = "html"
send_timeout = "300ms"
[[http.server.location]]
path = "= /wakes"
wakes = {}
"#
        .replace("WAKES", &format!("{:?}", build::module("wakes"))),
    );
    assert_eq!(server.get("/wakes?do=forget").expect(200).text(), "forgotten true\n");
    server
}

/// Has the kernel forget what is in a file. False if it does not.
fn evict(path: &Path) -> bool {
    let file = File::open(path).unwrap();
    fsync(&file).unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    let mut byte = [0];
    let read = preadv2(&file, &mut [IoSliceMut::new(&mut byte)], 0, ReadWriteFlags::NOWAIT);
    matches!(read, Err(Errno::AGAIN))
}

#[test]
fn send_timeout_is_the_clients_time_only() {
    let server = server();
    if !evict(&server.folder.path("html/cold")) {
        return eprintln!("skipped: the kernel keeps files of this file system in memory");
    }
    let mut waiting = server.connect();
    waiting.send("GET /cold HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(waiting.head().unwrap().status, 200);
    // Another client comes later, and has had its time.
    let mut slow = Client::slow(server.address());
    slow.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    let log = server.stderr(|log| log.contains("client timed out while reading the response"));
    assert!(!log.contains("/cold"), "{log}");
    server.get("/wakes?do=open").expect(200);
    assert!(waiting.take(COLD).unwrap() == files::noise(COLD));
    server.get("/large").expect(200);
}
