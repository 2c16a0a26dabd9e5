//! What the figures depend on, for the head of a report, and the programs that are needed.
//!
//! ```text
//! - CPU: AMD EPYC 7763 (2 cores)
//! - kernel: 6.12.9
//! - nginx version: nginx/1.22.1
//! - rustc 1.95.0 (59807616e 2026-04-14)
//! ```

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Folders outside the usual PATH of a user in which Debian keeps servers.
const MORE_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Finds a program in PATH, or says which Debian package has it.
pub fn program(name: &str, package: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(MORE_FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("{name} is not installed; on Debian: apt-get install {package}"))
}

/// The binary to measure, absolute, because a server starts in another folder.
pub fn topnext(given: Option<PathBuf>) -> Result<PathBuf, String> {
    if given.is_none() && cfg!(debug_assertions) {
        eprintln!("warning: this is a debug build, and so is the topnext beside it; use --release");
    }
    let path = match given {
        Some(path) => path,
        None => std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("topnext"),
    };
    std::fs::canonicalize(&path).map_err(|error| {
        format!("{}: {error}; build it by `cargo build --release`, or name another by --topnext", path.display())
    })
}

/// The head of a report, as a Markdown list. What cannot be found out is called unknown.
pub fn describe(nginx: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(0, |count| count.get());
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpu = cpu_model(&cpuinfo).unwrap_or("unknown model");
    let nginx = version(nginx, "-v").unwrap_or_else(|| "nginx of unknown version".into());
    let rustc = version(Path::new("rustc"), "-V").unwrap_or_else(|| "rustc of unknown version".into());
    format!("- CPU: {cpu} ({cores} cores)\n- kernel: {}\n- {nginx}\n- {rustc}\n", kernel.trim())
}

/// The name of the first CPU in the text of /proc/cpuinfo; some architectures give none.
fn cpu_model(cpuinfo: &str) -> Option<&str> {
    cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim())
    })
}

/// The first line that a program prints about itself, on stdout or (nginx) on stderr.
fn version(program: &Path, option: &str) -> Option<String> {
    let output = Command::new(program).arg(option).stdin(Stdio::null()).output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_model_is_the_first() {
        let text = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: Fast: 3000\n\nmodel name\t: Slow\n";
        assert_eq!(cpu_model(text), Some("Fast: 3000"));
        assert_eq!(cpu_model("processor\t: 0\n"), None);
    }

    #[test]
    fn missing_program_names_its_package() {
        assert!(program("sh", "dash").unwrap().is_absolute());
        assert_eq!(
            program("no-such-program-here", "wrk").unwrap_err(),
            "no-such-program-here is not installed; on Debian: apt-get install wrk"
        );
    }
}
