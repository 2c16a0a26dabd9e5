//! `listen`: an address with the options of its socket.
//!
//! ```toml
//! listen = ["8080", { address = "[::]:80", ipv6only = false, backlog = 1024, so_keepalive = { idle = "30m" } }]
//! ```
//!
//! Several servers may listen on one address, and its socket is one, so its options are those that any of them writes.
//! Two that write different values for one option contradict each other; nginx takes each only once.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::address::Listen;
use super::model::{count, duration, flag, get, size};
use super::source::Origin;
use super::tree::{Node, Table};

/// One address of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenConf {
    /// The address. The path of a unix socket is as it was written: relative ones start from the prefix.
    pub address: Listen,
    /// Whether the server answers for names that no server of this address has.
    pub default_server: bool,
    /// The options that were written, and where.
    pub options: Vec<(ListenOption, Origin)>,
    /// Where it was written; the server's header for the default address.
    pub origin: Origin,
}

/// The options of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenOptions {
    /// Length of the queue of connections not yet accepted.
    pub backlog: u32,
    /// Whether other processes may listen on the address as well.
    pub reuseport: bool,
    /// SO_RCVBUF; `None`: the system's.
    pub rcvbuf: Option<u32>,
    /// SO_SNDBUF; `None`: the system's.
    pub sndbuf: Option<u32>,
    /// TCP_DEFER_ACCEPT: a connection is accepted when its first bytes have come.
    pub deferred: bool,
    /// The queue of TCP_FASTOPEN; `None`: not set.
    pub fastopen: Option<u32>,
    /// SO_KEEPALIVE; `None`: not set.
    pub so_keepalive: Option<SoKeepalive>,
    /// Whether a socket of IPv6 takes no connections of IPv4.
    pub ipv6only: bool,
    /// Whether connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

/// One option of a listening socket, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenOption {
    /// `backlog`
    Backlog(u32),
    /// `reuseport`
    Reuseport(bool),
    /// `rcvbuf`
    Rcvbuf(u32),
    /// `sndbuf`
    Sndbuf(u32),
    /// `deferred`
    Deferred(bool),
    /// `fastopen`
    Fastopen(u32),
    /// `so_keepalive`
    SoKeepalive(SoKeepalive),
    /// `ipv6only`
    Ipv6only(bool),
    /// `proxy_protocol`
    ProxyProtocol(bool),
}

/// `so_keepalive`: whether the system asks idle clients whether they are still there, and how. What is `None` is the
/// system's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoKeepalive {
    /// SO_KEEPALIVE itself.
    pub enabled: bool,
    /// Seconds of silence before the first question (TCP_KEEPIDLE).
    pub idle: Option<u32>,
    /// Seconds between two questions (TCP_KEEPINTVL).
    pub interval: Option<u32>,
    /// Questions without an answer after which the connection is given up (TCP_KEEPCNT).
    pub count: Option<u32>,
}

/// The greatest TCP_KEEPIDLE and TCP_KEEPINTVL that Linux takes, in seconds.
const MAX_KEEPALIVE_TIME: u64 = 32767;

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions {
            backlog: 511,
            reuseport: false,
            rcvbuf: None,
            sndbuf: None,
            deferred: false,
            fastopen: None,
            so_keepalive: None,
            ipv6only: true,
            proxy_protocol: false,
        }
    }
}

impl ListenConf {
    /// An address without options.
    pub fn plain(address: Listen, origin: Origin) -> ListenConf {
        ListenConf { address, default_server: false, options: Vec::new(), origin }
    }

    /// One element of `listen`: an address, or a table. `None` cannot happen with a checked value. What is wrong with an
    /// option is told to `fault`, with its place and key.
    pub(super) fn of(node: &Node, fault: &mut impl FnMut(Origin, &str, String)) -> Option<ListenConf> {
        let address = Listen::parse(get(node, "address").unwrap_or(node).as_str()?)?;
        let mut conf = ListenConf::plain(address, node.origin);
        for entry in node.as_table().into_iter().flat_map(Table::iter) {
            // Defaults that were filled in have the origin of the table itself; see `merge::fill_defaults`.
            if entry.key_origin == node.origin {
                continue;
            }
            let mut fault = |message| fault(entry.node.origin, &entry.key, message);
            if entry.key == "default_server" {
                conf.default_server = flag(&entry.node);
            } else if let Some(option) = ListenOption::of(&entry.key, &entry.node, &mut fault) {
                match option.not_for(&conf.address) {
                    Some(message) => fault(message),
                    None => conf.options.push((option, entry.node.origin)),
                }
            }
        }
        Some(conf)
    }
}

impl ListenOption {
    /// `None` if it is none, or has a value that it cannot have.
    fn of(name: &str, node: &Node, fault: &mut impl FnMut(String)) -> Option<ListenOption> {
        Some(match name {
            "backlog" => ListenOption::Backlog(count(node)),
            "reuseport" => ListenOption::Reuseport(flag(node)),
            "rcvbuf" => ListenOption::Rcvbuf(buffer(node, fault)?),
            "sndbuf" => ListenOption::Sndbuf(buffer(node, fault)?),
            "deferred" => ListenOption::Deferred(flag(node)),
            "fastopen" => ListenOption::Fastopen(count(node)),
            "so_keepalive" => ListenOption::SoKeepalive(SoKeepalive::of(node, fault)?),
            "ipv6only" => ListenOption::Ipv6only(flag(node)),
            "proxy_protocol" => ListenOption::ProxyProtocol(flag(node)),
            _ => return None,
        })
    }

    /// Its key.
    pub fn name(self) -> &'static str {
        match self {
            ListenOption::Backlog(_) => "backlog",
            ListenOption::Reuseport(_) => "reuseport",
            ListenOption::Rcvbuf(_) => "rcvbuf",
            ListenOption::Sndbuf(_) => "sndbuf",
            ListenOption::Deferred(_) => "deferred",
            ListenOption::Fastopen(_) => "fastopen",
            ListenOption::SoKeepalive(_) => "so_keepalive",
            ListenOption::Ipv6only(_) => "ipv6only",
            ListenOption::ProxyProtocol(_) => "proxy_protocol",
        }
    }

    /// Why a socket of this address cannot have it.
    fn not_for(self, address: &Listen) -> Option<String> {
        let is_general = matches!(
            self,
            ListenOption::Backlog(_)
                | ListenOption::Rcvbuf(_)
                | ListenOption::Sndbuf(_)
                | ListenOption::ProxyProtocol(_)
        );
        match (self, address) {
            (ListenOption::Ipv6only(_), Listen::Tcp(SocketAddr::V4(_))) => {
                Some(format!("found it for {address}, which is not an address of IPv6"))
            }
            (_, Listen::Unix(_)) if !is_general => {
                Some(format!("found it for {address}: a unix socket has no such option"))
            }
            _ => None,
        }
    }

    /// Sets it.
    pub fn set(self, options: &mut ListenOptions) {
        match self {
            ListenOption::Backlog(length) => options.backlog = length,
            ListenOption::Reuseport(on) => options.reuseport = on,
            ListenOption::Rcvbuf(size) => options.rcvbuf = Some(size),
            ListenOption::Sndbuf(size) => options.sndbuf = Some(size),
            ListenOption::Deferred(on) => options.deferred = on,
            ListenOption::Fastopen(length) => options.fastopen = Some(length),
            ListenOption::SoKeepalive(keepalive) => options.so_keepalive = Some(keepalive),
            ListenOption::Ipv6only(on) => options.ipv6only = on,
            ListenOption::ProxyProtocol(on) => options.proxy_protocol = on,
        }
    }
}

/// The value, as it is named in errors.
impl fmt::Display for ListenOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenOption::Backlog(number)
            | ListenOption::Rcvbuf(number)
            | ListenOption::Sndbuf(number)
            | ListenOption::Fastopen(number) => number.fmt(f),
            ListenOption::Reuseport(on)
            | ListenOption::Deferred(on)
            | ListenOption::Ipv6only(on)
            | ListenOption::ProxyProtocol(on) => on.fmt(f),
            ListenOption::SoKeepalive(keepalive) => keepalive.fmt(f),
        }
    }
}

impl SoKeepalive {
    fn of(node: &Node, fault: &mut impl FnMut(String)) -> Option<SoKeepalive> {
        if let Some(enabled) = node.as_bool() {
            return Some(SoKeepalive { enabled, ..SoKeepalive::default() });
        }
        let mut faults = Vec::new();
        let mut seconds = |key| {
            let time = duration(get(node, key)?);
            let seconds = time.as_secs();
            if !(1..=MAX_KEEPALIVE_TIME).contains(&seconds) || Duration::from_secs(seconds) != time {
                faults.push(format!("found {key} = {time:?}, expected whole seconds from 1 to {MAX_KEEPALIVE_TIME}"));
            }
            u32::try_from(seconds).ok()
        };
        let (idle, interval) = (seconds("idle"), seconds("interval"));
        let is_good = faults.is_empty();
        faults.into_iter().for_each(fault);
        is_good.then(|| SoKeepalive { enabled: true, idle, interval, count: get(node, "count").map(count) })
    }
}

impl fmt::Display for SoKeepalive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = [("idle", self.idle), ("interval", self.interval)];
        let mut parts: Vec<String> =
            times.iter().filter_map(|(name, time)| Some(format!("{name} = \"{}s\"", (*time)?))).collect();
        parts.extend(self.count.map(|count| format!("count = {count}")));
        if parts.is_empty() { self.enabled.fmt(f) } else { write!(f, "{{ {} }}", parts.join(", ")) }
    }
}

/// The size of a socket's buffer.
fn buffer(node: &Node, fault: &mut impl FnMut(String)) -> Option<u32> {
    let bytes = size(node);
    let fits = u32::try_from(bytes).ok().filter(|bytes| (1..=i32::MAX as u32).contains(bytes));
    if fits.is_none() {
        fault(format!("found {bytes} bytes, expected from 1 to {}", i32::MAX));
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::super::tree::parse_value;
    use super::*;

    fn parsed(text: &str) -> (Option<ListenConf>, Vec<String>) {
        let mut faults = Vec::new();
        let mut node = parse_value(text).unwrap();
        // As if it stood in a file: what is written has another place than the table.
        node.origin = Origin::whole_file(0);
        let conf = ListenConf::of(&node, &mut |_, key, message| faults.push(format!("{key}: {message}")));
        (conf, faults)
    }

    fn options(text: &str) -> ListenOptions {
        let (conf, faults) = parsed(text);
        assert_eq!(faults, Vec::<String>::new(), "{text}");
        let mut options = ListenOptions::default();
        conf.unwrap().options.iter().for_each(|(option, _)| option.set(&mut options));
        options
    }

    #[test]
    fn every_option_is_set() {
        assert_eq!(options("\"80\""), ListenOptions::default());
        let all = options(
            "{ address = \"[::]:80\", backlog = 7, reuseport = true, rcvbuf = \"64k\", sndbuf = 100, deferred = true, \
             fastopen = 256, so_keepalive = { idle = \"30m\", interval = 10, count = 3 }, ipv6only = false, \
             proxy_protocol = true, default_server = true }",
        );
        let keepalive = SoKeepalive { enabled: true, idle: Some(1800), interval: Some(10), count: Some(3) };
        let expected = ListenOptions {
            backlog: 7,
            reuseport: true,
            rcvbuf: Some(65536),
            sndbuf: Some(100),
            deferred: true,
            fastopen: Some(256),
            so_keepalive: Some(keepalive),
            ipv6only: false,
            proxy_protocol: true,
        };
        assert_eq!(all, expected);
        let off = options("{ address = \"80\", so_keepalive = false }").so_keepalive;
        assert_eq!(off, Some(SoKeepalive::default()));
    }

    #[test]
    fn faults_of_options() {
        for (text, expected) in [
            (
                "{ address = \"80\", ipv6only = true }",
                "ipv6only: found it for 0.0.0.0:80, which is not an address of IPv6",
            ),
            (
                "{ address = \"unix:a\", deferred = true }",
                "deferred: found it for unix:a: a unix socket has no such option",
            ),
            ("{ address = \"80\", rcvbuf = \"4g\" }", "rcvbuf: found 4294967296 bytes, expected from 1 to 2147483647"),
            ("{ address = \"80\", sndbuf = 0 }", "sndbuf: found 0 bytes, expected from 1 to 2147483647"),
            (
                "{ address = \"80\", so_keepalive = { idle = \"500ms\" } }",
                "so_keepalive: found idle = 500ms, expected whole seconds from 1 to 32767",
            ),
            (
                "{ address = \"80\", so_keepalive = { interval = \"10h\" } }",
                "so_keepalive: found interval = 36000s, expected whole seconds from 1 to 32767",
            ),
        ] {
            assert_eq!(parsed(text).1, [expected], "{text}");
        }
    }

    #[test]
    fn values_in_errors() {
        let shown = |keepalive: SoKeepalive| ListenOption::SoKeepalive(keepalive).to_string();
        assert_eq!(shown(SoKeepalive { enabled: true, ..Default::default() }), "true");
        assert_eq!(
            shown(SoKeepalive { enabled: true, idle: Some(5), count: Some(2), interval: None }),
            "{ idle = \"5s\", count = 2 }"
        );
    }
}
