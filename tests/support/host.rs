//! A host for tests that load modules and run none of their request hooks: its services for requests end the test.

use std::cell::RefCell;
use std::sync::atomic::AtomicU64;

use abi_stable::prefix_type::PrefixTypeTrait as _;
use abi_stable::std_types::{ROption, RResult, RSlice, RStr, RString, Tuple2};
use topnext_module_api::Code;
use topnext_module_api::buf::RawBuf;
use topnext_module_api::chain::Chain;
use topnext_module_api::context::RawContext;
use topnext_module_api::file::{File, RawOpened};
use topnext_module_api::host::{BufApi, HostApi, HostApiRef, HostData, OptionalBytes, RequestApi, SelectionApi};
use topnext_module_api::log::Level;
use topnext_module_api::panic::PanicReport;
use topnext_module_api::running::RunningCell;
use topnext_module_api::upstream::RawUpstream;
use topnext_module_api::wake::{RawJob, RawWaker};

thread_local! {
    static CELL: &'static RunningCell = Box::leak(Box::new(RunningCell::new()));
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The host's table.
pub fn host() -> HostApiRef {
    HostApi {
        cell,
        log,
        panicked,
        module_info,
        compile_template,
        find_upstream,
        zone,
        bufs: BufApi { alloc, free, file_clone, file_drop, file_fd }.leak_into_prefix(),
        requests: requests().leak_into_prefix(),
        selections: selections().leak_into_prefix(),
        #[cfg(feature = "next-minor")]
        next_minor_answer,
    }
    .leak_into_prefix()
}

/// The last panic of a module on this thread, which is forgotten.
pub fn last_panic() -> Option<String> {
    LAST_PANIC.take()
}

unsafe extern "C" fn zone(_: RStr<'_>, _: u64) -> RResult<RSlice<'static, AtomicU64>, RString> {
    RResult::RErr("this host has no zones".into())
}

unsafe extern "C" fn cell() -> &'static RunningCell {
    CELL.with(|cell| *cell)
}

unsafe extern "C" fn log(level: u32, module: u32, message: RStr<'_>) {
    eprintln!("[{}] module {module}: {message}", Level::from_number(level).name());
}

unsafe extern "C" fn panicked(report: &PanicReport<'_>) {
    // The folder of the file depends on where the module was built.
    let file = report.file.rsplit('/').next().unwrap_or_default();
    LAST_PANIC.set(Some(format!("{} in {}, at {file}:{}", report.message, report.hook.name(), report.line)));
}

unsafe extern "C" fn module_info(_: u32, _: u32) -> ROption<RStr<'static>> {
    ROption::RNone
}

unsafe extern "C" fn compile_template(_: RStr<'_>) -> RResult<u32, RString> {
    RResult::RErr("no templates here".into())
}

unsafe extern "C" fn find_upstream(_: &RawUpstream<'_>) -> RResult<u32, RString> {
    RResult::RErr("no upstreams here".into())
}

#[cfg(feature = "next-minor")]
unsafe extern "C" fn next_minor_answer() -> u32 {
    42
}

/// Services that nobody calls without a request. A panic in `extern "C"` ends the process, with its message.
macro_rules! not_called {
    ($($name:ident($($ty:ty),*) $(-> $out:ty)?;)*) => {
        $(unsafe extern "C" fn $name($(_: $ty),*) $(-> $out)? {
            unreachable!(concat!("called without a request: ", stringify!($name)))
        })*
    };
}
not_called! {
    alloc() -> *mut RawBuf;
    free(*mut RawBuf);
    file_clone(*const ()) -> *const ();
    file_drop(*const ());
    file_fd(*const ()) -> i32;
    text(HostData, u32) -> RSlice<'static, u8>;
    number(HostData, u32) -> i64;
    set_number(HostData, u32, i64) -> bool;
    header_at(HostData, usize) -> ROption<Tuple2<RSlice<'static, u8>, RSlice<'static, u8>>>;
    header(HostData, RStr<'_>, usize) -> OptionalBytes;
    set_header_out(HostData, RStr<'_>, RSlice<'_, u8>, bool) -> bool;
    remove_header_out(HostData, RStr<'_>);
    set_content_type(HostData) -> bool;
    set_validators(HostData, &File) -> bool;
    variable(HostData, RStr<'_>) -> OptionalBytes;
    template(HostData, u32) -> RSlice<'static, u8>;
    take_context(HostData, u32) -> RawContext;
    put_context(HostData, u32, RawContext);
    send_header(HostData) -> Code;
    output(HostData, Chain) -> Code;
    hold(HostData, u32, bool);
    need_memory(HostData);
    wake_after(HostData, u64);
    waker(HostData) -> RawWaker;
    offload(HostData, RawJob) -> bool;
    read_body(HostData) -> Code;
    body(HostData) -> Chain;
    open_file(HostData, RSlice<'_, u8>) -> RawOpened;
    internal_redirect(HostData, RSlice<'_, u8>, RSlice<'_, u8>) -> Code;
    map_uri_to_path(HostData, RSlice<'_, u8>) -> RSlice<'static, u8>;
    set_uri(HostData, RSlice<'_, u8>, ROption<RSlice<'_, u8>>) -> bool;
    set_upstream_url(HostData, RStr<'_>, RSlice<'_, u8>) -> ();
    logs(HostData, u32) -> bool;
    logs_level(u32) -> bool;
    log_request(HostData, u32, RStr<'_>);
    peer_number(HostData, u32, u32) -> i64;
    peer_address(HostData, u32) -> RStr<'static>;
    client_address(HostData) -> RSlice<'static, u8>;
    state(HostData, u32) -> u64;
    set_state(HostData, u32, u64);
}

fn requests() -> RequestApi {
    RequestApi {
        text,
        number,
        set_number,
        header_in: header,
        header_in_at: header_at,
        header_out: header,
        header_out_at: header_at,
        set_header_out,
        remove_header_out,
        set_content_type,
        set_validators,
        variable,
        template,
        take_context,
        put_context,
        send_header,
        output,
        hold,
        need_memory,
        wake_after,
        waker,
        offload,
        read_body,
        body,
        open_file,
        internal_redirect,
        map_uri_to_path,
        set_uri,
        set_upstream_url,
        logs,
        log: log_request,
    }
}

fn selections() -> SelectionApi {
    SelectionApi { peer_number, peer_address, client_address, state, set_state, logs: logs_level, log: log_request }
}
