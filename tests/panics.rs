//! A panic of a module costs one request: exactly this one fails, the error log says where, and nothing leaks.
//!
//! The modules are those in tests/modules that panic where a request asks for it.

#[path = "support/build.rs"]
mod build;
mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::thread;

use rustix::process::Signal;
use support::peer::Reserved;
use support::{Client, Ending, Folder, PATIENCE, Server, eventually};

/// What the client of a request sees in which a module panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// 500, which no filter has seen.
    Bare500,
    /// 500, by the module's own choice.
    Own500,
    /// An incomplete response, and a reset.
    Reset,
    /// Its response: the panic came too late to take it away.
    Complete,
    /// Its response or a reset.
    Late,
}

use Seen::{Bare500, Complete, Late, Own500, Reset};

/// A line in a module's source: the one that ends in `// in MARK`.
fn place(module: &str, mark: &str) -> String {
    let source = std::fs::read_to_string(build::root().join(format!("tests/modules/{module}/src/lib.rs"))).unwrap();
    let line = source
        .lines()
        .position(|line| line.ends_with(&format!("// in {mark}")))
        .unwrap_or_else(|| panic!("no line of {module} says in {mark}"));
    format!("src/lib.rs:{}", line + 1)
}

/// A panic as the error log has it: module, hook, message, and the mark of its line.
type Panic = (&'static str, &'static str, &'static str, &'static str);

fn logged((module, hook, message, mark): Panic) -> String {
    format!("module {module} panicked in {hook}: {message}, at {} (its panic number ", place(module, mark))
}

/// Names and places of the modules, each in the order of the chain.
fn declared(names: &[&str]) -> String {
    let one = |name: &&str| {
        let own = build::root().join("tests/modules").join(name).exists();
        let path = if own { format!("path = {:?}\n", build::module(name)) } else { String::new() };
        format!("[[module]]\nname = {name:?}\n{path}")
    };
    names.iter().map(one).collect()
}

/// A server with one thread, so that a request that harms others harms those of this test. `X-Filter` is what a filter
/// adds to each response that passes it.
fn server(filters: &[&str], more: &str) -> Server {
    server_with("", filters, more)
}

/// One whose pool has one thread and one place in its queue, so that it is soon full.
const SMALL_POOL: &str = "thread_pool = { threads = 1, max_queue = 1 }";

/// With a line at the top of its configuration.
fn server_with(top: &str, filters: &[&str], more: &str) -> Server {
    let mut names = vec!["return", "panics_content", "panics_upstream", "panics_balancer"];
    names.extend(filters);
    Server::start(&format!(
        r#"
worker_threads = 1
{top}
{}
[[http.server]]
listen = ["127.0.0.1:PORT"]
access_log = "off"
panics = {{}}
headers.add_header = [{{ name = "X-Filter", value = "seen", always = true }}]

[[http.server.location]]
path = "= /state"
return = {{ code = 200, text = "$module_panics $live_bufs" }}

[[http.server.location]]
path = "/"
panics_content.text = "calm"

[[http.server.location]]
path = "/variable"
panics_content.text = "$panics"
{more}"#,
        declared(&names)
    ))
}

fn filters() -> Server {
    server(&["headers", "panics"], "")
}

/// Panics of all modules so far, and bufs that are in use.
fn state(server: &Server) -> (u64, u64) {
    let text = server.get("/state").expect(200).text().to_owned();
    let (panics, bufs) = text.split_once(' ').unwrap();
    (panics.parse().unwrap(), bufs.parse().unwrap())
}

/// Sends the request, and checks what its client sees, what is logged, that another request in flight is not harmed,
/// and that the next one works.
#[track_caller]
fn check(server: &Server, path: &str, seen: Seen, panics: &[Panic]) {
    let (before, _) = state(server);
    let mut in_flight = server.connect();
    in_flight.send("POST /?in=half HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n");
    let head = in_flight.head().unwrap();
    assert_eq!((head.status, in_flight.take(2).unwrap()), (200, b"ha".to_vec()), "the request in flight");

    let mut client = server.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    sees(&mut client, path, seen);
    let wanted: Vec<String> = panics.iter().map(|panic| logged(*panic)).collect();
    let log = server.stderr(|log| wanted.iter().all(|line| log.contains(line)));
    assert!(!log.contains(", at :0"), "{path}: a panic without a place:\n{log}");
    let expected = before + panics.len() as u64;
    // A job's panic is counted when the response may have left already.
    eventually(path, || state(server).0 >= expected);
    assert_eq!(state(server).0, expected, "{path}: $module_panics; the log:\n{log}");

    in_flight.send("ok");
    assert_eq!(in_flight.take(2).unwrap(), b"lf", "{path}: the request in flight");
    let next = server.get("/").expect(200);
    assert_eq!((next.text(), next.field("X-Filter")), ("calm", Some("seen")), "{path}: the next request");
}

#[track_caller]
fn sees(client: &mut Client, path: &str, seen: Seen) {
    match (client.try_response_to("GET"), seen) {
        (Ok(response), Bare500 | Own500) => {
            assert_eq!(response.status, 500, "{path}: {response:?}");
            assert_eq!(response.field("X-Filter").is_some(), seen == Own500, "{path}: filters in {response:?}");
            assert!(response.text().contains("500 Internal Server Error"), "{path}: {response:?}");
        }
        (Ok(response), Complete | Late) => assert_eq!(response.status, 200, "{path}: {response:?}"),
        (Err(_), Reset | Late) => (),
        (response, _) => panic!("{path}: expected {seen:?}, got {response:?}"),
    }
}

#[test]
fn in_a_phase() {
    let server = filters();
    for phase in ["post-read", "server-rewrite", "rewrite", "preaccess", "access", "precontent"] {
        let panic = ("panics", "handler", "asked for in handler", "handler");
        check(&server, &format!("/?in=handler&phase={phase}"), Bare500, &[panic]);
    }
}

#[test]
fn in_the_log_phase_the_response_has_left() {
    let panic = ("panics", "handler", "asked for in handler", "handler");
    check(&filters(), "/?in=handler&phase=log", Complete, &[panic]);
}

const FILTER_CASES: &[(&str, Seen, &[Panic])] = &[
    ("/?in=header_filter", Bare500, &[("panics", "header_filter", "asked for in header_filter", "header_filter")]),
    ("/?in=after_header", Reset, &[("panics", "header_filter", "asked for in header_filter", "after_header")]),
    ("/?in=body_filter", Reset, &[("panics", "body_filter", "asked for in body_filter", "body_filter")]),
    ("/?in=body_last", Reset, &[("panics", "body_filter", "asked for in body_filter", "body_last")]),
    (
        "/?in=body_woken",
        Reset,
        &[("panics", "body_filter", "asked for in body_filter, with Some(4) bytes", "body_woken")],
    ),
];

#[test]
fn in_a_filter() {
    let server = filters();
    for (path, seen, panics) in FILTER_CASES {
        check(&server, path, *seen, panics);
    }
}

#[test]
fn behind_a_filter_that_hides_errors() {
    let server = server(&["headers", "swallow", "panics"], "swallow = {}");
    for (path, seen, panics) in FILTER_CASES {
        check(&server, path, *seen, panics);
    }
}

#[test]
fn in_a_filter_that_hides_errors_and_stands_in_every_location() {
    // As above, but also in front of what the filters of `return` and of error pages pass.
    let server = server(
        &["headers", "swallow", "panics"],
        "\n[[http.server.location]]\npath = \"/r\"\nswallow = {}\nreturn = { code = 200, text = \"returned\" }\n",
    );
    check(&server, "/r?in=header_filter", Bare500, FILTER_CASES[0].2);
    check(&server, "/r?in=body_filter", Reset, FILTER_CASES[2].2);
}

#[test]
fn with_a_payload_that_panics_when_it_is_dropped() {
    let server = filters();
    let (before, _) = state(&server);
    assert_eq!(server.get("/?in=payload").status, 500);
    let text = "module panics panicked in header_filter: (the panic's payload is not a string), at src/lib.rs:";
    let log = server.stderr(|log| log.contains(text));
    assert_eq!(state(&server).0, before + 1, "{log}");
}

#[test]
fn while_another_panic_unwinds() {
    let server = filters();
    let outer = ("panics", "header_filter", "asked for in header_filter", "nested");
    check(&server, "/?in=nested", Bare500, &[outer, ("panics", "context drop", "asked for in context drop", "drop")]);
    let outer = ("panics", "body_filter", "asked for in body_filter", "unwinding");
    check(&server, "/?in=unwinding", Reset, &[outer, ("panics", "buf release", "asked for in buf release", "drop")]);
}

#[test]
fn in_the_drop_of_a_context() {
    let panic = ("panics", "context drop", "asked for in context drop", "drop");
    check(&filters(), "/?in=context_drop", Complete, &[panic]);
    check(&filters(), "/?in=context_replaced", Bare500, &[panic]);
}

#[test]
fn a_panic_is_counted_once_and_is_no_error() {
    let server = server_with("module_accounting = \"all\"", &["headers", "swallow", "panics"], "");
    for _ in 0..3 {
        assert_eq!(server.get("/?in=content").status, 500);
        assert_eq!(server.get("/?in=header_filter").status, 500);
        assert_eq!(server.get("/?in=handler&phase=access").status, 500);
    }
    let status: serde_json::Value = serde_json::from_str(&server.ask(&["status", "--json"]).stdout).unwrap();
    let modules = status["generations"][0]["workers"][0]["modules"].as_array().unwrap();
    let hooks = |module: &serde_json::Value| {
        let of = |hook: &serde_json::Value| {
            let count = |key: &str| hook[key].as_u64().unwrap();
            (hook["hook"].as_str().unwrap().to_string(), count("errors"), count("panics"))
        };
        let name = module["name"].as_str().unwrap().to_string();
        module["hooks"].as_array().unwrap().iter().map(of).map(|of| (name.clone(), of)).collect::<Vec<_>>()
    };
    let all: Vec<_> = modules.iter().flat_map(hooks).filter(|(_, (_, errors, panics))| errors + panics > 0).collect();
    let counted = |module: &str, hook: &str| (module.to_string(), (hook.to_string(), 0, 3));
    let wanted = [("panics_content", "content"), ("panics", "header_filter"), ("panics", "handler")];
    let missing: Vec<_> =
        wanted.iter().map(|(module, hook)| counted(module, hook)).filter(|of| !all.contains(of)).collect();
    assert!(missing.is_empty() && all.len() == wanted.len(), "{all:?}");
}

#[test]
fn in_the_drop_of_a_context_by_an_internal_redirect() {
    let folder = Folder::with(&[("html/index.html", b"a page")]);
    let config = format!(
        "worker_threads = 1\n{}[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nroot = \"html\"\npanics = {{}}\n",
        declared(&["index", "static", "panics"])
    );
    let server = Server::start_in(folder, &config);
    assert_eq!(server.get("/").expect(200).text(), "a page");
    let panic = ("panics", "context drop", "asked for in context drop", "drop");
    assert_eq!(server.get("/?in=redirect").status, 500);
    server.stderr(|log| log.contains(&logged(panic)));
    assert_eq!(server.get("/").expect(200).text(), "a page");
}

#[test]
fn in_a_variable() {
    let server = filters();
    assert_eq!(server.get("/variable").expect(200).text(), "calm");
    check(&server, "/variable?in=variable", Bare500, &[("panics", "variable", "asked for in variable", "variable")]);
}

#[test]
fn in_a_content_handler() {
    let server = filters();
    let panic = |mark| [("panics_content", "content", "asked for in content", mark)];
    check(&server, "/?in=content", Bare500, &panic("content"));
    check(&server, "/?in=behind_header", Reset, &panic("behind_header"));
    check(&server, "/?in=in_body", Reset, &panic("in_body"));
}

#[test]
fn in_a_job() {
    let server = filters();
    check(&server, "/?in=job", Own500, &[("panics_content", "job", "asked for in job", "job")]);
    check(&server, "/?in=job_forgotten", Complete, &[("panics_content", "job", "asked for in job", "job")]);
}

#[test]
fn in_the_drop_of_a_job_that_the_pool_refuses() {
    let server = server_with(SMALL_POOL, &["headers", "panics"], "");
    assert_eq!(server.get("/?in=busy").expect(200).text(), "calm");
    assert_eq!(server.get("/?in=waits").expect(200).text(), "calm");
    let panic = ("panics_content", "job", "asked for in the drop of a job", "job drop");
    check(&server, "/?in=job_refused", Bare500, &[panic]);
    assert_eq!(server.get("/?in=open").expect(200).text(), "calm");
}

#[test]
fn in_the_release_of_a_buf() {
    let server = filters();
    let panic = [("panics_content", "buf release", "asked for in buf release", "release")];
    check(&server, "/?in=release&size=10", Reset, &panic);
    // A large one is released when it has left.
    check(&server, "/?in=release&size=5000", Late, &panic);
    check(&server, "/?in=release&size=3000000", Late, &panic);
}

#[test]
fn in_the_release_of_a_buf_on_another_thread() {
    let server = filters();
    let panic = [("panics_content", "buf release", "asked for in buf release", "release")];
    check(&server, "/?in=release_in_job", Complete, &panic);
    check(&server, "/?in=release_in_thread", Complete, &panic);
    // A module's buf that another module's job releases: it is the first one's panic.
    check(&server, "/?in=release_far", Complete, &panic);
    eventually("all bufs go back", || state(&server).1 == 0);
}

// ---- calls without end

#[test]
fn calls_between_modules_and_host_that_are_nested_too_deep() {
    let server = filters();
    let text = "calls between modules and host are nested too deep; the last one came from module panics, client:";
    check(&server, "/variable?in=in_itself", Bare500, &[]);
    check(&server, "/?in=chain_anew", Reset, &[]);
    // Said once for each request, however often it is met on the way back.
    let log = server.stderr(|log| log.matches(text).count() >= 2);
    assert_eq!(log.matches(text).count(), 2, "{log}");
}

// ---- upstreams

/// A peer that answers `ok\nfrom the peer` to each connection, and closes.
fn peer() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // It ends with the process of the test.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4];
            if stream.read_exact(&mut request).is_ok() && &request == b"get\n" {
                let _ = stream.write_all(b"ok\nfrom the peer");
            }
        }
    });
    port
}

/// A server with upstreams, and a port of one of them that refuses connections as long as it is held.
fn upstreams() -> (Server, Reserved) {
    let (peer, refused) = (peer(), Reserved::new());
    let refusing = refused.port;
    let mut more = format!(
        r#"
[[http.server.location]]
path = "/up"
panics_upstream.pass = "one"

[[http.server.location]]
path = "/second"
panics_upstream.pass = "two"

[[http.server.location]]
path = "/upstream"
panics_upstream = {{ pass = "one", upstream_panics = true }}

[http.upstream.one]
balancer = ["panics_balancer"]
server = [{{ address = "127.0.0.1:{peer}" }}]

[http.upstream.two]
balancer = ["panics_balancer"]
server = [{{ address = "127.0.0.1:{refusing}", max_fails = 0 }}, {{ address = "127.0.0.1:{peer}" }}]
"#
    );
    for hook in ["init_peer", "get", "free"] {
        more += &format!(
            r#"
[[http.server.location]]
path = "/{hook}"
panics_upstream.pass = "{hook}"

[http.upstream.{hook}]
balancer = ["panics_balancer"]
panics_balancer.hook = "{hook}"
server = [{{ address = "127.0.0.1:{peer}" }}]
"#
        );
    }
    more += &format!(
        r#"
[[http.server.location]]
path = "/refused"
panics_upstream.pass = "refused"

[http.upstream.refused]
balancer = ["panics_balancer"]
panics_balancer.hook = "free"
server = [{{ address = "127.0.0.1:{refusing}" }}]
"#
    );
    (server(&["headers", "panics"], &more), refused)
}

#[test]
fn in_an_upstream() {
    let (server, _refused) = upstreams();
    assert_eq!(server.get("/up").expect(200).text(), "from the peer");
    assert_eq!(server.get("/second").expect(200).text(), "from the peer");
    let panics = |hook: &'static str, message| [("panics_upstream", hook, message, hook)];
    check(&server, "/upstream", Bare500, &panics("upstream", "asked for in upstream"));
    check(&server, "/up?in=create_request", Bare500, &panics("create_request", "asked for in create_request"));
    check(&server, "/second?in=reinit_request", Bare500, &panics("reinit_request", "asked for in reinit_request"));
    check(&server, "/up?in=process_header", Bare500, &panics("process_header", "asked for in process_header"));
    check(&server, "/up?in=input_filter_init", Reset, &panics("input_filter_init", "asked for in input_filter_init"));
    check(&server, "/up?in=input_filter", Reset, &panics("input_filter", "asked for in input_filter"));
    check(&server, "/up?in=finalize_request", Reset, &panics("finalize_request", "asked for in finalize_request"));
}

#[test]
fn when_the_client_has_gone() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let more = format!(
        r#"
[[http.server.location]]
path = "/up"
panics_upstream.pass = "silent"

[http.upstream.silent]
balancer = ["panics_balancer"]
server = [{{ address = "127.0.0.1:{port}" }}]
"#
    );
    let server = server(&["headers", "panics"], &more);
    let mut client = server.connect();
    client.send("GET /up?in=abort_request HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (mut stream, _) = silent.accept().unwrap();
    let mut request = [0; 4];
    stream.read_exact(&mut request).unwrap();
    client.stream.shutdown(Shutdown::Both).unwrap();
    let panic = ("panics_upstream", "abort_request", "asked for in abort_request", "abort_request");
    server.stderr(|log| log.contains(&logged(panic)));
    // The peer learns that nobody waits.
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(stream.read(&mut request).unwrap(), 0, "the connection to the peer is closed");
    assert_eq!(server.get("/").expect(200).text(), "calm");
    eventually("all bufs go back", || state(&server).1 == 0);
}

#[test]
fn in_a_balancer() {
    let (server, _refused) = upstreams();
    let panics = |hook: &'static str, message| [("panics_balancer", hook, message, hook)];
    check(&server, "/init_peer", Bare500, &panics("init_peer", "asked for in init_peer"));
    check(&server, "/get", Bare500, &panics("get", "asked for in get"));
    check(&server, "/free", Reset, &panics("free", "asked for in free"));
    check(&server, "/refused", Bare500, &panics("free", "asked for in free"));
}

#[test]
fn a_balancer_that_is_switched_off_is_not_called() {
    let peer = peer();
    let mut more = String::new();
    for (name, balancer) in [("others", r#""panics_balancer", "round_robin""#), ("alone", r#""panics_balancer""#)] {
        more += &format!(
            r#"
[[http.server.location]]
path = "/{name}"
panics_upstream.pass = "{name}"

[http.upstream.{name}]
balancer = [{balancer}]
panics_balancer = {{ enabled = false, hook = "get" }}
server = [{{ address = "127.0.0.1:{peer}" }}]
"#
        );
    }
    let server = server(&["headers", "panics", "round_robin"], &more);
    assert_eq!(server.get("/others").expect(200).text(), "from the peer");
    // Nobody is left to choose.
    server.get("/alone").expect(502);
    server.stderr(|log| log.contains("no live upstreams while connecting to upstream, client: "));
    assert_eq!(state(&server), (0, 0));
}

#[test]
fn in_init_upstream_it_is_an_error_of_the_configuration() {
    let text = Server::fails(&format!(
        "{}\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n\n[http.upstream.one]\nbalancer = [\"panics_balancer\"]\n\
         panics_balancer.hook = \"init_upstream\"\nserver = [{{ address = \"127.0.0.1:9\" }}]\n",
        declared(&["panics_balancer"])
    ));
    assert!(text.contains("http.upstream.one.balancer: panics_balancer: panicked in init_upstream"), "{text}");
}

// ---- the end, and leaks

#[test]
fn in_the_release_of_a_configuration() {
    let config = format!(
        "worker_threads = 1\n{}[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\npanics.release = true\n",
        declared(&["panics"])
    );
    let server = Server::start(&config);
    assert_eq!(server.get("/").status, 404);
    let answer = server.stop(Signal::TERM);
    let line = logged(("panics", "release", "asked for in release", "release"));
    assert!(answer.stderr.contains(&line), "{line} in {answer:#?}");
    assert_eq!(answer.code, Some(0), "{answer:#?}");
}

#[test]
fn in_the_end_of_a_configuration_that_is_refused() {
    let text = Server::fails(&format!(
        "{}[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nroot = \"nowhere\"\npanics = {{ release = true, state = true }}\n",
        declared(&["panics"])
    ));
    assert!(text.contains("root: found \"DIR/nowhere\", which is not a folder"), "{text}");
    for (message, mark) in [("asked for in release", "release"), ("asked for in state", "state")] {
        let line = logged(("panics", "release", message, mark));
        assert_eq!(text.matches(&line).count(), 1, "{line} in {text}");
    }
}

#[test]
fn at_the_end_the_pool_stops_before_the_modules_do_and_every_panic_is_caught() {
    let config = format!(
        "worker_threads = 1\n{SMALL_POOL}\n{}[[http.server]]\n\
         listen = [\"127.0.0.1:PORT\"]\npanics = {{ release = true, state = true }}\npanics_content = {{}}\n",
        declared(&["panics", "panics_content"])
    );
    let server = Server::start(&config);
    // One job runs until the other one, which waits behind it, is dropped.
    assert_eq!(server.get("/?in=busy&then=panic").expect(200).text(), "calm\n");
    assert_eq!(server.get("/?in=waits&then=panic").expect(200).text(), "calm\n");
    let answer = server.stop(Signal::TERM);
    assert_eq!(answer.code, Some(0), "{answer:#?}");
    let panics = [
        ("panics_content", "job", "asked for in the drop of a job", "job drop"),
        ("panics_content", "job", "asked for in job", "job"),
        ("panics", "release", "asked for in release", "release"),
        ("panics", "release", "asked for in state", "state"),
    ];
    let [dropped, ran, released, ended] = panics.map(|panic| {
        let line = logged(panic);
        answer.stderr.find(&line).unwrap_or_else(|| panic!("{line} in {answer:#?}"))
    });
    // The first two are on two threads.
    assert!(dropped.max(ran) < released && released < ended, "{answer:#?}");
    // Each module's panics are counted, from 1 on.
    for module in ["panics_content", "panics"] {
        let text = format!("module {module} panicked in ");
        let of_module = || answer.stderr.lines().filter(|line| line.contains(&text));
        let second = of_module().filter(|line| line.ends_with(" (its panic number 2)"));
        assert_eq!((of_module().count(), second.count()), (2, 1), "{answer:#?}");
    }
}

#[test]
fn nothing_leaks() {
    let (server, _refused) = upstreams();
    let paths = [
        "/?in=handler&phase=access",
        "/?in=handler&phase=log",
        "/?in=header_filter",
        "/?in=after_header",
        "/?in=nested",
        "/?in=payload",
        "/?in=context_drop",
        "/?in=context_replaced",
        "/?in=body_filter",
        "/?in=body_last",
        "/?in=body_woken",
        "/?in=unwinding",
        "/variable?in=variable",
        "/?in=content",
        "/?in=behind_header",
        "/?in=in_body",
        "/?in=job",
        "/?in=job_forgotten",
        "/?in=release&size=10",
        "/?in=release&size=100000",
        "/?in=release_in_job",
        "/?in=release_in_thread",
        "/?in=release_far",
        "/upstream",
        "/up?in=create_request",
        "/second?in=reinit_request",
        "/up?in=process_header",
        "/up?in=input_filter_init",
        "/up?in=input_filter",
        "/up?in=finalize_request",
        "/init_peer",
        "/get",
        "/free",
    ];
    let round = || {
        for path in paths {
            let mut client = server.connect();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
            let (_, ending) = client.rest_and_end();
            assert!(matches!(ending, Ending::Closed | Ending::Reset), "{path}");
        }
    };
    // The first rounds fill free lists and caches.
    for _ in 0..10 {
        round();
    }
    // Two of the paths panic twice; some on other threads, when their response may have left.
    let in_round = paths.len() as u64 + 2;
    let settled = |rounds| eventually("panics", || state(&server).0 >= rounds * in_round && state(&server).1 == 0);
    settled(10);
    let (open, used) = (server.open_files(), server.memory_kb());
    for _ in 0..20 {
        round();
    }
    settled(30);
    eventually("no file stays open", || server.open_files() <= open);
    // 700 panics: if each leaked its request or response it would be several megabytes.
    assert!(server.memory_kb() < used + 3000, "{used} kB before, {} kB after", server.memory_kb());
    assert_eq!(state(&server).0, 30 * in_round);
    assert_eq!(server.get("/").expect(200).text(), "calm");
}
