//! The keys of a module, as its description gives them.
//!
//! A description is TOML text; of its keys only `config` is read here, and whether it is inherited (`inherit`):
//!
//! ```toml
//! config = [
//!   { key = "types", type = { list = { string = {} } }, default = '["text/html"]', doc = "MIME types to compress." },
//!   { key = "comp_level", type = { integer = { min = 1, max = 9 } }, default = '1', doc = "" },
//!   { key = "expires", type = { duration = {} }, optional = true, doc = "" },
//!   { key = "mode", type = { choice = ["on", "off"] }, default = '"on"', doc = "" },
//!   { key = "pass", type = { string = {} }, required = true, doc = "" },
//! ]
//! ```
//!
//! Types: bool, integer {min?, max?}, number, string, duration, size, size_template, template, choice \[...\], list TYPE, table \[...\].
//! A field has a `default` (TOML text), or is `optional` (absent unless written), or else is required.
//! At the outermost level only, `merge = true` asks for the values of all levels, and `inherit = false` for that of the
//! module's own level and no other.

use super::check;
use super::diagnostic::Diagnostics;
use super::directive::{Contexts, Field, Presence, Type};
use super::source::Files;
use super::tree::{self, Node, Table, Value};

/// How deep types may be nested.
const MAX_NESTING: usize = 16;

/// What is known of a module's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleSchema {
    /// The name of its table: the module's name, or the alias it was declared with.
    pub name: String,
    /// Where its table may stand.
    pub contexts: Contexts,
    /// Its keys.
    pub fields: Vec<Field>,
    /// Whether the keys hold inside the level in which they are written.
    pub inherit: bool,
}

impl ModuleSchema {
    /// Reads the schema from a module's description. An error is the module's fault and says what is wrong with it.
    pub fn parse(description: &str, config_table_name: &str, contexts: Contexts) -> Result<ModuleSchema, String> {
        let mut files = Files::default();
        let file = files.add("description").unwrap_or_default();
        let mut errors = Vec::new();
        let table = tree::parse(description, file, &files, &mut errors);
        if let Some(error) = errors.first() {
            return Err(format!("{}: {} {}", files.place(error.origin), error.key, error.message));
        }
        let fields = match table.get("config") {
            None => Vec::new(),
            Some(node) => fields(node, 0).map_err(|message| format!("config: {message}"))?,
        };
        let inherit = table.get("inherit").and_then(Node::as_bool).unwrap_or(true);
        Ok(ModuleSchema { name: config_table_name.to_owned(), contexts, fields, inherit })
    }

    /// The definition of a key.
    pub fn field(&self, key: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.key == key)
    }

    /// True if the module has a key `enabled` that switches it.
    pub fn has_switch(&self) -> bool {
        self.field("enabled").is_some_and(|field| field.ty == Type::Bool)
    }
}

fn fields(node: &Node, depth: usize) -> Result<Vec<Field>, String> {
    let nodes = node.as_list().ok_or("expected a list of fields")?;
    let mut fields: Vec<Field> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let table = node.as_table().ok_or_else(|| format!("field {index}: expected a table"))?;
        let key = table.get("key").and_then(Node::as_str).ok_or_else(|| format!("field {index}: key is missing"))?;
        if key.is_empty() || fields.iter().any(|other| other.key == key) {
            return Err(format!("field {index}: key {key:?} is empty or stands twice"));
        }
        fields.push(field(key, table, depth).map_err(|message| format!("{key}: {message}"))?);
    }
    Ok(fields)
}

fn field(key: &str, table: &Table, depth: usize) -> Result<Field, String> {
    let ty = parse_type(table.get("type").ok_or("type is missing")?, depth)?;
    let flag = |name: &str, default| match table.get(name) {
        None => Ok(default),
        Some(node) => node.as_bool().ok_or_else(|| format!("{name}: expected true or false")),
    };
    let (required, optional) = (flag("required", false)?, flag("optional", false)?);
    let presence = match table.get("default") {
        Some(_) if required || optional => return Err("a default, and also required or optional".to_owned()),
        None if required && optional => return Err("both required and optional".to_owned()),
        None if optional => Presence::Optional,
        None => Presence::Required,
        Some(node) => default(&ty, node.as_str().ok_or("default: expected a string that holds TOML text")?)?,
    };
    let (merge, inherit) = (flag("merge", false)?, flag("inherit", true)?);
    if depth > 0 && (merge || !inherit) {
        let name = if merge { "merge" } else { "inherit" };
        return Err(format!("{name} is possible for the keys of the module's table only"));
    }
    if merge && !inherit {
        return Err("merge, and also not inherited".to_owned());
    }
    let doc = table.get("doc").and_then(Node::as_str).unwrap_or("").to_owned();
    Ok(Field { key: key.to_owned(), ty, presence, merge, inherit, doc })
}

fn default(ty: &Type, text: &str) -> Result<Presence, String> {
    let node = tree::parse_value(text).map_err(|message| format!("default {text:?}: {message}"))?;
    let mut errors = Diagnostics::default();
    if !check::check(ty, &node, "default", &mut errors) {
        let message = errors.iter().next().map_or("", |error| error.message.as_str());
        return Err(format!("default {text:?}: {message}"));
    }
    Ok(Presence::Default { text: text.to_owned(), node })
}

/// A type is a table with one key, its name; the value holds its parameters.
fn parse_type(node: &Node, depth: usize) -> Result<Type, String> {
    if depth > MAX_NESTING {
        return Err(format!("types are nested deeper than {MAX_NESTING}"));
    }
    let mut entries = node.as_table().ok_or("type: expected a table such as { string = {} }")?.iter();
    let (Some(entry), None) = (entries.next(), entries.next()) else {
        return Err("type: expected a table with one key, the name of the type".to_owned());
    };
    let parameters = &entry.node;
    Ok(match entry.key.as_str() {
        "bool" => Type::Bool,
        "integer" => {
            let (min, max) =
                (bound(parameters, "min")?.unwrap_or(i64::MIN), bound(parameters, "max")?.unwrap_or(i64::MAX));
            if min > max {
                return Err(format!("type integer: min {min} is greater than max {max}"));
            }
            Type::Integer { min, max }
        }
        "number" => Type::Number,
        "string" => Type::String,
        "duration" => Type::Duration,
        "size" => Type::Size,
        "size_template" => Type::SizeTemplate,
        "template" => Type::Template,
        "choice" => {
            let names = parameters.as_list().unwrap_or(&[]).iter().map(|node| node.as_str().map(str::to_owned));
            match names.collect::<Option<Vec<String>>>() {
                Some(names) if !names.is_empty() => Type::Choice(names),
                _ => return Err("type choice: expected a list of strings".to_owned()),
            }
        }
        "list" => Type::List(Box::new(parse_type(parameters, depth + 1)?)),
        "table" => Type::Table(fields(parameters, depth + 1)?),
        other => return Err(format!("type {other:?} is not known to this server")),
    })
}

fn bound(parameters: &Node, name: &str) -> Result<Option<i64>, String> {
    let Some(node) = parameters.as_table().and_then(|table| table.get(name)) else {
        return Ok(None);
    };
    match node.value {
        Value::Integer(number) => Ok(Some(number)),
        _ => Err(format!("type integer: {name}: expected an integer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(config: &str) -> Result<ModuleSchema, String> {
        ModuleSchema::parse(&format!("name = \"m\"\nconfig = [{config}]"), "m", Contexts::HTTP)
    }

    #[test]
    fn every_type_is_read() {
        let schema = parse(
            r#"
            { key = "enabled", type = { bool = {} }, default = 'false', doc = "d" },
            { key = "i", type = { integer = { min = 1, max = 9 } }, default = '1', doc = "" },
            { key = "j", type = { integer = {} }, optional = true, doc = "" },
            { key = "n", type = { number = {} }, default = '1.5', doc = "" },
            { key = "s", type = { string = {} }, required = true, doc = "" },
            { key = "d", type = { duration = {} }, default = '"1s"', doc = "" },
            { key = "z", type = { size = {} }, default = '"1k"', doc = "" },
            { key = "c", type = { choice = ["on", "off"] }, default = '"on"', doc = "" },
            { key = "h", type = { list = { table = [
                { key = "name", type = { string = {} }, doc = "" },
                { key = "value", type = { template = {} }, default = '""', doc = "" },
            ] } }, default = '[]', merge = true, doc = "" },
            "#,
        )
        .unwrap();
        assert_eq!(schema.fields.len(), 9);
        assert!(schema.has_switch());
        assert_eq!(schema.field("i").unwrap().ty, Type::Integer { min: 1, max: 9 });
        assert_eq!(schema.field("j").unwrap().ty, Type::Integer { min: i64::MIN, max: i64::MAX });
        assert_eq!(schema.field("j").unwrap().presence, Presence::Optional);
        assert_eq!(schema.field("s").unwrap().presence, Presence::Required);
        let h = schema.field("h").unwrap();
        assert!(h.merge);
        let Type::List(element) = &h.ty else { panic!("{:?}", h.ty) };
        let Type::Table(fields) = &**element else { panic!("{element:?}") };
        assert_eq!((fields[0].presence.clone(), fields[1].ty.clone()), (Presence::Required, Type::Template));
        assert_eq!(ModuleSchema::parse("name = \"m\"", "m", Contexts::HTTP).unwrap().fields, []);
    }

    #[test]
    fn bad_schemas_are_the_modules_fault() {
        let error = |config: &str| parse(config).unwrap_err();
        assert_eq!(error("1"), "config: field 0: expected a table");
        assert_eq!(error("{ key = \"a\" }"), "config: a: type is missing");
        assert_eq!(error("{ key = \"a\", type = { x = {} } }"), "config: a: type \"x\" is not known to this server");
        assert_eq!(
            error("{ key = \"a\", type = { integer = {} }, default = '\"x\"' }"),
            "config: a: default \"\\\"x\\\"\": found \"x\", expected an integer"
        );
        assert_eq!(
            error("{ key = \"a\", type = { integer = { min = 2, max = 1 } } }"),
            "config: a: type integer: min 2 is greater than max 1"
        );
        assert_eq!(
            error("{ key = \"a\", type = { choice = [] } }"),
            "config: a: type choice: expected a list of strings"
        );
        let field = "{ key = \"a\", type = { bool = {} } }";
        assert_eq!(error(&format!("{field}, {field}")), "config: field 1: key \"a\" is empty or stands twice");
        assert!(error("{").starts_with("description:2:"));
        let deep = format!("{{ key = \"a\", type = {}{{ bool = {{}} }}{} }}", "{ list = ".repeat(30), " }".repeat(30));
        assert_eq!(error(&deep), "config: a: types are nested deeper than 16");
    }
}
