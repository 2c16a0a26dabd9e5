//! A request's services: the table that a module's handle calls.

use std::{io::ErrorKind, rc::Rc};

use abi_stable::{
    prefix_type::PrefixTypeTrait,
    std_types::{ROption, RSlice, RStr, Tuple2},
};

use super::{
    host::{self, cell},
    request::{FieldOf, Source, State, find},
};
use crate::{
    Buf, Chain, Code, Level, Opened,
    context::RawContext,
    file::{File, FileKind, RawOpened},
    host::{HostData, OptionalBytes, RequestApi, RequestApiRef},
    request::{number, text},
    running::{Hook, Running},
    wake::{RawJob, RawWaker},
};

pub(crate) fn table() -> RequestApiRef {
    RequestApi {
        text: request_text,
        number: request_number,
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
        log,
    }
    .leak_into_prefix()
}

/// The state behind the pointer in a handle.
///
/// # Safety
/// `r` is the pointer of a handle that the kit made, during the hook that was given it.
unsafe fn state<'a>(r: HostData) -> &'a State {
    // SAFETY: the kit makes handles from a State that outlives the hook, and only ever shares it.
    unsafe { &*r.cast::<State>() }
}

impl State {
    /// Keeps the bytes until the hook returns.
    fn keep(&self, bytes: impl Into<Rc<[u8]>>) -> RSlice<'static, u8> {
        let bytes: Rc<[u8]> = bytes.into();
        // SAFETY: the bytes stay where they are as long as the pool has them, which is until the hook returns; the safe
        // methods on the handle hand them out for no longer than that.
        let slice = unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) };
        self.pool.borrow_mut().push(bytes);
        slice.into()
    }

    fn keep_some(&self, bytes: Option<&[u8]>) -> OptionalBytes {
        bytes.map(|bytes| self.keep(bytes)).into()
    }

    fn keep_field(&self, field: Option<&FieldOf>) -> ROption<Tuple2<RSlice<'static, u8>, RSlice<'static, u8>>> {
        field.map(|(name, value)| Tuple2(self.keep(name.as_bytes()), self.keep(value.as_slice()))).into()
    }
}

unsafe extern "C" fn request_text(r: HostData, which: u32) -> RSlice<'static, u8> {
    // SAFETY: called through a handle. So in all functions below.
    let state = unsafe { state(r) };
    let spec = &state.spec;
    match which {
        text::METHOD => state.keep(spec.method.as_slice()),
        text::URI => state.keep(state.uri()),
        text::ARGS => state.keep(state.args()),
        text::REQUEST_URI => state.keep(spec.request_uri.as_slice()),
        text::FILENAME => state.keep(state.filename()),
        text::HOST => state.keep(spec.host()),
        text::REMOTE_ADDR => state.keep(spec.remote_addr.as_bytes()),
        text::LOCATION => state.keep(spec.location.as_bytes()),
        _ => RSlice::EMPTY,
    }
}

unsafe extern "C" fn request_number(r: HostData, which: u32) -> i64 {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    let of = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    match which {
        number::STATUS => i64::from(state.status.get()),
        number::CONTENT_LENGTH => state.content_length.get().map_or(-1, of),
        number::HEADER_SENT => i64::from(state.header_sent.get()),
        number::VERSION => state.spec.version,
        number::UNSENT => of(state.end.unsent.get()),
        number::IS_MAIN => i64::from(state.spec.main),
        number::BODY_LENGTH => state.spec.body_length(),
        number::NOW_MS => of(state.now.get()),
        number::OPEN_ERROR => i64::from(state.open_error.get()),
        number::LOG_NOT_FOUND => i64::from(state.spec.log_not_found),
        number::FOLLOWS_SYMLINKS => 1,
        number::IS_CONDITIONAL => i64::from(state.spec.is_conditional()),
        number::ALLOW_RANGES => i64::from(state.allow_ranges.get()),
        _ => -1,
    }
}

unsafe extern "C" fn set_number(r: HostData, which: u32, value: i64) -> bool {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    match (which, value) {
        (number::UPSTREAM_KEEPALIVE, keep) => state.keepalive.set(keep != 0),
        (number::BODY_IN_MEMORY, max) => state.body_max.set(u64::try_from(max).ok()),
        _ if state.header_sent.get() => return false,
        (number::STATUS, 100..=599) => state.status.set(value as u16),
        (number::ALLOW_RANGES, allow) => state.allow_ranges.set(allow != 0),
        (number::CONTENT_LENGTH, length) => state.content_length.set(u64::try_from(length).ok()),
        _ => return false,
    }
    true
}

unsafe extern "C" fn header_in(r: HostData, name: RStr<'_>, nth: usize) -> OptionalBytes {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    state.keep_some(find(&state.spec.headers_in, name.as_str(), nth))
}

unsafe extern "C" fn header_in_at(
    r: HostData,
    index: usize,
) -> ROption<Tuple2<RSlice<'static, u8>, RSlice<'static, u8>>> {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    state.keep_field(state.spec.headers_in.get(index))
}

unsafe extern "C" fn header_out(r: HostData, name: RStr<'_>, nth: usize) -> OptionalBytes {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    state.keep_some(find(&state.headers_out.borrow(), name.as_str(), nth))
}

unsafe extern "C" fn header_out_at(
    r: HostData,
    index: usize,
) -> ROption<Tuple2<RSlice<'static, u8>, RSlice<'static, u8>>> {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    state.keep_field(state.headers_out.borrow().get(index))
}

unsafe extern "C" fn set_header_out(r: HostData, name: RStr<'_>, value: RSlice<'_, u8>, append: bool) -> bool {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    let name = name.as_str();
    // RFC 9110, section 5.6.2 (token) and 5.5 (field values).
    let token = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if !token || value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) || state.header_sent.get() {
        state.kit.note(Level::Error, &format!("the response header field {name:?} was refused"));
        return false;
    }
    let mut headers = state.headers_out.borrow_mut();
    if !append {
        headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
    }
    headers.push((name.to_string(), value.to_vec()));
    true
}

unsafe extern "C" fn remove_header_out(r: HostData, name: RStr<'_>) {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    if !state.header_sent.get() {
        state.headers_out.borrow_mut().retain(|(other, _)| !other.eq_ignore_ascii_case(name.as_str()));
    }
}

unsafe extern "C" fn set_content_type(r: HostData) -> bool {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    if state.header_sent.get() {
        return false;
    }
    let mut headers = state.headers_out.borrow_mut();
    headers.retain(|(other, _)| !other.eq_ignore_ascii_case("content-type"));
    headers.push(("Content-Type".to_string(), state.spec.mime_type().into_bytes()));
    true
}

unsafe extern "C" fn set_validators(r: HostData, file: &File) -> bool {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    if state.header_sent.get() {
        return false;
    }
    let date = (file.mtime() >= 0).then(|| httpdate::fmt_http_date(file.modified()));
    let etag = format!("\"{:x}-{:x}\"", file.mtime(), file.size());
    let mut headers = state.headers_out.borrow_mut();
    for (name, value) in [("Last-Modified", date), ("ETag", Some(etag))] {
        let Some(value) = value else { continue };
        headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        headers.push((name.to_string(), value.into_bytes()));
    }
    true
}

unsafe extern "C" fn variable(r: HostData, name: RStr<'_>) -> OptionalBytes {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    state.keep_some(state.variable(name.as_str()).as_deref())
}

unsafe extern "C" fn template(r: HostData, template: u32) -> RSlice<'static, u8> {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    state.keep(state.template(template))
}

// ---- contexts

unsafe extern "C" fn take_context(r: HostData, module: u32) -> RawContext {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    let mut contexts = state.contexts.borrow_mut();
    match contexts.iter().position(|(owner, _)| *owner == module) {
        Some(at) => contexts.swap_remove(at).1,
        None => RawContext::NONE,
    }
}

unsafe extern "C" fn put_context(r: HostData, module: u32, context: RawContext) {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    // SAFETY: as above.
    let before = unsafe { take_context(r, module) };
    if let Some(release) = before.drop {
        // SAFETY: the module gave it to the host, which drops it once. Nothing is borrowed.
        unsafe { release(before.ptr) }
    }
    state.contexts.borrow_mut().push((module, context));
}

// ---- output

unsafe extern "C" fn send_header(r: HostData) -> Code {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    if state.kit.panicked() { Code::ERROR } else { state.send_header() }
}

unsafe extern "C" fn output(r: HostData, chain: Chain) -> Code {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    if state.kit.panicked() { Code::ERROR } else { state.output(chain) }
}

unsafe extern "C" fn hold(r: HostData, module: u32, holding: bool) {
    // SAFETY: as above.
    let mut holds = unsafe { state(r) }.holds.borrow_mut();
    holds.retain(|other| *other != module);
    if holding {
        holds.push(module);
    }
}

unsafe extern "C" fn need_memory(r: HostData) {
    // SAFETY: as above.
    unsafe { state(r) }.need_memory.set(true);
}

// ---- time and threads

fn running() -> Running {
    cell().get()
}

/// The hook that runs, which wants to be called again. Some never are.
fn wanted(state: &State) -> Running {
    let hook = running().hook;
    let waits = matches!(hook, Hook::HEADER_FILTER | Hook::BODY_FILTER | Hook::HANDLER | Hook::CONTENT);
    if !waits || state.log_phase.get() {
        let phase = if state.log_phase.get() { " in the log phase" } else { "" };
        state.fault(format!("{}{phase} asks to be woken, which it never is", hook.name()));
    }
    running()
}

unsafe extern "C" fn wake_after(r: HostData, ms: u64) {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    let hook = wanted(state);
    let mut timers = state.timers.borrow_mut();
    timers.retain(|(other, _)| *other != hook);
    timers.push((hook, state.now.get().saturating_add(ms)));
}

unsafe extern "C" fn waker(r: HostData) -> RawWaker {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    state.shared.waker(wanted(state))
}

unsafe extern "C" fn offload(r: HostData, job: RawJob) -> bool {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    state.shared.offload(&state.kit, wanted(state), job);
    true
}

// ---- body, files, redirects, log

unsafe extern "C" fn read_body(r: HostData) -> Code {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    if state.spec.body_answer != Code::OK {
        return state.spec.body_answer;
    }
    let length: usize = state.spec.body.iter().map(|piece| piece.len()).sum();
    if state.body_max.get().is_some_and(|max| length as u64 > max) {
        return Code::status(413);
    }
    // Each Again stands for pieces that have not come yet; a bound keeps the test short.
    if !state.body_read.get() && state.body_waits.get() < 3 && state.one_in(2) {
        state.body_waits.set(state.body_waits.get() + 1);
        state.ready.borrow_mut().push(running());
        return Code::AGAIN;
    }
    state.body_read.set(true);
    Code::OK
}

unsafe extern "C" fn body(r: HostData) -> Chain {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    if !state.body_read.get() {
        state.fault("body() was called before read_body() answered Ok");
        return Chain::new();
    }
    let pieces = &state.spec.body;
    // A body that was not asked for in memory may be in a file.
    if state.body_max.get().is_none() && !pieces.is_empty() && state.one_in(2) {
        let bytes = bytes::Bytes::from(pieces.concat());
        let len = bytes.len() as u64;
        return Chain::from(Buf::from_file(host::open(bytes, 0, FileKind::Regular), 0, len));
    }
    pieces.iter().map(|piece| Buf::from_other_image(piece)).collect()
}

unsafe extern "C" fn open_file(r: HostData, path: RSlice<'_, u8>) -> RawOpened {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    let path = path.as_slice();
    let first = state.opened.borrow_mut().insert(path.to_vec());
    if first && state.one_in(2) {
        state.ready.borrow_mut().push(running());
        return Opened::Pending.into();
    }
    match state.spec.files.get(path) {
        Some(Source::File(bytes, mtime)) => Opened::File(host::open(bytes.clone(), *mtime, FileKind::Regular)).into(),
        Some(Source::Directory) => Opened::File(host::open(bytes::Bytes::new(), 0, FileKind::Directory)).into(),
        Some(Source::OnDisk) => match host::open_on_disk(path) {
            Ok(file) => Opened::File(file).into(),
            Err(error) => {
                state.open_error.set(error.raw_os_error().unwrap_or(0));
                match error.kind() {
                    ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename => {
                        Opened::NotFound.into()
                    }
                    ErrorKind::PermissionDenied => Opened::Forbidden.into(),
                    _ => Opened::Failed.into(),
                }
            }
        },
        Some(Source::Forbidden) => {
            state.open_error.set(13);
            Opened::Forbidden.into()
        }
        None => {
            state.open_error.set(2);
            Opened::NotFound.into()
        }
    }
}

unsafe extern "C" fn internal_redirect(r: HostData, uri: RSlice<'_, u8>, args: RSlice<'_, u8>) -> Code {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    if state.header_sent.get() {
        state.fault("internal_redirect() after the header was sent");
    }
    *state.redirect.borrow_mut() = Some((uri.to_vec(), args.to_vec()));
    Code::DONE
}

unsafe extern "C" fn map_uri_to_path(r: HostData, uri: RSlice<'_, u8>) -> RSlice<'static, u8> {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    match state.spec.filename.as_deref() {
        Some([]) => RSlice::EMPTY,
        _ if uri.split(|&byte| byte == b'/').any(|part| part == b"..") => RSlice::EMPTY,
        _ => state.keep([b"html", uri.as_slice()].concat()),
    }
}

unsafe extern "C" fn set_uri(r: HostData, uri: RSlice<'_, u8>, args: ROption<RSlice<'_, u8>>) -> bool {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    if state.header_sent.get() || uri.split(|&byte| byte == b'/').any(|part| part == b"..") {
        return false;
    }
    *state.set_uri.borrow_mut() = Some(uri.to_vec());
    if let ROption::RSome(args) = args {
        *state.set_args.borrow_mut() = Some(args.to_vec());
    }
    true
}

unsafe extern "C" fn set_upstream_url(r: HostData, schema: RStr<'_>, uri: RSlice<'_, u8>) {
    // SAFETY: as above.
    let state = unsafe { state(r) };
    *state.upstream_url.borrow_mut() = (schema.into(), uri.to_vec());
}

unsafe extern "C" fn logs(_: HostData, _: u32) -> bool {
    true
}

unsafe extern "C" fn log(r: HostData, level: u32, message: RStr<'_>) {
    let level = Level::from_number(level);
    // SAFETY: as above.
    unsafe { state(r) }.kit.note(level, message.as_str());
}
