//! Leaves nothing behind: the temporary folder, and a second process that ends the servers and removes the folder when
//! the benchmark ends, in whichever way (done, an error, Ctrl-C, SIGKILL).
//!
//! ```text
//! benchmark                        guard (this program again, in a process group of its own)
//!    | --- "PID of a server\n" ---> | opens a handle on it
//!    | <-- "\n" ------------------- |
//!    | --- end of file -----------> | ends the servers that still run, removes the folder
//! ```
//!
//! A pipe closes whatever happens to the benchmark, so no signal needs to be caught.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::{DirBuilder, remove_dir_all};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::Verdict;
use crate::process::Process;

/// The command by which this program runs itself as a guard; it is not meant for users.
pub const COMMAND: &str = "guard";

/// The temporary folder of one benchmark, private to the user. Dropping it removes it.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    guard: Child,
    /// To and from the guard. The first is taken only by `drop`.
    pipes: RefCell<(Option<ChildStdin>, ChildStdout)>,
}

impl WorkDir {
    /// Makes the folder and starts its guard.
    pub fn create() -> Result<WorkDir, String> {
        let owner = std::process::id();
        let path = folder_of(owner);
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let started = start_guard(owner);
        if started.is_err() {
            let _ = std::fs::remove_dir(&path);
        }
        let (guard, stdin, stdout) = started.map_err(|error| format!("cannot start the guard: {error}"))?;
        Ok(WorkDir { path, guard, pipes: RefCell::new((Some(stdin), stdout)) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has a child process ended that is still there when the benchmark is not. It must lead its process group. When
    /// this returns, the guard knows it, so the child may be waited for.
    pub fn watch(&self, child: &Child) -> Result<(), String> {
        let mut pipes = self.pipes.borrow_mut();
        let (Some(stdin), stdout) = &mut *pipes else {
            return Ok(());
        };
        writeln!(stdin, "{}", child.id())
            .and_then(|()| stdout.read_exact(&mut [0]))
            .map_err(|error| format!("the guard has gone: {error}"))
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        self.pipes.get_mut().0 = None;
        let _ = self.guard.wait();
    }
}

fn start_guard(owner: u32) -> io::Result<(Child, ChildStdin, ChildStdout)> {
    let mut guard = Command::new(std::env::current_exe()?)
        .arg(COMMAND)
        .arg(owner.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0) // a Ctrl-C at the terminal does not reach it
        .spawn()?;
    let pipes = guard.stdin.take().zip(guard.stdout.take());
    let (stdin, stdout) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
    Ok((guard, stdin, stdout))
}

/// The folder of the benchmark that runs as this process. The guard is given the number and not the folder, so that no
/// command line makes it remove anything else.
fn folder_of(owner: u32) -> PathBuf {
    std::env::temp_dir().join(format!("topnext-bench-{owner}"))
}

/// The guard itself: `topnext-bench guard PID`.
pub fn run(mut arguments: lexopt::Parser) -> Result<Verdict, String> {
    let owner: u32 = arguments
        .value()
        .ok()
        .and_then(|value: OsString| value.to_str()?.parse().ok())
        .ok_or("guard is started by the other commands only")?;
    let ended = watch_until_eof(io::stdin().lock(), io::stdout().lock());
    let folder = folder_of(owner);
    remove_dir_all(&folder).map_err(|error| format!("cannot remove {}: {error}", folder.display()))?;
    ended.map(|()| Verdict::Passed).map_err(|error| format!("guard: {error}"))
}

/// Takes numbers of processes, one a line; at the end of the input it ends those that still run.
fn watch_until_eof(input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut processes = Vec::new();
    for line in BufReader::new(input).lines() {
        let Ok(pid) = line?.parse() else { continue };
        // A handle of one that has ended is of no more use: a benchmark starts two servers for each case.
        processes.retain(|process: &Process| !process.ends_within(std::time::Duration::ZERO).unwrap_or(false));
        processes.extend(Process::open(pid));
        // A benchmark that is gone does not read this; then the input ends too.
        let _ = output.write_all(b"\n").and_then(|()| output.flush());
    }
    processes.iter().try_for_each(Process::end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").process_group(0).spawn().unwrap()
    }

    #[test]
    fn end_of_input_ends_what_still_runs() {
        let (mut first, mut second, mut other) = (sleeper(), sleeper(), sleeper());
        let mut answers = Vec::new();
        let input = format!("{}\nnot a number\n{}\n", first.id(), second.id());
        watch_until_eof(input.as_bytes(), &mut answers).unwrap();
        assert_eq!(answers, b"\n\n");
        assert!(first.try_wait().unwrap().is_some());
        assert!(second.try_wait().unwrap().is_some());
        assert!(other.try_wait().unwrap().is_none(), "one that was not named has been ended");
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn guard_takes_only_a_number() {
        for arguments in [vec!["guard"], vec!["guard", "/home"], vec!["guard", "../x"], vec!["guard", "-1"]] {
            let mut parser = lexopt::Parser::from_iter(["topnext-bench"].iter().chain(&arguments));
            assert!(matches!(parser.next(), Ok(Some(lexopt::Arg::Value(_)))));
            assert_eq!(run(parser).unwrap_err(), "guard is started by the other commands only", "{arguments:?}");
        }
    }
}
