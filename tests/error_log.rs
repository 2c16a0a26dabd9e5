//! error_log: where lines go, and which.

mod support;

use rustix::process::Signal;
use support::{Folder, Server, eventually};

const CONFIG: &str = r#"
module = [{ name = "return" }, { name = "static" }]
error_log = [{ path = "main.log", level = "notice" }, { path = "stderr", level = "emerg" }]
[http]
access_log = "off"
root = "html"

[[http.server]]
listen = ["127.0.0.1:PORT"]
server_name = ["a.example"]

[[http.server.location]]
path = "/own"
error_log = [{ path = "own.log", level = "error" }, { path = "./own-info.log", level = "info" }]

[[http.server.location.location]]
path = "/own/inner"

[[http.server.location]]
path = "/quiet"
error_log = { path = "own.log", level = "crit" }

[[http.server.location]]
path = "/none"
error_log = "/dev/null"

[[http.server]]
listen = ["127.0.0.1:PORT"]
server_name = ["b.example"]
error_log = "b.log"
"#;

#[test]
fn lines_go_to_the_logs_of_the_place() {
    let server = Server::with(&[("html/x", b"")], CONFIG);
    let get = |host: &str, path: &str| {
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nReferer: http://r/\r\n\r\n"));
        client.response().expect(404);
    };
    get("a.example", "/main");
    get("a.example", "/own/1");
    get("a.example", "/own/inner/2");
    get("a.example", "/quiet/3");
    get("a.example", "/none/4");
    get("b.example", "/5");
    eventually("the last line", || server.folder.read("b.log").contains("/5"));
    server.signal(Signal::USR1);
    eventually("the line of the signal", || server.folder.read("main.log").contains("SIGUSR1"));
    let read = |name: &str| {
        let text = server.folder.read(name);
        text.lines().filter(|line| line.contains("open()")).map(str::to_string).collect::<Vec<_>>()
    };
    let has = |lines: &[String], paths: &[&str]| {
        let same = |(line, path): (&String, &&str)| line.contains(&format!("request: \"GET {path} HTTP/1.1\""));
        assert!(lines.len() == paths.len() && lines.iter().zip(paths).all(same), "{paths:?}: {lines:#?}");
    };
    has(&read("main.log"), &["/main"]);
    has(&read("own.log"), &["/own/1", "/own/inner/2"]);
    has(&read("own-info.log"), &["/own/1", "/own/inner/2"]);
    has(&read("b.log"), &["/5"]);
    // A module's line has its name, and all that there is to say of the request.
    let line = &read("b.log")[0];
    let (_, text) = line.split_once(": *").unwrap();
    let (_, text) = text.split_once(' ').unwrap();
    assert_eq!(
        server.folder.hide(text),
        "static: open() \"DIR/html/5\" failed (2: No such file or directory), client: 127.0.0.1, server: b.example, request: \
         \"GET /5 HTTP/1.1\", host: \"b.example\", referrer: \"http://r/\""
    );
    assert_eq!(server.stop(Signal::TERM).stderr.matches("[error]").count(), 0);
}

#[test]
fn each_log_has_a_level_of_its_own() {
    let server = Server::with(
        &[("html/x", b"")],
        r#"
module = [{ name = "static" }]
error_log = "main.log"
[[http.server]]
listen = ["127.0.0.1:PORT"]
access_log = "off"
root = "html"
error_log = [{ path = "info.log", level = "info" }, { path = "error.log", level = "error" }, { path = "crit.log", level = "crit" }]
"#,
    );
    server.get("/none").expect(404);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\n\r\n");
    client.response().expect(400);
    eventually("the line of info", || server.folder.read("info.log").contains("[info]"));
    let count = |name: &str, level: &str| server.folder.read(name).matches(level).count();
    assert_eq!((count("info.log", "[error]"), count("info.log", "[info]")), (1, 1));
    assert_eq!((count("error.log", "[error]"), count("error.log", "[info]")), (1, 0));
    assert_eq!((count("crit.log", "[error]"), count("crit.log", "[info]")), (0, 0));
    assert_eq!(count("main.log", "["), 0);
}

#[test]
fn a_line_is_bounded() {
    let server = Server::with(
        &[("html/x", b"")],
        "module = [{ name = \"static\" }]\nerror_log = \"e.log\"\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n\
         access_log = \"off\"\nroot = \"html\"\n",
    );
    server.get(&format!("/{}", "\u{e4}".repeat(3000))).expect(404);
    eventually("a line", || server.folder.read("e.log").ends_with('\n'));
    let log = server.folder.read("e.log");
    assert!(log.lines().count() == 1 && (2000..=2048).contains(&log.len()), "{} bytes: {log}", log.len());
}

#[test]
fn what_cannot_be_a_log_of_errors() {
    let fails = |line: &str| {
        let text = Server::fails(&format!("{line}\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n"));
        text.trim_end().to_string()
    };
    assert_eq!(
        fails("error_log = \"off\""),
        "plugins.toml:1:13: error_log: found \"off\", which is not a log; \"/dev/null\" is one that keeps nothing"
    );
    assert_eq!(
        fails("error_log = [\"memory:32m\"]"),
        "plugins.toml:1:14: error_log: found \"memory:32m\"; \"memory:\" is not supported, expected a file"
    );
    assert!(
        fails("error_log = \"none/e.log\"").contains("found \"DIR/none/e.log\", which cannot be opened for writing")
    );
    assert!(
        fails("error_log = { path = \"e.log\", level = \"verbose\" }").contains("error_log.level: found \"verbose\"")
    );
    assert!(fails("error_log = []").contains("error_log: found an empty list"));
    let folder = Folder::new();
    let text = Server::fails_in(
        &folder,
        "[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n[[http.server.location]]\npath = \"/\"\nerror_log = \"syslog:server=a\"\n",
    );
    assert!(text.starts_with("plugins.toml:5:13: error_log: found \"syslog:server=a\"; "), "{text}");
}
