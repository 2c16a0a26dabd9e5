//! Open files: opened and read without blocking a loop where the kernel can tell, else on the thread pool.
//!
//! `openat2(RESOLVE_CACHED)` opens what needs no disk, and `preadv2(RWF_NOWAIT)` reads what is in the page cache; both
//! say so if they would block.

use std::{
    fs,
    io::{self, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::{Errno, ReadWriteFlags},
};
use topnext_module_api::FileKind;

/// A file that is open for reading. Shared by `Arc`, closed with the last owner.
#[derive(Debug)]
pub struct OpenFile {
    fd: OwnedFd,
    /// Size in bytes when it was opened.
    pub size: u64,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// And the nanoseconds of it.
    pub mtime_nanos: u32,
    /// What it is.
    pub kind: FileKind,
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

/// The kernel has no RESOLVE_CACHED (before 5.12), or a filter refuses openat2: files are opened on the pool.
static NO_CACHED_OPEN: AtomicBool = AtomicBool::new(false);

/// Opens a file if that needs no disk.
pub fn open_nowait(path: &[u8]) -> io::Result<NoWait<OpenFile>> {
    if NO_CACHED_OPEN.load(Ordering::Relaxed) {
        return Ok(NoWait::WouldBlock);
    }
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    match rustix::fs::openat2(CWD, path, FLAGS, Mode::empty(), ResolveFlags::CACHED) {
        Ok(fd) => OpenFile::of(fd).map(NoWait::Done),
        Err(Errno::AGAIN) => Ok(NoWait::WouldBlock),
        Err(Errno::NOSYS | Errno::INVAL | Errno::PERM) => {
            NO_CACHED_OPEN.store(true, Ordering::Relaxed);
            Ok(NoWait::WouldBlock)
        }
        Err(error) => Err(error.into()),
    }
}

/// Opens a file, and waits for the disk.
pub fn open_blocking(path: &[u8]) -> io::Result<OpenFile> {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    OpenFile::of(rustix::fs::open(path, FLAGS, Mode::empty())?)
}

impl OpenFile {
    fn of(fd: OwnedFd) -> io::Result<OpenFile> {
        let stat: Stat = rustix::fs::fstat(&fd)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::Regular,
            FileType::Directory => FileKind::Directory,
            _ => FileKind::Other,
        };
        Ok(OpenFile {
            fd,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: stat.st_mtime,
            mtime_nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            kind,
        })
    }

    /// Reads at `pos` what is in the page cache. `Done(0)` is the end of the file.
    pub fn read_nowait(&self, pos: u64, into: &mut [u8]) -> io::Result<NoWait<usize>> {
        match rustix::io::preadv2(&self.fd, &mut [IoSliceMut::new(into)], pos, ReadWriteFlags::NOWAIT) {
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
            match rustix::io::pread(&self.fd, &mut *into, pos) {
                Err(Errno::INTR) => continue,
                result => return result.map_err(io::Error::from),
            }
        }
    }

    /// The descriptor, for sendfile.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
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
