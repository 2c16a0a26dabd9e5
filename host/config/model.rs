//! The typed configuration: what the rest of the server works with.
//!
//! Each struct that holds directives has one `set` function, the one place where a directive's name meets its field.
//! Every struct first gets all defaults of the directive table, then what was written. Values given to `set` have been
//! checked, and lack no key that has a default.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::address::PeerAddress;
use super::client::{Browsers, InFileOnly, Lingering, TempPath};
use super::core_directives::directives;
use super::directive::Contexts;
use super::listen::ListenConf;
use super::location_path::LocationPath;
use super::merge::ModuleTable;
use super::server_name::ServerName;
use super::source::Origin;
use super::tree::{self, Entry, Node, Table, Value};
use super::units;
use crate::log::format::Escape;
use crate::process::scoreboard::Accounting;

/// The whole configuration, checked and merged.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directives at top level.
    pub main: Main,
    /// `[http]`
    pub http: Http,
}

/// The directives at top level.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Main {
    /// Worker processes; `None`: one for each processor.
    pub worker_processes: Option<u32>,
    /// Whether there is a master process.
    pub master_process: bool,
    /// Where it was written that the server goes into the background, if it does.
    pub daemon: Option<Origin>,
    /// The file of the master's number, relative to the prefix.
    pub pid: String,
    /// Whom workers run as.
    pub user: Option<User>,
    /// The folder in which workers run, relative to the prefix.
    pub working_directory: Option<(String, Origin)>,
    /// The nice value of workers, if it is another than the master's.
    pub worker_priority: Option<i32>,
    /// RLIMIT_NOFILE of workers.
    pub worker_rlimit_nofile: Option<u32>,
    /// RLIMIT_CORE of workers.
    pub worker_rlimit_core: Option<u64>,
    /// What workers have to finish in.
    pub worker_shutdown_timeout: Option<Duration>,
    /// When a loop counts as stuck; zero: never.
    pub watchdog_timeout: Duration,
    /// What is counted of modules.
    pub module_accounting: Accounting,
    /// Zones of shared memory.
    pub zones: Vec<Zone>,
    /// Event loops of a worker; `None`: one for each processor.
    pub worker_threads: Option<u32>,
    /// Connections of one thread.
    pub worker_connections: u32,
    /// The logs of errors.
    pub error_log: Vec<ErrorLog>,
    /// The thread pool.
    pub thread_pool: ThreadPool,
    /// Where directives were written.
    pub(super) origins: Vec<(&'static str, Origin)>,
}

/// `user`
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// The name of the group, if it is not that of the user.
    pub group: Option<String>,
    /// Where it was written.
    pub origin: Origin,
}

/// `[zone.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// Its size in bytes, as it was written.
    pub size: u64,
    /// Where it was written.
    pub origin: Origin,
}

/// Where errors are logged.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorLog {
    /// `stderr`, or a file, relative to the prefix.
    pub path: String,
    /// The least severe level that is logged.
    pub level: LogLevel,
    /// Where the path was written.
    pub origin: Origin,
}

/// nginx's levels; a greater one is more severe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What happens, step by step.
    Debug,
    /// What an operator may want to know.
    Info,
    /// What is normal, but rare.
    Notice,
    /// What may lead to an error.
    Warn,
    /// What failed for one request.
    #[default]
    Error,
    /// What fails for many requests.
    Crit,
    /// What needs an operator at once.
    Alert,
    /// The server cannot work.
    Emerg,
}

/// The threads that run what would block an event loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadPool {
    /// Number of threads.
    pub threads: u32,
    /// Jobs that may wait.
    pub max_queue: u32,
}

/// `[http]`
#[derive(Clone, Debug)]
pub struct Http {
    /// The formats of access logs, in the order written.
    pub log_format: Vec<LogFormat>,
    /// `[http.upstream.NAME]`, in the order written.
    pub upstreams: Vec<Upstream>,
    /// `[[http.server]]`, in the order written; at least one.
    pub servers: Vec<Server>,
}

/// A format of access logs.
#[derive(Clone, Debug, PartialEq)]
pub struct LogFormat {
    /// Its name.
    pub name: String,
    /// The text, with variables.
    pub text: String,
    /// How values are written.
    pub escape: Escape,
    /// Where it was written.
    pub origin: Origin,
}

/// `[[http.server]]`
#[derive(Clone, Debug)]
pub struct Server {
    /// At least one.
    pub listen: Vec<ListenConf>,
    /// At least one, perhaps `""`.
    pub server_name: Vec<ServerName>,
    /// What holds outside of all locations.
    pub scope: Scope,
    /// In the order written.
    pub locations: Vec<Location>,
}

/// `[[http.server.location]]`
#[derive(Clone, Debug)]
pub struct Location {
    /// What it matches.
    pub path: LocationPath,
    /// Where its path was written.
    pub origin: Origin,
    /// What holds in it.
    pub scope: Scope,
    /// The locations inside it, in the order written.
    pub locations: Vec<Location>,
}

/// What holds in a server or location, everything inherited included.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The server's own directives.
    pub core: HttpCore,
    /// One for each schema, in the order of the schemas. A scope that writes nothing for a module shares the table of
    /// the scope around it (`Arc::ptr_eq`), so that its preparation can be shared as well.
    pub modules: Vec<Arc<ModuleTable>>,
    /// The header of the server or location.
    pub origin: Origin,
    /// The core directives that were written for this scope, and where.
    pub(super) origins: Vec<(&'static str, Origin)>,
}

impl Scope {
    /// Where the value of a core directive was written, on whichever level; the scope's header if it was not. For
    /// faults that show only later, such as a folder that does not exist.
    pub fn origin_of(&self, directive: &str) -> Origin {
        self.origins.iter().find(|(name, _)| *name == directive).map_or(self.origin, |(_, origin)| *origin)
    }
}

/// The directives of http, server and location.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpCore {
    /// Where the files to serve are.
    pub root: Option<Root>,
    /// Answers in place of the server's own error pages. Shared by all scopes for which they were written once.
    pub error_page: Arc<[ErrorPage]>,
    /// Whether errors of error pages have error pages.
    pub recursive_error_pages: bool,
    /// Who must let a request in.
    pub satisfy: Satisfy,
    /// Whether only internal redirects lead here.
    pub internal: bool,
    /// Where requests are logged; empty: nowhere.
    pub access_log: Vec<AccessLog>,
    /// Where errors of requests are logged.
    pub error_log: Vec<ErrorLog>,
    /// Time for the header of a request.
    pub client_header_timeout: Duration,
    /// Time between two reads of a request's body.
    pub client_body_timeout: Duration,
    /// Time between two writes.
    pub send_timeout: Duration,
    /// Whether what timed out is closed with a reset.
    pub reset_timedout_connection: bool,
    /// Time for which an idle connection stays open; zero: it is closed after each response.
    pub keepalive_timeout: Duration,
    /// What the client is told of it, in the field Keep-Alive.
    pub keepalive_header: Option<Duration>,
    /// Requests on one connection.
    pub keepalive_requests: u32,
    /// Age from which on a connection serves no further request.
    pub keepalive_time: Duration,
    /// Browsers that get no kept connections.
    pub keepalive_disable: Browsers,
    /// Whether a connection is read on before it is closed.
    pub lingering_close: Lingering,
    /// Time of that in all.
    pub lingering_time: Duration,
    /// Time between two reads of that.
    pub lingering_timeout: Duration,
    /// In bytes; 0: no limit.
    pub client_max_body_size: u64,
    /// Bytes of a body that are kept in memory.
    pub client_body_buffer_size: u64,
    /// Whether bodies go to files with names.
    pub client_body_in_file_only: InFileOnly,
    /// The folder of these files, and of those without.
    pub client_body_temp_path: TempPath,
    /// In bytes.
    pub client_header_buffer_size: u64,
    /// The buffers for larger headers.
    pub large_client_header_buffers: Buffers,
    /// Whether fields with an underscore in their names are taken.
    pub underscores_in_headers: bool,
    /// Whether several slashes in a row count as one.
    pub merge_slashes: bool,
    /// Whether responses of unknown length are sent in chunks.
    pub chunked_transfer_encoding: bool,
    /// Bytes of a response that wait for more.
    pub postpone_output: u64,
    /// Whether TCP_NODELAY is set.
    pub tcp_nodelay: bool,
    /// Whether files are sent with sendfile().
    pub sendfile: bool,
    /// In bytes; 0: no limit.
    pub sendfile_max_chunk: u64,
    /// For files that are read into memory.
    pub output_buffers: Buffers,
    /// Whether the kernel is to read far ahead.
    pub read_ahead: bool,
    /// The cache of open files.
    pub open_file_cache: Option<OpenFileCache>,
    /// Time after which an entry of it is checked again.
    pub open_file_cache_valid: Duration,
    /// Uses from which on a file stays open in it.
    pub open_file_cache_min_uses: u32,
    /// Whether it keeps errors too.
    pub open_file_cache_errors: bool,
    /// What becomes of paths with symbolic links.
    pub disable_symlinks: DisableSymlinks,
    /// Whether files are sent with an ETag.
    pub etag: bool,
    /// Whether the version is told.
    pub server_tokens: ServerTokens,
    /// MIME types of extensions. None: those that are usual.
    pub types: Option<Arc<Types>>,
    /// Whether files that are not found are logged.
    pub log_not_found: bool,
    /// Whether redirects are absolute URLs.
    pub absolute_redirect: bool,
    /// Whether these have the port of the connection.
    pub port_in_redirect: bool,
    /// Whether these have the first name of the server instead of the client's.
    pub server_name_in_redirect: bool,
    /// MIME type if no other is known.
    pub default_type: String,
}

/// What is told of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerTokens {
    /// Its name.
    Off,
    /// And its version.
    #[default]
    On,
    /// And the name of the build.
    Build,
}

impl ServerTokens {
    /// The value of the Server field.
    pub fn server(self) -> &'static str {
        const VERSION: &str = concat!("topnext/", env!("CARGO_PKG_VERSION"));
        static BUILD: LazyLock<String> = LazyLock::new(|| match option_env!("TOPNEXT_BUILD") {
            Some(name) => format!("{VERSION} ({name})"),
            None => VERSION.to_string(),
        });
        match self {
            ServerTokens::Off => "topnext",
            ServerTokens::On => VERSION,
            ServerTokens::Build => &BUILD,
        }
    }

    fn of(node: &Node) -> ServerTokens {
        match (node.as_bool(), node.as_str()) {
            (Some(false), _) | (_, Some("off")) => ServerTokens::Off,
            (_, Some("build")) => ServerTokens::Build,
            _ => ServerTokens::On,
        }
    }
}

/// MIME types by extension.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Types {
    /// The type of each extension, which is in lower case.
    of: HashMap<Vec<u8>, String>,
    /// Extensions that stand for two types, with both.
    pub repeated: Vec<(String, String, String)>,
}

impl Types {
    fn of(node: &Node) -> Types {
        let mut types = Types::default();
        for entry in node.as_table().into_iter().flat_map(Table::iter) {
            for extension in entry.node.as_list().unwrap_or(&[]).iter().map(text) {
                let extension = extension.to_ascii_lowercase();
                let other = types.of.insert(extension.clone().into_bytes(), entry.key.clone());
                if let Some(other) = other.filter(|other| *other != entry.key) {
                    types.repeated.push((extension, other, entry.key.clone()));
                }
            }
        }
        types
    }

    /// The type of an extension, in any case.
    pub fn get(&self, extension: &[u8]) -> Option<&str> {
        let found = if extension.iter().any(u8::is_ascii_uppercase) {
            self.of.get(&extension.to_ascii_lowercase())
        } else {
            self.of.get(extension)
        };
        found.map(String::as_str)
    }
}

/// Whose consent in the access phase a request needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Satisfy {
    /// That of each handler which does not decline.
    #[default]
    All,
    /// That of one.
    Any,
}

/// Where files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The folder, which may contain variables.
    pub folder: String,
    /// For `alias`: the location in which it was written, whose path is not a part of the file's.
    pub alias: Option<Arc<LocationPath>>,
}

/// What is answered for some statuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// The statuses.
    pub code: Vec<u16>,
    /// A path, `@name` or URL, which may contain variables.
    pub uri: String,
    /// The status of the response.
    pub response: ErrorResponse,
    /// Where the uri was written.
    pub origin: Origin,
}

/// The status of the response that an error page makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorResponse {
    /// That of the error.
    Original,
    /// This one.
    Status(u16),
    /// That of what the uri answers.
    OfUri,
}

/// Where requests are logged.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// `stdout`, or a file, relative to the prefix.
    pub path: String,
    /// Name of the format.
    pub format: String,
    /// Bytes that wait before they are written.
    pub buffer: Option<u64>,
    /// How long they wait at most.
    pub flush: Option<Duration>,
    /// Text that says whether a request is logged.
    pub condition: Option<String>,
    /// Where the log was written.
    pub origin: Origin,
    /// Where its keys were written.
    keys: Vec<(String, Origin)>,
}

/// A number of buffers of a size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    /// How many.
    pub number: u32,
    /// Bytes of each.
    pub size: u64,
}

/// The cache of open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFileCache {
    /// Entries of one thread.
    pub max: u32,
    /// Time after which an entry that is not used goes.
    pub inactive: Duration,
}

/// What becomes of paths with symbolic links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisableSymlinks {
    /// How they are treated.
    pub mode: SymlinkMode,
    /// The start of the path in which they are followed; may have variables in it.
    pub from: Option<String>,
}

/// How symbolic links are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SymlinkMode {
    /// They are followed.
    #[default]
    Off,
    /// They are forbidden.
    On,
    /// They are forbidden unless they have the owner of what they lead to.
    IfNotOwner,
}

/// `[http.upstream.NAME]`
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// Names of balancers, outermost first; at least one.
    pub balancer: Vec<String>,
    /// Where each of them was written.
    pub balancer_origins: Vec<Origin>,
    /// At least one.
    pub server: Vec<PeerConf>,
    /// Idle connections that are kept.
    pub keepalive: u32,
    /// Time for which they are kept.
    pub keepalive_timeout: Duration,
    /// Requests on one connection.
    pub keepalive_requests: u32,
    /// One for each schema, in the order of the schemas.
    pub modules: Vec<Arc<ModuleTable>>,
    /// Its header.
    pub origin: Origin,
}

/// A server of an upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerConf {
    /// Where it is.
    pub address: PeerAddress,
    /// Share of requests.
    pub weight: u32,
    /// Failures that make it unavailable; 0: none does.
    pub max_fails: u32,
    /// Time in which failures are counted, and for which it is unavailable.
    pub fail_timeout: Duration,
    /// Connections at a time; 0: no limit.
    pub max_conns: u32,
    /// Used only if all others are unavailable.
    pub backup: bool,
    /// Never used.
    pub down: bool,
    /// The parameters that were written (never `address`), for balancers that do not support them all.
    pub set: Vec<(&'static str, Origin)>,
    /// Where it was written.
    pub origin: Origin,
}

/// The defaults of a context: name and value of each directive that has one.
pub(super) fn defaults(context: Contexts) -> impl Iterator<Item = (&'static str, Node)> {
    let here = directives().iter().filter(move |directive| directive.contexts.meets(context));
    here.filter_map(|directive| Some((directive.name, tree::parse_value(directive.default).ok()?)))
}

impl Main {
    /// Where a directive was written; the main file as a whole if it was not. For faults that show only later.
    pub fn origin_of(&self, directive: &str) -> Origin {
        let found = self.origins.iter().find(|(name, _)| *name == directive);
        found.map_or(Origin::whole_file(0), |(_, origin)| *origin)
    }

    /// Sets a directive. False if no field has this name.
    pub(super) fn set(&mut self, name: &str, node: &Node) -> bool {
        match name {
            "worker_processes" => self.worker_processes = node.as_integer().map(|_| count(node)),
            "master_process" => self.master_process = flag(node),
            "daemon" => self.daemon = flag(node).then_some(node.origin),
            "pid" => self.pid = text(node),
            "user" => {
                let name = get(node, "name").unwrap_or(node);
                let group = get(node, "group").map(text);
                self.user = Some(User { name: text(name), group, origin: name.origin });
            }
            "working_directory" => self.working_directory = Some((text(node), node.origin)),
            "worker_priority" => {
                let value = node.as_integer().and_then(|value| i32::try_from(value).ok());
                self.worker_priority = value.filter(|value| *value != 0);
            }
            "worker_rlimit_nofile" => self.worker_rlimit_nofile = Some(count(node)),
            "worker_rlimit_core" => self.worker_rlimit_core = Some(size(node)),
            "worker_shutdown_timeout" => self.worker_shutdown_timeout = Some(duration(node)),
            "watchdog_timeout" => self.watchdog_timeout = duration(node),
            "module_accounting" => {
                self.module_accounting = match text(node).as_str() {
                    "off" => Accounting::Off,
                    "all" => Accounting::All,
                    _ => Accounting::Sampled,
                }
            }
            "zone" => {
                let zone = |entry: &Entry| {
                    let size = get(&entry.node, "size").map_or(0, size);
                    Zone { name: entry.key.clone(), size, origin: entry.node.origin }
                };
                self.zones = node.as_table().into_iter().flat_map(Table::iter).map(zone).collect();
            }
            "worker_threads" => self.worker_threads = node.as_integer().map(|_| count(node)),
            "worker_connections" => self.worker_connections = count(node),
            "error_log" => self.error_log = ErrorLog::list(node),
            "thread_pool" => {
                self.thread_pool =
                    ThreadPool { threads: count_in(node, "threads"), max_queue: count_in(node, "max_queue") }
            }
            _ => return false,
        }
        true
    }
}

/// One log or several.
fn logs(node: &Node) -> impl Iterator<Item = &Node> {
    node.as_list().unwrap_or(std::slice::from_ref(node)).iter()
}

impl ErrorLog {
    fn list(node: &Node) -> Vec<ErrorLog> {
        let log = |node| {
            let path = get(node, "path").unwrap_or(node);
            let level = get(node, "level").and_then(|level| LogLevel::parse(&text(level))).unwrap_or_default();
            ErrorLog { path: text(path), level, origin: path.origin }
        };
        logs(node).map(log).collect()
    }
}

impl LogFormat {
    /// The table `log_format`.
    pub(super) fn list(node: &Node) -> Vec<LogFormat> {
        let entries = node.as_table().into_iter().flat_map(Table::iter);
        let format = |entry: &Entry| {
            let format = get(&entry.node, "format").unwrap_or(&entry.node);
            let escape = match get(&entry.node, "escape").and_then(Node::as_str) {
                Some("json") => Escape::Json,
                Some("none") => Escape::None,
                _ => Escape::Default,
            };
            // nginx joins strings without anything between them.
            let text = logs(format).map(text).collect();
            LogFormat { name: entry.key.clone(), text, escape, origin: entry.node.origin }
        };
        entries.map(format).collect()
    }
}

impl LogLevel {
    /// The level of this name.
    pub fn parse(name: &str) -> Option<LogLevel> {
        Some(match name {
            "debug" => LogLevel::Debug,
            "info" => LogLevel::Info,
            "notice" => LogLevel::Notice,
            "warn" => LogLevel::Warn,
            "error" => LogLevel::Error,
            "crit" => LogLevel::Crit,
            "alert" => LogLevel::Alert,
            "emerg" => LogLevel::Emerg,
            _ => return None,
        })
    }
}

impl HttpCore {
    /// Sets a directive. False if no field has this name.
    pub(super) fn set(&mut self, name: &str, node: &Node) -> bool {
        match name {
            "root" => self.root = Some(Root { folder: text(node), alias: None }),
            // Which location it stands in is told by `set_alias`.
            "alias" => self.root = Some(Root { folder: text(node), alias: None }),
            "error_page" => self.error_page = node.as_list().unwrap_or(&[]).iter().map(ErrorPage::of).collect(),
            "recursive_error_pages" => self.recursive_error_pages = flag(node),
            "satisfy" => self.satisfy = if text(node) == "any" { Satisfy::Any } else { Satisfy::All },
            "internal" => self.internal = flag(node),
            "access_log" => self.access_log = AccessLog::list(node),
            "error_log" => self.error_log = ErrorLog::list(node),
            "client_header_timeout" => self.client_header_timeout = duration(node),
            "client_body_timeout" => self.client_body_timeout = duration(node),
            "send_timeout" => self.send_timeout = duration(node),
            "reset_timedout_connection" => self.reset_timedout_connection = flag(node),
            "keepalive_timeout" => {
                self.keepalive_timeout = duration(get(node, "timeout").unwrap_or(node));
                self.keepalive_header = get(node, "header").map(duration);
            }
            "keepalive_requests" => self.keepalive_requests = count(node),
            "keepalive_time" => self.keepalive_time = duration(node),
            "keepalive_disable" => self.keepalive_disable = Browsers::of(node),
            "lingering_close" => self.lingering_close = Lingering::of(node),
            "lingering_time" => self.lingering_time = duration(node),
            "lingering_timeout" => self.lingering_timeout = duration(node),
            "client_max_body_size" => self.client_max_body_size = size(node),
            "client_body_buffer_size" => self.client_body_buffer_size = size(node),
            "client_body_in_file_only" => self.client_body_in_file_only = InFileOnly::of(node),
            "client_body_temp_path" => self.client_body_temp_path = TempPath::of(node),
            "client_header_buffer_size" => self.client_header_buffer_size = size(node),
            "large_client_header_buffers" => {
                let size = get(node, "size").map_or(0, size);
                self.large_client_header_buffers = Buffers { number: count_in(node, "number"), size };
            }
            "underscores_in_headers" => self.underscores_in_headers = flag(node),
            "merge_slashes" => self.merge_slashes = flag(node),
            "chunked_transfer_encoding" => self.chunked_transfer_encoding = flag(node),
            "postpone_output" => self.postpone_output = size(node),
            "tcp_nodelay" => self.tcp_nodelay = flag(node),
            "sendfile" => self.sendfile = flag(node),
            "sendfile_max_chunk" => self.sendfile_max_chunk = size(node),
            "output_buffers" => {
                let size = get(node, "size").map_or(0, size);
                self.output_buffers = Buffers { number: count_in(node, "number"), size };
            }
            "read_ahead" => self.read_ahead = size(node) > 0,
            // They have one value only.
            "aio" | "directio" | "directio_alignment" => (),
            "open_file_cache" => {
                self.open_file_cache = get(node, "max").map(|max| OpenFileCache {
                    max: count(max),
                    inactive: get(node, "inactive").map_or(Duration::ZERO, duration),
                });
            }
            "open_file_cache_valid" => self.open_file_cache_valid = duration(node),
            "open_file_cache_min_uses" => self.open_file_cache_min_uses = count(node),
            "open_file_cache_errors" => self.open_file_cache_errors = flag(node),
            "disable_symlinks" => self.disable_symlinks = DisableSymlinks::of(node),
            "etag" => self.etag = flag(node),
            "server_tokens" => self.server_tokens = ServerTokens::of(node),
            "types" => self.types = Some(Arc::new(Types::of(node))),
            "log_not_found" => self.log_not_found = flag(node),
            "absolute_redirect" => self.absolute_redirect = flag(node),
            "port_in_redirect" => self.port_in_redirect = flag(node),
            "server_name_in_redirect" => self.server_name_in_redirect = flag(node),
            "default_type" => self.default_type = text(node),
            _ => return false,
        }
        true
    }
}

impl ErrorPage {
    fn of(node: &Node) -> ErrorPage {
        let codes = get(node, "code").and_then(Node::as_list).unwrap_or(&[]);
        ErrorPage {
            code: codes.iter().map(status).collect(),
            uri: get(node, "uri").map(text).unwrap_or_default(),
            response: match get(node, "response") {
                None => ErrorResponse::Original,
                Some(node) if node.as_integer().is_none() => ErrorResponse::OfUri,
                Some(node) => ErrorResponse::Status(status(node)),
            },
            origin: get(node, "uri").map_or(node.origin, |node| node.origin),
        }
    }
}

impl DisableSymlinks {
    fn of(node: &Node) -> DisableSymlinks {
        let mode = match text(get(node, "mode").unwrap_or(node)).as_str() {
            "on" => SymlinkMode::On,
            "if_not_owner" => SymlinkMode::IfNotOwner,
            _ => SymlinkMode::Off,
        };
        DisableSymlinks { mode, from: get(node, "from").map(text) }
    }
}

impl AccessLog {
    /// Nothing for "off"; elsewhere than alone that is found to be no path.
    fn list(node: &Node) -> Vec<AccessLog> {
        if node.as_str() == Some("off") {
            return Vec::new();
        }
        logs(node).map(AccessLog::of).collect()
    }

    fn of(node: &Node) -> AccessLog {
        let path = get(node, "path").unwrap_or(node);
        let keys = node.as_table().into_iter().flat_map(Table::iter);
        AccessLog {
            path: text(path),
            format: get(node, "format").map_or_else(|| "combined".to_owned(), text),
            buffer: get(node, "buffer").map(size),
            flush: get(node, "flush").map(duration),
            condition: get(node, "if").map(text),
            origin: path.origin,
            keys: keys.map(|entry| (entry.key.clone(), entry.node.origin)).collect(),
        }
    }

    /// Where a key was written.
    pub fn origin_of(&self, key: &str) -> Origin {
        self.keys.iter().find(|(known, _)| known == key).map_or(self.origin, |(_, origin)| *origin)
    }
}

impl Upstream {
    /// Sets a directive. False if no field has this name.
    pub(super) fn set(&mut self, name: &str, node: &Node) -> bool {
        match name {
            "balancer" => {
                let names = node.as_list().unwrap_or(&[]);
                self.balancer = names.iter().map(text).collect();
                self.balancer_origins = names.iter().map(|name| name.origin).collect();
            }
            "server" => self.server = node.as_list().unwrap_or(&[]).iter().filter_map(PeerConf::of).collect(),
            "keepalive" => self.keepalive = count(node),
            "keepalive_timeout" => self.keepalive_timeout = duration(node),
            "keepalive_requests" => self.keepalive_requests = count(node),
            _ => return false,
        }
        true
    }
}

impl PeerConf {
    /// One element of an upstream's `server`: an address, or a table. `None` cannot happen with a checked value.
    fn of(node: &Node) -> Option<PeerConf> {
        let mut peer = PeerConf {
            address: PeerAddress::parse(get(node, "address").unwrap_or(node).as_str()?)?,
            weight: 1,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            max_conns: 0,
            backup: false,
            down: false,
            set: Vec::new(),
            origin: node.origin,
        };
        for entry in node.as_table().into_iter().flat_map(Table::iter) {
            if let Some(name) = peer.set(&entry.key, &entry.node) {
                // Defaults that were filled in have the origin of the table itself; see `merge::fill_defaults`.
                if entry.key_origin != node.origin {
                    peer.set.push((name, entry.key_origin));
                }
            }
        }
        Some(peer)
    }

    /// Sets a parameter and returns its name; `None` if no field has this name.
    fn set(&mut self, name: &str, node: &Node) -> Option<&'static str> {
        match name {
            "weight" => self.weight = count(node),
            "max_fails" => self.max_fails = count(node),
            "fail_timeout" => self.fail_timeout = duration(node),
            "max_conns" => self.max_conns = count(node),
            "backup" => self.backup = flag(node),
            "down" => self.down = flag(node),
            _ => return None,
        }
        const NAMES: [&str; 6] = ["weight", "max_fails", "fail_timeout", "max_conns", "backup", "down"];
        NAMES.into_iter().find(|known| *known == name)
    }
}

pub(super) fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    node.as_table().and_then(|table| table.get(key))
}

fn text(node: &Node) -> String {
    node.as_str().unwrap_or_default().to_owned()
}

pub(super) fn flag(node: &Node) -> bool {
    node.as_bool().unwrap_or_default()
}

pub(super) fn count(node: &Node) -> u32 {
    match node.value {
        Value::Integer(number) => u32::try_from(number).unwrap_or(u32::MAX),
        _ => 0,
    }
}

fn status(node: &Node) -> u16 {
    u16::try_from(count(node)).unwrap_or_default()
}

fn count_in(node: &Node, key: &str) -> u32 {
    get(node, key).map_or(0, count)
}

pub(super) fn duration(node: &Node) -> Duration {
    units::duration(&node.value).unwrap_or_default()
}

pub(super) fn size(node: &Node) -> u64 {
    units::size(&node.value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::directive::Type;
    use super::*;

    /// A directive without a field would be accepted and have no effect.
    #[test]
    fn every_directive_has_a_field() {
        let node = Node { value: Value::List(Vec::new()), origin: Origin::BUILT_IN };
        let upstream = || Upstream {
            name: String::new(),
            balancer: Vec::new(),
            balancer_origins: Vec::new(),
            server: Vec::new(),
            keepalive: 0,
            keepalive_timeout: Duration::ZERO,
            keepalive_requests: 0,
            modules: Vec::new(),
            origin: Origin::BUILT_IN,
        };
        let read_elsewhere = ["include", "module_path", "listen", "server_name", "path", "log_format"];
        for directive in directives() {
            if matches!(directive.ty, Type::Block(_)) || read_elsewhere.contains(&directive.name) {
                continue;
            }
            let known = if directive.contexts.meets(Contexts::MAIN) {
                Main::default().set(directive.name, &node)
            } else if directive.contexts.meets(Contexts::UPSTREAM) {
                upstream().set(directive.name, &node)
            } else {
                HttpCore::default().set(directive.name, &node)
            };
            assert!(known, "{}", directive.name);
        }
    }
}
