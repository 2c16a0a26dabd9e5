//! Which location of a server a URI belongs to (nginx: location, the find-config phase).
//!
//! An exact location wins; else the longest prefix.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::site::Place;

/// The locations of a server, nested ones among them.
#[derive(Debug, Default)]
pub struct Locations {
    exact: FxHashMap<Vec<u8>, Arc<Place>>,
    /// Longest first.
    prefixes: Vec<(Vec<u8>, Arc<Place>)>,
}

impl Locations {
    /// Adds `= /path`.
    pub fn add_exact(&mut self, path: &str, place: Arc<Place>) {
        self.exact.insert(path.as_bytes().to_vec(), place);
    }

    /// Adds `/path` or `^~ /path`.
    pub fn add_prefix(&mut self, path: &str, place: Arc<Place>) {
        let at = self.prefixes.partition_point(|(known, _)| known.len() >= path.len());
        self.prefixes.insert(at, (path.as_bytes().to_vec(), place));
    }

    /// The location `@name`; `name` has its `@`.
    pub fn named(&self, _name: &[u8]) -> Option<&Place> {
        None
    }

    /// All of them.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.exact.values().chain(self.prefixes.iter().map(|(_, place)| place)).map(|place| &**place)
    }

    /// The location of a normalized path; `None`: the server's own place.
    pub fn find(&self, uri: &[u8]) -> Option<&Place> {
        if !self.exact.is_empty()
            && let Some(place) = self.exact.get(uri)
        {
            return Some(&**place);
        }
        self.prefixes.iter().find(|(prefix, _)| uri.starts_with(prefix)).map(|(_, place)| &**place)
    }
}
