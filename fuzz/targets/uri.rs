//! The normal form of a path: decoded once, without "." and "..", never above the root, without NUL.
//!
//! Held against a second, simple way to make it: decode all, split at slashes, keep a stack. A normal form that is
//! escaped is its own normal form.

#![no_main]

use libfuzzer_sys::fuzz_target;
use topnext::http1::normalize;

fuzz_target!(|data: &[u8]| {
    // A client cannot send these in a target: they end it, or the parser of the head refuses them.
    if data.iter().any(|&byte| byte <= b' ' || byte == 0x7f || byte == b'?' || byte == b'#') {
        return;
    }
    let path = [b"/", data].concat();
    for merge_slashes in [true, false] {
        let normal = normalize(&path, merge_slashes).map(|normal| normal.or(&path).to_vec());
        assert_eq!(normal.as_ref().ok(), simple(&path, merge_slashes).as_ref());
        let Ok(normal) = normal else { continue };
        assert!(normal.starts_with(b"/") && !normal.contains(&0));
        assert!(!normal.split(|&byte| byte == b'/').any(|segment| segment == b"." || segment == b".."));
        assert!(!merge_slashes || !normal.windows(2).any(|two| two == b"//"));
        let escaped = escape(&normal);
        assert_eq!(normalize(&escaped, merge_slashes).map(|again| again.or(&escaped).to_vec()), Ok(normal));
    }
});

/// `None` for what has to be refused.
fn simple(path: &[u8], merge_slashes: bool) -> Option<Vec<u8>> {
    let decoded = decode(path)?;
    let mut segments = decoded[1..].split(|&byte| byte == b'/').peekable();
    let (mut stack, mut slash) = (Vec::new(), false);
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        slash = last && matches!(segment, b"" | b"." | b"..");
        match segment {
            b"." => {}
            b".." => {
                stack.pop()?;
            }
            b"" if last || merge_slashes => {}
            _ => stack.push(segment),
        }
    }
    let mut out = Vec::new();
    for segment in &stack {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if slash || out.is_empty() {
        out.push(b'/');
    }
    Some(out)
}

fn decode(path: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut rest) = (Vec::new(), path);
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            rest = after;
            let digits = str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
            out.push(u8::from_str_radix(digits, 16).ok().filter(|&byte| byte != 0)?);
        } else {
            out.push(*byte);
        }
    }
    Some(out)
}

fn escape(path: &[u8]) -> Vec<u8> {
    path.iter().flat_map(|&byte| if byte == b'/' { vec![byte] } else { format!("%{byte:02X}").into_bytes() }).collect()
}
