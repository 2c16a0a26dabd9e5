//! The field Range (RFC 9110, section 14.1.2 and 14.2), read as nginx reads it. No I/O: bytes in, ranges out.
//!
//! ```text
//! Range: bytes=0-99            the first 100 bytes
//! Range: bytes=100-            all but the first 100
//! Range: bytes=-100            the last 100
//! Range: bytes=0-0, -1         the first and the last one
//! ```

/// Some bytes of a body: `start..end`, not empty, and `end` is at most the length of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// The first byte.
    pub start: u64,
    /// Behind the last byte.
    pub end: u64,
}

impl ByteRange {
    /// How many bytes it has: at least one.
    pub fn bytes(self) -> u64 {
        self.end - self.start
    }
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of the body. The field is none that we understand, or asks for so many or so large ranges that sending all of it
    /// costs less.
    Whole,
    /// These ranges, at least one, in the order asked for. Together they are no longer than the body, so none of them is
    /// asked for twice but in place of another part.
    Ranges(Vec<ByteRange>),
    /// The body has none of the ranges asked for, or they are malformed: 416.
    Unsatisfiable,
}

/// The unit that is known here. Compared without regard to case.
const UNIT: &[u8] = b"bytes=";

/// The largest number in a field, nginx's off_t: with it no sum of two overflows.
const MAX: u64 = i64::MAX as u64;

/// Reads the value of a field Range for a body of `length` bytes.
///
/// `max` is the greatest number of satisfiable ranges (nginx: max_ranges); one more and the body is sent as a whole.
pub fn parse(value: &[u8], length: u64, max: usize) -> Wanted {
    let Some((unit, set)) = value.split_at_checked(UNIT.len()) else { return Wanted::Whole };
    if !unit.eq_ignore_ascii_case(UNIT) || set.is_empty() {
        return Wanted::Whole;
    }
    let mut ranges = Vec::new();
    let mut sum = 0u64;
    for spec in set.split(|&byte| byte == b',') {
        let Some(range) = Spec::read(spec).map(|spec| spec.of(length)) else { return Wanted::Unsatisfiable };
        if range.start < range.end {
            if ranges.len() == max {
                return Wanted::Whole;
            }
            ranges.push(range);
            // At most as many ranges as the field has bytes, each at most 2^63: saturating is enough to be too large.
            sum = sum.saturating_add(range.bytes());
        } else if range.start == 0 {
            // The body is empty, which is the whole of it.
            return Wanted::Whole;
        }
    }
    if ranges.is_empty() {
        return Wanted::Unsatisfiable;
    }
    if sum > length { Wanted::Whole } else { Wanted::Ranges(ranges) }
}

/// One range as it is written.
#[derive(Clone, Copy)]
enum Spec {
    /// `5-7`: from one byte to another, both included; to the end of the body without the second.
    From(u64, Option<u64>),
    /// `-3`: so many bytes at the end.
    Suffix(u64),
}

impl Spec {
    /// Reads one; `None` if it is malformed. Spaces may stand around each of its parts.
    fn read(text: &[u8]) -> Option<Spec> {
        let text = trim(text);
        if let Some(suffix) = text.strip_prefix(b"-") {
            return Some(Spec::Suffix(number(suffix)?));
        }
        let dash = text.iter().position(|&byte| byte == b'-')?;
        let (first, last) = (trim(text.get(..dash)?), trim(text.get(dash + 1..)?));
        let last = if last.is_empty() { None } else { Some(number(last)?) };
        Some(Spec::From(number(first)?, last))
    }

    /// The bytes of a body of `length` bytes; `start >= end` if it has none of them.
    fn of(self, length: u64) -> ByteRange {
        match self {
            Spec::From(start, None) => ByteRange { start, end: length },
            // The last byte is at most MAX.
            Spec::From(start, Some(last)) => ByteRange { start, end: length.min(last + 1) },
            Spec::Suffix(bytes) => ByteRange { start: length.saturating_sub(bytes), end: length },
        }
    }
}

/// Without the spaces around it. (A tab is malformed, as in nginx.)
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] | [rest @ .., b' '] = text {
        text = rest;
    }
    text
}

/// A number of at least one digit, and at most [`MAX`].
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &digit| {
        let digit = char::from(digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit)).filter(|number| *number <= MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMIT: usize = usize::MAX;

    /// What becomes of a field for a body of 100 bytes, as text.
    fn of(value: &str) -> String {
        of_length(value, 100, NO_LIMIT)
    }

    fn of_length(value: &str, length: u64, max: usize) -> String {
        match parse(value.as_bytes(), length, max) {
            Wanted::Whole => "whole".to_string(),
            Wanted::Unsatisfiable => "416".to_string(),
            Wanted::Ranges(ranges) => {
                let text = |range: &ByteRange| format!("{}..{}", range.start, range.end);
                ranges.iter().map(text).collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn single_ranges() {
        for (value, expected) in [
            ("bytes=0-0", "0..1"),
            ("bytes=0-99", "0..100"),
            ("bytes=0-", "0..100"),
            ("bytes=99-", "99..100"),
            ("bytes=10-19", "10..20"),
            ("bytes=10-100", "10..100"),
            ("bytes=10-9223372036854775807", "10..100"),
            ("bytes=-1", "99..100"),
            ("bytes=-100", "0..100"),
            ("bytes=-101", "0..100"),
            ("BYTES=5-6", "5..7"),
            ("bytes= 5 - 6 ", "5..7"),
            ("bytes=0005-06", "5..7"),
        ] {
            assert_eq!(of(value), expected, "{value}");
        }
    }

    #[test]
    fn several_ranges_stay_in_their_order() {
        assert_eq!(of("bytes=0-0,-1"), "0..1 99..100");
        assert_eq!(of("bytes=50-59 , 0-9"), "50..60 0..10");
        assert_eq!(of("bytes=0-9,5-14"), "0..10 5..15");
        assert_eq!(of("bytes=200-,7-7"), "7..8");
    }

    #[test]
    fn what_the_body_has_not() {
        for value in ["bytes=100-", "bytes=100-200", "bytes=5-4", "bytes=-0", "bytes=100-,200-300"] {
            assert_eq!(of(value), "416", "{value}");
        }
    }

    #[test]
    fn what_is_malformed_behind_the_unit() {
        for value in [
            "bytes=x",
            "bytes=-",
            "bytes=--1",
            "bytes=,",
            "bytes=0-1,",
            "bytes=,0-1",
            "bytes=0-1,,2-3",
            "bytes=1",
            "bytes=1-x",
            "bytes=1-2x",
            "bytes=0x1-2",
            "bytes=1-2-3",
            "bytes=+1-2",
            "bytes=- 1",
            "bytes=1 2-3",
            "bytes=\t1-2",
            "bytes=9223372036854775808-",
            "bytes=0-9223372036854775808",
            "bytes=-99999999999999999999",
        ] {
            assert_eq!(of(value), "416", "{value}");
        }
    }

    #[test]
    fn what_is_no_range_of_bytes_is_ignored() {
        for value in ["", "bytes", "bytes=", "bytes:0-1", "lines=0-1", "0-1", " bytes=0-1", "bytes =0-1", "octets=0-1"]
        {
            assert_eq!(of(value), "whole", "{value}");
        }
    }

    #[test]
    fn more_than_the_body_is_the_body() {
        assert_eq!(of("bytes=0-,0-0"), "whole");
        assert_eq!(of("bytes=0-49,50-99"), "0..50 50..100");
        assert_eq!(of("bytes=0-49,49-99"), "whole");
        assert_eq!(of(&format!("bytes={}", vec!["0-"; 1000].join(","))), "whole");
    }

    #[test]
    fn more_ranges_than_allowed_are_the_body() {
        assert_eq!(of_length("bytes=0-0,1-1", 100, 2), "0..1 1..2");
        assert_eq!(of_length("bytes=0-0,1-1,2-2", 100, 2), "whole");
        assert_eq!(of_length("bytes=0-0,1-1,200-", 100, 2), "0..1 1..2");
        assert_eq!(of_length("bytes=0-0", 100, 0), "whole");
    }

    #[test]
    fn an_empty_body() {
        assert_eq!(of_length("bytes=0-", 0, NO_LIMIT), "whole");
        assert_eq!(of_length("bytes=-5", 0, NO_LIMIT), "whole");
        assert_eq!(of_length("bytes=0-0", 0, NO_LIMIT), "whole");
        assert_eq!(of_length("bytes=1-", 0, NO_LIMIT), "416");
    }

    #[test]
    fn a_body_of_any_length() {
        assert_eq!(of_length("bytes=0-", u64::MAX, NO_LIMIT), format!("0..{}", u64::MAX));
        assert_eq!(of_length("bytes=-1", u64::MAX, NO_LIMIT), format!("{}..{}", u64::MAX - 1, u64::MAX));
        assert_eq!(of_length("bytes=0-9223372036854775807", u64::MAX, NO_LIMIT), "0..9223372036854775808");
    }
}
