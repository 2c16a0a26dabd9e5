//! Timers with lazy extension: most timers are pushed back again and again and never expire.
//!
//! A timer's deadline lies in its slot. Its entry in the queue is moved only if the deadline comes nearer; when an entry
//! comes up whose timer has been pushed back meanwhile, it is queued again for the new deadline.
//!
//! The queue is a binary heap whose entries tell their slots where they are, so that any of them can be moved or taken
//! out: 48 bytes a timer with its slot, where an ordered set takes nearly twice as much. (That of the standard library
//! does not know where an entry is.)

use std::{cell::RefCell, rc::Rc};

use slab::Slab;

use super::{Source, key::Key};

/// Names a timer until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId(Key);

/// A deadline that never comes.
const NEVER: u64 = u64::MAX;
/// The place of what is not in the queue.
const NOWHERE: u32 = u32::MAX;

struct Slot {
    source: Rc<dyn Source>,
    deadline: u64,
    kind: u32,
    /// Where in the queue its entry is; `NOWHERE` if it has none.
    place: u32,
}

/// A timer in the queue, at most as late as its deadline while it runs.
#[derive(Clone, Copy)]
struct Entry {
    at: u64,
    timer: Key,
}

#[derive(Default)]
struct Inner {
    slots: Slab<Slot>,
    /// A heap: no entry comes before the one at half its place (counted from 1).
    queue: Vec<Entry>,
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
        let slot = Slot { source, deadline: NEVER, kind, place: NOWHERE };
        TimerId(Key::new(self.0.borrow_mut().slots.insert(slot)))
    }

    /// Starts a timer, or moves its deadline.
    pub fn set(&self, timer: TimerId, deadline: u64) {
        let inner = &mut *self.0.borrow_mut();
        let Some(slot) = inner.slots.get_mut(timer.0.index()) else { return };
        slot.deadline = deadline;
        let place = slot.place as usize;
        match inner.queue.get_mut(place) {
            Some(entry) if entry.at <= deadline => (),
            Some(entry) => {
                entry.at = deadline;
                inner.move_forward(place);
            }
            None => {
                inner.queue.push(Entry { at: deadline, timer: timer.0 });
                inner.move_forward(inner.queue.len() - 1);
            }
        }
    }

    /// Stops a timer.
    pub fn stop(&self, timer: TimerId) {
        if let Some(slot) = self.0.borrow_mut().slots.get_mut(timer.0.index()) {
            slot.deadline = NEVER;
        }
    }

    /// Whether a timer runs.
    pub fn runs(&self, timer: TimerId) -> bool {
        self.deadline(timer).is_some()
    }

    /// When a timer that runs will expire.
    pub fn deadline(&self, timer: TimerId) -> Option<u64> {
        let inner = self.0.borrow();
        inner.slots.get(timer.0.index()).map(|slot| slot.deadline).filter(|deadline| *deadline != NEVER)
    }

    /// Removes a timer.
    pub fn remove(&self, timer: TimerId) {
        let slot = {
            let inner = &mut *self.0.borrow_mut();
            let Some(slot) = inner.slots.try_remove(timer.0.index()) else { return };
            if slot.place != NOWHERE {
                inner.take_out(slot.place as usize);
            }
            slot
        };
        // Dropped here, after the borrow, since the last owner of a source may drop more than itself.
        drop(slot);
    }

    /// When to look again: no timer expires before this.
    pub fn next(&self) -> Option<u64> {
        self.0.borrow().queue.first().map(|entry| entry.at)
    }

    /// A timer that has expired by `now`. It is stopped.
    pub fn pop(&self, now: u64) -> Option<(Rc<dyn Source>, u32)> {
        let inner = &mut *self.0.borrow_mut();
        while let Some(first) = inner.queue.first_mut().filter(|first| first.at <= now) {
            let slot = &mut inner.slots[first.timer.index()];
            if slot.deadline > now && slot.deadline != NEVER {
                first.at = slot.deadline;
                inner.move_back(0);
                continue;
            }
            slot.place = NOWHERE;
            let expired = slot.deadline <= now;
            slot.deadline = NEVER;
            let expired = expired.then(|| (slot.source.clone(), slot.kind));
            inner.take_out(0);
            if expired.is_some() {
                return expired;
            }
        }
        None
    }
}

impl Inner {
    /// Puts an entry at a place, and tells its slot.
    fn put(&mut self, place: usize, entry: Entry) {
        self.queue[place] = entry;
        self.slots[entry.timer.index()].place = place as u32;
    }

    /// Moves an entry that may be nearer than those before it to where it belongs.
    fn move_forward(&mut self, mut place: usize) {
        let entry = self.queue[place];
        while place > 0 {
            let before = (place - 1) / 2;
            if self.queue[before].at <= entry.at {
                break;
            }
            self.put(place, self.queue[before]);
            place = before;
        }
        self.put(place, entry);
    }

    /// Moves an entry that may be later than those behind it to where it belongs.
    fn move_back(&mut self, mut place: usize) {
        let entry = self.queue[place];
        loop {
            let behind = 2 * place + 1;
            let nearer = self.queue.iter().enumerate().skip(behind).take(2).min_by_key(|(_, entry)| entry.at);
            let Some((next, nearer)) = nearer.filter(|(_, nearer)| nearer.at < entry.at) else { break };
            self.put(place, *nearer);
            place = next;
        }
        self.put(place, entry);
    }

    /// Takes the entry at a place out of the queue; its slot is told by the caller, or has gone.
    fn take_out(&mut self, place: usize) {
        self.queue.swap_remove(place);
        if place < self.queue.len() {
            self.move_forward(place);
            // If it has moved forward, what is here now came before it and stays.
            self.move_back(place);
        }
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
        assert!(expired(&timers, 1000).is_empty());
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
        assert!(expired(&timers, 18).is_empty());
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
        assert!(expired(&timers, 60).is_empty());
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
        assert!(expired(&timers, 100).is_empty());
        timers.remove(a);
        assert_eq!(Rc::strong_count(&source), 1);
    }

    /// The same as a list that is searched, whatever is asked of both.
    #[test]
    fn any_order_of_calls() {
        let timers = Timers::new();
        let mut known: Vec<(TimerId, u32, u64)> = Vec::new();
        let (mut state, mut now) = (7_u64, 0);
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for kind in 0..20_000 {
            let index = random(known.len().max(1) as u64) as usize;
            match (random(10), known.get_mut(index)) {
                (0..2, _) | (_, None) => known.push((timers.add(Rc::new(Nobody), kind), kind, NEVER)),
                (2..7, Some((id, _, deadline))) => {
                    *deadline = now + 1 + random(200);
                    timers.set(*id, *deadline);
                }
                (7, Some((id, _, deadline))) => {
                    *deadline = NEVER;
                    timers.stop(*id);
                }
                (8, Some(_)) => timers.remove(known.swap_remove(index).0),
                _ => {
                    now += random(20);
                    let due = known.iter_mut().filter(|(_, _, deadline)| *deadline <= now);
                    let mut due: Vec<u32> = due.map(|timer| (timer.2 = NEVER, timer.1).1).collect();
                    due.sort_unstable();
                    let mut found = expired(&timers, now);
                    found.sort_unstable();
                    assert_eq!(found, due);
                    let first = known.iter().map(|timer| timer.2).min().unwrap_or(NEVER);
                    assert!(timers.next().unwrap_or(NEVER) <= first);
                }
            }
        }
        known.into_iter().for_each(|timer| timers.remove(timer.0));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_timer_is_small() {
        assert!(size_of::<Slot>() + size_of::<Entry>() <= 48);
    }
}
