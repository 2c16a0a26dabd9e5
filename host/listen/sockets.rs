//! The listening sockets of the server, by address. They are opened once and outlive configurations and workers, so that no
//! connection is lost with the queue of a socket that was closed.
//!
//! ```text
//! prepare    what a new configuration adds is bound, and does not listen yet      all or none
//! listen     it does                                                              or abandon: it is as it was
//! commit     options that have changed are set; what no configuration wants any more is closed
//! ```
//!
//! A socket file that is added listens from prepare on: another server would take it for left behind. Who connects waits
//! until the new configuration is served, or is reset.
//!
//! An address of IP has one socket for each event loop of all workers. If a later configuration has fewer loops, some of them
//! get several: the kernel goes on spreading connections over all of them.

use std::{mem, net::SocketAddr, ops::Range};

use serde::{Deserialize, Serialize};

use super::bind::{self, SOCKET_MODE, SocketFile};
use crate::{
    config::{Listen, ListenOptions},
    error_text::ErrorText,
    log::error::Level,
    log_line,
    socket::Socket,
};

/// An address that a configuration listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The address. The path of a unix socket is absolute.
    pub address: Listen,
    /// The options of its sockets.
    pub options: ListenOptions,
}

/// How the sockets of an address have come to be.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Kind {
    /// It is one socket, however many loops there are: a socket file, or what another process has opened.
    pub is_single: bool,
    /// Another process has opened it and has it still, and its file: it is not closed before the end.
    pub is_foreign: bool,
}

/// An address with its sockets.
#[derive(Debug)]
struct Held {
    wanted: Wanted,
    sockets: Vec<Socket>,
    /// How many of them listen: those behind have been prepared.
    listening: usize,
    kind: Kind,
    file: Option<SocketFile>,
    /// What takes the place of sockets that a worker has made useless for all, by number: workers have the same ones as the
    /// master. They do not listen yet, for the workers that serve have the others.
    fresh: Vec<(usize, Socket)>,
    /// Those whose places have been taken, by number, until it is certain that they are not needed.
    replaced: Vec<(usize, Socket)>,
}

/// All addresses.
#[derive(Debug, Default)]
pub struct Sockets {
    held: Vec<Held>,
    /// The addresses of the configuration when it was told last what nobody serves.
    told: Option<Vec<Listen>>,
}

impl Sockets {
    /// Takes over what another process has opened for an address, and has listen, with the file if it is to be removed.
    pub fn adopt(&mut self, wanted: Wanted, sockets: Vec<Socket>, kind: Kind, file: Option<SocketFile>) {
        self.held.push(Held {
            wanted,
            listening: sockets.len(),
            sockets,
            kind,
            file,
            fresh: Vec::new(),
            replaced: Vec::new(),
        });
    }

    /// Binds what is missing for so many loops. An error has a line for each address that cannot be had, and leaves all as it
    /// was.
    pub fn prepare(&mut self, wanted: &[Wanted], loops: usize) -> Result<(), String> {
        for held in self.held.iter_mut().filter(|held| !held.kind.is_foreign) {
            (0..held.listening).for_each(|at| held.prepare_fresh(at));
        }
        let mut errors: Vec<String> = Vec::new();
        let mut refuse =
            |wanted: &Wanted, reason| errors.push(format!("cannot listen on {}: {reason}", wanted.address));
        // Before anything is bound: one address may be a part of another of ours, such as 127.0.0.1:80 of *:80.
        let mut free = Vec::new();
        for wanted in wanted {
            let known = self.held.iter().find(|held| held.wanted.address == wanted.address);
            let result = match known {
                Some(held) => held.takes(&wanted.options),
                None if self.held.iter().any(|held| overlap(&held.wanted.address, &wanted.address)) => Ok(()),
                None => bind::check(&wanted.address, &wanted.options),
            };
            match result {
                Ok(()) => free.push(wanted),
                Err(reason) => refuse(wanted, reason),
            }
        }
        for wanted in free {
            if let Err(reason) = self.bind(wanted, loops) {
                refuse(wanted, reason);
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        self.abandon();
        Err(errors.join("\n"))
    }

    fn bind(&mut self, wanted: &Wanted, loops: usize) -> Result<(), String> {
        let at = match self.held.iter().position(|held| held.wanted.address == wanted.address) {
            Some(at) => at,
            None => {
                let kind = Kind { is_single: matches!(wanted.address, Listen::Unix(_)), is_foreign: false };
                let wanted = wanted.clone();
                self.held.push(Held {
                    wanted,
                    sockets: Vec::new(),
                    listening: 0,
                    kind,
                    file: None,
                    fresh: Vec::new(),
                    replaced: Vec::new(),
                });
                self.held.len() - 1
            }
        };
        let held = &mut self.held[at];
        match &wanted.address {
            Listen::Unix(path) if held.sockets.is_empty() => {
                let (socket, file) = bind::unix(path, &wanted.options, SOCKET_MODE)?;
                held.sockets.push(socket);
                held.file = Some(share(file)?);
            }
            Listen::Tcp(ip) if !held.kind.is_single => {
                // With SO_REUSEPORT always: a later configuration may have more loops.
                while held.sockets.len() < loops {
                    held.sockets.push(bind::tcp(*ip, &wanted.options, true)?);
                }
            }
            _ => (),
        }
        Ok(())
    }

    /// Has what was prepared listen, beside what does already. Until [`Sockets::commit`] it can be given up.
    pub fn listen(&mut self, wanted: &[Wanted]) {
        for held in &mut self.held {
            let Some(wanted) = wanted.iter().find(|wanted| wanted.address == held.wanted.address) else { continue };
            for at in 0..held.listening {
                if let Some(before) = held.use_fresh(at) {
                    held.replaced.push((at, before));
                    log_failed(wanted, bind::listen(&held.sockets[at], &wanted.options));
                }
            }
            let prepared = &held.sockets[held.listening..];
            prepared.iter().for_each(|socket| log_failed(wanted, bind::listen(socket, &wanted.options)));
        }
    }

    /// Has what was prepared listen, with these options, and closes what is not wanted any more; a socket file that
    /// another process has too stays. It does not fail: an address that cannot listen is logged.
    pub fn commit(&mut self, wanted: &[Wanted]) {
        let is_wanted = |held: &Held| wanted.iter().any(|wanted| wanted.address == held.wanted.address);
        let (kept, closed) = self.held.drain(..).partition(|held| held.kind.is_foreign || is_wanted(held));
        self.held = kept;
        let mut closed: Vec<Socket> = closed.into_iter().flat_map(Held::into_sockets).collect();
        closed.extend(self.held.iter_mut().flat_map(|held| held.replaced.drain(..)).map(|(_, before)| before));
        bind::close_elsewhere(closed);
        for held in &mut self.held {
            let Some(wanted) = wanted.iter().find(|wanted| wanted.address == held.wanted.address) else { continue };
            let is_changed = held.wanted.options != wanted.options;
            for (number, socket) in held.sockets.iter().enumerate() {
                let is_new = number >= held.listening;
                if !is_new && is_changed {
                    for reason in bind::unset_options(socket, &wanted.address, &held.wanted.options, &wanted.options) {
                        log_line!(Level::Warn, "listen on {}: {reason}", wanted.address);
                    }
                    if matches!(wanted.address, Listen::Tcp(_)) {
                        log_failed(wanted, bind::set_options(socket, &wanted.options));
                    }
                }
                // Those that listen too: a worker that has them may have shut one down.
                log_failed(wanted, bind::listen(socket, &wanted.options));
            }
            held.listening = held.sockets.len();
            held.wanted = wanted.clone();
        }
    }

    /// Warns of what systemd has opened and nobody serves, at the start and whenever the addresses have changed.
    pub fn tell_unserved(&mut self, wanted: &[Wanted]) {
        let addresses: Vec<Listen> = wanted.iter().map(|wanted| wanted.address.clone()).collect();
        if self.told.as_ref() == Some(&addresses) {
            return;
        }
        for held in self.held.iter().filter(|held| held.kind.is_foreign) {
            let address = &held.wanted.address;
            if !addresses.contains(address) {
                log_line!(
                    Level::Warn,
                    "nothing serves {address}, which systemd has opened (LISTEN_FDS), and who connects waits in vain; a server with \
                     listen = [\"{address}\"] would"
                );
            }
        }
        self.told = Some(addresses);
    }

    /// Mends the sockets of the loops of a worker that replaces another one, which may have shut them down. Those of other loops
    /// stay as they are: a fresh one would get connections, and their workers do not have it.
    pub fn mend(&mut self, of_worker: Range<usize>, loops: usize) {
        let mut spoiled = Vec::new();
        for held in self.held.iter_mut().filter(|held| !held.kind.is_foreign) {
            for at in 0..held.listening {
                if of_worker.clone().any(|number| is_of_loop(at, held.listening, number, loops)) {
                    held.prepare_fresh(at);
                    spoiled.extend(held.use_fresh(at));
                    log_failed(&held.wanted, bind::listen(&held.sockets[at], &held.wanted.options));
                }
            }
        }
        bind::close_elsewhere(spoiled);
    }

    /// Closes what was prepared.
    pub fn abandon(&mut self) {
        let mut closed = Vec::new();
        self.held.retain_mut(|held| {
            closed.extend(held.sockets.drain(held.listening..));
            closed.extend(held.fresh.drain(..).map(|(_, socket)| socket));
            for (at, before) in held.replaced.drain(..) {
                closed.push(mem::replace(&mut held.sockets[at], before));
                // It went with the one that was spoiled.
                held.file = None;
            }
            !held.sockets.is_empty()
        });
        bind::close_elsewhere(closed);
    }

    /// The sockets of one loop of so many, for an address: all loops together get every socket, or those that were not just
    /// prepared.
    pub fn of_loop(
        &self,
        address: &Listen,
        number: usize,
        loops: usize,
        with_prepared: bool,
    ) -> impl Iterator<Item = &Socket> {
        let held = self.held.iter().find(|held| held.wanted.address == *address);
        held.into_iter().flat_map(move |held| {
            let count = if with_prepared { held.sockets.len() } else { held.listening };
            let its = (0..count).filter(move |at| is_of_loop(*at, count, number, loops));
            its.map(|at| held.fresh.iter().find(|(of, _)| *of == at).map_or(&held.sockets[at], |(_, fresh)| fresh))
        })
    }

    /// All of them, with what [`Sockets::adopt`] needs to know.
    pub fn all(&self) -> impl Iterator<Item = (&Wanted, &[Socket], Kind, Option<&SocketFile>)> {
        let listening = self.held.iter().filter(|held| held.listening > 0);
        listening.map(|held| (&held.wanted, &held.sockets[..held.listening], held.kind, held.file.as_ref()))
    }

    /// Closes all. Socket files that another process has too stay.
    pub fn close(&mut self) {
        bind::close_elsewhere(self.held.drain(..).flat_map(Held::into_sockets).collect());
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.close();
    }
}

impl Held {
    fn into_sockets(self) -> impl Iterator<Item = Socket> {
        let others = self.fresh.into_iter().chain(self.replaced);
        self.sockets.into_iter().chain(others.map(|(_, socket)| socket))
    }

    /// Opens another socket if this one is spoiled, unless that was done already.
    fn prepare_fresh(&mut self, at: usize) {
        let Wanted { address, options } = &self.wanted;
        if self.fresh.iter().any(|(of, _)| *of == at) || !bind::is_spoiled(&self.sockets[at], address) {
            return;
        }
        let fresh = match address {
            Listen::Tcp(ip) => bind::tcp(*ip, options, true),
            // Its file is made when it takes the place.
            Listen::Unix(_) => bind::without_file(options),
        };
        match fresh {
            Ok(fresh) => self.fresh.push((at, fresh)),
            Err(reason) => self.log_useless(&format!("and it cannot be replaced: {reason}")),
        }
    }

    /// Has the fresh socket, if there is one, take its place: the one before, if it can.
    fn use_fresh(&mut self, at: usize) -> Option<Socket> {
        let found = self.fresh.iter().position(|(of, _)| *of == at)?;
        let (_, fresh) = self.fresh.swap_remove(found);
        if let Listen::Unix(path) = &self.wanted.address {
            match bind::make_file(&fresh, path, &self.wanted.options, SOCKET_MODE).and_then(share) {
                Ok(file) => self.file = Some(file),
                Err(reason) => {
                    self.log_useless(&format!("and it cannot be replaced: {reason}"));
                    bind::close_elsewhere(vec![fresh]);
                    return None;
                }
            }
        }
        self.log_useless("it is replaced");
        Some(mem::replace(&mut self.sockets[at], fresh))
    }

    fn log_useless(&self, what: &str) {
        log_line!(Level::Alert, "a worker has made a listening socket of {} useless; {what}", self.wanted.address);
    }

    /// Whether these options can be set while it is open.
    fn takes(&self, options: &ListenOptions) -> Result<(), String> {
        let is_ipv6 = matches!(self.wanted.address, Listen::Tcp(SocketAddr::V6(_)));
        if is_ipv6 && self.wanted.options.ipv6only != options.ipv6only {
            return Err("ipv6only cannot be changed while the address is in use; start the server again".to_string());
        }
        Ok(())
    }
}

/// Whether a socket of so many belongs to a loop of so many.
fn is_of_loop(at: usize, sockets: usize, number: usize, loops: usize) -> bool {
    at % loops == number || (sockets < loops && at == number % sockets)
}

fn share(file: SocketFile) -> Result<SocketFile, String> {
    file.shared().map_err(|error| format!("({})", ErrorText(&error)))
}

fn log_failed(wanted: &Wanted, result: Result<(), String>) {
    if let Err(reason) = result {
        log_line!(Level::Alert, "cannot listen on {} as it is configured: {reason}", wanted.address);
    }
}

/// Whether two addresses have the same port, and one of them is all addresses of the machine. The kernel lets both listen only
/// with SO_REUSEPORT, and gives a connection to the more specific one, as nginx does.
fn overlap(one: &Listen, other: &Listen) -> bool {
    match (one, other) {
        (Listen::Tcp(one), Listen::Tcp(other)) => {
            one != other && one.port() == other.port() && (one.ip().is_unspecified() || other.ip().is_unspecified())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn wanted(port: u16) -> Wanted {
        Wanted { address: Listen::Tcp(([127, 0, 0, 1], port).into()), options: ListenOptions::default() }
    }

    /// A port that was free a moment ago.
    fn port() -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound").port()
    }

    fn loops(sockets: &Sockets, wanted: &Wanted, loops: usize) -> Vec<usize> {
        (0..loops).map(|number| sockets.of_loop(&wanted.address, number, loops, true).count()).collect()
    }

    #[test]
    fn sockets_stay_when_loops_become_fewer() {
        let one = wanted(port());
        let mut sockets = Sockets::default();
        sockets.prepare(std::slice::from_ref(&one), 3).expect("free");
        sockets.commit(std::slice::from_ref(&one));
        assert_eq!(loops(&sockets, &one, 3), [1, 1, 1]);
        sockets.prepare(std::slice::from_ref(&one), 2).expect("held");
        sockets.commit(std::slice::from_ref(&one));
        assert_eq!(loops(&sockets, &one, 2), [2, 1]);
        sockets.prepare(std::slice::from_ref(&one), 4).expect("another one");
        assert_eq!(loops(&sockets, &one, 4), [1, 1, 1, 1]);
        sockets.abandon();
        assert_eq!(loops(&sockets, &one, 3), [1, 1, 1]);
        // One that is shared.
        let mut adopted = Sockets::default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = Listen::Tcp(listener.local_addr().expect("bound"));
        let adopted_one = Wanted { address, options: ListenOptions::default() };
        adopted.adopt(
            adopted_one.clone(),
            vec![Socket::from(std::os::fd::OwnedFd::from(listener))],
            Kind { is_single: true, is_foreign: false },
            None,
        );
        assert_eq!(loops(&adopted, &adopted_one, 3), [1, 1, 1]);
    }

    #[test]
    fn what_is_prepared_takes_no_connections() {
        let one = wanted(port());
        let mut sockets = Sockets::default();
        sockets.prepare(std::slice::from_ref(&one), 1).expect("free");
        let Listen::Tcp(address) = one.address else { unreachable!("it is") };
        assert!(std::net::TcpStream::connect(address).is_err());
        sockets.commit(std::slice::from_ref(&one));
        assert!(std::net::TcpStream::connect(address).is_ok());
        sockets.commit(&[]);
        // On another thread, which is waited for.
        assert!(std::net::TcpStream::connect(address).is_err());
    }

    #[test]
    fn nobody_waits_for_a_socket_that_a_worker_has_made_linger() {
        use std::io::Write as _;
        // A connection to somebody who does not read, with more than there is room for.
        let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut connection = std::net::TcpStream::connect(other.local_addr().expect("bound")).expect("it listens");
        let (_end, _) = other.accept().expect("connected");
        connection.set_nonblocking(true).expect("set");
        while connection.write(&[0; 65536]).is_ok() {}
        let of = socket2::SockRef::from(&connection);
        of.set_linger(Some(Duration::from_secs(60))).expect("set");
        of.set_nonblocking(false).expect("set");
        let mut sockets = Sockets::default();
        let socket = Socket::from(std::os::fd::OwnedFd::from(connection));
        sockets.adopt(wanted(1), vec![socket], Kind { is_single: true, is_foreign: true }, None);
        let since = Instant::now();
        drop(sockets);
        assert!(since.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn options_that_are_configured_no_more_are_the_systems_again() {
        use crate::{config::SoKeepalive, listen::sockopt};
        let plain = wanted(port());
        let mut all = plain.clone();
        all.options = ListenOptions {
            backlog: 7,
            rcvbuf: Some(30_000),
            sndbuf: Some(20_000),
            deferred: true,
            fastopen: Some(7),
            so_keepalive: Some(SoKeepalive { enabled: true, idle: Some(1800), interval: Some(11), count: Some(4) }),
            ..ListenOptions::default()
        };
        let mut sockets = Sockets::default();
        let mut fresh = Sockets::default();
        let mut change = |to: &Wanted| {
            sockets.prepare(std::slice::from_ref(to), 1).expect("free, or held");
            sockets.commit(std::slice::from_ref(to));
            state(&sockets)
        };
        fn state(sockets: &Sockets) -> String {
            let socket = &sockets.held[0].sockets[0];
            let of = socket2::SockRef::from(socket);
            let tcp = |option| sockopt::get(socket, option).expect("an option");
            format!(
                "{:?} {:?} {:?} {} {} {} {} {} {} {}",
                of.recv_buffer_size(),
                of.send_buffer_size(),
                of.keepalive(),
                tcp(libc::TCP_KEEPIDLE),
                tcp(libc::TCP_KEEPINTVL),
                tcp(libc::TCP_KEEPCNT),
                tcp(libc::TCP_FASTOPEN),
                tcp(libc::TCP_DEFER_ACCEPT),
                sockopt::locked_buffers(socket).unwrap_or(0),
                // Of a socket that listens: the length of its queue.
                crate::tcp_info::of(socket).expect("of TCP").tcpi_sacked,
            )
        }
        let other = wanted(port());
        fresh.prepare(std::slice::from_ref(&other), 1).expect("free");
        fresh.commit(std::slice::from_ref(&other));
        let systems = state(&fresh);
        let set = change(&all);
        assert_ne!(set, systems);
        assert_eq!(change(&plain), systems);
        assert_eq!(change(&all), set);
        // One of them stays.
        let mut some = plain.clone();
        some.options.sndbuf = Some(20_000);
        change(&some);
        let of = &sockets.held[0].sockets[0];
        assert_eq!(socket2::SockRef::from(of).send_buffer_size().expect("a size"), 40_000);
        assert!(sockopt::locked_buffers(of).is_ok_and(|locked| locked == 1));
    }

    #[test]
    fn a_spoiled_socket_is_replaced_for_those_who_get_it() {
        let folder = std::env::temp_dir().join(format!("topnext-sockets-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for files");
        let path = folder.join("a.sock");
        let unix = Wanted { address: Listen::Unix(path.clone()), options: ListenOptions::default() };
        let all = [wanted(port()), unix];
        let mut sockets = Sockets::default();
        sockets.prepare(&all, 2).expect("free");
        sockets.commit(&all);
        let spoil = |sockets: &Sockets| {
            for socket in sockets.held.iter().flat_map(|held| &held.sockets) {
                let _ = socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Read);
            }
        };
        let Listen::Tcp(ip) = all[0].address else { unreachable!("it is") };
        let listening = |sockets: &Sockets| {
            let sockets = &sockets.held[0].sockets;
            sockets.iter().map(|socket| socket2::SockRef::from(socket).is_listener().expect("said")).collect::<Vec<_>>()
        };
        let is_served = || std::os::unix::net::UnixStream::connect(&path).is_ok();
        spoil(&sockets);
        // A change that fails: nobody waits where no worker comes.
        sockets.prepare(&all, 2).expect("held");
        sockets.abandon();
        assert!(std::net::TcpStream::connect(ip).is_err() && !is_served());
        // Nor when it fails late.
        sockets.prepare(&all, 2).expect("held");
        sockets.listen(&all);
        assert!(std::net::TcpStream::connect(ip).is_ok() && is_served());
        sockets.abandon();
        assert!(std::net::TcpStream::connect(ip).is_err() && !is_served());
        sockets.prepare(&all, 2).expect("held");
        sockets.listen(&all);
        sockets.commit(&all);
        assert_eq!(listening(&sockets), [true, true]);
        assert!(is_served());
        // The successor of one of two workers gets its own.
        spoil(&sockets);
        sockets.mend(1..2, 2);
        assert_eq!(listening(&sockets), [false, true]);
        assert!(is_served());
        drop(sockets);
        assert!(!path.exists());
        std::fs::remove_dir(folder).expect("empty");
    }

    #[test]
    fn all_or_none() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let busy = wanted(taken.local_addr().expect("bound").port());
        let one = wanted(port());
        let mut sockets = Sockets::default();
        let error = sockets.prepare(&[one.clone(), busy.clone()], 2).expect_err("one is busy");
        assert_eq!(error, format!("cannot listen on {}: (98: Address already in use)", busy.address));
        assert_eq!(sockets.all().count(), 0);
    }
}
