//! The modules that are not topnext's own: built as a third party would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::site::VERSIONS;

/// Their files.
#[derive(Debug)]
pub struct Modules {
    /// The versions of module `versioned`, in the order of [`VERSIONS`].
    pub versioned: Vec<PathBuf>,
    /// Module `crash`.
    pub crash: PathBuf,
}

impl Modules {
    /// Builds them, with the versions kept in this folder.
    pub fn build(folder: &Path) -> Result<Modules, String> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut versioned = Vec::new();
        for version in VERSIONS {
            let built = build(&here.join("versioned"), "versioned", version)?;
            let kept = folder.join(format!("libversioned-{version}.so"));
            fs::copy(&built, &kept).map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
            versioned.push(kept);
        }
        Ok(Modules { versioned, crash: build(&here.join("../../tests/modules/crash"), "crash", "")? })
    }
}

fn build(package: &Path, name: &str, version: &str) -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let target = program.ancestors().nth(2).unwrap_or(Path::new("target")).join("soak-modules");
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--quiet", "--target-dir"]).arg(&target).current_dir(package);
    command.env("BUILT_AS", version);
    let output = command.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("{} cannot be built:\n{}", package.display(), String::from_utf8_lossy(&output.stderr)));
    }
    Ok(target.join("release").join(format!("libtopnext_{name}.so")))
}
