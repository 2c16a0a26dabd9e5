//! The thread pool: what may block runs here, never on a loop (nginx: thread_pool).

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::error_text::ErrorText;

/// A thread that has had no job for this long ends.
const IDLE: Duration = Duration::from_secs(10);

/// Why a job comes back, mostly: for messages.
pub const QUEUE_IS_FULL: &str = "the thread pool's queue is full";

/// A job. It tells its loop itself when it is done.
pub type Job = Box<dyn FnOnce() + Send>;

/// The pool of a worker, shared by its loops.
pub struct ThreadPool {
    queue: Mutex<Queue>,
    more: Condvar,
    ended: Condvar,
    max_queue: usize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
    max_threads: usize,
    stopping: bool,
}

impl ThreadPool {
    /// A pool that starts up to `threads` threads when there is work, and lets up to `max_queue` jobs wait.
    pub fn new(threads: usize, max_queue: usize) -> Arc<ThreadPool> {
        let queue = Queue { max_threads: threads.max(1), ..Queue::default() };
        Arc::new(ThreadPool { queue: Mutex::new(queue), more: Condvar::new(), ended: Condvar::new(), max_queue })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a job over. If the queue is full, or no thread can be started, the job comes back.
    pub fn run(self: &Arc<Self>, job: Job) -> Result<(), Job> {
        let mut queue = self.lock();
        if queue.stopping || queue.jobs.len() >= self.max_queue {
            return Err(job);
        }
        if queue.idle <= queue.jobs.len() && queue.threads < queue.max_threads {
            queue.threads += 1;
            if let Err(error) = self.start_thread() {
                queue.threads -= 1;
                if queue.threads == 0 {
                    log::error!("the thread pool has no thread and cannot start one ({})", ErrorText(&error));
                    return Err(job);
                }
            }
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.more.notify_one();
        Ok(())
    }

    /// Takes no more jobs, drops those that wait, and waits for those that run, but not longer than `limit`. False if
    /// some still run.
    pub fn stop(&self, limit: Duration) -> bool {
        let waiting = {
            let mut queue = self.lock();
            queue.stopping = true;
            std::mem::take(&mut queue.jobs)
        };
        // Dropped where the lock is not held: a job may be a module's.
        drop(waiting);
        self.more.notify_all();
        let queue = self.lock();
        let running = |queue: &mut Queue| queue.threads > 0;
        let ended = self.ended.wait_timeout_while(queue, limit, running).unwrap_or_else(PoisonError::into_inner);
        ended.0.threads == 0
    }

    fn start_thread(self: &Arc<Self>) -> io::Result<()> {
        let pool = self.clone();
        thread::Builder::new().name("topnext-pool".to_string()).spawn(move || pool.work()).map(|_| ())
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            // A module's job catches its own panics. One of the host must not end the thread, which is counted; the hook has
            // logged what it said. Who has asked for an answer is told (answer.rs).
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                log::error!("a job on the thread pool panicked; this is a fault of the host, please report it");
            }
        }
    }

    /// Waits for a job. None: the thread is not needed any more, and is not counted from here on.
    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        queue.idle += 1;
        let nothing = |queue: &mut Queue| queue.jobs.is_empty() && !queue.stopping;
        let waited = self.more.wait_timeout_while(queue, IDLE, nothing).unwrap_or_else(PoisonError::into_inner);
        queue = waited.0;
        queue.idle -= 1;
        let job = queue.jobs.pop_front();
        if job.is_none() {
            queue.threads -= 1;
            self.ended.notify_all();
        }
        job
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_job_that_panics_costs_no_thread() {
        let pool = ThreadPool::new(1, 10);
        let (done, is_done) = mpsc::channel();
        assert!(pool.run(Box::new(|| panic!("in a job of the host"))).is_ok());
        assert!(pool.run(Box::new(move || done.send(1).expect("the test waits"))).is_ok());
        assert_eq!(is_done.recv_timeout(Duration::from_secs(60)), Ok(1));
        assert!(pool.stop(Duration::from_secs(60)), "its thread ends");
    }

    #[test]
    fn runs_jobs_and_refuses_what_does_not_fit() {
        let pool = ThreadPool::new(1, 1);
        let (started, has_started) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let blocking = Box::new(move || {
            started.send(()).expect("the test waits");
            released.recv().expect("the test lets go");
        });
        assert!(pool.run(blocking).is_ok());
        has_started.recv().expect("the job runs");
        let (done, is_done) = mpsc::channel();
        assert!(pool.run(Box::new(move || done.send(1).expect("the test waits"))).is_ok());
        assert!(pool.run(Box::new(|| ())).is_err(), "the queue holds one job only");
        release.send(()).expect("the job waits");
        assert_eq!(is_done.recv(), Ok(1));
        assert!(pool.stop(Duration::from_secs(60)), "its thread ends");
        assert!(pool.run(Box::new(|| ())).is_err(), "a stopped pool takes no jobs");
    }
}
