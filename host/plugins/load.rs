//! Loading a module: the library, the layout of its types, its start.
//!
//! Cheap checks come first. The layouts are compared in both directions, because abi_stable's own check refuses an older
//! module in a newer host: minor versions are linear, so one side always offers all that the other one knows.
//! Libraries are never unloaded: bufs, strings and errors of a module may live anywhere.

// Opening a library, and calling what is in it, rests on promises that no compiler can check.
#![allow(unsafe_code)]

use std::fmt;
use std::mem::forget;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error_text::ErrorText;

use abi_stable::StableAbi;
use abi_stable::abi_stability::abi_checking::{
    AbiInstability, AbiInstabilityErrors, CheckingGlobals, check_layout_compatibility_with_globals,
};
use abi_stable::library::{AbiHeader, LibHeader, LibraryError, lib_header_from_path};
use abi_stable::std_types::RResult;
use abi_stable::type_layout::{TLFieldOrFunction, TypeLayout};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use topnext_module_api::ABI_EPOCH;
use topnext_module_api::config::{ConfigError, Value};
use topnext_module_api::host::HostApiRef;
use topnext_module_api::module::{Configured, RawInstance};
use topnext_module_api::root::ModuleRootRef;

use super::description::{self, Description, Identity};
use super::report::{Refusal, RefusalKind};
use super::{Candidate, check};

/// Takes the report of the last panic in a module on this thread, and forgets it: its message, file and line.
pub type LastPanic = fn() -> Option<String>;

/// At most so many differences of layout are shown, each with at most so many characters.
const MAX_DIFFERENCES: usize = 4;
const MAX_DIFFERENCE: usize = 300;

/// A module that has been loaded and started. Dropping it ends the module's state; its code stays in the process.
pub struct LoadedModule {
    /// 1 and up, in declared order.
    pub slot: u32,
    /// Its name in this configuration.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// What it says about itself.
    pub description: Description,
    /// Its table of functions.
    pub root: ModuleRootRef,
    instance: Instance,
    ended: AtomicBool,
}

/// The module's state, as it handed it out.
struct Instance(RawInstance);

// SAFETY: the pointer leads to an `Arc<dyn Any + Send + Sync>`, made by the module's `init`.
unsafe impl Send for Instance {}
// SAFETY: as above; calls of several threads only borrow it.
unsafe impl Sync for Instance {}

/// Loads all candidates. Those that fail are reported; the others are loaded all the same.
pub fn load_all(
    candidates: Vec<Candidate>,
    host: HostApiRef,
    last_panic: LastPanic,
) -> (Vec<LoadedModule>, Vec<Refusal>) {
    let (mut modules, mut refusals) = (Vec::new(), Vec::new());
    for candidate in &candidates {
        match load(candidate, host, last_panic) {
            Ok(module) => modules.push(module),
            Err(refusal) => refusals.push(refusal),
        }
    }
    (modules, refusals)
}

/// Loads one module and starts it.
pub fn load(candidate: &Candidate, host: HostApiRef, last_panic: LastPanic) -> Result<LoadedModule, Refusal> {
    let result = check::host(&candidate.description)
        .and_then(|()| unchanged(candidate))
        .and_then(|()| open(candidate))
        .and_then(|header| root(candidate, header))
        .and_then(|root| start(candidate, root, host, last_panic));
    result.map_err(|refusal| refusal.at(&candidate.place, &candidate.name))
}

impl LoadedModule {
    /// Makes the module's configuration for one place from the merged table, or says what is wrong with the table.
    ///
    /// What it makes is given back by [`LoadedModule::release`].
    pub fn configure(&self, table: Value) -> Result<Configured, Vec<ConfigError>> {
        // SAFETY: the module's `init` made the instance, and `fini` is called by `drop` only.
        match unsafe { self.root.configure()(self.slot, self.instance.0, table) } {
            RResult::ROk(configured) => Ok(configured),
            RResult::RErr(errors) => Err(errors.into_iter().collect()),
        }
    }

    /// Gives a configuration back to the module.
    ///
    /// # Safety
    /// `data` is [`Configured::data`] of an answer of this module's `configure`, no link carries it any more, and it has
    /// not been given back before. Null is allowed.
    pub unsafe fn release(&self, data: *const ()) {
        // SAFETY: promised by the caller.
        unsafe { self.root.release()(self.slot, data) }
    }
}

impl LoadedModule {
    /// Drops the module's state. Nothing of the module is called afterwards.
    pub fn end(&self) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            // SAFETY: the module's `init` made the instance, and it is given up here, once.
            unsafe { self.root.fini()(self.slot, self.instance.0) }
        }
    }
}

impl Drop for LoadedModule {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for LoadedModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedModule")
            .field("slot", &self.slot)
            .field("name", &self.name)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

fn refusal(candidate: &Candidate, kind: RefusalKind) -> Refusal {
    description::refusal(&candidate.file, kind)
}

/// The file is still the one that was checked.
fn unchanged(candidate: &Candidate) -> Result<(), Refusal> {
    let now = std::fs::metadata(&candidate.description.file);
    if now.as_ref().is_ok_and(|now| Identity::of(now) == candidate.description.identity) {
        return Ok(());
    }
    let found =
        now.map_or_else(|error| ErrorText(&error).to_string(), |now| format!("another file, of {} bytes", now.len()));
    Err(refusal(candidate, RefusalKind::Changed)
        .line("before", format!("a file of {} bytes", candidate.description.size))
        .line("now", found)
        .line("fix", "try again when the installation is complete; install by renaming, not by writing into the file"))
}

/// Opens the library, for ever, and finds abi_stable's header in it.
fn open(candidate: &Candidate) -> Result<&'static LibHeader, Refusal> {
    let cannot = |error: String| {
        let fix = "install the libraries that it needs (ldd shows them), or build it for this system";
        refusal(candidate, RefusalKind::Open).line("error", error).line("fix", fix)
    };
    // A name without a slash would be looked for in the system's folders.
    let path =
        std::path::absolute(&candidate.description.file).map_err(|error| cannot(ErrorText(&error).to_string()))?;
    // RTLD_NOW: a missing symbol is found here, and not in the middle of a request.
    // SAFETY: initializers of the library run. The operator named it as a module, and its description says it is one.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) };
    forget(library.map_err(|error| cannot(error_text(&error)))?);
    lib_header_from_path(&path).map_err(|error| {
        let host = format!("abi_stable {}", abi_version(&AbiHeader::VALUE));
        let (module, fix) = match &error {
            LibraryError::GetSymbolError { .. } => {
                ("no symbol of abi_stable".to_owned(), "keep the symbols that export_module! makes: strip none of them")
            }
            LibraryError::InvalidAbiHeader(theirs) => (
                format!("abi_stable {}", abi_version(theirs)),
                "rebuild it against the module-api of this topnext, which brings its own abi_stable",
            ),
            _ => (one_line(&error.to_string()), "rebuild it with a compiler for this system"),
        };
        refusal(candidate, RefusalKind::AbiHeader).line("host", host).line("module", module).line("fix", fix)
    })
}

fn abi_version(header: &AbiHeader) -> String {
    format!("{}.{}", header.abi_major, header.abi_minor)
}

/// Compares the layouts, then gets the module's table of functions and compares it with the description.
fn root(candidate: &Candidate, header: &'static LibHeader) -> Result<ModuleRootRef, Refusal> {
    let fix = "rebuild it against the module-api of this topnext";
    let refuse = |kind, found: String| {
        refusal(candidate, kind)
            .line("host", check::host_api())
            .line("module", check::module_api(&candidate.description))
            .line("found", found)
            .line("fix", fix)
    };
    let theirs = header.layout().ok_or_else(|| refuse(RefusalKind::Layout, "no layout of its types".to_owned()))?;
    let ours = <ModuleRootRef as StableAbi>::LAYOUT;
    if let Err(newer) = fits(ours, theirs)
        && let Err(older) = fits(theirs, ours)
    {
        // Each direction also tells what the newer side has more, where it expects that side to be the older one: the
        // direction with fewer differences has the real ones.
        let (newer, older) = (differences(&newer, ["host", "module"]), differences(&older, ["module", "host"]));
        let found = if older.len() < newer.len() { older } else { newer };
        return Err(refuse(RefusalKind::Layout, first_of(found)));
    }
    // SAFETY: the layouts have just been compared.
    let root = unsafe { header.init_root_module_with_unchecked_layout::<ModuleRootRef>() }
        .map_err(|error| refuse(RefusalKind::Root, one_line(&error.to_string())))?;
    let description = &candidate.description;
    let says = (description.name.as_str(), description.version.to_string(), description.epoch);
    let is = (root.name().as_str(), root.version().to_string(), u64::from(root.abi_epoch()));
    if says != is || root.abi_epoch() != ABI_EPOCH {
        let text = |(name, version, epoch): &(&str, String, u64)| format!("{name} {version} (abi {epoch})");
        return Err(refuse(RefusalKind::Root, format!("its code is {}, not {}", text(&is), text(&says))));
    }
    if !root.unwinds() {
        return Err(refuse(RefusalKind::PanicStrategy, "its code was built with panic = \"abort\"".to_owned()));
    }
    Ok(root)
}

/// Whether `implementation` offers all that `interface` knows.
///
/// With fresh globals: those of the process remember comparisons, so that an older module, once accepted, would have a
/// newer one refused.
fn fits(interface: &'static TypeLayout, implementation: &'static TypeLayout) -> Result<(), AbiInstabilityErrors> {
    check_layout_compatibility_with_globals(interface, implementation, &CheckingGlobals::new())
}

/// abi_stable's errors, which are some 20 KB of text, as one short line for each difference.
///
/// `sides` names the side that abi_stable expects and the one that it finds.
fn differences(errors: &AbiInstabilityErrors, sides: [&str; 2]) -> Vec<String> {
    let (mut below, mut whole) = (Vec::new(), Vec::new());
    for error in errors.errors.iter().filter(|error| !error.errs.is_empty()) {
        let steps = error.stack_trace.iter().filter_map(|step| step_name(&step.expected));
        let path = steps.collect::<Vec<_>>().join(" > ");
        let what: Vec<String> = error.errs.iter().map(|error| difference(error, sides)).collect();
        let what = what.join("; ");
        if path.is_empty() {
            whole.push(format!("the root: {what}"));
        } else {
            below.push(format!("{path}: {what}"));
        }
    }
    // That the whole has another size is no news when it is known which part has.
    if below.is_empty() { whole } else { below }
}

/// The first differences, and how many more there are.
fn first_of(mut lines: Vec<String>) -> String {
    let more = lines.len().saturating_sub(MAX_DIFFERENCES);
    lines.truncate(MAX_DIFFERENCES);
    for line in &mut lines {
        *line = line.chars().take(MAX_DIFFERENCE).collect();
    }
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

/// A step on the way to a type; none if it only leads through a wrapper, whose fields have no names.
fn step_name(step: &TLFieldOrFunction) -> Option<String> {
    let name = match step {
        TLFieldOrFunction::Field(field) => field.name().to_string(),
        TLFieldOrFunction::Function(function) => format!("fn {}", function.name.as_str()),
    };
    let unnamed = name.strip_prefix("field_").is_some_and(|number| number.parse::<usize>().is_ok());
    (name.contains(char::is_alphabetic) && !unnamed).then_some(name)
}

/// `Name(ExpectedFound { expected: u32, found: u64 })` becomes `Name(host u32, module u64)`.
fn difference(error: &AbiInstability, [expected, found]: [&str; 2]) -> String {
    let text = one_line(&format!("{error:?}")).replace("ExpectedFound { expected:", expected);
    text.replace(", found:", &format!(", {found}")).replace(" })", ")")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// libloading's error with the dynamic linker's own words.
fn error_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    one_line(&text)
}

/// The first call into the module: it makes its state.
fn start(
    candidate: &Candidate,
    root: ModuleRootRef,
    host: HostApiRef,
    last_panic: LastPanic,
) -> Result<LoadedModule, Refusal> {
    // What an earlier module may have left.
    last_panic();
    // SAFETY: the layout of the table was compared with the module's, and it is the host's own.
    let instance = match unsafe { root.init()(host, candidate.slot) } {
        RResult::ROk(instance) => instance,
        RResult::RErr(message) => {
            let panic = last_panic();
            let version = format!("{} {}", candidate.description.name, candidate.description.version);
            if panic.is_none() && message.as_str() != "panicked" {
                return Err(refusal(candidate, RefusalKind::Init)
                    .line("module", version)
                    .line("error", message.as_str())
                    .line("fix", "remedy what the module names, or remove its declaration"));
            }
            return Err(refusal(candidate, RefusalKind::InitPanic)
                .line("module", version)
                .line("panic", panic.unwrap_or_else(|| "the error log has its message, file and line".to_owned()))
                .line("fix", "report it to the module's author, or remove its declaration"));
        }
    };
    Ok(LoadedModule {
        slot: candidate.slot,
        name: candidate.name.clone(),
        file: candidate.file.clone(),
        description: candidate.description.clone(),
        root,
        instance: Instance(instance),
        ended: AtomicBool::new(false),
    })
}
