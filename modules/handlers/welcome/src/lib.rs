//! Shows what the server is doing: a page for a new installation.
//!
//! ```toml
//! [[http.server.location]]
//! path = "= /"
//! welcome.enabled = true
//! ```
//!
//! A browser gets a page, everybody else (`curl`) the same facts as plain text. It tells versions, process and modules, so
//! it is not for a server that strangers can reach.

#![forbid(unsafe_code)]

mod facts;
mod page;
mod plain;
mod process;
mod shared;

use std::sync::Arc;

use topnext_module_api::prelude::*;

use facts::{Facts, modules};
use process::Usage;
use shared::Reading;
pub use shared::Shared;

/// The table `welcome`.
#[derive(Config)]
pub struct Table {
    /// Whether the location answers with the page.
    #[config(default = false)]
    enabled: bool,
}

/// The page.
pub struct Welcome {
    shared: Arc<Shared>,
}

export_module! {
    name: "welcome",
    module: Welcome,
    provides: [content],
    state: Shared,
}

impl Content for Welcome {
    fn content(&self, r: &mut Request<'_>) -> Code {
        if r.header_sent() {
            return Code::OK;
        }
        if !matches!(r.method(), b"GET" | b"HEAD") {
            r.set_header_out("Allow", "GET, HEAD");
            return Code::status(405);
        }
        let usage = match r.context::<Reading>() {
            Some(mut reading) => match reading.result() {
                Some(usage) => usage,
                None => return Code::AGAIN,
            },
            None => {
                if let Some(reading) = self.shared.read(r) {
                    r.set_context(reading);
                    return Code::AGAIN;
                }
                log!(r, Level::Warn, "the thread pool is full: the page does without memory and descriptors");
                Usage::default()
            }
        };
        let pages = self.shared.count_page();
        let modules = modules();
        let facts = Facts::of(r, &modules, pages, usage);
        r.set_header_out("Cache-Control", "no-store");
        // The same URI has two forms.
        r.add_header_out("Vary", "Accept");
        if wants_html(r) {
            r.send(200, "text/html; charset=utf-8", page::render(&facts))
        } else {
            r.send(200, "text/plain; charset=utf-8", plain::render(&facts))
        }
    }
}

/// Whether the client names text/html among what it accepts. `*/*` does not count: that is what curl sends.
fn wants_html(r: &Request<'_>) -> bool {
    (0..).map_while(|nth| r.header_in_nth("Accept", nth)).any(accepts_html)
}

fn accepts_html(accept: &[u8]) -> bool {
    accept.split(|&byte| byte == b',').any(|range| {
        let mut parts = range.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(b"text/html"));
        let refused = parts.any(|part| {
            part.strip_prefix(b"q=").is_some_and(|weight| weight.iter().all(|byte| matches!(byte, b'0' | b'.')))
        });
        named && !refused
    })
}

impl Module for Welcome {
    type Config = Table;

    fn new(_: Table, setup: &Setup<'_>) -> Result<Welcome, ConfigErrors> {
        Ok(Welcome { shared: setup.state() })
    }
}

#[cfg(test)]
mod tests {
    use super::accepts_html;

    #[test]
    fn browsers_get_a_page() {
        assert!(accepts_html(b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
        assert!(accepts_html(b"application/json, TEXT/HTML ; q=0.1"));
    }

    #[test]
    fn others_get_text() {
        for accept in [&b"*/*"[..], b"", b"text/plain", b"text/*", b"text/html;q=0", b"text/html; q=0.0", b"text/htmlx"]
        {
            assert!(!accepts_html(accept), "{}", String::from_utf8_lossy(accept));
        }
    }
}
