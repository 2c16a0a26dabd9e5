//! The cases of `topnext-bench http`. A new case is a new entry of [`CASES`].
//!
//! ```text
//! Case { name: "1k", requests: || vec![Request::get("/1k")], floor: 1.35, goal: 1.55, ..PLAIN }
//! ```
//!
//! Both servers stand on a `root` with the files of files.rs in it, so a case that serves one of them needs no
//! configuration.

use crate::names;

/// One kind of work that both servers do.
#[derive(Debug)]
pub struct Case {
    /// What `--case` takes.
    pub name: &'static str,
    /// One line for `--list`.
    pub about: &'static str,
    /// Goes into nginx's `server` block.
    pub nginx: fn() -> String,
    /// Follows the keys of topnext's `[[http.server]]`: keys of the server first, then tables.
    pub topnext: fn() -> String,
    /// Modules that topnext declares behind those of [`MODULES`].
    pub modules: &'static [&'static str],
    /// What clients ask for, one after the other and then from the start.
    pub requests: fn() -> Vec<Request>,
    /// What of the answers to the first request has to be the same.
    pub same: Same,
    /// Connections that the client keeps open at once.
    pub connections: u32,
    /// `worker_connections` of both servers, where their own default is not enough.
    pub open_connections: Option<u32>,
    /// topnext's `module_accounting`, where it is not the default.
    pub accounting: Option<&'static str>,
    /// The lowest ratio of requests per CPU second (topnext / nginx) that may be released.
    pub floor: f64,
    /// The ratio to reach.
    pub goal: f64,
}

/// What a client asks for, by GET.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub path: String,
    /// Header fields beside those that every client sends. Host here replaces the server's address.
    pub fields: Vec<(&'static str, String)>,
}

impl Request {
    pub fn get(path: &str) -> Request {
        Request { path: path.to_owned(), fields: Vec::new() }
    }

    pub fn field(mut self, name: &'static str, value: &str) -> Request {
        self.fields.push((name, value.to_owned()));
        self
    }
}

/// How two answers are compared, so that both servers are known to do the same work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Same {
    /// The bodies are equal.
    Body,
    /// The bodies are gzip of the same content, and topnext's is at most 1.1 times as long as nginx's.
    Gzip,
    /// The bodies are lists of a folder that link to the same files in the same order.
    Links,
}

/// Modules that topnext loads for every case, in declared order.
pub const MODULES: &[&str] = &["return", "static", "index", "not_modified"];

/// What most cases have in common.
pub const PLAIN: Case = Case {
    name: "",
    about: "",
    nginx: String::new,
    topnext: String::new,
    modules: &[],
    requests: Vec::new,
    same: Same::Body,
    connections: 64,
    open_connections: None,
    accounting: None,
    floor: 1.0,
    goal: 1.0,
};

/// Every case, in the order in which they run.
pub static CASES: &[Case] = &[
    Case {
        name: "return",
        about: "status 200 with two bytes of text, by the directive `return`",
        nginx: || "location = /return { return 200 ok; }".into(),
        topnext: || "[[http.server.location]]\npath = \"= /return\"\nreturn = { code = 200, text = \"ok\" }".into(),
        requests: || vec![Request::get("/return")],
        floor: 1.08,
        goal: 1.2,
        ..PLAIN
    },
    Case {
        name: "1k",
        about: "a file of 1 KB, from a cache of open files",
        nginx: || "open_file_cache max=1000 inactive=60s;".into(),
        topnext: || "open_file_cache = { max = 1000, inactive = \"60s\" }".into(),
        requests: || vec![Request::get("/1k")],
        floor: 1.35,
        goal: 1.55,
        ..PLAIN
    },
    Case {
        name: "1k-off",
        about: "the same, with topnext's accounting of modules switched off: what that costs is the difference",
        nginx: || "open_file_cache max=1000 inactive=60s;".into(),
        topnext: || "open_file_cache = { max = 1000, inactive = \"60s\" }".into(),
        requests: || vec![Request::get("/1k")],
        accounting: Some("off"),
        floor: 1.35,
        goal: 1.55,
        ..PLAIN
    },
    Case {
        name: "1k-all",
        about: "the same, with each call of a module timed",
        nginx: || "open_file_cache max=1000 inactive=60s;".into(),
        topnext: || "open_file_cache = { max = 1000, inactive = \"60s\" }".into(),
        requests: || vec![Request::get("/1k")],
        accounting: Some("all"),
        floor: 1.30,
        goal: 1.55,
        ..PLAIN
    },
    Case { name: "100k", about: "a file of 100 KB", requests: || vec![Request::get("/100k")], goal: 1.1, ..PLAIN },
    Case {
        name: "1m",
        about: "a file of 1 MB",
        requests: || vec![Request::get("/1m")],
        connections: 16,
        floor: 0.95,
        goal: 1.05,
        ..PLAIN
    },
    Case {
        name: "gzip",
        about: "30 KB of HTML, compressed at level 1",
        nginx: || "gzip on; gzip_comp_level 1;".into(),
        topnext: || "gzip = { enabled = true, comp_level = 1 }".into(),
        modules: &["gzip"],
        requests: || vec![Request::get("/page.html").field("Accept-Encoding", "gzip")],
        same: Same::Gzip,
        floor: 1.12,
        goal: 1.5,
        ..PLAIN
    },
    Case {
        name: "autoindex",
        about: "the list of a folder with 1,000 files, as HTML",
        nginx: || "location /list/ { autoindex on; }".into(),
        topnext: || "[[http.server.location]]\npath = \"/list/\"\nautoindex.enabled = true".into(),
        modules: &["autoindex"],
        requests: || vec![Request::get("/list/")],
        same: Same::Links,
        goal: 1.2,
        ..PLAIN
    },
    Case {
        name: "names",
        about: "1,000 server names and 20 locations with regular expressions",
        nginx: names::nginx,
        topnext: names::topnext,
        requests: names::requests,
        goal: 1.2,
        ..PLAIN
    },
];

/// The case of this name; the error lists the names that exist.
pub fn find(name: &str) -> Result<&'static Case, String> {
    CASES.iter().find(|case| case.name == name).ok_or_else(|| {
        let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        format!("no case is named {name:?}; there are: {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_floors_lie_below_goals() {
        for (at, case) in CASES.iter().enumerate() {
            assert!(std::ptr::eq(find(case.name).unwrap(), case), "{}: entry {at} is hidden by another", case.name);
            assert!(0.0 < case.floor && case.floor <= case.goal, "{}", case.name);
            assert!(!case.about.is_empty() && case.connections > 0, "{}", case.name);
            let requests = (case.requests)();
            assert!(!requests.is_empty(), "{}", case.name);
            assert!(requests.iter().all(|request| request.path.starts_with('/')), "{}", case.name);
        }
    }

    #[test]
    fn unknown_name_lists_the_known() {
        assert!(
            find("2k")
                .unwrap_err()
                .starts_with("no case is named \"2k\"; there are: return, 1k, 1k-off, 1k-all, 100k, 1m, gzip")
        );
    }
}
