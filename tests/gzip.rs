//! Compressed responses: what a client gets, byte by byte, and what it must not get.

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::Instant;

use flate2::read::GzDecoder;
use support::nginx::Nginx;
use support::{Client, Ending, Folder, PATIENCE, Response, Server, files};

const ACCEPT: &str = "Accept-Encoding: gzip\r\n";

/// Files, compressed whatever their type is; more keys of gzip can be added.
fn site(keys: &str) -> String {
    format!(
        "module = [{{ name = \"return\" }}, {{ name = \"static\" }}, {{ name = \"not_modified\" }}, {{ name = \"gzip\" }}]\n\
         [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nroot = \"html\"\n\
         gzip = {{ enabled = true, {keys} }}\n"
    )
}

/// The text in a response, which must be one whole stream of gzip.
fn decoded(response: &Response) -> Vec<u8> {
    assert_eq!(response.field("Content-Encoding"), Some("gzip"), "{response:?}");
    assert_eq!(response.field("Content-Length"), None, "{response:?}");
    let mut out = Vec::new();
    let mut decoder = GzDecoder::new(&response.body[..]);
    decoder.read_to_end(&mut out).unwrap_or_else(|error| panic!("{error}: {response:?}"));
    assert_eq!(decoder.into_inner().len(), 0, "bytes behind the stream");
    out
}

fn is_plain(response: &Response) -> bool {
    assert!(response.field("Content-Length").is_some() || response.status == 304, "{response:?}");
    response.field("Content-Encoding").is_none()
}

#[test]
fn files_of_every_size_and_level() {
    let text = files::text(300_000);
    for level in [1, 5, 9] {
        let sizes = [20, 21, 1000, 4095, 4096, 4097, 32_767, 32_768, 32_769, 300_000];
        let folder = Folder::new();
        for size in sizes {
            folder.write(&format!("html/{size}.html"), &text[..size]);
        }
        let server = Server::start_in(folder, &site(&format!("comp_level = {level}")));
        let mut client = server.connect();
        for size in sizes {
            client.send(format!("GET /{size}.html HTTP/1.1\r\nHost: a\r\n{ACCEPT}\r\n"));
            let response = client.response().expect(200);
            assert!(decoded(&response) == text[..size], "{size}: {response:?}");
            assert!(size < 1000 || response.body.len() < size / 2, "{size}: {} bytes", response.body.len());
            assert!(response.chunks.is_some(), "{response:?}");
        }
    }
}

#[test]
fn a_higher_level_is_smaller() {
    let text = files::text(200_000);
    let size = |level: u32| {
        let server = Server::with(&[("html/a.html", &text)], &site(&format!("comp_level = {level}")));
        server.get_with("/a.html", ACCEPT).body.len()
    };
    let (fast, small) = (size(1), size(9));
    assert!(small < fast, "level 9: {small}, level 1: {fast}");
}

#[test]
fn what_cannot_be_compressed_comes_out_whole() {
    let noise = files::noise(500_000);
    let server = Server::with(&[("html/a.html", &noise)], &site(""));
    let response = server.get_with("/a.html", ACCEPT).expect(200);
    assert!(decoded(&response) == noise, "{response:?}");
}

#[test]
fn only_the_types_that_are_listed() {
    let text = files::text(1000);
    let names = ["a.html", "a.css", "a.json", "a.txt", "a.png"];
    let served = |keys: &str| {
        let folder = Folder::new();
        names.iter().for_each(|name| drop(folder.write(&format!("html/{name}"), &text)));
        let server = Server::start_in(folder, &site(keys));
        let compressed = |name: &&&str| !is_plain_or_gzip(&server.get_with(&format!("/{name}"), ACCEPT), &text);
        names.iter().filter(compressed).copied().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(served(""), "a.html");
    assert_eq!(served("types = [\"text/css\", \"application/json\"]"), "a.html a.css a.json");
    assert_eq!(served("types = [\"*\"]"), "a.html a.css a.json a.txt a.png");
}

/// Whether a response is plain; either way it is this text.
fn is_plain_or_gzip(response: &Response, text: &[u8]) -> bool {
    let plain = response.field("Content-Encoding").is_none();
    assert!(if plain { response.body == text } else { decoded(response) == text }, "{response:?}");
    plain
}

#[test]
fn as_nginx_answers() {
    let text = files::text(5000);
    let folder = Folder::new();
    for name in ["a.html", "a.css", "a.txt", "a.png", "a.json", "via/a.html", "all/a.png", "old/a.html", "off/a.html"] {
        folder.write(&format!("html/{name}"), &text);
    }
    folder.write("html/19.html", &text[..19]);
    folder.write("html/20.html", &text[..20]);
    folder.write("html/empty.html", b"");
    let directives = r#"
        gzip on; gzip_vary on; gzip_types text/css application/json; gzip_disable msie6 "^curl/" bot;
        location /via/ { gzip_proxied no_etag auth; }
        location /all/ { gzip_types *; gzip_min_length 0; gzip_comp_level 9; }
        location /old/ { gzip_http_version 1.0; gzip_vary off; }
        location /off/ { gzip off; }
        location /busy { return 503; }
    "#;
    let Some(nginx) = Nginx::serving(&folder.path("html"), directives) else { return };
    let config =
        site("vary = true, types = [\"text/css\", \"application/json\"], disable = [\"msie6\", \"^curl/\", \"bot\"]")
            .replace("{ name = \"gzip\" }]", "{ name = \"gzip\" }, { name = \"range\" }]")
            + r#"
        [[http.server.location]]
        path = "/via/"
        gzip.proxied = ["no_etag", "auth"]
        [[http.server.location]]
        path = "/all/"
        gzip = { types = ["*"], min_length = 0, comp_level = 9 }
        [[http.server.location]]
        path = "/old/"
        gzip = { http_version = "1.0", vary = false }
        [[http.server.location]]
        path = "/off/"
        gzip.enabled = false
        [[http.server.location]]
        path = "/busy"
        return.code = 503
        "#;
    let server = Server::start_in(folder, &config);
    let essence = |response: &Response| {
        let names = ["Content-Encoding", "Vary", "Accept-Ranges", "Content-Range", "Transfer-Encoding"];
        let fields: Vec<_> = names.iter().map(|name| (*name, response.field(name).map(str::to_owned))).collect();
        let weak = response.field("ETag").map(|tag| tag.starts_with("W/"));
        let is_gzip = response.field("Content-Encoding").is_some();
        // Error pages have the server's name in them, and so another length.
        let length = response.field("Content-Length").filter(|_| response.status < 400).map(str::to_owned);
        let body = match response.body.is_empty() || response.status >= 400 {
            true => Vec::new(),
            false if is_gzip => decoded(response),
            false => response.body.clone(),
        };
        (response.status, fields, weak, length, body)
    };
    let same = |method: &str, path: &str, fields: &str| {
        let (ours, theirs) = (server.request(method, path, fields), nginx.request(method, path, fields));
        assert!(essence(&ours) == essence(&theirs), "{method} {path} {fields}\nours {ours:?}\nnginx {theirs:?}");
    };
    let paths = [
        "/a.html",
        "/a.css",
        "/a.txt",
        "/a.png",
        "/a.json",
        "/19.html",
        "/20.html",
        "/empty.html",
        "/none",
        "/via/a.html",
        "/all/a.png",
        "/old/a.html",
        "/off/a.html",
        "/busy",
        "/via/",
    ];
    for path in paths {
        for fields in ["", ACCEPT, "Accept-Encoding: br\r\n", "Accept-Encoding: gzip\r\nVia: 1.1 p\r\n"] {
            same("GET", path, fields);
            same("HEAD", path, fields);
        }
        same("GET", path, "Accept-Encoding: gzip\r\nVia: 1.1 p\r\nAuthorization: x\r\n");
        same("GET", path, "Accept-Encoding: gzip\r\nRange: bytes=1-2\r\n");
        same("GET", path, "Range: bytes=1-2\r\n");
    }
    let accepts = [
        "gzip",
        "GZIP",
        "gzip,deflate",
        "deflate, gzip",
        "deflate,gzip;q=1.0",
        "gzip;q=0",
        "gzip;q=0.0",
        "gzip;q=0.001",
        "gzip;q=1.000",
        "gzip;q=0.000",
        "gzip; q=0.5",
        "gzipx",
        "xgzip",
        "deflate",
        "identity",
        "",
        "gzip;q=0, br",
        "br;q=0, gzip",
    ];
    for accept in accepts {
        same("GET", "/a.html", &format!("Accept-Encoding: {accept}\r\n"));
    }
    let agents = [
        "curl/7.88",
        "libcurl/7",
        "Googlebot/2.1",
        "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)",
        "MSIE 6.0; SV1)",
        "MSIE 5.01; x",
        "MSIE 7.0; x",
        "Mozilla/5.0",
        "MSIE 6",
        "",
    ];
    for agent in agents {
        same("GET", "/a.html", &format!("{ACCEPT}User-Agent: {agent}\r\n"));
    }
}

#[test]
fn level_1_makes_no_more_of_a_page_than_nginx() {
    let page = page(30_000);
    let folder = Folder::with(&[("html/a.html", &page)]);
    let Some(nginx) = Nginx::serving(&folder.path("html"), "gzip on; gzip_comp_level 1;") else { return };
    let server = Server::start_in(folder, &site("comp_level = 1"));
    let (ours, theirs) = (server.get_with("/a.html", ACCEPT), nginx.request("GET", "/a.html", ACCEPT));
    assert!(decoded(&ours) == page && decoded(&theirs) == page);
    let (ours, theirs) = (ours.body.len(), theirs.body.len());
    assert!(ours * 10 <= theirs * 11, "{ours} bytes, nginx {theirs}");
}

/// Bytes of HTML, whose words are no more alike than those of a page are.
fn page(len: usize) -> Vec<u8> {
    let mut noise = files::noise(len).into_iter();
    let mut word = move || {
        let length = 2 + usize::from(noise.next().unwrap() % 9);
        let letters = (0..length).map(|_| b"etaoinshrdlucmfw"[usize::from(noise.next().unwrap() % 16)]);
        String::from_utf8(letters.collect()).unwrap()
    };
    let words: Vec<String> = (0..300).map(|_| word()).collect();
    let mut choice = files::noise(2 * len).into_iter();
    let mut next = move || words[usize::from(choice.next().unwrap()) * 300 / 256].as_str().to_owned();
    let mut out = String::from("<!DOCTYPE html>\n<html><head><title>A page</title></head>\n<body>\n");
    while out.len() < len {
        let (class, link, text) = (next(), next(), (0..30).map(|_| next()).collect::<Vec<_>>().join(" "));
        out.push_str(&format!("<p class=\"{class}\"><a href=\"/{link}/{}.html\">{link}</a> {text}.</p>\n", next()));
    }
    out.truncate(len);
    out.into_bytes()
}

#[test]
fn min_length() {
    let server = Server::with(
        &[("html/19.html", &[b'a'; 19]), ("html/99.html", &[b'a'; 99]), ("html/100.html", &[b'a'; 100])],
        &(site("min_length = 100") + "[[http.server.location]]\npath = \"/19\"\ngzip.min_length = 0\n"),
    );
    assert!(is_plain(&server.get_with("/99.html", ACCEPT).expect(200)));
    assert_eq!(decoded(&server.get_with("/100.html", ACCEPT)), [b'a'; 100]);
    assert_eq!(decoded(&server.get_with("/19.html", ACCEPT)), [b'a'; 19]);
}

#[test]
fn only_for_clients_that_accept_it() {
    let text = files::text(1000);
    let server = Server::with(&[("html/a.html", &text)], &site("vary = true"));
    for (accept, gzip) in [
        ("", false),
        ("Accept-Encoding: gzip\r\n", true),
        ("Accept-Encoding: deflate, GZIP;q=0.5, br\r\n", true),
        ("Accept-Encoding: br\r\nAccept-Encoding: gzip\r\n", true),
        ("Accept-Encoding: *\r\n", true),
        ("Accept-Encoding: identity\r\n", false),
        ("Accept-Encoding: gzip;q=0\r\n", false),
        ("Accept-Encoding: gzip;q=0.000, *\r\n", false),
        ("Accept-Encoding: gzipx\r\n", false),
        ("Accept-Encoding: \r\n", false),
    ] {
        let response = server.get_with("/a.html", accept).expect(200);
        assert_eq!(!is_plain_or_gzip(&response, &text), gzip, "{accept:?}: {response:?}");
        assert_eq!(response.field("Vary"), Some("Accept-Encoding"), "{accept:?}: {response:?}");
    }
    let mut client = server.connect();
    client.send(format!("GET /a.html HTTP/1.0\r\n{ACCEPT}\r\n"));
    assert!(is_plain(&client.response()), "HTTP/1.0");
}

#[test]
fn http_version_1_0_ends_with_the_connection() {
    let text = files::text(100_000);
    let server = Server::with(&[("html/a.html", &text)], &site("http_version = \"1.0\""));
    let mut client = server.connect();
    client.send(format!("GET /a.html HTTP/1.0\r\nConnection: keep-alive\r\n{ACCEPT}\r\n"));
    let response = client.response();
    assert_eq!(response.field("Connection"), Some("close"), "{response:?}");
    assert!(response.chunks.is_none() && decoded(&response) == text, "{response:?}");
}

#[test]
fn head_and_304_have_no_body() {
    let text = files::text(1000);
    let server = Server::with(&[("html/a.html", &text)], &site("vary = true"));
    let get = server.get_with("/a.html", ACCEPT).expect(200);
    let tag = get.field("ETag").unwrap();
    assert!(tag.starts_with("W/\""), "{get:?}");
    let mut client = server.connect();
    client.send(format!(
        "HEAD /a.html HTTP/1.1\r\nHost: a\r\n{ACCEPT}\r\nGET /a.html HTTP/1.1\r\nHost: a\r\n{ACCEPT}If-None-Match: {tag}\r\n\r\n\
         GET /a.html HTTP/1.1\r\nHost: a\r\n{ACCEPT}\r\n"
    ));
    let head = client.response_to("HEAD").expect(200);
    assert_eq!((head.field("Content-Encoding"), head.field("Content-Length")), (Some("gzip"), None), "{head:?}");
    assert_eq!(head.field("Transfer-Encoding"), None, "{head:?}");
    assert_eq!(head.field("ETag"), Some(tag), "{head:?}");
    let same = client.response().expect(304);
    assert_eq!(same.field("Content-Encoding"), None, "{same:?}");
    assert_eq!(decoded(&client.response().expect(200)), text, "the connection is in step");
}

#[test]
fn errors_are_compressed_only_with_403_and_404() {
    let server = Server::with(
        &[("html/a/b", b"")],
        &(site("") + "[[http.server.location]]\npath = \"/busy\"\nreturn.code = 503\n"),
    );
    assert!(decoded(&server.get_with("/none", ACCEPT).expect(404)).starts_with(b"<!DOCTYPE html>"));
    assert!(decoded(&server.get_with("/a/", ACCEPT).expect(403)).starts_with(b"<!DOCTYPE html>"));
    assert!(is_plain(&server.get_with("/busy", ACCEPT).expect(503)));
    assert!(is_plain(&server.request("POST", "/a/b", ACCEPT).expect(405)));
}

#[test]
fn responses_through_a_proxy() {
    let text = files::text(1000);
    let server = Server::with(&[("html/a.html", &text)], &site(""));
    assert!(is_plain(&server.get_with("/a.html", &format!("{ACCEPT}Via: 1.1 proxy\r\n")).expect(200)));
    let server = Server::with(&[("html/a.html", &text)], &site("proxied = [\"any\"]"));
    assert_eq!(decoded(&server.get_with("/a.html", &format!("{ACCEPT}Via: 1.1 proxy\r\n"))), text);
}

/// Kibibytes that the process has in memory.
fn resident(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.worker())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_large_file_for_a_slow_client_takes_little_memory() {
    let noise = files::noise(12 << 20);
    let server = Server::with(&[("html/a.html", &noise), ("html/b.html", &noise[..100_000])], &site(""));
    server.get_with("/b.html", ACCEPT).expect(200);
    let before = resident(&server);
    let mut slow = Client::slow(server.address());
    slow.send(format!("GET /a.html HTTP/1.1\r\nHost: a\r\n{ACCEPT}\r\n"));
    slow.head().unwrap();
    slow.take(100_000).unwrap();
    assert!(decoded(&server.get_with("/b.html", ACCEPT)) == noise[..100_000], "while the other waits");
    let after = resident(&server);
    assert!(after < before + 5 * 1024, "{before} KiB before, {after} KiB with a slow client");
}

#[test]
fn a_large_file() {
    let text = files::text(5 << 20);
    for (sendfile, text) in [(true, &text[..]), (false, &text[..300_000])] {
        let config = site("").replace("root =", &format!("sendfile = {sendfile}\nroot ="));
        let server = Server::with(&[("html/a.html", text)], &config);
        let response = server.get_with("/a.html", ACCEPT).expect(200);
        assert!(decoded(&response) == text, "sendfile = {sendfile}: {response:?}");
    }
}

#[test]
fn many_clients_at_once() {
    let text = files::text(300_000);
    let server = Server::with(&[("html/a.html", &text)], &site(""));
    let mut clients: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(format!("GET /a.html HTTP/1.1\r\nHost: a\r\n{ACCEPT}\r\n").repeat(2));
    }
    for client in &mut clients {
        assert!(decoded(&client.response().expect(200)) == text);
        assert!(decoded(&client.response().expect(200)) == text);
    }
}

#[test]
fn clients_that_leave_in_the_middle_do_not_spoil_other_streams() {
    let (noise, text) = (files::noise(600_000), files::text(300_000));
    let config = site("").replace("{ name = \"gzip\" }]", "{ name = \"gzip\" }, { name = \"limit_rate\" }]")
        + "[[http.server.location]]\npath = \"/slow/\"\nlimit_rate = { rate = 1000, after = 20000 }\n";
    let server = Server::with(&[("html/slow/a.html", &noise), ("html/a.html", &text)], &config);
    for round in 0..20 {
        let mut client = server.connect();
        client.send(format!("GET /slow/a.html HTTP/1.1\r\nHost: a\r\n{ACCEPT}\r\n"));
        client.take(10 + round * 1000).unwrap();
        if round % 2 == 0 {
            client.reset()
        } else {
            drop(client)
        }
        if round % 5 == 0 {
            assert!(decoded(&server.get_with("/a.html", ACCEPT)) == text, "after {round}");
        }
    }
    assert!(decoded(&server.get_with("/a.html", ACCEPT)) == text);
}

#[test]
fn a_response_without_a_length_flows_as_it_comes() {
    // The peer sends half of its body, and the rest only when the client has read the first half.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let text = files::text(200_000);
    let half = text.len() / 2;
    let sent = text.clone();
    let peer = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n").unwrap();
        stream.write_all(&sent[..half]).unwrap();
        wait.recv_timeout(PATIENCE).unwrap();
        stream.write_all(&sent[half..]).unwrap();
    });
    let server = Server::start(&format!(
        "module = [{{ name = \"gzip\" }}, {{ name = \"proxy\" }}, {{ name = \"round_robin\" }}]\n[[http.server]]\n\
         listen = [\"127.0.0.1:PORT\"]\nproxy.pass = \"http://{address}\"\ngzip = {{ enabled = true, comp_level = 9 }}\n"
    ));
    let mut client = server.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{ACCEPT}\r\n"));
    let head = client.head().unwrap();
    assert_eq!(head.field("Transfer-Encoding"), Some("chunked"), "{head:?}");
    // The compressor keeps some, but not a whole 100,000 bytes of such text.
    let start = Instant::now();
    let first = client.take(1000).unwrap();
    assert!(start.elapsed() < PATIENCE);
    go.send(()).unwrap();
    let (rest, ending) = {
        let mut rest = first;
        while let Ok(byte) = client.take(1) {
            rest.extend(byte);
        }
        (rest, client.end())
    };
    assert_eq!(ending, Ending::Closed);
    assert!(rest.ends_with(b"\r\n0\r\n\r\n"), "{}", rest[rest.len() - 20..].escape_ascii());
    let mut out = Vec::new();
    let read = GzDecoder::new(&unchunked(&rest)[..]).read_to_end(&mut out);
    assert!(read.is_ok() && out == text, "{read:?}, {} bytes", out.len());
    peer.join().unwrap();
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        out.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 4 + size..];
        if size == 0 {
            return out;
        }
    }
}

#[test]
fn the_ratio_as_a_variable() {
    let server = Server::with(
        &[("html/a.html", &[b'a'; 10_000])],
        &(site("").replace("{ name = \"gzip\" }]", "{ name = \"gzip\" }, { name = \"headers\" }]")
            + "headers.add_header = [{ name = \"X-Ratio\", value = \"<$gzip_ratio>\" }]\n"),
    );
    let response = server.get_with("/a.html", ACCEPT).expect(200);
    // Nothing is compressed yet when the header is sent.
    assert_eq!(response.field("X-Ratio"), Some("<>"), "{response:?}");
}

#[test]
fn the_ratio_in_the_log() {
    let config = site("").replace(
        "[[http.server]]",
        "[http]\nlog_format.ratio = { format = \"$status <$gzip_ratio>\" }\n\
         access_log = { path = \"stdout\", format = \"ratio\" }\n[[http.server]]",
    );
    for len in [10_000, 100_000] {
        let server = Server::with(&[("html/a.html", &vec![b'a'; len])], &config);
        let sent = server.get_with("/a.html", ACCEPT).expect(200).body.len();
        server.get("/a.html").expect(200);
        let ratio = format!("{:.2}", len as f64 / sent as f64);
        let log = server.stdout(|text| text.lines().count() == 2);
        assert_eq!(log, format!("200 <{ratio}>\n200 <->\n"), "{sent} bytes of {len}");
    }
}
