//! Workers that die or are stuck: they are replaced, and the log says what they were doing.

#[path = "support/build.rs"]
mod build;
mod support;

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use support::{Ending, Folder, Server, eventually};

fn server(top: &str) -> Server {
    let top = if top.contains("worker_threads") { top.to_string() } else { format!("worker_threads = 1\n{top}") };
    let site = format!(
        r#"
module = [{{ name = "crash", path = {:?} }}, {{ name = "return" }}]
error_log = {{ level = "notice" }}
{top}
[[http.server]]
listen = ["127.0.0.1:PORT", "unix:c.sock"]
return = {{ code = 200, text = "$pid" }}
[[http.server.location]]
path = "/segv"
crash.how = "segv"
return = {{ code = 204 }}
"#,
        build::module("crash")
    );
    let site = site.replace("crash.how = \"segv\"\nreturn = { code = 204 }\n", "crash.how = \"segv\"\n");
    let place = |how: &str| format!("[[http.server.location]]\npath = \"/{how}\"\ncrash.how = \"{how}\"\n");
    let places: String = ["abort", "sleep", "junk", "long", "early", "drains", "descriptor", "spoil", "die_spoiled"]
        .into_iter()
        .map(place)
        .collect();
    let places = places + "[[http.server.location]]\npath = \"/ok\"\nreturn = { code = 200, text = \"$pid\" }\n";
    Server::start(&(site.replace("return = { code = 200, text = \"$pid\" }\n", "") + &places))
}

fn kill(pid: u32) {
    send(pid, Signal::KILL);
}

fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

#[test]
fn a_module_that_crashes_is_named_and_the_worker_replaced() {
    let server = server("");
    for (path, signal) in [("/segv", "signal 11 (SIGSEGV"), ("/abort", "signal 6 (SIGABRT")] {
        let before = server.worker();
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_ne!(client.rest_and_end().0, "200");
        // The address listens all the time: nobody is turned away.
        let now = server.get("/ok").expect(200).text().to_string();
        assert_ne!(now, before.to_string());
        let log = server.stderr(|log| log.contains(signal));
        let line = log.lines().find(|line| line.contains(signal)).unwrap();
        assert!(line.contains(&format!("worker {before} of generation 1 exited on ")), "{line}");
        assert!(
            line.contains("; loop 0 in module crash 0.1.0, hook content, *")
                && line
                    .ends_with(&format!(", request: \"GET {path} HTTP/1.1\"; in flight: 1 request and 1 connection")),
            "{line}"
        );
    }
}

#[test]
fn a_worker_that_talks_nonsense_to_its_master_is_ended() {
    let server = server("");
    for (path, text) in [
        ("/junk", "has sent what is no message (expected value at line 1 column 1); it is ended"),
        ("/long", "has sent what is no message (a message of 2097152 bytes is too long); it is ended"),
        ("/early", "has sent Ready when it was Serving; it is ended"),
        // Else it would have no successor.
        ("/drains", "has sent Draining when it was Serving; it is ended"),
    ] {
        let before = server.worker();
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        server.stderr(|log| log.contains("[alert] ") && log.contains(&format!("worker {before} {text}")));
        eventually("another worker", || server.get("/ok").text() != before.to_string());
    }
}

#[test]
fn a_worker_can_send_no_descriptor_to_its_master() {
    // The last close of one takes as long as the worker likes.
    let server = server("");
    let open = || fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    let before = open();
    assert_eq!(server.get("/descriptor").expect(200).text(), "refused");
    assert_eq!(open(), before);
}

#[test]
fn what_a_worker_does_to_the_listening_sockets_lasts_no_longer_than_the_next_reload() {
    let server = server("");
    let mut client = server.connect();
    client.send("GET /spoil HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.response().expect(200);
    assert!(std::net::TcpStream::connect(server.address()).is_err(), "nobody listens");
    assert_eq!(server.ask(&["-s", "reload"]).code, Some(0));
    let mut unix = support::Client::unix(&server.folder.path("c.sock"));
    unix.send("GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    unix.response().expect(200);
    server.stderr(|log| log.contains("a worker has made a listening socket of 127.0.0.1:"));
    let now = server.get("/ok").expect(200).text().to_string();
    // The loop of the new worker turns, though nobody comes.
    for _ in 0..3 {
        assert_eq!(server.get("/ok").expect(200).text(), now);
    }
    assert_eq!(server.ask(&["-s", "reload"]).code, Some(0));
    server.get("/ok").expect(200);
}

#[test]
fn a_worker_that_shuts_the_listening_sockets_down_and_dies_has_a_successor_that_listens() {
    let server = server("");
    let before = server.worker();
    let mut client = server.connect();
    client.send("GET /die_spoiled HTTP/1.1\r\nHost: a\r\n\r\n");
    client.rest_and_end();
    eventually("another worker listens", || std::net::TcpStream::connect(server.address()).is_ok());
    assert_ne!(server.get("/ok").expect(200).text(), before.to_string());
}

#[test]
fn a_worker_that_is_killed_is_replaced_at_once() {
    let server = server("worker_processes = 2");
    for pid in server.workers() {
        assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "topnext\n");
    }
    for _ in 0..8 {
        let before = server.workers();
        kill(before[0]);
        eventually("another worker", || {
            let now = server.workers();
            now.len() == 2 && !now.contains(&before[0])
        });
        for _ in 0..20 {
            server.get("/ok").expect(200);
        }
    }
}

#[test]
fn a_worker_that_somebody_else_has_finish_is_replaced() {
    let server = server("worker_threads = 2\n");
    for signal in [Signal::QUIT, Signal::TERM, Signal::WINCH] {
        let before = server.worker();
        send(before, signal);
        // Before that it may take a request with it.
        let ended = ["exited with code 0", "has finished"].map(|how| format!("worker {before} of generation 1 {how}"));
        server.stderr(|log| ended.iter().any(|text| log.contains(text)));
        assert_ne!(server.get("/ok").text(), before.to_string());
    }
}

#[test]
fn one_that_somebody_else_has_finish_is_replaced_before_it_has() {
    let large = support::files::noise(16 << 20);
    let server = Server::with(
        &[("html/large", &large)],
        "worker_threads = 1\nerror_log = { level = \"notice\" }\nmodule = [{ name = \"return\" }, { name = \"static\" }]\n\
         [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nroot = \"html\"\n[[http.server.location]]\npath = \"= /ok\"\n\
         return = { code = 200, text = \"$pid\" }\n",
    );
    let mut workers = server.workers();
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut client = support::Client::slow(server.address());
        client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
        client.head().unwrap();
        busy.push(client);
        send(*workers.last().unwrap(), Signal::QUIT);
        eventually("another one", || server.workers().len() > workers.len() || busy.len() == 2);
        workers = server.workers();
        if busy.len() == 1 {
            // At once, though the first one is busy.
            assert_eq!(workers.len(), 2);
            let first = server.get("/ok").expect(200).text().to_string();
            workers.sort_by_key(|pid| pid.to_string() == first);
        }
    }
    // There are two by now that finish what they have: the next one comes when one of them has.
    server.stderr(|log| log.matches("was told to finish by somebody else, it is replaced").count() == 2);
    assert_eq!(server.workers().len(), 2);
    assert_eq!(busy[0].take(large.len()).unwrap(), large);
    drop(busy.remove(0));
    server.get("/ok").expect(200);
    assert_eq!(busy[0].take(large.len()).unwrap(), large);
}

#[test]
fn one_that_replaces_another_has_as_many_loops_though_there_are_fewer_processors() {
    let server = server("worker_threads = \"auto\"");
    let processors = std::thread::available_parallelism().unwrap().get();
    if processors < 2 {
        return support::skip("with one processor there are no fewer");
    }
    let loops = || fs::read_dir(format!("/proc/{}/task", server.worker())).unwrap().count();
    eventually("all loops run", || loops() >= processors);
    let all = rustix::thread::sched_getaffinity(None).unwrap();
    let mut one = rustix::thread::CpuSet::new();
    one.set((0..rustix::thread::CpuSet::MAX_CPU).find(|number| all.is_set(*number)).unwrap());
    rustix::thread::sched_setaffinity(Pid::from_raw(server.pid().cast_signed()), &one).unwrap();
    let before = server.worker();
    kill(before);
    eventually("another worker", || server.get("/ok").text() != before.to_string());
    eventually("as many loops", || loops() >= processors);
    for _ in 0..20 {
        server.get("/ok").expect(200);
    }
    // A reload sees what there is now.
    assert_eq!(server.ask(&["-s", "reload"]).code, Some(0));
    let said = server.ask(&["-s", "reload"]).stdout;
    assert!(said.contains("nothing has changed"), "{said}");
}

#[test]
fn a_module_that_was_replaced_is_told_of_when_a_dead_worker_is() {
    let (file, folder) = (build::module("gate"), Folder::new());
    fs::copy(&file, folder.path("libgate.so")).unwrap();
    let config = "worker_threads = 1\nmodule = [{ name = \"gate\", path = \"libgate.so\" }, { name = \"return\" }]\n\
         error_log = { level = \"notice\" }\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n\
         return = { code = 200, text = \"$pid\" }\n";
    let server = Server::start_in(folder, config);
    let replaced = || {
        let before = server.worker();
        kill(before);
        eventually("another worker", || server.get("/").text() != before.to_string());
        server.stderr(|log| log.contains(&format!("worker {before} of generation ")))
    };
    assert!(!replaced().contains("has loaded another"));
    // Another file of this name: what was loaded is there still.
    server.folder.write("new.so", b"not a module");
    fs::rename(server.folder.path("new.so"), server.folder.path("libgate.so")).unwrap();
    assert!(!replaced().contains("has loaded another"));
    fs::remove_file(server.folder.path("libgate.so")).unwrap();
    assert!(!replaced().contains("has loaded another"));
    // And with a reload it counts again.
    let answer = server.ask(&["-s", "reload"]);
    assert!(answer.code == Some(1) && answer.stderr.contains("module \"gate\": there is no such file"), "{answer:#?}");
    fs::copy(&file, server.folder.path("libgate.so")).unwrap();
    assert_eq!(server.ask(&["-s", "reload"]).code, Some(0));
    eventually("the old one has ended", || server.workers().len() == 1);
    // One that was written into, as far as its times say.
    let written = fs::File::options().write(true).open(server.folder.path("libgate.so")).unwrap();
    written.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    replaced();
    let log = server.stderr(|log| log.contains("/libgate.so than the generation 3 that it belongs to"));
    assert!(
        log.contains(&format!("[warn] {}#0: worker {} has loaded another ", server.pid(), server.worker())),
        "{log}"
    );
}

#[test]
fn a_dead_worker_is_replaced_whatever_has_become_of_folders_and_logs() {
    let folder = Folder::with(&[("site/a.txt", b"a"), ("logs/none", b"")]);
    let config = "worker_threads = 1\nmodule = [{ name = \"return\" }]\n\
         error_log = [{ path = \"stderr\", level = \"notice\" }, { path = \"logs/error.log\" }]\n\
         [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nroot = \"site\"\naccess_log = { path = \"logs/access.log\" }\n\
         return = { code = 200, text = \"$pid\" }\n";
    let server = Server::start_in(folder, config);
    for folder in ["logs", "site"] {
        fs::remove_dir_all(server.folder.path(folder)).unwrap();
    }
    let before = server.worker();
    kill(before);
    eventually("another worker", || server.get("/").text() != before.to_string());
    let text = "[alert] ";
    let log = server.stderr(|log| log.matches("gone since the configuration was read: plugins.toml:").count() == 3);
    assert!(log.lines().filter(|line| line.contains("gone since")).all(|line| line.contains(text)), "{log}");
    assert!(log.contains(": root: found ") && log.contains(": access_log: found "), "{log}");
    // The log is opened when it can be.
    server.folder.write("logs/none", b"");
    server.get("/again").expect(200);
    eventually("a line is in the log", || {
        fs::read_to_string(server.folder.path("logs/access.log")).is_ok_and(|log| log.contains("GET /again "))
    });
    let answer = server.ask(&["-s", "reload"]);
    assert!(answer.code == Some(1) && answer.stderr.contains("which is not a folder"), "{answer:#?}");
}

#[test]
fn a_worker_that_cannot_start_is_not_tried_again_and_again_at_once() {
    let (file, folder) = (build::module("gate"), Folder::new());
    fs::copy(&file, folder.path("libgate.so")).unwrap();
    let config = "worker_threads = 1\nmodule = [{ name = \"gate\", path = \"libgate.so\" }, { name = \"return\" }]\n\
         [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nreturn = { code = 200, text = \"$pid\" }\n";
    let server = Server::start_in(folder, config);
    let before = server.worker();
    send(before, Signal::STOP);
    // While it runs, which is what the log warns of.
    fs::write(server.folder.path("libgate.so"), b"not a module").unwrap();
    kill(before);
    let log = server.stderr(|log| log.contains("the next one is started in 2 s"));
    assert_eq!(log.matches(", which was to replace another of generation 1, cannot run:").count(), 2, "{log}");
    assert!(log.contains("was overwritten while workers of generation 1 have it mapped"), "{log}");
    fs::copy(&file, server.folder.path("libgate.so")).unwrap();
    server.get("/").expect(200);
}

#[test]
fn workers_that_die_again_and_again_are_replaced_more_slowly() {
    let server = server("");
    for _ in 0..10 {
        let before = server.worker();
        kill(before);
        eventually("another worker", || server.get("/ok").text() != before.to_string());
    }
    kill(server.worker());
    server.stderr(|log| {
        log.contains("[alert] ") && log.contains("workers die too often; the next one is started in 1 s")
    });
    // What is wrong can be mended meanwhile.
    let config = server.folder.read("plugins.toml").replace("text = \"$pid\"", "text = \"mended\"");
    server.folder.write("plugins.toml", config.as_bytes());
    assert_eq!(server.ask(&["-s", "reload"]).code, Some(0));
    assert_eq!(server.get("/ok").expect(200).text(), "mended");
}

#[test]
fn a_loop_that_does_not_turn_is_told_of() {
    let server = server("watchdog_timeout = \"400ms\"");
    server.get("/sleep").expect(200);
    let log = server.stderr(|log| log.contains("turns again"));
    let pid = server.worker();
    let line = log.lines().find(|line| line.contains("has not turned")).unwrap();
    assert!(line.contains("[alert] ") && line.contains(&format!("worker {pid}: loop 0 has not turned for ")), "{line}");
    assert!(line.contains("; it is in module crash 0.1.0, hook content, *"), "{line}");
    assert!(line.ends_with(", request: \"GET /sleep HTTP/1.1\""), "{line}");
}

#[test]
fn workers_end_with_their_master() {
    let server = server("");
    let worker = server.worker();
    let mut idle = server.connect();
    idle.send("GET /ok HTTP/1.1\r\nHost: a\r\n\r\n");
    idle.response().expect(200);
    // Its output ends with the worker's.
    assert_eq!(server.stop(Signal::KILL).code, None);
    assert_eq!(idle.end(), Ending::Closed);
    eventually("the worker has ended", || !std::path::Path::new(&format!("/proc/{worker}/exe")).exists());
}
