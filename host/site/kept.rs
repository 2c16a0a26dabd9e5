//! What is kept of a configuration that was read, so that another worker of it can be started whatever has become of files,
//! folders and names since: one that replaces a worker that has died must not need what the others do without.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    config::Texts,
    plugins::{LoadedModule, description::Identity},
    process::privileges::Account,
    upstream::names::Names,
};

/// What a worker has read and found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Kept {
    /// The texts of the configuration.
    pub texts: Texts,
    /// The addresses of names.
    pub names: Names,
    /// Whom workers run as.
    pub account: Option<Account>,
    /// The modules, in declared order.
    pub modules: Vec<KeptModule>,
}

/// A module that was loaded.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeptModule {
    /// Its name in the configuration.
    pub name: String,
    /// Where it was.
    pub file: PathBuf,
    /// Which file it was.
    pub identity: Identity,
    /// The file, if somebody has it open: it is there when it has no name any more.
    #[serde(skip)]
    pub opened: Option<OwnedFd>,
}

impl KeptModule {
    /// What is kept of a module.
    pub fn of(module: &LoadedModule) -> KeptModule {
        let (name, file) = (module.name.clone(), module.file.clone());
        KeptModule { name, file, identity: module.description.identity, opened: None }
    }

    /// A path that leads to it as long as it is open: its own, unless there is another file by now. None if it was written into.
    pub fn source(&self) -> Option<PathBuf> {
        let is_it = |path: &Path| Identity::at(path).is_ok_and(|found| found == self.identity);
        let opened = self.opened.as_ref().map(|fd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())));
        std::iter::once(self.file.clone()).chain(opened).find(|path| is_it(path))
    }
}
