//! What the page shows, gathered from the host.

use topnext_module_api::{
    host::{ModuleFact, module_info},
    prelude::*,
};

use crate::process::Usage;

/// Everything that the page shows.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The version of the server, without its name.
    pub version: String,
    /// Names and values of the process, in the order shown.
    pub process: Vec<(&'static str, String)>,
    /// Names and values of what it has done.
    pub traffic: Vec<(&'static str, String)>,
    /// The modules, in declared order.
    pub modules: &'a [Loaded],
    /// The request itself.
    pub request: Vec<(&'static str, String)>,
}

/// A loaded module.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Its name in this configuration.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it provides, separated by commas.
    pub provides: String,
    /// What it says about itself.
    pub about: String,
}

impl Loaded {
    /// Whether a response passes it.
    pub fn is_filter(&self) -> bool {
        self.provides.split(',').any(|kind| kind.trim() == "filter")
    }
}

/// More modules than this are not shown.
const MAX_MODULES: u32 = 512;

/// The loaded modules, in declared order.
pub fn modules() -> Vec<Loaded> {
    let fact = |index, fact| module_info(index, fact).unwrap_or_default().to_string();
    (0..MAX_MODULES)
        .map_while(|index| {
            module_info(index, ModuleFact::Name).map(|name| Loaded {
                name: name.to_string(),
                version: fact(index, ModuleFact::Version),
                provides: fact(index, ModuleFact::Provides),
                about: fact(index, ModuleFact::About),
            })
        })
        .collect()
}

/// The steps of a response, in order: from the handler through the filters to the socket.
pub fn chain(modules: &[Loaded]) -> Vec<&str> {
    let filters = modules.iter().filter(|module| module.is_filter()).map(|module| module.name.as_str());
    std::iter::once("top").chain(filters).chain(std::iter::once("write")).collect()
}

impl<'a> Facts<'a> {
    /// The facts for this request.
    pub fn of(r: &Request<'_>, modules: &'a [Loaded], pages: u64, usage: Usage) -> Facts<'a> {
        let variable = |name: &str| r.variable(name).map_or_else(unknown, |value| text(value, 256));
        let process = vec![
            ("host", variable("hostname")),
            ("process", variable("pid")),
            ("worker threads", variable("worker_threads")),
            ("uptime", variable("uptime")),
            ("local time", variable("time_local")),
            ("resident memory", usage.resident.map_or_else(unknown, mebibytes)),
            ("open file descriptors", usage.descriptors.map_or_else(unknown, |count| count.to_string())),
        ];
        let traffic = vec![
            ("open connections", variable("connections_active")),
            ("requests", variable("requests")),
            ("pages like this one", pages.to_string()),
        ];
        let request = vec![
            ("your address", text(r.remote_addr(), 256)),
            ("host asked for", text(r.host(), 256)),
            ("path", text(r.uri(), 256)),
        ];
        Facts { version: variable("topnext_version"), process, traffic, modules, request }
    }
}

fn unknown() -> String {
    "unknown".to_string()
}

/// A text of at most `max` bytes; what is not UTF-8, or a control character, is replaced.
fn text(value: &[u8], max: usize) -> String {
    let shown = String::from_utf8_lossy(&value[..value.len().min(max)]);
    let mut out: String = shown.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if value.len() > max {
        out.push_str("...");
    }
    out
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_holds_the_filters_in_order() {
        let loaded = |name: &str, provides: &str| Loaded {
            name: name.to_string(),
            provides: provides.to_string(),
            ..Loaded::default()
        };
        let modules = [
            loaded("static", "phases"),
            loaded("gzip", "filter, variables"),
            loaded("x", "content,filter"),
            loaded("y", ""),
        ];
        assert_eq!(chain(&modules), ["top", "gzip", "x", "write"]);
        assert_eq!(chain(&[]), ["top", "write"]);
    }

    #[test]
    fn texts_are_bounded_and_clean() {
        assert_eq!(text(b"a\xffb\x1b[0m", 256), "a\u{fffd}b\u{fffd}[0m");
        assert_eq!(text(b"abcdef", 3), "abc...");
        assert_eq!(mebibytes(0), "0.0 MiB");
        assert_eq!(mebibytes(27 * 1024 * 1024 + 600_000), "27.5 MiB");
    }
}
