//! Opens the logs again, of the master and of all workers. Who has asked for it is answered when all of them are open. A worker
//! that loads is waited for until it is ready, for which it has a time of its own.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    alarm::Alarm,
    child::{Child, Stage},
    master::{Master, Waiter, answer},
    messages::ToWorker,
};
use crate::{
    event::{Ready, Source, remote::Announcement},
    log::{self, error::Level},
    log_line,
};

/// How long files may take to open.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One request for it.
pub struct Reopening {
    number: u64,
    master: Weak<Master>,
    /// Processes that have not answered yet, the master included.
    waits_for: RefCell<Vec<u32>>,
    /// Of these, those that were not ready when they were last looked at.
    loading: RefCell<Vec<u32>>,
    failed: RefCell<Vec<String>>,
    /// What failed in the master, told by the thread that writes its logs.
    of_master: Arc<Mutex<Vec<String>>>,
    waiter: RefCell<Option<Waiter>>,
    alarm: RefCell<Option<Alarm>>,
    announcement: Announcement,
}

/// Begins one.
pub fn start(master: &Rc<Master>, waiter: Option<Waiter>) {
    let number = master.next_reopening();
    let reopening = Rc::new(Reopening {
        number,
        master: Rc::downgrade(master),
        waits_for: RefCell::new(vec![std::process::id()]),
        loading: RefCell::default(),
        failed: RefCell::default(),
        of_master: Arc::default(),
        waiter: RefCell::new(waiter),
        alarm: RefCell::default(),
        announcement: Announcement::default(),
    });
    master.reopenings.borrow_mut().push(reopening.clone());

    let (remote, id) = (master.lp.remote().clone(), reopening.announcement.id(&reopening));
    let failed = reopening.of_master.clone();
    log::reopen(move |texts| {
        *failed.lock().unwrap_or_else(PoisonError::into_inner) = texts;
        remote.call(id, 0);
    });
    for child in master.children() {
        let is_told = if child.stage() >= Stage::Ready {
            child.tell(&ToWorker::Reopen(number), &[])
        } else {
            // It may have opened its logs already, and does not listen before it is ready.
            child.reopen_later.set(Some(number));
            true
        };
        if is_told {
            reopening.waits_for.borrow_mut().push(child.pid);
        }
    }
    reopening.wait(master);
}

/// A process has opened its logs, but for these; or has ended, without a number.
pub fn done(master: &Rc<Master>, pid: u32, number: Option<u64>, failed: Vec<String>) {
    // It has opened them for those that asked before, too.
    let of_number = |reopening: &&Rc<Reopening>| {
        number.is_none_or(|number| reopening.number <= number) && reopening.waits_for.borrow().contains(&pid)
    };
    let concerned: Vec<_> = master.reopenings.borrow().iter().filter(of_number).cloned().collect();
    for reopening in concerned {
        reopening.waits_for.borrow_mut().retain(|other| *other != pid);
        let failed = failed.iter().map(|text| format!("process {pid}: {text}"));
        reopening.failed.borrow_mut().extend(failed);
        if reopening.waits_for.borrow().is_empty() {
            reopening.end();
        }
    }
}

impl Reopening {
    /// Looks later who is late. Who loads is not; nor is who did when the wait began.
    fn wait(self: &Rc<Self>, master: &Rc<Master>) {
        let is_loading = |child: &&Rc<Child>| child.reopen_later.get().is_some();
        self.loading.replace(master.children().iter().filter(is_loading).map(|child| child.pid).collect());
        let reopening = Rc::downgrade(self);
        self.alarm.replace(Some(Alarm::new(master, TIMEOUT, move |master| {
            let Some(reopening) = reopening.upgrade() else { return };
            let loading = reopening.loading.take();
            let late: Vec<u32> =
                reopening.waits_for.borrow_mut().extract_if(.., |pid| !loading.contains(pid)).collect();
            for pid in late {
                let text = format!("process {pid}: no answer within {} s", TIMEOUT.as_secs());
                log_line!(Level::Alert, "reopening logs: {text}");
                reopening.failed.borrow_mut().push(text);
            }
            if reopening.waits_for.borrow().is_empty() {
                reopening.end();
            } else {
                reopening.wait(master);
            }
        })));
    }

    /// Answers, with what has failed by now.
    fn end(self: &Rc<Self>) {
        self.announcement.forget();
        self.alarm.take();
        if let Some(master) = self.master.upgrade() {
            master.reopenings.borrow_mut().retain(|other| !Rc::ptr_eq(other, self));
        }
        let failed = self.failed.take();
        let result = if failed.is_empty() {
            Ok(String::new())
        } else {
            let text = "not all logs were opened again; what was open stays in use";
            Err(format!("topnext: {text}:\n  {}", failed.join("\n  ")))
        };
        answer(self.waiter.take(), &result);
    }
}

impl Source for Reopening {
    fn ready(self: Rc<Self>, _: Ready) {}

    fn posted(self: Rc<Self>, _: u64) {
        if let Some(master) = self.master.upgrade() {
            let failed = std::mem::take(&mut *self.of_master.lock().unwrap_or_else(PoisonError::into_inner));
            done(&master, std::process::id(), Some(self.number), failed);
        }
    }
}
