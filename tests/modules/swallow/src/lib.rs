//! A filter that hides the errors of the filters behind it: whatever they answer, it answers Ok.

#![forbid(unsafe_code)]

use topnext_module_api::prelude::*;

/// The table `swallow`, which has no keys.
#[derive(Config)]
pub struct Swallow {}

export_module! {
    name: "swallow",
    module: Swallow,
    provides: [filter],
}

impl Filter for Swallow {
    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        let _ = next.call(r);
        Code::OK
    }

    fn body_filter(&self, r: &mut Request<'_>, chain: Chain, next: BodyNext<'_>) -> Code {
        let _ = next.call(r, chain);
        Code::OK
    }
}
