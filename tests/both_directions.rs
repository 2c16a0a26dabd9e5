//! Minor versions in both directions: a module of this version and one of the next, in a host of this version and one of
//! the next. Each pair loads, and serves a request. `topnext inspect` names the versions.

#[path = "support/build.rs"]
mod build;
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use build::Variant;
use support::files::binary;
use support::server::{answer, command_of};
use support::{Folder, Server};

/// What module-api calls itself with the feature `next-minor`.
const NEXT_VERSION: &str = "1.1.0";

#[test]
fn this_module_in_this_host() {
    serves(binary(), Variant::Stable);
}

#[test]
fn the_next_module_in_this_host() {
    serves(binary(), Variant::NextMinor);
}

#[test]
fn this_module_in_the_next_host() {
    serves(&build::next_minor_server(), Variant::Stable);
}

#[test]
fn the_next_module_in_the_next_host() {
    serves(&build::next_minor_server(), Variant::NextMinor);
}

#[test]
fn inspect_shows_the_versions_and_that_either_host_would_load_it() {
    let (this, next) = (binary().to_owned(), build::next_minor_server());
    let manifest = fs::read_to_string(build::root().join("module-api/Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let this_version = manifest["package"]["version"].as_str().unwrap();
    for (server, host) in [(&this, topnext_module_api::API_VERSION), (&next, NEXT_VERSION)] {
        for (module, built_with) in [(Variant::Stable, this_version), (Variant::NextMinor, NEXT_VERSION)] {
            let file = build::module_as("plain", module);
            let output = Command::new(server).arg("inspect").arg(file).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
            let built = text.lines().find_map(|line| line.trim().strip_prefix("built with ")).unwrap_or_default();
            assert!(built.trim().starts_with(&format!("module-api {built_with} (abi ")), "{built:?} in:\n{text}");
            let verdict = text.lines().find(|line| line.starts_with("this host ")).unwrap_or_default();
            assert!(verdict.starts_with(&format!("this host (module-api {host} (abi ")), "{verdict:?} in:\n{text}");
            assert!(verdict.ends_with(") would load it"), "{verdict:?} in:\n{text}");
        }
    }
}

/// Checks the configuration with `-t`, then serves a request that passes the module's filter.
fn serves(program: &Path, module: Variant) {
    let folder = Folder::new();
    let config = format!(
        "[[module]]\nname = \"plain\"\npath = {:?}\n\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n\
         plain = {{ enabled = true, text = \"hello\", statuses = [404] }}\n",
        build::module_as("plain", module)
    );
    folder.write("plugins.toml", config.replace("PORT", "8000").as_bytes());
    let check = answer(command_of(program, &folder, &["-t"]));
    assert_eq!(check.code, Some(0), "{check:#?}");

    let server = Server::start_program(program, folder, &config);
    assert_eq!(server.get("/absent").expect(404).field("X-Plain"), Some("hello"));
}
