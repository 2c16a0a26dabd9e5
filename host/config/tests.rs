//! The configuration as a whole: texts in, error lines or merged values out.

use std::sync::Arc;
use std::time::Duration;

use super::*;

fn schemas() -> Vec<ModuleSchema> {
    let http = Contexts::HTTP.or(Contexts::SERVER).or(Contexts::LOCATION);
    let gzip = r#"config = [
        { key = "enabled", type = { bool = {} }, default = 'false', doc = "" },
        { key = "types", type = { list = { string = {} } }, default = '["text/html"]', doc = "" },
        { key = "comp_level", type = { integer = { min = 1, max = 9 } }, default = '1', doc = "" },
    ]"#;
    let headers = r#"config = [
        { key = "expires", type = { duration = {} }, optional = true, doc = "" },
        { key = "set_header", type = { list = { table = [
            { key = "name", type = { string = {} }, doc = "" },
            { key = "value", type = { template = {} }, doc = "" },
            { key = "always", type = { bool = {} }, default = 'false', doc = "" },
        ] } }, default = '[]', merge = true, doc = "" },
    ]"#;
    let proxy = r#"config = [
        { key = "pass", type = { string = {} }, required = true, doc = "" },
        { key = "read_timeout", type = { duration = {} }, default = '"60s"', doc = "" },
    ]"#;
    let hash = r#"config = [{ key = "key", type = { template = {} }, required = true, doc = "" }]"#;
    vec![
        ModuleSchema::parse(gzip, "gzip", http).unwrap(),
        ModuleSchema::parse(headers, "headers", http).unwrap(),
        ModuleSchema::parse(proxy, "proxy", http).unwrap(),
        ModuleSchema::parse(hash, "hash", Contexts::UPSTREAM).unwrap(),
    ]
}

const GZIP: usize = 0;
const HEADERS: usize = 1;
const PROXY: usize = 2;
const HASH: usize = 3;

fn config(text: &str) -> Config {
    let document = Document::from_text("t.toml", text).unwrap_or_else(|errors| panic!("{errors}"));
    document.check(&schemas()).unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors(text: &str) -> String {
    match Document::from_text("t.toml", text) {
        Err(errors) => errors.to_string(),
        Ok(document) => document.check(&schemas()).expect_err("no errors").to_string(),
    }
}

/// The errors of a configuration with one server, in which `text` stands from line 2 on.
fn server_errors(text: &str) -> String {
    errors(&format!("[[http.server]]\n{text}"))
}

#[test]
fn defaults_are_nginxs() {
    let config = config("[[http.server]]\n");
    assert_eq!(config.main.worker_threads, None);
    assert_eq!(config.main.worker_connections, 512);
    let stderr = |log: &[ErrorLog]| matches!(log, [log] if log.path == "stderr" && log.level == LogLevel::Error);
    assert!(stderr(&config.main.error_log), "{:?}", config.main.error_log);
    assert_eq!(config.main.thread_pool, ThreadPool { threads: 32, max_queue: 65536 });
    let server = &config.http.servers[0];
    assert_eq!(server.server_name, [ServerName::none(server.scope.origin)]);
    assert!(["0.0.0.0:80", "0.0.0.0:8000"].contains(&server.listen[0].address.to_string().as_str()));
    let minute = Duration::from_secs(60);
    let expected = HttpCore {
        root: None,
        access_log: server.scope.core.access_log.clone(),
        error_log: config.main.error_log.clone(),
        client_header_timeout: minute,
        client_body_timeout: minute,
        send_timeout: minute,
        reset_timedout_connection: false,
        keepalive_timeout: Duration::from_secs(75),
        keepalive_header: None,
        keepalive_requests: 1000,
        keepalive_time: 60 * minute,
        keepalive_disable: Browsers { msie6: true, safari: false },
        lingering_close: Lingering::On,
        lingering_time: minute / 2,
        lingering_timeout: Duration::from_secs(5),
        client_max_body_size: 1 << 20,
        client_body_buffer_size: 16 << 10,
        client_body_in_file_only: InFileOnly::Off,
        client_body_temp_path: TempPath { path: "client_body_temp".into(), levels: Vec::new() },
        client_header_buffer_size: 1024,
        large_client_header_buffers: Buffers { number: 4, size: 8192 },
        underscores_in_headers: false,
        merge_slashes: true,
        chunked_transfer_encoding: true,
        postpone_output: 1460,
        tcp_nodelay: true,
        sendfile: true,
        sendfile_max_chunk: 2 << 20,
        output_buffers: Buffers { number: 2, size: 32 << 10 },
        read_ahead: false,
        open_file_cache: None,
        open_file_cache_valid: minute,
        open_file_cache_min_uses: 1,
        open_file_cache_errors: false,
        disable_symlinks: Default::default(),
        etag: true,
        server_tokens: ServerTokens::On,
        types: None,
        log_not_found: true,
        absolute_redirect: true,
        port_in_redirect: true,
        server_name_in_redirect: false,
        error_page: Arc::default(),
        recursive_error_pages: false,
        satisfy: Satisfy::All,
        internal: false,
        default_type: "text/plain".to_owned(),
    };
    assert_eq!(server.scope.core, expected);
    let [log] = &server.scope.core.access_log[..] else { panic!("{:?}", server.scope.core.access_log) };
    assert_eq!((log.path.as_str(), log.format.as_str(), log.buffer, log.flush), ("stdout", "combined", None, None));
}

#[test]
fn a_full_configuration_is_read() {
    let config = config(
        r#"
worker_threads = 4
error_log = { path = "e.log", level = "info" }
thread_pool = { threads = 2 }

[http]
root = "html"
keepalive_timeout = 0

[[http.server]]
listen = ["127.0.0.1:8080", { address = "[::1]:80", backlog = 9, default_server = true }]
server_name = ["WWW.Example.com", ""]
client_max_body_size = "8m"

[[http.server.location]]
path = "= /health"
access_log = "off"

[[http.server.location]]
path = "/api/"
access_log = { path = "api.log" }
proxy.pass = "http://backend"

[[http.server.location.location]]
path = "^~ /api/v2/"
root = "v2"

[http.upstream.backend]
balancer = ["hash", "round_robin"]
server = [{ address = "127.0.0.1:9001", weight = 5, fail_timeout = "1m" }, "app:81"]
hash.key = "$uri"
"#,
    );
    assert_eq!(config.main.worker_threads, Some(4));
    let [log] = &config.main.error_log[..] else { panic!("{:?}", config.main.error_log) };
    assert_eq!((log.path.as_str(), log.level, log.origin.column), ("e.log", LogLevel::Info, 22));
    assert_eq!(config.http.servers[0].scope.core.error_log, config.main.error_log);
    assert_eq!(config.main.thread_pool, ThreadPool { threads: 2, max_queue: 65536 });
    let server = &config.http.servers[0];
    let names: Vec<&str> = server.server_name.iter().map(|name| name.text.as_str()).collect();
    assert_eq!(names, ["www.example.com", ""]);
    let listen = |index: usize| {
        let conf = &server.listen[index];
        let options = conf.options.iter().map(|(option, _)| format!("{} {option}", option.name()));
        (conf.address.to_string(), options.collect::<Vec<_>>())
    };
    assert_eq!(listen(0), ("127.0.0.1:8080".into(), vec![]));
    assert_eq!(listen(1), ("[::1]:80".into(), vec!["backlog 9".into()]));
    assert!(server.listen[1].default_server && !server.listen[0].default_server);
    let [health, api] = &server.locations[..] else { panic!("{:?}", server.locations) };
    assert_eq!((health.path.kind, health.path.text.as_str()), (LocationKind::Exact, "/health"));
    assert_eq!(health.scope.core.access_log, []);
    assert_eq!(health.scope.core.root, Some(Root { folder: "html".to_owned(), alias: None }));
    assert_eq!(health.scope.core.keepalive_timeout, Duration::ZERO);
    assert_eq!(health.scope.core.client_max_body_size, 8 << 20);
    let nested = &api.locations[0].scope;
    assert_eq!(nested.core.root, Some(Root { folder: "v2".to_owned(), alias: None }));
    let line = |scope: &Scope, name: &str| scope.origin_of(name).line;
    assert_eq!((line(nested, "root"), line(&api.scope, "root"), line(nested, "send_timeout")), (26, 7, 24));
    assert!(matches!(&nested.core.access_log[..], [log] if log.path == "api.log"), "{:?}", nested.core.access_log);
    assert_eq!(nested.modules[PROXY].table.get("pass").unwrap().as_str(), Some("http://backend"));
    let upstream = &config.http.upstreams[0];
    assert_eq!((upstream.name.as_str(), upstream.keepalive), ("backend", 32));
    assert_eq!(upstream.balancer, ["hash", "round_robin"]);
    let set: Vec<(&str, u32)> = upstream.server[0].set.iter().map(|(name, origin)| (*name, origin.column)).collect();
    assert_eq!(set, [("weight", 41), ("fail_timeout", 53)]);
    assert_eq!((upstream.server[0].weight, upstream.server[0].fail_timeout), (5, Duration::from_secs(60)));
    assert_eq!((upstream.server[1].address.to_string(), upstream.server[1].weight), ("app:81".to_owned(), 1));
    assert_eq!(upstream.server[1].set, []);
    assert!(upstream.modules[HASH].written && upstream.modules[HASH].complete);
}

#[test]
fn module_keys_are_inherited_one_by_one() {
    let config = config(
        "[http.gzip]\nenabled = true\ntypes = [\"a\", \"b\"]\n[[http.server]]\ngzip.comp_level = 5\n\
         [[http.server.location]]\npath = \"/\"\n[[http.server.location]]\npath = \"/x\"\ngzip.types = [\"c\"]\n",
    );
    let server = &config.http.servers[0];
    let gzip = |scope: &Scope| scope.modules[GZIP].clone();
    let (outer, plain, own) = (gzip(&server.scope), gzip(&server.locations[0].scope), gzip(&server.locations[1].scope));
    assert!(Arc::ptr_eq(&outer, &plain));
    assert!(own.written && own.enabled && own.valid && own.complete);
    assert_eq!(own.table.get("comp_level").unwrap().as_integer(), Some(5));
    assert_eq!(own.table.get("types").unwrap().as_list().unwrap().len(), 1);
    assert_eq!(outer.table.get("types").unwrap().as_list().unwrap().len(), 2);
    assert_eq!(own.key_prefix, "http.server.location.gzip");
    let place = |path: &str| (own.origin_of(path).line, own.origin_of(path).column);
    assert_eq!((place("types[0]"), own.key_of("types[0]")), ((10, 15), "http.server.location.gzip.types[0]".into()));
    assert_eq!((place("comp_level"), own.key_of("comp_level")), ((5, 19), "http.server.gzip.comp_level".into()));
    assert_eq!((place("enabled"), own.key_of("enabled")), ((2, 11), "http.gzip.enabled".into()));
    assert_eq!(outer.origin_of("types[1]").column, 15);
    assert_eq!(place("types[7].x"), (10, 14));
    assert_eq!((place("none"), place("")), ((10, 1), (10, 1)));
    let headers = &server.scope.modules[HEADERS];
    assert!(!headers.written && headers.enabled && headers.table.get("expires").is_none());
    assert_eq!(headers.origin.line, 1, "shared with http, which is made by the header of http.gzip");
}

#[test]
fn a_key_that_is_not_inherited_holds_where_it_is_written() {
    let proxy = r#"config = [
        { key = "pass", type = { string = {} }, required = true, inherit = false, doc = "" },
        { key = "read_timeout", type = { duration = {} }, default = '"60s"', doc = "" },
    ]"#;
    let schemas = [ModuleSchema::parse(proxy, "proxy", Contexts::SERVER.or(Contexts::LOCATION)).unwrap()];
    let text = "[[http.server]]\nproxy = { pass = \"a\", read_timeout = \"1s\" }\n[[http.server.location]]\npath = \"/\"\n\
                [[http.server.location.location]]\npath = \"/b\"\nproxy.pass = \"b\"\n[[http.server.location.location]]\npath = \"/c\"\n";
    let config = Document::from_text("t.toml", text).unwrap().check(&schemas).unwrap();
    let server = &config.http.servers[0];
    let outer = &server.locations[0];
    let scopes = [&server.scope, &outer.scope, &outer.locations[0].scope, &outer.locations[1].scope];
    let pass = |scope: &&Scope| scope.modules[0].table.get("pass").and_then(Node::as_str).map(str::to_owned);
    assert_eq!(scopes.each_ref().map(pass), [Some("a".to_owned()), None, Some("b".to_owned()), None]);
    assert_eq!(scopes.map(|scope| scope.modules[0].complete), [true, false, true, false]);
    let time = |scope: &Scope| scope.modules[0].table.get("read_timeout").and_then(Node::as_str).map(str::to_owned);
    assert_eq!(scopes.map(time), ["1s"; 4].map(|time| Some(time.to_owned())));
}

#[test]
fn a_key_with_merge_gets_the_values_of_all_levels() {
    let config = config(
        "[[http.server]]\nheaders.set_header = [{ name = \"a\", value = \"1\" }]\n[[http.server.location]]\npath = \"/\"\n\
         headers.set_header = [{ name = \"b\", value = \"2\" }, { name = \"c\", value = \"3\", always = true }]\n\
         [[http.server]]\n",
    );
    let names = |scope: &Scope| {
        let lists = scope.modules[HEADERS].table.get("set_header").unwrap().as_list().unwrap().to_vec();
        let name = |node: &Node| node.as_table().unwrap().get("name").unwrap().as_str().unwrap().to_owned();
        lists.iter().map(|list| list.as_list().unwrap().iter().map(name).collect::<String>()).collect::<Vec<_>>()
    };
    let server = &config.http.servers[0];
    assert_eq!(names(&server.scope), ["a"]);
    assert_eq!(names(&server.locations[0].scope), ["a", "bc"]);
    assert_eq!(names(&config.http.servers[1].scope), [""], "the default is a list of one value, the empty list");
    let headers = &server.locations[0].scope.modules[HEADERS];
    assert_eq!(
        (headers.origin_of("set_header[1][1].value").line, headers.origin_of("set_header[0][0].name").line),
        (5, 2)
    );
    let list = headers.table.get("set_header").unwrap().as_list().unwrap()[0].as_list().unwrap();
    assert_eq!(list[0].as_table().unwrap().get("always").unwrap().as_bool(), Some(false));
}

#[test]
fn required_keys_may_come_from_any_level() {
    let fine = config(
        "[http]\nproxy.read_timeout = \"5s\"\n[[http.server]]\n[[http.server.location]]\npath = \"/\"\nproxy.pass = \"x\"\n",
    );
    let server = &fine.http.servers[0];
    assert!(!server.scope.modules[PROXY].complete && server.locations[0].scope.modules[PROXY].complete);
    assert_eq!(
        errors("[http]\nproxy.read_timeout = \"5s\"\n[[http.server]]\n[[http.server.location]]\npath = \"/\"\n"),
        "t.toml:2:1: http.proxy.pass: missing, but required: a string"
    );
    assert_eq!(
        server_errors("[http.server.proxy]\npass = 1\n"),
        "t.toml:3:8: http.server.proxy.pass: found 1, expected a string; write \"1\""
    );
}

#[test]
fn unknown_keys_say_what_is_valid() {
    assert_eq!(
        errors("wroker_threads = 1\n[[http.server]]\n"),
        "t.toml:1:1: wroker_threads: unknown key; did you mean \"worker_threads\"?"
    );
    assert_eq!(
        errors("foo = 1\n[[http.server]]\nlisen = []\n"),
        "t.toml:1:1: foo: unknown key; valid here: daemon, error_log, http, include, master_process, module, \
         module_accounting, module_path, pid, thread_pool, user, watchdog_timeout, worker_connections, worker_priority, \
         worker_processes, worker_rlimit_core, worker_rlimit_nofile, worker_shutdown_timeout, worker_threads, working_directory, zone\n\
         t.toml:3:1: http.server.lisen: unknown key; did you mean \"listen\"?"
    );
    // The list is long: once is enough.
    let text = server_errors("foo = 1\nbar = 2\n[[http.server]]\nfoo = 1\n");
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("t.toml:2:1: http.server.foo: unknown key; valid here: absolute_redirect, "),
        "{text}"
    );
    assert!(lines[0].ends_with(", server_tokens, tcp_nodelay, types, underscores_in_headers"), "{text}");
    assert_eq!(lines[1], "t.toml:3:1: http.server.bar: unknown key; what is valid here is listed above");
    assert_eq!(lines[2], "t.toml:5:1: http.server.foo: unknown key; what is valid here is listed above");
    assert!(server_errors("gzip_types = []\n").ends_with("gzip_types: unknown key; did you mean \"gzip.types\"?"));
    assert_eq!(
        server_errors("gzip.level = 1\n"),
        "t.toml:2:6: http.server.gzip.level: unknown key; valid here: comp_level, enabled, types"
    );
    assert_eq!(
        errors("root = \"x\"\n[[http.server]]\nhash.key = \"x\"\n"),
        "t.toml:1:1: root: not valid here; valid in http, server, location\n\
         t.toml:3:1: http.server.hash: not valid here; this module is valid in upstream"
    );
    assert_eq!(
        server_errors("brotli.enabled = true\n"),
        "t.toml:2:1: http.server.brotli: no module of this name is declared; add [[module]] name = \"brotli\""
    );
    assert_eq!(
        server_errors("gzp.enabled = true\n"),
        "t.toml:2:1: http.server.gzp: no module of this name is declared; add [[module]] name = \"gzp\"; did you mean \"gzip\"?"
    );
    config("[[module]]\nname = \"broken\"\n[[http.server]]\nbroken.key = 1\n");
}

/// What operators of nginx type.
#[test]
fn names_of_nginx_say_what_to_write() {
    for (line, expected) in [
        ("tcp_nopush = true", "tcp_nopush: not a directive here: header and file leave in one write anyway; remove it"),
        (
            "ignore_invalid_headers = true",
            "ignore_invalid_headers: not a directive here: a field whose name is not a token is always answered with 400; \
             remove it",
        ),
        ("expires = \"1h\"", "expires: unknown key; did you mean \"headers.expires\"?"),
        (
            "limit_rate_after = 1",
            "limit_rate_after: a directive of the module limit_rate; add [[module]] name = \"limit_rate\", and write limit_rate.after",
        ),
        ("autoindex = true", "autoindex: no module of this name is declared; add [[module]] name = \"autoindex\""),
        (
            "gzip = \"on\"",
            "gzip: found \"on\", expected a table with the keys enabled, types, comp_level; write gzip.enabled = true",
        ),
        (
            "gzip = false",
            "gzip: found false, expected a table with the keys enabled, types, comp_level; write gzip.enabled = false",
        ),
        (
            "proxy = \"http://a\"",
            "proxy: found \"http://a\", expected a table with the keys pass, read_timeout; write proxy.pass = \"http://a\"",
        ),
    ] {
        let text = server_errors(&format!("{line}\n"));
        assert_eq!(text.split_once("http.server.").map(|(_, text)| text), Some(expected), "{line}");
    }
}

#[test]
fn an_error_page_leads_to_a_named_location_that_there_is() {
    let page = |name: &str| format!("error_page = [{{ code = [404], uri = \"{name}\" }}]\n");
    let named = "[[http.server.location]]\npath = \"@there\"\n";
    let inner = "[[http.server.location]]\npath = \"/\"\n";
    assert_eq!(
        server_errors(&[&page("@here"), named, inner, &page("@her")].concat()),
        "t.toml:2:37: error_page.uri: found \"@here\", but the server has no location of this name\n\
         t.toml:7:37: error_page.uri: found \"@her\", but the server has no location of this name"
    );
    // What a variable holds is known later, and the servers of http need not all have it.
    config(&["[http]\n", &page("@none"), "[[http.server]]\n", &page("@there"), named, inner, &page("@$host")].concat());
}

#[test]
fn wrong_values_say_what_is_valid() {
    assert_eq!(
        server_errors("send_timeout = \"75 sec\"\n[[http.server.location]]\npath = \"/\"\ngzip.comp_level = 12\n"),
        "t.toml:2:16: http.server.send_timeout: found \"75 sec\", expected a duration such as \"75s\", \"1m30s\" or \"500ms\"\n\
         t.toml:5:19: http.server.location.gzip.comp_level: found 12, expected an integer from 1 to 9"
    );
    assert_eq!(
        server_errors("gzip = 1\nlocation = { path = \"/\" }\n"),
        "t.toml:2:8: http.server.gzip: found 1, expected a table with the keys enabled, types, comp_level\n\
         t.toml:3:12: http.server.location: found a table, expected an array of tables; write [[http.server.location]]"
    );
    assert_eq!(
        errors("[http.server]\n"),
        "t.toml:1:1: http.server: found a table, expected an array of tables; write [[http.server]]"
    );
    assert_eq!(errors("http = 1\n"), "t.toml:1:8: http: found 1, expected a table");
}

#[test]
fn listen_and_names_are_checked() {
    assert_eq!(
        server_errors("listen = [\"81\", \"*:81\", \"x\"]\nserver_name = [\"*.*\", \"~(a\", \".a\", \"a b\"]\n"),
        "t.toml:2:25: http.server.listen[2]: found \"x\", expected an address to listen on such as \"8080\", \
         \"127.0.0.1:8080\", \"[::1]:80\" or \"unix:/path\" or a table with the keys address, default_server, backlog, reuseport, rcvbuf, sndbuf, deferred, fastopen, so_keepalive, ipv6only, proxy_protocol\n\
         t.toml:3:16: http.server.server_name[0]: found \"*.*\", expected a name such as \"www.example.com\", \
         \"*.example.com\", \".example.com\", \"www.example.*\" or '~^www\\d+\\.example\\.com$'\n\
         t.toml:3:23: http.server.server_name[1]: found \"~(a\"; the regular expression \"(a\" is not valid at its \
         character 1: unclosed group\n\
         t.toml:3:36: http.server.server_name[3]: found \"a b\", expected a name such as \"www.example.com\", \
         \"*.example.com\", \".example.com\", \"www.example.*\" or '~^www\\d+\\.example\\.com$'"
    );
    assert_eq!(
        server_errors("listen = [\"81\", \"*:81\"]\n"),
        "t.toml:2:17: http.server.listen: 0.0.0.0:81 stands twice in this server; first at t.toml:2:11"
    );
    assert_eq!(
        server_errors("listen = []\n"),
        "t.toml:2:10: http.server.listen: found an empty list, expected at least one address"
    );
    let default = "[[http.server]]\nlisten = [{ address = \"81\", default_server = true }]\n";
    assert_eq!(
        errors(&default.repeat(2)),
        "t.toml:4:11: http.server.listen.default_server: 0.0.0.0:81 has a default server already, at t.toml:2:11"
    );
}

#[test]
fn locations_are_checked() {
    let location = |path: &str| format!("[[http.server.location]]\npath = \"{path}\"\n");
    assert_eq!(
        server_errors(&(location("/x") + &location("= /x") + &location("^~ /x"))),
        "t.toml:7:8: http.server.location.path: there is a location \"^~ /x\" already, at t.toml:3:8"
    );
    assert_eq!(
        server_errors(
            &(location("~ (x") + "[[http.server.location]]\n" + &location("@a") + &location("x") + &location("@a"))
        ),
        "t.toml:3:8: http.server.location.path: found \"~ (x\"; the regular expression \"(x\" is not valid at its \
         character 1: unclosed group\n\
         t.toml:4:1: http.server.location.path: missing, but required: a path such as \"/x\", \"= /x\", \"^~ /x\", \
         '~ regex', '~* regex' or \"@name\"\n\
         t.toml:8:8: http.server.location.path: found \"x\", expected a path such as \"/x\", \"= /x\", \"^~ /x\", \
         '~ regex', '~* regex' or \"@name\"\n\
         t.toml:10:8: http.server.location.path: there is a location \"@a\" already, at t.toml:6:8"
    );
    assert_eq!(
        server_errors(&(location("~ x") + &location("~* x") + &location("~x"))),
        "t.toml:7:8: http.server.location.path: there is a location \"~ x\" already, at t.toml:3:8"
    );
    let nested = |outer: &str, inner: &str| {
        location(outer) + &location(inner).replace("server.location", "server.location.location")
    };
    assert_eq!(
        server_errors(&nested("/a/", "/b")),
        "t.toml:5:8: http.server.location.location.path: \"/b\" does not lie below \"/a/\", inside which it stands"
    );
    assert_eq!(
        server_errors(&nested("= /a", "/a/b")),
        "t.toml:5:8: http.server.location.location.path: \"/a/b\" cannot stand inside \"= /a\", which matches one path only"
    );
    assert_eq!(
        server_errors(&nested("/a", "@b")),
        "t.toml:5:8: http.server.location.location.path: \"@b\" cannot stand inside \"/a\"; a named location stands \
         directly in its server"
    );
    let deep: String =
        (1..=40).map(|depth| format!("[[http.server{}]]\npath = \"/\"\n", ".location".repeat(depth))).collect();
    assert!(server_errors(&deep).ends_with("location: locations are nested deeper than 32"));
}

#[test]
fn upstreams_are_checked() {
    assert_eq!(
        errors("[[http.server]]\n[http.upstream.\"a b\"]\nserver = [\"a\"]\n"),
        "t.toml:2:1: http.upstream.\"a b\": the name of an upstream cannot be empty or hold a space or a slash"
    );
    let with = |text: &str| errors(&format!("[[http.server]]\n[http.upstream.b]\n{text}"));
    assert_eq!(
        with(""),
        "t.toml:2:1: http.upstream.b.server: missing, but required: a list, each element an address such as \
         \"127.0.0.1:8080\", \"[::1]:80\", \"name:8080\" or \"unix:/path\" or a table with the keys address, weight, \
         max_fails, fail_timeout, max_conns, backup, down"
    );
    assert_eq!(
        with("server = [{ weight = 0, slow = 1 }]\nbalancer = []\nkeepalive = -1\n"),
        "t.toml:3:11: http.upstream.b.server[0].address: missing, but required: an address such as \"127.0.0.1:8080\", \
         \"[::1]:80\", \"name:8080\" or \"unix:/path\"\n\
         t.toml:3:22: http.upstream.b.server[0].weight: found 0, expected an integer from 1 to 65535\n\
         t.toml:3:25: http.upstream.b.server[0].slow: unknown key; valid here: address, backup, down, fail_timeout, \
         max_conns, max_fails, weight\n\
         t.toml:4:12: http.upstream.b.balancer: found an empty list, expected at least one element\n\
         t.toml:5:13: http.upstream.b.keepalive: found -1, expected an integer from 0 to 1048576"
    );
    assert_eq!(
        with("server = [\"a\"]\ninclude = \"x\"\nhash = {}\n"),
        "t.toml:4:1: http.upstream.b.include: not valid here; valid in main, http, server, location\n\
         t.toml:5:8: http.upstream.b.hash.key: missing, but required: a string"
    );
    assert_eq!(
        errors("[[http.server]]\n[http.upstream]\nb = 1\n"),
        "t.toml:3:5: http.upstream.b: found 1, expected a table"
    );
}

#[test]
fn a_server_is_needed() {
    assert_eq!(errors(""), "t.toml: http.server: no server is configured; add [[http.server]]");
    assert_eq!(errors("\n[http]\n"), "t.toml:2:1: http.server: no server is configured; add [[http.server]]");
}

#[test]
fn valid_parts_are_there_beside_the_errors() {
    let text = "[[http.server]]\ngzip = { enabled = true, comp_level = 99 }\nroot = 1\nlisten = [\"81\"]\n[[http.server.location]]\npath = \"/\"\n";
    let document = Document::from_text("t.toml", text).unwrap();
    let (config, mut errors) = document.check_partial(&schemas());
    let server = &config.unwrap().http.servers[0];
    let gzip = &server.scope.modules[GZIP];
    assert!(!gzip.valid && gzip.enabled);
    assert_eq!(gzip.table.get("comp_level").unwrap().as_integer(), Some(1));
    assert_eq!((server.scope.core.root.clone(), server.locations.len()), (None, 1));
    errors.push(gzip.origin_of("types"), gzip.key_of("types"), "the module does not like it");
    assert_eq!(
        errors.to_string(),
        "t.toml:2:8: http.server.gzip.types: the module does not like it\n\
         t.toml:2:39: http.server.gzip.comp_level: found 99, expected an integer from 1 to 9\n\
         t.toml:3:8: http.server.root: found 1, expected a string; write \"1\""
    );
}

#[test]
fn no_input_makes_it_panic() {
    let text = "worker_threads = 4\n[[module]]\nname = \"gzip\"\nsha256 = \"é\"\n[http]\nkeepalive_timeout = \"1m30s\"\n\
                gzip = { types = ['a', \"\"\"b\"\"\"], comp_level = 0x9 }\n[[http.server]]\nlisten = [\"[::1]:80\"]\n\
                headers.set_header = [{ name = \"a\", value = \"ü\" }]\n[[http.server.location]]\npath = \"^~ /x\"\n\
                [[http.server.location.location]]\npath = \"= /x/é\"\n[http.upstream.\"b c\"]\n\
                server = [\"unix:/x\", { address = \"a\", down = true }]\nhash.key = \"$uri\"\n";
    let schemas = schemas();
    let mut outcomes = [0, 0];
    let mut try_text = |text: &str| {
        let Ok(document) = Document::from_text("t.toml", text) else {
            outcomes[0] += 1;
            return;
        };
        outcomes[1] += 1;
        let head = document.head().map_err(|errors| errors.to_string());
        let (config, errors) = document.check_partial(&schemas);
        assert!(config.is_some() || !errors.is_empty());
        assert!(head.is_ok() || !head.unwrap_err().is_empty());
        assert_eq!(errors.to_string().lines().count(), errors.len());
    };
    let deep = "location.".repeat(78);
    try_text(&format!("[http.server.{deep}x]\n{deep}x = {}1{}\n", "[".repeat(78), "]".repeat(78)));
    try_text(&format!("[[{}x]]\nx = {}{}\n", "http.".repeat(78), "{ x = ".repeat(79), "}".repeat(79)));
    for (at, _) in text.char_indices() {
        try_text(&text[..at]);
        try_text(&text[at..]);
        for new in ["", "\"", "[", "]", "{", "}", "=", ".", "\n", "-1", "9", "\u{1}", "é", "~", "#"] {
            let rest = text[at..].chars().next().map_or("", |c| &text[at + c.len_utf8()..]);
            try_text(&format!("{}{new}{rest}", &text[..at]));
        }
    }
    assert!(outcomes[0] > 1000 && outcomes[1] > 1000, "{outcomes:?}");
}
