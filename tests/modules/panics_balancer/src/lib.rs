//! A balancer that panics in the hook that its table names. Otherwise it takes the first peer that is available.
//!
//! ```toml
//! [http.upstream.backend]
//! balancer = ["panics_balancer"]
//! panics_balancer.hook = "get"        # or init_upstream, init_peer, free
//! ```

#![forbid(unsafe_code)]

use topnext_module_api::prelude::*;

/// The table `panics_balancer`.
#[derive(Config)]
pub struct PanicsBalancer {
    /// The hook to panic in; none if it is empty.
    #[config(default = "")]
    hook: String,
    /// Whether it balances.
    #[config(default = true)]
    enabled: bool,
}

export_module! {
    name: "panics_balancer",
    module: PanicsBalancer,
    provides: [balancer],
}

impl PanicsBalancer {
    #[track_caller]
    fn panic_if_asked(&self, hook: &str) {
        assert!(self.hook != hook, "asked for in {hook}");
    }
}

impl Balancer for PanicsBalancer {
    fn init_upstream(&mut self, _: &Selection<'_>) -> Result<(), ConfigErrors> {
        self.panic_if_asked("init_upstream"); // in init_upstream
        Ok(())
    }

    fn init_peer(&self, s: &mut Selection<'_>, next: BalancerNext<'_>) -> Code {
        self.panic_if_asked("init_peer"); // in init_peer
        next.init_peer(s)
    }

    fn get(&self, s: &mut Selection<'_>, _: BalancerNext<'_>) -> Option<usize> {
        self.panic_if_asked("get"); // in get
        (0..s.len()).find(|peer| s.is_available(*peer))
    }

    fn free(&self, s: &mut Selection<'_>, peer: usize, outcome: Outcome, next: BalancerNext<'_>) {
        self.panic_if_asked("free"); // in free
        next.free(s, peer, outcome);
    }
}
