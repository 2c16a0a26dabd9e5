//! Reloads: what changes, what is refused, and what becomes of the connections.

#[path = "support/build.rs"]
mod build;
mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use support::proxied::{GET, OK, at, at_peer, balanced};
use support::{Client, Ending, Folder, Server, eventually};

/// A site that answers with this text.
fn answering(text: &str) -> String {
    format!(
        "worker_threads = 2\nmodule = [{{ name = \"return\" }}, {{ name = \"headers\" }}]\nerror_log = {{ level = \"notice\" }}\n\
         [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nreturn = {{ code = 200, text = \"{text}\" }}\n"
    )
}

/// Writes another configuration for the same port, and reloads: exit code, and what was said.
fn reload(server: &Server, config: &str) -> (Option<i32>, String) {
    let config = config.replace("PORT", &server.port.to_string());
    server.folder.write("plugins.toml", config.as_bytes());
    let answer = server.ask(&["-s", "reload"]);
    (answer.code, answer.stdout + &answer.stderr)
}

#[test]
fn the_next_request_after_a_reload_meets_the_new_configuration() {
    let server = Server::start(&answering("0"));
    let mut before = server.workers();
    for number in 1..=5 {
        let (code, said) = reload(&server, &answering(&number.to_string()));
        assert_eq!(code, Some(0), "{said}");
        assert!(said.starts_with(&format!("generation {} serves, workers ", number + 1)), "{said}");
        assert!(said.contains("\n  files      changed plugins.toml\n"), "{said}");
        for _ in 0..10 {
            assert_eq!(server.get("/").expect(200).text(), number.to_string());
        }
        eventually("the old worker has ended", || server.workers().len() == 1);
        let now = server.workers();
        assert_ne!(now, before);
        before = now;
    }
    // The same by a signal.
    server.folder.write("plugins.toml", answering("by signal").replace("PORT", &server.port.to_string()).as_bytes());
    server.signal(Signal::HUP);
    eventually("the new configuration", || server.get("/").expect(200).text() == "by signal");
}

#[test]
fn a_broken_configuration_changes_nothing_and_all_its_errors_are_said() {
    let server = Server::start(&answering("good"));
    let worker = server.worker();
    let broken = answering("bad").replace("return = ", "lisen = []\nreturn = ") + "gzip.enabled = true\n";
    let (code, said) = reload(&server, &broken);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("plugins.toml:6:1: http.server.lisen: unknown key; did you mean \"listen\"?\n"), "{said}");
    assert!(said.contains("plugins.toml:8:1: http.server.gzip: no module of this name is declared"), "{said}");
    let last =
        "topnext: configuration file plugins.toml test failed\ntopnext: nothing has changed, generation 1 serves\n";
    assert!(said.ends_with(last), "{said}");
    // No TOML at all.
    let (code, said) = reload(&server, "[[[");
    assert!(code == Some(1) && said.starts_with("plugins.toml:1:"), "{said}");
    // An address that somebody else has.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap().to_string();
    let (code, said) =
        reload(&server, &answering("bad").replace("\"127.0.0.1:PORT\"", &format!("\"127.0.0.1:PORT\", \"{busy}\"")));
    let text = format!(
        "topnext: cannot listen on {busy}: (98: Address already in use)\ntopnext: nothing has changed, generation 1 serves\n"
    );
    assert_eq!((code, said), (Some(1), text));
    assert_eq!((server.get("/").expect(200).text(), server.worker()), ("good", worker));
    eventually("those that failed are gone", || server.workers() == [worker]);
    server.stderr(|log| log.contains("[error] ") && log.contains("reload failed: topnext: cannot listen on "));
    // Without a file, and still found by the prefix alone.
    fs::remove_file(server.folder.path("plugins.toml")).unwrap();
    let answer = server.ask(&["-s", "reload"]);
    assert!(answer.code == Some(1) && answer.stderr.contains("plugins.toml: cannot read the file (2: "), "{answer:#?}");
}

#[test]
fn a_very_long_report_is_cut() {
    let server = Server::start(&answering("good"));
    let locations: String =
        (0..5000).map(|n| format!("[[http.server.location]]\npath = \"/{n}\"\nno_such_directive = {n}\n")).collect();
    let (code, said) = reload(&server, &(answering("bad") + &locations));
    assert_eq!(code, Some(1));
    let lines: Vec<&str> = said.lines().collect();
    let (last, all) = lines.split_last().unwrap();
    assert_eq!(*last, "topnext: nothing has changed, generation 1 serves");
    let (last, all) = all.split_last().unwrap();
    assert!(all.iter().all(|line| line.contains(".no_such_directive: unknown key")), "{:?}", all.last());
    assert_eq!(*last, format!("topnext: the report is cut here; it has {} more lines", 5000 + 1 - all.len()));
    assert!(said.len() > 200_000 && said.len() < 300_000, "{}", said.len());
    server.get("/").expect(200);
}

#[test]
fn an_old_worker_that_does_not_answer_is_told_of() {
    use rustix::process::{Pid, kill_process};
    let server = Server::start(&answering("old"));
    let worker = server.worker();
    let pid = Pid::from_raw(worker.cast_signed()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let (code, said) = reload(&server, &answering("new"));
    let text = format!("\n  warning    worker {worker} does not answer; it may accept connections still\n");
    assert!(code == Some(0) && said.contains(&text), "{said}");
    server.stderr(|log| log.contains("[alert] ") && log.contains("old workers do not answer"));
    kill_process(pid, Signal::CONT).unwrap();
    eventually("it has ended", || !server.workers().contains(&worker));
    assert_eq!(server.get("/").expect(200).text(), "new");
}

#[test]
fn workers_that_cannot_serve_fail_the_reload() {
    let server = Server::start(&answering("good"));
    let worker = server.worker();
    let bad = answering("bad").replace("worker_threads = 2", "worker_threads = 8\nworker_rlimit_nofile = 16");
    let (code, said) = reload(&server, &bad);
    assert!(code == Some(1) && said.contains("24: Too many open files"), "{said}");
    assert_eq!((server.get("/").expect(200).text(), server.worker()), ("good", worker));
}

#[test]
fn modules_are_added_removed_and_reordered() {
    let server = Server::start(&answering("x"));
    let with = |modules: &[&str], more: &str| {
        let list: Vec<String> = modules.iter().map(|name| format!("{{ name = \"{name}\" }}")).collect();
        let modules = format!("module = [{}]", list.join(", "));
        answering("x").replace("module = [{ name = \"return\" }, { name = \"headers\" }]", &modules) + more
    };
    let answer = || server.get_with("/", "Accept-Encoding: gzip\r\n").expect(200);
    assert_eq!(answer().field("Content-Encoding"), None);
    let gzip = "gzip = { enabled = true, min_length = 0, types = [\"text/plain\"] }\n";
    let (code, said) = reload(&server, &with(&["return", "headers", "gzip"], gzip));
    assert!(code == Some(0) && said.contains("\n  modules    added gzip "), "{said}");
    assert_eq!(answer().field("Content-Encoding"), Some("gzip"));
    let (code, said) = reload(&server, &with(&["gzip", "return"], gzip));
    assert!(code == Some(0) && said.contains("removed headers ") && said.contains("order "), "{said}");
    assert_eq!(answer().field("Content-Encoding"), Some("gzip"));
    let (code, said) = reload(&server, &with(&["return"], ""));
    assert!(code == Some(0) && said.contains("removed gzip "), "{said}");
    assert_eq!(answer().field("Content-Encoding"), None);
    // One that nothing can be loaded of.
    let broken = with(&["return"], "").replace("{ name = \"return\" }", "{ name = \"x\", path = \"plugins.toml\" }");
    let (code, said) = reload(&server, &broken);
    assert!(code == Some(1) && said.starts_with("plugins.toml:2:"), "{said}");
    answer();
}

#[test]
fn auto_is_one_loop_for_each_processor_in_all() {
    let config = "worker_processes = \"auto\"\n".to_string() + &answering("x").replace("worker_threads = 2\n", "");
    let server = Server::start(&config);
    let processors = std::thread::available_parallelism().unwrap().get();
    assert_eq!(server.workers().len(), processors);
    let said = server.stderr(|text| text.contains(" is ready"));
    assert!(said.contains(" of 1 thread\n"), "{said}");
}

#[test]
fn requests_in_flight_are_finished_and_idle_connections_are_closed() {
    let file = support::files::noise(4 << 20);
    let config = |header: &str| {
        format!(
            "worker_threads = 1\nmodule = [{{ name = \"static\" }}, {{ name = \"headers\" }}]\nerror_log = {{ level = \"notice\" }}\n\
             [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nroot = \"html\"\n\
             headers.add_header = [{{ name = \"X-G\", value = \"{header}\" }}]\n"
        )
    };
    let server = Server::with(&[("html/large", &file), ("html/a", b"a")], &config("1"));
    let old = server.worker();
    let mut slow = Client::slow(server.address());
    slow.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = slow.head().unwrap();
    let mut idle = server.connect();
    idle.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(idle.response().expect(200).field("X-G"), Some("1"));
    let mut half = server.connect();
    half.send("GET /a HTTP/1.1\r\nHo");
    let (code, said) = reload(&server, &config("2"));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains(&format!("\n  draining   worker {old} of generation 1: 1 request and 3 connections\n")),
        "{said}"
    );
    // One that was used a moment ago may be used once more; then it ends.
    idle.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    let last = idle.response().expect(200);
    assert_eq!((last.field("X-G"), last.field("Connection")), (Some("1"), Some("close")));
    assert_eq!(idle.end(), Ending::Closed);
    // One whose request is on its way is answered.
    half.send("st: a\r\n\r\n");
    assert_eq!(half.response().expect(200).field("X-G"), Some("1"));
    assert_eq!(server.get("/a").expect(200).field("X-G"), Some("2"));
    assert!(server.workers().contains(&old));
    assert_eq!(slow.take(file.len()).unwrap(), file, "{head:?}");
    eventually("the old worker has ended", || !server.workers().contains(&old));
}

#[test]
fn kept_connections_to_upstreams_are_released() {
    let peer = support::peer::Peer::new();
    let backend = at(peer.port, "");
    let server = balanced(&[backend], "keepalive = 4\nkeepalive_timeout = \"1h\"", "");
    let old = server.worker();
    let (mut client, mut kept) = at_peer(&peer, &server, GET);
    kept.reply(OK);
    client.response().expect(200);
    kept.expect_open();
    // One more is in flight: it is finished, and then its connection is released too.
    let (mut second, mut busy) = {
        let mut client = server.connect();
        client.send(GET);
        kept.head();
        (client, kept)
    };
    assert_eq!(server.ask(&["-s", "reload"]).code, Some(0));
    assert!(server.workers().contains(&old));
    busy.reply(OK);
    assert_eq!(second.response().expect(200).text(), "hello");
    busy.expect_closed();
    eventually("the old worker has ended", || !server.workers().contains(&old));
}

#[test]
fn worker_shutdown_timeout() {
    let file = support::files::noise(8 << 20);
    let config = "worker_threads = 1\nworker_shutdown_timeout = \"300ms\"\nmodule = [{ name = \"static\" }]\n\
                  error_log = { level = \"notice\" }\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nroot = \"html\"\n";
    let server = Server::with(&[("html/large", &file)], config);
    let old = server.worker();
    let mut slow = Client::slow(server.address());
    slow.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    slow.head().unwrap();
    assert_eq!(reload(&server, config).0, Some(0));
    eventually("the old worker has ended", || !server.workers().contains(&old));
    server.stderr(|log| log.contains("[warn] ") && log.contains("worker_shutdown_timeout has passed"));
}

#[test]
fn addresses_and_threads_come_and_go() {
    let site = |threads: usize, listen: &str| {
        format!(
            "worker_threads = {threads}\nmodule = [{{ name = \"return\" }}]\n[[http.server]]\nlisten = [{listen}]\n\
             return = {{ code = 200, text = \"$server_port\" }}\n"
        )
    };
    let server = Server::start(&site(1, "\"127.0.0.1:PORT\""));
    let second = support::server::free_port();
    let both = format!("\"127.0.0.1:PORT\", \"127.0.0.1:{}\", \"unix:a.sock\"", second.number);
    for (threads, processes) in [(3, 1), (2, 2), (1, 1), (4, 1)] {
        let config = format!("worker_processes = {processes}\n{}", site(threads, &both));
        let (code, said) = reload(&server, &config);
        assert_eq!(code, Some(0), "{said}");
        for port in [server.port, second.number] {
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
            for _ in 0..50 {
                let mut client = Client::connect(address);
                client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                assert_eq!(client.response().expect(200).text(), port.to_string());
            }
        }
        eventually("so many workers", || server.workers().len() == processes);
    }
    let mut unix = Client::unix(&server.folder.path("a.sock"));
    unix.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    unix.response().expect(200);
    let (code, said) = reload(&server, &site(1, "\"127.0.0.1:PORT\""));
    assert_eq!(code, Some(0));
    assert!(said.contains(&format!("removed 127.0.0.1:{}", second.number)), "{said}");
    eventually("nobody listens", || std::net::TcpStream::connect(("127.0.0.1", second.number)).is_err());
    assert!(!server.folder.path("a.sock").exists());
}

#[test]
fn fifty_reloads_under_load_lose_no_request() {
    let server = Server::start(&answering("x"));
    let address = server.address();
    let stop = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        let kept = |_: usize| {
            scope.spawn(|| {
                let mut answers = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Client::connect(address);
                    loop {
                        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                        let response = client.response().expect(200);
                        answers += 1;
                        if response.field("Connection") == Some("close") || stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                }
                answers
            })
        };
        let new = |_: usize| {
            scope.spawn(|| {
                let mut answers = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Client::connect(address);
                    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                    client.response().expect(200);
                    answers += 1;
                }
                answers
            })
        };
        let threads: Vec<_> = (0..3).map(kept).chain((0..3).map(new)).collect();
        let orders =
            ["[{ name = \"return\" }, { name = \"headers\" }]", "[{ name = \"headers\" }, { name = \"return\" }]"];
        for number in 0..50 {
            let config = answering("x").replace(orders[0], orders[number % 2]);
            let (code, said) = reload(&server, &config);
            if code != Some(0) {
                stop.store(true, Ordering::Relaxed);
                panic!("reload {number}: {said}");
            }
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("no request is lost")).sum::<u64>()
    });
    assert!(done > 50, "{done}");
}

#[test]
fn a_module_that_was_written_over_while_it_is_in_use_is_told_of() {
    let file = build::module("gate");
    let folder = Folder::new();
    fs::copy(&file, folder.path("libgate.so")).unwrap();
    let config = "worker_threads = 1\nmodule = [{ name = \"gate\", path = \"libgate.so\" }, { name = \"return\" }]\n\
         [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nreturn = { code = 200, text = \"x\" }\n";
    let server = Server::start_in(folder, config);
    // As an editor does it: a new file under the old name.
    let replace = || {
        fs::copy(&file, server.folder.path("new.so")).unwrap();
        fs::rename(server.folder.path("new.so"), server.folder.path("libgate.so")).unwrap();
    };
    replace();
    let (code, said) = reload(&server, config);
    assert!(code == Some(0) && said.contains("\n  modules    changed gate "), "{said}");
    assert!(!said.contains("was overwritten"), "{said}");
    // As cp does it. Only the time changes, so that the worker lives on.
    let bytes = fs::read(&file).unwrap();
    fs::OpenOptions::new().write(true).open(server.folder.path("libgate.so")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(
        &fs::OpenOptions::new().write(true).open(server.folder.path("libgate.so")).unwrap(),
        &bytes[..1],
        0,
    )
    .unwrap();
    let (code, said) = reload(&server, config);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("libgate.so was overwritten while it was in use"), "{said}");
}
