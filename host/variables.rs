//! Variables: the host's (nginx's core set, as far as it goes) and those of modules.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::SystemTime,
};

use crate::{
    config::Listen,
    map_uri,
    plugins::{link, running},
    proxy_protocol::Addresses,
    request::{Request, Text},
    site, stats,
};

/// A variable, found by name when the configuration is read.
#[derive(Clone, Debug)]
pub enum Variable {
    /// One of the host's.
    Core(fn(&Rc<Request>) -> Option<Text>),
    /// `$http_NAME`: a request header field.
    Http(String),
    /// `$sent_http_NAME`: a response header field.
    SentHttp(String),
    /// `$arg_NAME`: an argument of the query.
    Arg(String),
    /// `$cookie_NAME`
    Cookie(String),
    /// One that a module provides.
    Module(ModuleVariable),
    /// `$1` to `$9`: what a group of the last regular expression holds.
    Numbered(usize),
    /// The named group of this number of regular expressions.
    Named(usize),
}

/// The variables that a configuration adds to the host's.
#[derive(Debug, Default)]
pub struct Added {
    /// Those of modules.
    pub modules: Vec<ModuleVariable>,
    /// The names of all named groups of regular expressions.
    pub captures: Vec<String>,
}

/// A variable of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleVariable {
    /// Its name, without `$`.
    pub name: String,
    /// The slot of the module.
    pub module: u32,
    /// Its number among those of the module.
    pub index: u32,
}

type Core = (&'static str, fn(&Rc<Request>) -> Option<Text>);

/// The host's variables. nginx's names, where nginx has them.
const CORE: &[Core] = &[
    ("args", |r| some(r, r.args.get())),
    ("query_string", |r| some(r, r.args.get())),
    ("is_args", |r| Some(r.store(&[if some(r, r.args.get()).is_some() { b"?" } else { b"" }]))),
    ("uri", |r| Some(r.uri.get())),
    ("document_uri", |r| Some(r.uri.get())),
    ("request_uri", |r| Some(Text::Head(r.parts.borrow().head.target()))),
    ("request_method", |r| Some(r.method_text())),
    ("request", |r| {
        let line = r.request_line();
        Some(r.store(&[&line]))
    }),
    ("request_filename", |r| some(r, map_uri::filename(r))),
    ("document_root", map_uri::document_root),
    ("realpath_root", map_uri::realpath_root),
    ("host", |r| Some(r.host.get())),
    ("server_name", |r| Some(r.store(&[r.server.name().as_bytes()]))),
    ("server_addr", |r| {
        let text = match r.conn.local_addr() {
            Listen::Tcp(address) => address.ip().to_string(),
            path => path.to_string(),
        };
        Some(r.store(&[text.as_bytes()]))
    }),
    ("server_port", |r| Some(port(r, Some(r.conn.server_port())))),
    ("server_protocol", |r| {
        let minor = r.parts.borrow().head.minor();
        Some(r.store(&[if minor == 0 { b"HTTP/1.0" } else { b"HTTP/1.1" }]))
    }),
    ("scheme", |r| Some(r.store(&[b"http"]))),
    ("remote_addr", |r| Some(r.store(&[r.conn.remote_addr()]))),
    ("remote_port", |r| Some(port(r, r.conn.remote_port()))),
    ("binary_remote_addr", |r| {
        Some(match r.conn.remote_ip() {
            Some(IpAddr::V4(v4)) => r.store(&[&v4.octets()]),
            Some(IpAddr::V6(v6)) => r.store(&[&v6.octets()]),
            None => r.store(&[r.conn.remote_addr()]),
        })
    }),
    ("proxy_protocol_addr", |r| announced(r).map(|of| address(r, of.source))),
    ("proxy_protocol_port", |r| announced(r).map(|of| port(r, Some(of.source.port())))),
    ("proxy_protocol_server_addr", |r| announced(r).map(|of| address(r, of.destination))),
    ("proxy_protocol_server_port", |r| announced(r).map(|of| port(r, Some(of.destination.port())))),
    ("content_length", |r| r.header_in(b"content-length", 0).map(Text::Head)),
    ("content_type", |r| r.header_in(b"content-type", 0).map(Text::Head)),
    ("status", |r| Some(number(r, u64::from(r.status.get())))),
    ("body_bytes_sent", |r| Some(number(r, r.body_sent.get()))),
    ("request_time", |r| {
        let ms = r.conn.lp.now_ms().saturating_sub(r.started_ms);
        Some(r.store(&[format!("{}.{:03}", ms / 1000, ms % 1000).as_bytes()]))
    }),
    ("msec", |r| {
        let ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_millis());
        Some(r.store(&[format!("{}.{:03}", ms / 1000, ms % 1000).as_bytes()]))
    }),
    ("time_local", |r| {
        let mut text = Vec::new();
        crate::clock::write_access_log_time(&mut text);
        Some(r.store(&[&text]))
    }),
    ("connection", |r| Some(number(r, r.conn.number))),
    ("connection_requests", |r| Some(number(r, u64::from(r.conn.requests())))),
    ("connections_active", |r| Some(number(r, stats::get(stats::Counter::Connections)))),
    ("requests", |r| Some(number(r, stats::get(stats::Counter::Requests)))),
    ("pid", |r| Some(number(r, u64::from(std::process::id())))),
    ("hostname", |r| {
        let name = rustix::system::uname();
        Some(r.store(&[name.nodename().to_bytes()]))
    }),
    ("uptime", |r| Some(number(r, stats::uptime().as_secs()))),
    ("worker_threads", |r| Some(number(r, r.site.threads as u64))),
    ("module_panics", |r| Some(number(r, running::panics_of_all()))),
    // Bufs of responses under way. What stays when there are none is lost.
    ("live_bufs", |r| Some(number(r, stats::get(stats::Counter::Bufs)))),
    ("topnext_version", |r| Some(r.store(&[site::VERSION.as_bytes()]))),
];

fn number(r: &Request, number: u64) -> Text {
    r.store(&[itoa::Buffer::new().format(number).as_bytes()])
}

/// What the header of the PROXY protocol said, if there was one that did.
fn announced(r: &Request) -> Option<Addresses> {
    r.conn.announced().copied()
}

/// The address, without its port.
fn address(r: &Request, address: SocketAddr) -> Text {
    r.store(&[address.ip().to_string().as_bytes()])
}

/// A port; empty where there is none, which is on a unix socket.
fn port(r: &Request, port: Option<u16>) -> Text {
    port.filter(|port| *port != 0).map_or_else(Text::default, |port| number(r, u64::from(port)))
}

/// The text, unless it is empty.
fn some(r: &Request, text: Text) -> Option<Text> {
    (!r.parts.borrow().text(text).is_empty()).then_some(text)
}

/// Finds a variable.
pub fn find(name: &str, added: &Added) -> Option<Variable> {
    if let [digit @ b'1'..=b'9'] = name.as_bytes() {
        return Some(Variable::Numbered(usize::from(digit - b'0')));
    }
    if let Some((_, value)) = CORE.iter().find(|(known, _)| *known == name) {
        return Some(Variable::Core(*value));
    }
    if let Some(variable) = added.modules.iter().find(|variable| variable.name == name) {
        return Some(Variable::Module(variable.clone()));
    }
    // Before the families: a group may have the name of one of theirs, as in nginx.
    if let Some(number) = added.captures.iter().position(|known| known == name) {
        return Some(Variable::Named(number));
    }
    let field = |name: &str| name.replace('_', "-");
    if let Some(name) = name.strip_prefix("http_") {
        return Some(Variable::Http(field(name)));
    }
    if let Some(name) = name.strip_prefix("sent_http_") {
        return Some(Variable::SentHttp(field(name)));
    }
    if let Some(name) = name.strip_prefix("arg_") {
        return Some(Variable::Arg(name.to_string()));
    }
    name.strip_prefix("cookie_").map(|name| Variable::Cookie(name.to_string()))
}

/// Whose variable a group of a regular expression would hide, if any (nginx: "the duplicate ... variable").
pub fn owner(name: &str, modules: &[ModuleVariable]) -> Option<String> {
    if CORE.iter().any(|(known, _)| *known == name) {
        return Some("the server".to_string());
    }
    let variable = modules.iter().find(|variable| variable.name == name)?;
    Some(format!("module {}", running::module_name(variable.module)))
}

/// What is said of a variable that nobody has.
pub fn unknown(name: &str) -> String {
    let near = CORE.iter().map(|(known, _)| (strsim::damerau_levenshtein(known, name), *known)).min();
    // In braces a name may have any character, and an error is one line.
    let name = name.escape_debug();
    match near {
        Some((distance, known)) if distance <= 2 => {
            format!("unknown variable \"${name}\"; did you mean \"${known}\"?")
        }
        _ => format!("unknown variable \"${name}\""),
    }
}

/// The value of a variable for a request; `None` if it has none.
pub fn value(r: &Rc<Request>, variable: &Variable) -> Option<Text> {
    match variable {
        Variable::Core(value) => value(r),
        Variable::Http(name) => r.header_in(name.as_bytes(), 0).map(Text::Head),
        Variable::SentHttp(name) => {
            let value = {
                let parts = r.parts.borrow();
                parts.headers_out.get(&parts.pool, name.as_bytes(), 0).map(<[u8]>::to_vec)
            };
            value.map(|value| r.store(&[&value]))
        }
        Variable::Arg(name) => {
            let args = r.text_owned(r.args.get());
            argument(&args, name.as_bytes()).map(|value| r.store(&[value]))
        }
        Variable::Cookie(name) => {
            let cookies = r.text_owned(Text::Head(r.header_in(b"cookie", 0)?));
            cookie(&cookies, name.as_bytes()).map(|value| r.store(&[value]))
        }
        Variable::Numbered(number) => r.extra.get()?.captures.borrow().numbered(*number),
        Variable::Named(name) => r.extra.get()?.captures.borrow().named(*name),
        Variable::Module(variable) => {
            let value = r.guarded(|| link::call_variable(r, variable.module, variable.index))?;
            Some(r.store(&[&value]))
        }
    }
}

/// The value of a variable by its name, as modules ask for it.
pub fn by_name(r: &Rc<Request>, name: &str) -> Option<Text> {
    value(r, &find(name, r.site.templates.added())?)
}

/// The first argument of this name (any case, as nginx).
fn argument<'a>(args: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    args.split(|&byte| byte == b'&').find_map(|pair| {
        let at = pair.iter().position(|&byte| byte == b'=')?;
        pair[..at].eq_ignore_ascii_case(name).then(|| &pair[at + 1..])
    })
}

fn cookie<'a>(cookies: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    cookies.split(|&byte| byte == b';').map(<[u8]>::trim_ascii).find_map(|pair| {
        let at = pair.iter().position(|&byte| byte == b'=')?;
        pair[..at].eq_ignore_ascii_case(name).then(|| &pair[at + 1..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_and_cookies() {
        assert_eq!(argument(b"a=1&b=2&a=3", b"A"), Some(&b"1"[..]));
        assert_eq!(argument(b"ab&b=", b"b"), Some(&b""[..]));
        assert_eq!(argument(b"xa=1", b"a"), None);
        assert_eq!(cookie(b"x=1; sid=abc;y", b"sid"), Some(&b"abc"[..]));
        assert_eq!(cookie(b"x=1", b"sid"), None);
    }

    #[test]
    fn every_name_is_known_once() {
        for (at, (name, _)) in CORE.iter().enumerate() {
            assert!(CORE[..at].iter().all(|(other, _)| other != name), "{name}");
        }
    }
}
