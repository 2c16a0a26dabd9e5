//! URIs as they are written: the other way round than the host, which hands out paths decoded.

/// Adds a decoded path to `out`, with an escape for each byte that nginx does not let stand in a URI as it is
/// (NGX_ESCAPE_URI): controls, space, what is not ASCII, and `"#%<>?\^` and `` `{|} ``. For a Location, or for the request
/// line to a peer. Slashes stay, and as many as there are.
///
/// ```
/// let mut location = Vec::new();
/// topnext_module_api::uri::escape_path("/a b?/ä".as_bytes(), &mut location);
/// assert_eq!(location, b"/a%20b%3F/%C3%A4");
/// ```
pub fn escape_path(path: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in path {
        if byte <= b' ' || byte >= 0x7f || b"\"#%<>?\\^`{|}".contains(&byte) {
            out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        } else {
            out.push(byte);
        }
    }
}

/// Whether `rest`, behind `base`, has a segment `..` that is not one of `base`: what is left of a URI behind the path of a
/// location that has no slash at its end can begin with one, and `base` can end in a dot.
///
/// ```
/// use topnext_module_api::uri::leads_out;
///
/// assert!(leads_out(b"/data/", b"../x") && leads_out(b"/data/", b"a/../../x") && leads_out(b"/data/.", b"./x"));
/// assert!(!leads_out(b"/data", b"/x") && !leads_out(b"/data/../a/", b"..x") && !leads_out(b"/data/..", b"/x"));
/// ```
pub fn leads_out(base: &[u8], rest: &[u8]) -> bool {
    let mut segments = rest.split(|&byte| byte == b'/');
    let first = segments.next().unwrap_or_default();
    let before = base.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let joined = !first.is_empty()
        && match before {
            b"" => first == b"..",
            b"." => first == b".",
            _ => false,
        };
    joined || segments.any(|segment| segment == b"..")
}
