//! The smallest balancer: chooses the peer with the fewest connections.
//!
//! ```toml
//! [http.upstream.backend]
//! balancer = ["hello_balancer", "round_robin"]
//! server = [{ address = "127.0.0.1:9001" }, { address = "127.0.0.1:9002" }, { address = "127.0.0.1:9003" }]
//! ```
//!
//! If several peers have the fewest, or only backups are left, it delegates to the next balancer. So the first requests
//! go round in turn, and `round_robin` honours `backup`.

#![forbid(unsafe_code)]

use topnext_module_api::prelude::*;

/// One per upstream that names it. It keeps nothing: the peers' state is the host's.
pub struct HelloBalancer;

export_module! {
    name: "hello_balancer",
    module: HelloBalancer,
    provides: [balancer],
}

impl Module for HelloBalancer {
    type Config = ();

    fn new(_: (), _: &Setup<'_>) -> Result<HelloBalancer, ConfigErrors> {
        Ok(HelloBalancer)
    }
}

// `init_upstream`, `init_peer` and `free` are left to their defaults, which delegate.
impl Balancer for HelloBalancer {
    // A parameter that is not in this list is an error in the configuration.
    const SERVER_PARAMETERS: &'static [&'static str] = &["max_fails", "fail_timeout", "max_conns", "backup", "down"];

    fn get(&self, s: &mut Selection<'_>, next: BalancerNext<'_>) -> Option<usize> {
        let usable = |s: &Selection<'_>, peer: usize| s.is_available(peer) && !s.is_backup(peer);
        let fewest = (0..s.len()).filter(|&peer| usable(s, peer)).map(|peer| s.connections(peer)).min();
        let mut least = (0..s.len()).filter(|&peer| usable(s, peer) && Some(s.connections(peer)) == fewest);
        match (least.next(), least.next()) {
            (Some(peer), None) => Some(peer),
            _ => next.get(s),
        }
    }
}
