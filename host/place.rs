//! Where a path leads, as root may follow it, and a worker that root has started.
//!
//! Both write into folders into which others may write too. A link there, or a second name of a file that is elsewhere, would
//! have them write into anything. So they follow the path step by step. In a folder that is not their own alone they follow only
//! links of their own and of root (as to /dev/stdout), and take no file that has several names. Who starts the server for himself
//! is asked for nothing of that.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Component, Path, PathBuf},
};

use crate::process::privileges;
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat, fstat, openat},
    io::Errno,
};

/// The most links that a path may lead through (as in the kernel).
const MAX_LINKS: usize = 40;

/// Where a path has led.
pub struct Place {
    /// The folder.
    pub folder: OwnedFd,
    /// In that folder. There need not be such a file.
    pub name: OsString,
    /// Nobody else may write into the folder.
    is_ours: bool,
    /// It is an open file of this process (/proc/self/fd/1), which only the kernel can follow.
    pub follow: bool,
}

impl Place {
    /// Follows a path. An error if a part of it is not there, but for the last, or it may not be followed.
    pub fn find(path: &Path) -> io::Result<Place> {
        let ours = Ours::of_process();
        let mut folder = start_of(path)?;
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
            // A link has one name, unless somebody has given ours another one.
            let is_our_link = of_next.is_some_and(|next| ours.has(next.st_uid) && next.st_nlink == 1);
            let is_ours = ours.has_alone(&folder)?;
            match next {
                Some(link) if kind == FileType::Symlink => {
                    if left.is_empty() && rustix::fs::fstatfs(&folder)?.f_type == PROC_SUPER_MAGIC {
                        return Ok(Place { folder, name, is_ours, follow: true });
                    }
                    if !is_ours && !is_our_link {
                        return Err(refused(
                            "a part of the path is somebody else's link",
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
                        folder = start_of(&target)?;
                    }
                    left.extend(steps(&target));
                }
                Some(next) if !left.is_empty() => folder = next,
                _ => return Ok(Place { folder, name, is_ours, follow: false }),
            }
        }
        Err(io::ErrorKind::IsADirectory.into())
    }

    /// The folder of what has this path, followed likewise.
    pub fn folder_of(path: &Path) -> io::Result<OwnedFd> {
        let folder = path.parent().unwrap_or(path);
        if steps(folder).is_empty() {
            return start_of(path);
        }
        let Place { folder, name, .. } = Place::find(folder)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(folder, name, flags, Mode::empty())?)
    }

    /// Whether this file, which was opened here, may be written into.
    pub fn check(&self, file: impl AsFd) -> io::Result<()> {
        let found = fstat(file)?;
        if !self.is_ours && kind(&found) == FileType::RegularFile && found.st_nlink > 1 {
            return Err(refused("the file has several names", "remove the others"));
        }
        Ok(())
    }
}

/// The parts of a path behind its root, the last one first.
fn steps(path: &Path) -> Vec<OsString> {
    let is_step = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().rev().filter(is_step).map(|part| part.as_os_str().to_owned()).collect()
}

/// Whose links are followed, and whose folders are safe.
enum Ours {
    /// Everybody's.
    All,
    /// Root's, and this user's.
    Of(u32),
}

impl Ours {
    fn of_process() -> Ours {
        let user = rustix::process::geteuid();
        if user.is_root() || privileges::were_given_up() { Ours::Of(user.as_raw()) } else { Ours::All }
    }

    fn has(&self, user: u32) -> bool {
        match self {
            Ours::All => true,
            Ours::Of(ours) => user == 0 || user == *ours,
        }
    }

    /// Nobody else may write into this folder.
    fn has_alone(&self, folder: &OwnedFd) -> io::Result<bool> {
        let found = fstat(folder)?;
        let is_shared = Mode::from_raw_mode(found.st_mode).intersects(Mode::WGRP | Mode::WOTH);
        Ok(matches!(self, Ours::All) || self.has(found.st_uid) && !is_shared)
    }
}

fn start_of(path: &Path) -> io::Result<OwnedFd> {
    let start = if path.is_absolute() { "/" } else { "." };
    Ok(openat(CWD, start, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// What kind of file it is.
pub fn kind(found: &Stat) -> FileType {
    FileType::from_raw_mode(found.st_mode)
}

fn refused(what: &str, instead: &str) -> io::Error {
    let text = format!("{what}, in a folder into which others may write, so the server does not open it; {instead}");
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}
