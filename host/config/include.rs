//! Reading the files: the main one, and those it includes.
//!
//! ```toml
//! include = "conf.d/*.toml"                      # or a list; relative to the file it stands in
//!
//! [[http.server]]
//! include = ["tls.toml", "locations/*.toml"]     # its tables are those of this server
//! ```
//!
//! The keys of an included file join the table in which `include` stands: tables merge, arrays of tables append, and a
//! value that is set twice is an error. A pattern with `*`, `?` or `[` may match nothing; a plain name must exist.
//! Matches are taken in alphabetical order; names that start with a dot are not matched.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error_text::ErrorText;

use super::diagnostic::{Diagnostic, Diagnostics, join_key};
use super::source::{Files, Origin};
use super::tree::{self, Entry, Node, Table, Value};

/// The greatest size of one file.
pub const MAX_FILE_BYTES: u64 = 16 << 20;
/// The greatest size of all files together.
pub const MAX_TOTAL_BYTES: u64 = 64 << 20;
/// How many files may include one another in a row, the main one included.
pub const MAX_DEPTH: usize = 16;
/// How many times files may be included in all.
pub const MAX_FILES: usize = 10_000;

/// What a configuration was read from: so that it can be read once more as it was, whatever has happened to the files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Texts {
    files: BTreeMap<PathBuf, String>,
    /// What patterns have matched, by the file in which they stand.
    matches: BTreeMap<PathBuf, BTreeMap<String, Vec<PathBuf>>>,
}

impl Texts {
    /// The files, with their texts.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.files.iter().map(|(path, text)| (path.as_path(), text.as_str()))
    }
}

/// What was read.
pub type Sources = (Arc<Files>, Table, Texts);

/// Reads the main file and all that it includes: from `kept`, if it was read before.
pub fn read(path: &Path, kept: Option<Texts>) -> Result<Sources, Diagnostics> {
    let mut reader = Reader { is_kept: kept.is_some(), texts: kept.unwrap_or_default(), ..Reader::default() };
    let table = match reader.files.add(path.display().to_string()) {
        Some(file) => match reader.load(path) {
            Ok(text) => reader.parse(&text, file, path),
            Err(fault) => reader.fail(fault.origin(file), "", fault.message),
        },
        None => Table::new(),
    };
    reader.finish(table)
}

/// As [`read`], with the text of the main file given. `name` stands for it in errors and as the base of `include`.
pub fn read_text(name: &str, text: &str) -> Result<Sources, Diagnostics> {
    let mut reader = Reader::default();
    let table = match reader.files.add(name) {
        Some(file) => reader.parse(text, file, Path::new(name)),
        None => Table::new(),
    };
    reader.finish(table)
}

/// What a table is, which decides where `include` and further blocks may stand in it.
#[derive(Clone, Copy)]
enum Level {
    Main,
    Http,
    Server,
    Location,
}

impl Level {
    /// The keys of the blocks below, and what these are.
    fn children(self) -> &'static [(&'static str, Level)] {
        match self {
            Level::Main => &[("http", Level::Http)],
            Level::Http => &[("server", Level::Server)],
            Level::Server | Level::Location => &[("location", Level::Location)],
        }
    }
}

/// Why a file could not be read. `line` is 0 for a fault of the whole file.
struct Fault {
    line: u32,
    message: String,
}

impl Fault {
    fn whole(message: String) -> Fault {
        Fault { line: 0, message }
    }

    fn origin(&self, file: u16) -> Origin {
        Origin { file, line: self.line, column: u32::from(self.line > 0) }
    }
}

#[derive(Default)]
struct Reader {
    files: Files,
    errors: Vec<Diagnostic>,
    /// The files being read, the main one first: the name to show, and the one that symbolic links cannot disguise.
    chain: Vec<(String, PathBuf)>,
    bytes: u64,
    texts: Texts,
    /// All that is to be read is there already.
    is_kept: bool,
}

impl Reader {
    fn finish(self, table: Table) -> Result<Sources, Diagnostics> {
        let files = Arc::new(self.files);
        let mut diagnostics = Diagnostics::new(files.clone());
        for error in self.errors {
            diagnostics.push(error.origin, error.key, error.message);
        }
        diagnostics.into_result((files, table, self.texts))
    }

    fn fail(&mut self, origin: Origin, key: &str, message: impl Into<String>) -> Table {
        self.errors.push(Diagnostic { origin, key: key.to_owned(), message: message.into() });
        Table::new()
    }

    fn load(&mut self, path: &Path) -> Result<String, Fault> {
        let text = match self.texts.files.get(path) {
            Some(text) => text.clone(),
            None if self.is_kept => {
                return Err(Fault::whole("was not there when the configuration was read".to_string()));
            }
            None => read_file(path)?,
        };
        self.texts.files.insert(path.to_path_buf(), text.clone());
        self.bytes = self.bytes.saturating_add(text.len() as u64);
        if self.bytes > MAX_TOTAL_BYTES {
            return Err(Fault::whole(format!("the files have more than {} MiB together", MAX_TOTAL_BYTES >> 20)));
        }
        Ok(text)
    }

    fn parse(&mut self, text: &str, file: u16, path: &Path) -> Table {
        let mut table = tree::parse(text, file, &self.files, &mut self.errors);
        self.chain.push((path.display().to_string(), canonical(path)));
        self.expand(&mut table, Level::Main, "", path);
        self.chain.pop();
        table
    }

    /// Replaces each `include` in `table` and the blocks below it by the contents of the files.
    fn expand(&mut self, table: &mut Table, level: Level, prefix: &str, path: &Path) {
        for (key, child) in level.children() {
            let prefix = join_key(prefix, key);
            match table.get_mut(key).map(|node| &mut node.value) {
                Some(Value::Table(inner)) => self.expand(inner, *child, &prefix, path),
                Some(Value::List(nodes)) => {
                    for node in nodes {
                        if let Value::Table(inner) = &mut node.value {
                            self.expand(inner, *child, &prefix, path);
                        }
                    }
                }
                _ => {}
            }
        }
        let Some(include) = table.remove("include") else { return };
        let key = join_key(prefix, "include");
        let patterns = match &include.node.value {
            Value::List(nodes) => nodes.iter().collect(),
            _ => vec![&include.node],
        };
        for node in patterns {
            let Some(pattern) = node.as_str() else {
                self.fail(
                    node.origin,
                    &key,
                    "expected the name of a file, a pattern such as \"conf.d/*.toml\", or a list of them",
                );
                continue;
            };
            match self.matching_files(path, pattern) {
                Ok(paths) => {
                    for found in paths {
                        let included = self.include(&found, level, prefix, node.origin, &key);
                        self.merge(table, included, prefix);
                    }
                }
                Err(message) => drop(self.fail(node.origin, &key, message)),
            }
        }
    }

    /// As [`matching_files`], which is asked once only.
    fn matching_files(&mut self, from: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let known = self.texts.matches.entry(from.to_path_buf()).or_default();
        if let Some(found) = known.get(pattern) {
            return Ok(found.clone());
        }
        let found = matching_files(from, pattern)?;
        known.insert(pattern.to_string(), found.clone());
        Ok(found)
    }

    /// Reads one included file. `at` is the place of the `include`.
    fn include(&mut self, path: &Path, level: Level, prefix: &str, at: Origin, key: &str) -> Table {
        let name = path.display().to_string();
        let real = canonical(path);
        let names = || self.chain.iter().map(|(name, _)| name.as_str()).chain([name.as_str()]).collect::<Vec<_>>();
        if self.chain.iter().any(|(_, other)| *other == real) {
            let message = format!("the files include one another: {}", names().join(" -> "));
            return self.fail(at, key, message);
        }
        if self.chain.len() >= MAX_DEPTH {
            let message = format!("includes are nested deeper than {MAX_DEPTH} files: {}", names().join(" -> "));
            return self.fail(at, key, message);
        }
        if self.files.len() >= MAX_FILES {
            return self.fail(at, key, format!("more than {MAX_FILES} files are included"));
        }
        let text = match self.load(path) {
            Ok(text) => text,
            Err(fault) if fault.line == 0 => return self.fail(at, key, format!("{name}: {}", fault.message)),
            Err(fault) => {
                let file = self.files.add(name).unwrap_or(at.file);
                return self.fail(fault.origin(file), "", fault.message);
            }
        };
        let Some(file) = self.files.add(name.clone()) else {
            return self.fail(at, key, "too many files are included");
        };
        let mut table = tree::parse(&text, file, &self.files, &mut self.errors);
        self.chain.push((name, real));
        self.expand(&mut table, level, prefix, path);
        self.chain.pop();
        table
    }

    /// Joins `from` into `into`.
    fn merge(&mut self, into: &mut Table, from: Table, prefix: &str) {
        let positions: HashMap<String, usize> =
            into.iter().enumerate().map(|(index, entry)| (entry.key.clone(), index)).collect();
        for entry in from {
            match positions.get(&entry.key).and_then(|&index| into.iter_mut().nth(index)) {
                None => into.push(entry),
                Some(present) => self.merge_entry(present, entry, prefix),
            }
        }
    }

    fn merge_entry(&mut self, present: &mut Entry, entry: Entry, prefix: &str) {
        let key = join_key(prefix, &entry.key);
        match (&mut present.node.value, entry.node.value) {
            (Value::Table(present), Value::Table(new)) => self.merge(present, new, &key),
            (Value::List(present), Value::List(new)) if all_tables(present) && all_tables(&new) => present.extend(new),
            _ => {
                let message = format!("set twice; first set at {}", self.files.place(present.key_origin));
                self.fail(entry.key_origin, &key, message);
            }
        }
    }
}

fn all_tables(nodes: &[Node]) -> bool {
    !nodes.is_empty() && nodes.iter().all(|node| matches!(node.value, Value::Table(_)))
}

fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The files that an `include` in the file `from` means.
fn matching_files(from: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let folder = from.parent().unwrap_or(Path::new(""));
    if pattern.is_empty() {
        return Err("found \"\", expected the name of a file".to_owned());
    }
    if pattern.contains('\0') {
        return Err("the name of a file cannot hold a NUL character".to_owned());
    }
    if !pattern.contains(['*', '?', '[']) {
        return Ok(vec![folder.join(pattern)]);
    }
    let pattern = if Path::new(pattern).is_absolute() || folder.as_os_str().is_empty() {
        pattern.to_owned()
    } else {
        let folder = folder.to_str().ok_or("the name of the folder is not UTF-8, so patterns cannot be used in it")?;
        format!("{}/{pattern}", glob::Pattern::escape(folder.trim_end_matches('/')))
    };
    let options =
        glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let paths = glob::glob_with(&pattern, options).map_err(|error| format!("not a valid pattern: {}", error.msg))?;
    let mut found = Vec::new();
    for path in paths {
        found.push(path.map_err(|error| format!("cannot read {}: {}", error.path().display(), error.error()))?);
        if found.len() > MAX_FILES {
            return Err(format!("more than {MAX_FILES} files match"));
        }
    }
    found.sort();
    Ok(found)
}

/// Reads a file as UTF-8 text without byte order mark.
fn read_file(path: &Path) -> Result<String, Fault> {
    let cannot = |error: io::Error| Fault::whole(format!("cannot read the file ({})", ErrorText(&error)));
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Fault::whole(format!("the file is larger than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        let message = "the file starts with a byte order mark; save it as UTF-8 without one".to_owned();
        return Err(Fault { line: 1, message });
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let line = 1 + bytes.iter().take(valid).filter(|byte| **byte == b'\n').count();
        let byte = bytes.get(valid).copied().unwrap_or(0);
        let message = format!("byte 0x{byte:02x} is not valid UTF-8; save the file as UTF-8");
        Fault { line: u32::try_from(line).unwrap_or(u32::MAX), message }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::Folder;

    fn errors(folder: &Folder) -> String {
        folder.strip(&read(&folder.path("main.toml"), None).unwrap_err().to_string())
    }

    #[test]
    fn included_tables_join_the_table_of_the_include() {
        let folder = Folder::new();
        folder.write(
            "main.toml",
            "include = [\"a.toml\"]\n[http]\nroot = \"r\"\n[[http.server]]\ninclude = \"s/*.toml\"\n",
        );
        folder
            .write("a.toml", "worker_connections = 64\n[http]\nsendfile = true\n[[http.server]]\nlisten = [\"81\"]\n");
        folder.write("s/2.toml", "[[location]]\npath = \"/2\"\n");
        folder.write("s/1.toml", "[[location]]\npath = \"/1\"\ninclude = \"../deep.toml\"\n");
        folder.write("s/.hidden.toml", "broken");
        folder.write("deep.toml", "root = \"deep\"\n");
        let (_, table, texts) = read(&folder.path("main.toml"), None).unwrap();
        assert_eq!(table.get("worker_connections").unwrap().as_integer(), Some(64));
        let http = table.get("http").unwrap().as_table().unwrap();
        assert_eq!(http.get("sendfile").unwrap().as_bool(), Some(true));
        let servers = http.get("server").unwrap().as_list().unwrap();
        assert_eq!(servers.len(), 2);
        let locations = servers[0].as_table().unwrap().get("location").unwrap().as_list().unwrap();
        let text = |node: &Node, key: &str| node.as_table().unwrap().get(key).unwrap().as_str().unwrap().to_owned();
        assert_eq!((text(&locations[0], "path"), text(&locations[1], "path")), ("/1".into(), "/2".into()));
        assert_eq!(text(&locations[0], "root"), "deep");
        // What was read can be read again when the files are gone.
        let path = folder.path("main.toml");
        drop(folder);
        let (_, again, texts_again) = read(&path, Some(texts.clone())).unwrap();
        assert_eq!((again, texts_again), (table, texts));
    }

    #[test]
    fn an_empty_pattern_is_fine_and_a_missing_file_is_not() {
        let folder = Folder::new();
        folder.write("main.toml", "include = [\"conf.d/*.toml\", \"none.toml\", 7, \"a[\"]\n");
        assert_eq!(
            errors(&folder),
            "main.toml:1:29: include: none.toml: cannot read the file (2: No such file or directory)\n\
             main.toml:1:42: include: expected the name of a file, a pattern such as \"conf.d/*.toml\", or a list of them\n\
             main.toml:1:45: include: not a valid pattern: invalid range pattern"
        );
    }

    #[test]
    fn a_value_set_twice_names_both_places() {
        let folder = Folder::new();
        folder.write("main.toml", "include = \"a.toml\"\n[http]\nroot = \"x\"\n");
        folder.write("a.toml", "\n[http]\nroot = \"y\"\n");
        assert_eq!(errors(&folder), "a.toml:3:1: http.root: set twice; first set at main.toml:3:1");
    }

    #[test]
    fn a_cycle_is_refused_with_its_chain() {
        let folder = Folder::new();
        folder.write("main.toml", "include = \"a.toml\"\n");
        folder.write("a.toml", "include = \"main.toml\"\n");
        assert_eq!(
            errors(&folder),
            "a.toml:1:11: include: the files include one another: main.toml -> a.toml -> main.toml"
        );
    }

    #[test]
    fn deep_includes_are_refused() {
        let folder = Folder::new();
        folder.write("main.toml", "include = \"1.toml\"\n");
        for number in 1..=MAX_DEPTH {
            folder.write(&format!("{number}.toml"), &format!("include = \"{}.toml\"\n", number + 1));
        }
        let text = errors(&folder);
        assert!(
            text.starts_with("15.toml:1:11: include: includes are nested deeper than 16 files: main.toml -> 1.toml")
        );
        assert!(text.ends_with("-> 15.toml -> 16.toml"), "{text}");
    }

    #[test]
    fn files_that_are_not_text_are_refused() {
        let folder = Folder::new();
        assert_eq!(errors(&folder), "main.toml: cannot read the file (2: No such file or directory)");
        folder.write("main.toml", "\u{feff}a = 1\n");
        let message = "main.toml:1:1: the file starts with a byte order mark; save it as UTF-8 without one";
        assert_eq!(errors(&folder), message);
        folder.write_bytes("main.toml", b"a = 1\nb = \"\xff\"\n");
        assert_eq!(errors(&folder), "main.toml:2:1: byte 0xff is not valid UTF-8; save the file as UTF-8");
        folder.write_bytes("main.toml", &vec![b'\n'; (16 << 20) + 1]);
        assert_eq!(errors(&folder), "main.toml: the file is larger than 16 MiB");
    }
}
