//! Nodes of chains, from free lists per thread, and the handles of open files.

use std::{cell::RefCell, mem::MaybeUninit, os::fd::AsRawFd, sync::Arc};

use abi_stable::prefix_type::WithMetadata;
use topnext_module_api::{
    File,
    buf::RawBuf,
    host::{BufApi, BufApiRef},
};

use crate::{
    open_file::OpenFile,
    stats::{self, Counter},
};

/// The most free nodes that a thread keeps.
const MAX_FREE: usize = 1024;

type Node = Box<MaybeUninit<RawBuf>>;

thread_local! {
    static FREE: RefCell<Vec<Node>> = const { RefCell::new(Vec::new()) };
}

static API: WithMetadata<BufApi> = WithMetadata::new(BufApi { alloc, free, file_clone, file_drop, file_fd });

/// The table.
pub const fn api() -> BufApiRef {
    BufApiRef(API.static_as_prefix())
}

unsafe extern "C" fn alloc() -> *mut RawBuf {
    stats::add(Counter::Bufs, 1);
    let free = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
    let node: Node = free.unwrap_or_else(Box::new_uninit);
    Box::into_raw(node).cast()
}

unsafe extern "C" fn free(buf: *mut RawBuf) {
    stats::add(Counter::Bufs, -1);
    // SAFETY: the node came from `alloc` as a Box of this type, on whichever thread; nobody uses it any more.
    let node: Node = unsafe { Box::from_raw(buf.cast()) };
    // At the end of a thread its list may be gone: then the node is simply dropped.
    let _ = FREE.try_with(|free| {
        let mut free = free.borrow_mut();
        if free.len() < MAX_FREE {
            free.push(node);
        }
    });
}

unsafe extern "C" fn file_clone(file: *const ()) -> *const () {
    // SAFETY: the handle came from Arc::into_raw in `handle`, and the caller owns a share.
    unsafe { Arc::increment_strong_count(file.cast::<OpenFile>()) };
    file
}

unsafe extern "C" fn file_drop(file: *const ()) {
    // SAFETY: as above; the caller gives its share up.
    drop(unsafe { Arc::from_raw(file.cast::<OpenFile>()) });
}

unsafe extern "C" fn file_fd(file: *const ()) -> i32 {
    // SAFETY: as above; the caller owns a share.
    let file = unsafe { &*file.cast::<OpenFile>() };
    file.descriptor().map_or(-1, |fd| fd.as_raw_fd())
}

/// A module's handle of an open file.
pub fn handle(file: Arc<OpenFile>) -> File {
    let (size, mtime, nanos, kind) = (file.size, file.mtime, file.mtime_nanos, file.kind);
    // SAFETY: the handle is the host's own, and its share passes to the value.
    unsafe { File::from_raw(Arc::into_raw(file).cast(), size, mtime, nanos, kind) }
}

/// The open file behind a module's handle.
pub fn open_file(file: &File) -> Option<&OpenFile> {
    // SAFETY: handles are made by `handle` only, and the borrowed value owns a share, so that the file outlives the borrow.
    unsafe { file.as_raw().cast::<OpenFile>().as_ref() }
}

/// Another owner of it.
pub fn share(file: &File) -> Option<Arc<OpenFile>> {
    let ptr = file.as_raw().cast::<OpenFile>();
    if ptr.is_null() {
        return None;
    }
    // SAFETY: as above; the count that is added is the new owner's.
    Some(unsafe {
        Arc::increment_strong_count(ptr);
        Arc::from_raw(ptr)
    })
}
