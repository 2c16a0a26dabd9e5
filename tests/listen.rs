//! Listening: IPv4, IPv6 and unix sockets, the options of `listen`, several servers on one address, and what is said of
//! addresses that cannot be had.

mod support;

use std::fs;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::process::Signal;
use support::server::answer;
use support::{Client, Folder, Server, command};

/// A server that answers with the addresses of a connection, as text.
const ADDRESSES: &str = "module = [{ name = \"return\" }, { name = \"headers\" }]\nworker_threads = 1\n\
    [[http.server]]\nreturn = { code = 200, text = \"$server_addr|$server_port|$remote_addr|$remote_port|$binary_remote_addr|$server_name\" }\n";

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// The answer to GET on this connection, field by field.
fn fields(client: &mut Client) -> Vec<Vec<u8>> {
    client.send(GET);
    let body = client.response().expect(200).body;
    // The binary address may hold the mark as well: none of these tests connects from one that does.
    body.split(|&byte| byte == b'|').map(<[u8]>::to_vec).collect()
}

fn texts(fields: &[Vec<u8>]) -> Vec<String> {
    fields.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect()
}

fn start(listen: &str) -> Server {
    Server::start(&format!("{ADDRESSES}server_name = [\"one\"]\nlisten = [{listen}]\n"))
}

/// What the server says when it cannot listen.
fn refused(folder: &Folder, listen: &str) -> String {
    folder.write("plugins.toml", format!("[[http.server]]\nlisten = [{listen}]\n").as_bytes());
    let answer = answer(command(folder, &[]));
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(1), ""), "{answer:#?}");
    folder.hide(&answer.stderr)
}

/// A port that is free on IPv6, which this machine may not have.
fn free_port_v6() -> Option<u16> {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).ok()?;
    Some(listener.local_addr().unwrap().port())
}

#[test]
fn addresses_of_a_connection_on_ipv4() {
    let server = start("\"127.0.0.1:PORT\"");
    let mut client = server.connect();
    let port = client.stream.local_addr().unwrap().port();
    let got = fields(&mut client);
    let own = server.port.to_string();
    assert_eq!(texts(&got[..4]), ["127.0.0.1", own.as_str(), "127.0.0.1", &port.to_string()]);
    assert_eq!(got[4], [127, 0, 0, 1]);
    assert_eq!(texts(&got[5..]), ["one"]);
    assert_eq!(got, fields(&mut client), "the same on the same connection");
}

#[test]
fn on_a_wildcard_server_addr_is_the_address_that_the_client_came_to() {
    let server = start("\"PORT\"");
    let mut one = Client::connect(SocketAddr::from(([127, 0, 0, 1], server.port)));
    let mut other = Client::connect(SocketAddr::from(([127, 0, 0, 2], server.port)));
    assert_eq!(texts(&fields(&mut one))[..2], ["127.0.0.1".to_string(), server.port.to_string()]);
    assert_eq!(texts(&fields(&mut other))[..2], ["127.0.0.2".to_string(), server.port.to_string()]);
    assert_eq!(texts(&fields(&mut one))[0], "127.0.0.1");
}

#[test]
fn ipv6() {
    let Some(port) = free_port_v6() else { return };
    let server = start(&format!("\"[::1]:{port}\""));
    let mut client = Client::connect(SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    let got = fields(&mut client);
    assert_eq!(texts(&got[..3]), ["::1", port.to_string().as_str(), "::1"]);
    assert_eq!(got[4], Ipv6Addr::LOCALHOST.octets());
    assert!(server.stderr(|_| true).contains(&format!("  http://[::1]:{port}/\n")));
}

#[test]
fn ipv6only_false_takes_ipv4_as_well() {
    let Some(port) = free_port_v6() else { return };
    let server = start(&format!("{{ address = \"[::]:{port}\", ipv6only = false }}"));
    let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], port)));
    assert_eq!(texts(&fields(&mut client))[..3], ["::ffff:127.0.0.1", &port.to_string(), "::ffff:127.0.0.1"]);
    let mut client = Client::connect(SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    assert_eq!(texts(&fields(&mut client))[0], "::1");
    drop(server);
    // The default leaves IPv4 to others.
    let Some(port) = free_port_v6() else { return };
    let server = start(&format!("\"[::]:{port}\", \"127.0.0.1:PORT\""));
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    drop(server);
}

#[test]
fn a_unix_socket() {
    for threads in [1, 3] {
        let config = ADDRESSES.replace("worker_threads = 1", &format!("worker_threads = {threads}"));
        let server = Server::start(&format!("{config}server_name = [\"one\"]\nlisten = [\"unix:site.sock\"]\n"));
        let path = server.folder.path("site.sock");
        let shown = format!("unix:{}", path.display());
        assert!(server.stderr(|_| true).contains(&format!("  http://{shown}:/\n")));
        let metadata = fs::metadata(&path).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o666);
        for _ in 0..20 {
            let mut client = Client::unix(&path);
            for _ in 0..2 {
                assert_eq!(texts(&fields(&mut client)), [shown.as_str(), "", "unix:", "", "unix:", "one"]);
            }
        }
        let log = server.stdout(|text| text.lines().count() >= 40);
        assert!(log.starts_with("unix: - - ["), "{log}");
    }
}

#[test]
fn a_socket_file_goes_with_its_server() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    for signal in [Signal::QUIT, Signal::TERM, Signal::INT] {
        let server = start(&format!("\"unix:{}\"", path.display()));
        assert!(path.exists());
        server.stop(signal);
        assert!(!path.exists(), "{signal:?}");
    }
}

#[test]
fn a_large_file_and_a_post_on_a_unix_socket() {
    let body: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 7) as u8).collect();
    let server = Server::with(
        &[("html/large", &body)],
        "module = [{ name = \"static\" }]\n[[http.server]]\nlisten = [\"unix:a.sock\"]\nroot = \"html\"\n",
    );
    let mut client = Client::unix(&server.folder.path("a.sock"));
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.response().expect(200).body == body);
    client.send("POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    client.response().expect(405);
    client.send("GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(client.response().expect(200).body == body);
    assert_eq!(client.end(), support::Ending::Closed);
}

#[test]
fn a_socket_file_that_nobody_listens_on_is_replaced() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    drop(UnixListener::bind(&path).unwrap());
    let server = start(&format!("\"unix:{}\"", path.display()));
    fields(&mut Client::unix(&path));
    // One of this name that is another's by then is left to it.
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    server.stop(Signal::TERM);
    UnixStream::connect(&path).unwrap();
    drop(other);
}

#[test]
fn a_socket_file_that_somebody_listens_on() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let text = refused(&folder, "\"unix:a.sock\"");
    assert_eq!(text, "topnext: cannot listen on unix:DIR/a.sock: another process listens on this socket\n");
    UnixStream::connect(&path).unwrap();
    drop(listener);
    assert!(path.exists(), "it belongs to whoever listened");
}

#[test]
fn addresses_that_cannot_be_had_are_named_at_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let folder = Folder::new();
    folder.write("file", b"x");
    let text = refused(
        &folder,
        &format!("\"unix:file\", \"{taken}\", \"unix:none/a.sock\", \"unix:good.sock\", \"192.0.2.1:80\""),
    );
    let expected = format!(
        "topnext: cannot listen on unix:DIR/file: there is a file that is not a socket\n\
         topnext: cannot listen on {taken}: (98: Address already in use)\n\
         topnext: cannot listen on 192.0.2.1:80: (99: Cannot assign requested address)\n\
         topnext: cannot listen on unix:DIR/none/a.sock: (2: No such file or directory)\n"
    );
    assert_eq!(text, expected);
    assert_eq!(fs::read(folder.path("file")).unwrap(), b"x");
    assert!(!folder.path("good.sock").exists(), "what could be had is given back");
}

#[test]
fn a_path_that_does_not_fit() {
    let long = "a".repeat(108);
    let errors = Server::fails(&format!("[[http.server]]\nlisten = [\"unix:{long}\"]\n"));
    assert!(errors.starts_with("plugins.toml:2:11: http.server.listen: found a socket path of "), "{errors}");
    assert!(errors.ends_with("; at most 107 are possible\n"), "{errors}");
}

#[test]
fn two_servers_on_one_address() {
    let server = Server::start(
        r#"
module = [{ name = "return" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
server_name = ["one"]
return = { code = 200, text = "$server_name" }
[[http.server]]
listen = [{ address = "127.0.0.1:PORT", default_server = true, backlog = 100 }]
server_name = ["two"]
return = { code = 200, text = "$server_name" }
[[http.server]]
listen = [{ address = "127.0.0.1:PORT", backlog = 100 }, "unix:a.sock"]
server_name = ["three"]
return = { code = 200, text = "$server_name" }
"#,
    );
    let name = |client: &mut Client, host: &str| {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.response().text().to_owned()
    };
    let mut tcp = server.connect();
    for (host, expected) in [("one", "one"), ("two", "two"), ("three", "three"), ("four", "two")] {
        assert_eq!(name(&mut tcp, host), expected);
    }
    let mut unix = Client::unix(&server.folder.path("a.sock"));
    assert_eq!(name(&mut unix, "one"), "three", "the others do not listen there");
}

#[test]
fn an_address_of_a_wildcard_is_served_by_its_own_servers() {
    for threads in [1, 2] {
        let server = Server::start(&format!(
            r#"
module = [{{ name = "return" }}]
worker_threads = {threads}
[[http.server]]
listen = ["*:PORT"]
server_name = ["all"]
return = {{ code = 200, text = "$server_name" }}
[[http.server]]
listen = ["127.0.0.1:PORT"]
server_name = ["one"]
return = {{ code = 200, text = "$server_name" }}
"#
        ));
        for _ in 0..8 {
            assert_eq!(server.get("/").text(), "one");
            let mut other = Client::connect(SocketAddr::from(([127, 0, 0, 2], server.port)));
            other.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(other.response().text(), "all");
        }
    }
}

#[test]
fn options_that_contradict_each_other() {
    let errors = Server::fails(
        r#"[[http.server]]
listen = [{ address = "127.0.0.1:8000", backlog = 100, deferred = true, so_keepalive = { idle = "1m" } }]
[[http.server]]
listen = [{ address = "127.0.0.1:8000", backlog = 200, deferred = true, so_keepalive = true }]
[[http.server]]
listen = [{ address = "unix:a", ipv6only = true, fastopen = 3 }, { address = "unix:./a" }]
"#,
    );
    let expected = [
        "4:51: http.server.listen.backlog: found 200 for 127.0.0.1:8000, which has 100 already, at plugins.toml:2:51; its socket is one, so write it once",
        "4:88: http.server.listen.so_keepalive: found true for 127.0.0.1:8000, which has { idle = \"60s\" } already, at plugins.toml:2:88; its socket is one, so write it once",
        "6:44: http.server.listen[0].ipv6only: found it for unix:a: a unix socket has no such option",
        "6:61: http.server.listen[0].fastopen: found it for unix:a: a unix socket has no such option",
        "6:66: http.server.listen: unix:./a stands twice in this server",
    ];
    let found: Vec<&str> = errors.lines().map(|line| line.strip_prefix("plugins.toml:").unwrap()).collect();
    assert_eq!(found, expected);
}

#[test]
fn reuseport_lets_another_process_in() {
    let config = |port: &str| {
        format!(
            "module = [{{ name = \"return\" }}]\n[[http.server]]\nreturn = {{ code = 200, text = \"$pid\" }}\n\
             listen = [{{ address = \"127.0.0.1:{port}\", reuseport = true }}]\n"
        )
    };
    let one = Server::start(&config("PORT"));
    let two = Server::start(&config(&one.port.to_string()));
    // The kernel spreads them by a hash of the addresses: each gets some.
    let mut seen = std::collections::HashSet::new();
    support::eventually("both answer", || {
        seen.insert(one.get("/").text().to_owned());
        seen.len() == 2
    });
    assert!(seen.contains(&one.worker().to_string()) && seen.contains(&two.worker().to_string()));
}

#[test]
fn deferred_connections_are_accepted_with_their_first_bytes() {
    let numbers = |deferred: bool| {
        let server = Server::start(&format!(
            "module = [{{ name = \"return\" }}]\nworker_threads = 1\n[[http.server]]\nreturn = {{ code = 200, text = \"$connection\" }}\n\
             listen = [{{ address = \"127.0.0.1:PORT\", deferred = {deferred} }}]\n"
        ));
        let silent = server.connect();
        let number = server.get("/").text().to_owned();
        drop(silent);
        number
    };
    assert_eq!(numbers(false), "2");
    // The kernel gives up waiting after a second or so, which a busy machine may need.
    support::eventually("the silent one is not accepted first", || numbers(true) == "1");
}
