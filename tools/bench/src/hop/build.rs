//! The modules of the benchmark: built as a third party would, and copied, so that each copy is an image of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the package in this folder beside src/, for release: its shared library.
pub fn module(name: &str) -> Result<PathBuf, String> {
    shifted(name, 0)
}

/// The same with so many bytes in front of its code.
pub fn shifted(name: &str, bytes: usize) -> Result<PathBuf, String> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let target = program_folder()?.parent().unwrap_or(Path::new("target")).join("bench-modules");
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--locked", "--quiet", "--target-dir"]).arg(&target).current_dir(&package);
    command.env("NOOP_SHIFT", bytes.to_string());
    let output = command.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("{} cannot be built:\n{}", package.display(), String::from_utf8_lossy(&output.stderr)));
    }
    Ok(target.join("release").join(format!("libtopnext_{name}.so")))
}

/// A bundled module, if it was built beside this program.
pub fn bundled(name: &str) -> Option<PathBuf> {
    let file = program_folder().ok()?.join(format!("libtopnext_{name}.so"));
    file.exists().then_some(file)
}

/// Copies a module to this file, on the disk as well: only then can it be dropped from the page cache.
pub fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let sync = || std::fs::File::open(to)?.sync_all();
    let copied = std::fs::copy(from, to).and_then(|_| sync());
    copied.map_err(|error| format!("cannot copy {} to {}: {error}", from.display(), to.display()))
}

fn program_folder() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    Ok(program.parent().map(Path::to_owned).unwrap_or_default())
}
