//! The proxy in the author's kit, against answers as a peer would send them.

use topnext_module_api::testing;
use topnext_proxy::Proxy;

const GET: &str = "GET /api/x?a=b HTTP/1.1\r\nHost: example.org\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn proxy(table: &str) -> Proxy {
    testing::module(&format!("pass = \"http://backend\"\n{table}")).expect("valid")
}

/// The request that goes to the peer, as text.
fn sent(table: &str, request: &str, body: &[&str]) -> String {
    let proxy = proxy(table);
    let test = testing::upstream(&proxy).location("/api/").request(request).body(body);
    String::from_utf8(test.run(OK).request).expect("text")
}

/// Status, body, and whether the connection may be kept, after this answer.
fn received(request: &str, answer: &str, closes: bool) -> (u16, String, bool, bool) {
    let proxy = proxy("");
    let mut test = testing::upstream(&proxy).request(request);
    if closes {
        test = test.peer_closes();
    }
    let out = test.run(answer);
    (out.response.status, out.response.text().into_owned(), out.keepalive, out.complete)
}

#[test]
fn request_without_a_body() {
    assert_eq!(sent("", GET, &[]), "GET /api/x?a=b HTTP/1.1\r\nHost: backend\r\n\r\n");
}

#[test]
fn request_with_a_body_has_its_length() {
    let post = "POST /api/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
    let expected = "POST /api/x HTTP/1.1\r\nHost: backend\r\nContent-Length: 6\r\n\r\nabcdef";
    assert_eq!(sent("", post, &["abc", "", "def"]), expected);
    let without = "POST /api/x HTTP/1.1\r\nHost: backend\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(sent("pass_request_body = false", post, &["abc"]), without);
}

#[test]
fn request_loses_the_fields_of_the_client_connection() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\n\
                   TE: trailers\r\n\
                   Upgrade: h2c\r\nProxy-Authorization: x\r\nAccept: */*\r\nCookie: c\r\n\r\n";
    assert_eq!(sent("", request, &[]), "GET / HTTP/1.1\r\nHost: backend\r\nAccept: */*\r\nCookie: c\r\n\r\n");
    assert_eq!(sent("pass_request_headers = false", request, &[]), "GET / HTTP/1.1\r\nHost: backend\r\n\r\n");
}

#[test]
fn set_header_replaces_and_removes() {
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\nCookie: c\r\naccept: x\r\n\r\n";
    let table = r#"set_header = [{ name = "Host", value = "$host" }, { name = "Accept", value = "y" },
                   { name = "cookie", value = "" }]"#;
    assert_eq!(sent(table, request, &[]), "GET / HTTP/1.1\r\nHost: a.example\r\nAccept: y\r\n\r\n");
}

#[test]
fn set_header_cannot_smuggle_a_line() {
    let proxy = proxy(r#"set_header = [{ name = "X-Uri", value = "$uri" }]"#);
    let out = testing::upstream(&proxy).request("GET /a%0D%0AX-Evil:%201 HTTP/1.1\r\nHost: a\r\n\r\n").run(OK);
    assert_eq!((out.response.status, out.request.len()), (400, 0));
    assert!(out.response.logged("set_header X-Uri has a control character"));
}

#[test]
fn http_1_0_closes() {
    let expected = "GET /api/x?a=b HTTP/1.0\r\nHost: backend\r\nConnection: close\r\n\r\n";
    assert_eq!(sent("http_version = \"1.0\"", GET, &[]), expected);
    let proxy = proxy("http_version = \"1.0\"");
    assert!(!testing::upstream(&proxy).request(GET).run(OK).keepalive);
}

#[test]
fn the_uri_part_replaces_the_location() {
    let proxy: Proxy = testing::module("pass = \"http://127.0.0.1:9001/v1/\"").expect("valid");
    let answer = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9001/v1/y\r\nContent-Length: 0\r\n\r\n";
    let out = testing::upstream(&proxy).location("/api/").request(GET).run(answer);
    assert!(out.request.starts_with(b"GET /v1/x?a=b HTTP/1.1\r\nHost: 127.0.0.1:9001\r\n"));
    assert_eq!(out.response.header("Location"), Some("/api/y"));
}

#[test]
fn response_fields_that_are_not_passed() {
    let answer = "HTTP/1.1 200 OK\r\nDate: d\r\nServer: s\r\nX-Pad: p\r\nX-Accel-Redirect: /x\r\n\
                  Connection: X-Hop\r\nX-Hop: 1\r\n\
                  Set-Cookie: a\r\nSet-Cookie: b\r\nX-Secret: z\r\nContent-Length: 0\r\n\r\n";
    let fields = |table: &str| {
        let proxy = proxy(table);
        let out = testing::upstream(&proxy).request(GET).run(answer).response;
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let fields = out.headers.iter().map(|(name, value)| format!("{name}: {}", text(value)));
        fields.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(fields(""), "Set-Cookie: a, Set-Cookie: b, X-Secret: z");
    let table = "hide_header = [\"x-secret\", \"Set-Cookie\"]\npass_header = [\"server\", \"X-Accel-Redirect\"]";
    assert_eq!(fields(table), "Server: s, X-Accel-Redirect: /x");
}

#[test]
fn bodies_end_where_they_say() {
    let text = |body: &str| (200, body.to_string(), true, true);
    assert_eq!(received(GET, OK, false), text("hello"));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n";
    assert_eq!(received(GET, chunked, false), text("hello"));
    assert_eq!(received(GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false), text(""));
    let head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(received(head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false), text(""));
    assert_eq!(received(GET, "HTTP/1.1 204 No Content\r\n\r\n", false), (204, String::new(), true, true));
    let modified = "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(received(GET, modified, false), (304, String::new(), true, true));
    let interim = format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{OK}");
    assert_eq!(received(GET, &interim, false), text("hello"));
}

#[test]
fn connections_that_are_not_kept() {
    let hello = |complete: bool| (200, "hello".to_string(), false, complete);
    assert_eq!(
        received(GET, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", false),
        hello(true)
    );
    assert_eq!(received(GET, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", false), hello(true));
    assert_eq!(received(GET, "HTTP/1.1 200 OK\r\n\r\nhello", true), hello(true));
    assert_eq!(received(GET, "HTTP/1.1 200 OK\r\n\r\nhello", false), hello(false));
    // More than was announced is dropped.
    assert_eq!(received(GET, &format!("{OK} and more"), false), hello(true));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK";
    assert_eq!(received(GET, chunked, false), hello(true));
    let nothing = (204, String::new(), false, true);
    assert_eq!(received(GET, "HTTP/1.1 204 No Content\r\n\r\nhello", false), nothing);
}

#[test]
fn an_early_close_is_an_error() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ] {
        let proxy = proxy("");
        let out = testing::upstream(&proxy).request(GET).peer_closes().run(answer);
        assert!(out.response.logged("upstream prematurely closed connection"), "{:?}", out.response.log);
        assert!(!out.complete && !out.keepalive, "{answer:?}");
    }
}

#[test]
fn an_invalid_answer_is_a_bad_gateway() {
    for (answer, why) in [
        ("HTTP/1.1 200 OK\nA: b\n\n", "LF without CR"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "Content-Length twice"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "101"),
        ("SSH-2.0-x\r\n", "no HTTP/1.x"),
    ] {
        let proxy = proxy("");
        let out = testing::upstream(&proxy).request(GET).run(answer);
        assert_eq!(out.response.status, 502, "{answer:?}");
        assert!(out.response.logged("upstream sent invalid header: "), "{answer:?}");
        assert!(out.response.logged(why), "{answer:?}: {:?}", out.response.log);
    }
}

#[test]
fn invalid_chunks_are_an_error() {
    let proxy = proxy("");
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n";
    let out = testing::upstream(&proxy).request(GET).run(answer);
    assert!(out.response.logged("upstream sent invalid chunked response"), "{:?}", out.response.log);
    assert!(!out.complete && !out.keepalive);
}

#[test]
fn the_same_in_any_pieces() {
    let proxy = proxy("");
    let test = testing::upstream(&proxy).request(GET);
    test.check(OK);
    let chunks = "3;x\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n";
    let header = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    test.check(format!("HTTP/1.1 103 Early Hints\r\n\r\n{header}{chunks}"));
    test.check("HTTP/1.1 204 No Content\r\nA: b\r\n\r\n");
    test.check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello");
    testing::upstream(&proxy).request(GET).peer_closes().check("HTTP/1.1 200 OK\r\n\r\nhello");
    testing::upstream(&proxy).request(GET).peer_closes().check("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello");
}

#[test]
fn says_everything_that_is_wrong_with_the_table() {
    let table = r#"
        pass = "https://backend"
        http_version = "2"
        set_header = [{ name = "Content-Length", value = "1" }, { name = "a b", value = "" }]
        hide_header = ["x", ""]
        buffer_size = "10"
    "#;
    let Err(message) = testing::module::<Proxy>(table) else { panic!("accepted") };
    for part in [
        "pass: https:// is not supported yet",
        "http_version: found \"2\", expected \"1.1\" or \"1.0\"",
        "set_header[0].name: Content-Length is set by proxy itself",
        "set_header[1].name: \"a b\" is not a field name",
        "hide_header[1]: \"\" is not a field name",
        "buffer_size: found 10, expected 1k or more",
    ] {
        assert!(message.contains(part), "{part} is not in:\n{message}");
    }
}
