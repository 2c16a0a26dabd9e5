//! The protocol in the author's kit, against answers as a peer would send them: `cargo test --features testing`.

use topnext_hello_upstream::HelloUpstream;
use topnext_module_api::testing;

const GET: &str = "GET /value/color HTTP/1.1\r\nHost: a\r\n\r\n";

fn upstream() -> HelloUpstream {
    testing::module("pass = \"127.0.0.1:9009\"").expect("valid")
}

#[test]
fn asks_for_the_key_and_passes_the_value_on() {
    let upstream = upstream();
    let out = testing::upstream(&upstream).location("/value/").request(GET).run("OK 4\r\nblue");
    assert_eq!(out.request, b"GET color\r\n");
    assert_eq!((out.response.status, out.response.text(), out.complete), (200, "blue".into(), true));
    assert_eq!(out.response.content_length, Some(4));
}

#[test]
fn an_empty_value() {
    let upstream = upstream();
    let out = testing::upstream(&upstream).location("/value/").request(GET).run("OK 0\r\n");
    assert_eq!((out.response.text(), out.complete), ("".into(), true));
}

#[test]
fn refuses_keys_that_would_be_commands() {
    let upstream = upstream();
    for uri in ["/value/", "/value/a%0D%0AGET%20b", "/value/a%20b"] {
        let request = format!("GET {uri} HTTP/1.1\r\nHost: a\r\n\r\n");
        let out = testing::upstream(&upstream).location("/value/").request(&request).run("OK 1\r\nx");
        assert_eq!((out.response.status, out.request.len()), (400, 0), "{uri}");
    }
}

#[test]
fn an_invalid_answer_is_a_bad_gateway() {
    let upstream = upstream();
    for answer in ["NO\r\n", "OK x\r\n", "OK -1\r\n", "\r\n"] {
        let out = testing::upstream(&upstream).location("/value/").request(GET).run(answer);
        assert_eq!(out.response.status, 502, "{answer:?}");
    }
}

#[test]
fn an_early_close_is_an_error() {
    let upstream = upstream();
    let out = testing::upstream(&upstream).location("/value/").request(GET).peer_closes().run("OK 5\r\nblue");
    assert!(!out.complete);
}

#[test]
fn the_same_in_any_pieces() {
    let upstream = upstream();
    let test = testing::upstream(&upstream).location("/value/").request(GET);
    test.check("OK 4\r\nblue");
    test.check("OK 0\r\n");
    test.check("NO\r\n");
    test.peer_closes().check("OK 5\r\nblue");
}
