//! The thread pool: what may block runs here, never on a loop (nginx: thread_pool).

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

/// A job. It tells its loop itself when it is done.
pub type Job = Box<dyn FnOnce() + Send>;

/// The pool of a worker, shared by its loops.
pub struct ThreadPool {
    queue: Mutex<Queue>,
    more: Condvar,
    max_queue: usize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
    max_threads: usize,
}

impl ThreadPool {
    /// A pool that starts up to `threads` threads when there is work, and lets up to `max_queue` jobs wait.
    pub fn new(threads: usize, max_queue: usize) -> Arc<ThreadPool> {
        let queue = Queue { max_threads: threads.max(1), ..Queue::default() };
        Arc::new(ThreadPool { queue: Mutex::new(queue), more: Condvar::new(), max_queue })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a job over. If the queue is full, or no thread can be started, the job comes back.
    pub fn run(self: &Arc<Self>, job: Job) -> Result<(), Job> {
        let mut queue = self.lock();
        if queue.jobs.len() >= self.max_queue {
            return Err(job);
        }
        if queue.idle <= queue.jobs.len() && queue.threads < queue.max_threads {
            queue.threads += 1;
            if let Err(error) = self.start_thread() {
                queue.threads -= 1;
                if queue.threads == 0 {
                    log::error!("the thread pool has no thread and cannot start one: {error}");
                    return Err(job);
                }
            }
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.more.notify_one();
        Ok(())
    }

    fn start_thread(self: &Arc<Self>) -> io::Result<()> {
        let pool = self.clone();
        thread::Builder::new().name("topnext-pool".to_string()).spawn(move || pool.work()).map(|_| ())
    }

    fn work(&self) {
        loop {
            let mut queue = self.lock();
            queue.idle += 1;
            while queue.jobs.is_empty() {
                queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            queue.idle -= 1;
            let job = queue.jobs.pop_front();
            drop(queue);
            if let Some(job) = job {
                job();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

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
    }
}
