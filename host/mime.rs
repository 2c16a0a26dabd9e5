//! Media types by file extension (nginx: types, default_type).

/// The type for a URI's extension; `default_type` if it has none that is known.
pub fn of<'a>(uri: &[u8], default_type: &'a str) -> &'a str {
    let mark = uri.iter().rposition(|&byte| byte == b'.' || byte == b'/');
    let Some(dot) = mark.filter(|&at| uri[at] == b'.') else { return default_type };
    let Ok(extension) = std::str::from_utf8(&uri[dot + 1..]) else { return default_type };
    mime_guess::from_ext(extension).first_raw().unwrap_or(default_type)
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn by_the_last_extension_of_the_last_segment() {
        assert_eq!(of(b"/a/index.html", "x/y"), "text/html");
        assert_eq!(of(b"/a.css/file", "x/y"), "x/y");
        assert_eq!(of(b"/archive.tar.GZ", "x/y"), "application/gzip");
        assert_eq!(of(b"/.html", "x/y"), "text/html");
        assert_eq!(of(b"/file.", "x/y"), "x/y");
        assert_eq!(of(b"/f.\xff", "x/y"), "x/y");
    }
}
