//! Limits the rate at which a response is sent (nginx: limit_rate, limit_rate_after).
//!
//! ```toml
//! [[http.server.location]]
//! path = "/download/"
//! limit_rate = { rate = "100k", after = "1m" }
//! ```
//!
//! Both may be made of variables: `rate = "$arg_rate"`. `$limit_rate` is the rate of the response, 0 if there is no limit.
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
    /// Bytes per second; 0 means no limit, and so does a variable that holds no size.
    #[config(default = 0)]
    rate: SizeTemplate,
    /// Bytes that are sent before the limit holds.
    #[config(default = 0)]
    after: SizeTemplate,
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
    provides: [filter, variables],
    after: ["gzip", "range"],
}

impl Filter for LimitRate {
    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        if !r.is_main() {
            return next.call(r);
        }
        let rate = bytes(&self.rate, r);
        if rate == 0 {
            return next.call(r);
        }
        let budget = Budget::new(rate, bytes(&self.after, r), r.now_ms());
        r.set_context(Context { budget, held: Chain::new(), holding: false });
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

impl Variables for LimitRate {
    const NAMES: &'static [&'static str] = &["limit_rate"];
    // Before the response there is none.
    const NOCACHEABLE: &'static [&'static str] = &["limit_rate"];

    fn variable(r: &mut Request<'_>, _: usize) -> Option<Vec<u8>> {
        let rate = r.context::<Context>().map_or(0, |context| context.budget.rate());
        Some(rate.to_string().into_bytes())
    }
}

fn bytes(size: &SizeTemplate, r: &Request<'_>) -> u64 {
    size.eval(r).map_or(0, |size| size.0)
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
