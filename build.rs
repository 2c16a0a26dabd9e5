//! Records what `topnext -V` shows: the compiler, the target, the profile, and the modules in this source tree. Builds
//! nothing: modules are packages of their own.

use std::{env, fs, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=modules");
    let rustc = env::var("RUSTC").expect("cargo sets RUSTC");
    let version = Command::new(rustc).arg("--version").output().map(|out| out.stdout).unwrap_or_default();
    println!("cargo::rustc-env=TOPNEXT_RUSTC={}", String::from_utf8_lossy(&version).trim());
    println!("cargo::rustc-env=TOPNEXT_TARGET={}", env::var("TARGET").expect("cargo sets TARGET"));
    println!("cargo::rustc-env=TOPNEXT_PROFILE={}", env::var("PROFILE").expect("cargo sets PROFILE"));
    println!("cargo::rustc-env=TOPNEXT_BUNDLED={}", bundled(Path::new("modules")).join(", "));
}

/// The names of the packages under modules/KIND/NAME.
fn bundled(modules: &Path) -> Vec<String> {
    let folders = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let packages = folders(modules).flat_map(|kind| folders(&kind).collect::<Vec<_>>());
    let packages = packages.filter(|path| path.join("Cargo.toml").exists());
    let mut names: Vec<String> =
        packages.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
    names.sort();
    names
}
