//! The module itself: its configuration at one place, its state in the worker, and how the host makes both.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use abi_stable::{
    StableAbi,
    std_types::{RResult, RString, RVec},
};

use crate::{
    config::{Config, ConfigError, ConfigErrors, ConfigValue, Value},
    host::{self, HostApiRef},
    panic::{self, enter},
    running::Hook,
};

/// A module as it is configured at one place: a location, or an upstream for a balancer.
///
/// A struct that derives [`Config`] is one already. A module that prepares something from its configuration (compiles,
/// looks up, allocates) implements this for another struct.
pub trait Module: Sized + Send + Sync + 'static {
    /// What the operator writes.
    type Config: Config;

    /// Prepares it for use, or says what is wrong with it. Once per location, while the configuration is read; blocking
    /// is allowed here.
    fn new(config: Self::Config, setup: &Setup<'_>) -> Result<Self, ConfigErrors>;
}

impl<T: Config> Module for T {
    type Config = T;

    fn new(config: T, _: &Setup<'_>) -> Result<T, ConfigErrors> {
        Ok(config)
    }
}

/// What a module keeps in a worker process, shared by all its threads and locations.
pub trait State: Sized + Send + Sync + 'static {
    /// Once per worker, when the module is loaded. An error refuses the module, with this text.
    fn create() -> Result<Self, String>;
}

/// A module without state.
impl State for () {
    fn create() -> Result<(), String> {
        Ok(())
    }
}

/// What a module can ask for while it is configured.
pub struct Setup<'a> {
    state: &'a Arc<dyn Any + Send + Sync>,
}

impl Setup<'_> {
    /// The module's state: the type that `export_module!` names.
    ///
    /// # Panics
    /// If it is another type, which is a fault of the module.
    pub fn state<S: State>(&self) -> Arc<S> {
        self.state.clone().downcast::<S>().expect("the state's type is the one in export_module!")
    }

    /// For unit tests, which make the state themselves.
    #[cfg(feature = "testing")]
    pub fn with_state<T>(state: Arc<dyn Any + Send + Sync>, run: impl FnOnce(&Setup<'_>) -> T) -> T {
        run(&Setup { state: &state })
    }
}

impl fmt::Debug for Setup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Setup")
    }
}

/// The slot that the host gave this image; 0 before it is loaded.
static SLOT: AtomicU32 = AtomicU32::new(0);

/// This image's slot.
pub(crate) fn slot() -> u32 {
    SLOT.load(Ordering::Relaxed)
}

/// The module's half of a loaded module: its state.
struct Instance {
    state: Arc<dyn Any + Send + Sync>,
}

/// An instance in the ABI; null never.
pub type RawInstance = *mut ();

/// A configuration in the ABI: the Module, and whether it acts.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct Configured {
    /// What links carry as `data`.
    pub data: *const (),
    /// The value of the key `enabled`, or true.
    pub enabled: bool,
    /// For later; 0.
    pub reserved: [u64; 2],
}

/// Sets this image up and makes the module's state. The first call into a module.
///
/// # Safety
/// The functions of `host` do what their docs say.
pub(crate) unsafe extern "C" fn init<S: State>(host: HostApiRef, module: u32) -> RResult<RawInstance, RString> {
    // SAFETY: the caller's promise.
    unsafe { host::set(host) };
    SLOT.store(module, Ordering::Relaxed);
    panic::install_hook(host::cell);
    // SAFETY: callable on any thread.
    let cell = unsafe { host.cell()() };
    match enter(cell, module, Hook::INIT, S::create) {
        Ok(Ok(state)) => {
            let instance = Box::new(Instance { state: Arc::new(state) });
            RResult::ROk(Box::into_raw(instance).cast())
        }
        Ok(Err(message)) => RResult::RErr(message.into()),
        Err(panic::Panicked) => RResult::RErr(RString::from("panicked")),
    }
}

/// Drops the state, when the worker ends in good order.
pub(crate) unsafe extern "C" fn fini(module: u32, instance: RawInstance) {
    // SAFETY: made by `init`, and given up by the host, which calls this once.
    let release = || drop(unsafe { Box::from_raw(instance.cast::<Instance>()) });
    if let Some(cell) = host::cell() {
        let _ = enter(cell, module, Hook::RELEASE, release);
    }
}

/// Makes the configuration for one place from the merged table.
pub(crate) unsafe extern "C" fn configure<M: Module>(
    module: u32,
    instance: RawInstance,
    table: Value,
) -> RResult<Configured, RVec<ConfigError>> {
    let make = || {
        // SAFETY: made by `init`, and alive until `fini`.
        let instance = unsafe { &*instance.cast::<Instance>() };
        let mut errors = ConfigErrors::new();
        let config = <ConfigTable<M::Config>>::from_value(table, &mut errors);
        let Some(ConfigTable(config)) = config.filter(|_| errors.is_empty()) else { return Err(errors) };
        let enabled = config.enabled();
        if !enabled {
            return Ok(Configured { data: std::ptr::null(), enabled, reserved: [0; 2] });
        }
        let made = M::new(config, &Setup { state: &instance.state })?;
        Ok(Configured { data: Box::into_raw(Box::new(made)).cast_const().cast(), enabled, reserved: [0; 2] })
    };
    let Some(cell) = host::cell() else { return RResult::RErr(RVec::new()) };
    match enter(cell, module, Hook::CONFIGURE, make) {
        Ok(Ok(configured)) => RResult::ROk(configured),
        Ok(Err(errors)) => RResult::RErr(errors.into_vec()),
        Err(panic::Panicked) => {
            let message = "the module panicked while it read this table; the log names the line".to_string();
            RResult::RErr(ConfigErrors::from(message).into_vec())
        }
    }
}

/// The table as a whole.
struct ConfigTable<C>(C);

impl<C: Config> ConfigValue for ConfigTable<C> {
    const TYPE: &'static crate::config::Type = &crate::config::Type::Table(C::FIELDS);

    fn from_value(value: Value, errors: &mut ConfigErrors) -> Option<Self> {
        crate::config::table_from_value::<C>(value, errors).map(ConfigTable)
    }
}

/// Drops a configuration, when no request uses it any more.
pub(crate) unsafe extern "C" fn release<M: Module>(module: u32, data: *const ()) {
    if data.is_null() {
        return;
    }
    // SAFETY: made by `configure`, and given up by the host, which calls this once.
    let release = || drop(unsafe { Box::from_raw(data.cast_mut().cast::<M>()) });
    if let Some(cell) = host::cell() {
        let _ = enter(cell, module, Hook::RELEASE, release);
    }
}
