//! The filter as the server calls it.

use topnext_module_api::testing::{self, Output};
use topnext_not_modified::NotModified;

const HEADERS: &[(&str, &str)] = &[
    ("Content-Type", "text/html"),
    ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ("ETag", "\"x\""),
    ("Accept-Ranges", "bytes"),
];

fn ask(method: &str, fields: &str, status: u16) -> Output {
    let filter: NotModified = testing::module("").expect("defaults");
    let request = format!("{method} /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    testing::filter(&filter).request(&request).response(status, HEADERS, "hello").run()
}

#[test]
fn answers_304_without_what_describes_the_body() {
    for field in ["If-None-Match: \"x\"\r\n", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n"] {
        let out = ask("GET", field, 200);
        assert_eq!((out.status, out.content_length), (304, None), "{field}");
        assert_eq!((out.header("content-type"), out.header("accept-ranges")), (None, None), "{field}");
        assert_eq!(out.header("etag"), Some("\"x\""), "{field}");
        assert!(out.header("last-modified").is_some(), "{field}");
    }
}

#[test]
fn answers_412_with_an_error_page_of_the_host() {
    for field in ["If-Match: \"y\"\r\n", "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n"] {
        let out = ask("GET", field, 200);
        assert_eq!((out.status, out.header_sent), (412, false), "{field}");
    }
}

#[test]
fn leaves_other_responses_alone() {
    let cases = [
        ("GET", "", 200),
        ("GET", "If-None-Match: \"y\"\r\n", 200),
        ("GET", "If-None-Match: \"x\"\r\n", 404),
        ("PUT", "If-Match: \"y\"\r\n", 200),
        ("GET", "If-None-Match: \"y\"\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 200),
    ];
    for (method, fields, status) in cases {
        let out = ask(method, fields, status);
        assert_eq!((out.status, out.text().as_ref()), (status, "hello"), "{method} {fields}");
    }
}

#[test]
fn tags_may_be_spread_over_fields() {
    assert_eq!(ask("GET", "If-None-Match: \"a\"\r\nIf-None-Match: \"b\", W/\"x\"\r\n", 200).status, 304);
}

#[test]
fn off_sends_always() {
    let filter: NotModified = testing::module("if_modified_since = \"off\"").expect("valid");
    let request = "GET / HTTP/1.1\r\nHost: a\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
    assert_eq!(testing::filter(&filter).request(request).response(200, HEADERS, "x").run().status, 200);
}

#[test]
fn keeps_the_contract_of_a_filter() {
    let filter: NotModified = testing::module("").expect("defaults");
    for tag in ["\"x\"", "\"y\""] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: {tag}\r\n\r\n");
        testing::filter(&filter).request(&request).response(200, HEADERS, "hello").check();
    }
}
