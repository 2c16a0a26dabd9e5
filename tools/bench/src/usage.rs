//! What a server uses of the machine: CPU time in nanoseconds and resident memory, over all of its processes.
//!
//! ```text
//! let before = CpuTimes::of(master)?;
//! ...
//! let spent = CpuTimes::of(master)?.since(&before)?;
//! ```
//!
//! CPU time is the first field of `/proc/PID/task/TID/schedstat`, because `/proc/PID/stat` counts in steps of 10 ms. The
//! time of a thread that ends in between is lost; servers keep theirs.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// CPU time of each thread of a server so far.
#[derive(Debug, PartialEq, Eq)]
pub struct CpuTimes {
    processes: Vec<u32>,
    /// Process and thread to nanoseconds.
    threads: BTreeMap<(u32, u32), u64>,
}

impl CpuTimes {
    /// Of the process `master` and all that descend from it.
    pub fn of(master: u32) -> Result<CpuTimes, String> {
        let mut processes = Vec::new();
        let mut threads = BTreeMap::new();
        for process in tree(master)? {
            // A process can end between the listing and the reading, a thread too.
            let Ok(tasks) = numbers_in(&format!("/proc/{process}/task")) else { continue };
            processes.push(process);
            for thread in tasks {
                if let Ok(text) = fs::read_to_string(format!("/proc/{process}/task/{thread}/schedstat")) {
                    threads.insert((process, thread), run_time(&text)?);
                }
            }
        }
        match threads.is_empty() {
            true => Err(format!("no thread of process {master} has a schedstat in /proc")),
            false => Ok(CpuTimes { processes, threads }),
        }
    }

    /// CPU time spent since `earlier`. An error if a process came or went: then a worker was replaced, and its time is
    /// not known.
    pub fn since(&self, earlier: &CpuTimes) -> Result<Duration, String> {
        if self.processes != earlier.processes {
            return Err(format!(
                "the server's processes changed from {:?} to {:?} during a run",
                earlier.processes, self.processes
            ));
        }
        let spent = |(thread, &now): (_, &u64)| now.saturating_sub(earlier.threads.get(thread).copied().unwrap_or(0));
        match self.threads.iter().map(spent).sum() {
            0 => Err("the server used no CPU time during a run".into()),
            nanoseconds => Ok(Duration::from_nanos(nanoseconds)),
        }
    }
}

/// The processes below `master`, or `master` itself if there are none.
pub fn workers(master: u32) -> Result<Vec<u32>, String> {
    let mut processes = tree(master)?;
    if processes.len() > 1 {
        processes.retain(|&process| process != master);
    }
    Ok(processes)
}

/// Resident memory in bytes of the workers below `master`, or of `master` itself if it has none.
pub fn resident_memory(master: u32) -> Result<u64, String> {
    // A process that has ended since the listing has no file, one that nobody has waited for has no memory.
    let used = |process: u32| kilobytes(&fs::read_to_string(format!("/proc/{process}/status")).ok()?, "VmRSS:");
    let used: Vec<(u32, u64)> =
        tree(master)?.into_iter().filter_map(|process| Some((process, used(process)?))).collect();
    let workers = used.iter().any(|&(process, _)| process != master);
    match used.iter().filter(|&&(process, _)| !workers || process != master).map(|&(_, bytes)| bytes).sum() {
        0 => Err(format!("no process of {master} has a VmRSS in /proc")),
        bytes => Ok(bytes),
    }
}

/// `master` and its descendants, in ascending order.
fn tree(master: u32) -> Result<Vec<u32>, String> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for process in numbers_in("/proc")? {
        // A process can end between the listing and the reading.
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        if let Some(parent) = parent(&stat) {
            children.entry(parent).or_default().push(process);
        }
    }
    let mut found = vec![master];
    let mut at = 0;
    while let Some(process) = found.get(at) {
        // `remove` bounds the walk: each list of children is taken once.
        found.extend(children.remove(process).unwrap_or_default());
        at += 1;
    }
    found.sort_unstable();
    Ok(found)
}

/// The entries of a folder in /proc whose names are numbers.
fn numbers_in(folder: &str) -> Result<Vec<u32>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{folder}: {error}"))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// The parent in the text of `/proc/PID/stat`, whose second field is a name that may hold anything, in parentheses.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Nanoseconds on a CPU, from the text of a schedstat.
fn run_time(schedstat: &str) -> Result<u64, String> {
    let first = schedstat.split_ascii_whitespace().next().and_then(|field| field.parse().ok());
    first.ok_or_else(|| format!("not a schedstat: {schedstat:?}"))
}

/// A line of `/proc/PID/status` or the like, in bytes; the kernel writes kB.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(processes: &[u32], threads: &[((u32, u32), u64)]) -> CpuTimes {
        CpuTimes { processes: processes.to_vec(), threads: threads.iter().copied().collect() }
    }

    #[test]
    fn differences_are_summed_over_threads() {
        let before = times(&[7, 8], &[((7, 7), 10), ((8, 8), 100), ((8, 9), 5)]);
        // Thread 9 has ended, thread 10 is new.
        let after = times(&[7, 8], &[((7, 7), 11), ((8, 8), 130), ((8, 10), 4)]);
        assert_eq!(after.since(&before), Ok(Duration::from_nanos(1 + 30 + 4)));
    }

    #[test]
    fn replaced_worker_or_idle_server_is_an_error() {
        let before = times(&[7, 8], &[((8, 8), 100)]);
        assert_eq!(
            times(&[7, 9], &[((9, 9), 100)]).since(&before),
            Err("the server's processes changed from [7, 8] to [7, 9] during a run".into())
        );
        assert_eq!(before.since(&before), Err("the server used no CPU time during a run".into()));
    }

    #[test]
    fn own_use_is_seen() {
        let own = std::process::id();
        let before = CpuTimes::of(own).unwrap();
        assert!(before.threads.keys().any(|&(process, thread)| (process, thread) == (own, own)));
        assert!(resident_memory(own).unwrap() > 100_000);
    }

    /// Children come and go while the processes are counted: here, and with them the children of other tests.
    #[test]
    fn processes_that_end_meanwhile_are_no_error() {
        let own = std::process::id();
        std::thread::scope(|scope| {
            let children = scope.spawn(|| {
                for _ in 0..200 {
                    std::process::Command::new("true").status().unwrap();
                }
            });
            while !children.is_finished() {
                CpuTimes::of(own).unwrap();
                resident_memory(own).unwrap();
            }
        });
    }

    #[test]
    fn process_that_is_not_there_is_an_error() {
        let none = u32::MAX;
        assert_eq!(CpuTimes::of(none), Err(format!("no thread of process {none} has a schedstat in /proc")));
        assert_eq!(resident_memory(none), Err(format!("no process of {none} has a VmRSS in /proc")));
    }

    #[test]
    fn texts_of_proc_are_read() {
        assert_eq!(parent("12 (a) b) (c)) S 34 12 12 0"), Some(34));
        assert_eq!(parent(""), None);
        assert_eq!(run_time("82603 12 1\n"), Ok(82_603));
        assert_eq!(run_time("\n"), Err("not a schedstat: \"\\n\"".into()));
        assert_eq!(kilobytes("VmHWM:\t  9 kB\nVmRSS:\t  1234 kB\n", "VmRSS:"), Some(1234 * 1024));
        assert_eq!(kilobytes("VmHWM:\t  9 kB\n", "VmRSS:"), None);
    }
}
