//! What the groups of regular expressions have matched: `$1` to `$9`, and `$name`.
//!
//! They belong to the request. Each expression that matches, a server's name or a location, replaces `$1` to `$9`, with
//! nothing if it has no groups; a named one stays until an expression that has the same name matches (nginx:
//! ngx_http_regex_exec).

use super::{Request, Text};
use crate::regex::Regex;

/// What the groups hold: parts of texts of the request.
#[derive(Default)]
pub struct Captures {
    numbered: [Option<Text>; 9],
    /// By the number of the name among those of the configuration.
    named: Vec<Option<Text>>,
}

impl Captures {
    /// `$number`, of 1 to 9.
    pub fn numbered(&self, number: usize) -> Option<Text> {
        self.numbered.get(number.checked_sub(1)?).copied().flatten()
    }

    /// The named group with this number.
    pub fn named(&self, name: usize) -> Option<Text> {
        self.named.get(name).copied().flatten()
    }
}

/// An expression has matched this text.
pub fn note(r: &Request, regex: &Regex, text: Text) {
    if !regex.has_groups() {
        if let Some(extra) = r.extra.get() {
            extra.captures.borrow_mut().numbered = Default::default();
        }
        return;
    }
    let captures = &mut *r.extra().captures.borrow_mut();
    captures.numbered = Default::default();
    regex.groups(r.parts.borrow().text(text), |group, name, ends| {
        let value = ends.map(|(start, end)| text.slice(start, end));
        if let Some(numbered) = captures.numbered.get_mut(group - 1) {
            *numbered = value;
        }
        if let Some(name) = name {
            if captures.named.len() <= name {
                captures.named.resize(name + 1, None);
            }
            captures.named[name] = value;
        }
    });
}
