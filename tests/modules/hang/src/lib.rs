//! Its state is not made as long as there is a file `hang` in the folder that the server was started in, unless that names the
//! process. It says so with another one, `hangs`.

#![forbid(unsafe_code)]

use std::{fs, process, thread, time::Duration};

use topnext_module_api::prelude::*;

/// The table `hang`, which has no keys.
#[derive(Config)]
pub struct Hang {}

/// State that takes as long as somebody wants.
pub struct Patient;

impl State for Patient {
    fn create() -> Result<Patient, String> {
        while fs::read_to_string("hang").is_ok_and(|pid| pid != process::id().to_string()) {
            fs::write("hangs", "").map_err(|error| format!("hangs: {error}"))?;
            // Nothing relies on the time: it is how often the file is looked for.
            thread::sleep(Duration::from_millis(2));
        }
        Ok(Patient)
    }
}

export_module! {
    name: "hang",
    module: Hang,
    provides: [filter],
    state: Patient,
}

impl Filter for Hang {}
