//! A module whose root is the host's, but for a type deep below it: a link of the header filters has a slot of 64 bits. The
//! root leads there by the filter's hooks, and these by a parameter of a function. Its description is right, so only the
//! layout check can refuse it.

use abi_stable::{
    StableAbi,
    library::{CheckTypeLayout, LibHeader, RootModule, RootModuleResult},
    package_version_strings,
    prefix_type::PrefixTypeTrait,
    sabi_types::VersionStrings,
    std_types::{ROption, RResult, RStr, RString, RVec},
};
use real::{
    __rt::{Description, Provides},
    Chain, Code, Request,
    balancer::BalancerHooksRef,
    config::{ConfigError, Value},
    filter::BodyLink,
    handler::HandlerHooksRef,
    host::HostApiRef,
    module::{Configured, RawInstance},
    running::Hook,
    upstream::UpstreamHooksRef,
    variables::VariableHooksRef,
};

/// module-api's, but for the type of `module`.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct HeaderLink {
    pub call: unsafe extern "C" fn(link: &HeaderLink, r: &mut Request<'_>) -> Code,
    pub data: *const (),
    pub next: *const HeaderLink,
    pub module: i32,
    pub hook: Hook,
    pub reserved: [usize; 2],
}

/// module-api's, with that link.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = FilterHooksRef, prefix_fields = FilterHooksPrefix)))]
#[sabi(missing_field(option))]
pub struct FilterHooks {
    pub header: unsafe extern "C" fn(link: &HeaderLink, r: &mut Request<'_>) -> Code,
    pub body: unsafe extern "C" fn(link: &BodyLink, r: &mut Request<'_>, chain: Chain) -> Code,
    #[sabi(last_prefix_field)]
    pub has_body: bool,
}

/// module-api's root, with these hooks.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ModuleRootRef, prefix_fields = ModuleRootPrefix)))]
#[sabi(missing_field(option))]
pub struct ModuleRoot {
    pub name: RStr<'static>,
    pub version: RStr<'static>,
    pub api_version: RStr<'static>,
    pub abi_epoch: u32,
    pub unwinds: bool,
    pub init: unsafe extern "C" fn(host: HostApiRef, module: u32) -> RResult<RawInstance, RString>,
    pub fini: unsafe extern "C" fn(module: u32, instance: RawInstance),
    pub configure: unsafe extern "C" fn(
        module: u32,
        instance: RawInstance,
        table: Value,
    ) -> RResult<Configured, RVec<ConfigError>>,
    pub release: unsafe extern "C" fn(module: u32, data: *const ()),
    pub filter: ROption<FilterHooksRef>,
    pub phases: ROption<HandlerHooksRef>,
    pub content: ROption<HandlerHooksRef>,
    pub upstream: ROption<UpstreamHooksRef>,
    pub balancer: ROption<BalancerHooksRef>,
    #[sabi(last_prefix_field)]
    pub variables: ROption<VariableHooksRef>,
}

impl RootModule for ModuleRootRef {
    abi_stable::declare_root_module_statics! {ModuleRootRef}
    const BASE_NAME: &'static str = "topnext_module";
    const NAME: &'static str = "topnext module";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

const DESCRIPTION: Description = Description {
    name: "other_nested",
    version: "0.1.0",
    about: "A module of which a type below the root has another layout",
    panic: "unwind",
    always: false,
    inherit: true,
    after: &[],
    before: &[],
    provides: Provides { filter: true, ..Provides::NONE },
    config: &[],
};

/// The description, where the host looks for it.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".topnext")]
#[used]
pub static TOPNEXT_DESCRIPTION: [u8; DESCRIPTION.len()] = DESCRIPTION.render();

unsafe extern "C" fn init(_: HostApiRef, _: u32) -> RResult<RawInstance, RString> {
    RResult::RErr(RString::from("a module of another layout was started"))
}

unsafe extern "C" fn fini(_: u32, _: RawInstance) {}

unsafe extern "C" fn configure(_: u32, _: RawInstance, _: Value) -> RResult<Configured, RVec<ConfigError>> {
    RResult::RErr(RVec::new())
}

unsafe extern "C" fn release(_: u32, _: *const ()) {}

fn root() -> ModuleRootRef {
    ModuleRoot {
        name: RStr::from_str("other_nested"),
        version: RStr::from_str("0.1.0"),
        api_version: RStr::from_str(real::API_VERSION),
        abi_epoch: real::ABI_EPOCH,
        unwinds: true,
        init,
        fini,
        configure,
        release,
        filter: ROption::RNone,
        phases: ROption::RNone,
        content: ROption::RNone,
        upstream: ROption::RNone,
        balancer: ROption::RNone,
        variables: ROption::RNone,
    }
    .leak_into_prefix()
}

extern "C" fn loader() -> RootModuleResult {
    real::__rt::__call_root_module_loader(root)
}

/// The header that abi_stable looks up.
// SAFETY: the loader returns a ModuleRootRef, whose layout the header carries.
#[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
pub static TOPNEXT_ROOT: LibHeader =
    unsafe { LibHeader::from_constructor::<ModuleRootRef>(loader, CheckTypeLayout::Yes) };
