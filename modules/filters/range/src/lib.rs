//! Sends parts of responses to clients that ask for them: RFC 9110, section 14 (nginx: the range filter).
//!
//! ```toml
//! [[http.server.location]]
//! path = "/video/"
//! range.max_ranges = 1        # nginx: max_ranges; 0 turns ranges off
//! ```
//!
//! It acts on responses that say that they may be sent in ranges ([`Request::allow_ranges`]), as files do, and whose length
//! is known. One range is answered by 206 with Content-Range, several by 206 with multipart/byteranges in nginx's form and
//! in the order asked for, and none that the body has by 416. The whole response is sent for a Range that has another
//! unit than bytes, that adds up to more than the body or has too many parts, and for an If-Range that names another
//! version: by date, or by a strong tag.
//!
//! Nothing is read or copied: ranges of files stay ranges of files, which leave by sendfile.

#![forbid(unsafe_code)]

mod cut;
pub mod parse;

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use topnext_module_api::prelude::*;

use cut::{Cut, Part};
use parse::{ByteRange, Wanted, parse};

/// The table `range`.
#[derive(Config)]
pub struct Table {
    /// The most ranges that one response has; a request for more gets the whole. 0: no ranges at all. Default: no limit.
    max_ranges: Option<u32>,
}

/// How responses of a location are sent in ranges.
pub struct Range {
    boundaries: Arc<Boundaries>,
    /// 0: not at all.
    max_ranges: usize,
}

/// Numbers that tell the parts of multipart responses apart, of which no two are the same.
pub struct Boundaries(AtomicU64);

impl State for Boundaries {
    fn create() -> Result<Boundaries, String> {
        // Where it starts is random, so that nobody can put the next ones into a file.
        Ok(Boundaries(AtomicU64::new(RandomState::new().hash_one(0))))
    }
}

export_module! {
    name: "range",
    module: Range,
    provides: [filter],
    state: Boundaries,
    // A part of what they make, or have decided about, is none of what they would make of a part.
    after: ["not_modified", "addition", "ssi", "sub", "gzip"],
    always: true,
}

impl Filter for Range {
    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        if !r.allow_ranges() || self.max_ranges == 0 || r.status() != 200 || !r.is_main() {
            return next.call(r);
        }
        let Some(length) = r.content_length() else {
            return next.call(r);
        };
        let value = r.header_in("Range").filter(|_| is_same_version(r));
        let ranges = match value.map_or(Wanted::Whole, |value| parse(value, length, self.max_ranges)) {
            Wanted::Ranges(ranges) => ranges,
            Wanted::Whole => {
                r.set_header_out("Accept-Ranges", "bytes");
                return next.call(r);
            }
            Wanted::Unsatisfiable => {
                r.set_header_out("Content-Range", format!("bytes */{length}"));
                return Code::status(416);
            }
        };

        r.set_status(206);
        let parts = match ranges[..] {
            [range] => {
                r.set_header_out("Content-Range", content_range(range, length));
                vec![Part { head: String::new(), range }]
            }
            _ => self.multipart(r, ranges, length),
        };
        let cut = Cut::new(parts);
        r.set_content_length(Some(cut.bytes()));
        if r.method() != b"HEAD" {
            r.set_context(cut);
        }
        next.call(r)
    }

    fn body_filter(&self, r: &mut Request<'_>, chain: Chain, next: BodyNext<'_>) -> Code {
        let Some(mut cut) = r.context::<Cut>() else {
            return next.call(r, chain);
        };
        match cut.run(chain) {
            Ok(out) => next.call(r, out),
            Err(error) => {
                log!(r, Level::Error, "{error}");
                Code::ERROR
            }
        }
    }
}

impl Range {
    /// The parts of a response of several ranges, the last of which is the closing line; and its Content-Type.
    fn multipart(&self, r: &mut Request<'_>, ranges: Vec<ByteRange>, length: u64) -> Vec<Part> {
        let boundary = format!("{:020}", self.boundaries.0.fetch_add(1, Ordering::Relaxed));
        let content_type = match r.header_out("Content-Type") {
            Some(value) => format!("Content-Type: {}\r\n", String::from_utf8_lossy(value)),
            None => String::new(),
        };
        r.set_header_out("Content-Type", format!("multipart/byteranges; boundary={boundary}"));
        let part = |range| {
            let content_range = content_range(range, length);
            let head = format!("\r\n--{boundary}\r\n{content_type}Content-Range: {content_range}\r\n\r\n");
            Part { head, range }
        };
        let mut parts: Vec<Part> = ranges.into_iter().map(part).collect();
        parts.push(Part { head: format!("\r\n--{boundary}--\r\n"), range: ByteRange { start: 0, end: 0 } });
        parts
    }
}

/// The value of Content-Range (RFC 9110, section 14.4).
fn content_range(range: ByteRange, length: u64) -> String {
    format!("bytes {}-{}/{length}", range.start, range.end - 1)
}

/// Whether If-Range, if there is one, names the version that is there (RFC 9110, section 13.1.5).
fn is_same_version(r: &Request<'_>) -> bool {
    let Some(wanted) = r.header_in("If-Range") else { return true };
    if wanted.ends_with(b"\"") {
        // A weak tag does not promise the same bytes.
        return wanted.starts_with(b"\"") && r.header_out("ETag") == Some(wanted);
    }
    r.header_out("Last-Modified").and_then(date).is_some_and(|there| date(wanted) == Some(there))
}

/// A date of HTTP in any of its three formats (RFC 9110, section 5.6.7).
fn date(text: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(text).ok()?.trim()).ok()
}

impl Module for Range {
    type Config = Table;

    fn new(table: Table, setup: &Setup<'_>) -> Result<Range, ConfigErrors> {
        let max_ranges = table.max_ranges.map_or(usize::MAX, |max| max as usize);
        Ok(Range { boundaries: setup.state(), max_ranges })
    }
}
