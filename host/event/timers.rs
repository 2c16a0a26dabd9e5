//! Timers with lazy extension: most timers are pushed back again and again and never expire.
//!
//! A timer's deadline lies in its slot. Its entry in the ordered set is moved only if the deadline comes nearer; when
//! an entry comes up whose timer has been pushed back meanwhile, it is queued again for the new deadline.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use slab::Slab;

use super::Source;

/// Names a timer until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId(usize);

/// A deadline that never comes.
const NEVER: u64 = u64::MAX;

struct Slot {
    source: Rc<dyn Source>,
    kind: u32,
    deadline: u64,
    /// The deadline under which the set has it; `NEVER` if it has not. At most `deadline` while the timer runs.
    queued: u64,
}

#[derive(Default)]
struct Inner {
    slots: Slab<Slot>,
    queue: BTreeSet<(u64, usize)>,
}

/// The timers of one loop. Times are milliseconds of the loop's clock.
#[derive(Default)]
pub struct Timers(RefCell<Inner>);

impl Timers {
    /// No timers.
    pub fn new() -> Timers {
        Timers::default()
    }

    /// Adds a timer that does not run.
    pub fn add(&self, source: Rc<dyn Source>, kind: u32) -> TimerId {
        TimerId(self.0.borrow_mut().slots.insert(Slot { source, kind, deadline: NEVER, queued: NEVER }))
    }

    /// Starts a timer, or moves its deadline.
    pub fn set(&self, timer: TimerId, deadline: u64) {
        let inner = &mut *self.0.borrow_mut();
        let Some(slot) = inner.slots.get_mut(timer.0) else { return };
        slot.deadline = deadline;
        if deadline < slot.queued {
            if slot.queued != NEVER {
                inner.queue.remove(&(slot.queued, timer.0));
            }
            slot.queued = deadline;
            inner.queue.insert((deadline, timer.0));
        }
    }

    /// Stops a timer.
    pub fn stop(&self, timer: TimerId) {
        if let Some(slot) = self.0.borrow_mut().slots.get_mut(timer.0) {
            slot.deadline = NEVER;
        }
    }

    /// Whether a timer runs.
    pub fn runs(&self, timer: TimerId) -> bool {
        self.deadline(timer).is_some()
    }

    /// When a timer that runs will expire.
    pub fn deadline(&self, timer: TimerId) -> Option<u64> {
        self.0.borrow().slots.get(timer.0).map(|slot| slot.deadline).filter(|deadline| *deadline != NEVER)
    }

    /// Removes a timer.
    pub fn remove(&self, timer: TimerId) {
        let slot = {
            let inner = &mut *self.0.borrow_mut();
            let Some(slot) = inner.slots.try_remove(timer.0) else { return };
            inner.queue.remove(&(slot.queued, timer.0));
            slot
        };
        // Dropped here, after the borrow, since the last owner of a source may drop more than itself.
        drop(slot);
    }

    /// When to look again: no timer expires before this.
    pub fn next(&self) -> Option<u64> {
        self.0.borrow().queue.first().map(|(at, _)| *at)
    }

    /// A timer that has expired by `now`. It is stopped.
    pub fn pop(&self, now: u64) -> Option<(Rc<dyn Source>, u32)> {
        let inner = &mut *self.0.borrow_mut();
        while let Some(&(at, key)) = inner.queue.first() {
            if at > now {
                return None;
            }
            inner.queue.pop_first();
            let slot = &mut inner.slots[key];
            slot.queued = NEVER;
            if slot.deadline <= now {
                slot.deadline = NEVER;
                return Some((slot.source.clone(), slot.kind));
            }
            if slot.deadline != NEVER {
                slot.queued = slot.deadline;
                inner.queue.insert((slot.deadline, key));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Ready;

    struct Nobody;
    impl Source for Nobody {
        fn ready(self: Rc<Self>, _: Ready) {}
    }

    fn expired(timers: &Timers, now: u64) -> Vec<u32> {
        std::iter::from_fn(|| timers.pop(now)).map(|(_, kind)| kind).collect()
    }

    #[test]
    fn expires_in_order_and_once() {
        let timers = Timers::new();
        let ids: Vec<TimerId> = (0..3).map(|kind| timers.add(Rc::new(Nobody), kind)).collect();
        timers.set(ids[0], 30);
        timers.set(ids[1], 10);
        timers.set(ids[2], 20);
        assert_eq!(expired(&timers, 20), [1, 2]);
        assert_eq!(expired(&timers, 100), [0]);
        assert_eq!(expired(&timers, 1000), []);
        assert!(!timers.runs(ids[0]));
    }

    #[test]
    fn a_timer_pushed_back_does_not_expire_early() {
        let timers = Timers::new();
        let id = timers.add(Rc::new(Nobody), 7);
        for deadline in 10..20 {
            timers.set(id, deadline);
        }
        assert_eq!(timers.next(), Some(10));
        assert_eq!(expired(&timers, 18), []);
        assert_eq!(timers.next(), Some(19));
        assert_eq!(expired(&timers, 19), [7]);
    }

    #[test]
    fn a_timer_brought_forward_expires_early() {
        let timers = Timers::new();
        let id = timers.add(Rc::new(Nobody), 1);
        timers.set(id, 50);
        timers.set(id, 5);
        assert_eq!(expired(&timers, 5), [1]);
        assert_eq!(expired(&timers, 60), []);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn stopped_and_removed_timers_stay_silent_and_let_go() {
        let timers = Timers::new();
        let source: Rc<dyn Source> = Rc::new(Nobody);
        let (a, b) = (timers.add(source.clone(), 1), timers.add(source.clone(), 2));
        timers.set(a, 10);
        timers.set(b, 10);
        timers.stop(a);
        timers.remove(b);
        assert_eq!(expired(&timers, 100), []);
        timers.remove(a);
        assert_eq!(Rc::strong_count(&source), 1);
    }
}
