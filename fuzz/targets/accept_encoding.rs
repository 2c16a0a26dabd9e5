//! Accept-Encoding as module gzip reads it.
//!
//! A list means the same in one field and in several, in any case of letters, and with white space around its commas.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../modules/filters/gzip/src/accept.rs"]
mod accept;

fuzz_target!(|data: &[u8]| {
    let accepted = accept::accepts_gzip(std::iter::once(data));
    assert_eq!(accept::accepts_gzip(data.split(|&byte| byte == b',')), accepted);
    assert_eq!(accept::accepts_gzip(std::iter::once(&*data.to_ascii_uppercase())), accepted);
    let spaced = data.split(|&byte| byte == b',').collect::<Vec<_>>().join(&b" ,\t"[..]);
    assert_eq!(accept::accepts_gzip(std::iter::once(&*spaced)), accepted);
    let text = data.to_ascii_lowercase();
    let names = |what: &[u8]| text.windows(what.len()).any(|window| window == what);
    assert!(!accepted || names(b"gzip") || names(b"*"));
    // What stands behind it may forbid gzip, but a plain word allows what nothing forbids.
    if !names(b"q=0") && !names(b";") {
        assert!(accept::accepts_gzip([data, b"gzip"].into_iter()));
    }
});
