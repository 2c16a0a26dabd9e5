//! Open files, and what is known of paths, for a while (nginx: open_file_cache). A cache belongs to one thread.
//!
//! ```text
//!   by_path:  path -> entry
//!   a list of the entries:  newest <-> ... <-> oldest   (the one used last is the newest)
//! ```
//!
//! An entry is believed for the time `valid`. Then the path is opened anew: if it leads to the same file, unchanged, the
//! old descriptor stays, else the new one takes its place. What is sent from the old one goes on. An entry goes when it was
//! not used for the time `inactive`, or as the oldest one when there are `max`.
//!
//! Knows neither clocks nor files: it is told the time, and what was found.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::{self, Rc},
    sync::{Arc, Weak},
    time::Duration,
};

use rustix::io::Errno;
use slab::Slab;
use topnext_module_api::FileKind;

use super::{How, OpenFile};
use crate::event::{Loop, Ready, Source, TimerId};

/// A cache, as the configuration has it. Places with the same number share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its number, from 0.
    pub number: u32,
    /// Entries of one thread.
    pub max: usize,
    /// Milliseconds after which an entry that is not used goes.
    pub inactive_ms: u64,
}

/// What holds where a path is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The cache.
    pub cache: Settings,
    /// Milliseconds for which an entry is believed.
    pub valid_ms: u64,
    /// Uses from which on a file stays open.
    pub min_uses: u32,
    /// Errors are kept too.
    pub errors: bool,
}

/// What a path leads to: a file or folder, or an error that is about the path.
pub type Found = Result<Arc<OpenFile>, Errno>;

/// What is kept of it.
enum Kept {
    File(Arc<OpenFile>),
    /// It was not used often enough to stay open. While others have it open, they share it.
    Closed(Weak<OpenFile>),
    Error(Errno),
}

impl Kept {
    fn get(&self) -> Option<Found> {
        match self {
            Kept::File(file) => Some(Ok(file.clone())),
            Kept::Closed(file) => file.upgrade().map(Ok),
            Kept::Error(error) => Some(Err(*error)),
        }
    }
}

struct Entry {
    path: Rc<[u8]>,
    how: How,
    kept: Kept,
    uses: u32,
    /// When it was found, or checked.
    checked_ms: u64,
    used_ms: u64,
    newer: usize,
    older: usize,
}

/// No entry.
const NONE: usize = usize::MAX;
/// Inactive entries that go with each one that is added.
const EXPIRE_STEP: usize = 2;

/// A cache.
pub struct Cache {
    settings: Settings,
    /// The standard hasher: paths come from clients, who must not be able to choose ones that collide.
    by_path: HashMap<Rc<[u8]>, usize>,
    entries: Slab<Entry>,
    newest: usize,
    oldest: usize,
}

impl Cache {
    /// An empty one.
    pub fn new(settings: Settings) -> Cache {
        Cache { settings, by_path: HashMap::new(), entries: Slab::new(), newest: NONE, oldest: NONE }
    }

    /// What a path leads to, if that is known and still to be believed. Counts as a use.
    pub fn find(&mut self, path: &[u8], how: How, rules: &Rules, now_ms: u64) -> Option<Found> {
        let key = *self.by_path.get(path)?;
        self.move_to_front(key);
        let entry = &mut self.entries[key];
        entry.uses = entry.uses.saturating_add(1);
        entry.used_ms = now_ms;
        if entry.how != how || now_ms.saturating_sub(entry.checked_ms) >= rules.valid_ms {
            return None;
        }
        let found = entry.kept.get()?;
        if let (Kept::Closed(_), Ok(file)) = (&entry.kept, &found)
            && entry.uses >= rules.min_uses
        {
            entry.kept = Kept::File(file.clone());
        }
        Some(found)
    }

    /// Takes in what a path was found to lead to. The answer is what is to be used: the file that is open already, if it
    /// is the same.
    pub fn add(&mut self, path: &[u8], how: How, found: Found, rules: &Rules, now_ms: u64) -> Found {
        let known = self.by_path.get(path).copied();
        if found.is_err() && !rules.errors {
            // What was known is wrong, and this is not kept.
            if let Some(key) = known {
                self.remove(key);
            }
            return found;
        }
        let found = match (known.and_then(|key| self.entries[key].kept.get()), found) {
            (Some(Ok(old)), Ok(new)) if old.is_same(&new) => Ok(old),
            (_, found) => found,
        };
        let uses = known.map_or(1, |key| self.entries[key].uses);
        let kept = match &found {
            Err(error) => Kept::Error(*error),
            // A folder may have to be read, but does not stay open (nginx closes it).
            Ok(file) if file.kind == FileKind::Directory || (uses < rules.min_uses && file.fd.is_some()) => {
                Kept::Closed(Arc::downgrade(file))
            }
            Ok(file) => Kept::File(file.clone()),
        };
        if let Some(key) = known {
            let entry = &mut self.entries[key];
            (entry.how, entry.kept, entry.checked_ms) = (how, kept, now_ms);
            return found;
        }
        if self.entries.len() >= self.settings.max {
            self.remove(self.oldest);
        }
        self.expire(now_ms, EXPIRE_STEP);
        let path: Rc<[u8]> = path.into();
        let (checked_ms, used_ms) = (now_ms, now_ms);
        let entry = Entry { path: path.clone(), how, kept, uses, checked_ms, used_ms, newer: NONE, older: NONE };
        let key = self.entries.insert(entry);
        self.by_path.insert(path, key);
        self.link_in_front(key);
        found
    }

    /// Removes at most `most` entries that have become inactive: how many milliseconds the oldest one that is left has, or
    /// none if nothing is left. 0: there are more.
    pub fn expire(&mut self, now_ms: u64, most: usize) -> Option<u64> {
        for _ in 0..most {
            let oldest = self.entries.get(self.oldest)?;
            let idle_ms = now_ms.saturating_sub(oldest.used_ms);
            if idle_ms <= self.settings.inactive_ms {
                return Some(self.settings.inactive_ms - idle_ms + 1);
            }
            self.remove(self.oldest);
        }
        self.entries.get(self.oldest).map(|_| 0)
    }

    fn remove(&mut self, key: usize) {
        if !self.entries.contains(key) {
            return;
        }
        self.unlink(key);
        let entry = self.entries.remove(key);
        self.by_path.remove(&entry.path);
    }

    fn move_to_front(&mut self, key: usize) {
        if self.newest != key {
            self.unlink(key);
            self.link_in_front(key);
        }
    }

    fn unlink(&mut self, key: usize) {
        let (newer, older) = (self.entries[key].newer, self.entries[key].older);
        match self.entries.get_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entries.get_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_in_front(&mut self, key: usize) {
        let older = std::mem::replace(&mut self.newest, key);
        match self.entries.get_mut(older) {
            Some(entry) => entry.newer = key,
            None => self.oldest = key,
        }
        let entry = &mut self.entries[key];
        (entry.newer, entry.older) = (NONE, older);
    }
}

thread_local! {
    /// The caches of this thread, by their numbers.
    static CACHES: RefCell<Vec<Option<Rc<OnLoop>>>> = const { RefCell::new(Vec::new()) };
}

/// A cache of a loop, with the timer that ends inactive entries if no request comes that would.
struct OnLoop {
    cache: RefCell<Cache>,
    lp: rc::Weak<Loop>,
    timer: Cell<Option<TimerId>>,
}

/// Inactive entries that go in one turn of the loop.
const EXPIRE_TURN: usize = 64;

/// See [`Cache::find`].
pub fn find(lp: &Loop, path: &[u8], how: How, rules: &Rules) -> Option<Found> {
    CACHES.with_borrow(|caches| {
        let kept = caches.get(rules.cache.number as usize)?.as_ref()?;
        kept.cache.borrow_mut().find(path, how, rules, lp.now_ms())
    })
}

/// See [`Cache::add`].
pub fn add(lp: &Rc<Loop>, path: &[u8], how: How, found: Found, rules: &Rules) -> Found {
    let kept = CACHES.with_borrow_mut(|caches| {
        let number = rules.cache.number as usize;
        if caches.len() <= number {
            caches.resize(number + 1, None);
        }
        let make = || {
            let cache = RefCell::new(Cache::new(rules.cache));
            Rc::new(OnLoop { cache, lp: Rc::downgrade(lp), timer: Cell::new(None) })
        };
        caches[number].get_or_insert_with(make).clone()
    });
    let found = kept.cache.borrow_mut().add(path, how, found, rules, lp.now_ms());
    kept.start_timer(lp);
    found
}

impl OnLoop {
    /// Starts the timer unless it runs, or there is nothing to end.
    fn start_timer(self: &Rc<Self>, lp: &Loop) {
        let timer = self.timer.get().unwrap_or_else(|| lp.add_timer(self.clone(), 0));
        self.timer.set(Some(timer));
        if lp.timer_runs(timer) {
            return;
        }
        let next = self.cache.borrow_mut().expire(lp.now_ms(), EXPIRE_TURN);
        if let Some(ms) = next {
            lp.start_timer(timer, Duration::from_millis(ms));
        }
    }
}

impl Source for OnLoop {
    fn ready(self: Rc<Self>, _: Ready) {}

    fn expired(self: Rc<Self>, _: u32) {
        if let Some(lp) = self.lp.upgrade() {
            self.start_timer(&lp);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{NoWait, open_nowait};
    use super::*;

    const RULES: Rules =
        Rules { cache: Settings { number: 0, max: 3, inactive_ms: 100 }, valid_ms: 50, min_uses: 1, errors: false };
    const HOW: How = How { symlinks: super::super::Symlinks::Follow, from: 0, read_ahead: false };

    /// Each call opens it anew.
    fn file() -> Arc<OpenFile> {
        match open_nowait(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").as_bytes(), HOW) {
            Ok(NoWait::Done(file)) => Arc::new(file),
            _ => Arc::new(super::super::open_blocking(b"Cargo.toml", HOW).expect("tests start beside it")),
        }
    }

    fn paths(cache: &Cache) -> Vec<String> {
        let (mut out, mut at) = (Vec::new(), cache.newest);
        while let Some(entry) = cache.entries.get(at) {
            out.push(String::from_utf8_lossy(&entry.path).into_owned());
            at = entry.older;
        }
        let (mut back, mut at) = (Vec::new(), cache.oldest);
        while let Some(entry) = cache.entries.get(at) {
            back.push(String::from_utf8_lossy(&entry.path).into_owned());
            at = entry.newer;
        }
        back.reverse();
        assert_eq!(out, back, "both directions");
        assert_eq!((out.len(), out.len()), (cache.entries.len(), cache.by_path.len()));
        out
    }

    #[test]
    fn the_one_used_last_is_the_last_to_go() {
        let mut cache = Cache::new(RULES.cache);
        for path in ["a", "b", "c"] {
            let _ = cache.add(path.as_bytes(), HOW, Ok(file()), &RULES, 0);
        }
        assert_eq!(paths(&cache), ["c", "b", "a"]);
        assert!(cache.find(b"a", HOW, &RULES, 1).is_some());
        assert_eq!(paths(&cache), ["a", "c", "b"]);
        assert!(cache.find(b"c", HOW, &RULES, 1).is_some());
        assert_eq!(paths(&cache), ["c", "a", "b"]);
        let _ = cache.add(b"d", HOW, Ok(file()), &RULES, 2);
        assert_eq!(paths(&cache), ["d", "c", "a"]);
        assert!(cache.find(b"b", HOW, &RULES, 2).is_none());
    }

    #[test]
    fn is_believed_while_valid_and_then_keeps_the_open_file_if_it_is_the_same() {
        let mut cache = Cache::new(RULES.cache);
        let first = cache.add(b"a", HOW, Ok(file()), &RULES, 0).expect("a file");
        assert!(Arc::ptr_eq(&first, &cache.find(b"a", HOW, &RULES, 49).expect("valid").expect("a file")));
        assert!(cache.find(b"a", HOW, &RULES, 50).is_none());
        let again = cache.add(b"a", HOW, Ok(file()), &RULES, 50).expect("a file");
        assert!(Arc::ptr_eq(&first, &again));
        assert!(cache.find(b"a", HOW, &RULES, 99).is_some());
        let other = How { from: 1, ..HOW };
        assert!(cache.find(b"a", other, &RULES, 99).is_none(), "found under another rule");
    }

    #[test]
    fn a_file_that_is_not_used_often_is_shared_but_not_kept() {
        let rules = Rules { min_uses: 3, ..RULES };
        let mut cache = Cache::new(rules.cache);
        let first = cache.add(b"a", HOW, Ok(file()), &rules, 0).expect("a file");
        assert!(Arc::ptr_eq(&first, &cache.find(b"a", HOW, &rules, 1).expect("open").expect("a file")));
        assert_eq!(Arc::strong_count(&first), 1, "in use here only");
        drop(first);
        assert!(cache.find(b"a", HOW, &rules, 2).is_none(), "it is closed");
        let kept = cache.add(b"a", HOW, Ok(file()), &rules, 2).expect("a file");
        assert_eq!(Arc::strong_count(&kept), 2, "the third use");
    }

    #[test]
    fn errors_are_kept_if_they_are_wanted() {
        let mut cache = Cache::new(RULES.cache);
        let _ = cache.add(b"a", HOW, Ok(file()), &RULES, 0);
        assert!(cache.add(b"a", HOW, Err(Errno::NOENT), &RULES, 50).is_err());
        assert!(paths(&cache).is_empty(), "what is gone is forgotten");
        let rules = Rules { errors: true, ..RULES };
        assert!(cache.add(b"a", HOW, Err(Errno::NOENT), &rules, 50).is_err());
        assert!(matches!(cache.find(b"a", HOW, &rules, 51), Some(Err(Errno::NOENT))));
        assert!(cache.add(b"a", HOW, Ok(file()), &rules, 100).is_ok());
        assert!(matches!(cache.find(b"a", HOW, &rules, 101), Some(Ok(_))));
    }

    #[test]
    fn what_is_not_used_goes_a_few_at_a_time() {
        let rules = Rules { cache: Settings { max: 1000, ..RULES.cache }, ..RULES };
        let mut cache = Cache::new(rules.cache);
        for number in 0..10_u64 {
            let _ = cache.add(format!("{number}").as_bytes(), HOW, Ok(file()), &rules, number);
        }
        assert_eq!(cache.expire(100, 4), Some(1), "the oldest one has one more");
        assert_eq!(cache.expire(103, 2), Some(0), "more are to go");
        assert_eq!(paths(&cache).len(), 8);
        assert_eq!(cache.expire(103, 2), Some(1));
        assert_eq!(paths(&cache).len(), 7);
        let _ = cache.add(b"x", HOW, Ok(file()), &rules, 1000);
        assert_eq!(paths(&cache).len(), 6, "two of them with the one that was added");
        assert_eq!(cache.expire(5000, 100), None);
        assert!(paths(&cache).is_empty());
    }
}
