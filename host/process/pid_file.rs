//! The pid file: the number of the master process, for people and programs that send it signals.
//!
//! It is locked as long as the master lives, so that a second start finds out that the first still runs, and a file that was
//! left behind is nobody's.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, OFlags},
    io::Errno,
};

use crate::{error_text::ErrorText, log::error::Level, log_line};

/// What the name of the file of an old master ends with, while a new one is tried (as in nginx).
pub const OLD: &str = ".oldbin";

/// How often the file is opened that others create and remove at the same time.
const MAX_TRIES: usize = 10;

/// The file, removed when this is dropped, unless another one has taken its place.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
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
            format!(
                "the pid file {} cannot be written ({}); say where it is to be with pid, or with -p",
                path.display(),
                ErrorText(&error)
            )
        };
        // Without waiting for whoever is at the other end of what is no file.
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o644).custom_flags(flags);
        let mut file = options.open(path).map_err(cannot)?;
        if !file.metadata().map_err(cannot)?.is_file() {
            return Err(format!("the pid file {} is no regular file; say where it is to be with pid", path.display()));
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => (),
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let _ = (&mut file).take(32).read_to_string(&mut text);
                let text = text.trim();
                return Err(format!(
                    "another topnext runs, with the pid file {}: process {text}; end it with `topnext -s quit`, or say \
                     where this one has its file with pid",
                    path.display()
                ));
            }
            Err(error) => return Err(cannot(error.into())),
        }
        // A slip in the configuration must not cost a file that is something else.
        let mut text = Vec::new();
        (&mut file).take(32).read_to_end(&mut text).map_err(cannot)?;
        if !text.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_whitespace()) {
            return Err(format!(
                "the pid file {} is no pid file: there is another file of this name, which is left alone; say where it is to be \
                 with pid",
                path.display()
            ));
        }
        if !same_file(&file, path) {
            return Ok(None);
        }
        file.rewind().map_err(cannot)?;
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(cannot)?;
        Ok(Some(PidFile { path: path.to_path_buf(), file }))
    }

    /// Whether this is a path of it, however it is written.
    pub fn is_at(&self, path: &Path) -> bool {
        self.path == path || same_file(&self.file, path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it another name. An error names it.
    pub fn rename(&mut self, path: PathBuf) -> Result<(), String> {
        fs::rename(&self.path, &path).map_err(|error| cannot_rename(&self.path, &path, &error))?;
        self.path = path;
        Ok(())
    }
}

fn same_file(file: &File, path: &Path) -> bool {
    let ours = file.metadata().map(|ours| (ours.dev(), ours.ino()));
    let there = fs::metadata(path).map(|there| (there.dev(), there.ino()));
    matches!((ours, there), (Ok(ours), Ok(there)) if ours == there)
}

/// Why a file does not get another name.
pub fn cannot_rename(from: &Path, to: &Path, error: &io::Error) -> String {
    format!("rename() {} to {} failed ({})", from.display(), to.display(), ErrorText(error))
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let is_ours = same_file(&self.file, &self.path);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            log_line!(Level::Alert, "unlink() {} failed ({})", self.path.display(), ErrorText(&error));
        }
    }
}

/// The path with the ending of an old master's files.
pub fn old(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(OLD);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
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
