//! The header of a response: status, length and fields, until they are written.

use super::pool::{Pool, PoolStr};

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct FieldOut {
    /// The name as it will be written.
    pub name: PoolStr,
    /// The value, without leading or trailing white space.
    pub value: PoolStr,
}

/// The most fields that a response may have.
const MAX_FIELDS: usize = 256;

/// The fields of a response, in the order in which they were set.
#[derive(Debug, Default)]
pub struct HeadersOut {
    fields: Vec<FieldOut>,
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
        let same = |field: &&FieldOut| pool.get(field.name).eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).nth(nth).map(|field| pool.get(field.value))
    }

    /// The fields.
    pub fn fields(&self) -> &[FieldOut] {
        &self.fields
    }

    /// Sets a field, in place of all of this name unless `append`.
    pub fn set(&mut self, pool: &mut Pool, name: &[u8], value: &[u8], append: bool) -> Result<(), Refused> {
        if name.is_empty() || !name.iter().all(|&byte| TOKEN[usize::from(byte)]) {
            return Err(Refused::Name);
        }
        // Without an early end, so that it takes many bytes at once.
        if value.iter().fold(false, |bad, &byte| bad | ((byte < 0x20) & (byte != b'\t')) | (byte == 0x7f)) {
            return Err(Refused::Value);
        }
        if is_framing(name) {
            return Err(Refused::Host);
        }
        let value = value.trim_ascii();
        if !append {
            // Replaced in place, so that the order of fields is that of their first mention.
            let is_same = |field: &FieldOut| pool.get(field.name).eq_ignore_ascii_case(name);
            if let Some(first) = self.fields.iter().position(is_same) {
                let mut index = 0;
                self.fields.retain(|field| {
                    index += 1;
                    index - 1 <= first || !is_same(field)
                });
                self.fields[first].value = pool.store(&[value]).ok_or(Refused::TooMuch)?;
                return Ok(());
            }
        }
        if self.fields.len() >= MAX_FIELDS {
            return Err(Refused::TooMuch);
        }
        let (name, value) = pool.store(&[name, value]).ok_or(Refused::TooMuch)?.split_at(name.len());
        self.fields.push(FieldOut { name, value });
        Ok(())
    }

    /// Removes the fields of this name.
    pub fn remove(&mut self, pool: &Pool, name: &[u8]) {
        self.fields.retain(|field| !pool.get(field.name).eq_ignore_ascii_case(name));
    }

    /// Removes all fields behind the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.fields.truncate(len);
    }

    /// Removes all fields.
    pub fn clear(&mut self) {
        self.fields.clear();
    }
}

/// The bytes of a token (RFC 9110, 5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let marks = b"!#$%&'*+-.^_`|~";
    let mut i = 0;
    while i < marks.len() {
        table[marks[i] as usize] = true;
        i += 1;
    }
    let mut byte = 0;
    while byte < 128 {
        table[byte] |= (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

/// Fields that say where the response ends, or whether the connection stays: only the host knows.
fn is_framing(name: &[u8]) -> bool {
    match name.len() {
        10 => name.eq_ignore_ascii_case(b"connection") || name.eq_ignore_ascii_case(b"keep-alive"),
        14 => name.eq_ignore_ascii_case(b"content-length"),
        17 => name.eq_ignore_ascii_case(b"transfer-encoding"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(headers: &HeadersOut, pool: &Pool) -> Vec<String> {
        let text = |s| String::from_utf8_lossy(pool.get(s)).into_owned();
        headers.fields().iter().map(|field| format!("{}={}", text(field.name), text(field.value))).collect()
    }

    #[test]
    fn sets_replaces_appends_and_removes() {
        let (mut pool, mut headers) = (Pool::default(), HeadersOut::default());
        headers.set(&mut pool, b"A", b"1", true).expect("valid");
        headers.set(&mut pool, b"B", b" 2 ", true).expect("valid");
        headers.set(&mut pool, b"a", b"3", true).expect("valid");
        assert_eq!(texts(&headers, &pool), ["A=1", "B=2", "a=3"]);
        headers.set(&mut pool, b"a", b"4", false).expect("valid");
        assert_eq!(texts(&headers, &pool), ["A=4", "B=2"]);
        headers.set(&mut pool, b"a", b"4", true).expect("valid");
        headers.set(&mut pool, b"a", b"4", false).expect("valid");
        assert_eq!(texts(&headers, &pool), ["A=4", "B=2"]);
        headers.remove(&pool, b"b");
        assert_eq!(texts(&headers, &pool), ["A=4"]);
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
