//! Files of tests: folders that remove themselves, and the bundled modules.
//!
//! `cargo test` builds no module: cargo puts a shared library beside the server only for `cargo build`. So the first test
//! of each process runs that, with the profile of the test and in its target folder. It must be the whole of it, and not
//! the modules alone: features of shared dependencies would differ, and each build would undo the other. The server is
//! then the one that users build, too.

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A server of the files below `html`.
pub const SITE: &str = r#"
module = [{ name = "index" }, { name = "static" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
root = "html"
"#;

/// A folder, removed with all that is in it when it is dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// An empty folder.
    pub fn new() -> Folder {
        Folder::below(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap()
    }

    /// One in which the system's permissions hold for workers, also if root runs the test: what the configuration has to begin with.
    pub fn for_workers() -> (Folder, &'static str) {
        if !rustix::process::geteuid().is_root() {
            return (Folder::new(), "");
        }
        // Where nobody may go.
        let folder = Folder::below(&std::env::temp_dir()).unwrap();
        fs::set_permissions(folder.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        (folder, "user = { name = \"nobody\", group = \"nogroup\" }\n")
    }

    /// An empty folder in this one; none if it cannot be made.
    pub fn below(parent: &Path) -> Option<Folder> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("topnext_{}_{}_{number}", env!("CARGO_CRATE_NAME"), std::process::id()));
        // One that a killed process with this number has left.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).ok()?;
        Some(Folder(path))
    }

    /// With these files. A name may have folders in it.
    pub fn with(files: &[(&str, &[u8])]) -> Folder {
        let folder = Folder::new();
        for (name, content) in files {
            folder.write(name, content);
        }
        folder
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file, and makes the folders on the way.
    pub fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(&path).unwrap().write_all(content).unwrap();
        path
    }

    /// A text with the names of this folder and of the modules' replaced by DIR and MODULES, since they differ from run to
    /// run.
    pub fn hide(&self, text: &str) -> String {
        let real = self.0.canonicalize().unwrap();
        let names = [(modules(), "MODULES"), (real.as_path(), "DIR"), (self.0.as_path(), "DIR")];
        names.iter().fold(text.to_owned(), |text, (path, name)| text.replace(path.to_str().unwrap(), name))
    }

    /// The text of a file; empty if there is none.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Bytes that look random and are the same in each run: a wrong, lost or repeated part shows, and gzip cannot shrink them.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Text of so many bytes in numbered lines, which gzip shrinks.
pub fn text(len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 64);
    for line in 0.. {
        if out.len() >= len {
            break;
        }
        writeln!(out, "line {line} of a text that is the same in each run").unwrap();
    }
    out.truncate(len);
    out
}

/// The server.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_topnext"))
}

/// The folder of the bundled modules, which is the server's: so it finds them by itself. Built once per process.
pub fn modules() -> &'static Path {
    static DONE: OnceLock<PathBuf> = OnceLock::new();
    DONE.get_or_init(|| {
        let folder = binary().parent().unwrap().to_owned();
        build(&folder);
        folder
    })
}

fn build(folder: &Path) {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    // Other processes of the same `cargo test` wait here, and then find everything done.
    let lock = File::create(target.join("bundled-modules.lock")).unwrap();
    lock.lock().unwrap();
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--offline", "--quiet"]);
    command.arg("--target-dir").arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    let profile = folder.file_name().and_then(|name| name.to_str()).unwrap();
    command.arg("--profile").arg(if profile == "debug" { "dev" } else { profile });
    // target/TRIPLE/PROFILE, if the tests were built with --target.
    let parent = folder.parent().unwrap();
    if parent != target {
        command.arg("--target").arg(parent.file_name().unwrap());
    }
    // What cargo has set for this test is not meant for another build. The user's CARGO_TARGET_DIR is given above.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "CARGO_TARGET_DIR" {
            command.env_remove(&*name);
        }
    }
    let built = command.output().unwrap();
    assert!(built.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&built.stderr));
}
