//! Durations and sizes, as nginx writes them.
//!
//! ```text
//! "500ms"  "75s"  "1m30s"  "1h"  "2d"  "1w"  "1M"  "1y"    a bare number: seconds
//! "8k"  "1m"  "2g"                                         a bare number: bytes
//! ```
//!
//! See "Configuration file measurement units" in nginx's documentation. A month has 30 days, a year 365.

use std::time::Duration;

use topnext_module_api::Size;

use super::tree::Value;

/// The longest duration that is accepted: 100 years. A later `now + duration` can then never overflow.
pub const LONGEST: Duration = Duration::from_secs(100 * 365 * 86400);

/// The duration that a value stands for: a string, or an integer of seconds. `None` if it is neither.
pub fn duration(value: &Value) -> Option<Duration> {
    match value {
        Value::String(text) => parse_duration(text),
        Value::Integer(seconds) => {
            Some(Duration::from_secs(u64::try_from(*seconds).ok()?)).filter(|duration| *duration <= LONGEST)
        }
        _ => None,
    }
}

/// Parses a duration: numbers with the units y, M, w, d, h, m, s, ms, each at most once and the greater one first; the
/// last number may lack its unit and is then seconds. Spaces may stand between two parts, but not before a unit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 8] = [
        ("y", 365 * 86_400_000),
        ("M", 30 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let mut rest = text;
    let mut next_unit = 0;
    let mut total = 0u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, behind) = leading_number(rest)?;
        let letters = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, behind) = behind.split_at(letters);
        let unit = if unit.is_empty() && behind.is_empty() { "s" } else { unit };
        let (index, (_, millis)) = UNITS.iter().enumerate().skip(next_unit).find(|(_, (name, _))| *name == unit)?;
        total = total.checked_add(number.checked_mul(*millis)?)?;
        next_unit = index + 1;
        rest = behind.trim_start_matches(' ');
        if rest.is_empty() && !behind.is_empty() {
            return None;
        }
    }
    Some(Duration::from_millis(total)).filter(|duration| *duration <= LONGEST)
}

/// The number of bytes that a value stands for: a string, or an integer. `None` if it is neither.
pub fn size(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => Size::parse(text).map(|size| size.0),
        Value::Integer(bytes) => u64::try_from(*bytes).ok(),
        _ => None,
    }
}

/// Splits digits off the front. `None` without a digit, or if the number overflows.
fn leading_number(text: &str) -> Option<(u64, &str)> {
    let (digits, rest) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let millis = |text| parse_duration(text).map(|duration| duration.as_millis());
        assert_eq!(millis("500ms"), Some(500));
        assert_eq!(millis("75s"), Some(75_000));
        assert_eq!(millis("75"), Some(75_000));
        assert_eq!(millis("1m30s"), Some(90_000));
        assert_eq!(millis("1m30"), Some(90_000));
        assert_eq!(millis("1h 30m"), Some(5_400_000));
        assert_eq!(millis("2d"), Some(172_800_000));
        assert_eq!(millis("1w"), Some(604_800_000));
        assert_eq!(millis("1M"), Some(2_592_000_000));
        assert_eq!(millis("1y"), Some(31_536_000_000));
        assert_eq!(millis("0"), Some(0));
        for bad in [
            "", " ", "s", "75 sec", "75 s", "1s1m", "1s1s", "1x", "-1s", "+1s", "1.5s", "1s ", " 1s", "101y", "é", "1é",
        ] {
            assert_eq!(millis(bad), None, "{bad:?}");
        }
        assert_eq!(millis("99999999999999999999s"), None);
        assert_eq!(millis("9999999999999999999y"), None);
        assert_eq!(duration(&Value::Integer(5)), Some(Duration::from_secs(5)));
        assert_eq!(duration(&Value::Integer(-5)), None);
        assert_eq!(duration(&Value::Integer(i64::MAX)), None);
        assert_eq!(duration(&Value::Bool(true)), None);
    }

    #[test]
    fn sizes() {
        assert_eq!(size(&Value::String("8k".to_owned())), Some(8192));
        assert_eq!(size(&Value::String("8kb".to_owned())), None);
        assert_eq!(size(&Value::Integer(0)), Some(0));
        assert_eq!(size(&Value::Integer(-1)), None);
    }
}
