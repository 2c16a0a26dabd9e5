//! A request of the kit: what the test says about it, and what has become of it.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;

use super::{end::End, event::Shared, kit::Kit, random::Random, variables};
use crate::{
    code::Code,
    context::RawContext,
    filter::{BodyLink, HeaderLink},
    handler::HandlerLink,
    running::{Hook, Running},
};

/// A header field.
pub(crate) type FieldOf = (String, Vec<u8>);

/// What stands at a path that the module opens.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    File(Bytes, i64),
    Directory,
    /// What is there on the disk.
    OnDisk,
    Forbidden,
}

/// What the test says about the request.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) method: Vec<u8>,
    pub(crate) request_uri: Vec<u8>,
    pub(crate) uri: Vec<u8>,
    pub(crate) args: Vec<u8>,
    pub(crate) version: i64,
    pub(crate) headers_in: Vec<FieldOf>,
    pub(crate) body: Vec<Bytes>,
    pub(crate) body_answer: Code,
    pub(crate) remote_addr: String,
    pub(crate) filename: Option<Vec<u8>>,
    pub(crate) location: String,
    pub(crate) mime_type: Option<String>,
    pub(crate) log_not_found: bool,
    pub(crate) main: bool,
    pub(crate) variables: Vec<FieldOf>,
    pub(crate) files: HashMap<Vec<u8>, Source>,
}

impl Default for Spec {
    fn default() -> Spec {
        let mut spec = Spec {
            method: Vec::new(),
            request_uri: Vec::new(),
            uri: Vec::new(),
            args: Vec::new(),
            version: 11,
            headers_in: Vec::new(),
            body: Vec::new(),
            body_answer: Code::OK,
            remote_addr: "127.0.0.1".to_string(),
            filename: None,
            location: "/".to_string(),
            mime_type: None,
            log_not_found: true,
            main: true,
            variables: Vec::new(),
            files: HashMap::new(),
        };
        spec.parse("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        spec
    }
}

impl Spec {
    /// Takes a request's line and header as text. Panics if it is not one: the test is wrong.
    #[track_caller]
    pub(crate) fn parse(&mut self, text: &str) {
        let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
        let [method, target, version] = words[..] else { panic!("not a request line: {:?}", words.join(" ")) };
        self.version = match version {
            "HTTP/1.0" => 10,
            "HTTP/1.1" => 11,
            "HTTP/2.0" => 20,
            other => panic!("no version of HTTP: {other:?}"),
        };
        let (path, args) = target.split_once('?').unwrap_or((target, ""));
        self.method = method.into();
        self.request_uri = target.into();
        self.args = args.into();
        self.uri = decode(path.as_bytes());
        self.headers_in = lines
            .take_while(|line| !line.is_empty())
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a header field: {line:?}"));
                (name.to_string(), value.trim_matches([' ', '\t']).as_bytes().to_vec())
            })
            .collect();
    }

    pub(crate) fn header_in(&self, name: &str) -> Option<&[u8]> {
        find(&self.headers_in, name, 0)
    }

    /// Whether it has a precondition.
    pub(crate) fn is_conditional(&self) -> bool {
        let names = ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"];
        names.iter().any(|name| self.header_in(name).is_some())
    }

    /// The host that the client asked for, in lower case and without a port.
    pub(crate) fn host(&self) -> Vec<u8> {
        let host = self.header_in("host").unwrap_or_default().to_ascii_lowercase();
        match host.iter().rposition(|&b| b == b':') {
            Some(colon) if host.iter().skip(colon).all(|b| *b == b':' || b.is_ascii_digit()) => host[..colon].to_vec(),
            _ => host,
        }
    }

    /// The file that the URI maps to: below `html`, unless the test says otherwise.
    pub(crate) fn filename(&self) -> Vec<u8> {
        self.filename.clone().unwrap_or_else(|| [b"html", self.uri.as_slice()].concat())
    }

    /// The media type for a few extensions, unless the test says otherwise.
    pub(crate) fn mime_type(&self) -> String {
        const TYPES: [(&str, &str); 5] = [
            (".html", "text/html"),
            (".css", "text/css"),
            (".json", "application/json"),
            (".png", "image/png"),
            (".bin", "application/octet-stream"),
        ];
        let known = TYPES.iter().find(|(extension, _)| self.uri.ends_with(extension.as_bytes()));
        self.mime_type.clone().unwrap_or_else(|| known.map_or("text/plain", |(_, ty)| ty).to_string())
    }

    /// The announced length of the request's body.
    pub(crate) fn body_length(&self) -> i64 {
        if self.header_in("transfer-encoding").is_some() {
            return -1;
        }
        self.body.iter().map(|piece| piece.len() as i64).sum()
    }

    /// Whether the response has no body, whatever the handler sends.
    pub(crate) fn header_only(&self, status: u16) -> bool {
        self.method == b"HEAD" || status == 204 || status == 304 || status < 200
    }
}

/// The n-th field of this name.
pub(crate) fn find<'a>(fields: &'a [FieldOf], name: &str, nth: usize) -> Option<&'a [u8]> {
    fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).nth(nth).map(|(_, value)| value.as_slice())
}

/// Resolves percent-encoding.
fn decode(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = path;
    while let [first, behind @ ..] = rest {
        let hex = |at: usize| behind.get(at).and_then(|&b| char::from(b).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = &behind[2..];
            }
            _ => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    out
}

/// What has become of the request. Hooks reach it by the pointer in their handle, so everything in it is a cell, and no
/// cell is borrowed while a hook runs.
pub(crate) struct State {
    pub(crate) spec: Spec,
    pub(crate) kit: Arc<Kit>,
    pub(crate) shared: Arc<Shared>,
    /// Decides what answers Again, if anything does.
    pub(crate) random: Option<Random>,
    pub(crate) status: Cell<u16>,
    pub(crate) content_length: Cell<Option<u64>>,
    pub(crate) allow_ranges: Cell<bool>,
    pub(crate) headers_out: RefCell<Vec<FieldOf>>,
    pub(crate) header_sent: Cell<bool>,
    pub(crate) keepalive: Cell<bool>,
    pub(crate) contexts: RefCell<Vec<(u32, RawContext)>>,
    pub(crate) holds: RefCell<Vec<u32>>,
    pub(crate) need_memory: Cell<bool>,
    pub(crate) now: Cell<u64>,
    pub(crate) timers: RefCell<Vec<(Running, u64)>>,
    /// Hooks whose file or body has come.
    pub(crate) ready: RefCell<Vec<Running>>,
    pub(crate) body_read: Cell<bool>,
    pub(crate) body_waits: Cell<u32>,
    /// What the module has asked for in memory at the most.
    pub(crate) body_max: Cell<Option<u64>>,
    pub(crate) opened: RefCell<HashSet<Vec<u8>>>,
    /// The system's error in opening a file last.
    pub(crate) open_error: Cell<i32>,
    /// The hook that makes the body, for messages.
    pub(crate) producer: Cell<&'static str>,
    /// The handler is asked in the log phase, where nobody waits for anything.
    pub(crate) log_phase: Cell<bool>,
    pub(crate) redirect: RefCell<Option<(Vec<u8>, Vec<u8>)>>,
    /// The URI and the arguments that the module has set.
    pub(crate) set_uri: RefCell<Option<Vec<u8>>>,
    pub(crate) set_args: RefCell<Option<Vec<u8>>>,
    /// What the module has said of the request to the peer.
    pub(crate) upstream_url: RefCell<(String, Vec<u8>)>,
    /// The handler has sent the end of the body.
    pub(crate) last_sent: Cell<bool>,
    /// Strings that were handed out, until the hook returns.
    pub(crate) pool: RefCell<Vec<Rc<[u8]>>>,
    pub(crate) links: Links,
    pub(crate) end: End,
    /// Hooks that the kit has called, and after how many of them the client goes away.
    pub(crate) calls: Cell<u32>,
    pub(crate) close_after: Option<u32>,
    /// The values of the module's variables at the end.
    pub(crate) values: RefCell<Vec<(String, Option<Vec<u8>>)>>,
    /// What broke the contract.
    pub(crate) faults: RefCell<Vec<String>>,
}

impl State {
    pub(crate) fn new(spec: &Spec, kit: &Arc<Kit>, random: Option<Random>, links: Links) -> State {
        State {
            spec: spec.clone(),
            kit: kit.clone(),
            shared: Arc::default(),
            random,
            status: Cell::new(0),
            content_length: Cell::new(None),
            allow_ranges: Cell::new(false),
            headers_out: RefCell::default(),
            header_sent: Cell::new(false),
            keepalive: Cell::new(false),
            contexts: RefCell::default(),
            holds: RefCell::default(),
            need_memory: Cell::new(false),
            now: Cell::new(1_000_000),
            timers: RefCell::default(),
            ready: RefCell::default(),
            body_read: Cell::new(false),
            body_waits: Cell::new(0),
            body_max: Cell::new(None),
            opened: RefCell::default(),
            open_error: Cell::new(0),
            producer: Cell::new("body_filter"),
            log_phase: Cell::new(false),
            redirect: RefCell::default(),
            set_uri: RefCell::default(),
            set_args: RefCell::default(),
            upstream_url: RefCell::default(),
            last_sent: Cell::new(false),
            pool: RefCell::default(),
            links,
            end: End::default(),
            calls: Cell::new(0),
            close_after: None,
            values: RefCell::default(),
            faults: RefCell::default(),
        }
    }

    /// Notes what broke the contract, once.
    pub(crate) fn fault(&self, text: impl Into<String>) {
        let text = text.into();
        let mut faults = self.faults.borrow_mut();
        if !faults.contains(&text) {
            faults.push(text);
        }
    }

    /// The URI, as it is now.
    pub(crate) fn uri(&self) -> Vec<u8> {
        self.set_uri.borrow().clone().unwrap_or_else(|| self.spec.uri.clone())
    }

    /// The arguments, as they are now.
    pub(crate) fn args(&self) -> Vec<u8> {
        self.set_args.borrow().clone().unwrap_or_else(|| self.spec.args.clone())
    }

    /// The file that the URI maps to.
    pub(crate) fn filename(&self) -> Vec<u8> {
        match &*self.set_uri.borrow() {
            Some(uri) => [b"html", uri.as_slice()].concat(),
            None => self.spec.filename(),
        }
    }

    /// True once in `n` times, in a run that has random answers.
    pub(crate) fn one_in(&self, n: usize) -> bool {
        self.random.as_ref().is_some_and(|random| random.one_in(n))
    }

    /// The value of a variable.
    pub(crate) fn variable(&self, name: &str) -> Option<Vec<u8>> {
        let spec = &self.spec;
        if let Some(value) = find(&spec.variables, name, 0) {
            return Some(value.to_vec());
        }
        if let Some(field) = name.strip_prefix("http_") {
            return spec.header_in(&field.replace('_', "-")).map(<[u8]>::to_vec);
        }
        if let Some(field) = name.strip_prefix("sent_http_") {
            return find(&self.headers_out.borrow(), &field.replace('_', "-"), 0).map(<[u8]>::to_vec);
        }
        if let Some(wanted) = name.strip_prefix("arg_") {
            let mut args = spec.args.split(|&b| b == b'&');
            return args.find_map(|arg| arg.strip_prefix(wanted.as_bytes())?.strip_prefix(b"=")).map(<[u8]>::to_vec);
        }
        Some(match name {
            "uri" | "document_uri" => self.uri(),
            "args" | "query_string" => self.args(),
            "request_uri" => spec.request_uri.clone(),
            "request_method" => spec.method.clone(),
            "request_filename" => self.filename(),
            "host" => spec.host(),
            "remote_addr" => spec.remote_addr.clone().into_bytes(),
            "scheme" => b"http".to_vec(),
            "status" => self.status.get().to_string().into_bytes(),
            _ => return None,
        })
    }

    /// The text of a compiled template.
    pub(crate) fn template(&self, id: u32) -> Vec<u8> {
        let text = super::host::template_text(id).unwrap_or_default();
        variables::expand(&text, |name| self.variable(name))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        for (_, context) in self.contexts.take() {
            if let Some(release) = context.drop {
                // SAFETY: the module gave the context to the host, which drops it once.
                unsafe { release(context.ptr) }
            }
        }
    }
}

/// The chains of a request, from the top to the kit's end, and its handler.
#[derive(Clone)]
pub(crate) struct Links {
    /// The links in reverse order; each points to the one before it. Counted, so that they stay where they are.
    headers: Vec<Rc<HeaderLink>>,
    bodies: Vec<Rc<BodyLink>>,
    pub(crate) handler: Option<HandlerLink>,
}

impl Links {
    /// No filter, only the end.
    pub(crate) fn new() -> Links {
        Links {
            headers: vec![Rc::new(HeaderLink::new(super::end::header, std::ptr::null(), 0))],
            bodies: vec![Rc::new(BodyLink::new(super::end::body, std::ptr::null(), 0))],
            handler: None,
        }
    }

    /// Puts a filter in front.
    pub(crate) fn push(&mut self, mut header: HeaderLink, body: Option<BodyLink>) {
        header.next = Rc::as_ptr(self.header());
        self.headers.push(Rc::new(header));
        if let Some(mut body) = body {
            body.next = Rc::as_ptr(self.body());
            self.bodies.push(Rc::new(body));
        }
    }

    pub(crate) fn header(&self) -> &Rc<HeaderLink> {
        self.headers.last().expect("the end is always there")
    }

    pub(crate) fn body(&self) -> &Rc<BodyLink> {
        self.bodies.last().expect("the end is always there")
    }
}

/// Whether a hook of a filter asked, so that the chain is continued rather than the handler called.
pub(crate) fn is_filter(running: Running) -> bool {
    matches!(running.hook, Hook::HEADER_FILTER | Hook::BODY_FILTER)
}
