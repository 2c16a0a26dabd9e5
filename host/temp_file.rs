//! Temporary files: what is too large for memory.
//!
//! Most have no name, so that none stays behind, whatever happens to the process. Those with one lie in up to as many
//! levels of folders as the configuration says (nginx: client_body_temp_path):
//!
//! ```text
//! { path = "client_body_temp", levels = [1, 2] }     client_body_temp/7/42/0000000427
//! ```
//!
//! All of this waits for the disk, and belongs on the thread pool.

use std::{
    collections::hash_map::RandomState,
    fs::{self, DirBuilder, File},
    hash::BuildHasher,
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, FileExt as _},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use crate::{
    config::{InFileOnly, TempPath},
    open_file::OpenFile,
};

/// Digits in the name of a file.
const DIGITS: usize = 10;
/// Names that are tried before it is given up.
const MAX_TRIES: u32 = 100;

/// The number of the next file with a name. Two processes may share a folder: whoever finds a name taken goes on.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A file that is being written.
#[derive(Debug)]
pub struct TempFile {
    file: File,
    written: u64,
    name: Option<FileName>,
}

/// The name of a file, which may go with this value.
#[derive(Debug)]
pub struct FileName {
    /// The path.
    pub path: PathBuf,
    remove: bool,
}

impl TempFile {
    /// Makes a file in this folder, and the folder if it is missing.
    pub fn create(place: &TempPath, names: InFileOnly) -> io::Result<TempFile> {
        let (file, name) = match names {
            InFileOnly::Off => (unnamed(place)?, None),
            InFileOnly::Clean | InFileOnly::On => {
                let (file, path) = named(place)?;
                (file, Some(FileName { path, remove: names == InFileOnly::Clean }))
            }
        };
        Ok(TempFile { file: File::from(file), written: 0, name })
    }

    /// Writes all of this at its end.
    pub fn write(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        for piece in pieces {
            self.file.write_all_at(piece, self.written)?;
            self.written += piece.len() as u64;
        }
        Ok(())
    }

    /// The file, complete, to be read.
    pub fn finish(self) -> io::Result<(OpenFile, Option<FileName>)> {
        Ok((OpenFile::opened(OwnedFd::from(self.file))?, self.name))
    }
}

impl Drop for FileName {
    fn drop(&mut self) {
        if self.remove {
            // Somebody else may have removed it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

const FLAGS: OFlags = OFlags::RDWR.union(OFlags::CLOEXEC);

fn private() -> Mode {
    Mode::RUSR | Mode::WUSR
}

/// A file without a name; where the file system has none such, one whose name is gone at once.
fn unnamed(place: &TempPath) -> io::Result<OwnedFd> {
    let folder = &place.path;
    match or_make_folder(folder, || rustix::fs::open(folder, FLAGS | OFlags::TMPFILE, private())) {
        // As open(2) has it: the file system, or the kernel, does not know O_TMPFILE.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            let (file, path) = named(&TempPath { path: folder.clone(), levels: Vec::new() })?;
            drop(FileName { path, remove: true });
            Ok(file)
        }
        result => Ok(result?),
    }
}

fn named(place: &TempPath) -> io::Result<(OwnedFd, PathBuf)> {
    for _ in 0..MAX_TRIES {
        let path = path_of(place, NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = path.parent().unwrap_or(&place.path);
        let open = || rustix::fs::open(&path, FLAGS | OFlags::CREATE | OFlags::EXCL, private());
        match or_make_folder(folder, open) {
            // Left by a process before this one, with many others behind it.
            Err(Errno::EXIST) => jump(),
            Ok(file) => return Ok((file, path)),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Goes on from some other number.
fn jump() {
    let random = RandomState::new().hash_one(NEXT.load(Ordering::Relaxed));
    NEXT.store(random % 10u64.pow(DIGITS as u32), Ordering::Relaxed);
}

/// The path of a file with this number. Each level takes its digits from the end.
fn path_of(place: &TempPath, number: u64) -> PathBuf {
    let name = format!("{number:0DIGITS$}");
    let (mut path, mut end) = (place.path.clone(), name.len());
    for digits in &place.levels {
        let start = end.saturating_sub(*digits);
        if start < end {
            path.push(&name[start..end]);
        }
        end = start;
    }
    path.join(name)
}

/// Does it again with the folder made, if the folder is missing.
fn or_make_folder<T>(folder: &Path, open: impl Fn() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    match open() {
        Err(Errno::NOENT) => {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOENT))?;
            open()
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> TempPath {
        let path = std::env::temp_dir().join(format!("topnext-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        TempPath { path, levels: vec![1, 2] }
    }

    #[test]
    fn names_have_ten_digits_and_lie_in_levels() {
        let place = |levels: &[usize]| TempPath { path: "t".into(), levels: levels.to_vec() };
        assert_eq!(path_of(&place(&[]), 427), Path::new("t/0000000427"));
        assert_eq!(path_of(&place(&[1, 2]), 427), Path::new("t/7/42/0000000427"));
        assert_eq!(path_of(&place(&[3, 3, 3, 3, 3]), 427), Path::new("t/427/000/000/0/0000000427"));
    }

    #[test]
    fn what_was_written_can_be_read_and_only_names_that_are_kept_stay() {
        let place = folder("temp-file");
        for (names, left) in [(InFileOnly::Off, 0), (InFileOnly::Clean, 0), (InFileOnly::On, 1)] {
            let mut file = TempFile::create(&place, names).unwrap();
            file.write(&[Bytes::from_static(b"one "), Bytes::from_static(b"two")]).unwrap();
            file.write(&[Bytes::from_static(b" three")]).unwrap();
            let (file, name) = file.finish().unwrap();
            let mut content = [0; 32];
            let n = file.read_blocking(0, &mut content).unwrap();
            assert_eq!(&content[..n], b"one two three");
            assert_eq!(file.size, 13);
            let path = name.as_ref().map(|name| name.path.clone());
            drop(name);
            let there = path.map_or(0, |path| usize::from(path.exists()));
            assert_eq!(there, left, "{names:?}");
        }
        fs::remove_dir_all(&place.path).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let place = TempPath { path: "/proc/topnext/none".into(), levels: Vec::new() };
        assert!(TempFile::create(&place, InFileOnly::Off).is_err());
        assert!(TempFile::create(&place, InFileOnly::On).is_err());
    }
}
