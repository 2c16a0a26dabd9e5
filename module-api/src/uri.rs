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
