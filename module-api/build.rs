//! Records what a module's description says about its build: the compiler and the target.

use std::{env, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = env::var("RUSTC").expect("cargo sets RUSTC");
    let version = Command::new(rustc).arg("--version").output().map(|out| out.stdout).unwrap_or_default();
    let version = String::from_utf8_lossy(&version);
    println!("cargo::rustc-env=TOPNEXT_RUSTC={}", version.trim());
    println!("cargo::rustc-env=TOPNEXT_TARGET={}", env::var("TARGET").expect("cargo sets TARGET"));
}
