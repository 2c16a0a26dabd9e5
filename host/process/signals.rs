//! Signals: those that end the worker, the one that has logs reopened, and those that it only names yet.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::consts::signal;

use crate::{
    event::{Loop, Ready, Source},
    log::{self, error::Level},
    log_line,
};

/// Signals that end the worker.
const ENDING: [i32; 3] = [signal::SIGINT, signal::SIGTERM, signal::SIGQUIT];
/// nginx's other signals. Caught, since by default they would end the process.
const LATER: [i32; 3] = [signal::SIGHUP, signal::SIGUSR2, signal::SIGWINCH];

/// The signals of the process, as a source of one loop.
pub struct Signals {
    lp: Rc<Loop>,
    waiting: RefCell<signal_hook_mio::v1_0::Signals>,
}

impl Signals {
    /// Catches signals from here on, and has the loop handle them.
    pub fn start(lp: &Rc<Loop>) -> io::Result<()> {
        let waiting =
            RefCell::new(signal_hook_mio::v1_0::Signals::new(ENDING.iter().chain(&LATER).chain(&[signal::SIGUSR1]))?);
        // A file that grows beyond RLIMIT_FSIZE is an error of its write, and not the end of the process.
        signal_hook::flag::register(signal::SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
        let signals = Rc::new(Signals { lp: lp.clone(), waiting });
        lp.register_listener(&mut *signals.waiting.borrow_mut(), signals.clone())?;
        Ok(())
    }
}

impl Source for Signals {
    fn ready(self: Rc<Self>, _: Ready) {
        for signal in self.waiting.borrow_mut().pending() {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
            if ENDING.contains(&signal) {
                log_line!(Level::Notice, "{name} received, exiting");
                self.lp.remote().stop();
            } else if signal == signal::SIGUSR1 {
                log_line!(Level::Notice, "{name} received, reopening logs");
                log::reopen();
            } else {
                let text = "reload and upgrade are not supported yet; nothing is done";
                log_line!(Level::Warn, "{name} received: {text}");
            }
        }
    }
}
