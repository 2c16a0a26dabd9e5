//! Modules: finding, reading, checking and loading them.
//!
//! ```text
//! let (candidates, refusals) = candidates(&declared, &dirs);      find, describe, check: no code of a module runs
//! let refusals = order::check(&candidates, &declared);            before and after
//! let (modules, refusals) = load_all(candidates, host, panic);    load, check the layout, start
//! ```
//!
//! Every bad module is reported, with both sides' values and a fix; none hides another.
//! The modules below are in the order in which a plugin passes them.

pub mod report;

pub mod find;

pub mod description;

pub mod check;

pub mod order;

pub mod load;

pub mod inspect;

pub mod prepare;

pub mod link;

pub mod running;

pub mod services;

#[cfg(test)]
mod testing;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use semver::VersionReq;

pub use description::Description;
pub use inspect::inspect;
pub use load::{LastPanic, LoadedModule, load, load_all};
pub use report::{Refusal, RefusalKind};

/// A module as the configuration declares it (`[[module]]`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Declared {
    /// The module's name.
    pub name: String,
    /// Its name in this configuration, if another (`as`).
    pub alias: Option<String>,
    /// Its file, if it is not to be looked for.
    pub path: Option<PathBuf>,
    /// The versions that are accepted; `None`: any.
    pub version: Option<VersionReq>,
    /// The SHA-256 that the file must have; `None`: any.
    pub sha256: Option<[u8; 32]>,
    /// Modules whose order constraints with this one are waived.
    pub ignore_order: Vec<String>,
    /// Where it is declared: `plugins.toml:14:1`.
    pub place: String,
    /// Its file and a path that leads to it, if it was found before: it is not looked for.
    pub known: Option<(PathBuf, PathBuf)>,
}

impl Declared {
    /// Its name in this configuration.
    pub fn table_name(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.name)
    }
}

/// A module that passed all checks that need none of its code.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name in this configuration: the alias, else the module's own name.
    pub name: String,
    /// Its file, as it was declared or found.
    pub file: PathBuf,
    /// What it says about itself, read from a path that leads to it, which need not be that of its file any more.
    pub description: Description,
    /// 1 and up, in declared order. Slots of refused modules stay empty.
    pub slot: u32,
    /// Modules whose order constraints with this one are waived.
    pub ignore_order: Vec<String>,
    /// Where it is declared.
    pub place: String,
}

/// Finds, reads and checks the declared modules, looking in `dirs`. No code of a module is run.
pub fn candidates(declared: &[Declared], dirs: &[PathBuf]) -> (Vec<Candidate>, Vec<Refusal>) {
    let (mut candidates, mut refusals) = (Vec::<Candidate>::new(), Vec::new());
    // Device and inode of each file, with its candidate.
    let mut files = HashMap::new();
    for (index, module) in declared.iter().enumerate() {
        let result = candidate(module, index, dirs).and_then(|candidate| {
            let identity = candidate.description.identity.file();
            match files.get(&identity) {
                Some(&first) => Err(same_file(&candidate, &candidates[first])),
                None => Ok((candidate, identity)),
            }
        });
        match result {
            Ok((candidate, identity)) => {
                files.insert(identity, candidates.len());
                candidates.push(candidate);
            }
            Err(refusal) => refusals.push(refusal.at(&module.place, module.table_name())),
        }
    }
    (candidates, refusals)
}

fn candidate(module: &Declared, index: usize, dirs: &[PathBuf]) -> Result<Candidate, Refusal> {
    let (file, source) = match &module.known {
        Some(known) => known.clone(),
        None => {
            let found = find::find(&module.name, module.path.as_deref(), dirs)?;
            (found.clone(), found)
        }
    };
    let description = Description::read(&source)?;
    check::host(&description)?;
    check::declaration(&description, module)?;
    Ok(Candidate {
        name: module.table_name().to_owned(),
        file,
        description,
        // A configuration of four thousand million modules does not fit into memory.
        slot: u32::try_from(index).unwrap_or(u32::MAX - 1) + 1,
        ignore_order: module.ignore_order.clone(),
        place: module.place.clone(),
    })
}

/// A library is in a process only once, and so has one slot and one state.
fn same_file(second: &Candidate, first: &Candidate) -> Refusal {
    let copy = Path::new(&second.file).with_file_name(format!("lib{}.so", second.name));
    Refusal::new(&second.name, RefusalKind::SameFileTwice)
        .line("file", second.file.display().to_string())
        .line("first", format!("{} ({}), declared at {}", first.name, first.file.display(), first.place))
        .line("fix", format!("copy the file, for example to {}, and set path to the copy", copy.display()))
}
