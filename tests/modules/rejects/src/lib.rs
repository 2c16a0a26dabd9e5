//! It checks its table itself, and finds several faults at once; or panics over it.

#![forbid(unsafe_code)]

use topnext_module_api::prelude::*;

/// The table `rejects`.
#[derive(Config)]
pub struct Table {
    /// An even number.
    even: u32,
    /// Texts, none of them empty.
    #[config(default = [])]
    texts: Vec<String>,
    /// Whether the module panics over this table.
    #[config(default = false)]
    panic: bool,
}

/// The table, which was right.
pub struct Rejects;

export_module! {
    name: "rejects",
    module: Rejects,
    provides: [filter],
}

impl Module for Rejects {
    type Config = Table;

    fn new(table: Table, _: &Setup<'_>) -> Result<Rejects, ConfigErrors> {
        assert!(!table.panic, "asked for in configure");
        let mut errors = ConfigErrors::new();
        if table.even % 2 == 1 {
            errors.add::<()>("even", format!("found {}, expected an even number", table.even));
        }
        for (i, text) in table.texts.iter().enumerate() {
            if text.is_empty() {
                errors.add::<()>(&format!("texts[{i}]"), "found an empty text");
            }
        }
        if errors.is_empty() { Ok(Rejects) } else { Err(errors) }
    }
}

impl Filter for Rejects {
    const BODY: bool = false;
}
