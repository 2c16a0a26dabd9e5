//! The smallest filter: adds the field `X-Hello` to responses, and a line to the end of their bodies.
//!
//! ```toml
//! hello_filter = { text = "world", line = "Goodbye.\n" }
//! ```

#![forbid(unsafe_code)]

use topnext_module_api::prelude::*;

/// The table `hello_filter`. The doc comments are the texts of the manual.
#[derive(Config)]
pub struct HelloFilter {
    /// The value of the field X-Hello.
    #[config(default = "world")]
    text: Template,
    /// What is added to the body.
    #[config(default = "")]
    line: String,
}

/// In the request's context: this response gets the line.
struct AddLine;

export_module! {
    name: "hello_filter",
    module: HelloFilter,
    provides: [filter],
    before: ["gzip", "range"],  // what is compressed, or a part, cannot be added to
}

impl Filter for HelloFilter {
    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        let text = self.text.eval(r);
        r.set_header_out("X-Hello", text);
        // Whoever changes a body says how long it is now, and that it must not be sent in ranges.
        if !self.line.is_empty() && r.status() == 200 && r.is_main() && r.header_out("Content-Encoding").is_none() {
            r.set_context(AddLine);
            r.set_content_length(r.content_length().map(|length| length + self.line.len() as u64));
            r.set_allow_ranges(false);
        }
        next.call(r)
    }

    fn body_filter(&self, r: &mut Request<'_>, mut chain: Chain, next: BodyNext<'_>) -> Code {
        // The body comes in parts. The end is marked on the last buf of the last part: there the line goes.
        if let Some(last) = chain.last_mut().filter(|buf| buf.is_last())
            && r.context::<AddLine>().is_some()
        {
            last.set_last(false);
            let mut line = Buf::copy_from(self.line.as_bytes());
            line.set_last(true);
            chain.push(line);
        }
        next.call(r, chain)
    }
}
