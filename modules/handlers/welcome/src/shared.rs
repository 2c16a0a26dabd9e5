//! What all requests of a worker share: the number of pages, and one reading of /proc for all who ask at the same time.
//!
//! ```text
//! first request      offloads the reading ----------------+
//! second, third ...  leave a waker, and answer Again      |  (thread pool)
//!                    woken, take the result <-------------+
//! ```

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use topnext_module_api::prelude::*;

use crate::process::{self, Usage};

/// Requests that wait for one reading; more have one of their own.
const MAX_WAITING: usize = 1024;

/// One for each worker.
#[derive(Default)]
pub struct Shared {
    pages: AtomicU64,
    running: Mutex<Option<Running>>,
}

/// A reading that has not come back.
struct Running {
    result: Arc<OnceLock<Usage>>,
    waiting: Vec<Waker>,
}

/// A request's share in a reading.
pub struct Reading {
    result: Arc<OnceLock<Usage>>,
    /// The job itself, with the request that began it.
    job: Option<Job<Usage>>,
}

impl Reading {
    /// The result, once it is there.
    pub fn result(&mut self) -> Option<Usage> {
        match &mut self.job {
            Some(job) => job.poll().map(Result::unwrap_or_default),
            None => self.result.get().copied(),
        }
    }
}

impl Shared {
    /// Counts a page, and says how many there have been.
    pub fn count_page(&self) -> u64 {
        self.pages.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Joins the reading that runs, or begins one. The hook is called again when there is a result. `None`: the thread
    /// pool is full.
    pub fn read(self: &Arc<Self>, r: &mut Request<'_>) -> Option<Reading> {
        let waker = r.waker();
        let end = End { shared: self.clone(), result: Arc::default() };
        let result = end.result.clone();
        {
            let mut running = self.lock();
            match &mut *running {
                Some(running) if running.waiting.len() < MAX_WAITING => {
                    running.waiting.push(waker);
                    let result = running.result.clone();
                    return Some(Reading { result, job: None });
                }
                Some(_) => (),
                None => *running = Some(Running { result: result.clone(), waiting: Vec::new() }),
            }
        }
        // If the job is refused, `end` is dropped with it: whoever has joined meanwhile is not forgotten.
        let job = r.offload(move || end.set(process::usage()))?;
        Some(Reading { result, job: Some(job) })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a reading, however it ends: also if it panics, or its job is dropped without having run.
struct End {
    shared: Arc<Shared>,
    result: Arc<OnceLock<Usage>>,
}

impl End {
    /// Sets the result, and with the drop that follows wakes all who wait for it.
    fn set(self, usage: Usage) -> Usage {
        *self.result.get_or_init(|| usage)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // Nothing happens if there is a result.
        let _ = self.result.set(Usage::default());
        let running = {
            let mut running = self.shared.lock();
            let is_this = running.as_ref().is_some_and(|running| Arc::ptr_eq(&running.result, &self.result));
            if is_this { running.take() } else { None }
        };
        // Woken where the lock is not held.
        for waker in running.into_iter().flat_map(|running| running.waiting) {
            waker.wake();
        }
    }
}

impl State for Shared {
    fn create() -> Result<Shared, String> {
        Ok(Shared::default())
    }
}
