//! What the server serves, in four shapes, and what an answer says of the shape that has made it.

use std::fs;
use std::path::Path;

use crate::http::Answer;
use crate::server::{CONFIG, Place};

/// What module `versioned` can be built as.
pub const VERSIONS: [&str; 2] = ["1", "2"];
/// The file that the modules are loaded from: one of the versions.
pub const VERSIONED: &str = "libversioned.so";
/// A file, and its size.
pub const FILE: &str = "/file";
const FILE_SIZE: usize = 200_000;
/// Where module `crash` answers.
pub const CRASH: &str = "/crash";

/// What reloads change: the version of a module, and the order of it and another filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Of [`VERSIONS`].
    pub version: usize,
    /// Whether `versioned` is before `headers`.
    pub is_first: bool,
}

impl Shape {
    /// The shape after so many changes: each differs from the one before, and all come in turn.
    pub fn numbered(number: u64) -> Shape {
        Shape { version: (number % 2) as usize, is_first: (number / 2).is_multiple_of(2) }
    }

    fn declared(self) -> String {
        let versioned = format!("[[module]]\nname = \"versioned\"\npath = \"{VERSIONED}\"\n");
        let headers = "[[module]]\nname = \"headers\"\n".to_owned();
        if self.is_first { versioned + &headers } else { headers + &versioned }
    }

    /// Writes the configuration, and puts the version in place as one should: by renaming.
    pub fn install(self, place: &Place<'_>, crash: &Path, versions: &[impl AsRef<Path>]) -> std::io::Result<()> {
        let Place { dir, modules, address } = place;
        let new = dir.join("new.so");
        fs::copy(&versions[self.version], &new)?;
        fs::rename(new, dir.join(VERSIONED))?;
        let declared = self.declared();
        let text = format!(
            r#"worker_processes = 2
worker_threads = 1
worker_shutdown_timeout = "10s"
module_path = [{modules:?}]
error_log = [{{ path = "stderr", level = "notice" }}]
{declared}
[[module]]
name = "return"

[[module]]
name = "static"

[[module]]
name = "crash"
path = {crash:?}

[[http.server]]
listen = ["{address}"]
root = "root"
access_log = "off"
versioned = {{}}
headers.add_header = [{{ name = "X-Order", value = "headers" }}]

[[http.server.location]]
path = "= /"
return = {{ code = 200, text = "$pid" }}

[[http.server.location]]
path = "= {CRASH}"
crash.how = "segv"
"#
        );
        fs::write(dir.join(CONFIG), text)
    }
}

/// Writes the files.
pub fn write_files(dir: &Path) -> std::io::Result<()> {
    let root = dir.join("root");
    fs::create_dir(&root)?;
    fs::write(root.join(FILE.trim_start_matches('/')), content())
}

fn content() -> Vec<u8> {
    (0..FILE_SIZE).map(|at| (at % 251) as u8).collect()
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub shape: Shape,
    /// The process that answered, where the answer says it.
    pub worker: Option<u32>,
}

impl Seen {
    /// An error if it is not one of this site's.
    pub fn new(answer: &Answer, is_file: bool) -> Result<Seen, String> {
        let wrong = |what: &str| format!("{what}: {} {:?}, {} bytes", answer.status, answer.fields, answer.body.len());
        if answer.status != 200 {
            return Err(wrong("not 200"));
        }
        let place = |name: &str| answer.fields.iter().position(|(other, _)| other == name);
        let version = VERSIONS.iter().position(|version| answer.field("x-version") == Some(version));
        let (Some(versioned), Some(headers), Some(version)) = (place("x-version"), place("x-order"), version) else {
            return Err(wrong("not through both filters"));
        };
        let worker = if is_file {
            if answer.body != content() {
                return Err(wrong("not the file"));
            }
            None
        } else {
            let worker = std::str::from_utf8(&answer.body).ok().and_then(|text| text.parse().ok());
            Some(worker.ok_or_else(|| wrong("no process"))?)
        };
        Ok(Seen { shape: Shape { version, is_first: versioned < headers }, worker })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(fields: &[(&str, &str)], body: &str) -> Answer {
        let fields = fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Answer { status: 200, fields, body: body.into(), closes: false }
    }

    #[test]
    fn an_answer_shows_the_shape() {
        let both = [("x-version", "2"), ("x-order", "headers")];
        let seen = Seen::new(&answer(&both, "77"), false).unwrap();
        assert_eq!(seen, Seen { shape: Shape { version: 1, is_first: true }, worker: Some(77) });
        let turned = [both[1], both[0]];
        assert!(!Seen::new(&answer(&turned, "77"), false).unwrap().shape.is_first);
        assert!(Seen::new(&answer(&both[..1], "77"), false).unwrap_err().starts_with("not through both filters: 200 "));
        assert!(Seen::new(&answer(&both, "x"), false).unwrap_err().starts_with("no process"));
        assert!(Seen::new(&answer(&both, "77"), true).unwrap_err().starts_with("not the file"));
        assert!(Seen::new(&Answer::default(), true).unwrap_err().starts_with("not 200"));
    }

    #[test]
    fn each_change_makes_another_shape() {
        let shapes: Vec<Shape> = (0..4).map(Shape::numbered).collect();
        for (number, shape) in shapes.iter().enumerate() {
            assert!(!shapes[number + 1..].contains(shape), "{shapes:?}");
        }
        assert_eq!(Shape::numbered(4), shapes[0]);
    }
}
