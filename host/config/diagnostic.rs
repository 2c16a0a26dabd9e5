//! The errors of a configuration, collected and shown together.
//!
//! ```text
//! plugins.toml:14:1: http.server.lisen: unknown key; did you mean "listen"?
//! plugins.toml:20:21: http.server.keepalive_timeout: found "75 sec", expected a duration such as "75s" ...
//! ```
//!
//! Nothing stops at the first error: each step adds to one [`Diagnostics`], which is sorted when it is shown.

use std::fmt;
use std::sync::Arc;

use super::source::{Files, Origin};

/// One error: where, about which key, what is wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The value; for an unknown or duplicate key the key; for a missing key the header of the table.
    pub origin: Origin,
    /// Full key, such as `http.server.listen`; empty for errors of a file as such.
    pub key: String,
    /// One line of text.
    pub message: String,
}

/// A list of errors with the names of the files they point into.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    files: Arc<Files>,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// An empty list about these files.
    pub fn new(files: Arc<Files>) -> Self {
        Diagnostics { files, list: Vec::new() }
    }

    /// Adds an error. Line breaks in `message` (a module's, say) become spaces: an error is one line.
    pub fn push(&mut self, origin: Origin, key: impl Into<String>, message: impl Into<String>) {
        let mut message = message.into();
        if message.contains(['\n', '\r']) {
            message = message.split(['\n', '\r']).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        }
        self.list.push(Diagnostic { origin, key: key.into(), message });
    }

    /// Adds the errors of another list about the same files.
    pub fn extend(&mut self, other: Diagnostics) {
        self.list.extend(other.list);
    }

    /// Sorts by file, line and column, and drops repeated errors (a fault inherited by many locations is one fault).
    pub fn sort(&mut self) {
        self.list.sort();
        self.list.dedup();
    }

    /// The errors, in the order added or sorted.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// Adds those of another list about the same files.
    pub fn append(&mut self, other: Diagnostics) {
        self.list.extend(other.list);
    }

    /// True if there is no error.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Number of errors.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// The files the errors point into.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The value, if there is no error; else the sorted errors.
    pub fn into_result<T>(mut self, value: T) -> Result<T, Diagnostics> {
        if self.is_empty() {
            return Ok(value);
        }
        self.sort();
        Err(self)
    }
}

impl fmt::Display for Diagnostics {
    /// One error a line, sorted, no line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Diagnostic> = self.list.iter().collect();
        sorted.sort();
        sorted.dedup();
        for (index, diagnostic) in sorted.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}: ", self.files.place(diagnostic.origin))?;
            if !diagnostic.key.is_empty() {
                write!(f, "{}: ", diagnostic.key)?;
            }
            f.write_str(&diagnostic.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// `"text"` with control characters escaped, and cut after 60 characters, so that an error stays one readable line.
pub fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A key as it stands in a path: bare if TOML allows it bare, else quoted.
pub fn key_name(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if bare && key.len() <= 100 { key.to_owned() } else { quote(key) }
}

/// `prefix.key`, or `key` at top level.
pub fn join_key(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key_name(key) } else { format!("{prefix}.{}", key_name(key)) }
}

/// The known name that `name` was probably meant to be, if one is near enough (a third of its letters, at least one).
pub fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > 100 {
        return None;
    }
    let limit = (name.chars().count() / 3).max(1);
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Arc<Files> {
        let mut files = Files::default();
        files.add("a.toml").unwrap();
        files.add("b.toml").unwrap();
        Arc::new(files)
    }

    #[test]
    fn lines_are_sorted_by_file_and_line_and_not_repeated() {
        let mut list = Diagnostics::new(files());
        list.push(Origin { file: 1, line: 1, column: 1 }, "x", "third");
        list.push(Origin { file: 0, line: 10, column: 1 }, "x", "second\nhalf");
        list.push(Origin { file: 0, line: 9, column: 30 }, "", "first");
        list.push(Origin { file: 0, line: 9, column: 30 }, "", "first");
        assert_eq!(list.to_string(), "a.toml:9:30: first\na.toml:10:1: x: second half\nb.toml:1:1: x: third");
        assert_eq!(list.into_result(()).unwrap_err().len(), 3);
    }

    #[test]
    fn suggestions_are_near_or_absent() {
        let known = ["listen", "location", "root"];
        assert_eq!(did_you_mean("lisen", known.into_iter()), Some("listen"));
        assert_eq!(did_you_mean("roto", known.into_iter()), Some("root"));
        assert_eq!(did_you_mean("gzip", known.into_iter()), None);
        assert_eq!(did_you_mean("", known.into_iter()), None);
    }

    #[test]
    fn keys_and_texts_stay_on_one_line() {
        assert_eq!(join_key("http", "a\nb"), "http.\"a\\nb\"");
        assert_eq!(join_key("", "listen"), "listen");
        assert_eq!(quote(&"é".repeat(100)), format!("\"{}\"...", "é".repeat(60)));
    }
}
