//! It panics in init: refused with the panic's message, file and line.

#![forbid(unsafe_code)]

use topnext_module_api::prelude::*;

/// The table `init_panic`, which has no keys.
#[derive(Config)]
pub struct InitPanic {}

/// State whose making panics.
pub struct Broken;

impl State for Broken {
    fn create() -> Result<Broken, String> {
        panic!("the state is broken")
    }
}

export_module! {
    name: "init_panic",
    module: InitPanic,
    provides: [filter],
    state: Broken,
}

impl Filter for InitPanic {}
