//! The filter in the author's kit: `cargo test --features testing`.

use topnext_hello_filter::HelloFilter;
use topnext_module_api::testing;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn adds_the_field() {
    let filter = testing::module::<HelloFilter>("").expect("valid");
    let out = testing::filter(&filter).request(GET).response(404, &[], "nothing").run();
    assert_eq!((out.header("X-Hello"), out.text(), out.content_length), (Some("world"), "nothing".into(), Some(7)));
}

#[test]
fn the_field_may_have_variables() {
    let filter = testing::module::<HelloFilter>("text = \"from $host\"").expect("valid");
    let out = testing::filter(&filter).request(GET).response(200, &[], "").run();
    assert_eq!(out.header("X-Hello"), Some("from a"));
}

#[test]
fn adds_the_line_and_its_length() {
    let filter = testing::module::<HelloFilter>(r#"line = "bye\n""#).expect("valid");
    let out = testing::filter(&filter).request(GET).response(200, &[], "hello\n").allow_ranges().run();
    assert_eq!((out.text(), out.content_length, out.allow_ranges), ("hello\nbye\n".into(), Some(10), false));
}

#[test]
fn leaves_compressed_responses_and_errors_alone() {
    let filter = testing::module::<HelloFilter>(r#"line = "bye\n""#).expect("valid");
    let out = testing::filter(&filter).request(GET).response(200, &[("Content-Encoding", "br")], "x").run();
    assert_eq!(out.text(), "x");
    let out = testing::filter(&filter).request(GET).response(500, &[], "x").run();
    assert_eq!(out.text(), "x");
}

#[test]
fn keeps_the_contract_of_a_filter() {
    let filter = testing::module::<HelloFilter>(r#"line = "bye\n""#).expect("valid");
    testing::filter(&filter).request(GET).response(200, &[], "a body of some length\n").check();
}
