//! Modules that are refused, and why: each kind of refusal with its full text; then all of them in one report.
//!
//! The modules are those in tests/modules, and copies of `plain` with some bytes changed.

#[path = "support/build.rs"]
mod build;
#[path = "support/host.rs"]
mod host;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use abi_stable::std_types::Tuple2;
use topnext::plugins::description::hex;
use topnext::plugins::{
    Candidate, Declared, Description, LoadedModule, Refusal, RefusalKind, candidates, load_all, order,
};
use topnext_module_api::config::Value;
use topnext_module_api::{ABI_EPOCH, API_VERSION, RUSTC, TARGET};

/// A folder of modules for one test, removed when it is dropped.
struct Modules(PathBuf);

impl Modules {
    fn new(test: &str) -> Modules {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("refusals_{test}_{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Modules(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A copy of a module in tests/modules, with a name under which it is found.
    fn copy(&self, name: &str) -> PathBuf {
        self.file(&format!("lib{name}.so"), &fs::read(build::module(name)).unwrap())
    }

    /// Refusals with the folder's name replaced, since it differs from run to run.
    fn text(&self, refusal: &Refusal) -> String {
        refusal.to_string().replace(self.0.to_str().unwrap(), "DIR")
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The bytes of the good module.
fn plain() -> Vec<u8> {
    fs::read(build::module("plain")).unwrap()
}

fn position(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|window| window == wanted).expect("the bytes are in the file")
}

/// Replaces the first occurrence by something of the same length.
fn patched(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = position(&bytes, from);
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

/// `plain` with a changed description: each `(from, to)` replaced, and the length kept by blanks at the end.
fn described(changes: &[(&str, &str)]) -> Vec<u8> {
    with_description("plain", changes)
}

/// Any module with a changed description.
fn with_description(module: &str, changes: &[(&str, &str)]) -> Vec<u8> {
    let path = build::module(module);
    let (bytes, text) = (fs::read(&path).unwrap(), Description::read(&path).unwrap().text);
    let mut changed = text.clone();
    for (from, to) in changes {
        assert!(changed.contains(from), "{from:?} in {changed:?}");
        changed = changed.replacen(from, to, 1);
    }
    assert!(changed.len() <= text.len());
    patched(bytes, text.as_bytes(), format!("{changed:<0$}", text.len()).as_bytes())
}

/// A module's file in which two sections have the description's name.
fn with_two_descriptions() -> Vec<u8> {
    let mut bytes = plain();
    let word = |bytes: &[u8], at: usize, len: usize| {
        bytes[at..at + len].iter().rev().fold(0, |word, byte| word << 8 | usize::from(*byte))
    };
    let (headers, count) = (word(&bytes, 40, 8), word(&bytes, 60, 2));
    let names = word(&bytes, headers + word(&bytes, 62, 2) * 64 + 24, 8);
    let name_at = position(&bytes[names..], b".topnext\0");
    let other = (1..count).map(|i| headers + i * 64).find(|at| word(&bytes, *at, 4) != name_at).unwrap();
    let name = u32::try_from(name_at).unwrap().to_le_bytes();
    bytes[other..other + 4].copy_from_slice(&name);
    bytes
}

fn declared(name: &str, line: usize) -> Declared {
    Declared { name: name.into(), place: format!("plugins.toml:{line}:1"), ..Declared::default() }
}

/// What becomes of the declarations: all steps, as the server makes them.
fn load(declared: &[Declared], dirs: &[PathBuf]) -> (Vec<LoadedModule>, Vec<Refusal>) {
    let (found, mut refusals) = candidates(declared, dirs);
    refusals.extend(order::check(&found, declared).err().unwrap_or_default());
    let (modules, more) = load_all(found, host::host(), host::last_panic);
    refusals.extend(more);
    (modules, refusals)
}

/// The refusal of the file `bytes` as the module `name`, which must be the only one.
fn refused(test: &str, declared: Declared, bytes: &[u8]) -> (RefusalKind, String) {
    let modules = Modules::new(test);
    modules.file(&format!("lib{}.so", declared.name), bytes);
    let (loaded, refusals) = load(&[declared], std::slice::from_ref(&modules.0));
    assert!(loaded.is_empty(), "{loaded:?}");
    let [refusal] = &refusals[..] else { panic!("{refusals:?}") };
    (refusal.kind, modules.text(refusal))
}

fn refused_plain(test: &str, bytes: &[u8]) -> (RefusalKind, String) {
    refused(test, declared("plain", 14), bytes)
}

/// The text of a refusal of `plain`, from its headline and its lines below the file.
fn text(headline: &str, lines: &str) -> String {
    format!("plugins.toml:14:1: module \"plain\": {headline}\n  file    DIR/libplain.so\n{lines}")
}

fn host_line() -> String {
    format!("  host    module-api {API_VERSION} (abi {ABI_EPOCH})\n")
}

fn module_line() -> String {
    format!("  module  module-api {API_VERSION} (abi {ABI_EPOCH}), built by {RUSTC}\n")
}

#[test]
fn a_good_module_loads_and_reads_its_table() {
    let modules = Modules::new("good");
    modules.copy("plain");
    let (loaded, refusals) = load(&[declared("plain", 1)], std::slice::from_ref(&modules.0));
    assert_eq!(refusals, []);
    let [module] = &loaded[..] else { panic!("{loaded:?}") };
    assert_eq!((module.slot, module.name.as_str(), module.root.name().as_str()), (1, "plain", "plain"));
    let table = |text: Value| {
        let statuses = Value::List(vec![Value::Integer(200)].into());
        let entries = [("enabled", Value::Bool(true)), ("text", text), ("statuses", statuses)];
        Value::Table(entries.into_iter().map(|(key, value)| Tuple2(key.into(), value)).collect())
    };
    let configured = module.configure(table(Value::String("x".into()))).unwrap();
    assert!(configured.enabled && !configured.data.is_null());
    // SAFETY: `configure` has just made the data, and nothing else holds them.
    unsafe { module.release(configured.data) };
    let errors = module.configure(table(Value::Integer(1))).unwrap_err();
    let errors: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.path, error.message)).collect();
    assert_eq!(errors, ["text: found 1, expected a string"]);
}

#[test]
fn no_optimization_and_another_allocator_are_no_reason_to_refuse() {
    let modules = Modules::new("opt0");
    let path = modules.copy("opt0_alloc");
    let (loaded, refusals) = load(&[declared("opt0_alloc", 1)], std::slice::from_ref(&modules.0));
    assert_eq!(refusals, []);
    // SAFETY: the module is loaded already, and the symbol is a function of this type.
    let live = unsafe {
        let library = libloading::Library::new(&path).unwrap();
        let live = *library.get::<extern "C" fn() -> usize>(b"opt0_alloc_live").unwrap();
        std::mem::forget(library);
        live
    };
    let make_and_release = || {
        let texts: Vec<Value> = ["a", "b"].into_iter().map(|text| Value::String(text.into())).collect();
        let table = vec![Tuple2("texts".into(), Value::List(texts.into()))];
        let configured = loaded[0].configure(Value::Table(table.into())).unwrap();
        let during = live();
        // SAFETY: `configure` has just made the data, and nothing else holds them.
        unsafe { loaded[0].release(configured.data) };
        during
    };
    make_and_release();
    let before = live();
    let during = make_and_release();
    assert!(during > before, "the module's own allocator has the configuration");
    assert_eq!(live(), before, "everything that was allocated here and there was freed by its own side");
}

#[test]
fn a_module_of_a_nightly_compiler_loads() {
    if !build::has_nightly() {
        eprintln!("no nightly toolchain is installed: nothing was tested");
        return;
    }
    let modules = Modules::new("nightly");
    let bytes = fs::read(build::module_as("plain", build::Variant::Nightly)).unwrap();
    modules.file("libplain.so", &bytes);
    let (loaded, refusals) = load(&[declared("plain", 1)], std::slice::from_ref(&modules.0));
    assert_eq!(refusals, []);
    assert!(loaded[0].description.rustc.contains("nightly"), "{}", loaded[0].description.rustc);
}

#[test]
fn a_module_of_the_next_minor_version_loads() {
    let modules = Modules::new("next_minor");
    let bytes = fs::read(build::module_as("plain", build::Variant::NextMinor)).unwrap();
    modules.file("libplain.so", &bytes);
    let (loaded, refusals) = load(&[declared("plain", 1)], std::slice::from_ref(&modules.0));
    assert_eq!(refusals, []);
    assert_eq!(loaded.len(), 1);
}

#[test]
fn older_and_newer_modules_load_in_one_process_in_any_order() {
    let modules = Modules::new("mixed");
    let (this, next) = (plain(), fs::read(build::module_as("plain", build::Variant::NextMinor)).unwrap());
    let mut all = Vec::new();
    for (i, bytes) in [&next, &this, &next, &this].into_iter().enumerate() {
        let path = modules.file(&format!("{i}.so"), bytes);
        all.push(Declared { alias: Some(format!("plain{i}")), path: Some(path), ..declared("plain", i + 1) });
    }
    let (loaded, refusals) = load(&all, &[]);
    assert_eq!(refusals, []);
    assert_eq!(loaded.iter().map(|module| module.slot).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn not_found() {
    let modules = Modules::new("not_found");
    modules.copy("plain");
    let (_, refusals) = load(&[declared("palin", 14)], std::slice::from_ref(&modules.0));
    assert_eq!(refusals[0].kind, RefusalKind::NotFound);
    assert_eq!(
        modules.text(&refusals[0]),
        "plugins.toml:14:1: module \"palin\": there is no such file
  looked  DIR/libpalin.so
          DIR/libtopnext_palin.so
  near    plain (DIR/libplain.so)
  fix     write name = \"plain\", or say where palin is with path or module_path"
    );
}

#[test]
fn not_readable() {
    let modules = Modules::new("not_readable");
    let path = modules.file("libplain.so", b"");
    // A file with a hole: it takes no room.
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(513 << 20).unwrap();
    let (_, refusals) = load(&[declared("plain", 14)], std::slice::from_ref(&modules.0));
    assert_eq!(refusals[0].kind, RefusalKind::NotReadable);
    let lines = "  found   a file of 537919488 bytes
  fix     make it a file that this user may read, of at most 512 MiB";
    assert_eq!(modules.text(&refusals[0]), text("its file cannot be read", lines));
}

#[test]
fn not_elf() {
    let lines = "  found   a file that does not start as an ELF file does
  fix     name the .so file of a module";
    assert_eq!(
        refused_plain("not_elf", b"#!/bin/sh\nexit 0 # a script\n"),
        (RefusalKind::NotElf, text("its file is not a shared library", lines))
    );
}

#[test]
#[cfg(target_arch = "x86_64")]
fn architecture() {
    let mut bytes = plain();
    bytes[18] = 183;
    let lines = format!(
        "  host    x86_64, 64 bits, little endian
  module  aarch64, 64 bits, little endian
  fix     build it for {TARGET}"
    );
    assert_eq!(
        refused_plain("architecture", &bytes),
        (RefusalKind::Architecture, text("built for another processor", &lines))
    );
}

#[test]
fn not_shared() {
    let mut bytes = plain();
    bytes[16] = 1;
    let lines = "  found   an object file
  fix     name a shared library: crate-type = [\"cdylib\"] in Cargo.toml";
    assert_eq!(
        refused_plain("not_shared", &bytes),
        (RefusalKind::NotShared, text("its file is not a shared library", lines))
    );
}

#[test]
fn no_description() {
    let lines = "  found   a shared library without the section .topnext
  fix     name a module, which export_module! makes of a cdylib; strip may remove symbols, not sections";
    assert_eq!(
        refused_plain("no_description", &patched(plain(), b".topnext\0", b".topless\0")),
        (RefusalKind::NoDescription, text("its file is not a topnext module", lines))
    );
}

#[test]
fn several_descriptions() {
    let lines = "  found   2 sections .topnext, where one is expected
  fix     link one module into a file: a module must not depend on another one's crate";
    assert_eq!(
        refused_plain("several_descriptions", &with_two_descriptions()),
        (RefusalKind::SeveralDescriptions, text("its file holds several modules", lines))
    );
}

#[test]
fn format_of_the_description() {
    let lines = "  host    descriptions of format 1
  module  a description of format 2
  fix     rebuild it against the module-api of this topnext, or upgrade topnext";
    assert_eq!(
        refused_plain("format", &described(&[("format = 1", "format = 2")])),
        (RefusalKind::Format, text("its description is of another format", lines))
    );
}

#[test]
fn bad_description() {
    let lines = "  found   version = \"0.1.x\", which is no version: unexpected character 'x' while parsing patch version number
  fix     build it again with an unaltered module-api";
    assert_eq!(
        refused_plain("bad_description", &described(&[("version = \"0.1.0\"", "version = \"0.1.x\"")])),
        (RefusalKind::BadDescription, text("its description cannot be understood", lines))
    );
}

#[test]
fn other_major() {
    let newer = format!(
        "{}  module  module-api 9.0.0 (abi {ABI_EPOCH}), built by rustc 9
  fix     rebuild it against module-api 1.x, or upgrade topnext",
        host_line()
    );
    let api = format!("api = \"{API_VERSION}\"");
    let rustc = format!("rustc = \"{RUSTC}\"");
    let changes = [(api.as_str(), "api = \"9.0.0\""), (rustc.as_str(), "rustc = \"rustc 9\"")];
    assert_eq!(
        refused_plain("newer_major", &described(&changes)),
        (RefusalKind::Major, text("built for another module-api", &newer))
    );
    let older = newer.replace("9.0.0", "0.9.0").replace(", or upgrade topnext", "");
    let changes = [(api.as_str(), "api = \"0.9.0\""), (rustc.as_str(), "rustc = \"rustc 9\"")];
    assert_eq!(
        refused_plain("older_major", &described(&changes)),
        (RefusalKind::Major, text("built for another module-api", &older))
    );
}

#[test]
fn older_epoch() {
    let lines = format!(
        "{}  module  module-api {API_VERSION} (abi 0), built by {RUSTC}
  fix     rebuild it against the module-api of this topnext",
        host_line()
    );
    assert_eq!(
        refused_plain("older_epoch", &described(&[(&format!("epoch = {ABI_EPOCH}"), "epoch = 0")])),
        (RefusalKind::Epoch, text("built for another state of module-api", &lines))
    );
}

#[test]
fn other_target() {
    let lines = format!(
        "  host    {TARGET}
  module  sparc-sun-solaris
  fix     build it with --target {TARGET}"
    );
    let target = format!("target = \"{TARGET}\"");
    assert_eq!(
        refused_plain("target", &described(&[(&target, "target = \"sparc-sun-solaris\"")])),
        (RefusalKind::Target, text("built for another target", &lines))
    );
}

#[test]
fn panic_strategy() {
    let bytes = fs::read(build::module("abort")).unwrap();
    assert_eq!(
        refused("panic_strategy", declared("abort", 14), &bytes),
        (
            RefusalKind::PanicStrategy,
            "plugins.toml:14:1: module \"abort\": its panics would end the worker
  file    DIR/libabort.so
  host    panic = \"unwind\": a panic costs one request
  module  panic = \"abort\"
  fix     remove panic = \"abort\" from its profile in Cargo.toml, and from RUSTFLAGS"
                .to_owned()
        )
    );
}

#[test]
fn another_name() {
    assert_eq!(
        refused("name", declared("gzip", 14), &plain()),
        (
            RefusalKind::Name,
            "plugins.toml:14:1: module \"gzip\": its file holds another module
  file    DIR/libgzip.so
  wanted  name = \"gzip\"
  module  name = \"plain\"
  fix     write name = \"plain\", or name = \"plain\" and as = \"gzip\""
                .to_owned()
        )
    );
}

#[test]
fn another_version() {
    let wants = Declared { version: Some("^1.2".parse().unwrap()), ..declared("plain", 14) };
    let lines = "  wanted  version = \"^1.2\"
  module  version 0.1.0
  fix     install a version that fits, or change the requirement";
    assert_eq!(
        refused("version", wants, &plain()),
        (RefusalKind::Version, text("its version is not the one that is required", lines))
    );
}

#[test]
fn another_sha256() {
    let bytes = plain();
    let right = Description::read(&build::module("plain")).unwrap().sha256().unwrap();
    let wants = Declared { sha256: Some([0xab; 32]), ..declared("plain", 14) };
    let lines = format!(
        "  wanted  sha256 = \"{}\"
  module  sha256 = \"{}\"
  fix     install the pinned file, or, if this one is meant, change the pin",
        "ab".repeat(32),
        hex(&right)
    );
    assert_eq!(
        refused("sha256", wants, &bytes),
        (RefusalKind::Sha256, text("its file is not the one that is pinned", &lines))
    );
    let modules = Modules::new("sha256_right");
    modules.file("libplain.so", &bytes);
    let pinned = Declared { sha256: Some(right), ..declared("plain", 14) };
    let (loaded, refusals) = load(&[pinned], std::slice::from_ref(&modules.0));
    assert_eq!((loaded.len(), refusals), (1, vec![]));
}

#[test]
fn the_same_file_twice() {
    let modules = Modules::new("same_file");
    let path = modules.copy("plain");
    let link = modules.0.join("link.so");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let second = Declared { alias: Some("other".into()), path: Some(link), ..declared("plain", 14) };
    let (loaded, refusals) = load(&[declared("plain", 7), second], std::slice::from_ref(&modules.0));
    assert_eq!(loaded.len(), 1);
    assert_eq!(refusals[0].kind, RefusalKind::SameFileTwice);
    assert_eq!(
        modules.text(&refusals[0]),
        "plugins.toml:14:1: module \"other\": its file is loaded already, under another name
  file    DIR/link.so
  first   plain (DIR/libplain.so), declared at plugins.toml:7:1
  fix     copy the file, for example to DIR/libother.so, and set path to the copy"
    );
}

#[test]
fn a_file_that_changes_meanwhile() {
    let modules = Modules::new("changed");
    let path = modules.copy("plain");
    let size = fs::metadata(&path).unwrap().size();
    let (found, refusals) = candidates(&[declared("plain", 14)], std::slice::from_ref(&modules.0));
    assert_eq!(refusals, []);
    fs::rename(modules.file("new", b"something else"), &path).unwrap();
    let (loaded, refusals) = load_all(found, host::host(), host::last_panic);
    assert!(loaded.is_empty());
    assert_eq!(refusals[0].kind, RefusalKind::Changed);
    assert_eq!(
        modules.text(&refusals[0]),
        format!(
            "plugins.toml:14:1: module \"plain\": its file changed while it was loaded
  file    DIR/libplain.so
  before  a file of {size} bytes
  now     another file, of 14 bytes
  fix     try again when the installation is complete; install by renaming, not by writing into the file"
        )
    );
}

#[test]
fn the_dynamic_linker_refuses() {
    let lines = "  error   dlopen failed: libgcc_x.so.1: cannot open shared object file: No such file or directory
  fix     install the libraries that it needs (ldd shows them), or build it for this system";
    assert_eq!(
        refused_plain("open", &patched(plain(), b"libgcc_s.so.1\0", b"libgcc_x.so.1\0")),
        (RefusalKind::Open, text("the dynamic linker cannot load it", lines))
    );
}

#[test]
fn another_abi_stable() {
    let magic = b"abi stable library for Rust     ";
    let mut bytes = plain();
    let at = position(&bytes, magic) + magic.len();
    bytes[at..at + 8].copy_from_slice(&[0, 0, 0, 0, 99, 0, 0, 0]);
    let lines = "  host    abi_stable 0.11
  module  abi_stable 0.99
  fix     rebuild it against the module-api of this topnext, which brings its own abi_stable";
    assert_eq!(
        refused_plain("abi_header", &bytes),
        (RefusalKind::AbiHeader, text("built with another abi_stable", lines))
    );
    let symbol = b"_1as_0lib_1header_0root_bmodule_bloader\0";
    let hidden = b"_1as_0lib_1header_0root_bmodule_bhidden\0";
    let lines = "  host    abi_stable 0.11
  module  no symbol of abi_stable
  fix     keep the symbols that export_module! makes: strip none of them";
    assert_eq!(
        refused_plain("no_symbol", &patched(plain(), symbol, hidden)),
        (RefusalKind::AbiHeader, text("built with another abi_stable", lines))
    );
}

#[test]
fn other_layout() {
    let bytes = fs::read(build::module("other_layout")).unwrap();
    // The newer host has more fields, so that only the module's view of it shows the real difference.
    let sides = if cfg!(feature = "next-minor") { "module u64, host u32" } else { "host u32, module u64" };
    assert_eq!(
        refused("other_layout", declared("other_layout", 14), &bytes),
        (
            RefusalKind::Layout,
            format!(
                "plugins.toml:14:1: module \"other_layout\": its types differ from the host's
  file    DIR/libother_layout.so
{}{}  found   abi_epoch: Name({sides})
  fix     rebuild it against the module-api of this topnext",
                host_line(),
                module_line()
            )
        )
    );
}

#[test]
fn other_layout_of_a_type_deep_below_the_root() {
    let bytes = fs::read(build::module("other_nested")).unwrap();
    let (kind, text) = refused("other_nested", declared("other_nested", 14), &bytes);
    let sides = if cfg!(feature = "next-minor") { "module i32, host u32" } else { "host u32, module i32" };
    assert_eq!(kind, RefusalKind::Layout);
    assert_eq!(
        text,
        format!(
            "plugins.toml:14:1: module \"other_nested\": its types differ from the host's
  file    DIR/libother_nested.so
{}{}  found   filter > header > fn header > link,r, > module: Name({sides})
  fix     rebuild it against the module-api of this topnext",
            host_line(),
            module_line()
        )
    );
}

#[test]
fn code_that_does_not_fit_its_description() {
    let lines = format!(
        "{}{}  found   its code is plain 0.1.0 (abi {ABI_EPOCH}), not plain 0.1.9 (abi {ABI_EPOCH})
  fix     rebuild it against the module-api of this topnext",
        host_line(),
        module_line()
    );
    assert_eq!(
        refused_plain("root", &described(&[("version = \"0.1.0\"", "version = \"0.1.9\"")])),
        (RefusalKind::Root, text("its code does not fit its description", &lines))
    );
}

#[test]
fn an_error_in_init() {
    let bytes = fs::read(build::module("init_error")).unwrap();
    assert_eq!(
        refused("init_error", declared("init_error", 14), &bytes),
        (
            RefusalKind::Init,
            "plugins.toml:14:1: module \"init_error\": it cannot start
  file    DIR/libinit_error.so
  module  init_error 0.1.0
  error   no licence for this machine
  fix     remedy what the module names, or remove its declaration"
                .to_owned()
        )
    );
}

#[test]
fn a_panic_in_init() {
    let bytes = fs::read(build::module("init_panic")).unwrap();
    assert_eq!(
        refused("init_panic", declared("init_panic", 14), &bytes),
        (
            RefusalKind::InitPanic,
            "plugins.toml:14:1: module \"init_panic\": it panicked when it was started
  file    DIR/libinit_panic.so
  module  init_panic 0.1.0
  panic   the state is broken in init, at lib.rs:16
  fix     report it to the module's author, or remove its declaration"
                .to_owned()
        )
    );
}

#[test]
fn a_wrong_order() {
    let modules = Modules::new("order");
    modules.copy("plain");
    modules.file("libssi.so", &described(&[("name = \"plain\"", "name = \"ssi\""), ("\"gzip\"", "\"x\"")]));
    let plain = Declared { ignore_order: vec!["gizp".into()], ..declared("plain", 7) };
    let all = [plain, declared("ssi", 14)];
    let (found, refusals) = candidates(&all, std::slice::from_ref(&modules.0));
    assert_eq!(refusals, []);
    let refusals = order::check(&found, &all).unwrap_err();
    assert_eq!(
        refusals.iter().map(|refusal| (refusal.kind, refusal.to_string())).collect::<Vec<_>>(),
        [
            (
                RefusalKind::IgnoreOrder,
                "plugins.toml:7:1: module \"plain\": ignore_order names an unknown module
  found   ignore_order has \"gizp\", and no module of that name is declared
  fix     remove \"gizp\" from ignore_order, or declare the module"
                    .to_owned()
            ),
            (
                RefusalKind::Order,
                "plugins.toml:7:1: module \"plain\": it stands in the wrong order
  chain   top -> [plain] -> [ssi] -> write
  rule    plain says after = [\"ssi\"]: a response must meet ssi before plain
  fix     move plain (plugins.toml:7:1) behind ssi (plugins.toml:14:1), or write ignore_order = [\"ssi\"] at plain"
                    .to_owned()
            ),
        ]
    );
}

/// Bad modules of many kinds and a good one in the middle: the declarations, and the kinds in the order reported.
fn many(modules: &Modules) -> (Vec<Declared>, Vec<RefusalKind>) {
    modules.file("libscript.so", b"#!/bin/sh\n");
    modules.file(
        "libolder.so",
        &described(&[("name = \"plain\"", "name = \"x\""), (&format!("epoch = {ABI_EPOCH}"), "epoch = 0")]),
    );
    for name in ["abort", "plain", "init_error", "init_panic", "other_layout"] {
        modules.copy(name);
    }
    let names = ["absent", "init_panic", "script", "older", "plain", "abort", "other_layout", "init_error"];
    let declared = names.iter().enumerate().map(|(i, name)| declared(name, 4 * i + 2)).collect();
    let kinds = vec![
        RefusalKind::NotFound,
        RefusalKind::NotElf,
        RefusalKind::Epoch,
        RefusalKind::PanicStrategy,
        RefusalKind::InitPanic,
        RefusalKind::Layout,
        RefusalKind::Init,
    ];
    (declared, kinds)
}

#[test]
fn no_bad_module_hides_another_or_a_good_one() {
    let modules = Modules::new("all");
    let (declared, kinds) = many(&modules);
    let (loaded, refusals) = load(&declared, std::slice::from_ref(&modules.0));
    assert_eq!(refusals.iter().map(|refusal| refusal.kind).collect::<Vec<_>>(), kinds);
    assert_eq!(loaded.iter().map(|module| (module.slot, module.name.as_str())).collect::<Vec<_>>(), [(5, "plain")]);
}

#[test]
fn slots_follow_the_declarations_also_behind_a_refused_one() {
    let modules = Modules::new("slots");
    modules.copy("plain");
    modules.copy("opt0_alloc");
    let all = [declared("plain", 1), declared("absent", 2), declared("opt0_alloc", 3)];
    let (found, _) = candidates(&all, std::slice::from_ref(&modules.0));
    let slots: Vec<(u32, &str)> =
        found.iter().map(|candidate: &Candidate| (candidate.slot, candidate.name.as_str())).collect();
    assert_eq!(slots, [(1, "plain"), (3, "opt0_alloc")]);
}

/// A declaration that is refused: its kind, what it says beside `name` and `path`, and the lines of the refusal.
struct Bad {
    kind: RefusalKind,
    name: &'static str,
    more: String,
    lines: String,
}

/// One declaration for each kind of refusal that a configuration can meet.
fn all_kinds(modules: &Modules) -> Vec<Bad> {
    let mut all = Vec::new();
    let mut bad = |kind: RefusalKind, name: &'static str, bytes: &[u8], more: &str, lines: &str| {
        modules.file(&format!("bad_{}.so", kind.name()), bytes);
        all.push(Bad { kind, name, more: more.to_owned(), lines: lines.to_owned() });
    };
    let built = |name| fs::read(build::module(name)).unwrap();
    let (host, module) = (host_line(), module_line());
    // Copies of `plain` that get as far as the check of the order.
    let in_order = "ignore_order = [\"ssi\"]\n";
    let lines = "  found   a file that does not start as an ELF file does\n  fix     name the .so file of a module";
    bad(RefusalKind::NotElf, "plain", b"#!/bin/sh\n", "", lines);
    let (mut other, mut object) = (plain(), plain());
    (other[18], object[16]) = (183, 1);
    let lines = format!(
        "  host    x86_64, 64 bits, little endian\n  module  aarch64, 64 bits, little endian\n  fix     build it for {TARGET}"
    );
    if cfg!(target_arch = "x86_64") {
        bad(RefusalKind::Architecture, "plain", &other, "", &lines);
    }
    let lines = "  found   an object file\n  fix     name a shared library: crate-type = [\"cdylib\"] in Cargo.toml";
    bad(RefusalKind::NotShared, "plain", &object, "", lines);
    let lines = "  found   a shared library without the section .topnext
  fix     name a module, which export_module! makes of a cdylib; strip may remove symbols, not sections";
    bad(RefusalKind::NoDescription, "plain", &patched(plain(), b".topnext\0", b".topless\0"), "", lines);
    let lines = "  found   2 sections .topnext, where one is expected
  fix     link one module into a file: a module must not depend on another one's crate";
    bad(RefusalKind::SeveralDescriptions, "plain", &with_two_descriptions(), "", lines);
    let lines = "  host    descriptions of format 1\n  module  a description of format 2
  fix     rebuild it against the module-api of this topnext, or upgrade topnext";
    bad(RefusalKind::Format, "plain", &described(&[("format = 1", "format = 2")]), "", lines);
    let lines = "  found   version = \"0.1.x\", which is no version: unexpected character 'x' while parsing patch version number
  fix     build it again with an unaltered module-api";
    let bytes = described(&[("version = \"0.1.0\"", "version = \"0.1.x\"")]);
    bad(RefusalKind::BadDescription, "plain", &bytes, "", lines);
    let lines = format!(
        "{host}  module  module-api 9.0.0 (abi {ABI_EPOCH}), built by {RUSTC}
  fix     rebuild it against module-api 1.x, or upgrade topnext"
    );
    let bytes = described(&[(&format!("api = \"{API_VERSION}\""), "api = \"9.0.0\"")]);
    bad(RefusalKind::Major, "plain", &bytes, "", &lines);
    let lines = format!(
        "{host}  module  module-api {API_VERSION} (abi 0), built by {RUSTC}
  fix     rebuild it against the module-api of this topnext"
    );
    let bytes = described(&[(&format!("epoch = {ABI_EPOCH}"), "epoch = 0")]);
    bad(RefusalKind::Epoch, "plain", &bytes, "", &lines);
    let lines = format!("  host    {TARGET}\n  module  sparc-sun-solaris\n  fix     build it with --target {TARGET}");
    let bytes = described(&[(&format!("target = \"{TARGET}\""), "target = \"sparc-sun-solaris\"")]);
    bad(RefusalKind::Target, "plain", &bytes, "", &lines);
    let lines = "  host    panic = \"unwind\": a panic costs one request\n  module  panic = \"abort\"
  fix     remove panic = \"abort\" from its profile in Cargo.toml, and from RUSTFLAGS";
    bad(RefusalKind::PanicStrategy, "abort", &built("abort"), "", lines);
    let lines = "  wanted  name = \"gzip\"\n  module  name = \"plain\"
  fix     write name = \"plain\"";
    bad(RefusalKind::Name, "gzip", &plain(), "", lines);
    let lines = "  wanted  version = \"^1.2\"\n  module  version 0.1.0
  fix     install a version that fits, or change the requirement";
    bad(RefusalKind::Version, "plain", &plain(), "version = \"1.2\"\n", lines);
    let sha256 = hex(&Description::read(&build::module("plain")).unwrap().sha256().unwrap());
    let lines = format!(
        "  wanted  sha256 = \"{}\"\n  module  sha256 = \"{sha256}\"
  fix     install the pinned file, or, if this one is meant, change the pin",
        "ab".repeat(32)
    );
    bad(RefusalKind::Sha256, "plain", &plain(), &format!("sha256 = \"{}\"\n", "ab".repeat(32)), &lines);
    let lines = "  error   dlopen failed: libgcc_x.so.1: cannot open shared object file: No such file or directory
  fix     install the libraries that it needs (ldd shows them), or build it for this system";
    bad(RefusalKind::Open, "plain", &patched(plain(), b"libgcc_s.so.1\0", b"libgcc_x.so.1\0"), in_order, lines);
    let (symbol, hidden) = (b"_1as_0lib_1header_0root_bmodule_bloader\0", b"_1as_0lib_1header_0root_bmodule_bhidden\0");
    let lines = "  host    abi_stable 0.11\n  module  no symbol of abi_stable
  fix     keep the symbols that export_module! makes: strip none of them";
    bad(RefusalKind::AbiHeader, "plain", &patched(plain(), symbol, hidden), in_order, lines);
    let sides = if cfg!(feature = "next-minor") { "module u64, host u32" } else { "host u32, module u64" };
    let lines = format!(
        "{host}{module}  found   abi_epoch: Name({sides})\n  fix     rebuild it against the module-api of this topnext"
    );
    bad(RefusalKind::Layout, "other_layout", &built("other_layout"), "", &lines);
    let lines = format!(
        "{host}{module}  found   its code is plain 0.1.0 (abi {ABI_EPOCH}), not plain 0.1.9 (abi {ABI_EPOCH})
  fix     rebuild it against the module-api of this topnext"
    );
    let bytes = described(&[("version = \"0.1.0\"", "version = \"0.1.9\"")]);
    bad(RefusalKind::Root, "plain", &bytes, in_order, &lines);
    let lines = "  module  init_error 0.1.0\n  error   no licence for this machine
  fix     remedy what the module names, or remove its declaration";
    bad(RefusalKind::Init, "init_error", &built("init_error"), "", lines);
    let lines = "  module  init_panic 0.1.0\n  panic   the state is broken, at src/lib.rs:16
  fix     report it to the module's author, or remove its declaration";
    bad(RefusalKind::InitPanic, "init_panic", &built("init_panic"), "", lines);
    all
}

/// `topnext -t` in the folder of the modules, with this configuration: what it says, with the folder's name replaced.
fn tested(modules: &Modules, config: &str) -> (Option<i32>, String) {
    modules.file("plugins.toml", config.as_bytes());
    let mut command = Command::new(env!("CARGO_BIN_EXE_topnext"));
    command.env("TOPNEXT_TEST_LOADED", "1");
    let output = command.arg("-t").current_dir(&modules.0).output().unwrap();
    let folder = modules.0.canonicalize().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).replace(folder.to_str().unwrap(), "DIR"))
}

/// `topnext -t` says in one report all that is wrong with the modules, and with the rest of the file.
#[test]
fn the_server_reports_every_kind_at_once() {
    let modules = Modules::new("server");
    let mut kinds: Vec<RefusalKind> = Vec::new();
    let mut config = format!("module_path = [{:?}]\n", modules.0.canonicalize().unwrap());
    let mut wanted: Vec<String> = Vec::new();
    let declare = |config: &mut String, declaration: &str| {
        let line = config.lines().count() + 1;
        *config += &format!("[[module]]\n{declaration}");
        line
    };
    for bad in all_kinds(&modules) {
        let alias = format!("bad_{}", bad.kind.name());
        let (name, more) = (bad.name, &bad.more);
        let line = declare(&mut config, &format!("name = {name:?}\nas = {alias:?}\npath = \"{alias}.so\"\n{more}"));
        let headline = bad.kind.headline();
        wanted.push(format!(
            "plugins.toml:{line}:1: module {alias:?}: {headline}\n  file    DIR/{alias}.so\n{}\n",
            bad.lines
        ));
        kinds.push(bad.kind);
    }

    // A good one; its file a second time; none; one that cannot be read; two in the wrong order.
    modules.copy("plain");
    let first = declare(&mut config, "name = \"plain\"\nignore_order = [\"gizp\"]\n");
    wanted.push(format!(
        "plugins.toml:{first}:1: module \"plain\": ignore_order names an unknown module
  found   ignore_order has \"gizp\", and no module of that name is declared
  fix     remove \"gizp\" from ignore_order, or declare the module\n"
    ));
    let line = declare(&mut config, "name = \"plain\"\nas = \"other\"\npath = \"libplain.so\"\n");
    wanted.push(format!(
        "plugins.toml:{line}:1: module \"other\": its file is loaded already, under another name
  file    DIR/libplain.so
  first   plain (DIR/libplain.so), declared at plugins.toml:{first}:1
  fix     copy the file, for example to DIR/libother.so, and set path to the copy\n"
    ));
    let line = declare(&mut config, "name = \"palin\"\n");
    wanted.push(format!(
        "plugins.toml:{line}:1: module \"palin\": there is no such file
  looked  DIR/libpalin.so
          DIR/libtopnext_palin.so
  near    plain (DIR/libplain.so)
  fix     write name = \"plain\", or say where palin is with path or module_path\n"
    ));
    // A file with a hole: it takes no room.
    let large = fs::File::create(modules.0.join("large.so")).unwrap();
    large.set_len(513 << 20).unwrap();
    let line = declare(&mut config, "name = \"plain\"\nas = \"large\"\npath = \"large.so\"\n");
    wanted.push(format!(
        "plugins.toml:{line}:1: module \"large\": its file cannot be read
  file    DIR/large.so
  found   a file of 537919488 bytes
  fix     make it a file that this user may read, of at most 512 MiB\n"
    ));
    modules.file("libssi.so", &described(&[("name = \"plain\"", "name = \"ssi\""), ("\"gzip\"", "\"x\"")]));
    let line = declare(&mut config, "name = \"ssi\"\n");
    wanted.push(format!(
        "plugins.toml:{first}:1: module \"plain\": it stands in the wrong order
  chain   top -> bad_open -> bad_abi_header -> bad_layout -> bad_root -> bad_init -> bad_init_panic
          -> [plain] -> [ssi] -> write
  rule    plain says after = [\"ssi\"]: a response must meet ssi before plain
  fix     move plain (plugins.toml:{first}:1) behind ssi (plugins.toml:{line}:1), or write ignore_order = [\"ssi\"] at plain\n"
    ));
    // Its name was changed in the description only.
    wanted.push(format!("plugins.toml:{line}:1: module \"ssi\": its code does not fit its description\n"));
    use RefusalKind::{Changed, IgnoreOrder, NotFound, NotReadable, Order, SameFileTwice};
    // `Changed` takes a file that changes within the run; it has a test of its own.
    kinds.extend([IgnoreOrder, SameFileTwice, NotFound, NotReadable, Order, Changed]);
    let missing: Vec<&RefusalKind> = RefusalKind::ALL.iter().filter(|kind| !kinds.contains(kind)).collect();
    assert!(missing.is_empty() || !cfg!(target_arch = "x86_64"), "no module is refused as {missing:?}");

    // And what is wrong beside the modules.
    let line = config.lines().count() + 2;
    config += "[[http.server]]\nlisen = [\"127.0.0.1:8080\"]\n";
    wanted.push(format!("plugins.toml:{line}:1: http.server.lisen: unknown key; did you mean \"listen\"?"));

    let (code, text) = tested(&modules, &config);
    assert_eq!(code, Some(1), "{text}");
    for wanted in &wanted {
        assert!(text.contains(wanted.as_str()), "{wanted}\nis not in\n{text}");
    }
    let errors = text.lines().filter(|line| line.starts_with("plugins.toml:")).count();
    assert_eq!(errors, wanted.len(), "one for each:\n{text}");
    assert!(text.ends_with("\ntopnext: configuration file plugins.toml test failed\n"), "{text}");
}

/// A schema that the server does not understand is found in the file: no code of the module runs, not even that which the
/// dynamic linker would run.
#[test]
fn a_module_with_a_bad_schema_is_not_loaded() {
    let modules = Modules::new("schema");
    modules.copy("opt0_alloc");
    let config = "module_path = [\".\"]\n\n[[module]]\nname = \"opt0_alloc\"\n\n[[http.server]]\nlisten = [\"127.0.0.1:8080\"]\n";
    let (code, text) = tested(&modules, config);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("opt0_alloc is loaded\n"), "{text}");

    let bytes = with_description("opt0_alloc", &[("string = ", "strung = ")]);
    modules.file("libopt0_alloc.so", &bytes);
    let (code, text) = tested(&modules, config);
    assert_eq!(code, Some(1), "{text}");
    assert_eq!(
        text,
        "plugins.toml:3:1: module \"opt0_alloc\": its description cannot be understood
  file    DIR/libopt0_alloc.so
  found   config: texts: type \"strung\" is not known to this server
  fix     if the module is newer than this server, upgrade topnext; else rebuild it with a current module-api
topnext: configuration file plugins.toml test failed\n"
    );
}

/// What a module says about its own table has the place of the key that it is about.
#[test]
fn a_table_that_a_module_rejects_has_a_line() {
    let modules = Modules::new("rejected");
    modules.copy("rejects");
    let config = "module_path = [\".\"]\n\n[[module]]\nname = \"rejects\"\n\n[[http.server]]\nlisten = [\"127.0.0.1:8080\"]\n\
                  rejects = { even = 2 }\n\n[[http.server.location]]\npath = \"/a\"\n  rejects.even = 3\n\n\
                  [[http.server.location]]\npath = \"/b\"\nrejects = { even = 4, texts = [\"a\", \"\"], panic = true }\n\n\
                  [[http.server.location]]\npath = \"/c\"\nrejects = { even = 6, texts = [\"a\", \"\"] }\n";
    let (code, text) = tested(&modules, config);
    assert_eq!(code, Some(1), "{text}");
    let wanted = [
        "plugins.toml:12:18: http.server.location.rejects.even: found 3, expected an even number",
        "plugins.toml:16:11: http.server.location.rejects: the module panicked while it read this table; the log names the line",
        "plugins.toml:20:37: http.server.location.rejects.texts[1]: found an empty text",
    ];
    for wanted in wanted {
        assert!(text.lines().any(|line| line == wanted), "{wanted}\nis not in\n{text}");
    }
    let errors = text.lines().filter(|line| line.starts_with("plugins.toml:")).count();
    assert_eq!(errors, wanted.len(), "{text}");
}
