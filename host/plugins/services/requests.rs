//! A request's services.

use std::{
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use abi_stable::{
    prefix_type::WithMetadata,
    std_types::{ROption, RSlice, RStr, Tuple2},
};
use topnext_module_api::{
    Chain, Code, File,
    context::RawContext,
    file::RawOpened,
    host::{HostData, OptionalBytes, RequestApi, RequestApiRef},
    request::{number, text},
    running::Hook,
    wake::{RawJob, RawWaker},
};

use super::{bufs, drop_context, guarded, lasting, quick};
use crate::{
    event::{Remote, RemoteId},
    log::error::Level,
    log_line, map_uri, mime,
    open_file::{Symlinks, find},
    output,
    plugins::{
        link::{request, request_ref},
        running,
    },
    redirect,
    request::{JOB_DONE, Request, Text, headers_out::Refused, wake_code, with_buffer},
};

static API: WithMetadata<RequestApi> = WithMetadata::new(RequestApi {
    text: get_text,
    number: get_number,
    set_number,
    header_in,
    header_in_at,
    header_out,
    header_out_at,
    set_header_out,
    remove_header_out,
    set_content_type,
    set_validators,
    variable,
    template,
    take_context,
    put_context,
    send_header,
    output: send_output,
    hold,
    need_memory,
    wake_after,
    waker,
    offload,
    read_body,
    body,
    open_file: open,
    internal_redirect,
    map_uri_to_path,
    set_uri,
    set_upstream_url,
    logs,
    log,
});

/// The table.
pub const fn api() -> RequestApiRef {
    RequestApiRef(API.static_as_prefix())
}

/// Runs host code for a module with the request of its handle.
///
/// # Safety
/// `data` is the pointer of a handle, within the call that it was made for.
unsafe fn with<T>(data: HostData, default: T, run: impl FnOnce(Rc<Request>) -> T) -> T {
    // SAFETY: the caller's promise, which is the contract of every function of the table.
    let r = unsafe { request(data) };
    guarded(default, || run(r))
}

/// As [`with`], for what may call modules again: unless that is nested too deep, which is the fault of the module that calls
/// and is found while the cell still says which one that is.
///
/// # Safety
/// As for [`with`].
unsafe fn with_bound<T>(data: HostData, default: T, run: impl FnOnce(Rc<Request>) -> T) -> T {
    // SAFETY: the caller's promise.
    let r = unsafe { request(data) };
    if quick(true, || r.is_too_deep()) {
        return default;
    }
    guarded(default, || run(r))
}

/// As [`with`], for what neither runs code of modules nor keeps the request: most services, and the most frequent ones.
///
/// # Safety
/// As for [`with`].
#[inline]
unsafe fn with_ref<T>(data: HostData, default: T, run: impl FnOnce(&Request) -> T) -> T {
    // SAFETY: the caller's promise.
    let r = unsafe { request_ref(&data) };
    quick(default, || run(r))
}

/// Bytes of a request's text, as a module gets them.
fn text_of(r: &Request, text: Text) -> RSlice<'static, u8> {
    // SAFETY: both the head and the pool keep their bytes in place until the request ends.
    unsafe { lasting(r.parts.borrow().text(text)) }
}

const EMPTY: RSlice<'static, u8> = RSlice::EMPTY;

unsafe extern "C" fn get_text(data: HostData, which: u32) -> RSlice<'static, u8> {
    if which == text::FILENAME {
        // SAFETY: the contract of the table.
        return unsafe { filename(data) };
    }
    // SAFETY: the contract of the table.
    unsafe {
        with_ref(data, EMPTY, |r| match which {
            text::METHOD => text_of(r, r.method_text()),
            text::URI => text_of(r, r.uri.get()),
            text::ARGS => text_of(r, r.args.get()),
            text::REQUEST_URI => {
                let span = r.parts.borrow().head.target();
                text_of(r, Text::Head(span))
            }
            text::HOST => text_of(r, r.host.get()),
            text::REMOTE_ADDR => text_of(r, r.remote_addr()),
            // SAFETY: the place is held by the request until the hook has returned.
            text::LOCATION => lasting(r.place().path.as_bytes()),
            _ => EMPTY,
        })
    }
}

/// The file that the URI maps to. The variables of its folder may be those of modules.
///
/// # Safety
/// As for [`with`].
unsafe fn filename(data: HostData) -> RSlice<'static, u8> {
    // SAFETY: the caller's promise.
    unsafe {
        match with_ref(data, None, |r| map_uri::filename_now(r).map(|text| text_of(r, text))) {
            Some(text) => text,
            None => with_bound(data, EMPTY, |r| text_of(&r, map_uri::filename(&r))),
        }
    }
}

unsafe extern "C" fn map_uri_to_path(data: HostData, uri: RSlice<'_, u8>) -> RSlice<'static, u8> {
    // SAFETY: the contract of the table.
    unsafe { with_bound(data, EMPTY, |r| text_of(&r, map_uri::map(&r, uri.as_slice()))) }
}

unsafe extern "C" fn set_uri(data: HostData, uri: RSlice<'_, u8>, args: ROption<RSlice<'_, u8>>) -> bool {
    let args = args.into_option();
    // SAFETY: the contract of the table.
    unsafe { with(data, false, |r| map_uri::set_uri(&r, uri.as_slice(), args.as_ref().map(|args| args.as_slice()))) }
}

unsafe extern "C" fn set_upstream_url(data: HostData, schema: RStr<'_>, uri: RSlice<'_, u8>) {
    // SAFETY: the contract of the table.
    unsafe {
        with_ref(data, (), |r| {
            let url = (r.store(&[schema.as_str().as_bytes()]), r.store(&[uri.as_slice()]));
            r.extra().upstream_url.set(url);
        });
    }
}

unsafe extern "C" fn get_number(data: HostData, which: u32) -> i64 {
    let length = |length: Option<u64>| length.and_then(|length| i64::try_from(length).ok()).unwrap_or(-1);
    // SAFETY: the contract of the table.
    unsafe {
        with_ref(data, -1, |r| match which {
            number::STATUS => i64::from(r.status.get()),
            number::CONTENT_LENGTH => length(r.content_length.get()),
            number::HEADER_SENT => i64::from(r.header_sent.get()),
            number::VERSION => 10 + i64::from(r.parts.borrow().head.minor()),
            number::UNSENT => length(Some(r.conn.unsent())),
            number::IS_MAIN => 1,
            number::BODY_LENGTH => length(r.body_length()),
            number::NOW_MS => length(Some(r.conn.lp.now_ms())),
            number::OPEN_ERROR => r.extra.get().map_or(0, |extra| i64::from(extra.open_error.get())),
            number::LOG_NOT_FOUND => i64::from(r.place().core.log_not_found),
            number::FOLLOWS_SYMLINKS => i64::from(r.place().files.symlinks == Symlinks::Follow),
            number::IS_CONDITIONAL => i64::from(r.parts.borrow().head.facts().is_conditional()),
            number::ALLOW_RANGES => i64::from(r.allow_ranges.get()),
            _ => -1,
        })
    }
}

unsafe extern "C" fn set_number(data: HostData, which: u32, value: i64) -> bool {
    // SAFETY: the contract of the table.
    unsafe {
        with_ref(data, false, |r| match which {
            number::STATUS if !r.header_sent.get() => match u16::try_from(value) {
                Ok(status @ 100..=599) => {
                    r.status.set(status);
                    true
                }
                _ => false,
            },
            number::CONTENT_LENGTH if !r.header_sent.get() => {
                r.content_length.set(u64::try_from(value).ok());
                true
            }
            number::BODY_IN_MEMORY => {
                r.extra().body.borrow_mut().memory_max = u64::try_from(value).ok();
                true
            }
            number::ALLOW_RANGES if !r.header_sent.get() => {
                r.allow_ranges.set(value != 0);
                true
            }
            number::UPSTREAM_KEEPALIVE => {
                crate::upstream::set_keepalive(r, value != 0);
                true
            }
            _ => false,
        })
    }
}

unsafe extern "C" fn header_in(data: HostData, name: RStr<'_>, nth: usize) -> OptionalBytes {
    // SAFETY: the contract of the table.
    unsafe {
        with_ref(data, ROption::RNone, |r| {
            let span = r.header_in(name.as_str().as_bytes(), nth);
            span.map(|span| text_of(r, Text::Head(span))).into()
        })
    }
}

type FieldBytes = ROption<Tuple2<RSlice<'static, u8>, RSlice<'static, u8>>>;

unsafe extern "C" fn header_in_at(data: HostData, index: usize) -> FieldBytes {
    // SAFETY: the contract of the table.
    unsafe {
        with_ref(data, ROption::RNone, |r| {
            let field = r.parts.borrow().head.fields().get(index).copied();
            field.map(|f| Tuple2(text_of(r, Text::Head(f.name)), text_of(r, Text::Head(f.value)))).into()
        })
    }
}

unsafe extern "C" fn header_out(data: HostData, name: RStr<'_>, nth: usize) -> OptionalBytes {
    // SAFETY: the contract of the table; the pool keeps its bytes in place.
    unsafe {
        with_ref(data, ROption::RNone, |r| {
            let parts = r.parts.borrow();
            parts.headers_out.get(&parts.pool, name.as_str().as_bytes(), nth).map(|value| lasting(value)).into()
        })
    }
}

unsafe extern "C" fn header_out_at(data: HostData, index: usize) -> FieldBytes {
    // SAFETY: the contract of the table.
    unsafe {
        with_ref(data, ROption::RNone, |r| {
            let field = r.parts.borrow().headers_out.fields().get(index).copied();
            field.map(|f| Tuple2(text_of(r, Text::Pool(f.name())), text_of(r, Text::Pool(f.value())))).into()
        })
    }
}

unsafe extern "C" fn set_header_out(data: HostData, name: RStr<'_>, value: RSlice<'_, u8>, append: bool) -> bool {
    let module = running::cell().get().module;
    // SAFETY: the contract of the table.
    unsafe {
        with_ref(data, false, |r| {
            if r.header_sent.get() {
                let (name_of, tail) = (running::module_name(module), r.log_tail());
                let text = "was not set: the header is out";
                log_line!(
                    Level::Error,
                    "*{} {name_of}: the response header field {name:?} {text}{tail}",
                    r.conn.number
                );
                return false;
            }
            let result = {
                let parts = &mut **r.parts.borrow_mut();
                parts.headers_out.set(&mut parts.pool, name.as_str().as_bytes(), value.as_slice(), append)
            };
            let Err(refused) = result else { return true };
            let why = match refused {
                Refused::Name => "its name is not a token",
                Refused::Value => "its value has control characters in it",
                Refused::Host => "the host writes it itself",
                Refused::TooMuch => "the response has too many or too large fields",
            };
            let module = running::module_name(module);
            let tail = r.log_tail();
            log_line!(
                Level::Error,
                "*{} {module}: the response header field {name:?} was not set: {why}{tail}",
                r.conn.number
            );
            false
        })
    }
}

unsafe extern "C" fn set_content_type(data: HostData) -> bool {
    // SAFETY: the contract of the table.
    unsafe {
        with_ref(data, false, |r| {
            if r.header_sent.get() {
                return false;
            }
            let parts = &mut **r.parts.borrow_mut();
            let uri = match r.uri.get() {
                Text::Head(span) => span.of(&parts.bytes),
                Text::Pool(text) => parts.pool.get(text),
            };
            let mime = mime::of(uri, r.place().core.types.as_deref(), &r.place().core.default_type);
            parts.headers_out.set_content_type(&mut parts.pool, mime).is_ok()
        })
    }
}

unsafe extern "C" fn set_validators(data: HostData, file: &File) -> bool {
    // SAFETY: the contract of the table.
    unsafe {
        with_ref(data, false, |r| {
            let Some(file) = bufs::open_file(file).filter(|_| !r.header_sent.get()) else { return false };
            let parts = &mut **r.parts.borrow_mut();
            let validators = file.validators();
            let mut set = |name: &[u8], value: &str| parts.headers_out.set_own(&mut parts.pool, name, value).is_ok();
            // The time of an error page says nothing of what was asked for (nginx: the header filter).
            let of_error = r.extra.get().map_or(0, |extra| extra.error.status.get());
            let has_date = matches!(of_error, 0 | 200 | 206 | 304);
            let date = validators.last_modified.as_ref().filter(|_| has_date);
            let date = date.is_none_or(|date| set(b"Last-Modified", date));
            date && (!r.place().core.etag || set(b"ETag", &validators.etag))
        })
    }
}

unsafe extern "C" fn remove_header_out(data: HostData, name: RStr<'_>) {
    // SAFETY: the contract of the table.
    unsafe {
        with_ref(data, (), |r| {
            if !r.header_sent.get() {
                let parts = &mut **r.parts.borrow_mut();
                parts.headers_out.remove(&parts.pool, name.as_str().as_bytes());
            }
        })
    }
}

unsafe extern "C" fn variable(data: HostData, name: RStr<'_>) -> OptionalBytes {
    // SAFETY: the contract of the table.
    unsafe {
        with_bound(data, ROption::RNone, |r| {
            // SAFETY: it lies in the head or a pool until the hook has returned.
            crate::variables::lend(&r, name.as_str(), |value| lasting(value)).into()
        })
    }
}

unsafe extern "C" fn template(data: HostData, template: u32) -> RSlice<'static, u8> {
    // SAFETY: the contract of the table.
    unsafe {
        with_bound(data, EMPTY, |r| {
            let site = r.site;
            match site.templates.constant(template) {
                // SAFETY: the request holds the configuration that has the template.
                Some(text) => lasting(text),
                None => with_buffer(|text| {
                    site.templates.write(template, &r, text);
                    // SAFETY: it lies in a pool until the hook has returned.
                    r.lend(text, |text| lasting(text))
                }),
            }
        })
    }
}

unsafe extern "C" fn take_context(data: HostData, module: u32) -> RawContext {
    // SAFETY: the contract of the table.
    unsafe {
        with_ref(data, RawContext::NONE, |r| {
            let contexts = &mut r.parts.borrow_mut().contexts;
            match contexts.get_mut(module as usize) {
                Some(context) => std::mem::replace(context, RawContext::NONE),
                None => RawContext::NONE,
            }
        })
    }
}

unsafe extern "C" fn put_context(data: HostData, module: u32, context: RawContext) {
    // SAFETY: the contract of the table.
    unsafe {
        with(data, (), |r| {
            let module = module as usize;
            if module > running::MAX_MODULES {
                return drop_context(context);
            }
            let before = {
                let contexts = &mut r.parts.borrow_mut().contexts;
                if contexts.len() <= module {
                    contexts.resize(module + 1, RawContext::NONE);
                }
                std::mem::replace(&mut contexts[module], context)
            };
            // A module that sets a second context while the first one is checked out: the older one goes.
            drop_context(before);
        })
    }
}

unsafe extern "C" fn send_header(data: HostData) -> Code {
    // SAFETY: the contract of the table.
    unsafe { with(data, Code::ERROR, |r| output::send_header(&r)) }
}

unsafe extern "C" fn send_output(data: HostData, chain: Chain) -> Code {
    // SAFETY: the contract of the table.
    unsafe { with_bound(data, Code::ERROR, |r| output::output(&r, chain)) }
}

unsafe extern "C" fn hold(data: HostData, module: u32, holding: bool) {
    // SAFETY: the contract of the table.
    unsafe {
        with_ref(data, (), |r| {
            let bit = 1_u128.checked_shl(module).unwrap_or(0);
            let before = r.holding.get();
            r.holding.set(if holding { before | bit } else { before & !bit });
        })
    }
}

unsafe extern "C" fn need_memory(data: HostData) {
    // SAFETY: the contract of the table.
    unsafe { with_ref(data, (), |r| r.need_memory.set(true)) }
}

unsafe extern "C" fn wake_after(data: HostData, ms: u64) {
    let code = caller_code();
    // SAFETY: the contract of the table.
    unsafe {
        with(data, (), |r| {
            check_wakes(&r, code);
            r.wake_after(code, Duration::from_millis(ms));
        })
    }
}

/// Says so if a hook that is never called again asks to be: upstream, balancer and variable hooks, and the log phase's.
fn check_wakes(r: &Request, code: u64) {
    let (module, hook) = ((code >> 32) as u32, Hook(code as u32));
    if !matches!(hook, Hook::HEADER_FILTER | Hook::BODY_FILTER | Hook::HANDLER | Hook::CONTENT) {
        let (name, hook, tail) = (running::module_name(module), hook.name(), r.log_tail());
        log_line!(Level::Alert, "*{} {name} asks to be woken in {hook}, which is never woken{tail}", r.conn.number);
    }
}

/// Whoever calls, as a wake names it. To be asked before the host takes over the cell.
fn caller_code() -> u64 {
    let caller = running::cell().get();
    wake_code(caller.module, caller.hook)
}

/// What a waker of a module points to.
struct WakerTarget {
    remote: Arc<Remote>,
    id: RemoteId,
    code: u64,
    /// Shared with the request's loop: a wake is on its way.
    pending: Arc<AtomicBool>,
}

unsafe extern "C" fn waker(data: HostData) -> RawWaker {
    let code = caller_code();
    // SAFETY: the contract of the table.
    let target = unsafe {
        with(data, None, |r| {
            check_wakes(&r, code);
            let (remote, id) = (r.conn.lp.remote().clone(), r.announce());
            Some(Arc::new(WakerTarget { remote, id, code, pending: Arc::default() }))
        })
    };
    let ptr = target.map_or(std::ptr::null(), |target| Arc::into_raw(target).cast());
    RawWaker { ptr, wake, clone: clone_waker, drop: drop_waker }
}

unsafe extern "C" fn wake(ptr: *const ()) {
    guarded((), || {
        // SAFETY: made by `waker`, and the caller owns a share.
        if let Some(target) = unsafe { ptr.cast::<WakerTarget>().as_ref() } {
            target.remote.call_once(target.id, target.code, &target.pending);
        }
    });
}

unsafe extern "C" fn clone_waker(ptr: *const ()) -> *const () {
    if !ptr.is_null() {
        // SAFETY: made by `waker`, and the caller owns a share.
        unsafe { Arc::increment_strong_count(ptr.cast::<WakerTarget>()) };
    }
    ptr
}

unsafe extern "C" fn drop_waker(ptr: *const ()) {
    if !ptr.is_null() {
        // SAFETY: made by `waker`, and the caller gives its share up.
        drop(unsafe { Arc::from_raw(ptr.cast::<WakerTarget>()) });
    }
}

/// A module's job, which is run or dropped exactly once.
struct Job(Option<RawJob>);

impl Job {
    fn run(mut self) {
        if let Some(job) = self.0.take() {
            // SAFETY: run once; the value says so by giving it up.
            unsafe { (job.run)(job.ptr) }
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(job) = self.0.take() {
            // SAFETY: not run, and dropped once.
            unsafe { (job.drop)(job.ptr) }
        }
    }
}

unsafe extern "C" fn offload(data: HostData, job: RawJob) -> bool {
    let code = caller_code();
    let job = Job(Some(job));
    // SAFETY: the contract of the table.
    unsafe {
        with(data, false, |r| {
            check_wakes(&r, code);
            let (remote, id) = (r.conn.lp.remote().clone(), r.announce());
            let run = Box::new(move || {
                job.run();
                remote.call(id, code | JOB_DONE);
            });
            let accepted = r.site.pool.run(run).is_ok();
            if accepted {
                r.extra().job_started();
            }
            accepted
        })
    }
}

unsafe extern "C" fn read_body(data: HostData) -> Code {
    // SAFETY: the contract of the table.
    unsafe { with(data, Code::ERROR, |r| r.conn.read_body(&r)) }
}

unsafe extern "C" fn body(data: HostData) -> Chain {
    // SAFETY: the contract of the table.
    unsafe { with(data, Chain::new(), |r| r.extra().body.borrow().chain()) }
}

unsafe extern "C" fn open(data: HostData, path: RSlice<'_, u8>) -> RawOpened {
    let code = caller_code();
    // SAFETY: the contract of the table.
    unsafe { with_bound(data, RawOpened::without_file(4), |r| find::open(&r, path.as_slice(), code).into()) }
}

unsafe extern "C" fn internal_redirect(data: HostData, uri: RSlice<'_, u8>, args: RSlice<'_, u8>) -> Code {
    // SAFETY: the contract of the table.
    unsafe { with(data, Code::ERROR, |r| redirect::post(&r, uri.as_slice(), args.as_slice())) }
}

unsafe extern "C" fn logs(data: HostData, level: u32) -> bool {
    // SAFETY: the contract of the table.
    unsafe { with_ref(data, false, |r| r.place().error_log.logs(Level::from_number(level))) }
}

unsafe extern "C" fn log(data: HostData, level: u32, message: RStr<'_>) {
    let level = Level::from_number(level);
    let module = running::cell().get().module;
    // SAFETY: the contract of the table.
    unsafe {
        with(data, (), |r| {
            let (name, tail) = (running::module_name(module), r.log_tail());
            log_line!(level, "*{} {name}: {message}{tail}", r.conn.number);
        })
    }
}
