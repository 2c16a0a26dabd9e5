//! Answers conditional requests: 304 if the client has the response already, 412 if what it asks for has changed.
//!
//! ```toml
//! [[http.server.location]]
//! path = "/"
//! not_modified.if_modified_since = "before"     # nginx: if_modified_since
//! ```
//!
//! It acts on responses with status 200 to GET and HEAD, by their ETag and Last-Modified, in the order of nginx:
//! If-Unmodified-Since, If-Match, and then If-Modified-Since and If-None-Match, which must both say "not modified" if both
//! are there. Tags are compared as in RFC 9110, section 8.8.3.2: weakly for If-None-Match, strongly for If-Match.

#![forbid(unsafe_code)]

use std::time::SystemTime;

use topnext_module_api::prelude::*;

/// The table `not_modified`.
#[derive(Config)]
pub struct NotModified {
    /// How If-Modified-Since is compared with the time of the response: off (the response always counts as modified),
    /// exact (it must be the same), before (the response must not be younger).
    #[config(default = "exact")]
    if_modified_since: IfModifiedSince,
}

/// How If-Modified-Since is compared.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfModifiedSince {
    /// Not at all: the response always counts as modified.
    Off,
    /// The times must be equal.
    Exact,
    /// The time of the response must be less than or equal to that of the request.
    Before,
}

export_module! {
    name: "not_modified",
    module: NotModified,
    provides: [filter],
    always: true,
}

impl Filter for NotModified {
    const BODY: bool = false;

    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        // First what is cheap and usual: most requests have no conditions.
        if !r.is_conditional() || r.status() != 200 || !r.is_main() || !matches!(r.method(), b"GET" | b"HEAD") {
            return next.call(r);
        }
        let request = Conditions {
            if_unmodified_since: r.header_in("If-Unmodified-Since"),
            if_match: all(r, "If-Match"),
            if_modified_since: r.header_in("If-Modified-Since"),
            if_none_match: all(r, "If-None-Match"),
        };
        match request.verdict(r.header_out("Last-Modified"), r.header_out("ETag"), self.if_modified_since) {
            Verdict::Send => next.call(r),
            Verdict::Failed => Code::status(412),
            Verdict::NotModified => {
                r.set_status(304);
                r.set_content_length(None);
                for name in ["Content-Type", "Accept-Ranges", "Content-Encoding"] {
                    r.remove_header_out(name);
                }
                next.call(r)
            }
        }
    }
}

/// What becomes of a response.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Send,
    NotModified,
    Failed,
}

/// The conditions of a request. A list may be spread over several fields.
#[derive(Default)]
struct Conditions<'a> {
    if_unmodified_since: Option<&'a [u8]>,
    if_match: Vec<&'a [u8]>,
    if_modified_since: Option<&'a [u8]>,
    if_none_match: Vec<&'a [u8]>,
}

impl Conditions<'_> {
    /// Holds the conditions against the response's Last-Modified and ETag.
    fn verdict(&self, last_modified: Option<&[u8]>, etag: Option<&[u8]>, mode: IfModifiedSince) -> Verdict {
        let last_modified = last_modified.and_then(date);
        // RFC 9110, section 13.1.4: without a time of modification, or with a date that is none, it is ignored.
        if let (Some(limit), Some(modified)) = (self.if_unmodified_since.and_then(date), last_modified)
            && modified > limit
        {
            return Verdict::Failed;
        }
        if !self.if_match.is_empty() && !any_matches(&self.if_match, etag, strong_match) {
            return Verdict::Failed;
        }
        if self.if_modified_since.is_none() && self.if_none_match.is_empty() {
            return Verdict::Send;
        }
        if self.if_modified_since.is_some_and(|since| is_modified(since, last_modified, mode)) {
            return Verdict::Send;
        }
        if !self.if_none_match.is_empty() && !any_matches(&self.if_none_match, etag, weak_match) {
            return Verdict::Send;
        }
        Verdict::NotModified
    }
}

/// All request header fields of a name, which together make one list.
fn all<'h>(r: &Request<'h>, name: &str) -> Vec<&'h [u8]> {
    (0..).map_while(|nth| r.header_in_nth(name, nth)).collect()
}

/// A date of HTTP in any of its three formats (RFC 9110, section 5.6.7).
fn date(text: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(text).ok()?.trim()).ok()
}

/// Whether the response is younger than the client's, as far as the dates tell.
fn is_modified(since: &[u8], last_modified: Option<SystemTime>, mode: IfModifiedSince) -> bool {
    let (Some(since), Some(modified)) = (date(since), last_modified) else {
        return true;
    };
    match mode {
        IfModifiedSince::Off => true,
        IfModifiedSince::Exact => modified != since,
        IfModifiedSince::Before => modified > since,
    }
}

/// Whether a list of tags names this one. `*` names any response that is there.
fn any_matches(lists: &[&[u8]], etag: Option<&[u8]>, matches: fn(&[u8], &[u8]) -> bool) -> bool {
    if lists.iter().any(|list| list.trim_ascii() == b"*") {
        return true;
    }
    let Some(etag) = etag else { return false };
    lists.iter().any(|list| Tags(list).any(|tag| matches(tag, etag)))
}

/// RFC 9110, section 8.8.3.2: equal, whether weak or not.
fn weak_match(one: &[u8], other: &[u8]) -> bool {
    opaque(one) == opaque(other)
}

/// The tag without its mark of weakness.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// RFC 9110, section 8.8.3.2: equal, and not weak.
fn strong_match(one: &[u8], other: &[u8]) -> bool {
    one == other && !one.starts_with(b"W/")
}

/// The entity tags of a list: `"a", W/"b"`. Ends at the first thing that is no tag.
struct Tags<'a>(&'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.0.iter().position(|byte| !b" \t,".contains(byte))?;
        let rest = self.0.get(start..)?;
        let open = if rest.starts_with(b"W/") { 2 } else { 0 };
        let quoted = rest.get(open..)?.strip_prefix(b"\"")?;
        let close = quoted.iter().position(|&byte| byte == b'"')?;
        // Up to and with the second quote.
        let (tag, behind) = rest.split_at_checked(open + close + 2)?;
        self.0 = behind;
        Some(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &[u8] = b"Sun, 06 Nov 1994 08:49:38 GMT";
    const EARLIER: &[u8] = b"Sunday, 06-Nov-94 08:49:36 GMT";

    fn verdict(request: Conditions<'_>) -> Verdict {
        request.verdict(Some(DATE), Some(b"\"x\""), IfModifiedSince::Exact)
    }

    fn none_match(list: &[u8]) -> Verdict {
        verdict(Conditions { if_none_match: vec![list], ..Conditions::default() })
    }

    fn if_match(list: &[u8]) -> Verdict {
        verdict(Conditions { if_match: vec![list], ..Conditions::default() })
    }

    fn since(date: &[u8], mode: IfModifiedSince) -> Verdict {
        let request = Conditions { if_modified_since: Some(date), ..Conditions::default() };
        request.verdict(Some(DATE), None, mode)
    }

    #[test]
    fn if_none_match_compares_weakly() {
        for list in [&b"\"x\""[..], b"W/\"x\"", b"\"a\", \"x\"", b"\"a,b\" ,W/\"x\"", b"*", b" * ", b",\t\"x\""] {
            assert_eq!(none_match(list), Verdict::NotModified, "{}", String::from_utf8_lossy(list));
        }
        for list in [&b"\"y\""[..], b"x", b"\"x", b"", b"\"a\" x \"x\"", b"w/\"x\"", b"\"*\"", b"\"a\", *"] {
            assert_eq!(none_match(list), Verdict::Send, "{}", String::from_utf8_lossy(list));
        }
    }

    #[test]
    fn if_match_compares_strongly() {
        for list in [&b"\"x\""[..], b"\"a\", \"x\"", b"*"] {
            assert_eq!(if_match(list), Verdict::Send, "{}", String::from_utf8_lossy(list));
        }
        for list in [&b"W/\"x\""[..], b"\"y\"", b"x", b""] {
            assert_eq!(if_match(list), Verdict::Failed, "{}", String::from_utf8_lossy(list));
        }
        let request = Conditions { if_match: vec![b"W/\"x\""], ..Conditions::default() };
        assert_eq!(request.verdict(None, Some(b"W/\"x\""), IfModifiedSince::Exact), Verdict::Failed);
    }

    #[test]
    fn a_list_may_be_spread_over_fields() {
        let request = Conditions { if_none_match: vec![b"\"a\"", b"\"x\""], ..Conditions::default() };
        assert_eq!(verdict(request), Verdict::NotModified);
    }

    #[test]
    fn if_modified_since_has_three_modes() {
        use IfModifiedSince::{Before, Exact, Off};
        for (date, mode, expected) in [
            (DATE, Exact, Verdict::NotModified),
            (LATER, Exact, Verdict::Send),
            (EARLIER, Exact, Verdict::Send),
            (DATE, Before, Verdict::NotModified),
            (LATER, Before, Verdict::NotModified),
            (EARLIER, Before, Verdict::Send),
            (DATE, Off, Verdict::Send),
            (b"yesterday", Before, Verdict::Send),
        ] {
            assert_eq!(since(date, mode), expected, "{mode:?} {}", String::from_utf8_lossy(date));
        }
    }

    #[test]
    fn date_and_tag_must_both_say_not_modified() {
        let request = |date, list| Conditions {
            if_modified_since: Some(date),
            if_none_match: vec![list],
            ..Conditions::default()
        };
        assert_eq!(verdict(request(DATE, b"\"x\"")), Verdict::NotModified);
        assert_eq!(verdict(request(LATER, b"\"x\"")), Verdict::Send);
        assert_eq!(verdict(request(DATE, b"\"y\"")), Verdict::Send);
    }

    #[test]
    fn if_unmodified_since_fails_for_younger_responses() {
        let unmodified = |date, last_modified| {
            let request = Conditions { if_unmodified_since: Some(date), ..Conditions::default() };
            request.verdict(last_modified, None, IfModifiedSince::Exact)
        };
        assert_eq!(unmodified(EARLIER, Some(DATE)), Verdict::Failed);
        assert_eq!(unmodified(DATE, Some(DATE)), Verdict::Send);
        assert_eq!(unmodified(LATER, Some(DATE)), Verdict::Send);
        assert_eq!(unmodified(EARLIER, None), Verdict::Send);
        assert_eq!(unmodified(b"never", Some(DATE)), Verdict::Send);
    }

    #[test]
    fn a_response_without_tag_and_date_is_sent() {
        let request = Conditions { if_none_match: vec![b"\"x\""], ..Conditions::default() };
        assert_eq!(request.verdict(None, None, IfModifiedSince::Exact), Verdict::Send);
        let request = Conditions { if_modified_since: Some(DATE), ..Conditions::default() };
        assert_eq!(request.verdict(None, None, IfModifiedSince::Before), Verdict::Send);
    }
}
