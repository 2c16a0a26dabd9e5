//! The schema of a configuration table, as constants that the description is rendered from.

use super::{ConfigErrors, Table};

/// A struct that is a configuration table. Derived, not written by hand.
pub trait Config: Sized + Send + Sync + 'static {
    /// The keys of the table.
    const FIELDS: &'static [Field];

    /// Builds the struct from the merged table, in which every default is filled in.
    ///
    /// `None` if anything was wrong; then `errors` says what.
    fn from_table(table: &mut Table, errors: &mut ConfigErrors) -> Option<Self>;

    /// Whether the module acts where this configuration holds: the value of the key `enabled`, if there is one.
    fn enabled(&self) -> bool {
        true
    }
}

/// A module without configuration.
impl Config for () {
    const FIELDS: &'static [Field] = &[];

    fn from_table(_: &mut Table, _: &mut ConfigErrors) -> Option<()> {
        Some(())
    }
}

/// One key of a table.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The key, as the operator writes it.
    pub key: &'static str,
    /// What values it takes.
    pub ty: &'static Type,
    /// Whether it may be absent, and what holds then.
    pub presence: Presence,
    /// The module gets a list of the values of all levels, outermost first, instead of the innermost value.
    pub merge: bool,
    /// The value holds in the servers and locations inside that in which it is written; else there only (not at the top).
    pub inherit: bool,
    /// The least integer allowed.
    pub min: Option<i64>,
    /// The greatest integer allowed.
    pub max: Option<i64>,
    /// Its text in the manual.
    pub doc: &'static str,
}

/// Whether a key may be absent.
#[derive(Clone, Copy, Debug)]
pub enum Presence {
    /// It must be written where the module is used.
    Required,
    /// It may be absent; the field is an `Option`.
    Optional,
    /// The TOML text of the value that holds if it is absent.
    Default(&'static str),
}

/// What values a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// A whole number within the range of the Rust type.
    Integer(i64, i64),
    /// Any number.
    Number,
    /// A string.
    String,
    /// A time such as "75s" or "1m30s"; handed over in milliseconds.
    Duration,
    /// A size such as "8k" or "1m"; handed over in bytes.
    Size,
    /// The same, or a string with `$variables`, which is handed over as it is.
    SizeTemplate,
    /// A string that may contain `$variables`.
    Template,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A list.
    List(&'static Type),
    /// A table within the table.
    Table(&'static [Field]),
}
