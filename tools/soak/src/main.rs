//! Loads topnext for a while, and looks at what is lost and what is kept. Each subcommand is one file.
//!
//! ```text
//! cargo build --release
//! cargo run --release -p topnext-soak -- mix --seconds 600 --clients 200
//! cargo run --release -p topnext-soak -- changes
//! ```
//!
//! Both start the server themselves, in a folder of their own, on 127.0.0.1.
//!
//! Exit status: 0 if all is well, 1 if something was wrong, lost or kept, 2 if it could not be run.

#![forbid(unsafe_code)]

mod changes;
mod mix;

mod http;
mod process;
mod random;
mod server;

use std::ops::RangeInclusive;
use std::process::ExitCode;

const HELP: &str = "\
Usage: topnext-soak COMMAND [OPTION]...

Commands:
  mix       good, slow, broken and aborted clients: what is answered wrongly, and what is kept of them
  changes   reloads, upgrades and deaths of workers under load: what is lost, and what the master keeps
  help      this text

`topnext-soak COMMAND --help` lists the options of a command.
";

fn main() -> ExitCode {
    match dispatch(lexopt::Parser::from_env()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(message) => {
            eprintln!("topnext-soak: {message}");
            ExitCode::from(2)
        }
    }
}

/// Reads the command and leaves the rest of the command line to it. True if all is well.
fn dispatch(mut arguments: lexopt::Parser) -> Result<bool, String> {
    use lexopt::prelude::*;
    match arguments.next().map_err(|error| error.to_string())? {
        Some(Value(command)) => match command.to_str() {
            Some("mix") => mix::run(arguments),
            Some("changes") => changes::run(arguments),
            Some("help") => help(),
            _ => Err(format!("unknown command {command:?}\n\n{HELP}")),
        },
        Some(Short('h') | Long("help")) => help(),
        Some(other) => Err(format!("{}\n\n{HELP}", other.unexpected())),
        None => Err(format!("a command is missing\n\n{HELP}")),
    }
}

fn help() -> Result<bool, String> {
    print!("{HELP}");
    Ok(true)
}

/// A number of the command line within bounds.
fn number_in(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<u64, String> {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("expected a number from {} to {}", range.start(), range.end()))
    }
}
