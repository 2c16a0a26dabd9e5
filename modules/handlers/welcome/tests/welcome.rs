//! The handler as the server calls it.

use std::sync::Arc;

use topnext_module_api::{State, testing};
use topnext_welcome::{Shared, Welcome};

fn welcome() -> Welcome {
    let state = Arc::new(Shared::create().expect("no reason to fail"));
    testing::with_state("enabled = true", &state).expect("a valid table")
}

#[test]
fn a_browser_gets_a_page_and_curl_text() {
    let handler = welcome();
    let test = |accept: &str| {
        testing::content(&handler)
            .request(&format!("GET /<x> HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n"))
            .variable("topnext_version", "9.8.7")
            .variable("hostname", "<b>&")
    };
    let out = test("text/html,*/*;q=0.8").run();
    assert_eq!((out.status, out.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!((out.header("vary"), out.header("cache-control")), (Some("Accept"), Some("no-store")));
    assert_eq!(out.content_length, Some(out.body.len() as u64));
    assert!(out.text().contains("9.8.7") && out.text().contains("&lt;b&gt;&amp;"), "{}", out.text());
    assert!(!out.text().contains("<b>") && !out.text().contains("<x>"), "{}", out.text());
    let out = test("*/*").run();
    assert_eq!(out.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(out.text().starts_with("topnext 9.8.7 is running.\n"), "{}", out.text());
    assert!(out.text().contains("pages like this one  2\n"), "{}", out.text());
    assert!(out.text().contains(" MiB\n"), "read on the thread pool: {}", out.text());
}

#[test]
fn other_methods_get_405() {
    let out = testing::content(&welcome()).request("POST / HTTP/1.1\r\nHost: a\r\n\r\n").run();
    assert_eq!((out.status, out.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn it_is_off_unless_it_is_enabled() {
    let state = Arc::new(Shared::create().expect("no reason to fail"));
    assert!(testing::with_state::<Welcome, _>("", &state).is_err());
}
