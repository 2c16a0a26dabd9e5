//! The server's own directives: names, places, types, defaults and documentation, each written once.
//!
//! A new directive needs an entry here and a line in the `set` function of the struct in `model` that holds its value;
//! a test checks that the two agree.

use std::sync::LazyLock;

use super::directive::{Block, Contexts, Directive, Field, Presence, Type};
use super::tree;

/// All directives of the server. A name may occur twice, in different contexts.
pub fn directives() -> &'static [Directive] {
    static DIRECTIVES: LazyLock<Vec<Directive>> = LazyLock::new(table);
    &DIRECTIVES
}

/// The directive of this name that may stand in this context.
pub fn find(name: &str, context: Contexts) -> Option<&'static Directive> {
    directives().iter().find(|directive| directive.name == name && directive.contexts.meets(context))
}

/// All places in which a directive of this name may stand.
pub fn contexts_of(name: &str) -> Contexts {
    let same_name = directives().iter().filter(|directive| directive.name == name);
    same_name.fold(Contexts::NONE, |contexts, directive| contexts.or(directive.contexts))
}

/// The type of the tables under `[[module]]`.
pub fn module_fields() -> Vec<Field> {
    vec![
        required(
            "name",
            Type::String,
            "Name of the module: the name of its file, and of its table in this configuration.",
        ),
        optional("path", Type::String, "File to load, instead of looking in module_path."),
        optional("version", Type::String, "Versions that are accepted, such as \"^1.2\"."),
        optional("sha256", Type::String, "SHA-256 of the file, 64 hexadecimal digits; any other file is refused."),
        optional("as", Type::String, "Name of its table, if it is to differ from the name of the module."),
        optional("ignore_order", list(Type::String), "Modules whose order constraints with this one are waived."),
    ]
}

/// The greatest value of counters that are kept in 32 bits.
const MAX_COUNT: i64 = u32::MAX as i64;

/// The modes of disable_symlinks.
const SYMLINKS: &[&str] = &["off", "on", "if_not_owner"];

const MAIN: Contexts = Contexts::MAIN;
const HTTP: Contexts = Contexts::HTTP;
const SERVER: Contexts = Contexts::SERVER;
const LOCATION: Contexts = Contexts::LOCATION;
const UPSTREAM: Contexts = Contexts::UPSTREAM;
const HTTP_SERVER: Contexts = HTTP.or(SERVER);
const ALL_HTTP: Contexts = HTTP_SERVER.or(LOCATION);

#[rustfmt::skip]
fn table() -> Vec<Directive> {
    vec![
        // main
        directive("worker_processes", MAIN, Type::OneOf(vec![choice(&["auto"]), integer(1, 128)]), "1",
            "Number of worker processes; auto is one for each processor. What workers share within a process (peers' state, \
             kept upstream connections, module state) several of them do not, but one that crashes takes less with it."),
        directive("worker_threads", MAIN, Type::OneOf(vec![choice(&["auto"]), integer(1, 1024)]), "\"auto\"",
            "Number of event loops in a worker process; auto shares the processors out among the workers: one loop for each."),
        directive("worker_connections", MAIN, integer(16, 1_048_576), "512",
            "Greatest number of sockets of one thread: listening ones, clients, and upstream connections in use."),
        directive("master_process", MAIN, Type::Bool, "true",
            "Whether a master process starts and watches the workers. Without it there is one process, for a debugger: it \
             cannot reload or upgrade, and nobody replaces it. Read at the start only."),
        directive("daemon", MAIN, Type::Bool, "false",
            "Whether the server goes into the background once it is ready. Read at the start only."),
        directive("pid", MAIN, Type::String, "\"topnext.pid\"",
            "The file that holds the number of the master process."),
        directive("user", MAIN, Type::OneOf(vec![Type::String, Type::Table(vec![
                required("name", Type::String, "Name of the user."),
                optional("group", Type::String, "Name of the group; default: that of the user."),
            ])]), "",
            "Whom the workers run as, with the supplementary groups of that user. A string is the name. Only root can change \
             it; for others it has no effect. Default: whoever starts the server."),
        directive("working_directory", MAIN, Type::String, "",
            "Folder in which the workers run, and leave core dumps; default: that in which the server is started."),
        directive("worker_priority", MAIN, integer(-20, 19), "0",
            "Scheduling priority of the workers, as of nice(1): the lower the more often they run. Only root can go below 0."),
        directive("worker_rlimit_nofile", MAIN, integer(16, MAX_COUNT), "",
            "Greatest number of open files of a worker (RLIMIT_NOFILE); default: as it is."),
        directive("worker_rlimit_core", MAIN, Type::Size, "",
            "Greatest size of a core dump of a worker (RLIMIT_CORE); default: as it is."),
        directive("worker_shutdown_timeout", MAIN, Type::Duration, "",
            "Time that an old worker has to finish its requests, after a reload or `-s quit`; then their connections are \
             closed. Default: as long as it takes."),
        directive("watchdog_timeout", MAIN, Type::Duration, "\"10s\"",
            "When a loop has not turned for this long it is logged, with the module that it is stuck in. 0: never."),
        directive("module_accounting", MAIN, choice(&["off", "sampled", "all"]), "\"sampled\"",
            "What `topnext status` tells of modules: sampled counts all calls and times those in one of 16 turns of a loop; all \
             times all; off neither counts nor times."),
        directive("zone", MAIN, Type::Map(Box::new(Type::Table(vec![
                required("size", Type::Size, "Its size; whole pages are used."),
            ]))), "",
            "Shared memory, by name: what modules keep in it outlives reloads, and is seen by all workers. Of another size it \
             is another one, and empty."),
        directive("error_log", MAIN.or(ALL_HTTP), logs(error_log_fields()), "{ path = \"stderr\", level = \"error\" }",
            "Where errors are logged, and from which level on. A string is the path. Of several logs each takes the lines of its own \
             level. Errors of a request go to the logs of its location, all others to those of the top level."),
        directive("module_path", MAIN, list(Type::String), "[]",
            "Folders in which modules are looked for before the default ones."),
        directive("thread_pool", MAIN, Type::Table(vec![
                defaulted("threads", integer(1, 1024), "32", "Number of threads."),
                defaulted("max_queue", integer(1, MAX_COUNT), "65536", "Greatest number of jobs that wait."),
            ]), "{ threads = 32, max_queue = 65536 }",
            "The threads that run what would block an event loop."),
        directive("include", MAIN.or(ALL_HTTP), Type::OneOf(vec![Type::String, list(Type::String)]), "",
            "Files, or patterns of files, whose keys join the table it stands in."),
        directive("module", MAIN, Type::Block(Block::Tables), "",
            "A module to load; the declared order is the order in which a response passes the filters."),
        directive("http", MAIN, Type::Block(Block::Table), "", "The web server."),
        // http, server, location
        directive("server", HTTP, Type::Block(Block::Tables), "", "A virtual server."),
        directive("upstream", HTTP, Type::Block(Block::Named), "", "A named group of servers to pass requests to."),
        directive("root", ALL_HTTP, Type::Template, "",
            "Folder of the files to serve; the path of the request is appended to it. It may contain variables."),
        directive("alias", LOCATION, Type::Template, "",
            "Where the files of the location are, in place of root: what follows the location's path is appended to it; in a \
             location with a regular expression nothing is, so that it is made of the captures."),
        directive("error_page", ALL_HTTP, list(Type::Table(vec![
                required("code", list(integer(300, 599)), "The statuses that it is for; not 444 and 499, which have no response."),
                required("uri", Type::Template, "\"/path\": an internal redirect, as GET; \"@name\": a named location, which \
                    gets the request as it is; \"https://...\": a redirect of the client."),
                optional("response", Type::OneOf(vec![choice(&["="]), integer(200, 599)]),
                    "The status of the response; \"=\": that of what the uri answers. Without: the original one."),
            ])), "[]", "What is answered in place of the server's own error pages. The list of an inner level replaces \
            that of an outer one."),
        directive("recursive_error_pages", ALL_HTTP, Type::Bool, "false",
            "Whether an error that occurs while an error page is made has an error page in its turn."),
        directive("satisfy", ALL_HTTP, choice(&["all", "any"]), "\"all\"",
            "Whether all modules of the access phase must let a request in, or one of them is enough."),
        directive("log_format", HTTP, Type::Map(Box::new(Type::OneOf(vec![
                Type::Template,
                list(Type::Template),
                Type::Table(vec![
                    required("format", Type::OneOf(vec![Type::Template, list(Type::Template)]), "The text."),
                    defaulted("escape", choice(&["default", "json", "none"]), "\"default\"",
                        "How values are written: default writes \"\\xXX\" for quotes, backslashes, control characters and all above \
                         ASCII, and \"-\" for a variable without value; json as in a string of JSON; none as they are."),
                ]),
            ]))), "", "Formats of access logs: a text with variables for each name. Several strings are joined. The format combined \
             is always there."),
        directive("access_log", ALL_HTTP, logs(access_log_fields()), "{ path = \"stdout\" }",
            "Where requests are logged. A string is the path, and \"off\" means nowhere."),
        directive("client_header_timeout", HTTP_SERVER, Type::Duration, "\"60s\"",
            "Time in which a client must send the whole header of a request; then the connection is closed without an \
             answer, and 408 is logged. That of the default server of the address counts."),
        directive("client_body_timeout", ALL_HTTP, Type::Duration, "\"60s\"",
            "Time between two reads of the body of a request; then the connection is closed without an answer, and 408 is \
             logged."),
        directive("send_timeout", ALL_HTTP, Type::Duration, "\"60s\"",
            "Time between two writes to the client; then the connection is closed."),
        directive("reset_timedout_connection", ALL_HTTP, Type::Bool, "false",
            "Whether connections that timed out are closed with a reset, so that the kernel keeps no memory for them, and \
             those that `return.code = 444` closes. Idle ones that time out are closed as always."),
        directive("keepalive_timeout", ALL_HTTP, Type::OneOf(vec![Type::Duration, Type::Table(vec![
                required("timeout", Type::Duration, "The time."),
                optional("header", Type::Duration, "Time that is told to the client in the field Keep-Alive, in whole seconds."),
            ])]), "\"75s\"",
            "Time for which an idle connection of a client stays open; 0 closes it after each response."),
        directive("keepalive_requests", ALL_HTTP, integer(1, MAX_COUNT), "1000",
            "Number of requests after which a connection of a client is closed."),
        directive("keepalive_time", ALL_HTTP, Type::Duration, "\"1h\"",
            "Time after which a connection of a client is closed when its request is done."),
        directive("keepalive_disable", ALL_HTTP, list(choice(&["none", "msie6", "safari"])), "[\"msie6\"]",
            "Browsers that get no kept connections: msie6 after a POST, safari on macOS always."),
        directive("lingering_close", ALL_HTTP, choice(&["on", "always", "off"]), "\"on\"",
            "Whether a connection is read on before it is closed, so that a client that still sends does not lose the \
             response to a reset: \"on\" if more may come, \"always\" in any case, \"off\" never."),
        directive("lingering_time", ALL_HTTP, Type::Duration, "\"30s\"",
            "Time for which what the client sends is read and ignored in all."),
        directive("lingering_timeout", ALL_HTTP, Type::Duration, "\"5s\"",
            "Time between two such reads, after which the connection is closed."),
        directive("client_max_body_size", ALL_HTTP, Type::Size, "\"1m\"",
            "Greatest body of a request; a greater one gets 413. 0 means no limit."),
        directive("client_body_buffer_size", ALL_HTTP, Type::Size, "\"16k\"",
            "Greatest body that is kept in memory; a greater one goes to a temporary file, all of it. While it is written, as \
             much again is read, and then nothing more."),
        directive("client_body_in_file_only", ALL_HTTP, choice(&["off", "clean", "on"]), "\"off\"",
            "Whether each body goes to a file with a name: \"clean\" removes it after the request, \"on\" keeps it."),
        directive("client_body_temp_path", ALL_HTTP, Type::OneOf(vec![Type::String, Type::Table(vec![
                required("path", Type::String, "The folder."),
                defaulted("levels", list(integer(1, 3)), "[]", "Digits in the names of the levels of folders in it; they are the last of a file's ten."),
            ])]), "{ path = \"client_body_temp\" }",
            "Folder of the files with bodies of requests, made when the first is needed. Without client_body_in_file_only \
             they have no names, so that none stays behind."),
        directive("client_header_buffer_size", HTTP_SERVER, Type::Size, "\"1k\"",
            "Size of the buffer in which the header of a request is read first."),
        directive("large_client_header_buffers", HTTP_SERVER, Type::Table(vec![
                defaulted("number", integer(1, 1024), "4", "Greatest number of buffers."),
                defaulted("size", Type::Size, "\"8k\"", "Size of each; a request line or header field must fit into one."),
            ]), "{ number = 4, size = \"8k\" }",
            "The buffers for headers that do not fit into the first one. A longer request line gets 414, a longer field 431."),
        directive("underscores_in_headers", HTTP_SERVER, Type::Bool, "false",
            "Whether fields of a request whose names have an underscore are taken; else they are dropped, since peers that \
             turn fields into variables cannot tell _ from -. That of the default server of the address counts."),
        directive("merge_slashes", HTTP_SERVER, Type::Bool, "true",
            "Whether several slashes in a row count as one in the path of a request. That of the default server of the \
             address counts."),
        directive("chunked_transfer_encoding", ALL_HTTP, Type::Bool, "true",
            "Whether responses of unknown length are sent in chunks; else the end of the connection is their end."),
        directive("postpone_output", ALL_HTTP, Type::Size, "\"1460\"",
            "Bytes of a response that wait for more before they are sent. 0: none wait."),
        directive("tcp_nodelay", ALL_HTTP, Type::Bool, "true",
            "Whether TCP_NODELAY is set on the connections of clients."),
        directive("sendfile", ALL_HTTP, Type::Bool, "true", "Whether files are sent with sendfile()."),
        directive("sendfile_max_chunk", ALL_HTTP, Type::Size, "\"2m\"",
            "Greatest number of bytes in one call of sendfile(), so that one fast client cannot hold a thread. 0 means no limit."),
        directive("output_buffers", ALL_HTTP, Type::Table(vec![
                defaulted("number", integer(1, 1024), "2", "Number of buffers that one response may have waiting."),
                defaulted("size", Type::Size, "\"32k\"", "Size of each: what is read from a file at once. From 1k to 16m."),
            ]), "{ number = 2, size = \"32k\" }",
            "The buffers for files that are read into memory: where sendfile is off, or a filter needs their bytes."),
        directive("read_ahead", ALL_HTTP, Type::Size, "0",
            "If not 0, the kernel is told that files of more than 128k will be read from start to end, and reads further \
             ahead. The amount is the kernel's."),
        directive("aio", ALL_HTTP, Type::Fixed { value: "threads",
                why: "files that are not in the page cache are always read by the threads of thread_pool, so that no \
                      event loop waits for a disk" }, "\"threads\"",
            "How files are read that are not in the page cache: by the threads of thread_pool."),
        directive("directio", ALL_HTTP, Type::Fixed { value: "off",
                why: "files are read through the page cache, which all clients share, and by the thread pool if they are \
                      not in it; O_DIRECT would go to the disk for each client, and without sendfile()" }, "\"off\"",
            "Files are never read with O_DIRECT."),
        directive("directio_alignment", ALL_HTTP, Type::Fixed { value: "512", why: "directio is always off" }, "\"512\"",
            "Of no effect, since directio is off."),
        directive("open_file_cache", ALL_HTTP, Type::OneOf(vec![choice(&["off"]), Type::Table(vec![
                required("max", integer(1, 1_048_576),
                    "Greatest number of entries of one thread; the one that was not used for longest goes first."),
                defaulted("inactive", Type::Duration, "\"60s\"", "An entry that is not used for so long goes."),
            ])]), "\"off\"",
            "Keeps files open, and what is known of files and folders. Each thread has a cache of its own, and so has each \
             place where the directive is written; the places below share it."),
        directive("open_file_cache_valid", ALL_HTTP, Type::Duration, "\"60s\"",
            "Time after which an entry of open_file_cache is checked again."),
        directive("open_file_cache_min_uses", ALL_HTTP, integer(1, MAX_COUNT), "1",
            "Number of uses, without a pause of the time `inactive`, from which on a file stays open."),
        directive("open_file_cache_errors", ALL_HTTP, Type::Bool, "false",
            "Whether open_file_cache also keeps that a file does not exist or is forbidden."),
        directive("disable_symlinks", ALL_HTTP, Type::OneOf(vec![choice(SYMLINKS), Type::Table(vec![
                required("mode", choice(SYMLINKS), "As above."),
                optional("from", Type::Template,
                    "The start of the path, such as \"$document_root\", in which symbolic links are followed."),
            ])]), "\"off\"",
            "What becomes of a path with a symbolic link in it. off: it is followed; on: 403; if_not_owner: 403 unless the \
             link and what it leads to have the same owner. A string is the mode."),
        directive("etag", ALL_HTTP, Type::Bool, "true", "Whether files are sent with the field ETag."),
        directive("server_tokens", ALL_HTTP, Type::OneOf(vec![Type::Bool, choice(&["on", "off", "build"])]), "true",
            "Whether the version is told in the Server field and on error pages; \"build\": and the name that the build was \
             given by the variable TOPNEXT_BUILD."),
        directive("types", ALL_HTTP, Type::Map(Box::new(list(Type::String))), "",
            "MIME types, each with the extensions of files that are of it. The table of an inner level replaces that of an \
             outer one. Without any: the types that are usual."),
        directive("log_not_found", ALL_HTTP, Type::Bool, "true", "Whether a file that is not found is logged as an error."),
        directive("absolute_redirect", ALL_HTTP, Type::Bool, "true",
            "Whether the server's own redirects are absolute URLs; else they are paths."),
        directive("port_in_redirect", ALL_HTTP, Type::Bool, "true",
            "Whether absolute redirects have the port that the client came to, unless it is 80."),
        directive("server_name_in_redirect", ALL_HTTP, Type::Bool, "false",
            "Whether absolute redirects have the first name of the server, rather than the one that the client asked for."),
        directive("default_type", ALL_HTTP, Type::String, "\"text/plain\"",
            "MIME type of responses for which no other is known."),
        // server
        directive("listen", SERVER, list(Type::OneOf(vec![Type::Listen, Type::Table(listen_fields())])), "",
            "Addresses to listen on; see [Listening](#listening). Default: [\"80\"] if started by root, else [\"8000\"]."),
        directive("server_name", SERVER, list(Type::String), "[\"\"]",
            "Names for which this server answers: \"www.example.com\", \"*.example.com\", \".example.com\" for both \
             example.com and *.example.com, \"www.example.*\", '~regex', \"$hostname\" for the name of the machine; \"\" is \
             a request without a Host field. The first one is $server_name."),
        directive("location", SERVER.or(LOCATION), Type::Block(Block::Tables), "",
            "Configuration for requests whose path matches."),
        // location
        directive("path", LOCATION, Type::LocationPath, "",
            "Required. \"/x\": paths that start so, the longest wins; \"= /x\": this path only; \"^~ /x\": as the first, \
             and no regular expression is tried; '~ regex': paths in which the expression matches, before all prefixes; \
              '~* regex': the same in any case; \"@name\": no path, only where error pages and internal redirects go."),
        directive("internal", LOCATION, Type::Bool, "false",
            "Whether only internal redirects lead here: others get 404."),
        // upstream
        directive("balancer", UPSTREAM, list(Type::String), "[\"round_robin\"]",
            "Balancers; each may delegate to the one behind it."),
        directive("server", UPSTREAM, list(Type::OneOf(vec![Type::Peer, Type::Table(peer_fields())])), "",
            "Required. The servers of the group."),
        directive("keepalive", UPSTREAM, integer(0, 1_048_576), "32",
            "Greatest number of idle connections that are kept open. 0 keeps none."),
        directive("keepalive_timeout", UPSTREAM, Type::Duration, "\"60s\"",
            "Time for which an idle connection to a server of the group stays open."),
        directive("keepalive_requests", UPSTREAM, integer(1, MAX_COUNT), "1000",
            "Number of requests after which a connection to a server of the group is closed."),
    ]
}

/// One log or several: each a path, or a table.
fn logs(fields: Vec<Field>) -> Type {
    let one = || vec![Type::String, Type::Table(fields.clone())];
    Type::OneOf(one().into_iter().chain([list(Type::OneOf(one()))]).collect())
}

fn error_log_fields() -> Vec<Field> {
    let levels = choice(&["debug", "info", "notice", "warn", "error", "crit", "alert", "emerg"]);
    vec![
        defaulted("path", Type::String, "\"stderr\"", "A file, or stderr."),
        defaulted("level", levels, "\"error\"", "Least severe level that is logged."),
    ]
}

fn access_log_fields() -> Vec<Field> {
    vec![
        defaulted("path", Type::String, "\"stdout\"", "A file, or stdout."),
        defaulted("format", Type::String, "\"combined\"", "Name of a log_format."),
        optional("buffer", Type::Size, "Lines wait in memory until this many bytes are there."),
        optional("flush", Type::Duration, "Or until the first of them has waited for this long. Needs buffer."),
        optional("if", Type::Template, "A request has a line only if this text is neither empty nor \"0\"."),
    ]
}

#[rustfmt::skip]
fn listen_fields() -> Vec<Field> {
    let keepalive = Type::Table(vec![
        optional("idle", Type::Duration, "Silence before the first probe (TCP_KEEPIDLE); default: the system's."),
        optional("interval", Type::Duration, "Time between two probes (TCP_KEEPINTVL); default: the system's."),
        optional("count", integer(1, 127), "Probes without an answer after which the connection is given up (TCP_KEEPCNT); default: the system's."),
    ]);
    vec![
        required("address", Type::Listen, "The address."),
        defaulted("default_server", Type::Bool, "false",
            "Whether this server answers requests for names that no server of this address has."),
        defaulted("backlog", integer(1, i32::MAX.into()), "511", "Length of the queue of connections not yet accepted."),
        defaulted("reuseport", Type::Bool, "false", "Whether other processes may listen on the address as well."),
        optional("rcvbuf", Type::Size, "Receive buffer of its connections (SO_RCVBUF); default: the system's."),
        optional("sndbuf", Type::Size, "Send buffer of its connections (SO_SNDBUF); default: the system's."),
        defaulted("deferred", Type::Bool, "false",
            "Whether a connection is accepted only when its first bytes have come (TCP_DEFER_ACCEPT)."),
        optional("fastopen", integer(1, i32::MAX.into()), "Length of the queue of TCP_FASTOPEN; default: not set."),
        optional("so_keepalive", Type::OneOf(vec![Type::Bool, keepalive]),
            "Whether the system probes idle connections (SO_KEEPALIVE), and how; default: not set."),
        defaulted("ipv6only", Type::Bool, "true", "Whether an address of IPv6 takes no connections of IPv4."),
        defaulted("proxy_protocol", Type::Bool, "false",
            "Whether each connection begins with a header of the PROXY protocol, version 1 or 2."),
    ]
}

fn peer_fields() -> Vec<Field> {
    vec![
        required("address", Type::Peer, "The address; the port is 80 if it is not written."),
        defaulted("weight", integer(1, 65535), "1", "Share of requests, relative to the other servers."),
        defaulted(
            "max_fails",
            integer(0, MAX_COUNT),
            "1",
            "Failures within fail_timeout that make it unavailable; 0: never.",
        ),
        defaulted(
            "fail_timeout",
            Type::Duration,
            "\"10s\"",
            "Time in which failures are counted, and for which it is unavailable.",
        ),
        defaulted(
            "max_conns",
            integer(0, MAX_COUNT),
            "0",
            "Greatest number of connections to it at a time; 0: no limit.",
        ),
        defaulted("backup", Type::Bool, "false", "Used only if all others are unavailable."),
        defaulted("down", Type::Bool, "false", "Never used."),
    ]
}

fn directive(name: &'static str, contexts: Contexts, ty: Type, default: &'static str, doc: &'static str) -> Directive {
    Directive { name, contexts, ty, default, doc }
}

fn integer(min: i64, max: i64) -> Type {
    Type::Integer { min, max }
}

fn list(element: Type) -> Type {
    Type::List(Box::new(element))
}

fn choice(names: &[&str]) -> Type {
    Type::Choice(names.iter().map(|name| (*name).to_owned()).collect())
}

fn required(key: &str, ty: Type, doc: &str) -> Field {
    Field { key: key.to_owned(), ty, presence: Presence::Required, merge: false, inherit: true, doc: doc.to_owned() }
}

fn optional(key: &str, ty: Type, doc: &str) -> Field {
    Field { presence: Presence::Optional, ..required(key, ty, doc) }
}

fn defaulted(key: &str, ty: Type, default: &str, doc: &str) -> Field {
    let node = tree::parse_value(default).expect("a text of this file; a test builds the whole table");
    Field { presence: Presence::Default { text: default.to_owned(), node }, ..required(key, ty, doc) }
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::super::diagnostic::Diagnostics;
    use super::*;

    fn check_fields(ty: &Type, name: &str) {
        match ty {
            Type::Table(fields) => {
                for field in fields {
                    if let Presence::Default { node, .. } = &field.presence {
                        let mut errors = Diagnostics::default();
                        assert!(check::check(&field.ty, node, &field.key, &mut errors), "{name}: {errors}");
                    }
                    check_fields(&field.ty, name);
                }
            }
            Type::List(element) => check_fields(element, name),
            Type::OneOf(types) => types.iter().for_each(|ty| check_fields(ty, name)),
            _ => {}
        }
    }

    #[test]
    fn every_default_is_of_its_type() {
        let mut with_default = 0;
        for directive in directives() {
            check_fields(&directive.ty, directive.name);
            if !directive.default.is_empty() {
                with_default += 1;
                let node = tree::parse_value(directive.default).unwrap();
                let mut errors = Diagnostics::default();
                assert!(check::check(&directive.ty, &node, directive.name, &mut errors), "{errors}");
            }
        }
        assert!(with_default >= 20);
    }

    #[test]
    fn a_name_is_unique_in_each_context() {
        for (index, one) in directives().iter().enumerate() {
            for other in &directives()[index + 1..] {
                assert!(one.name != other.name || !one.contexts.meets(other.contexts), "{}", one.name);
            }
        }
        assert_eq!(contexts_of("server").names(), "http, upstream");
        assert!(find("server", Contexts::LOCATION).is_none());
    }
}
