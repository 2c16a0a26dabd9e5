//! Being called again: wakers that work from any thread, and jobs for the thread pool.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use abi_stable::StableAbi;

#[cfg(feature = "testing")]
use crate::testing::{Counted, Kind};
use crate::{host, module, panic, running::Hook};

/// A waker in the ABI: a counted pointer of the host.
#[repr(C)]
#[derive(StableAbi)]
pub struct RawWaker {
    /// The host's pointer.
    pub ptr: *const (),
    /// Wakes; callable on any thread, any number of times.
    pub wake: unsafe extern "C" fn(ptr: *const ()),
    /// Another owner.
    pub clone: unsafe extern "C" fn(ptr: *const ()) -> *const (),
    /// Gives one owner up.
    pub drop: unsafe extern "C" fn(ptr: *const ()),
}

/// Has the hook that asked for it called again, from any thread. A wake that comes too late is dropped.
///
/// A body filter is called with an empty chain, a handler as it was the first time.
pub struct Waker(RawWaker);

// SAFETY: the host's pointer is reference counted atomically and its functions are callable on any thread.
unsafe impl Send for Waker {}
// SAFETY: as above.
unsafe impl Sync for Waker {}

impl Waker {
    pub(crate) fn from_raw(raw: RawWaker) -> Waker {
        Waker(raw)
    }

    /// Wakes. Several wakes before the hook runs count as one.
    pub fn wake(&self) {
        // SAFETY: this value owns a share of the pointer.
        unsafe { (self.0.wake)(self.0.ptr) }
    }
}

impl Clone for Waker {
    fn clone(&self) -> Waker {
        // SAFETY: this value owns a share of the pointer.
        let ptr = unsafe { (self.0.clone)(self.0.ptr) };
        Waker(RawWaker { ptr, ..self.0 })
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        // SAFETY: the share of this value ends here.
        unsafe { (self.0.drop)(self.0.ptr) }
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

/// A job in the ABI: run once on a pool thread, or dropped without having run.
#[repr(C)]
#[derive(StableAbi)]
pub struct RawJob {
    /// What `run` and `drop` are called with; exactly one of them is.
    pub ptr: *mut (),
    /// Runs the job, and frees it.
    pub run: unsafe extern "C" fn(ptr: *mut ()),
    /// Frees the job.
    pub drop: unsafe extern "C" fn(ptr: *mut ()),
}

// SAFETY: it is only made from a closure that is Send.
unsafe impl Send for RawJob {}

/// The result of work that was handed to the thread pool.
///
/// Keep it in the request's context; the hook that offloaded the work is called again when it is done.
pub struct Job<T> {
    state: Arc<Mutex<State<T>>>,
    /// What [`Wanted`] looks at.
    _wanted: Arc<()>,
    #[cfg(feature = "testing")]
    _counted: Counted,
}

/// Whether the [`Job`] of some work is still there.
#[derive(Debug)]
pub struct Wanted(Weak<()>);

impl Wanted {
    /// False once nobody can ask for the result any more. Cheap; callable on any thread.
    pub fn is_wanted(&self) -> bool {
        self.0.strong_count() > 0
    }
}

enum State<T> {
    Running,
    Done(T),
    Failed,
}

impl<T: Send + 'static> Job<T> {
    pub(crate) fn new(work: impl FnOnce() -> T + Send + 'static) -> (Job<T>, RawJob) {
        Job::while_wanted(|_| work())
    }

    pub(crate) fn while_wanted(work: impl FnOnce(&Wanted) -> T + Send + 'static) -> (Job<T>, RawJob) {
        let held = Arc::new(());
        let wanted = Wanted(Arc::downgrade(&held));
        let state = Arc::new(Mutex::new(State::Running));
        let result = state.clone();
        // Neither a panic in the work nor a job that is dropped without having run leaves the state at "running".
        let mut fail = FailOnDrop(Some(result));
        let raw = raw_job(move || {
            let value = work(&wanted);
            if let Some(result) = fail.0.take() {
                *lock(&result) = State::Done(value);
            }
        });
        let job = Job {
            state,
            _wanted: held,
            #[cfg(feature = "testing")]
            _counted: Counted::new(Kind::Job),
        };
        (job, raw)
    }

    /// The result, once; `None` while it is not there.
    ///
    /// An error if the work panicked (which has been logged).
    pub fn poll(&mut self) -> Option<Result<T, JobFailed>> {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut *state, State::Failed) {
            State::Running => {
                *state = State::Running;
                None
            }
            State::Done(value) => Some(Ok(value)),
            State::Failed => Some(Err(JobFailed)),
        }
    }
}

impl<T> fmt::Debug for Job<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Job")
    }
}

/// The job panicked, or its result was taken before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobFailed;

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct FailOnDrop<T>(Option<Arc<Mutex<State<T>>>>);

impl<T> Drop for FailOnDrop<T> {
    fn drop(&mut self) {
        if let Some(state) = self.0.take() {
            *lock(&state) = State::Failed;
        }
    }
}

fn raw_job<F: FnOnce() + Send + 'static>(work: F) -> RawJob {
    unsafe extern "C" fn run<F: FnOnce()>(ptr: *mut ()) {
        // SAFETY: made by Box::into_raw below; the host calls run or drop, once.
        let work = unsafe { Box::from_raw(ptr.cast::<F>()) };
        if let Some(cell) = host::cell() {
            let _ = panic::enter(cell, module::slot(), Hook::JOB, *work);
        }
    }
    unsafe extern "C" fn drop_job<F>(ptr: *mut ()) {
        // SAFETY: as in `run`.
        let work = unsafe { Box::from_raw(ptr.cast::<F>()) };
        if let Some(cell) = host::cell() {
            let _ = panic::enter(cell, module::slot(), Hook::JOB, move || drop(work));
        }
    }
    RawJob { ptr: Box::into_raw(Box::new(work)).cast(), run: run::<F>, drop: drop_job::<F> }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::testing::host_tests;

    #[test]
    fn a_job_is_run_once_or_dropped_and_told_apart() {
        host_tests::counted(|| {
            let (mut job, raw) = Job::new(|| 7);
            assert_eq!(job.poll(), None);
            // SAFETY: one of `run` and `drop` is called, once.
            unsafe { (raw.run)(raw.ptr) };
            assert_eq!((job.poll(), job.poll()), (Some(Ok(7)), Some(Err(JobFailed))));

            // The host gave it up: whoever waits for it is told.
            let (mut job, raw) = Job::new(|| 7);
            // SAFETY: as above.
            unsafe { (raw.drop)(raw.ptr) };
            assert_eq!(job.poll(), Some(Err(JobFailed)));

            // Nobody waits any more.
            let (job, raw) = Job::new(|| 7);
            drop(job);
            // SAFETY: as above.
            unsafe { (raw.run)(raw.ptr) };
        });
    }

    #[test]
    fn work_learns_that_nobody_wants_it() {
        host_tests::counted(|| {
            let (mut job, raw) = Job::while_wanted(Wanted::is_wanted);
            // SAFETY: as above.
            unsafe { (raw.run)(raw.ptr) };
            assert_eq!(job.poll(), Some(Ok(true)));

            let (seen, told) = std::sync::mpsc::channel();
            let (job, raw) = Job::while_wanted(move |wanted| seen.send(wanted.is_wanted()));
            drop(job);
            // SAFETY: as above.
            unsafe { (raw.run)(raw.ptr) };
            assert_eq!(told.recv(), Ok(false));
        });
    }

    #[test]
    fn a_job_that_panics_has_failed() {
        let panics = host_tests::counted(|| {
            let (mut job, raw) = Job::<u8>::new(|| panic!("in the job"));
            // SAFETY: as above.
            unsafe { (raw.run)(raw.ptr) };
            assert_eq!(job.poll(), Some(Err(JobFailed)));
        });
        assert_eq!(panics.len(), 1);
    }
}
