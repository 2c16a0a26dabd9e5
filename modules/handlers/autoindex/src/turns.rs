//! How many folders are read at once: the thread pool is there for others as well, and a folder takes long.
//!
//! ```text
//! take()   a Turn: read now; or a Ticket, in a queue
//!            (a turn ends: the first ticket in the queue that is still held gets it, and its request is woken)
//! Ticket::turn()   the turn, once it is there
//! ```

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use topnext_module_api::prelude::*;

/// Folders that are read at once. More would be no faster: they wait for the same disk.
const AT_ONCE: usize = 4;

/// Requests that wait for their turn. Those of clients that have left are among them until they are in the way.
const MAX_WAITING: usize = 4096;

/// The turns of all locations.
pub struct Turns(Mutex<Queue>);

struct Queue {
    free: usize,
    waiting: VecDeque<(Weak<Ticket>, Wake)>,
}

/// Wakes the request that holds a ticket.
type Wake = Box<dyn FnOnce() + Send>;

impl State for Turns {
    fn create() -> Result<Turns, String> {
        Ok(Turns(Mutex::new(Queue { free: AT_ONCE, waiting: VecDeque::new() })))
    }
}

/// The right to read a folder, until it is dropped, on any thread.
pub struct Turn(Arc<Turns>);

/// A place in the queue, for as long as it is held.
#[derive(Default)]
pub struct Ticket(Mutex<Option<Turn>>);

/// What came of asking for a turn.
pub enum Taken {
    /// It is there.
    Now(Turn),
    /// Others are before.
    Later(Arc<Ticket>),
    /// Too many are.
    Never,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a turn. If it comes later, `wake` is called, on any thread.
    pub fn take<W: FnOnce() + Send + 'static>(self: &Arc<Turns>, wake: impl FnOnce() -> W) -> Taken {
        let mut queue = self.lock();
        if queue.free > 0 {
            queue.free -= 1;
            return Taken::Now(Turn(self.clone()));
        }
        if queue.waiting.len() >= MAX_WAITING {
            queue.waiting.retain(|(ticket, _)| ticket.strong_count() > 0);
        }
        if queue.waiting.len() >= MAX_WAITING {
            return Taken::Never;
        }
        let ticket = Arc::new(Ticket::default());
        queue.waiting.push_back((Arc::downgrade(&ticket), Box::new(wake())));
        Taken::Later(ticket)
    }
}

impl Ticket {
    /// The turn, once, if it has come.
    pub fn turn(&self) -> Option<Turn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        loop {
            let next = {
                let mut queue = self.0.lock();
                let next = queue.waiting.pop_front();
                if next.is_none() {
                    queue.free += 1;
                }
                next
            };
            let Some((ticket, wake)) = next else { return };
            if let Some(ticket) = ticket.upgrade() {
                // If the request ends now, its ticket does, and with it this turn.
                *ticket.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Turn(self.0.clone()));
                return wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn turns() -> Arc<Turns> {
        Arc::new(Turns::create().expect("it needs nothing"))
    }

    fn now(turns: &Arc<Turns>) -> Turn {
        match turns.take(|| || ()) {
            Taken::Now(turn) => turn,
            _ => panic!("there is a turn left"),
        }
    }

    #[test]
    fn turns_go_round_in_order_and_past_those_who_have_left() {
        let turns = turns();
        let mut taken: Vec<Turn> = (0..AT_ONCE).map(|_| now(&turns)).collect();
        let woken = Arc::new(AtomicUsize::new(0));
        let ask = |number: usize| {
            let woken = woken.clone();
            match turns.take(|| move || woken.store(number, Ordering::Relaxed)) {
                Taken::Later(ticket) => ticket,
                _ => panic!("all turns are taken"),
            }
        };
        let (first, second, third) = (ask(1), ask(2), ask(3));
        drop(second);
        taken.pop();
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert!(third.turn().is_none());
        let turn = first.turn();
        assert!(turn.is_some() && first.turn().is_none());
        drop(turn);
        assert_eq!(woken.load(Ordering::Relaxed), 3);
        // It leaves without having looked.
        drop(third);
        drop(taken);
        assert_eq!(turns.lock().free, AT_ONCE);
    }

    #[test]
    fn the_queue_is_bounded_and_those_who_have_left_are_not_in_the_way() {
        let turns = turns();
        let taken: Vec<Turn> = (0..AT_ONCE).map(|_| now(&turns)).collect();
        for _ in 0..3 * MAX_WAITING {
            assert!(matches!(turns.take(|| || ()), Taken::Later(_)));
        }
        let tickets: Vec<Taken> = (0..MAX_WAITING).map(|_| turns.take(|| || ())).collect();
        assert!(tickets.iter().all(|taken| matches!(taken, Taken::Later(_))));
        assert!(matches!(turns.take(|| || ()), Taken::Never));
        drop((tickets, taken));
        assert_eq!(turns.lock().free, AT_ONCE);
    }
}
