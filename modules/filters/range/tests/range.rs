//! The filter as the server calls it.

use std::sync::Arc;

use topnext_module_api::{prelude::*, testing};
use topnext_range::{Boundaries, Range};

const BODY: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const HEADERS: &[(&str, &str)] =
    &[("Content-Type", "text/plain"), ("ETag", "\"x\""), ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")];

fn range(table: &str) -> Range {
    let state = Arc::new(Boundaries::create().expect("no reason to fail"));
    testing::with_state(table, &state).expect("a valid table")
}

/// Takes the boundary, of which there is another one each time, out of Content-Type.
#[derive(Config)]
struct NoBoundary;

impl Filter for NoBoundary {
    const BODY: bool = false;

    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        if r.header_out("Content-Type").is_some_and(|value| value.starts_with(b"multipart/byteranges; boundary=")) {
            r.set_header_out("Content-Type", "multipart/byteranges");
        }
        next.call(r)
    }
}

/// A request with these header lines.
fn asks(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")
}

fn of<'a>(filter: &'a Range, fields: &str) -> testing::FilterTest<'a> {
    testing::filter(filter).request(&asks(fields)).response(200, HEADERS, BODY).allow_ranges()
}

/// A multipart body with its boundary, which differs from response to response, taken out.
fn plain(out: &testing::Output) -> String {
    let boundary = out.header("Content-Type").and_then(|value| value.strip_prefix("multipart/byteranges; boundary="));
    out.text().replace(boundary.expect("multipart"), "B")
}

#[test]
fn one_range() {
    let filter = range("");
    for (asked, content_range, body) in [
        ("bytes=0-0", "bytes 0-0/36", "0"),
        ("bytes=10-12", "bytes 10-12/36", "abc"),
        ("bytes=33-", "bytes 33-35/36", "xyz"),
        ("bytes=-2", "bytes 34-35/36", "yz"),
        ("bytes=0-", "bytes 0-35/36", "0123456789abcdefghijklmnopqrstuvwxyz"),
        // A range that is turned round is none, as in nginx.
        ("bytes=5-4,7-7", "bytes 7-7/36", "7"),
    ] {
        let test = of(&filter, &format!("Range: {asked}"));
        let out = test.run();
        assert_eq!((out.status, out.header("Content-Range")), (206, Some(content_range)), "{asked}");
        assert_eq!((out.text().as_ref(), out.content_length), (body, Some(body.len() as u64)), "{asked}");
        assert_eq!((out.header("Content-Type"), out.header("Accept-Ranges")), (Some("text/plain"), None));
        test.check();
    }
}

#[test]
fn several_ranges_in_the_order_asked_for() {
    let filter = range("");
    for (asked, parts) in [
        ("bytes=0-1,-2", &[("0-1", "01"), ("34-35", "yz")][..]),
        ("bytes=30-31,10-11,20-20", &[("30-31", "uv"), ("10-11", "ab"), ("20-20", "k")]),
        ("bytes=0-9,5-7", &[("0-9", "0123456789"), ("5-7", "567")]),
        ("bytes=7-7,7-7,0-20,7-7", &[("7-7", "7"), ("7-7", "7"), ("0-20", "0123456789abcdefghijk"), ("7-7", "7")]),
        ("bytes=35-35,0-34", &[("35-35", "z"), ("0-34", "0123456789abcdefghijklmnopqrstuvwxy")]),
    ] {
        let test = of(&filter, &format!("Range: {asked}"));
        let out = test.run();
        let head = |at: &str| format!("\r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes {at}/36\r\n\r\n");
        let parts: String = parts.iter().map(|(at, bytes)| head(at) + bytes).collect();
        assert_eq!(plain(&out), format!("{parts}\r\n--B--\r\n"), "{asked}");
        assert_eq!((out.status, out.header("Content-Range")), (206, None));
        assert_eq!(out.content_length, Some(out.body.len() as u64), "{asked}");
    }
}

#[test]
fn several_ranges_of_a_body_in_pieces() {
    let filter = range("");
    for asked in ["bytes=0-1,-2", "bytes=30-31,10-11,20-20", "bytes=0-9,5-7,6-20"] {
        // The boundaries differ from run to run.
        let decode = |body: &[u8]| {
            let text = String::from_utf8_lossy(body).into_owned();
            let boundary = text.get(4..24).unwrap_or_default().to_string();
            text.replace(&boundary, "B").into_bytes()
        };
        of(&filter, &format!("Range: {asked}")).then(&NoBoundary).decode(decode).check();
    }
}

#[test]
fn no_type_no_type_in_the_parts() {
    let filter = range("");
    let test = testing::filter(&filter).request(&asks("Range: bytes=0-0,2-2")).response(200, &[], BODY);
    let out = test.allow_ranges().run();
    let part = |at: &str, byte| format!("\r\n--B\r\nContent-Range: bytes {at}/36\r\n\r\n{byte}");
    assert_eq!(plain(&out), format!("{}{}\r\n--B--\r\n", part("0-0", '0'), part("2-2", '2')));
}

#[test]
fn no_two_responses_have_the_same_boundary() {
    let filter = range("");
    let boundary = || of(&filter, "Range: bytes=0-0,2-2").run().header("Content-Type").map(str::to_string);
    assert_ne!(boundary(), boundary());
}

#[test]
fn what_the_body_has_not_is_416() {
    let filter = range("");
    let test = of(&filter, "Range: bytes=36-");
    let out = test.run();
    assert_eq!((out.status, out.code), (416, Some(Code::status(416))));
    assert_eq!((out.header("Content-Range"), out.header_sent), (Some("bytes */36"), false));
    test.check();
}

#[test]
fn the_whole_response_says_that_it_has_ranges() {
    let filter = range("max_ranges = 2");
    for fields in [
        "X: y",
        "Range: lines=0-1",
        "Range: bytes=0-,0-0",
        "Range: bytes=0-0,1-1,2-2",
        "Range: bytes=0-0\r\nIf-Range: \"y\"",
        "Range: bytes=0-0\r\nIf-Range: W/\"x\"",
        "Range: bytes=0-0\r\nIf-Range: \"x\", \"x\"",
        "Range: bytes=0-0\r\nIf-Range: x",
        "Range: bytes=0-0\r\nIf-Range: \"",
        "Range: bytes=0-0\r\nIf-Range:",
        "Range: bytes=0-0\r\nIf-Range: Sun, 06 Nov 1994 08:49:38 GMT",
        "Range: bytes=0-0\r\nIf-Range: Sun, 06 Nov 1994 08:49:36 GMT",
    ] {
        let out = of(&filter, fields).run();
        assert_eq!((out.status, out.body == BODY), (200, true), "{fields}");
        assert_eq!((out.header("Accept-Ranges"), out.header("Content-Range")), (Some("bytes"), None), "{fields}");
    }
}

#[test]
fn if_range_names_the_version_that_is_there() {
    let filter = range("");
    for wanted in ["\"x\"", "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT"] {
        let out = of(&filter, &format!("Range: bytes=0-0\r\nIf-Range: {wanted}")).run();
        assert_eq!((out.status, out.body.len()), (206, 1), "{wanted}");
    }
    // Neither a weak tag nor a missing one nor a missing date is the same version as any.
    for headers in [&[("ETag", "W/\"x\"")][..], &[]] {
        for wanted in ["W/\"x\"", "\"x\"", "Sun, 06 Nov 1994 08:49:37 GMT"] {
            let request = asks(&format!("Range: bytes=0-0\r\nIf-Range: {wanted}"));
            let out = testing::filter(&filter).request(&request).response(200, headers, BODY).allow_ranges().run();
            assert_eq!(out.status, 200, "{wanted} {headers:?}");
        }
    }
}

#[test]
fn responses_that_have_no_ranges_pass_untouched() {
    let (filter, off) = (range(""), range("max_ranges = 0"));
    let request = asks("Range: bytes=0-0");
    let untouched = |test: testing::FilterTest<'_>, status| {
        let out = test.run();
        assert_eq!((out.status, out.body == BODY, out.content_length.unwrap_or(36)), (status, true, 36));
        assert_eq!((out.header("Accept-Ranges"), out.header("Content-Range")), (None, None));
    };
    let test = |filter, status| testing::filter(filter).request(&request).response(status, HEADERS, BODY);
    untouched(test(&filter, 200), 200);
    untouched(test(&filter, 404).allow_ranges(), 404);
    untouched(test(&filter, 200).allow_ranges().length_unknown(), 200);
    untouched(test(&filter, 200).allow_ranges().subrequest(), 200);
    untouched(test(&off, 200).allow_ranges(), 200);
}

#[test]
fn a_head_has_the_header_of_a_get() {
    let filter = range("");
    let request = asks("Range: bytes=1-3").replace("GET", "HEAD");
    let out = testing::filter(&filter).request(&request).response(200, HEADERS, BODY).allow_ranges().run();
    assert_eq!((out.status, out.content_length, out.header("Content-Range")), (206, Some(3), Some("bytes 1-3/36")));
}

#[test]
fn an_empty_body_is_whole_in_any_range() {
    let filter = range("");
    for (asked, status) in [("bytes=0-", 200), ("bytes=-1", 200), ("bytes=1-", 416)] {
        let request = asks(&format!("Range: {asked}"));
        let out = testing::filter(&filter).request(&request).response(200, HEADERS, "").allow_ranges().run();
        assert_eq!(out.status, status, "{asked}");
    }
}

#[test]
fn a_flush_goes_on() {
    let filter = range("");
    let out = of(&filter, "Range: bytes=2-30").run_chains(|body| {
        let mut first = Buf::from(body.slice(..10));
        first.set_flush(true);
        let mut last = Buf::from(body.slice(10..));
        last.set_last(true);
        vec![Chain::from(first), Chain::from(last)]
    });
    assert_eq!((out.body.as_slice(), out.flushes), (&BODY[2..31], vec![8]));
}

#[test]
fn what_is_kept_for_later_parts_is_limited() {
    let filter = range("");
    let body = vec![b'x'; 3 << 20];
    let in_pieces = |body: &Bytes| {
        let mut chains: Vec<Chain> = body.chunks(4096).map(|piece| Chain::from(Buf::copy_from(piece))).collect();
        chains.push(Chain::from(Buf::last()));
        chains
    };
    // Little is asked for of what lies between.
    let request = asks("Range: bytes=2500000-,0-0");
    let test = testing::filter(&filter).request(&request).response(200, HEADERS, &body).allow_ranges();
    assert_eq!(test.run_chains(in_pieces).code, Some(Code::OK));
    let request = asks("Range: bytes=2500000-,0-1999999");
    let test = testing::filter(&filter).request(&request).response(200, HEADERS, &body).allow_ranges();
    // In one piece nothing needs to be kept.
    assert_eq!(test.run().code, Some(Code::OK));
    let out = test.run_chains(in_pieces);
    assert_eq!(out.code, Some(Code::ERROR));
    assert!(out.logged("in memory"), "{:?}", out.log);
}
