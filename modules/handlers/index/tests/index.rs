//! The handler as the server calls it.

use topnext_index::Index;
use topnext_module_api::{
    Code, Phase,
    testing::{self, HandlerTest},
};

fn index(table: &str) -> Index {
    testing::module(table).expect("a valid table")
}

fn site<'a>(handler: &'a Index, line: &str) -> HandlerTest<'a> {
    testing::handler(handler, Phase::Content)
        .request(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .directory("html/a/")
        .file("html/a/index.html", "x", 0)
        .directory("html/text/")
        .directory("html/text/index.html")
        .file("html/text/index.txt", "x", 0)
        .directory("html/none/")
        .directory("html/secret/")
        .forbidden("html/secret/index.html")
}

fn redirect(uri: &str, args: &str) -> Option<(String, String)> {
    Some((uri.to_string(), args.to_string()))
}

#[test]
fn redirects_to_the_first_file_that_exists() {
    let handler = index("");
    assert_eq!(site(&handler, "GET /a/?x=1").run().redirect, redirect("/a/index.html", "x=1"));
    let handler = index("files = [\"no\", \"index.html\", \"index.txt\"]");
    assert_eq!(site(&handler, "GET /text/").run().redirect, redirect("/text/index.txt", ""));
    site(&handler, "GET /text/").check();
    site(&handler, "GET /a/").check();
}

#[test]
fn a_name_with_a_slash_is_a_uri() {
    let handler = index("files = [\"no\", \"/fallback/$host\"]");
    assert_eq!(site(&handler, "GET /none/?y").run().redirect, redirect("/fallback/a", "y"));
    site(&handler, "GET /none/").check();
}

#[test]
fn declines_if_there_is_none() {
    let handler = index("");
    let cases = ["GET /none/", "GET /a/index.html", "PUT /a/"];
    for line in cases {
        let out = site(&handler, line).run();
        assert_eq!((out.code, out.redirect), (Some(Code::DECLINED), None), "{line}");
    }
    assert_eq!(site(&handler, "GET /a/").filename("").run().code, Some(Code::DECLINED));
    site(&handler, "GET /none/").check();
}

#[test]
fn a_folder_that_does_not_exist_is_not_found() {
    let handler = index("files = [\"index.html\", \"index.txt\"]");
    let out = site(&handler, "GET /nowhere/").run();
    assert_eq!(out.status, 404);
    assert!(out.logged("\"html/nowhere/\" is not found"), "{:?}", out.log);
    site(&handler, "GET /nowhere/").check();
}

#[test]
fn what_may_not_be_read_is_forbidden() {
    let out = site(&index(""), "GET /secret/").run();
    assert_eq!(out.status, 403);
}

#[test]
fn wrong_names_are_refused() {
    let errors = testing::module::<Index>("files = [\"\", \"../x\", \"ok\"]").err().expect("wrong");
    assert!(errors.contains("files[0]: empty") && errors.contains("files[1]: \"..\""), "{errors}");
}
