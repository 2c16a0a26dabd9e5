//! The benchmarks of topnext. Each subcommand is one file.
//!
//! ```text
//! cargo build --release
//! cargo run --release -p topnext-bench -- http --case return --rounds 5
//! ```
//!
//! Exit status: 0 when measured (also if below a floor), 1 when below a floor under `--enforce`, 2 when something
//! could not be measured or the command line is wrong.

#![forbid(unsafe_code)]

mod http;

mod idle;

mod syscalls;

mod cases;
mod check;
mod client;
mod files;
mod names;
mod server;
mod turns;
mod usage;
mod wrk;

mod hop;

mod guard;
mod process;

mod machine;
mod report;

use std::process::ExitCode;

const HELP: &str = "\
Usage: topnext-bench COMMAND [OPTION]...

Commands:
  http      topnext beside nginx, the same work, one worker each
  idle      memory of a connection that does nothing, topnext beside nginx
  syscalls  system calls of a request, topnext beside nginx
  hop       what a filter in the chain costs, and what a module's calls to the host cost
  help      this text

`topnext-bench COMMAND --help` lists the options of a command.
";

/// What a benchmark that could be run found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Measured; nothing to hold against it, or nobody asked.
    Passed,
    /// A floor was missed and `--enforce` was given.
    BelowFloor,
}

fn main() -> ExitCode {
    match dispatch(lexopt::Parser::from_env()) {
        Ok(Verdict::Passed) => ExitCode::SUCCESS,
        Ok(Verdict::BelowFloor) => ExitCode::from(1),
        Err(message) => {
            eprintln!("topnext-bench: {message}");
            ExitCode::from(2)
        }
    }
}

/// Reads the command and leaves the rest of the command line to it.
fn dispatch(mut arguments: lexopt::Parser) -> Result<Verdict, String> {
    use lexopt::prelude::*;
    match arguments.next().map_err(|error| error.to_string())? {
        Some(Value(command)) => match command.to_str() {
            Some("http") => http::run(arguments),
            Some("idle") => idle::run(arguments),
            Some("syscalls") => syscalls::run(arguments),
            Some("hop") => hop::run(arguments),
            Some(guard::COMMAND) => guard::run(arguments),
            Some("help") => help(),
            _ => Err(format!("unknown command {command:?}\n\n{HELP}")),
        },
        Some(Short('h') | Long("help")) => help(),
        Some(other) => Err(format!("{}\n\n{HELP}", other.unexpected())),
        None => Err(format!("a command is missing\n\n{HELP}")),
    }
}

fn help() -> Result<Verdict, String> {
    print!("{HELP}");
    Ok(Verdict::Passed)
}
