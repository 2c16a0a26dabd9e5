//! The handler as the server calls it.

use topnext_module_api::{
    Code, Phase,
    testing::{self, HandlerTest},
};
use topnext_static::Static;

fn site<'a>(handler: &'a Static, line: &str) -> HandlerTest<'a> {
    testing::handler(handler, Phase::Content)
        .request(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .file("html/a.css", "body {}", 784_111_777)
        .file("html/empty.txt", "", 0)
        .directory("html/dir")
        .forbidden("html/secret")
}

#[test]
fn sends_a_file_with_its_header() {
    let out = site(&Static, "GET /a.css").run();
    assert_eq!((out.status, out.text().as_ref(), out.content_length), (200, "body {}", Some(7)));
    assert_eq!((out.header("content-type"), out.allow_ranges), (Some("text/css"), true));
    assert_eq!(out.header("last-modified"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    assert_eq!(out.header("etag"), Some("\"2ebc98a1-7\""));
    site(&Static, "GET /a.css").check();
}

#[test]
fn an_empty_file_has_an_end() {
    let out = site(&Static, "GET /empty.txt").run();
    assert_eq!((out.status, out.content_length, out.body.len()), (200, Some(0), 0));
    site(&Static, "GET /empty.txt").check();
}

#[test]
fn head_gets_the_length_and_no_body() {
    let out = site(&Static, "HEAD /a.css").run();
    assert_eq!((out.status, out.content_length, out.body.len()), (200, Some(7), 0));
}

#[test]
fn a_folder_is_redirected_to_its_slash() {
    let out = site(&Static, "GET /dir?x=1").run();
    assert_eq!((out.status, out.header("location")), (301, Some("/dir/?x=1")));
    site(&Static, "GET /dir").check();
}

#[test]
fn what_cannot_be_opened_is_logged() {
    let out = site(&Static, "GET /none").run();
    assert_eq!(out.status, 404);
    assert!(out.logged("open() \"html/none\" failed (2: No such file or directory)"), "{:?}", out.log);
    let out = site(&Static, "GET /secret").run();
    assert_eq!(out.status, 403);
    assert!(out.logged("(13: Permission denied)"), "{:?}", out.log);
}

#[test]
fn other_methods_get_405_and_what_is_allowed() {
    for method in ["POST", "PUT", "DELETE", "get"] {
        let out = site(&Static, &format!("{method} /a.css")).run();
        assert_eq!((out.status, out.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
}

#[test]
fn declines_folders_and_places_without_a_root() {
    assert_eq!(site(&Static, "GET /dir/").run().code, Some(Code::DECLINED));
    assert_eq!(site(&Static, "PUT /a.css").filename("").run().code, Some(Code::DECLINED));
}
