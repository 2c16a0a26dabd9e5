//! The promise to authors: a module is built from a folder anywhere, by plain `cargo build`, and its `.so` is loaded.
//!
//! Each example is copied out of this repository, its one `path` is adjusted, it is built, and the server is started with
//! the example's own topnext.toml: what it says about itself is seen. (The examples' unit tests are run where they are, by
//! .ci/run.)

#[path = "support/build.rs"]
mod build;
mod support;

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use support::{PATIENCE, Server};

/// The names of the examples: all folders in examples/.
fn examples() -> Vec<String> {
    let entries = fs::read_dir(build::root().join("examples")).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().join("Cargo.toml").exists());
    let mut names: Vec<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A copy of an example outside of this repository, removed when it is dropped. Its path is the same in each run, so that
/// what was built for it before is found again.
struct Copied(PathBuf);

impl Copied {
    fn new(name: &str) -> Copied {
        let mut hasher = DefaultHasher::new();
        build::out_of_tree_folder().hash(&mut hasher);
        let folder = std::env::temp_dir().join(format!("topnext-{name}-{:016x}", hasher.finish()));
        let source = build::root().join("examples").join(name);
        for file in ["Cargo.toml", "Cargo.lock", "src/lib.rs", &format!("tests/{name}.rs")] {
            let to = folder.join(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(source.join(file), to).unwrap();
        }
        Copied(folder)
    }

    /// Builds it, as its author would: the folder of the `.so`.
    fn build(&self, name: &str) -> PathBuf {
        let manifest = fs::read_to_string(self.0.join("Cargo.toml")).unwrap();
        let paths: Vec<&str> = manifest.lines().filter(|line| line.contains("path = ")).collect();
        assert_eq!(
            paths,
            ["topnext-module-api = { path = \"../../module-api\" }"],
            "the one path in {name}/Cargo.toml"
        );
        let module_api = build::root().join("module-api");
        let manifest = manifest.replace("path = \"../../module-api\"", &format!("path = {module_api:?}"));
        fs::write(self.0.join("Cargo.toml"), manifest).unwrap();
        // Shared by the examples, so that their dependencies are built once.
        let target = build::out_of_tree_folder();
        build::release(&self.0, &target);
        target.join("release")
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The server with the example's own configuration, in which each `(from, to)` is replaced. `from` must be there.
fn server(name: &str, changes: &[(&str, &str)]) -> Server {
    server_with(name, &[], changes)
}

fn server_with(name: &str, files: &[(&str, &[u8])], changes: &[(&str, &str)]) -> Server {
    let modules = Copied::new(name).build(name);
    let so = modules.join(format!("libtopnext_{name}.so"));
    assert!(so.exists(), "{}", so.display());
    let bundled = support::files::modules();
    let own = fs::read_to_string(build::root().join("examples").join(name).join("topnext.toml")).unwrap();
    let mut config = own.clone();
    for (from, to) in [("127.0.0.1:8080\"", "127.0.0.1:PORT\"")].iter().chain(changes) {
        assert!(config.contains(from), "{from:?} in {own}");
        config = config.replace(from, to);
    }
    let config = format!("module_path = [{modules:?}, {bundled:?}]\n{config}");
    Server::with(files, &config)
}

#[test]
fn hello_filter() {
    let server = server_with("hello_filter", &[("index.html", b"A page.\n")], &[]);
    let response = server.get("/").expect(200);
    assert_eq!(response.field("X-Hello"), Some("from localhost"), "{response:?}");
    assert_eq!(response.text(), "A page.\nGoodbye.\n", "{response:?}");
    let response = server.get("/absent").expect(404);
    assert_eq!(response.field("X-Hello"), Some("from localhost"), "{response:?}");

    let so = build::out_of_tree_folder().join("release/libtopnext_hello_filter.so");
    let inspect = Command::new(support::files::binary()).arg("inspect").arg(so).output().unwrap();
    let text = String::from_utf8_lossy(&inspect.stdout);
    assert!(inspect.status.success(), "{inspect:?}");
    for part in ["hello_filter", "Adds a field to responses, and a line to their end", "What is added to the body."] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

#[test]
fn hello_handler() {
    let server = server("hello_handler", &[]);
    let response = server.get("/hello?name=Ada").expect(200);
    assert_eq!((response.text(), response.field("Content-Type")), ("Hello, Ada!\n", Some("text/plain")));
    assert_eq!(server.get("/hello").expect(200).text(), "Hello, stranger!\n");
    let mut client = server.connect();
    client.send("POST /hello HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nGrace");
    assert_eq!(client.response().expect(200).text(), "Hello, Grace!\n");
    assert_eq!(server.request("PUT", "/hello", "Content-Length: 0\r\n").status, 405);
    drop(server);
    hello_handler_wants_a_body_in_memory_that_another_handler_has_read_into_a_file();
}

fn hello_handler_wants_a_body_in_memory_that_another_handler_has_read_into_a_file() {
    let proxy = "error_page = [{ code = [502], uri = \"@hello\", response = \"=\" }]\n\
                 client_body_in_file_only = \"clean\"\n\
                 [[http.server.location]]\npath = \"/\"\nproxy.pass = \"http://127.0.0.1:PORT2\"\n\
                 [[http.server.location]]\npath = \"@hello\"";
    let modules =
        "[[module]]\nname = \"proxy\"\n[[module]]\nname = \"round_robin\"\n[[module]]\nname = \"hello_handler\"";
    let server = server(
        "hello_handler",
        &[("[[module]]\nname = \"hello_handler\"", modules), ("[[http.server.location]]\npath = \"= /hello\"", proxy)],
    );
    let post = |name: &str| {
        let mut client = server.connect();
        let length = name.len();
        client.send(format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{name}"));
        client.response()
    };
    assert_eq!(post("Grace").expect(200).text(), "Hello, Grace!\n");
    // As long as it may be, and a byte more.
    let longest = "x".repeat(1024);
    assert_eq!(post(&longest).expect(200).text(), format!("Hello, {longest}!\n"));
    post(&format!("{longest}x")).expect(413);
    let files = || fs::read_dir(server.folder.path("client_body_temp")).unwrap().count();
    support::eventually("the files are gone", || files() == 0);
}

#[test]
fn hello_upstream() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Each connection reads one line, and is answered by the next of these.
    let script: [(&str, &[u8]); 3] = [
        ("GET color\r\n", b"OK 5\r\nblue\n"),
        ("GET large\r\n", b"OK 100000\r\nthe peer closes too early"),
        ("GET none\r\n", b"NO\r\n"),
    ];
    let peer = thread::spawn(move || {
        for (request, answer) in script {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut line = String::new();
            let mut stream = BufReader::new(stream);
            stream.read_line(&mut line).unwrap();
            assert_eq!(line, request);
            stream.get_mut().write_all(answer).unwrap();
        }
    });
    let server = server("hello_upstream", &[("\"127.0.0.1:9009\"", &format!("\"127.0.0.1:{port}\""))]);
    let response = server.get("/value/color").expect(200);
    assert_eq!((response.text(), response.field("Content-Length")), ("blue\n", Some("5")));
    let mut client = server.connect();
    client.send("GET /value/large HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(client.try_response_to("GET").is_err(), "an incomplete value is no complete response");
    assert_eq!(server.get("/value/none").status, 502);
    assert_eq!(server.get("/value/two%20words").status, 400);
    peer.join().unwrap();
}

/// An HTTP peer that answers each request with its name, as soon as the test lets it.
struct Peer {
    port: u16,
    busy: mpsc::Receiver<()>,
    let_go: mpsc::Sender<()>,
}

fn http_peer(name: &'static str, waits: bool) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let ((is_busy, busy), (let_go, gone)) = (mpsc::channel(), mpsc::channel());
    // It ends with the process of the test.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            read_head(&mut stream);
            let _ = is_busy.send(());
            if waits && gone.recv().is_err() {
                return;
            }
            let length = name.len();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}");
        }
    });
    Peer { port, busy, let_go }
}

fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
}

#[test]
fn hello_balancer() {
    let (slow, fast, third) = (http_peer("slow", true), http_peer("fast", false), http_peer("third", false));
    let address = |peer: &Peer| format!("\"127.0.0.1:{}\"", peer.port);
    let server = server(
        "hello_balancer",
        &[
            ("\"127.0.0.1:9001\"", &address(&slow)),
            ("\"127.0.0.1:9002\"", &address(&fast)),
            (", { address = \"127.0.0.1:9003\" }", ""),
        ],
    );
    drop(third);
    // Both are free: round_robin begins with the first, which then is busy.
    let mut first = server.connect();
    first.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    slow.busy.recv_timeout(PATIENCE).expect("the first request goes to the first peer");
    // Now the second one has the fewest connections, always; round_robin alone would take turns.
    for _ in 0..6 {
        assert_eq!(server.get("/").expect(200).text(), "fast");
    }
    slow.let_go.send(()).unwrap();
    assert_eq!(first.response().expect(200).text(), "slow");
    // Both are free again: they take turns.
    let answers = thread::scope(|scope| {
        let two: Vec<_> = (0..2).map(|_| scope.spawn(|| server.get("/").expect(200).text().to_owned())).collect();
        slow.busy.recv_timeout(PATIENCE).expect("one of two requests goes to the first peer");
        slow.let_go.send(()).unwrap();
        let mut answers: Vec<String> = two.into_iter().map(|one| one.join().unwrap()).collect();
        answers.sort();
        answers
    });
    assert_eq!(answers, ["fast", "slow"]);
}

#[test]
fn every_example_is_small_and_tested_here() {
    for name in examples() {
        let source = fs::read_to_string(build::root().join("examples").join(&name).join("src/lib.rs")).unwrap();
        // Comments and empty lines count as well.
        let lines = source.lines().count();
        assert!(lines <= 60, "{name}: {lines} lines");
        assert!(source.contains("#![forbid(unsafe_code)]"), "{name}");
    }
    assert_eq!(examples(), ["hello_balancer", "hello_filter", "hello_handler", "hello_upstream"], "tests of this file");
}
