//! The file of a log: how it is opened, and given to the user of the workers.
//!
//! Root opens logs in folders into which that user may write. A link there, or a second name of a file that is elsewhere,
//! would have root write into anything, and give it away: to a worker that was taken over. So root follows the path step by
//! step. In a folder that is not its own alone it follows only its own links (as to /dev/stdout), and takes no file that has
//! several names.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, PROC_SUPER_MAGIC, Stat, Uid, fstat, openat, stat},
    io::Errno,
};

/// The most links that a path may lead through (as in the kernel).
const MAX_LINKS: usize = 40;

/// Opens it: as nginx, for appending, and readable for all if it is made here. Unlike nginx it never waits for somebody who reads a
/// FIFO: that is opened for reading too, so that it keeps what it has room for until somebody comes, or comes back.
pub fn open(path: &Path) -> io::Result<File> {
    if !rustix::process::geteuid().is_root() {
        return open_at(CWD, path.as_os_str(), OFlags::empty());
    }
    let Place { folder, name, is_roots, follow } = Place::find(path)?;
    let file = open_at(&folder, &name, if follow { OFlags::empty() } else { OFlags::NOFOLLOW })?;
    let found = fstat(&file)?;
    if !is_roots && kind(&found) == FileType::RegularFile && found.st_nlink > 1 {
        return Err(refused("the file has several names", "remove the others"));
    }
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
    let is_plain = match kind(&found) {
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
    let is_fifo = rustix::fs::statat(&folder, name, look).is_ok_and(|found| kind(&found) == FileType::Fifo);
    let how = if is_fifo { OFlags::RDWR } else { OFlags::WRONLY | OFlags::CREATE };
    let flags = flags | how | OFlags::APPEND | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(openat(folder, name, flags, MODE)?.into())
}

fn kind(found: &Stat) -> FileType {
    FileType::from_raw_mode(found.st_mode)
}

fn refused(what: &str, instead: &str) -> io::Error {
    let text =
        format!("{what}, in a folder into which others than root may write, so root does not open it; {instead}");
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

/// Where a path has led.
struct Place {
    folder: OwnedFd,
    /// In that folder. There need not be such a file.
    name: OsString,
    /// Nobody but root may write into the folder.
    is_roots: bool,
    /// It is an open file of this process (/proc/self/fd/1), which only the kernel can follow.
    follow: bool,
}

impl Place {
    fn find(path: &Path) -> io::Result<Place> {
        let open_folder =
            |path: &Path| openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let mut folder = open_folder(Path::new(if path.is_absolute() { "/" } else { "." }))?;
        let mut left = steps(path);
        let mut links = 0;
        while let Some(name) = left.pop() {
            let found = openat(&folder, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
            let next = match found {
                Err(Errno::NOENT) if left.is_empty() => None,
                found => Some(found?),
            };
            let of_next = next.as_ref().map(fstat).transpose()?;
            let kind = of_next.map_or(FileType::RegularFile, |next| kind(&next));
            // A link has one name, unless somebody has given root's another one.
            let is_roots_link = of_next.is_some_and(|next| next.st_uid == 0 && next.st_nlink == 1);
            let is_roots = is_roots(&folder)?;
            match next {
                Some(link) if kind == FileType::Symlink => {
                    if left.is_empty() && rustix::fs::fstatfs(&folder)?.f_type == PROC_SUPER_MAGIC {
                        return Ok(Place { folder, name, is_roots, follow: true });
                    }
                    if !is_roots && !is_roots_link {
                        return Err(refused(
                            "a part of the path is a link that is not root's",
                            "write the path that it leads to",
                        ));
                    }
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let target = rustix::fs::readlinkat(&link, "", Vec::new())?.into_bytes();
                    let target = PathBuf::from(OsString::from_vec(target));
                    if target.is_absolute() {
                        folder = open_folder(Path::new("/"))?;
                    }
                    left.extend(steps(&target));
                }
                Some(next) if !left.is_empty() => folder = next,
                _ => return Ok(Place { folder, name, is_roots, follow: false }),
            }
        }
        Err(io::ErrorKind::IsADirectory.into())
    }
}

/// The parts of a path behind its root, the last one first.
fn steps(path: &Path) -> Vec<OsString> {
    let is_step = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().rev().filter(is_step).map(|part| part.as_os_str().to_owned()).collect()
}

fn is_roots(folder: &OwnedFd) -> io::Result<bool> {
    let found = fstat(folder)?;
    Ok(found.st_uid == 0 && !Mode::from_raw_mode(found.st_mode).intersects(Mode::WGRP | Mode::WOTH))
}
