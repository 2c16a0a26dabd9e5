//! What `topnext-bench hop` needs at the end of a chain, and inside of a module.
//!
//! As a filter it answers Ok and passes nothing on, so that a chain can be called any number of times. Its variables
//! measure: the value of `$probe_text` is the time, in nanoseconds, of [`CALLS`] calls of that service.

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Instant;

use topnext_module_api::prelude::*;

/// Calls in one measurement. Few enough that what they leave in the request's pool does not fill it.
const CALLS: u32 = 500;

static TEMPLATES: OnceLock<[Template; 2]> = OnceLock::new();

/// The table `probe`.
#[derive(Config)]
pub struct Table {
    /// A template without variables.
    #[config(default = "a constant text")]
    constant: Template,
    /// One with two.
    #[config(default = "$uri by $http_user_agent")]
    text: Template,
}

/// A module that ends the chain.
pub struct Probe;

export_module! {
    name: "probe",
    module: Probe,
    provides: [filter, variables],
}

impl Module for Probe {
    type Config = Table;

    fn new(table: Table, _: &Setup<'_>) -> Result<Probe, ConfigErrors> {
        // The same in each location: variables know no configuration.
        let _ = TEMPLATES.set([table.constant, table.text]);
        Ok(Probe)
    }
}

impl Filter for Probe {
    fn header_filter(&self, _: &mut Request<'_>, _: HeaderNext<'_>) -> Code {
        Code::OK
    }

    fn body_filter(&self, _: &mut Request<'_>, _: Chain, _: BodyNext<'_>) -> Code {
        Code::OK
    }
}

impl Variables for Probe {
    // The benchmark shows them in this order, without the prefix. The first is the loop itself.
    const NAMES: &'static [&'static str] = &[
        "probe_nothing",
        "probe_number",
        "probe_text",
        "probe_header_in",
        "probe_header_in_absent",
        "probe_header_out",
        "probe_set_header_out",
        "probe_variable",
        "probe_variable_made",
        "probe_template_constant",
        "probe_template",
        "probe_context",
        "probe_buf",
        "probe_buf_copied",
        "probe_chain",
        "probe_hold",
        "probe_logs",
    ];

    fn variable(r: &mut Request<'_>, index: usize) -> Option<Vec<u8>> {
        let [constant, template] = TEMPLATES.get()?;
        // What the services find.
        r.set_header_out("X-Probe", "1");
        drop(r.set_context(0_u64));
        let time = match Self::NAMES[index] {
            "probe_nothing" => time(|| ()),
            "probe_number" => time(|| r.status()),
            "probe_text" => time(|| r.uri()),
            "probe_header_in" => time(|| r.header_in("User-Agent")),
            "probe_header_in_absent" => time(|| r.header_in("X-Absent")),
            "probe_header_out" => time(|| r.header_out("X-Probe")),
            "probe_set_header_out" => time(|| r.set_header_out("X-Probe", "value")),
            "probe_variable" => time(|| r.variable("uri")),
            "probe_variable_made" => time(|| r.variable("remote_port")),
            "probe_template_constant" => time(|| constant.eval(r)),
            "probe_template" => time(|| template.eval(r)),
            "probe_context" => time(|| r.context::<u64>().map(|mut number| *number += 1)),
            "probe_buf" => time(|| Buf::from_static(b"static")),
            "probe_buf_copied" => time(|| Buf::copy_from(b"copied")),
            "probe_chain" => time(|| pass(Chain::from(Buf::from_static(b"static")))),
            "probe_hold" => time(|| r.hold(false)),
            "probe_logs" => time(|| r.logs(Level::Debug)),
            _ => return None,
        };
        Some(time.to_string().into_bytes())
    }
}

/// A function of another filter, as far as the compiler can see.
#[inline(never)]
fn pass(mut chain: Chain) -> u64 {
    let mut bytes = 0;
    while let Some(buf) = chain.pop() {
        bytes += buf.len();
    }
    bytes
}

/// The time of all calls, in nanoseconds.
fn time<T>(mut call: impl FnMut() -> T) -> u128 {
    let start = Instant::now();
    for _ in 0..CALLS {
        black_box(call());
    }
    start.elapsed().as_nanos()
}
