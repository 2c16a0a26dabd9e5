//! A content handler that counts in a zone, and tells how far it has come.

#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;

use topnext_module_api::prelude::*;
use topnext_module_api::{Setup, Zone, module::Module};

/// The table `counter`.
#[derive(Config)]
pub struct Table {
    /// The name of the zone.
    zone: String,
    /// What its words mean: another number is another meaning.
    #[config(default = 1)]
    layout: u64,
}

/// A counter.
pub struct Counter {
    zone: Zone,
}

export_module! {
    name: "counter",
    module: Counter,
    provides: [content],
}

impl Module for Counter {
    type Config = Table;

    fn new(table: Table, _: &Setup<'_>) -> Result<Counter, ConfigErrors> {
        let mut errors = ConfigErrors::new();
        match Zone::open(&table.zone, table.layout) {
            Ok(zone) => Ok(Counter { zone }),
            Err(message) => {
                let _: Option<()> = errors.add("zone", message);
                Err(errors)
            }
        }
    }
}

impl Content for Counter {
    fn content(&self, r: &mut Request<'_>) -> Code {
        let before = self.zone[0].fetch_add(1, Ordering::Relaxed);
        r.send(200, "text/plain", (before + 1).to_string().into_bytes())
    }
}
