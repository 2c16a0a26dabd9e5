//! Reloads whose workers take their time: what happens meanwhile.

#[path = "support/build.rs"]
mod build;
mod support;

use std::fs;
use std::process::Output;
use std::thread::{ScopedJoinHandle, scope};

use rustix::process::Signal;
use support::{Answer, Client, Server, eventually, eventually_within};

/// A site that answers with this text. Its workers wait as long as there is a file `hang`.
fn site(text: &str) -> String {
    format!(
        "module = [{{ name = \"return\" }}, {{ name = \"hang\", path = {:?} }}]\nworker_threads = 1\n\
         error_log = {{ level = \"notice\" }}\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n\
         return = {{ code = 200, text = \"{text}\" }}\n",
        build::module("hang")
    )
}

/// A server of the first text, with the configuration of another one, whose workers hang.
fn server() -> Server {
    let server = Server::start(&site("old"));
    write(&server, &site("new"));
    server.folder.write("hang", b"");
    server
}

/// Whether a worker hangs, and has read the configuration.
fn hangs(server: &Server) -> bool {
    server.folder.path("hangs").exists()
}

fn write(server: &Server, config: &str) {
    let config = config.replace("PORT2", &server.address2().port().to_string());
    server.folder.write("plugins.toml", config.replace("PORT", &server.port.to_string()).as_bytes());
}

fn signal(pid: u32, signal: Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

fn go_on(server: &Server) {
    fs::remove_file(server.folder.path("hang")).unwrap();
}

/// Asks in the background, and waits until that has an effect.
fn ask<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    server: &'scope Server,
    question: &'static str,
    has_begun: impl Fn() -> bool,
) -> ScopedJoinHandle<'scope, Answer> {
    let asked = scope.spawn(move || server.ask(&["-s", question]));
    eventually(question, has_begun);
    asked
}

#[test]
fn all_who_ask_for_a_reload_are_answered() {
    let server = server();
    scope(|scope| {
        let first = ask(scope, &server, "reload", || hangs(&server));
        // They get a reload of their own: the file may be another one by now.
        write(&server, &site("newest"));
        let asked = || fs::read_to_string(format!("/proc/{}/net/unix", server.pid())).unwrap();
        let connected = || {
            asked().lines().filter(|line| line.contains(server.folder.path("topnext.sock").to_str().unwrap())).count()
        };
        let before = connected();
        let more: Vec<_> = (0..5).map(|_| scope.spawn(|| server.ask(&["-s", "reload"]))).collect();
        eventually("all have asked", || connected() >= before + 5);
        server.signal(Signal::HUP);
        assert_eq!(server.get("/").expect(200).text(), "old");
        go_on(&server);
        for answer in more.into_iter().chain([first]).map(|asked| asked.join().unwrap()) {
            assert_eq!(answer.code, Some(0), "{answer:#?}");
        }
        assert_eq!(server.get("/").expect(200).text(), "newest");
    });
}

#[test]
fn the_server_ends_in_the_middle_of_a_reload() {
    for (question, hang) in [("quit", true), ("stop", true), ("quit", false), ("stop", false)] {
        let mut server = server();
        if !hang {
            // At any time of it.
            go_on(&server);
        }
        scope(|scope| {
            let reload = ask(scope, &server, "reload", || {
                if hang { hangs(&server) } else { server.stderr(|_| true).contains("\"reload\"") }
            });
            let end = server.ask(&["-s", question]);
            assert_eq!(end.code, Some(0), "{end:#?}");
            let answer = reload.join().unwrap();
            assert!(
                answer.code == Some(0) && !hang || answer.stderr.contains("topnext: the server is ending"),
                "{answer:#?}"
            );
        });
        assert_eq!(server.ended(), Some(0));
        assert!(!server.folder.path("topnext.sock").exists());
    }
}

#[test]
fn logs_are_reopened_while_a_worker_starts() {
    let server = server();
    write(&server, &site("new").replace("return =", "access_log = \"a.log\"\nreturn ="));
    scope(|scope| {
        let reload = ask(scope, &server, "reload", || hangs(&server));
        let reopen = ask(scope, &server, "reopen", || server.stderr(|_| true).contains("reopening logs"));
        go_on(&server);
        assert_eq!((reload.join().unwrap().code, reopen.join().unwrap().code), (Some(0), Some(0)));
    });
    server.get("/").expect(200);
    eventually("a line", || server.folder.read("a.log").contains("GET / "));
}

#[test]
fn a_worker_that_loads_is_not_late_to_reopen_logs() {
    let server = server();
    let old = server.worker();
    scope(|scope| {
        let reload = ask(scope, &server, "reload", || hangs(&server));
        // One that is late shows when that is.
        signal(old, Signal::STOP);
        let reopen = ask(scope, &server, "reopen", || server.stderr(|_| true).contains("reopening logs"));
        let late = format!("process {old}: no answer within 10 s");
        server.stderr(|log| log.contains(&format!("[alert] {}#0: reopening logs: {late}", server.pid())));
        assert!(!reopen.is_finished());
        signal(old, Signal::CONT);
        go_on(&server);
        assert_eq!(reload.join().unwrap().code, Some(0));
        let answer = reopen.join().unwrap();
        assert!(answer.code == Some(1) && answer.stderr.ends_with(&format!(":\n  {late}\n")), "{answer:#?}");
    });
}

#[test]
fn an_upgrade_waits_for_the_end_of_a_reload() {
    let mut server = server();
    // An address that both open, if they are not one after the other.
    write(&server, &site("new").replace("listen = [", "listen = [\"127.0.0.1:PORT2\", "));
    scope(|scope| {
        let reload = ask(scope, &server, "reload", || hangs(&server));
        server.signal(Signal::USR2);
        server.stderr(|log| log.contains("SIGUSR2 received"));
        server.signal(Signal::WINCH);
        server.stderr(|log| log.contains("SIGWINCH received"));
        assert_eq!(server.get("/").expect(200).text(), "old");
        go_on(&server);
        assert_eq!(reload.join().unwrap().code, Some(0));
    });
    let log = server.stderr(|log| log.contains("the new master serves"));
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text}: {log}"));
    assert!(at("generation 2 serves") < at("a new master is started"), "{log}");
    let old = server.pid();
    server.stderr(|log| log.matches(&format!("{old}#0: worker ")).count() >= 2);
    assert_eq!(server.end_alone(Signal::QUIT), Some(0));
    for address in [server.address(), server.address2()] {
        let mut client = support::Client::connect(address);
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(client.response().expect(200).text(), "new");
    }
    assert_eq!(server.ask(&["-s", "quit"]).code, Some(0));
}

fn one_that_hangs_is_given_up() {
    let server = server();
    let worker = server.worker();
    // After the minute that it has, which is longer than anything else is waited for here.
    let answer = support::command(&server.folder, &["-s", "reload"]).output().unwrap();
    let said = String::from_utf8(answer.stderr).unwrap();
    assert_eq!(answer.status.code(), Some(1), "{said}");
    assert!(said.starts_with("topnext: the new workers were not ready within 60 s: "), "{said}");
    assert!(said.contains("(the main thread in the module declared as number 2, hook init)"), "{said}");
    assert_eq!((server.get("/").expect(200).text(), server.worker()), ("old", worker));
    go_on(&server);
    let answer = server.ask(&["-s", "reload"]);
    assert_eq!(answer.code, Some(0), "{answer:#?}");
    assert_eq!(server.get("/").expect(200).text(), "new");
}

#[test]
fn while_a_worker_is_replaced_another_one_stands_in_for_it() {
    let server = Server::start(&format!("worker_processes = 2\n{}", site("$pid")));
    server.folder.write("hang", b"");
    let workers = server.workers();
    signal(workers[0], Signal::KILL);
    eventually("the next one hangs", || hangs(&server));
    // Half of them come to the sockets of the one that is dead.
    for _ in 0..40 {
        assert_eq!(server.get("/").expect(200).text(), workers[1].to_string());
    }
    go_on(&server);
    // From here on each has its own again.
    let answers = || server.get("/").expect(200).text().to_string();
    eventually("the next one answers", || answers() != workers[1].to_string());
    eventually("the other one too", || answers() == workers[1].to_string());
    // One that stands in dies too.
    server.folder.write("hang", b"");
    fs::remove_file(server.folder.path("hangs")).unwrap();
    let workers = server.workers();
    signal(workers[0], Signal::KILL);
    eventually("the next one hangs", || hangs(&server));
    signal(workers[1], Signal::KILL);
    go_on(&server);
    for _ in 0..40 {
        assert!(!workers.iter().any(|old| server.get("/").expect(200).text() == old.to_string()));
    }
}

/// Whether a worker is in this state, as the master sees it.
fn is(server: &Server, pid: u32, slot: u32, state: &str) -> bool {
    let text = format!("\"pid\":{pid},\"slot\":{slot},\"state\":\"{state}\"");
    server.ask(&["status", "--json"]).stdout.contains(&text)
}

/// Has a reload begun to two workers and another address, and stops the first one before it serves. With both, and the answer to
/// come.
fn reload_with_one_stopped<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    server: &'scope Server,
    site: &str,
) -> ([u32; 2], ScopedJoinHandle<'scope, Output>) {
    let old = server.worker();
    let two = site.replace("\"127.0.0.1:PORT\"", "\"127.0.0.1:PORT\", \"127.0.0.1:PORT2\"");
    write(server, &format!("worker_processes = 2\n{two}"));
    let asked = scope.spawn(|| support::command(&server.folder, &["-s", "reload"]).output().unwrap());
    eventually("the first one hangs", || hangs(server));
    let first = server.workers().into_iter().find(|pid| *pid != old).unwrap();
    server.folder.write("hang", first.to_string().as_bytes());
    let second = || server.workers().into_iter().find(|pid| ![old, first].contains(pid));
    eventually("the other one is started", || second().is_some());
    let second = second().unwrap();
    eventually("the first one is ready", || is(server, first, 0, "ready"));
    signal(first, Signal::STOP);
    go_on(server);
    eventually("the other one serves", || is(server, second, 1, "serving"));
    ([first, second], asked)
}

#[test]
fn a_reload_whose_workers_do_not_get_to_serve_fails() {
    let server = server();
    let old = server.worker();
    scope(|scope| {
        let ([first, _], asked) = reload_with_one_stopped(scope, &server, &site("new"));
        signal(first, Signal::KILL);
        let answer = asked.join().unwrap();
        let said = String::from_utf8(answer.stderr).unwrap();
        assert_eq!(answer.status.code(), Some(1), "{said}");
        assert!(said.contains("a new worker exited on signal 9 (SIGKILL) before it served"), "{said}");
    });
    eventually("those that served already have ended", || server.workers() == [old]);
    assert_eq!(server.get("/").expect(200).text(), "old");
    assert!(std::net::TcpStream::connect(server.address2()).is_err(), "the new address is closed again");
    assert_eq!(server.ask(&["-s", "reload"]).code, Some(0));
    assert_eq!(server.get("/").expect(200).text(), "new");
}

#[test]
fn a_reload_that_fails_late_cuts_no_request() {
    let large = support::files::noise(8 << 20);
    let files = site("x").replace("name = \"return\"", "name = \"static\"").replace("return = ", "root = \"html\" #");
    let server = Server::with(&[("html/large", &large)], &files);
    server.folder.write("hang", b"");
    scope(|scope| {
        let ([first, second], asked) = reload_with_one_stopped(scope, &server, &files);
        // Those of the one that is stopped are lost with it.
        let mut clients: Vec<_> = (0..24).map(|_| Client::slow(server.address2())).collect();
        clients.iter_mut().for_each(|client| client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n"));
        eventually("some are served", || {
            let status = server.ask(&["status", "--json"]).stdout;
            let of_second = status.split(&format!("\"pid\":{second},")).nth(1).unwrap();
            of_second.contains("\"running\":") && !of_second.split("\"running\":").nth(1).unwrap().starts_with('0')
        });
        signal(first, Signal::KILL);
        assert_eq!(asked.join().unwrap().status.code(), Some(1));
        let served =
            clients.iter_mut().filter_map(|client| client.head().ok().map(|_| client.take(large.len()).unwrap()));
        let served: Vec<_> = served.collect();
        assert!(!served.is_empty() && served.iter().all(|body| *body == large));
    });
    eventually("the old one is alone", || server.workers().len() == 1);
}

fn a_reload_of_which_one_worker_does_not_get_to_serve_is_done_without_it() {
    let server = server();
    let old = server.worker();
    scope(|scope| {
        let ([first, _], asked) = reload_with_one_stopped(scope, &server, &site("new"));
        // After a minute.
        let answer = asked.join().unwrap();
        let said = String::from_utf8(answer.stdout).unwrap();
        assert!(answer.status.success(), "{said}");
        let text = format!("\n  warning    worker {first} did not come to accept connections, and is replaced\n");
        assert!(said.contains(&text), "{said}");
        server.stderr(|log| log.contains("not all workers of generation 2 serve; the old ones are drained anyway"));
        eventually("the old one has ended", || !server.workers().contains(&old));
        eventually("it is replaced", || server.workers().len() == 2 && !server.workers().contains(&first));
    });
    for _ in 0..20 {
        assert_eq!(server.get("/").expect(200).text(), "new");
    }
}

fn one_that_is_to_replace_another_and_hangs_is_ended() {
    let server = server();
    let worker = server.worker();
    signal(worker, Signal::KILL);
    eventually("the next one hangs", || hangs(&server));
    let next = server.worker();
    // The master gives it a minute.
    let gone = || !std::path::Path::new(&format!("/proc/{next}/fd/0")).exists();
    eventually_within(std::time::Duration::from_secs(90), "the one that hangs is ended", gone);
    go_on(&server);
    let log = server.stderr(|log| log.matches(" exited on signal 9").count() == 2);
    let text = format!(
        "worker {next} (the main thread in module hang 0.1.0, hook init) was not ready within 60 s, it is killed"
    );
    assert!(log.contains(&text), "{log}");
    assert_eq!(server.get("/").expect(200).text(), "old");
}

/// What takes the minute that workers have, all at once: there may be fewer test threads than such cases.
#[test]
fn workers_have_a_minute() {
    scope(|scope| {
        scope.spawn(one_that_hangs_is_given_up);
        scope.spawn(one_that_is_to_replace_another_and_hangs_is_ended);
        scope.spawn(a_reload_of_which_one_worker_does_not_get_to_serve_is_done_without_it);
    });
}
