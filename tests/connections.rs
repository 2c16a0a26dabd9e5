//! What happens when connections or descriptors run out: idle connections give way, others wait or are turned away, and
//! the server goes on when there is room again.

mod support;

use std::collections::HashSet;
use std::fs;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use support::proxied::{OK, TOP};
use support::{Client, Ending, Server, eventually, peer::Peer};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// One loop, which has a listening socket and the signals beside its connections.
fn start(worker_connections: u32) -> Server {
    Server::start(&format!(
        r#"
module = [{{ name = "return" }}]
worker_threads = 1
error_log = {{ path = "stderr", level = "info" }}
worker_connections = {worker_connections}
[[http.server]]
listen = ["127.0.0.1:PORT"]
return = {{ code = 200, text = "$connection" }}
"#
    ))
}

/// A client that has had an answer, and stays: its connection is idle.
fn idle(server: &Server) -> Client {
    let mut client = server.connect();
    client.send(GET);
    client.response().expect(200);
    client
}

/// A client that has sent the half of a request: its connection is busy.
fn busy(server: &Server) -> Client {
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHo");
    client
}

/// Lets the server have so many descriptors more than it has.
fn limit_descriptors(server: &Server, more: usize) {
    // What is bounded are their numbers, and the lowest free one is taken.
    let open = fs::read_dir(format!("/proc/{}/fd", server.worker())).unwrap();
    let open: HashSet<u64> = open.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    let last = (0..).filter(|number| !open.contains(number)).nth(more - 1).unwrap();
    let limit = Rlimit { current: Some(last + 1), maximum: Some(last + 1) };
    let pid = i32::try_from(server.worker()).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

/// The time that the server has had of processors, in ticks of a hundredth of a second.
fn cpu_ticks(server: &Server) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.worker())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn idle_connections_give_way_to_new_ones() {
    let server = start(32);
    let mut clients: Vec<Client> = (0..28).map(|_| idle(&server)).collect();
    assert!(!server.stderr(|_| true).contains("not enough"));
    // Each of these finds room.
    let more: Vec<Client> = (0..100).map(|_| idle(&server)).collect();
    server.stderr(|log| {
        log.contains("[warn] ") && log.contains("32 worker_connections are not enough, reusing connections")
    });
    assert!(!server.stderr(|_| true).contains("[alert]"));
    // The first ones have gone, in good order.
    assert_eq!(clients[0].end(), Ending::Closed);
    drop((clients, more));
}

#[test]
fn busy_connections_stay_and_new_ones_are_turned_away() {
    let server = start(16);
    let mut clients: Vec<Client> = (0..15).map(|_| busy(&server)).collect();
    let mut one_more = server.connect();
    one_more.end();
    server.stderr(|log| log.contains("[alert] ") && log.contains("16 worker_connections are not enough\n"));
    // As soon as one is idle, it is the one that goes.
    clients[0].send("st: a\r\n\r\n");
    clients[0].response().expect(200);
    assert_eq!(server.get("/").expect(200).status, 200);
    assert_eq!(clients[0].end(), Ending::Closed);
    for client in &mut clients[1..] {
        client.send("st: a\r\n\r\n");
        client.response().expect(200);
    }
}

#[test]
fn without_room_for_an_upstream_connection_the_answer_is_500() {
    let peer = Peer::new();
    let server = Server::start(&format!(
        "worker_connections = 16\n{}[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nproxy.pass = \"http://127.0.0.1:{}\"\n",
        TOP.replace("worker_threads = 2", "worker_threads = 1"),
        peer.port
    ));
    // 15 are left, of which this takes 12.
    let mut pairs = Vec::new();
    for _ in 0..6 {
        let mut client = server.connect();
        client.send(GET);
        let mut connection = peer.accept();
        connection.head();
        pairs.push((client, connection));
    }
    let two_more = [busy(&server), busy(&server)];
    let mut client = server.connect();
    client.send(GET);
    client.response().expect(500);
    let text = "16 worker_connections are not enough while connecting to upstream, client: 127.0.0.1";
    server.stderr(|log| log.contains("[alert] ") && log.contains(text));
    // With room it goes on.
    drop(two_more);
    server.stderr(|log| log.contains("client closed the connection while sending a request head"));
    assert_eq!(client.end(), Ending::Closed, "as nginx behind 500");
    let mut client = server.connect();
    client.send(GET);
    let mut connection = peer.accept();
    connection.head();
    connection.reply(OK);
    client.response().expect(200);
    drop(pairs);
}

#[test]
fn without_descriptors_accepting_goes_on_when_there_are_some_again() {
    let server = start(1024);
    limit_descriptors(&server, 10);
    let mut clients: Vec<Client> = (0..40).map(|_| busy(&server)).collect();
    // Twice: it is tried again.
    let failed = |log: &str| log.matches("failed (24: Too many open files)").count();
    server.stderr(|log| log.contains("[crit] ") && failed(log) >= 2);
    let (ticks, tries) = (cpu_ticks(&server), server.stderr(|log| failed(log) >= 2).lines().count());
    server.stderr(|log| log.lines().count() >= tries + 3);
    let used = cpu_ticks(&server) - ticks;
    assert!(used < 30, "{used} ticks in more than a second of waiting: it spins");
    // Those that were accepted are served, and each that goes lets another one in.
    for client in &mut clients {
        client.send("st: a\r\nConnection: close\r\n\r\n");
        client.response().expect(200);
        assert_eq!(client.end(), Ending::Closed);
    }
    server.get("/").expect(200);
}

#[test]
fn without_descriptors_idle_connections_give_way() {
    let server = start(1024);
    limit_descriptors(&server, 10);
    let mut clients: Vec<Client> = (0..40).map(|_| idle(&server)).collect();
    assert_eq!(clients[0].end(), Ending::Closed);
    server.stderr(|log| log.contains("[crit] ") && log.contains("failed (24: Too many open files)"));
    // The last ones are there.
    clients[39].send(GET);
    clients[39].response().expect(200);
    drop(clients);
    eventually("all are closed", || server.get("/").status == 200 && server.open_files() < 20);
}

#[test]
fn too_few_connections_for_the_listening_sockets() {
    let folder = support::Folder::new();
    let listen: Vec<String> = (0..16).map(|n| format!("\"unix:{n}\"")).collect();
    let config =
        format!("worker_connections = 16\nworker_threads = 1\n[[http.server]]\nlisten = [{}]\n", listen.join(", "));
    folder.write("plugins.toml", config.as_bytes());
    let answer = support::server::answer(support::command(&folder, &[]));
    let text = "plugins.toml:1:22: worker_connections: found 16, expected more than the 16 sockets that each thread listens on";
    assert!(answer.stderr.starts_with(text), "{answer:#?}");
    assert!(!folder.path("0").exists());
}
