//! Built with panic = "abort": a panic in it would end the worker, so it is refused from its description.

#![forbid(unsafe_code)]

use topnext_module_api::prelude::*;

/// The table `abort`, which has no keys.
#[derive(Config)]
pub struct Abort {}

export_module! {
    name: "abort",
    module: Abort,
    provides: [filter],
}

impl Filter for Abort {}
