//! What calls a hook again from outside: wakers, and jobs on threads of their own.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use super::host::Kit;
use crate::{
    running::Running,
    wake::{RawJob, RawWaker},
};

/// How long the kit waits, in real time, for a waker that somebody still has. Only a broken module makes it wait so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// The part of a request that other threads reach.
#[derive(Default)]
pub(crate) struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    woken: Vec<Running>,
    jobs: usize,
    wakers: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// A hook that was woken.
    pub(crate) fn woken(&self) -> Option<Running> {
        self.lock().woken.pop()
    }

    /// Waits for a job to end; `None` if there is none.
    pub(crate) fn wait_for_job(&self) -> Option<Running> {
        let wait = |inner: &mut Inner| inner.jobs > 0 && inner.woken.is_empty();
        let mut inner = self.changed.wait_while(self.lock(), wait).unwrap_or_else(PoisonError::into_inner);
        inner.woken.pop()
    }

    /// Waits for a waker to be used; `None` if nobody has one.
    pub(crate) fn wait_for_waker(&self) -> Option<Running> {
        let wait = |inner: &mut Inner| inner.wakers > 0 && inner.woken.is_empty();
        let waited = self.changed.wait_timeout_while(self.lock(), PATIENCE, wait);
        waited.unwrap_or_else(PoisonError::into_inner).0.woken.pop()
    }

    /// Waits until no job runs: a job keeps its request alive.
    pub(crate) fn join_jobs(&self) {
        drop(self.changed.wait_while(self.lock(), |inner| inner.jobs > 0));
    }

    /// Runs a job on a thread of its own. The hook is woken when it is done.
    pub(crate) fn offload(self: &Arc<Shared>, kit: &Arc<Kit>, hook: Running, job: RawJob) {
        self.change(|inner| inner.jobs += 1);
        let (shared, kit) = (self.clone(), kit.clone());
        thread::spawn(move || {
            let job = job;
            {
                let _kit = kit.enter();
                // SAFETY: the job is run once, and not dropped as well.
                unsafe { (job.run)(job.ptr) }
            }
            shared.change(|inner| {
                inner.jobs -= 1;
                inner.woken.push(hook);
            });
        });
    }

    /// A waker for this hook.
    pub(crate) fn waker(self: &Arc<Shared>, hook: Running) -> RawWaker {
        self.change(|inner| inner.wakers += 1);
        let share = Arc::new(Share { shared: self.clone(), hook });
        RawWaker { ptr: Arc::into_raw(share).cast(), wake, clone, drop: release }
    }
}

/// What a waker points to.
struct Share {
    shared: Arc<Shared>,
    hook: Running,
}

unsafe extern "C" fn wake(ptr: *const ()) {
    // SAFETY: made by `waker`; the caller owns a share.
    let share = unsafe { &*ptr.cast::<Share>() };
    share.shared.change(|inner| {
        if !inner.woken.contains(&share.hook) {
            inner.woken.push(share.hook);
        }
    });
}

unsafe extern "C" fn clone(ptr: *const ()) -> *const () {
    // SAFETY: as in `wake`.
    unsafe {
        Arc::increment_strong_count(ptr.cast::<Share>());
        (*ptr.cast::<Share>()).shared.change(|inner| inner.wakers += 1);
    }
    ptr
}

unsafe extern "C" fn release(ptr: *const ()) {
    // SAFETY: as in `wake`; the caller gives its share up.
    let share = unsafe { Arc::from_raw(ptr.cast::<Share>()) };
    share.shared.change(|inner| inner.wakers -= 1);
}
