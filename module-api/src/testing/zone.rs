//! Zones of the kit: each belongs to a test.

use std::{
    cell::{Cell, RefCell},
    ops::Deref,
    rc::{Rc, Weak},
    sync::atomic::AtomicU64,
};

use abi_stable::std_types::{RResult, RSlice, RStr, RString};

use super::host::{cell, set_up};
use crate::{running::Running, zone::refusal};

thread_local! {
    static ZONES: RefCell<Vec<Weak<Owned>>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
struct Owned {
    name: String,
    words: &'static [AtomicU64],
    /// That of whoever has opened it first.
    layout: Cell<Option<u64>>,
}

/// A zone of a test, and its words; see [`zone`].
#[derive(Debug)]
#[must_use = "the zone is there as long as this is"]
pub struct TestZone(Rc<Owned>);

/// Makes a zone that modules find which are made on this thread, as long as what is returned lives. Other tests do not see it,
/// and may have zones of the same name.
///
/// It is as the server's: all words are 0 at first, and it has the layout of whoever opens it first. A module that is made again
/// finds what the one before it has left, as after a reload. The test may read and write the words as well. In a server there are
/// 512 at least.
///
/// ```
/// # use topnext_module_api::prelude::*;
/// # use std::sync::atomic::Ordering;
/// # #[derive(Config)]
/// # struct Table {
/// #     /// The name of the zone.
/// #     zone: String,
/// # }
/// # struct Counter(Zone);
/// # impl Module for Counter {
/// #     type Config = Table;
/// #     fn new(table: Table, _: &Setup<'_>) -> Result<Counter, ConfigErrors> {
/// #         Zone::open(&table.zone, 1).map(Counter).map_err(|error| ConfigErrors::at("zone", error))
/// #     }
/// # }
/// # impl Content for Counter {
/// #     fn content(&self, r: &mut Request<'_>) -> Code {
/// #         self.0[0].fetch_add(1, Ordering::Relaxed);
/// #         Code::status(204)
/// #     }
/// # }
/// use topnext_module_api::testing;
///
/// let hits = testing::zone("hits", 512);
/// let counter = testing::module::<Counter>("zone = \"hits\"").unwrap();
/// testing::content(&counter).run();
/// assert_eq!(hits[0].load(Ordering::Relaxed), 1);
/// ```
///
/// # Panics
/// If this thread has one of this name.
#[track_caller]
pub fn zone(name: &str, words: usize) -> TestZone {
    set_up();
    assert!(find(name).is_none(), "there is a zone {name:?} already");
    // Modules have them as long as the process lives.
    let words: &'static [AtomicU64] = Box::leak((0..words).map(|_| AtomicU64::new(0)).collect());
    let zone = Rc::new(Owned { name: name.to_string(), words, layout: Cell::new(None) });
    ZONES.with_borrow_mut(|zones| {
        zones.retain(|zone| zone.strong_count() > 0);
        zones.push(Rc::downgrade(&zone));
    });
    TestZone(zone)
}

impl Deref for TestZone {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        self.0.words
    }
}

fn find(name: &str) -> Option<Rc<Owned>> {
    ZONES.with_borrow(|zones| zones.iter().filter_map(Weak::upgrade).find(|zone| zone.name == name))
}

/// What modules get.
pub(super) unsafe extern "C" fn open(name: RStr<'_>, layout: u64) -> RResult<RSlice<'static, AtomicU64>, RString> {
    if cell().get() != Running::HOST {
        return RResult::RErr("zones are opened while the configuration is read".into());
    }
    let name = name.as_str();
    let Some(zone) = find(name) else {
        let advice = format!("keep what testing::zone({name:?}, WORDS) returns");
        return RResult::RErr(format!("found {name:?}, which is not the name of a zone; {advice}").into());
    };
    match zone.layout.get() {
        Some(known) if known != layout => {
            RResult::RErr(refusal(name, known, layout, "another module of this test uses it").into())
        }
        _ => {
            zone.layout.set(Some(layout));
            RResult::ROk(RSlice::from_slice(zone.words))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::Ordering, thread};

    use super::*;
    use crate::{Zone, panic::enter, running::Hook};

    #[test]
    fn a_zone_is_of_one_test_and_one_layout() {
        let zone = zone("a", 3);
        let opened = Zone::open("a", 0).expect("it is there");
        opened[2].store(5, Ordering::Relaxed);
        assert_eq!((zone[2].load(Ordering::Relaxed), opened.len()), (5, 3));
        assert_eq!(Zone::open("a", 0).expect("again")[2].load(Ordering::Relaxed), 5);
        let text = Zone::open("a", 1).expect_err("another layout");
        assert!(text.contains("zone \"a\" holds something else (layout 0x0, not 0x1): "), "{text}");
        let other = || super::zone("a", 1)[0].load(Ordering::Relaxed);
        assert_eq!(thread::spawn(other).join().expect("another test has its own"), 0);
        drop(zone);
        let text = Zone::open("a", 0).expect_err("it is gone");
        assert!(text.contains("found \"a\", which is not the name of a zone; "), "{text}");
        let anew = super::zone("a", 3);
        assert_eq!(Zone::open("a", 1).expect("it is there")[2].load(Ordering::Relaxed), 0);
        let inside = enter(cell(), 1, Hook::CONTENT, || Zone::open("a", 1).is_err());
        assert_eq!((inside.ok(), anew.len()), (Some(true), 3));
    }
}
