//! Passes requests to HTTP/1.1 servers (nginx: proxy).
//!
//! ```toml
//! [[http.server.location]]
//! path = "/api/"
//! proxy.pass = "http://backend/v1/"         # /api/users goes to the upstream "backend" as /v1/users
//! proxy.read_timeout = "10s"
//! proxy.set_header = [
//!     { name = "Host", value = "$host" },
//!     { name = "X-Real-IP", value = "$remote_addr" },
//! ]
//! ```
//!
//! Unlike nginx's default it speaks HTTP/1.1 and keeps connections. The header goes to the client when it is complete,
//! the body as it comes.
//!
//! Reading order: `pass` (where to), `request` (what is sent), `response` (the header that comes back), `body` and
//! `chunked` (where its body ends), `redirect` (Location), `hop_by_hop` (fields that are passed on in neither
//! direction).

#![forbid(unsafe_code)]

mod pass;
mod request;

mod response;

mod body;
mod chunked;
mod redirect;

mod hop_by_hop;

use topnext_module_api::prelude::*;

use crate::{
    body::{Body, Took},
    pass::Pass,
    response::{Framing, Head},
};

/// The table `proxy`.
#[derive(Config)]
pub struct Table {
    /// Where requests go: "http://backend" (an upstream), "http://127.0.0.1:9001", or with a URI part, which replaces
    /// the location's path: "http://backend/uri/". A unix socket is "http://unix:PATH" or "http://unix:PATH:/uri/". In a
    /// location of a regular expression or a name there is no path to replace, and so no URI part
    /// (proxy_pass).
    #[config(inherit = false)]
    pass: String,
    /// Fields of the request to the peer, instead of the client's of the same name. An empty value leaves the field
    /// out. Host is by default the address in `pass` (proxy_set_header).
    #[config(default = [])]
    set_header: Vec<SetHeader>,
    /// Time for the connection to a peer to be made (proxy_connect_timeout).
    #[config(default = "60s")]
    connect_timeout: Duration,
    /// Time between two successful writes to the peer (proxy_send_timeout).
    #[config(default = "60s")]
    send_timeout: Duration,
    /// Time between two successful reads from the peer (proxy_read_timeout).
    #[config(default = "60s")]
    read_timeout: Duration,
    /// The bound of the response's header (proxy_buffer_size).
    #[config(default = "8k")]
    buffer_size: Size,
    /// The version of requests: "1.1", or "1.0" without keepalive (proxy_http_version).
    #[config(default = "1.1")]
    http_version: String,
    /// Whether the client's header fields are passed on (proxy_pass_request_headers).
    #[config(default = true)]
    pass_request_headers: bool,
    /// Whether the client's body is passed on (proxy_pass_request_body).
    #[config(default = true)]
    pass_request_body: bool,
    /// Response fields that are not passed to the client, besides Date, Server, X-Pad and X-Accel-*
    /// (proxy_hide_header).
    #[config(default = [])]
    hide_header: Vec<String>,
    /// Response fields that are passed although they are hidden by default (proxy_pass_header).
    #[config(default = [])]
    pass_header: Vec<String>,
}

/// A field of the request to the peer.
#[derive(Config)]
pub struct SetHeader {
    /// Its name.
    name: String,
    /// Its value, which may contain variables.
    value: Template,
}

/// The table, prepared.
pub struct Proxy {
    upstream: UpstreamId,
    pass: Pass,
    table: Table,
}

/// What is known of the exchange with one peer.
#[derive(Default)]
struct Exchange {
    /// The status; 0 until the header is complete.
    status: u16,
    /// Where the body ends.
    body: Body,
    /// Whether the header allows another request on the same connection.
    keepalive: bool,
    /// Whether bytes came together with the header, and after it.
    surplus: bool,
}

export_module! {
    name: "proxy",
    module: Proxy,
    provides: [upstream],
}

impl Module for Proxy {
    type Config = Table;

    fn new(table: Table, _: &Setup<'_>) -> Result<Proxy, ConfigErrors> {
        let mut errors = ConfigErrors::new();
        check_table(&table, &mut errors);
        let pass = Pass::parse(&table.pass).map_err(|message| errors.add::<()>("pass", message)).ok();
        let options = UpstreamOptions {
            connect_timeout: table.connect_timeout,
            send_timeout: table.send_timeout,
            read_timeout: table.read_timeout,
            buffer_size: usize::try_from(table.buffer_size.0).unwrap_or(usize::MAX),
        };
        let found = pass.as_ref().map(|pass| UpstreamId::find(pass.upstream(), 80, &options));
        match (pass, found) {
            (Some(pass), Some(Ok(upstream))) if errors.is_empty() => Ok(Proxy { upstream, pass, table }),
            (_, Some(Err(message))) => {
                errors.add::<()>("pass", message);
                Err(errors)
            }
            _ => Err(errors),
        }
    }
}

impl Upstream for Proxy {
    fn upstream(&self) -> UpstreamId {
        self.upstream
    }

    fn replaces_prefix(&self) -> Option<&'static str> {
        self.pass.uri().map(|_| "pass")
    }

    fn create_request(&self, r: &mut Request<'_>, request: &mut Chain) -> Code {
        r.set_context(Exchange::default());
        r.set_upstream_keepalive(false);
        let body = if self.table.pass_request_body { r.body() } else { Chain::new() };
        let header = match request::header(&self.table, &self.pass, r, body.len_bytes()) {
            Ok(header) => header,
            Err(refused) => {
                log!(r, refused.level, "{}", refused.message);
                return refused.code;
            }
        };
        request.push(Buf::from(header));
        for mut buf in body.filter(|buf| !buf.is_empty()) {
            buf.set_last(false);
            request.push(buf);
        }
        Code::OK
    }

    /// The host has removed what the last peer's header left in the response.
    fn reinit_request(&self, r: &mut Request<'_>) -> Code {
        r.set_context(Exchange::default());
        r.set_upstream_keepalive(false);
        Code::OK
    }

    fn process_header(&self, r: &mut Request<'_>, input: &[u8]) -> Progress {
        let mut start = 0;
        loop {
            let rest = input.get(start..).unwrap_or_default();
            let mut fields = response::field_storage();
            let head = match Head::parse(rest, &mut fields) {
                Ok(Some(head)) => head,
                Ok(None) => return Progress::Incomplete,
                Err(fault) => {
                    log!(r, Level::Error, "upstream sent invalid header: {fault}");
                    return Progress::Invalid;
                }
            };
            start += head.length;
            // 100 Continue, 103 Early Hints: the final response follows (RFC 9110, 15.2).
            if head.is_interim() {
                continue;
            }
            if !self.accept(r, &head, start < input.len()) {
                return Progress::Invalid;
            }
            return Progress::Complete(start);
        }
    }

    fn input_filter_init(&self, r: &mut Request<'_>) -> Code {
        let Some(mut exchange) = r.context::<Exchange>() else {
            return Code::ERROR;
        };
        let no_body = r.method() == b"HEAD" || matches!(exchange.status, 204 | 304);
        if !no_body && !matches!(exchange.body, Body::Length(0)) {
            return Code::OK;
        }
        if exchange.surplus {
            log!(r, Level::Warn, "upstream sent data after a response that has no body");
        }
        r.set_upstream_keepalive(exchange.keepalive && !exchange.surplus);
        exchange.body = Body::Length(0);
        Code::DONE
    }

    fn input_filter(&self, r: &mut Request<'_>, input: Chain, output: &mut Chain) -> Code {
        let Some(mut exchange) = r.context::<Exchange>() else {
            return Code::ERROR;
        };
        match exchange.body.take(input, output) {
            Ok(Took::More) => Code::OK,
            Ok(Took::All { surplus, closed }) => {
                if surplus {
                    log!(r, Level::Warn, "upstream sent more data than its response has");
                }
                r.set_upstream_keepalive(exchange.keepalive && !surplus && !closed);
                Code::DONE
            }
            Err(fault) => {
                r.set_upstream_keepalive(false);
                log!(r, Level::Error, "upstream {fault}");
                Code::ERROR
            }
        }
    }

    fn abort_request(&self, r: &mut Request<'_>) {
        let status = r.context::<Exchange>().map_or(0, |exchange| exchange.status);
        let had = if status == 0 { "before the upstream's header".to_string() } else { format!("behind its {status}") };
        log!(r, Level::Debug, "client has gone {had}: the connection to the upstream is closed");
    }

    fn finalize_request(&self, r: &mut Request<'_>, code: Code) {
        log!(r, Level::Debug, "upstream request ended: {code:?}");
    }
}

impl Proxy {
    /// Makes the peer's header the response's. False if the host refuses a field, which it has logged: passing on a
    /// part of a header could drop the field that protects the rest.
    fn accept(&self, r: &mut Request<'_>, head: &Head<'_, '_>, more: bool) -> bool {
        r.set_status(head.status);
        for field in head.passed().filter(|field| !self.hides(field.name)) {
            let rewritten = redirect::rewrite(&self.pass, request::replaced(r), r.uri(), field.name, field.value);
            let value = rewritten.as_deref().unwrap_or(field.value);
            if !r.add_header_out(field.name, value) {
                return false;
            }
        }
        let (body, length) = match head.framing {
            Framing::Length(length) => (Body::Length(length), Some(length)),
            Framing::Chunked => (Body::chunked(), None),
            Framing::UntilClose => (Body::UntilClose, None),
        };
        r.set_content_length(length);
        let keepalive = head.keepalive && self.table.http_version == "1.1";
        r.set_context(Exchange { status: head.status, body, keepalive, surplus: more });
        true
    }

    /// Whether a response field is kept from the client (proxy_hide_header, proxy_pass_header).
    fn hides(&self, name: &str) -> bool {
        let named_in = |list: &[String]| list.iter().any(|entry| entry.eq_ignore_ascii_case(name));
        let by_default = ["date", "server", "x-pad"].iter().any(|hidden| hidden.eq_ignore_ascii_case(name))
            || name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("x-accel-"));
        named_in(&self.table.hide_header) || (by_default && !named_in(&self.table.pass_header))
    }
}

/// What the schema cannot say about the table.
fn check_table(table: &Table, errors: &mut ConfigErrors) {
    if !matches!(table.http_version.as_str(), "1.0" | "1.1") {
        let message = format!("found {:?}, expected \"1.1\" or \"1.0\"", table.http_version);
        errors.add::<()>("http_version", message);
    }
    for (i, field) in table.set_header.iter().enumerate() {
        if !hop_by_hop::is_token(field.name.as_bytes()) {
            errors.add::<()>(&format!("set_header[{i}].name"), format!("{:?} is not a field name", field.name));
        } else if request::FRAMING.iter().any(|name| name.eq_ignore_ascii_case(&field.name)) {
            let message = format!("{} is set by proxy itself, from the body that it sends", field.name);
            errors.add::<()>(&format!("set_header[{i}].name"), message);
        }
    }
    for (key, names) in [("hide_header", &table.hide_header), ("pass_header", &table.pass_header)] {
        for (i, name) in names.iter().enumerate().filter(|(_, name)| !hop_by_hop::is_token(name.as_bytes())) {
            errors.add::<()>(&format!("{key}[{i}]"), format!("{name:?} is not a field name"));
        }
    }
    if table.buffer_size.0 < 1024 {
        errors.add::<()>("buffer_size", format!("found {}, expected 1k or more", table.buffer_size));
    }
}
