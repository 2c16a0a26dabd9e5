//! Files that the host opened: owned handles, never bare descriptors.

use std::{fmt, os::fd::BorrowedFd, time::Duration, time::SystemTime};

use abi_stable::StableAbi;

use crate::host;

/// What kind of thing a path led to.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A regular file.
    Regular = 0,
    /// A directory.
    Directory = 1,
    /// Anything else: never served.
    Other = 2,
}

/// An open file of the host, with what was known of it when it was opened. Cloning shares the descriptor.
#[repr(C)]
#[derive(StableAbi)]
pub struct File {
    pub(crate) handle: *const (),
    size: u64,
    mtime: i64,
    mtime_nanos: u32,
    /// A [`FileKind`].
    kind: u32,
    reserved: u64,
}

// SAFETY: the host's handle is reference counted atomically, and reading through it uses positions, not a shared cursor.
unsafe impl Send for File {}
// SAFETY: as above; there is no interior mutability.
unsafe impl Sync for File {}

impl File {
    /// Wraps a handle of the host.
    ///
    /// # Safety
    /// `handle` comes from the host's file service and one owner of it passes to the new value.
    pub unsafe fn from_raw(handle: *const (), size: u64, mtime: i64, mtime_nanos: u32, kind: FileKind) -> File {
        File { handle, size, mtime, mtime_nanos, kind: kind as u32, reserved: 0 }
    }

    /// The host's handle, still owned by this value.
    pub fn as_raw(&self) -> *const () {
        self.handle
    }

    /// Size in bytes when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Modification time, in whole seconds since 1970 (before it: negative).
    pub fn mtime(&self) -> i64 {
        self.mtime
    }

    /// Modification time.
    pub fn modified(&self) -> SystemTime {
        let whole = Duration::from_secs(self.mtime.unsigned_abs());
        let base = SystemTime::UNIX_EPOCH;
        let second = if self.mtime < 0 { base.checked_sub(whole) } else { base.checked_add(whole) };
        second.and_then(|time| time.checked_add(Duration::from_nanos(u64::from(self.mtime_nanos)))).unwrap_or(base)
    }

    /// What it is.
    pub fn kind(&self) -> FileKind {
        match self.kind {
            0 => FileKind::Regular,
            1 => FileKind::Directory,
            _ => FileKind::Other,
        }
    }

    /// The descriptor, of a regular file or a directory; `None` of anything else, which is never read.
    ///
    /// It is open for reading, and may be that of other requests as well: read at positions (pread(2)), and open `"."`
    /// anew, relative to it, to read a directory. What is opened relative to it is where the host found the directory,
    /// whatever has become of the path. All that may wait for the disk: for [`Request::offload`](crate::Request::offload).
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        if self.handle.is_null() {
            return None;
        }
        // SAFETY: the handle is alive, since this value owns a share of it.
        let fd = unsafe { host::expect().bufs().file_fd()(self.handle) };
        // SAFETY: it is open as long as the file has an owner, which this value is for as long as it is borrowed.
        (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
    }
}

impl Clone for File {
    fn clone(&self) -> File {
        let handle = if self.handle.is_null() {
            self.handle
        } else {
            // SAFETY: the handle is alive, since this value owns a share of it.
            unsafe { host::expect().bufs().file_clone()(self.handle) }
        };
        let File { size, mtime, mtime_nanos, kind, reserved, .. } = *self;
        File { handle, size, mtime, mtime_nanos, kind, reserved }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Some(host) = host::get()
            && !self.handle.is_null()
        {
            // SAFETY: this value owns one share, which ends here.
            unsafe { host.bufs().file_drop()(self.handle) }
        }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("size", &self.size).field("kind", &self.kind()).finish_non_exhaustive()
    }
}

/// What came of opening a file.
#[derive(Debug)]
pub enum Opened {
    /// Here it is.
    File(File),
    /// The disk has to be asked: answer [`crate::Code::AGAIN`]; the hook is called again, and then it is here.
    Pending,
    /// The file does not exist, or a part of the path is not a directory.
    NotFound,
    /// Permission was denied.
    Forbidden,
    /// Something else; the host has logged it.
    Failed,
}

/// An error of the system, which shows itself as in nginx's log: `13: Permission denied`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenError(pub i32);

impl OpenError {
    /// Whether it was a symbolic link that may not be followed (disable_symlinks), or one of too many: ELOOP.
    pub fn is_symlink(self) -> bool {
        // std has a name for it, which is not stable yet (io_error_more).
        self.0 == ELOOP
    }
}

/// Linux's number, which is another one on a few architectures.
const ELOOP: i32 = if cfg!(any(target_arch = "mips", target_arch = "mips64")) {
    90
} else if cfg!(any(target_arch = "sparc", target_arch = "sparc64")) {
    62
} else {
    40
};

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        let text = text.strip_suffix(&format!(" (os error {})", self.0)).unwrap_or(&text);
        write!(f, "{}: {text}", self.0)
    }
}

/// [`Opened`] in the ABI.
#[repr(C)]
#[derive(StableAbi)]
pub struct RawOpened {
    /// 0 file, 1 pending, 2 not found, 3 forbidden, else failed.
    pub result: u32,
    /// The file, if there is one; else one with a null handle.
    pub file: File,
}

impl RawOpened {
    /// An answer without a file.
    pub fn without_file(result: u32) -> RawOpened {
        let file = File {
            handle: std::ptr::null(),
            size: 0,
            mtime: 0,
            mtime_nanos: 0,
            kind: FileKind::Other as u32,
            reserved: 0,
        };
        RawOpened { result, file }
    }
}

impl From<RawOpened> for Opened {
    fn from(raw: RawOpened) -> Opened {
        match raw.result {
            0 if !raw.file.handle.is_null() => Opened::File(raw.file),
            1 => Opened::Pending,
            2 => Opened::NotFound,
            3 => Opened::Forbidden,
            _ => Opened::Failed,
        }
    }
}

impl From<Opened> for RawOpened {
    fn from(opened: Opened) -> RawOpened {
        match opened {
            Opened::File(file) => RawOpened { result: 0, file },
            Opened::Pending => RawOpened::without_file(1),
            Opened::NotFound => RawOpened::without_file(2),
            Opened::Forbidden => RawOpened::without_file(3),
            Opened::Failed => RawOpened::without_file(4),
        }
    }
}
