//! Memory that processes share: a file in memory, mapped as words that are read and written atomically.
#![allow(unsafe_code)]

use std::{
    ffi::c_void,
    io,
    os::fd::{AsFd, OwnedFd},
    ptr::NonNull,
    slice,
    sync::atomic::AtomicU64,
};

use rustix::{
    fs::{MemfdFlags, SealFlags},
    mm::{MapFlags, ProtFlags},
};

/// The size of a word.
const WORD: usize = size_of::<AtomicU64>();

/// New memory of this many bytes, all zero. Nobody can change its size, which would be a fault for those who map it.
pub fn create(name: &str, bytes: u64) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&fd, bytes)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Shared memory, mapped until it is dropped.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the words are atomic, and the mapping belongs to no thread.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the whole file. An error if it is empty, or its size could change.
    pub fn new(fd: impl AsFd) -> io::Result<Mapping> {
        let wanted = SealFlags::SHRINK | SealFlags::GROW;
        if !rustix::fs::fcntl_get_seals(&fd)?.contains(wanted) {
            return Err(io::Error::other("its size could change"));
        }
        let bytes = usize::try_from(rustix::fs::fstat(&fd)?.st_size).unwrap_or(0);
        if bytes < WORD {
            return Err(io::Error::other("it is empty"));
        }
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: the kernel chooses a place that nothing else uses.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, protection, flags, fd, 0)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { start, words: bytes / WORD })
    }

    /// Its words.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the memory is mapped as long as `self` lives, is aligned to a page, and has this many words; a file whose
        // size is sealed does not become shorter. Any bytes are a word, and others change them only as a whole, for all map
        // them as atomic words.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }

    /// Its words, for as long as the process lives.
    pub fn leak(self) -> &'static [AtomicU64] {
        let mapping: &'static Mapping = Box::leak(Box::new(self));
        mapping.words()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is what was mapped, and the words that were borrowed from it are gone with `self`.
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr().cast::<c_void>(), self.words * WORD) };
        debug_assert!(result.is_ok(), "what was mapped can be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn two_mappings_see_the_same_words() {
        let fd = create("test", 8192).expect("memory");
        let (one, other) = (Mapping::new(&fd).expect("mapped"), Mapping::new(&fd).expect("mapped"));
        assert_eq!(one.words().len(), 1024);
        one.words()[1023].store(7, Ordering::Relaxed);
        assert_eq!(other.words()[1023].load(Ordering::Relaxed), 7);
        drop(one);
        assert_eq!(other.words()[1023].load(Ordering::Relaxed), 7);
    }

    #[test]
    fn what_could_become_shorter_is_not_mapped() {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).expect("a file");
        rustix::fs::ftruncate(&fd, 4096).expect("room");
        assert!(Mapping::new(&fd).is_err());
        assert!(Mapping::new(create("test", 0).expect("memory")).is_err());
    }
}
