//! What /proc says about a process, and signals to it.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};

/// Resident memory that belongs to no file, in bytes. (Pages of programs and libraries come and go as the kernel likes.)
pub fn memory(pid: u32) -> Result<u64, String> {
    let status = read(&format!("/proc/{pid}/status"))?;
    let value = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = value.and_then(|value| value.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| format!("/proc/{pid}/status has no RssAnon"))
}

/// How many descriptors a process has.
pub fn number_of_descriptors(pid: u32) -> Result<usize, String> {
    Ok(entries(&format!("/proc/{pid}/fd"), Some)?.len())
}

/// The processes that another one has started, and that have not ended.
pub fn children(parent: u32) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| matches!(stat(*pid), Some((state, of)) if of == parent && !is_over(state))).collect()
}

/// Whether a process has ended, be it that nobody has asked for its status.
pub fn has_ended(pid: u32) -> bool {
    stat(pid).is_none_or(|(state, _)| is_over(state))
}

/// Sends a signal.
pub fn signal(pid: u32, signal: Signal) -> Result<(), String> {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("no process")?;
    kill_process(process, signal).map_err(|error| format!("{signal:?} to process {pid}: {error}"))
}

fn is_over(state: char) -> bool {
    matches!(state, 'Z' | 'X')
}

/// State and parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which is in parentheses.
    let mut words = stat.rsplit(')').next()?.split_ascii_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

/// A file of /proc.
pub fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

/// The entries of a folder of a process, as far as they are still there when they are looked at.
pub fn entries<T>(path: &str, look: impl Fn(PathBuf) -> Option<T>) -> Result<Vec<T>, String> {
    let entries = fs::read_dir(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(entries.filter_map(|entry| look(entry.ok()?.path())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_lives_until_it_has_ended() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(children(std::process::id()).contains(&child.id()) && !has_ended(child.id()));
        assert!(memory(child.id()).is_ok() && number_of_descriptors(child.id()).unwrap() >= 3);
        signal(child.id(), Signal::KILL).unwrap();
        while !has_ended(child.id()) {
            std::thread::yield_now();
        }
        assert!(!children(std::process::id()).contains(&child.id()), "it is a zombie");
        child.wait().unwrap();
        assert!(has_ended(child.id()));
    }
}
