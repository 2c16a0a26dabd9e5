//! The field Range, and the parts that module range then sends.
//!
//! The first byte is the number of ranges allowed, the second the length of the body, the rest the field's value. The
//! answer is the whole body, 416, or 206 with exactly the bytes that its Content-Range says.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use topnext_module_api::{State, testing};
use topnext_range::{
    Boundaries, Range,
    parse::{ByteRange, Wanted, parse},
};

const BODY: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

fuzz_target!(|data: &[u8]| {
    let [max, length, value @ ..] = data else { return };
    let (max, length) = (usize::from(*max) % 8, usize::from(*length) % (BODY.len() + 1));
    let wanted = parse(value, length as u64, max);
    if let Wanted::Ranges(ranges) = &wanted {
        assert!((1..=max).contains(&ranges.len()));
        assert!(ranges.iter().all(|range| range.start < range.end && range.end <= length as u64));
        assert!(ranges.iter().map(|range| range.bytes()).sum::<u64>() <= length as u64);
    }
    // With another length, at the border of the numbers, only the bounds matter.
    if let Wanted::Ranges(ranges) = parse(value, i64::MAX as u64, usize::MAX) {
        assert!(ranges.iter().all(|range| range.start < range.end && range.end <= i64::MAX as u64));
    }
    if let Ok(value) = str::from_utf8(value)
        && value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
    {
        serve(value, &BODY[..length], max, &parse(value.trim_matches([' ', '\t']).as_bytes(), length as u64, max));
    }
});

fn serve(value: &str, body: &[u8], max: usize, wanted: &Wanted) {
    let state = Arc::new(Boundaries::create().expect("a state"));
    let filter: Range = testing::with_state(&format!("max_ranges = {max}"), &state).expect("a valid table");
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nRange: {value}\r\n\r\n");
    let out = testing::filter(&filter).request(&request).response(200, &[], body).allow_ranges().run();
    if max == 0 {
        assert_eq!((out.status, out.text().as_bytes()), (200, body));
        return;
    }
    match wanted {
        Wanted::Whole => assert_eq!((out.status, out.text().as_bytes()), (200, body)),
        Wanted::Unsatisfiable => assert_eq!((out.status, out.header_sent), (416, false)),
        Wanted::Ranges(ranges) => {
            assert_eq!(out.status, 206);
            let bytes = |range: &ByteRange| &body[range.start as usize..range.end as usize];
            let text = |range: &ByteRange| format!("bytes {}-{}/{}", range.start, range.end - 1, body.len());
            if let [range] = &ranges[..] {
                assert_eq!(out.header("Content-Range"), Some(&*text(range)));
                assert_eq!(out.text().as_bytes(), bytes(range));
                return;
            }
            let kind = out.header("Content-Type").expect("a type");
            let boundary = kind.strip_prefix("multipart/byteranges; boundary=").expect("a boundary");
            let mut expected = Vec::new();
            for range in ranges {
                let head = format!("\r\n--{boundary}\r\nContent-Range: {}\r\n\r\n", text(range));
                expected.extend_from_slice(head.as_bytes());
                expected.extend_from_slice(bytes(range));
            }
            expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
            assert_eq!(out.text().as_bytes(), expected);
        }
    }
    assert!(out.content_length.is_none_or(|length| !out.header_sent || length == out.text().len() as u64));
}
