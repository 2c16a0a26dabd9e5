//! Its state cannot be made: init answers an error, whose text the refusal shows.

#![forbid(unsafe_code)]

use topnext_module_api::prelude::*;

/// The table `init_error`, which has no keys.
#[derive(Config)]
pub struct InitError {}

/// State that cannot be made.
pub struct Licence;

impl State for Licence {
    fn create() -> Result<Licence, String> {
        Err("no licence for this machine".to_string())
    }
}

export_module! {
    name: "init_error",
    module: InitError,
    provides: [filter],
    state: Licence,
}

impl Filter for InitError {}
