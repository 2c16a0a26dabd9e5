//! What the groups of regular expressions have matched: `$1` to `$9`, and `$name`.
//!
//! They belong to the request. Each expression that matches, a server's name or a location, replaces `$1` to `$9`, with
//! nothing if it has no groups; a named one stays until an expression that has the same name matches (nginx:
//! ngx_http_regex_exec).
//!
//! What matched is only noted, and the groups are found when the first variable is asked for: most locations that have
//! groups have them for an alternative, and no variable.

use super::{Request, Text};
use crate::regex::{Groups, Regex};

/// The expressions that have matched, and have groups.
#[derive(Default)]
pub struct Captures {
    /// In the order in which they matched. Bounded, as redirects and the depth of locations are.
    matches: Vec<Match>,
    /// The last one that matched at all had groups.
    numbered: bool,
}

struct Match {
    regex: &'static Regex,
    text: Text,
    /// Where the groups are in the text, once one was asked for.
    groups: Option<Box<Groups>>,
}

/// An expression has matched this text.
#[inline]
pub fn note(r: &Request, regex: &'static Regex, text: Text) {
    if regex.has_groups() {
        let captures = &mut *r.extra().captures.borrow_mut();
        captures.matches.push(Match { regex, text, groups: None });
        captures.numbered = true;
    } else if let Some(extra) = r.extra.get() {
        extra.captures.borrow_mut().numbered = false;
    }
}

/// `$number`, of 1 to 9.
pub fn numbered(r: &Request, number: usize) -> Option<Text> {
    let captures = &mut *r.extra.get()?.captures.borrow_mut();
    captures.matches.last_mut().filter(|_| captures.numbered)?.group(r, number)
}

/// The named group with this number among the names of the configuration.
pub fn named(r: &Request, name: usize) -> Option<Text> {
    let captures = &mut *r.extra.get()?.captures.borrow_mut();
    let known = |found: &mut Match| found.regex.group_of(name).map(|group| found.group(r, group));
    captures.matches.iter_mut().rev().find_map(known)?
}

impl Match {
    fn group(&mut self, r: &Request, group: usize) -> Option<Text> {
        let groups = self.groups.get_or_insert_with(|| Box::new(self.regex.groups(r.parts.borrow().text(self.text))));
        let (start, end) = (*groups.get(group)?)?;
        Some(self.text.slice(start as usize, end as usize))
    }
}
