//! What a line of an access log says (nginx: log_format), compiled when the configuration is read.
//!
//! ```text
//! '$remote_addr [$time_local] "$request"'
//!     -> Variable, " [", Variable, "] \"", Variable, "\"\n"
//! ```
//!
//! A line is written from left to right into one buffer: each variable writes its value there, which is then looked
//! through, and escaped in place if need be. So a line costs no other memory.

use std::rc::Rc;

use crate::{
    request::Request,
    template::{self, Part},
    variables::{self, Added},
};

/// The format of this name is always there, and is used where none is named (nginx: log_format combined).
pub const COMBINED: &str = "combined";
const COMBINED_TEXT: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
                             \"$http_referer\" \"$http_user_agent\"";

/// How values are written, so that what a client sends cannot end a line or a field of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escape {
    /// `"`, `\`, control characters and everything above ASCII as `\xXX`; `-` for a variable without value.
    #[default]
    Default,
    /// As in a string of JSON (RFC 8259, section 7); nothing for a variable without value.
    Json,
    /// As they are; nothing for a variable without value.
    None,
}

/// A compiled format.
#[derive(Debug)]
pub struct Format {
    parts: Vec<Part>,
    escape: Escape,
}

impl Format {
    /// Compiles a format; these variables are known beside the host's.
    pub fn compile(text: &str, escape: Escape, added: &Added) -> Result<Format, String> {
        let mut parts = template::parse(text, added)?;
        match parts.last_mut() {
            Some(Part::Literal(text)) => text.push(b'\n'),
            _ => parts.push(Part::Literal(b"\n".to_vec())),
        }
        Ok(Format { parts, escape })
    }

    /// The format [`COMBINED`].
    pub fn combined() -> Format {
        Format::compile(COMBINED_TEXT, Escape::Default, &Added::default()).expect("it names variables of the host")
    }

    /// Writes the line of a request behind what is in `line`.
    pub fn write(&self, r: &Rc<Request>, line: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => line.extend_from_slice(text),
                Part::Variable(variable) => {
                    let start = line.len();
                    if !variables::write(r, variable, line) {
                        line.truncate(start);
                        if self.escape == Escape::Default {
                            line.push(b'-');
                        }
                    } else if !variable.is_plain() {
                        self.escape.apply(line, start);
                    }
                }
            }
        }
    }
}

impl Escape {
    #[inline]
    fn must_change(self, byte: u8) -> bool {
        // Without branches, so that many bytes are looked at at once.
        let is_special = (byte == b'"') | (byte == b'\\') | (byte < 0x20);
        match self {
            Escape::Default => is_special | (byte > 0x7e),
            Escape::Json => is_special,
            Escape::None => false,
        }
    }

    /// Escapes what stands behind `start`.
    fn apply(self, line: &mut Vec<u8>, start: usize) {
        let must_change =
            |escape: Escape| line[start..].iter().fold(false, |found, &byte| found | escape.must_change(byte));
        // Each way by itself, so that none is chosen for each byte.
        let must_change = match self {
            Escape::Default => must_change(Escape::Default),
            Escape::Json => must_change(Escape::Json),
            Escape::None => false,
        };
        if must_change {
            self.rewrite(line, start);
        }
    }

    #[cold]
    fn rewrite(self, line: &mut Vec<u8>, start: usize) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let value = line.split_off(start);
        for byte in value {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            match (self, byte) {
                _ if !self.must_change(byte) => line.push(byte),
                (Escape::Json, b'"' | b'\\') => line.extend_from_slice(&[b'\\', byte]),
                (Escape::Json, b'\n') => line.extend_from_slice(b"\\n"),
                (Escape::Json, b'\r') => line.extend_from_slice(b"\\r"),
                (Escape::Json, b'\t') => line.extend_from_slice(b"\\t"),
                (Escape::Json, 0x08) => line.extend_from_slice(b"\\b"),
                (Escape::Json, 0x0c) => line.extend_from_slice(b"\\f"),
                (Escape::Json, _) => line.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]),
                _ => line.extend_from_slice(&[b'\\', b'x', high, low]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(escape: Escape, text: &[u8]) -> String {
        let mut line = b"\"".to_vec();
        line.extend_from_slice(text);
        escape.apply(&mut line, 1);
        String::from_utf8_lossy(&line[1..]).into_owned()
    }

    #[test]
    fn escapes_what_could_break_a_line() {
        let text = "a \"\\\x01\n\r\t\x08\x0c\x1f\x7f\u{e4}".as_bytes();
        assert_eq!(escaped(Escape::Default, text), "a \\x22\\x5C\\x01\\x0A\\x0D\\x09\\x08\\x0C\\x1F\\x7F\\xC3\\xA4");
        assert_eq!(escaped(Escape::Json, text), "a \\\"\\\\\\u0001\\n\\r\\t\\b\\f\\u001F\x7f\u{e4}");
        assert_eq!(escaped(Escape::None, text), String::from_utf8_lossy(text));
    }

    #[test]
    fn a_format_ends_in_a_line_end() {
        let format = Format::compile("$uri x", Escape::Default, &Added::default()).expect("valid");
        assert!(matches!(format.parts.as_slice(), [Part::Variable(_), Part::Literal(text)] if text == b" x\n"));
        assert_eq!(Format::combined().parts.len(), 16);
        let error = Format::compile("$urj", Escape::Default, &Added::default()).expect_err("unknown");
        assert_eq!(error, "unknown variable \"$urj\"; did you mean \"$uri\"?");
    }
}
