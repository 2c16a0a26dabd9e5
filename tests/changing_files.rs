//! Files that change while they are served, and paths that cannot be opened: right framing, a reset where a promised length
//! cannot be kept, and no wait without end.

mod support;

use std::{
    fs::{self, File},
    os::unix::fs::{PermissionsExt as _, symlink},
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::{Pid, Resource, Rlimit, prlimit},
};
use support::{Client, Ending, Folder, Server, eventually, files};

/// A site with these lines in its server.
fn site(lines: &str) -> String {
    format!(
        "worker_threads = 1\nmodule = [{{ name = \"index\" }}, {{ name = \"static\" }}, {{ name = \"gzip\" }}]\n\
         [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nroot = \"html\"\n{lines}\n"
    )
}

/// With sendfile, without it, through a filter that needs memory; each with and without a cache.
const WAYS: [&str; 6] = [
    "",
    "sendfile = false",
    "gzip = { enabled = true, types = [\"*\"] }",
    "open_file_cache = { max = 10 }",
    "sendfile = false\nopen_file_cache = { max = 10 }",
    "gzip = { enabled = true, types = [\"*\"] }\nopen_file_cache = { max = 10 }",
];

/// More than the buffers of a connection hold.
const LARGE: usize = 8 << 20;

/// A slow client that has the head of the response and a little of its body.
fn slow_client(server: &Server) -> Client {
    let mut client = Client::slow(server.address());
    client.send("GET /large HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    client.head().unwrap();
    client.take(1000).unwrap();
    client
}

#[test]
fn a_large_file_that_is_cut_off_while_it_is_sent() {
    let noise = files::noise(LARGE);
    for way in WAYS {
        for left in [0, 1 << 20] {
            let server = Server::with(&[("html/large", &noise), ("html/small", b"fine")], &site(way));
            let mut client = slow_client(&server);
            File::options().write(true).open(server.folder.path("html/large")).unwrap().set_len(left).unwrap();
            let (_, ending) = client.rest_and_end();
            assert_eq!(ending, Ending::Reset, "{way:?}, {left} left");
            server.stderr(|log| log.contains("html/large\": the file was truncated while it was sent"));
            assert_eq!(server.get("/small").text(), "fine");
        }
    }
}

#[test]
fn a_large_file_that_is_removed_replaced_or_forbidden_while_it_is_sent_is_sent_as_it_was() {
    let noise = files::noise(LARGE);
    let cached = "open_file_cache = { max = 10 }";
    for (way, changes) in [
        ("", &["remove", "replace", "forbid", "folder", "fifo"][..]),
        ("sendfile = false", &["replace", "fifo"]),
        (cached, &["remove", "replace"]),
    ] {
        for change in changes.iter().copied() {
            let server = Server::with(&[("html/large", &noise), ("html/new", b"another")], &site(way));
            let mut client = Client::slow(server.address());
            client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
            client.head().unwrap();
            let large = server.folder.path("html/large");
            match change {
                "forbid" => fs::set_permissions(&large, fs::Permissions::from_mode(0o0)).unwrap(),
                "replace" => fs::rename(server.folder.path("html/new"), &large).unwrap(),
                _ => fs::remove_file(&large).unwrap(),
            }
            match change {
                "folder" => fs::create_dir(&large).unwrap(),
                "fifo" => mknodat(CWD, &large, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap(),
                _ => (),
            }
            assert!(client.take(LARGE).unwrap() == noise, "{way:?}, {change}");
            if way != cached {
                let status = server.get("/large").status;
                let expected: &[u16] = match change {
                    "replace" => &[200],
                    "forbid" => &[403, 200],
                    "folder" => &[301],
                    _ => &[404],
                };
                assert!(expected.contains(&status), "{change}: {status}");
            }
        }
    }
}

#[test]
fn a_small_file_that_changes_all_the_time_is_always_framed_right() {
    let noise = files::noise(40_000);
    for way in WAYS {
        let server = Server::with(&[("html/a", &noise), ("html/small", b"fine")], &site(way));
        let path = server.folder.path("html/a");
        for round in 0..60_u64 {
            let size = [0, 1, 900, 16_384, 16_385, 40_000][round as usize % 6];
            if round % 3 == 0 {
                server.folder.write("html/new", &noise[..size as usize]);
                fs::rename(server.folder.path("html/new"), &path).unwrap();
            } else {
                let file = File::options().write(true).open(&path).unwrap();
                file.set_len(size).unwrap();
            }
            let mut client = server.connect();
            client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
            // Whole, or a reset: what comes is in either case a part of what the file was made of, or its holes.
            match client.try_response_to("GET") {
                Ok(response) => {
                    assert_eq!(response.status, 200);
                    let right = response.body.iter().zip(&noise).all(|(got, made)| got == made || *got == 0);
                    assert!(right, "{way:?}, round {round}");
                }
                Err(_) => assert!(way.contains("open_file_cache"), "{way:?}, round {round}"),
            }
        }
        assert_eq!(server.get("/small").text(), "fine");
    }
}

#[test]
fn a_file_of_more_than_four_gigabytes() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path("html")).unwrap();
    let length: u64 = (5 << 30) + 7;
    File::create(folder.path("html/huge")).unwrap().set_len(length).unwrap();
    let server = Server::start_in(folder, &site(""));
    let length = length.to_string();
    let head = server.request("HEAD", "/huge", "").expect(200);
    assert_eq!(head.field("Content-Length"), Some(length.as_str()));
    let mut client = server.connect();
    client.send("GET /huge HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().unwrap().field("Content-Length"), Some(length.as_str()));
    assert!(client.take(1 << 20).unwrap().iter().all(|byte| *byte == 0));
    client.reset();
    eventually("it is closed", || server.open_files() < 20);
}

#[test]
fn paths_that_cannot_be_opened_say_why() {
    let folder = Folder::with(&[("html/a", b"x")]);
    symlink("loop", folder.path("html/loop")).unwrap();
    let server = Server::start_in(folder, &site(""));
    let long = "x".repeat(300);
    for (path, status, text) in [
        ("/none", 404, "html/none\" failed (2: No such file or directory)"),
        ("/a/b", 404, "html/a/b\" failed (20: Not a directory)"),
        ("/loop", 403, "html/loop\" failed (40: Too many levels of symbolic links)"),
        (&format!("/{long}"), 404, "failed (36: File name too long)"),
        (&format!("/{}", "y/".repeat(2500) + "y"), 404, "failed (36: File name too long)"),
    ] {
        server.get(path).expect(status);
        server.stderr(|log| log.contains(text));
    }
}

#[test]
fn pipes_and_devices_are_refused_at_once() {
    let folder = Folder::with(&[("html/a", b"x")]);
    mknodat(CWD, folder.path("html/fifo"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    symlink("/dev/zero", folder.path("html/zero")).unwrap();
    for way in ["", "open_file_cache = { max = 10 }", "disable_symlinks = \"if_not_owner\""] {
        let server =
            Server::start_in(Folder::new(), &site(way).replace("\"html\"", &format!("{:?}", folder.path("html"))));
        for _ in 0..3 {
            server.get("/fifo").expect(404);
            assert!(matches!(server.get("/zero").status, 403 | 404));
        }
        server.stderr(|log| log.contains("html/fifo\" is not a regular file"));
        let fds = fs::read_dir(format!("/proc/{}/fd", server.worker())).unwrap();
        let open: Vec<_> = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok()).collect();
        assert!(!open.iter().any(|path| path.ends_with("fifo") || path.ends_with("zero")), "{open:?}");
    }
}

#[test]
fn without_descriptors_it_answers_500_and_recovers() {
    for way in ["", "open_file_cache = { max = 10 }\nopen_file_cache_errors = true"] {
        let server = Server::with(&[("html/a", b"fine"), ("html/b", b"too")], &site(way));
        assert_eq!(server.get("/a").text(), "fine");
        let mut client = server.connect();
        client.send("GET /none HTTP/1.1\r\nHost: a\r\n\r\n");
        client.response().expect(404);
        let pid = i32::try_from(server.worker()).ok().and_then(Pid::from_raw);
        // The limit is on the number of a new descriptor: all below it may be in use.
        let numbers = fs::read_dir(format!("/proc/{}/fd", server.worker())).unwrap();
        let numbers: Vec<u64> = numbers.map(|fd| fd.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
        let first_free = (0..).find(|number| !numbers.contains(number)).unwrap();
        let limit = |current| Rlimit { current: Some(current), maximum: Some(4096) };
        let before = prlimit(pid, Resource::Nofile, limit(first_free)).unwrap();
        client.send("GET /b HTTP/1.1\r\nHost: a\r\n\r\n");
        client.response().expect(500);
        server.stderr(|log| log.contains("html/b\" failed (24: Too many open files)"));
        let before = Rlimit { current: before.current.map(|n| n.min(4096)), maximum: Some(4096) };
        prlimit(pid, Resource::Nofile, before).unwrap();
        assert_eq!(server.get("/b").expect(200).text(), "too", "the error was not kept");
    }
}
