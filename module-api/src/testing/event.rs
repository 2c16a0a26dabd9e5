//! What calls a hook again from outside: wakers, and jobs on threads of their own.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use super::kit::{Counted, Kind, Kit};
use crate::{
    running::Running,
    wake::{RawJob, RawWaker},
};

/// How long the kit waits, in real time, for a job, or for a waker that somebody still has. Only a broken module makes it
/// wait so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How long wakers may outlive their request: a thread of the module may have one, and gives it up when it has used it.
const PARTING: Duration = Duration::from_secs(5);

/// The part of a request that other threads reach.
#[derive(Default)]
pub(crate) struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    woken: Vec<Running>,
    /// The hooks whose jobs run.
    jobs: Vec<Running>,
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
        let wait = |inner: &mut Inner| !inner.jobs.is_empty() && inner.woken.is_empty();
        self.wait(PATIENCE, wait).woken.pop()
    }

    /// Waits for a waker to be used; `None` if nobody has one.
    pub(crate) fn wait_for_waker(&self) -> Option<Running> {
        let wait = |inner: &mut Inner| inner.wakers > 0 && inner.woken.is_empty();
        self.wait(PATIENCE, wait).woken.pop()
    }

    /// Waits until no job runs any more. The hooks whose jobs do not come to an end in time.
    pub(crate) fn join_jobs(&self, time: Duration) -> Vec<Running> {
        self.wait(time, |inner| !inner.jobs.is_empty()).jobs.clone()
    }

    /// Waits until nobody has a waker any more. Those that are left are told as leaks.
    pub(crate) fn join_wakers(&self) {
        drop(self.wait(PARTING, |inner| inner.wakers > 0));
    }

    fn wait(&self, time: Duration, wait: impl FnMut(&mut Inner) -> bool) -> MutexGuard<'_, Inner> {
        let waited = self.changed.wait_timeout_while(self.lock(), time, wait);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Runs a job on a thread of its own. The hook is woken when it is done.
    pub(crate) fn offload(self: &Arc<Shared>, kit: &Arc<Kit>, hook: Running, job: RawJob) {
        self.change(|inner| inner.jobs.push(hook));
        let (shared, kit) = (self.clone(), kit.clone());
        thread::spawn(move || {
            let job = job;
            {
                let _kit = kit.enter();
                // SAFETY: the job is run once, and not dropped as well.
                unsafe { (job.run)(job.ptr) }
            }
            shared.change(|inner| {
                if let Some(at) = inner.jobs.iter().position(|job| *job == hook) {
                    inner.jobs.swap_remove(at);
                }
                inner.woken.push(hook);
            });
        });
    }

    /// A waker for this hook.
    pub(crate) fn waker(self: &Arc<Shared>, hook: Running) -> RawWaker {
        self.change(|inner| inner.wakers += 1);
        let share = Arc::new(Share { shared: self.clone(), hook, _counted: Counted::new(Kind::Waker) });
        RawWaker { ptr: Arc::into_raw(share).cast(), wake, clone, drop: release }
    }
}

/// What a waker points to.
struct Share {
    shared: Arc<Shared>,
    hook: Running,
    _counted: Counted,
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
    let shared = share.shared.clone();
    // First, so that who waits for the last one does not find it still counted.
    drop(share);
    shared.change(|inner| inner.wakers -= 1);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::{Job, running::Hook};

    #[test]
    fn a_job_that_does_not_end_is_told_with_its_hook() {
        let (kit, _guard) = Kit::start();
        let shared = Arc::new(Shared::default());
        let (go, wait) = channel::<()>();
        let (_job, raw) = Job::new(move || wait.recv().is_err());
        let hook = Running { module: 1, hook: Hook::CONTENT };
        shared.offload(&kit, hook, raw);
        assert_eq!(shared.join_jobs(Duration::ZERO), [hook]);
        drop(go);
        assert_eq!(shared.join_jobs(PATIENCE), []);
        assert_eq!(shared.woken(), Some(hook));
    }
}
