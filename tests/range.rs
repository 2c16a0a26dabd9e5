//! Parts of files: what a client gets that asks for them, beside the real nginx.

mod support;

use std::fs;

use support::nginx::Nginx;
use support::{Client, Folder, Response, Server, files};

/// Files, compressed if asked for; more can be added to the server.
fn site(more: &str) -> String {
    format!(
        "module = [{{ name = \"index\" }}, {{ name = \"static\" }}, {{ name = \"not_modified\" }}, {{ name = \"gzip\" }}, \
         {{ name = \"range\" }}, {{ name = \"limit_rate\" }}]\n\
         [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nroot = \"html\"\n{more}\n"
    )
}

/// What both servers must agree on: status, the fields that say what came, and the body with its boundary taken out.
fn essence(response: &Response) -> String {
    let names = ["Content-Type", "Content-Range", "Content-Length", "Accept-Ranges", "Last-Modified"];
    let tag = response.field("ETag").map(|tag| tag.replace("W/", "")).unwrap_or_default();
    let mut text = format!("{} ETag={}", response.status, !tag.is_empty());
    let boundary = response.field("Content-Type").and_then(|value| value.split_once("boundary="));
    let boundary = boundary.map_or("no boundary", |(_, boundary)| boundary).to_owned();
    assert!(boundary == "no boundary" || boundary.len() == 20, "{response:?}");
    // Error pages have the server's name in them.
    let is_page = response.status >= 400;
    for name in names.iter().filter(|name| !is_page || **name == "Content-Range") {
        text.push_str(&format!("\n{name}: {}", response.field(name).unwrap_or("-").replace(&boundary, "B")));
    }
    if !is_page {
        let body = String::from_utf8_lossy(&response.body).replace(&boundary, "B");
        text.push_str(&format!("\n\n{body}"));
    }
    text
}

#[test]
fn as_nginx_answers() {
    let text = files::text(100_000);
    let folder = Folder::with(&[("html/a.txt", &text), ("html/empty.txt", b""), ("html/short.html", b"0123456789")]);
    let root = folder.path("html");
    let off = "[[http.server.location]]\npath = \"/off/\"\nrange.max_ranges = 0\n\
               [[http.server.location]]\npath = \"/two/\"\nrange.max_ranges = 2\n";
    for name in ["off/a.txt", "two/a.txt"] {
        folder.write(&format!("html/{name}"), &text[..1000]);
    }
    let Some(nginx) = Nginx::serving(&root, "location /off/ { max_ranges 0; } location /two/ { max_ranges 2; }") else {
        return;
    };
    let server = Server::start_in(folder, &site(off));
    let modified = nginx.request("GET", "/a.txt", "").field("Last-Modified").unwrap().to_owned();
    let tag = nginx.request("GET", "/a.txt", "").field("ETag").unwrap().to_owned();
    let many = (0..500).map(|i| format!("{}-{}", i * 3, i * 3 + 1)).collect::<Vec<_>>().join(",");
    let same = |method: &str, path: &str, fields: &str| {
        let (ours, theirs) = (server.request(method, path, fields), nginx.request(method, path, fields));
        assert_eq!(essence(&ours), essence(&theirs), "{method} {path} {fields}\nours {ours:?}\nnginx {theirs:?}");
    };
    for range in [
        "bytes=0-",
        "bytes=0-0",
        "bytes=-1",
        "bytes=99999-",
        "bytes=100000-",
        "bytes=0-99999",
        "bytes=0-100000",
        "bytes=5-4",
        "bytes=-0",
        "bytes=-100000",
        "bytes=-100001",
        "bytes=-",
        "bytes=",
        "bytes",
        "bytes=x",
        "bytes=1",
        "bytes=1-x",
        "bytes= 1 - 5 ",
        "BYTES=1-5",
        "bytes=1-5,",
        "bytes=,1-5",
        "bytes=1-5,,7-8",
        "bytes=0-0,-1",
        "bytes=5-6,1-2",
        "bytes=0-9,5-14",
        "bytes=0-99998,0-0",
        "bytes=0-99998,0-1",
        "bytes=0-0,200000-",
        "bytes=200000-,300000-",
        "bytes=1-2 , 4-5",
        "bytes=1-2\t,4-5",
        "bytes=- 5",
        "bytes=9223372036854775807-",
        "bytes=0-9223372036854775807",
        "bytes=9223372036854775808-",
        "bytes=0-9223372036854775808",
        "bytes=-9223372036854775808",
        "lines=1-2",
        "0-1",
        "bytes=20000-59999,70000-99999",
        "bytes=70000-99999,20000-59999",
        "bytes=0-0,1-1,2-2,x",
        &format!("bytes={many}"),
    ] {
        for path in ["/a.txt", "/empty.txt", "/short.html", "/off/a.txt", "/two/a.txt"] {
            same("GET", path, &format!("Range: {range}\r\n"));
        }
        same("HEAD", "/a.txt", &format!("Range: {range}\r\n"));
    }
    for if_range in [
        tag.as_str(),
        "\"x\"",
        "",
        "\"",
        "x",
        &modified,
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "yesterday",
        &tag.replace('"', ""),
    ] {
        same("GET", "/a.txt", &format!("Range: bytes=1-2\r\nIf-Range: {if_range}\r\n"));
    }
    // What is not modified is not sent, neither whole nor in part (RFC 9110, section 13.2.2).
    for condition in
        [format!("If-None-Match: {tag}"), format!("If-Modified-Since: {modified}"), "If-Match: \"x\"".into()]
    {
        same("GET", "/a.txt", &format!("Range: bytes=1-2\r\n{condition}\r\n"));
        same("GET", "/a.txt", &format!("Range: bytes=1-2\r\nIf-Range: {tag}\r\n{condition}\r\n"));
    }
    same("GET", "/a.txt", "If-Range: x\r\n");
    same("GET", "/none.txt", "Range: bytes=1-2\r\n");
}

#[test]
fn a_weak_tag_in_if_range_gets_the_whole() {
    let server = Server::with(&[("html/a.txt", b"0123456789")], &site(""));
    let tag = server.get("/a.txt").field("ETag").unwrap().to_owned();
    let with = |tag: &str| server.get_with("/a.txt", &format!("Range: bytes=1-2\r\nIf-Range: {tag}\r\n"));
    assert_eq!(with(&tag).expect(206).text(), "12");
    assert_eq!(with(&format!("W/{tag}")).expect(200).text(), "0123456789");
}

#[test]
fn several_ranges_of_a_large_file_come_out_whole() {
    let noise = files::noise(5_000_000);
    for sendfile in [true, false] {
        let config = site(&format!("sendfile = {sendfile}"));
        let server = Server::with(&[("html/a.bin", &noise)], &config);
        let (one, two) = (2_000_000..4_500_000, 100_000..1_100_001);
        let asked = format!("Range: bytes={}-{},{}-{}\r\n", one.start, one.end - 1, two.start, two.end - 1);
        let response = server.get_with("/a.bin", &asked).expect(206);
        let find = |part: &[u8]| response.body.windows(part.len()).position(|window| window == part).is_some();
        // The whole parts, found by their ends, since looking for all of them takes long.
        let at = |range: &std::ops::Range<usize>| {
            let start = &noise[range.start..range.start + 32];
            let at = response.body.windows(32).position(|window| window == start).unwrap();
            assert!(response.body[at..at + range.len()] == noise[range.clone()], "sendfile = {sendfile}");
            at
        };
        assert!(at(&one) < at(&two) && find(b"Content-Range: bytes 100000-1100000/5000000\r\n\r\n"));
    }
}

#[test]
fn a_range_of_a_large_file_takes_no_memory_while_a_client_reads_slowly() {
    let folder = Folder::new();
    folder.write("html/a.bin", b"");
    fs::File::options().write(true).open(folder.path("html/a.bin")).unwrap().set_len(1 << 30).unwrap();
    let server = Server::start_in(folder, &site(""));
    let before = server.memory_kb();
    let mut clients: Vec<Client> = (0..5).map(|_| Client::slow(server.address())).collect();
    for client in &mut clients {
        client.send("GET /a.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=500000000-,1-400000000\r\n\r\n");
        client.head().unwrap();
        client.take(100_000).unwrap();
    }
    let after = server.memory_kb();
    assert!(after < before + 4096, "{before} KiB before, {after} KiB after");
}

#[test]
fn what_is_compressed_has_no_ranges() {
    let text = files::text(10_000);
    let server = Server::with(&[("html/a.html", &text)], &site("gzip.enabled = true"));
    let response = server.get_with("/a.html", "Accept-Encoding: gzip\r\nRange: bytes=1-2\r\n").expect(200);
    assert_eq!((response.field("Content-Encoding"), response.field("Accept-Ranges")), (Some("gzip"), None));
    let response = server.get_with("/a.html", "Range: bytes=1-2\r\n").expect(206);
    assert_eq!((response.field("Content-Encoding"), &response.body[..]), (None, &text[1..3]));
}

#[test]
fn a_range_on_a_kept_connection_leaves_it_in_step() {
    let server = Server::with(&[("html/a.txt", b"0123456789")], &site("limit_rate.rate = 100000"));
    let mut client = server.connect();
    for (range, status, body) in
        [("1-2", 206, "12"), ("20-", 416, ""), ("-1", 206, "9"), ("0-,0-", 200, "0123456789"), ("8-20", 206, "89")]
    {
        client.send(format!("GET /a.txt HTTP/1.1\r\nHost: a\r\nRange: bytes={range}\r\n\r\n"));
        let response = client.response().expect(status);
        assert!(status == 416 || response.text() == body, "{range}: {response:?}");
    }
}

#[test]
fn a_range_filter_in_front_of_gzip_is_refused() {
    let config = site("")
        .replace("{ name = \"gzip\" }, {", "{")
        .replace("{ name = \"range\" }", "{ name = \"range\" }, { name = \"gzip\" }");
    let errors = Server::fails(&config);
    assert!(errors.contains("range says after = [\"gzip\"]"), "{errors}");
}
