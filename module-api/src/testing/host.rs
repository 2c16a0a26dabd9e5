//! The kit's host: the tables that are needed without a request.

use std::{
    ffi::OsStr,
    io,
    mem::MaybeUninit,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    panic::{set_hook, take_hook},
    sync::{Arc, Mutex, OnceLock},
};

use abi_stable::{
    prefix_type::PrefixTypeTrait,
    std_types::{ROption, RResult, RStr, RString},
};
use bytes::Bytes;

use super::{
    Panic,
    kit::{Counted, Kind, Kit, lock},
};
use crate::{
    buf::RawBuf,
    chain::Chain,
    file::{File, FileKind},
    host::{BufApi, HostApi, HostApiRef, RequestApiRef, SelectionApiRef},
    log::Level,
    module,
    panic::PanicReport,
    running::{Running, RunningCell},
    upstream::RawUpstream,
};

/// The slot of the module under test.
pub(crate) const MODULE: u32 = 1;

thread_local! {
    static CELL: &'static RunningCell = Box::leak(Box::new(RunningCell::new()));
}

/// Makes this process a host, once.
pub(crate) fn set_up() -> HostApiRef {
    static HOST: OnceLock<HostApiRef> = OnceLock::new();
    *HOST.get_or_init(|| {
        let host = table();
        // The module's panic hook keeps panics quiet that happen in hooks. A test's own assertions must be seen.
        let outside = take_hook();
        let state = {
            // SAFETY: the kit's table does what the docs say.
            unsafe { module::init::<()>(host, MODULE) }
        };
        let inside = take_hook();
        set_hook(Box::new(move |info| if cell().get() == Running::HOST { outside(info) } else { inside(info) }));
        if let RResult::ROk(state) = state {
            // SAFETY: made by `init`, and used by nobody.
            unsafe { module::fini(MODULE, state) }
        }
        host
    })
}

/// This thread's cell.
pub(crate) fn cell() -> &'static RunningCell {
    CELL.with(|cell| *cell)
}

pub(crate) fn requests() -> RequestApiRef {
    set_up().requests()
}

pub(crate) fn selections() -> SelectionApiRef {
    set_up().selections()
}

fn table() -> HostApiRef {
    let bufs = BufApi { alloc, free, file_clone, file_drop, file_fd }.leak_into_prefix();
    HostApi {
        cell: this_cell,
        log,
        panicked,
        module_info,
        compile_template,
        find_upstream,
        zone: super::zone::open,
        bufs,
        requests: super::services::table(),
        selections: super::balancer::table(),
        #[cfg(feature = "next-minor")]
        next_minor_answer,
    }
    .leak_into_prefix()
}

#[cfg(feature = "next-minor")]
unsafe extern "C" fn next_minor_answer() -> u32 {
    42
}

unsafe extern "C" fn this_cell() -> &'static RunningCell {
    cell()
}

unsafe extern "C" fn log(level: u32, _: u32, message: RStr<'_>) {
    match Kit::current() {
        Some(kit) => kit.note(Level::from_number(level), message.as_str()),
        None => eprintln!("[{}] {message}", Level::from_number(level).name()),
    }
}

unsafe extern "C" fn panicked(report: &PanicReport<'_>) {
    let panic = Panic {
        module: report.module,
        hook: report.hook.name().to_string(),
        message: report.message.to_string(),
        file: report.file.to_string(),
        line: report.line,
    };
    match Kit::current() {
        Some(kit) => kit.note_panic(panic),
        None => eprintln!("{panic}"),
    }
}

/// The kit tells of one loaded module, the one under test.
unsafe extern "C" fn module_info(index: u32, fact: u32) -> ROption<RStr<'static>> {
    const FACTS: [&str; 5] = ["under_test", "1.0.0", "filter", "libtopnext_under_test.so", "The module under test"];
    let fact = FACTS.get(fact as usize).filter(|_| index == 0);
    fact.map(|text| RStr::from_str(text)).into()
}

// ---- what configuring needs

static TEMPLATES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static UPSTREAMS: Mutex<Vec<u64>> = Mutex::new(Vec::new());

unsafe extern "C" fn compile_template(text: RStr<'_>) -> RResult<u32, RString> {
    if let Err(message) = super::variables::check(text.as_str()) {
        return RResult::RErr(message.into());
    }
    let mut templates = lock(&TEMPLATES);
    templates.push(text.to_string());
    RResult::ROk(templates.len() as u32 - 1)
}

/// The text of a compiled template.
pub(crate) fn template_text(id: u32) -> Option<String> {
    lock(&TEMPLATES).get(id as usize).cloned()
}

unsafe extern "C" fn find_upstream(options: &RawUpstream<'_>) -> RResult<u32, RString> {
    if options.name.is_empty() {
        return RResult::RErr("the name of an upstream is empty".into());
    }
    let mut upstreams = lock(&UPSTREAMS);
    upstreams.push(options.buffer_size);
    RResult::ROk(upstreams.len() as u32 - 1)
}

/// The bound of a response header from this upstream; `None` if `find_upstream` did not give this number.
pub(crate) fn upstream_buffer_size(id: u32) -> Option<u64> {
    lock(&UPSTREAMS).get(id as usize).copied()
}

// ---- bufs and files

/// A node of a chain, counted.
#[repr(C)]
struct Node {
    /// First, so that a pointer to it is one to the node.
    raw: MaybeUninit<RawBuf>,
    counted: Counted,
}

unsafe extern "C" fn alloc() -> *mut RawBuf {
    Box::into_raw(Box::new(Node { raw: MaybeUninit::uninit(), counted: Counted::new(Kind::Buf) })).cast()
}

unsafe extern "C" fn free(buf: *mut RawBuf) {
    // SAFETY: made by `alloc`, whose pointer covers the whole Node, and given back once.
    drop(unsafe { Box::from_raw(buf.cast::<Node>()) });
}

/// The hook that runs is given these bufs.
pub(crate) fn hand_over(chain: &Chain) {
    for buf in chain {
        // SAFETY: all nodes in a test are made by `alloc`, and a Buf is a pointer to its node.
        unsafe { &*buf.node().cast::<Node>() }.counted.hand_over();
    }
}

/// An open file of the kit: its bytes, or that of the disk. Its handles are shares of it.
struct OpenFile {
    bytes: Bytes,
    on_disk: Option<std::fs::File>,
    _counted: Counted,
}

/// Opens a file that has these bytes.
pub(crate) fn open(bytes: Bytes, mtime: i64, kind: FileKind) -> File {
    let size = bytes.len() as u64;
    handle(OpenFile { bytes, on_disk: None, _counted: Counted::new(Kind::File) }, size, mtime, kind)
}

/// Opens what is on the disk. Its bytes are read by its descriptor only.
pub(crate) fn open_on_disk(path: &[u8]) -> io::Result<File> {
    let file = std::fs::File::open(OsStr::from_bytes(path))?;
    let metadata = file.metadata()?;
    let kind = match metadata.file_type() {
        kind if kind.is_file() => FileKind::Regular,
        kind if kind.is_dir() => FileKind::Directory,
        _ => FileKind::Other,
    };
    let open = OpenFile { bytes: Bytes::new(), on_disk: Some(file), _counted: Counted::new(Kind::File) };
    Ok(handle(open, metadata.len(), metadata.mtime(), kind))
}

fn handle(file: OpenFile, size: u64, mtime: i64, kind: FileKind) -> File {
    // SAFETY: the handle is a counted pointer, as `file_clone` and `file_drop` expect; this share goes to the File.
    unsafe { File::from_raw(Arc::into_raw(Arc::new(file)).cast(), size, mtime, 0, kind) }
}

/// `len` bytes from `pos` on; `None` if the file is shorter.
pub(crate) fn read(file: &File, pos: u64, len: u64) -> Option<Bytes> {
    // SAFETY: all files in a test are made by `open`, and this one is alive.
    let open = unsafe { &*file.as_raw().cast::<OpenFile>() };
    let (start, end) = (usize::try_from(pos).ok()?, usize::try_from(pos.checked_add(len)?).ok()?);
    (end <= open.bytes.len()).then(|| open.bytes.slice(start..end))
}

unsafe extern "C" fn file_clone(file: *const ()) -> *const () {
    // SAFETY: a handle made by `open`, of which the caller owns a share.
    unsafe { Arc::increment_strong_count(file.cast::<OpenFile>()) };
    file
}

unsafe extern "C" fn file_drop(file: *const ()) {
    // SAFETY: a handle made by `open`; the caller gives its share up.
    drop(unsafe { Arc::from_raw(file.cast::<OpenFile>()) });
}

unsafe extern "C" fn file_fd(file: *const ()) -> i32 {
    // SAFETY: a handle made by `open`, of which the caller owns a share.
    let file = unsafe { &*file.cast::<OpenFile>() };
    file.on_disk.as_ref().map_or(-1, AsRawFd::as_raw_fd)
}
