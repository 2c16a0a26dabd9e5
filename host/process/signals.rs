//! Signals, as a source of a loop.

use std::{
    cell::RefCell,
    fmt, io,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};

use mio::net::UnixStream;
use signal_hook::{
    consts::signal,
    iterator::{backend::SignalDelivery, exfiltrator::WithOrigin},
    low_level::siginfo::{Cause, Origin},
};

use crate::event::{Loop, Ready, Source};

/// Those that some process of the server knows. All are caught by all: most would end a process by default, and the others would not be
/// heard of.
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
    delivery: RefCell<SignalDelivery<UnixStream, WithOrigin>>,
    handle: Box<dyn Fn(Signal)>,
}

/// A signal, and where it came from.
#[derive(Clone, Debug)]
pub struct Signal(Origin);

impl Signals {
    /// Catches signals from here on, and has each handled in a turn of the loop.
    pub fn start(lp: &Rc<Loop>, handle: impl Fn(Signal) + 'static) -> io::Result<()> {
        let (read, write) = UnixStream::pair()?;
        let delivery = SignalDelivery::with_pipe(read, write, WithOrigin::default(), CAUGHT)?;
        // A file that grows beyond RLIMIT_FSIZE is an error of its write, and not the end of the process.
        signal_hook::flag::register(signal::SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
        let signals = Rc::new(Signals { delivery: RefCell::new(delivery), handle: Box::new(handle) });
        lp.register_listener(signals.delivery.borrow_mut().get_read_mut(), signals.clone())?;
        Ok(())
    }

    /// The name of a signal.
    pub fn name(signal: i32) -> &'static str {
        signal_hook::low_level::signal_name(signal).unwrap_or("a signal")
    }
}

impl Signal {
    /// Its number.
    pub fn number(&self) -> i32 {
        self.0.signal
    }

    /// The kernel has sent it, as a terminal does.
    pub fn is_of_kernel(&self) -> bool {
        self.0.cause == Cause::Kernel
    }
}

/// As a line of the log begins.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} received", Signals::name(self.0.signal))?;
        match self.0.process {
            Some(process) if !self.is_of_kernel() => write!(f, " from process {}", process.pid),
            _ => Ok(()),
        }
    }
}

impl Source for Signals {
    fn ready(self: Rc<Self>, _: Ready) {
        let signals: Vec<Origin> = self.delivery.borrow_mut().pending().collect();
        signals.into_iter().for_each(|origin| (self.handle)(Signal(origin)));
    }
}
