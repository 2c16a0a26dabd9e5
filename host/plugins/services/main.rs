//! Services that need no request: logging, panics, facts about modules, and what is asked for while configuring.

use std::{cell::RefCell, net::SocketAddr, sync::atomic::AtomicU64};

use abi_stable::{
    prefix_type::WithMetadata,
    std_types::{ROption, RResult, RSlice, RStr, RString},
};
use topnext_module_api::{
    host::{HostApi, HostApiRef},
    panic::PanicReport,
    running::{Running, RunningCell},
    upstream::RawUpstream,
};

use super::{bufs, guarded, requests, selections};
use crate::{
    config::{self, diagnostic::did_you_mean},
    log::error::{self, Level},
    log_line,
    plugins::running,
    process::zones,
    template::Templates,
    upstream::registry::{Registry, Wanted},
};

static API: WithMetadata<HostApi> = WithMetadata::new(HostApi {
    cell,
    log,
    panicked,
    module_info,
    compile_template,
    find_upstream,
    zone,
    bufs: bufs::api(),
    requests: requests::api(),
    selections: selections::api(),
    #[cfg(feature = "next-minor")]
    next_minor_answer,
});

/// The root table.
pub fn api() -> HostApiRef {
    HostApiRef(API.static_as_prefix())
}

/// Makes the table the one of the host's own image too, whose bufs and chains need it.
pub fn set_for_host() {
    // SAFETY: the table is this one.
    unsafe { topnext_module_api::host::set(api()) }
}

/// What the configuration being read offers to modules.
#[derive(Default)]
pub struct Configuring {
    /// Templates that have been compiled so far.
    pub templates: Templates,
    /// Upstreams, named and implied.
    pub upstreams: Registry,
    /// Zones of shared memory.
    pub zones: Vec<config::Zone>,
}

impl Configuring {
    fn size_of_zone(&self, name: &str) -> Result<u64, String> {
        if let Some(zone) = self.zones.iter().find(|zone| zone.name == name) {
            return Ok(zone.size);
        }
        let advice = match did_you_mean(name, self.zones.iter().map(|zone| zone.name.as_str())) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("add [zone.{name}] with its size"),
        };
        Err(format!("found {name:?}, which is not the name of a zone; {advice}"))
    }
}

thread_local! {
    static CONFIGURING: RefCell<Option<Configuring>> = const { RefCell::new(None) };
}

/// Offers it to modules on this thread, during [`done_configuring`].
pub fn begin_configuring(configuring: Configuring) {
    CONFIGURING.replace(Some(configuring));
}

/// Takes it back.
pub fn done_configuring() -> Configuring {
    CONFIGURING.take().unwrap_or_default()
}

/// Compiles a template for the host itself.
pub fn compile(text: &str) -> Result<u32, String> {
    CONFIGURING.with_borrow_mut(|configuring| match configuring {
        Some(configuring) => configuring.templates.compile(text),
        None => Err("templates are compiled while the configuration is read".to_string()),
    })
}

/// The addresses of a name of the configuration.
pub fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    CONFIGURING.with_borrow_mut(|configuring| match configuring {
        Some(configuring) => configuring.upstreams.names.resolve(host, port),
        None => Err("names are resolved while the configuration is read".to_string()),
    })
}

unsafe extern "C" fn cell() -> &'static RunningCell {
    running::cell()
}

unsafe extern "C" fn log(level: u32, module: u32, message: RStr<'_>) {
    guarded((), || {
        let level = Level::from_number(level);
        if module == 0 {
            log_line!(level, "{message}");
        } else {
            log_line!(level, "{}: {message}", running::module_name(module));
        }
    });
}

unsafe extern "C" fn panicked(report: &PanicReport<'_>) {
    guarded((), || {
        let running = Running { module: report.module, hook: report.hook };
        let text = format!("{}, at {}:{}", report.message, report.file, report.line);
        let count = running::count_panic(running, text);
        error::write(
            Level::Crit,
            format_args!(
                "module {} panicked in {}: {}, at {}:{} (its panic number {count})",
                running::module_name(report.module),
                report.hook.name(),
                report.message,
                report.file,
                report.line
            ),
        );
    });
}

unsafe extern "C" fn module_info(index: u32, fact: u32) -> ROption<RStr<'static>> {
    guarded(ROption::RNone, || crate::site::module_fact(index, fact).map(RStr::from_str).into())
}

unsafe extern "C" fn compile_template(text: RStr<'_>) -> RResult<u32, RString> {
    let outside = || RResult::RErr(RString::from("templates are compiled while the configuration is read"));
    guarded(outside(), || {
        CONFIGURING.with_borrow_mut(|configuring| match configuring {
            Some(configuring) => configuring.templates.compile(text.as_str()).map_err(RString::from).into(),
            None => outside(),
        })
    })
}

unsafe extern "C" fn find_upstream(wanted: &RawUpstream<'_>) -> RResult<u32, RString> {
    let outside = || RResult::RErr(RString::from("upstreams are found while the configuration is read"));
    guarded(outside(), || {
        CONFIGURING.with_borrow_mut(|configuring| match configuring {
            Some(configuring) => configuring.upstreams.find(&Wanted::of(wanted)).map_err(RString::from).into(),
            None => outside(),
        })
    })
}

unsafe extern "C" fn zone(name: RStr<'_>, layout: u64) -> RResult<RSlice<'static, AtomicU64>, RString> {
    let outside = || RResult::RErr(RString::from("zones are opened while the configuration is read"));
    guarded(outside(), || {
        let size = CONFIGURING.with_borrow(|configuring| configuring.as_ref().map(|of| of.size_of_zone(&name)));
        let Some(size) = size else { return outside() };
        size.and_then(|size| zones::open(&name, size, layout)).map(RSlice::from_slice).map_err(RString::from).into()
    })
}

#[cfg(feature = "next-minor")]
unsafe extern "C" fn next_minor_answer() -> u32 {
    42
}
