//! The header of a response: status, length and fields, until they are written.

use super::pool::{Pool, PoolStr};
use crate::http1::is_token_byte;

/// One field, as the line that will be written.
#[derive(Clone, Copy, Debug)]
pub struct FieldOut {
    line: PoolStr,
    name_len: u16,
}

impl FieldOut {
    /// The line with its CRLF.
    pub fn line(self) -> PoolStr {
        self.line
    }

    /// The name as it will be written.
    pub fn name(self) -> PoolStr {
        self.line.split_at(usize::from(self.name_len)).0
    }

    /// The value, without leading or trailing white space.
    pub fn value(self) -> PoolStr {
        self.line.slice(usize::from(self.name_len) + SEPARATOR.len(), LINE_END.len())
    }
}

const SEPARATOR: &[u8] = b": ";
const LINE_END: &[u8] = b"\r\n";
/// A longer name is refused.
const MAX_NAME: usize = 1024;

/// The most fields that a response may have.
const MAX_FIELDS: usize = 256;

/// The fields of a response, in the order in which they were set.
#[derive(Debug, Default)]
pub struct HeadersOut {
    fields: Vec<FieldOut>,
    /// Server or Date may be among them.
    replaces_own: bool,
}

/// Why a field was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The name is not a token (RFC 9110, 5.6.2).
    Name,
    /// The value has control characters in it.
    Value,
    /// The host writes this field itself.
    Host,
    /// There are too many, or they are too large.
    TooMuch,
}

impl HeadersOut {
    /// The n-th field of this name.
    pub fn get<'p>(&self, pool: &'p Pool, name: &[u8], nth: usize) -> Option<&'p [u8]> {
        let same = |field: &&FieldOut| pool.get(field.name()).eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).nth(nth).map(|field| pool.get(field.value()))
    }

    /// The fields.
    pub fn fields(&self) -> &[FieldOut] {
        &self.fields
    }

    /// Whether a module has ever set a field that the host would write itself otherwise: Server or Date.
    pub fn replaces_own(&self) -> bool {
        self.replaces_own
    }

    /// Sets a field, in place of all of this name unless `append`.
    pub fn set(&mut self, pool: &mut Pool, name: &[u8], value: &[u8], append: bool) -> Result<(), Refused> {
        if name.is_empty() || name.len() > MAX_NAME || !name.iter().all(|&byte| is_token_byte(byte)) {
            return Err(Refused::Name);
        }
        check_value(value)?;
        match own(name) {
            Own::Framing => return Err(Refused::Host),
            Own::Default => self.replaces_own = true,
            Own::Not => (),
        }
        self.put(pool, name, value, append)
    }

    /// Sets Content-Type.
    pub fn set_content_type(&mut self, pool: &mut Pool, mime: &str) -> Result<(), Refused> {
        check_value(mime.as_bytes())?;
        self.put(pool, b"Content-Type", mime.as_bytes(), false)
    }

    /// Sets a field whose name and value the host has made: no check is needed.
    pub fn set_own(&mut self, pool: &mut Pool, name: &[u8], value: &str) -> Result<(), Refused> {
        self.put(pool, name, value.as_bytes(), false)
    }

    fn put(&mut self, pool: &mut Pool, name: &[u8], value: &[u8], append: bool) -> Result<(), Refused> {
        // Replaced in place, so that the order of fields is that of their first mention.
        let is_same = |field: &FieldOut, pool: &Pool| pool.get(field.name()).eq_ignore_ascii_case(name);
        let first = match append {
            true => None,
            false => self.fields.iter().position(|field| is_same(field, pool)),
        };
        if first.is_none() && self.fields.len() >= MAX_FIELDS {
            return Err(Refused::TooMuch);
        }
        let value = value.trim_ascii();
        let len = name.len() + SEPARATOR.len() + value.len() + LINE_END.len();
        let line = pool.store_with(len, |line| {
            line.extend_from_slice(name);
            line.extend_from_slice(SEPARATOR);
            line.extend_from_slice(value);
            line.extend_from_slice(LINE_END);
        });
        let line = line.ok_or(Refused::TooMuch)?;
        let field = FieldOut { line, name_len: name.len() as u16 };
        let Some(first) = first else {
            self.fields.push(field);
            return Ok(());
        };
        let mut index = 0;
        self.fields.retain(|field| {
            index += 1;
            index - 1 <= first || !is_same(field, pool)
        });
        self.fields[first] = field;
        Ok(())
    }

    /// Removes the fields of this name.
    pub fn remove(&mut self, pool: &Pool, name: &[u8]) {
        self.fields.retain(|field| !pool.get(field.name()).eq_ignore_ascii_case(name));
    }

    /// Removes all fields behind the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.fields.truncate(len);
    }

    /// Removes all fields.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.replaces_own = false;
    }
}

fn check_value(value: &[u8]) -> Result<(), Refused> {
    // Without an early end, so that it takes many bytes at once.
    let bad = value.iter().fold(false, |bad, &byte| bad | ((byte < 0x20) & (byte != b'\t')) | (byte == 0x7f));
    if bad { Err(Refused::Value) } else { Ok(()) }
}

/// What the host has to do with a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    /// Nothing.
    Not,
    /// It writes one if no module does.
    Default,
    /// It says where the response ends, or whether the connection stays: only the host knows.
    Framing,
}

fn own(name: &[u8]) -> Own {
    let is = |known: &[u8], own| if name.eq_ignore_ascii_case(known) { own } else { Own::Not };
    match name.len() {
        4 => is(b"date", Own::Default),
        6 => is(b"server", Own::Default),
        10 if name.eq_ignore_ascii_case(b"keep-alive") => Own::Framing,
        10 => is(b"connection", Own::Framing),
        14 => is(b"content-length", Own::Framing),
        17 => is(b"transfer-encoding", Own::Framing),
        _ => Own::Not,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(headers: &HeadersOut, pool: &Pool) -> Vec<String> {
        let text = |s| String::from_utf8_lossy(pool.get(s)).into_owned();
        headers.fields().iter().map(|field| format!("{}={}", text(field.name()), text(field.value()))).collect()
    }

    #[test]
    fn sets_replaces_appends_and_removes() {
        let (mut pool, mut headers) = (Pool::default(), HeadersOut::default());
        headers.set(&mut pool, b"A", b"1", true).expect("valid");
        headers.set(&mut pool, b"B", b" 2 ", true).expect("valid");
        headers.set(&mut pool, b"a", b"3", true).expect("valid");
        assert_eq!(texts(&headers, &pool), ["A=1", "B=2", "a=3"]);
        headers.set(&mut pool, b"a", b"4", false).expect("valid");
        assert_eq!(texts(&headers, &pool), ["a=4", "B=2"]);
        headers.set(&mut pool, b"a", b"4", true).expect("valid");
        headers.set(&mut pool, b"a", b"4", false).expect("valid");
        assert_eq!(texts(&headers, &pool), ["a=4", "B=2"]);
        headers.remove(&pool, b"b");
        assert_eq!(texts(&headers, &pool), ["a=4"]);
    }

    #[test]
    fn refuses_what_would_split_a_response() {
        let (mut pool, mut headers) = (Pool::default(), HeadersOut::default());
        assert_eq!(headers.set(&mut pool, b"A", b"1\r\nB: 2", true), Err(Refused::Value));
        assert_eq!(headers.set(&mut pool, b"A:", b"1", true), Err(Refused::Name));
        assert_eq!(headers.set(&mut pool, b"", b"1", true), Err(Refused::Name));
        assert_eq!(headers.set(&mut pool, b"content-Length", b"1", true), Err(Refused::Host));
    }
}
