//! Commands to a running server, and what is wrong with some: `topnext -s`, `topnext status`, pid file and control socket.

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};

use support::{Client, Ending, Folder, Server, eventually};

const SITE: &str = "worker_threads = 1\nmodule = [{ name = \"return\" }, { name = \"static\" }]\nerror_log = { level = \"notice\" }\n\
                    [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nroot = \".\"\n\
                    [[http.server.location]]\npath = \"/ok\"\nreturn = { code = 200, text = \"ok\" }\n";

#[test]
fn quit_finishes_requests_and_returns_when_all_is_over() {
    let file = support::files::noise(4 << 20);
    let mut server = Server::with(&[("large", &file)], SITE);
    let mut slow = Client::slow(server.address());
    slow.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    slow.head().unwrap();
    std::thread::scope(|scope| {
        let quit = scope.spawn(|| server.ask(&["-s", "quit"]));
        eventually("nobody is let in any more", || std::net::TcpStream::connect(server.address()).is_err());
        assert!(server.folder.path("topnext.pid").exists() && !quit.is_finished());
        assert_eq!(slow.take(file.len()).unwrap(), file);
        assert_eq!(slow.end(), Ending::Closed);
        let answer = quit.join().unwrap();
        assert_eq!(answer.code, Some(0), "{answer:#?}");
    });
    assert!(!server.folder.path("topnext.pid").exists() && !server.folder.path("topnext.sock").exists());
    assert_eq!(server.ended(), Some(0));
}

#[test]
fn status_of_workers_and_modules() {
    let server = Server::start(&format!("worker_processes = 2\nmodule_accounting = \"all\"\n{SITE}"));
    for _ in 0..20 {
        server.get("/ok").expect(200);
        server.get("/none").expect(404);
    }
    let answer = server.ask(&["status", "--json"]);
    assert_eq!(answer.code, Some(0), "{answer:#?}");
    let status: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(status["pid"], server.pid());
    let generation = &status["generations"][0];
    assert_eq!((&generation["number"], &generation["state"]), (&1.into(), &"serving".into()));
    let workers = generation["workers"].as_array().unwrap();
    let pids: Vec<u64> = workers.iter().map(|worker| worker["pid"].as_u64().unwrap()).collect();
    assert!(pids.len() == 2 && pids.iter().all(|pid| server.workers().contains(&(*pid as u32))), "{pids:?}");
    let sum = |key: &str| workers.iter().map(|worker| worker[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("requests"), sum("accepted"), sum("running")), (40, 40, 0));
    let hooks = |name: &str, hook: &str, key: &str| {
        let modules = workers.iter().flat_map(|worker| worker["modules"].as_array().unwrap());
        let hooks =
            modules.filter(|module| module["name"] == name).flat_map(|module| module["hooks"].as_array().unwrap());
        hooks.filter(|of| of["hook"] == hook).map(|of| of[key].as_f64().unwrap()).sum::<f64>()
    };
    assert_eq!((hooks("return", "handler", "calls"), hooks("return", "handler", "timed")), (20.0, 20.0));
    // One more, if a path had to be looked up by the thread pool.
    assert!(hooks("static", "handler", "calls") >= 20.0);
    assert_eq!(hooks("return", "handler", "errors"), 0.0);
    assert!(hooks("return", "handler", "total_us") > 0.0);
    let table = server.ask(&["status"]).stdout;
    assert!(table.contains("generation 1, serving\n") && table.contains("    return  handler"), "{table}");
}

#[test]
fn module_accounting_off() {
    let server = Server::start(&format!("module_accounting = \"off\"\n{SITE}"));
    server.get("/ok").expect(200);
    let text = server.ask(&["status", "--json"]).stdout;
    assert!(text.contains("\"requests\":1,") && !text.contains("\"hook\":\"handler\""), "{text}");
    assert!(text.contains("\"accounting\":\"off\""), "{text}");
    let table = server.ask(&["status"]).stdout;
    assert!(table.contains("    modules are not counted (module_accounting = \"off\")\n"), "{table}");
}

#[test]
fn status_of_a_slot_without_a_worker() {
    use rustix::process::{Pid, Signal, kill_process};
    let server = Server::start(SITE);
    // Dead so often that the next one is not started at once.
    let eventually_without = |words: &[&str], text: &str| {
        eventually(text, || {
            for pid in server.workers() {
                let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
            }
            server.ask(words).stdout.contains(text)
        });
    };
    eventually_without(&["status"], "generation 1, serving\n  no worker, slot 0");
    eventually_without(&["status", "--json"], "\"missing\":[{\"slot\":0,\"next_in\":");
    // Another one accepts meanwhile.
    let server = Server::start(&format!("worker_processes = 2\n{SITE}"));
    let stays = server.workers()[0];
    let text = format!(" s; worker {stays} stands in for it\n");
    eventually(&text, || {
        for pid in server.workers().into_iter().filter(|pid| *pid != stays) {
            let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
        }
        let said = server.ask(&["status"]).stdout;
        said.contains(", the next one starts in ") && said.contains(&text)
    });
}

#[test]
fn status_in_an_upgrade_and_at_the_end() {
    use rustix::process::Signal;
    let file = support::files::noise(16 << 20);
    let mut server = Server::with(&[("large", &file)], SITE);
    let mut slow = Client::slow(server.address());
    slow.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    slow.head().unwrap();
    server.signal(Signal::USR2);
    let text = format!("an upgrade is under way, with another master, pid {}\n", server.pid());
    eventually("the new one", || server.ask(&["status"]).stdout.contains(&text));
    let new: u32 = server.folder.read("topnext.pid").trim().parse().unwrap();
    // The old one, by its socket's other name.
    let ask_old = || {
        let mut stream = UnixStream::connect(server.folder.path("topnext.sock.oldbin")).unwrap();
        stream.write_all(b"status\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.replace('\\', "")
    };
    let has_state = |state: &str| ask_old().contains(&format!("\"state\":\"{state}\""));
    assert!(has_state("serving") && ask_old().contains(&format!("\"other_master\":{new}")));
    server.signal(Signal::WINCH);
    eventually("dismissed", || has_state("dismissed"));
    server.signal(Signal::QUIT);
    eventually("ending", || has_state("ending"));
    drop(slow);
    assert_eq!(server.end_alone(Signal::TERM), Some(0));
    assert_eq!(server.ask(&["-s", "stop"]).code, Some(0));
}

#[test]
fn a_second_server_in_the_same_place() {
    let server = Server::start(SITE);
    let answer = server.ask(&[]);
    assert_eq!(answer.code, Some(1));
    let prefix = server.folder.path("").canonicalize().unwrap();
    let text = format!(
        "topnext.sock: another process listens on this socket; end the other server with `topnext -p {} -s quit`, or ",
        prefix.display()
    );
    assert!(answer.stderr.contains(&text), "{answer:#?}");
    // With a prefix of its own, and the same pid file.
    let other = Folder::new();
    let pid = server.folder.path("topnext.pid");
    let port = support::server::free_port();
    let config = format!("pid = {pid:?}\nmodule = []\n[[http.server]]\nlisten = [\"127.0.0.1:{}\"]\n", port.number);
    other.write("plugins.toml", config.as_bytes());
    let answer = support::server::answer(support::command(&other, &[]));
    assert_eq!(answer.code, Some(1));
    let text = format!("process {0}; end it with `kill -QUIT {0}`, or ", server.pid());
    assert!(
        answer.stderr.contains("topnext: another topnext runs, with the pid file ") && answer.stderr.contains(&text),
        "{answer:#?}"
    );
    assert_eq!(fs::read_to_string(pid).unwrap().trim(), server.pid().to_string());
    server.get("/ok").expect(200);
}

#[test]
fn what_was_left_behind_is_taken_over() {
    let folder = Folder::new();
    folder.write("topnext.pid", b"1\n");
    drop(UnixListener::bind(folder.path("topnext.sock")).unwrap());
    let answer = support::server::answer(support::command(&folder, &["-s", "reload", "-p", "."]));
    assert!(
        answer.code == Some(1) && answer.stderr.contains("it was left behind, nobody listens on it"),
        "{answer:#?}"
    );
    let server = Server::start_in(folder, SITE);
    assert_eq!(fs::read_to_string(server.folder.path("topnext.pid")).unwrap().trim(), server.pid().to_string());
    assert_eq!(server.ask(&["-s", "reopen"]).code, Some(0));
}

#[test]
fn nobody_runs() {
    let folder = Folder::new();
    let answer = support::server::answer(support::command(&folder, &["-s", "stop"]));
    assert_eq!(answer.code, Some(1));
    assert!(answer.stderr.starts_with("topnext: no topnext runs with the prefix "), "{answer:#?}");
}

#[test]
fn clients_that_send_junk_or_nothing_cost_nobody_anything() {
    let server = Server::start(SITE);
    let path = server.folder.path("topnext.sock");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let ask = |text: &[u8]| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(text).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(
        ask(b"dance\n").contains("{\"ok\":false,\"text\":\"topnext: found \\\"dance\\\", expected reload, reopen, ")
    );
    assert!(ask(&[b'x'; 300]).contains("the question is too long"));
    // More than is read before the answer.
    assert!(ask(&[b'x'; 500_000]).contains("the question is too long"));
    assert!(ask(b"reload\nquit\n").contains("there is more behind the question; ask one for each connection"));
    assert!(ask(b"\xff\xfe\n").contains("\"ok\":false"));
    let silent: Vec<UnixStream> = (0..40).map(|_| UnixStream::connect(&path).unwrap()).collect();
    // One that asks and does not wait.
    UnixStream::connect(&path).unwrap().write_all(b"reload\n").unwrap();
    server.stderr(|log| log.contains("generation 2 serves"));
    assert_eq!(server.ask(&["-s", "reload"]).code, Some(0));
    server.get("/ok").expect(200);
    drop(silent);
}

#[test]
fn one_client_more_than_there_may_be() {
    let server = Server::start(SITE);
    let path = server.folder.path("topnext.sock");
    let silent: Vec<UnixStream> = (0..64).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let text = "topnext: more than 64 clients of the control socket; ask again when some have their answers";
    for _ in 0..20 {
        let answer = server.ask(&["-s", "reopen"]);
        assert_eq!((answer.code, answer.stderr.trim_end()), (Some(1), text));
    }
    // One that writes too late.
    let mut late = UnixStream::connect(&path).unwrap();
    eventually("it is closed", || late.write_all(b"reload\n").is_err());
    let mut answer = Vec::new();
    let _ = late.read_to_end(&mut answer);
    assert!(String::from_utf8(answer).unwrap().contains(text));
    drop(silent);
    eventually("there is room", || server.ask(&["-s", "reopen"]).code == Some(0));
}

#[test]
fn clients_that_come_while_descriptors_are_short_are_not_forgotten() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let server = Server::start(SITE);
    let pid = Pid::from_raw(server.pid().cast_signed());
    let limit = |current| prlimit(pid, Resource::Nofile, current).unwrap();
    let before = limit(Rlimit { current: Some(3), maximum: rustix::process::getrlimit(Resource::Nofile).maximum });
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| server.ask(&["status"]));
        server.stderr(|log| log.contains("[crit] ") && log.contains("accept() on the control socket failed (24: "));
        limit(before);
        assert_eq!(answer.join().unwrap().code, Some(0));
    });
}

#[test]
fn a_master_that_is_stopped() {
    use rustix::process::Signal;
    let server = Server::start(SITE);
    server.signal(Signal::STOP);
    std::thread::scope(|scope| {
        let asked = [&["status"][..], &["-s", "reload"]].map(|words| scope.spawn(|| server.ask(words)));
        let answers = asked.map(|asked| asked.join().unwrap());
        server.signal(Signal::CONT);
        let text = format!(
            "topnext: the master, process {}, has not answered within 10 s; it may be stopped or stuck\n",
            server.pid()
        );
        for answer in answers {
            assert_eq!((answer.code, answer.stderr), (Some(1), text.clone()));
        }
    });
}

#[test]
fn a_control_socket_that_has_vanished() {
    let server = Server::start(SITE);
    fs::remove_file(server.folder.path("topnext.sock")).unwrap();
    let answer = server.ask(&["-s", "reload"]);
    let text = format!(
        "topnext: the control socket DIR/topnext.sock is not there, but its server runs: process {0}, as DIR/topnext.pid says; \
         `kill -HUP {0}` has it make the socket again, and reload\n",
        server.pid()
    );
    assert_eq!((answer.code, server.folder.hide(&answer.stderr)), (Some(1), text));
    server.signal(rustix::process::Signal::HUP);
    server.stderr(|log| log.contains("generation 2 serves"));
    server.stderr(|log| log.contains("[warn] ") && log.contains("topnext.sock has vanished, it is made again"));
    assert_eq!(server.ask(&["-s", "reload"]).code, Some(0));
    let mut server = server;
    assert_eq!(server.ask(&["-s", "quit"]).code, Some(0));
    assert_eq!(server.ended(), Some(0));
    assert!(!server.folder.path("topnext.sock").exists());
}

#[test]
fn files_that_have_vanished_in_an_upgrade() {
    for names in [&["topnext.pid"][..], &["topnext.sock"], &["topnext.pid", "topnext.sock"]] {
        vanished_in_an_upgrade(names);
    }
}

fn vanished_in_an_upgrade(names: &[&str]) {
    use rustix::process::{Pid, Signal, kill_process};
    let server = Server::start(SITE);
    let pid_file = || server.folder.read("topnext.pid").trim().parse::<u32>().unwrap_or_default();
    server.signal(Signal::USR2);
    eventually("the new one", || ![0, server.pid()].contains(&pid_file()) && server.ask(&["status"]).code == Some(0));
    let old = |name: &&str| format!("{name}.oldbin");
    names.iter().for_each(|name| fs::remove_file(server.folder.path(&old(name))).unwrap());
    kill_process(Pid::from_raw(pid_file().cast_signed()).unwrap(), Signal::QUIT).unwrap();
    server.stderr(|log| log.contains("; this one goes on") && log.contains(&format!("{} to ", old(&names[0]))));
    server.signal(Signal::HUP);
    server
        .stderr(|log| names.iter().all(|name| log.contains(&format!("{} has vanished, it is made again", old(name)))));
    eventually("its own", || pid_file() == server.pid());
    assert_eq!(server.ask(&["-s", "reload"]).code, Some(0));
    let left =
        fs::read_dir(server.folder.path("")).unwrap().filter_map(|file| file.unwrap().file_name().into_string().ok());
    assert!(!left.collect::<Vec<_>>().join(" ").contains("oldbin"));
}

#[test]
fn what_is_in_the_way_of_the_control_socket() {
    let folder = Folder::with(&[("topnext.sock", b"x")]);
    folder.write("plugins.toml", SITE.replace("PORT", "1").as_bytes());
    let answer = support::server::answer(support::command(&folder, &[]));
    let text =
        "topnext.sock: there is a file that is not a socket; remove it, or give this server another prefix with -p\n";
    assert!(answer.code == Some(1) && answer.stderr.ends_with(text), "{answer:#?}");
    let folder = Folder::with(&[("a b/x", b"")]);
    let _other = UnixListener::bind(folder.path("a b/topnext.sock")).unwrap();
    folder.write("a b/plugins.toml", SITE.replace("PORT", "1").as_bytes());
    let answer = support::server::answer(support::command(&folder, &["-c", "a b/plugins.toml"]));
    assert!(folder.hide(&answer.stderr).contains("with `topnext -p 'DIR/a b' -s quit`, or "), "{answer:#?}");
}

#[test]
fn without_a_master() {
    use rustix::process::Signal;
    let file = support::files::noise(16 << 20);
    let site = format!("master_process = false\nworker_shutdown_timeout = \"1s\"\n{SITE}");
    let mut server = Server::with(&[("large", &file)], &site);
    for words in [&["status"][..], &["-s", "stop"]] {
        let answer = server.ask(words);
        let text = "plugins.toml says master_process = false: such a server has neither control socket nor pid file; send it signals\n";
        assert!(answer.code == Some(1) && answer.stderr.ends_with(text), "{answer:#?}");
    }
    let mut slow = Client::slow(server.address());
    slow.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    slow.head().unwrap();
    server.signal(Signal::QUIT);
    server.stderr(|log| log.contains(", gracefully shutting down"));
    server.signal(Signal::QUIT);
    server.stderr(|log| log.contains(", ignored, since it is shutting down already"));
    server.stderr(|log| log.contains("[warn] ") && log.contains("worker_shutdown_timeout has passed"));
    assert_eq!(server.ended(), Some(0));
}

#[test]
fn other_users_may_not_ask() {
    use std::os::unix::process::CommandExt as _;
    if !rustix::process::geteuid().is_root() {
        return support::skip("only root can ask as another user");
    }
    // With a program that the other may run.
    let (folder, _) = Folder::for_workers();
    let server = Server::start_in(folder, SITE);
    let program = server.folder.path("program");
    // By another process: what is open for writing here, a test that starts one inherits, and it cannot be run.
    let copied = std::process::Command::new("cp").args([support::files::binary(), &program]).status().unwrap();
    assert!(copied.success());
    let ask = || {
        let mut command = support::server::command_of(&program, &server.folder, &["-s", "stop", "-p", "."]);
        support::server::answer({
            command.uid(65534);
            command
        })
    };
    let answer = ask();
    assert!(
        answer.code == Some(1)
            && answer.stderr.contains("is not for this user (13: Permission denied); ask as the user"),
        "{answer:#?}"
    );
    // Should the file let it in, the server does not.
    fs::set_permissions(server.folder.path("topnext.sock"), fs::Permissions::from_mode(0o666)).unwrap();
    let answer = ask();
    assert!(
        answer.code == Some(1) && answer.stderr == "topnext: user 65534 may not; ask as user 0 or root\n",
        "{answer:#?}"
    );
    server.stderr(|log| log.contains("[warn] ") && log.contains("\"stop\" was refused: user 65534 may not"));
    server.get("/ok").expect(200);
}

#[test]
fn limits_and_the_working_directory_are_the_workers() {
    if rustix::process::geteuid().is_root() {
        let (folder, port) = (Folder::new(), support::server::free_port());
        let site = format!("worker_rlimit_nofile = 4000000000\n{}", SITE.replace("PORT", &port.number.to_string()));
        folder.write("plugins.toml", site.as_bytes());
        let errors = support::server::answer(support::command(&folder, &[])).stderr;
        let text = "plugins.toml:1:24: worker_rlimit_nofile: found 4000000000, expected at most ";
        assert!(errors.starts_with(text) && errors.contains(", which is fs.nr_open"), "{errors}");
    }
    let folder = Folder::with(&[("work/x", b"")]);
    let top = "working_directory = \"work\"\nworker_rlimit_nofile = 512\nworker_rlimit_core = 0\nworker_priority = 5\n";
    let server = Server::start_in(folder, &format!("{top}{SITE}"));
    let of = |pid: u32, name: &str| {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_string();
        line.split_whitespace().next().unwrap().to_string()
    };
    let folder_of = |pid: u32| fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    let (master, worker) = (server.pid(), server.worker());
    assert_eq!((of(worker, "Max open files"), of(worker, "Max core file size")), ("512".to_string(), "0".to_string()));
    assert_ne!(of(master, "Max open files"), "512");
    let nice = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let behind = stat.rsplit(')').next().unwrap();
        behind.split_whitespace().nth(16).unwrap().parse::<i32>().unwrap()
    };
    assert_eq!(nice(worker), 5);
    assert_ne!(nice(master), 5);
    assert_eq!(folder_of(worker), server.folder.path("work"));
    assert_ne!(folder_of(master), folder_of(worker));
    server.get("/ok").expect(200);
    // Relative paths are still those of the prefix.
    assert!(server.folder.path("topnext.pid").exists());
    let errors = Server::fails(&format!("working_directory = \"none\"\n{SITE}"));
    assert!(errors.starts_with("plugins.toml:1:21: working_directory: DIR/none is not a folder"), "{errors}");
}

#[test]
fn sockets_of_systemd_are_taken_over() {
    let folder = Folder::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    folder.write("plugins.toml", SITE.replace("127.0.0.1:PORT", &address.to_string()).as_bytes());
    // As systemd does it: from descriptor 3 on, for this process and no other.
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=x exec \"$0\"";
    let command = || {
        support::files::modules();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]).arg(support::files::binary()).current_dir(folder.path(""));
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command
    };
    let mut child = command().stdin(std::os::fd::OwnedFd::from(listener)).spawn().unwrap();
    // The socket listens already: whoever connects is served once there are workers.
    let get = || {
        let mut client = Client::connect(address);
        client.send("GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.response().expect(200);
    };
    get();
    let ask = |question: &str| support::server::answer(support::command(&folder, &["-s", question]));
    // One that takes part with the same socket keeps it over a reload, which another process could not bind.
    assert_eq!(ask("reload").code, Some(0));
    get();
    let environment = fs::read_to_string(format!("/proc/{}/environ", child.id())).unwrap();
    assert!(environment.contains("LISTEN_FDS=1"));
    let worker = {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
        children.split_whitespace().next_back().unwrap().to_string()
    };
    let environment = fs::read_to_string(format!("/proc/{worker}/environ")).unwrap();
    assert!(!environment.contains("LISTEN_"), "{environment:?}");
    assert_eq!(ask("stop").code, Some(0));
    assert!(child.wait().unwrap().success());
    // The file of a socket is systemd's too: it is there for the next start.
    let path = folder.path("systemd.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    folder.write("plugins.toml", SITE.replace("127.0.0.1:PORT", &format!("unix:{}", path.display())).as_bytes());
    let mut child = command().stdin(std::os::fd::OwnedFd::from(listener.try_clone().unwrap())).spawn().unwrap();
    let get = || {
        let mut client = Client::unix(&path);
        client.send("GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.response().expect(200);
    };
    get();
    let elsewhere = SITE.replace("127.0.0.1:PORT", "unix:other.sock");
    let elsewhere = elsewhere.replace("error_log = {", "error_log = { path = \"systemd.log\",");
    folder.write("plugins.toml", elsewhere.as_bytes());
    assert_eq!(ask("reload").code, Some(0));
    assert!(path.exists(), "a reload without it");
    let warnings = || {
        let text = format!("nothing serves unix:{}, which systemd has opened (LISTEN_FDS)", path.display());
        folder.read("systemd.log").matches(&text).count()
    };
    eventually("the warning", || warnings() == 1);
    assert_eq!(ask("reload").code, Some(0));
    assert_eq!(warnings(), 1, "the addresses are the same");
    folder.write("plugins.toml", elsewhere.replace("other.sock", path.to_str().unwrap()).as_bytes());
    assert_eq!(ask("reload").code, Some(0));
    get();
    assert_eq!(ask("stop").code, Some(0));
    assert!(child.wait().unwrap().success());
    assert!(path.exists() && !folder.path("other.sock").exists());
    // What is no such socket.
    let file = fs::File::open(folder.path("plugins.toml")).unwrap();
    let answer = support::server::answer({
        let mut command = command();
        command.stdin(file);
        command
    });
    let text =
        "topnext: the sockets of systemd cannot be used: descriptor 3 of LISTEN_FDS is no listening stream socket";
    assert!(answer.code == Some(1) && answer.stderr.starts_with(text), "{answer:#?}");
}

#[test]
fn a_prefix_that_is_longer_than_a_socket_path_may_be() {
    let folder = Folder::new();
    let long = folder.path(&format!("{}/{}", "a".repeat(100), "b".repeat(100)));
    fs::create_dir_all(&long).unwrap();
    let port = support::server::free_port();
    let site =
        format!("module = [{{ name = \"return\" }}]\n[[http.server]]\nlisten = [\"127.0.0.1:{}\"]\n", port.number);
    fs::write(long.join("plugins.toml"), site).unwrap();
    let mut command = support::command(&folder, &["-c"]);
    command.arg(long.join("plugins.toml"));
    let mut child = command.spawn().unwrap();
    let ask = |question: &str| {
        let mut command = support::command(&folder, &["-s", question, "-p"]);
        command.arg(&long);
        support::server::answer(command)
    };
    eventually("it answers", || ask("reopen").code == Some(0));
    assert_eq!(ask("stop").code, Some(0));
    assert!(child.wait().unwrap().success());
}

#[test]
fn daemon() {
    let folder = Folder::new();
    let port = support::server::free_port();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port.number));
    let site = |text: &str| {
        format!(
            "daemon = true\nerror_log = \"e.log\"\nmodule = [{{ name = \"return\" }}]\n[[http.server]]\nlisten = [\"{address}\"]\n{text}\n"
        )
    };
    // What is wrong is said in the foreground.
    folder.write("plugins.toml", site("lisen = 1").as_bytes());
    let answer = support::server::answer(support::command(&folder, &[]));
    assert!(
        answer.code == Some(1) && answer.stderr.starts_with("plugins.toml:6:1: http.server.lisen: "),
        "{answer:#?}"
    );
    folder.write("plugins.toml", site("access_log = \"off\"\nreturn = { code = 200, text = \"x\" }").as_bytes());
    let answer = support::server::answer(support::command(&folder, &[]));
    assert!(answer.code == Some(0) && answer.stderr.contains(" is ready, pid "), "{answer:#?}");
    assert!(!answer.stderr.contains("[warn]"), "{answer:#?}");
    let mut client = Client::connect(address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.response().expect(200);
    let answer = support::server::answer(support::command(&folder, &["-s", "stop"]));
    assert_eq!(answer.code, Some(0), "{answer:#?}");
    assert!(!folder.path("topnext.pid").exists());
}

#[test]
fn a_daemon_whose_log_nobody_sees_is_warned_of() {
    let folder = Folder::new();
    folder.write("plugins.toml", b"daemon = true\nmodule = []\n[[http.server]]\nlisten = [\"127.0.0.1:1\"]\n");
    let answer = support::server::answer(support::command(&folder, &["-t"]));
    let text = "[warn] plugins.toml:1:10: daemon: in the background nobody sees stderr, where the error log goes: give error_log";
    assert!(answer.code == Some(0) && answer.stderr.contains(text), "{answer:#?}");
}

#[test]
fn a_pid_file_that_cannot_be_written() {
    let folder = Folder::new();
    let port = support::server::free_port();
    let site =
        format!("pid = \"none/x.pid\"\nmodule = []\n[[http.server]]\nlisten = [\"127.0.0.1:{}\"]\n", port.number);
    folder.write("plugins.toml", site.as_bytes());
    let answer = support::server::answer(support::command(&folder, &[]));
    assert_eq!(answer.code, Some(1));
    let text =
        "none/x.pid cannot be written (2: No such file or directory); say where it is to be with pid, or with -p\n";
    assert!(answer.stderr.starts_with("topnext: the pid file ") && answer.stderr.ends_with(text), "{answer:#?}");
}

#[test]
fn a_pid_file_that_is_something_else() {
    let site = "pid = \"notes\"\nmodule = []\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n";
    let folder = Folder::with(&[("notes", b"to be kept")]);
    folder.write("plugins.toml", site.replace("PORT", &support::server::free_port().number.to_string()).as_bytes());
    let answer = support::server::answer(support::command(&folder, &[]));
    assert!(answer.code == Some(1) && answer.stderr.contains("/notes is no pid file: "), "{answer:#?}");
    assert_eq!(folder.read("notes"), "to be kept");
}

#[test]
fn a_pid_file_that_is_a_log() {
    let logs = "[http]\naccess_log = \"a.log\"\n[[http.server]]";
    let folder = Folder::with(&[("a.log", b""), ("in/x", b"")]);
    let site = SITE.replace("[[http.server]]", logs).replace("PORT", &support::server::free_port().number.to_string());
    for name in ["a.log", "in/../a.log"] {
        folder.write("plugins.toml", format!("pid = {name:?}\n{site}").as_bytes());
        let answer = support::server::answer(support::command(&folder, &[]));
        let text = "a.log is a log of this configuration; say where it is to be with pid\n";
        assert!(answer.code == Some(1) && answer.stderr.ends_with(text), "{answer:#?}");
        assert_eq!(folder.read("a.log"), "");
    }
}

#[test]
fn a_pid_file_for_which_there_is_no_room() {
    let folder = Folder::with(&[("run/x", b"")]);
    let run = folder.path("run").to_str().unwrap().to_string();
    fn mount(program: &str, words: &[&str]) -> bool {
        let mut command = std::process::Command::new(program);
        command.args(words).stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success())
    }
    if !mount("mount", &["-t", "tmpfs", "-o", "size=4k", "tmpfs", &run]) {
        return support::skip("only root can mount a file system without room");
    }
    struct Unmount(String);
    impl Drop for Unmount {
        fn drop(&mut self) {
            mount("umount", &["-l", &self.0]);
        }
    }
    let mounted = Unmount(run);
    folder.write("run/full", &[0; 4096]);
    let site = SITE.replace("PORT", &support::server::free_port().number.to_string());
    folder.write("plugins.toml", format!("pid = \"run/x.pid\"\n{site}").as_bytes());
    let answer = support::server::answer(support::command(&folder, &[]));
    let text = "run/x.pid cannot be written (28: No space left on device); make room\n";
    assert!(answer.code == Some(1) && answer.stderr.ends_with(text), "{answer:#?}");
    assert!(!folder.path("run/x.pid").exists());
    drop(mounted);
}

#[test]
fn a_pid_file_that_is_no_file_or_the_same_one() {
    let folder = Folder::with(&[("html/x", b"")]);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.path("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let server = Server::start_in(folder, SITE);
    let reload = |pid: &str| {
        let site = format!("pid = \"{pid}\"\n{}", SITE.replace("PORT", &server.port.to_string()));
        server.folder.write("plugins.toml", site.as_bytes());
        server.ask(&["-s", "reload"])
    };
    let answer = reload("fifo");
    assert!(answer.code == Some(1) && answer.stderr.contains("/fifo is no regular file"), "{answer:#?}");
    // The one that it has, by another way.
    let answer = reload("html/../topnext.pid");
    assert_eq!(answer.code, Some(0), "{answer:#?}");
    server.get("/ok").expect(200);
}

#[test]
fn a_client_that_has_said_all_gets_its_answer() {
    let server = Server::start(SITE);
    let mut stream = UnixStream::connect(server.folder.path("topnext.sock")).unwrap();
    stream.write_all(b"reload\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("{\"ok\":true,\"text\":\"generation 2 serves"), "{answer}");
}

#[test]
fn a_worker_that_hangs_does_not_keep_the_server_from_ending() {
    let mut server = Server::start(&format!("worker_shutdown_timeout = \"200ms\"\n{SITE}"));
    let worker = rustix::process::Pid::from_raw(server.worker().cast_signed()).unwrap();
    rustix::process::kill_process(worker, rustix::process::Signal::STOP).unwrap();
    // 10 s later than it should have ended.
    assert_eq!(server.ask(&["-s", "quit"]).code, Some(0));
    server.stderr(|log| log.contains("did not end within worker_shutdown_timeout, it is killed"));
    assert_eq!(server.ended(), Some(0));
}

#[test]
fn an_upgrade_without_the_pid_folder_is_refused_and_the_server_goes_on() {
    let folder = Folder::with(&[("run/x", b"")]);
    let server = Server::start_in(folder, &format!("pid = \"run/x.pid\"\n{SITE}"));
    fs::remove_dir_all(server.folder.path("run")).unwrap();
    server.signal(rustix::process::Signal::USR2);
    let log = server.stderr(|log| log.contains("no new master is started: "));
    assert!(
        server.folder.hide(&log).contains("[alert] ")
            && server
                .folder
                .hide(&log)
                .contains("rename() DIR/run/x.pid to DIR/run/x.pid.oldbin failed (2: No such file or directory)"),
        "{log}"
    );
    // It cannot be made again either, which is no reason not to reload.
    assert_eq!(server.ask(&["-s", "reload"]).code, Some(0));
    let log = server.stderr(|log| log.contains("run/x.pid has vanished, it is made again"));
    assert!(log.contains("[error] ") && log.contains("run/x.pid cannot be written (2: "), "{log}");
    assert_eq!(log.matches("[alert]").count(), 1);
    server.get("/ok").expect(200);
    fs::create_dir(server.folder.path("run")).unwrap();
    assert_eq!(server.ask(&["-s", "reload"]).code, Some(0));
    assert_eq!(server.folder.read("run/x.pid").trim(), server.pid().to_string());
}

#[test]
fn a_folder_that_vanishes_takes_nothing_else_with_it() {
    let server = Server::start(SITE);
    fs::remove_file(server.folder.path("topnext.pid")).unwrap();
    fs::remove_file(server.folder.path("topnext.sock")).unwrap();
    server.signal(rustix::process::Signal::HUP);
    server.stderr(|log| log.contains("generation 2 serves"));
    server.get("/ok").expect(200);
    assert_eq!(server.stop(rustix::process::Signal::QUIT).code, Some(0));
}

#[test]
fn root_writes_no_log_where_a_worker_has_led_it() {
    use std::os::unix::fs::{MetadataExt as _, chown, lchown, symlink};
    if !rustix::process::geteuid().is_root() {
        return support::skip("only root can start workers as another user");
    }
    let (folder, user) = Folder::for_workers();
    let of_workers = folder.path("logs");
    for folder in [&of_workers, &of_workers.join("in")] {
        fs::create_dir(folder).unwrap();
        chown(folder, Some(65534), Some(65534)).unwrap();
    }
    for name in ["secret", "linked", "else.log"] {
        folder.write(name, b"");
    }
    let path = |name: &str| of_workers.join(name);
    let site = user.to_string() + &SITE.replace("error_log = {", "error_log = { path = \"logs/e.log\",");
    // Root's own links lead it, as to /dev/stdout.
    symlink("../../else.log", path("in/a.log")).unwrap();
    symlink("/dev/stdout", path("out.log")).unwrap();
    let server = Server::start_in(
        folder,
        &site.replace("root = ", "access_log = [\"logs/in/a.log\", \"logs/out.log\"]\nroot = "),
    );
    let owner = |name: &str| fs::metadata(server.folder.path(name)).unwrap().uid();
    server.get("/ok").expect(200);
    eventually("a line", || server.folder.read("else.log").contains("GET /ok "));
    server.stdout(|text| text.contains("GET /ok "));
    assert_eq!((owner("else.log"), owner("logs/e.log")), (65534, 65534));
    // What a worker can do in its folder.
    let by_worker = |name: &str| {
        fs::remove_file(path(name)).unwrap();
        symlink("../secret", path(name)).unwrap();
        lchown(path(name), Some(65534), Some(65534)).unwrap();
    };
    by_worker("e.log");
    let answer = server.ask(&["-s", "reopen"]);
    let why = "in a folder into which others may write, so the server does not open it";
    let of_link = format!(
        "logs/e.log\" failed (a part of the path is somebody else's link, {why}; write the path that it leads to)"
    );
    assert!(answer.code == Some(1) && answer.stderr.contains(&of_link), "{answer:#?}");
    let answer = server.ask(&["-s", "reload"]);
    assert!(answer.code == Some(1) && answer.stderr.contains(why), "{answer:#?}");
    fs::remove_file(path("e.log")).unwrap();
    fs::hard_link(server.folder.path("linked"), path("e.log")).unwrap();
    let answer = server.ask(&["-s", "reopen"]);
    assert!(
        answer.stderr.contains(&format!("failed (the file has several names, {why}; remove the others)")),
        "{answer:#?}"
    );
    // A folder on the way counts as well.
    fs::remove_file(path("e.log")).unwrap();
    fs::create_dir(server.folder.path("roots")).unwrap();
    fs::rename(path("in"), path("out")).unwrap();
    symlink("../roots", path("in")).unwrap();
    lchown(path("in"), Some(65534), Some(65534)).unwrap();
    assert!(server.ask(&["-s", "reload"]).stderr.contains(why));
    assert_eq!(server.ask(&["-s", "reopen"]).code, Some(1));
    assert_eq!(fs::read_dir(server.folder.path("roots")).unwrap().count(), 0);
    fs::remove_file(path("in")).unwrap();
    fs::rename(path("out"), path("in")).unwrap();
    assert_eq!((owner("secret"), owner("linked")), (0, 0));
    assert_eq!(server.folder.read("secret") + &server.folder.read("linked"), "");
    assert_eq!(server.ask(&["-s", "reopen"]).code, Some(0));
    assert_eq!(owner("logs/e.log"), 65534);
}

#[test]
fn a_worker_writes_no_log_where_a_third_user_has_led_it() {
    use std::os::unix::fs::{chown, lchown, symlink};
    if !rustix::process::geteuid().is_root() {
        return support::skip("only root can start workers as another user");
    }
    let (folder, user) = Folder::for_workers();
    folder.write("third/x", b"");
    folder.write("nobodys", b"");
    chown(folder.path("third"), Some(12345), Some(12345)).unwrap();
    chown(folder.path("nobodys"), Some(65534), Some(65534)).unwrap();
    let site = user.to_string() + &SITE.replace("root = ", "access_log = \"third/a.log\"\nroot = ");
    let server = Server::start_in(folder, &site);
    server.get("/ok").expect(200);
    eventually("a line", || server.folder.read("third/a.log").contains("GET /ok "));
    fs::remove_file(server.folder.path("third/a.log")).unwrap();
    symlink("../nobodys", server.folder.path("third/a.log")).unwrap();
    lchown(server.folder.path("third/a.log"), Some(12345), Some(12345)).unwrap();
    assert_eq!(server.ask(&["-s", "reopen"]).code, Some(1));
    server.get("/ok").expect(200);
    // The next worker has none open, and tries.
    let before = server.worker();
    let pid = rustix::process::Pid::from_raw(before.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    eventually("another worker", || server.workers().iter().any(|pid| *pid != before));
    server.get("/ok").expect(200);
    server.stderr(|log| log.contains("third/a.log (a part of the path is somebody else's link, "));
    assert_eq!(server.folder.read("nobodys"), "");
}

#[test]
fn root_writes_no_pid_file_where_another_user_has_led_it() {
    use std::os::unix::fs::{chown, lchown, symlink};
    if !rustix::process::geteuid().is_root() {
        return support::skip("only root can be led by another user");
    }
    let folder = Folder::with(&[("run/x", b""), ("secret", b"")]);
    let pid = folder.path("run/x.pid");
    chown(folder.path("run"), Some(65534), Some(65534)).unwrap();
    let port = support::server::free_port().number.to_string();
    let site = format!("pid = \"run/x.pid\"\n{}", SITE.replace("PORT", &port));
    folder.write("plugins.toml", site.as_bytes());
    let fails = |what: &str| {
        let answer = support::server::answer(support::command(&folder, &[]));
        let text = format!("run/x.pid cannot be written ({what}, in a folder into which others may write");
        assert!(answer.code == Some(1) && answer.stderr.contains(&text), "{answer:#?}");
        assert_eq!(folder.read("secret"), "");
        fs::remove_file(&pid).unwrap();
    };
    symlink("../secret", &pid).unwrap();
    lchown(&pid, Some(65534), Some(65534)).unwrap();
    fails("a part of the path is somebody else's link");
    fs::hard_link(folder.path("secret"), &pid).unwrap();
    fails("the file has several names");
    // Root's own link leads it.
    symlink("../else.pid", &pid).unwrap();
    let server = Server::start_in(folder, &format!("pid = \"run/x.pid\"\n{SITE}"));
    assert_eq!(server.folder.read("else.pid").trim(), server.pid().to_string());
    assert_eq!(server.ask(&["-s", "reload"]).code, Some(0));
}

#[test]
fn workers_run_as_user_and_logs_are_reopened_all_the_same() {
    if !rustix::process::geteuid().is_root() {
        return support::skip("only root can start workers as another user");
    }
    let (folder, user) = Folder::for_workers();
    let site = user.to_string() + &SITE.replace("error_log = {", "error_log = { path = \"e.log\",");
    let server = Server::start_in(folder, &site.replace("root = ", "access_log = \"a.log\"\nroot = "));
    let status = fs::read_to_string(format!("/proc/{}/status", server.worker())).unwrap();
    let ids = |name: &str| {
        status.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().nth(1).unwrap().to_string()
    };
    assert_eq!((ids("Uid:"), ids("Gid:")), ("65534".to_string(), "65534".to_string()));
    server.get("/ok").expect(200);
    fs::rename(server.folder.path("a.log"), server.folder.path("a.log.1")).unwrap();
    assert_eq!(server.ask(&["-s", "reopen"]).code, Some(0));
    // It returns when they are open.
    let fds = fs::read_dir(format!("/proc/{}/fd", server.worker())).unwrap();
    let open: Vec<_> = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()).collect();
    let is_open = |name: &str| open.iter().any(|file| *file == server.folder.path(name));
    assert!(is_open("a.log") && !is_open("a.log.1"), "{open:?}");
    server.get("/ok").expect(200);
    eventually("the new log has a line", || server.folder.read("a.log").contains("GET /ok "));
    // Who is not there is said with its place.
    let errors = Server::fails(&SITE.replace("error_log", "user = \"nobody-at-all\"\nerror_log"));
    assert!(
        errors.contains("plugins.toml:3:8: user: found \"nobody-at-all\", which is not the name of a user"),
        "{errors}"
    );
}

#[test]
fn systemd_is_told() {
    let folder = Folder::new();
    let port = support::server::free_port();
    let site = SITE.replace("PORT", &port.number.to_string());
    folder.write("plugins.toml", site.as_bytes());
    let socket = std::os::unix::net::UnixDatagram::bind(folder.path("notify")).unwrap();
    socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let next = || {
        let mut buffer = [0; 512];
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let mut command = support::command(&folder, &[]);
    let mut child = command.env("NOTIFY_SOCKET", folder.path("notify")).spawn().unwrap();
    assert_eq!(next(), format!("READY=1\nMAINPID={}\n", child.id()));
    let ask = |question: &str| support::server::answer(support::command(&folder, &["-s", question]));
    assert_eq!(ask("reload").code, Some(0));
    let reloading = next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert!(next().starts_with("READY=1\n"));
    assert_eq!(ask("stop").code, Some(0));
    assert_eq!(next(), "STOPPING=1\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn systemd_is_told_who_the_main_process_is_in_an_upgrade_and_the_way_back() {
    use rustix::process::{Pid, Signal, kill_process};
    let folder = Folder::new();
    let port = support::server::free_port();
    folder.write("plugins.toml", SITE.replace("PORT", &port.number.to_string()).as_bytes());
    let socket = std::os::unix::net::UnixDatagram::bind(folder.path("notify")).unwrap();
    socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let next = || {
        let mut buffer = [0; 512];
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).trim_end().replace('\n', " ")
    };
    let mut command = support::command(&folder, &[]);
    let mut child = command.env("NOTIFY_SOCKET", folder.path("notify")).spawn().unwrap();
    let old = child.id();
    let send = |pid: u32, signal| kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
    let pid_file = || folder.read("topnext.pid").trim().parse::<u32>().unwrap();
    assert_eq!(next(), format!("READY=1 MAINPID={old}"));
    // The way back: the new one says who is the main process again, and not that the server stops.
    send(old, Signal::USR2);
    let ready = next();
    let new = pid_file();
    assert_eq!(ready, format!("READY=1 MAINPID={new}"));
    send(new, Signal::QUIT);
    assert_eq!(next(), format!("MAINPID={old}"));
    assert_eq!(next(), format!("READY=1 MAINPID={old}"));
    // One that cannot serve.
    let good = folder.read("plugins.toml");
    folder.write("plugins.toml", b"broken");
    send(old, Signal::USR2);
    assert_eq!(next(), format!("READY=1 MAINPID={old}"));
    folder.write("plugins.toml", good.as_bytes());
    eventually("its names", || folder.path("topnext.pid").exists() && pid_file() == old);
    // All the way: the old one ends in silence.
    send(old, Signal::USR2);
    let ready = next();
    let new = pid_file();
    assert_eq!(ready, format!("READY=1 MAINPID={new}"));
    send(old, Signal::QUIT);
    assert!(child.wait().unwrap().success());
    assert_eq!(support::server::answer(support::command(&folder, &["-s", "stop"])).code, Some(0));
    assert_eq!(next(), "STOPPING=1");
}
