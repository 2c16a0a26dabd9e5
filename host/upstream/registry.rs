//! The upstreams of a configuration: those that it names, and those that an address in a location implies.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use topnext_module_api::upstream::RawUpstream;

use super::{names::Names, peers::Peer};
use crate::{config::address::unix_socket_path, socket::Endpoint};

/// What a location wants of an upstream.
#[derive(Clone, Debug)]
pub struct Wanted {
    name: String,
    default_port: u16,
    /// Time for a connection to be made.
    pub connect_timeout: Duration,
    /// Time between two writes.
    pub send_timeout: Duration,
    /// Time between two reads.
    pub read_timeout: Duration,
    /// The bound of a response's header.
    pub buffer_size: usize,
}

impl Wanted {
    /// What a module says.
    pub fn of(raw: &RawUpstream<'_>) -> Wanted {
        Wanted {
            name: raw.name.to_string(),
            default_port: raw.default_port,
            connect_timeout: Duration::from_millis(raw.connect_timeout),
            send_timeout: Duration::from_millis(raw.send_timeout),
            read_timeout: Duration::from_millis(raw.read_timeout),
            buffer_size: usize::try_from(raw.buffer_size).unwrap_or(usize::MAX).clamp(256, 1024 * 1024),
        }
    }
}

/// Which upstream a location uses, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// The number of the upstream.
    pub upstream: usize,
    /// Times and sizes.
    pub wanted: Wanted,
}

/// The upstreams, while the configuration is read.
#[derive(Debug, Default)]
pub struct Registry {
    named: Vec<String>,
    /// Where the relative paths of socket files start.
    prefix: PathBuf,
    /// Upstreams that an address implies; they are numbered behind the named ones.
    pub implied: Vec<(String, Vec<Peer>)>,
    /// By the number that modules get.
    pub targets: Vec<Target>,
    /// The names that have been resolved.
    pub names: Names,
}

impl Registry {
    /// Knows the upstreams that the configuration names, in its order, and these names. Relative paths start from `prefix`.
    pub fn new(named: Vec<String>, prefix: &Path, names: Names) -> Registry {
        Registry { named, prefix: prefix.to_path_buf(), names, ..Registry::default() }
    }

    /// Finds or makes an upstream, and numbers the use of it. Names are resolved here, blocking.
    pub fn find(&mut self, wanted: &Wanted) -> Result<u32, String> {
        let name = wanted.name.as_str();
        let upstream = match self.named.iter().position(|known| known == name) {
            Some(named) => named,
            None => self.named.len() + self.imply(name, wanted.default_port)?,
        };
        self.targets.push(Target { upstream, wanted: wanted.clone() });
        u32::try_from(self.targets.len() - 1).map_err(|_| "too many upstreams".to_string())
    }

    fn imply(&mut self, name: &str, default_port: u16) -> Result<usize, String> {
        if let Some(path) = name.strip_prefix("unix:") {
            let endpoint = Endpoint::Unix(unix_socket_path(&self.prefix, Path::new(path))?);
            return Ok(self.add(endpoint.to_string(), vec![Peer::new(endpoint)]));
        }
        let (host, port) = split_port(name, default_port)?;
        let full = format!("{host}:{port}");
        if let Some(known) = self.implied.iter().position(|(known, _)| *known == full) {
            return Ok(known);
        }
        let addresses = self.names.resolve(&host, port).map_err(|error| match self.near(name) {
            Some(near) => format!("{error}; is the upstream {near:?} meant?"),
            None => format!("{error}; no [http.upstream.{name}] is configured either"),
        })?;
        let peers = addresses.into_iter().map(|address| Peer::new(Endpoint::Ip(address))).collect();
        Ok(self.add(full, peers))
    }

    /// The number of the implied upstream of this name.
    fn add(&mut self, name: String, peers: Vec<Peer>) -> usize {
        let known = self.implied.iter().position(|(known, _)| *known == name);
        known.unwrap_or_else(|| {
            self.implied.push((name, peers));
            self.implied.len() - 1
        })
    }

    fn near(&self, name: &str) -> Option<&String> {
        self.named.iter().find(|known| strsim::damerau_levenshtein(known, name) <= 2)
    }
}

/// `host`, `host:port` or `[v6]:port`.
fn split_port(name: &str, default_port: u16) -> Result<(String, u16), String> {
    let bad = || format!("found {name:?}, expected the name of an upstream, or host:port");
    let (host, port) = match name.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
            (format!("[{host}]"), rest.strip_prefix(':').map_or_else(|| rest.is_empty().then_some(""), Some))
        }
        None => match name.split_once(':') {
            Some((host, port)) => (host.to_string(), Some(port)),
            None => (name.to_string(), Some("")),
        },
    };
    let port = match port.ok_or_else(bad)? {
        "" => default_port,
        port => port.parse().ok().filter(|port| *port > 0).ok_or_else(bad)?,
    };
    if host.is_empty() { Err(bad()) } else { Ok((host, port)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_hosts_and_ports() {
        assert_eq!(split_port("a", 80), Ok(("a".to_string(), 80)));
        assert_eq!(split_port("a:81", 80), Ok(("a".to_string(), 81)));
        assert_eq!(split_port("[::1]:82", 80), Ok(("[::1]".to_string(), 82)));
        assert_eq!(split_port("[::1]", 80), Ok(("[::1]".to_string(), 80)));
        for bad in ["", ":80", "a:0", "a:x", "a:70000", "[::1", "[::1]x"] {
            assert!(split_port(bad, 80).is_err(), "{bad}");
        }
    }
}
