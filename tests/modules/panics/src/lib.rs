//! A filter, phase handler and variable that panic where a request asks for it: `?in=header_filter`.
//!
//! The place is the name of a hook, with what tells two calls of it apart:
//!
//! ```text
//! handler&phase=access      header_filter   after_header     body_filter   body_last   body_woken
//! variable                  context_drop    context_replaced nested        payload     unwinding
//! redirect                  (a context from before an internal redirect)
//! release_far               (a buf of another module, in a job of this one)
//! ```
//!
//! Two places do not panic, but call the host and are called by it without end: `in_itself`, a variable, and
//! `chain_anew`, a body filter.
//!
//! ```toml
//! panics = {}                     # or { release = true }: its configuration panics when it is dropped
//!                                 # or { state = true }: its state does
//! ```

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

use topnext_module_api::prelude::*;

/// The table `panics`.
#[derive(Config)]
pub struct Table {
    /// Whether the release of this configuration panics.
    #[config(default = false)]
    release: bool,
    /// Whether the drop of the module's state panics.
    #[config(default = false)]
    state: bool,
}

/// The module's state.
#[derive(Default)]
pub struct Shared {
    panics: AtomicBool,
}

impl State for Shared {
    fn create() -> Result<Shared, String> {
        Ok(Shared::default())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        assert!(!self.panics.load(Ordering::Relaxed), "asked for in state"); // in state
    }
}

/// The table, made ready.
pub struct Panics {
    release: bool,
}

export_module! {
    name: "panics",
    module: Panics,
    provides: [phases, filter, variables],
    state: Shared,
}

impl Module for Panics {
    type Config = Table;

    fn new(table: Table, setup: &Setup<'_>) -> Result<Panics, ConfigErrors> {
        setup.state::<Shared>().panics.fetch_or(table.state, Ordering::Relaxed);
        Ok(Panics { release: table.release })
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        assert!(!self.release, "asked for in release"); // in release
    }
}

/// Whether the request asks for a panic here.
fn asked(r: &Request<'_>, place: &str) -> bool {
    r.variable("arg_in") == Some(place.as_bytes())
}

/// Panics when it is dropped.
struct Grenade(&'static str);

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("asked for in {}", self.0); // in drop
    }
}

/// Memory whose release panics.
struct Memory(Vec<u8>, #[expect(dead_code, reason = "it is there to be dropped")] Grenade);

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// What the body filter keeps until it is woken.
struct Held(Chain);

impl PhaseHandler for Panics {
    const PHASES: &'static [Phase] = &[
        Phase::PostRead,
        Phase::ServerRewrite,
        Phase::Rewrite,
        Phase::Preaccess,
        Phase::Access,
        Phase::Precontent,
        Phase::Log,
    ];

    fn handler(&self, r: &mut Request<'_>, phase: Phase) -> Code {
        if asked(r, "handler") && r.variable("arg_phase") == Some(phase.name().as_bytes()) {
            panic!("asked for in handler"); // in handler
        }
        if asked(r, "redirect") && phase == Phase::Access {
            r.set_context(Grenade("context drop"));
        }
        Code::DECLINED
    }
}

impl Filter for Panics {
    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        if asked(r, "header_filter") {
            panic!("asked for in header_filter"); // in header_filter
        }
        if asked(r, "payload") {
            std::panic::panic_any(Grenade("the drop of a payload"));
        }
        if asked(r, "nested") {
            // What the module catches itself is its own affair.
            assert!(std::panic::catch_unwind(|| panic!("caught by the module")).is_err());
            let _first = r.set_context(1_u8);
            r.set_context(Grenade("context drop"));
            // Unwinding puts the first context back, in place of the second.
            panic!("asked for in header_filter"); // in nested
        }
        if asked(r, "context_drop") {
            r.set_context(Grenade("context drop"));
        }
        if asked(r, "context_replaced") {
            r.set_context(Grenade("context drop"));
            r.set_context(1_u8);
        }
        let code = next.call(r);
        if asked(r, "after_header") {
            panic!("asked for in header_filter"); // in after_header
        }
        code
    }

    fn body_filter(&self, r: &mut Request<'_>, mut chain: Chain, next: BodyNext<'_>) -> Code {
        if asked(r, "body_filter") {
            panic!("asked for in body_filter"); // in body_filter
        }
        if asked(r, "body_last") && chain.has_last() {
            panic!("asked for in body_filter"); // in body_last
        }
        if asked(r, "unwinding") {
            chain.push_front(Buf::from(Bytes::from_owner(Memory(vec![b'x'; 10], Grenade("buf release")))));
            panic!("asked for in body_filter"); // in unwinding
        }
        if asked(r, "body_woken") {
            if chain.is_empty() {
                let held = r.context::<Held>().map(|held| held.remove().0.len_bytes());
                panic!("asked for in body_filter, with {held:?} bytes"); // in body_woken
            }
            r.set_context(Held(chain));
            r.hold(true);
            r.wake_after(Duration::from_millis(1));
            return Code::AGAIN;
        }
        if asked(r, "chain_anew") {
            return r.output(Chain::new());
        }
        if asked(r, "release_far") {
            let mut copy = Chain::new();
            for buf in &chain {
                let mut own = Buf::copy_from(buf.bytes());
                own.set_last(buf.is_last());
                copy.push(own);
            }
            drop(r.offload(move || drop(chain)));
            return next.call(r, copy);
        }
        next.call(r, chain)
    }
}

impl Variables for Panics {
    const NAMES: &'static [&'static str] = &["panics"];

    fn variable(r: &mut Request<'_>, _: usize) -> Option<Vec<u8>> {
        if asked(r, "variable") {
            panic!("asked for in variable"); // in variable
        }
        if asked(r, "in_itself") {
            return r.variable("panics").map(<[u8]>::to_vec);
        }
        Some(b"calm".to_vec())
    }
}
