//! The host's variables: name, meaning and value of each. nginx's, where nginx has them; the manual is made of this table.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::LazyLock,
};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Write, request_id};
use crate::{
    clock,
    config::Listen,
    map_uri,
    plugins::running,
    request::{Request, Text},
    site, socket, stats,
    upstream::attempts::{self, Attempt},
};

/// A variable of the host.
#[derive(Debug)]
pub struct Core {
    /// Its name, without `$`.
    pub name: &'static str,
    /// What it says, in a sentence or two for the manual.
    pub doc: &'static str,
    /// How to get it.
    pub value: Value,
    /// Its values hold neither quotes nor anything beside printable ASCII.
    pub is_plain: bool,
}

/// How to get a value.
#[derive(Debug)]
pub enum Value {
    /// The request has it as a text.
    Text(fn(&Rc<Request>) -> Option<Text>),
    /// It is made when it is wanted.
    Written(Write),
}

const fn text(name: &'static str, doc: &'static str, value: fn(&Rc<Request>) -> Option<Text>) -> Core {
    Core { name, doc, value: Value::Text(value), is_plain: false }
}

const fn written(name: &'static str, doc: &'static str, value: Write) -> Core {
    Core { name, doc, value: Value::Written(value), is_plain: false }
}

/// For what consists of digits, letters and marks that no log has to escape.
const fn plain(name: &'static str, doc: &'static str, value: Write) -> Core {
    Core { name, doc, value: Value::Written(value), is_plain: true }
}

/// As nginx has it.
static HOSTNAME: LazyLock<Vec<u8>> =
    LazyLock::new(|| rustix::system::uname().nodename().to_bytes().to_ascii_lowercase());

/// All of them, in the order of their names.
#[rustfmt::skip]
pub const VARIABLES: &[Core] = &[
    text("args", "What follows the `?` of the request target.", |r| some(r, r.args.get())),
    written("binary_remote_addr", "The address of the client as 4 or 16 bytes, which is short as a key.", |r, out| match r.conn.remote_ip() {
        Some(IpAddr::V4(v4)) => bytes(&v4.octets(), out),
        Some(IpAddr::V6(v6)) => bytes(&v6.octets(), out),
        None => remote_addr(r, out),
    }),
    plain("body_bytes_sent", "Bytes sent to the client behind the header of the response.", |r, out| number(out, r.body_bytes_sent())),
    plain("bytes_sent", "Bytes sent to the client for this request.", |r, out| number(out, r.bytes_sent())),
    plain("connection", "Number of the connection, unique in the process; error logs show it behind `*`.", |r, out| number(out, r.conn.number)),
    plain("connection_requests", "Requests so far on the connection, this one included.", |r, out| number(out, u64::from(r.conn.requests()))),
    plain("connection_time", "Age of the connection, in seconds with milliseconds.", |r, out| {
        seconds(out, r.conn.lp.now_ms().saturating_sub(r.conn.accepted_ms))
    }),
    plain("connections_active", "Connections of clients that are open (nginx: stub_status).", |_, out| number(out, stats::get(stats::Counter::Connections))),
    text("content_length", "The Content-Length field of the request.", |r| r.header_in(b"content-length", 0).map(Text::Head)),
    text("content_type", "The Content-Type field of the request.", |r| r.header_in(b"content-type", 0).map(Text::Head)),
    text("document_root", "The folder that `root` or `alias` names for this request.", map_uri::document_root),
    text("document_uri", "The same as `$uri`.", |r| some(r, r.uri.get())),
    text("host", "The host that the client asked for, in lower case and without port; without one, the name of the server.", |r| Some(r.host.get())),
    written("hostname", "The name of the machine, in lower case, as it was at the start.", |_, out| bytes(&HOSTNAME, out)),
    plain("https", "`on` if the connection is encrypted, else empty. No connection is yet.", |_, _| true),
    plain("is_args", "`?` if the request has arguments, else empty.", |r, out| {
        if some(r, r.args.get()).is_some() { bytes(b"?", out) } else { true }
    }),
    plain("live_bufs", "Buffers of responses under way in the whole process. What stays when there are none is lost.", |_, out| number(out, stats::get(stats::Counter::Bufs))),
    plain("module_panics", "Panics of modules since the start.", |_, out| number(out, running::panics_of_all())),
    plain("msec", "The time, in seconds since 1970 with milliseconds.", |_, out| seconds(out, clock::realtime_ms())),
    plain("nginx_version", "The version of this server, as `$topnext_version`, so that formats written for nginx can be used.", |_, out| bytes(site::VERSION.as_bytes(), out)),
    plain("pid", "Number of the process.", |_, out| number(out, u64::from(std::process::id()))),
    plain("pipe", "`p` if the request was sent before the answer to the one before it, else `.`.", |r, out| {
        bytes(if r.conn.is_pipelined() { b"p" } else { b"." }, out)
    }),
    plain("proxy_protocol_addr", "The client's address in the header of the PROXY protocol.", |r, out| {
        r.conn.announced().is_some_and(|of| address(out, of.source))
    }),
    plain("proxy_protocol_port", "The client's port in the header of the PROXY protocol.", |r, out| {
        r.conn.announced().is_some_and(|of| port(out, Some(of.source.port())))
    }),
    plain("proxy_protocol_server_addr", "The server's address in the header of the PROXY protocol.", |r, out| {
        r.conn.announced().is_some_and(|of| address(out, of.destination))
    }),
    plain("proxy_protocol_server_port", "The server's port in the header of the PROXY protocol.", |r, out| {
        r.conn.announced().is_some_and(|of| port(out, Some(of.destination.port())))
    }),
    text("query_string", "The same as `$args`.", |r| some(r, r.args.get())),
    text("realpath_root", "The same as `$document_root`, with all symbolic links resolved.", map_uri::realpath_root),
    plain("remote_addr", "The address of the client.", |r, out| remote_addr(r, out)),
    plain("remote_port", "The port of the client; empty on a unix socket.", |r, out| port(out, r.conn.remote_port())),
    written("remote_user", "The name of the user, from an Authorization field with Basic authentication. Nobody has checked it unless a module did.", remote_user),
    written("request", "The request line as received.", |r, out| {
        let start = out.len();
        r.write_request_line(out);
        out.len() > start
    }),
    written("request_body", "The body of the request, once a handler has read it and if it is in memory.", request_body),
    written("request_body_file", "The file with the body of the request, if it has a name (client_body_in_file_only).",
        request_body_file),
    plain("request_completion", "`OK` if the whole response has been sent, else empty.", |r, out| {
        if r.is_complete() { bytes(b"OK", out) } else { true }
    }),
    text("request_filename", "The file that the URI maps to.", |r| some(r, map_uri::filename(r))),
    plain("request_id", "32 hexadecimal digits, made of random bits once for each request.", |r, out| {
        let id = &r.extra().request_id;
        let known = id.get().unwrap_or_else(request_id::next);
        id.set(Some(known));
        bytes(format!("{known:032x}").as_bytes(), out)
    }),
    plain("request_length", "Bytes of the request: its head, and what has been read of its body. Of a head that is refused, all that has been read.", |r, out| number(out, r.request_length())),
    text("request_method", "The method, such as `GET`.", |r| some(r, r.method_text())),
    plain("request_time", "Time since the head of the request was read, in seconds with milliseconds.", |r, out| {
        seconds(out, r.conn.lp.now_ms().saturating_sub(r.started_ms))
    }),
    text("request_uri", "The request target as received.", |r| some(r, Text::Head(r.parts.borrow().head.target()))),
    plain("requests", "Requests since the start (nginx: stub_status).", |_, out| number(out, stats::get(stats::Counter::Requests))),
    plain("scheme", "`http` or `https`.", |_, out| bytes(b"http", out)),
    written("server_addr", "The address that the client came to.", |r, out| match r.conn.local_addr() {
        Listen::Tcp(address) => bytes(address.ip().to_string().as_bytes(), out),
        path => bytes(path.to_string().as_bytes(), out),
    }),
    written("server_name", "The first name of the server that takes the request.", |r, out| bytes(r.server.name().as_bytes(), out)),
    plain("server_port", "The port that the client came to; empty on a unix socket.", |r, out| port(out, Some(r.conn.server_port()))),
    plain("server_protocol", "`HTTP/1.0` or `HTTP/1.1`, as the request says.", |r, out| {
        let parts = r.parts.borrow();
        !parts.bytes.is_empty() && bytes(if parts.head.minor() == 0 { b"HTTP/1.0" } else { b"HTTP/1.1" }, out)
    }),
    plain("status", "The status of the response, three digits; while an error page is made, that of the error.", |r, out| {
        let of_error = r.extra.get().map_or(0, |extra| extra.error.status.get());
        let status = if of_error > 0 { of_error } else { r.status.get() };
        if status < 100 {
            bytes(b"000", out)
        } else {
            number(out, u64::from(status))
        }
    }),
    plain("tcpinfo_rcv_space", "Space that the connection's receiver has, in bytes (tcp(7), TCP_INFO).", |r, out| tcp(r, out, |info| info.tcpi_rcv_space)),
    plain("tcpinfo_rtt", "Round trip time of the connection, in microseconds.", |r, out| tcp(r, out, |info| info.tcpi_rtt)),
    plain("tcpinfo_rttvar", "How much the round trip time varies, in microseconds.", |r, out| tcp(r, out, |info| info.tcpi_rttvar)),
    plain("tcpinfo_snd_cwnd", "Congestion window of the connection, in segments.", |r, out| tcp(r, out, |info| info.tcpi_snd_cwnd)),
    plain("time_iso8601", "The time as in `2026-11-22T03:26:11+00:00`.", |_, out| {
        clock::write_iso8601(out);
        true
    }),
    plain("time_local", "The time as in `22/Nov/2026:03:26:11 +0000`.", |_, out| {
        clock::write_access_log_time(out);
        true
    }),
    plain("topnext_version", "The version of this server.", |_, out| bytes(site::VERSION.as_bytes(), out)),
    written("upstream_addr", "The peer that the request was sent to. Of several peers this and all of the following values are joined \
        by `, `, and by ` : ` where an internal redirect led to another upstream; `-` is what was not come to.",
        |r, out| attempts::write(r, out, Attempt::write_addr)),
    plain("upstream_bytes_received", "Bytes received from the peer.", |r, out| attempts::write(r, out, Attempt::write_bytes_received)),
    plain("upstream_bytes_sent", "Bytes sent to the peer.", |r, out| attempts::write(r, out, Attempt::write_bytes_sent)),
    plain("upstream_connect_time", "Time until there was a connection to the peer, in seconds with milliseconds.", |r, out| {
        attempts::write(r, out, Attempt::write_connect_time)
    }),
    plain("upstream_header_time", "Time until the header of the peer's response was there.", |r, out| {
        attempts::write(r, out, Attempt::write_header_time)
    }),
    plain("upstream_response_length", "Bytes that the peer sent behind its header.", |r, out| {
        attempts::write(r, out, Attempt::write_response_length)
    }),
    plain("upstream_response_time", "Time until the end of the peer's response.", |r, out| {
        attempts::write(r, out, Attempt::write_response_time)
    }),
    plain("upstream_status", "Status of the peer's response; 502 or 504 if it gave none.", |r, out| {
        attempts::write(r, out, Attempt::write_status)
    }),
    plain("uptime", "Seconds since the start.", |_, out| number(out, stats::uptime().as_secs())),
    text("uri", "The path of the request: decoded, normalized, and as internal redirects have changed it.", |r| some(r, r.uri.get())),
    plain("worker_threads", "Event loops of the process.", |r, out| number(out, r.site.threads as u64)),
];

/// Families of variables, for the manual.
pub const PREFIXES: &[(&str, &str)] = &[
    ("1` to `$9", "What a group of the last regular expression that matched holds; named groups are variables too."),
    ("arg_NAME", "The argument of this name, in any case."),
    ("cookie_NAME", "The cookie of this name."),
    (
        "http_NAME",
        "The request header field of this name, in lower case with `_` for `-` and for `_`. Several are joined by `, `, \
         Cookie fields by `; `.",
    ),
    (
        "sent_http_NAME",
        "The response header field of this name, those that the server writes itself included, once the header is sent. \
         Several are joined by `, `. What is not sent has no value: `$sent_http_connection` is `close`, or `keep-alive` to \
         HTTP/1.0 and with the header of `keepalive_timeout`.",
    ),
    ("sent_trailer_NAME", "A trailer of the response. The server sends none yet, so that it has no value."),
];

/// Response header fields that the host writes, unless a module has set them.
pub const SENT_BY_HOST: &[(&str, Write)] = &[
    ("connection", |r, out| r.connection_sent.get().is_some_and(|sent| bytes(sent.as_bytes(), out))),
    ("content-length", |r, out| r.content_length.get().is_some_and(|length| number(out, length))),
    ("date", |r, out| {
        out.extend_from_slice(clock::http_date(r.header_second.get()).as_bytes());
        true
    }),
    ("keep-alive", |r, out| {
        let time = r.place().core.keepalive_header.filter(|_| r.connection_sent.get() == Some("keep-alive"));
        time.is_some_and(|time| bytes(b"timeout=", out) && number(out, time.as_secs()))
    }),
    ("server", |r, out| bytes(r.place().core.server_tokens.server().as_bytes(), out)),
    ("transfer-encoding", |r, out| r.chunked.get() && bytes(b"chunked", out)),
];

fn number(out: &mut Vec<u8>, number: u64) -> bool {
    bytes(itoa::Buffer::new().format(number).as_bytes(), out)
}

/// The client's address, without its port.
fn remote_addr(r: &Request, out: &mut Vec<u8>) -> bool {
    r.conn.write_remote_addr(out);
    true
}

/// The address, without its port.
fn address(out: &mut Vec<u8>, address: SocketAddr) -> bool {
    socket::write_ip(address.ip(), out);
    true
}

/// A port; nothing where there is none.
fn port(out: &mut Vec<u8>, port: Option<u16>) -> bool {
    port.filter(|port| *port != 0).is_none_or(|port| number(out, u64::from(port)))
}

fn seconds(out: &mut Vec<u8>, ms: u64) -> bool {
    number(out, ms / 1000);
    let ms = ms % 1000;
    bytes(&[b'.', b'0' + (ms / 100) as u8, b'0' + (ms / 10 % 10) as u8, b'0' + (ms % 10) as u8], out)
}

fn bytes(value: &[u8], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(value);
    true
}

/// The text, unless it is empty.
fn some(r: &Request, text: Text) -> Option<Text> {
    (!r.parts.borrow().text(text).is_empty()).then_some(text)
}

fn tcp(r: &Request, out: &mut Vec<u8>, field: fn(&libc::tcp_info) -> u32) -> bool {
    r.conn.tcp_info().is_some_and(|info| number(out, u64::from(field(&info))))
}

fn remote_user(r: &Rc<Request>, out: &mut Vec<u8>) -> bool {
    let parts = r.parts.borrow();
    let value = parts.head.value(parts.head.facts().authorization, &parts.bytes);
    let Some(user) = value.and_then(basic_user) else { return false };
    bytes(&user, out)
}

/// The user of Basic credentials (RFC 7617, section 2).
fn basic_user(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, credentials) = value.split_at_checked(b"Basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let mut user = STANDARD.decode(credentials.trim_ascii()).ok()?;
    let colon = user.iter().position(|&byte| byte == b':')?;
    user.truncate(colon);
    Some(user)
}

fn request_body(r: &Rc<Request>, out: &mut Vec<u8>) -> bool {
    let Some(extra) = r.extra.get() else { return false };
    let body = extra.body.borrow();
    if body.received == 0 || !r.body_complete.get() || body.in_file() {
        return false;
    }
    body.pieces().for_each(|piece| out.extend_from_slice(piece));
    true
}

fn request_body_file(r: &Rc<Request>, out: &mut Vec<u8>) -> bool {
    let Some(extra) = r.extra.get() else { return false };
    let body = extra.body.borrow();
    body.file_name().is_some_and(|name| bytes(name.path.as_os_str().as_encoded_bytes(), out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_basic_credentials() {
        assert_eq!(basic_user(b"Basic am9lOnNlY3JldA==").as_deref(), Some(&b"joe"[..]));
        assert_eq!(basic_user(b"basic  OnNlY3JldA== ").as_deref(), Some(&b""[..]));
        assert_eq!(basic_user(b"Basic am9l"), None, "no colon");
        assert_eq!(basic_user(b"Basic ?"), None);
        assert_eq!(basic_user(b"Bearer am9lOnNlY3JldA=="), None);
        assert_eq!(basic_user(b""), None);
    }

    #[test]
    fn seconds_have_three_places() {
        let text = |ms| {
            let mut out = Vec::new();
            seconds(&mut out, ms);
            String::from_utf8(out).expect("ASCII")
        };
        assert_eq!([text(0), text(7), text(1050), text(12_345)], ["0.000", "0.007", "1.050", "12.345"]);
    }

    #[test]
    fn names_are_sorted() {
        assert!(VARIABLES.windows(2).all(|pair| pair[0].name < pair[1].name));
    }
}
