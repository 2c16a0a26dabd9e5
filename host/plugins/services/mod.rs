//! The host's services: the functions that modules call. `unsafe` meets safe Rust here: pointers become references, and
//! borrowed bytes become slices that live as long as the request.
//!
//! Each function is guarded: a panic of the host does not cross into a module; it fails the request.

#![allow(unsafe_code)]

pub mod bufs;

pub mod main;

pub mod requests;

pub mod selections;

use std::panic::{AssertUnwindSafe, catch_unwind};

use abi_stable::std_types::RSlice;
use topnext_module_api::{context::RawContext, running::Running};

use super::running;
use crate::{log::error::Level, log_line};

/// Runs host code that runs no code of modules: the cell need not say that the host is running.
#[inline]
pub(super) fn quick<T>(default: T, run: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => value,
        Err(payload) => {
            note_panic(payload);
            default
        }
    }
}

/// Runs host code for a module. `default` is what the module gets if the host panics.
pub(super) fn guarded<T>(default: T, run: impl FnOnce() -> T) -> T {
    running::as_host(|| match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => value,
        Err(payload) => {
            note_panic(payload);
            default
        }
    })
}

#[cold]
fn note_panic(payload: Box<dyn std::any::Any + Send>) {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text.to_string(),
        (_, Some(text)) => text.clone(),
        _ => "(no text)".to_string(),
    };
    std::mem::forget(payload);
    // At the end of a thread even this may panic; nothing may leave here, for the caller is a module.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        running::count_panic(Running::HOST, "the host panicked".to_string());
        log_line!(Level::Alert, "the host panicked in a service that a module called, please report this: {text}");
    }));
}

/// Bytes of a request's head, pool or configuration, as a module gets them.
///
/// # Safety
/// The bytes stay where they are until the running hook returns. So do those in a request's head, which is not changed
/// once it is read, in its pool, which never moves or frees a string before the request ends, and in the configuration,
/// which the request holds.
unsafe fn lasting(bytes: &[u8]) -> RSlice<'static, u8> {
    // SAFETY: the caller's promise; modules get them with the lifetime of the hook.
    RSlice::from_slice(unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) })
}

/// Drops a context that has been taken out of its request.
pub fn drop_context(context: RawContext) {
    if let (Some(drop), false) = (context.drop, context.ptr.is_null()) {
        // SAFETY: the pointer was put there together with this function, and is dropped once. It guards itself.
        unsafe { drop(context.ptr) }
    }
}
