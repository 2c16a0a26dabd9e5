//! Bodies of requests: in memory, in a file, too large, cut short, and on their way to peers.

#[path = "support/build.rs"]
mod build;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use support::peer::{Connection, Peer};
use support::proxied::{OK, TOP, at, balanced, proxied};
use support::{Client, Ending, Folder, PATIENCE, Response, Server, eventually, files};

/// What a body is kept in if it does not fit into memory.
const TEMP: &str = "client_body_temp";

/// Where a small buffer makes small bodies large.
const SMALL: &str = "client_body_buffer_size = \"4k\"\nclient_max_body_size = 0\n";

/// The head of a request with a body of this length.
fn post(length: usize) -> String {
    format!("POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
}

/// A body in chunks of this size.
fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(size) {
        out.extend(format!("{:x}\r\n", chunk.len()).bytes());
        out.extend(chunk);
        out.extend(b"\r\n");
    }
    out.extend(b"0\r\nX-Trailer: dropped\r\n\r\n");
    out
}

/// Reads a request with this body, whole.
fn expect_body(connection: &mut Connection, body: &[u8]) {
    let head = connection.head();
    let length = format!("\r\nContent-Length: {}\r\n", body.len());
    assert!(head.contains(&length), "{head}");
    assert!(!head.contains("X-Trailer"), "{head}");
    let mut rest = body;
    let mut buffer = vec![0; 256 * 1024];
    while !rest.is_empty() {
        let n = connection.read(&mut buffer).unwrap();
        assert!(n > 0 && n <= rest.len(), "{n} bytes, {} to come", rest.len());
        assert!(buffer[..n] == rest[..n], "other bytes, {} before the end", rest.len());
        rest = &rest[n..];
    }
}

/// Sends a request while the peer reads it, and takes the answer.
fn passes(peer: &Peer, server: &Server, head: &str, sent: &[u8], body: &[u8]) -> Response {
    let mut client = server.connect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = peer.accept();
            expect_body(&mut connection, body);
            connection.reply("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        });
        client.send(head);
        client.send(sent);
        client.response_to("POST").expect(200)
    })
}

/// The files in the folder for bodies.
fn temporary(server: &Server) -> Vec<String> {
    open_files(server).into_iter().filter(|name| name.contains(TEMP)).collect()
}

/// What the descriptors of a process lead to.
fn open_files(server: &Server) -> Vec<String> {
    let folder = fs::read_dir(format!("/proc/{}/fd", server.worker())).unwrap();
    let target = |entry: std::io::Result<fs::DirEntry>| fs::read_link(entry.ok()?.path()).ok();
    folder.filter_map(target).map(|path| path.to_string_lossy().into_owned()).collect()
}

// ---- in memory, for a module that looks into it

/// A server whose handler answers with the body, and takes at most 8 KB.
fn echoing(echo: &str) -> Server {
    Server::start(&format!(
        r#"
worker_threads = 1

[[module]]
name = "echo"
path = {:?}

[[http.server]]
listen = ["127.0.0.1:PORT"]
client_body_buffer_size = "4k"

[[http.server.location]]
path = "/"
echo = {{ max = "8k", {echo} }}
"#,
        build::module("echo")
    ))
}

#[test]
fn a_module_gets_no_more_in_memory_than_it_takes_however_the_body_comes() {
    for echo in ["twice = false", "twice = true"] {
        let server = echoing(echo);
        let noise = files::noise(9000);
        for (length, status) in [(1, 200), (4096, 200), (4097, 200), (8192, 200), (8193, 413), (9000, 413)] {
            let body = &noise[..length];
            let in_chunks =
                "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".to_string();
            for (head, sent) in [(post(length), body.to_vec()), (in_chunks, chunked(body, 1000))] {
                let mut client = server.connect();
                client.send(head);
                // One that is refused may not be read to its end.
                client.try_send(sent);
                let response = client.response_to("POST").expect(status);
                assert!(status != 200 || response.body == body, "{echo}, {length} bytes");
            }
        }
    }
}

#[test]
fn a_client_that_closes_its_side_gets_its_answer_from_a_handler_that_takes_its_time() {
    let server = echoing("pause = \"300ms\"");
    let mut client = server.connect();
    client.send("POST /late HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
    // When the handler waits already, the end is an event of its own.
    client.finish();
    assert_eq!(client.response_to("POST").expect(200).body, b"ab");
    // One that is gone is not waited for.
    let mut client = server.connect();
    client.send("POST /gone HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
    client.reset();
    server.stdout(|log| log.contains("/gone HTTP/1.1\" 499 "));
}

// ---- memory and files

#[test]
fn a_body_up_to_client_body_buffer_size_stays_in_memory_and_one_byte_more_does_not() {
    let (peer, server) = proxied(SMALL);
    let noise = files::noise(9000);
    for (length, in_file) in [(1, false), (4095, false), (4096, false), (4097, true), (8192, true), (9000, true)] {
        let warnings = |log: &str| log.matches("is buffered to a temporary file").count();
        let before = warnings(&server.stderr(|_| true));
        let body = &noise[..length];
        passes(&peer, &server, &post(length), body, body);
        let chunks = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        passes(&peer, &server, chunks, &chunked(body, 1000), body);
        let expected = before + 2 * usize::from(in_file);
        let log = server.stderr(|log| warnings(log) >= expected);
        assert_eq!(warnings(&log), expected, "{length} bytes: {log}");
    }
    eventually("all files are closed", || temporary(&server).is_empty());
}

#[test]
fn a_slow_body_byte_by_byte() {
    let (peer, server) = proxied("client_body_buffer_size = \"1k\"");
    let body = files::noise(3000);
    let mut client = server.connect();
    client.send(post(body.len()));
    client.send_pieces(body.chunks(1));
    let mut connection = peer.accept();
    expect_body(&mut connection, &body);
    connection.reply(OK);
    client.response_to("POST").expect(200);
}

#[test]
fn a_hundred_megabytes_pass_and_cost_no_memory() {
    let (peer, server) = proxied("client_max_body_size = 0");
    let body = files::noise(100 << 20);
    let small = &body[..100_000];
    passes(&peer, &server, &post(small.len()), small, small);
    let before = server.peak_memory_kb();
    passes(&peer, &server, &post(body.len()), &body, &body);
    let most = server.peak_memory_kb();
    assert!(most < before + 8 * 1024, "{before} kB before, {most} kB at the most");
    eventually("its file is closed", || temporary(&server).is_empty());
}

#[test]
fn two_bodies_in_files_on_one_connection() {
    let (peer, server) = proxied(SMALL);
    let bodies = [files::noise(20_000), files::noise(30_000)];
    let mut client = server.connect();
    for body in &bodies {
        client.send(post(body.len()));
        client.send(body);
    }
    let mut connection = peer.accept();
    for body in &bodies {
        expect_body(&mut connection, body);
        connection.reply(OK);
    }
    // Both went over one connection to the peer.
    client.response_to("POST").expect(200);
    client.response_to("POST").expect(200);
}

#[test]
fn a_body_in_a_file_goes_to_the_next_peer_as_well() {
    let (first, second) = (Peer::new(), Peer::new());
    let servers = [at(first.port, ", weight = 100"), at(second.port, "")];
    let server = balanced(&servers, "", &format!("{SMALL}sendfile = true"));
    let body = files::noise(300_000);
    let mut client = server.connect();
    client.send(format!("PUT /b HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
    client.send(&body);
    // The first has it all, and closes instead of an answer.
    let mut connection = first.accept();
    expect_body(&mut connection, &body);
    drop(connection);
    let mut connection = second.accept();
    expect_body(&mut connection, &body);
    connection.reply(OK);
    client.response_to("PUT").expect(200);
}

#[test]
fn without_sendfile() {
    let (peer, server) = proxied(&format!("{SMALL}sendfile = false"));
    let body = files::noise(500_000);
    passes(&peer, &server, &post(body.len()), &body, &body);
}

// ---- files with names

#[test]
fn client_body_in_file_only() {
    for (value, left) in [("clean", 0), ("on", 1)] {
        let peer = Peer::new();
        let folder = Folder::new();
        let path = folder.path("");
        let server = Server::start_in(
            folder,
            &format!(
                "{TOP}[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nproxy.pass = \"http://127.0.0.1:{}\"\n\
                 client_body_in_file_only = \"{value}\"\n\
                 client_body_temp_path = {{ path = \"bodies\", levels = [1, 2] }}\n",
                peer.port
            ),
        );
        passes(&peer, &server, &post(5), b"hello", b"hello");
        let found = || all_files(&path.join("bodies"));
        eventually("the file is removed, or stays", || found().len() == left);
        for file in found() {
            assert_eq!(fs::read(&file).unwrap(), b"hello");
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            let name = file.strip_prefix(&path).unwrap().to_str().unwrap().to_owned();
            let parts: Vec<&str> = name.split('/').collect();
            assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [6, 1, 2, 10], "{name}");
        }
    }
}

fn all_files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { all_files(&path) } else { vec![path] }).collect()
}

// ---- what goes wrong

#[test]
fn client_max_body_size_holds_to_the_byte_also_in_chunks() {
    let (peer, server) = proxied("client_max_body_size = 5000\nclient_body_buffer_size = \"1k\"");
    let body = files::noise(5001);
    let head = "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    passes(&peer, &server, &post(5000), &body[..5000], &body[..5000]);
    passes(&peer, &server, head, &chunked(&body[..5000], 700), &body[..5000]);
    let mut client = server.connect();
    client.send(post(5001));
    client.response_to("POST").expect(413);
    let mut client = server.connect();
    client.send(head);
    client.send(chunked(&body, 700));
    let response = client.response_to("POST").expect(413);
    assert_eq!(response.field("Connection"), Some("close"));
    peer.expect_no_connection();
}

#[test]
fn a_folder_that_cannot_be_made_gives_500_and_one_line() {
    let (peer, server) = proxied(&format!("{SMALL}client_body_temp_path = \"/proc/topnext/none\""));
    let body = files::noise(100_000);
    let mut client = server.connect();
    client.send(post(body.len()));
    let _ = client.try_send(&body);
    client.response_to("POST").expect(500);
    let text = "cannot be kept in a temporary file in \"/proc/topnext/none\" (2: No such file or directory)";
    let log = server.stderr(|log| log.contains(text));
    assert_eq!(log.matches("temporary file in").count(), 1, "{log}");
    peer.expect_no_connection();
    // A body that fits into memory needs no file.
    passes(&peer, &server, &post(5), b"hello", b"hello");
}

#[test]
fn a_full_disk_gives_500_and_the_server_goes_on() {
    let (peer, server) = proxied(SMALL);
    // No file of this process can grow beyond this: what is written fails, as on a full disk.
    let pid = rustix::process::Pid::from_raw(server.worker().cast_signed());
    let limit = rustix::process::Rlimit { current: Some(64 * 1024), maximum: Some(64 * 1024) };
    rustix::process::prlimit(pid, rustix::process::Resource::Fsize, limit).unwrap();
    let body = files::noise(300_000);
    let mut client = server.connect();
    client.send(post(body.len()));
    let _ = client.try_send(&body);
    client.response_to("POST").expect(500);
    server.stderr(|log| log.contains("cannot be kept in a temporary file in") && log.contains("File too large"));
    peer.expect_no_connection();
    passes(&peer, &server, &post(5000), &body[..5000], &body[..5000]);
    eventually("its file is closed", || temporary(&server).is_empty());
}

#[test]
fn clients_that_leave_in_their_bodies_leave_nothing_behind() {
    let (peer, server) = proxied(SMALL);
    let body = files::noise(50_000);
    for (index, sent) in [0, 1, 4095, 4096, 4097, 20_000, 49_999].into_iter().enumerate() {
        for reset in [false, true] {
            let mut client = server.connect();
            client.send(post(body.len()));
            client.send(&body[..sent]);
            if reset { client.reset() } else { drop(client) }
        }
        let gone = 2 * (index + 1);
        server.stdout(|log| log.matches("\"POST /b HTTP/1.1\" 400 0 ").count() == gone);
    }
    eventually("all files are closed", || temporary(&server).is_empty());
    peer.expect_no_connection();
    passes(&peer, &server, &post(body.len()), &body, &body);
}

#[test]
fn client_body_timeout_counts_between_two_reads() {
    let (peer, server) = proxied("client_body_timeout = \"1500ms\"");
    let mut client = server.connect();
    let start = Instant::now();
    client.send(post(8));
    for _ in 0..8 {
        client.send("x");
        // Less than the time-out, and all together more.
        std::thread::sleep(Duration::from_millis(200));
    }
    let mut connection = peer.accept();
    expect_body(&mut connection, b"xxxxxxxx");
    connection.reply(OK);
    client.response_to("POST").expect(200);
    assert!(start.elapsed() > Duration::from_millis(1500));
    let mut client = server.connect();
    client.send(post(8));
    client.send("x");
    assert_eq!(client.end(), Ending::Closed);
    server.stdout(|log| log.contains("\"POST /b HTTP/1.1\" 408 0 "));
}

// ---- bodies that nobody reads

/// Serves a large file, whatever the method of the request would do with a body.
const LARGE: &str = r#"
module = [{ name = "static" }]
worker_threads = 1
error_log = { level = "info" }
[[http.server]]
listen = ["127.0.0.1:PORT"]
root = "html"
client_max_body_size = 0
"#;

#[test]
fn a_client_that_sends_all_before_it_reads_gets_its_large_response() {
    let file = files::noise(24 << 20);
    let server = Server::with(&[("html/large", &file)], LARGE);
    let body = files::noise(40 << 20);
    let mut client = Client::slow(server.address());
    for chunks in [false, true] {
        let framing =
            if chunks { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {}", body.len()) };
        client.send(format!("GET /large HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        // Neither side reads what the other sends, if nothing is done about it.
        let started = Instant::now();
        if chunks {
            client.send(chunked(&body, 1 << 20))
        } else {
            client.send(&body)
        }
        let response = client.response().expect(200);
        assert!(response.body == file, "{} bytes", response.body.len());
        assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
        // And the connection goes on.
        client.send("GET /none HTTP/1.1\r\nHost: a\r\n\r\n");
        client.response().expect(404);
    }
}
