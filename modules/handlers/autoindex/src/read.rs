//! Reads a folder that the host has opened: names, and what each of them is. Blocks, so it runs on the thread pool.
//!
//! ```text
//! openat(folder, ".")                a place in it of our own
//! getdents64(folder)                 many names at once
//! newfstatat(folder, name)           what each is, without looking for the folder again
//! ```

use std::{ffi::CStr, io, mem::MaybeUninit, ops::Range, os::fd::OwnedFd};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat},
    io::Errno,
};
use topnext_module_api::{File, Wanted};

/// Memory for the entries of one folder: about 300,000 of them. A folder with more is not listed.
const MAX_BYTES: usize = 24 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Folder,
    File,
    /// A device, a socket, a link to nothing.
    Other,
}

/// An entry of a folder. Its name is in the [`Listing`].
#[derive(Clone, Debug)]
pub struct Entry {
    name: Range<u32>,
    /// The first bytes of the name, with which most comparisons end.
    prefix: u64,
    /// What it is; for a link, what it leads to.
    pub kind: Kind,
    /// Time of modification, in seconds since 1970.
    pub mtime: i64,
    /// Its size in bytes.
    pub size: u64,
}

/// The entries of a folder: folders first, then the others, by the bytes of their names.
#[derive(Debug, Default)]
pub struct Listing {
    names: Vec<u8>,
    entries: Vec<Entry>,
    /// Entries that are left out, since we may not ask what they are; and the name of the first.
    pub hidden: Option<(usize, Vec<u8>)>,
}

/// Why a folder cannot be listed.
#[derive(Debug)]
pub enum Failed {
    /// It cannot be opened.
    Open(io::Error),
    /// It cannot be read.
    Read(io::Error),
    /// What an entry is cannot be found out.
    Stat(Vec<u8>, io::Error),
    /// It has too many entries.
    TooMany,
    /// Nobody waits for it any more.
    Unwanted,
}

impl Listing {
    /// Reads a folder, as long as it is wanted. Names that begin with a dot are left out. Links are shown as what they lead
    /// to, if they are followed.
    pub fn read(folder: &File, follows_links: bool, wanted: &Wanted) -> Result<Listing, Failed> {
        if !wanted.is_wanted() {
            return Err(Failed::Unwanted);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // The path is not used again: it may lead elsewhere by now.
        let folder =
            folder.as_fd().ok_or(Errno::NOTDIR).and_then(|fd| rustix::fs::openat(fd, ".", flags, Mode::empty()));
        let folder = folder.map_err(|error| Failed::Open(error.into()))?;
        let mut listing = Listing::default();
        let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
        let mut names = RawDir::new(&folder, &mut buffer);
        while let Some(entry) = names.next() {
            let entry = entry.map_err(|error| Failed::Read(error.into()))?;
            let name = entry.file_name();
            if !wanted.is_wanted() {
                return Err(Failed::Unwanted);
            }
            if !name.to_bytes().starts_with(b".") {
                listing.add(&folder, name, follows_links)?;
            }
        }
        let Listing { names, entries, .. } = &mut listing;
        let key = |entry: &Entry| (entry.kind != Kind::Folder, entry.prefix);
        entries.sort_unstable_by(|a, b| key(a).cmp(&key(b)).then_with(|| name_of(names, a).cmp(name_of(names, b))));
        Ok(listing)
    }

    fn add(&mut self, folder: &OwnedFd, name: &CStr, follows_links: bool) -> Result<(), Failed> {
        let bytes = name.to_bytes();
        let flags = if follows_links { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let stat = match rustix::fs::statat(folder, name, flags) {
            // A link that leads nowhere: what it is itself.
            Err(Errno::NOENT | Errno::LOOP) => rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW),
            other => other,
        };
        let stat = match stat {
            Ok(stat) => stat,
            // It has gone meanwhile.
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ACCESS) => {
                self.hidden.get_or_insert_with(|| (0, bytes.to_vec())).0 += 1;
                return Ok(());
            }
            Err(error) => return Err(Failed::Stat(bytes.to_vec(), error.into())),
        };
        self.push(bytes, &stat)
    }

    fn push(&mut self, name: &[u8], stat: &Stat) -> Result<(), Failed> {
        if self.names.len() + (self.entries.len() + 1) * size_of::<Entry>() + name.len() > MAX_BYTES {
            return Err(Failed::TooMany);
        }
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Folder,
            FileType::RegularFile => Kind::File,
            _ => Kind::Other,
        };
        let mut prefix = [0; 8];
        let known = name.len().min(prefix.len());
        prefix[..known].copy_from_slice(&name[..known]);
        // Less than MAX_BYTES.
        let start = self.names.len() as u32;
        self.names.extend_from_slice(name);
        self.entries.push(Entry {
            name: start..self.names.len() as u32,
            prefix: u64::from_be_bytes(prefix),
            kind,
            mtime: stat.st_mtime,
            size: u64::try_from(stat.st_size).unwrap_or(0),
        });
        Ok(())
    }

    /// The entries in order, from this one on, with their names.
    pub fn from(&self, at: usize) -> impl Iterator<Item = (&[u8], &Entry)> {
        self.entries.iter().skip(at).map(|entry| (name_of(&self.names, entry), entry))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

fn name_of<'n>(names: &'n [u8], entry: &Entry) -> &'n [u8] {
    names.get(entry.name.start as usize..entry.name.end as usize).unwrap_or_default()
}

#[cfg(test)]
impl Listing {
    /// A listing of these entries, for tests of what is made of it.
    pub fn of(entries: &[(&[u8], Kind, i64, u64)]) -> Listing {
        let mut listing = Listing::default();
        for &(name, kind, mtime, size) in entries {
            let start = listing.names.len() as u32;
            listing.names.extend_from_slice(name);
            let name = start..listing.names.len() as u32;
            listing.entries.push(Entry { name, prefix: 0, kind, mtime, size });
        }
        listing
    }
}
