//! A process that was started here, by a handle that never means another one, even if its number is given out again.
//!
//! ```text
//! let process = Process::open(child.id())?;
//! if !process.ends_within(Duration::from_secs(2))? { process.end() }
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

/// How long a process has to end by itself after SIGTERM.
const TERM_TIME: Duration = Duration::from_secs(5);

/// How long the kernel has to take a process away after SIGKILL.
const KILL_TIME: Duration = Duration::from_secs(5);

/// A process, also after it has ended.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    fd: OwnedFd,
}

impl Process {
    /// The process of this number, which must not have been waited for yet: until then the number is not reused.
    pub fn open(pid: u32) -> io::Result<Process> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Process { pid, fd: pidfd_open(pid, PidfdFlags::empty())? })
    }

    /// Waits until the process has ended; false if it still runs after `limit`.
    pub fn ends_within(&self, limit: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout)) {
                Ok(ready) => return Ok(ready > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Stops it, until it is told to go on.
    pub fn stop(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.fd, Signal::STOP)?)
    }

    /// Has it go on after a stop.
    pub fn go_on(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.fd, Signal::CONT)?)
    }

    /// What Ctrl-C would do.
    pub fn interrupt(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.fd, Signal::INT)?)
    }

    /// Ends the leader of a process group: SIGTERM, a bounded wait, then SIGKILL to the whole group. The group is
    /// killed only while the leader has not been waited for, which keeps the number of the group from being reused.
    pub fn end(&self) -> io::Result<()> {
        if self.ends_within(Duration::ZERO)? {
            return Ok(());
        }
        // An error means that it has ended meanwhile, and the wait below sees that.
        let _ = pidfd_send_signal(&self.fd, Signal::TERM);
        if self.ends_within(TERM_TIME)? {
            return Ok(());
        }
        self.kill_group();
        match self.ends_within(KILL_TIME)? {
            true => Ok(()),
            false => Err(io::Error::other(format!("process {} outlives SIGKILL", self.pid))),
        }
    }

    /// SIGKILL to the process group that this process leads. Nothing happens if the group is empty.
    pub fn kill_group(&self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    #[test]
    fn end_is_seen_before_and_after() {
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        assert!(!process.ends_within(Duration::ZERO).unwrap());
        process.end().unwrap();
        assert!(process.ends_within(Duration::ZERO).unwrap());
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
        // Gone for good: ending it again touches nothing.
        process.end().unwrap();
    }

    #[test]
    fn killing_the_group_ends_what_the_leader_left() {
        // The leader prints the number of a process in its group, and leaves it behind.
        let mut leader = Command::new("sh");
        leader.args(["-c", "sleep 60 >/dev/null & echo $!"]).process_group(0);
        let mut child = leader.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        let printed = std::io::read_to_string(child.stdout.take().unwrap()).unwrap();
        let left_behind = Process::open(printed.trim().parse().unwrap()).unwrap();
        assert!(process.ends_within(Duration::from_secs(10)).unwrap());
        assert!(!left_behind.ends_within(Duration::ZERO).unwrap());
        process.kill_group();
        assert!(left_behind.ends_within(Duration::from_secs(10)).unwrap());
        child.wait().unwrap();
    }
}
