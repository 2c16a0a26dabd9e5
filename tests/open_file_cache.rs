//! `open_file_cache`: files stay open, and what is known of paths is believed, for a while.
//!
//! What is open is counted in /proc/PID/fd. Nothing here sleeps to be right: where time must pass, the test waits for what
//! time brings.

mod support;

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use support::{Client, Folder, Server, eventually, files};

/// A site with these lines in its server.
fn site(lines: &str) -> String {
    format!(
        "worker_threads = 1\nmodule = [{{ name = \"index\" }}, {{ name = \"static\" }}]\n\
         [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nroot = \"html\"\n{lines}\n"
    )
}

const LONG: &str = "open_file_cache = { max = 100 }";
/// What is found is believed for so short that the next request checks it.
const SHORT: &str = "open_file_cache = { max = 100 }\nopen_file_cache_valid = \"1ms\"";

/// The files that the server has open below its folder, by their names in it.
fn open_in(server: &Server) -> Vec<String> {
    let root = server.folder.path("html").canonicalize().unwrap();
    let fds = fs::read_dir(format!("/proc/{}/fd", server.worker())).unwrap();
    let links = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    let below = |path: std::path::PathBuf| Some(path.strip_prefix(&root).ok()?.to_str().unwrap().to_owned());
    let mut names: Vec<String> = links.filter_map(below).collect();
    names.sort();
    names
}

fn replace(server: &Server, name: &str, content: &[u8]) {
    server.folder.write("new", content);
    fs::rename(server.folder.path("new"), server.folder.path(name)).unwrap();
}

#[test]
fn a_file_stays_open_and_is_opened_once() {
    let server = Server::with(&[("html/a", b"one")], &site(LONG));
    for _ in 0..3 {
        assert_eq!(server.get("/a").expect(200).text(), "one");
        assert_eq!(open_in(&server), ["a"]);
    }
}

#[test]
fn without_it_nothing_stays_open() {
    for lines in ["", "open_file_cache = \"off\""] {
        let server = Server::with(&[("html/a", b"one")], &site(lines));
        assert_eq!(server.get("/a").expect(200).text(), "one");
        eventually("it is closed", || open_in(&server).is_empty());
    }
}

#[test]
fn a_file_that_is_replaced_is_served_as_it_was_while_it_is_believed() {
    let server = Server::with(&[("html/a", b"one")], &site(LONG));
    let first = server.get("/a").expect(200);
    replace(&server, "html/a", b"twoo");
    let second = server.get("/a").expect(200);
    assert_eq!((second.text(), second.field("ETag")), ("one", first.field("ETag")));
    fs::remove_file(server.folder.path("html/a")).unwrap();
    assert_eq!(server.get("/a").expect(200).text(), "one");
    server.get("/b").expect(404);
}

#[test]
fn a_file_that_is_replaced_is_served_anew_when_it_is_checked() {
    let server = Server::with(&[("html/a", b"one")], &site(SHORT));
    server.get("/a").expect(200);
    replace(&server, "html/a", b"twoo");
    eventually("it is checked", || server.get("/a").expect(200).text() == "twoo");
    assert_eq!(open_in(&server), ["a"], "the old one is closed");
    fs::remove_file(server.folder.path("html/a")).unwrap();
    eventually("it is checked", || server.get("/a").status == 404);
    assert!(open_in(&server).is_empty());
    server.folder.write("html/a", b"back");
    assert_eq!(server.get("/a").expect(200).text(), "back");
}

#[test]
fn a_file_that_is_changed_in_place_has_new_fields_when_it_is_checked() {
    let server = Server::with(&[("html/a", b"one")], &site(SHORT));
    let first = server.get("/a").expect(200);
    server.folder.write("html/a", b"three");
    eventually("it is checked", || {
        let response = server.get("/a").expect(200);
        response.text() == "three" && response.field("ETag") != first.field("ETag")
    });
}

#[test]
fn a_file_that_grows_in_place_is_served_up_to_the_size_that_is_believed() {
    let server = Server::with(&[("html/a", b"one")], &site(LONG));
    server.get("/a").expect(200);
    File::options().append(true).open(server.folder.path("html/a")).unwrap().write_all(b" and more").unwrap();
    let mut client = server.connect();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().expect(200).text(), "one");
    assert_eq!(client.response().expect(200).text(), "one");
}

#[test]
fn a_file_that_shrinks_in_place_resets_the_connection_while_its_old_size_is_believed() {
    let noise = files::noise(100_000);
    for (size, sendfile) in [(1000, true), (1000, false), (100_000, true), (100_000, false)] {
        let server = Server::with(&[("html/a", &noise[..size])], &site(&format!("{LONG}\nsendfile = {sendfile}")));
        server.get("/a").expect(200);
        for left in [10, 0] {
            File::options().write(true).open(server.folder.path("html/a")).unwrap().set_len(left).unwrap();
            let mut client = server.connect();
            client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
            let (text, ending) = client.rest_and_end();
            assert_eq!(ending, support::Ending::Reset, "{size}, sendfile = {sendfile}, {left} left: {text:?}");
        }
        server.stderr(|log| log.contains("html/a\": the file was truncated while it was sent"));
    }
}

#[test]
fn at_most_max_files_stay_open() {
    let folder = Folder::new();
    for number in 0..20 {
        folder.write(&format!("html/{number}"), format!("file {number}").as_bytes());
    }
    let server = Server::start_in(folder, &site("open_file_cache = { max = 5 }"));
    for round in 0..3 {
        for number in 0..20 {
            assert_eq!(server.get(&format!("/{number}")).text(), format!("file {number}"), "round {round}");
            assert!(open_in(&server).len() <= 5);
        }
    }
    assert_eq!(open_in(&server), ["15", "16", "17", "18", "19"]);
    // The one used last is the last to go.
    server.get("/15").expect(200);
    server.get("/0").expect(200);
    assert_eq!(open_in(&server), ["0", "15", "17", "18", "19"]);
}

#[test]
fn a_file_that_left_the_cache_is_sent_to_its_end() {
    let noise = files::noise(5 << 20);
    let server = Server::with(&[("html/large", &noise), ("html/a", b"x")], &site("open_file_cache = { max = 1 }"));
    let mut client = Client::slow(server.address());
    client.send("GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.head().unwrap();
    server.get("/a").expect(200);
    assert_eq!(open_in(&server), ["a", "large"]);
    assert!(client.take(5 << 20).unwrap() == noise);
    assert_eq!(client.end(), support::Ending::Closed);
    eventually("it is closed", || open_in(&server) == ["a"]);
}

#[test]
fn an_inactive_file_is_closed_though_no_request_comes() {
    let server = Server::with(
        &[("html/a", b"one"), ("html/b", b"two")],
        &site("open_file_cache = { max = 100, inactive = \"50ms\" }"),
    );
    server.get("/a").expect(200);
    server.get("/b").expect(200);
    eventually("they are closed", || open_in(&server).is_empty());
    assert_eq!(server.get("/a").expect(200).text(), "one");
}

#[test]
fn min_uses_says_from_which_use_on_a_file_stays_open() {
    let server = Server::with(&[("html/a", b"one")], &site(&format!("{LONG}\nopen_file_cache_min_uses = 3")));
    for _ in 0..2 {
        server.get("/a").expect(200);
        eventually("it is closed", || open_in(&server).is_empty());
    }
    server.get("/a").expect(200);
    assert_eq!(open_in(&server), ["a"]);
}

#[test]
fn errors_are_kept_only_if_asked_for() {
    let server = Server::with(&[("html/a", b"x")], &site(LONG));
    server.get("/b").expect(404);
    server.folder.write("html/b", b"now");
    server.get("/b").expect(200);

    let server = Server::with(&[("html/a", b"x")], &site(&format!("{LONG}\nopen_file_cache_errors = true")));
    for path in ["/b", "/a/b"] {
        server.get(path).expect(404);
    }
    server.folder.write("html/b", b"now");
    server.get("/b").expect(404);
    server.stderr(|log| {
        log.contains("html/b\" failed (2: No such file or directory)")
            && log.contains("html/a/b\" failed (20: Not a directory)")
    });

    let lines = format!("{SHORT}\nopen_file_cache_errors = true");
    let server = Server::with(&[("html/a", b"x")], &site(&lines));
    server.get("/b").expect(404);
    server.folder.write("html/b", b"now");
    eventually("it is checked", || server.get("/b").status == 200);
}

#[test]
fn folders_are_known_without_being_open() {
    let server = Server::with(&[("html/dir/index.html", b"index")], &site(LONG));
    for _ in 0..3 {
        server.get("/dir").expect(301);
        assert_eq!(server.get("/dir/").expect(200).text(), "index");
    }
    assert_eq!(open_in(&server), ["dir/index.html"]);
}

#[test]
fn a_folder_that_becomes_a_file_and_back() {
    let server = Server::with(&[("html/a/x", b"x")], &site(SHORT));
    server.get("/a").expect(301);
    fs::remove_dir_all(server.folder.path("html/a")).unwrap();
    server.folder.write("html/a", b"file");
    eventually("it is checked", || server.get("/a").status == 200);
    fs::remove_file(server.folder.path("html/a")).unwrap();
    fs::create_dir(server.folder.path("html/a")).unwrap();
    eventually("it is checked", || server.get("/a").status == 301);
    assert!(open_in(&server).is_empty());
}

#[test]
fn a_file_that_becomes_forbidden_is_forbidden_when_it_is_checked() {
    let (folder, user) = Folder::for_workers();
    folder.write("html/a", b"x");
    let server = Server::start_in(folder, &format!("{user}{}", site(SHORT)));
    server.get("/a").expect(200);
    fs::set_permissions(server.folder.path("html/a"), fs::Permissions::from_mode(0o0)).unwrap();
    eventually("it is checked", || server.get("/a").status == 403);
}

#[test]
fn each_place_that_writes_it_has_a_cache_of_its_own() {
    let location = |path: &str, lines: &str| format!("[[http.server.location]]\npath = \"{path}\"\n{lines}\n");
    let config = site("open_file_cache = { max = 1 }")
        + &location("/one/", "")
        + &location("/two/", "open_file_cache = { max = 1 }")
        + &location("/off/", "open_file_cache = \"off\"");
    let files: &[(&str, &[u8])] = &[("html/a", b"x"), ("html/one/a", b"x"), ("html/two/a", b"x"), ("html/off/a", b"x")];
    let server = Server::with(files, &config);
    for path in ["/a", "/two/a", "/off/a", "/one/a"] {
        server.get(path).expect(200);
    }
    eventually("what is not kept is closed", || open_in(&server) == ["one/a", "two/a"]);
}

#[test]
fn many_clients_share_one_descriptor() {
    let noise = files::noise(1 << 20);
    let server = Server::with(&[("html/a", &noise)], &site(LONG));
    let mut clients: Vec<Client> = (0..20).map(|_| Client::slow(server.address())).collect();
    for client in &mut clients {
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        client.head().unwrap();
    }
    assert_eq!(open_in(&server), ["a"]);
    for client in &mut clients {
        assert!(client.take(1 << 20).unwrap() == noise);
    }
}

#[test]
fn a_file_system_where_opening_waits() {
    // tmpfs refuses RWF_NOWAIT on many kernels, so that its files are read by the thread pool.
    let Some(folder) = Folder::below(Path::new("/dev/shm")) else {
        return support::skip("there is no tmpfs at /dev/shm");
    };
    let noise = files::noise(1 << 20);
    folder.write("html/a", &noise);
    let server = Server::start_in(folder, &site(LONG));
    for _ in 0..5 {
        assert!(server.get("/a").expect(200).body == noise);
    }
    assert_eq!(open_in(&server), ["a"]);
}

#[test]
fn wrong_values_are_refused_with_what_is_valid() {
    let error = |line: &str| Server::fails(&site(line).replace("root = \"html\"\n", ""));
    let found = error("open_file_cache = { inactive = \"1s\" }");
    assert!(found.contains("open_file_cache.max: missing, but required: an integer from 1 to 1048576"), "{found}");
    let found = error("open_file_cache = { max = 0 }");
    assert!(found.contains("open_file_cache.max: found 0, expected an integer from 1 to 1048576"), "{found}");
    let found = error("open_file_cache_min_uses = 0");
    assert!(found.contains("found 0, expected an integer from 1"), "{found}");
}
