//! The handle of a request: what a hook sees and does through it.

use std::{fmt, marker::PhantomData, time::Duration};

use abi_stable::{
    StableAbi,
    std_types::{ROption, Tuple2},
};

use crate::{
    chain::Chain,
    code::Code,
    context::Context,
    file::{OpenError, Opened},
    host::{HostData, RequestApiRef},
    log::Level,
    running::RunningCell,
    wake::{Job, Waker, Wanted},
};

/// Which text [`RequestApi::text`](crate::host::RequestApi) is asked for.
pub mod text {
    /// The method as received.
    pub const METHOD: u32 = 0;
    /// The normalized, decoded path.
    pub const URI: u32 = 1;
    /// What follows `?`.
    pub const ARGS: u32 = 2;
    /// The request target as received.
    pub const REQUEST_URI: u32 = 3;
    /// The path of the file that the URI maps to; empty without a root.
    pub const FILENAME: u32 = 4;
    /// The host the client asked for, in lower case.
    pub const HOST: u32 = 5;
    /// The client's address, as text.
    pub const REMOTE_ADDR: u32 = 6;
    /// The path of the location that the request is in.
    pub const LOCATION: u32 = 7;
}

/// Which number [`RequestApi::number`](crate::host::RequestApi) is asked for.
pub mod number {
    /// The status of the response.
    pub const STATUS: u32 = 0;
    /// The length of the response's body; -1 if it is not known.
    pub const CONTENT_LENGTH: u32 = 1;
    /// 1 once the header has been sent.
    pub const HEADER_SENT: u32 = 2;
    /// HTTP version: 10, 11.
    pub const VERSION: u32 = 3;
    /// Bytes that were accepted for sending but have not left.
    pub const UNSENT: u32 = 4;
    /// 1 for a request of a client, 0 for a subrequest.
    pub const IS_MAIN: u32 = 5;
    /// The length of the request's body as announced; -1 if it is chunked, 0 if there is none.
    pub const BODY_LENGTH: u32 = 6;
    /// Milliseconds of a clock that never goes back.
    pub const NOW_MS: u32 = 7;
    /// Whether the upstream connection may be kept (only set).
    pub const UPSTREAM_KEEPALIVE: u32 = 8;
    /// 1 if files that are not found are to be logged, else 0.
    pub const LOG_NOT_FOUND: u32 = 14;
    /// 1 if the request has a precondition, 0 if it has none.
    pub const IS_CONDITIONAL: u32 = 9;
    /// 1 if the response may be answered in ranges, 0 if not.
    pub const ALLOW_RANGES: u32 = 10;
    /// The number of the system's error because of which a file could not be opened last; 0 if there was none.
    pub const OPEN_ERROR: u32 = 11;
    /// The most bytes of the request's body that are to be kept in memory, not in a file (only set).
    pub const BODY_IN_MEMORY: u32 = 17;
    /// 1 if symbolic links are followed wherever they are, else 0.
    pub const FOLLOWS_SYMLINKS: u32 = 24;
}

/// A request, during a hook. Never leaves the thread, nor the hook.
///
/// Strings that it hands out (`&'h`) live until the hook returns, even if what they came from is replaced meanwhile.
#[repr(C)]
#[derive(StableAbi)]
pub struct Request<'h> {
    data: HostData,
    api: RequestApiRef,
    cell: &'h RunningCell,
    reserved: [usize; 2],
    not_send: PhantomData<*mut ()>,
}

impl<'h> Request<'h> {
    /// Made by the host for one call into a module.
    ///
    /// # Safety
    /// `data` is what the functions of `api` expect, and stays valid during `'h`; `cell` is this thread's.
    pub unsafe fn new(data: HostData, api: RequestApiRef, cell: &'h RunningCell) -> Request<'h> {
        Request { data, api, cell, reserved: [0; 2], not_send: PhantomData }
    }

    /// The host's pointer.
    pub fn data(&self) -> HostData {
        self.data
    }

    /// This thread's cell.
    #[doc(hidden)]
    pub fn cell(&self) -> &'h RunningCell {
        self.cell
    }

    /// The host's services. In a test the kit may panic here: see [`crate::testing`].
    #[inline]
    #[track_caller]
    fn api(&self) -> RequestApiRef {
        #[cfg(feature = "testing")]
        crate::testing::point();
        self.api
    }

    fn module(&self) -> u32 {
        self.cell.get().module
    }

    #[track_caller]
    fn text(&self, which: u32) -> &'h [u8] {
        // SAFETY: `data` is valid during 'h, as is what it hands out. So in all methods below.
        unsafe { self.api().text()(self.data, which) }.as_slice()
    }

    #[track_caller]
    fn number(&self, which: u32) -> i64 {
        // SAFETY: see `text`.
        unsafe { self.api().number()(self.data, which) }
    }

    #[track_caller]
    fn set_number(&mut self, which: u32, value: i64) -> bool {
        // SAFETY: see `text`.
        unsafe { self.api().set_number()(self.data, which, value) }
    }

    // ---- the request

    /// The method as received, `GET`.
    pub fn method(&self) -> &'h [u8] {
        self.text(text::METHOD)
    }

    /// The path: decoded, dot segments resolved, slashes merged ($uri).
    pub fn uri(&self) -> &'h [u8] {
        self.text(text::URI)
    }

    /// What follows the `?`, as received ($args).
    pub fn args(&self) -> &'h [u8] {
        self.text(text::ARGS)
    }

    /// The request target as received ($request_uri).
    pub fn request_uri(&self) -> &'h [u8] {
        self.text(text::REQUEST_URI)
    }

    /// The path of the file that the URI maps to: root and URI. Empty where no `root` is set.
    pub fn filename(&self) -> &'h [u8] {
        self.text(text::FILENAME)
    }

    /// The host that the client asked for, in lower case, without a port ($host).
    pub fn host(&self) -> &'h [u8] {
        self.text(text::HOST)
    }

    /// The client's address as text ($remote_addr).
    pub fn remote_addr(&self) -> &'h [u8] {
        self.text(text::REMOTE_ADDR)
    }

    /// The path of the location that the request is in, without its modifier.
    pub fn location(&self) -> &'h [u8] {
        self.text(text::LOCATION)
    }

    /// The HTTP version: 10 for 1.0, 11 for 1.1.
    pub fn version(&self) -> u32 {
        self.number(number::VERSION) as u32
    }

    /// Whether this is the request of a client, rather than a subrequest.
    pub fn is_main(&self) -> bool {
        self.number(number::IS_MAIN) == 1
    }

    /// A request header field, by name in any case; the first if there are several.
    pub fn header_in(&self, name: &str) -> Option<&'h [u8]> {
        self.header_in_nth(name, 0)
    }

    /// The n-th (from 0) request header field of this name.
    pub fn header_in_nth(&self, name: &str, nth: usize) -> Option<&'h [u8]> {
        // SAFETY: see `text`.
        unsafe { self.api().header_in()(self.data, name.into(), nth) }.into_option().map(|value| value.as_slice())
    }

    /// Whether the request has a precondition: one of If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since (RFC
    /// 9110, section 13.1; If-Range is part of a range request). Cheaper than asking for each.
    pub fn is_conditional(&self) -> bool {
        self.number(number::IS_CONDITIONAL) != 0
    }

    /// The request header fields, in the order received.
    pub fn headers_in(&self) -> impl Iterator<Item = (&'h [u8], &'h [u8])> + use<'h> {
        let (data, api) = (self.data, self.api());
        (0..).map_while(move |index| {
            // SAFETY: see `text`.
            let field = unsafe { api.header_in_at()(data, index) };
            field.into_option().map(|Tuple2(name, value)| (name.as_slice(), value.as_slice()))
        })
    }

    // ---- the response's header

    /// The status of the response.
    pub fn status(&self) -> u16 {
        self.number(number::STATUS) as u16
    }

    /// Sets the status (100 to 599). Ignored once the header is out.
    pub fn set_status(&mut self, status: u16) {
        self.set_number(number::STATUS, i64::from(status));
    }

    /// The length of the response's body in bytes, if it is known.
    pub fn content_length(&self) -> Option<u64> {
        u64::try_from(self.number(number::CONTENT_LENGTH)).ok()
    }

    /// Sets the length of the body; `None` if it is not known (a filter that changes the body says so).
    pub fn set_content_length(&mut self, length: Option<u64>) {
        self.set_number(number::CONTENT_LENGTH, length.and_then(|length| i64::try_from(length).ok()).unwrap_or(-1));
    }

    /// Whether a part of the response's body may be sent in its place (RFC 9110, section 14).
    pub fn allow_ranges(&self) -> bool {
        self.number(number::ALLOW_RANGES) == 1
    }

    /// Says whether a part of the body may be sent in its place (nginx: r->allow_ranges); at first it may not.
    ///
    /// A handler that sends the same bytes each time says so before it sends the header. A filter that changes bytes takes
    /// it back, since ranges would be cut out of what it makes. Ignored once the header is out.
    pub fn set_allow_ranges(&mut self, allow: bool) {
        self.set_number(number::ALLOW_RANGES, i64::from(allow));
    }

    /// A response header field, by name in any case; the first if there are several.
    pub fn header_out(&self, name: &str) -> Option<&'h [u8]> {
        // SAFETY: see `text`.
        unsafe { self.api().header_out()(self.data, name.into(), 0) }.into_option().map(|value| value.as_slice())
    }

    /// The response header fields (without those that the host writes itself: Server, Date, Content-Length, Connection).
    pub fn headers_out(&self) -> impl Iterator<Item = (&'h [u8], &'h [u8])> + use<'h> {
        let (data, api) = (self.data, self.api());
        (0..).map_while(move |index| {
            // SAFETY: see `text`.
            let field = unsafe { api.header_out_at()(data, index) };
            field.into_option().map(|Tuple2(name, value)| (name.as_slice(), value.as_slice()))
        })
    }

    /// Sets a response header field, replacing all of this name. The value is copied.
    ///
    /// False, and nothing changes, if name or value are malformed, the header is out, or the fields exceed the host's
    /// bound. The host logs which.
    pub fn set_header_out(&mut self, name: &str, value: impl AsRef<[u8]>) -> bool {
        // SAFETY: see `text`.
        unsafe { self.api().set_header_out()(self.data, name.into(), value.as_ref().into(), false) }
    }

    /// Adds a response header field, keeping others of this name. Otherwise like [`Request::set_header_out`].
    pub fn add_header_out(&mut self, name: &str, value: impl AsRef<[u8]>) -> bool {
        // SAFETY: see `text`.
        unsafe { self.api().set_header_out()(self.data, name.into(), value.as_ref().into(), true) }
    }

    /// Sets Content-Type to the media type for the URI's extension (types, default_type; nginx: ngx_http_set_content_type).
    /// False if the header is out.
    pub fn set_content_type(&mut self) -> bool {
        // SAFETY: see `text`.
        unsafe { self.api().set_content_type()(self.data) }
    }

    /// Sets Last-Modified and ETag to those of a file that is the whole response; ETag only where the directive `etag` asks
    /// for it (nginx: ngx_http_set_etag). False if the header is out.
    pub fn set_validators(&mut self, file: &crate::File) -> bool {
        // SAFETY: see `text`.
        unsafe { self.api().set_validators()(self.data, file) }
    }

    /// Removes the response header fields of this name.
    pub fn remove_header_out(&mut self, name: &str) {
        // SAFETY: see `text`.
        unsafe { self.api().remove_header_out()(self.data, name.into()) }
    }

    /// Whether the header has been sent.
    pub fn header_sent(&self) -> bool {
        self.number(number::HEADER_SENT) == 1
    }

    // ---- output

    /// Sends the header through the header filters. Answers Ok, Again or Error, as the filters do.
    pub fn send_header(&mut self) -> Code {
        // SAFETY: see `text`.
        unsafe { self.api().send_header()(self.data) }
    }

    /// Sends a part of the body through the body filters, which own it from here on.
    ///
    /// Again: accepted, but not all of it has left. A handler that has more to send answers Again itself and is called
    /// again when there is room.
    pub fn output(&mut self, chain: impl Into<Chain>) -> Code {
        // SAFETY: see `text`.
        unsafe { self.api().output()(self.data, chain.into()) }
    }

    /// Sends header and a whole body at once: sets the length, and marks the end.
    pub fn send(&mut self, status: u16, content_type: &str, body: impl Into<crate::Buf>) -> Code {
        let mut body = body.into();
        self.set_status(status);
        self.set_header_out("Content-Type", content_type);
        self.set_content_length(Some(body.len()));
        body.set_last(true);
        match self.send_header() {
            Code::OK | Code::AGAIN => self.output(Chain::from(body)),
            other => other,
        }
    }

    /// Bytes that were accepted for sending but have not left: bound what you produce by it.
    pub fn unsent(&self) -> u64 {
        self.number(number::UNSENT).unsigned_abs()
    }

    /// Says whether this module's body filter holds data that it will pass on without further input, when there is time or
    /// room. Until it says that it holds nothing any more, the request is not finalized and its producer is not asked for
    /// more. (Input that is kept until more of it comes, as a compressor does, is not held in this sense.)
    pub fn hold(&mut self, holding: bool) {
        // SAFETY: see `text`.
        unsafe { self.api().hold()(self.data, self.module(), holding) }
    }

    /// In a header filter: this module's body filter needs memory. Files are read before the chain meets it.
    pub fn need_memory(&mut self) {
        // SAFETY: see `text`.
        unsafe { self.api().need_memory()(self.data) }
    }

    // ---- the request's body

    /// Reads the whole body: Ok, or Again (the hook is called again), or a status such as 413 to answer.
    ///
    /// A body that is larger than client_body_buffer_size ends up in a temporary file, so that its size costs no memory: what
    /// [`Request::body`] gives can be sent on or output as it is, but to look into it ask for
    /// [`Request::read_body_in_memory`] instead.
    ///
    /// Ask before the response begins: once it waits for a client that is still sending, what comes of the body is
    /// discarded, and this answers Error.
    pub fn read_body(&mut self) -> Code {
        // SAFETY: see `text`.
        unsafe { self.api().read_body()(self.data) }
    }

    /// As [`Request::read_body`], but the body is in memory in any case; 413 if it is larger than `max` bytes. It takes so
    /// much memory for each request: choose `max` accordingly.
    pub fn read_body_in_memory(&mut self, max: u64) -> Code {
        self.set_number(number::BODY_IN_MEMORY, i64::try_from(max).unwrap_or(i64::MAX));
        self.read_body()
    }

    /// The body that was read: bufs in memory, or one in a file ([`crate::Buf::file`]). Both are shared, so that it can be
    /// asked for again; the file lives as long as a buf of it does.
    pub fn body(&self) -> Chain {
        // SAFETY: see `text`.
        unsafe { self.api().body()(self.data) }
    }

    /// The announced length of the body: 0 if there is none, `None` if it is chunked.
    pub fn body_length(&self) -> Option<u64> {
        u64::try_from(self.number(number::BODY_LENGTH)).ok()
    }

    // ---- contexts, variables, files

    /// This module's context, if one was set and is not checked out already.
    ///
    /// # Panics
    /// If it is of another type, which is a fault of the module.
    #[track_caller]
    pub fn context<T: 'static>(&self) -> Option<Context<'h, T>> {
        Context::take(self.data, self.api(), self.module())
    }

    /// Sets this module's context, dropping the one before.
    pub fn set_context<T: 'static>(&mut self, value: T) -> Context<'h, T> {
        // The one before goes now, so that nobody finds it while the new one is checked out.
        crate::context::discard(self.data, self.api(), self.module());
        Context::new(self.data, self.api(), self.module(), value)
    }

    /// The value of a variable, without `$`; `None` if it is unknown or has no value.
    pub fn variable(&self, name: &str) -> Option<&'h [u8]> {
        // SAFETY: see `text`.
        unsafe { self.api().variable()(self.data, name.into()) }.into_option().map(|value| value.as_slice())
    }

    pub(crate) fn template(&self, id: u32) -> &'h [u8] {
        // SAFETY: see `text`.
        unsafe { self.api().template()(self.data, id) }.as_slice()
    }

    /// Opens a file without blocking the loop. `Pending`: answer Again; when called again the file is there.
    pub fn open_file(&mut self, path: &[u8]) -> Opened {
        // SAFETY: see `text`.
        unsafe { self.api().open_file()(self.data, path.into()) }.into()
    }

    /// Why [`Request::open_file`] last answered NotFound, Forbidden or Failed in this request.
    pub fn open_error(&self) -> OpenError {
        OpenError(i32::try_from(self.number(number::OPEN_ERROR)).unwrap_or(0))
    }

    /// Whether symbolic links are followed, whosever they are (nginx: disable_symlinks). If not, [`Request::open_file`]
    /// sees to it; a module that opens something itself has to.
    pub fn follows_symlinks(&self) -> bool {
        self.number(number::FOLLOWS_SYMLINKS) != 0
    }

    /// Starts over at another URI, when the hook has returned (nginx: ngx_http_internal_redirect); or goes on in the named
    /// location `@name`, with its URI and arguments as they are (nginx: ngx_http_named_location). Answer what this answers:
    /// Done, or a status if it cannot be done.
    pub fn internal_redirect(&mut self, uri: &[u8], args: &[u8]) -> Code {
        // SAFETY: see `text`.
        unsafe { self.api().internal_redirect()(self.data, uri.into(), args.into()) }
    }

    /// Whether a file that is not found is to be logged (nginx: log_not_found).
    pub fn log_not_found(&self) -> bool {
        self.number(number::LOG_NOT_FOUND) != 0
    }

    /// The file that a URI maps to in this location, by root or alias (nginx: ngx_http_map_uri_to_path). Empty if no root
    /// is set, or if the URI leads out of it.
    pub fn map_uri_to_path(&self, uri: &[u8]) -> &'h [u8] {
        // SAFETY: see `text`.
        unsafe { self.api().map_uri_to_path()(self.data, uri.into()) }.as_slice()
    }

    /// Changes the URI; the arguments stay.
    ///
    /// In a rewrite phase the request finds its location by the new URI, which starts with a slash. In a later phase it
    /// stays in its location, and the URI is one that [`Request::map_uri_to_path`] was asked for: with an alias, the path of
    /// the location may be missing in it. False, and nothing changes, if the URI has a segment `..` or the header is out.
    pub fn set_uri(&mut self, uri: &[u8]) -> bool {
        // SAFETY: see `text`.
        unsafe { self.api().set_uri()(self.data, uri.into(), ROption::RNone) }
    }

    /// Changes the URI and the arguments: see [`Request::set_uri`].
    pub fn set_uri_and_args(&mut self, uri: &[u8], args: &[u8]) -> bool {
        // SAFETY: see `text`.
        unsafe { self.api().set_uri()(self.data, uri.into(), ROption::RSome(args.into())) }
    }

    // ---- time and threads

    /// Has this hook called again after `time`: a body filter with an empty chain, a handler as the first time.
    ///
    /// One per request and hook; a later call replaces an earlier one.
    pub fn wake_after(&mut self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        // SAFETY: see `text`.
        unsafe { self.api().wake_after()(self.data, ms) }
    }

    /// A waker for this hook, for use on any thread. For filters and handlers: upstream and balancer hooks are called when
    /// the peer does something, and are not woken.
    pub fn waker(&mut self) -> Waker {
        // SAFETY: see `text`.
        Waker::from_raw(unsafe { self.api().waker()(self.data) })
    }

    /// Runs `work` on the thread pool. Answer Again: the hook is called again when the job is done.
    ///
    /// If the request ends first, because the client goes away, the work runs on and its result is dropped. `None` if the
    /// pool's queue is full.
    pub fn offload<T: Send + 'static>(&mut self, work: impl FnOnce() -> T + Send + 'static) -> Option<Job<T>> {
        let api = self.api();
        let (job, raw) = Job::new(work);
        // SAFETY: see `text`; the job is run or dropped by the host.
        unsafe { api.offload()(self.data, raw) }.then_some(job)
    }

    /// As [`Request::offload`], for work that is worth nothing to anybody but this request: it is told whether the [`Job`] is
    /// still there, and gives up if not. For what takes long, so that clients that come and go do not fill the pool.
    pub fn offload_while_wanted<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Wanted) -> T + Send + 'static,
    ) -> Option<Job<T>> {
        let api = self.api();
        let (job, raw) = Job::while_wanted(work);
        // SAFETY: see `text`; the job is run or dropped by the host.
        unsafe { api.offload()(self.data, raw) }.then_some(job)
    }

    /// A clock that never goes back, in milliseconds; it stands still during a hook.
    pub fn now_ms(&self) -> u64 {
        self.number(number::NOW_MS).unsigned_abs()
    }

    /// In an upstream hook: whether the connection may be kept for another request when this one is done.
    pub fn set_upstream_keepalive(&mut self, keep: bool) {
        self.set_number(number::UPSTREAM_KEEPALIVE, i64::from(keep));
    }

    /// In [`crate::Upstream::create_request`]: how the error log writes where the request goes, with the address of the peer
    /// between the two: `"http://"` and `b"/uri?args"` make `upstream: "http://127.0.0.1:9001/uri?args"` (nginx: schema and
    /// uri of ngx_http_upstream_t).
    pub fn set_upstream_url(&mut self, schema: &str, uri: &[u8]) {
        // SAFETY: see `text`.
        unsafe { self.api().set_upstream_url()(self.data, schema.into(), uri.into()) }
    }

    // ---- logging

    /// Whether a line of this level would be logged.
    pub fn logs(&self, level: Level) -> bool {
        // SAFETY: see `text`.
        unsafe { self.api().logs()(self.data, level as u32) }
    }

    /// Logs a line about this request. Use [`crate::log!`].
    pub fn log(&self, level: Level, text: fmt::Arguments<'_>) {
        let text = text.to_string();
        // SAFETY: see `text`.
        unsafe { self.api().log()(self.data, level as u32, text.as_str().into()) }
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("uri", &String::from_utf8_lossy(self.uri())).finish_non_exhaustive()
    }
}
