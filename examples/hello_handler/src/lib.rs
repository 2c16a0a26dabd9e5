//! The smallest content handler: greets by name, which comes from a variable or is posted.
//!
//! ```toml
//! [[http.server.location]]
//! path = "= /hello"
//! hello_handler.name = "$arg_name"        # /hello?name=Ada says "Hello, Ada!"
//! ```

#![forbid(unsafe_code)]

use topnext_module_api::prelude::*;

/// The table `hello_handler`. The doc comments are the texts of the manual.
#[derive(Config)]
pub struct HelloHandler {
    /// Who is greeted. May contain variables.
    name: Template,
    /// Who is greeted if that is empty.
    #[config(default = "stranger")]
    default: String,
}

export_module! {
    name: "hello_handler",
    module: HelloHandler,
    provides: [content],
}

/// The most bytes of a name that is posted; a longer one gets 413.
const MAX_NAME: u64 = 1024;

impl Content for HelloHandler {
    fn content(&self, r: &mut Request<'_>) -> Code {
        let name = match r.method() {
            b"GET" | b"HEAD" => self.name.eval(r).to_vec(),
            b"POST" => match r.read_body_in_memory(MAX_NAME) {
                Code::OK => r.body().map(|buf| buf.into_bytes()).collect::<Vec<_>>().concat(),
                // Again: this is called again when the body is here. Else a status, such as 413.
                code => return code,
            },
            // A status as the answer: the server makes the error page.
            _ => return Code::status(405),
        };
        let name = if name.is_empty() { self.default.as_bytes() } else { &name };
        let text = [b"Hello, ", name, b"!\n"].concat();
        // Header and body pass all filters of this location. The text comes from outside: never send it as HTML.
        r.set_header_out("X-Content-Type-Options", "nosniff");
        r.send(200, "text/plain", text)
    }
}
