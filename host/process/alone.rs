//! Without a master (`master_process = false`): one process, for a debugger.

use std::{cell::Cell, io, rc::Rc, time::Duration};

use signal_hook::consts::signal;

use super::{
    loops::Loops,
    privileges,
    signals::{Signal, Signals},
};
use crate::{
    error_text::ErrorText,
    event::{Ready, Source, TimerId},
    listen::sockets::{Sockets, Wanted},
    log::{self, error::Level},
    log_line,
    site::Site,
    stats,
};

/// How long jobs on the thread pool may take to end when the process does.
const JOBS_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a configuration until a signal ends it. `ready` is called when connections are accepted.
pub fn run(site: Site, ready: impl FnOnce(&Site) + 'static) -> Result<(), String> {
    let site: &'static Site = Box::leak(Box::new(site));
    stats::uptime();
    let wanted: Vec<Wanted> = site
        .addresses
        .iter()
        .map(|address| Wanted { address: address.address.clone(), options: address.options })
        .collect();
    let mut sockets = Sockets::default();
    sockets.prepare(&wanted, site.threads)?;
    sockets.commit(&wanted);
    privileges::set_limits(&site.main)?;
    if let Some(account) = &site.account {
        account.assume()?;
    }
    let of_loop = |number| {
        let of_address = |address: &'static std::sync::Arc<crate::listen::Address>| {
            let sockets = sockets.of_loop(&address.address, number, site.threads, false);
            sockets.map(|socket| Ok((&**address, socket.try_clone()?))).collect::<Vec<std::io::Result<_>>>()
        };
        site.addresses.iter().flat_map(of_address).collect::<std::io::Result<Vec<_>>>()
    };
    let of_loops = (0..site.threads).map(of_loop).collect::<std::io::Result<Vec<_>>>();
    let of_loops = of_loops.map_err(|error| format!("a socket cannot be shared ({})", ErrorText(&error)))?;
    let loops = Loops::start(site, of_loops)?;
    Alone::start(site, &loops).map_err(|error| format!("cannot wait for signals ({})", ErrorText(&error)))?;
    loops.run(move || ready(site))?;
    // The files of sockets go first, so that clients see at once that nobody is there.
    drop(sockets);
    if site.pool.stop(JOBS_TIMEOUT) {
        site.end();
    } else {
        log_line!(Level::Warn, "jobs on the thread pool did not end in {} s", JOBS_TIMEOUT.as_secs());
    }
    Ok(())
}

/// What signals ask for.
struct Alone {
    loops: Rc<Loops>,
    /// worker_shutdown_timeout.
    timeout: Option<Duration>,
    /// Runs while it drains, if it has a time to do it in.
    shutdown: Cell<Option<TimerId>>,
}

impl Alone {
    fn start(site: &Site, loops: &Rc<Loops>) -> io::Result<()> {
        let timeout = site.main.worker_shutdown_timeout;
        let alone = Rc::new(Alone { loops: loops.clone(), timeout, shutdown: Cell::default() });
        alone.shutdown.set(Some(loops.first.add_timer(alone.clone(), 0)));
        Signals::start(&loops.first, move |signal| alone.handle(signal))
    }

    fn handle(&self, received: Signal) {
        match received.number() {
            signal::SIGTERM | signal::SIGINT => {
                log_line!(Level::Notice, "{received}, exiting");
                self.loops.stop();
            }
            signal::SIGQUIT if self.loops.is_draining() => {
                log_line!(Level::Notice, "{received}, ignored, since it is shutting down already");
            }
            signal::SIGQUIT => {
                log_line!(Level::Notice, "{received}, gracefully shutting down");
                self.loops.drain(|| ());
                if let (Some(timer), Some(timeout)) = (self.shutdown.get(), self.timeout) {
                    self.loops.first.start_timer(timer, timeout);
                }
            }
            signal::SIGUSR1 => {
                log_line!(Level::Notice, "{received}, reopening logs");
                log::reopen(|_| ());
            }
            signal::SIGCHLD => (),
            // Of a terminal whose size has changed.
            signal::SIGWINCH if received.is_of_kernel() => (),
            _ => log_line!(Level::Warn, "{received}; without master_process there is no reload and no upgrade"),
        }
    }
}

impl Source for Alone {
    fn ready(self: Rc<Self>, _: Ready) {}

    fn expired(self: Rc<Self>, _: u32) {
        log_line!(Level::Warn, "worker_shutdown_timeout has passed, closing the connections that are left");
        self.loops.stop();
    }
}
