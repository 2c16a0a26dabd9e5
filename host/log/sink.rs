//! One log: what waits to be written to it, its file, and what has gone wrong with it.
//!
//! A file is opened for appending, and each write holds whole lines. Of a line that a full disk has cut, the rest is
//! written first when there is room again. A pipe that takes nothing is asked again and again, so that it keeps neither
//! other logs nor the end of the process waiting; what has no room meanwhile is dropped, and counted.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use crate::error_text::ErrorText;

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FileType, fstat},
    io::Errno,
    time::Timespec,
};

use super::{file, lock, writer::writer};

/// The most bytes that wait to be written to one log, beside its own buffer.
const MAX_WAITING: usize = 1024 * 1024;
/// Troubles of one log are told no more often than this (as in nginx).
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// How long a terminal or pipe is waited for that has no room, and how soon it is asked again.
const RETRY: Duration = Duration::from_millis(100);
/// What a pipe that has room takes at once, without blocking (PIPE_BUF).
const PIPE_STEP: usize = 4096;

/// One log, shared by all threads. There is one for each target, however many places name it.
pub struct Sink {
    target: Target,
    buffering: OnceLock<Buffering>,
    waiting: Mutex<Waiting>,
    out: Mutex<Out>,
}

/// When lines are written out, if not as soon as they come (nginx: the parameters buffer and flush of access_log).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffering {
    /// When this many bytes wait.
    pub size: usize,
    /// Or when the first of them has waited for this long.
    pub flush: Option<Duration>,
}

/// Another place has asked for the same log to be buffered in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict;

#[derive(Debug, PartialEq, Eq)]
enum Target {
    Stdout,
    Stderr,
    File {
        /// As it was asked for, absolute.
        path: PathBuf,
        /// With its folder's real path, so that a file has one sink however its path is spelled.
        real: PathBuf,
    },
}

/// What has not been taken by the writer.
#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Lines for which there was no room.
    dropped: u64,
    /// When a buffer is to be written out though it is not full.
    due: Option<Instant>,
}

/// The writer's half.
#[derive(Default)]
struct Out {
    /// None for stdout and stderr, and while it cannot be opened.
    file: Option<File>,
    /// What comes first: the rest of a line whose start is in the file, or what a pipe had no room for.
    rest: Vec<u8>,
    /// The rest is a pipe's.
    blocked: bool,
    trouble: Trouble,
}

/// Why not all has been written.
enum Stop {
    /// There is no room: later there may be.
    NoRoom,
    Failed(io::Error),
}

/// What is to be said on stderr of a log that cannot be written.
#[derive(Default)]
struct Trouble {
    /// The last write failed.
    failing: bool,
    /// And that has been said.
    said: bool,
    /// Lines that were lost and not spoken of.
    lost: u64,
    /// When something was last said.
    last: Option<Instant>,
}

impl Sink {
    /// Standard output.
    pub fn stdout() -> Arc<Sink> {
        writer()
            .sink(|sink| sink.target == Target::Stdout, || Ok(Sink::new(Target::Stdout, None)))
            .expect("opens nothing")
    }

    /// Standard error.
    pub fn stderr() -> Arc<Sink> {
        writer()
            .sink(|sink| sink.target == Target::Stderr, || Ok(Sink::new(Target::Stderr, None)))
            .expect("opens nothing")
    }

    /// A file, which is appended to, and created if need be.
    pub fn file(path: &Path) -> io::Result<Arc<Sink>> {
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let real = folder.canonicalize()?.join(name);
        let is_it = |sink: &Sink| matches!(&sink.target, Target::File { real: known, .. } if *known == real);
        writer().sink(is_it, || {
            let path = std::path::absolute(path)?;
            let file = file::open(&path)?;
            Ok(Sink::new(Target::File { path, real: real.clone() }, Some(file)))
        })
    }

    /// A file that cannot be opened now: it is tried again when there is something to write.
    pub fn unopened(path: &Path) -> Arc<Sink> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let is_it = |sink: &Sink| matches!(&sink.target, Target::File { path: known, .. } if *known == path);
        let make = || Ok(Sink::new(Target::File { path: path.clone(), real: path.clone() }, None));
        writer().sink(is_it, make).expect("opens nothing")
    }

    fn new(target: Target, file: Option<File>) -> Sink {
        let out = Mutex::new(Out { file, ..Out::default() });
        Sink { target, buffering: OnceLock::new(), waiting: Mutex::default(), out }
    }

    /// Its path, if it is a file.
    pub(super) fn path(&self) -> Option<&Path> {
        match &self.target {
            Target::File { path, .. } => Some(path),
            Target::Stdout | Target::Stderr => None,
        }
    }

    /// Has lines wait in a buffer. All places that ask for one must ask for the same.
    pub fn set_buffering(&self, buffering: Buffering) -> Result<(), Conflict> {
        if *self.buffering.get_or_init(|| buffering) == buffering { Ok(()) } else { Err(Conflict) }
    }

    /// Adds whole lines. Never waits for the target.
    pub fn write(&self, lines: &[u8]) {
        let buffering = self.buffering.get();
        let wakes = {
            let mut waiting = lock(&self.waiting);
            let before = waiting.lines.len();
            if before + lines.len() > MAX_WAITING + buffering.map_or(0, |buffering| buffering.size) {
                waiting.dropped += lines_in(lines);
                return;
            }
            waiting.lines.extend_from_slice(lines);
            match buffering {
                None => true,
                Some(Buffering { size, flush }) => {
                    let is_first = before == 0 && flush.is_some();
                    if is_first {
                        waiting.due = flush.and_then(|time| Instant::now().checked_add(time));
                    }
                    // The writer is told of the first line too, since it keeps the time.
                    is_first || before + lines.len() >= *size
                }
            }
        };
        if wakes {
            writer().wake();
        }
    }

    /// Writes out what waits, if it is time to. When it will be, if it is not, or there was no room.
    pub(super) fn drain(&self, everything: bool) -> Option<Instant> {
        let mut out = lock(&self.out);
        if out.blocked {
            out.write(&self.target, &[]);
            if out.blocked {
                return Instant::now().checked_add(RETRY);
            }
        }
        let (lines, dropped) = {
            let mut waiting = lock(&self.waiting);
            let size = self.buffering.get().map_or(0, |buffering| buffering.size);
            let is_due = waiting.due.is_some_and(|due| due <= Instant::now());
            if !everything && waiting.lines.len() < size && !is_due {
                return waiting.due;
            }
            waiting.due = None;
            (std::mem::take(&mut waiting.lines), std::mem::take(&mut waiting.dropped))
        };
        if !lines.is_empty() {
            out.write(&self.target, &lines);
        }
        out.trouble.lost += dropped;
        if dropped > 0 && !out.trouble.failing {
            out.trouble.say_lost(&self.target);
        }
        let again = if out.blocked { Instant::now().checked_add(RETRY) } else { None };
        drop(out);
        // The capacity goes back, so that a busy log does not allocate.
        let mut waiting = lock(&self.waiting);
        if waiting.lines.is_empty() && lines.capacity() <= 2 * MAX_WAITING {
            waiting.lines = lines;
            waiting.lines.clear();
        }
        again
    }

    /// Says how many lines were lost, if that has not been said: before the process ends. What waits is lost by then.
    pub(super) fn settle(&self) {
        let late = {
            let waiting = lock(&self.waiting);
            lines_in(&waiting.lines) + waiting.dropped
        };
        // Whoever holds it waits for a disk, and for too long.
        let Some(mut out) = self.out.try_lock().ok() else {
            return say(format_args!("log {} could not be written in time", self.target.name()));
        };
        let out = &mut *out;
        let of_pipe = if out.blocked { lines_in(&out.rest) } else { 0 };
        out.trouble.lost += late + of_pipe;
        if out.trouble.lost > 0 {
            out.trouble.last = None;
            out.trouble.say_lost(&self.target);
        }
    }

    /// Opens the file again, by its path: after a rotation that is another one. The old one stays if that fails, or if it is still
    /// the one: what is no file, such as the standard output of a container, may be closed to the user that this process has become.
    pub(super) fn reopen(&self) -> Result<(), (PathBuf, io::Error)> {
        let Target::File { path, .. } = &self.target else { return Ok(()) };
        if lock(&self.out).file.as_ref().is_some_and(|file| file::is_at(file, path)) {
            return Ok(());
        }
        let file = file::open(path).map_err(|error| (path.clone(), error))?;
        let mut out = lock(&self.out);
        out.file = Some(file);
        // Its start is in the old file; a pipe's rest is lost.
        if std::mem::take(&mut out.blocked) {
            out.trouble.lost += lines_in(&out.rest);
        }
        out.rest.clear();
        Ok(())
    }
}

fn lines_in(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

impl Out {
    fn write(&mut self, target: &Target, lines: &[u8]) {
        let mut joined = std::mem::take(&mut self.rest);
        let was_torn = !joined.is_empty() && !self.blocked;
        let bytes = if joined.is_empty() {
            lines
        } else {
            joined.extend_from_slice(lines);
            &joined
        };
        if let (Target::File { path, .. }, None) = (target, &self.file) {
            match file::open(path) {
                Ok(file) => self.file = Some(file),
                Err(error) => return self.trouble.failed(target, &error, lines_in(bytes)),
            }
        }
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let fd = match (target, &self.file) {
            (Target::Stdout, _) => stdout.as_fd(),
            (_, Some(file)) => file.as_fd(),
            _ => stderr.as_fd(),
        };
        // One that had no room last time keeps nobody waiting again.
        let patience = if self.blocked { Duration::ZERO } else { RETRY };
        let (written, stop) = write_all(fd, bytes, patience);
        self.blocked = matches!(stop, Some(Stop::NoRoom));
        let rest = &bytes[written..];
        match stop {
            None => self.trouble.recovered(target),
            Some(Stop::NoRoom) => self.rest = rest.to_vec(),
            Some(Stop::Failed(error)) => {
                let is_within_a_line = if written == 0 { was_torn } else { bytes[written - 1] != b'\n' };
                let end =
                    if is_within_a_line { memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1) } else { 0 };
                self.rest = rest[..end].to_vec();
                self.trouble.failed(target, &error, lines_in(&rest[end..]));
            }
        }
    }
}

/// How many bytes were written, and why not all. What is no file is asked for room first, for so long, since it may be one
/// whose writes block; it is shared with other programs, so that this cannot be changed.
fn write_all(fd: BorrowedFd<'_>, bytes: &[u8], patience: Duration) -> (usize, Option<Stop>) {
    let is_file = fstat(fd).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::RegularFile);
    let patience = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
    let mut written = 0;
    while written < bytes.len() {
        let mut piece = &bytes[written..];
        if !is_file {
            if piece.len() > PIPE_STEP {
                // Whole lines, between which others may write.
                let end = memchr::memrchr(b'\n', &piece[..PIPE_STEP]).map_or(PIPE_STEP, |at| at + 1);
                piece = &piece[..end];
            }
            match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], Some(&patience)) {
                Ok(0) => return (written, Some(Stop::NoRoom)),
                Ok(_) | Err(Errno::INTR) => (),
                Err(error) => return (written, Some(Stop::Failed(error.into()))),
            }
        }
        match rustix::io::write(fd, piece) {
            Ok(0) => return (written, Some(Stop::Failed(io::ErrorKind::WriteZero.into()))),
            Ok(n) => written += n,
            Err(Errno::INTR) => (),
            // Somebody else has taken the room.
            Err(Errno::AGAIN) => return (written, Some(Stop::NoRoom)),
            Err(error) => return (written, Some(Stop::Failed(error.into()))),
        }
    }
    (written, None)
}

impl Trouble {
    fn may_speak(&mut self) -> bool {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) < SAY_AGAIN) {
            return false;
        }
        self.last = Some(now);
        true
    }

    fn failed(&mut self, target: &Target, error: &io::Error, lost: u64) {
        self.lost += lost;
        self.failing = true;
        if self.may_speak() {
            self.said = true;
            let so_far = match self.lost {
                0 => String::new(),
                lost => format!("; lines lost so far: {lost}"),
            };
            say(format_args!("cannot write log {} ({}){so_far}", target.name(), ErrorText(error)));
        }
    }

    fn recovered(&mut self, target: &Target) {
        if std::mem::take(&mut self.failing) && std::mem::take(&mut self.said) {
            let lost = std::mem::take(&mut self.lost);
            say(format_args!("log {} can be written again; lines lost: {lost}", target.name()));
        }
    }

    fn say_lost(&mut self, target: &Target) {
        if self.may_speak() {
            let lost = std::mem::take(&mut self.lost);
            let why = if self.failing { "" } else { ", since they came faster than it could be written" };
            say(format_args!("lines of log {} were lost{why}: {lost}", target.name()));
        }
    }
}

impl Target {
    fn name(&self) -> String {
        match self {
            Target::Stdout => "stdout".to_string(),
            Target::Stderr => "stderr".to_string(),
            Target::File { path, .. } => path.display().to_string(),
        }
    }
}

/// On stderr, since a log that is in trouble may be the one to tell it. Nothing can be done if that fails.
fn say(text: std::fmt::Arguments<'_>) {
    write_all(io::stderr().as_fd(), format!("{text}\n").as_bytes(), RETRY);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_which_there_is_no_room_are_dropped_and_counted() {
        let sink = Sink::new(Target::Stderr, None);
        let mut lines = vec![b'x'; 1024];
        (lines[511], lines[1023]) = (b'\n', b'\n');
        (0..1024 + 3).for_each(|_| sink.write(&lines));
        let waiting = lock(&sink.waiting);
        assert_eq!((waiting.lines.len(), waiting.dropped), (MAX_WAITING, 6));
    }

    #[test]
    fn a_buffer_is_the_same_for_all_who_ask() {
        let sink = Sink::new(Target::Stdout, None);
        let buffering = Buffering { size: 1024, flush: None };
        assert_eq!(sink.set_buffering(buffering), Ok(()));
        assert_eq!(sink.set_buffering(buffering), Ok(()));
        assert_eq!(sink.set_buffering(Buffering { size: 2048, ..buffering }), Err(Conflict));
    }
}
