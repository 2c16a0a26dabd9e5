//! Upstream protocols: how to talk to a peer. The host connects, reads, writes, retries and keeps connections; the
//! module makes the request and understands the answer (nginx: the callbacks of ngx_http_upstream_t).

use std::time::Duration;

use abi_stable::{
    StableAbi,
    std_types::{ROption, RSlice, RStr},
};

use crate::{
    Request,
    chain::Chain,
    code::Code,
    host,
    module::Module,
    panic::{enter, enter_for_code},
    running::Hook,
};

/// Which upstream, and how long its peers may take.
#[derive(Clone, Debug)]
pub struct UpstreamOptions {
    /// Time for the connection to a peer to be made (proxy_connect_timeout).
    pub connect_timeout: Duration,
    /// Time between two successful writes to the peer (proxy_send_timeout).
    pub send_timeout: Duration,
    /// Time between two successful reads from the peer (proxy_read_timeout).
    pub read_timeout: Duration,
    /// The bound of the peer's response header, in bytes (proxy_buffer_size).
    pub buffer_size: usize,
}

impl Default for UpstreamOptions {
    /// nginx's: 60 s each, 8 KB.
    fn default() -> UpstreamOptions {
        let minute = Duration::from_secs(60);
        UpstreamOptions { connect_timeout: minute, send_timeout: minute, read_timeout: minute, buffer_size: 8192 }
    }
}

/// [`UpstreamOptions`] in the ABI.
#[repr(C)]
#[derive(StableAbi)]
pub struct RawUpstream<'a> {
    /// The name of an `[http.upstream.NAME]`, or `host:port`.
    pub name: RStr<'a>,
    /// The port if the name has none.
    pub default_port: u16,
    /// In milliseconds, as the next two.
    pub connect_timeout: u64,
    /// Between two writes.
    pub send_timeout: u64,
    /// Between two reads.
    pub read_timeout: u64,
    /// In bytes.
    pub buffer_size: u64,
    /// For later.
    pub reserved: [u64; 4],
}

/// An upstream of the configuration, found by a module while it was configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamId(u32);

impl UpstreamId {
    /// Finds `[http.upstream.NAME]`, or stands for the single peer `host:port` or `unix:PATH`. Only while
    /// configuring.
    pub fn find(name: &str, default_port: u16, options: &UpstreamOptions) -> Result<UpstreamId, String> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let raw = RawUpstream {
            name: name.into(),
            default_port,
            connect_timeout: ms(options.connect_timeout),
            send_timeout: ms(options.send_timeout),
            read_timeout: ms(options.read_timeout),
            buffer_size: options.buffer_size as u64,
            reserved: [0; 4],
        };
        // SAFETY: what it points to lives during the call.
        let found = unsafe { host::expect().find_upstream()(&raw) };
        found.into_result().map(UpstreamId).map_err(String::from)
    }
}

/// What [`Upstream::process_header`] made of the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The header is not complete: call again when there are more bytes, with all of them.
    Incomplete,
    /// The header is complete and took this many bytes; what follows is body.
    Complete(usize),
    /// It is not a valid response: 502, and the next peer if that is allowed.
    Invalid,
}

/// A protocol of an upstream, in the order of its calls for one request.
///
/// Hooks run on the thread of the request.
pub trait Upstream: Module {
    /// The upstream that requests in this location go to.
    fn upstream(&self) -> UpstreamId;

    /// The key of the table whose value goes to the peer in place of the location's path at the start of the URI, if it
    /// is set so here: `pass` with a URI part. Where the path of a location is no start of a URI (a regular expression, a
    /// name) nothing could be replaced, so that the host refuses the configuration at this key.
    fn replaces_prefix(&self) -> Option<&'static str> {
        None
    }

    /// Makes the request, header and body, as it goes to the peer. Once per request; the host sends it again to the
    /// next peer if it has to. Ok, or an error.
    fn create_request(&self, r: &mut Request<'_>, request: &mut Chain) -> Code;

    /// The request goes to another peer: forget what the last one said.
    fn reinit_request(&self, r: &mut Request<'_>) -> Code {
        let _ = r;
        Code::OK
    }

    /// Understands the header of the response: `input` is all that has come so far. Sets status and header fields.
    fn process_header(&self, r: &mut Request<'_>, input: &[u8]) -> Progress;

    /// The header is complete. Ok: a body follows. Done: there is none.
    fn input_filter_init(&self, r: &mut Request<'_>) -> Code {
        let _ = r;
        Code::OK
    }

    /// A part of the body as it came: moves what is content to `output`.
    ///
    /// Ok: more is to come. Done: the body is complete. A chain that carries `is_last` says that the peer has closed:
    /// answer Done if that ends the body properly, else Error.
    fn input_filter(&self, r: &mut Request<'_>, input: Chain, output: &mut Chain) -> Code;

    /// The client has gone, before the peer was done.
    fn abort_request(&self, r: &mut Request<'_>) {
        let _ = r;
    }

    /// The last call, however it ended: Ok, or a status such as 502 or 504.
    fn finalize_request(&self, r: &mut Request<'_>, code: Code) {
        let _ = (r, code);
    }
}

/// A module's configuration, as upstream hooks are called with it.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct UpstreamLink {
    /// The module's configuration for the location.
    pub data: *const (),
    /// The slot of the module.
    pub module: u32,
    /// For later; 0.
    pub reserved: [usize; 2],
}

// SAFETY: the data are a module's configuration, which is Sync by the bound on Module; links are not changed once made.
unsafe impl Send for UpstreamLink {}
// SAFETY: as above.
unsafe impl Sync for UpstreamLink {}

/// The upstream hooks of a module.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = UpstreamHooksRef, prefix_fields = UpstreamHooksPrefix)))]
#[sabi(missing_field(option))]
pub struct UpstreamHooks {
    /// The number that `find_upstream` gave.
    pub upstream: unsafe extern "C" fn(&UpstreamLink) -> u32,
    /// See [`Upstream::replaces_prefix`].
    pub replaces_prefix: unsafe extern "C" fn(&UpstreamLink) -> ROption<RStr<'static>>,
    /// See [`Upstream::create_request`].
    pub create_request: unsafe extern "C" fn(&UpstreamLink, &mut Request<'_>, &mut Chain) -> Code,
    /// See [`Upstream::reinit_request`].
    pub reinit_request: unsafe extern "C" fn(&UpstreamLink, &mut Request<'_>) -> Code,
    /// The length of the header, Again if it is incomplete, or Error. See [`Upstream::process_header`].
    pub process_header: unsafe extern "C" fn(&UpstreamLink, &mut Request<'_>, RSlice<'_, u8>, &mut usize) -> Code,
    /// See [`Upstream::input_filter_init`].
    pub input_filter_init: unsafe extern "C" fn(&UpstreamLink, &mut Request<'_>) -> Code,
    /// See [`Upstream::input_filter`].
    pub input_filter: unsafe extern "C" fn(&UpstreamLink, &mut Request<'_>, Chain, &mut Chain) -> Code,
    /// See [`Upstream::abort_request`].
    pub abort_request: unsafe extern "C" fn(&UpstreamLink, &mut Request<'_>),
    /// See [`Upstream::finalize_request`].
    #[sabi(last_prefix_field)]
    pub finalize_request: unsafe extern "C" fn(&UpstreamLink, &mut Request<'_>, Code),
}

impl UpstreamHooks {
    /// The hooks of a protocol, with their guards.
    pub const fn of<U: Upstream>() -> UpstreamHooks {
        UpstreamHooks {
            upstream: upstream::<U>,
            replaces_prefix: replaces_prefix::<U>,
            create_request: create_request::<U>,
            reinit_request: reinit_request::<U>,
            process_header: process_header::<U>,
            input_filter_init: input_filter_init::<U>,
            input_filter: input_filter::<U>,
            abort_request: abort_request::<U>,
            finalize_request: finalize_request::<U>,
        }
    }
}

/// Runs a hook with the module's configuration; Error if it panics.
#[inline(always)]
fn call<U: Upstream>(
    link: &UpstreamLink,
    r: &mut Request<'_>,
    hook: Hook,
    run: impl FnOnce(&U, &mut Request<'_>) -> Code,
) -> Code {
    let cell = r.cell();
    // SAFETY: the host made `data` by this module's `configure`, and keeps it while a request uses it.
    let run = || run(unsafe { &*link.data.cast::<U>() }, r);
    enter_for_code(cell, link.module, hook, run)
}

/// Asks the module's configuration something that is about no request; `None` if it panics.
fn ask<U: Upstream, T>(link: &UpstreamLink, question: impl FnOnce(&U) -> T) -> Option<T> {
    // SAFETY: as in `call`.
    let run = || question(unsafe { &*link.data.cast::<U>() });
    enter(host::cell()?, link.module, Hook::UPSTREAM, run).ok()
}

unsafe extern "C" fn upstream<U: Upstream>(link: &UpstreamLink) -> u32 {
    ask::<U, _>(link, |u| u.upstream().0).unwrap_or(u32::MAX)
}

unsafe extern "C" fn replaces_prefix<U: Upstream>(link: &UpstreamLink) -> ROption<RStr<'static>> {
    ask::<U, _>(link, |u| u.replaces_prefix().map(RStr::from_str)).flatten().into()
}

unsafe extern "C" fn create_request<U: Upstream>(
    link: &UpstreamLink,
    r: &mut Request<'_>,
    request: &mut Chain,
) -> Code {
    call::<U>(link, r, Hook::CREATE_REQUEST, |u, r| u.create_request(r, request))
}

unsafe extern "C" fn reinit_request<U: Upstream>(link: &UpstreamLink, r: &mut Request<'_>) -> Code {
    call::<U>(link, r, Hook::REINIT_REQUEST, |u, r| u.reinit_request(r))
}

unsafe extern "C" fn process_header<U: Upstream>(
    link: &UpstreamLink,
    r: &mut Request<'_>,
    input: RSlice<'_, u8>,
    taken: &mut usize,
) -> Code {
    call::<U>(link, r, Hook::PROCESS_HEADER, |u, r| match u.process_header(r, input.as_slice()) {
        Progress::Incomplete => Code::AGAIN,
        Progress::Invalid => Code::ERROR,
        Progress::Complete(length) => {
            *taken = length;
            Code::OK
        }
    })
}

unsafe extern "C" fn input_filter_init<U: Upstream>(link: &UpstreamLink, r: &mut Request<'_>) -> Code {
    call::<U>(link, r, Hook::INPUT_FILTER_INIT, |u, r| u.input_filter_init(r))
}

unsafe extern "C" fn input_filter<U: Upstream>(
    link: &UpstreamLink,
    r: &mut Request<'_>,
    input: Chain,
    output: &mut Chain,
) -> Code {
    call::<U>(link, r, Hook::INPUT_FILTER, |u, r| u.input_filter(r, input, output))
}

unsafe extern "C" fn abort_request<U: Upstream>(link: &UpstreamLink, r: &mut Request<'_>) {
    call::<U>(link, r, Hook::ABORT_REQUEST, |u, r| {
        u.abort_request(r);
        Code::OK
    });
}

unsafe extern "C" fn finalize_request<U: Upstream>(link: &UpstreamLink, r: &mut Request<'_>, code: Code) {
    call::<U>(link, r, Hook::FINALIZE_REQUEST, |u, r| {
        u.finalize_request(r, code);
        Code::OK
    });
}
