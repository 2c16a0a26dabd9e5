//! The command line.

mod support;

use std::fs;
use std::net::TcpListener;

use rustix::process::Signal;
use support::server::answer;
use support::{Answer, Folder, Server, command, files};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One server and no module.
const SMALL: &str = "[[http.server]]\nlisten = [\"127.0.0.1:8000\"]\n";

fn run(folder: &Folder, arguments: &[&str]) -> Answer {
    answer(command(folder, arguments))
}

#[test]
fn topnext_t() {
    let folder = Folder::with(&[("plugins.toml", SMALL.as_bytes()), ("bad.toml", b"[[http.server]]\nlisen = 1\n")]);
    let good = run(&folder, &["-t"]);
    assert_eq!((good.code, good.stdout.as_str()), (Some(0), ""), "{good:#?}");
    assert_eq!(
        good.stderr,
        "topnext: the configuration file plugins.toml syntax is ok\ntopnext: configuration file plugins.toml test is successful\n"
    );
    let bad = run(&folder, &["-t", "-c", "bad.toml"]);
    assert_eq!((bad.code, bad.stdout.as_str()), (Some(1), ""), "{bad:#?}");
    assert!(
        bad.stderr.starts_with("bad.toml:2:1: http.server.lisen: unknown key; did you mean \"listen\"?"),
        "{bad:#?}"
    );
    assert!(bad.stderr.ends_with("\ntopnext: configuration file bad.toml test failed\n"), "{bad:#?}");
    // A server that is to start says the same.
    let bad = run(&folder, &["-c", "bad.toml"]);
    assert!(bad.code == Some(1) && bad.stderr.starts_with("bad.toml:2:1: "), "{bad:#?}");
}

#[test]
fn topnext_t_does_not_listen() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!("[[http.server]]\nlisten = [\"{}\"]\n", listener.local_addr().unwrap());
    assert_eq!(Server::tests(&Folder::new(), &config).code, Some(0));
}

#[test]
fn topnext_big_t_shows_the_configuration() {
    let folder = Folder::with(&[
        ("plugins.toml", b"include = \"more.toml\"\n[[http.server]]\nlisten = [\"127.0.0.1:8000\"]\n"),
        ("more.toml", b"worker_threads = 1 # one\n"),
    ]);
    let dump = run(&folder, &["-T"]);
    assert_eq!(dump.code, Some(0), "{dump:#?}");
    let expected = "# configuration file plugins.toml:\ninclude = \"more.toml\"\n[[http.server]]\nlisten = [\"127.0.0.1:8000\"]\n\n\
                    # configuration file more.toml:\nworker_threads = 1 # one\n\n";
    assert_eq!(dump.stdout, expected, "{dump:#?}");
}

#[test]
fn versions_and_help() {
    let folder = Folder::new();
    let version = run(&folder, &["-v"]);
    assert_eq!((version.code, version.stdout), (Some(0), format!("topnext {VERSION}\n")));
    let build = run(&folder, &["-V"]);
    let mut lines = build.stdout.lines();
    assert_eq!(lines.next(), Some(format!("topnext {VERSION}").as_str()), "{build:#?}");
    assert!(lines.next().is_some_and(|line| line.starts_with("module-api 1.")), "{build:#?}");
    assert!(lines.next().is_some_and(|line| line.starts_with("built by rustc 1.")), "{build:#?}");
    let bundled = lines.next().unwrap_or_default();
    for name in ["gzip", "headers", "proxy", "static"] {
        assert!(bundled.starts_with("bundled modules: ") && bundled.contains(name), "{build:#?}");
    }
    for option in ["-h", "-?", "--help"] {
        let help = run(&folder, &[option]);
        assert!(help.code == Some(0) && help.stdout.starts_with("Usage: topnext [-c FILE]"), "{help:#?}");
    }
}

#[test]
fn wrong_options_exit_with_2() {
    let folder = Folder::with(&[("plugins.toml", SMALL.as_bytes())]);
    for (arguments, message) in [
        (&["-x"][..], "topnext: invalid option '-x'\n"),
        (&["--nonsense"], "topnext: invalid option '--nonsense'\n"),
        (&["-t", "extra"], "topnext: unexpected argument \"extra\"\n"),
        (&["moduls"], "topnext: unexpected argument \"moduls\"\n"),
        (&["-c"], "topnext: missing argument for option '-c'\n"),
        (&["inspect"], "topnext: missing argument\n"),
    ] {
        let answer = run(&folder, arguments);
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(2), ""), "{arguments:?}: {answer:#?}");
        assert!(answer.stderr.starts_with(message) && answer.stderr.contains("\nUsage: topnext "), "{answer:#?}");
    }
}

#[test]
fn a_configuration_that_is_not_there() {
    let folder = Folder::new();
    let none = run(&folder, &["-t", "-c", "none.toml"]);
    assert_eq!(none.code, Some(1), "{none:#?}");
    assert!(none.stderr.starts_with("none.toml: cannot read the file (2: No such file or directory)"), "{none:#?}");
    let none = run(&folder, &["-t", "-c", "none/none.toml"]);
    assert!(
        none.code == Some(1)
            && none.stderr.starts_with("topnext: none/none.toml: the prefix would be its folder, none (2: "),
        "{none:#?}"
    );
    let none = run(&folder, &["-s", "reload", "-c", "none/none.toml"]);
    assert!(
        none.code == Some(1)
            && none.stderr.starts_with("topnext: none/none.toml: the prefix would be its folder, none (2: "),
        "{none:#?}"
    );
    let none = run(&folder, &["-s", "reload", "-p", "none"]);
    assert!(none.code == Some(1) && none.stderr.starts_with("topnext: prefix none (2: "), "{none:#?}");
    // As in nginx, the prefix leads to it.
    folder.write("sub/plugins.toml", b"[[http.server]]\nlisten = [\"127.0.0.1:1\"]\nroot = \"html\"\n");
    folder.write("sub/html/x", b"");
    let found = run(&folder, &["-t", "-p", "sub"]);
    assert!(found.code == Some(0) && found.stderr.contains("file sub/plugins.toml test is successful"), "{found:#?}");
    if !std::path::Path::new("/etc/topnext/plugins.toml").exists() {
        let none = run(&folder, &[]);
        let text =
            "topnext: there is no plugins.toml and no /etc/topnext/plugins.toml; name a configuration with -c FILE\n";
        assert_eq!((none.code, none.stderr.as_str()), (Some(1), text));
    }
}

#[test]
fn the_prefix_is_where_paths_start() {
    let folder = Folder::with(&[
        (
            "conf/site.toml",
            b"module = [{ name = \"static\" }]\n[[http.server]]\nlisten = [\"127.0.0.1:8000\"]\nroot = \"html\"\n",
        ),
        ("here/html/a", b""),
    ]);
    assert_eq!(run(&folder, &["-t", "-c", "conf/site.toml", "-p", "here"]).code, Some(0));
    let wrong = run(&folder, &["-t", "-c", "conf/site.toml"]);
    assert_eq!(wrong.code, Some(1));
    let text = folder.hide(&wrong.stderr);
    assert!(text.starts_with("conf/site.toml:4:8: root: found \"DIR/conf/html\", which is not a folder\n"), "{text}");
}

#[test]
fn topnext_modules() {
    let folder = Folder::with(&[(
        "plugins.toml",
        br#"module = [{ name = "static" }, { name = "headers" }, { name = "gzip" }, { name = "proxy" }, { name = "round_robin" }]
[[http.server]]
listen = ["127.0.0.1:8000"]
server_name = ["a.example"]
root = "html"
[[http.server.location]]
path = "/x"
gzip.enabled = true
[http.upstream.back]
server = ["127.0.0.1:9000"]
"#,
    ), ("html/a", b"")]);
    let shown = run(&folder, &["modules"]);
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""), "{shown:#?}");
    let text = folder.hide(&shown.stdout);
    let chain = format!(
        "A response meets the filters in this order:\n\n  top\n   |  headers {VERSION}\n   |  gzip {VERSION}\n  write\n\nModules, as declared:\n"
    );
    assert!(text.starts_with(&chain), "{text}");
    let part = |name: &str| text.split("\n\n").find(|part| part.starts_with(&format!("{name} "))).unwrap().to_owned();
    assert!(
        part("static").ends_with("  active in server a.example\n            server a.example, location /x"),
        "{text}"
    );
    assert!(part("headers").ends_with("  active in nothing"), "{text}");
    let gzip = part("gzip");
    assert!(gzip.contains("\n  file      MODULES/libtopnext_gzip.so\n  provides  filter, variables\n"), "{text}");
    assert!(gzip.ends_with("  active in server a.example, location /x"), "{text}");
    assert!(part("round_robin").trim_end().ends_with("  active in upstream back"), "{text}");
}

#[test]
fn topnext_inspect() {
    let folder = Folder::with(&[("text.so", b"text")]);
    let file = files::modules().join("libtopnext_gzip.so");
    let shown = run(&folder, &["inspect", file.to_str().unwrap()]);
    assert_eq!(shown.code, Some(0), "{shown:#?}");
    let text = folder.hide(&shown.stdout);
    assert!(
        text.starts_with(&format!(
            "module gzip {VERSION}: Compresses responses with gzip\n  file         MODULES/libtopnext_gzip.so\n"
        )),
        "{text}"
    );
    assert!(
        text.contains("\nkeys of the table gzip\n") && text.contains("\n  comp_level      integer 1 to 9     1 "),
        "{text}"
    );
    let wrong = run(&folder, &["inspect", "text.so"]);
    assert_eq!((wrong.code, wrong.stdout.as_str()), (Some(1), ""), "{wrong:#?}");
    assert!(wrong.stderr.starts_with("module \"text.so\": its file is not a shared library\n"), "{wrong:#?}");
    let none = run(&folder, &["inspect", "none.so"]);
    assert!(none.code == Some(1) && none.stderr.contains("No such file or directory"), "{none:#?}");
}

#[test]
fn ctrl_c_and_sigterm_end_it_at_once() {
    for signal in [Signal::INT, Signal::TERM] {
        let server = Server::with(
            &[("html/large", &files::noise(8 << 20))],
            "module = [{ name = \"static\" }]\nerror_log = { level = \"notice\" }\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nroot = \"html\"\n",
        );
        let mut idle = server.connect();
        idle.send("GET /none HTTP/1.1\r\nHost: a\r\n\r\n");
        idle.response().expect(404);
        let mut busy = support::Client::slow(server.address());
        busy.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
        busy.head().unwrap();
        let answer = server.stop(signal);
        assert_eq!(answer.code, Some(0), "{answer:#?}");
        assert!(
            answer.stderr.contains("[notice] ")
                && answer.stderr.contains(&format!(" received from process {}, exiting\n", std::process::id())),
            "{answer:#?}"
        );
        assert!(answer.stdout.contains("\"GET /none HTTP/1.1\" 404 "), "the log is written out: {answer:#?}");
        idle.end();
    }
}

#[test]
fn it_says_where_it_is() {
    let server = Server::start(
        "worker_threads = 2\nmodule = [{ name = \"return\" }]\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\", \"127.0.0.1:PORT2\"]\n",
    );
    let text = server.stderr(|text| text.contains("  modules: ") && text.ends_with('\n'));
    let expected = format!(
        "topnext {VERSION} is ready, pid {}, 1 worker of 2 threads\n  http://{}/\n  http://{}/\n  modules: return {VERSION}\n",
        server.pid(),
        server.address(),
        server.address2()
    );
    assert_eq!(text, expected);
    assert_eq!(server.stop(Signal::TERM).stdout, "");
}

#[test]
fn a_port_in_use() {
    let (one, two) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    for threads in [1, 3] {
        let (one, two) = (one.local_addr().unwrap(), two.local_addr().unwrap());
        let folder = Folder::new();
        let config = format!("worker_threads = {threads}\n[[http.server]]\nlisten = [\"{one}\", \"{two}\"]\n");
        fs::write(folder.path("plugins.toml"), config).unwrap();
        let answer = run(&folder, &[]);
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(1), ""), "{answer:#?}");
        let text = "(98: Address already in use)";
        let expected = format!("topnext: cannot listen on {one}: {text}\ntopnext: cannot listen on {two}: {text}\n");
        assert_eq!(answer.stderr, expected);
    }
}

#[test]
fn two_commands_are_one_too_many() {
    let folder = Folder::with(&[("plugins.toml", b"")]);
    for arguments in
        [&["-t", "-s", "stop"][..], &["-s", "stop", "-t"], &["status", "-s", "reload"], &["-s", "quit", "-s", "stop"]]
    {
        let answer = support::server::answer(support::command(&folder, arguments));
        assert_eq!(answer.code, Some(2), "{answer:#?}");
        assert!(answer.stderr.starts_with("topnext: found two commands; give one at a time\n"), "{answer:#?}");
    }
}
