//! Adds response header fields, and says for how long a response may be kept (nginx: the headers module).
//!
//! ```toml
//! [http.server.location.headers]
//! add_header = [{ name = "X-Frame-Options", value = "DENY", always = true }]
//! expires = "30d"             # off, epoch, max, a time, a time with a sign, or "modified +1h"
//! ```
//!
//! The fields of an inner level replace those of the outer ones, as in nginx; `add_header_inherit = "merge"` keeps both,
//! and an empty list drops them all.

#![forbid(unsafe_code)]

mod expires;

use std::time::SystemTime;

use topnext_module_api::prelude::*;

use expires::Expires;

/// The table `headers`.
#[derive(Config)]
pub struct Table {
    /// Header fields to add to responses with status 200, 201, 204, 206, 301, 302, 303, 304, 307 and 308.
    add_header: Merged<Vec<AddHeader>>,
    /// Which fields of the outer levels hold too: on, none if there are some on an inner level; merge, all of them.
    #[config(default = "on")]
    add_header_inherit: Inherit,
    /// Expires and Cache-Control: off; epoch; max; a time from now such as 1h, with a sign if it is past; or that time
    /// after the last modification, "modified +1h".
    #[config(default = "off")]
    expires: String,
}

/// One field to add.
#[derive(Config)]
pub struct AddHeader {
    /// Its name.
    name: String,
    /// Its value, which may contain variables. An empty value adds nothing; it removes Last-Modified and ETag.
    value: Template,
    /// Whether it is added whatever the status is.
    #[config(default = false)]
    always: bool,
}

/// What holds of the fields of outer levels.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inherit {
    /// Those of the innermost level that has some.
    On,
    /// Those of all levels.
    Merge,
}

/// What is added to the responses of a location.
pub struct Headers {
    add: Vec<AddHeader>,
    expires: Expires,
}

export_module! {
    name: "headers",
    module: Headers,
    provides: [filter],
}

impl Filter for Headers {
    const BODY: bool = false;

    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        if !r.is_main() {
            return next.call(r);
        }
        let safe = is_safe_status(r.status());
        if safe && self.expires != Expires::Off {
            self.set_expires(r);
        }
        for field in self.add.iter().filter(|field| safe || field.always) {
            add(r, &field.name, field.value.eval(r));
        }
        next.call(r)
    }
}

impl Headers {
    fn set_expires(&self, r: &mut Request<'_>) {
        let modified = r.header_out("Last-Modified").and_then(|text| std::str::from_utf8(text).ok());
        let modified = modified.and_then(|text| httpdate::parse_http_date(text).ok());
        if let Some(fields) = self.expires.fields(SystemTime::now(), modified) {
            r.set_header_out("Expires", fields.expires);
            r.set_header_out("Cache-Control", fields.cache_control);
        }
    }
}

/// The statuses with which nginx adds a field that is not marked `always`.
fn is_safe_status(status: u16) -> bool {
    matches!(status, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308)
}

/// Adds a field. Of Last-Modified and ETag there is one at most: they are replaced, and an empty value removes them.
fn add(r: &mut Request<'_>, name: &str, value: &[u8]) {
    let single = name.eq_ignore_ascii_case("Last-Modified") || name.eq_ignore_ascii_case("ETag");
    if single && value.is_empty() {
        r.remove_header_out(name);
    } else if single {
        r.set_header_out(name, value);
    } else if !value.is_empty() {
        r.add_header_out(name, value);
    }
}

impl Module for Headers {
    type Config = Table;

    fn new(table: Table, _: &Setup<'_>) -> Result<Headers, ConfigErrors> {
        let mut errors = ConfigErrors::new();
        for (level, fields) in table.add_header.0.iter().enumerate() {
            for (i, field) in fields.iter().enumerate() {
                if let Some(message) = wrong_name(&field.name) {
                    let _: Option<()> = errors.add(&format!("add_header[{level}][{i}].name"), message);
                }
            }
        }
        let expires = match Expires::parse(&table.expires) {
            Ok(expires) => Some(expires),
            Err(message) => errors.add("expires", message),
        };
        match expires {
            Some(expires) if errors.is_empty() => {
                Ok(Headers { add: inherit(table.add_header.0, table.add_header_inherit), expires })
            }
            _ => Err(errors),
        }
    }
}

/// The fields that hold, of those of all levels that have some, outermost first.
fn inherit<T>(mut levels: Vec<Vec<T>>, inherit: Inherit) -> Vec<T> {
    match inherit {
        Inherit::On => levels.pop().unwrap_or_default(),
        Inherit::Merge => levels.into_iter().flatten().collect(),
    }
}

/// What is wrong with the name of a field, if anything.
fn wrong_name(name: &str) -> Option<String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Some(format!("found {name:?}, expected the name of a header field, such as X-Frame-Options"));
    }
    // A second one of these would let client and server disagree on where the response ends.
    let framing = ["Connection", "Content-Length", "Transfer-Encoding"];
    framing
        .iter()
        .any(|field| field.eq_ignore_ascii_case(name))
        .then(|| format!("found {name:?}, which the server writes itself"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_levels_replace_or_add() {
        let levels = || vec![vec![1, 2], vec![3]];
        assert_eq!(inherit(levels(), Inherit::On), [3]);
        assert_eq!(inherit(levels(), Inherit::Merge), [1, 2, 3]);
        assert_eq!(inherit(vec![vec![1], vec![]], Inherit::On), []);
        assert_eq!(inherit(Vec::<Vec<u8>>::new(), Inherit::On), []);
    }

    #[test]
    fn names_are_tokens() {
        for good in ["X-Frame-Options", "Link", "x_y", "ETag"] {
            assert_eq!(wrong_name(good), None, "{good}");
        }
        for bad in ["", "X Y", "X:", "X\r\nY", "\u{e4}", "content-length", "TRANSFER-ENCODING", "connection"] {
            assert!(wrong_name(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn adds_with_the_statuses_of_nginx() {
        let safe: Vec<u16> = (100..600).filter(|&status| is_safe_status(status)).collect();
        assert_eq!(safe, [200, 201, 204, 206, 301, 302, 303, 304, 307, 308]);
    }
}
