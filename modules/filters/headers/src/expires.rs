//! The value of `expires`, and the fields it makes (nginx: expires).
//!
//! ```text
//! off     epoch     max     1h     -1     modified +1h
//! ```

use std::time::{Duration, SystemTime};

/// How long a response may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expires {
    /// Expires and Cache-Control are left as they are.
    Off,
    /// It is stale at once: Expires is the begin of 1970.
    Epoch,
    /// For ten years.
    Max,
    /// For so many seconds from now on; less than none: it is stale.
    Access(i64),
    /// For so many seconds after its last modification; from now on if that is not known.
    Modified(i64),
}

/// The values of the two fields.
#[derive(Debug, PartialEq, Eq)]
pub struct Fields {
    /// Of Expires.
    pub expires: String,
    /// Of Cache-Control.
    pub cache_control: String,
}

/// The longest time that is accepted: 100 years. Sums of two such times and a date cannot overflow.
const LONGEST: i64 = 100 * 365 * 86_400;

impl Expires {
    /// Reads the value of the key.
    pub fn parse(text: &str) -> Result<Expires, String> {
        match text {
            "off" => return Ok(Expires::Off),
            "epoch" => return Ok(Expires::Epoch),
            "max" => return Ok(Expires::Max),
            _ => {}
        }
        let (modified, time) = match text.strip_prefix("modified ") {
            Some(time) => (true, time.trim_start()),
            None => (false, text),
        };
        if time.starts_with('@') {
            return Err(format!("found {text:?}; a time of day (@) is not supported"));
        }
        let (sign, digits) = match time.as_bytes().first() {
            Some(b'-') => (-1, &time[1..]),
            Some(b'+') => (1, &time[1..]),
            _ => (1, time),
        };
        let Some(seconds) = seconds(digits) else {
            let valid = "\"off\", \"epoch\", \"max\", a time such as \"30d\" or \"-1\", or \"modified +1h\"";
            return Err(format!("found {text:?}, expected {valid}"));
        };
        Ok(if modified { Expires::Modified(sign * seconds) } else { Expires::Access(sign * seconds) })
    }

    /// The fields for a response that is sent `now`; `None` if they are left as they are.
    pub fn fields(self, now: SystemTime, modified: Option<SystemTime>) -> Option<Fields> {
        let now = unix_seconds(now);
        let (seconds, base) = match self {
            Expires::Off => return None,
            Expires::Epoch => return Some(Fields::new("Thu, 01 Jan 1970 00:00:01 GMT", "no-cache")),
            Expires::Max => return Some(Fields::new("Thu, 31 Dec 2037 23:55:55 GMT", "max-age=315360000")),
            Expires::Access(seconds) => (seconds, now),
            // As in nginx: no time at all is from now on, too.
            Expires::Modified(0) => (0, now),
            Expires::Modified(seconds) => (seconds, modified.map_or(now, unix_seconds)),
        };
        let max_age = base + seconds - now;
        let stale = seconds < 0 || max_age < 0;
        let cache_control = if stale { "no-cache".to_string() } else { format!("max-age={max_age}") };
        Some(Fields { expires: date(base + seconds), cache_control })
    }
}

impl Fields {
    fn new(expires: &str, cache_control: &str) -> Fields {
        Fields { expires: expires.to_string(), cache_control: cache_control.to_string() }
    }
}

/// A time in nginx's units, in seconds: numbers with y, M, w, d, h, m or s, the greater unit first. The last number may
/// lack its unit.
fn seconds(text: &str) -> Option<i64> {
    const UNITS: [(u8, i64); 7] = [
        (b'y', 365 * 86_400),
        (b'M', 30 * 86_400),
        (b'w', 7 * 86_400),
        (b'd', 86_400),
        (b'h', 3_600),
        (b'm', 60),
        (b's', 1),
    ];
    let mut rest = text.as_bytes();
    let mut units = UNITS.as_slice();
    let mut total = 0i64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number: i64 = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
        rest = &rest[digits..];
        let factor = match rest.split_first() {
            None => 1,
            Some((&unit, behind)) => {
                let at = units.iter().position(|&(name, _)| name == unit)?;
                let factor = units[at].1;
                units = &units[at + 1..];
                rest = behind.trim_ascii_start();
                factor
            }
        };
        total = total.checked_add(number.checked_mul(factor)?)?;
    }
    (total <= LONGEST).then_some(total)
}

/// Seconds since 1970, within the range of dates of HTTP.
fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX).min(LAST)
}

/// The last second that a date of HTTP can express: the end of the year 9999.
const LAST: i64 = 253_402_300_799;

/// The nearest date of HTTP.
fn date(seconds: i64) -> String {
    let since = Duration::from_secs(seconds.clamp(0, LAST).unsigned_abs());
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn fields(text: &str, modified: Option<u64>) -> (String, String) {
        let expires = Expires::parse(text).expect("valid");
        let fields = expires.fields(at(784_111_777), modified.map(at)).expect("not off");
        (fields.expires, fields.cache_control)
    }

    #[test]
    fn reads_what_nginx_reads() {
        for (text, expected) in [
            ("off", Expires::Off),
            ("epoch", Expires::Epoch),
            ("max", Expires::Max),
            ("30d", Expires::Access(2_592_000)),
            ("+1h30m", Expires::Access(5_400)),
            ("1d 12h", Expires::Access(129_600)),
            ("-1", Expires::Access(-1)),
            ("0", Expires::Access(0)),
            ("modified +1h", Expires::Modified(3_600)),
            ("modified -24h", Expires::Modified(-86_400)),
        ] {
            assert_eq!(Expires::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        let huge = "9".repeat(30);
        for text in ["", "on", "1x", "--1", "1h1d", "1h 1h", "h", "+", "101y", "modified", "modified max", "1 h", &huge]
        {
            assert!(Expires::parse(text).is_err(), "{text}");
        }
        assert!(Expires::parse("@15h").is_err_and(|message| message.contains("not supported")));
    }

    #[test]
    fn makes_the_fields_of_nginx() {
        let pair = |expires: &str, cache: &str| (expires.to_string(), cache.to_string());
        assert_eq!(fields("1h", None), pair("Sun, 06 Nov 1994 09:49:37 GMT", "max-age=3600"));
        assert_eq!(fields("0", None), pair("Sun, 06 Nov 1994 08:49:37 GMT", "max-age=0"));
        assert_eq!(fields("-1", None), pair("Sun, 06 Nov 1994 08:49:36 GMT", "no-cache"));
        assert_eq!(fields("epoch", None).1, "no-cache");
        assert_eq!(fields("max", None).1, "max-age=315360000");
        assert_eq!(Expires::Off.fields(at(1), None), None);
    }

    #[test]
    fn counts_from_the_last_modification() {
        assert_eq!(fields("modified +1h", Some(784_111_777 - 600)).1, "max-age=3000");
        assert_eq!(fields("modified +1h", Some(784_111_777 - 7200)).1, "no-cache");
        assert_eq!(fields("modified +1h", None).1, "max-age=3600");
    }

    #[test]
    fn stays_within_the_dates_of_http() {
        assert_eq!(date(-5), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(i64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
