//! Configuration of a module: a struct with `#[derive(Config)]` is its table in plugins.toml.
//!
//! ```
//! use topnext_module_api::prelude::*;
//!
//! #[derive(Config)]
//! struct Greeting {
//!     /// What the greeting says.
//!     #[config(default = "hello")]
//!     text: String,
//!     /// How often it says it.
//!     #[config(default = 1, min = 1, max = 10)]
//!     times: u32,
//! }
//! assert_eq!(Greeting::FIELDS[0].key, "text");
//! ```
//!
//! The derive makes the schema from the same definition that parses it. The host reads the schema from the module's
//! file without running it, checks keys, types and ranges, fills in defaults, merges http -> server -> location, and
//! hands the module one complete table.

mod errors;
mod schema;
mod value;

pub use errors::{ConfigError, ConfigErrors};
pub use schema::{Config, Field, Presence, Type};
pub use value::{ConfigValue, Merged, Size, SizeTemplate, Table, Value, table_from_value};
