//! What the master does later, unless it has become pointless.

use std::{
    cell::Cell,
    rc::{Rc, Weak},
    time::Duration,
};

use super::master::Master;
use crate::event::{Ready, Source, TimerId};

/// Something that is to be done later. Dropped, it is not done.
#[must_use]
pub struct Alarm(Option<Rc<Later>>);

impl Alarm {
    /// Calls `act` after this time, on the master's loop.
    pub fn new(master: &Rc<Master>, time: Duration, act: impl FnOnce(&Rc<Master>) + 'static) -> Alarm {
        let (act, timer) = (Cell::new(Some(Box::new(act) as Act)), Cell::default());
        let later = Rc::new(Later { master: Rc::downgrade(master), act, timer });
        let timer = master.lp.add_timer(later.clone(), 0);
        later.timer.set(Some(timer));
        master.lp.start_timer(timer, time);
        Alarm(Some(later))
    }

    /// It is done in any case.
    pub fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(later) = &self.0 {
            later.end();
        }
    }
}

type Act = Box<dyn FnOnce(&Rc<Master>)>;

struct Later {
    master: Weak<Master>,
    act: Cell<Option<Act>>,
    timer: Cell<Option<TimerId>>,
}

impl Later {
    /// Gives the timer back; what was to be done.
    fn end(&self) -> Option<(Rc<Master>, Act)> {
        let (act, timer) = (self.act.take(), self.timer.take());
        let master = self.master.upgrade()?;
        master.lp.remove_timer(timer?);
        Some((master, act?))
    }
}

impl Source for Later {
    fn ready(self: Rc<Self>, _: Ready) {}

    fn expired(self: Rc<Self>, _: u32) {
        if let Some((master, act)) = self.end() {
            act(&master);
        }
    }
}
