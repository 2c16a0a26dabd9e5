//! Builds the modules of tests/modules, as their authors would, and keeps them in the target folder.
//!
//! ```text
//! let file = build::module("plain");        // target/test-modules/stable/debug/libtopnext_plain.so
//! ```

// Not every test uses all of it.
#![allow(dead_code)]

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// How a module is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// By the compiler of the tests.
    Stable,
    /// The same, against the next minor version of module-api.
    NextMinor,
    /// By a nightly compiler, if [`has_nightly`].
    Nightly,
}

impl Variant {
    const fn folder(self) -> &'static str {
        match self {
            Variant::Stable => "stable",
            Variant::NextMinor => "next-minor",
            Variant::Nightly => "nightly",
        }
    }
}

/// The file of the module in tests/modules/NAME, built with its development profile.
pub fn module(name: &str) -> PathBuf {
    module_as(name, Variant::Stable)
}

/// The file of the module, built so.
pub fn module_as(name: &str, variant: Variant) -> PathBuf {
    let source = root().join("tests/modules").join(name);
    let target = target_folder().join("test-modules").join(variant.folder());
    let mut arguments = vec!["build", "--lib"];
    if variant == Variant::NextMinor {
        arguments.extend(["--features", "next-minor"]);
    }
    built(&source, &target, &arguments, variant);
    target.join("debug").join(format!("libtopnext_{name}.so"))
}

/// The server, built against the next minor version of module-api.
pub fn next_minor_server() -> PathBuf {
    let target = target_folder().join("next-minor");
    built(&root(), &target, &["build", "--bin", "topnext", "--features", "next-minor"], Variant::Stable);
    target.join("debug/topnext")
}

/// Builds the package in a folder anywhere, as its author would: `cargo build --release`.
pub fn release(source: &Path, target: &Path) {
    built(source, target, &["build", "--release"], Variant::Stable);
}

/// What packages out of this repository are built into.
pub fn out_of_tree_folder() -> PathBuf {
    target_folder().join("out-of-tree")
}

/// Whether a nightly compiler is installed.
pub fn has_nightly() -> bool {
    let list = Command::new("rustup").args(["toolchain", "list"]).output();
    list.is_ok_and(|list| String::from_utf8_lossy(&list.stdout).lines().any(|line| line.starts_with("nightly")))
}

/// The folder of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The folder that cargo builds into.
fn target_folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    folder.parent().unwrap_or(folder).to_owned()
}

/// Runs cargo once per process for the same package, folder and arguments.
fn built(source: &Path, target: &Path, arguments: &[&str], variant: Variant) {
    static DONE: Mutex<Option<HashMap<(PathBuf, PathBuf), ()>>> = Mutex::new(None);
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    let done = done.get_or_insert_default();
    let key = (source.to_owned(), target.to_owned());
    if done.contains_key(&key) {
        return;
    }
    fs::create_dir_all(target).unwrap();
    // Another test's process may be at the same package.
    let lock = File::create(target_folder().join("test-modules.lock")).unwrap();
    lock.lock().unwrap();
    use_versions_of_the_server(source);
    // What the server's build has downloaded is enough, if it has everything.
    let offline = cargo(source, target, arguments, variant, true);
    if !offline.status.success() {
        let online = cargo(source, target, arguments, variant, false);
        assert!(
            online.status.success(),
            "cargo {arguments:?} failed in {}:\n{}",
            source.display(),
            String::from_utf8_lossy(&online.stderr)
        );
    }
    done.insert(key, ());
}

fn cargo(source: &Path, target: &Path, arguments: &[&str], variant: Variant, offline: bool) -> std::process::Output {
    let mut command = if variant == Variant::Nightly {
        let mut command = Command::new("rustup");
        command.args(["run", "nightly", "cargo"]).env_remove("RUSTUP_TOOLCHAIN");
        command
    } else {
        Command::new(env!("CARGO"))
    };
    command.args(arguments).arg("--target-dir").arg(target).current_dir(source);
    if offline {
        command.arg("--offline");
    }
    // What cargo or clippy set for this test is not meant for another build.
    for name in ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR"] {
        command.env_remove(name);
    }
    // The modules share their dependencies only if these are built alike.
    command.env("CARGO_INCREMENTAL", "0").env("CARGO_PROFILE_DEV_DEBUG", "0");
    command.output().unwrap()
}

/// A package without a lock file starts with the server's, which holds all that it needs.
fn use_versions_of_the_server(source: &Path) {
    let (ours, theirs) = (root().join("Cargo.lock"), source.join("Cargo.lock"));
    if !theirs.exists() && ours.exists() {
        fs::copy(ours, theirs).unwrap();
    }
}
