//! Limits the rate at which a response is sent (nginx: limit_rate, limit_rate_after).
//!
//! ```toml
//! [[http.server.location]]
//! path = "/download/"
//! limit_rate = { rate = "100k", after = "1m" }
//! ```
//!
//! The rate is per request: a client with two connections gets twice as much. What may not be sent yet is held back, in
//! memory or as ranges of files, and the timer of the request continues with it.

#![forbid(unsafe_code)]

mod budget;

use topnext_module_api::prelude::*;

use std::time::Duration;

use budget::Budget;

/// How often a response is looked at whose client takes less than it may.
const SLOW_CLIENT: Duration = Duration::from_secs(1);

/// The table `limit_rate`.
#[derive(Config)]
pub struct LimitRate {
    /// Bytes per second; 0 means no limit.
    #[config(default = 0)]
    rate: Size,
    /// Bytes that are sent before the limit holds.
    #[config(default = 0)]
    after: Size,
}

/// A response that is limited.
struct Context {
    budget: Budget,
    /// What may not be sent yet.
    held: Chain,
    /// The host has been told that some is held back.
    holding: bool,
}

export_module! {
    name: "limit_rate",
    module: LimitRate,
    provides: [filter],
    after: ["gzip", "range"],
}

impl Filter for LimitRate {
    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        if self.rate.0 > 0 && r.is_main() {
            let budget = Budget::new(self.rate.0, self.after.0, r.now_ms());
            r.set_context(Context { budget, held: Chain::new(), holding: false });
        }
        next.call(r)
    }

    fn body_filter(&self, r: &mut Request<'_>, chain: Chain, next: BodyNext<'_>) -> Code {
        let Some(mut context) = r.context::<Context>() else {
            return next.call(r, chain);
        };
        context.held.append(chain);
        let now = r.now_ms();
        let allowed = context.budget.allowed(now);
        let out = take(&mut context.held, allowed);
        context.budget.sent(out.len_bytes(), now);
        // Called also if nothing may be sent: then the next filters continue with what they hold.
        let code = next.call(r, out);
        if !matches!(code, Code::OK | Code::AGAIN) {
            return code;
        }
        let more = !context.held.is_empty();
        if context.holding != more {
            context.holding = more;
            r.hold(more);
        }
        if !more {
            return code;
        }
        // While the client is slower than the rate, room calls this; the budget says nothing then.
        let wait = if r.unsent() > 0 { SLOW_CLIENT } else { context.budget.wait(now) };
        r.wake_after(wait);
        Code::AGAIN
    }
}

/// Takes the bufs of the first `bytes` bytes, and the empty ones that follow at once. A buf that is longer is split; its
/// flags stay with its second part.
fn take(held: &mut Chain, mut bytes: u64) -> Chain {
    let mut out = Chain::new();
    while let Some(first) = held.first_mut() {
        let len = first.len();
        if len > bytes {
            if bytes > 0 {
                let mut part = first.split_to(bytes);
                // It may be a second until more follows.
                part.set_flush(true);
                out.push(part);
            }
            break;
        }
        bytes -= len;
        if let Some(buf) = held.pop() {
            out.push(buf);
        }
    }
    out
}
