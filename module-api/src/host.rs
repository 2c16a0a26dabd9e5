//! The host's services: prefix-type tables of `extern "C"` functions. Authors use the safe methods on the handles.
//!
//! Each image keeps one pointer to the root table, set before any other code of the module runs. `r` stands for the
//! host's private pointer in a [`crate::Request`]; it is valid during the hook that was given the handle. Strings that
//! are handed out live in the request's pool, until the hook returns, whatever happens to what they came from.

use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use abi_stable::{
    StableAbi,
    std_types::{ROption, RResult, RSlice, RStr, RString, Tuple2},
};

use crate::{
    buf::RawBuf,
    chain::Chain,
    code::Code,
    context::RawContext,
    file::{File, RawOpened},
    log::Level,
    panic::PanicReport,
    running::RunningCell,
    wake::{RawJob, RawWaker},
};

/// The host's private pointer to a request, or to a choice of a peer.
pub type HostData = *const ();

/// A field that may be absent; it lives until the hook returns.
pub type OptionalBytes = ROption<RSlice<'static, u8>>;

/// Services that need no request.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HostApiRef, prefix_fields = HostApiPrefix)))]
#[sabi(missing_field(option))]
pub struct HostApi {
    /// This thread's cell. On a thread that the host did not start: one that lives as long as the process.
    pub cell: unsafe extern "C" fn() -> &'static RunningCell,
    /// Writes a line into the main error log, for the module in this slot (0: unknown).
    pub log: unsafe extern "C" fn(level: u32, module: u32, message: RStr<'_>),
    /// Reports a caught panic: logged, counted, and the request of the running hook is marked failed.
    pub panicked: unsafe extern "C" fn(report: &PanicReport<'_>),
    /// A fact about loaded module number `index` (in declared order, from 0); none behind the last.
    pub module_info: unsafe extern "C" fn(index: u32, fact: u32) -> ROption<RStr<'static>>,
    /// Compiles a string with `$variables`. Only while configuring.
    pub compile_template: unsafe extern "C" fn(text: RStr<'_>) -> RResult<u32, RString>,
    /// Finds the upstream of this name, or makes one for `host:port`. Only while configuring.
    pub find_upstream: unsafe extern "C" fn(options: &crate::upstream::RawUpstream<'_>) -> RResult<u32, RString>,
    /// The words of the zone of this name, which stay as long as the process; `layout` says what they mean. Refused while it is
    /// used with another one. Only while configuring.
    pub zone: unsafe extern "C" fn(name: RStr<'_>, layout: u64) -> RResult<RSlice<'static, AtomicU64>, RString>,
    /// Services for bufs and files.
    pub bufs: BufApiRef,
    /// Services for requests.
    pub requests: RequestApiRef,
    /// Services for the choice of a peer.
    #[sabi(last_prefix_field)]
    pub selections: SelectionApiRef,
    /// Only for tests of both directions: what the next minor version might add.
    #[cfg(feature = "next-minor")]
    pub next_minor_answer: unsafe extern "C" fn() -> u32,
}

/// Memory of the host: nodes of chains, handles of files. Callable on any thread.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = BufApiRef, prefix_fields = BufApiPrefix)))]
#[sabi(missing_field(option))]
pub struct BufApi {
    /// A node from the free list; its fields are not initialized.
    pub alloc: unsafe extern "C" fn() -> *mut RawBuf,
    /// Gives a node back. Its owner and file have been released.
    pub free: unsafe extern "C" fn(buf: *mut RawBuf),
    /// Another owner of the same open file.
    pub file_clone: unsafe extern "C" fn(file: *const ()) -> *const (),
    /// Gives up one owner; the last one closes the file.
    pub file_drop: unsafe extern "C" fn(file: *const ()),
    /// The descriptor of a regular file or a directory, which stays the host's; -1 of anything else.
    #[sabi(last_prefix_field)]
    pub file_fd: unsafe extern "C" fn(file: *const ()) -> i32,
}

/// A request's services. Called on the thread of the request, within a hook.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = RequestApiRef, prefix_fields = RequestApiPrefix)))]
#[sabi(missing_field(option))]
pub struct RequestApi {
    /// A text of the request; see [`crate::request::text`].
    pub text: unsafe extern "C" fn(r: HostData, which: u32) -> RSlice<'static, u8>,
    /// A number of the request; see [`crate::request::number`]. -1 stands for none.
    pub number: unsafe extern "C" fn(r: HostData, which: u32) -> i64,
    /// Sets a number of the response. False if it cannot be set (the header is out, or out of range).
    pub set_number: unsafe extern "C" fn(r: HostData, which: u32, value: i64) -> bool,
    /// The n-th request header field of this name (any case).
    pub header_in: unsafe extern "C" fn(r: HostData, name: RStr<'_>, nth: usize) -> OptionalBytes,
    /// The request header field at this index, in the order received.
    pub header_in_at:
        unsafe extern "C" fn(r: HostData, index: usize) -> ROption<Tuple2<RSlice<'static, u8>, RSlice<'static, u8>>>,
    /// The n-th response header field of this name (any case).
    pub header_out: unsafe extern "C" fn(r: HostData, name: RStr<'_>, nth: usize) -> OptionalBytes,
    /// The response header field at this index.
    pub header_out_at:
        unsafe extern "C" fn(r: HostData, index: usize) -> ROption<Tuple2<RSlice<'static, u8>, RSlice<'static, u8>>>,
    /// Sets (`append` false: replaces all of this name) a response header field. False if it is malformed, too large or too late.
    pub set_header_out: unsafe extern "C" fn(r: HostData, name: RStr<'_>, value: RSlice<'_, u8>, append: bool) -> bool,
    /// Removes the response header fields of this name.
    pub remove_header_out: unsafe extern "C" fn(r: HostData, name: RStr<'_>),
    /// Sets Content-Type to the type of the URI's extension. False if it is too late.
    pub set_content_type: unsafe extern "C" fn(r: HostData) -> bool,
    /// Sets Last-Modified and ETag for a file. False if it is too late.
    pub set_validators: unsafe extern "C" fn(r: HostData, file: &File) -> bool,
    /// The value of a variable; none if it is unknown or has no value here.
    pub variable: unsafe extern "C" fn(r: HostData, name: RStr<'_>) -> OptionalBytes,
    /// The text of a compiled template for this request.
    pub template: unsafe extern "C" fn(r: HostData, template: u32) -> RSlice<'static, u8>,
    /// Checks out the context of the running module.
    pub take_context: unsafe extern "C" fn(r: HostData, module: u32) -> RawContext,
    /// Puts the context of a module back, or sets it for the first time.
    pub put_context: unsafe extern "C" fn(r: HostData, module: u32, context: RawContext),
    /// Runs the header filters.
    pub send_header: unsafe extern "C" fn(r: HostData) -> Code,
    /// Runs the body filters.
    pub output: unsafe extern "C" fn(r: HostData, chain: Chain) -> Code,
    /// Whether the running module holds data back, which finalize has to wait for.
    pub hold: unsafe extern "C" fn(r: HostData, module: u32, holding: bool),
    /// Body filters of this response need memory: files are read before the chain meets them.
    pub need_memory: unsafe extern "C" fn(r: HostData),
    /// The running hook is called again after this many milliseconds.
    pub wake_after: unsafe extern "C" fn(r: HostData, ms: u64),
    /// A waker for the running hook.
    pub waker: unsafe extern "C" fn(r: HostData) -> RawWaker,
    /// Hands a job to the thread pool; false (and the job is dropped) if its queue is full.
    pub offload: unsafe extern "C" fn(r: HostData, job: RawJob) -> bool,
    /// Reads the whole request body, into memory or a file. Ok, Again, or a status such as 413.
    pub read_body: unsafe extern "C" fn(r: HostData) -> Code,
    /// The request body that was read; memory, or file, is shared, not copied.
    pub body: unsafe extern "C" fn(r: HostData) -> Chain,
    /// Opens a file without blocking the loop.
    pub open_file: unsafe extern "C" fn(r: HostData, path: RSlice<'_, u8>) -> RawOpened,
    /// Posts an internal redirect to a URI or a named location.
    pub internal_redirect: unsafe extern "C" fn(r: HostData, uri: RSlice<'_, u8>, args: RSlice<'_, u8>) -> Code,
    /// The file that a URI maps to in the location of the request; empty if there is none.
    pub map_uri_to_path: unsafe extern "C" fn(r: HostData, uri: RSlice<'_, u8>) -> RSlice<'static, u8>,
    /// Changes the URI, and the arguments if there are some. False if it cannot be changed so.
    pub set_uri: unsafe extern "C" fn(r: HostData, uri: RSlice<'_, u8>, args: ROption<RSlice<'_, u8>>) -> bool,
    /// How the error log writes the request that a peer is sent: what stands in front of its address, and what behind it.
    pub set_upstream_url: unsafe extern "C" fn(r: HostData, schema: RStr<'_>, uri: RSlice<'_, u8>),
    /// Whether a line of this level would be logged.
    pub logs: unsafe extern "C" fn(r: HostData, level: u32) -> bool,
    /// Writes a line into the error log that holds for this request.
    #[sabi(last_prefix_field)]
    pub log: unsafe extern "C" fn(r: HostData, level: u32, message: RStr<'_>),
}

/// Services while a peer is chosen: for http, stream and mail alike. Called on the thread of the request, within a hook.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = SelectionApiRef, prefix_fields = SelectionApiPrefix)))]
#[sabi(missing_field(option))]
pub struct SelectionApi {
    /// A number about the peer; see [`crate::balancer::peer_number`]. -1 if there is no such peer.
    pub peer_number: unsafe extern "C" fn(s: HostData, peer: u32, which: u32) -> i64,
    /// The address of the peer, as the operator wrote it.
    pub peer_address: unsafe extern "C" fn(s: HostData, peer: u32) -> RStr<'static>,
    /// The client's address: 4 or 16 bytes, or none for a unix socket.
    pub client_address: unsafe extern "C" fn(s: HostData) -> RSlice<'static, u8>,
    /// A word that the balancer keeps for this choice, 0 at first.
    pub state: unsafe extern "C" fn(s: HostData, module: u32) -> u64,
    /// Sets that word.
    pub set_state: unsafe extern "C" fn(s: HostData, module: u32, state: u64),
    /// Whether a line of this level would be logged.
    pub logs: unsafe extern "C" fn(level: u32) -> bool,
    /// Writes a line into the error log.
    #[sabi(last_prefix_field)]
    pub log: unsafe extern "C" fn(s: HostData, level: u32, message: RStr<'_>),
}

static HOST: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// This image's host, once it has been set.
#[inline]
pub(crate) fn get() -> Option<HostApiRef> {
    let table = HOST.load(Ordering::Acquire);
    if table.is_null() {
        return None;
    }
    // SAFETY: `set` stored exactly this representation: HostApiRef is a transparent wrapper of one non-null pointer.
    Some(unsafe { std::mem::transmute::<*mut (), HostApiRef>(table) })
}

/// The host; an image without one (a unit test without the kit) cannot go on.
#[inline]
pub(crate) fn expect() -> HostApiRef {
    get().expect("no host: in unit tests, start with topnext_module_api::testing")
}

/// Sets this image's host. Called by the generated `init`, by the host for itself, and by the kit.
///
/// # Safety
/// The functions of the table do what their docs say.
#[doc(hidden)]
pub unsafe fn set(host: HostApiRef) {
    // SAFETY: HostApiRef is a transparent wrapper of one non-null pointer to a table that is never freed.
    HOST.store(unsafe { std::mem::transmute::<HostApiRef, *mut ()>(host) }, Ordering::Release);
}

/// Writes a line into the main error log, outside of any request. Nothing without a host.
pub fn log(level: Level, module: u32, message: &str) {
    if let Some(host) = get() {
        // SAFETY: the message lives during the call.
        unsafe { host.log()(level as u32, module, message.into()) }
    }
}

/// The cell of this thread, if there is a host.
pub(crate) fn cell() -> Option<&'static RunningCell> {
    // SAFETY: callable on any thread.
    get().map(|host| unsafe { host.cell()() })
}

/// A fact about a loaded module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ModuleFact {
    /// Its name in this configuration.
    Name = 0,
    /// Its version.
    Version = 1,
    /// What it provides, separated by commas.
    Provides = 2,
    /// The file it was loaded from.
    File = 3,
    /// What it says about itself in one line.
    About = 4,
}

/// A fact about the module that was declared as number `index` (from 0); `None` behind the last one.
pub fn module_info(index: u32, fact: ModuleFact) -> Option<&'static str> {
    let host = get()?;
    // SAFETY: any index and fact are allowed; the answer lives as long as the process.
    unsafe { host.module_info()(index, fact as u32) }.into_option().map(|text| text.as_str())
}

const _: () = assert!(size_of::<HostApiRef>() == size_of::<*mut ()>());
const _: () = assert!(size_of::<File>() == 40);
