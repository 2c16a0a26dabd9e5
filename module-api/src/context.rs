//! Per-request contexts: what a module remembers of a request between its hooks.

use std::{
    any::TypeId,
    fmt,
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

use abi_stable::StableAbi;

#[cfg(feature = "testing")]
use crate::testing::{Counted, Kind};
use crate::{
    host::{self, HostData, RequestApiRef},
    panic,
    running::Hook,
};

/// A context in the ABI: a pointer that only the module looks into, and how to drop it.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawContext {
    /// Null if there is none, or if it is checked out.
    pub ptr: *mut (),
    /// Drops it; never panics.
    pub drop: Option<unsafe extern "C" fn(ptr: *mut ())>,
}

impl RawContext {
    /// No context.
    pub const NONE: RawContext = RawContext { ptr: std::ptr::null_mut(), drop: None };
}

#[repr(C)]
struct Boxed<T> {
    /// First, so that it can be read whatever T is.
    type_id: TypeId,
    #[cfg(feature = "testing")]
    _counted: Counted,
    value: T,
}

unsafe extern "C" fn drop_boxed<T>(ptr: *mut ()) {
    // SAFETY: `ptr` came from Box::into_raw of this type, and the host drops it once.
    let release = || drop(unsafe { Box::from_raw(ptr.cast::<Boxed<T>>()) });
    match host::cell() {
        Some(cell) => {
            let _ = panic::enter(cell, crate::module::slot(), Hook::CONTEXT_DROP, release);
        }
        None => release(),
    }
}

/// The module's context of this request, checked out of the host while this value lives.
///
/// It goes back by drop, also while a panic unwinds. While it is out, [`crate::Request::context`] answers `None`.
pub struct Context<'h, T: 'static> {
    boxed: Option<Box<Boxed<T>>>,
    r: HostData,
    api: RequestApiRef,
    module: u32,
    hook: std::marker::PhantomData<&'h ()>,
}

impl<'h, T: 'static> Context<'h, T> {
    #[track_caller]
    pub(crate) fn take(r: HostData, api: RequestApiRef, module: u32) -> Option<Context<'h, T>> {
        // SAFETY: `r` is valid during the hook.
        let raw = unsafe { api.take_context()(r, module) };
        let ptr = NonNull::new(raw.ptr)?;
        // SAFETY: the host gives back only what this module put there: a Boxed of some T, whose first field is this.
        let found = unsafe { *ptr.cast::<TypeId>().as_ref() };
        if found != TypeId::of::<T>() {
            // SAFETY: goes back unchanged.
            unsafe { api.put_context()(r, module, raw) };
            panic!("the context of this request is not a {}", std::any::type_name::<T>());
        }
        // SAFETY: the type was checked, and the host gave ownership away.
        let boxed = unsafe { Box::from_raw(ptr.as_ptr().cast::<Boxed<T>>()) };
        Some(Context { boxed: Some(boxed), r, api, module, hook: std::marker::PhantomData })
    }

    pub(crate) fn new(r: HostData, api: RequestApiRef, module: u32, value: T) -> Context<'h, T> {
        let boxed = Box::new(Boxed {
            type_id: TypeId::of::<T>(),
            #[cfg(feature = "testing")]
            _counted: Counted::new(Kind::Context),
            value,
        });
        Context { boxed: Some(boxed), r, api, module, hook: std::marker::PhantomData }
    }

    /// Takes the value for good; the request has no context of this module any more.
    pub fn remove(mut self) -> T {
        let boxed = self.boxed.take().expect("present until the value is dropped");
        boxed.value
    }
}

/// Drops the module's context of this request, of whatever type, if there is one.
pub(crate) fn discard(r: HostData, api: RequestApiRef, module: u32) {
    // SAFETY: `r` is valid during the hook.
    let raw = unsafe { api.take_context()(r, module) };
    if let (Some(drop), false) = (raw.drop, raw.ptr.is_null()) {
        // SAFETY: the host gave ownership away; the function belongs to the pointer, and guards itself.
        unsafe { drop(raw.ptr) }
    }
}

impl<T: 'static> Drop for Context<'_, T> {
    fn drop(&mut self) {
        if let Some(boxed) = self.boxed.take() {
            let raw = RawContext { ptr: Box::into_raw(boxed).cast(), drop: Some(drop_boxed::<T>) };
            // SAFETY: the lifetime 'h keeps this value within the hook, during which `r` is valid.
            unsafe { self.api.put_context()(self.r, self.module, raw) }
        }
    }
}

impl<T: 'static> Deref for Context<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.boxed.as_ref().expect("present until the value is dropped").value
    }
}

impl<T: 'static> DerefMut for Context<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.boxed.as_mut().expect("present until the value is dropped").value
    }
}

impl<T: fmt::Debug + 'static> fmt::Debug for Context<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
