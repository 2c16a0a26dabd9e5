//! The root module: what the host finds behind the symbol that abi_stable looks up, and the macro that puts it there.

use abi_stable::{
    StableAbi,
    library::RootModule,
    sabi_types::VersionStrings,
    std_types::{ROption, RResult, RStr, RString, RVec},
};

use crate::{
    balancer::BalancerHooksRef,
    config::{ConfigError, Value},
    filter::FilterHooksRef,
    handler::HandlerHooksRef,
    host::HostApiRef,
    module::{Configured, RawInstance},
    upstream::UpstreamHooksRef,
    variables::VariableHooksRef,
};

/// The table of a module. All functions are guarded: a panic does not leave the module.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ModuleRootRef, prefix_fields = ModuleRootPrefix)))]
#[sabi(missing_field(option))]
pub struct ModuleRoot {
    /// The name in `export_module!`.
    pub name: RStr<'static>,
    /// The crate's version.
    pub version: RStr<'static>,
    /// The version of module-api it was built with.
    pub api_version: RStr<'static>,
    /// The ABI epoch it was built with.
    pub abi_epoch: u32,
    /// Whether its panics unwind; if not it is refused.
    pub unwinds: bool,
    /// The first call: sets the image up for this slot, and makes the state. An error refuses the module.
    pub init: unsafe extern "C" fn(host: HostApiRef, module: u32) -> RResult<RawInstance, RString>,
    /// The last call: drops the state.
    pub fini: unsafe extern "C" fn(module: u32, instance: RawInstance),
    /// Makes the configuration of one place from the merged table.
    pub configure: unsafe extern "C" fn(
        module: u32,
        instance: RawInstance,
        table: Value,
    ) -> RResult<Configured, RVec<ConfigError>>,
    /// Drops a configuration.
    pub release: unsafe extern "C" fn(module: u32, data: *const ()),
    /// Filter hooks.
    pub filter: ROption<FilterHooksRef>,
    /// Phase handler hooks.
    pub phases: ROption<HandlerHooksRef>,
    /// Content handler hooks.
    pub content: ROption<HandlerHooksRef>,
    /// Upstream hooks.
    pub upstream: ROption<UpstreamHooksRef>,
    /// Balancer hooks.
    pub balancer: ROption<BalancerHooksRef>,
    /// Variable hooks.
    #[sabi(last_prefix_field)]
    pub variables: ROption<VariableHooksRef>,
    /// Only for tests of both directions: what the next minor version might add.
    #[cfg(feature = "next-minor")]
    pub next_minor_question: u32,
}

impl RootModule for ModuleRootRef {
    abi_stable::declare_root_module_statics! {ModuleRootRef}
    const BASE_NAME: &'static str = "topnext_module";
    const NAME: &'static str = "topnext module";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new(crate::API_VERSION);
}

/// Makes a shared library a module.
///
/// ```ignore
/// export_module! {
///     name: "gzip",                    // crate topnext_gzip, file libtopnext_gzip.so, table [gzip]
///     module: Gzip,                    // implements Module (or derives Config)
///     provides: [filter, variables],   // any of filter, phases, content, upstream, balancer, variables
///     state: Shared,                   // optional: implements State
///     after: ["sub"],                  // optional: a response must meet these modules before this one
///     before: ["chunked"],             // optional: ... and these after it
///     always: true,                    // optional: active without configuration
///     inherit: false,                  // optional: its table holds where it stands, and not in locations inside
/// }
/// ```
#[macro_export]
macro_rules! export_module {
    (
        name: $name:literal,
        module: $module:ty,
        provides: [$($kind:ident),+ $(,)?]
        $(, state: $state:ty)?
        $(, after: [$($after:literal),* $(,)?])?
        $(, before: [$($before:literal),* $(,)?])?
        $(, always: $always:literal)?
        $(, inherit: $inherit:literal)?
        $(,)?
    ) => {
        const _: () = {
            use $crate::__rt as rt;

            $crate::__rt::check_name!($name);

            const DESCRIPTION: rt::Description = rt::Description {
                name: $name,
                version: env!("CARGO_PKG_VERSION"),
                about: env!("CARGO_PKG_DESCRIPTION"),
                panic: if cfg!(panic = "unwind") { "unwind" } else { "abort" },
                always: false $(|| $always)?,
                inherit: true $(&& $inherit)?,
                after: &[$($($after),*)?],
                before: &[$($($before),*)?],
                provides: {
                    let provides = rt::Provides::NONE;
                    $(let provides = rt::describe::$kind::<$module>(provides);)+
                    provides
                },
                config: <<$module as $crate::Module>::Config as $crate::config::Config>::FIELDS,
            };

            #[unsafe(no_mangle)]
            #[unsafe(link_section = ".topnext")]
            #[used]
            pub static TOPNEXT_DESCRIPTION: [u8; DESCRIPTION.len()] = DESCRIPTION.render();

            fn root() -> rt::ModuleRootRef {
                let mut root = rt::root::<$module, rt::state!($($state)?)>($name, env!("CARGO_PKG_VERSION"), cfg!(panic = "unwind"));
                $(rt::provide::$kind::<$module>(&mut root);)+
                rt::PrefixTypeTrait::leak_into_prefix(root)
            }

            extern "C" fn loader() -> rt::RootModuleResult {
                rt::__call_root_module_loader(root)
            }

            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            pub static TOPNEXT_ROOT: rt::LibHeader = rt::header(loader);
        };
    };
    ($($other:tt)*) => {
        ::core::compile_error!(concat!(
            "export_module! takes, in this order: name: \"...\", module: TYPE, provides: [filter | phases | content | ",
            "upstream | balancer | variables], and if wanted state: TYPE, after: [\"...\"], before: [\"...\"], always: true, inherit: false"
        ));
    };
}

/// What `export_module!` expands to; not for authors.
#[doc(hidden)]
pub mod __rt {
    pub use abi_stable::{
        library::{__call_root_module_loader, LibHeader, RootModuleResult},
        prefix_type::PrefixTypeTrait,
    };
    use abi_stable::{
        library::{CheckTypeLayout, ROOT_MODULE_LOADER_NAME},
        std_types::{ROption, RStr},
    };

    pub use super::{ModuleRoot, ModuleRootRef};
    pub use crate::description::{Description, Provides};
    pub use crate::{__check_name as check_name, __state as state};
    use crate::{
        ABI_EPOCH, API_VERSION,
        module::{self, Module, State},
    };

    /// The symbol in `export_module!` is the one that abi_stable looks up.
    const _: () = {
        let (ours, theirs) = (b"_1as_0lib_1header_0root_bmodule_bloader", ROOT_MODULE_LOADER_NAME.as_bytes());
        assert!(ours.len() == theirs.len());
        let mut i = 0;
        while i < ours.len() {
            assert!(ours[i] == theirs[i]);
            i += 1;
        }
    };

    /// The header that abi_stable looks up.
    pub const fn header(loader: extern "C" fn() -> RootModuleResult) -> LibHeader {
        // SAFETY: the loader returns a ModuleRootRef, whose layout the header carries.
        unsafe { LibHeader::from_constructor::<ModuleRootRef>(loader, CheckTypeLayout::Yes) }
    }

    /// A root that provides nothing yet.
    pub fn root<M: Module, S: State>(name: &'static str, version: &'static str, unwinds: bool) -> ModuleRoot {
        ModuleRoot {
            name: RStr::from_str(name),
            version: RStr::from_str(version),
            api_version: RStr::from_str(API_VERSION),
            abi_epoch: ABI_EPOCH,
            unwinds,
            init: module::init::<S>,
            fini: module::fini,
            configure: module::configure::<M>,
            release: module::release::<M>,
            filter: ROption::RNone,
            phases: ROption::RNone,
            content: ROption::RNone,
            upstream: ROption::RNone,
            balancer: ROption::RNone,
            variables: ROption::RNone,
            #[cfg(feature = "next-minor")]
            next_minor_question: 42,
        }
    }

    /// What each kind adds to the description.
    pub mod describe {
        use super::Provides;
        use crate::{Balancer, Content, Filter, PhaseHandler, Upstream, Variables};

        pub const fn filter<M: Filter>(provides: Provides) -> Provides {
            Provides { filter: true, ..provides }
        }
        pub const fn phases<M: PhaseHandler>(provides: Provides) -> Provides {
            Provides { phases: M::PHASES, ..provides }
        }
        pub const fn content<M: Content>(provides: Provides) -> Provides {
            Provides { content: true, ..provides }
        }
        pub const fn upstream<M: Upstream>(provides: Provides) -> Provides {
            Provides { upstream: true, ..provides }
        }
        pub const fn balancer<M: Balancer>(provides: Provides) -> Provides {
            Provides { balancer: true, server_parameters: M::SERVER_PARAMETERS, ..provides }
        }
        pub const fn variables<M: Variables>(provides: Provides) -> Provides {
            Provides { variables: M::NAMES, ..provides }
        }
    }

    /// What each kind adds to the root.
    pub mod provide {
        use super::{ModuleRoot, PrefixTypeTrait, ROption};
        use crate::{
            Balancer, Content, Filter, PhaseHandler, Upstream, Variables, balancer::BalancerHooks, filter::FilterHooks,
            handler::HandlerHooks, upstream::UpstreamHooks, variables::VariableHooks,
        };

        pub fn filter<M: Filter>(root: &mut ModuleRoot) {
            root.filter = ROption::RSome(FilterHooks::of::<M>().leak_into_prefix());
        }
        pub fn phases<M: PhaseHandler>(root: &mut ModuleRoot) {
            root.phases = ROption::RSome(HandlerHooks::of_phases::<M>().leak_into_prefix());
        }
        pub fn content<M: Content>(root: &mut ModuleRoot) {
            root.content = ROption::RSome(HandlerHooks::of_content::<M>().leak_into_prefix());
        }
        pub fn upstream<M: Upstream>(root: &mut ModuleRoot) {
            root.upstream = ROption::RSome(UpstreamHooks::of::<M>().leak_into_prefix());
        }
        pub fn balancer<M: Balancer>(root: &mut ModuleRoot) {
            root.balancer = ROption::RSome(BalancerHooks::of::<M>().leak_into_prefix());
        }
        pub fn variables<M: Variables>(root: &mut ModuleRoot) {
            root.variables = ROption::RSome(VariableHooks::of::<M>().leak_into_prefix());
        }
    }

    /// Whether the crate is named `topnext_NAME`.
    pub const fn is_crate_name(crate_name: &str, name: &str) -> bool {
        let (prefix, found, name) = (b"topnext_", crate_name.as_bytes(), name.as_bytes());
        if found.len() != prefix.len() + name.len() {
            return false;
        }
        let mut i = 0;
        while i < found.len() {
            let expected = if i < prefix.len() { prefix[i] } else { name[i - prefix.len()] };
            if found[i] != expected {
                return false;
            }
            i += 1;
        }
        true
    }
}

#[doc(hidden)]
#[macro_export]
macro_rules! __check_name {
    ($name:literal) => {
        const _: () = assert!(
            $crate::__rt::is_crate_name(env!("CARGO_CRATE_NAME"), $name),
            concat!("the crate of module \"", $name, "\" is named topnext_", $name)
        );
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __state {
    () => {
        ()
    };
    ($state:ty) => {
        $state
    };
}
