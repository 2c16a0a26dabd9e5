//! Servers that pass everything to peers.
//!
//! ```text
//! let (peer, server) = proxied("proxy.read_timeout = \"1s\"");
//! let server = balanced(&[at(a.port, ", weight = 5"), at(b.port, "")], "keepalive = 0", "");
//! ```

use super::peer::{Connection, Peer};
use super::{Client, Server};

/// The modules of these servers, and what else is at the top of their configuration.
pub const TOP: &str = r#"
module = [
    { name = "return" }, { name = "not_modified" }, { name = "headers" }, { name = "gzip" },
    { name = "limit_rate" }, { name = "proxy" }, { name = "round_robin" }, { name = "ip_hash" },
]
worker_threads = 2
error_log = { path = "stderr", level = "info" }
"#;

/// A request.
pub const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A response to it.
pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// The server and its only location, up to where `pass` leads.
fn passing(pass: &str, location: &str) -> String {
    format!(
        r#"
[[http.server]]
listen = ["127.0.0.1:PORT"]
[[http.server.location]]
path = "/"
proxy.pass = "http://{pass}"
{location}"#
    )
}

/// A server that passes everything to this port, with more lines for the location.
pub fn proxy_to(port: u16, location: &str) -> Server {
    Server::start(&format!("{TOP}{}", passing(&format!("127.0.0.1:{port}"), location)))
}

/// A peer, and a server that passes everything to it.
pub fn proxied(location: &str) -> (Peer, Server) {
    let peer = Peer::new();
    let server = proxy_to(peer.port, location);
    (peer, server)
}

/// A server of an upstream: its port, and its parameters.
pub fn at(port: u16, parameters: &str) -> String {
    format!("{{ address = \"127.0.0.1:{port}\"{parameters} }}")
}

/// A server that passes everything to an upstream, with more lines for the upstream and for the location.
pub fn balanced(servers: &[String], upstream: &str, location: &str) -> Server {
    let servers = servers.join(", ");
    let table = format!("[http.upstream.backend]\nserver = [{servers}]\n{upstream}\n");
    Server::start(&format!("{TOP}{table}{}", passing("backend", location)))
}

/// A client's request has come to the peer: the client, and the peer's side.
pub fn at_peer(peer: &Peer, server: &Server, request: &str) -> (Client, Connection) {
    let (client, (_, connection)) = at_peer_with_head(peer, server, request);
    (client, connection)
}

/// With the head that the peer gets.
pub fn at_peer_with_head(peer: &Peer, server: &Server, request: &str) -> (Client, (String, Connection)) {
    let mut client = server.connect();
    client.send(request);
    let mut connection = peer.accept();
    let head = connection.head();
    (client, (head, connection))
}
