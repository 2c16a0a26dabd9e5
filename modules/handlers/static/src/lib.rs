//! Serves files: wherever `root` is set, without further configuration (nginx: the static module).
//!
//! ```toml
//! [[http.server]]
//! root = "html"          # GET /a/b.css sends html/a/b.css
//! ```
//!
//! A folder asked for without its slash is redirected to `folder/`; URIs that end in a slash are left to other modules.

#![forbid(unsafe_code)]

use topnext_module_api::{prelude::*, uri::escape_path};

/// The table `static`, which has no keys.
#[derive(Config)]
pub struct Static;

export_module! {
    name: "static",
    module: Static,
    provides: [phases],
    always: true,
}

impl PhaseHandler for Static {
    const PHASES: &'static [Phase] = &[Phase::Content];

    fn handler(&self, r: &mut Request<'_>, _: Phase) -> Code {
        if r.header_sent() {
            return Code::OK;
        }
        let path = r.filename();
        if path.is_empty() {
            return Code::DECLINED;
        }
        let method = r.method();
        if !matches!(method, b"GET" | b"HEAD" | b"POST") {
            return not_allowed(r);
        }
        if r.uri().ends_with(b"/") {
            return Code::DECLINED;
        }
        let file = match r.open_file(path) {
            Opened::File(file) => file,
            Opened::Pending => return Code::AGAIN,
            Opened::NotFound if !r.log_not_found() => return Code::status(404),
            Opened::NotFound => {
                let path = String::from_utf8_lossy(path);
                log!(r, Level::Error, "open() {path:?} failed ({})", r.open_error());
                return Code::status(404);
            }
            Opened::Forbidden => {
                let path = String::from_utf8_lossy(path);
                log!(r, Level::Error, "open() {path:?} failed ({})", r.open_error());
                return Code::status(403);
            }
            Opened::Failed => return Code::status(500),
        };
        match file.kind() {
            FileKind::Regular => {}
            FileKind::Directory => return redirect(r),
            FileKind::Other => {
                log!(r, Level::Crit, "{:?} is not a regular file", String::from_utf8_lossy(path));
                return Code::status(404);
            }
        }
        if method == b"POST" {
            return not_allowed(r);
        }
        send(r, file, method == b"HEAD")
    }
}

/// Sends the file.
fn send(r: &mut Request<'_>, file: File, header_only: bool) -> Code {
    let size = file.size();
    r.set_status(200);
    r.set_content_length(Some(size));
    r.set_allow_ranges(true);
    r.set_content_type();
    r.set_validators(&file);
    match r.send_header() {
        Code::OK | Code::AGAIN => {}
        other => return other,
    }
    // The header filters may have made it a 304.
    if header_only || size == 0 || r.status() == 304 {
        return r.output(Buf::last());
    }
    let mut body = Buf::from_file(file, 0, size);
    body.set_last(true);
    r.output(body)
}

/// 405. RFC 9110, section 15.5.6, asks for the field Allow.
fn not_allowed(r: &mut Request<'_>) -> Code {
    r.set_header_out("Allow", "GET, HEAD");
    Code::status(405)
}

/// Redirects to the same path with a slash.
fn redirect(r: &mut Request<'_>) -> Code {
    let location = directory_location(r.uri(), r.args());
    if r.set_header_out("Location", location) { Code::status(301) } else { Code::status(500) }
}

/// The value of Location for a folder: its path, escaped, a slash, and the arguments as received.
fn directory_location(uri: &[u8], args: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(uri.len() + args.len() + 8);
    // Two slashes in front would make the next part of the path a host.
    let slashes = uri.iter().take_while(|&&byte| byte == b'/').count();
    out.push(b'/');
    escape_path(uri.get(slashes..).unwrap_or_default(), &mut out);
    if !out.ends_with(b"/") {
        out.push(b'/');
    }
    if !args.is_empty() {
        out.push(b'?');
        out.extend_from_slice(args);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(uri: &str, args: &str) -> String {
        String::from_utf8(directory_location(uri.as_bytes(), args.as_bytes())).expect("ASCII")
    }

    #[test]
    fn redirects_to_an_encoded_path() {
        assert_eq!(location("/a/b", ""), "/a/b/");
        assert_eq!(location("/a", "x=1&y=%20"), "/a/?x=1&y=%20");
        assert_eq!(location("/a b?#%\"", ""), "/a%20b%3F%23%25%22/");
        assert_eq!(location("/\u{e4}\r\nX: y", ""), "/%C3%A4%0D%0AX:%20y/");
    }

    #[test]
    fn never_redirects_to_another_host() {
        assert_eq!(location("//evil.example", ""), "/evil.example/");
        assert_eq!(location("/\\evil.example", ""), "/%5Cevil.example/");
        assert_eq!(location("/", ""), "/");
    }
}
