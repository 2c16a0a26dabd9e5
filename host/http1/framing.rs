//! What a head says about its message: how long the body is, which host is meant, whether the connection stays open.
//!
//! ```text
//! Content-Length: 5              body_framing -> Length(5)
//! Transfer-Encoding: chunked     body_framing -> Chunked
//! Host: Example.com:8080         host         -> Host { name: "Example.com", port: Some(8080) }
//! ```

use std::net::Ipv6Addr;

use super::target::hex_digit;
use super::{BadRequest, Head, Reason, Seen, Span, Target};

/// A Content-Length has at most this many digits, so it always fits a file offset.
const MAX_LENGTH_DIGITS: usize = 18;

/// How the body of a request is delimited (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes, which may be 0.
    Length(u64),
    /// As [`super::ChunkedDecoder`] reads it.
    Chunked,
}

/// The host that a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// The name as sent, without port and without a final dot; an IPv6 address is in brackets. Lowercase it to compare.
    pub name: Span,
    /// None if there is no port or an empty one.
    pub port: Option<u16>,
}

/// The framing of the body that follows `head`, which was parsed from `bytes`.
pub fn body_framing(head: &Head, bytes: &[u8]) -> Result<Framing, BadRequest> {
    let facts = head.facts();
    if facts.transfer_encoding == Seen::None {
        return match facts.content_length {
            Seen::None => Ok(Framing::None),
            Seen::Many => Err(Reason::ContentLengthRepeated.into()),
            Seen::One(_) => content_length(head.value(facts.content_length, bytes).unwrap_or_default()),
        };
    }
    if facts.content_length != Seen::None {
        return Err(Reason::LengthAndEncoding.into());
    }
    if head.minor() == 0 {
        return Err(Reason::TransferEncodingIn10.into());
    }
    match head.value(facts.transfer_encoding, bytes) {
        None => Err(Reason::TransferEncodingRepeated.into()),
        Some(value) if value.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        Some(_) => Err(Reason::TransferEncoding.into()),
    }
}

fn content_length(value: &[u8]) -> Result<Framing, BadRequest> {
    if value.is_empty() || value.len() > MAX_LENGTH_DIGITS || !value.iter().all(u8::is_ascii_digit) {
        return Err(Reason::ContentLength.into());
    }
    // 18 digits are less than 2^63.
    Ok(Framing::Length(value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0'))))
}

/// The host of a request. The authority of `target` wins over the Host header, which still must be valid (RFC 9112,
/// 3.2.2). None if an HTTP/1.0 request names none.
pub fn host(head: &Head, bytes: &[u8], target: &Target) -> Result<Option<Host>, BadRequest> {
    let facts = head.facts();
    let from_field = match facts.host {
        Seen::Many => return Err(Reason::HostRepeated.into()),
        Seen::None if head.minor() > 0 => return Err(Reason::HostMissing.into()),
        Seen::None => None,
        Seen::One(_) => Some(parse_authority(bytes, head.value(facts.host, bytes).unwrap_or_default())?),
    };
    match target {
        Target::Absolute { authority, .. } | Target::Authority(authority) => {
            parse_authority(bytes, authority.of(bytes)).map(Some)
        }
        Target::Origin { .. } | Target::Asterisk => Ok(from_field),
    }
}

/// RFC 3986, 3.2 without userinfo: a name, an IPv4 address or a bracketed address, and a port of digits. Beyond it, as
/// in nginx: the name is not empty, a final dot is cut, and ".." is refused, since names become parts of file paths.
///
/// `authority` is a slice of `bytes`.
pub(super) fn parse_authority(bytes: &[u8], authority: &[u8]) -> Result<Host, BadRequest> {
    let invalid = BadRequest::from;
    let name_len = match authority {
        [b'[', ..] => memchr::memchr(b']', authority).map(|at| at + 1).unwrap_or_default(),
        _ => memchr::memchr(b':', authority).unwrap_or(authority.len()),
    };
    let (name, port) = authority.split_at_checked(name_len).ok_or(Reason::Authority)?;
    let port = match port {
        [] | [b':'] => None,
        [b':', digits @ ..] => Some(parse_port(digits).ok_or(Reason::Authority)?),
        _ => return Err(invalid(Reason::Authority)),
    };
    let valid = match name {
        [b'[', address @ .., b']'] => is_ip_literal(address),
        _ => is_reg_name(name),
    };
    let name = name.strip_suffix(b".").unwrap_or(name);
    if !valid || name.is_empty() {
        return Err(invalid(Reason::Authority));
    }
    Ok(Host { name: Span::within(bytes, name), port })
}

fn parse_port(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0_u16, |port, digit| match digit {
        b'0'..=b'9' => port.checked_mul(10)?.checked_add(u16::from(digit - b'0')),
        _ => None,
    })
}

/// What stands between the brackets: an IPv6 address without zone, or an address of a future version.
fn is_ip_literal(address: &[u8]) -> bool {
    if let [b'v' | b'V', rest @ ..] = address {
        let Some(dot) = memchr::memchr(b'.', rest) else {
            return false;
        };
        let (version, rest) = rest.split_at_checked(dot).unwrap_or_default();
        let address = rest.get(1..).unwrap_or_default();
        return !version.is_empty()
            && version.iter().all(u8::is_ascii_hexdigit)
            && !address.is_empty()
            && address.iter().all(|&byte| is_name_byte(byte) || byte == b':');
    }
    std::str::from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// RFC 3986 `reg-name`, which covers IPv4 addresses too.
fn is_reg_name(name: &[u8]) -> bool {
    let mut rest = name;
    let mut after_dot = false;
    while let [byte, after @ ..] = rest {
        rest = match (byte, after) {
            (b'%', [high, low, after @ ..]) if hex_digit(*high).is_some() && hex_digit(*low).is_some() => after,
            (b'.', _) if after_dot => return false,
            _ if is_name_byte(*byte) => after,
            _ => return false,
        };
        after_dot = *byte == b'.';
    }
    true
}

/// RFC 3986 `unreserved` and `sub-delims`.
#[inline]
fn is_name_byte(byte: u8) -> bool {
    const TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            table[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let (marks, mut i) = (b"-._~!$&'()*+,;=", 0);
        while i < marks.len() {
            table[marks[i] as usize] = true;
            i += 1;
        }
        table
    };
    TABLE[usize::from(byte)]
}

/// Whether the connection may be used for another request (RFC 9112, 9.3): close wins; else HTTP/1.1 stays open, and
/// HTTP/1.0 only if the client asks for it.
pub fn persistent(head: &Head) -> bool {
    let facts = head.facts();
    !facts.connection_close && (head.minor() > 0 || facts.connection_keep_alive)
}

#[cfg(test)]
mod tests {
    use super::super::{HeadParser, Limits};
    use super::*;

    /// Parses a head and gives it to `f`.
    fn with_head<T>(line: &str, fields: &str, f: impl Fn(&Head, &[u8]) -> T) -> T {
        let input = format!("{line}\r\n{fields}\r\n").into_bytes();
        let mut parser: HeadParser =
            HeadParser::new(Limits { request_line: 8192, header_line: 8192, total: 8192, underscores: true });
        let mut head = Head::default();
        parser.parse(&input, &mut head).unwrap_or_else(|error| panic!("{error} in {}", input.escape_ascii()));
        assert_eq!(head.head_len(), input.len());
        f(&head, &input)
    }

    #[test]
    fn framings() {
        use Framing::{Chunked, Length, None};
        // Fields, and what they give in HTTP/1.1 and HTTP/1.0: a framing, or the status that refuses them.
        type Expected = Result<Framing, u16>;
        let table: &[(&str, Expected, Expected)] = &[
            ("", Ok(None), Ok(None)),
            ("Content-Length: 0\r\n", Ok(Length(0)), Ok(Length(0))),
            ("content-length:42\r\n", Ok(Length(42)), Ok(Length(42))),
            ("CONTENT-LENGTH: \t042 \r\n", Ok(Length(42)), Ok(Length(42))),
            ("Content-Length: 999999999999999999\r\n", Ok(Length(999999999999999999)), Ok(Length(999999999999999999))),
            ("Content-Length: 1000000000000000000\r\n", Err(400), Err(400)),
            ("Content-Length: 18446744073709551617\r\n", Err(400), Err(400)),
            ("Content-Length:\r\n", Err(400), Err(400)),
            ("Content-Length: \r\n", Err(400), Err(400)),
            ("Content-Length: +1\r\n", Err(400), Err(400)),
            ("Content-Length: -1\r\n", Err(400), Err(400)),
            ("Content-Length: 0x1\r\n", Err(400), Err(400)),
            ("Content-Length: a\r\n", Err(400), Err(400)),
            ("Content-Length: 1.0\r\n", Err(400), Err(400)),
            ("Content-Length: 1_0\r\n", Err(400), Err(400)),
            ("Content-Length: 1 0\r\n", Err(400), Err(400)),
            ("Content-Length: \"1\"\r\n", Err(400), Err(400)),
            ("Content-Length: 1, 1\r\n", Err(400), Err(400)),
            ("Content-Length: 1,\r\n", Err(400), Err(400)),
            ("Content-Length: \u{661}\r\n", Err(400), Err(400)),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", Err(400), Err(400)),
            ("Content-Length: 1\r\nx: y\r\ncontent-length: 2\r\n", Err(400), Err(400)),
            ("Transfer-Encoding: chunked\r\n", Ok(Chunked), Err(400)),
            ("transfer-encoding: \tCHUNKED \r\n", Ok(Chunked), Err(400)),
            ("Transfer-Encoding: chunked, chunked\r\n", Err(501), Err(400)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(501), Err(400)),
            ("Transfer-Encoding: chunked, gzip\r\n", Err(501), Err(400)),
            ("Transfer-Encoding: chunked,\r\n", Err(501), Err(400)),
            ("Transfer-Encoding: ,chunked\r\n", Err(501), Err(400)),
            ("Transfer-Encoding: xchunked\r\n", Err(501), Err(400)),
            ("Transfer-Encoding: chunked;a=b\r\n", Err(501), Err(400)),
            ("Transfer-Encoding: \"chunked\"\r\n", Err(501), Err(400)),
            ("Transfer-Encoding: identity\r\n", Err(501), Err(400)),
            ("Transfer-Encoding:\r\n", Err(501), Err(400)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(400), Err(400)),
            ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", Err(400), Err(400)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", Err(400), Err(400)),
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Err(400), Err(400)),
            ("Content-Length: 1\r\nTransfer-Encoding: identity\r\n", Err(400), Err(400)),
            ("Content-Length: x\r\nContent-Length: 1\r\nTransfer-Encoding: a\r\n", Err(400), Err(400)),
        ];
        for (fields, in_11, in_10) in table {
            for (version, expected) in [("HTTP/1.1", in_11), ("HTTP/1.0", in_10)] {
                let framing = with_head(&format!("POST / {version}"), fields, body_framing);
                assert_eq!(framing.map_err(|error| error.status), *expected, "{version} {fields}");
            }
        }
    }

    /// The host of a request as "name port", or the status that refuses it.
    fn host_of(line: &str, fields: &str) -> Result<Option<String>, u16> {
        with_head(line, fields, |head, bytes| {
            let found = Target::parse(head, bytes).and_then(|target| host(head, bytes, &target));
            let found = found.map_err(|error| error.status)?;
            Ok(found.map(|host| format!("{} {:?}", String::from_utf8_lossy(host.name.of(bytes)), host.port)))
        })
    }

    #[test]
    fn host_values() {
        let accepted = [
            ("a", "a None"),
            ("Example.COM", "Example.COM None"),
            ("a.b.", "a.b None"),
            ("a.b.:80", "a.b Some(80)"),
            (".a", ".a None"),
            ("a:", "a None"),
            ("a:0", "a Some(0)"),
            ("a:080", "a Some(80)"),
            ("a:65535", "a Some(65535)"),
            ("127.0.0.1:8080", "127.0.0.1 Some(8080)"),
            ("a_b-c~d", "a_b-c~d None"),
            ("a!$&'()*+,;=", "a!$&'()*+,;= None"),
            ("%c3%A4.example", "%c3%A4.example None"),
            ("[::1]", "[::1] None"),
            ("[2001:db8::1]:443", "[2001:db8::1] Some(443)"),
            ("[::ffff:1.2.3.4]:", "[::ffff:1.2.3.4] None"),
            ("[v1f.a:b]", "[v1f.a:b] None"),
        ];
        for (value, expected) in accepted {
            let found = host_of("GET / HTTP/1.1", &format!("Host: {value}\r\n"));
            assert_eq!(found, Ok(Some(expected.to_string())), "{value}");
        }
        let short = [
            "", ".", "..", "a..b", "a..", ":80", "a b", "a\tb", "a, b", "a:b", "a:65536", "a:-1", "a:+1", "a:1:2",
            "a:1 ,", "user@a", "u:p@a", "a/b", "a\\b", "a?b", "a#b", "a%", "a%4", "a%zz", "a\"", "a<b>", "a^b", "a|b",
            "a{b}", "[", "]", "[]", "[::1", "::1", "[::1]x", "[::1]:x", "a[::1]", "[a]", "[::g]", "[v.a]", "[v1.]",
            "[v1]", "[v1.a/b]", "[vg.a]",
        ];
        let long = ["a:99999999999", "http://a", "\u{e4}", "[::1]x:80", "[1.2.3.4]", "[::1%25eth0]", "[::1%eth0]"];
        let refused = short.iter().chain(&long);
        for value in refused {
            for version in ["HTTP/1.1", "HTTP/1.0"] {
                let found = host_of(&format!("GET / {version}"), &format!("Host: {value}\r\n"));
                assert_eq!(found, Err(400), "{version} {value}");
            }
        }
    }

    #[test]
    fn host_field_and_target() {
        type Expected = Result<Option<&'static str>, u16>;
        let table: &[(&str, &str, Expected)] = &[
            ("GET / HTTP/1.1", "", Err(400)),
            ("GET / HTTP/1.0", "", Ok(None)),
            ("GET / HTTP/1.0", "Host: a\r\n", Ok(Some("a None"))),
            ("GET / HTTP/1.1", "Host: a\r\nHost: a\r\n", Err(400)),
            ("GET / HTTP/1.0", "Host: a\r\nHost: b\r\n", Err(400)),
            ("GET http://t:81/ HTTP/1.1", "Host: a\r\n", Ok(Some("t Some(81)"))),
            ("GET http://t/ HTTP/1.1", "", Err(400)),
            ("GET http://t/ HTTP/1.1", "Host: a b\r\n", Err(400)),
            ("GET http://t/ HTTP/1.1", "Host: a\r\nHost: t\r\n", Err(400)),
            ("GET http://t@u/ HTTP/1.1", "Host: a\r\n", Err(400)),
            ("GET http://t/ HTTP/1.0", "", Ok(Some("t None"))),
            ("CONNECT t:443 HTTP/1.1", "Host: a\r\n", Ok(Some("t Some(443)"))),
            ("OPTIONS * HTTP/1.1", "Host: a\r\n", Ok(Some("a None"))),
        ];
        for (line, fields, expected) in table {
            assert_eq!(host_of(line, fields), expected.map(|name| name.map(str::to_string)), "{line} {fields}");
        }
    }

    #[test]
    fn persistence() {
        // Fields, then whether the connection persists in HTTP/1.1 and in HTTP/1.0.
        let table = [
            ("", true, false),
            ("Connection: keep-alive\r\n", true, true),
            ("Connection: close\r\n", false, false),
            ("Connection: keep-alive, close\r\n", false, false),
            ("Connection: close\r\nConnection: keep-alive\r\n", false, false),
            ("Connection: upgrade\r\n", true, false),
        ];
        for (fields, in_11, in_10) in table {
            let found = ["HTTP/1.1", "HTTP/1.0"]
                .map(|version| with_head(&format!("GET / {version}"), fields, |head, _| persistent(head)));
            assert_eq!(found, [in_11, in_10], "{fields}");
        }
    }
}
