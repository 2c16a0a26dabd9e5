//! Listings of folders: what a client gets, beside the real nginx.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Instant;

use support::nginx::Nginx;
use support::{Client, Folder, Server};

/// Folders of html, listed; more can be added to the server.
fn site(more: &str) -> String {
    format!(
        "module = [{{ name = \"index\" }}, {{ name = \"autoindex\" }}, {{ name = \"static\" }}, {{ name = \"gzip\" }}]\n\
         [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nroot = \"html\"\nautoindex.enabled = true\n{more}\n"
    )
}

/// Entries with names of all kinds, in html/NAME/.
fn entries(folder: &Folder, below: &str) {
    let path = folder.path("html").join(below);
    let touch = |name: &[u8], size: u64| {
        let file = fs::File::create(path.join(OsStr::from_bytes(name))).unwrap();
        file.set_len(size).unwrap();
    };
    fs::create_dir_all(path.join("sub")).unwrap();
    for name in ["Folder \u{e9}", &"d".repeat(49), &"d".repeat(50), &"d".repeat(51), &"\u{e9}".repeat(49), ".hidden"] {
        fs::create_dir(path.join(name)).unwrap();
    }
    let sizes = [0, 1, 9999, 10_000, 10_751, 10_752, 1 << 20, 1_572_864, (1 << 30) - 1, 5 << 30];
    for size in sizes {
        touch(format!("size{size}").as_bytes(), size);
    }
    for name in [
        &b"a.txt"[..],
        b"b&<>\".txt",
        b"c'd%e f#?+.txt",
        b"a:b",
        b"back\\slash",
        b"~",
        b".hidden.txt",
        b"...",
        b"Z",
        b"z",
    ] {
        touch(name, 5);
    }
    for name in ["\u{e9}".repeat(50), "\u{e9}".repeat(60), "n".repeat(50), "n".repeat(51), "\u{65e5}\u{672c}".into()] {
        touch(name.as_bytes(), 7);
    }
    symlink("sub", path.join("link")).unwrap();
    symlink("a.txt", path.join("link.txt")).unwrap();
    symlink("nowhere", path.join("broken")).unwrap();
    symlink("loop", path.join("loop")).unwrap();
}

#[test]
fn as_nginx_lists() {
    let folder = Folder::new();
    entries(&folder, "html");
    for name in ["json", "jsonp", "xml", "rounded", "local"] {
        symlink("html", folder.path("html").join(name)).unwrap();
    }
    folder.write("html/with/index.html", b"an index");
    fs::create_dir(folder.path("html/empty")).unwrap();
    let directives = r#"
        autoindex on; charset utf-8;
        location /json/ { autoindex_format json; } location /jsonp/ { autoindex_format jsonp; }
        location /xml/ { autoindex_format xml; } location /rounded/ { autoindex_exact_size off; }
        location /local/ { autoindex_localtime on; } location /off/ { autoindex off; }
    "#;
    fs::create_dir(folder.path("html/off")).unwrap();
    let Some(nginx) = Nginx::serving(&folder.path("html"), directives) else { return };
    let location =
        |path: &str, keys: &str| format!("[[http.server.location]]\npath = \"/{path}/\"\nautoindex = {{ {keys} }}\n");
    let server = Server::start_in(
        folder,
        &site(
            &[
                location("json", "format = \"json\""),
                location("jsonp", "format = \"jsonp\""),
                location("xml", "format = \"xml\""),
                location("rounded", "exact_size = false"),
                location("local", "localtime = true"),
                location("off", "enabled = false"),
            ]
            .concat(),
        ),
    );
    let same = |method: &str, path: &str| {
        let (ours, theirs) = (server.request(method, path, ""), nginx.request(method, path, ""));
        assert_eq!(ours.status, theirs.status, "{method} {path}");
        if ours.status < 300 {
            assert_eq!(ours.text(), theirs.text(), "{method} {path}");
            // nginx has a charset where the directive gives one to the media type.
            let media = |text: Option<&str>| text.map(|text| text.split(';').next().unwrap_or_default().to_owned());
            assert_eq!(media(ours.field("Content-Type")), media(theirs.field("Content-Type")), "{method} {path}");
        }
    };
    for path in [
        "/html/",
        "/json/",
        "/jsonp/",
        "/jsonp/?callback=a.b_1",
        "/jsonp/?callback=",
        "/jsonp/?x=1&CALLBACK=y&callback=z",
        "/jsonp/?callback=a-b",
        "/jsonp/?callback=a%2eb",
        "/xml/",
        "/rounded/",
        "/local/",
        "/empty/",
        "/with/",
        "/none/",
        "/html/a.txt/",
        "/off/",
        "/",
    ] {
        same("GET", path);
        same("HEAD", path);
    }
}

#[test]
fn names_that_are_not_utf_8() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path("html/a")).unwrap();
    fs::write(folder.path("html/a").join(OsStr::from_bytes(b"x\xff\n\x01y")), "content").unwrap();
    let more = "[[http.server.location]]\npath = \"/a/\"\nautoindex.format = \"json\"\n";
    let server = Server::start_in(folder, &site(more));
    let json = server.get("/a/").expect(200);
    assert!(json.text().contains("\"name\":\"x\u{fffd}\\n\\u0001y\", \"type\":\"file\""), "{json:?}");
    // The link is exact.
    assert_eq!(server.get("/a/x%FF%0A%01y").expect(200).text(), "content");
}

#[test]
fn a_listing_is_compressed_like_any_page() {
    let folder = Folder::new();
    entries(&folder, "a");
    let server = Server::start_in(folder, &site("gzip.enabled = true"));
    let response = server.get_with("/a/", "Accept-Encoding: gzip\r\n").expect(200);
    assert_eq!(response.field("Content-Encoding"), Some("gzip"), "{response:?}");
}

#[test]
fn a_folder_that_may_not_be_read_is_forbidden() {
    let folder = Folder::new();
    for name in ["closed", "names"] {
        folder.write(&format!("html/{name}/a.txt"), b"");
    }
    let set = |name: &str, mode| fs::set_permissions(folder.path(name), fs::Permissions::from_mode(mode)).unwrap();
    set("html/closed", 0o100);
    set("html/names", 0o400);
    let is_root = rustix::process::geteuid().is_root();
    let path = folder.path("html");
    let server = Server::start_in(folder, &site(""));
    let (closed, names) = (server.get("/closed/"), server.get("/names/"));
    if is_root {
        // Nothing is closed to root.
        assert_eq!((closed.status, names.status), (200, 200));
    } else {
        assert_eq!(closed.status, 403, "{closed:?}");
        // An index file might be in it, but nobody can see.
        assert_eq!(names.status, 403, "{names:?}");
    }
    for name in ["closed", "names"] {
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn a_large_folder_takes_little_memory_while_a_client_reads_slowly() {
    const COUNT: usize = 30_000;
    let folder = Folder::new();
    fs::create_dir_all(folder.path("html/a")).unwrap();
    for i in 0..COUNT {
        fs::File::create(folder.path("html/a").join(format!("a_name_of_the_usual_length_{i:06}.txt"))).unwrap();
    }
    let server = Server::start_in(folder, &site(""));
    let whole = server.get("/a/").expect(200);
    assert_eq!(whole.text().matches("<a href=").count(), COUNT + 1);
    let before = server.memory_kb();
    let mut clients: Vec<Client> = (0..4).map(|_| Client::slow(server.address())).collect();
    for client in &mut clients {
        client.send("GET /a/ HTTP/1.1\r\nHost: a\r\n\r\n");
        client.head().unwrap();
        client.take(10_000).unwrap();
    }
    let after = server.memory_kb();
    // Each has its entries, of 80 bytes and a name, and a piece or two; all text of them would be 16 megabytes.
    assert!(after < before + 20_000, "{before} KiB before, {after} KiB after; {} bytes of text", whole.body.len());
    drop(clients);
    assert_eq!(server.get("/a/").expect(200).body, whole.body);
}

#[test]
fn clients_that_leave_while_a_folder_is_read_do_no_harm() {
    let folder = Folder::new();
    entries(&folder, "a");
    let server = Server::start_in(folder, &site(""));
    for i in 0..50 {
        let mut client = server.connect();
        client.send("GET /a/ HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3));
        if i % 2 == 0 { client.reset() } else { drop(client) }
    }
    assert_eq!(server.get("/a/").expect(200).text().matches("<a href=").count(), 34);
}

#[test]
fn links_are_not_followed_where_they_are_forbidden() {
    let folder = Folder::with(&[("html/a/file", b"12345"), ("elsewhere/secret", b"secret")]);
    symlink("../elsewhere", folder.path("html/out")).unwrap();
    symlink("../../elsewhere", folder.path("html/a/out")).unwrap();
    symlink("file", folder.path("html/a/link")).unwrap();
    let of = |mode: &str| {
        format!(
            "[[http.server.location]]\npath = \"/{mode}/\"\nalias = \"html/\"\nautoindex.format = \"json\"\n\
             disable_symlinks = {{ mode = \"{mode}\", from = \"$document_root\" }}\n"
        )
    };
    // Without the module index, which would open the folder before.
    let config = site(&format!("{}{}", of("off"), of("on"))).replace("{ name = \"index\" }, ", "");
    let server = Server::start_in(folder, &config);
    assert!(server.get("/off/out/").expect(200).text().contains("secret"));
    assert!(!server.get("/on/out/").expect(403).text().contains("secret"));
    server.stderr(|log| log.contains("html/out/\" failed (40: Too many levels of symbolic links)"));
    let kinds = |path: &str| {
        let listing = server.get(path).expect(200).text().to_owned();
        ["file", "link", "out"].map(|name| {
            let rest = listing.split_once(&format!("\"name\":\"{name}\", \"type\":\"")).expect("listed").1;
            rest.split('"').next().unwrap().to_owned()
        })
    };
    assert_eq!(kinds("/off/a/"), ["file", "file", "directory"]);
    assert_eq!(kinds("/on/a/"), ["file", "other", "other"]);
}

#[test]
fn listings_that_nobody_waits_for_are_not_made() {
    let folder = Folder::with(&[("html/small/a", b"")]);
    fs::create_dir(folder.path("html/many")).unwrap();
    for number in 0..15_000 {
        fs::File::create(folder.path("html/many").join(number.to_string())).unwrap();
    }
    let server = Server::start_in(folder, &format!("worker_threads = 1\n{}", site("access_log = \"off\"")));
    server.get("/many/").expect(200);
    let started = Instant::now();
    server.get("/many/").expect(200);
    let one = started.elapsed();
    for _ in 0..150 {
        let mut client = server.connect();
        client.send("GET /many/ HTTP/1.1\r\nHost: a\r\n\r\n");
        client.reset();
    }
    let started = Instant::now();
    assert!(server.get("/small/").expect(200).text().contains(">a</a>"));
    let waited = started.elapsed();
    assert!(waited < 25 * one, "{waited:?}, where one takes {one:?}");
}
