//! The access log, in the combined format (nginx: log_format combined):
//!
//! ```text
//! 127.0.0.1 - - [22/Nov/2026:03:26:11 +0000] "GET / HTTP/1.1" 200 612 "-" "curl/7.88.1"
//! ```

/// What a line says.
pub struct Entry<'a> {
    /// The client's address.
    pub remote_addr: &'a [u8],
    /// The request line; empty if none could be read.
    pub request: &'a [u8],
    /// The status.
    pub status: u16,
    /// Bytes of the body that were sent.
    pub body_bytes_sent: u64,
    /// The Referer field.
    pub referer: Option<&'a [u8]>,
    /// The User-Agent field.
    pub user_agent: Option<&'a [u8]>,
}

/// Writes the line at the end of `line`.
pub fn write(line: &mut Vec<u8>, entry: &Entry<'_>) {
    line.extend_from_slice(entry.remote_addr);
    line.extend_from_slice(b" - - [");
    crate::clock::write_access_log_time(line);
    line.extend_from_slice(b"] \"");
    escape(line, entry.request);
    line.extend_from_slice(b"\" ");
    line.extend_from_slice(itoa::Buffer::new().format(entry.status).as_bytes());
    line.push(b' ');
    line.extend_from_slice(itoa::Buffer::new().format(entry.body_bytes_sent).as_bytes());
    line.extend_from_slice(b" \"");
    escape(line, entry.referer.unwrap_or(b"-"));
    line.extend_from_slice(b"\" \"");
    escape(line, entry.user_agent.unwrap_or(b"-"));
    line.extend_from_slice(b"\"\n");
}

/// As nginx: `"`, `\`, control characters and everything above ASCII as `\xXX`.
fn escape(line: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text {
        if !(0x20..=0x7e).contains(&byte) || byte == b'"' || byte == b'\\' {
            line.extend_from_slice(&[b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        } else {
            line.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_could_break_a_line() {
        let mut line = Vec::new();
        let entry = Entry {
            remote_addr: b"::1",
            request: b"GET /\"\\\x01\xff HTTP/1.1",
            status: 400,
            body_bytes_sent: 7,
            referer: None,
            user_agent: Some(b"a\nb"),
        };
        write(&mut line, &entry);
        let line = String::from_utf8(line).expect("ASCII");
        assert!(line.starts_with("::1 - - ["), "{line}");
        assert!(line.ends_with("] \"GET /\\x22\\x5C\\x01\\xFF HTTP/1.1\" 400 7 \"-\" \"a\\x0Ab\"\n"), "{line}");
    }
}
