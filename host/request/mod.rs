//! A request, from its head to its end: what is known of it, and how far it has come. It is the host's private half of
//! the handle that modules get.
//!
//! Everything here is behind `Cell` or `RefCell`, and no borrow is held across a call into a module: a module's call
//! comes back through the handle while the host is still in the middle of its own function.
//!
//! How a request goes, by file:
//!
//! ```text
//! http1/connection/    reads the head, makes the Request
//! server_name.rs       which server
//! phases.rs            the phases, location.rs among them, up to content
//! output.rs            header filters, body filters, and what is behind the last filter
//! http1/connection/    framing and writing
//! finalize.rs          the one way out
//! ```

pub mod body;

pub mod captures;

pub mod headers_out;

pub mod pool;

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::VecDeque,
    ops::{Deref, DerefMut},
    rc::Rc,
    time::Duration,
};

use topnext_module_api::{context::RawContext, running::Hook};

use crate::{
    error_page,
    event::{Answer, Ready, RemoteId, Source, TimerId, remote::Announcement},
    http1::{Framing, Head, Span, connection::Http1},
    log::error::{Level, Tail},
    log_line,
    open_file::{How, OpenFile},
    output::Copy,
    phases::Step,
    process::scoreboard,
    site::{Place, Server, Site},
    upstream,
};
use body::Body;
use captures::Captures;
use headers_out::HeadersOut;
use pool::{Pool, PoolStr};

/// A text of a request: in the head as received, or made and stored in the pool.
#[derive(Clone, Copy, Debug)]
pub enum Text {
    /// A part of the head.
    Head(Span),
    /// A string in the pool.
    Pool(PoolStr),
}

impl Default for Text {
    fn default() -> Text {
        Text::Pool(PoolStr::default())
    }
}

impl Text {
    /// The bytes from `start` to `end` of it.
    pub fn slice(self, start: usize, end: usize) -> Text {
        match self {
            Text::Head(span) => {
                let at = |offset: usize| span.start.saturating_add(offset as u32).min(span.end);
                Text::Head(Span { start: at(start), end: at(end) })
            }
            Text::Pool(text) => {
                let (whole, _) = text.split_at(end);
                Text::Pool(whole.split_at(start).1)
            }
        }
    }
}

/// The parts with memory of their own, which goes from request to request.
#[derive(Default)]
pub struct Parts {
    /// The bytes of the head.
    pub bytes: Vec<u8>,
    /// What they say.
    pub head: Head,
    /// Strings that were made for this request.
    pub pool: Pool,
    /// Strings that were made for modules, until the outermost hook has returned.
    lent: Pool,
    /// The response's header fields.
    pub headers_out: HeadersOut,
    /// The modules' contexts, by slot.
    pub contexts: Vec<RawContext>,
}

thread_local! {
    /// Parts of requests that have ended, for the next ones. Boxed, since they are large and handed around.
    #[allow(clippy::vec_box)]
    static SPARE: RefCell<Vec<Box<Parts>>> = const { RefCell::new(Vec::new()) };
}

/// The most parts that a thread keeps.
const MAX_SPARE: usize = 64;
/// The most memory that parts keep for the bytes of a head.
const MAX_HEAD: usize = 16 * 1024;

/// Parts lent to a request: they go back when the request is dropped.
pub struct Lent(Option<Box<Parts>>);

impl Lent {
    /// Parts that are empty, with the memory of an earlier request if there is one.
    pub fn new() -> Lent {
        Lent(Some(SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()))
    }
}

impl Default for Lent {
    fn default() -> Lent {
        Lent::new()
    }
}

impl Deref for Lent {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        self.0.as_ref().expect("taken by drop only")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Parts {
        self.0.as_mut().expect("taken by drop only")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut parts) = self.0.take() else { return };
        parts.bytes.clear();
        parts.bytes.shrink_to(MAX_HEAD);
        parts.pool.clear();
        parts.lent.clear();
        parts.headers_out.clear();
        parts.contexts.clear();
        // At the end of a thread the list may be gone; then the parts are simply dropped.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MAX_SPARE {
                spare.push(parts);
            }
        });
    }
}

thread_local! {
    /// The memory of [`with_buffer`].
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends an empty buffer, whose memory goes from call to call; within another call it is a new one.
pub fn with_buffer<T>(run: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut buffer = BUFFER.take();
    let result = run(&mut buffer);
    buffer.clear();
    if buffer.capacity() <= MAX_HEAD {
        BUFFER.set(buffer);
    }
    result
}

impl Parts {
    /// The bytes of a text.
    pub fn text(&self, text: Text) -> &[u8] {
        match text {
            Text::Head(span) => span.of(&self.bytes),
            Text::Pool(text) => self.pool.get(text),
        }
    }
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nothing: it is running, or being made.
    Nothing,
    /// The handler at the current step answered Again; it is asked again when it is woken.
    Handler,
    /// The same, and it is woken by room to write as well.
    HandlerOrRoom,
    /// The upstream's answer.
    Upstream,
    /// The response is complete, and what is held or queued has to leave.
    Flush,
    /// It has ended.
    Ended,
}

/// Calls of modules into the host and back that may be nested.
const MAX_DEPTH: u32 = 32;
/// A file that a handler has asked for, and that the thread pool opens.
pub struct Opening {
    /// The path.
    pub path: Vec<u8>,
    /// How it is opened.
    pub how: How,
    /// What came of it; `None` while the pool works.
    pub result: Answer<OpenFile>,
}

/// A request of a client.
pub struct Request {
    /// The connection that it came on.
    pub conn: Rc<Http1>,
    /// The configuration that it lives in.
    pub site: &'static Site,
    /// The server that its Host names.
    pub server: &'static Server,
    /// The location that it is in; before that the server's own place.
    pub place: Cell<&'static Place>,
    /// The place whose filters the response passes: set when the header is sent, and then fixed.
    pub pinned: Cell<Option<&'static Place>>,
    /// Memory.
    pub parts: RefCell<Lent>,

    /// The normalized path.
    pub uri: Cell<Text>,
    /// What follows the `?`.
    pub args: Cell<Text>,
    /// The name in Host, without port.
    pub host: Cell<Text>,
    /// The file that the URI maps to, once it was asked for.
    pub filename: Cell<Option<Text>>,
    /// The client's address, once a module has asked for it.
    remote_addr: Cell<Option<Text>>,
    /// The method as the server sees it; an error page is made as for GET.
    pub is_head: Cell<bool>,
    /// How the body is framed.
    pub framing: Framing,
    /// All of the body has been read, or there is none.
    pub body_complete: Cell<bool>,
    /// When the head was complete, on the loop's clock.
    pub started_ms: u64,

    /// The step it is at, and which handler of it.
    pub at: Cell<(Step, usize)>,
    /// What it waits for.
    pub wait: Cell<Wait>,
    /// Calls into modules that have not returned.
    pub depth: Cell<u32>,
    /// The thread's count of panics when the outermost call began.
    pub panics_before: Cell<u64>,
    /// A module failed it: nothing can turn it into a success.
    pub failed: Cell<bool>,
    /// It was answered without modules.
    pub bare: Cell<bool>,
    /// An internal redirect that waits for the outermost hook to return.
    pub redirect: Cell<bool>,
    /// It was redirected internally, or its URI was rewritten: locations that are `internal` may answer it.
    pub internal: Cell<bool>,
    /// Changes of its URI so far: see redirect.rs.
    pub redirects: Cell<u32>,
    /// An error page is being made, so that another error does not make another.
    pub error_page: Cell<bool>,
    /// A log phase has run.
    pub logged: Cell<bool>,

    /// The status of the response; 0 before it is known.
    pub status: Cell<u16>,
    /// The length of the response's body, if it is known.
    pub content_length: Cell<Option<u64>>,
    /// A part of the body may be sent in its place.
    pub allow_ranges: Cell<bool>,
    /// The header filters have been called.
    pub header_started: Cell<bool>,
    /// The header is behind the last filter.
    pub header_sent: Cell<bool>,
    /// No body follows the header: HEAD, 204, 304.
    pub header_only: Cell<bool>,
    /// The body is chunked.
    pub chunked: Cell<bool>,
    /// A file must be read into memory before body filters see it.
    pub need_memory: Cell<bool>,
    /// The handler has given the end of the body.
    pub last_in: Cell<bool>,
    /// The end of the body is behind the last filter.
    pub last_out: Cell<bool>,
    /// Bytes of the body behind the last filter.
    pub body_sent: Cell<u64>,
    /// Bytes that leave before the body: the header, and 100 Continue if that was sent.
    pub header_size: Cell<u64>,
    /// When the header was written, in seconds since 1970.
    pub header_second: Cell<u64>,
    /// The Connection field that was written.
    pub connection_sent: Cell<Option<&'static str>>,
    /// Strings have been lent to modules.
    has_lent: Cell<bool>,
    /// Modules that hold data, by slot.
    pub holding: Cell<u128>,
    /// What few requests need, made when it is asked for: see [`Request::extra`].
    pub extra: OnceCell<Box<Extra>>,
}

/// What few requests need: most have no body, wait for nothing but their client, and end where they began.
#[derive(Default)]
pub struct Extra {
    /// What is known of a head that could not be parsed.
    pub bad_head: RefCell<BadHead>,
    /// What the groups of regular expressions hold.
    pub captures: RefCell<Captures>,
    /// The body.
    pub body: RefCell<Body>,
    /// Files that are being read for the filters.
    pub copy: RefCell<Copy>,
    /// The upstream that makes the response.
    pub upstream: RefCell<Option<Rc<upstream::Exchange>>>,
    /// How logs write where it is sent: what stands in front of the address of a peer, and what behind it.
    pub upstream_url: Cell<(Text, Text)>,
    /// The peers that it has been sent to.
    pub attempts: RefCell<Vec<upstream::attempts::Attempt>>,
    /// A file that the pool opens for a handler.
    pub opening: RefCell<Option<Opening>>,
    /// What is kept of an error whose page is being made.
    pub error: error_page::Redirected,
    /// The named location to which a redirect leads that waits for the outermost hook to return.
    pub named: Cell<Option<&'static Place>>,
    /// A handler of the rewrite phase has changed the URI, so that the location is to be found anew.
    pub uri_changed: Cell<bool>,
    /// The URI is appended to the `alias` of a location with a regular expression (nginx: add_uri_to_alias).
    pub uri_behind_alias: Cell<bool>,
    /// 401 or 403 of a handler in the access phase where another one may let the request in; else 0 (nginx: access_code).
    pub refused: Cell<u16>,
    /// The body was refused, as too large or broken: it is not read, and whoever asks for it gets an empty one.
    pub body_refused: Cell<bool>,
    /// The number of the system's error in opening a file last.
    pub open_error: Cell<i32>,
    /// Timers of hooks: which one, and the module and hook to wake.
    timers: RefCell<Vec<(TimerId, u64)>>,
    /// As other threads know it.
    remote_id: Announcement,
    /// Jobs of the pool that have not come back.
    jobs: Cell<u32>,
    /// Wakes that came while a hook was running.
    pub late_wakes: RefCell<VecDeque<u64>>,
    /// `$request_id`, once it was asked for.
    pub request_id: Cell<Option<u128>>,
    /// Values of modules' variables that are evaluated once, by module and index.
    values: RefCell<Vec<(VariableKey, Option<Text>)>>,
}

/// What is known of a head that could not be parsed, or of which the rest did not come.
#[derive(Default)]
pub struct BadHead {
    /// What came in place of the request line, or the start of that.
    pub line: Vec<u8>,
    /// All that was read for it, in bytes.
    pub read: u64,
}

/// A variable of a module: its slot, and the variable's number.
type VariableKey = (u32, u32);

impl Extra {
    /// The value of a module's variable, if it has been evaluated: `Some(None)` if it had none.
    pub fn value(&self, key: VariableKey) -> Option<Option<Text>> {
        self.values.borrow().iter().find(|(known, _)| *known == key).map(|(_, value)| *value)
    }

    /// A module's variable has been evaluated.
    pub fn keep_value(&self, key: VariableKey, value: Option<Text>) {
        self.values.borrow_mut().push((key, value));
    }

    /// The pool has a job of this request.
    pub fn job_started(&self) {
        self.jobs.set(self.jobs.get() + 1);
    }
}

impl Request {
    /// A request at its first step, in the server's own place. Its host and URI are still to be set.
    pub fn new(
        conn: Rc<Http1>,
        site: &'static Site,
        server: &'static Server,
        parts: Lent,
        framing: Framing,
        is_head: bool,
    ) -> Request {
        let started_ms = conn.lp.now_ms();
        Request {
            conn,
            site,
            place: Cell::new(&server.place),
            server,
            pinned: Cell::default(),
            parts: RefCell::new(parts),
            uri: Cell::default(),
            args: Cell::default(),
            host: Cell::default(),
            filename: Cell::default(),
            remote_addr: Cell::default(),
            is_head: Cell::new(is_head),
            framing,
            body_complete: Cell::default(),
            started_ms,
            at: Cell::new((Step::FIRST, 0)),
            wait: Cell::new(Wait::Nothing),
            depth: Cell::default(),
            panics_before: Cell::default(),
            failed: Cell::default(),
            bare: Cell::default(),
            redirect: Cell::default(),
            internal: Cell::default(),
            redirects: Cell::default(),
            error_page: Cell::default(),
            logged: Cell::default(),
            status: Cell::default(),
            content_length: Cell::default(),
            allow_ranges: Cell::default(),
            header_started: Cell::default(),
            header_sent: Cell::default(),
            header_only: Cell::default(),
            chunked: Cell::default(),
            need_memory: Cell::default(),
            last_in: Cell::default(),
            last_out: Cell::default(),
            body_sent: Cell::default(),
            header_size: Cell::default(),
            header_second: Cell::default(),
            connection_sent: Cell::default(),
            has_lent: Cell::default(),
            holding: Cell::default(),
            extra: OnceCell::new(),
        }
    }

    /// The length of the body as announced; `None` if it is chunked.
    pub fn body_length(&self) -> Option<u64> {
        match self.framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        }
    }

    /// What few requests need. Made here if there was none: whoever only looks, looks at the field.
    pub fn extra(&self) -> &Extra {
        self.extra.get_or_init(Box::default)
    }

    /// The exchange with an upstream that makes the response.
    pub fn exchange(&self) -> Option<Rc<upstream::Exchange>> {
        self.extra.get()?.upstream.borrow().clone()
    }

    /// Whether files are being read for the filters.
    pub fn is_copying(&self) -> bool {
        self.extra.get().is_some_and(|extra| !extra.copy.borrow().is_empty())
    }

    /// Files that wait for it are not read any more.
    pub fn stop_copying(&self) {
        if let Some(extra) = self.extra.get() {
            extra.copy.replace(Copy::default());
        }
    }

    /// Whether the body is in a file, and a handler wants it in memory.
    pub fn is_body_to_be_loaded(&self) -> bool {
        let body = self.extra.get().map(|extra| extra.body.borrow());
        body.is_some_and(|body| body.memory_max.is_some() && body.in_file())
    }

    /// Whether the client has closed in the middle of its body.
    pub fn is_body_cut_short(&self) -> bool {
        self.extra.get().is_some_and(|extra| extra.body.borrow().cut_short)
    }

    /// Whether its User-Agent is one that `browser` knows.
    pub fn is_by(&self, browser: impl Fn(&[u8]) -> bool) -> bool {
        let parts = self.parts.borrow();
        parts.head.value(parts.head.facts().user_agent, &parts.bytes).is_some_and(browser)
    }

    /// Whether a handler has asked for the body, at any time.
    pub fn is_body_asked(&self) -> bool {
        self.extra.get().is_some_and(|extra| extra.body.borrow().asked)
    }

    /// Whether a handler wants the body.
    pub fn is_body_wanted(&self) -> bool {
        self.extra.get().is_some_and(|extra| extra.body.borrow().wanted)
    }

    /// Whether a handler waits for the rest of the body.
    pub fn is_body_awaited(&self) -> bool {
        !self.body_complete.get() && self.is_body_wanted()
    }

    /// The bytes of a text, copied out.
    pub fn text_owned(&self, text: Text) -> Vec<u8> {
        self.parts.borrow().text(text).to_vec()
    }

    /// Stores a string; an empty one if the pool is full, which fails the request.
    pub fn store(&self, parts: &[&[u8]]) -> Text {
        // In a statement of its own: what follows borrows the parts again.
        let stored = self.parts.borrow_mut().pool.store(parts);
        match stored {
            Some(text) => Text::Pool(text),
            None => self.pool_is_full(),
        }
    }

    /// The client's address as text; `unix:` on a unix socket.
    pub fn remote_addr(&self) -> Text {
        if let Some(text) = self.remote_addr.get() {
            return text;
        }
        let text = with_buffer(|text| {
            self.conn.write_remote_addr(text);
            self.store(&[text])
        });
        self.remote_addr.set(Some(text));
        text
    }

    /// What stands for a text that could not be stored. The request has failed.
    #[cold]
    pub fn pool_is_full(&self) -> Text {
        log_line!(Level::Error, "*{} the pool of a request is full{}", self.conn.number, self.log_tail());
        self.failed.set(true);
        Text::default()
    }

    /// Stores a string for a module, until the outermost hook has returned; an empty one if there is no room, which fails
    /// the request.
    pub fn lend<T>(&self, bytes: &[u8], lend: impl FnOnce(&[u8]) -> T) -> T {
        self.has_lent.set(true);
        {
            let parts = &mut **self.parts.borrow_mut();
            if let Some(text) = parts.lent.store(&[bytes]) {
                return lend(parts.lent.get(text));
            }
        }
        let tail = self.log_tail();
        log_line!(Level::Error, "*{} a hook was given too many or too long strings{tail}", self.conn.number);
        self.failed.set(true);
        lend(b"")
    }

    /// The location that it is in.
    pub fn place(&self) -> &'static Place {
        self.place.get()
    }

    /// The method; where an error page is made, GET, or HEAD if the client sent that.
    pub fn method(&self) -> crate::http1::Method {
        match self.method_of_error() {
            Some(_) if self.is_head.get() => crate::http1::Method::Head,
            Some(_) => crate::http1::Method::Get,
            None => self.parts.borrow().head.method(),
        }
    }

    /// The method as text.
    pub fn method_text(&self) -> Text {
        self.method_of_error().unwrap_or_else(|| Text::Head(self.parts.borrow().head.method_span()))
    }

    fn method_of_error(&self) -> Option<Text> {
        self.extra.get()?.error.method.get()
    }

    /// Writes the request line as received behind what is in `out`.
    pub fn write_request_line(&self, out: &mut Vec<u8>) {
        self.with_request_line(&mut |line| out.extend_from_slice(line));
    }

    /// Calls `look` with the request line as received.
    fn with_request_line(&self, look: &mut dyn FnMut(&[u8])) {
        let parts = self.parts.borrow();
        if parts.bytes.is_empty() {
            return match self.extra.get() {
                Some(extra) => look(&extra.bad_head.borrow().line),
                None => look(b""),
            };
        }
        let start = parts.head.method_span().start as usize;
        let line = parts.bytes.get(start..start + parts.head.line_len());
        look(line.unwrap_or_default().trim_ascii_end());
    }

    /// Bytes sent to the client for it (nginx: $bytes_sent).
    pub fn bytes_sent(&self) -> u64 {
        self.conn.sent()
    }

    /// Of these, what came behind the header (nginx: $body_bytes_sent). So the framing of a chunked body counts.
    pub fn body_bytes_sent(&self) -> u64 {
        self.bytes_sent().saturating_sub(self.header_size.get())
    }

    /// Bytes received for it: the head, and what has been read of the body (nginx: $request_length).
    pub fn request_length(&self) -> u64 {
        let more = |extra: &Extra| extra.body.borrow().received + extra.bad_head.borrow().read;
        self.parts.borrow().bytes.len() as u64 + self.extra.get().map_or(0, |extra| more(extra))
    }

    /// Whether the whole response has left (nginx: $request_completion).
    pub fn is_complete(&self) -> bool {
        self.header_sent.get() && (self.last_out.get() || self.header_only.get()) && self.conn.unsent() == 0
    }

    /// The end of a line of the error log that is about this request. The line goes to the log of its place.
    #[cold]
    pub fn log_tail(&self) -> Tail {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (mut client, mut line) = (Vec::new(), Vec::new());
        self.conn.write_remote_addr(&mut client);
        self.write_request_line(&mut line);
        let mut tail =
            format!(", client: {}, server: {}, request: \"{}\"", text(&client), self.server.name(), text(&line));
        if let Some(upstream) = self.exchange() {
            let (schema, uri) = self.extra().upstream_url.get();
            let (schema, uri) = (self.text_owned(schema), self.text_owned(uri));
            let peer = upstream.peer_name();
            // nginx: what follows a path of a socket is told from it.
            let colon = if peer.starts_with("unix:") && !uri.is_empty() { ":" } else { "" };
            tail.push_str(&format!(", upstream: \"{}{peer}{colon}{}\"", text(&schema), text(&uri)));
        }
        for (label, name) in [("host", &b"host"[..]), ("referrer", b"referer")] {
            if let Some(value) = self.header_in(name, 0) {
                tail.push_str(&format!(", {label}: \"{}\"", text(value.of(&self.parts.borrow().bytes))));
            }
        }
        Tail::new(&self.place().error_log, tail)
    }

    /// The value of a request header field that the parser knows.
    pub fn header_in(&self, name: &[u8], nth: usize) -> Option<Span> {
        let parts = self.parts.borrow();
        let same = |field: &&crate::http1::Field| field.name.of(&parts.bytes).eq_ignore_ascii_case(name);
        parts.head.fields().iter().filter(same).nth(nth).map(|field| field.value)
    }

    /// Whether a module has panicked in the running call.
    pub fn has_panicked(&self) -> bool {
        self.failed.get() || (self.depth.get() > 0 && self.panics_before.get() != crate::plugins::running::panics())
    }

    /// Whether modules and host have called each other too deep: a variable that evaluates itself, a body filter that
    /// starts the chain anew. The request fails, and the stack does not overflow.
    pub fn is_too_deep(&self) -> bool {
        if self.depth.get() < MAX_DEPTH {
            return false;
        }
        if !self.failed.replace(true) {
            let name = crate::plugins::running::module_name(crate::plugins::running::cell().get().module);
            let text = "calls between modules and host are nested too deep; the last one came from module";
            log_line!(Level::Crit, "*{} {text} {name}{}", self.conn.number, self.log_tail());
        }
        true
    }

    /// Runs `call`, which calls a module, and notes whether it panicked.
    pub fn guarded<T>(&self, call: impl FnOnce() -> T) -> T {
        if self.depth.get() == 0 {
            self.panics_before.set(crate::plugins::running::panics());
            scoreboard::note_request(self.conn.number, self.conn.requests(), |note| self.with_request_line(note));
        }
        self.depth.set(self.depth.get() + 1);
        let result = call();
        self.depth.set(self.depth.get() - 1);
        if self.depth.get() == 0 {
            if self.panics_before.get() != crate::plugins::running::panics() {
                self.failed.set(true);
            }
            if self.has_lent.take() {
                self.parts.borrow_mut().lent.clear();
            }
        }
        result
    }

    /// As other threads know it, announced when first asked for.
    pub fn announce(self: &Rc<Self>) -> RemoteId {
        self.extra().remote_id.id(self)
    }

    /// Has `hook` of `module` called again after `time`. One timer per module and hook.
    pub fn wake_after(self: &Rc<Self>, code: u64, time: Duration) {
        let lp = &self.conn.lp;
        let timers = &self.extra().timers;
        let known = timers.borrow().iter().find(|(_, of)| *of == code).map(|(timer, _)| *timer);
        let timer = known.unwrap_or_else(|| {
            let kind = timers.borrow().len() as u32;
            let timer = lp.add_timer(self.clone(), kind);
            timers.borrow_mut().push((timer, code));
            timer
        });
        lp.start_timer(timer, time);
    }

    /// Whether something that wakes a handler is pending: a timer, a waker, a job, or the body.
    pub fn is_awaited(&self) -> bool {
        let Some(extra) = self.extra.get() else { return false };
        extra.timers.borrow().iter().any(|(timer, _)| self.conn.lp.timer_runs(*timer))
            || self.is_body_awaited()
            || extra.jobs.get() > 0
            || extra.remote_id.is_known()
            || !extra.late_wakes.borrow().is_empty()
    }

    /// Forgets what was prepared of a response that is given up before its header was sent.
    pub fn forget_response(&self) {
        self.need_memory.set(false);
        self.allow_ranges.set(false);
        self.holding.set(0);
        self.stop_copying();
        self.content_length.set(None);
        let parts = &mut **self.parts.borrow_mut();
        for name in ["Content-Type", "Content-Encoding", "Accept-Ranges", "ETag", "Last-Modified"] {
            parts.headers_out.remove(&parts.pool, name.as_bytes());
        }
    }

    /// Drops all contexts, each under its module's guard.
    pub fn drop_contexts(&self) {
        loop {
            let context = {
                let contexts = &mut self.parts.borrow_mut().contexts;
                let Some(at) = contexts.iter().position(|context| !context.ptr.is_null()) else { break };
                std::mem::replace(&mut contexts[at], RawContext::NONE)
            };
            crate::plugins::services::drop_context(context);
        }
    }

    /// Lets go of everything that refers back to the request, when it has ended.
    pub fn release(&self) {
        self.drop_contexts();
        let Some(extra) = self.extra.get() else { return };
        for (timer, _) in extra.timers.borrow_mut().drain(..) {
            self.conn.lp.remove_timer(timer);
        }
        extra.remote_id.forget();
        if let Some(files) = extra.body.take().into_files() {
            // To close a file that has no name any more gives its blocks back, which may take the disk's time. If the pool's
            // queue is full that is done right here: it must be done.
            let _ = self.site.pool.run(Box::new(move || drop(files)));
        }
        extra.copy.replace(Copy::default());
        extra.upstream.replace(None);
        extra.opening.replace(None);
    }
}

/// What a wake is about: a module's hook.
pub fn wake_code(module: u32, hook: Hook) -> u64 {
    (u64::from(module) << 32) | u64::from(hook.0)
}

/// The code of the end of a job; added to a wake code.
pub const JOB_DONE: u64 = 1 << 63;
/// A file for the copy filter has been read.
pub const COPY_DONE: u64 = 1 << 62;

impl Source for Request {
    fn ready(self: Rc<Self>, _: Ready) {}

    fn panicked(self: Rc<Self>) {
        Source::panicked(self.conn.clone());
    }

    fn expired(self: Rc<Self>, kind: u32) {
        let code = self.extra().timers.borrow().get(kind as usize).map(|(_, code)| *code);
        if let Some(code) = code {
            crate::phases::wake(&self, code);
        }
    }

    fn posted(self: Rc<Self>, code: u64) {
        if code & JOB_DONE != 0 {
            let jobs = &self.extra().jobs;
            jobs.set(jobs.get().saturating_sub(1));
        }
        if code & COPY_DONE != 0 {
            crate::output::copy_done(&self);
            return;
        }
        crate::phases::wake(&self, code & !JOB_DONE);
    }
}
