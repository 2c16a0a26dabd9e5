//! The handler as the server calls it.

use topnext_module_api::{
    Code, Phase,
    testing::{self, HandlerTest},
};
use topnext_return::Return;

fn module(table: &str) -> Return {
    testing::module(table).expect("a valid table")
}

fn test(handler: &Return) -> HandlerTest<'_> {
    testing::handler(handler, Phase::Rewrite).request("GET /old%0d%0aX:y?a=1 HTTP/1.1\r\nHost: h\r\n\r\n")
}

#[test]
fn answers_with_a_text() {
    let handler = module("code = 200\ntext = \"$args\"");
    let out = test(&handler).mime_type("text/x").run();
    assert_eq!((out.status, out.text().as_ref(), out.content_length), (200, "a=1", Some(3)));
    assert_eq!(out.header("content-type"), Some("text/x"));
    test(&handler).check();
}

#[test]
fn an_empty_text_is_an_empty_body() {
    for table in ["code = 404\ntext = \"\"", "code = 200"] {
        let handler = module(table);
        let out = test(&handler).run();
        assert_eq!((out.header_sent, out.content_length, out.body.len()), (true, Some(0), 0), "{table}");
        test(&handler).check();
    }
    assert_eq!(test(&module("code = 204")).run().content_length, None);
}

#[test]
fn a_bare_error_is_left_to_the_host() {
    for code in [400, 404, 444, 503] {
        let out = test(&module(&format!("code = {code}"))).run();
        assert_eq!((out.code, out.header_sent), (Some(Code::status(code)), false));
    }
}

#[test]
fn redirects() {
    let out = test(&module("code = 301\nurl = \"https://$host/new?$args\"")).run();
    assert_eq!((out.code, out.header("location")), (Some(Code::status(301)), Some("https://h/new?a=1")));
    assert_eq!(test(&module("url = \"/x\"")).run().code, Some(Code::status(302)));
}

#[test]
fn a_line_break_in_a_variable_makes_no_field() {
    let out = test(&module("code = 302\nurl = \"$uri\"")).run();
    assert_eq!((out.code, out.header("location"), out.header("x")), (Some(Code::status(500)), None, None));
}

#[test]
fn asks_in_the_phase_of_the_server_too() {
    let handler = module("code = 200\ntext = \"x\"");
    assert_eq!(testing::handler(&handler, Phase::ServerRewrite).run().text(), "x");
}

#[test]
fn a_wrong_table_is_refused() {
    let errors = testing::module::<Return>("code = 200\nurl = \"/x\"").err().expect("wrong");
    assert!(errors.starts_with("url: found code 200"), "{errors}");
    assert!(testing::module::<Return>("code = 199").is_err());
    assert!(testing::module::<Return>("").is_err());
}
