//! `topnext-bench syscalls`: the system calls of a request, counted by `strace -f -c` while one connection is kept.
//!
//! ```text
//! | case | topnext | nginx |
//! |---|---|---|
//! | return | recvfrom 1.00, sendto 1.00 | recvfrom 1.00, writev 1.00 |
//! ```
//!
//! What a server does now and then, such as a look at the clock, shows as a fraction.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Verdict;
use crate::cases::{self, CASES, Case, Request};
use crate::client::Client;
use crate::files;
use crate::guard::WorkDir;
use crate::machine;
use crate::process::Process;
use crate::server::{Nginx, ROOT, Server, Software, Topnext};

const HELP: &str = "\
Usage: topnext-bench syscalls [OPTION]...

Prints the system calls that topnext and nginx make for a request, each case on one connection. Needs strace.

  --case NAME      run this case only; may be given several times
  --requests N     requests that are counted, 10 to 100000 (default 1000)
  --topnext PATH   the binary to measure (default: topnext beside this program)
  --help           this text
";

/// Requests before the counted ones, in which caches are filled.
const WARM_UP: usize = 50;

/// How long strace has until it is attached, and until it has ended.
const STRACE_TIME: Duration = Duration::from_secs(10);

/// Less often than this, as a part of the requests, is not shown.
const SHOWN: f64 = 0.01;

#[derive(Debug)]
struct Options {
    cases: Vec<&'static Case>,
    requests: usize,
    topnext: Option<PathBuf>,
}

/// Reads the rest of the command line, counts, and prints a table.
pub fn run(arguments: lexopt::Parser) -> Result<Verdict, String> {
    match parse(arguments).map_err(|error| format!("{error}\n\n{HELP}"))? {
        Some(options) => count(&options)?,
        None => print!("{HELP}"),
    }
    Ok(Verdict::Passed)
}

fn parse(mut arguments: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options { cases: Vec::new(), requests: 1000, topnext: None };
    while let Some(argument) = arguments.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("case") => options.cases.push(arguments.value()?.parse_with(cases::find)?),
            Long("requests") => {
                options.requests = arguments.value()?.parse_with(|text| match text.parse() {
                    Ok(number @ 10..=100_000) => Ok(number),
                    _ => Err("expected a number from 10 to 100000"),
                })?;
            }
            Long("topnext") => options.topnext = Some(arguments.value()?.into()),
            other => return Err(other.unexpected()),
        }
    }
    if options.cases.is_empty() {
        options.cases = CASES.iter().collect();
    }
    Ok(Some(options))
}

fn count(options: &Options) -> Result<(), String> {
    let nginx = machine::program("nginx", "nginx")?;
    let strace = machine::program("strace", "strace")?;
    let topnext = machine::topnext(options.topnext.clone())?;
    let servers: [Box<dyn Software>; 2] = [Box::new(Topnext { binary: topnext }), Box::new(Nginx { binary: nginx })];
    let dir = WorkDir::create()?;
    files::write(&dir.path().join(ROOT))?;
    println!("| case | topnext | nginx |\n|---|---|---|");
    for &case in &options.cases {
        let mut cells = Vec::new();
        for software in &servers {
            let server = Server::start(&**software, case, &dir)?;
            cells.push(calls_of(&server, case, &strace, dir.path(), options.requests)?);
        }
        println!("| {} | {} |", case.name, cells.join(" | "));
    }
    Ok(())
}

/// The calls of a request, most often first, as a cell of the table.
fn calls_of(server: &Server, case: &Case, strace: &Path, dir: &Path, number: usize) -> Result<String, String> {
    let requests = (case.requests)();
    let mut client = Client::connect(server.address())?;
    let mut ask = |number: usize| {
        requests.iter().cycle().take(number).try_for_each(|request: &Request| match client.ask(request)?.status {
            200 => Ok(()),
            status => Err(server.explain(&format!("answers {} with status {status}", request.path))),
        })
    };
    ask(WARM_UP)?;
    let summary = dir.join(format!("{}-{}.strace", case.name, server.name()));
    let tracer = Tracer::attach(strace, &server.workers()?, &summary)?;
    ask(number)?;
    tracer.detach()?;
    let text = fs::read_to_string(&summary).map_err(|error| format!("{}: {error}", summary.display()))?;
    Ok(cell(&calls(&text)?, number))
}

/// A strace that counts. It is ended with this value, the server is not.
struct Tracer {
    child: Child,
    process: Process,
}

impl Tracer {
    fn attach(strace: &Path, pids: &[u32], summary: &Path) -> Result<Tracer, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", strace.display());
        let mut command = Command::new(strace);
        command.args(["-f", "-c", "-q", "-U", "calls,name", "-o"]).arg(summary);
        command.args(pids.iter().map(|pid| format!("-p{pid}")));
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(failed)?;
        let process = match Process::open(child.id()) {
            Ok(process) => process,
            Err(error) => {
                let _ = (child.kill(), child.wait());
                return Err(failed(error));
            }
        };
        let tracer = Tracer { child, process };
        let deadline = Instant::now() + STRACE_TIME;
        while !pids.iter().all(|&pid| is_traced(pid)) {
            if tracer.process.ends_within(Duration::from_millis(10)).map_err(failed)? || Instant::now() > deadline {
                return Err("strace does not attach to the server; it needs root, or kernel.yama.ptrace_scope 0".into());
            }
        }
        Ok(tracer)
    }

    /// Lets the server go on alone; the summary is written then.
    fn detach(mut self) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("strace: {error}");
        self.process.interrupt().map_err(failed)?;
        match self.process.ends_within(STRACE_TIME).map_err(failed)? {
            true => self.child.wait().map(drop).map_err(failed),
            false => Err("strace does not end".into()),
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // After its end nothing happens here.
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// Whether each thread of a process has a tracer.
fn is_traced(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks.flatten().all(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
    })
}

/// Reads the lines `calls name` of a summary; the last one is the total.
fn calls(summary: &str) -> Result<Vec<(String, u64)>, String> {
    let line = |line: &str| {
        let (calls, name) = line.trim().split_once(char::is_whitespace)?;
        let name = name.trim();
        (name != "total").then_some((name.to_owned(), calls.parse().ok()?))
    };
    let calls: Vec<(String, u64)> = summary.lines().filter_map(line).collect();
    if calls.is_empty() { Err(format!("strace counted nothing:\n{summary}")) } else { Ok(calls) }
}

fn cell(calls: &[(String, u64)], requests: usize) -> String {
    let mut each: Vec<(f64, &str)> =
        calls.iter().map(|(name, count)| (*count as f64 / requests as f64, &**name)).collect();
    each.retain(|&(count, _)| count >= SHOWN);
    each.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(other.1)));
    let total: f64 = each.iter().map(|(count, _)| count).sum();
    let each: Vec<String> = each.iter().map(|(count, name)| format!("{name} {count:.2}")).collect();
    format!("{total:.2}: {}", each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_becomes_a_cell() {
        let summary = "    calls syscall\n--------- ----------------\n     1000 recvfrom\n     2003 sendto\n        1 write\n\
                       --------- ----------------\n     3004 total\n";
        let calls = calls(summary).unwrap();
        assert_eq!(cell(&calls, 1000), "3.00: sendto 2.00, recvfrom 1.00");
        assert!(super::calls("").unwrap_err().starts_with("strace counted nothing"));
    }

    #[test]
    fn this_process_is_not_traced() {
        // Unless the tests run below a tracer, which is seen then.
        let status = fs::read_to_string("/proc/self/status").unwrap();
        assert_eq!(is_traced(std::process::id()), !status.contains("TracerPid:\t0"));
    }
}
