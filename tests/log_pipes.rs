//! Logs that are pipes: nobody waits for whoever reads them, or does not.

mod support;

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    thread,
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::{Pid, Signal, kill_process},
};
use support::{Client, Folder, PATIENCE, Server, command, eventually};

/// Lines of 4 KB: more of them than a pipe, what is being written to it, and what waits behind that have room for.
const LINES: usize = 1000;

/// A folder with a FIFO in it.
fn with_fifo() -> Folder {
    let folder = Folder::new();
    mknodat(CWD, folder.path("log.fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    folder
}

fn site(listen: &str, access_log: &str) -> String {
    format!(
        r#"
module = [{{ name = "return" }}]
error_log = {{ path = "stderr", level = "info" }}
[http]
log_format = {{ long = "$request_uri" }}
access_log = {{ path = "{access_log}", format = "long" }}
[[http.server]]
listen = ["{listen}"]
large_client_header_buffers = {{ number = 4, size = "16k" }}
keepalive_requests = 100000
return = {{ code = 200, text = "hello" }}
"#
    )
}

fn make_lines(client: &mut Client) {
    let request = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(4000));
    for _ in 0..LINES {
        client.send(&request);
        client.response().expect(200);
    }
}

/// How many lines the log says were lost.
fn lost(stderr: &str, log: &str) -> usize {
    let start = format!("lines of log {log} were lost, since they came faster than it could be written: ");
    stderr.lines().filter_map(|line| line.strip_prefix(&start)).map(|number| number.parse::<usize>().unwrap()).sum()
}

#[test]
fn a_fifo_that_nobody_reads_hurts_nobody_and_what_it_lost_is_said_when_there_is_room() {
    let folder = with_fifo();
    let path = folder.path("log.fifo");
    let name = path.canonicalize().unwrap().display().to_string();
    // It starts without anybody who reads.
    let server = Server::start_in(folder, &site("127.0.0.1:PORT", "log.fifo"));
    make_lines(&mut server.connect());
    // Other logs go on.
    server.signal(Signal::USR1);
    server.get("/").expect(200);
    // Whoever comes now gets what there was room for.
    let reader = thread::spawn(move || {
        let mut lines = BufReader::new(File::open(path).unwrap()).lines();
        let mut whole = 0;
        for line in lines.by_ref().map(Result::unwrap) {
            if line == "/end" {
                break;
            }
            whole += usize::from(line.len() == 4001);
        }
        whole
    });
    server.stderr(|log| lost(log, &name) > 0);
    server.get("/end").expect(200);
    let lost = lost(&server.stderr(|_| true), &name);
    let read = reader.join().unwrap();
    assert!(read >= 256 && lost > 0, "{read} read, {lost} lost");
    assert_eq!(read + lost, LINES);
}

#[test]
fn a_fifo_that_nobody_reads_does_not_keep_the_end_waiting() {
    let folder = with_fifo();
    let name = folder.path("log.fifo").canonicalize().unwrap().display().to_string();
    let server = Server::start_in(folder, &site("127.0.0.1:PORT", "log.fifo"));
    make_lines(&mut server.connect());
    let answer = server.stop(Signal::TERM);
    assert_eq!(answer.code, Some(0));
    let lost = lost(&answer.stderr, &name);
    assert!((LINES - 20..=LINES).contains(&lost), "{lost} lost: {}", answer.stderr);
}

#[test]
fn standard_output_that_nobody_reads_does_not_keep_the_end_waiting() {
    let folder = Folder::new();
    folder.write("plugins.toml", site("unix:front.sock", "stdout").as_bytes());
    let mut child = command(&folder, &[]).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("  modules: ") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it does not start");
    }
    make_lines(&mut Client::unix(&folder.path("front.sock")));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let start = std::time::Instant::now();
    let mut status = None;
    eventually("the end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success() && start.elapsed() < PATIENCE);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert!(lost(&rest, "stdout") >= LINES - 20, "{rest}");
}
