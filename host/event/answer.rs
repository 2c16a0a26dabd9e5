//! What a job on the thread pool finds out for a source of a loop.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{Ordering, fence},
    },
};

use super::{
    remote::Reply,
    thread_pool::{QUEUE_IS_FULL, ThreadPool},
};

/// The answer of a job that was asked for. A job whose answer nobody has any more is not run.
pub struct Answer<T>(Arc<Mutex<Slot<T>>>);

enum Slot<T> {
    /// The job has not ended.
    Empty,
    Full(io::Result<T>),
    Taken,
}

impl<T: Send + 'static> Answer<T> {
    /// Has the pool run `job`, and `reply` sent when it has ended, however it ends. An error: the pool's queue is full.
    pub fn ask(
        pool: &Arc<ThreadPool>,
        reply: Reply,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<Answer<T>> {
        let answer = Arc::new(Mutex::new(Slot::Empty));
        let slot = answer.clone();
        pool.ask(reply, move || {
            if Arc::strong_count(&slot) > 1 {
                let result = job();
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Slot::Full(result);
            }
        })?;
        Ok(Answer(answer))
    }

    /// The answer, once. None while the job runs, or waits for its turn, and when it was taken; an error if it has panicked.
    pub fn take(&self) -> Option<io::Result<T>> {
        // Looked at before the answer, which is there when the job has ended.
        let is_over = Arc::strong_count(&self.0) == 1;
        fence(Ordering::Acquire);
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(&*slot, Slot::Empty) && !is_over {
            return None;
        }
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Full(result) => Some(result),
            Slot::Taken => None,
            Slot::Empty => {
                Some(Err(io::Error::other("the job on the thread pool has failed, which is a fault of the host")))
            }
        }
    }
}

impl ThreadPool {
    /// Has the pool run `job`, and `reply` sent when it has ended, also if it panics. An error: the queue is full.
    pub fn ask(self: &Arc<Self>, reply: Reply, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let job = Box::new(move || {
            // Sent when this is dropped, behind all that the job has.
            let _reply = reply.at_end();
            job();
        });
        self.run(job).map_err(|_| io::Error::other(QUEUE_IS_FULL))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        rc::Rc,
        sync::mpsc,
        time::Duration,
    };

    use super::*;
    use crate::event::{Loop, Ready, Source, remote};

    /// Takes answers, and ends its loop when it has as many as it wants.
    struct Asker {
        lp: Rc<Loop>,
        answer: RefCell<Option<Answer<u32>>>,
        got: RefCell<Vec<Result<u32, String>>>,
        calls: Cell<u32>,
    }

    impl Source for Asker {
        fn ready(self: Rc<Self>, _: Ready) {}

        fn posted(self: Rc<Self>, _: u64) {
            self.calls.set(self.calls.get() + 1);
            let taken = self.answer.borrow().as_ref().and_then(Answer::take);
            self.got.borrow_mut().extend(taken.map(|result| result.map_err(|error| error.to_string())));
            let again = self.answer.borrow().as_ref().and_then(Answer::take);
            assert!(again.is_none(), "it is there once");
            self.lp.remote().stop();
        }
    }

    #[test]
    fn each_job_is_answered_also_one_that_panics() {
        let lp = Loop::new().expect("a loop");
        let pool = ThreadPool::new(1, 10);
        let asker = Rc::new(Asker {
            lp: lp.clone(),
            answer: RefCell::default(),
            got: RefCell::default(),
            calls: Cell::default(),
        });
        let source: Rc<dyn Source> = asker.clone();
        let id = remote::announce(&source);
        let jobs: [fn() -> io::Result<u32>; 3] =
            [|| Ok(7), || Err(io::Error::other("no")), || panic!("a fault of the host, played")];
        for job in jobs {
            let reply = Reply::new(lp.remote(), id, 0);
            asker.answer.replace(Some(Answer::ask(&pool, reply, job).expect("room")));
            while asker.calls.take() == 0 {
                lp.turn_once(Duration::from_secs(10)).expect("it turns");
            }
        }
        let got = asker.got.take();
        assert_eq!((&got[0], &got[1]), (&Ok(7), &Err("no".to_string())));
        assert!(got[2].as_ref().is_err_and(|text| text.contains("a fault of the host")), "{got:?}");
    }

    #[test]
    fn what_nobody_waits_for_is_not_done() {
        let lp = Loop::new().expect("a loop");
        let pool = ThreadPool::new(1, 10);
        let asker = Rc::new(Asker {
            lp: lp.clone(),
            answer: RefCell::default(),
            got: RefCell::default(),
            calls: Cell::default(),
        });
        let source: Rc<dyn Source> = asker.clone();
        let id = remote::announce(&source);
        // The one thread waits until the second is given up.
        let (go, wait) = mpsc::channel::<()>();
        let first = Answer::ask(&pool, Reply::new(lp.remote(), id, 0), move || Ok(wait.recv().is_ok()));
        let second = Answer::ask(&pool, Reply::new(lp.remote(), id, 0), || -> io::Result<u32> { panic!("it is run") });
        drop(second);
        go.send(()).expect("it waits");
        while asker.calls.get() < 2 {
            lp.turn_once(Duration::from_secs(10)).expect("it turns");
        }
        assert!(first.expect("room").take().expect("done").expect("well"));
    }
}
