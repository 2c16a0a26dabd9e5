//! What the process uses, as Linux tells it under /proc. Blocks, and so belongs on the thread pool.

use std::fs;

/// What the process uses; `None` if the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory in bytes.
    pub resident: Option<u64>,
    /// Open file descriptors.
    pub descriptors: Option<u64>,
}

/// Reads it now.
pub fn usage() -> Usage {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    // The listing is itself an open descriptor, which is closed before anybody reads the number.
    let descriptors = fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1));
    Usage { resident: resident(&status), descriptors }
}

/// The line `VmRSS:     1234 kB` of /proc/self/status (proc_pid_status(5)), in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_resident_memory() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1234 kB\nThreads:\t1\n"), Some(1234 * 1024));
        for bad in ["", "VmRSS:", "VmRSS: x kB", "VmRSS: 12", "VmRSS: 99999999999999999999 kB"] {
            assert_eq!(resident(bad), None, "{bad}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_something() {
        let usage = usage();
        assert!(usage.resident.is_some_and(|bytes| bytes > 1 << 16), "{usage:?}");
        assert!(usage.descriptors.is_some_and(|count| count > 0), "{usage:?}");
    }
}
