//! Media types by file extension (nginx: types, default_type).

use crate::config::Types;

/// The type for a URI's extension; `default_type` if it has none that is known.
pub fn of<'a>(uri: &[u8], types: Option<&'a Types>, default_type: &'a str) -> &'a str {
    let Some(extension) = extension(uri) else { return default_type };
    let found = match types {
        Some(types) => types.get(extension),
        None => usual(extension),
    };
    found.unwrap_or(default_type)
}

/// The type that is usual for an extension.
fn usual(extension: &[u8]) -> Option<&'static str> {
    let other = OVERRIDES.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(extension));
    match other {
        Some((_, other)) => *other,
        None => std::str::from_utf8(extension).ok().and_then(|text| mime_guess::from_ext(text).first_raw()),
    }
}

/// Where the crate is not of the opinion of nginx's mime.types, or of a newer RFC: by extension; `None`: no usual type.
const OVERRIDES: &[(&str, Option<&str>)] = &[
    // As .js (RFC 9239).
    ("mjs", Some("text/javascript")),
    // Source maps (ECMA-426).
    ("map", Some("application/json")),
    ("m3u8", Some("application/vnd.apple.mpegurl")),
    ("m4a", Some("audio/x-m4a")),
    // RFC 8081
    ("otf", Some("font/otf")),
    ("rpm", Some("application/x-redhat-package-manager")),
    ("ts", Some("video/mp2t")),
    ("dll", Some("application/octet-stream")),
    ("woff", Some("font/woff")),
    // A file of this name is anything but one of DirectX.
    ("x", None),
];

/// What follows the last dot of the last segment. A dot at the start of that hides a file, and begins no extension.
fn extension(uri: &[u8]) -> Option<&[u8]> {
    let mark = uri.iter().rposition(|&byte| byte == b'.' || byte == b'/')?;
    let hides = mark == 0 || uri[mark - 1] == b'/';
    (uri[mark] == b'.' && !hides).then(|| &uri[mark + 1..])
}

#[cfg(test)]
mod tests {
    use super::{OVERRIDES, of};

    #[test]
    fn by_the_last_extension_of_the_last_segment() {
        let of = |uri: &'static [u8]| of(uri, None, "x/y");
        assert_eq!(of(b"/a/index.html"), "text/html");
        assert_eq!(of(b"/a.css/file"), "x/y");
        assert_eq!(of(b"/archive.tar.GZ"), "application/gzip");
        assert_eq!(of(b"/.html"), "x/y");
        assert_eq!(of(b"/a/.html"), "x/y");
        assert_eq!(of(b"/a/.x.html"), "text/html");
        assert_eq!(of(b"/file."), "x/y");
        assert_eq!(of(b"/f.\xff"), "x/y");
    }

    #[test]
    fn files_of_the_web_have_the_types_that_browsers_expect() {
        for (extension, expected) in [
            ("html", "text/html"),
            ("css", "text/css"),
            ("js", "text/javascript"),
            ("mjs", "text/javascript"),
            ("json", "application/json"),
            ("map", "application/json"),
            ("xml", "text/xml"),
            ("svg", "image/svg+xml"),
            ("png", "image/png"),
            ("jpg", "image/jpeg"),
            ("webp", "image/webp"),
            ("avif", "image/avif"),
            ("ico", "image/x-icon"),
            ("woff", "font/woff"),
            ("woff2", "font/woff2"),
            ("ttf", "font/ttf"),
            ("wasm", "application/wasm"),
            ("mp4", "video/mp4"),
            ("webm", "video/webm"),
            ("TS", "video/mp2t"),
            ("m3u8", "application/vnd.apple.mpegurl"),
            ("pdf", "application/pdf"),
            ("zip", "application/zip"),
            ("gz", "application/gzip"),
            ("rpm", "application/x-redhat-package-manager"),
            ("deb", "application/octet-stream"),
            ("txt", "text/plain"),
            ("md", "text/markdown"),
            ("x", "none"),
        ] {
            assert_eq!(of(format!("/a.{extension}").as_bytes(), None, "none"), expected, "{extension}");
        }
    }

    #[test]
    fn the_crate_is_overridden_only_where_it_differs() {
        for (extension, ours) in OVERRIDES {
            assert_ne!(mime_guess::from_ext(extension).first_raw(), *ours, "{extension}");
        }
    }
}
