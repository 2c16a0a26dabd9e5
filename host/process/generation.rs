//! A generation: one reading of the configuration, with the workers that run it.

use std::{
    cell::{Cell, RefCell},
    os::fd::OwnedFd,
    rc::Rc,
    time::Duration,
};

use super::{
    alarm::Alarm,
    child::{Child, Stage},
    deaths::where_it_is,
    master::{Master, STOP_TIMEOUT},
    messages::{Plan, ToWorker},
    respawn::Respawn,
};
use crate::{log::error::Level, log_line};

/// A generation.
pub struct Generation {
    /// Its number: 1 and up.
    pub number: u64,
    plan: RefCell<Option<Rc<Plan>>>,
    /// What its configuration was read from.
    texts: RefCell<Option<OwnedFd>>,
    workers: RefCell<Vec<Rc<Child>>>,
    respawns: RefCell<Vec<Respawn>>,
    /// Its workers were told to finish, and have no successors: another master serves.
    pub is_dismissed: Cell<bool>,
    /// When they have not ended in time.
    end_alarm: RefCell<Option<Alarm>>,
    /// Said once: a module of it was overwritten while it was in use.
    pub overwritten_said: Cell<bool>,
}

impl Generation {
    /// One whose configuration is still to be read, or was read before.
    pub fn new(number: u64, texts: Option<OwnedFd>) -> Rc<Generation> {
        Rc::new(Generation {
            number,
            plan: RefCell::default(),
            texts: RefCell::new(texts),
            workers: RefCell::default(),
            respawns: RefCell::default(),
            is_dismissed: Cell::new(false),
            end_alarm: RefCell::default(),
            overwritten_said: Cell::new(false),
        })
    }

    /// What its first worker has read.
    pub fn plan(&self) -> Option<Rc<Plan>> {
        self.plan.borrow().clone()
    }

    /// Notes that, with the texts if it has read them.
    pub fn set_plan(&self, plan: Rc<Plan>, texts: Option<OwnedFd>) {
        self.respawns.borrow_mut().resize_with(plan.processes, Respawn::default);
        self.plan.replace(Some(plan));
        if let Some(texts) = texts {
            self.texts.replace(Some(texts));
        }
    }

    /// Its texts, once they have been read.
    pub fn texts(&self) -> Option<OwnedFd> {
        self.texts.borrow().as_ref().and_then(|texts| texts.try_clone().ok())
    }

    /// Its workers.
    pub fn workers(&self) -> Vec<Rc<Child>> {
        self.workers.borrow().clone()
    }

    /// A worker of it has been started.
    pub fn add(&self, child: Rc<Child>) {
        self.workers.borrow_mut().push(child);
    }

    /// A worker of it has ended.
    pub fn remove(&self, child: &Rc<Child>) {
        self.workers.borrow_mut().retain(|other| !Rc::ptr_eq(other, child));
    }

    /// The slots without a worker, and how long it is until the next one is started, if that is known.
    pub fn missing(&self) -> Vec<(usize, Option<Duration>)> {
        let processes = self.plan().map_or(0, |plan| plan.processes);
        let workers = self.workers.borrow();
        let is_missing = |slot: &usize| workers.iter().all(|worker| worker.slot != *slot);
        (0..processes).filter(is_missing).map(|slot| (slot, None)).collect()
    }

    /// Whether none of its workers is left.
    pub fn is_empty(&self) -> bool {
        self.workers.borrow().is_empty()
    }

    /// Whether all the workers that it is to have have come this far.
    pub fn has_reached(&self, stage: Stage) -> bool {
        let Some(plan) = self.plan() else { return false };
        let workers = self.workers.borrow();
        workers.len() >= plan.processes && workers.iter().all(|worker| worker.stage() >= stage)
    }

    /// The deaths of a slot.
    pub fn with_respawn<T>(&self, slot: usize, act: impl FnOnce(&mut Respawn) -> T) -> Option<T> {
        self.respawns.borrow_mut().get_mut(slot).map(act)
    }

    /// Tells all its workers.
    pub fn tell(&self, message: &ToWorker) {
        for worker in self.workers() {
            worker.tell(message, &[]);
        }
    }

    /// Has its workers finish what they have. Those that are not ready yet are ended; so are those that have not ended some time
    /// after the time that the configuration gives them, which they look after themselves unless they hang.
    pub fn drain(self: &Rc<Self>, master: &Rc<Master>) {
        let timeout = self.plan().and_then(|plan| plan.shutdown_timeout);
        for worker in self.workers() {
            if worker.stage() < Stage::Ready {
                worker.kill();
            } else if worker.stage() < Stage::Draining {
                worker.drain(timeout);
            }
        }
        if let Some(timeout) = timeout.filter(|_| self.end_alarm.borrow().is_none()) {
            let generation = Rc::downgrade(self);
            let kill = move |_: &Rc<Master>| {
                for worker in generation.upgrade().iter().flat_map(|generation| generation.workers()) {
                    let text = "did not end within worker_shutdown_timeout, it is killed";
                    log_line!(Level::Alert, "worker {} {text}", where_it_is(&worker));
                    worker.kill();
                }
            };
            self.end_alarm.replace(Some(Alarm::new(master, timeout + STOP_TIMEOUT, kill)));
        }
    }

    /// Ends its workers.
    pub fn kill(&self) {
        self.workers().iter().for_each(|worker| worker.kill());
    }

    /// Modules whose files have been written into since they were loaded: processes that map them see the new content, which is
    /// the end of them.
    pub fn overwritten(&self) -> Vec<String> {
        let Some(plan) = self.plan() else { return Vec::new() };
        let is_overwritten = |module: &&super::messages::PlannedModule| {
            let now = crate::plugins::description::Identity::at(&module.file);
            now.is_ok_and(|now| now.file() == module.identity.file() && now != module.identity)
        };
        plan.modules.iter().filter(is_overwritten).map(|module| module.file.display().to_string()).collect()
    }

    /// Says so in the log, once.
    pub fn warn_of_overwritten(&self) -> Vec<String> {
        let files = self.overwritten();
        if !files.is_empty() && !self.overwritten_said.replace(true) {
            for file in &files {
                log_line!(
                    Level::Alert,
                    "{file} was overwritten while workers of generation {} have it mapped, which can crash them; install \
                     modules by renaming a new file over the old one",
                    self.number
                );
            }
        }
        files
    }
}
