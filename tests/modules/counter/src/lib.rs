//! A content handler that counts in a zone, and tells how far it has come. With `?in=wild` it writes all over the zone.

#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;

use topnext_module_api::prelude::*;

/// The table `counter`.
#[derive(Config)]
pub struct Table {
    /// The name of the zone.
    zone: String,
    /// What its words mean: another number is another meaning.
    #[config(default = 1)]
    layout: u64,
    /// Which word counts.
    #[config(default = 0)]
    at: usize,
}

/// A counter.
pub struct Counter {
    zone: Zone,
    at: usize,
}

export_module! {
    name: "counter",
    module: Counter,
    provides: [content],
}

impl Module for Counter {
    type Config = Table;

    fn new(table: Table, _: &Setup<'_>) -> Result<Counter, ConfigErrors> {
        let zone = Zone::open(&table.zone, table.layout).map_err(|error| ConfigErrors::at("zone", error))?;
        if table.at >= zone.len() {
            let text = format!("found {}, but the zone has {} words", table.at, zone.len());
            return Err(ConfigErrors::at("at", text));
        }
        Ok(Counter { zone, at: table.at })
    }
}

impl Content for Counter {
    fn content(&self, r: &mut Request<'_>) -> Code {
        if r.variable("arg_in") == Some(b"wild") {
            self.zone.iter().for_each(|word| word.store(41, Ordering::Relaxed));
        }
        let before = self.zone[self.at].fetch_add(1, Ordering::Relaxed);
        r.send(200, "text/plain", (before + 1).to_string().into_bytes())
    }
}
