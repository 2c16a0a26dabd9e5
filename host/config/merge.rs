//! Inheritance: from http over server to location.
//!
//! For each key the innermost level that sets it counts, as with nginx's directives. A module's key with `merge = true`
//! gets the list of the values of all levels instead, outermost first (its default is then a list of one value), and one
//! with `inherit = false` only that of its own level:
//!
//! ```text
//! http:      headers.set = [A]
//! location:  headers.set = [B, C]        the module gets [[A], [B, C]]
//! ```

use std::sync::Arc;

use super::check::{Level, Written, missing};
use super::diagnostic::{Diagnostics, join_key};
use super::directive::{Field, Presence, Type};
use super::schema::ModuleSchema;
use super::source::Origin;
use super::tree::{Entry, Node, Table, Value};

/// The configuration of one module in one scope, merged and with its defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleTable {
    /// Index of the module in the schemas.
    pub module: usize,
    /// Whether any level wrote the module's table.
    pub written: bool,
    /// The value of the key `enabled`; true if the module has no such key.
    pub enabled: bool,
    /// Whether no required key is missing. If one is, the module cannot work in this scope. That is an error only if
    /// the scope wrote the table, no location inside it sets the key, and the module is enabled.
    pub complete: bool,
    /// False if what was written for this scope has errors. Then `table` lacks those parts, and there is no point in
    /// showing it to the module.
    pub valid: bool,
    /// The keys and values, all valid.
    pub table: Table,
    /// Key of the innermost table that was written, such as `http.server.location.gzip`.
    pub key_prefix: String,
    /// Header of that table; of the scope, if none was written.
    pub origin: Origin,
    /// The key prefix of the level that set each key of `table`, in the same order.
    prefixes: Vec<Arc<str>>,
}

impl ModuleTable {
    /// Where the value at a path such as `set_header[1].value` was written. If there is none, where the nearest part of
    /// the path was; at last, where the table was.
    pub fn origin_of(&self, path: &str) -> Origin {
        let mut steps = steps(path);
        let Some(Step::Key(first)) = steps.next() else {
            return self.origin;
        };
        let Some(mut node) = self.table.get(first) else {
            return self.origin;
        };
        for step in steps {
            let below = match step {
                Step::Key(key) => node.as_table().and_then(|table| table.get(key)),
                Step::Index(index) => node.as_list().and_then(|nodes| nodes.get(index)),
            };
            match below {
                Some(below) => node = below,
                None => break,
            }
        }
        node.origin
    }

    /// The whole key of a path: behind the prefix of the level that set it.
    pub fn key_of(&self, path: &str) -> String {
        let first = match steps(path).next() {
            Some(Step::Key(first)) => self.table.iter().position(|entry| entry.key == first),
            _ => None,
        };
        let prefix = first.and_then(|index| self.prefixes.get(index)).map_or(self.key_prefix.as_str(), |prefix| prefix);
        if path.is_empty() { prefix.to_owned() } else { format!("{prefix}.{path}") }
    }
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// Splits `a[1].b` into a, 1, b. What is neither a key nor an index is left out.
fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split(['.', '[']).filter(|part| !part.is_empty()).map(|part| match part.strip_suffix(']') {
        Some(index) => index.parse().map_or(Step::Key(part), Step::Index),
        None => Step::Key(part),
    })
}

/// The tables of all modules in the innermost of `levels`; these are given outermost first. `outer` are those of the
/// scope around it, empty if there is none.
pub(super) fn modules(
    schemas: &[ModuleSchema],
    levels: &[&Level<'_>],
    outer: &[Arc<ModuleTable>],
    errors: &mut Diagnostics,
) -> Vec<Arc<ModuleTable>> {
    let Some(own) = levels.last() else { return Vec::new() };
    let tables = schemas.iter().enumerate().map(|(index, schema)| {
        let written = own.modules.get(index).and_then(Option::as_ref);
        // What is not inherited is as if the levels around had not written it.
        let levels = if schema.inherit { levels } else { std::slice::from_ref(own) };
        match (written, outer.get(index)) {
            (None, Some(shared)) if !shared.written || inherits_all(schema, index, levels) => shared.clone(),
            _ => {
                let table = merge(schema, index, levels);
                if let Some(written) = written {
                    report_missing(schema, &table, own, written, errors);
                }
                Arc::new(table)
            }
        }
    });
    tables.collect()
}

/// Whether what holds around the innermost level holds in it, too, if it writes nothing itself.
fn inherits_all(schema: &ModuleSchema, index: usize, levels: &[&Level<'_>]) -> bool {
    // What is further out has not come to the level around, either.
    let around = levels.len().checked_sub(2).and_then(|around| levels.get(around)?.modules.get(index)?.as_ref());
    let stays = |field: &Field| !field.inherit && around.is_some_and(|written| written.table.get(&field.key).is_some());
    schema.inherit && !schema.fields.iter().any(stays)
}

fn merge(schema: &ModuleSchema, index: usize, levels: &[&Level<'_>]) -> ModuleTable {
    let written: Vec<(Arc<str>, &Written<'_>)> = levels
        .iter()
        .filter_map(|level| {
            let written = level.modules.get(index)?.as_ref()?;
            Some((Arc::from(join_key(&level.prefix, &schema.name)), written))
        })
        .collect();
    let own = levels.last();
    let (key_prefix, origin) = match written.last() {
        Some((prefix, written)) => (prefix.clone(), written.origin),
        None => (
            Arc::from(join_key(own.map_or("", |level| &level.prefix), &schema.name)),
            own.map_or(Origin::BUILT_IN, |level| level.origin),
        ),
    };
    let mut result = ModuleTable {
        module: index,
        written: !written.is_empty(),
        enabled: true,
        complete: true,
        valid: written.iter().all(|(_, written)| written.valid),
        table: Table::new(),
        key_prefix: key_prefix.to_string(),
        origin,
        prefixes: Vec::new(),
    };
    // A key that is not inherited is as if the levels around had not written it.
    let own_only = usize::from(own.is_some_and(|own| own.modules.get(index).is_some_and(Option::is_some)));
    for field in &schema.fields {
        let heard = if field.inherit { &written[..] } else { &written[written.len() - own_only..] };
        let found = heard.iter().filter_map(|(prefix, written)| {
            let entry = written.table.entry(&field.key)?;
            Some((prefix, entry.key_origin, written.get(&field.key)?))
        });
        let (prefix, key_origin, node) = match found.clone().next_back() {
            Some((prefix, key_origin, node)) if field.merge => {
                let values = found.map(|(_, _, node)| filled(&field.ty, node)).collect();
                (prefix.clone(), key_origin, Node { value: Value::List(values), origin: node.origin })
            }
            Some((prefix, key_origin, node)) => (prefix.clone(), key_origin, filled(&field.ty, node)),
            None => match &field.presence {
                Presence::Default { node, .. } => (key_prefix.clone(), origin, default_value(field, node, origin)),
                Presence::Optional => continue,
                Presence::Required => {
                    result.complete = false;
                    continue;
                }
            },
        };
        result.prefixes.push(prefix);
        result.table.push(Entry { key: field.key.clone(), key_origin, node });
    }
    if schema.has_switch() {
        result.enabled = result.table.get("enabled").and_then(Node::as_bool).unwrap_or(false);
    }
    result
}

fn default_value(field: &Field, default: &Node, origin: Origin) -> Node {
    let mut node = filled(&field.ty, default);
    if field.merge {
        node = Node { value: Value::List(vec![node]), origin };
    }
    node.set_origin(origin);
    node
}

/// Reports the required keys that nobody who inherits from this level sets, at the table's header.
fn report_missing(
    schema: &ModuleSchema,
    merged: &ModuleTable,
    own: &Level<'_>,
    written: &Written<'_>,
    errors: &mut Diagnostics,
) {
    if merged.complete || !merged.enabled {
        return;
    }
    for field in schema.fields.iter().filter(|field| field.presence == Presence::Required) {
        let set = merged.table.get(&field.key).is_some() || written.refused.contains(&field.key.as_str());
        let below = || schema.inherit && set_below(own.table, &schema.name, &field.key);
        if !set && !below() {
            let own = if field.inherit { "" } else { "; that of the level around does not hold here" };
            errors.push(written.origin, join_key(&merged.key_prefix, &field.key), missing(&field.ty) + own);
        }
    }
}

/// Whether any server or location inside `table` sets the key of the module.
fn set_below(table: &Table, module: &str, key: &str) -> bool {
    let blocks = ["server", "location"].into_iter().filter_map(|name| table.get(name)?.as_list());
    blocks.flatten().filter_map(Node::as_table).any(|block| {
        block.get(module).and_then(Node::as_table).is_some_and(|own| own.get(key).is_some())
            || set_below(block, module, key)
    })
}

/// A copy of the value in which the tables have their defaults.
pub(super) fn filled(ty: &Type, node: &Node) -> Node {
    let mut node = node.clone();
    fill_defaults(ty, &mut node);
    node
}

/// Adds to each table the keys that were not written and have a default; their origin is that of the table.
fn fill_defaults(ty: &Type, node: &mut Node) {
    let origin = node.origin;
    match (ty, &mut node.value) {
        (Type::List(element), Value::List(nodes)) => nodes.iter_mut().for_each(|node| fill_defaults(element, node)),
        (Type::Table(fields), Value::Table(table)) => {
            for field in fields {
                match (table.get_mut(&field.key), &field.presence) {
                    (Some(node), _) => fill_defaults(&field.ty, node),
                    (None, Presence::Default { node, .. }) => {
                        let mut node = node.clone();
                        node.set_origin(origin);
                        fill_defaults(&field.ty, &mut node);
                        table.push(Entry { key: field.key.clone(), key_origin: origin, node });
                    }
                    (None, _) => {}
                }
            }
        }
        (Type::Map(element), Value::Table(table)) => {
            table.iter_mut().for_each(|entry| fill_defaults(element, &mut entry.node));
        }
        (Type::OneOf(types), Value::Table(_)) => {
            if let Some(ty) = types.iter().find(|ty| matches!(ty, Type::Table(_) | Type::Map(_))) {
                fill_defaults(ty, node);
            }
        }
        (Type::OneOf(types), Value::List(_)) => {
            if let Some(ty) = types.iter().find(|ty| matches!(ty, Type::List(_))) {
                fill_defaults(ty, node);
            }
        }
        _ => {}
    }
}
