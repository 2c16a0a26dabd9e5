//! A real configuration with copies of the modules, and a request in it that no client waits for.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use topnext::event::Loop;
use topnext::http1::connection::{self, Http1};
use topnext::http1::{Framing, HeadParser, Limits};
use topnext::plugins::{LoadedModule, link};
use topnext::request::{Lent, Request};
use topnext::site::{self, Place, Site};
use topnext::socket::Socket;

use super::build;

/// The lengths of the chains that are measured.
pub const LENGTHS: [usize; 4] = [0, 1, 8, 32];

/// The copies have their code at so many different places in a page, so many bytes apart.
const SHIFTS: usize = 16;
const SHIFT: usize = 256;

/// The head of every request.
const HEAD: &[u8] =
    b"GET /index.html?a=b HTTP/1.1\r\nHost: localhost\r\nUser-Agent: topnext-bench/1\r\nAccept: */*\r\n\r\n";

/// The configuration, and a connection.
pub struct Driver {
    site: &'static Site,
    connection: Rc<Http1>,
    // Nobody writes to it, and it must not be closed.
    _client: TcpStream,
}

impl Driver {
    /// Copies the modules into this folder, and loads them: a location `/N` for each chain of N filters.
    pub fn new(folder: &Path) -> Result<Driver, String> {
        let probe = build::module("probe")?;
        let most = LENGTHS.into_iter().max().unwrap_or(0);
        let mut config = String::from("worker_threads = 1\nthread_pool = { threads = 1 }\n");
        let files: Vec<_> = (1..=most).map(|number| folder.join(format!("noop_{number}.so"))).collect();
        for shift in 0..SHIFTS {
            let noop = build::shifted("noop", shift * SHIFT)?;
            files.iter().skip(shift).step_by(SHIFTS).try_for_each(|file| build::copy(&noop, file))?;
        }
        for (index, file) in files.iter().enumerate() {
            let number = index + 1;
            let _ = writeln!(config, "[[module]]\nname = \"noop\"\nas = \"noop_{number}\"\npath = {file:?}");
        }
        let _ = writeln!(config, "[[module]]\nname = \"probe\"\npath = {probe:?}\n[http]\naccess_log = \"off\"");
        // It is never bound.
        config.push_str("[[http.server]]\nlisten = [\"127.0.0.1:1\"]\nprobe = {}\n");
        for length in LENGTHS {
            let _ = writeln!(config, "[[http.server.location]]\npath = \"/{length}\"");
            (1..=length).for_each(|number| {
                let _ = writeln!(config, "noop_{number} = {{}}");
            });
        }
        let file = folder.join("plugins.toml");
        std::fs::write(&file, config).map_err(|error| format!("{}: {error}", file.display()))?;
        let loaded = site::load(&file, folder).map_err(|report| report.to_string())?;
        let site: &'static Site = Box::leak(Box::new(loaded.site));
        let (connection, client) = connect(site).map_err(|error| format!("cannot connect to itself: {error}"))?;
        Ok(Driver { site, connection, _client: client })
    }

    /// A new request in the location with the chain of so many filters.
    pub fn request(&self, filters: usize) -> Result<Rc<Request>, String> {
        let limits = Limits { request_line: 8192, header_line: 8192, total: 32768, underscores: true };
        let mut parser: HeadParser = HeadParser::new(limits);
        let mut parts = Lent::new();
        parts.bytes = HEAD.to_vec();
        parser.parse(HEAD, &mut parts.head).map_err(|bad| bad.to_string())?;
        let server = &self.site.servers[0];
        let r = Rc::new(Request::new(self.connection.clone(), self.site, server, parts, Framing::None, false));
        r.uri.set(r.store(&[b"/index.html"]));
        r.place.set(self.place(filters)?);
        r.status.set(200);
        Ok(r)
    }

    /// The place with the chain of so many filters.
    pub fn place(&self, filters: usize) -> Result<&'static Place, String> {
        let path = format!("/{filters}");
        let place = self.site.servers[0]
            .locations
            .find(path.as_bytes(), &mut |_| ())
            .place
            .ok_or(format!("there is no location {path}"))?;
        let links = place.chains.modules().count();
        if links == filters + 1 {
            Ok(place)
        } else {
            Err(format!("{path} has {links} links, expected {filters} and 1"))
        }
    }

    /// The module that measures.
    pub fn probe(&self) -> Result<&'static LoadedModule, String> {
        let probe = self.site.modules.iter().find(|module| module.name == "probe");
        probe.map(|module| &**module).ok_or("probe is not loaded".to_owned())
    }

    /// Allocations of all copies of noop so far. Asking makes some too, always the same number.
    pub fn allocations_of_modules(&self, r: &Rc<Request>) -> u64 {
        let noops = self.site.modules.iter().filter(|module| module.name != "probe");
        let of = |module: &std::sync::Arc<LoadedModule>| link::call_variable(r, module.slot, 0);
        noops.filter_map(of).filter_map(|text| String::from_utf8(text.into()).ok()?.parse::<u64>().ok()).sum()
    }
}

/// A connection of the server's own, on a loop that never turns.
fn connect(site: &'static Site) -> std::io::Result<(Rc<Http1>, TcpStream)> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (socket, peer) = listener.accept()?;
    socket.set_nonblocking(true)?;
    let lp = Loop::new()?;
    let socket = Socket::from(OwnedFd::from(socket));
    Ok((connection::accept(&lp, site, &site.addresses[0], socket, Some(peer)), client))
}
