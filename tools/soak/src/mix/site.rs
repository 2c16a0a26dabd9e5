//! What the server serves, and with which configuration.

use std::fs;
use std::net::SocketAddr;

use crate::random::{Random, noise};
use crate::server::{CONFIG, Place};

/// The files: names, sizes, and whether they are text that is compressed.
pub const FILES: [(&str, usize, bool); 6] = [
    ("empty", 0, false),
    ("100", 100, false),
    ("10k", 10_000, false),
    ("100k", 100_000, false),
    ("1m", 1_000_000, false),
    ("page.html", 50_000, true),
];

/// How many files are in the folder `list/`, which is shown by autoindex.
pub const LISTED: usize = 200;

/// The largest body that the server takes, in bytes.
pub const MAX_BODY: usize = 1024 * 1024;

/// What the status page shows: see watch.rs.
pub const STATUS: &str = "/status";

/// The logs: requests, with the client's port and the connection's number, and what is said of connections.
pub const ACCESS_LOG: &str = "access.log";
pub const ERROR_LOG: &str = "error.log";

/// The content of a file.
pub fn content(name: &str) -> Vec<u8> {
    let place = FILES.iter().position(|(other, ..)| *other == name).unwrap_or(0);
    let (_, size, text) = FILES[place];
    if !text {
        return noise(place as u64, size);
    }
    let mut random = Random::new(place as u64);
    let words = ["<p>", "</p>\n", "a ", "of ", "the ", "server ", "connection ", "filter ", "upstream ", "<br>"];
    let mut text = String::new();
    while text.len() < size {
        text.push_str(words[random.below(words.len())]);
    }
    text.truncate(size);
    text.into_bytes()
}

/// Writes files and configuration.
pub fn write(place: &Place<'_>, origin: SocketAddr) -> std::io::Result<()> {
    let Place { dir, modules, address } = place;
    let root = dir.join("root");
    fs::create_dir(&root)?;
    for (name, ..) in FILES {
        fs::write(root.join(name), content(name))?;
    }
    fs::create_dir(root.join("list"))?;
    for number in 0..LISTED {
        fs::write(root.join(format!("list/file-{number}.txt")), "x")?;
    }
    let names = [
        "return",
        "index",
        "autoindex",
        "static",
        "not_modified",
        "headers",
        "gzip",
        "range",
        "limit_rate",
        "proxy",
        "round_robin",
    ];
    let declared: String = names.iter().map(|name| format!("[[module]]\nname = \"{name}\"\n")).collect();
    // Short times, so that slow clients meet them.
    let text = format!(
        r#"worker_threads = 2
module_path = [{modules:?}]
error_log = [{{ path = "stderr", level = "crit" }}, {{ path = "{ERROR_LOG}", level = "info" }}]
{declared}
[http.log_format]
port = '$remote_port $connection $connection_requests [$time_local] "$request" $status $request_length $bytes_sent $request_time'

[[http.server]]
listen = ["{address}"]
root = "root"
access_log = {{ path = "{ACCESS_LOG}", format = "port" }}
client_header_timeout = "2s"
client_body_timeout = "2s"
send_timeout = "2s"
keepalive_timeout = "2s"
client_max_body_size = {MAX_BODY}
gzip = {{ enabled = true, comp_level = 1, min_length = 1000 }}

[[http.server.location]]
path = "= {STATUS}"
return = {{ code = 200, text = "$connections_active $live_bufs $module_panics" }}
access_log = "off"

[[http.server.location]]
path = "= /ok"
return = {{ code = 200, text = "ok" }}

[[http.server.location]]
path = "/list/"
autoindex.enabled = true

[[http.server.location]]
path = "/cached/"
alias = "root/"
open_file_cache = {{ max = 100, inactive = "1s" }}

[[http.server.location]]
path = "/origin/"
proxy.pass = "http://origin/"

[[http.server.location]]
path = "/gone/"
proxy.pass = "http://127.0.0.1:1/"

[http.upstream.origin]
server = [{{ address = "{origin}", max_fails = 0 }}]
keepalive = 16
keepalive_timeout = "1s"
"#
    );
    fs::write(dir.join(CONFIG), text)
}
