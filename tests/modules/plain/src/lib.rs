//! A good filter: it adds a header field. The tests also patch copies of its file into modules that are to be refused.
//!
//! ```toml
//! plain.text = "hello"
//! ```

#![forbid(unsafe_code)]

use topnext_module_api::prelude::*;

/// The table `plain`.
#[derive(Config)]
pub struct Plain {
    /// Whether the field is added.
    #[config(default = false)]
    enabled: bool,
    /// The value of the field X-Plain.
    #[config(default = "plain")]
    text: String,
    /// Statuses of responses that get the field.
    #[config(default = [200, 204], min = 100, max = 599)]
    statuses: Vec<u16>,
}

export_module! {
    name: "plain",
    module: Plain,
    provides: [filter],
    after: ["ssi"],
    before: ["gzip"],
}

impl Filter for Plain {
    const BODY: bool = false;

    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        if self.statuses.contains(&r.status()) {
            r.set_header_out("X-Plain", &self.text);
        }
        next.call(r)
    }
}
