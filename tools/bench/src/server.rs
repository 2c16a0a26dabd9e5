//! The servers under test: what they are given to read, how they start, and how they are ended.
//!
//! ```text
//! let nginx = Server::start(&Nginx { binary }, case, &work_dir)?;   // accepts connections now
//! let cpu = nginx.cpu_times()?;
//! ```
//!
//! Both configurations say the same: one worker, keepalive, sendfile, no access log, errors to stderr; all else is each
//! server's default.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cases::{Case, MODULES};
use crate::guard::WorkDir;
use crate::process::Process;
use crate::usage::{self, CpuTimes};

/// How long a server has until it accepts connections.
const START_TIME: Duration = Duration::from_secs(10);

/// Time between two attempts to connect to a server that starts.
const START_STEP: Duration = Duration::from_millis(10);

/// How much of a server's stderr an error message carries, in bytes from its end.
const STDERR_TAIL: usize = 4096;

/// The folder below the working folder that both servers have as `root`.
pub const ROOT: &str = "root";

/// A kind of server: its configuration and its command line.
pub trait Software {
    /// For messages and file names.
    fn name(&self) -> &'static str;

    /// The text of a configuration for one case; `dir` is absolute and holds [`ROOT`].
    fn configuration(&self, case: &Case, port: u16, dir: &Path) -> Result<String, String>;

    /// Starts it in the foreground with the configuration in the file `configuration` and the prefix `dir`.
    fn command(&self, configuration: &Path, dir: &Path) -> Command;
}

pub struct Nginx {
    pub binary: PathBuf,
}

impl Software for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn configuration(&self, case: &Case, port: u16, _dir: &Path) -> Result<String, String> {
        // As root, nginx would give its worker a user who cannot read the private folder; topnext keeps the user.
        let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
        // Paths are relative to the prefix. The temporary paths would else be in a folder that needs root.
        Ok(format!(
            "{user}daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr error;
events {{ {events} }}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path temp_client_body;
    proxy_temp_path temp_proxy;
    fastcgi_temp_path temp_fastcgi;
    uwsgi_temp_path temp_uwsgi;
    scgi_temp_path temp_scgi;
    server {{
        listen 127.0.0.1:{port};
        root {ROOT};
        {fragment}
    }}
}}
",
            fragment = (case.nginx)(),
            events = case.open_connections.map(|n| format!("worker_connections {n};")).unwrap_or_default(),
        ))
    }

    fn command(&self, configuration: &Path, dir: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("-p").arg(dir).arg("-c").arg(configuration).args(["-e", "stderr"]);
        command
    }
}

pub struct Topnext {
    /// Absolute. Modules are taken from its folder.
    pub binary: PathBuf,
}

impl Software for Topnext {
    fn name(&self) -> &'static str {
        "topnext"
    }

    fn configuration(&self, case: &Case, port: u16, dir: &Path) -> Result<String, String> {
        let module_path = toml_string(self.binary.parent().unwrap_or(Path::new("/")))?;
        let root = toml_string(&dir.join(ROOT))?;
        let modules = MODULES.iter().chain(case.modules);
        let modules: String = modules.map(|name| format!("[[module]]\nname = \"{name}\"\n")).collect();
        Ok(format!(
            "worker_threads = 1
module_path = [{module_path}]
error_log = {{ path = \"stderr\", level = \"error\" }}
{connections}{accounting}{modules}
[[http.server]]
listen = [\"127.0.0.1:{port}\"]
root = {root}
access_log = \"off\"
{fragment}
",
            fragment = (case.topnext)(),
            connections = case.open_connections.map(|n| format!("worker_connections = {n}\n")).unwrap_or_default(),
            accounting = case.accounting.map(|how| format!("module_accounting = \"{how}\"\n")).unwrap_or_default(),
        ))
    }

    fn command(&self, configuration: &Path, _dir: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("-c").arg(configuration);
        command
    }
}

/// A path as a basic string of TOML.
fn toml_string(path: &Path) -> Result<String, String> {
    let text = path.to_str().ok_or_else(|| format!("{}: the path is not UTF-8", path.display()))?;
    if text.chars().any(char::is_control) {
        return Err(format!("{}: the path holds a control character", path.display()));
    }
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// A server that runs; dropping it ends it. The folder's guard does so if the benchmark dies first.
pub struct Server<'a> {
    name: &'static str,
    address: SocketAddr,
    child: Child,
    process: Process,
    /// Where its stdout and stderr go.
    stderr: PathBuf,
    _dir: &'a WorkDir,
}

impl<'a> Server<'a> {
    /// Starts it on a free port of 127.0.0.1 and waits until it accepts connections.
    pub fn start(software: &dyn Software, case: &Case, dir: &'a WorkDir) -> Result<Server<'a>, String> {
        let name = software.name();
        let started = |error: std::io::Error| format!("cannot start {name}: {error}");
        let port = free_port().map_err(started)?;
        let configuration = dir.path().join(format!("{name}-{}.conf", case.name));
        let text = software.configuration(case, port, dir.path())?;
        fs::write(&configuration, text).map_err(|error| format!("{}: {error}", configuration.display()))?;
        let stderr = dir.path().join(format!("{name}-{}.stderr", case.name));
        let file = File::create(&stderr).map_err(started)?;
        let mut child = software
            .command(&configuration, dir.path())
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(started)?)
            .stderr(file)
            .current_dir(dir.path())
            .process_group(0)
            .spawn()
            .map_err(started)?;
        let process = match Process::open(child.id()) {
            Ok(process) => process,
            Err(error) => {
                let _ = child.kill().and_then(|()| child.wait());
                return Err(started(error));
            }
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let server = Server { name, address, child, process, stderr, _dir: dir };
        dir.watch(&server.child)?;
        server.wait_ready()?;
        Ok(server)
    }

    fn wait_ready(&self) -> Result<(), String> {
        let deadline = Instant::now() + START_TIME;
        while TcpStream::connect_timeout(&self.address, START_TIME).is_err() {
            match self.process.ends_within(START_STEP) {
                Ok(false) if Instant::now() < deadline => {}
                Ok(false) => return Err(self.explain(&format!("does not listen after {} s", START_TIME.as_secs()))),
                Ok(true) => return Err(self.explain("exited instead of starting")),
                Err(error) => return Err(self.explain(&error.to_string())),
            }
        }
        Ok(())
    }

    /// A message with the end of what the server wrote to stderr.
    pub fn explain(&self, problem: &str) -> String {
        let stderr = fs::read(&self.stderr).unwrap_or_default();
        let tail = &stderr[stderr.len().saturating_sub(STDERR_TAIL)..];
        match String::from_utf8_lossy(tail).trim() {
            "" => format!("{} {problem}; it wrote nothing to stderr", self.name),
            text => format!("{} {problem}; it wrote:\n{text}", self.name),
        }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The processes that do the work: all below the first one, or that one if there are none.
    pub fn workers(&self) -> Result<Vec<u32>, String> {
        usage::workers(self.child.id())
    }

    /// CPU time of all its processes so far.
    pub fn cpu_times(&self) -> Result<CpuTimes, String> {
        CpuTimes::of(self.child.id())
    }

    /// Resident memory of its workers, in bytes.
    pub fn resident_memory(&self) -> Result<u64, String> {
        usage::resident_memory(self.child.id())
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.process.end() {
            eprintln!("{}: {error}", self.name);
            return;
        }
        // Workers that a master left behind; its number stays taken until the wait below.
        self.process.kill_group();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on now. Another program may take it before the server does; then the server says so.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    #[test]
    fn topnext_configuration_in_full() {
        let topnext = Topnext { binary: "/opt/a \"b\"/topnext".into() };
        let text = topnext.configuration(cases::find("return").unwrap(), 8080, Path::new("/var/c\\d")).unwrap();
        assert_eq!(
            text,
            r#"worker_threads = 1
module_path = ["/opt/a \"b\""]
error_log = { path = "stderr", level = "error" }
[[module]]
name = "return"
[[module]]
name = "static"
[[module]]
name = "index"
[[module]]
name = "not_modified"

[[http.server]]
listen = ["127.0.0.1:8080"]
root = "/var/c\\d/root"
access_log = "off"
[[http.server.location]]
path = "= /return"
return = { code = 200, text = "ok" }
"#
        );
    }

    #[test]
    fn nginx_configuration_holds_the_fragment_and_balanced_braces() {
        let nginx = Nginx { binary: "/usr/sbin/nginx".into() };
        for case in cases::CASES {
            let text = nginx.configuration(case, 8080, Path::new("/x")).unwrap();
            assert!(text.contains(&(case.nginx)()) && text.contains("listen 127.0.0.1:8080;\n"), "{text}");
            assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
        }
    }

    #[test]
    fn paths_that_toml_cannot_carry_are_refused() {
        assert_eq!(toml_string(Path::new("/a\nb")).unwrap_err(), "/a\nb: the path holds a control character");
    }
}
