//! Bufs: pieces of a body, in memory or in a file, owned by whoever has them.
//!
//! A [`Buf`] is a node of the host's free lists. Its memory belongs to a `bytes::Bytes` of the image that made it and is
//! shared, never copied, across images and allocators; it goes back by drop, on whichever side that happens.

#![allow(clippy::should_implement_trait, reason = "the derive's accessor of the field `clone` gives the function back")]

use std::{
    fmt,
    mem::{ManuallyDrop, MaybeUninit},
    ptr::{self, NonNull},
    sync::atomic::AtomicPtr,
};

use abi_stable::{StableAbi, prefix_type::WithMetadata};
use bytes::Bytes;

use crate::{file::File, host, panic, running::Hook};

const FLUSH: u32 = 1;
const LAST_BUF: u32 = 2;
const LAST_IN_CHAIN: u32 = 4;

/// Four opaque words with room for one `bytes::Bytes`, which only the image that made it looks into.
///
/// `AtomicPtr` keeps provenance, and allows `Bytes` to promote itself in place through a shared reference.
#[repr(C)]
#[derive(StableAbi)]
pub struct Owner([AtomicPtr<()>; 4]);

/// How to copy and release an [`Owner`]: one table per image, whose address says who made the memory.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = BufOpsRef, prefix_fields = BufOpsPrefix)))]
#[sabi(missing_field(option))]
pub struct BufOps {
    /// Another owner of the same memory.
    pub clone: unsafe extern "C" fn(&Owner) -> Owner,
    /// Gives up one owner; the value must not be used again.
    #[sabi(last_prefix_field)]
    pub drop: unsafe extern "C" fn(&mut Owner),
}

/// The node behind a [`Buf`], as all images see it. Its layout never changes within a major version.
#[repr(C)]
#[derive(StableAbi)]
pub struct RawBuf {
    /// The next node of the chain that this one is in.
    pub(crate) next: *mut RawBuf,
    ptr: *const u8,
    len: usize,
    ops: BufOpsRef,
    owner: Owner,
    file: MaybeFile,
    file_pos: u64,
    file_len: u64,
    flags: u32,
    reserved: [u32; 3],
}

/// A file, or a null handle.
type MaybeFile = ManuallyDropFile;

/// A [`File`] that [`Buf`]'s drop releases by hand, since the node itself has none.
#[repr(transparent)]
#[derive(StableAbi)]
pub struct ManuallyDropFile(ManuallyDrop<File>);

const _: () = assert!(size_of::<Bytes>() <= size_of::<Owner>() && align_of::<Bytes>() <= align_of::<Owner>());
const _: () = assert!(size_of::<RawBuf>() == 136);

unsafe extern "C" fn clone_bytes(owner: &Owner) -> Owner {
    // SAFETY: this image's table is attached only to owners that this image filled with a Bytes. It is cloned in place,
    // through interior mutable words, because a Vec-backed Bytes promotes itself by writing to its own word.
    unsafe {
        let bytes = &*ptr::from_ref(owner).cast::<Bytes>();
        let mut out = MaybeUninit::<Owner>::uninit();
        out.as_mut_ptr().cast::<Bytes>().write(bytes.clone());
        out.assume_init()
    }
}

unsafe extern "C" fn drop_bytes(owner: &mut Owner) {
    // SAFETY: as in `clone_bytes`; the caller gives the owner up.
    let mut release = || unsafe { ptr::drop_in_place(ptr::from_mut(owner).cast::<Bytes>()) };
    match host::cell() {
        // The memory may have an owner of the module's own (Bytes::from_owner), whose drop may panic.
        Some(cell) => {
            let _ = panic::enter(cell, crate::module::slot(), Hook::BUF_RELEASE, release);
        }
        None => release(),
    }
}

static OPS: WithMetadata<BufOps> = WithMetadata::new(BufOps { clone: clone_bytes, drop: drop_bytes });

fn my_ops() -> BufOpsRef {
    BufOpsRef(OPS.static_as_prefix())
}

/// A piece of a body: memory, a range of a file, or only flags.
#[repr(transparent)]
#[derive(StableAbi)]
pub struct Buf(NonNull<RawBuf>);

// SAFETY: the node is owned by this value alone; its memory is a Bytes, its file a File, both of which are Send.
unsafe impl Send for Buf {}
// SAFETY: through a shared reference a Buf is only read, and cloned the way Bytes is, which is Sync.
unsafe impl Sync for Buf {}

impl Buf {
    fn new(bytes: Bytes, file: Option<(File, u64, u64)>, flags: u32) -> Buf {
        let (ptr, len) = (bytes.as_ptr(), bytes.len());
        let mut owner = MaybeUninit::<Owner>::uninit();
        // SAFETY: Owner has room and alignment for a Bytes, which is asserted above, and has no invalid bit patterns.
        let owner = unsafe {
            owner.as_mut_ptr().cast::<Bytes>().write(bytes);
            owner.assume_init()
        };
        let (file, file_pos, file_len) = match file {
            Some((file, pos, len)) => (file, pos, len),
            None => (crate::file::RawOpened::without_file(0).file, 0, 0),
        };
        let file = ManuallyDropFile(ManuallyDrop::new(file));
        let raw = RawBuf {
            next: ptr::null_mut(),
            ptr,
            len,
            ops: my_ops(),
            owner,
            file,
            file_pos,
            file_len,
            flags,
            reserved: [0; 3],
        };
        // SAFETY: the host hands out a node of this size, uninitialized and not aliased.
        unsafe {
            let node = host::expect().bufs().alloc()();
            node.write(raw);
            Buf(NonNull::new_unchecked(node))
        }
    }

    /// A copy of `data`.
    pub fn copy_from(data: &[u8]) -> Buf {
        Buf::new(Bytes::copy_from_slice(data), None, 0)
    }

    /// Memory that lives as long as the module.
    pub fn from_static(data: &'static [u8]) -> Buf {
        Buf::new(Bytes::from_static(data), None, 0)
    }

    /// `len` bytes of a file from `pos` on.
    pub fn from_file(file: File, pos: u64, len: u64) -> Buf {
        Buf::new(Bytes::new(), Some((file, pos, len)), 0)
    }

    /// No data, but the end of the response.
    pub fn last() -> Buf {
        Buf::new(Bytes::new(), None, LAST_BUF | LAST_IN_CHAIN)
    }

    /// No data, but the wish that all data before it be sent now.
    pub fn flush() -> Buf {
        Buf::new(Bytes::new(), None, FLUSH)
    }

    fn raw(&self) -> &RawBuf {
        // SAFETY: the node is initialized and owned by this value.
        unsafe { self.0.as_ref() }
    }

    fn raw_mut(&mut self) -> &mut RawBuf {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { self.0.as_mut() }
    }

    /// The number of bytes, in memory or in the file.
    pub fn len(&self) -> u64 {
        let raw = self.raw();
        if self.in_file() { raw.file_len } else { raw.len as u64 }
    }

    /// Whether it carries no data. It may still carry flags.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether its data are in a file.
    pub fn in_file(&self) -> bool {
        !self.raw().file.0.as_raw().is_null()
    }

    /// The file, where its data start in it, and how many bytes there are.
    pub fn file(&self) -> Option<(&File, u64, u64)> {
        let raw = self.raw();
        self.in_file().then(|| (&*raw.file.0, raw.file_pos, raw.file_len))
    }

    /// The data in memory; empty for a file.
    pub fn bytes(&self) -> &[u8] {
        let raw = self.raw();
        // SAFETY: ptr and len are a window of the memory that `owner` keeps alive.
        unsafe { std::slice::from_raw_parts(raw.ptr, raw.len) }
    }

    /// The data in memory as a `Bytes`, without copying. For memory of another image this costs one small allocation.
    pub fn into_bytes(self) -> Bytes {
        if ptr::eq(self.raw().ops.0.to_raw_ptr(), my_ops().0.to_raw_ptr()) {
            let mine = self.clone_owner();
            // SAFETY: the table is this image's, so the owner is a Bytes of this image, and this is a fresh share of it.
            let bytes = unsafe { ptr::from_ref(&*ManuallyDrop::new(mine)).cast::<Bytes>().read() };
            return bytes.slice_ref(self.bytes());
        }
        Bytes::from_owner(Foreign(self))
    }

    fn clone_owner(&self) -> Owner {
        let raw = self.raw();
        // SAFETY: the table is the one of the image that made the owner.
        unsafe { raw.ops.clone()(&raw.owner) }
    }

    /// Drops the first `n` bytes (at most all).
    pub fn advance(&mut self, n: u64) {
        let n = n.min(self.len());
        let in_file = self.in_file();
        let raw = self.raw_mut();
        if in_file {
            raw.file_pos += n;
            raw.file_len -= n;
        } else {
            // SAFETY: n is at most len, so the pointer stays within, or one past, the window.
            raw.ptr = unsafe { raw.ptr.add(n as usize) };
            raw.len -= n as usize;
        }
    }

    /// Keeps the first `n` bytes (at most all).
    pub fn truncate(&mut self, n: u64) {
        let n = n.min(self.len());
        let in_file = self.in_file();
        let raw = self.raw_mut();
        if in_file {
            raw.file_len = n;
        } else {
            raw.len = n as usize;
        }
    }

    /// Splits the first `n` bytes off into a buf of their own, which shares the memory and has no flags.
    pub fn split_to(&mut self, n: u64) -> Buf {
        let mut head = self.clone();
        head.raw_mut().flags = 0;
        head.truncate(n);
        self.advance(n);
        head
    }

    fn flag(&self, flag: u32) -> bool {
        self.raw().flags & flag != 0
    }

    fn set_flag(&mut self, flag: u32, on: bool) {
        let flags = &mut self.raw_mut().flags;
        *flags = if on { *flags | flag } else { *flags & !flag };
    }

    /// Whether the response ends with this buf.
    pub fn is_last(&self) -> bool {
        self.flag(LAST_BUF)
    }

    /// Says whether the response ends with this buf.
    pub fn set_last(&mut self, last: bool) {
        self.set_flag(LAST_BUF, last);
    }

    /// Whether all data up to here should be sent now.
    pub fn is_flush(&self) -> bool {
        self.flag(FLUSH)
    }

    /// Says whether all data up to here should be sent now.
    pub fn set_flush(&mut self, flush: bool) {
        self.set_flag(FLUSH, flush);
    }

    /// Whether the part of the response that was handed over at once (a subrequest's output, say) ends with this buf.
    pub fn is_last_in_chain(&self) -> bool {
        self.flag(LAST_IN_CHAIN)
    }

    /// Says whether a part of the response ends with this buf.
    pub fn set_last_in_chain(&mut self, last: bool) {
        self.set_flag(LAST_IN_CHAIN, last);
    }

    /// The node, for the kit, which made it.
    #[cfg(feature = "testing")]
    pub(crate) fn node(&self) -> *const RawBuf {
        self.0.as_ptr()
    }

    /// The node, given away.
    pub(crate) fn into_raw(self) -> *mut RawBuf {
        ManuallyDrop::new(self).0.as_ptr()
    }

    /// Takes a node over.
    ///
    /// # Safety
    /// `node` is initialized, and nobody else owns it.
    pub(crate) unsafe fn from_raw(node: NonNull<RawBuf>) -> Buf {
        Buf(node)
    }
}

/// Memory as another image would have made it, for tests: its table is another one, and its owner is not a `Bytes`.
#[cfg(feature = "testing")]
mod other_image {
    use std::sync::{Arc, atomic::Ordering};

    use super::*;

    static OPS: WithMetadata<BufOps> = WithMetadata::new(BufOps { clone, drop: release });

    fn memory(owner: &Owner) -> *const Vec<u8> {
        owner.0[0].load(Ordering::Relaxed).cast_const().cast()
    }

    unsafe extern "C" fn clone(owner: &Owner) -> Owner {
        // SAFETY: `from_other_image` put a counted pointer there, of which this owner has a share.
        unsafe { Arc::increment_strong_count(memory(owner)) };
        let [first, ..] = &owner.0;
        let null = || AtomicPtr::new(ptr::null_mut());
        Owner([AtomicPtr::new(first.load(Ordering::Relaxed)), null(), null(), null()])
    }

    unsafe extern "C" fn release(owner: &mut Owner) {
        // SAFETY: as above; the caller gives this share up.
        drop(unsafe { Arc::from_raw(memory(owner)) });
    }

    impl Buf {
        /// A copy of `data` in memory that is not this image's.
        pub(crate) fn from_other_image(data: &[u8]) -> Buf {
            let memory = Arc::new(data.to_vec());
            let (at, len) = (memory.as_ptr(), memory.len());
            let null = || AtomicPtr::new(ptr::null_mut());
            let owner = Owner([AtomicPtr::new(Arc::into_raw(memory).cast_mut().cast()), null(), null(), null()]);
            let mut buf = Buf::new(Bytes::new(), None, 0);
            // The empty Bytes owns nothing, so that overwriting it leaks nothing.
            let raw = buf.raw_mut();
            (raw.ptr, raw.len, raw.ops, raw.owner) = (at, len, BufOpsRef(OPS.static_as_prefix()), owner);
            buf
        }
    }
}

/// Shares the memory or file and copies the flags.
impl Clone for Buf {
    fn clone(&self) -> Buf {
        let raw = self.raw();
        let file = self.file().map(|(file, pos, len)| (file.clone(), pos, len));
        let mut copy = Buf::new(Bytes::new(), file, raw.flags);
        let owner = self.clone_owner();
        let to = copy.raw_mut();
        // The empty Bytes that `new` put there owns nothing, so that overwriting it leaks nothing.
        (to.ptr, to.len, to.ops, to.owner) = (raw.ptr, raw.len, raw.ops, owner);
        copy
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        let node = self.0.as_ptr();
        let raw = self.raw_mut();
        // SAFETY: the owner is released once, by the table of the image that made it, and not used again.
        unsafe { raw.ops.drop()(&mut raw.owner) };
        if !raw.file.0.as_raw().is_null() {
            // SAFETY: released once, here.
            unsafe { ManuallyDrop::drop(&mut raw.file.0) };
        }
        if let Some(host) = host::get() {
            // SAFETY: the node came from this host and what it owned is gone.
            unsafe { host.bufs().free()(node) };
        }
    }
}

impl From<Bytes> for Buf {
    fn from(bytes: Bytes) -> Buf {
        Buf::new(bytes, None, 0)
    }
}

impl From<Vec<u8>> for Buf {
    fn from(data: Vec<u8>) -> Buf {
        Buf::from(Bytes::from(data))
    }
}

impl From<String> for Buf {
    fn from(text: String) -> Buf {
        Buf::from(Bytes::from(text))
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buf")
            .field("len", &self.len())
            .field("in_file", &self.in_file())
            .field("last", &self.is_last())
            .field("flush", &self.is_flush())
            .finish()
    }
}

/// Memory of another image, as the owner behind a `Bytes` of this one.
struct Foreign(Buf);

impl AsRef<[u8]> for Foreign {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::{file::FileKind, testing::host_tests};

    /// Own memory, static memory, and memory of another image: all hold the same text.
    fn bufs(text: &'static str) -> [Buf; 4] {
        let vec = Buf::from(text.to_string());
        [
            vec,
            Buf::from_static(text.as_bytes()),
            Buf::copy_from(text.as_bytes()),
            Buf::from_other_image(text.as_bytes()),
        ]
    }

    #[test]
    fn splits_and_advances() {
        host_tests::counted(|| {
            for mut buf in bufs("hello, world") {
                buf.set_last(true);
                let mut head = buf.split_to(5);
                assert_eq!((head.bytes(), buf.bytes()), (&b"hello"[..], &b", world"[..]));
                assert!(!head.is_last() && buf.is_last());
                head.advance(1);
                head.truncate(3);
                buf.advance(100);
                assert_eq!((head.bytes(), head.len(), buf.bytes(), buf.len()), (&b"ell"[..], 3, &b""[..], 0));
                assert!(buf.is_empty() && !head.is_empty());
                assert_eq!(head.split_to(9).bytes(), b"ell");
                assert!(head.is_empty());
            }
        });
    }

    #[test]
    fn clones_share_the_memory() {
        host_tests::counted(|| {
            for buf in bufs("shared") {
                let mut clone = buf.clone();
                assert_eq!(clone.bytes().as_ptr(), buf.bytes().as_ptr());
                clone.set_flush(true);
                assert!(clone.is_flush() && !buf.is_flush());
                drop(buf);
                assert_eq!(clone.bytes(), b"shared");
                assert_eq!(clone.clone().clone().bytes(), b"shared");
            }
        });
    }

    #[test]
    fn into_bytes_copies_nothing() {
        host_tests::counted(|| {
            for mut buf in bufs("abcdef") {
                buf.advance(2);
                buf.truncate(3);
                let at = buf.bytes().as_ptr();
                let kept = buf.clone();
                let bytes = buf.into_bytes();
                assert_eq!((&bytes[..], bytes.as_ptr()), (&b"cde"[..], at));
                drop(kept);
                let slice = bytes.slice(1..);
                drop(bytes);
                assert_eq!(&Buf::from(slice).into_bytes()[..], b"de");
            }
        });
    }

    #[test]
    fn memory_of_another_image_is_released_once() {
        struct Counts(Arc<AtomicUsize>);
        impl Drop for Counts {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        impl AsRef<[u8]> for Counts {
            fn as_ref(&self) -> &[u8] {
                b"counted"
            }
        }
        host_tests::counted(|| {
            let drops = Arc::new(AtomicUsize::new(0));
            let buf = Buf::from(Bytes::from_owner(Counts(drops.clone())));
            let (clone, bytes) = (buf.clone(), buf.clone().into_bytes());
            drop(buf);
            drop(clone);
            assert_eq!(drops.load(Ordering::SeqCst), 0);
            drop(bytes);
            assert_eq!(drops.load(Ordering::SeqCst), 1);
        });
    }

    #[test]
    fn a_panic_while_memory_is_released_is_caught() {
        struct Panics;
        impl Drop for Panics {
            fn drop(&mut self) {
                panic!("in the owner");
            }
        }
        impl AsRef<[u8]> for Panics {
            fn as_ref(&self) -> &[u8] {
                b"x"
            }
        }
        let panics = host_tests::counted(|| drop(Buf::from(Bytes::from_owner(Panics))));
        assert_eq!(panics.len(), 1);
        assert_eq!((panics[0].hook.as_str(), panics[0].message.as_str()), ("buf release", "in the owner"));
    }

    #[test]
    fn a_file_buf_is_a_range_of_its_file() {
        host_tests::counted(|| {
            let file = host_tests::open(b"0123456789", FileKind::Regular);
            let mut buf = Buf::from_file(file, 2, 6);
            assert!(buf.in_file() && buf.bytes().is_empty() && buf.len() == 6);
            let head = buf.split_to(2);
            buf.advance(1);
            buf.truncate(2);
            let range = |buf: &Buf| buf.file().map(|(_, pos, len)| (pos, len));
            assert_eq!((range(&head), range(&buf)), (Some((2, 2)), Some((5, 2))));
            assert_eq!(head.file().map(|(file, ..)| (file.size(), file.kind())), Some((10, FileKind::Regular)));
            assert!(head.into_bytes().is_empty());
        });
    }

    #[test]
    fn flags() {
        host_tests::counted(|| {
            let (last, flush) = (Buf::last(), Buf::flush());
            assert!(last.is_last() && last.is_last_in_chain() && !last.is_flush() && last.is_empty());
            assert!(flush.is_flush() && !flush.is_last() && !flush.is_last_in_chain());
            let mut buf = last;
            buf.set_last(false);
            buf.set_last_in_chain(false);
            assert!(!buf.is_last() && !buf.is_last_in_chain());
        });
    }

    #[test]
    fn may_be_dropped_on_another_thread() {
        host_tests::counted(|| {
            let bufs = bufs("elsewhere");
            let joined = std::thread::spawn(move || bufs.iter().map(Buf::len).sum::<u64>()).join();
            assert_eq!(joined.ok(), Some(36));
        });
    }
}
