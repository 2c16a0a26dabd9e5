//! Checking values against their definitions.
//!
//! ```text
//! http.server.lisen: unknown key; did you mean "listen"?
//! http.server.foo: unknown key; valid here: access_log, ..., server_name
//! http.server.tcp_nopush: not a directive here: header and file leave in one write anyway; remove it
//! http.server.location.gzip.comp_level: found 12, expected an integer from 1 to 9
//! http.server.gzip: no module of this name is declared; add [[module]] name = "gzip"
//! ```
//!
//! [`check`] takes one value; [`Checker::level`] one whole table of the configuration, whose valid parts it sorts into
//! core directives and module tables, so that the later steps meet nothing that is not valid.

use std::collections::{HashMap, HashSet};

use super::address::{Listen, PeerAddress};
use super::core_directives;
use super::diagnostic::{Diagnostics, did_you_mean, join_key, quote};
use super::directive::{Block, Contexts, Directive, Field, Presence, Type};
use super::nginx_names;
use super::schema::ModuleSchema;
use super::source::Origin;
use super::tree::{Entry, Node, Table, Value};
use super::units;

/// One table of the configuration: `[http]`, a server, a location or an upstream, with what is valid in it.
#[derive(Debug)]
pub struct Level<'a> {
    /// Its key, such as `http.server.location`.
    pub prefix: String,
    /// Its header.
    pub origin: Origin,
    /// All of it.
    pub table: &'a Table,
    /// The core directives that are valid, in the order written. Of blocks only the form has been checked.
    pub core: Vec<(&'static Directive, &'a Entry)>,
    /// The modules' tables, by index of the schema.
    pub modules: Vec<Option<Written<'a>>>,
}

/// A module's table as it was written on one level.
#[derive(Debug)]
pub struct Written<'a> {
    /// The table's header.
    pub origin: Origin,
    /// The table, with invalid entries still in it.
    pub table: &'a Table,
    /// Its keys whose values are not valid.
    pub refused: Vec<&'a str>,
    /// False if there was any error in the table.
    pub valid: bool,
}

impl<'a> Level<'a> {
    /// The value of a core directive, if it is written and valid.
    pub fn core(&self, name: &str) -> Option<&'a Node> {
        self.core.iter().find(|(directive, _)| directive.name == name).map(|(_, entry)| &entry.node)
    }

    /// The tables of a block `[[name]]`.
    pub fn tables(&self, name: &str) -> impl Iterator<Item = (&'a Node, &'a Table)> + use<'a> {
        let nodes = self.core(name).and_then(Node::as_list).unwrap_or(&[]);
        nodes.iter().filter_map(|node| node.as_table().map(|table| (node, table)))
    }
}

impl<'a> Written<'a> {
    /// The value of a key, if it is written and valid.
    pub fn get(&self, key: &str) -> Option<&'a Node> {
        self.table.get(key).filter(|_| !self.refused.contains(&key))
    }
}

/// Checks tables against the core directives and the modules' schemas.
#[derive(Debug)]
pub struct Checker<'a> {
    /// The modules that are known.
    pub schemas: &'a [ModuleSchema],
    by_name: HashMap<&'a str, usize>,
    declared: HashSet<String>,
    /// Contexts whose keys have been listed in an error.
    listed: Contexts,
    /// The errors so far.
    pub errors: Diagnostics,
}

impl<'a> Checker<'a> {
    /// `declared` are the tables' names of all `[[module]]`s. One without a schema could not be loaded, which is
    /// reported elsewhere; its tables are passed over.
    pub fn new(schemas: &'a [ModuleSchema], declared: HashSet<String>, errors: Diagnostics) -> Self {
        let by_name = schemas.iter().enumerate().map(|(index, schema)| (schema.name.as_str(), index)).collect();
        Checker { schemas, by_name, declared, listed: Contexts::NONE, errors }
    }

    /// Checks one table of the configuration.
    pub fn level(&mut self, table: &'a Table, origin: Origin, context: Contexts, prefix: &str) -> Level<'a> {
        let mut modules: Vec<Option<Written<'a>>> = Vec::new();
        modules.resize_with(self.schemas.len(), || None);
        let mut core = Vec::new();
        for entry in table.iter() {
            let key = join_key(prefix, &entry.key);
            if let Some(directive) = core_directives::find(&entry.key, context) {
                if check(&directive.ty, &entry.node, &key, &mut self.errors) {
                    core.push((directive, entry));
                }
                continue;
            }
            match self
                .by_name
                .get(entry.key.as_str())
                .copied()
                .and_then(|index| Some((index, self.schemas.get(index)?)))
            {
                Some((index, schema)) if schema.contexts.meets(context) => {
                    let written = self.module_table(schema, entry, &key, context);
                    if let Some(slot) = modules.get_mut(index) {
                        *slot = written;
                    }
                }
                Some((_, schema)) => {
                    let valid = schema.contexts.names();
                    self.errors.push(entry.key_origin, key, format!("not valid here; this module is valid in {valid}"));
                }
                None if self.declared.contains(&entry.key) => {}
                None => {
                    let message = self.unknown(entry, context);
                    self.errors.push(entry.key_origin, key, message);
                }
            }
        }
        Level { prefix: prefix.to_owned(), origin, table, core, modules }
    }

    fn module_table(
        &mut self,
        schema: &ModuleSchema,
        entry: &'a Entry,
        key: &str,
        context: Contexts,
    ) -> Option<Written<'a>> {
        let Some(table) = entry.node.as_table() else {
            let expected = Type::Table(schema.fields.clone()).expected();
            let hint = table_form(schema, &entry.node).map(|hint| format!("; {hint}")).unwrap_or_default();
            let message = format!("found {}, expected {expected}{hint}", found(&entry.node));
            self.errors.push(entry.node.origin, key, message);
            return None;
        };
        let before = self.errors.len();
        let mut refused = Vec::new();
        for entry in table.iter() {
            let mut good = check_entry(&schema.fields, entry, key, &mut self.errors);
            if context == Contexts::HTTP && schema.field(&entry.key).is_some_and(|field| !field.inherit) {
                let message = "not valid here, where it would hold nowhere; valid in server, location";
                self.errors.push(entry.key_origin, join_key(key, &entry.key), message);
                good = false;
            }
            if !good {
                refused.push(entry.key.as_str());
            }
        }
        let valid = self.errors.len() == before;
        Some(Written { origin: entry.node.origin, table, refused, valid })
    }

    /// What to say of a key that is not known in this context.
    fn unknown(&mut self, entry: &Entry, context: Contexts) -> String {
        let elsewhere = core_directives::contexts_of(&entry.key);
        if elsewhere != Contexts::NONE {
            return format!("not valid here; valid in {}", elsewhere.names());
        }
        let core = core_directives::directives().iter().filter(|directive| directive.contexts.meets(context));
        let modules = self.schemas.iter().filter(|schema| schema.contexts.meets(context));
        let mut valid: Vec<&str> =
            core.map(|directive| directive.name).chain(modules.map(|schema| schema.name.as_str())).collect();
        valid.sort_unstable();
        if let Some(advice) = nginx_names::not_here(&entry.key) {
            return format!("not a directive here: {advice}");
        }
        let nginx = nginx_names::of_module(&entry.key);
        if let Some((module, key)) = nginx.filter(|(module, _)| !self.by_name.contains_key(module)) {
            let text = format!("no module of this name is declared; add [[module]] name = {module:?}");
            return match (self.declared.contains(module), key) {
                (true, _) => format!("a directive of the module {module}, which could not be loaded"),
                (false, "") => text,
                (false, key) => format!(
                    "a directive of the module {module}; add [[module]] name = {module:?}, and write {module}.{key}"
                ),
            };
        }
        let meant = self
            .module_key(&entry.key, context)
            .or_else(|| did_you_mean(&entry.key, valid.iter().copied()).map(str::to_owned));
        if matches!(entry.node.value, Value::Table(_)) && is_module_name(&entry.key) {
            let meant = meant.map(|name| format!("; did you mean \"{name}\"?")).unwrap_or_default();
            return format!("no module of this name is declared; add [[module]] name = {:?}{meant}", entry.key);
        }
        // One list of a context is enough: it is long.
        if meant.is_none() && self.listed.meets(context) {
            return "unknown key; what is valid here is listed above".to_owned();
        }
        if meant.is_none() {
            self.listed = self.listed.or(context);
        }
        unknown_key(meant.as_deref(), &valid)
    }

    /// `gzip_types`, as nginx writes it, is `gzip.types` here, and `add_header` is `headers.add_header`.
    fn module_key(&self, name: &str, context: Contexts) -> Option<String> {
        let known = |module: &str, key: &str| {
            let schema = self.by_name.get(module).and_then(|&index| self.schemas.get(index))?;
            let known = schema.contexts.meets(context) && schema.field(key).is_some();
            known.then(|| format!("{module}.{key}"))
        };
        let of_nginx = nginx_names::of_module(name).and_then(|(module, key)| known(module, key));
        let mut splits = name.match_indices('_').map(|(at, _)| (&name[..at], &name[at + 1..]));
        of_nginx.or_else(|| splits.find_map(|(module, key)| known(module, key)))
    }
}

/// How a module's table is written, of which there is only the parameter that nginx's directive has: `gzip = true`.
fn table_form(schema: &ModuleSchema, node: &Node) -> Option<String> {
    let name = &schema.name;
    let switch = match node.as_str() {
        Some("on") => Some(true),
        Some("off") => Some(false),
        _ => None,
    };
    if let Some(on) = switch.filter(|_| schema.has_switch()) {
        return Some(format!("write {name}.enabled = {on}"));
    }
    let first = schema.fields.first()?;
    let accepts = |ty: &Type| check(ty, node, "", &mut Diagnostics::default());
    // nginx's first parameter may be one of a list.
    let element = match &first.ty {
        Type::List(element) => accepts(element),
        _ => false,
    };
    if !accepts(&first.ty) && !element {
        return None;
    }
    let value = match &node.value {
        Value::List(_) | Value::Table(_) => "...".to_owned(),
        _ if element => format!("[{}]", found(node)),
        _ => found(node),
    };
    let others = schema.fields.iter().skip(1).filter(|field| field.presence == Presence::Required);
    let others: String = others.map(|field| format!(", {} = ...", field.key)).collect();
    Some(match others.is_empty() {
        true => format!("write {name}.{} = {value}", first.key),
        false => format!("write {name} = {{ {} = {value}{others} }}", first.key),
    })
}

/// A module's name: a lower-case letter, then at most 63 of lower-case letters, digits and `_`.
pub fn is_module_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Checks a value. Adds an error for each fault in it; true if there is none.
pub fn check(ty: &Type, node: &Node, key: &str, errors: &mut Diagnostics) -> bool {
    match (ty, &node.value) {
        (Type::Bool, Value::Bool(_)) | (Type::String | Type::Template, Value::String(_)) => true,
        (Type::Integer { min, max }, Value::Integer(number)) if (min..=max).contains(&number) => true,
        (Type::Number, Value::Integer(_)) => true,
        (Type::Number, Value::Float(number)) if number.is_finite() => true,
        (Type::Duration, value) if units::duration(value).is_some() => true,
        (Type::Size | Type::SizeTemplate, value) if units::size(value).is_some() => true,
        (Type::SizeTemplate, Value::String(text)) if text.contains('$') => true,
        (Type::Listen, Value::String(text)) if Listen::parse(text).is_some() => true,
        (Type::Peer, Value::String(text)) if PeerAddress::parse(text).is_some() => true,
        // Its form is parsed, and its faults are explained, by `LocationPath::parse`.
        (Type::LocationPath, Value::String(_)) => true,
        (Type::Choice(names), Value::String(text)) if names.contains(text) => true,
        (Type::Fixed { value, .. }, Value::String(text)) if value == text => true,
        (Type::List(element), Value::List(nodes)) => {
            let mut good = true;
            for (index, node) in nodes.iter().enumerate() {
                good &= check(element, node, &format!("{key}[{index}]"), errors);
            }
            good
        }
        (Type::Table(fields), Value::Table(table)) => check_table(fields, table, node.origin, key, errors),
        (Type::Map(element), Value::Table(table)) => {
            let mut good = true;
            for entry in table.iter() {
                good &= check(element, &entry.node, &join_key(key, &entry.key), errors);
            }
            good
        }
        (Type::OneOf(types), _) => check_one_of(types, node, key, errors),
        (Type::Block(Block::Table), Value::Table(_)) => true,
        (Type::Block(Block::Named), Value::Table(table)) => {
            let mut good = true;
            for entry in table.iter() {
                good &= check(&Type::Block(Block::Table), &entry.node, &join_key(key, &entry.key), errors);
            }
            good
        }
        (Type::Block(Block::Tables), Value::List(nodes)) => {
            let mut good = true;
            for node in nodes {
                good &= check(&Type::Block(Block::Table), node, key, errors);
            }
            good
        }
        _ => refuse(ty, node, key, errors),
    }
}

fn check_table(fields: &[Field], table: &Table, origin: Origin, key: &str, errors: &mut Diagnostics) -> bool {
    let mut good = true;
    for entry in table.iter() {
        good &= check_entry(fields, entry, key, errors);
    }
    for field in fields {
        if field.presence == Presence::Required && table.get(&field.key).is_none() {
            errors.push(origin, join_key(key, &field.key), missing(&field.ty));
            good = false;
        }
    }
    good
}

/// What to say of a required key that is not written.
pub fn missing(ty: &Type) -> String {
    format!("missing, but required: {}", ty.expected())
}

fn check_entry(fields: &[Field], entry: &Entry, prefix: &str, errors: &mut Diagnostics) -> bool {
    let key = join_key(prefix, &entry.key);
    if let Some(field) = fields.iter().find(|field| field.key == entry.key) {
        return check(&field.ty, &entry.node, &key, errors);
    }
    let mut valid: Vec<&str> = fields.iter().map(|field| field.key.as_str()).collect();
    valid.sort_unstable();
    errors.push(entry.key_origin, key, unknown_key(did_you_mean(&entry.key, valid.iter().copied()), &valid));
    false
}

/// What was probably meant, or else all that would be valid.
fn unknown_key(meant: Option<&str>, valid: &[&str]) -> String {
    match meant {
        Some(name) => format!("unknown key; did you mean \"{name}\"?"),
        None if valid.is_empty() => "unknown key; valid here: nothing".to_owned(),
        None => format!("unknown key; valid here: {}", valid.join(", ")),
    }
}

/// If only one of the types can be written in the form of the value, its own errors are the clearest.
fn check_one_of(types: &[Type], node: &Node, key: &str, errors: &mut Diagnostics) -> bool {
    let mut same_form = types.iter().filter(|ty| match ty {
        Type::Table(_) | Type::Map(_) => matches!(node.value, Value::Table(_)),
        Type::List(_) => matches!(node.value, Value::List(_)),
        _ => !matches!(node.value, Value::Table(_) | Value::List(_)),
    });
    match (same_form.next(), same_form.next()) {
        (Some(ty @ (Type::Table(_) | Type::Map(_) | Type::List(_))), None) => check(ty, node, key, errors),
        _ => {
            let mut unused = Diagnostics::default();
            types.iter().any(|ty| check(ty, node, key, &mut unused))
                || refuse(&Type::OneOf(types.to_vec()), node, key, errors)
        }
    }
}

fn refuse(ty: &Type, node: &Node, key: &str, errors: &mut Diagnostics) -> bool {
    let hint = hint(ty, node, key).map(|hint| format!("; {hint}")).unwrap_or_default();
    errors.push(node.origin, key, format!("found {}, expected {}{hint}", found(node), ty.expected()));
    false
}

/// The value as it is named behind "found".
pub fn found(node: &Node) -> String {
    match &node.value {
        Value::Bool(value) => value.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::String(text) => quote(text),
        Value::Datetime(text) => format!("the date {text}"),
        Value::List(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}

/// What was probably meant.
fn hint(ty: &Type, node: &Node, key: &str) -> Option<String> {
    let accepts =
        |ty: &Type, value: Value| check(ty, &Node { value, origin: node.origin }, key, &mut Diagnostics::default());
    match (ty, &node.value) {
        (Type::OneOf(types), _) => types.iter().find_map(|ty| hint(ty, node, key)),
        (Type::Bool, Value::String(text)) => match text.as_str() {
            "on" | "true" | "yes" => Some("write true".to_owned()),
            "off" | "false" | "no" => Some("write false".to_owned()),
            _ => None,
        },
        (Type::Integer { .. } | Type::Number, Value::String(text)) => {
            let number: i64 = text.parse().ok()?;
            accepts(ty, Value::Integer(number)).then(|| format!("write {number} without quotes"))
        }
        (Type::Choice(names), Value::String(text)) => {
            did_you_mean(text, names.iter().map(String::as_str)).map(|name| format!("did you mean {name:?}?"))
        }
        (Type::List(element), value @ (Value::String(_) | Value::Integer(_) | Value::Bool(_))) => {
            accepts(element, value.clone()).then(|| format!("write [{}]", found(node)))
        }
        (Type::Block(Block::Tables), Value::Table(_)) => Some(format!("write [[{key}]]")),
        // Other types are left out: what a string hints at for them is an integer again.
        (Type::String | Type::Template | Type::Listen | Type::Choice(_), Value::Integer(number)) => {
            accepts(ty, Value::String(number.to_string())).then(|| format!("write \"{number}\""))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::parse_value;
    use super::*;

    fn errors(ty: &Type, text: &str) -> String {
        let mut errors = Diagnostics::default();
        let good = check(ty, &parse_value(text).unwrap(), "k", &mut errors);
        assert_eq!(good, errors.is_empty());
        errors.to_string().replace("(built-in): ", "")
    }

    fn choice(names: &[&str]) -> Type {
        Type::Choice(names.iter().map(|name| name.to_string()).collect())
    }

    #[test]
    fn scalars() {
        let port = Type::Integer { min: 1, max: 9 };
        assert_eq!(errors(&port, "9"), "");
        assert_eq!(errors(&port, "12"), "k: found 12, expected an integer from 1 to 9");
        assert_eq!(errors(&port, "\"3\""), "k: found \"3\", expected an integer from 1 to 9; write 3 without quotes");
        assert_eq!(errors(&Type::Number, "1.5"), "");
        assert_eq!(errors(&Type::Number, "nan"), "k: found NaN, expected a number");
        assert_eq!(errors(&Type::Bool, "\"on\""), "k: found \"on\", expected true or false; write true");
        assert_eq!(errors(&Type::String, "80"), "k: found 80, expected a string; write \"80\"");
        assert_eq!(errors(&Type::Template, "1979-05-27"), "k: found the date 1979-05-27, expected a string");
        assert_eq!(
            errors(&Type::Duration, "\"75 sec\""),
            "k: found \"75 sec\", expected a duration such as \"75s\", \"1m30s\" or \"500ms\""
        );
        assert_eq!(errors(&Type::Size, "1.5"), "k: found 1.5, expected a size such as \"8k\", \"1m\" or \"2g\"");
        for good in ["1", "\"8k\"", "\"$rate\"", "\"${a}k\""] {
            assert_eq!(errors(&Type::SizeTemplate, good), "");
        }
        assert_eq!(
            errors(&Type::SizeTemplate, "\"8kb\""),
            "k: found \"8kb\", expected a size such as \"8k\", or a string with a variable such as \"$rate\""
        );
        assert_eq!(
            errors(&choice(&["strict", "lax"]), "\"stric\""),
            "k: found \"stric\", expected \"strict\" or \"lax\"; did you mean \"strict\"?"
        );
    }

    #[test]
    fn lists_and_tables() {
        let list = Type::List(Box::new(Type::String));
        assert_eq!(errors(&list, "\"a\""), "k: found \"a\", expected a list, each element a string; write [\"a\"]");
        assert_eq!(errors(&list, "[\"a\", true]"), "k[1]: found true, expected a string");
        let table = Type::Table(core_directives::module_fields());
        assert_eq!(errors(&table, "{ name = \"x\" }"), "");
        assert_eq!(
            errors(&table, "{ path = [], nmae = 1 }"),
            "k.name: missing, but required: a string\n\
             k.nmae: unknown key; did you mean \"name\"?\n\
             k.path: found a list, expected a string"
        );
    }

    #[test]
    fn alternatives() {
        let threads = Type::OneOf(vec![choice(&["auto"]), Type::Integer { min: 1, max: 8 }]);
        assert_eq!(errors(&threads, "8"), "");
        assert_eq!(errors(&threads, "9"), "k: found 9, expected \"auto\" or an integer from 1 to 8");
        assert_eq!(
            errors(&threads, "\"aoto\""),
            "k: found \"aoto\", expected \"auto\" or an integer from 1 to 8; did you mean \"auto\"?"
        );
        let log = &core_directives::find("access_log", Contexts::HTTP).unwrap().ty;
        assert_eq!(errors(log, "{ path = 1 }"), "k.path: found 1, expected a string; write \"1\"");
        assert_eq!(
            errors(log, "[{ path = \"a\" }, { paht = \"b\" }]").split(';').next(),
            Some("k[1].paht: unknown key")
        );
        assert_eq!(errors(log, "[1]"), format!("k[0]: found 1, expected {ONE_LOG}; write \"1\""));
    }

    const ONE_LOG: &str = "a string or a table with the keys path, format, buffer, flush, if";

    #[test]
    fn maps() {
        let formats = &core_directives::find("log_format", Contexts::HTTP).unwrap().ty;
        assert_eq!(errors(formats, "{ main = \"$uri\", long = [\"a\", \"b\"] }"), "");
        assert_eq!(
            errors(formats, "{ main = { format = \"x\", escape = \"jsn\" } }"),
            "k.main.escape: found \"jsn\", expected \"default\", \"json\" or \"none\"; did you mean \"json\"?"
        );
    }
}
