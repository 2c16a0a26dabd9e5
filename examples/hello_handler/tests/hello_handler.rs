//! The handler in the author's kit: `cargo test --features testing`.

use topnext_hello_handler::HelloHandler;
use topnext_module_api::testing;

const GET: &str = "GET /hello?name=Ada HTTP/1.1\r\nHost: a\r\n\r\n";

fn handler() -> HelloHandler {
    testing::module("name = \"$arg_name\"").expect("valid")
}

#[test]
fn greets_by_name() {
    let handler = handler();
    let out = testing::content(&handler).request(GET).variable("arg_name", "Ada").run();
    assert_eq!((out.status, out.text(), out.content_length), (200, "Hello, Ada!\n".into(), Some(12)));
    assert_eq!(out.header("Content-Type"), Some("text/plain"));
}

#[test]
fn greets_strangers() {
    let handler = handler();
    let out = testing::content(&handler).request(GET).variable("arg_name", "").run();
    assert_eq!(out.text(), "Hello, stranger!\n");
}

#[test]
fn greets_who_is_posted() {
    let handler = handler();
    let post = "POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    let test = || testing::content(&handler).request(post).body(&["Gr", "ace"]);
    assert_eq!(test().run().text(), "Hello, Grace!\n");
    test().check();
}

#[test]
fn no_other_methods() {
    let handler = handler();
    let out = testing::content(&handler).request("PUT /hello HTTP/1.1\r\nHost: a\r\n\r\n").run();
    assert_eq!((out.status, out.header_sent), (405, false));
}

#[test]
fn keeps_the_contract_of_a_handler() {
    let handler = handler();
    testing::content(&handler).request(GET).variable("arg_name", "Ada").check();
}

#[test]
fn the_name_is_required() {
    let Err(message) = testing::module::<HelloHandler>("") else { panic!("accepted") };
    assert!(message.contains("name"), "{message}");
}
