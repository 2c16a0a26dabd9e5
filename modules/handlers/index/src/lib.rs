//! Finds the index file of a folder: wherever `root` is set, for URIs that end in a slash (nginx: index).
//!
//! ```toml
//! [[http.server]]
//! root = "html"
//! index.files = ["index.html", "index.txt", "/no_index.html"]
//! ```
//!
//! The first file that exists is served through an internal redirect. A name that starts with a slash is a URI, which is
//! redirected to without a look at the file system. If no file exists the next module of the phase is asked.

#![forbid(unsafe_code)]

use topnext_module_api::prelude::*;

/// The table `index`.
#[derive(Config)]
pub struct Table {
    /// The files to look for, in this order. They may contain variables; one that starts with a slash is a URI.
    #[config(default = ["index.html"])]
    files: Vec<Template>,
}

/// The names that are tried.
pub struct Index {
    files: Vec<Template>,
}

/// How far the search for one request is.
#[derive(Default)]
struct Search {
    /// The number of the name that is tried next.
    next: usize,
    /// What is known of the folder itself.
    folder: Folder,
}

/// What is known of a folder.
#[derive(Default, PartialEq)]
enum Folder {
    #[default]
    Unknown,
    /// The first name was not found in it, so that it is looked for itself.
    Asked,
    Exists,
}

export_module! {
    name: "index",
    module: Index,
    provides: [phases],
    always: true,
}

impl PhaseHandler for Index {
    const PHASES: &'static [Phase] = &[Phase::Content];

    fn handler(&self, r: &mut Request<'_>, _: Phase) -> Code {
        let folder = r.filename();
        if folder.is_empty() || !r.uri().ends_with(b"/") {
            return Code::DECLINED;
        }
        if !matches!(r.method(), b"GET" | b"HEAD" | b"POST") {
            return Code::DECLINED;
        }
        let mut search = match r.context::<Search>() {
            Some(search) => search,
            None => r.set_context(Search::default()),
        };
        let answer = self.search(r, &mut search, folder);
        if answer != Code::AGAIN {
            // The URI that it redirects to may be a folder again, with a search of its own.
            search.remove();
        }
        answer
    }
}

impl Index {
    /// Tries the names from `search.next` on. What was found not to exist is not asked for again.
    fn search(&self, r: &mut Request<'_>, search: &mut Search, folder: &[u8]) -> Code {
        while let Some(name) = self.files.get(search.next) {
            if search.folder == Folder::Asked {
                match look_for_folder(r, folder) {
                    Code::OK => search.folder = Folder::Exists,
                    other => return other,
                }
                search.next += 1;
                continue;
            }
            let name = name.eval(r);
            // A variable may hold anything: it must not lead out of the folder.
            if name.split(|&byte| byte == b'/').any(|part| part == b"..") {
                log!(r, Level::Error, "unsafe name {:?} of an index file", String::from_utf8_lossy(name));
                search.next += 1;
                continue;
            }
            if name.starts_with(b"/") {
                return r.internal_redirect(name, r.args());
            }
            // A variable may be empty here; the folder itself is no index of it.
            if !name.is_empty() {
                let path = [folder, name].concat();
                match r.open_file(&path) {
                    Opened::File(file) if file.kind() == FileKind::Regular => {
                        return r.internal_redirect(&[r.uri(), name].concat(), r.args());
                    }
                    Opened::File(_) => {}
                    Opened::Pending => return Code::AGAIN,
                    Opened::NotFound if search.folder == Folder::Exists => {}
                    Opened::NotFound => {
                        search.folder = Folder::Asked;
                        continue;
                    }
                    Opened::Forbidden => {
                        let path = String::from_utf8_lossy(&path);
                        log!(r, Level::Error, "{path:?} is forbidden ({})", r.open_error());
                        return Code::status(403);
                    }
                    Opened::Failed => return Code::status(500),
                }
            }
            search.next += 1;
        }
        Code::DECLINED
    }
}

/// Whether the folder exists: without it the answer is 404, where a folder without an index gets 403.
fn look_for_folder(r: &mut Request<'_>, folder: &[u8]) -> Code {
    match r.open_file(folder) {
        Opened::File(_) => Code::OK,
        Opened::Pending => Code::AGAIN,
        Opened::NotFound if !r.log_not_found() => Code::status(404),
        Opened::NotFound => {
            let folder = String::from_utf8_lossy(folder);
            log!(r, Level::Error, "{folder:?} is not found ({})", r.open_error());
            Code::status(404)
        }
        // It may be searched but not read.
        Opened::Forbidden => Code::OK,
        Opened::Failed => Code::status(500),
    }
}

impl Module for Index {
    type Config = Table;

    fn new(table: Table, _: &Setup<'_>) -> Result<Index, ConfigErrors> {
        let mut errors = ConfigErrors::new();
        for (i, file) in table.files.iter().enumerate() {
            if let Some(message) = wrong_name(file.source()) {
                let _: Option<()> = errors.add(&format!("files[{i}]"), message);
            }
        }
        if errors.is_empty() { Ok(Index { files: table.files }) } else { Err(errors) }
    }
}

/// What is wrong with a name, if anything.
fn wrong_name(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("empty, expected the name of a file");
    }
    if name.split('/').any(|part| part == "..") {
        return Some("\"..\" is not allowed in the name of an index file");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::wrong_name;

    #[test]
    fn refuses_names_that_are_no_files() {
        assert!(wrong_name("").is_some());
        assert!(wrong_name("../index.html").is_some());
        assert!(wrong_name("a/../../b").is_some());
        for good in ["index.html", "index.$host.html", "/no_index.html", "a/b..c", "..."] {
            assert_eq!(wrong_name(good), None, "{good}");
        }
    }
}
