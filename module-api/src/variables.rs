//! Variables that a module provides.

use abi_stable::{
    StableAbi,
    std_types::{ROption, RSlice, RStr, RVec},
};

use crate::{Request, module::Module, panic::enter, running::Hook};

/// Variables of a module: usable as `$name` wherever the configuration takes variables.
pub trait Variables: Module {
    /// Their names, without `$`.
    const NAMES: &'static [&'static str];

    /// Those of `NAMES` that change while a request runs, and are evaluated whenever they are used (nginx:
    /// NGX_HTTP_VAR_NOCACHEABLE). All others are evaluated once for each request, when they are first used.
    const NOCACHEABLE: &'static [&'static str] = &[];

    /// The value of `NAMES[index]` for this request; `None` if it has none.
    fn variable(r: &mut Request<'_>, index: usize) -> Option<Vec<u8>>;
}

/// The variable hooks of a module.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = VariableHooksRef, prefix_fields = VariableHooksPrefix)))]
#[sabi(missing_field(option))]
pub struct VariableHooks {
    /// The value of the variable number `index`.
    pub get: unsafe extern "C" fn(module: u32, r: &mut Request<'_>, index: u32) -> ROption<RVec<u8>>,
    /// Whether the variable number `index` is evaluated once for each request.
    pub cacheable: unsafe extern "C" fn(index: u32) -> bool,
    /// The names.
    #[sabi(last_prefix_field)]
    pub names: unsafe extern "C" fn() -> RSlice<'static, RStr<'static>>,
}

impl VariableHooks {
    /// The hooks of a provider.
    pub const fn of<V: Variables>() -> VariableHooks {
        VariableHooks { get: get::<V>, cacheable: cacheable::<V>, names: names::<V> }
    }
}

unsafe extern "C" fn get<V: Variables>(module: u32, r: &mut Request<'_>, index: u32) -> ROption<RVec<u8>> {
    let cell = r.cell();
    let run = || V::variable(r, index as usize).map(RVec::from).into();
    enter(cell, module, Hook::VARIABLE, run).unwrap_or(ROption::RNone)
}

unsafe extern "C" fn cacheable<V: Variables>(index: u32) -> bool {
    V::NAMES.get(index as usize).is_some_and(|name| !V::NOCACHEABLE.contains(name))
}

unsafe extern "C" fn names<V: Variables>() -> RSlice<'static, RStr<'static>> {
    let names: Vec<RStr<'static>> = V::NAMES.iter().map(|name| RStr::from_str(name)).collect();
    // Asked once per load of the module, and needed as long as the process.
    RSlice::from_slice(Vec::leak(names))
}
