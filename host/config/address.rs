//! Addresses: what a server listens on, and where a peer is.
//!
//! ```text
//! listen    "8080"  "127.0.0.1:8080"  "127.0.0.1"  "[::1]:80"  "*:80"  "unix:/run/site.sock"
//! peer      "127.0.0.1:9001"  "127.0.0.1"  "[::1]:80"  "backend.example"  "localhost:8080"  "unix:/run/app.sock"
//! ```
//!
//! A missing port is 80, as in nginx (directives "listen" and "server" of an upstream).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Listen {
    /// TCP. `8080` and `*:8080` are `0.0.0.0:8080`.
    Tcp(SocketAddr),
    /// A socket file, `unix:PATH`.
    Unix(PathBuf),
}

/// The address of a server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A name that is still to be resolved, and a port.
    Name {
        /// The name in lower case.
        host: String,
        /// The port, 80 if none was written.
        port: u16,
    },
    /// A socket file, `unix:PATH`.
    Unix(PathBuf),
}

const DEFAULT_PORT: u16 = 80;

impl Listen {
    /// Parses an address to listen on; `None` if it is none.
    pub fn parse(text: &str) -> Option<Listen> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(path).map(Listen::Unix);
        }
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        if let Some(port) = parse_port(text) {
            return Some(Listen::Tcp(SocketAddr::new(any, port)));
        }
        let (host, port) = split_port(text)?;
        let ip = if host == "*" { any } else { parse_ip(host)? };
        Some(Listen::Tcp(SocketAddr::new(ip, port)))
    }

    /// The port; 0 for a unix socket.
    pub fn port(&self) -> u16 {
        match self {
            Listen::Tcp(address) => address.port(),
            Listen::Unix(_) => 0,
        }
    }
}

impl PeerAddress {
    /// Parses the address of a peer; `None` if it is none.
    pub fn parse(text: &str) -> Option<PeerAddress> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(path).map(PeerAddress::Unix);
        }
        let (host, port) = split_port(text)?;
        if let Some(ip) = parse_ip(host) {
            return Some(PeerAddress::Ip(SocketAddr::new(ip, port)));
        }
        is_host_name(host).then(|| PeerAddress::Name { host: host.to_ascii_lowercase(), port })
    }
}

/// Splits `HOST:PORT`, `[HOST]:PORT` or `HOST`. The brackets stay.
fn split_port(text: &str) -> Option<(&str, u16)> {
    let host_end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
    let (host, rest) = text.split_at(host_end);
    if rest.is_empty() {
        return Some((host, DEFAULT_PORT));
    }
    Some((host, parse_port(rest.strip_prefix(':')?)?))
}

/// A port from 1 to 65535, digits only.
fn parse_port(text: &str) -> Option<u16> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

fn parse_ip(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// Labels of letters, digits, `-` and `_` (common in container names). The last label must not be all digits, for that
/// is an IPv4 address gone wrong (RFC 1123, section 2.1).
fn is_host_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let good_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let last = host.rsplit('.').next().unwrap_or("");
    host.len() <= 253 && host.split('.').all(good_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// A socket path must be written, and hold no NUL. Whether it fits into an address is known when it is absolute; see
/// [`unix_socket_path`].
fn unix_path(path: &str) -> Option<PathBuf> {
    (!path.is_empty() && !path.contains('\0')).then(|| PathBuf::from(path))
}

/// The longest path of a unix socket: `sockaddr_un` holds 108 bytes with the final NUL.
const MAX_UNIX_PATH: usize = 107;

/// The absolute path of a unix socket; relative ones start from the prefix. An error if it does not fit into an address.
pub fn unix_socket_path(prefix: &Path, path: &Path) -> Result<PathBuf, String> {
    // Without "." and doubled slashes, so that one file has one name as far as can be told without looking.
    let path: PathBuf = prefix.join(path).components().collect();
    match path.as_os_str().len() {
        0..=MAX_UNIX_PATH => Ok(path),
        len => {
            Err(format!("found a socket path of {len} bytes, {}; at most {MAX_UNIX_PATH} are possible", path.display()))
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerAddress::Ip(address) => address.fmt(f),
            PeerAddress::Name { host, port } => write!(f, "{host}:{port}"),
            PeerAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses() {
        let shown = |text| Listen::parse(text).map(|listen| listen.to_string());
        for (text, expected) in [
            ("8080", "0.0.0.0:8080"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("127.0.0.1", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("[::1]", "[::1]:80"),
            ("*:80", "0.0.0.0:80"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text:?}");
        }
        for bad in [
            "",
            "0",
            "65536",
            "127.0.0.1:",
            "127.0.0.1:0",
            "::1",
            "[::1",
            "[::1]80",
            "localhost:80",
            "1.2.3",
            "unix:",
            "+80",
        ] {
            assert_eq!(shown(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn peer_addresses() {
        let shown = |text| PeerAddress::parse(text).map(|peer| peer.to_string());
        for (text, expected) in [
            ("127.0.0.1:9001", "127.0.0.1:9001"),
            ("127.0.0.1", "127.0.0.1:80"),
            ("[::1]:81", "[::1]:81"),
            ("Localhost", "localhost:80"),
            ("app_1.example:8080", "app_1.example:8080"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text:?}");
        }
        for bad in ["", ":80", "*:80", "127.0.0.256", "9001", "a b", "http://x", "a..b", "x:99999", "[a]:80"] {
            assert_eq!(shown(bad), None, "{bad:?}");
        }
    }
}
