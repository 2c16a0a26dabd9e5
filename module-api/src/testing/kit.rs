//! What one test has made and what was reported during it.
//!
//! Tests run in parallel threads of one process, so everything is counted by a [`Kit`], of which each thread has its own
//! while it runs a test. What is counted remembers the kit that it was made for, wherever it is given back.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use super::{
    Line, Panic,
    host::{cell, set_up},
};
use crate::{
    code::Code,
    log::Level,
    running::{Hook, Running},
};

/// The slot of the kit's own end of the chains. Modules under test are below.
pub(crate) const INNER: u32 = 1000;

/// The text of a panic that the kit makes.
pub(crate) const INJECTED: &str = "injected by the kit";

/// What a test has made, and what was reported during it.
#[derive(Debug, Default)]
pub(crate) struct Kit {
    /// What is alive, by number: what it is, and who had it last.
    alive: Mutex<BTreeMap<u64, (Kind, Running)>>,
    /// The number of the next one.
    made: AtomicU64,
    /// Points in hooks of modules that were passed, and at which of them (from 1 on) the kit panics; 0: at none.
    points: AtomicU32,
    panic_at: AtomicU32,
    /// The end of the chain has answered Error, which must come back.
    end_failed: AtomicBool,
    /// The hook that was the first to answer Error, without such a reason.
    failed: Mutex<Option<Running>>,
    log: Mutex<Vec<Line>>,
    panics: Mutex<Vec<Panic>>,
    faults: Mutex<Vec<String>>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Buf,
    File,
    Context,
    Waker,
    Job,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Buf => "bufs",
            Kind::File => "files",
            Kind::Context => "contexts",
            Kind::Waker => "wakers",
            Kind::Job => "jobs",
        }
    }
}

thread_local! {
    static KIT: RefCell<Option<Arc<Kit>>> = const { RefCell::new(None) };
}

impl Kit {
    /// Makes a kit for this thread, until the guard is dropped.
    pub(crate) fn start() -> (Arc<Kit>, KitGuard) {
        set_up();
        let kit = Arc::new(Kit::default());
        let guard = kit.clone().enter();
        (kit, guard)
    }

    /// Makes this the kit of this thread, until the guard is dropped.
    pub(crate) fn enter(self: Arc<Kit>) -> KitGuard {
        KitGuard(KIT.with(|kit| kit.borrow_mut().replace(self)))
    }

    pub(crate) fn current() -> Option<Arc<Kit>> {
        KIT.try_with(|kit| kit.borrow().clone()).ok().flatten()
    }

    /// What is alive that should not be, one line each.
    pub(crate) fn leaks(&self) -> Vec<String> {
        let mut groups: Vec<((Kind, Running), usize)> = Vec::new();
        for one in lock(&self.alive).values() {
            match groups.iter_mut().find(|(group, _)| group == one) {
                Some((_, n)) => *n += 1,
                None => groups.push((*one, 1)),
            }
        }
        let line = |((kind, had), n): ((Kind, Running), usize)| {
            let who = match had {
                Running::HOST => "no hook had them yet".to_string(),
                Running { module, hook } => format!("{} of module {module} had them last", hook.name()),
            };
            format!("{n} {} are still alive: {who}", kind.name())
        };
        groups.into_iter().map(line).collect()
    }

    // ---- panics in hooks of the module

    /// From now on, panics at this point, counted from 1 on.
    pub(crate) fn set_panic_at(&self, point: Option<u32>) {
        self.panic_at.store(point.unwrap_or(0), Ordering::SeqCst);
    }

    /// The points that were passed so far.
    pub(crate) fn points(&self) -> u32 {
        self.points.load(Ordering::SeqCst)
    }

    /// Passes a point in a hook; true if it is the one at which to panic.
    fn pass_point(&self) -> bool {
        let Running { module, hook } = cell().get();
        if module == 0 || module >= INNER || matches!(hook, Hook::JOB | Hook::CONTEXT_DROP | Hook::BUF_RELEASE) {
            return false;
        }
        self.points.fetch_add(1, Ordering::SeqCst) + 1 == self.panic_at.load(Ordering::SeqCst)
    }

    // ---- Error from the end

    /// The end of the chain answers Error.
    pub(crate) fn fail_end(&self) {
        self.end_failed.store(true, Ordering::SeqCst);
    }

    /// Sees to it that the hook that runs does not turn the end's Error into something else.
    pub(crate) fn check_answer(&self, code: Code) {
        let passed_on = code == Code::ERROR || code.as_status().is_some_and(|status| status >= 400);
        if self.panicked() {
            return;
        }
        let running = cell().get();
        if passed_on && !self.end_failed.load(Ordering::SeqCst) {
            lock(&self.failed).get_or_insert(running);
        }
        if !passed_on && self.end_failed.swap(false, Ordering::SeqCst) {
            let (hook, module) = (running.hook.name(), running.module);
            self.fault(format!(
                "{hook} of module {module} swallowed an Error of the chain behind it: it answered {code:?}"
            ));
        }
    }

    /// The name of the hook that was the first to answer Error or a status from 400 on by itself.
    pub(crate) fn failed(&self) -> Option<&'static str> {
        lock(&self.failed).map(|running| running.hook.name())
    }

    // ---- what was reported

    pub(crate) fn fault(&self, text: String) {
        lock(&self.faults).push(text);
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        lock(&self.faults).clone()
    }

    pub(crate) fn note(&self, level: Level, text: &str) {
        lock(&self.log).push(Line { level, text: text.to_string() });
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        lock(&self.log).clone()
    }

    pub(crate) fn note_panic(&self, panic: Panic) {
        lock(&self.panics).push(panic);
    }

    /// Whether a panic was reported: the request has failed.
    pub(crate) fn panicked(&self) -> bool {
        !lock(&self.panics).is_empty()
    }

    pub(crate) fn panics(&self) -> Vec<Panic> {
        lock(&self.panics).clone()
    }
}

/// Gives the thread back the kit it had before.
pub(crate) struct KitGuard(Option<Arc<Kit>>);

impl Drop for KitGuard {
    fn drop(&mut self) {
        let before = self.0.take();
        let _ = KIT.try_with(|kit| kit.replace(before));
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One thing that counts as alive until this is dropped. Nothing where there is no kit.
#[derive(Debug)]
pub(crate) struct Counted(Option<(Arc<Kit>, u64)>);

impl Counted {
    /// Counts a thing for this thread's kit, and for the hook that runs.
    pub(crate) fn new(kind: Kind) -> Counted {
        Counted(Kit::current().map(|kit| {
            let number = kit.made.fetch_add(1, Ordering::SeqCst);
            lock(&kit.alive).insert(number, (kind, cell().get()));
            (kit, number)
        }))
    }

    /// The hook that runs has it from here on.
    pub(crate) fn hand_over(&self) {
        if let Some((kit, number)) = &self.0
            && let Some((_, had)) = lock(&kit.alive).get_mut(number)
        {
            *had = cell().get();
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some((kit, number)) = &self.0 {
            lock(&kit.alive).remove(number);
        }
    }
}

/// A point in a hook of a module: the kit panics at one of them, if the test wants it to.
#[track_caller]
pub(crate) fn point() {
    let here = || KIT.try_with(|kit| kit.borrow().as_ref().is_some_and(|kit| kit.pass_point())).unwrap_or(false);
    // A second panic while one unwinds would end the process.
    if !std::thread::panicking() && here() {
        panic!("{INJECTED}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panic::enter;

    #[test]
    fn what_is_alive_is_told_with_the_hook_that_had_it() {
        let (kit, _guard) = Kit::start();
        let first = Counted::new(Kind::Waker);
        let made = enter(cell(), 1, Hook::BODY_FILTER, || [Counted::new(Kind::Buf), Counted::new(Kind::Buf)]);
        let told = "2 bufs are still alive: body_filter of module 1 had them last";
        assert_eq!(kit.leaks(), ["1 wakers are still alive: no hook had them yet", told]);
        assert!(enter(cell(), 2, Hook::CONTENT, || first.hand_over()).is_ok());
        drop(made);
        assert_eq!(kit.leaks(), ["1 wakers are still alive: content of module 2 had them last"]);
        drop(first);
        assert!(kit.leaks().is_empty());
    }

    #[test]
    fn panics_at_the_point_that_was_asked_for_and_only_in_modules() {
        let (kit, _guard) = Kit::start();
        kit.set_panic_at(Some(2));
        point();
        assert!(enter(cell(), INNER, Hook::BODY_FILTER, point).is_ok());
        assert!(enter(cell(), 1, Hook::CONTEXT_DROP, point).is_ok());
        assert!(enter(cell(), 1, Hook::CONTENT, point).is_ok());
        assert!(enter(cell(), 1, Hook::GET_PEER, point).is_err());
        assert!(enter(cell(), 1, Hook::CONTENT, point).is_ok());
        let [panic] = &kit.panics()[..] else { panic!("{:?}", kit.panics()) };
        assert_eq!((panic.hook.as_str(), panic.message.as_str(), kit.points()), ("get", INJECTED, 3));
    }

    #[test]
    fn an_error_must_come_back_as_one() {
        let (kit, _guard) = Kit::start();
        kit.check_answer(Code::OK);
        kit.fail_end();
        kit.check_answer(Code::ERROR);
        kit.check_answer(Code::status(502));
        assert!(kit.faults().is_empty());
        kit.check_answer(Code::status(200));
        assert!(kit.faults()[0].contains("swallowed an Error"), "{:?}", kit.faults());
    }
}
