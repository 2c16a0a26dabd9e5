//! The request to the peer: its line and its header.
//!
//! ```text
//! GET /v1/users?page=2 HTTP/1.1
//! Host: backend
//! Accept: */*
//! X-Real-IP: 192.0.2.7
//! ```
//!
//! The host has read the body whole, so that it goes with a Content-Length, whatever the client sent.

use topnext_module_api::{
    prelude::*,
    uri::{escape_path, leads_out},
};

use crate::{
    Table, hop_by_hop,
    pass::{Pass, SCHEME},
};

/// Fields that say where the body ends: always proxy's own.
pub const FRAMING: [&str; 2] = ["Content-Length", "Transfer-Encoding"];

/// Why there is no request, and what the client gets.
#[derive(Debug)]
pub struct Refused {
    /// The level of the log line.
    pub level: Level,
    /// The log line.
    pub message: String,
    /// The answer.
    pub code: Code,
}

/// Request line and header, with the empty line. `body` is the length of the body that follows.
pub fn header(table: &Table, pass: &Pass, r: &mut Request<'_>, body: u64) -> Result<Vec<u8>, Refused> {
    let mut out = Vec::with_capacity(512);
    write_line(&mut out, table, pass, r)?;
    let mut sets_host = false;
    for field in &table.set_header {
        sets_host |= field.name.eq_ignore_ascii_case("host");
        let value = field.value.eval(r);
        if !is_value(value) {
            let value = String::from_utf8_lossy(value);
            let message = format!("the value of set_header {} has a control character: {value:?}", field.name);
            return Err(Refused { level: Level::Error, message, code: Code::status(400) });
        }
        if !value.is_empty() {
            write_field(&mut out, field.name.as_bytes(), value);
        }
    }
    if !sets_host {
        write_field(&mut out, b"Host", pass.host().as_bytes());
    }
    if table.http_version == "1.0" && !sets(table, b"connection") {
        write_field(&mut out, b"Connection", b"close");
    }
    // RFC 9110, 8.6: a length of 0 is said where a body was, or could have been, expected.
    let announced = r.body_length() != Some(0) || r.header_in("Content-Length").is_some();
    if body > 0 || announced || matches!(r.method(), b"POST" | b"PUT" | b"PATCH") {
        write_field(&mut out, b"Content-Length", body.to_string().as_bytes());
    }
    if table.pass_request_headers {
        write_client_fields(&mut out, table, r)?;
    }
    out.extend_from_slice(b"\r\n");
    Ok(out)
}

/// The request line.
fn write_line(out: &mut Vec<u8>, table: &Table, pass: &Pass, r: &mut Request<'_>) -> Result<(), Refused> {
    let client =
        Target { request_uri: r.request_uri(), uri: r.uri(), args: r.args(), location: replaced(r), main: r.is_main() };
    let Some(target) = client.for_peer(pass.uri()) else {
        let uri = String::from_utf8_lossy(r.uri());
        let message = format!("unsafe URI {uri:?}: it leads out of the URI part of pass");
        return Err(Refused { level: Level::Error, message, code: Code::status(404) });
    };
    // A module may have redirected to any URI; a space or line end in it would make another request.
    if target.is_empty() || target.iter().any(|&byte| byte <= b' ' || byte == 0x7f) {
        let message = format!("the URI for the upstream is not valid: {:?}", String::from_utf8_lossy(&target));
        return Err(Refused { level: Level::Error, message, code: Code::status(400) });
    }
    r.set_upstream_url(SCHEME, &target);
    out.extend_from_slice(r.method());
    out.push(b' ');
    out.extend_from_slice(&target);
    out.extend_from_slice(if table.http_version == "1.0" { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
    Ok(())
}

/// What the URI part of `pass` replaces: the path of the location, or of the server outside of its locations, which is
/// all that a URI begins with.
pub fn replaced<'r>(r: &Request<'r>) -> &'r [u8] {
    match r.location() {
        b"" => b"/",
        path => path,
    }
}

/// The client's fields that go on: not those of its connection, of the framing, or set by the operator.
fn write_client_fields(out: &mut Vec<u8>, table: &Table, r: &Request<'_>) -> Result<(), Refused> {
    const OURS: [&[u8]; 3] = [b"host", b"content-length", b"expect"];
    let values = (0..).map_while(|nth| r.header_in_nth("Connection", nth));
    let Some(options) = hop_by_hop::options(values) else {
        let message = format!("client sent more than {} options in Connection", hop_by_hop::MAX_OPTIONS);
        return Err(Refused { level: Level::Info, message, code: Code::status(400) });
    };
    for (name, value) in r.headers_in() {
        let ours = OURS.iter().any(|own| name.eq_ignore_ascii_case(own));
        if !ours && !sets(table, name) && !hop_by_hop::is_hop_by_hop(name, &options) {
            write_field(out, name, value);
        }
    }
    Ok(())
}

/// Whether the operator sets this field.
fn sets(table: &Table, name: &[u8]) -> bool {
    table.set_header.iter().any(|field| name.eq_ignore_ascii_case(field.name.as_bytes()))
}

fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Whether this can be a field's value (RFC 9110, 5.5).
fn is_value(value: &[u8]) -> bool {
    value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

/// What the client asked for.
struct Target<'a> {
    request_uri: &'a [u8],
    uri: &'a [u8],
    args: &'a [u8],
    location: &'a [u8],
    main: bool,
}

impl Target<'_> {
    /// The target for the peer; `replacement` is the URI part of `pass`. `None` if the client would get to what is beside
    /// that: where the location is `/api`, `/api../admin` leaves `../admin`. (nginx passes that on.)
    fn for_peer(&self, replacement: Option<&str>) -> Option<Vec<u8>> {
        if replacement.is_none() && self.main && self.is_as_received() {
            return Some(self.request_uri.to_vec());
        }
        let mut out = Vec::with_capacity(self.uri.len() + self.args.len() + 32);
        match (replacement, self.uri.strip_prefix(self.location)) {
            (Some(replacement), Some(rest)) if leads_out(replacement.as_bytes(), rest) => return None,
            (Some(replacement), Some(rest)) => {
                out.extend_from_slice(replacement.as_bytes());
                escape_path(rest, &mut out);
            }
            // No URI part; or the URI was changed so that the location's path is not in it any more.
            _ => escape_path(self.uri, &mut out),
        }
        if !self.args.is_empty() {
            out.push(b'?');
            out.extend_from_slice(self.args);
        }
        Some(out)
    }

    /// Whether the URI is still the one that the client sent. Then it goes on as it was written, since escapes that are
    /// decoded and made again may mean something else to the peer.
    fn is_as_received(&self) -> bool {
        let mut parts = self.request_uri.splitn(2, |&byte| byte == b'?');
        let path = parts.next().unwrap_or_default();
        if parts.next().unwrap_or_default() != self.args {
            return false;
        }
        path == self.uri || (path.starts_with(b"/") && normalize(path).is_some_and(|path| path == self.uri))
    }
}

/// Decodes escapes, resolves dot segments and merges slashes, as the host does for $uri. `None` if it cannot be done.
fn normalize(path: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        rest = after;
        decoded.push(digits.iter().try_fold(0, |value, &digit| Some(value * 16 + hex(digit)?))?);
    }
    let mut out = Vec::with_capacity(decoded.len());
    let mut segments = decoded.split(|&byte| byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b".." => out.truncate(out.iter().rposition(|&byte| byte == b'/')?),
            b"." | b"" => {}
            name => {
                out.push(b'/');
                out.extend_from_slice(name);
                continue;
            }
        }
        if last {
            out.push(b'/');
        }
    }
    Some(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The target for a client that sent `request_uri`, in the location `/api/`.
    fn target(request_uri: &str, uri: &str, replacement: Option<&str>) -> String {
        let args = request_uri.split_once('?').map_or("", |(_, args)| args);
        let client = Target {
            request_uri: request_uri.as_bytes(),
            uri: uri.as_bytes(),
            args: args.as_bytes(),
            location: b"/api/",
            main: true,
        };
        String::from_utf8(client.for_peer(replacement).expect("it leads nowhere else")).expect("text")
    }

    #[test]
    fn without_uri_part_it_goes_as_received() {
        for (request_uri, uri) in [
            ("/api/x?a=b", "/api/x"),
            ("/api/%41/./y/..//z?%20", "/api/A/z"),
            ("/api/a%2Fb", "/api/a/b"),
            ("/api/x/..", "/api/"),
            ("/api/a+b?a?b", "/api/a+b"),
            ("*", "*"),
        ] {
            assert_eq!(target(request_uri, uri, None), request_uri);
        }
    }

    #[test]
    fn a_changed_uri_is_escaped() {
        assert_eq!(target("/api/x?a=b", "/other/a b%?#é", None), "/other/a%20b%25%3F%23%C3%A9?a=b");
        // An absolute form is made an origin form.
        assert_eq!(target("http://host/api/x?q", "/api/x", None), "/api/x?q");
    }

    #[test]
    fn a_subrequest_has_a_uri_of_its_own() {
        let client = Target { request_uri: b"/api/x", uri: b"/api/x", args: b"n=1", location: b"/api/", main: false };
        assert_eq!(client.for_peer(None).as_deref(), Some(&b"/api/x?n=1"[..]));
    }

    #[test]
    fn the_uri_part_replaces_the_location() {
        assert_eq!(target("/api/x%20y?a=b", "/api/x y", Some("/v1/")), "/v1/x%20y?a=b");
        assert_eq!(target("/api/", "/api/", Some("/")), "/");
        assert_eq!(target("/api/x", "/changed/x", Some("/v1/")), "/changed/x");
    }

    #[test]
    fn normalizes_like_the_host() {
        for (path, normal) in [
            ("/", Some("/")),
            ("//a///b/", Some("/a/b/")),
            ("/a/.", Some("/a/")),
            ("/a/b/../../c", Some("/c")),
            ("/%2e%2E/x", None),
            ("/..", None),
            ("/a%4", None),
            ("/a%zz", None),
        ] {
            assert_eq!(normalize(path.as_bytes()).as_deref(), normal.map(str::as_bytes), "{path}");
        }
    }

    #[test]
    fn values_have_no_line_ends() {
        assert!(is_value(b"a\tb \xff"));
        assert!(!is_value(b"a\r\nX: y") && !is_value(b"a\n") && !is_value(b"\0"));
    }
}
