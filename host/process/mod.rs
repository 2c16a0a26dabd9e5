//! Processes and threads.
//!
//! ```text
//! topnext            the master: sockets, signals, the control socket; it loads no module, and leaves the configuration to its
//!   |                workers: the command line has looked for daemon and master_process, and passes over what is wrong
//!   +-- worker       reads the configuration, loads the modules, serves           (one for each of worker_processes)
//!         +-- loop   an event loop on a thread of its own                         (one for each of worker_threads)
//! ```
//!
//! ```text
//! master.rs          a life: start, signals, end              worker.rs     a life: load, serve, drain
//! change.rs          a start or a reload, step by step        loops.rs      its threads
//! deaths.rs          workers that end, or are stuck;          privileges.rs whom it runs as
//!                    respawn.rs says when they are replaced,  plan.rs       what the master has to know of its configuration
//!                    stand_in.rs who serves until then        zones.rs      memory that outlives it
//! generation.rs      a configuration, with its workers
//! child.rs           a worker, from outside
//! control.rs         what `topnext -s` asks for; status.rs answers `topnext status`
//! reopen.rs          logs, after they were renamed
//! upgrade.rs         another program takes over
//! systemd.rs         who may have opened sockets (inherited.rs), and wants to know
//! pid_file.rs        who it is; greeting.rs what it says when it serves
//!
//! messages.rs        what the two say to each other: the master through channel.rs, the worker through pipe.rs
//! scoreboard.rs      what the worker does, in shared_memory.rs, as the master sees it
//! signals.rs         of both                                  alarm.rs      what the master does later
//! alone.rs           one process without a master
//! ```

pub mod master;

mod change;

mod deaths;

mod stand_in;

pub mod generation;

pub mod child;

pub mod respawn;

mod alarm;

pub mod reopen;

pub mod pid_file;

pub mod greeting;

pub mod control;

pub mod status;

pub mod upgrade;

pub mod systemd;

pub mod messages;

pub mod channel;

pub mod pipe;

pub mod plan;

pub mod worker;

pub mod loops;

pub mod privileges;

pub mod zones;

pub mod scoreboard;

mod shared_memory;

mod inherited;

pub mod signals;

pub mod alone;

use std::{fs::File, io, process::Command};

/// Standard input, which was a channel, is empty from here on.
fn empty_stdin() -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdin(File::open("/dev/null")?)?)
}

/// Has lists of processes show the program's name, and not that of the link that it was started by (/proc/self/exe).
fn set_name() {
    let _ = rustix::thread::set_name(c"topnext");
}

/// Takes variables of the environment away that are meant for this process only.
fn hide_from_children(command: &mut Command) {
    for name in systemd::VARIABLES.iter().chain(&[master::DAEMON, master::UPGRADE]) {
        command.env_remove(name);
    }
}

/// An error of the server itself, as the command line shows it.
fn of_server(text: &str) -> String {
    format!("topnext: {}", text.replace('\n', "\ntopnext: "))
}
