//! An upstream protocol that panics in the hook that a request asks for: `?in=process_header`.
//!
//! `upstream`, which is given no request, panics where the table says so: `upstream_panics = true`.
//!
//! The protocol: the request is `get\n`; the answer is `ok\n`, and a body that ends when the peer closes.

#![forbid(unsafe_code)]

use topnext_module_api::prelude::*;

/// The table `panics_upstream`.
#[derive(Config)]
pub struct Table {
    /// The name of an upstream, or host and port.
    pass: String,
    /// Whether `upstream` panics.
    #[config(default = false)]
    upstream_panics: bool,
}

/// The table, with the upstream looked up.
pub struct PanicsUpstream {
    id: UpstreamId,
    upstream_panics: bool,
}

export_module! {
    name: "panics_upstream",
    module: PanicsUpstream,
    provides: [upstream],
}

impl Module for PanicsUpstream {
    type Config = Table;

    fn new(table: Table, _: &Setup<'_>) -> Result<PanicsUpstream, ConfigErrors> {
        let id = UpstreamId::find(&table.pass, 9009, &UpstreamOptions::default())?;
        Ok(PanicsUpstream { id, upstream_panics: table.upstream_panics })
    }
}

/// Panics if the request asks for it in this hook.
#[track_caller]
fn panic_if_asked(r: &Request<'_>, hook: &str) {
    assert!(r.variable("arg_in") != Some(hook.as_bytes()), "asked for in {hook}");
}

impl Upstream for PanicsUpstream {
    fn upstream(&self) -> UpstreamId {
        assert!(!self.upstream_panics, "asked for in upstream"); // in upstream
        self.id
    }

    fn create_request(&self, r: &mut Request<'_>, request: &mut Chain) -> Code {
        request.push(Buf::from_static(b"get\n"));
        panic_if_asked(r, "create_request"); // in create_request
        Code::OK
    }

    fn reinit_request(&self, r: &mut Request<'_>) -> Code {
        panic_if_asked(r, "reinit_request"); // in reinit_request
        Code::OK
    }

    fn process_header(&self, r: &mut Request<'_>, input: &[u8]) -> Progress {
        panic_if_asked(r, "process_header"); // in process_header
        match input.strip_prefix(b"ok\n") {
            Some(_) => {
                r.set_status(200);
                Progress::Complete(3)
            }
            None if b"ok\n".starts_with(input) => Progress::Incomplete,
            None => Progress::Invalid,
        }
    }

    fn input_filter_init(&self, r: &mut Request<'_>) -> Code {
        panic_if_asked(r, "input_filter_init"); // in input_filter_init
        Code::OK
    }

    fn input_filter(&self, r: &mut Request<'_>, input: Chain, output: &mut Chain) -> Code {
        let closed = input.has_last();
        for mut buf in input {
            buf.set_last(false);
            output.push(buf);
        }
        panic_if_asked(r, "input_filter"); // in input_filter
        if closed { Code::DONE } else { Code::OK }
    }

    fn abort_request(&self, r: &mut Request<'_>) {
        panic_if_asked(r, "abort_request"); // in abort_request
    }

    fn finalize_request(&self, r: &mut Request<'_>, _: Code) {
        panic_if_asked(r, "finalize_request"); // in finalize_request
    }
}
