//! Signals, as a source of a loop.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::consts::signal;

use crate::event::{Loop, Ready, Source};

/// Those that some process of the server knows. All are caught by all, since by default they would end the process.
const CAUGHT: [i32; 8] = [
    signal::SIGHUP,
    signal::SIGINT,
    signal::SIGQUIT,
    signal::SIGUSR1,
    signal::SIGUSR2,
    signal::SIGTERM,
    signal::SIGCHLD,
    signal::SIGWINCH,
];

/// The signals of the process.
pub struct Signals {
    waiting: RefCell<signal_hook_mio::v1_0::Signals>,
    handle: Box<dyn Fn(i32)>,
}

impl Signals {
    /// Catches signals from here on, and has each handled in a turn of the loop.
    pub fn start(lp: &Rc<Loop>, handle: impl Fn(i32) + 'static) -> io::Result<()> {
        let waiting = RefCell::new(signal_hook_mio::v1_0::Signals::new(CAUGHT)?);
        // A file that grows beyond RLIMIT_FSIZE is an error of its write, and not the end of the process.
        signal_hook::flag::register(signal::SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
        let signals = Rc::new(Signals { waiting, handle: Box::new(handle) });
        lp.register_listener(&mut *signals.waiting.borrow_mut(), signals.clone())?;
        Ok(())
    }

    /// The name of a signal.
    pub fn name(signal: i32) -> &'static str {
        signal_hook::low_level::signal_name(signal).unwrap_or("a signal")
    }
}

impl Source for Signals {
    fn ready(self: Rc<Self>, _: Ready) {
        let signals: Vec<i32> = self.waiting.borrow_mut().pending().collect();
        signals.into_iter().for_each(&self.handle);
    }
}
