//! Its state is never made: init does not return.

#![forbid(unsafe_code)]

use std::{thread, time::Duration};

use topnext_module_api::prelude::*;

/// The table `hang`, which has no keys.
#[derive(Config)]
pub struct Hang {}

/// State that takes for ever.
pub struct Forever;

impl State for Forever {
    fn create() -> Result<Forever, String> {
        loop {
            thread::sleep(Duration::from_secs(3600));
        }
    }
}

export_module! {
    name: "hang",
    module: Hang,
    provides: [filter],
    state: Forever,
}

impl Filter for Hang {}
