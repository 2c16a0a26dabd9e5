//! The configuration as it runs: servers, places with their chains, upstreams. Made once, shared by all threads.
//!
//! A *place* is a location, or a server outside of its locations: what holds for a request, with the modules that are
//! active there, prepared and linked.

mod addresses;

mod build;

mod files;

pub mod kept;

mod limits;

pub mod facts;

mod logs;

use std::{fmt, path::PathBuf, sync::Arc};

use topnext_module_api::{Phase, handler::HandlerLink};

use crate::{
    config::{HttpCore, Main},
    error_page,
    event::thread_pool::ThreadPool,
    listen::Address,
    location::Locations,
    log::{access::AccessLog, error::ErrorLog},
    map_uri::Root,
    open_file,
    plugins::{
        LoadedModule,
        link::{Chains, Protocol},
        prepare::Prepared,
    },
    process::privileges::Account,
    template::Templates,
    upstream::{Upstream, registry::Target},
};

pub use build::{Loaded, Report, load, load_kept};
pub use facts::module_fact;
pub use kept::Kept;

/// The server's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Everything that a configuration says, ready to run.
pub struct Site {
    /// The directives at top level.
    pub main: Main,
    /// The servers.
    pub servers: Vec<Arc<Server>>,
    /// The addresses to listen on, with their servers.
    pub addresses: Vec<Arc<Address>>,
    /// Where errors are logged that are about no request.
    pub error_log: Arc<ErrorLog>,
    /// Compiled strings with variables.
    pub templates: Templates,
    /// Upstreams: those that are named, then those that an address implies.
    pub upstreams: Vec<Arc<Upstream>>,
    /// How locations use them, by the number that their modules got.
    pub targets: Vec<Target>,
    /// The threads for what blocks.
    pub pool: Arc<ThreadPool>,
    /// Worker processes.
    pub processes: usize,
    /// Event loops of each.
    pub threads: usize,
    /// Whom workers run as, if another than the master.
    pub account: Option<Account>,
    /// The folder in which workers run, if another than that of the start.
    pub working_directory: Option<PathBuf>,
    /// The modules in declared order; the one in slot n is number n - 1 unless an earlier one was refused.
    pub modules: Vec<Arc<LoadedModule>>,
}

impl Site {
    /// Ends the modules, in good order: their configurations, then their states. No request runs any more.
    pub fn end(&self) {
        for server in &self.servers {
            server.place.end();
            server.locations.for_each(&mut |place| place.end());
        }
        for upstream in &self.upstreams {
            upstream.balancers.end();
        }
        for module in &self.modules {
            module.end();
        }
    }
}

/// A server: names, and the places in it.
pub struct Server {
    /// Its first name: see [`Server::name`].
    pub name: String,
    /// What holds outside of its locations.
    pub place: Arc<Place>,
    /// Its locations.
    pub locations: Locations,
}

impl Server {
    /// Its first name, for logs and `$server_name`; a regular expression with its `~`, `.example.com` without its dot.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its named location of this name, which starts with `@`.
    pub fn named(&self, name: &[u8]) -> Option<&Place> {
        self.locations.named(name).map(|place| &**place)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What holds for a request.
pub struct Place {
    /// The path of the location, without its modifier: also a regular expression, or a name; of a server: empty.
    pub path: String,
    /// How it is shown: `location = /health of "example.org"`.
    pub title: String,
    /// The host's directives.
    pub core: HttpCore,
    /// Where files are.
    pub root: Option<Root>,
    /// Answers in place of the server's own error pages.
    pub error_pages: Arc<[error_page::Page]>,
    /// How files are looked for.
    pub files: open_file::find::Rules,
    /// The access logs.
    pub access_logs: Arc<[AccessLog]>,
    /// Where errors of its requests are logged.
    pub error_log: Arc<ErrorLog>,
    /// The filters.
    pub chains: Chains,
    /// The handlers of each phase, in declared order.
    handlers: [Vec<HandlerLink>; 8],
    /// The phase to go to in place of each phase that has no handlers: the next one that has, or content.
    next_phase: [Phase; 8],
    /// The content handler, if the place has one of its own.
    pub content: Option<HandlerLink>,
    /// The upstream protocol, if requests go to an upstream.
    pub upstream: Option<Protocol>,
    /// What the links point to.
    pub prepared: Vec<Arc<Prepared>>,
}

impl Place {
    /// Gives what the modules have made back to them.
    fn end(&self) {
        self.prepared.iter().for_each(|prepared| prepared.end());
    }

    /// The phase, or, if it has no handlers, the next one after find-config that has; at last content.
    pub fn phase_from(&self, phase: Phase) -> Phase {
        self.next_phase[phase as usize]
    }

    /// The handlers of a phase.
    pub fn handlers(&self, phase: Phase) -> &[HandlerLink] {
        &self.handlers[phase as usize]
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("title", &self.title).finish_non_exhaustive()
    }
}
