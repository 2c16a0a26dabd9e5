//! The configuration: from TOML text to typed, checked and merged values.
//!
//! ```text
//! let document = Document::read(path)?;              text, include, tree
//! let head = document.head()?;                       which modules to load
//! let schemas = ...                                  a ModuleSchema from each module's description
//! let config = document.check(&schemas)?;            check, inherit, build
//! ```
//!
//! Each step gives all its errors at once, as [`Diagnostics`]: one line each, with file, line, column, key, what was
//! found and what would be valid. [`Document::check_partial`] lets the caller add the errors that modules find in their
//! tables to the same list; [`ModuleTable::origin_of`] tells where they belong.
//!
//! The modules below are in the order in which a value passes them.

pub mod source;

pub mod tree;

pub mod include;

pub mod diagnostic;

pub mod units;

pub mod address;

pub mod location_path;

pub mod server_name;

pub mod directive;

pub mod core_directives;

pub mod nginx_names;

pub mod schema;

pub mod head;

pub mod check;

pub mod merge;

pub mod client;

pub mod listen;

pub mod model;

mod build;

pub mod reference;

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

pub use address::{Listen, PeerAddress};
pub use client::{Browsers, InFileOnly, Lingering, TempPath};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use directive::{Contexts, Directive, Field, Presence, Type};
pub use head::{Head, ModuleDecl};
pub use include::Texts;
pub use listen::{ListenConf, ListenOption, ListenOptions, SoKeepalive};
pub use location_path::{LocationKind, LocationPath};
pub use merge::ModuleTable;
pub use model::{
    AccessLog, Buffers, Config, ErrorLog, ErrorPage, ErrorResponse, Http, HttpCore, Location, LogFormat, LogLevel,
    Main, OpenFileCache, PeerConf, Root, Satisfy, Scope, Server, ServerTokens, SymlinkMode, ThreadPool, Types,
    Upstream, User, Zone,
};
pub use schema::ModuleSchema;
pub use server_name::{NameForm, ServerName};
pub use source::{Files, Origin};
pub use tree::{Entry, Node, Table, Value};

/// A configuration that has been read, with all files that it includes, but not been checked.
#[derive(Clone, Debug)]
pub struct Document {
    files: Arc<Files>,
    main: Table,
    texts: Texts,
}

impl Document {
    /// Reads a file and what it includes. Errors: files that cannot be read, syntax, values that two files set.
    pub fn read(path: &Path) -> Result<Document, Diagnostics> {
        Document::read_kept(path, None)
    }

    /// As [`read`](Document::read): from these texts, if it was read before.
    pub fn read_kept(path: &Path, kept: Option<Texts>) -> Result<Document, Diagnostics> {
        let (files, main, texts) = include::read(path, kept)?;
        Ok(Document { files, main, texts })
    }

    /// As [`read`](Document::read), with the text of the main file given. `name` stands for it in errors, and is where
    /// the files that it includes are looked for.
    pub fn from_text(name: &str, text: &str) -> Result<Document, Diagnostics> {
        let (files, main, texts) = include::read_text(name, text)?;
        Ok(Document { files, main, texts })
    }

    /// The modules that are declared. Checked alone, since the rest cannot be checked before these are known.
    pub fn head(&self) -> Result<Head, Diagnostics> {
        let (head, errors) = self.head_partial();
        errors.into_result(head)
    }

    /// As [`head`](Document::head), but gives what is valid beside the errors, so that the caller can go on.
    pub fn head_partial(&self) -> (Head, Diagnostics) {
        let mut errors = self.diagnostics();
        let head = head::read(&self.main, &mut errors);
        (head, errors)
    }

    /// Checks all but the declarations of modules, and merges. `schemas` are those of the modules that could be loaded.
    pub fn check(&self, schemas: &[ModuleSchema]) -> Result<Config, Diagnostics> {
        let (config, errors) = self.check_partial(schemas);
        match config {
            Some(config) if errors.is_empty() => Ok(config),
            _ => Err(errors),
        }
    }

    /// As [`check`](Document::check), but gives what is valid beside the errors (sorted), so that the caller can look at
    /// the modules' tables and add errors of its own. `None` if there is no server at all; then there are errors.
    pub fn check_partial(&self, schemas: &[ModuleSchema]) -> (Option<Config>, Diagnostics) {
        build::build(&self.main, schemas, head::table_names(&self.main), self.diagnostics())
    }

    /// An empty list of errors about the files of this document.
    pub fn diagnostics(&self) -> Diagnostics {
        Diagnostics::new(self.files.clone())
    }

    /// The files that were read, the main one first.
    pub fn files(&self) -> &Arc<Files> {
        &self.files
    }

    /// The texts alone.
    pub fn into_texts(self) -> Texts {
        self.texts
    }

    /// The unchecked tree of all files together.
    pub fn tree(&self) -> &Table {
        &self.main
    }
}
