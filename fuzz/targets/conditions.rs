//! The conditions of a request (If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since) as module not_modified
//! reads them.
//!
//! Each line of the input is a condition; its first byte says which. The answer is 200, 304 or 412, and the last two only
//! where a condition can ask for them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use topnext_module_api::testing;
use topnext_not_modified::NotModified;

const HEADERS: &[(&str, &str)] = &[("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("ETag", "\"x\"")];

fuzz_target!(|data: &[u8]| {
    let mut request = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned();
    let (mut modified, mut failed) = (false, false);
    for line in data.split(|&byte| byte == b'\n').take(16) {
        let [first, value @ ..] = line else { continue };
        let value = String::from_utf8_lossy(value);
        if value.chars().any(|letter| letter.is_control()) {
            continue;
        }
        let name = ["If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since"][usize::from(*first) % 4];
        modified |= usize::from(*first) % 4 < 2;
        failed |= usize::from(*first) % 4 > 1;
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    let filter: NotModified = testing::module("").expect("defaults");
    let out = testing::filter(&filter).request(&request).response(200, HEADERS, "hello").run();
    match out.status {
        200 => assert_eq!(out.text(), "hello"),
        304 => assert!(modified && out.header("etag") == Some("\"x\"")),
        412 => assert!(failed && !out.header_sent),
        status => panic!("status {status}"),
    }
});
