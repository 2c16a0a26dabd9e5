//! Variables: the host's (nginx's core set, in [`table`]) and those of modules.
//!
//! A value is either a text that the request has anyway, or is written where it is wanted: into the line of a log, the
//! text of a template, or memory for the module that asks.

pub mod table;

mod request_id;

use std::rc::Rc;

use crate::{
    http1::{Facts, Seen, Span},
    plugins::{link, running},
    request::{Request, Text, captures, with_buffer},
};
use table::{Core, VARIABLES, Value};

/// A variable, found by name when the configuration is read.
#[derive(Clone, Debug)]
pub enum Variable {
    /// One of the host's.
    Core(&'static Core),
    /// `$http_NAME`: a request header field, and where the parser has noted it.
    Http(String, Option<fn(&Facts) -> Seen>),
    /// `$sent_http_NAME`: a response header field, and its value if the host writes it.
    SentHttp(String, Option<Write>),
    /// `$sent_trailer_NAME`: a trailer of the response. The host sends none yet.
    SentTrailer,
    /// `$arg_NAME`: an argument of the query.
    Arg(String),
    /// `$cookie_NAME`
    Cookie(String),
    /// One that a module provides.
    Module(ModuleVariable),
    /// `$1` to `$9`: what a group of the last regular expression holds.
    Numbered(usize),
    /// The named group of this number of regular expressions.
    Named(usize),
}

/// The variables that a configuration adds to the host's.
#[derive(Clone, Debug, Default)]
pub struct Added {
    /// Those of modules.
    pub modules: Vec<ModuleVariable>,
    /// The names of all named groups of regular expressions.
    pub captures: Vec<String>,
}

/// Writes a value behind what is in the buffer. False, and nothing is written, if there is none.
pub type Write = fn(&Rc<Request>, &mut Vec<u8>) -> bool;

/// A variable of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleVariable {
    /// Its name, without `$`.
    pub name: String,
    /// The slot of the module.
    pub module: u32,
    /// Its number among those of the module.
    pub index: u32,
    /// Whether it is evaluated once for each request.
    pub cacheable: bool,
}

impl Variable {
    /// Whether its values hold neither quotes nor anything beside printable ASCII, so that a log need not look.
    pub fn is_plain(&self) -> bool {
        matches!(self, Variable::Core(core) if core.is_plain)
    }
}

/// Finds a variable.
pub fn find(name: &str, added: &Added) -> Option<Variable> {
    if let [digit @ b'1'..=b'9'] = name.as_bytes() {
        return Some(Variable::Numbered(usize::from(digit - b'0')));
    }
    if let Some(core) = VARIABLES.iter().find(|core| core.name == name) {
        return Some(Variable::Core(core));
    }
    if let Some(variable) = added.modules.iter().find(|variable| variable.name == name) {
        return Some(Variable::Module(variable.clone()));
    }
    // Before the families: a group may have the name of one of theirs, as in nginx.
    if let Some(number) = added.captures.iter().position(|known| known == name) {
        return Some(Variable::Named(number));
    }
    let field = |name: &str| name.replace('_', "-").to_ascii_lowercase();
    if let Some(name) = name.strip_prefix("http_") {
        let name = field(name);
        let noted: Option<fn(&Facts) -> Seen> = match name.as_str() {
            "host" => Some(|facts| facts.host),
            "referer" => Some(|facts| facts.referer),
            "user-agent" => Some(|facts| facts.user_agent),
            "cookie" => Some(|facts| facts.cookie),
            "x-forwarded-for" => Some(|facts| facts.x_forwarded_for),
            _ => None,
        };
        return Some(Variable::Http(name, noted));
    }
    if let Some(name) = name.strip_prefix("sent_http_") {
        let name = field(name);
        let own = table::SENT_BY_HOST.iter().find(|(own, _)| *own == name).map(|(_, write)| *write);
        return Some(Variable::SentHttp(name, own));
    }
    if name.starts_with("sent_trailer_") {
        return Some(Variable::SentTrailer);
    }
    if let Some(name) = name.strip_prefix("arg_") {
        return Some(Variable::Arg(name.to_string()));
    }
    name.strip_prefix("cookie_").map(|name| Variable::Cookie(name.to_string()))
}

/// Whose variable a group of a regular expression would hide, if any (nginx: "the duplicate ... variable").
pub fn owner(name: &str, modules: &[ModuleVariable]) -> Option<String> {
    if VARIABLES.iter().any(|core| core.name == name) {
        return Some("the server".to_string());
    }
    let variable = modules.iter().find(|variable| variable.name == name)?;
    Some(format!("module {}", running::module_name(variable.module)))
}

/// What is said of a variable that nobody has.
pub fn unknown(name: &str, added: &Added) -> String {
    let of_modules = added.modules.iter().map(|variable| variable.name.as_str());
    let of_captures = added.captures.iter().map(String::as_str);
    let known = VARIABLES.iter().map(|core| core.name).chain(of_modules).chain(of_captures);
    let near = known.map(|known| (strsim::damerau_levenshtein(known, name), known)).min();
    // In braces a name may have any character, and an error is one line.
    let name = name.escape_debug();
    match near {
        Some((distance, known)) if distance <= 2 => {
            format!("unknown variable \"${name}\"; did you mean \"${known}\"?")
        }
        _ => format!("unknown variable \"${name}\""),
    }
}

/// A value: a text that the request has, or what has been written.
enum Found {
    Text(Text),
    Written,
}

/// The value of a variable for a request; what the request does not have is written behind what is in `out`.
fn get(r: &Rc<Request>, variable: &Variable, out: &mut Vec<u8>) -> Option<Found> {
    let written = |is_found: bool| is_found.then_some(Found::Written);
    match variable {
        Variable::Core(Core { value: Value::Text(text), .. }) => text(r).map(Found::Text),
        Variable::Core(Core { value: Value::Written(write), .. }) => written(write(r, out)),
        Variable::Http(name, noted) => http(r, name.as_bytes(), *noted, out),
        Variable::SentHttp(name, own) => {
            let is_set = sent_http(r, name.as_bytes(), out);
            written(is_set || own.is_some_and(|own| r.header_sent.get() && own(r, out)))
        }
        Variable::SentTrailer => None,
        Variable::Arg(name) => {
            let parts = r.parts.borrow();
            written(push(argument(parts.text(r.args.get()), name.as_bytes()), out))
        }
        Variable::Cookie(name) => {
            let parts = r.parts.borrow();
            let fields = parts.head.fields().iter();
            let mut fields = fields.filter(|field| field.name.of(&parts.bytes).eq_ignore_ascii_case(b"cookie"));
            written(push(fields.find_map(|field| cookie(field.value.of(&parts.bytes), name.as_bytes())), out))
        }
        Variable::Module(variable) => of_module(r, variable, out),
        Variable::Numbered(number) => captures::numbered(r, *number).map(Found::Text),
        Variable::Named(name) => captures::named(r, *name).map(Found::Text),
    }
}

fn push(value: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
    value.map(|value| out.extend_from_slice(value)).is_some()
}

/// Several fields of a name are one value (RFC 9110, section 5.3; RFC 6265, section 5.4 for Cookie).
fn http(r: &Request, name: &[u8], noted: Option<fn(&Facts) -> Seen>, out: &mut Vec<u8>) -> Option<Found> {
    let parts = r.parts.borrow();
    match noted.map(|noted| noted(parts.head.facts())) {
        Some(Seen::None) => return None,
        Some(Seen::One(index)) => {
            return parts.head.fields().get(usize::from(index)).map(|field| Found::Text(Text::Head(field.value)));
        }
        _ => (),
    }
    let is_wanted =
        |field: &[u8]| if noted.is_some() { field.eq_ignore_ascii_case(name) } else { is_field(field, name) };
    let fields = parts.head.fields().iter();
    let mut values = fields.filter(|field| is_wanted(field.name.of(&parts.bytes))).map(|field| field.value);
    let first: Span = values.next()?;
    let Some(second) = values.next() else { return Some(Found::Text(Text::Head(first))) };
    let separator: &[u8] = if name == b"cookie" { b"; " } else { b", " };
    out.extend_from_slice(first.of(&parts.bytes));
    for value in std::iter::once(second).chain(values) {
        out.extend_from_slice(separator);
        out.extend_from_slice(value.of(&parts.bytes));
    }
    Some(Found::Written)
}

fn sent_http(r: &Request, name: &[u8], out: &mut Vec<u8>) -> bool {
    let parts = r.parts.borrow();
    let fields = parts.headers_out.fields().iter();
    let mut is_first = true;
    for field in fields.filter(|field| is_field(parts.pool.get(field.name()), name)) {
        if !is_first {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(parts.pool.get(field.value()));
        is_first = false;
    }
    !is_first
}

/// Whether a field has the name that a variable asks for, in lower case and with `-`: an underscore in the field's name is
/// the same as `-`, since both are `_` in the variable's (nginx: ngx_http_variable_unknown_header).
fn is_field(field: &[u8], name: &[u8]) -> bool {
    let same = |(byte, wanted): (&u8, &u8)| match byte {
        b'_' => *wanted == b'-',
        byte => byte.eq_ignore_ascii_case(wanted),
    };
    field.len() == name.len() && field.iter().zip(name).all(same)
}

fn of_module(r: &Rc<Request>, variable: &ModuleVariable, out: &mut Vec<u8>) -> Option<Found> {
    let key = (variable.module, variable.index);
    if variable.cacheable
        && let Some(value) = r.extra.get().and_then(|extra| extra.value(key))
    {
        return value.map(Found::Text);
    }
    let value = r.guarded(|| link::call_variable(r, variable.module, variable.index));
    if !variable.cacheable {
        return push(value.as_ref().map(|value| value.as_slice()), out).then_some(Found::Written);
    }
    let value = value.map(|value| r.store(&[value.as_slice()]));
    r.extra().keep_value(key, value);
    value.map(Found::Text)
}

/// Writes the value of a variable behind what is in `out`; false if it has none.
#[inline]
pub fn write(r: &Rc<Request>, variable: &Variable, out: &mut Vec<u8>) -> bool {
    match get(r, variable, out) {
        Some(Found::Text(text)) => out.extend_from_slice(r.parts.borrow().text(text)),
        Some(Found::Written) => (),
        None => return false,
    }
    true
}

/// The value of a variable by its name, as modules ask for it. It stays until the outermost hook has returned.
pub fn lend<T>(r: &Rc<Request>, name: &str, lend: impl FnOnce(&[u8]) -> T) -> Option<T> {
    let variable = find(name, r.site.templates.added())?;
    with_buffer(|buffer| match get(r, &variable, buffer)? {
        Found::Text(text) => Some(lend(r.parts.borrow().text(text))),
        Found::Written => Some(r.lend(buffer, lend)),
    })
}

/// The table of all variables, for the manual.
pub fn reference() -> String {
    let mut text = String::from("# Variables\n\n| Variable | Value |\n|---|---|\n");
    let prefixes = table::PREFIXES.iter().map(|(name, doc)| (*name, *doc));
    let mut rows: Vec<(&str, &str)> = VARIABLES.iter().map(|core| (core.name, core.doc)).chain(prefixes).collect();
    rows.sort_unstable();
    for (name, doc) in rows {
        text.push_str(&format!("| `${name}` | {doc} |\n"));
    }
    text
}

/// The first argument of this name (any case, as nginx).
fn argument<'a>(args: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    args.split(|&byte| byte == b'&').find_map(|pair| {
        let at = pair.iter().position(|&byte| byte == b'=')?;
        pair[..at].eq_ignore_ascii_case(name).then(|| &pair[at + 1..])
    })
}

fn cookie<'a>(cookies: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    cookies.split(|&byte| byte == b';').map(<[u8]>::trim_ascii).find_map(|pair| {
        let at = pair.iter().position(|&byte| byte == b'=')?;
        pair[..at].eq_ignore_ascii_case(name).then(|| &pair[at + 1..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_and_cookies() {
        assert_eq!(argument(b"a=1&b=2&a=3", b"A"), Some(&b"1"[..]));
        assert_eq!(argument(b"ab&b=", b"b"), Some(&b""[..]));
        assert_eq!(argument(b"xa=1", b"a"), None);
        assert_eq!(cookie(b"x=1; sid=abc;y", b"sid"), Some(&b"abc"[..]));
        assert_eq!(cookie(b"x=1", b"sid"), None);
    }

    #[test]
    fn names_of_fields() {
        assert!(is_field(b"X-A_b", b"x-a-b") && is_field(b"accept", b"accept"));
        assert!(!is_field(b"x-a", b"x-a-") && !is_field(b"x-a", b"x-b") && !is_field(b"", b"-"));
    }

    #[test]
    fn every_name_is_known_once() {
        for (at, core) in VARIABLES.iter().enumerate() {
            assert!(VARIABLES[..at].iter().all(|other| other.name != core.name), "{}", core.name);
            assert!(core.doc.ends_with('.') && !core.doc.contains('|'), "{}", core.name);
        }
    }
}
