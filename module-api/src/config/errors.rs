//! What a module finds wrong with its configuration. The host adds file, line and column.

use abi_stable::{
    StableAbi,
    std_types::{RString, RVec},
};

/// One thing that is wrong.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct ConfigError {
    /// Where, within the module's table: `set_header[1].value`; empty for the table as a whole.
    pub path: RString,
    /// What was found, and what would be valid.
    pub message: RString,
    /// For later; 0.
    pub reserved: u64,
}

/// Collects what is wrong, so that the operator is told everything at once.
#[derive(Debug, Default)]
pub struct ConfigErrors {
    path: Vec<String>,
    errors: RVec<ConfigError>,
}

impl ConfigErrors {
    /// An empty list.
    pub fn new() -> ConfigErrors {
        ConfigErrors::default()
    }

    /// A single error, at `path` within the module's table: `map_err(|error| ConfigErrors::at("zone", error))?`.
    pub fn at(path: &str, message: impl Into<String>) -> ConfigErrors {
        let mut errors = ConfigErrors::new();
        let _: Option<()> = errors.add(path, message);
        errors
    }

    /// Adds an error at `path`, which is relative to where reading stands. Returns `None`, for `return errors.add(...)`.
    pub fn add<T>(&mut self, path: &str, message: impl Into<String>) -> Option<T> {
        let mut full = self.path.concat();
        if !path.is_empty() {
            if !full.is_empty() && !path.starts_with('[') {
                full.push('.');
            }
            full.push_str(path);
        }
        self.errors.push(ConfigError {
            path: full.trim_start_matches('.').into(),
            message: message.into().into(),
            reserved: 0,
        });
        None
    }

    /// Adds "found ..., expected one of ..." for the value that is being read.
    pub fn refuse<T>(&mut self, valid: &[&str], found: &str) -> Option<T> {
        let valid: Vec<String> = valid.iter().map(|word| format!("{word:?}")).collect();
        self.add("", format!("found {found:?}, expected one of {}", valid.join(", ")))
    }

    /// Runs `read` with `step` (`.key` or `[index]`) added to the path of what it reports.
    pub fn within<T>(&mut self, step: String, read: impl FnOnce(&mut ConfigErrors) -> T) -> T {
        self.path.push(step);
        let value = read(self);
        self.path.pop();
        value
    }

    /// Whether nothing was wrong.
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// The errors, in the order in which they were found.
    pub fn into_vec(self) -> RVec<ConfigError> {
        self.errors
    }
}

/// A single message about the table as a whole.
impl From<String> for ConfigErrors {
    fn from(message: String) -> ConfigErrors {
        ConfigErrors::at("", message)
    }
}
