//! Variables that count how often they are evaluated, and a handler that asks for large ones again and again.
//!
//! ```text
//! $once    cacheable: how often it has been evaluated in this process
//! $always  the same, evaluated each time
//! $large   64 KB, made anew each time
//! $nothing cacheable, and never has a value; $nothings says how often it was asked
//! ```
//!
//! The handler evaluates `$large` in 100 calls, one after the other, and answers how many bytes it was given.

#![forbid(unsafe_code)]

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use topnext_module_api::prelude::*;

/// The table `variables`.
#[derive(Config)]
pub struct VariablesModule {
    /// Evaluated in each call of the handler too.
    #[config(default = "")]
    pub template: Template,
}

export_module! {
    name: "variables",
    module: VariablesModule,
    provides: [content, variables],
}

static COUNTS: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

fn count(which: usize) -> usize {
    COUNTS[which].fetch_add(1, SeqCst) + 1
}

impl Variables for VariablesModule {
    const NAMES: &'static [&'static str] = &["once", "always", "large", "nothing", "nothings"];
    const NOCACHEABLE: &'static [&'static str] = &["always", "large", "nothings"];

    fn variable(_: &mut Request<'_>, index: usize) -> Option<Vec<u8>> {
        match index {
            0 | 1 => Some(count(index).to_string().into_bytes()),
            2 => Some(vec![b'x'; 64 * 1024]),
            3 => {
                count(2);
                None
            }
            _ => Some(COUNTS[2].load(SeqCst).to_string().into_bytes()),
        }
    }
}

/// How far the handler is.
#[derive(Default)]
struct Calls {
    count: usize,
    bytes: usize,
}

impl Content for VariablesModule {
    fn content(&self, r: &mut Request<'_>) -> Code {
        let mut calls = match r.context::<Calls>() {
            Some(calls) => calls,
            None => r.set_context(Calls::default()),
        };
        calls.bytes += r.variable("large").map_or(0, <[u8]>::len);
        calls.bytes += self.template.eval(r).len();
        calls.count += 1;
        if calls.count < 100 {
            r.wake_after(Duration::ZERO);
            return Code::AGAIN;
        }
        let text = format!("{} bytes\n", calls.bytes);
        r.send(200, "text/plain", text.into_bytes())
    }
}
