//! The file of a log: how it is opened, and given to the user of the workers.
//!
//! Root opens logs in folders into which that user may write, and so only where place.rs says that it may: a worker that was
//! taken over could otherwise have root write into anything, and give it away. A worker that opens its logs again does the same.

use std::{ffi::OsStr, fs::File, io, path::Path};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, fstat, openat, stat},
    io::Errno,
};

use crate::place::{self, Place};

/// Opens it: as nginx, for appending, and readable for all if it is made here. Unlike nginx it never waits for somebody who reads a
/// FIFO: that is opened for reading too, so that it keeps what it has room for until somebody comes, or comes back.
pub fn open(path: &Path) -> io::Result<File> {
    let place = Place::find(path)?;
    let file = open_at(&place.folder, &place.name, if place.follow { OFlags::empty() } else { OFlags::NOFOLLOW })?;
    place.check(&file)?;
    Ok(file)
}

/// Whether this is what the path leads to.
pub fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: Stat| (found.st_dev, found.st_ino);
    matches!((fstat(file), stat(path)), (Ok(one), Ok(other)) if identity(one) == identity(other))
}

/// Makes it if it is not there, and gives it to the user and group with these numbers. What is neither a file with one name nor a
/// FIFO is left as it is.
pub fn give(path: &Path, (user, group): (u32, u32)) -> io::Result<()> {
    let Place { folder, name, .. } = Place::find(path)?;
    let look = || openat(&folder, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    let file = match look() {
        Err(Errno::NOENT) => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(&folder, &name, flags, MODE)?
        }
        found => found?,
    };
    let found = fstat(&file)?;
    let is_plain = match place::kind(&found) {
        FileType::RegularFile => found.st_nlink == 1,
        kind => kind == FileType::Fifo,
    };
    if is_plain && (found.st_uid, found.st_gid) != (user, group) {
        rustix::fs::chownat(&file, "", Some(Uid::from_raw(user)), Some(Gid::from_raw(group)), AtFlags::EMPTY_PATH)?;
    }
    Ok(())
}

/// What all may do with a log that is made here.
const MODE: Mode = Mode::from_raw_mode(0o644);

fn open_at(folder: impl rustix::fd::AsFd, name: &OsStr, flags: OFlags) -> io::Result<File> {
    let look = if flags.contains(OFlags::NOFOLLOW) { AtFlags::SYMLINK_NOFOLLOW } else { AtFlags::empty() };
    let is_fifo = rustix::fs::statat(&folder, name, look).is_ok_and(|found| place::kind(&found) == FileType::Fifo);
    let how = if is_fifo { OFlags::RDWR } else { OFlags::WRONLY | OFlags::CREATE };
    let flags = flags | how | OFlags::APPEND | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(openat(folder, name, flags, MODE)?.into())
}
