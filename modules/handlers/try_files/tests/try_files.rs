//! The handler as the server calls it.

use topnext_module_api::{
    Code, Phase,
    testing::{self, HandlerTest},
};
use topnext_try_files::TryFiles;

fn try_files(table: &str) -> TryFiles {
    testing::module(table).expect("a valid table")
}

fn site<'a>(handler: &'a TryFiles, line: &str) -> HandlerTest<'a> {
    testing::handler(handler, Phase::Precontent)
        .request(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .file("html/a", "x", 0)
        .file("html/default.txt", "x", 0)
        .directory("html/dir")
        .directory("html/dir/")
        .forbidden("html/secret")
}

#[test]
fn the_first_that_exists_becomes_the_uri() {
    let handler = try_files("files = [\"$uri\", \"$uri/\", \"/default.txt\"]\nfallback = \"=404\"");
    for (line, uri) in [
        ("GET /a?x=1", "/a"),
        ("GET /dir", "/dir"),
        ("GET /dir/", "/dir/"),
        ("GET /none", "/default.txt"),
        ("PUT /a", "/a"),
        // It exists, so that it is for others to say that it may not be read.
        ("GET /secret", "/secret"),
    ] {
        let out = site(&handler, line).run();
        assert_eq!((out.code, out.uri.as_deref()), (Some(Code::DECLINED), Some(uri)), "{line}");
        site(&handler, line).check();
    }
}

#[test]
fn the_fallback_is_a_status() {
    let handler = try_files("files = [\"$uri\"]\nfallback = \"=418\"");
    for line in ["GET /none", "GET /dir"] {
        let out = site(&handler, line).run();
        assert_eq!((out.status, out.uri), (418, None), "{line}");
    }
    site(&handler, "GET /none").check();
    assert_eq!(site(&handler, "GET /a").filename("").run().status, 418, "without a root there are no files");
}

#[test]
fn the_fallback_is_a_uri_or_a_named_location() {
    let redirect = |table: &str| {
        let handler = try_files(&format!("files = [\"$uri\"]\nfallback = \"{table}\""));
        site(&handler, "GET /none?q").check();
        site(&handler, "GET /none?q").run().redirect.expect("a redirect")
    };
    assert_eq!(redirect("@app"), ("@app".to_string(), String::new()));
    assert_eq!(redirect("/index.php?u=$uri&$args"), ("/index.php".to_string(), "u=/none&q".to_string()));
    assert_eq!(redirect("/plain"), ("/plain".to_string(), String::new()));
}

#[test]
fn wrong_tables_are_refused() {
    let errors = |table: &str| testing::module::<TryFiles>(table).err().expect("wrong");
    assert!(errors("files = [\"$uri\"]").contains("fallback"));
    let both = errors("files = []\nfallback = \"x\"");
    assert!(both.contains("files: found an empty list") && both.contains("fallback: found \"x\""), "{both}");
    assert!(errors("files = [\"/a\"]\nfallback = \"=99\"").contains("a status from 200 to 599"));
}
