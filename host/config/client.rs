//! Values of directives about clients: where bodies go, how connections end, who gets kept ones.

use std::path::PathBuf;

use super::tree::{Node, Value};

/// Whether bodies of requests go to files with names (client_body_in_file_only).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InFileOnly {
    /// Only those that are too large for memory go to files, which have no names.
    #[default]
    Off,
    /// All, and the files are removed after the request.
    Clean,
    /// All, and the files stay.
    On,
}

/// Whether a connection is read on before it is closed (lingering_close).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lingering {
    /// Never.
    Off,
    /// If the client may send more.
    #[default]
    On,
    /// In any case.
    Always,
}

/// Where temporary files are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TempPath {
    /// The folder; relative to the prefix until the site is built.
    pub path: PathBuf,
    /// Digits in the names of the levels of folders in it; for files with names.
    pub levels: Vec<usize>,
}

/// Browsers that get no kept connections (keepalive_disable).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Browsers {
    /// Internet Explorer up to 6, after a POST.
    pub msie6: bool,
    /// Safari, and what is like it, on macOS.
    pub safari: bool,
}

impl InFileOnly {
    pub(super) fn of(node: &Node) -> InFileOnly {
        match node.as_str() {
            Some("clean") => InFileOnly::Clean,
            Some("on") => InFileOnly::On,
            _ => InFileOnly::Off,
        }
    }
}

impl Lingering {
    pub(super) fn of(node: &Node) -> Lingering {
        match node.as_str() {
            Some("off") => Lingering::Off,
            Some("always") => Lingering::Always,
            _ => Lingering::On,
        }
    }
}

impl TempPath {
    pub(super) fn of(node: &Node) -> TempPath {
        let table = node.as_table();
        let path = table.and_then(|table| table.get("path")).unwrap_or(node);
        let levels = table.and_then(|table| table.get("levels")).and_then(Node::as_list).unwrap_or(&[]);
        let digits = |level: &Node| match level.value {
            Value::Integer(digits) => usize::try_from(digits).ok(),
            _ => None,
        };
        TempPath { path: path.as_str().unwrap_or_default().into(), levels: levels.iter().filter_map(digits).collect() }
    }
}

impl Browsers {
    pub(super) fn of(node: &Node) -> Browsers {
        let names = node.as_list().unwrap_or(&[]);
        let has = |name: &str| names.iter().any(|known| known.as_str() == Some(name));
        Browsers { msie6: has("msie6"), safari: has("safari") }
    }
}
