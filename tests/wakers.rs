//! Modules that are woken from threads of their own and by jobs of the thread pool: in time, too often, and too late.
//!
//! What the module does is said in tests/modules/wakes.

#[path = "support/build.rs"]
mod build;
mod support;

use std::thread;

use support::{Server, eventually};

fn server(threads: u32) -> Server {
    Server::start(&format!(
        r#"
worker_threads = {threads}

[[module]]
name = "return"
[[module]]
name = "wakes"
path = {:?}

[[http.server]]
listen = ["127.0.0.1:PORT"]
access_log = "off"

[[http.server.location]]
path = "/"
wakes = {{}}

[[http.server.location]]
path = "= /bufs"
return = {{ code = 200, text = "$live_bufs bufs, $module_panics panics" }}
"#,
        build::module("wakes")
    ))
}

/// Waits until the module, or the server, says this.
#[track_caller]
fn comes_to(server: &Server, path: &str, wanted: &str) {
    eventually(&format!("{path} says {wanted:?}"), || server.get(path).expect(200).text() == wanted);
}

/// Nothing is left of requests that have ended: contexts, threads, bufs.
#[track_caller]
fn all_is_gone(server: &Server, jobs: u32) {
    comes_to(server, "/state", &format!("contexts 0, threads 0, jobs {jobs}\n"));
    comes_to(server, "/bufs", "0 bufs, 0 panics");
}

#[test]
fn a_handler_is_woken_by_a_thread() {
    let server = server(1);
    for _ in 0..20 {
        assert_eq!(server.get("/?do=thread").expect(200).text(), "woken true\n");
    }
    all_is_gone(&server, 0);
}

#[test]
fn a_filter_is_woken_by_a_thread() {
    let server = server(1);
    let mut client = server.connect();
    for _ in 0..20 {
        client.send("GET /?do=filter HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(client.response().expect(200).text(), "held\n");
    }
    all_is_gone(&server, 0);
}

#[test]
fn a_handler_whose_output_has_left_is_asked_for_more() {
    let server = server(1);
    let mut client = server.connect();
    // All leaves as soon as the handler waits, so that no event of the socket tells of the room.
    for _ in 0..20 {
        client.send("GET /?do=room HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(client.response().expect(200).text(), "first last");
    }
    all_is_gone(&server, 0);
}

#[test]
fn ten_thousand_wakes_and_as_many_behind_the_end() {
    let server = server(2);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    // At most one call for each wake.
                    assert_eq!(server.get("/?do=many").expect(200).text(), "woken true\n");
                    assert_eq!(server.get("/?do=filter").expect(200).text(), "held\n");
                }
            });
        }
    });
    all_is_gone(&server, 0);
}

#[test]
fn wakes_of_a_request_that_has_ended_are_dropped() {
    let server = server(1);
    // On one connection, so that the next request takes over the memory of the one before while it is still woken.
    let mut client = server.connect();
    for _ in 0..50 {
        client.send("GET /?do=late HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(client.response().expect(200).text(), "late\n");
    }
    all_is_gone(&server, 0);
}

#[test]
fn a_client_that_goes_while_a_job_runs() {
    let server = server(1);
    let open = server.open_files();
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = server.connect();
        client.send("GET /?do=job HTTP/1.1\r\nHost: localhost\r\n\r\n");
        clients.push(client);
    }
    comes_to(&server, "/state", "contexts 5, threads 0, jobs 0\n");
    let mut stays = clients.pop().unwrap();
    let closes = clients.pop().unwrap();
    for client in clients {
        client.reset();
    }
    drop(closes);
    assert_eq!(server.get("/?do=open").expect(200).text(), "open\n");
    assert_eq!(stays.response().expect(200).text(), "job 7\n");
    drop(stays);
    all_is_gone(&server, 5);
    eventually("no file stays open", || server.open_files() <= open);
}

#[test]
fn a_job_whose_request_has_ended() {
    let server = server(1);
    for _ in 0..5 {
        assert_eq!(server.get("/?do=forget").expect(200).text(), "forgotten true\n");
    }
    all_is_gone(&server, 0);
    assert_eq!(server.get("/?do=open").expect(200).text(), "open\n");
    all_is_gone(&server, 5);
}

#[test]
fn a_thread_that_panics_is_logged_and_harms_nobody() {
    let server = server(1);
    assert_eq!(server.get("/?do=panic").expect(200).text(), "started\n");
    let source = std::fs::read_to_string(build::root().join("tests/modules/wakes/src/lib.rs")).unwrap();
    let line = source.lines().position(|line| line.ends_with("// in thread")).unwrap() + 1;
    let text = "wakes: a thread of the module panicked outside of any hook: in a thread of its own, at src/lib.rs:";
    let log = server.stderr(|log| log.contains(&format!("{text}{line}\n")));
    assert_eq!(log.matches(&format!("src/lib.rs:{line}")).count(), 1, "{log}");
    all_is_gone(&server, 0);
}

#[test]
fn the_server_ends_while_jobs_and_threads_wait() {
    let server = server(1);
    assert_eq!(server.get("/?do=forget").expect(200).text(), "forgotten true\n");
    let mut client = server.connect();
    client.send("GET /?do=job HTTP/1.1\r\nHost: localhost\r\n\r\n");
    comes_to(&server, "/state", "contexts 1, threads 0, jobs 0\n");
    let answer = server.stop(rustix::process::Signal::TERM);
    assert_eq!(answer.code, Some(0), "{answer:#?}");
}
