//! The filter as the server calls it, in virtual time.

use std::time::Duration;

use topnext_limit_rate::LimitRate;
use topnext_module_api::testing;

fn limit_rate(table: &str) -> LimitRate {
    testing::module(table).expect("a valid table")
}

#[test]
fn sends_a_second_of_bytes_a_second() {
    let filter = limit_rate("rate = 1000");
    let body: Vec<u8> = (0..10_000).map(|i| (i % 251) as u8).collect();
    let out = testing::filter(&filter).response(200, &[], &body).run();
    assert_eq!(out.body, body);
    assert_eq!(out.time, Duration::from_secs(9));
    let mut sent = 0;
    for (time, bytes) in &out.sent {
        sent += bytes;
        assert!(sent as u64 <= 1000 * (time.as_secs() + 1), "{:?}", out.sent);
    }
}

#[test]
fn the_first_bytes_are_free() {
    let filter = limit_rate("rate = 10\nafter = \"1k\"");
    let out = testing::filter(&filter).response(200, &[], vec![b'x'; 1024]).run();
    assert_eq!((out.body.len(), out.time), (1024, Duration::ZERO));
    let out = testing::filter(&filter).response(200, &[], vec![b'x'; 1024 + 30]).run();
    assert_eq!((out.body.len(), out.time), (1054, Duration::from_secs(2)));
}

#[test]
fn without_a_rate_nothing_is_held_back() {
    let filter = limit_rate("after = \"1k\"");
    let out = testing::filter(&filter).response(200, &[], vec![b'x'; 100_000]).run();
    assert_eq!((out.body.len(), out.time), (100_000, Duration::ZERO));
}

#[test]
fn subrequests_are_not_limited() {
    let filter = limit_rate("rate = 1");
    let out = testing::filter(&filter).subrequest().response(200, &[], vec![b'x'; 1000]).run();
    assert_eq!(out.time, Duration::ZERO);
}

#[test]
fn whatever_happens_the_body_comes_out_whole() {
    for table in ["rate = 1000", "rate = 7", "rate = 100\nafter = 50", "rate = \"1g\""] {
        let filter = limit_rate(table);
        let body: Vec<u8> = (0..700).map(|i| (i % 251) as u8).collect();
        testing::filter(&filter).response(200, &[], &body).check();
        testing::filter(&filter).response(200, &[], b"").check();
    }
}

#[test]
fn a_rate_may_be_made_of_variables() {
    let body = vec![b'x'; 1000];
    for (uri, seconds) in [("/?rate=100", 9), ("/?rate=1k", 0), ("/?rate=0", 0), ("/?rate=fast", 0), ("/", 0)] {
        let filter = limit_rate("rate = \"$arg_rate\"");
        let request = format!("GET {uri} HTTP/1.1\r\nHost: a\r\n\r\n");
        let out = testing::filter(&filter).request(&request).response(200, &[], &body).run();
        assert_eq!((out.body.len(), out.time), (1000, Duration::from_secs(seconds)), "{uri}");
    }
}
