//! Minor versions in both directions: a module of this version and one of the next, in a host of this version and one of
//! the next. Each pair loads, and serves a request. `topnext inspect` names the versions.

#[path = "support/build.rs"]
mod build;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use build::Variant;

/// What module-api calls itself with the feature `next-minor`.
const NEXT_VERSION: &str = "1.1.0";

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn this_module_in_this_host() {
    serves("this_this", PathBuf::from(env!("CARGO_BIN_EXE_topnext")), Variant::Stable);
}

#[test]
fn the_next_module_in_this_host() {
    serves("next_this", PathBuf::from(env!("CARGO_BIN_EXE_topnext")), Variant::NextMinor);
}

#[test]
fn this_module_in_the_next_host() {
    serves("this_next", build::next_minor_server(), Variant::Stable);
}

#[test]
fn the_next_module_in_the_next_host() {
    serves("next_next", build::next_minor_server(), Variant::NextMinor);
}

#[test]
fn inspect_shows_the_versions_and_that_either_host_would_load_it() {
    let (this, next) = (PathBuf::from(env!("CARGO_BIN_EXE_topnext")), build::next_minor_server());
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
fn serves(test: &str, server: PathBuf, module: Variant) {
    let prefix = Prefix::new(test);
    let address = free_address();
    let config = format!(
        "[[module]]\nname = \"plain\"\npath = {:?}\n\n[[http.server]]\nlisten = [\"{address}\"]\nplain = {{ enabled = true, text = \"hello\", statuses = [404] }}\n",
        build::module_as("plain", module)
    );
    let config_file = prefix.0.join("plugins.toml");
    fs::write(&config_file, config).unwrap();
    let check = Command::new(&server).arg("-t").arg("-c").arg(&config_file).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));

    let mut child = Command::new(&server);
    child.arg("-c").arg(&config_file).stdout(Stdio::null());
    let mut running = Running(child.spawn().unwrap());
    let answer = request(&address, &mut running);
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("\r\nx-plain: hello\r\n"), "{answer}");
}

/// A folder for one server, removed when it is dropped.
struct Prefix(PathBuf);

impl Prefix {
    fn new(test: &str) -> Prefix {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("both_{test}_{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Prefix(path)
    }
}

impl Drop for Prefix {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server, stopped when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // The master stops its worker; a kill would leave the worker alone.
        let _ = Command::new("kill").arg("-TERM").arg(self.0.id().to_string()).status();
        let start = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) {
            if start.elapsed() > PATIENCE {
                let _ = self.0.kill();
            }
            std::thread::yield_now();
        }
    }
}

/// A port that is free now.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// The answer to one request, as soon as the server listens.
fn request(address: &str, server: &mut Running) -> String {
    let start = Instant::now();
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) => {
                assert!(start.elapsed() < PATIENCE, "{error}");
                assert!(server.0.try_wait().unwrap().is_none(), "the server has ended");
                std::thread::yield_now();
            }
        }
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /absent HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
