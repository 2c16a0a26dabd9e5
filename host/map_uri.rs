//! Which file a URI maps to: `root` and `alias` (nginx: ngx_http_map_uri_to_path).
//!
//! ```text
//! root = "/data"                          /i/a.gif  ->  /data/i/a.gif
//! "/i/"             alias = "/data/"      /i/a.gif  ->  /data/a.gif
//! '~ ^/i/(.+)$'     alias = "/data/$1"    /i/a.gif  ->  /data/a.gif
//! ```
//!
//! A folder without variables is made absolute and checked when the configuration is read. One with variables is made for
//! each request; what a variable holds must not lead to a folder above. Nor must what is left of a URI: behind the location
//! `/i`, which has no slash at its end, the URI `/i../a` leaves `../a`. nginx serves that; here no file is found.

use std::{path::Path, rc::Rc, sync::Arc};

use topnext_module_api::{Phase, uri::leads_out};

use crate::{
    config::{self, LocationKind},
    error_text::ErrorText,
    log::error::Level,
    log_line, open_file,
    phases::Step,
    plugins::services::main::compile,
    redirect::{has_dot_dot, log_unsafe},
    request::{Request, Text},
};

/// `root` or `alias` of a place.
#[derive(Debug)]
pub struct Root {
    folder: Folder,
    alias: Alias,
}

#[derive(Debug)]
enum Folder {
    /// Absolute.
    Constant(Vec<u8>),
    Template {
        id: u32,
        /// What a relative path starts from.
        prefix: Arc<[u8]>,
        /// How many segments `..` the operator wrote.
        dots: usize,
    },
}

/// What of a URI is appended to the folder.
#[derive(Debug)]
enum Alias {
    /// All of it: this is `root`.
    No,
    /// What follows the path of the location.
    Behind(Box<[u8]>),
    /// Nothing: the captures of the location's regular expression are all.
    Regex,
}

/// Variables that are made of the folder itself.
const CIRCULAR: [&str; 3] = ["document_root", "realpath_root", "request_filename"];

impl Root {
    /// Compiles one.
    pub fn new(conf: &config::Root, prefix: &Path) -> Result<Root, String> {
        let text = &conf.folder;
        let alias = match &conf.alias {
            None => Alias::No,
            Some(location) => match location.kind {
                LocationKind::Prefix | LocationKind::PrefixNoRegex | LocationKind::Exact => {
                    Alias::Behind(location.text.as_bytes().into())
                }
                LocationKind::Regex => Alias::Regex,
                LocationKind::Named => return Err(format!("cannot stand in the named location \"{location}\"")),
            },
        };
        if let Some(name) = CIRCULAR.iter().find(|name| mentions(text, name)) {
            return Err(format!("found {text:?}, in which \"${name}\" cannot stand: it is made of this folder"));
        }
        let trimmed = match alias {
            Alias::No => text.trim_end_matches('/'),
            _ => text.as_str(),
        };
        let folder = if text.contains('$') {
            let prefix = prefix.as_os_str().as_encoded_bytes().into();
            Folder::Template { id: compile(trimmed)?, prefix, dots: dot_dots(text.as_bytes()) }
        } else {
            let mut path = prefix.join(text).into_os_string().into_encoded_bytes();
            while matches!(alias, Alias::No) && path.last() == Some(&b'/') {
                path.pop();
            }
            Folder::Constant(path)
        };
        Ok(Root { folder, alias })
    }

    /// The folder, if it is the same for all requests and has to be there. What `alias` names may be a file.
    pub fn constant_folder(&self) -> Option<&[u8]> {
        match (&self.folder, &self.alias) {
            (Folder::Constant(path), Alias::No) => Some(path),
            (Folder::Constant(path), _) if path.ends_with(b"/") => Some(path),
            _ => None,
        }
    }

    /// The folder for a request. None if variables lead out of it, which is logged.
    fn eval(&self, r: &Rc<Request>) -> Option<Vec<u8>> {
        let (id, prefix, dots) = match &self.folder {
            Folder::Constant(path) => return Some(path.clone()),
            Folder::Template { id, prefix, dots } => (*id, prefix, *dots),
        };
        let mut path = Vec::new();
        r.site.templates.write(id, r, &mut path);
        // Slashes and dots of the operator stay what they are, so that each more is of a variable.
        if dot_dots(&path) > dots {
            let path = String::from_utf8_lossy(&path);
            log_line!(Level::Error, "*{} unsafe path \"{path}\" of variables{}", r.conn.number, r.log_tail());
            return None;
        }
        Some(if path.starts_with(b"/") { path } else { [&**prefix, b"/", &path].concat() })
    }
}

/// How many segments `..` a path has.
fn dot_dots(path: &[u8]) -> usize {
    path.split(|&byte| byte == b'/').filter(|segment| *segment == b"..").count()
}

fn mentions(text: &str, name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.contains(&format!("${{{name}}}"))
        || text.match_indices(&format!("${name}")).any(|(at, found)| !text[at + found.len()..].starts_with(word))
}

/// The file that the request's URI maps to, if that is known without running code of modules: it was asked for before, or
/// the folder is constant.
pub fn filename_now(r: &Request) -> Option<Text> {
    if let Some(text) = r.filename.get() {
        return Some(text);
    }
    let text = match &r.place().root {
        None => Text::default(),
        Some(Root { folder: Folder::Constant(folder), alias }) => append(r, folder, alias),
        Some(_) => return None,
    };
    r.filename.set(Some(text));
    Some(text)
}

/// The file that the request's URI maps to ($request_filename); empty without a root.
pub fn filename(r: &Rc<Request>) -> Text {
    if let Some(text) = filename_now(r) {
        return text;
    }
    let text = match &r.place().root {
        Some(root) => root.eval(r).map(|folder| append(r, &folder, &root.alias)).unwrap_or_default(),
        None => Text::default(),
    };
    r.filename.set(Some(text));
    text
}

/// The folder, and what is appended of the request's URI. Empty if that leads out of the folder, which is logged.
fn append(r: &Request, folder: &[u8], alias: &Alias) -> Text {
    let strip = match alias {
        Alias::Regex if !r.extra.get().is_some_and(|extra| extra.uri_behind_alias.get()) => return r.store(&[folder]),
        Alias::Regex | Alias::No => &b""[..],
        Alias::Behind(path) => path,
    };
    if !matches!(alias, Alias::No) {
        // All of a URI has no segment `..`; a part of it may.
        let parts = r.parts.borrow();
        let uri = parts.text(r.uri.get());
        if uri.strip_prefix(strip).is_some_and(|rest| leads_out(folder, rest)) {
            log_unsafe(r, uri);
            return Text::default();
        }
    }
    let stored = {
        let parts = &mut **r.parts.borrow_mut();
        match r.uri.get() {
            Text::Head(uri) => {
                let uri = uri.of(&parts.bytes);
                uri.strip_prefix(strip).map(|rest| parts.pool.store(&[folder, rest]))
            }
            Text::Pool(uri) => {
                let uri = parts.pool.get(uri).to_vec();
                uri.strip_prefix(strip).map(|rest| parts.pool.store(&[folder, rest]))
            }
        }
    };
    match stored {
        Some(Some(text)) => Text::Pool(text),
        Some(None) => r.pool_is_full(),
        None => {
            let text = "\"alias\" cannot be used in a location whose path the URI does not begin with";
            log_line!(Level::Alert, "*{} {text}: \"{}\"{}", r.conn.number, r.place().path, r.log_tail());
            r.failed.set(true);
            Text::default()
        }
    }
}

/// The file that another URI would map to in the request's location. Empty without a root, and if the URI leads out of it.
pub fn map(r: &Rc<Request>, uri: &[u8]) -> Text {
    let Some(root) = &r.place().root else { return Text::default() };
    if has_dot_dot(uri) {
        log_unsafe(r, uri);
        return Text::default();
    }
    let Some(folder) = root.eval(r) else { return Text::default() };
    let rest = match &root.alias {
        Alias::No if uri.starts_with(b"/") || uri.is_empty() => return r.store(&[&folder, uri]),
        Alias::No => return r.store(&[&folder, b"/", uri]),
        Alias::Behind(path) => uri.strip_prefix(&**path).unwrap_or(uri),
        Alias::Regex => uri,
    };
    if leads_out(&folder, rest) {
        log_unsafe(r, uri);
        return Text::default();
    }
    r.store(&[&folder, rest])
}

/// Changes the URI of a request, and its arguments if there are some. Up to the rewrite phases it finds its location anew;
/// behind them it stays where it is, and the URI is one that [`map`] was asked for. False if that cannot be.
pub fn set_uri(r: &Rc<Request>, uri: &[u8], args: Option<&[u8]>) -> bool {
    let (Step::Handlers(phase), _) = r.at.get() else { return false };
    if r.header_started.get() || has_dot_dot(uri) {
        return false;
    }
    let rewrites = matches!(phase, Phase::PostRead | Phase::ServerRewrite | Phase::Rewrite);
    let alias = r.place().root.as_ref().map_or(&Alias::No, |root| &root.alias);
    let uri = match alias {
        _ if rewrites && !uri.starts_with(b"/") => return false,
        _ if rewrites => r.store(&[uri]),
        Alias::Behind(path) if !uri.starts_with(path) => r.store(&[path, uri]),
        Alias::Regex if uri.is_empty() => r.uri.get(),
        Alias::Regex => {
            r.extra().uri_behind_alias.set(true);
            r.store(&[uri])
        }
        _ if uri.starts_with(b"/") => r.store(&[uri]),
        _ => r.store(&[b"/", uri]),
    };
    r.uri.set(uri);
    if let Some(args) = args {
        r.args.set(r.store(&[args]));
    }
    r.filename.set(None);
    if rewrites {
        r.internal.set(true);
    }
    if phase == Phase::Rewrite {
        r.extra().uri_changed.set(true);
    }
    !r.failed.get()
}

/// The folder of the request's location ($document_root).
pub fn document_root(r: &Rc<Request>) -> Option<Text> {
    let folder = r.place().root.as_ref()?.eval(r)?;
    Some(r.store(&[&folder]))
}

/// The same with all symbolic links resolved ($realpath_root).
pub fn realpath_root(r: &Rc<Request>) -> Option<Text> {
    let folder = r.place().root.as_ref()?.eval(r)?;
    match open_file::real_path(&folder) {
        Ok(path) => Some(r.store(&[&path])),
        Err(error) => {
            let folder = String::from_utf8_lossy(&folder);
            log_line!(
                Level::Crit,
                "*{} realpath() \"{folder}\" failed ({}){}",
                r.conn.number,
                ErrorText(&error),
                r.log_tail()
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::mentions;

    #[test]
    fn names_of_variables_are_whole_words() {
        assert!(mentions("/a/$document_root", "document_root") && mentions("${document_root}x", "document_root"));
        assert!(mentions("$document_root/$x", "document_root"));
        assert!(!mentions("$document_roots", "document_root") && !mentions("/document_root", "document_root"));
    }
}
