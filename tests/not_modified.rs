//! Conditional requests.

mod support;

use std::fs::File;
use std::time::{Duration, SystemTime};

use support::{Folder, Server};

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
const TAG: &str = "\"2ebc98a1-5\"";

/// A file of a known date and tag.
fn server(more: &str) -> Server {
    let folder = Folder::with(&[("html/a.txt", b"hello")]);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    File::options().write(true).open(folder.path("html/a.txt")).unwrap().set_modified(time).unwrap();
    let config = format!(
        "module = [{{ name = \"static\" }}, {{ name = \"not_modified\" }}]\n[[http.server]]\n\
         listen = [\"127.0.0.1:PORT\"]\nroot = \"html\"\n{more}\n"
    );
    Server::start_in(folder, &config)
}

/// The statuses of requests with these header lines, over one connection.
fn statuses(server: &Server, cases: &[(u16, String)]) {
    let mut client = server.connect();
    for (status, fields) in cases {
        client.send(format!("GET /a.txt HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        let response = client.response();
        assert_eq!(response.status, *status, "{fields:?}: {response:?}");
        let body: &[u8] = if *status == 200 { b"hello" } else { b"" };
        assert!(*status == 412 || response.body == body, "{fields:?}: {response:?}");
    }
}

#[test]
fn if_modified_since() {
    let server = server("");
    statuses(
        &server,
        &[
            (304, format!("If-Modified-Since: {DATE}\r\n")),
            (304, "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n".to_owned()),
            (304, "If-Modified-Since: Sun Nov  6 08:49:37 1994\r\n".to_owned()),
            (200, format!("If-Modified-Since: {BEFORE}\r\n")),
            (200, format!("If-Modified-Since: {AFTER}\r\n")),
            (200, "If-Modified-Since: yesterday\r\n".to_owned()),
        ],
    );
}

#[test]
fn if_modified_since_before_and_off() {
    let cases = |statuses: [u16; 3]| {
        let dates = [BEFORE, DATE, AFTER];
        statuses.into_iter().zip(dates.map(|date| format!("If-Modified-Since: {date}\r\n"))).collect::<Vec<_>>()
    };
    statuses(&server("not_modified.if_modified_since = \"before\""), &cases([200, 304, 304]));
    statuses(&server("not_modified.if_modified_since = \"off\""), &cases([200, 200, 200]));
}

#[test]
fn if_none_match() {
    let server = server("");
    statuses(
        &server,
        &[
            (304, format!("If-None-Match: {TAG}\r\n")),
            (304, format!("If-None-Match: W/{TAG}\r\n")),
            (304, format!("If-None-Match: \"x\", {TAG}\r\n")),
            (304, format!("If-None-Match: \"x\"\r\nIf-None-Match: {TAG}\r\n")),
            (304, "If-None-Match: *\r\n".to_owned()),
            (200, "If-None-Match: \"2ebc98a1-6\"\r\n".to_owned()),
            (200, format!("If-None-Match: {}\r\n", TAG.trim_matches('"'))),
            // Both must say so, as in nginx.
            (304, format!("If-None-Match: {TAG}\r\nIf-Modified-Since: {DATE}\r\n")),
            (200, format!("If-None-Match: {TAG}\r\nIf-Modified-Since: {BEFORE}\r\n")),
            (200, format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {DATE}\r\n")),
        ],
    );
}

#[test]
fn if_match_and_if_unmodified_since() {
    let server = server("");
    statuses(
        &server,
        &[
            (200, format!("If-Match: {TAG}\r\n")),
            (200, "If-Match: *\r\n".to_owned()),
            (412, "If-Match: \"x\"\r\n".to_owned()),
            (412, format!("If-Match: W/{TAG}\r\n")),
            (200, format!("If-Unmodified-Since: {DATE}\r\n")),
            (200, format!("If-Unmodified-Since: {AFTER}\r\n")),
            (412, format!("If-Unmodified-Since: {BEFORE}\r\n")),
        ],
    );
}

#[test]
fn a_304_has_validators_and_nothing_of_the_body() {
    let server = server("");
    let response = server.get_with("/a.txt", &format!("If-None-Match: {TAG}\r\n")).expect(304);
    assert_eq!(response.field("ETag"), Some(TAG), "{response:?}");
    assert_eq!(response.field("Last-Modified"), Some(DATE), "{response:?}");
    for name in ["Content-Type", "Content-Length", "Transfer-Encoding", "Content-Encoding"] {
        assert_eq!(response.field(name), None, "{response:?}");
    }
    server.request("HEAD", "/a.txt", &format!("If-None-Match: {TAG}\r\n")).expect(304);
}

#[test]
fn what_is_not_200_is_not_conditional() {
    let server = server("");
    server.get_with("/none", "If-None-Match: *\r\n").expect(404);
    server.request("POST", "/a.txt", "If-Match: \"x\"\r\n").expect(405);
}
