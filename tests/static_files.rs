//! Files: what is served, with which header, and what happens to files and clients that are not as one would like.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use support::files::SITE;
use support::{Client, Ending, Folder, Server, files};

#[test]
fn a_type_for_each_extension() {
    let types = [
        ("a.html", "text/html"),
        ("a.HTM", "text/html"),
        ("a.css", "text/css"),
        ("a.js", "text/javascript"),
        ("a.json", "application/json"),
        ("a.txt", "text/plain"),
        ("a.png", "image/png"),
        ("a.svg", "image/svg+xml"),
        ("a.tar.gz", "application/gzip"),
        ("a.unknown-extension", "x/default"),
        ("none", "x/default"),
    ];
    let folder = Folder::new();
    for (name, _) in types {
        folder.write(&format!("html/{name}"), name.as_bytes());
    }
    let server = Server::start_in(folder, &SITE.replace("root =", "default_type = \"x/default\"\nroot ="));
    for (name, expected) in types {
        let response = server.get(&format!("/{name}")).expect(200);
        assert_eq!((response.field("Content-Type"), response.text()), (Some(expected), name), "{response:?}");
    }
}

#[test]
fn last_modified_and_etag() {
    let folder = Folder::with(&[("html/a", b"hello world")]);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    File::options().write(true).open(folder.path("html/a")).unwrap().set_modified(time).unwrap();
    let server = Server::start_in(folder, SITE);
    let response = server.get("/a").expect(200);
    assert_eq!(response.field("Last-Modified"), Some("Sun, 06 Nov 1994 08:49:37 GMT"), "{response:?}");
    assert_eq!(response.field("ETag"), Some("\"2ebc98a1-b\""), "{response:?}");
    assert_eq!(response.field("Content-Length"), Some("11"), "{response:?}");
    let head = server.request("HEAD", "/a", "").expect(200);
    assert_eq!(head.field("ETag"), Some("\"2ebc98a1-b\""), "{head:?}");
    assert_eq!(head.field("Content-Length"), Some("11"), "{head:?}");
}

#[test]
fn what_is_not_there_gets_404() {
    let server = Server::with(&[("html/file", b"x")], SITE);
    let long = format!("/{}", "a".repeat(300));
    for path in ["/none", "/none/", "/none/none", "/file/", "/file/x", &long, "/%ff%fe", "/..%5cfile", "/file%20", "/*"]
    {
        let response = server.get(path);
        assert_eq!(response.status, 404, "{path}: {response:?}");
        assert!(response.text().contains("<h1>404 Not Found</h1>"), "{response:?}");
    }
    let log = server.stderr(|log| log.contains("/none\" failed"));
    let line = log.lines().find(|line| line.contains("/none\" failed")).unwrap();
    assert!(line.contains("html/none\" failed (2: No such file or directory), client: 127.0.0.1, server: , request: \"GET /none HTTP/1.1\", host: \"localhost\""), "{line}");
}

#[test]
fn head_of_what_is_not_there() {
    let server = Server::with(&[("html/a", b"x")], SITE);
    let mut client = server.connect();
    client.send("HEAD /none HTTP/1.1\r\nHost: a\r\n\r\nHEAD /none/ HTTP/1.1\r\nHost: a\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.response_to("HEAD").expect(404).field("Content-Length").is_some());
    client.response_to("HEAD").expect(404);
    assert_eq!(client.response().expect(200).text(), "x");
}

#[test]
fn what_may_not_be_read_gets_403() {
    let (folder, user) = Folder::for_workers();
    for name in ["html/secret", "html/dir/a"] {
        folder.write(name, b"x");
    }
    for name in ["html/secret", "html/dir"] {
        fs::set_permissions(folder.path(name), fs::Permissions::from_mode(0o0)).unwrap();
    }
    let server = Server::start_in(folder, &format!("{user}{SITE}"));
    server.get("/secret").expect(403);
    server.get("/dir/a").expect(403);
    fs::set_permissions(server.folder.path("html/dir"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_folder_is_redirected_to_its_slash() {
    let folder = Folder::new();
    for dir in ["dir", "d ir?#", "\u{e4}", "a%b"] {
        fs::create_dir_all(folder.path("html").join(dir)).unwrap();
    }
    let server = Server::start_in(folder, SITE);
    for (uri, location) in [
        ("/dir", "/dir/"),
        ("/dir?x=1&y=%20/../z", "/dir/?x=1&y=%20/../z"),
        ("//dir", "/dir/"),
        ("/./x/../dir", "/dir/"),
        ("/d%20ir%3F%23", "/d%20ir%3F%23/"),
        ("/%C3%A4", "/%C3%A4/"),
        ("/a%25b?", "/a%25b/"),
    ] {
        let response = server.get(uri).expect(301);
        assert_eq!(response.field("Location"), Some(server.url(location).as_str()), "{uri}: {response:?}");
    }
    server.get("/dir/").expect(403);
    server.stderr(|log| log.contains("directory index of \"") && log.contains("html/dir/\" is forbidden"));
}

#[test]
fn nothing_leads_out_of_the_root() {
    let files: &[(&str, &[u8])] = &[("secret", b"SECRET"), ("html/a/b", b"inside"), ("htmlx", b"SECRET")];
    let server = Server::with(files, SITE);
    for (path, status) in [
        ("/../secret", 400),
        ("/%2e%2e/secret", 400),
        ("/..%2fsecret", 400),
        ("/a/../../secret", 400),
        ("/a/%2e%2e/%2E%2E/secret", 400),
        ("/a/..%2f..%2fsecret", 400),
        ("/a/./../b/../../secret", 400),
        ("/..", 400),
        ("/a/../..", 400),
        ("/%2e%2e", 400),
        ("/%252e%252e/secret", 404),
        ("/..;/secret", 404),
        ("/.../secret", 404),
        ("/a/%c0%ae%c0%ae/secret", 404),
        ("/a/../a/b", 200),
        ("/a/%2e%2e/a%2fb", 200),
        ("//a///b", 200),
        ("/./a/./b", 200),
    ] {
        let response = server.get(path);
        assert_eq!(response.status, status, "{path}: {response:?}");
        assert!(!response.text().contains("SECRET"), "{path}: {response:?}");
    }
    let mut client = server.connect();
    client.send("GET x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!client.rest().contains("SECRET"));
    let response = server.request("OPTIONS", "*", "");
    assert_eq!(response.status, 400, "{response:?}");
}

#[test]
fn only_get_and_head() {
    let server = Server::with(&[("html/a", b"x")], SITE);
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "get", "BREW"] {
        let response = server.request(method, "/a", "").expect(405);
        assert_eq!(response.field("Allow"), Some("GET, HEAD"), "{method}: {response:?}");
    }
    let mut client = server.connect();
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    client.response_to("POST").expect(405);
    assert_eq!(client.response().expect(200).text(), "x", "the body was skipped");
}

/// All sizes, each over one connection.
fn sizes(sendfile: &str) {
    let sizes = [0, 1, 2, 1000, 1024, 1025, 16_383, 16_384, 16_385, 32_768, 65_536, 65_537, 524_288, 524_289, 5 << 20];
    let noise = files::noise(5 << 20);
    let folder = Folder::new();
    for size in sizes {
        folder.write(&format!("html/{size}"), &noise[..size]);
    }
    let server = Server::start_in(folder, &SITE.replace("root =", &format!("{sendfile}\nroot =")));
    let mut client = server.connect();
    for size in sizes {
        client.send(format!("GET /{size} HTTP/1.1\r\nHost: a\r\n\r\nHEAD /{size} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.response().expect(200);
        assert!(response.body == noise[..size], "{size}: {response:?}");
        let head = client.response_to("HEAD").expect(200);
        assert_eq!(head.field("Content-Length"), Some(size.to_string().as_str()), "{head:?}");
    }
}

#[test]
fn files_of_every_size() {
    sizes("");
}

#[test]
fn files_of_every_size_with_sendfile_false() {
    sizes("sendfile = false");
}

#[test]
fn files_of_every_size_in_many_turns() {
    sizes("sendfile_max_chunk = 1000");
}

#[test]
fn files_of_every_size_in_one_turn() {
    sizes("sendfile_max_chunk = 0");
}

#[test]
fn a_large_file_for_slow_readers() {
    let noise = files::noise(5 << 20);
    for sendfile in [true, false] {
        let config = SITE.replace("root =", &format!("sendfile = {sendfile}\nroot ="));
        let server = Server::with(&[("html/large", &noise), ("html/small", b"quick")], &config);
        let mut slow: Vec<Client> = (0..4).map(|_| Client::slow(server.address())).collect();
        for client in &mut slow {
            client.send("GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            assert_eq!(client.head().unwrap().field("Content-Length"), Some("5242880"));
        }
        assert_eq!(server.get("/small").text(), "quick", "while the others wait");
        let mut bodies = vec![Vec::new(); slow.len()];
        for _ in 0..(5 << 20) / 65_536 {
            for (client, body) in slow.iter_mut().zip(&mut bodies) {
                body.extend(client.take(65_536).unwrap());
            }
        }
        for (client, body) in slow.iter_mut().zip(&bodies) {
            assert!(*body == noise, "sendfile = {sendfile}");
            assert_eq!(client.end(), Ending::Closed);
        }
    }
}

#[test]
fn many_clients_get_the_same_file_at_once() {
    let noise = files::noise(1 << 20);
    let server = Server::with(&[("html/a", &noise)], SITE);
    let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for client in &mut clients {
        assert!(client.response().expect(200).body == noise);
        assert!(client.response().expect(200).body == noise);
    }
}

#[test]
fn a_symlink_is_followed() {
    let folder = Folder::with(&[("elsewhere/a", b"linked"), ("html/b", b"x")]);
    symlink("../elsewhere/a", folder.path("html/link")).unwrap();
    symlink("../elsewhere", folder.path("html/dir")).unwrap();
    symlink("nowhere", folder.path("html/broken")).unwrap();
    symlink("loop", folder.path("html/loop")).unwrap();
    let server = Server::start_in(folder, SITE);
    assert_eq!(server.get("/link").expect(200).text(), "linked");
    assert_eq!(server.get("/dir/a").expect(200).text(), "linked");
    assert_eq!(server.get("/dir").expect(301).field("Location"), Some(server.url("/dir/").as_str()));
    server.get("/broken").expect(404);
    server.get("/loop").expect(403);
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_resets_the_connection() {
    for sendfile in [true, false] {
        let config = SITE.replace("root =", &format!("sendfile = {sendfile}\nroot ="));
        let noise = files::noise(24 << 20);
        let server = Server::with(&[("html/large", &noise), ("html/small", b"fine")], &config);
        let mut client = Client::slow(server.address());
        client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.head().unwrap().field("Content-Length"), Some("25165824"));
        client.take(1000).unwrap();
        File::options().write(true).open(server.folder.path("html/large")).unwrap().set_len(2000).unwrap();
        let (rest, ending) = client.rest_and_end();
        assert_eq!(ending, Ending::Reset, "sendfile = {sendfile}, after {} bytes", rest.len());
        server.stderr(|log| log.contains("the file was truncated while it was sent"));
        assert_eq!(server.get("/small").text(), "fine");
    }
}

#[test]
fn a_file_that_grows_while_it_is_sent_is_sent_as_it_was() {
    let noise = files::noise(24 << 20);
    let server = Server::with(&[("html/large", &noise)], SITE);
    let mut client = Client::slow(server.address());
    client.send("GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.head().unwrap();
    File::options().write(true).open(server.folder.path("html/large")).unwrap().set_len(25 << 20).unwrap();
    assert!(client.take(24 << 20).unwrap() == noise);
    assert_eq!(client.end(), Ending::Closed);
}

#[test]
fn a_file_that_is_replaced_is_served_anew() {
    let server = Server::with(&[("html/a", b"old")], SITE);
    assert_eq!(server.get("/a").text(), "old");
    server.folder.write("html/b", b"newer");
    fs::rename(server.folder.path("html/b"), server.folder.path("html/a")).unwrap();
    assert_eq!(server.get("/a").text(), "newer");
    fs::remove_file(server.folder.path("html/a")).unwrap();
    server.get("/a").expect(404);
}

#[test]
fn fifos_and_sockets_are_not_served() {
    let folder = Folder::with(&[("html/a", b"x")]);
    mknodat(CWD, folder.path("html/fifo"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path("html/s")).unwrap();
    let server = Server::start_in(folder, SITE);
    server.get("/fifo").expect(404);
    // It cannot even be opened, which is 500 in nginx too.
    server.get("/s").expect(500);
    server.get("/a").expect(200);
}

#[test]
fn no_root_no_files() {
    let server = Server::with(
        &[("html/a", b"x"), ("a", b"x")],
        "module = [{ name = \"index\" }, { name = \"static\" }]\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n",
    );
    server.get("/a").expect(404);
    server.get("/").expect(404);
}

#[test]
fn each_location_has_its_root() {
    let server = Server::with(
        &[("one/a", b"one"), ("one/x/a", b"one"), ("two/x/a", b"two"), ("two/x/y", b"two"), ("three/x/y", b"three")],
        r#"
module = [{ name = "static" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
root = "one"
[[http.server.location]]
path = "/x/"
root = "two"
[[http.server.location]]
path = "= /x/y"
root = "three"
"#,
    );
    for (path, expected) in
        [("/a", "one"), ("/x/a", "two"), ("/x/y", "three"), ("/%78/y", "three"), ("/x/./y", "three")]
    {
        assert_eq!(server.get(path).expect(200).text(), expected, "{path}");
    }
    server.get("/x").expect(301);
}

#[test]
fn etag_can_be_switched_off() {
    let config = SITE.to_owned() + "[[http.server.location]]\npath = \"/off/\"\netag = false\n";
    let server = Server::with(&[("html/a", b"x"), ("html/off/a", b"x")], &config);
    assert!(server.get("/a").expect(200).field("ETag").is_some());
    let response = server.get("/off/a").expect(200);
    assert_eq!(response.field("ETag"), None);
    assert!(response.field("Last-Modified").is_some());
}

#[test]
fn directives_of_nginx_that_cannot_be_changed_say_why() {
    let config = |line: &str| SITE.replace("root = \"html\"", line);
    let found = Server::fails(&config("aio = \"on\"\ndirectio = \"4m\"\ndirectio_alignment = \"4k\""));
    assert!(
        found.contains("http.server.aio: found \"on\", expected \"threads\" and nothing else: files that"),
        "{found}"
    );
    assert!(
        found.contains("http.server.directio: found \"4m\", expected \"off\" and nothing else: files are"),
        "{found}"
    );
    assert!(found.contains("http.server.directio_alignment: found \"4k\", expected \"512\""), "{found}");
    let found = Server::fails(&config("output_buffers = { size = 1 }"));
    assert!(found.contains("output_buffers.size: found a size of 1 bytes, expected 1k to 16m"), "{found}");
    let server = Server::with(
        &[("html/a", b"x")],
        &config(
            "root = \"html\"\naio = \"threads\"\ndirectio = \"off\"\ndirectio_alignment = \"512\"\nread_ahead = \"1m\"",
        ),
    );
    server.get("/a").expect(200);
}

#[test]
fn files_of_every_size_with_small_and_large_output_buffers() {
    sizes("sendfile = false\noutput_buffers = { number = 1, size = \"1k\" }");
    sizes("sendfile = false\noutput_buffers = { size = \"16m\" }\nread_ahead = 1");
}
