//! Strings with `$variables`, compiled when the configuration is read (nginx calls them complex values).

use crate::{Request, host};

/// A string that may contain `$variables`: the type of a configuration field.
#[derive(Clone, Debug)]
pub struct Template {
    id: u32,
    text: String,
}

impl Template {
    /// Compiles it. Only while configuring; an error says which variable is unknown.
    pub fn compile(text: &str) -> Result<Template, String> {
        // SAFETY: the text lives during the call.
        let id = unsafe { host::expect().compile_template()(text.into()) };
        id.into_result().map(|id| Template { id, text: text.to_string() }).map_err(String::from)
    }

    /// The text for this request.
    pub fn eval<'h>(&self, r: &Request<'h>) -> &'h [u8] {
        r.template(self.id)
    }

    /// The text, if it is the same for all requests: there is no variable in it.
    pub fn constant(&self) -> Option<&str> {
        (!self.text.contains('$')).then_some(&self.text)
    }

    /// The text as the operator wrote it.
    pub fn source(&self) -> &str {
        &self.text
    }
}
