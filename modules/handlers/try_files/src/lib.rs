//! Looks for files in the order given, and goes on with the first that exists (nginx: try_files).
//!
//! ```toml
//! [[http.server.location]]
//! path = "/"
//! try_files = { files = ["$uri", "$uri/"], fallback = "@app" }
//! ```
//!
//! A name with a slash at its end is that of a folder. The URI of the first file or folder that exists becomes the URI of the
//! request, which stays in its location. If there is none, `fallback` says what is done: an internal redirect to a URI or to
//! a named location, or a status (`"=404"`).
//!
//! The table is not inherited: of a server, it is about the requests that belong to no location.

#![forbid(unsafe_code)]

use topnext_module_api::prelude::*;

/// The table `try_files`.
#[derive(Config)]
pub struct Table {
    /// The files to look for, in this order: URIs, which may contain variables and are mapped by root or alias. A slash at
    /// the end means a folder.
    files: Vec<Template>,
    /// What is done if there is none of them: a URI or "@name" to redirect to internally, or "=" and a status, "=404".
    fallback: Template,
}

/// What is tried.
pub struct TryFiles {
    files: Vec<Candidate>,
    fallback: Fallback,
}

/// A file or a folder that is looked for.
struct Candidate {
    name: Template,
    is_folder: bool,
}

/// What is done if no file exists.
enum Fallback {
    Status(u16),
    /// A URI or `@name`.
    Redirect(Template),
}

/// How far the search for one request is: the number of the file that is tried next.
struct Search(usize);

export_module! {
    name: "try_files",
    module: TryFiles,
    provides: [phases],
    inherit: false,
}

impl PhaseHandler for TryFiles {
    const PHASES: &'static [Phase] = &[Phase::Precontent];

    fn handler(&self, r: &mut Request<'_>, _: Phase) -> Code {
        let mut next = r.context::<Search>().map_or(0, |search| {
            let next = search.0;
            search.remove();
            next
        });
        while let Some(candidate) = self.files.get(next) {
            let name = candidate.name.eval(r);
            match look_for(r, name, candidate.is_folder) {
                Found::Yes => return if r.set_uri(name) { Code::DECLINED } else { Code::status(500) },
                Found::No => next += 1,
                Found::Later => {
                    r.set_context(Search(next));
                    return Code::AGAIN;
                }
            }
        }
        match &self.fallback {
            Fallback::Status(status) => Code::status(*status),
            Fallback::Redirect(target) => redirect(r, target.eval(r)),
        }
    }
}

/// Whether a file exists.
enum Found {
    Yes,
    No,
    Later,
}

fn look_for(r: &mut Request<'_>, name: &[u8], folder: bool) -> Found {
    let path = r.map_uri_to_path(name);
    if path.is_empty() {
        return Found::No;
    }
    match r.open_file(path) {
        Opened::File(file) if (file.kind() == FileKind::Directory) == folder => Found::Yes,
        // nginx: a link that may not be followed leads to no file.
        Opened::Forbidden if r.open_error().is_symlink() => Found::No,
        // What may not be read exists all the same, and the client is to be told so.
        Opened::Forbidden => Found::Yes,
        Opened::File(_) | Opened::NotFound | Opened::Failed => Found::No,
        Opened::Pending => Found::Later,
    }
}

/// Redirects to `@name`, or to a URI that may have arguments.
fn redirect(r: &mut Request<'_>, target: &[u8]) -> Code {
    let mut parts = target.splitn(2, |&byte| byte == b'?' && !target.starts_with(b"@"));
    let uri = parts.next().unwrap_or_default();
    r.internal_redirect(uri, parts.next().unwrap_or_default())
}

impl Module for TryFiles {
    type Config = Table;

    fn new(table: Table, _: &Setup<'_>) -> Result<TryFiles, ConfigErrors> {
        let mut errors = ConfigErrors::new();
        if table.files.is_empty() {
            let _: Option<()> = errors.add("files", "found an empty list, expected at least one file");
        }
        let mut files = Vec::new();
        for (i, name) in table.files.into_iter().enumerate() {
            // nginx: the slash says what it is, and is not a part of the name.
            let candidate = match name.source().strip_suffix('/') {
                Some(folder) => Template::compile(folder).map(|name| Candidate { name, is_folder: true }),
                None => Ok(Candidate { name, is_folder: false }),
            };
            files.extend(candidate.map_err(|message| errors.add::<()>(&format!("files[{i}]"), message)).ok());
        }
        match fallback(table.fallback) {
            Ok(fallback) if errors.is_empty() => Ok(TryFiles { files, fallback }),
            Ok(_) => Err(errors),
            Err(message) => {
                let _: Option<()> = errors.add("fallback", message);
                Err(errors)
            }
        }
    }
}

fn fallback(template: Template) -> Result<Fallback, String> {
    let text = template.source();
    if let Some(status) = text.strip_prefix('=') {
        return match status.parse() {
            Ok(status @ 200..=599) => Ok(Fallback::Status(status)),
            _ => Err(format!("found {text:?}, expected \"=\" and a status from 200 to 599")),
        };
    }
    if !text.starts_with(['/', '@', '$']) {
        return Err(format!("found {text:?}, expected \"/path\", \"@name\" or \"=404\""));
    }
    Ok(Fallback::Redirect(template))
}
