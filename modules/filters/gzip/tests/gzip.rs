//! The filter as the server calls it.

use std::{io::Read, sync::Arc};

use flate2::read::GzDecoder;
use topnext_gzip::{Compressors, Gzip};
use topnext_module_api::{Buf, Bytes, Chain, State, testing};

const REQUEST: &str = "GET /x HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n";
const HTML: &[(&str, &str)] = &[("Content-Type", "text/html")];

fn gzip(table: &str) -> Gzip {
    let state = Arc::new(Compressors::create().expect("no reason to fail"));
    testing::with_state(&format!("enabled = true\n{table}"), &state).expect("a valid table")
}

fn unzip(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    GzDecoder::new(body).read_to_end(&mut out).expect("gzip");
    out
}

/// Text that compresses somewhat.
fn text(len: usize) -> Vec<u8> {
    let mut seed = 7u32;
    let mut letter = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"etaoin shrdlu\n"[(seed >> 24) as usize % 14]
    };
    (0..len).map(|_| letter()).collect()
}

#[test]
fn compresses_and_says_so() {
    let gzip = gzip("vary = true");
    let body = text(5000);
    let headers = [("Content-Type", "text/html; charset=utf-8"), ("ETag", "\"x\""), ("Accept-Ranges", "bytes")];
    let out = testing::filter(&gzip).request(REQUEST).response(200, &headers, &body).allow_ranges().run();
    assert_eq!(out.header("content-encoding"), Some("gzip"));
    assert_eq!(out.header("vary"), Some("Accept-Encoding"));
    assert_eq!(out.header("etag"), Some("W/\"x\""));
    assert_eq!((out.header("accept-ranges"), out.allow_ranges, out.content_length), (None, false, None));
    assert!(out.body.len() < body.len());
    assert_eq!(unzip(&out.body), body);
}

#[test]
fn passes_on_what_it_is_not_to_compress() {
    let plain = gzip("");
    let body = text(5000);
    let kept = |request: &str, status, headers: &[(&str, &str)]| {
        let out = testing::filter(&plain).request(request).response(status, headers, &body).run();
        assert_eq!(
            (out.header("content-encoding").is_some_and(|coding| coding == "gzip"), out.body == body),
            (false, true)
        );
        assert_eq!(out.content_length, Some(5000));
    };
    kept("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200, HTML);
    kept("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip;q=0\r\n\r\n", 200, HTML);
    kept("GET / HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n", 200, HTML);
    kept("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nVia: 1.1 p\r\n\r\n", 200, HTML);
    kept(REQUEST, 206, HTML);
    kept(REQUEST, 200, &[("Content-Type", "image/png")]);
    kept(REQUEST, 200, &[]);
    kept(REQUEST, 200, &[("Content-Type", "text/html"), ("Content-Encoding", "br")]);
}

#[test]
fn the_least_length_is_inclusive() {
    let gzip = gzip("min_length = 100");
    let is_compressed = |len| {
        let out = testing::filter(&gzip).request(REQUEST).response(200, HTML, text(len)).run();
        out.header("content-encoding").is_some()
    };
    assert!(!is_compressed(99) && is_compressed(100));
    let test = testing::filter(&gzip).request(REQUEST).response(200, HTML, b"short").length_unknown();
    assert_eq!(unzip(&test.run().body), b"short");
}

#[test]
fn a_subrequest_is_not_compressed() {
    let gzip = gzip("");
    let out = testing::filter(&gzip).request(REQUEST).subrequest().response(200, HTML, text(500)).run();
    assert_eq!((out.header("content-encoding"), out.body.len()), (None, 500));
}

#[test]
fn vary_is_told_to_those_who_get_it_uncompressed() {
    let gzip = gzip("vary = true");
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let headers = [("Content-Type", "text/html"), ("Vary", "Accept, accept-encoding")];
    let out = testing::filter(&gzip).request(request).response(200, &headers, text(500)).run();
    assert_eq!(out.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("vary")).count(), 1);
    let out = testing::filter(&gzip).request(request).response(200, HTML, text(500)).run();
    assert_eq!(out.header("vary"), Some("Accept-Encoding"));
}

#[test]
fn clients_that_are_named_get_nothing_compressed() {
    let gzip = gzip("disable = [\"msie6\", \"^curl/\"]\nvary = true");
    for (agent, coding) in [("curl/7", None), ("MSIE 6.0; x", None), ("Mozilla/5.0", Some("gzip"))] {
        let request = REQUEST.replace("\r\n\r\n", &format!("\r\nUser-Agent: {agent}\r\n\r\n"));
        let out = testing::filter(&gzip).request(&request).response(200, HTML, text(500)).run();
        assert_eq!((out.header("content-encoding"), out.header("vary")), (coding, Some("Accept-Encoding")), "{agent}");
    }
}

#[test]
fn a_flush_brings_out_all_that_came_before_it() {
    let gzip = gzip("");
    let body = text(3000);
    let test = testing::filter(&gzip).request(REQUEST).response(200, HTML, &body);
    let out = test.run_chains(|body| {
        let mut first = Buf::from(body.slice(..1000));
        first.set_flush(true);
        let mut last = Buf::from(body.slice(1000..));
        last.set_last(true);
        vec![Chain::from(first), Chain::new(), Chain::from(Buf::copy_from(b"")), Chain::from(last)]
    });
    assert_eq!(unzip(&out.body), body);
    let flushed = *out.flushes.first().expect("a flush");
    let mut early = vec![0; 1000];
    GzDecoder::new(&out.body[..flushed]).read_exact(&mut early).expect("the first part is complete");
    assert_eq!(early, body[..1000]);
}

#[test]
fn bufs_of_any_size_and_of_files_come_out_whole() {
    let body = text(9_000);
    for table in
        ["", "comp_level = 9", "buffers = { number = 1, size = 256 }", "buffers = { number = 2, size = \"1k\" }"]
    {
        let gzip = gzip(table);
        let test = || testing::filter(&gzip).request(REQUEST).response(200, HTML, &body).decode(unzip);
        test().check();
        test().length_unknown().check();
    }
}

#[test]
fn a_short_body_comes_out_in_one_piece() {
    let gzip = gzip("");
    for len in [20, 65_536] {
        let body = text(len);
        let test = testing::filter(&gzip).request(REQUEST).response(200, HTML, &body);
        let pieces = |body: &Bytes| {
            let mut chains: Vec<Chain> = body.chunks(1000).map(|piece| Chain::from(Buf::copy_from(piece))).collect();
            chains.push(Chain::from(Buf::last()));
            chains
        };
        let (whole, in_pieces) = (test.run(), test.run_chains(pieces));
        assert_eq!((whole.sent.len(), in_pieces.sent.len()), (1, 1));
        assert!(unzip(&whole.body) == body && whole.body == in_pieces.body);
    }
    let body = text(65_537);
    let out = testing::filter(&gzip).request(REQUEST).response(200, HTML, &body).run();
    assert!(unzip(&out.body) == body && out.sent.len() > 1, "{:?}", out.sent);
}

#[test]
fn a_body_that_is_longer_than_was_said_comes_out_whole() {
    let gzip = gzip("");
    let body = text(100_000);
    // The kit says the length of the body; this one is of the header only.
    let test = testing::filter(&gzip).request(REQUEST).response(200, HTML, text(50));
    let out = test.run_chains(|_| {
        let mut chains: Vec<Chain> = body.chunks(30_000).map(|piece| Chain::from(Buf::copy_from(piece))).collect();
        chains.push(Chain::from(Buf::last()));
        chains
    });
    assert!(unzip(&out.body) == body);
}

#[test]
fn nothing_and_little_come_out_whole() {
    let gzip = gzip("min_length = 0");
    for body in [&b""[..], b"x", b"hello, hello, hello"] {
        testing::filter(&gzip).request(REQUEST).response(200, HTML, body).decode(unzip).check();
        testing::filter(&gzip).request(REQUEST).response(404, HTML, body).length_unknown().decode(unzip).check();
    }
}

#[test]
fn a_wrong_table_is_refused_with_all_errors() {
    let state = Arc::new(Compressors::create().expect("no reason to fail"));
    let table = "enabled = true\nhttp_version = \"2\"\ntypes = [\"css\"]\nproxied = [\"x\"]\ndisable = [\"(\"]\nbuffers = { size = 1 }";
    let errors = testing::with_state::<Gzip, _>(table, &state).err().expect("wrong");
    for key in ["http_version", "types[0]", "proxied[0]", "disable[0]", "buffers.size"] {
        assert!(errors.lines().any(|line| line.starts_with(&format!("{key}: found"))), "{key} in:\n{errors}");
    }
}
