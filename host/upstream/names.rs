//! Names of peers, and the addresses that they had when the configuration was read.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, ToSocketAddrs},
};

use serde::{Deserialize, Serialize};

use crate::error_text::ErrorText;

/// Names that have been resolved, `host:port`. One that is known keeps its addresses, so that all workers of a configuration have
/// the same ones, and none needs the resolver of the system to take the place of another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names(BTreeMap<String, Vec<SocketAddr>>);

impl Names {
    /// The addresses of a name. Blocks: only while the configuration is read.
    pub fn resolve(&mut self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let name = format!("{host}:{port}");
        if let Some(known) = self.0.get(&name) {
            return Ok(known.clone());
        }
        let found: Vec<SocketAddr> = name
            .to_socket_addrs()
            .map_err(|error| format!("found {host:?}, which cannot be resolved ({})", ErrorText(&error)))?
            .collect();
        if found.is_empty() {
            return Err(format!("found {host:?}, which has no address"));
        }
        self.0.insert(name, found.clone());
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_known_is_not_asked_for_again() {
        let known: SocketAddr = ([192, 0, 2, 7], 80).into();
        let mut names = Names([("nowhere.invalid:80".to_string(), vec![known])].into());
        assert_eq!(names.resolve("nowhere.invalid", 80), Ok(vec![known]));
        assert!(names.resolve("nowhere.invalid", 81).is_err());
        assert_eq!(names.resolve("127.0.0.1", 81), Ok(vec![([127, 0, 0, 1], 81).into()]));
        assert_eq!(names.0.len(), 2);
    }
}
