//! A filter that says which version of it runs. `topnext-soak changes` builds it twice, and replaces one by the other.

#![forbid(unsafe_code)]

use topnext_module_api::prelude::*;

/// What this file was built as.
const BUILT_AS: &str = match option_env!("BUILT_AS") {
    Some(version) => version,
    None => "0",
};

/// The table `versioned`, which has no keys.
#[derive(Config)]
pub struct Versioned;

export_module! {
    name: "versioned",
    module: Versioned,
    provides: [filter],
}

impl Filter for Versioned {
    const BODY: bool = false;

    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        r.set_header_out("X-Version", BUILT_AS);
        next.call(r)
    }
}
