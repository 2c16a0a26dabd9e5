//! The access log and the error log.

mod support;

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use support::{Folder, Server, eventually};

/// Whether the text has the form of a pattern: `9` stands for a digit, anything else for itself.
fn is_like(text: &str, pattern: &str) -> bool {
    text.len() == pattern.len()
        && text.chars().zip(pattern.chars()).all(|(c, like)| if like == '9' { c.is_ascii_digit() } else { c == like })
}

/// The text of a log file as soon as `enough` says so.
fn log_file(server: &Server, name: &str, enough: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    eventually(&format!("enough in {name}"), || {
        text = server.folder.read(name);
        enough(&text)
    });
    text
}

#[test]
fn a_line_of_the_access_log() {
    let server = Server::start(
        r#"
module = [{ name = "return" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
return = { code = 200, text = "hello" }
"#,
    );
    server.get_with("/a?b=c", "User-Agent: test/1.0\r\nReferer: http://a/\r\n").expect(200);
    let log = server.stdout(|log| log.ends_with('\n'));
    let (address, rest) = log.split_once(" - - [").unwrap();
    let (time, rest) = rest.split_once("] ").unwrap();
    assert_eq!(address, "127.0.0.1", "{log}");
    let month = &time[3..6];
    assert!("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(' ').any(|known| known == month), "{log}");
    let time = time.replace(month, "Mon").replace('-', "+");
    assert!(is_like(&time, "99/Mon/9999:99:99:99 +9999"), "{log}");
    assert_eq!(rest, "\"GET /a?b=c HTTP/1.1\" 200 5 \"http://a/\" \"test/1.0\"\n", "{log}");
}

#[test]
fn one_line_for_each_request() {
    let server = Server::with(
        &[("html/a", b"hello"), ("html/large", &support::files::noise(20 << 20))],
        r#"
module = [{ name = "static" }]
error_log = { level = "emerg" }
[[http.server]]
listen = ["127.0.0.1:PORT"]
root = "html"
"#,
    );
    let mut client = server.connect();
    let requests =
        "GET /a HTTP/1.1\r\nHost: a\r\n\r\nHEAD /a HTTP/1.1\r\nHost: a\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(requests);
    client.response().expect(200);
    client.response_to("HEAD").expect(200);
    client.response().expect(404);
    client.send("GET / HTTP/1.1\r\nbad header\r\n\r\n");
    client.response().expect(400);
    // Those that cannot be parsed, and those that are given up, have a line too.
    let mut client = support::Client::slow(server.address());
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    client.take(1000).unwrap();
    client.reset();
    let log = server.stdout(|log| log.lines().count() == 5);
    let lines: Vec<&str> = log.lines().map(|line| line.split_once("] ").unwrap().1).collect();
    assert_eq!(lines[0], "\"GET /a HTTP/1.1\" 200 5 \"-\" \"-\"", "{log}");
    assert_eq!(lines[1], "\"HEAD /a HTTP/1.1\" 200 0 \"-\" \"-\"", "{log}");
    assert!(lines[2].starts_with("\"GET /none HTTP/1.1\" 404 1"), "{log}");
    assert!(lines[3].starts_with("\"GET / HTTP/1.1\" 400 1"), "{log}");
    assert!(lines[4].starts_with("\"GET /large HTTP/1.1\" "), "{log}");
    // What was sent, and not what was to be.
    let sent: u64 = lines[4].split(' ').nth(4).unwrap().parse().unwrap();
    assert!((700..20 << 20).contains(&sent), "{log}");
    drop(server.stop(Signal::TERM));
}

#[test]
fn what_clients_send_cannot_forge_a_line() {
    let server = Server::start(
        r#"
module = [{ name = "return" }]
error_log = { level = "info" }
[[http.server]]
listen = ["127.0.0.1:PORT"]
return = { code = 200, text = "hello" }
"#,
    );
    server.get_with("/\"\\\u{e4}", "User-Agent: \u{1b}\r\n").expect(400);
    server.get_with("/\"\\\u{e4}", "User-Agent: a\"b\\c\t\u{e4}\r\n").expect(200);
    let log = server.stdout(|log| log.lines().count() == 2);
    let lines: Vec<&str> = log.lines().map(|line| line.split_once("] ").unwrap().1).collect();
    assert!(lines[0].starts_with("\"GET /\\x22\\x5C\\xC3\\xA4 HTTP/1.1\" 400 "), "{log}");
    assert_eq!(
        lines[1], "\"GET /\\x22\\x5C\\xC3\\xA4 HTTP/1.1\" 200 5 \"-\" \"a\\x22b\\x5Cc\\x09\\xC3\\xA4\"",
        "{log}"
    );
    // The error log, with the line of a request that is none.
    server.raw("GET /\u{1b}[31m\rred HTTP/1.1\r\nHost: a\r\n\r\n");
    let log = server.stderr(|log| log.contains("an empty request target, or one with a forbidden byte"));
    let line = log.lines().find(|line| line.contains("forbidden byte")).unwrap();
    assert!(line.ends_with("request: \"GET /\\x1B[31m\\x0Dred HTTP/1.1\""), "{log:?}");
    assert!(!log.contains(['\u{1b}', '\r']), "{log:?}");
}

#[test]
fn a_line_of_the_error_log() {
    let server = Server::with(
        &[("html/a", b"")],
        "module = [{ name = \"static\" }]\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nserver_name = [\"a.example\"]\nroot = \"html\"\n",
    );
    server.get("/none").expect(404);
    let log = server.stderr(|log| log.contains("failed"));
    let line = log.lines().find(|line| line.contains("failed")).unwrap();
    assert!(is_like(&line[..19], "9999/99/99 99:99:99"), "{line}");
    let (head, text) = line[19..].split_once("#").unwrap();
    assert_eq!(head, format!(" [error] {}", server.worker()), "{line}");
    let (thread, text) = text.split_once(": *").unwrap();
    assert!(is_like(thread, "9"), "{line}");
    let (number, text) = text.split_once(' ').unwrap();
    assert!(number.parse::<u64>().is_ok(), "{line}");
    assert_eq!(
        server.folder.hide(text),
        "static: open() \"DIR/html/none\" failed (2: No such file or directory), client: 127.0.0.1, server: a.example, request: \"GET /none HTTP/1.1\", host: \"localhost\""
    );
}

#[test]
fn levels() {
    let lines = |level: &str| {
        let server = Server::with(
            &[("html/a", b"")],
            &format!(
                "module = [{{ name = \"static\" }}]\nerror_log = {{ level = \"{level}\" }}\n[[http.server]]\n\
                 listen = [\"127.0.0.1:PORT\"]\nroot = \"html\"\n"
            ),
        );
        server.get("/none").expect(404);
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\n\r\n");
        client.response().expect(400);
        let log = server.stop(Signal::TERM).stderr;
        ["[info]", "[notice]", "[error]"].map(|level| log.contains(level))
    };
    assert_eq!(lines("info"), [true, true, true]);
    assert_eq!(lines("notice"), [false, true, true]);
    assert_eq!(lines("error"), [false, false, true]);
    assert_eq!(lines("crit"), [false, false, false]);
}

#[test]
fn logs_in_files_and_none() {
    let server = Server::with(
        &[("logs/access.log", b"old line\n"), ("html/a", b"")],
        r#"
module = [{ name = "return" }, { name = "static" }]
error_log = { path = "logs/error.log", level = "info" }
[[http.server]]
listen = ["127.0.0.1:PORT"]
access_log = { path = "logs/access.log" }
root = "html"
[[http.server.location]]
path = "/quiet"
access_log = "off"
return = { code = 200, text = "" }
[[http.server.location]]
path = "/out"
access_log = { path = "stdout" }
return = { code = 200, text = "" }
[[http.server.location]]
path = "/own"
access_log = { path = "logs/own.log" }
return = { code = 200, text = "" }
"#,
    );
    for path in ["/quiet", "/out", "/own", "/a", "/none"] {
        server.get(path);
    }
    let log = log_file(&server, "logs/access.log", |log| log.lines().count() == 3);
    assert!(log.starts_with("old line\n127.0.0.1 - - ["), "it is appended to: {log}");
    assert!(log.contains("\"GET /a HTTP/1.1\" 200 0 ") && log.contains("\"GET /none HTTP/1.1\" 404 "), "{log}");
    let own = log_file(&server, "logs/own.log", |log| log.ends_with('\n'));
    assert!(own.contains("\"GET /own HTTP/1.1\" 200 0 ") && own.lines().count() == 1, "{own}");
    let errors = log_file(&server, "logs/error.log", |log| log.contains("failed"));
    assert!(errors.contains("html/none\" failed (2: No such file or directory)"), "{errors}");
    let folder = server.folder.path("");
    let answer = {
        let out = server.stdout(|log| log.ends_with('\n'));
        assert!(out.contains("\"GET /out HTTP/1.1\" 200 0 "), "{out}");
        let copied = fs::read_to_string(folder.join("logs/error.log")).unwrap();
        assert!(!copied.contains("/quiet"), "{copied}");
        server.stop(Signal::TERM)
    };
    assert_eq!(answer.stdout.lines().count(), 1, "{answer:#?}");
    assert!(!answer.stderr.contains("failed"), "{answer:#?}");
}

#[test]
fn a_log_that_cannot_be_opened() {
    let text =
        Server::fails("[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\naccess_log = { path = \"none/access.log\" }\n");
    assert!(text.starts_with("plugins.toml:3:23: access_log: found \"DIR/none/access.log\", which cannot be opened for writing (2: No such file or directory"), "{text}");
}

#[test]
fn a_full_disk_is_said_once_and_hurts_nobody() {
    let server = Server::start(
        r#"
module = [{ name = "return" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
access_log = { path = "/dev/full" }
return = { code = 200, text = "hello" }
"#,
    );
    for _ in 0..3 {
        assert_eq!(server.get("/").expect(200).text(), "hello");
        server.stderr(|log| log.contains("cannot write log /dev/full (28: No space left on device)"));
    }
    let answer = server.stop(Signal::TERM);
    assert_eq!(answer.stderr.matches("cannot write log /dev/full").count(), 1, "{answer:#?}");
    // The first line may have been counted with the error already.
    assert_eq!(answer.stderr.matches("lines of log /dev/full were lost: ").count(), 1, "{answer:#?}");
}

#[test]
fn many_lines_all_arrive() {
    let server = Server::start(
        r#"
module = [{ name = "return" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
access_log = { path = "access.log" }
keepalive_requests = 10000
return = { code = 200, text = "" }
"#,
    );
    let mut client = server.connect();
    for round in 0..20 {
        let requests: String =
            (0..100).map(|i| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", round * 100 + i)).collect();
        client.send(requests);
        (0..100).for_each(|_| drop(client.response().expect(200)));
    }
    let folder = server.folder.path("access.log");
    let log = log_file(&server, "access.log", |log| log.lines().count() >= 2000);
    assert!(folder.exists());
    for (number, line) in log.lines().enumerate() {
        assert!(line.contains(&format!("] \"GET /{number} HTTP/1.1\" 200 0 ")), "line {number}: {line}");
    }
}

/// A configuration with this access log.
fn logging_to(access_log: &str) -> String {
    format!(
        "module = [{{ name = \"return\" }}]\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\naccess_log = {access_log}\n\
         [[http.server.location]]\npath = \"/\"\nreturn = {{ code = 200, text = \"hello\" }}\n[[http.server.location]]\npath = \"/plain\"\naccess_log = \"plain.log\"\n\
         return = {{ code = 200, text = \"hello\" }}\n"
    )
}

#[test]
fn a_log_that_is_named_twice_is_one() {
    let folder = Folder::with(&[("logs/x", b"")]);
    let log = r#"["logs/a.log", { path = "./logs/../logs/a.log" }, "b.log"]"#;
    let server = Server::start_in(folder, &logging_to(log));
    let files = server.open_files();
    server.get("/x").expect(200);
    let text = log_file(&server, "b.log", |log| log.ends_with('\n'));
    eventually("both lines", || server.folder.read("logs/a.log").len() == 2 * text.len());
    assert_eq!(server.folder.read("logs/a.log"), format!("{text}{text}"));
    let named = |name: &str| {
        let links = fs::read_dir(format!("/proc/{}/fd", server.worker())).unwrap();
        let links = links.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        links.filter(|path| path.to_str().is_some_and(|path| path.ends_with(name))).count()
    };
    assert_eq!((named("/a.log"), named("/b.log")), (1, 1), "{files}");
}

#[test]
fn a_buffer_is_written_when_it_is_full_or_when_logs_are_reopened() {
    let server = Server::start(&logging_to(r#"{ path = "a.log", buffer = "1k" }"#));
    let see_plain_line = |count: usize| {
        server.get("/plain").expect(200);
        log_file(&server, "plain.log", |log| log.lines().count() == count);
    };
    server.get("/1").expect(200);
    see_plain_line(1);
    // The thread has been through all logs by the time that a second line is there.
    see_plain_line(2);
    assert_eq!(server.folder.read("a.log"), "");
    (2..30).for_each(|i| drop(server.get(&format!("/{i}")).expect(200)));
    let log = log_file(&server, "a.log", |log| log.len() >= 1024);
    let lines = log.lines().count();
    assert!(log.ends_with('\n') && lines >= 10, "{log}");
    server.signal(Signal::USR1);
    log_file(&server, "a.log", |log| log.lines().count() == 29);
}

#[test]
fn a_buffer_is_flushed_in_time_and_at_the_end() {
    let server = Server::start(&logging_to(r#"{ path = "a.log", buffer = "64k", flush = "20ms" }"#));
    for i in 1..=3 {
        server.get("/x").expect(200);
        log_file(&server, "a.log", |log| log.lines().count() == i);
    }
    drop(server.stop(Signal::TERM));
    let folder = Folder::new();
    let kept = folder.path("");
    let server = Server::start_in(folder, &logging_to(r#"{ path = "a.log", buffer = "64k", flush = "1h" }"#));
    server.get("/x").expect(200);
    server.signal(Signal::TERM);
    eventually("the line", || fs::read_to_string(kept.join("a.log")).is_ok_and(|log| log.lines().count() == 1));
    drop(server.stop(Signal::TERM));
}

#[test]
fn sigusr1_reopens_all_logs() {
    let folder = Folder::with(&[("logs/x", b"")]);
    let config = logging_to("\"logs/a.log\"");
    let server = Server::start_in(folder, &format!("error_log = {{ path = \"e.log\", level = \"notice\" }}\n{config}"));
    server.get("/before").expect(200);
    log_file(&server, "logs/a.log", |log| log.ends_with('\n'));
    let (logs, files) = (server.folder.path("logs"), server.open_files());
    for i in 0..10 {
        fs::rename(logs.join("a.log"), logs.join(format!("a.{i}"))).unwrap();
        server.signal(Signal::USR1);
        eventually("a new file", || logs.join("a.log").exists());
        server.get(&format!("/{i}")).expect(200);
        let log = log_file(&server, "logs/a.log", |log| log.ends_with('\n'));
        assert!(log.lines().count() == 1 && log.contains(&format!("GET /{i} ")), "{log}");
    }
    assert!(server.open_files() <= files, "{} files, {files} before", server.open_files());
    let old = server.folder.read("logs/a.0");
    assert!(old.lines().count() == 1 && old.contains("GET /before "), "{old}");
    // Once by the master, once by its worker.
    log_file(&server, "e.log", |log| log.matches("reopening logs").count() == 20);
    // A log that cannot be reopened goes on as it was.
    fs::rename(&logs, server.folder.path("moved")).unwrap();
    server.signal(Signal::USR1);
    let errors = log_file(&server, "e.log", |log| log.contains("[emerg]"));
    let line = server.folder.hide(errors.lines().find(|line| line.contains("[emerg]")).unwrap());
    assert!(
        line.contains(
            "open() \"DIR/logs/a.log\" failed (2: No such file or directory) while reopening logs; the file that was open stays"
        ),
        "{line}"
    );
    server.get("/after").expect(200);
    log_file(&server, "moved/a.log", |log| log.contains("GET /after "));
    // Who waits for it is told.
    let answer = server.ask(&["-s", "reopen"]);
    let text = format!(
        "topnext: not all logs were opened again; what was open stays in use:\n  process {}: open() \"DIR/logs/a.log\" failed (2",
        server.worker()
    );
    assert!(answer.code == Some(1) && server.folder.hide(&answer.stderr).starts_with(&text), "{answer:#?}");
    fs::rename(server.folder.path("moved"), &logs).unwrap();
    assert_eq!(server.ask(&["-s", "reopen"]).code, Some(0));
}

#[test]
fn a_full_disk_for_the_master_s_log() {
    let config = "error_log = { path = \"/dev/full\", level = \"notice\" }\nmodule = [{ name = \"return\" }]\n\
                  [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nreturn = { code = 200, text = \"x\" }\n";
    let server = Server::start(config);
    let ask = |question: &str| {
        let answer = server.ask(&["-s", question]);
        assert_eq!(answer.code, Some(0), "{answer:#?}");
    };
    ["reload", "reopen", "reload"].into_iter().for_each(ask);
    server.get("/").expect(200);
    // The master and each worker say it once.
    let answer = server.stop(Signal::TERM);
    assert_eq!(answer.code, Some(0));
    let said = answer.stderr.matches("cannot write log /dev/full (28: No space left on device)").count();
    assert!((1..=4).contains(&said), "{answer:#?}");
}

/// The limit that a full disk can be played with: files of the server may have this many bytes.
fn limit_files(server: &Server, bytes: Option<u64>) {
    let pid = Pid::from_raw(server.worker() as i32).unwrap();
    prlimit(Some(pid), Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[test]
fn a_file_that_may_not_grow_is_survived_and_no_line_is_torn() {
    let server = Server::start(&logging_to("\"a.log\""));
    limit_files(&server, Some(1000));
    (0..30).for_each(|i| drop(server.get(&format!("/full/{i}")).expect(200)));
    server.stderr(|log| log.contains("cannot write log ") && log.contains("a.log (27: File too large)"));
    eventually("a file that is full", || server.folder.read("a.log").len() == 1000);
    limit_files(&server, None);
    server.get("/after").expect(200);
    let log = log_file(&server, "a.log", |log| log.contains("GET /after "));
    assert!(log.lines().count() > 10, "{log}");
    assert!(
        log.lines().all(|line| line.starts_with("127.0.0.1 - - [") && line.ends_with(" 200 5 \"-\" \"-\"")),
        "{log}"
    );
    let errors = server.stderr(|log| log.contains("a.log can be written again; lines lost: "));
    assert_eq!(errors.matches("cannot write log").count(), 1, "{errors}");
    let lost: usize = errors.trim_end().rsplit(' ').next().unwrap().parse().unwrap();
    assert_eq!(lost + log.lines().count(), 31, "{errors}\n{log}");
}
