//! The request target: its form (RFC 9112, 3.2), and the path that locations are chosen by.
//!
//! ```text
//! GET /a/./b%20c?x=1     Origin   { path: "/a/./b%20c", args: "x=1" }, normalized to "/a/b c"
//! GET http://h:80/a      Absolute { authority: "h:80", path: "/a" }
//! CONNECT h:443          Authority("h:443")
//! OPTIONS *              Asterisk
//! ```

use super::framing::parse_authority;
use super::{BadRequest, Head, Method, Reason, Span};

/// A request target, as spans of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A path, and what follows the first `?` if there is one.
    Origin { path: Span, args: Option<Span> },
    /// A URL of scheme http or https, as sent to a proxy. `path` is empty in `http://host`.
    Absolute { https: bool, authority: Span, path: Span, args: Option<Span> },
    /// Host and port, with CONNECT only. Whether CONNECT is allowed (405) is for the caller to say.
    Authority(Span),
    /// The server as a whole, with OPTIONS only.
    Asterisk,
}

impl Target {
    /// Takes the target of `head`, parsed from `bytes`, apart. Checks the authority, but not the escapes in the path.
    pub fn parse(head: &Head, bytes: &[u8]) -> Result<Target, BadRequest> {
        let raw = head.target().of(bytes);
        let at = |part: &[u8]| Span::within(bytes, part);
        if memchr::memchr(b'#', raw).is_some() {
            return Err(Reason::Fragment.into());
        }
        if head.method() == Method::Connect {
            let has_port = parse_authority(bytes, raw)?.port.is_some();
            return if has_port { Ok(Target::Authority(at(raw))) } else { Err(Reason::Connect.into()) };
        }
        if raw.first() == Some(&b'/') {
            let (path, args) = split_args(raw);
            return Ok(Target::Origin { path: at(path), args: args.map(at) });
        }
        if raw == b"*" {
            let allowed = head.method() == Method::Options;
            return if allowed { Ok(Target::Asterisk) } else { Err(Reason::Asterisk.into()) };
        }
        let (https, rest) = split_scheme(raw)?;
        let authority_len = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at_checked(authority_len).unwrap_or((rest, b""));
        parse_authority(bytes, authority)?;
        let (path, args) = split_args(rest);
        Ok(Target::Absolute { https, authority: at(authority), path: at(path), args: args.map(at) })
    }

    /// The path as sent: "/" for a URL without one, "*" for asterisk-form, empty for authority-form.
    pub fn path<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        match self {
            Target::Absolute { path, .. } if path.start == path.end => b"/",
            Target::Origin { path, .. } | Target::Absolute { path, .. } => path.of(bytes),
            Target::Asterisk => b"*",
            Target::Authority(_) => b"",
        }
    }

    /// What follows the first `?`; None without one, empty if nothing follows it.
    pub fn args<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Target::Origin { args, .. } | Target::Absolute { args, .. } => args.map(|args| args.of(bytes)),
            Target::Asterisk | Target::Authority(_) => None,
        }
    }
}

fn split_args(raw: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'?', raw) {
        Some(at) => (raw.get(..at).unwrap_or_default(), raw.get(at + 1..)),
        None => (raw, None),
    }
}

/// Whether the scheme is https, and what follows "://". Schemes are case-insensitive (RFC 3986, 3.1).
fn split_scheme(raw: &[u8]) -> Result<(bool, &[u8]), BadRequest> {
    let Some(at) = memchr::memmem::find(raw, b"://") else {
        return Err(Reason::TargetForm.into());
    };
    let (scheme, rest) = (raw.get(..at).unwrap_or_default(), raw.get(at + 3..).unwrap_or_default());
    if scheme.eq_ignore_ascii_case(b"http") {
        Ok((false, rest))
    } else if scheme.eq_ignore_ascii_case(b"https") {
        Ok((true, rest))
    } else {
        Err(Reason::Scheme.into())
    }
}

/// What [`normalize`] made of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Normalized {
    /// The path is normal as it is.
    Same,
    /// The normal form. Any byte but NUL may be in it.
    Changed(Vec<u8>),
}

impl Normalized {
    /// The normal form; `path` is the path that was given to [`normalize`].
    pub fn or<'a>(&'a self, path: &'a [u8]) -> &'a [u8] {
        match self {
            Normalized::Same => path,
            Normalized::Changed(changed) => changed,
        }
    }
}

/// Decodes escapes once, resolves "." and "..", and merges slashes if `merge_slashes` says so (nginx `merge_slashes`).
/// As in nginx an escaped slash or dot counts as a plain one. `path` must start with '/' and is without arguments; the
/// asterisk of [`Target::Asterisk`] is passed on.
///
/// Errors: an escape that is not two hex digits, an escaped NUL, a ".." that leads above the root.
pub fn normalize(path: &[u8], merge_slashes: bool) -> Result<Normalized, BadRequest> {
    if path == b"*" {
        return Ok(Normalized::Same);
    }
    if path.first() != Some(&b'/') {
        return Err(Reason::TargetForm.into());
    }
    if is_plain(path) {
        return Ok(Normalized::Same);
    }
    let mut out = Vec::with_capacity(path.len());
    out.push(b'/');
    let mut segment = out.len();
    let mut rest = path.get(1..).unwrap_or_default();
    while let Some((byte, after)) = decode_byte(rest)? {
        rest = after;
        if byte != b'/' {
            out.push(byte);
            continue;
        }
        let dots = close_dots(&mut out, segment)?;
        let merged = merge_slashes && out.len() == segment;
        if !dots && !merged {
            out.push(b'/');
        }
        segment = out.len();
    }
    close_dots(&mut out, segment)?;
    Ok(if out == path { Normalized::Same } else { Normalized::Changed(out) })
}

/// True if nothing in `path` can need a change: no escape, no two slashes, no segment that starts with a dot.
fn is_plain(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in path {
        if byte == b'%' || (after_slash && (byte == b'/' || byte == b'.')) {
            return false;
        }
        after_slash = byte == b'/';
    }
    true
}

/// The first byte of `rest`, decoded, and what follows it.
#[inline]
fn decode_byte(rest: &[u8]) -> Result<Option<(u8, &[u8])>, BadRequest> {
    match rest {
        [] => Ok(None),
        [b'%', high, low, after @ ..] => match (hex_digit(*high), hex_digit(*low)) {
            (Some(0), Some(0)) => Err(Reason::EscapedNul.into()),
            (Some(high), Some(low)) => Ok(Some((high << 4 | low, after))),
            _ => Err(Reason::Escape.into()),
        },
        [b'%', ..] => Err(Reason::Escape.into()),
        [byte, after @ ..] => Ok(Some((*byte, after))),
    }
}

/// The value of a hex digit of either case.
#[inline]
pub(super) fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// If the segment of `out` from `segment` on is "." or "..", resolves it and answers true; `out` then ends with '/'.
fn close_dots(out: &mut Vec<u8>, segment: usize) -> Result<bool, BadRequest> {
    match out.get(segment..) {
        Some(b".") => out.truncate(segment),
        Some(b"..") => {
            // Up to the slash before the segment, then back over the segment before that slash.
            out.truncate(segment.saturating_sub(1));
            let Some(slash) = memchr::memrchr(b'/', out) else {
                return Err(Reason::AboveRoot.into());
            };
            out.truncate(slash + 1);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::{HeadParser, Limits};
    use super::*;

    /// The target of a request, printed, or the status that refuses it.
    fn target(method: &str, raw: &str) -> Result<String, u16> {
        let input = format!("{method} {raw} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes();
        let mut parser: HeadParser =
            HeadParser::new(Limits { request_line: 8192, header_line: 8192, total: 8192, underscores: true });
        let mut head = Head::default();
        parser.parse(&input, &mut head).map_err(|error| error.status)?;
        let target = Target::parse(&head, &input).map_err(|error| error.status)?;
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let form = match target {
            Target::Origin { .. } => "origin".to_string(),
            Target::Absolute { https, authority, .. } => format!("absolute {https} {}", text(authority.of(&input))),
            Target::Authority(authority) => format!("authority {}", text(authority.of(&input))),
            Target::Asterisk => "asterisk".to_string(),
        };
        let args = target.args(&input).map(|args| format!(" args={}", text(args))).unwrap_or_default();
        Ok(format!("{form} path={}{args}", text(target.path(&input))))
    }

    #[test]
    fn forms() {
        let table: &[(&str, &str, Result<&str, u16>)] = &[
            ("GET", "/", Ok("origin path=/")),
            ("GET", "/a?b", Ok("origin path=/a args=b")),
            ("GET", "/a?", Ok("origin path=/a args=")),
            ("GET", "/a?b?c/d", Ok("origin path=/a args=b?c/d")),
            ("GET", "//h/a", Ok("origin path=//h/a")),
            ("GET", "/?http://x/", Ok("origin path=/ args=http://x/")),
            ("GET", "/%zz", Ok("origin path=/%zz")), // normalize refuses it
            ("GET", "http://h", Ok("absolute false h path=/")),
            ("GET", "http://h/", Ok("absolute false h path=/")),
            ("GET", "HTTPS://h:443/a/b?c", Ok("absolute true h:443 path=/a/b args=c")),
            ("GET", "http://h?c", Ok("absolute false h path=/ args=c")),
            ("GET", "http://[::1]:8080/a", Ok("absolute false [::1]:8080 path=/a")),
            ("GET", "http://h/a@b://c", Ok("absolute false h path=/a@b://c")),
            ("OPTIONS", "*", Ok("asterisk path=*")),
            ("OPTIONS", "/a", Ok("origin path=/a")),
            ("CONNECT", "h:443", Ok("authority h:443 path=")),
            ("CONNECT", "[::1]:443", Ok("authority [::1]:443 path=")),
            ("GET", "*", Err(400)),
            ("OPTIONS", "*a", Err(400)),
            ("GET", "a", Err(400)),
            ("GET", "?a", Err(400)),
            ("GET", "h:443", Err(400)),
            ("GET", "%2fa", Err(400)),
            ("GET", "/a#b", Err(400)),
            ("GET", "/a?b#", Err(400)),
            ("GET", "http://h/#b", Err(400)),
            ("GET", "http:///a", Err(400)),
            ("GET", "http://", Err(400)),
            ("GET", "http:/h/a", Err(400)),
            ("GET", "http://user@h/", Err(400)),
            ("GET", "http://h:99999/", Err(400)),
            ("GET", "http://h\\x/", Err(400)),
            ("GET", "ftp://h/", Err(400)),
            ("GET", "://h/", Err(400)),
            ("CONNECT", "h", Err(400)),
            ("CONNECT", "h:", Err(400)),
            ("CONNECT", ":443", Err(400)),
            ("CONNECT", "/", Err(400)),
            ("CONNECT", "http://h:1/", Err(400)),
            ("CONNECT", "u@h:1", Err(400)),
        ];
        for (method, raw, expected) in table {
            assert_eq!(target(method, raw), expected.map(str::to_string), "{method} {raw}");
        }
    }

    #[test]
    fn normal_paths() {
        // The path, and its normal form with slashes merged; "=" if it is the same.
        let table: &[(&str, &str)] = &[
            ("*", "="),
            ("/", "="),
            ("/a/b.html", "="),
            ("/a/", "="),
            ("/.well-known/x", "="),
            ("/...", "="),
            ("/..a/a../.a.", "="),
            ("/a+b;c=d,e!$&'()*", "="),
            ("/\u{e4}", "="),
            ("/.", "/"),
            ("/./", "/"),
            ("/a/.", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../c", "/a/c"),
            ("/a/../b/../c/./d", "/c/d"),
            ("/a/b/../../c", "/c"),
            ("//", "/"),
            ("//a///b//", "/a/b/"),
            ("/a//../b", "/b"),
            ("/a/.//b", "/a/b"),
            ("/%61%62", "/ab"),
            ("/%e4%C3", "/\\xe4\\xc3"),
            ("/a%20b%3fc%23d", "/a b?c#d"),
            ("/%2525", "/%25"),
            ("/%252e%252e/", "/%2e%2e/"),
            ("/%01%0d%0a%7f", "/\\x01\\r\\n\\x7f"),
            ("/a%2fb", "/a/b"),
            ("/a%2f%2fb", "/a/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a%2f..%2fb", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/%2e", "/"),
        ];
        for (path, expected) in table {
            let normal = normalize(path.as_bytes(), true).unwrap();
            if *expected == "=" {
                assert_eq!(normal, Normalized::Same, "{path}");
            } else {
                assert!(matches!(normal, Normalized::Changed(_)), "{path}");
                assert_eq!(normal.or(path.as_bytes()).escape_ascii().to_string(), *expected, "{path}");
            }
        }
    }

    #[test]
    fn slashes_that_are_kept() {
        let table = [
            ("//", "//"),
            ("//a///b//", "//a///b//"),
            ("/a//../b", "/a/b"),
            ("//..", "/"),
            ("/a%2f%2fb", "/a//b"),
            ("/a/.//b", "/a//b"),
            ("/a//./b", "/a//b"),
        ];
        for (path, expected) in table {
            assert_eq!(normalize(path.as_bytes(), false).unwrap().or(path.as_bytes()), expected.as_bytes(), "{path}");
        }
        assert_eq!(normalize(b"//a///b//", false), Ok(Normalized::Same));
    }

    #[test]
    fn refused_paths() {
        let escape = ["/%", "/%a", "/a%4", "/%g0", "/%0g", "/%%30", "/% 1", "/a%u0041"];
        let root = ["/..", "/../", "/../a", "/a/../..", "/./..", "/%2e%2e", "/%2e.", "/..%2f", "/a/../../b"];
        let form = ["", "a", "a/b", "%2f", "?", "**"];
        for merge_slashes in [false, true] {
            let refuse = |paths: &[&str], reason: Reason| {
                for path in paths {
                    assert_eq!(normalize(path.as_bytes(), merge_slashes), Err(reason.into()), "{path}");
                }
            };
            refuse(&escape, Reason::Escape);
            refuse(&root, Reason::AboveRoot);
            refuse(&form, Reason::TargetForm);
            refuse(&["/%00", "/a%00b"], Reason::EscapedNul);
        }
        // Merged, the empty segment is gone before ".." could take it.
        assert_eq!(normalize(b"//..", true), Err(Reason::AboveRoot.into()));
    }

    /// All short paths over the bytes that matter: the result is absolute, without dot segments, its own normal form.
    #[test]
    fn a_normal_form_is_normal() {
        let alphabet = [b'/', b'.', b'a'];
        let mut normal = 0;
        for number in 0..3_usize.pow(9) {
            let path: Vec<u8> = (0..9).scan(number, |n, _| Some((alphabet[*n % 3], *n /= 3).0)).collect::<Vec<_>>();
            let path = [&b"/"[..], &path].concat();
            for merge in [false, true] {
                let Ok(result) = normalize(&path, merge) else { continue };
                let result = result.or(&path);
                assert!(result.starts_with(b"/") && result.len() <= path.len());
                assert!(!result.split(|&b| b == b'/').any(|segment| segment == b"." || segment == b".."));
                assert!(!merge || memchr::memmem::find(result, b"//").is_none());
                assert_eq!(normalize(result, merge), Ok(Normalized::Same), "{}", path.escape_ascii());
                normal += 1;
            }
        }
        assert!(normal > 10_000);
    }
}
