//! Where the file of a module is.
//!
//! `name = "gzip"` is looked for as `libgzip.so` and `libtopnext_gzip.so` in each folder of `module_path`, in order.
//! A declared `path` is taken as it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error_text::ErrorText;

use super::report::{Refusal, RefusalKind};

/// At most so many entries of a folder are read for suggestions.
const MAX_ENTRIES: usize = 10_000;

/// At most so many names are suggested.
const MAX_SUGGESTIONS: usize = 3;

/// Finds the file of the module `name`: `path` if the configuration gives one, else the first in `dirs`.
pub fn find(name: &str, path: Option<&Path>, dirs: &[PathBuf]) -> Result<PathBuf, Refusal> {
    let places: Vec<PathBuf> = match path {
        Some(path) => vec![path.to_owned()],
        None => dirs
            .iter()
            .flat_map(|dir| [dir.join(format!("lib{name}.so")), dir.join(format!("libtopnext_{name}.so"))])
            .collect(),
    };
    let mut looked = Vec::new();
    for place in places {
        match fs::metadata(&place) {
            Ok(found) if found.is_file() => return Ok(place),
            Ok(_) => looked.push(format!("{} (not a file)", place.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => looked.push(place.display().to_string()),
            Err(error) => looked.push(format!("{} ({})", place.display(), ErrorText(&error))),
        }
    }
    let refusal = Refusal::new(name, RefusalKind::NotFound);
    if looked.is_empty() {
        return Err(refusal.line("looked", "nowhere: module_path is empty").line("fix", "set module_path, or path"));
    }
    let refusal = refusal.line("looked", looked.join("\n"));
    if path.is_some() {
        return Err(refusal.line("fix", "correct path, or install the module there"));
    }
    let names = names_in(dirs);
    let near = near(name, &names);
    let Some((best, _)) = near.first() else {
        return Err(refusal.line("fix", "install the module there, or say where it is with path or module_path"));
    };
    let fix = format!("write name = \"{best}\", or say where {name} is with path or module_path");
    let list: Vec<String> = near.iter().map(|(name, file)| format!("{name} ({})", file.display())).collect();
    Err(refusal.line("near", list.join("\n")).line("fix", fix))
}

/// The modules in these folders, by name.
fn names_in(dirs: &[PathBuf]) -> BTreeMap<String, PathBuf> {
    let mut names = BTreeMap::new();
    let folders = dirs.iter().filter_map(|dir| fs::read_dir(dir).ok());
    for entry in folders.flat_map(|entries| entries.take(MAX_ENTRIES)).flatten() {
        let file_name = entry.file_name();
        let name = file_name.to_str().and_then(|name| name.strip_prefix("lib")?.strip_suffix(".so"));
        if let Some(name) = name
            && entry.path().is_file()
        {
            let name = name.strip_prefix("topnext_").unwrap_or(name);
            names.entry(name.to_owned()).or_insert_with(|| entry.path());
        }
    }
    names
}

/// Those that differ from `name` by a slip of the pen, nearest first.
fn near<'a>(name: &str, names: &'a BTreeMap<String, PathBuf>) -> Vec<(&'a str, &'a Path)> {
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    let mut near: Vec<(usize, &str, &Path)> = names
        .iter()
        .map(|(other, file)| (strsim::damerau_levenshtein(name, other), other.as_str(), file.as_path()))
        .filter(|(distance, ..)| *distance <= allowed)
        .collect();
    near.sort();
    near.into_iter().take(MAX_SUGGESTIONS).map(|(_, name, file)| (name, file)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Folder;
    use super::*;

    #[test]
    fn takes_the_first_folder_and_the_short_name_first() {
        let folder = Folder::new("find_order");
        let (a, b) = (folder.dir("a"), folder.dir("b"));
        folder.file("b/libx.so", b"");
        assert_eq!(find("x", None, &[a.clone(), b.clone()]).unwrap(), b.join("libx.so"));
        folder.file("a/libtopnext_x.so", b"");
        assert_eq!(find("x", None, &[a.clone(), b.clone()]).unwrap(), a.join("libtopnext_x.so"));
        folder.file("a/libx.so", b"");
        assert_eq!(find("x", None, &[a.clone(), b]).unwrap(), a.join("libx.so"));
    }

    #[test]
    fn says_where_it_looked_and_what_is_near() {
        let folder = Folder::new("find_near");
        let dir = folder.dir("m");
        folder.file("m/libtopnext_gzip.so", b"");
        folder.file("m/libtopnext_ssi.so", b"");
        folder.dir("m/libgizp.so");
        let at = dir.display();
        assert_eq!(
            find("gizp", None, std::slice::from_ref(&dir)).unwrap_err().to_string(),
            format!(
                "module \"gizp\": there is no such file\n  looked  {at}/libgizp.so (not a file)\n          {at}/libtopnext_gizp.so\n  near    gzip ({at}/libtopnext_gzip.so)\n  fix     write name = \"gzip\", or say where gizp is with path or module_path"
            )
        );
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        let folder = Folder::new("find_path");
        let dir = folder.dir("m");
        folder.file("m/libx.so", b"");
        let path = dir.join("other.so");
        assert_eq!(
            find("x", Some(&path), &[dir]).unwrap_err().lines,
            [("looked", path.display().to_string()), ("fix", "correct path, or install the module there".into())]
        );
    }

    #[test]
    fn an_empty_module_path_is_named() {
        assert_eq!(find("x", None, &[]).unwrap_err().lines[0], ("looked", "nowhere: module_path is empty".into()));
    }
}
