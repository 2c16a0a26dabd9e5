//! A generation: one reading of the configuration, with the workers that run it.

use std::{
    cell::{Cell, RefCell},
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags};

use super::{
    alarm::Alarm,
    channel,
    child::{Child, Stage},
    deaths::where_it_is,
    master::{Master, STOP_TIMEOUT},
    messages::{Plan, PlannedModule, ToWorker},
    respawn::Respawn,
};
use crate::{
    log::error::Level,
    log_line,
    plugins::{description::Identity, running::MAX_MODULES},
};

/// A generation.
pub struct Generation {
    /// Its number: 1 and up.
    pub number: u64,
    plan: RefCell<Option<Rc<Plan>>>,
    /// What another worker of it starts from, once the first has loaded it, as long as there may be another.
    kept: RefCell<Option<Rc<Kept>>>,
    workers: RefCell<Vec<Rc<Child>>>,
    /// Workers that stand in for those of other slots.
    stand_ins: RefCell<Vec<(usize, Rc<Child>)>>,
    respawns: RefCell<Vec<Respawn>>,
    /// When the next worker of a slot is started, if it has none.
    next_starts: RefCell<Vec<(usize, Instant)>>,
    /// Its workers were told to finish, and have no successors: another master serves.
    pub is_dismissed: Cell<bool>,
    /// It was tried, and does not count.
    pub has_failed: Cell<bool>,
    /// When they have not ended in time.
    end_alarm: RefCell<Option<Alarm>>,
    /// Said once: a module of it was overwritten while it was in use.
    pub overwritten_said: Cell<bool>,
}

impl Generation {
    /// One whose configuration is still to be read, or was read before.
    pub fn new(number: u64, kept: Option<Rc<Kept>>) -> Rc<Generation> {
        Rc::new(Generation {
            number,
            plan: RefCell::default(),
            kept: RefCell::new(kept),
            workers: RefCell::default(),
            stand_ins: RefCell::default(),
            respawns: RefCell::default(),
            next_starts: RefCell::default(),
            is_dismissed: Cell::new(false),
            has_failed: Cell::new(false),
            end_alarm: RefCell::default(),
            overwritten_said: Cell::new(false),
        })
    }

    /// What its first worker has read.
    pub fn plan(&self) -> Option<Rc<Plan>> {
        self.plan.borrow().clone()
    }

    /// Notes that, with what is kept of it if that is new.
    pub fn set_plan(&self, plan: Rc<Plan>, kept: Option<Kept>) {
        self.respawns.borrow_mut().resize_with(plan.processes, Respawn::default);
        self.plan.replace(Some(plan));
        if let Some(kept) = kept {
            self.kept.replace(Some(Rc::new(kept)));
        }
    }

    /// What another worker of it starts from.
    pub fn kept(&self) -> Option<Rc<Kept>> {
        self.kept.borrow().clone()
    }

    /// It gets no more workers.
    pub fn give_up_kept(&self) {
        self.kept.take();
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
        self.stand_ins.borrow_mut().retain(|(_, other)| !Rc::ptr_eq(other, child));
    }

    /// The worker of a slot that has come this far, and is not to end.
    pub fn worker(&self, slot: usize, stage: Stage) -> Option<Rc<Child>> {
        let is_it = |worker: &&Rc<Child>| {
            worker.slot == slot && (stage..=Stage::Serving).contains(&worker.stage()) && worker.is_to_stay()
        };
        self.workers.borrow().iter().find(is_it).cloned()
    }

    /// The worker that stands in for that of a slot.
    pub fn stand_in(&self, slot: usize) -> Option<Rc<Child>> {
        self.stand_ins.borrow().iter().find(|(of, _)| *of == slot).map(|(_, worker)| worker.clone())
    }

    /// This one stands in for that of a slot from here on, or none does.
    pub fn set_stand_in(&self, slot: usize, worker: Option<Rc<Child>>) {
        let mut stand_ins = self.stand_ins.borrow_mut();
        stand_ins.retain(|(of, _)| *of != slot);
        stand_ins.extend(worker.map(|worker| (slot, worker)));
    }

    /// For how many slots a worker stands in.
    pub fn stands_in_for(&self, worker: &Rc<Child>) -> usize {
        self.stand_ins.borrow().iter().filter(|(_, other)| Rc::ptr_eq(other, worker)).count()
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

    /// Whether no worker is to be started in a slot: it has one that is to stay, or several that finish what they have, or waits.
    pub fn has_no_room(&self, slot: usize) -> bool {
        let workers = self.workers.borrow();
        let of_slot = workers.iter().filter(|worker| worker.slot == slot);
        of_slot.clone().count() > 1
            || of_slot.clone().any(|worker| worker.stage() < Stage::Draining)
            || self.next_starts.borrow().iter().any(|(of, _)| *of == slot)
    }

    /// The next worker of a slot is started then, or now.
    pub fn set_next_start(&self, slot: usize, at: Option<Instant>) {
        let mut next_starts = self.next_starts.borrow_mut();
        next_starts.retain(|(of, _)| *of != slot);
        next_starts.extend(at.map(|at| (slot, at)));
    }

    /// The slots that have no worker, and how long they wait for one, if that is known.
    pub fn missing(&self) -> Vec<(usize, Option<Duration>)> {
        let Some(plan) = self.plan() else { return Vec::new() };
        let workers = self.workers.borrow();
        let is_empty = |slot: &usize| workers.iter().all(|worker| worker.slot != *slot);
        let wait = |slot| {
            let next_starts = self.next_starts.borrow();
            let next = next_starts.iter().find(|(of, _)| *of == slot);
            (slot, next.map(|(_, at)| at.saturating_duration_since(Instant::now())))
        };
        (0..plan.processes).filter(is_empty).map(wait).collect()
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
            } else if worker.stage() < Stage::Draining && !worker.is_killed() {
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

    /// It does not come to count. Those of its workers that accept connections already finish what they have, the others are ended.
    pub fn give_up(self: &Rc<Self>, master: &Rc<Master>) {
        self.has_failed.set(true);
        let is_idle = |worker: &&Rc<Child>| worker.stage() < Stage::Serving;
        self.workers().iter().filter(is_idle).for_each(|worker| worker.kill());
        self.drain(master);
    }

    /// Modules whose files have been written into since they were loaded: processes that map them see the new content, which is
    /// the end of them.
    pub fn overwritten(&self) -> Vec<String> {
        let Some(plan) = self.plan() else { return Vec::new() };
        let is_overwritten = |module: &&PlannedModule| {
            let now = Identity::at(&module.file);
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

// The pipe, the scoreboard and the text come in the same message.
const _: () = assert!(MAX_MODULES + 3 <= channel::MAX_FDS);

/// What a worker starts from, if another one has loaded the same configuration before.
pub struct Kept {
    /// What that has read and found ([`site::Kept`](crate::site::Kept)).
    text: OwnedFd,
    /// The files of modules, by their places in the plan: open, so that they are there when they have no name any more.
    modules: Vec<(usize, OwnedFd)>,
}

impl Kept {
    /// What a worker has read and found, as it says, with the files that it has loaded.
    pub fn new(text: &str, modules: &[PlannedModule]) -> io::Result<Kept> {
        let text = channel::text_file("configuration", text.as_bytes())?;
        let opened = modules.iter().enumerate().filter_map(|(at, module)| Some((at, open(module)?)));
        Ok(Kept { text, modules: opened.collect() })
    }

    /// The modules whose files there are.
    pub fn modules(&self) -> Vec<usize> {
        self.modules.iter().map(|(at, _)| *at).collect()
    }

    /// The descriptors, in the order in which a worker expects them.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.text.as_fd()).chain(self.modules.iter().map(|(_, fd)| fd.as_fd()))
    }
}

/// The file of a module, if it is still the one that was loaded. Without waiting, whatever is there by now.
fn open(module: &PlannedModule) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(&module.file, flags, Mode::empty()).ok()?);
    (Identity::of(&file.metadata().ok()?) == module.identity).then(|| file.into())
}
