//! Compresses responses with gzip, for clients that accept it (nginx: the gzip module).
//!
//! ```toml
//! [http.gzip]
//! enabled = true
//! types = ["text/css", "application/json"]     # besides text/html; "*" means all
//! comp_level = 1
//! ```
//!
//! Responses with status 200, 403 and 404 are compressed, if type, length, HTTP version and client allow it. What is
//! compressed has no length, a weak ETag and no ranges.
//!
//! A response of at most 64 kilobytes is compressed in one call. A longer one, or one whose length is not known, is
//! compressed as it flows: one compressor and one buffer per response, and never more output at once than
//! `buffers` allow. What the client does not take yet stays uncompressed. `$gzip_ratio` is the ratio that was achieved.

#![forbid(unsafe_code)]

mod accept;
mod compressors;
mod deflate;
mod disable;
mod proxied;

use std::sync::Arc;

use topnext_module_api::prelude::*;

pub use compressors::Compressors;
use deflate::Deflate;
use disable::Disable;
use proxied::{Proxied, Response};

/// The table `gzip`.
#[derive(Config)]
pub struct Table {
    /// Whether responses are compressed.
    #[config(default = false)]
    enabled: bool,
    /// Media types that are compressed besides text/html; "*" stands for all.
    #[config(default = ["text/html"])]
    types: Vec<String>,
    /// How hard to try, from 1 (fast) to 9 (small).
    #[config(default = 1, min = 1, max = 9)]
    comp_level: u32,
    /// The least Content-Length of a response that is compressed. One whose length is not known is compressed.
    #[config(default = 20)]
    min_length: Size,
    /// Whether to add "Vary: Accept-Encoding" to responses that are compressed for some clients.
    #[config(default = false)]
    vary: bool,
    /// The least version of HTTP of a request whose response is compressed: "1.0" or "1.1".
    #[config(default = "1.1")]
    http_version: String,
    /// Which responses are compressed for requests that came through a proxy (with a field Via): off, any, or some of
    /// expired, no-cache, no-store, private, no_last_modified, no_etag, auth.
    #[config(default = ["off"])]
    proxied: Vec<String>,
    /// Regular expressions, without regard to case: a request whose User-Agent matches one gets its response uncompressed.
    /// "msie6" stands for Internet Explorer 4 to 6, but not 6.0 with SV1.
    #[config(default = [])]
    disable: Vec<String>,
    /// Bound of the output that is made at once. Default: 32 buffers of 4k.
    buffers: Option<Buffers>,
}

/// The buffers for output.
#[derive(Config)]
pub struct Buffers {
    /// How many.
    #[config(default = 32, min = 1, max = 1024)]
    number: u32,
    /// The size of each, from 256 to 1m.
    #[config(default = "4k")]
    size: Size,
}

/// How responses of a location are compressed.
pub struct Gzip {
    compressors: Arc<Compressors>,
    types: Types,
    comp_level: u32,
    min_length: u64,
    vary: bool,
    http_version: u32,
    proxied: Proxied,
    disable: Disable,
    /// The size of an output buffer.
    size: usize,
    /// Greatest amount of output that is made before the client takes some.
    limit: u64,
}

/// Which media types are compressed, in lower case.
enum Types {
    All,
    These(Vec<String>),
}

/// A response that is being compressed.
struct Context {
    deflate: Deflate,
    /// What is not compressed yet, since the client does not take more.
    input: Chain,
    /// The host has been told that some is held back.
    holding: bool,
}

export_module! {
    name: "gzip",
    module: Gzip,
    provides: [filter, variables],
    state: Compressors,
    after: ["addition", "ssi", "sub"],
}

impl Filter for Gzip {
    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        if !matches!(r.status(), 200 | 403 | 404) || !r.is_main() {
            return next.call(r);
        }
        if r.header_out("Content-Encoding").is_some_and(|coding| !coding.is_empty()) {
            return next.call(r);
        }
        if r.content_length().is_some_and(|length| length < self.min_length) {
            return next.call(r);
        }
        if !r.header_out("Content-Type").is_some_and(|value| self.types.has(value)) {
            return next.call(r);
        }
        if self.vary {
            add_vary(r);
        }
        if r.version() < self.http_version || !accept::accepts_gzip(all(r, "Accept-Encoding")) {
            return next.call(r);
        }
        if r.header_in("Via").is_some() && !self.proxied.allows(&Response::of(r)) {
            return next.call(r);
        }
        if !self.disable.is_empty() && r.header_in("User-Agent").is_some_and(|agent| self.disable.has(agent)) {
            return next.call(r);
        }

        let length = r.content_length();
        r.set_header_out("Content-Encoding", "gzip");
        r.set_content_length(None);
        r.set_allow_ranges(false);
        r.remove_header_out("Accept-Ranges");
        weaken_etag(r);
        if r.method() != b"HEAD" {
            r.need_memory();
            let deflate = Deflate::new(self.compressors.clone(), self.comp_level, self.size, length);
            r.set_context(Context { deflate, input: Chain::new(), holding: false });
        }
        next.call(r)
    }

    fn body_filter(&self, r: &mut Request<'_>, chain: Chain, next: BodyNext<'_>) -> Code {
        let Some(mut context) = r.context::<Context>().filter(|context| !context.deflate.is_finished()) else {
            return next.call(r, chain);
        };
        context.input.append(chain);
        loop {
            let Context { deflate, input, .. } = &mut *context;
            let out = match deflate.run(input, self.limit) {
                Ok(out) => out,
                Err(error) => {
                    log!(r, Level::Alert, "{error}");
                    return Code::ERROR;
                }
            };
            // Called also if there is no output yet: then the next filters continue with what they hold.
            let code = next.call(r, out);
            let more = !context.input.is_empty();
            if more && code == Code::OK {
                continue;
            }
            if context.holding != more {
                context.holding = more;
                r.hold(more);
            }
            return code;
        }
    }
}

impl Variables for Gzip {
    const NAMES: &'static [&'static str] = &["gzip_ratio"];
    const NOCACHEABLE: &'static [&'static str] = &["gzip_ratio"];

    fn variable(r: &mut Request<'_>, _: usize) -> Option<Vec<u8>> {
        let context = r.context::<Context>()?;
        let (read, written) = context.deflate.totals();
        ratio(read, written).map(String::into_bytes)
    }
}

/// The ratio of compression, rounded to two digits; `None` if there is no output.
fn ratio(read: u64, written: u64) -> Option<String> {
    let written = u128::from(written);
    let hundredths = (u128::from(read) * 1000).checked_div(written)?.saturating_add(5) / 10;
    Some(format!("{}.{:02}", hundredths / 100, hundredths % 100))
}

/// All request header fields of a name, which together make one list.
fn all<'h>(r: &Request<'h>, name: &str) -> impl Iterator<Item = &'h [u8]> {
    (0..).map_while(move |nth| r.header_in_nth(name, nth))
}

fn add_vary(r: &mut Request<'_>) {
    let there = r.headers_out().any(|(name, value)| {
        name.eq_ignore_ascii_case(b"Vary")
            && value.split(|&byte| byte == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(b"Accept-Encoding"))
    });
    if !there {
        r.add_header_out("Vary", "Accept-Encoding");
    }
}

/// What is compressed is no longer the same byte by byte: its tag becomes weak (RFC 9110, section 8.8.1).
fn weaken_etag(r: &mut Request<'_>) {
    match r.header_out("ETag") {
        Some(tag) if tag.starts_with(b"\"") => {
            let weak = [b"W/", tag].concat();
            r.set_header_out("ETag", weak);
        }
        Some(tag) if !tag.starts_with(b"W/") => r.remove_header_out("ETag"),
        _ => {}
    }
}

impl Types {
    fn new(types: Vec<String>) -> Types {
        if types.iter().any(|name| name == "*") {
            return Types::All;
        }
        let mut names: Vec<String> = types.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        names.push("text/html".to_string());
        names.sort();
        names.dedup();
        Types::These(names)
    }

    /// Whether a Content-Type is among them, whatever its parameters are.
    fn has(&self, content_type: &[u8]) -> bool {
        let Types::These(names) = self else { return true };
        let end = content_type.iter().position(|&byte| byte == b';').unwrap_or(content_type.len());
        let name = content_type[..end].trim_ascii();
        names.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name))
    }
}

impl Module for Gzip {
    type Config = Table;

    fn new(table: Table, setup: &Setup<'_>) -> Result<Gzip, ConfigErrors> {
        let mut errors = ConfigErrors::new();
        let http_version = match table.http_version.as_str() {
            "1.0" => Some(10),
            "1.1" => Some(11),
            other => errors.within(".http_version".to_string(), |errors| errors.refuse(&["1.0", "1.1"], other)),
        };
        for (i, name) in table.types.iter().enumerate() {
            if name != "*" && name.split_once('/').is_none_or(|(ty, sub)| ty.is_empty() || sub.is_empty()) {
                let message = format!("found {name:?}, expected a media type such as text/css, or \"*\"");
                let _: Option<()> = errors.add(&format!("types[{i}]"), message);
            }
        }
        let proxied = Proxied::read(&table.proxied, &mut errors);
        let disable = Disable::read(&table.disable, &mut errors);
        let Buffers { number, size: Size(size) } = table.buffers.unwrap_or(Buffers { number: 32, size: Size(4096) });
        if !(256..=1 << 20).contains(&size) {
            let _: Option<()> = errors.add("buffers.size", format!("found {size}, expected a size from 256 to 1m"));
        }
        let (Some(http_version), Some(proxied), Some(disable), true) =
            (http_version, proxied, disable, errors.is_empty())
        else {
            return Err(errors);
        };
        Ok(Gzip {
            compressors: setup.state(),
            types: Types::new(table.types),
            comp_level: table.comp_level,
            min_length: table.min_length.0,
            vary: table.vary,
            http_version,
            proxied,
            disable,
            // At most 1m, as checked above.
            size: size as usize,
            limit: size * u64::from(number),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_always_among_the_types() {
        let types = Types::new(vec!["Text/CSS".to_string()]);
        for good in ["text/html", "text/html; charset=utf-8", "TEXT/css", "text/css ;x"] {
            assert!(types.has(good.as_bytes()), "{good}");
        }
        for bad in ["text/plain", "text/htmlx", "text", "", ";text/html"] {
            assert!(!types.has(bad.as_bytes()), "{bad}");
        }
        assert!(Types::new(vec!["*".to_string()]).has(b"image/png"));
    }

    #[test]
    fn the_ratio_has_two_digits() {
        assert_eq!(ratio(1000, 100).as_deref(), Some("10.00"));
        assert_eq!(ratio(1999, 1000).as_deref(), Some("2.00"));
        assert_eq!(ratio(1234, 1000).as_deref(), Some("1.23"));
        assert_eq!(ratio(1235, 1000).as_deref(), Some("1.24"));
        assert_eq!(ratio(0, 20).as_deref(), Some("0.00"));
        assert_eq!(ratio(10, 0), None);
        assert!(ratio(u64::MAX, 1).is_some());
    }
}
