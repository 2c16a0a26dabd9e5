//! Another program takes over: USR2, WINCH, QUIT, and the way back.

mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use support::{Client, Folder, Server, eventually};

const SITE: &str = "worker_threads = 2\nmodule = [{ name = \"return\" }]\nerror_log = { level = \"notice\" }\n\
                    [[http.server]]\nlisten = [\"127.0.0.1:PORT\", \"unix:a.sock\"]\nreturn = { code = 200, text = \"$pid\" }\n";

fn pid_in(folder: &Folder, name: &str) -> Option<u32> {
    fs::read_to_string(folder.path(name)).ok()?.trim().parse().ok()
}

/// Has a new master started, and waits until it serves: its process.
fn upgrade(server: &Server) -> u32 {
    let before = server.stderr(|_| true).matches("the new master serves").count();
    server.signal(Signal::USR2);
    server.stderr(|log| log.matches("the new master serves").count() > before);
    assert_eq!(pid_in(&server.folder, "topnext.pid.oldbin"), Some(server.pid()));
    let new = pid_in(&server.folder, "topnext.pid").unwrap();
    assert_ne!(new, server.pid());
    new
}

/// Ends with the test, however that ends.
struct Guard(std::process::Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

#[test]
fn a_new_master_takes_over_and_no_request_is_lost() {
    let mut server = Server::start(SITE);
    let address = server.address();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|number| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut answers = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let mut client = Client::connect(address);
                        let close = if number < 2 { "Connection: close\r\n" } else { "" };
                        loop {
                            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{close}\r\n"));
                            let response = client.response().expect(200);
                            answers += 1;
                            let is_last = response.field("Connection") == Some("close");
                            if is_last || stop.load(Ordering::Relaxed) {
                                break;
                            }
                        }
                    }
                    answers
                })
            })
            .collect();
        let old_worker = server.worker();
        let new = upgrade(&server);
        server.signal(Signal::WINCH);
        eventually("the old worker has ended", || !server.workers().contains(&old_worker));
        assert_eq!(server.end_alone(Signal::QUIT), Some(0));
        assert!(
            !server.folder.path("topnext.pid.oldbin").exists() && !server.folder.path("topnext.sock.oldbin").exists()
        );
        // The new one is the server by now: it reloads, and its socket file is there.
        assert_eq!(server.ask(&["-s", "reload"]).code, Some(0));
        assert_eq!(pid_in(&server.folder, "topnext.pid"), Some(new));
        let mut unix = Client::unix(&server.folder.path("a.sock"));
        unix.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        unix.response().expect(200);
        stop.store(true, Ordering::Relaxed);
        let answers: u64 = clients.into_iter().map(|client| client.join().expect("no request is lost")).sum();
        assert!(answers > 0);
    });
    assert_eq!(server.ask(&["-s", "quit"]).code, Some(0));
    assert!(!server.folder.path("topnext.pid").exists() && !server.folder.path("a.sock").exists());
}

#[test]
fn the_way_back() {
    let server = Server::start(SITE);
    let old_worker = server.worker();
    upgrade(&server);
    server.signal(Signal::WINCH);
    eventually("the old worker has ended", || !server.workers().contains(&old_worker));
    // What is in the file does not matter: the old one goes on with what it had.
    server.folder.write("plugins.toml", b"broken");
    server.signal(Signal::HUP);
    server.stderr(|log| log.contains("generation 2 serves"));
    let answer = server.ask(&["-s", "quit"]);
    assert_eq!(answer.code, Some(0), "{answer:#?}");
    eventually("it has its names back", || pid_in(&server.folder, "topnext.pid") == Some(server.pid()));
    assert!(server.folder.path("a.sock").exists(), "its socket file is not the new one's to remove");
    for _ in 0..20 {
        assert_eq!(server.get("/").expect(200).text(), server.worker().to_string());
    }
    assert_eq!(server.ask(&["status"]).code, Some(0));
}

#[test]
fn what_is_in_flight_is_finished_though_the_end_comes_right_behind_winch() {
    let file = support::files::noise(4 << 20);
    let site = "worker_threads = 1\nmodule = [{ name = \"static\" }]\nerror_log = { level = \"notice\" }\n\
                [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nroot = \"html\"\n";
    let mut server = Server::with(&[("html/large", &file)], site);
    let mut slow = Client::slow(server.address());
    slow.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    slow.head().unwrap();
    let worker = rustix::process::Pid::from_raw(server.worker().cast_signed()).unwrap();
    upgrade(&server);
    // The worker is busy, and answers neither.
    rustix::process::kill_process(worker, Signal::STOP).unwrap();
    server.signal(Signal::WINCH);
    server.stderr(|log| log.contains("shutting the workers down"));
    server.signal(Signal::QUIT);
    server.stderr(|log| log.contains("SIGQUIT received"));
    rustix::process::kill_process(worker, Signal::CONT).unwrap();
    assert_eq!(slow.take(file.len()).unwrap(), file);
    drop(slow);
    assert_eq!(server.ended(), Some(0));
    assert_eq!(server.ask(&["-s", "quit"]).code, Some(0));
}

#[test]
fn a_new_master_that_ends_has_the_old_one_serve_again() {
    for signal in [Signal::QUIT, Signal::KILL] {
        let server = Server::start(SITE);
        let old_worker = server.worker();
        let new = upgrade(&server);
        server.signal(Signal::WINCH);
        eventually("the old worker has ended", || !server.workers().contains(&old_worker));
        server.folder.write("plugins.toml", b"broken");
        rustix::process::kill_process(rustix::process::Pid::from_raw(new.cast_signed()).unwrap(), signal).unwrap();
        server.stderr(|log| log.contains("this one goes on") && log.contains("generation 2 serves"));
        eventually("it has its names back", || pid_in(&server.folder, "topnext.pid") == Some(server.pid()));
        assert_eq!(server.get("/").expect(200).text(), server.worker().to_string());
    }
}

#[test]
fn the_way_back_takes_the_old_configuration_though_a_worker_is_busy() {
    let file = support::files::noise(4 << 20);
    let site = "worker_threads = 1\nmodule = [{ name = \"static\" }, { name = \"headers\" }]\nerror_log = { level = \"notice\" }\n\
                [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nroot = \"html\"\n\
                headers.add_header = [{ name = \"X-G\", value = \"old\" }]\n";
    let server = Server::with(&[("html/large", &file), ("html/a", b"a")], site);
    let mut slow = Client::slow(server.address());
    slow.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    slow.head().unwrap();
    let new = site.replace("\"old\"", "\"new\"").replace("PORT", &server.port.to_string());
    server.folder.write("plugins.toml", new.as_bytes());
    upgrade(&server);
    assert_eq!(server.ask(&["status"]).code, Some(0));
    server.signal(Signal::WINCH);
    server.stderr(|log| log.contains("gracefully shutting down"));
    server.signal(Signal::HUP);
    server.stderr(|log| log.contains("generation 2 serves"));
    assert_eq!(server.ask(&["-s", "quit"]).code, Some(0));
    eventually("it has its names back", || pid_in(&server.folder, "topnext.pid") == Some(server.pid()));
    assert_eq!(server.get("/a").expect(200).field("X-G"), Some("old"));
    assert_eq!(slow.take(file.len()).unwrap(), file);
}

#[test]
fn a_master_whose_workers_were_dismissed_replaces_none() {
    let mut server = Server::start(SITE);
    let kill = |pid: u32| {
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL)
            .unwrap();
    };
    let mut worker = server.worker();
    for _ in 0..10 {
        kill(worker);
        let before = worker;
        eventually("another worker", || {
            let workers = server.workers();
            worker = *workers.first().unwrap_or(&before);
            workers.len() == 1 && worker != before
        });
    }
    kill(worker);
    server.stderr(|log| log.contains("the next one is started in 1 s"));
    let new = upgrade(&server);
    server.signal(Signal::WINCH);
    server.stderr(|log| log.contains("shutting the workers down"));
    // Until its time is over.
    let since = std::time::Instant::now();
    while since.elapsed() < std::time::Duration::from_millis(1300) {
        assert_eq!(server.workers(), [new]);
        server.get("/").expect(200);
    }
    assert_eq!(server.end_alone(Signal::QUIT), Some(0));
    assert_eq!(server.ask(&["-s", "quit"]).code, Some(0));
}

#[test]
fn a_new_master_that_cannot_serve_changes_nothing() {
    let server = Server::start(SITE);
    server.folder.write("plugins.toml", b"[[http.server]]\nlisten = 1\n");
    server.signal(Signal::USR2);
    server.stderr(|log| log.contains("this one goes on"));
    let log = server.stderr(|log| log.contains("the new master cannot serve: plugins.toml:2:"));
    assert!(log.contains("[error] "), "{log}");
    eventually("it has its names back", || pid_in(&server.folder, "topnext.pid") == Some(server.pid()));
    assert!(server.folder.path("topnext.sock").exists() && server.folder.path("a.sock").exists());
    server.get("/").expect(200);
}

#[test]
fn a_program_that_is_no_server_changes_nothing() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    // Where the new one will be looked for.
    let program = folder.path("topnext");
    fs::copy(support::files::binary(), &program).unwrap();
    let modules = support::files::binary().parent().unwrap();
    let port = support::server::free_port();
    let site = format!("module_path = [{modules:?}]\n{}", SITE.replace("PORT", &port.number.to_string()));
    folder.write("plugins.toml", site.replace("error_log = {", "error_log = { path = \"e.log\",").as_bytes());
    let mut child = Guard(support::server::command_of(&program, &folder, &[]).spawn().unwrap());
    let pid = child.0.id();
    eventually("it serves", || folder.path("e.log").exists() && folder.read("e.log").contains("generation 1 serves"));
    let replace = |text: &str| {
        folder.write("new", text.as_bytes());
        fs::set_permissions(folder.path("new"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(folder.path("new"), &program).unwrap();
        let master = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(master, Signal::USR2).unwrap();
    };
    let ask = |question: &str| support::server::answer(support::command(&folder, &["-s", question]));
    let logged = |text: &str| eventually(text, || folder.read("e.log").contains(text));
    // It ends at once: before or after it has been told all.
    replace("#!/bin/sh\nexit 3\n");
    logged("exited with code 3");
    eventually("its names", || pid_in(&folder, "topnext.pid") == Some(pid));
    assert_eq!(ask("reload").code, Some(0));
    // It does not say anything.
    const STARTED: &str = "a new master is started, process ";
    let before = folder.read("e.log").matches(STARTED).count();
    replace("#!/bin/sh\nexec sleep 60\n");
    eventually("it is started", || folder.read("e.log").matches(STARTED).count() > before);
    let answer = ask("reload");
    assert!(
        answer.code == Some(1) && answer.stderr.contains("an upgrade is under way, and the new master does not answer")
    );
    let log = folder.read("e.log");
    let new = log.rsplit(STARTED).next().unwrap().lines().next().unwrap().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(new).unwrap(), Signal::KILL).unwrap();
    logged("the new master exited on signal 9 (SIGKILL); this one goes on");
    assert!(!folder.read("e.log").contains("the old master is gone"));
    assert_eq!(ask("stop").code, Some(0));
    assert!(child.0.wait().unwrap().success());
}

#[test]
fn a_terminal_whose_size_changes_ends_no_worker() {
    let folder = Folder::new();
    let port = support::server::free_port();
    let site =
        SITE.replace("PORT", &port.number.to_string()).replace("error_log = {", "error_log = { path = \"e.log\",");
    folder.write("plugins.toml", site.as_bytes());
    support::files::modules();
    // In the foreground of a terminal of its own, with a shell that changes the size on demand.
    let shell = format!(
        "trap 'kill $!; exit' HUP; {:?} & while [ ! -e go ]; do sleep 0.02; done; stty cols 77; wait",
        support::files::binary().to_str().unwrap()
    );
    let mut command = std::process::Command::new("script");
    command
        .args(["-q", "-e", "-c", &shell, "/dev/null"])
        .current_dir(folder.path(""))
        .stdin(std::process::Stdio::null());
    let mut terminal = match command.stdout(std::process::Stdio::null()).spawn() {
        Ok(terminal) => Guard(terminal),
        Err(error) => return support::skip(&format!("script (of bsdutils): {error}")),
    };
    let logged = |text: &str| eventually(text, || folder.read("e.log").contains(text));
    logged("generation 1 serves");
    folder.write("go", b"");
    logged("SIGWINCH received, ignored");
    // Somebody who means it.
    let master = pid_in(&folder, "topnext.pid").unwrap();
    let pid = rustix::process::Pid::from_raw(master.cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::WINCH).unwrap();
    logged(&format!("SIGWINCH received from process {}, shutting the workers down", std::process::id()));
    logged("of generation 1 has finished");
    let answer = support::server::answer(support::command(&folder, &["-s", "stop"]));
    assert_eq!(answer.code, Some(0), "{answer:#?}");
    assert!(terminal.0.wait().unwrap().success());
}

#[test]
fn a_socket_file_is_there_as_long_as_one_of_the_masters_has_it() {
    let write = |server: &Server, unix: &[&str]| {
        let site = SITE.replace("PORT", &server.port.to_string());
        let listen: String = unix.iter().map(|name| format!(", \"unix:{name}\"")).collect();
        server.folder.write("plugins.toml", site.replace(", \"unix:a.sock\"", &listen).as_bytes());
    };
    let reload_new = |server: &Server, unix: &[&str]| {
        write(server, unix);
        server.ask(&["-s", "reload"])
    };
    let reload_old = |server: &Server, unix: &[&str]| {
        write(server, unix);
        server.signal(Signal::HUP);
        server.stderr(|log| log.contains("generation 2 serves"));
    };
    let serves = |server: &Server, name: &str| {
        let mut unix = Client::unix(&server.folder.path(name));
        unix.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        unix.response().expect(200);
    };
    let is_there = |server: &Server, name: &str| server.folder.path(name).exists();
    // The new one gives it up, and cannot have it while the old one listens; the end of the old one takes it away.
    let mut server = Server::start(SITE);
    upgrade(&server);
    assert_eq!(reload_new(&server, &["b.sock"]).code, Some(0));
    serves(&server, "a.sock");
    let answer = reload_new(&server, &["a.sock", "b.sock"]);
    assert!(answer.code == Some(1) && answer.stderr.contains("another process listens on this socket"), "{answer:#?}");
    assert_eq!(server.end_alone(Signal::QUIT), Some(0));
    assert!(!is_there(&server, "a.sock"));
    serves(&server, "b.sock");
    assert_eq!(reload_new(&server, &["a.sock"]).code, Some(0));
    serves(&server, "a.sock");
    assert!(!is_there(&server, "b.sock"));
    assert_eq!(server.ask(&["-s", "quit"]).code, Some(0));
    assert!(!is_there(&server, "a.sock"));
    // The old one has another one meanwhile, and ends.
    let mut server = Server::start(SITE);
    upgrade(&server);
    reload_old(&server, &["a.sock", "c.sock"]);
    serves(&server, "c.sock");
    assert_eq!(server.end_alone(Signal::QUIT), Some(0));
    assert!(!is_there(&server, "c.sock"));
    serves(&server, "a.sock");
    assert_eq!(server.ask(&["-s", "quit"]).code, Some(0));
    // The new one gives one up and has another one, and ends.
    let server = Server::start(SITE);
    upgrade(&server);
    assert_eq!(reload_new(&server, &["b.sock"]).code, Some(0));
    assert_eq!(server.ask(&["-s", "quit"]).code, Some(0));
    assert!(!is_there(&server, "b.sock"));
    serves(&server, "a.sock");
    // The old one gives it up, and the new one ends.
    let server = Server::start(SITE);
    upgrade(&server);
    reload_old(&server, &[]);
    serves(&server, "a.sock");
    assert_eq!(server.ask(&["-s", "quit"]).code, Some(0));
    assert!(!is_there(&server, "a.sock"));
}
