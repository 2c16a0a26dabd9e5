//! Calls from other threads into a loop: completions of the thread pool, and wakers of modules.
//!
//! Sources do not leave their thread, so other threads know them by an id with a generation; a call to a source that
//! has gone is dropped. The queue is bounded, because each waker has at most one call in it.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use slab::Slab;

use super::{Source, key::Key};

/// A source, as other threads name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteId {
    key: Key,
    generation: u64,
}

/// A loop, as other threads reach it.
pub struct Remote {
    queue: Mutex<Vec<Call>>,
    waker: mio::Waker,
    /// A wake has been sent and not been answered yet, so that another is not needed.
    woken: AtomicBool,
    stop: AtomicBool,
}

struct Call {
    id: RemoteId,
    code: u64,
    /// Cleared when the call is made.
    pending: Option<Arc<AtomicBool>>,
}

thread_local! {
    static TARGETS: RefCell<Targets> = const { RefCell::new(Targets { slab: Slab::new(), generation: 0 }) };
}

struct Targets {
    slab: Slab<(u64, Weak<dyn Source>)>,
    generation: u64,
}

impl Remote {
    pub(super) fn new(waker: mio::Waker) -> Arc<Remote> {
        Arc::new(Remote {
            queue: Mutex::new(Vec::new()),
            waker,
            woken: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        })
    }

    /// Has `source.posted(code)` called on the loop's thread. Callable on any thread.
    pub fn call(&self, id: RemoteId, code: u64) {
        self.queue_call(id, code, None);
    }

    fn queue_call(&self, id: RemoteId, code: u64, pending: Option<Arc<AtomicBool>>) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(Call { id, code, pending });
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// Has the loop turn. Callable on any thread.
    pub(super) fn wake(&self) {
        // It fails only if the loop is gone, and then nobody waits.
        let _ = self.waker.wake();
    }

    /// Ends the loop after its current turn. Callable on any thread.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether the loop is to end.
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// As [`Remote::call`], unless a call with the same `pending` is on its way. Bounds what a waker can queue.
    pub fn call_once(&self, id: RemoteId, code: u64, pending: &Arc<AtomicBool>) {
        if !pending.swap(true, Ordering::AcqRel) {
            self.queue_call(id, code, Some(pending.clone()));
        }
    }

    /// The calls that have come, for sources that are still there.
    pub(super) fn take(&self) -> Vec<(Rc<dyn Source>, u64)> {
        self.woken.store(false, Ordering::Release);
        let calls = std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner));
        let arrive = |call: Call| {
            if let Some(pending) = call.pending {
                pending.store(false, Ordering::Release);
            }
            Some((find(call.id)?, call.code))
        };
        calls.into_iter().filter_map(arrive).collect()
    }
}

/// A call of a source, to be made by another thread.
pub struct Reply {
    remote: Arc<Remote>,
    id: RemoteId,
    code: u64,
}

impl Reply {
    /// `posted(code)` of this source.
    pub fn new(remote: &Arc<Remote>, id: RemoteId, code: u64) -> Reply {
        Reply { remote: remote.clone(), id, code }
    }

    /// Makes the call when what is returned is dropped.
    pub fn at_end(self) -> impl Drop {
        struct AtEnd(Reply);
        impl Drop for AtEnd {
            fn drop(&mut self) {
                self.0.remote.call(self.0.id, self.0.code);
            }
        }
        AtEnd(self)
    }
}

/// Makes a source of this thread's loop known to other threads, until [`forget`].
pub fn announce(source: &Rc<dyn Source>) -> RemoteId {
    TARGETS.with_borrow_mut(|targets| {
        targets.generation += 1;
        let generation = targets.generation;
        RemoteId { key: Key::new(targets.slab.insert((generation, Rc::downgrade(source)))), generation }
    })
}

/// Ends it: calls that come later are dropped.
pub fn forget(id: RemoteId) {
    TARGETS.with_borrow_mut(|targets| {
        if targets.slab.get(id.key.index()).is_some_and(|(generation, _)| *generation == id.generation) {
            targets.slab.remove(id.key.index());
        }
    });
}

/// The id of a source that is announced when somebody first asks for it.
#[derive(Default)]
pub struct Announcement(Cell<Option<RemoteId>>);

impl Announcement {
    /// The id. `source` is always the same, and calls [`Announcement::forget`] when it ends.
    pub fn id<S: Source + 'static>(&self, source: &Rc<S>) -> RemoteId {
        let id = self.0.get().unwrap_or_else(|| {
            let source: Rc<dyn Source> = source.clone();
            announce(&source)
        });
        self.0.set(Some(id));
        id
    }

    /// Whether other threads know it.
    pub fn is_known(&self) -> bool {
        self.0.get().is_some()
    }

    /// Calls that come later are dropped.
    pub fn forget(&self) {
        if let Some(id) = self.0.take() {
            forget(id);
        }
    }
}

fn find(id: RemoteId) -> Option<Rc<dyn Source>> {
    TARGETS.with_borrow(|targets| {
        let (generation, source) = targets.slab.get(id.key.index())?;
        if *generation == id.generation { source.upgrade() } else { None }
    })
}
