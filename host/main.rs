//! The `topnext` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    topnext::cli::main(std::env::args_os())
}
