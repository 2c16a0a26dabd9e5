//! Which server answers: by the address that the connection came to, and the name in Host (nginx: server_name).

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::site::Server;

/// The servers of one listening address.
#[derive(Debug)]
pub struct Names {
    by_name: FxHashMap<Vec<u8>, Arc<Server>>,
    /// No name leads to another server than the default.
    only_default: bool,
    default: Arc<Server>,
}

impl Names {
    /// The servers of an address, in the order of the configuration. The default is the one that says so, else the first.
    pub fn new(servers: Vec<(Arc<Server>, bool)>) -> Option<Names> {
        let default = servers.iter().find(|(_, default)| *default).or(servers.first())?.0.clone();
        let mut by_name: FxHashMap<Vec<u8>, Arc<Server>> = FxHashMap::default();
        for (server, _) in servers {
            for name in &server.names {
                // The first of several servers with one name wins, as in nginx.
                by_name.entry(name.as_bytes().to_vec()).or_insert_with(|| server.clone());
            }
        }
        let only_default = by_name.values().all(|server| Arc::ptr_eq(server, &default));
        Some(Names { by_name, only_default, default })
    }

    /// The server for a name in lower case; `""` for a request without Host.
    pub fn find(&self, host: &[u8]) -> &Server {
        if self.only_default {
            return &self.default;
        }
        self.by_name.get(host).unwrap_or(&self.default)
    }

    /// The server for requests that name none.
    pub fn default_server(&self) -> &Server {
        &self.default
    }
}
