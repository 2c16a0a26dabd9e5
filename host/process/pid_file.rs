//! The pid file: the number of the master process, for people and programs that send it signals.
//!
//! It is locked as long as the master lives, so that a second start finds out that the first still runs, and a file that was
//! left behind is nobody's. Root follows its path as place.rs says, since others may write into its folder.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, AtFlags, FlockOperation, Mode, OFlags},
    io::Errno,
    process::Pid,
};

use super::messages::Plan;
use crate::{error_text::ErrorText, log::error::Level, log_line, place::Place};

/// What the name of the file of an old master ends with, while a new one is tried (as in nginx).
pub const OLD: &str = ".oldbin";

/// How often the file is opened that others create and remove at the same time.
const MAX_TRIES: usize = 10;

/// The file, removed when this is dropped, unless another one has taken its place.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// The folder in which it has this name, or a link to it has.
    folder: OwnedFd,
    file: File,
}

impl PidFile {
    /// The file that a configuration wants, if it is not the present one. A present one that has vanished is made again; the
    /// configuration does not fail if that cannot be.
    pub fn of_plan(present: Option<&PidFile>, plan: &Plan) -> Result<Option<PidFile>, String> {
        check_no_log(&plan.pid, &plan.logs)?;
        let Some(present) = present else { return PidFile::create(&plan.pid).map(Some) };
        // While a new master is tried, the old one's has another name.
        let is_known = present.path == plan.pid || present.path == old(&plan.pid);
        if present.is_at(&plan.pid) || is_known && present.is_at(&present.path) {
            return Ok(None);
        }
        if !is_known {
            return PidFile::create(&plan.pid).map(Some);
        }
        log_line!(Level::Warn, "the pid file {} has vanished, it is made again", present.path.display());
        let made = PidFile::create(&plan.pid);
        made.map(Some).or_else(|reason| {
            log_line!(Level::Error, "{reason}");
            Ok(None)
        })
    }

    /// Writes the number of this process. An error if another process has the file, or it cannot be written.
    pub fn create(path: &Path) -> Result<PidFile, String> {
        for _ in 0..MAX_TRIES {
            if let Some(file) = PidFile::try_create(path)? {
                return Ok(file);
            }
        }
        Err(format!("the pid file {} is replaced again and again by somebody else", path.display()))
    }

    /// None if whoever had it before has removed it meanwhile.
    fn try_create(path: &Path) -> Result<Option<PidFile>, String> {
        let cannot = |error: io::Error| {
            let advice = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room",
                _ => "say where it is to be with pid, or with -p",
            };
            format!("the pid file {} cannot be written ({}); {advice}", path.display(), ErrorText(&error))
        };
        let no_file = || format!("the pid file {} is no regular file; say where it is to be with pid", path.display());
        let folder = Place::folder_of(path).map_err(cannot)?;
        let place = Place::find(path).map_err(cannot)?;
        if place.follow {
            return Err(no_file());
        }
        // Without waiting for whoever is at the other end of what is no file.
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&place.folder, &place.name, flags, MODE);
        let mut file = File::from(file.map_err(io::Error::from).map_err(cannot)?);
        if !file.metadata().map_err(cannot)?.is_file() {
            return Err(no_file());
        }
        place.check(&file).map_err(cannot)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => (),
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let _ = (&mut file).take(32).read_to_string(&mut text);
                let text = text.trim();
                return Err(format!(
                    "another topnext runs, with the pid file {}: process {text}; end it with `kill -QUIT {text}`, or say \
                     where this one has its file with pid",
                    path.display()
                ));
            }
            Err(error) => return Err(cannot(error.into())),
        }
        // A slip in the configuration must not cost a file that is something else.
        if !holds_number(&file).map_err(cannot)? {
            return Err(format!(
                "the pid file {} is no pid file: there is another file of this name, which is left alone; say where it is to be \
                 with pid",
                path.display()
            ));
        }
        if !is_same(&file, &place.folder, &place.name) {
            return Ok(None);
        }
        file.rewind().map_err(cannot)?;
        // Dropped, it is removed: one without a number, for want of space, is of no use to anybody.
        let mut made = PidFile { path: path.to_path_buf(), folder, file };
        let written = made.file.set_len(0).and_then(|()| writeln!(made.file, "{}", std::process::id()));
        written.map_err(cannot)?;
        Ok(Some(made))
    }

    /// Whether this path leads to it, however it is written.
    pub fn is_at(&self, path: &Path) -> bool {
        Place::find(path).is_ok_and(|place| is_same(&self.file, &place.folder, &place.name))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it another name in the same folder. An error names it.
    pub fn rename(&mut self, path: PathBuf) -> Result<(), String> {
        rustix::fs::renameat(&self.folder, name_of(&self.path), &self.folder, name_of(&path))
            .map_err(|error| cannot_rename(&self.path, &path, &error.into()))?;
        self.path = path;
        Ok(())
    }
}

/// What all may do with it.
const MODE: Mode = Mode::from_raw_mode(0o644);

/// What `-t` can find of what a start would: an error if there cannot be a pid file with this path, beside these logs. Nothing is
/// written, since another server may have it.
pub fn check(path: &Path, logs: &[PathBuf]) -> Result<(), String> {
    check_no_log(path, logs)?;
    let found = path.display();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(format!("found {found}, which is no regular file")),
        Ok(_) if File::open(path).is_ok_and(|file| holds_number(&file).is_ok_and(|holds| !holds)) => {
            Err(format!("found {found}, which is there, and no pid file"))
        }
        Ok(_) => may_write(path).map_err(|error| format!("found {found}, which cannot be written ({error})")),
        Err(_) => may_write(folder).map_err(|error| {
            format!("found {found}, which cannot be made: its folder is not there, or closed ({error})")
        }),
    }
}

fn may_write(path: &Path) -> Result<(), String> {
    rustix::fs::access(path, Access::WRITE_OK).map_err(|error| ErrorText(&error.into()).to_string())
}

/// Whether it begins as a pid file does, or is empty.
fn holds_number(file: &File) -> io::Result<bool> {
    let mut text = Vec::new();
    file.take(32).read_to_end(&mut text)?;
    Ok(text.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_whitespace()))
}

/// An error if one of these logs has the path of a pid file.
fn check_no_log(path: &Path, logs: &[PathBuf]) -> Result<(), String> {
    match logs.iter().find(|log| is_same_path(log, path)) {
        Some(log) => Err(format!(
            "the pid file {} is a log of this configuration; say where it is to be with pid",
            log.display()
        )),
        None => Ok(()),
    }
}

/// Whether two paths are those of one file, which need not be there yet.
fn is_same_path(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| {
        let place = Place::find(path).ok()?;
        let folder = rustix::fs::fstat(&place.folder).ok()?;
        Some((folder.st_dev, folder.st_ino, place.name))
    };
    one == other || place(one).is_some_and(|one| place(other) == Some(one))
}

fn name_of(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

/// Whether this name, or the link that it is, is the file's.
fn is_same(file: &File, folder: impl AsFd, name: &OsStr) -> bool {
    let ours = rustix::fs::fstat(file);
    let there = rustix::fs::statat(folder, name, AtFlags::empty());
    matches!((ours, there), (Ok(ours), Ok(there)) if (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino))
}

/// Why a file does not get another name.
pub fn cannot_rename(from: &Path, to: &Path, error: &io::Error) -> String {
    format!("rename() {} to {} failed ({})", from.display(), to.display(), ErrorText(error))
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let name = name_of(&self.path);
        let is_ours = is_same(&self.file, &self.folder, name);
        if is_ours && let Err(error) = rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()) {
            log_line!(Level::Alert, "unlink() {} failed ({})", self.path.display(), ErrorText(&error.into()));
        }
    }
}

/// The master whose file this is, if it lives.
pub fn holder(path: &Path) -> Option<u32> {
    let place = Place::find(path).ok()?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(&place.folder, &place.name, flags, Mode::empty()).ok()?);
    let mut text = String::new();
    (&file).take(32).read_to_string(&mut text).ok()?;
    let process = text.trim().parse::<i32>().ok().and_then(Pid::from_raw)?;
    // The lock is looked at last: to look, it has to be taken.
    let lives = !matches!(rustix::process::test_kill_process(process), Err(Errno::SRCH));
    let is_locked = || {
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err_and(|error| error == Errno::WOULDBLOCK)
    };
    (lives && is_locked()).then(|| process.as_raw_nonzero().get().cast_unsigned())
}

/// The path with the ending of an old master's files.
pub fn old(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(OLD);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn one_process_has_it() {
        let folder = std::env::temp_dir().join(format!("topnext-pid-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("a.pid");
        // One that was left behind, longer than ours.
        fs::write(&path, "123456789012345678901234567890\n").expect("written");
        let mut first = PidFile::create(&path).expect("nobody has it");
        assert_eq!(fs::read_to_string(&path).expect("there"), format!("{}\n", std::process::id()));
        let error = PidFile::create(&path).expect_err("the first has it");
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        first.rename(old(&path)).expect("same folder");
        let second = PidFile::create(&path).expect("the name is free");
        drop(first);
        assert!(path.exists() && !old(&path).exists());
        // Somebody else's by now.
        fs::remove_file(&path).expect("there");
        fs::write(&path, "1\n").expect("written");
        drop(second);
        assert!(path.exists());
        fs::remove_dir_all(folder).expect("removed");
    }
}
