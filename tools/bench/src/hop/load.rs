//! How long a module takes to load: reading its description, and everything after that (the dynamic linker, the check of
//! the layouts, its start).

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{Advice, fadvise};
use topnext::plugins::services::main;
use topnext::plugins::{self, Declared, running};

use super::build;
use super::samples::Samples;

/// Copies that are loaded of each module and in each way. A file is loaded only once in a process.
const COPIES: usize = 15;

/// Loads copies of the module, and prints a line for files that are in the page cache (warm) and for some that are not
/// (cold; as far as the file system lets them be dropped).
pub fn print(name: &str, file: &Path, folder: &Path) -> Result<(), String> {
    for warm in [true, false] {
        let (mut describe, mut load) = (Samples::default(), Samples::default());
        for copy in 0..COPIES {
            let to = folder.join(format!("load_{name}_{warm}_{copy}.so"));
            build::copy(file, &to)?;
            prepare(&to, warm).map_err(|error| format!("{}: {error}", to.display()))?;
            let declared = [Declared { name: name.to_owned(), path: Some(to), ..Declared::default() }];
            let start = Instant::now();
            let (candidates, refusals) = plugins::candidates(&declared, &[]);
            describe.add(start.elapsed().as_nanos() as f64);
            let [candidate] = &candidates[..] else {
                return Err(refusals.first().map_or_else(String::new, |r| r.to_string()));
            };
            let start = Instant::now();
            let module = plugins::load(candidate, main::api(), running::last_panic).map_err(|r| r.to_string())?;
            load.add(start.elapsed().as_nanos() as f64);
            drop(module);
        }
        let ms = |samples: &Samples| format!("{:.2} ± {:.2}", samples.median() / 1e6, samples.spread() / 1e6);
        let cache = if warm { "warm" } else { "cold" };
        println!("| {name} | {cache} | {} | {} |", ms(&describe), ms(&load));
    }
    Ok(())
}

/// Has the file in the page cache, or not.
fn prepare(file: &Path, warm: bool) -> std::io::Result<()> {
    if warm {
        return std::fs::read(file).map(drop);
    }
    Ok(fadvise(File::open(file)?, 0, None, Advice::DontNeed)?)
}
