//! Open files: opened and read without blocking a loop where the kernel can tell, else on the thread pool.
//!
//! `openat2(RESOLVE_CACHED)` opens what needs no disk, and `preadv2(RWF_NOWAIT)` reads what is in the page cache; both
//! say so if they would block.
//!
//! ```text
//! find::open      what a handler asks for: the cache, else an attempt that does not block, else the pool
//! cache::Cache    open files and what is known of paths, of one thread (nginx: open_file_cache)
//! symlinks        paths in which symbolic links are not followed (nginx: disable_symlinks)
//! ```

pub mod find;

pub mod cache;

pub mod symlinks;

use std::{
    cell::RefCell,
    fs,
    io::{self, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{Advice, CWD, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::{Errno, ReadWriteFlags},
};
use topnext_module_api::FileKind;

use crate::event::{Reply, thread_pool::ThreadPool};

pub use symlinks::Symlinks;

/// A file or folder that was found. Shared by `Arc`; its descriptor is closed with the last owner.
#[derive(Debug)]
pub struct OpenFile {
    /// Of a regular file or a folder only: nothing else is read, and an open pipe or device might be noticed.
    fd: Option<OwnedFd>,
    /// Size in bytes when it was opened.
    pub size: u64,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// And the nanoseconds of it.
    pub mtime_nanos: u32,
    /// What it is.
    pub kind: FileKind,
    /// Which one it is: device and inode.
    id: (u64, u64),
    /// The header fields that say which version it is, once they were asked for.
    validators: OnceLock<Validators>,
    /// Which of its first 64 steps are believed to be in the page cache, a bit each.
    believed: AtomicU64,
    /// Until when, in milliseconds of the loop's clock.
    believed_until: AtomicU64,
}

/// Last-Modified and ETag of a file, as they are sent.
#[derive(Debug)]
pub struct Validators {
    /// None if HTTP cannot write the time: before 1970, after 9999.
    pub last_modified: Option<String>,
    /// nginx's: time of modification and size, in hexadecimal digits.
    pub etag: String,
}

/// How a path is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// What becomes of symbolic links.
    pub symlinks: Symlinks,
    /// Bytes at the start of the path in which they are followed all the same.
    pub from: usize,
    /// The kernel is told that large files will be read from start to end.
    pub read_ahead: bool,
}

/// What came of an attempt that must not block.
#[derive(Debug)]
pub enum NoWait<T> {
    /// It is done.
    Done(T),
    /// The disk is needed: do it on the thread pool.
    WouldBlock,
}

const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// The part of a file that is looked for in the page cache, and read into it, at once.
pub const FILE_STEP: u64 = 512 * 1024;

/// How long a part of a file that was in the page cache is believed to be still there.
const BELIEVED_MS: u64 = 1000;

/// What a thread believes of a file that it has had open.
#[derive(Clone, Copy)]
struct Seen {
    id: (u64, u64),
    size: u64,
    believed: u64,
    until: u64,
}

/// Files of which a thread remembers that.
const MAX_SEEN: usize = 64;

thread_local! {
    /// By inode; a file takes the place of another one. So a file that is often asked for, and opened each time, costs no
    /// look into the page cache each time.
    static SEEN: RefCell<[Seen; MAX_SEEN]> =
        const { RefCell::new([Seen { id: (0, 0), size: 0, believed: 0, until: 0 }; MAX_SEEN]) };
}

/// Smaller files are not worth the advice (nginx: NGX_MIN_READ_AHEAD).
const MIN_READ_AHEAD: u64 = 128 * 1024;

/// The kernel has RESOLVE_CACHED (since 5.12), and no filter refuses openat2. Else files are opened on the pool.
static CAN_OPEN_CACHED: LazyLock<bool> = LazyLock::new(|| {
    // Asked of a path that is always there, since the same errors may say something of another one.
    let opened = rustix::fs::openat2(CWD, "/", FLAGS, Mode::empty(), ResolveFlags::CACHED);
    !matches!(opened, Err(Errno::NOSYS | Errno::INVAL | Errno::PERM))
});

/// Opens a file if that needs no disk.
pub fn open_nowait(path: &[u8], how: How) -> io::Result<NoWait<OpenFile>> {
    if !*CAN_OPEN_CACHED {
        return Ok(NoWait::WouldBlock);
    }
    let opened = match how.symlinks {
        Symlinks::Follow => rustix::fs::openat2(CWD, as_path(path), FLAGS, Mode::empty(), ResolveFlags::CACHED),
        _ => symlinks::open_without(path, how.from, ResolveFlags::CACHED),
    };
    match opened {
        Ok(fd) => OpenFile::of(fd, how).map(NoWait::Done),
        Err(Errno::AGAIN) => Ok(NoWait::WouldBlock),
        // There is a link: whose it is takes a walk to find out.
        Err(Errno::LOOP) if how.symlinks == Symlinks::SameOwner => Ok(NoWait::WouldBlock),
        Err(error) => Err(error.into()),
    }
}

/// Opens a file, and waits for the disk.
pub fn open_blocking(path: &[u8], how: How) -> io::Result<OpenFile> {
    let fd = match how.symlinks {
        Symlinks::Follow => rustix::fs::open(as_path(path), FLAGS, Mode::empty())?,
        _ => symlinks::open_walking(path, how)?,
    };
    OpenFile::of(fd, how)
}

fn as_path(path: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path))
}

impl OpenFile {
    /// A file that is open already.
    pub fn opened(fd: OwnedFd) -> io::Result<OpenFile> {
        OpenFile::of(fd, How::default())
    }

    fn of(fd: OwnedFd, how: How) -> io::Result<OpenFile> {
        let stat: Stat = rustix::fs::fstat(&fd)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::Regular,
            FileType::Directory => FileKind::Directory,
            _ => FileKind::Other,
        };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if how.read_ahead && kind == FileKind::Regular && size > MIN_READ_AHEAD {
            // It is advice: nothing is lost if it is not taken.
            let _ = rustix::fs::fadvise(&fd, 0, None, Advice::Sequential);
        }
        Ok(OpenFile {
            fd: (kind != FileKind::Other).then_some(fd),
            size,
            mtime: stat.st_mtime,
            mtime_nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            kind,
            id: (stat.st_dev, stat.st_ino),
            validators: OnceLock::new(),
            believed: AtomicU64::new(0),
            believed_until: AtomicU64::new(0),
        })
    }

    /// Whether `other` is the same file, and has not been changed.
    pub fn is_same(&self, other: &OpenFile) -> bool {
        let key = |file: &OpenFile| (file.id, file.size, file.mtime, file.mtime_nanos, file.kind);
        key(self) == key(other)
    }

    /// Its Last-Modified and ETag.
    pub fn validators(&self) -> &Validators {
        self.validators.get_or_init(|| Validators::of(self.mtime, self.size))
    }

    /// Reads at `pos` what is in the page cache. `Done(0)` is the end of the file.
    pub fn read_nowait(&self, pos: u64, into: &mut [u8]) -> io::Result<NoWait<usize>> {
        match rustix::io::preadv2(self.fd()?, &mut [IoSliceMut::new(into)], pos, ReadWriteFlags::NOWAIT) {
            Ok(n) => Ok(NoWait::Done(n)),
            // A file system that cannot tell counts as one that would block.
            Err(Errno::AGAIN | Errno::OPNOTSUPP) => Ok(NoWait::WouldBlock),
            Err(Errno::INTR) => Ok(NoWait::WouldBlock),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads at `pos`, and waits for the disk.
    pub fn read_blocking(&self, pos: u64, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::pread(self.fd()?, &mut *into, pos) {
                Err(Errno::INTR) => continue,
                result => return result.map_err(io::Error::from),
            }
        }
    }

    /// Reads a part into the page cache, and waits for the disk. An error shows again when that part is read.
    fn load(&self, mut pos: u64, len: u64) {
        let end = pos + len;
        let mut buffer = vec![0; 64 * 1024];
        while pos < end
            && let Ok(n @ 1..) = self.read_blocking(pos, &mut buffer)
        {
            pos += n as u64;
        }
    }

    /// Has the pool do that, so that sendfile does not wait for the disk; then `reply` is sent.
    pub fn load_on(self: Arc<Self>, pool: &Arc<ThreadPool>, pos: u64, len: u64, reply: Reply) -> io::Result<()> {
        pool.ask(reply, move || self.load(pos, len))
    }

    /// How many of the next `len` bytes at `pos` are in the page cache, as far as the first and last byte of a
    /// [`FILE_STEP`] tell; 0 if the disk is needed. This is believed for a second, also when the file is opened again.
    pub fn in_memory(&self, pos: u64, len: u64, now_ms: u64) -> io::Result<u64> {
        if self.believed_until.load(Ordering::Relaxed) == 0 {
            self.recall();
        }
        let step =
            u32::try_from(pos / FILE_STEP).ok().filter(|step| pos.is_multiple_of(FILE_STEP) && *step < u64::BITS);
        if let Some(step) = step
            && now_ms < self.believed_until.load(Ordering::Relaxed)
        {
            let steps = (self.believed.load(Ordering::Relaxed) >> step).trailing_ones();
            if steps > 0 {
                return Ok(len.min(u64::from(steps) * FILE_STEP));
            }
        }
        let len = len.min(FILE_STEP);
        let mut byte = [0];
        for at in [pos + len - 1, pos] {
            match self.read_nowait(at, &mut byte)? {
                // Its end: whoever sends it will see that.
                NoWait::Done(_) => (),
                NoWait::WouldBlock => return Ok(0),
            }
        }
        if let Some(step) = step.filter(|_| len == FILE_STEP || pos + len == self.size) {
            self.believe(step, now_ms);
        }
        Ok(len)
    }

    /// Takes over what this thread knows of the same file from when it was open before.
    fn recall(&self) {
        let seen = SEEN.with_borrow(|seen| seen[self.place_in_seen()]);
        if (seen.id, seen.size) == (self.id, self.size) {
            self.believed.store(seen.believed, Ordering::Relaxed);
            self.believed_until.store(seen.until, Ordering::Relaxed);
        }
    }

    fn place_in_seen(&self) -> usize {
        // Inodes are given out one after the other.
        self.id.1 as usize % MAX_SEEN
    }

    /// Notes that a step was in the page cache. (Another thread may undo it, which costs a look.)
    fn believe(&self, step: u32, now_ms: u64) {
        let known = match now_ms < self.believed_until.load(Ordering::Relaxed) {
            true => self.believed.load(Ordering::Relaxed),
            false => {
                self.believed_until.store(now_ms + BELIEVED_MS, Ordering::Relaxed);
                0
            }
        };
        let believed = known | (1 << step);
        self.believed.store(believed, Ordering::Relaxed);
        let until = self.believed_until.load(Ordering::Relaxed);
        let seen = Seen { id: self.id, size: self.size, believed, until };
        SEEN.with_borrow_mut(|all| all[self.place_in_seen()] = seen);
    }

    /// The descriptor, for sendfile. An error if it is not a regular file.
    pub fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        self.descriptor().filter(|_| self.kind == FileKind::Regular).ok_or_else(|| Errno::ISDIR.into())
    }

    /// The descriptor of a regular file or a folder.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Its path as the kernel knows it now, for messages; `(deleted)` follows if it has none any more.
    pub fn name(&self) -> String {
        let fd = self.fd.as_ref().map(|fd| fd.as_raw_fd());
        let link = fd.and_then(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).ok());
        link.map_or_else(|| "a file".to_owned(), |path| path.display().to_string())
    }
}

impl Validators {
    fn of(mtime: i64, size: u64) -> Validators {
        const END: u64 = 253_402_300_800;
        let seconds = u64::try_from(mtime).ok().filter(|seconds| *seconds < END);
        let date = seconds.and_then(|seconds| {
            let time = std::time::SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(seconds))?;
            Some(httpdate::fmt_http_date(time))
        });
        Validators { last_modified: date, etag: format!("\"{mtime:x}-{size:x}\"") }
    }
}

/// A path with all symbolic links resolved, as realpath(3).
///
/// The kernel resolves it without the disk if it has all folders of it in memory, and it has those of a site's root: each
/// file that is served is found through them. Only where it does not, which is the first time, this walks them itself and
/// may wait for the disk, for a few folders; a variable cannot be waited for.
pub fn real_path(path: &[u8]) -> io::Result<Vec<u8>> {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let flags = OFlags::PATH.union(OFlags::CLOEXEC);
    if let Ok(fd) = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED)
        && let Ok(real) = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())
    {
        return Ok(real.into_bytes());
    }
    fs::canonicalize(path).map(|path| path.into_os_string().into_encoded_bytes())
}

/// Whether an absolute or relative path names a directory. Blocks: for the configuration only.
pub fn is_directory(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_tags_and_dates_as_nginx() {
        let validators = Validators::of(784_111_777, 612);
        assert_eq!(validators.etag, "\"2ebc98a1-264\"");
        assert_eq!(validators.last_modified.as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    }

    #[test]
    fn leaves_out_dates_that_http_cannot_write() {
        assert_eq!(Validators::of(-1, 0).last_modified, None);
        assert_eq!(Validators::of(253_402_300_800, 0).last_modified, None);
        assert!(Validators::of(253_402_300_799, 0).last_modified.is_some());
    }

    #[test]
    fn what_was_in_the_page_cache_is_believed_for_a_while() {
        let path = std::env::temp_dir().join(format!("topnext-open-file-{}", std::process::id()));
        fs::write(&path, vec![1; 3 * FILE_STEP as usize + 10]).expect("a folder for files");
        let file = open_blocking(path.as_os_str().as_bytes(), How::default()).expect("it was written");
        let size = file.size;
        match file.in_memory(0, size, 0).expect("a file") {
            // A file system that cannot tell.
            0 => return fs::remove_file(&path).expect("it is there"),
            len => assert_eq!(len, FILE_STEP, "a step at a time"),
        }
        assert_eq!(file.in_memory(0, size, 1).ok(), Some(FILE_STEP));
        assert_eq!(file.in_memory(FILE_STEP, size - FILE_STEP, 1).ok(), Some(FILE_STEP));
        assert_eq!(file.in_memory(0, size, 2).ok(), Some(2 * FILE_STEP), "both of them");
        let again = open_blocking(path.as_os_str().as_bytes(), How::default()).expect("it was written");
        fs::remove_file(&path).expect("it is there");
        assert_eq!(again.in_memory(0, size, 3).ok(), Some(2 * FILE_STEP), "known from before");
        assert_eq!(file.in_memory(3 * FILE_STEP, 10, 3).ok(), Some(10), "the end");
        assert_eq!(file.believed.load(Ordering::Relaxed), 0b1011);
        assert_eq!(file.in_memory(5, 100, 3).ok(), Some(100), "not at a step: looked for");
        assert_eq!(file.in_memory(0, 100, BELIEVED_MS).ok(), Some(100), "looked for again");
        assert!(
            BELIEVED_MS >= file.believed_until.load(Ordering::Relaxed),
            "a part of a step says nothing of the rest"
        );
    }
}
