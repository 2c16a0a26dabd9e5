//! A change of the configuration. The start is the first one. It goes through these steps, each of which waits for all workers, and
//! has a time; one that fails leaves all as it was:
//!
//! ```text
//! begin     the first worker reads the configuration                     or why not: nothing has changed
//! loaded    sockets that are missing are bound; the other workers start
//! serve     (all are ready) the sockets listen; the new workers accept
//! commit    (all accept) what is not wanted any more is closed; the old workers accept no more
//! finish    (none accepts) whoever asked for the change is told
//! ```

use std::{fmt::Display, rc::Rc, time::Duration};

use super::{
    alarm::Alarm,
    child::{Child, Stage},
    deaths::where_it_is,
    generation::{Generation, Kept},
    greeting,
    master::{ENDING, Ending, Master, Options, Waiter, answer},
    messages::{Plan, Start, ToWorker},
    pid_file::PidFile,
    plan, systemd, upgrade,
};
use crate::{error_text::ErrorText, log::error::Level, log_line};

/// How long the workers of a new configuration may take to get ready.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long old workers are waited for to say that they accept no more.
const DRAINING_TIMEOUT: Duration = Duration::from_secs(5);
/// When workers that could not be started again are tried once more.
const RESTART_DELAY: Duration = Duration::from_secs(5);
/// The most that may wait for the end of a change.
const MAX_QUEUED: usize = 256;
/// The most generations that may drain at a time.
const MAX_OLD: usize = 64;

/// A change of the configuration that is under way.
pub struct Change {
    pub(super) generation: Rc<Generation>,
    pub(super) previous: Option<Rc<Generation>>,
    /// The workers of that, once they have been told to finish.
    drained: Vec<Rc<Child>>,
    /// New workers that have not come to accept connections.
    late: Vec<Rc<Child>>,
    pub(super) waiters: Vec<Waiter>,
    pub(super) step: Step,
    /// When it has lasted too long.
    pub(super) alarm: Option<Alarm>,
    pub(super) pid_file: Option<PidFile>,
}

/// What is done one after the other, since each changes what serves.
pub enum Task {
    /// The configuration is read anew. With those who want to know how that comes out.
    Reload(Vec<Waiter>),
    /// The workers are started again with the configuration that they had: the new master has ended.
    Restart,
    /// A new master is started.
    Upgrade,
    /// The workers end, since another master serves.
    Dismiss,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Starting,
    Serving,
    Draining,
}

impl Master {
    /// Does it, once the change that is under way has ended.
    pub fn perform(self: &Rc<Self>, task: Task) {
        if self.change.borrow().is_some() {
            return self.queue(task);
        }
        match task {
            task if self.ending.get().is_some() => {
                log_line!(Level::Warn, "ignored, since the server is ending");
                if let Task::Reload(waiters) = task {
                    answer(waiters, &Err(ENDING.to_string()));
                }
            }
            Task::Upgrade => upgrade::start(self),
            Task::Dismiss => self.dismiss(),
            Task::Reload(waiters) => {
                // While another master serves the configuration is the one that the workers had, as in nginx: the way back.
                let is_way_back = self.is_dismissed() && self.upgrade.borrow().is_under_way();
                self.begin(if is_way_back { self.kept() } else { None }, waiters);
            }
            Task::Restart => self.begin(self.kept(), Vec::new()),
        }
    }

    /// The texts of the configuration that counts.
    fn kept(&self) -> Option<Rc<Kept>> {
        self.serving.borrow().as_ref().and_then(|serving| serving.kept())
    }

    fn queue(&self, task: Task) {
        let mut queued = self.queued.borrow_mut();
        let is_full = queued.len() >= MAX_QUEUED;
        match (queued.back_mut(), task) {
            // Once is enough: it reads what is in the files by then.
            (Some(Task::Reload(waiters)), Task::Reload(more)) => waiters.extend(more),
            (Some(Task::Upgrade), Task::Upgrade) | (Some(Task::Dismiss), Task::Dismiss) => (),
            (_, task) if !is_full => queued.push_back(task),
            (_, task) => {
                let text = "topnext: too much waits for the end of a change of the configuration";
                log_line!(Level::Error, "{text}");
                if let Task::Reload(waiters) = task {
                    answer(waiters, &Err(text.to_string()));
                }
            }
        }
    }

    /// What has waited has its turn.
    fn go_on(self: &Rc<Self>) {
        while self.change.borrow().is_none() {
            let next = self.queued.borrow_mut().pop_front();
            match next {
                Some(task) => self.perform(task),
                None => return,
            }
        }
    }

    pub(super) fn begin(self: &Rc<Self>, kept: Option<Rc<Kept>>, waiters: Vec<Waiter>) {
        if self.old.borrow().len() >= MAX_OLD {
            let text = format!(
                "topnext: {MAX_OLD} generations of workers have not finished their requests yet; set worker_shutdown_timeout, or end \
                 them"
            );
            log_line!(Level::Error, "{text}");
            answer(waiters, &Err(text));
            return self.restart_later();
        }
        let number = self.last_number.get() + 1;
        self.last_number.set(number);
        let generation = Generation::new(number, kept);
        let previous = self.serving.borrow().clone();
        if let Some(previous) = &previous {
            previous.warn_of_overwritten();
            systemd::reloading();
        }
        let step = Step::Starting;
        let change = Change {
            generation: generation.clone(),
            previous,
            drained: Vec::new(),
            late: Vec::new(),
            waiters,
            step,
            alarm: None,
            pid_file: None,
        };
        self.change.replace(Some(change));
        self.set_step(step, START_TIMEOUT);
        if let Err(reason) = self.start_child(&generation, 0, true) {
            self.fail(&reason);
        }
    }

    pub(super) fn start_child(
        self: &Rc<Self>,
        generation: &Rc<Generation>,
        slot: usize,
        warns: bool,
    ) -> Result<Rc<Child>, String> {
        let Options { config, prefix, .. } = self.options.clone();
        let loops = generation.plan().map(|plan| (plan.processes, plan.threads));
        let kept = generation.kept();
        let modules = kept.as_ref().map_or_else(Vec::new, |kept| kept.modules());
        let start = Start { config, prefix, generation: generation.number, slot, loops, warns, modules };
        let child = Child::start(self, generation, &start, kept.as_deref())
            .map_err(|error| format!("topnext: a worker cannot be started ({})", ErrorText(&error)))?;
        generation.add(child.clone());
        Ok(child)
    }

    /// A worker has read its configuration.
    pub fn loaded(self: &Rc<Self>, child: &Rc<Child>, plan: Plan, kept: Option<String>) {
        let generation = &child.generation;
        let is_serving = self.is_serving(generation);
        if !is_serving && !self.is_starting(generation) {
            // Given up meanwhile.
            return child.kill();
        }
        if is_serving && let Some(known) = generation.plan() {
            self.mend_sockets(&known, child.slot);
        }
        let plan = Rc::new(plan);
        if generation.plan().is_none() {
            let kept = kept.map(|text| Kept::new(&text, &plan.modules)).transpose();
            let prepared = kept
                .map_err(|error| format!("topnext: the configuration cannot be kept ({})", ErrorText(&error)))
                .and_then(|kept| {
                    generation.set_plan(plan.clone(), kept);
                    self.prepare(generation, &plan)
                });
            if let Err(reason) = prepared {
                return self.fail(&reason);
            }
        }
        let Some(known) = generation.plan().filter(|known| known.is_served_like(&plan)) else {
            let number = generation.number;
            return child.end_for(&format!("does not want the same sockets as the others of generation {number}"));
        };
        for module in plan.modules.iter().filter(|module| !known.modules.contains(module)) {
            log_line!(
                Level::Warn,
                "worker {} has loaded another {} than the generation {} that it belongs to: the file was replaced meanwhile; \
                 reload to have it everywhere",
                child.pid,
                module.file.display(),
                generation.number
            );
        }
        let sockets = self.sockets.borrow();
        if !child.give_sockets(&plan::sockets_of(&plan, &sockets, child.slot, self.is_changing_to(generation))) {
            // It has ended, which explains itself; or hangs, which is logged.
            child.kill();
        }
    }

    /// What a new configuration needs of the master.
    fn prepare(self: &Rc<Self>, generation: &Rc<Generation>, plan: &Plan) -> Result<(), String> {
        self.sockets
            .borrow_mut()
            .prepare(&plan.addresses, plan.processes * plan.threads)
            .map_err(|error| super::of_server(&error))?;
        let pid_file = PidFile::of_plan(self.pid_file.borrow().as_ref(), plan);
        let pid_file = pid_file.map_err(|error| super::of_server(&error))?;
        if let Some(change) = &mut *self.change.borrow_mut() {
            change.pid_file = pid_file;
        }
        for slot in 1..plan.processes {
            self.start_child(generation, slot, false)?;
        }
        Ok(())
    }

    /// A worker has got ahead.
    pub fn moved(self: &Rc<Self>, child: &Rc<Child>) {
        if child.stage() == Stage::Ready && !self.is_starting(&child.generation) {
            if self.is_serving(&child.generation) {
                // One that replaces another.
                child.tell(&ToWorker::Serve, &[]);
            } else {
                child.kill();
            }
        }
        self.advance();
        if child.stage() == Stage::Serving {
            self.stand_in();
        }
    }

    /// Whether its workers are those that a change waits for.
    pub(super) fn is_starting(&self, generation: &Rc<Generation>) -> bool {
        let change = self.change.borrow();
        change
            .as_ref()
            .is_some_and(|change| change.step == Step::Starting && Rc::ptr_eq(&change.generation, generation))
    }

    /// Whether it is that of the change that is under way.
    pub(super) fn is_changing_to(&self, generation: &Rc<Generation>) -> bool {
        self.change.borrow().as_ref().is_some_and(|change| Rc::ptr_eq(&change.generation, generation))
    }

    /// Mends the listening sockets of a slot whose worker has died.
    pub(super) fn mend_sockets(&self, plan: &Plan, slot: usize) {
        let first = slot * plan.threads;
        self.sockets.borrow_mut().mend(first..first + plan.threads, plan.processes * plan.threads);
    }

    /// Whether a change waits for its workers to accept connections: if one cannot, it can still go back.
    pub(super) fn is_to_serve(&self) -> bool {
        self.change.borrow().as_ref().is_some_and(|change| change.step == Step::Serving)
    }

    /// Whether its configuration is the one that counts.
    pub(super) fn is_serving(&self, generation: &Rc<Generation>) -> bool {
        self.serving.borrow().as_ref().is_some_and(|serving| Rc::ptr_eq(serving, generation))
    }

    /// Goes through the steps of the change whose time has come.
    pub(super) fn advance(self: &Rc<Self>) {
        loop {
            let (step, generation, previous) = match &*self.change.borrow() {
                None => return,
                Some(change) => (change.step, change.generation.clone(), change.previous.clone()),
            };
            match step {
                Step::Starting if generation.has_reached(Stage::Ready) => self.serve(&generation),
                Step::Serving if generation.has_reached(Stage::Serving) => self.commit(),
                Step::Draining => {
                    let drains = |child: &Rc<Child>| child.stage() >= Stage::Draining;
                    if !previous.is_none_or(|previous| previous.workers().iter().all(drains)) {
                        return;
                    }
                    self.finish();
                }
                _ => return,
            }
        }
    }

    /// The change is at this step, which may take so long.
    fn set_step(self: &Rc<Self>, step: Step, time: Duration) {
        let alarm = Alarm::new(self, time, move |master| master.took_too_long(step));
        if let Some(change) = &mut *self.change.borrow_mut() {
            change.step = step;
            change.alarm = Some(alarm);
        }
    }

    /// The workers of the new configuration serve, beside those of the one before.
    fn serve(self: &Rc<Self>, generation: &Rc<Generation>) {
        let Some(plan) = generation.plan() else { return };
        self.sockets.borrow_mut().listen(&plan.addresses);
        generation.tell(&ToWorker::Serve);
        let previous = self.serving.replace(Some(generation.clone()));
        self.old.borrow_mut().extend(previous.filter(|previous| !previous.is_empty()));
        self.set_step(Step::Serving, START_TIMEOUT);
    }

    /// The new configuration is the one that counts, for good.
    fn commit(self: &Rc<Self>) {
        let Some(plan) = self.serving.borrow().as_ref().and_then(|serving| serving.plan()) else { return };
        self.sockets.borrow_mut().commit(&plan.addresses);
        let (previous, pid_file) = match &mut *self.change.borrow_mut() {
            Some(change) => (change.previous.clone(), change.pid_file.take()),
            None => return,
        };
        if pid_file.is_some() {
            // The one before is removed.
            self.pid_file.replace(pid_file);
        }
        self.open_logs(&plan);
        self.sockets.borrow_mut().tell_unserved(&plan.addresses);
        self.watch(plan.watchdog_timeout);
        self.set_step(Step::Draining, DRAINING_TIMEOUT);
        if let Some(previous) = previous {
            if let Some(change) = &mut *self.change.borrow_mut() {
                change.drained = previous.workers();
            }
            previous.give_up_kept();
            previous.drain(self);
        }
    }

    /// The change is complete.
    fn finish(self: &Rc<Self>) {
        let Some(change) = self.change.take() else { return };
        let generation = &change.generation;
        let Some(plan) = generation.plan() else { return };
        let text = self.describe(&change, &plan);
        log_line!(Level::Notice, "generation {} serves", generation.number);
        let first = self.beginning.take();
        if let Some(beginning) = first {
            let greeting = self.greeting(&plan);
            beginning.ready(self, &greeting);
        }
        systemd::ready();
        self.give_up_zones();
        answer(change.waiters, &Ok(text));
        self.go_on();
    }

    /// Gives up the zones that nobody has any more. While a configuration is changed somebody may still ask for them.
    pub(super) fn give_up_zones(&self) {
        if self.change.borrow().is_none() {
            let (all, _) = self.generations();
            let has_workers = |number| all.iter().any(|generation| generation.number == number);
            self.zones.borrow_mut().retain(has_workers);
        }
    }

    /// The change cannot be: all is as it was. Nothing that served before has been told of it.
    pub(super) fn fail(self: &Rc<Self>, reason: &str) {
        let Some(change) = self.change.take() else { return };
        change.generation.give_up(self);
        let is_first = change.previous.is_none();
        if change.step == Step::Serving {
            self.old.borrow_mut().retain(|old| !change.previous.as_ref().is_some_and(|it| Rc::ptr_eq(old, it)));
            self.serving.replace(change.previous.clone());
            // What has died meanwhile was not replaced.
            change.previous.iter().for_each(|previous| self.refill(previous));
        }
        if !change.generation.is_empty() {
            self.old.borrow_mut().push(change.generation);
        }
        self.sockets.borrow_mut().abandon();
        if is_first {
            *self.outcome.borrow_mut() = Err(reason.to_string());
            self.end(Ending::Fast, None);
        } else {
            reason.lines().for_each(|line| log_line!(Level::Error, "reload failed: {line}"));
            systemd::ready();
        }
        let mut said = reason.trim_end().to_string();
        if let Some(previous) = self.serving.borrow().as_ref().filter(|previous| !previous.is_dismissed.get()) {
            said.push_str(&format!("\ntopnext: nothing has changed, generation {} serves", previous.number));
        }
        answer(change.waiters, &Err(said));
        self.restart_later();
        self.go_on();
    }

    /// Tries again some time later to have workers, if they were dismissed for a master that is gone: nobody serves.
    fn restart_later(self: &Rc<Self>) {
        let is_due = |master: &Master| {
            master.is_dismissed() && !master.upgrade.borrow().is_under_way() && master.ending.get().is_none()
        };
        if is_due(self) {
            log_line!(Level::Alert, "nobody serves; workers are started again in {} s", RESTART_DELAY.as_secs());
            let restart = move |master: &Rc<Master>| {
                if is_due(master) {
                    master.perform(Task::Restart);
                }
            };
            Alarm::new(self, RESTART_DELAY, restart).detach();
        }
    }

    /// A step has not ended in time, unless it has.
    fn took_too_long(self: &Rc<Self>, step: Step) {
        let Some(generation) = self.change.borrow().as_ref().map(|change| change.generation.clone()) else { return };
        match step {
            Step::Starting => {
                let slow = |worker: &Rc<Child>| worker.stage() < Stage::Ready;
                let list: Vec<String> =
                    generation.workers().into_iter().filter(slow).map(|w| where_it_is(&w)).collect();
                let seconds = START_TIMEOUT.as_secs();
                self.fail(&format!("topnext: the new workers were not ready within {seconds} s: {}", list.join("; ")));
            }
            Step::Serving if generation.workers().iter().any(|worker| worker.stage() == Stage::Serving) => {
                log_line!(
                    Level::Alert,
                    "not all workers of generation {} serve; the old ones are drained anyway",
                    generation.number
                );
                self.commit();
                let mut late = generation.workers();
                late.retain(|worker| worker.stage() < Stage::Serving);
                for worker in &late {
                    log_line!(Level::Alert, "worker {} does not accept connections, it is killed", where_it_is(worker));
                    worker.kill();
                }
                if let Some(change) = &mut *self.change.borrow_mut() {
                    change.late = late;
                }
                self.advance();
            }
            Step::Serving => {
                let list: Vec<String> = generation.workers().iter().map(where_it_is).collect();
                let seconds = START_TIMEOUT.as_secs();
                self.fail(&format!(
                    "topnext: no new worker accepts connections after {seconds} s: {}",
                    list.join("; ")
                ));
            }
            Step::Draining => {
                log_line!(Level::Alert, "old workers do not answer; they may accept connections still");
                self.finish();
            }
        }
    }

    /// What there is to say when it serves.
    fn greeting(&self, plan: &Plan) -> String {
        use std::fmt::Write;
        let workers = counted(plan.processes as u64, "worker");
        let threads = counted(plan.threads as u64, "thread");
        let mut text = String::new();
        for warning in &plan.warnings {
            let _ = writeln!(text, "topnext: [warn] {warning}");
        }
        let addresses = plan.addresses.iter().map(|wanted| &wanted.address);
        let modules = plan.modules.iter().map(|module| (&*module.name, &module.version as &dyn Display));
        text + &greeting::of(&format!("{workers} of {threads}"), addresses, modules)
    }

    /// What a change has brought.
    fn describe(&self, change: &Change, plan: &Plan) -> String {
        use std::fmt::Write;
        let generation = &change.generation;
        let pids: Vec<String> = generation.workers().iter().map(|worker| worker.pid.to_string()).collect();
        let mut text = format!("generation {} serves, workers {}\n", generation.number, pids.join(", "));
        let Some(previous) = &change.previous else { return text };
        if let Some(old) = previous.plan() {
            let changes = plan::changes(&old, plan);
            text.push_str(if changes.is_empty() { "  nothing has changed\n" } else { &changes });
        }
        let left = previous.workers();
        for worker in &change.drained {
            let (pid, number) = (worker.pid, previous.number);
            let _ = match left.iter().any(|other| Rc::ptr_eq(other, worker)) {
                true => writeln!(text, "  draining   worker {pid} of generation {number}: {}", worker.in_flight()),
                false => writeln!(text, "  ended      worker {pid} of generation {number}"),
            };
        }
        for worker in previous.workers().iter().filter(|worker| worker.stage() < Stage::Draining) {
            let _ =
                writeln!(text, "  warning    worker {} does not answer; it may accept connections still", worker.pid);
        }
        for worker in &change.late {
            let _ = writeln!(
                text,
                "  warning    worker {} did not come to accept connections, and is replaced",
                worker.pid
            );
        }
        for file in previous.overwritten() {
            let _ = writeln!(
                text,
                "  warning    {file} was overwritten while it was in use, which can crash the old workers; install modules by \
                 renaming"
            );
        }
        for warning in &plan.warnings {
            let _ = writeln!(text, "  warning    {warning}");
        }
        text
    }
}

/// A number of things, in words.
pub(super) fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
