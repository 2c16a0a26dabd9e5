//! Time: a monotonic clock for timers, and wall-clock time as text for the Date field and both logs, formatted once a
//! second and thread. Both are read from the kernel's last tick, which is exact to a few milliseconds and costs a tenth of
//! an exact clock.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, UNIX_EPOCH},
};

use jiff::{Timestamp, tz::TimeZone};
use rustix::time::{ClockId, clock_gettime};

#[derive(Default)]
struct Texts {
    second: u64,
    date: String,
    error_log: String,
    access_log: String,
    iso8601: String,
}

thread_local! {
    static TEXTS: RefCell<Texts> = RefCell::default();
}

thread_local! {
    /// The current second since 1970, on threads that call [`update`]; 0 on others.
    static SECOND: Cell<u64> = const { Cell::new(0) };
}

fn second_now() -> u64 {
    u64::try_from(clock_gettime(ClockId::RealtimeCoarse).tv_sec).unwrap_or(0)
}

/// Milliseconds of a clock that never goes back (CLOCK_MONOTONIC).
pub fn monotonic_ms() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    // Neither part of a time since the start of the machine is negative.
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// Looks at the clock. An event loop does so once a turn; then its texts cost no call of the system.
pub fn update() {
    SECOND.set(second_now());
}

/// Seconds since 1970, as the texts have them.
pub fn second() -> u64 {
    match SECOND.get() {
        0 => second_now(),
        second => second,
    }
}

fn with<T>(read: impl FnOnce(&Texts) -> T) -> T {
    let second = second();
    TEXTS.with_borrow_mut(|texts| {
        if texts.second != second || texts.date.is_empty() {
            texts.second = second;
            texts.date = http_date(second);
            let local = Timestamp::from_second(second as i64).unwrap_or_default().to_zoned(TimeZone::system());
            texts.error_log = local.strftime("%Y/%m/%d %H:%M:%S").to_string();
            texts.access_log = local.strftime("%d/%b/%Y:%H:%M:%S %z").to_string();
            texts.iso8601 = local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        }
        read(texts)
    })
}

/// The Date field's value (RFC 9110, 5.6.7), and the second since 1970 that it stands for.
pub fn with_date<T>(read: impl FnOnce(&str, u64) -> T) -> T {
    with(|texts| read(&texts.date, texts.second))
}

/// The time at the start of a line of the error log, local time.
pub fn write_error_log_time(out: &mut String) {
    with(|texts| out.push_str(&texts.error_log));
}

/// $time_local, as in the access log.
pub fn write_access_log_time(out: &mut Vec<u8>) {
    with(|texts| out.extend_from_slice(texts.access_log.as_bytes()));
}

/// $time_iso8601, as access logs may have it.
pub fn write_iso8601(out: &mut Vec<u8>) {
    with(|texts| out.extend_from_slice(texts.iso8601.as_bytes()));
}

/// Milliseconds since 1970.
pub fn realtime_ms() -> u64 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// A second since 1970 as a date of HTTP (RFC 9110, 5.6.7).
pub fn http_date(second: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_an_http_date() {
        let date = with_date(|date, _| date.to_string());
        assert_eq!(date.len(), 29, "{date}");
        assert!(httpdate::parse_http_date(&date).is_ok(), "{date}");
    }
}
