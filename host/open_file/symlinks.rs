//! Paths in which symbolic links are not followed (nginx: disable_symlinks).
//!
//! `openat2(RESOLVE_NO_SYMLINKS)` opens a path without links in one call, so that nothing can change between a check and
//! its use. Only where there is a link, and it may be followed if its owner is right, the path is walked.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::{FLAGS, How, as_path};

/// What becomes of symbolic links in a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Symlinks {
    /// They are followed.
    #[default]
    Follow,
    /// The path is not opened: ELOOP.
    Refuse,
    /// As [`Refuse`](Symlinks::Refuse), unless the link has the owner of what it leads to.
    SameOwner,
}

/// To pass through, or to look at.
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const LINK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a path that has no symbolic link behind its first `from` bytes; ELOOP if it has one.
pub(super) fn open_without(path: &[u8], from: usize, flags: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = flags | ResolveFlags::NO_SYMLINKS;
    match split(path, from) {
        (None, rest) => rustix::fs::openat2(CWD, as_path(rest), FLAGS, Mode::empty(), resolve),
        (Some(start), rest) => {
            let start = rustix::fs::openat2(CWD, as_path(start), FOLDER, Mode::empty(), flags)?;
            rustix::fs::openat2(start, as_path(rest), FLAGS, Mode::empty(), resolve)
        }
    }
}

/// The part that is trusted, if there is one, and the part behind it, relative to it.
fn split(path: &[u8], from: usize) -> (Option<&[u8]>, &[u8]) {
    let Some((start, rest)) = path.split_at_checked(from).filter(|(start, _)| !start.is_empty()) else {
        return (None, path);
    };
    let slashes = rest.iter().take_while(|&&byte| byte == b'/').count();
    let rest = &rest[slashes..];
    (Some(start), if rest.is_empty() { b"." } else { rest })
}

/// Opens a path part by part, and looks at each link on the way. Waits for the disk.
pub(super) fn open_walking(path: &[u8], how: How) -> rustix::io::Result<OwnedFd> {
    let (start, rest) = match split(path, how.from) {
        (None, rest) if rest.starts_with(b"/") => (&b"/"[..], rest),
        (None, rest) => (&b"."[..], rest),
        (Some(start), rest) => (start, rest),
    };
    let mut at = rustix::fs::open(as_path(start), FOLDER, Mode::empty())?;
    let mut parts = rest.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).peekable();
    // A slash at the end asks for a folder.
    let last = if rest.ends_with(b"/") { FLAGS | OFlags::DIRECTORY } else { FLAGS };
    if parts.peek().is_none() {
        return rustix::fs::openat(at, ".", last, Mode::empty());
    }
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        at = open_part(&at, part, if is_last { last } else { FOLDER }, how.symlinks)?;
        if is_last {
            break;
        }
    }
    Ok(at)
}

/// What a link leads to is opened by the text of the very link whose owner is compared: its name may stand for another
/// link a moment later. The links that the text leads through are followed, whosever they are, as in nginx.
fn open_part(at: &OwnedFd, part: &[u8], flags: OFlags, symlinks: Symlinks) -> rustix::io::Result<OwnedFd> {
    let part = as_path(part);
    let link = rustix::fs::openat(at, part, LINK, Mode::empty())?;
    let itself = rustix::fs::fstat(&link)?;
    if FileType::from_raw_mode(itself.st_mode) != FileType::Symlink {
        // If it has become a link meanwhile, this fails.
        return rustix::fs::openat(at.as_fd(), part, flags | OFlags::NOFOLLOW, Mode::empty());
    }
    if symlinks == Symlinks::Refuse {
        return Err(Errno::LOOP);
    }
    let leads_to = rustix::fs::readlinkat(&link, "", Vec::new())?;
    let target = rustix::fs::openat(at, as_path(leads_to.as_bytes()), flags, Mode::empty())?;
    if rustix::fs::fstat(&target)?.st_uid != itself.st_uid {
        return Err(Errno::LOOP);
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, symlink},
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use rustix::fs::RenameFlags;

    use super::*;

    #[test]
    fn a_link_that_is_exchanged_meanwhile_does_not_lend_its_owner_to_another() {
        let folder = std::env::temp_dir().join(format!("topnext-symlinks-{}", std::process::id()));
        let in_it = |name: &str| folder.join(name);
        fs::create_dir_all(&folder).expect("a folder for files");
        for (name, link) in [("public", "link"), ("secret", "trap")] {
            fs::write(in_it(name), name).expect("written");
            symlink(name, in_it(link)).expect("a link");
        }
        let secret = fs::metadata(in_it("secret")).expect("there").ino();
        // Both files and `link` are ours; somebody else lays `trap`.
        if std::os::unix::fs::lchown(in_it("trap"), Some(12_345), None).is_err() {
            eprintln!("SKIPPED: only root can give a file to another");
        } else {
            let done = AtomicBool::new(false);
            let opened = thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let exchange = RenameFlags::EXCHANGE;
                        let _ = rustix::fs::renameat_with(CWD, in_it("link"), CWD, in_it("trap"), exchange);
                    }
                });
                let at = rustix::fs::open(&folder, FOLDER, Mode::empty()).expect("a folder");
                let open = |_| open_part(&at, b"link", FLAGS, Symlinks::SameOwner).ok();
                let inode = |fd: OwnedFd| rustix::fs::fstat(&fd).expect("open").st_ino;
                let opened: Vec<u64> = (0..20_000).filter_map(open).map(inode).collect();
                done.store(true, Ordering::Relaxed);
                opened
            });
            assert!(!opened.is_empty() && !opened.contains(&secret));
        }
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn what_is_trusted_is_split_off() {
        assert_eq!(split(b"/a/b/c", 0), (None, &b"/a/b/c"[..]));
        assert_eq!(split(b"/a/b/c", 2), (Some(&b"/a"[..]), &b"b/c"[..]));
        assert_eq!(split(b"/a//", 2), (Some(&b"/a"[..]), &b"."[..]));
        assert_eq!(split(b"/a", 9), (None, &b"/a"[..]));
    }
}
