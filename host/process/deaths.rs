//! Workers that end, or do not turn: what is said of them, and what takes their place.

use std::{
    process::ExitStatus,
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    alarm::Alarm,
    change::START_TIMEOUT,
    child::{self, Child, Stage},
    generation::Generation,
    master::Master,
    reopen,
    respawn::Respawn,
    upgrade,
};
use crate::{log::error::Level, log_line};

impl Master {
    /// Looks which children have ended.
    pub(super) fn reap(self: &Rc<Self>) {
        upgrade::reap(self);
        for child in self.children() {
            if let Some(status) = child.ended() {
                self.ended(&child, status);
            }
        }
        self.old.borrow_mut().retain(|generation| !generation.is_empty());
        self.give_up_zones();
        self.stand_in();
        self.advance();
        self.end_if_last();
    }

    fn ended(self: &Rc<Self>, child: &Rc<Child>, status: ExitStatus) {
        // Its last words first.
        child.read(self);
        child.forget(self);
        reopen::done(self, child.pid, None, Vec::new());
        let generation = child.generation.clone();
        generation.remove(child);
        let report = child.take_report();
        let (is_starting, is_serving) = (self.is_starting(&generation), self.is_serving(&generation));
        if self.ending.get().is_some() {
            log_line!(Level::Notice, "worker {} {}", child.pid, child::describe(status));
        } else if is_starting {
            let reason = report.unwrap_or_else(|| {
                let places = child.whereabouts(true);
                let was = if places.is_empty() { String::new() } else { format!("; it was: {}", places.join("; ")) };
                format!("topnext: a new worker {} before it was ready{was}", child::describe(status))
            });
            self.fail(&reason);
        } else if is_serving && child.stage() < Stage::Serving && self.is_to_serve() {
            let end = child::describe(status);
            self.fail(
                &report.unwrap_or_else(|| format!("topnext: a new worker {end} before it served{}", last_words(child))),
            );
        } else if is_serving && child.stage() < Stage::Draining {
            self.died(child, status, report);
        } else if status.success() {
            log_line!(Level::Notice, "worker {} of generation {} has finished", child.pid, generation.number);
            self.respawn(&generation, child.slot);
        } else if child.stage() >= Stage::Draining || !child.is_killed() {
            log_line!(Level::Alert, "worker {} {}{}", child.pid, child::describe(status), last_words(child));
            self.respawn(&generation, child.slot);
        }
    }

    /// A worker that serves finishes what it has, because somebody else has told it to: another one takes its place, at once unless
    /// the one before it still does the same.
    pub(super) fn left(self: &Rc<Self>, child: &Rc<Child>) {
        if self.is_serving(&child.generation) {
            log_line!(Level::Notice, "worker {} was told to finish by somebody else, it is replaced", child.pid);
            self.respawn(&child.generation, child.slot);
        }
        self.stand_in();
        self.advance();
    }

    /// A worker that was to serve is gone: another one takes its place.
    fn died(self: &Rc<Self>, child: &Rc<Child>, status: ExitStatus, report: Option<String>) {
        let generation = &child.generation;
        let level = if status.success() { Level::Notice } else { Level::Alert };
        let (pid, number) = (child.pid, generation.number);
        let has_said_why = report.is_some() && child.stage() < Stage::Serving;
        if generation.is_dismissed.get() {
            // It has no successor, and was ended if it was not ready.
            let level = if child.is_killed() { Level::Notice } else { level };
            return log_line!(level, "worker {pid} of generation {number} {}", child::describe(status));
        }
        match report {
            Some(report) if has_said_why => {
                log_line!(
                    Level::Alert,
                    "worker {pid}, which was to replace another of generation {number}, cannot run:"
                );
                report.lines().for_each(|line| log_line!(Level::Alert, "{line}"));
            }
            _ => {
                log_line!(level, "worker {pid} of generation {number} {}{}", child::describe(status), last_words(child))
            }
        }
        generation.warn_of_overwritten();
        let delay = generation.with_respawn(child.slot, |respawn| match has_said_why {
            true => respawn.failed(),
            false => respawn.died(self.lp.now_ms(), child.started.elapsed()),
        });
        match delay.unwrap_or_default() {
            Duration::ZERO => self.respawn(generation, child.slot),
            delay => {
                let why = if has_said_why { "the next one" } else { "workers die too often; the next one" };
                log_line!(Level::Alert, "{why} is started in {} s", delay.as_secs());
                self.respawn_later(generation, child.slot, delay);
            }
        }
    }

    /// Starts workers for slots that have none, and do not wait for one.
    pub(super) fn refill(self: &Rc<Self>, generation: &Rc<Generation>) {
        let slots = generation.plan().map_or(0, |plan| plan.processes);
        (0..slots).for_each(|slot| self.respawn(generation, slot));
    }

    fn respawn_later(self: &Rc<Self>, generation: &Rc<Generation>, slot: usize, delay: Duration) {
        generation.set_next_start(slot, Some(Instant::now() + delay));
        let generation = generation.clone();
        let start = move |master: &Rc<Master>| {
            generation.set_next_start(slot, None);
            master.respawn(&generation, slot);
        };
        Alarm::new(self, delay, start).detach();
    }

    fn respawn(self: &Rc<Self>, generation: &Rc<Generation>, slot: usize) {
        if generation.has_no_room(slot)
            || !self.is_serving(generation)
            || generation.is_dismissed.get()
            || self.ending.get().is_some()
        {
            return;
        }
        match self.start_child(generation, slot, false) {
            Ok(child) => self.await_start(&child),
            Err(reason) => {
                log_line!(Level::Emerg, "{reason}");
                let delay = generation.with_respawn(slot, Respawn::failed).unwrap_or_default();
                self.respawn_later(generation, slot, delay);
            }
        }
    }

    /// Ends a worker that replaces another if it takes too long to serve; then it counts as one that has died.
    fn await_start(self: &Rc<Self>, child: &Rc<Child>) {
        let child = Rc::downgrade(child);
        let look = move |_: &Rc<Master>| {
            if let Some(child) = child.upgrade().filter(|child| child.stage() < Stage::Serving) {
                let what = if child.stage() < Stage::Ready { "was not ready" } else { "does not accept connections" };
                let seconds = START_TIMEOUT.as_secs();
                log_line!(Level::Alert, "worker {} {what} within {seconds} s, it is killed", where_it_is(&child));
                child.kill();
            }
        };
        Alarm::new(self, START_TIMEOUT, look).detach();
    }

    /// Looks after the loops of all workers from now on.
    pub(super) fn watch(self: &Rc<Self>, timeout: Duration) {
        let look = move |master: &Rc<Master>| {
            if master.ending.get().is_none() {
                master.children().iter().for_each(|child| child.look_for_stuck_loops(master.lp.now_ms(), timeout));
                master.watch(timeout);
            }
        };
        let pause = (timeout / 4).max(Duration::from_millis(100));
        self.watchdog.replace((!timeout.is_zero()).then(|| Alarm::new(self, pause, look)));
    }
}

/// A worker, with the places of its threads.
pub fn where_it_is(child: &Rc<Child>) -> String {
    format!("{} ({})", child.pid, child.whereabouts(true).join("; "))
}

/// What a worker was doing when it died.
fn last_words(child: &Rc<Child>) -> String {
    let place = child.whereabouts(false);
    let place = if place.is_empty() { "no thread was in a module".to_string() } else { place.join("; ") };
    format!("; {place}; in flight: {}", child.in_flight())
}
