//! Media types by file extension (nginx: types, default_type).

use crate::config::Types;

/// The type for a URI's extension; `default_type` if it has none that is known.
pub fn of<'a>(uri: &[u8], types: Option<&'a Types>, default_type: &'a str) -> &'a str {
    let Some(extension) = extension(uri) else { return default_type };
    let found = match types {
        Some(types) => types.get(extension),
        None => std::str::from_utf8(extension).ok().and_then(|text| mime_guess::from_ext(text).first_raw()),
    };
    found.unwrap_or(default_type)
}

/// What follows the last dot of the last segment. A dot at the start of that hides a file, and begins no extension.
fn extension(uri: &[u8]) -> Option<&[u8]> {
    let mark = uri.iter().rposition(|&byte| byte == b'.' || byte == b'/')?;
    let hides = mark == 0 || uri[mark - 1] == b'/';
    (uri[mark] == b'.' && !hides).then(|| &uri[mark + 1..])
}

#[cfg(test)]
mod tests {
    use super::of;

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
}
