//! Prepares modules for a place: hands a module its merged table, and keeps what it makes of it.

#![allow(unsafe_code)]

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use abi_stable::std_types::{RString, Tuple2};
use topnext_module_api::config::Value as Abi;

use super::LoadedModule;
use crate::config::{
    Diagnostics, Entry, Field, ModuleSchema, ModuleTable, Node, Presence, Type, Value,
    units::{duration, size},
};

/// What a module has made of its table at one place. Given back to it when the last user is gone.
pub struct Prepared {
    module: Arc<LoadedModule>,
    data: *const (),
    /// The module acts here: its key `enabled`, if it has one, is true.
    pub enabled: bool,
    ended: AtomicBool,
}

// SAFETY: the data are the module's configuration, which its bound on Module makes Send and Sync.
unsafe impl Send for Prepared {}
// SAFETY: as above.
unsafe impl Sync for Prepared {}

impl Prepared {
    /// What links carry.
    pub fn data(&self) -> *const () {
        self.data
    }

    /// The module.
    pub fn module(&self) -> &Arc<LoadedModule> {
        &self.module
    }
}

impl Prepared {
    /// Gives it back to the module. No request may use it any more.
    pub fn end(&self) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            // SAFETY: `configure` of this module made it; links that carry it are gone, or used no more, since the worker
            // is ending; and it is given back once.
            unsafe { self.module.release(self.data) }
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.end();
    }
}

/// Prepares tables, each once: places that share a table share what was made of it.
pub struct Preparer<'a> {
    modules: &'a [Arc<LoadedModule>],
    schemas: &'a [ModuleSchema],
    done: HashMap<*const ModuleTable, Option<Arc<Prepared>>>,
}

impl<'a> Preparer<'a> {
    /// Schemas and modules have the same order.
    pub fn new(modules: &'a [Arc<LoadedModule>], schemas: &'a [ModuleSchema]) -> Preparer<'a> {
        Preparer { modules, schemas, done: HashMap::new() }
    }

    /// What a module makes of a table; `None` if it is not active there, or the table is wrong, which is then reported.
    pub fn prepare(&mut self, table: &Arc<ModuleTable>, errors: &mut Diagnostics) -> Option<Arc<Prepared>> {
        let module = self.modules.get(table.module)?;
        let active = table.written || module.description.always;
        if !active || !table.valid || !table.complete {
            return None;
        }
        if let Some(done) = self.done.get(&Arc::as_ptr(table)) {
            return done.clone();
        }
        let value = to_abi_table(&self.schemas[table.module].fields, &table.table, true);
        let prepared = match module.configure(value) {
            Ok(configured) => {
                let (data, enabled) = (configured.data, configured.enabled);
                Some(Arc::new(Prepared { module: module.clone(), data, enabled, ended: AtomicBool::new(false) }))
            }
            Err(found) => {
                for error in found {
                    let (path, message) = (error.path.as_str(), error.message.as_str());
                    let key = table.key_of(&as_written(&self.schemas[table.module].fields, path));
                    errors.push(table.origin_of(path), key, message);
                }
                None
            }
        };
        let prepared = prepared.filter(|prepared| prepared.enabled);
        self.done.insert(Arc::as_ptr(table), prepared.clone());
        prepared
    }
}

impl Preparer<'_> {
    /// What a balancer makes of its table in one upstream: never shared, since it has the state of that upstream.
    pub fn prepare_own(
        &mut self,
        module: usize,
        table: Option<&Arc<ModuleTable>>,
        errors: &mut Diagnostics,
    ) -> Option<Arc<Prepared>> {
        let loaded = self.modules.get(module)?;
        let value = match table {
            Some(table) if !table.valid || !table.complete => return None,
            Some(table) => to_abi_table(&self.schemas[module].fields, &table.table, true),
            // Nobody can have written a table for it: the defaults hold.
            None => to_abi_table(&self.schemas[module].fields, &defaults(&self.schemas[module].fields), true),
        };
        match loaded.configure(value) {
            Ok(configured) if !configured.enabled => None,
            Ok(configured) => {
                let (data, enabled) = (configured.data, configured.enabled);
                Some(Arc::new(Prepared { module: loaded.clone(), data, enabled, ended: AtomicBool::new(false) }))
            }
            Err(found) => {
                for error in found {
                    let path = error.path.as_str();
                    let (origin, key) = match table {
                        Some(table) => (table.origin_of(path), table.key_of(path)),
                        None => (crate::config::Origin::BUILT_IN, loaded.name.clone()),
                    };
                    errors.push(origin, key, error.message.as_str());
                }
                None
            }
        }
    }
}

/// A module's path as it stands in the file: a merged key has a list for each level, whose number nobody has written.
fn as_written(fields: &[Field], path: &str) -> String {
    let merged = path.split_once('[').filter(|(key, _)| fields.iter().any(|field| field.merge && field.key == *key));
    match merged.and_then(|(key, rest)| Some((key, rest.split_once(']')?.1))) {
        Some((key, rest)) => format!("{key}{rest}"),
        None => path.to_string(),
    }
}

/// The defaults of a schema, as a table.
fn defaults(fields: &[Field]) -> crate::config::Table {
    let mut table = crate::config::Table::new();
    for field in fields {
        if let Presence::Default { node, .. } = &field.presence {
            table.push(Entry { key: field.key.clone(), key_origin: node.origin, node: node.clone() });
        }
    }
    table
}

/// A checked table as the ABI has it: durations in milliseconds, sizes in bytes.
fn to_abi_table(fields: &[Field], table: &crate::config::Table, outermost: bool) -> Abi {
    let mut entries = Vec::new();
    for entry in table.iter() {
        let Some(field) = fields.iter().find(|field| field.key == entry.key) else { continue };
        let value = match (&entry.node.value, outermost && field.merge) {
            (Value::List(levels), true) => {
                Abi::List(levels.iter().map(|level| to_abi(&field.ty, level)).collect::<Vec<_>>().into())
            }
            _ => to_abi(&field.ty, &entry.node),
        };
        entries.push(Tuple2(RString::from(entry.key.as_str()), value));
    }
    Abi::Table(entries.into())
}

fn to_abi(ty: &Type, node: &Node) -> Abi {
    let integer = |number: u128| Abi::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    match (ty, &node.value) {
        (Type::Duration, value) => integer(duration(value).unwrap_or_default().as_millis()),
        (Type::Size, value) => integer(u128::from(size(value).unwrap_or_default())),
        (Type::SizeTemplate, value) if let Some(bytes) = size(value) => integer(u128::from(bytes)),
        (Type::Table(fields), Value::Table(table)) => to_abi_table(fields, table, false),
        (Type::List(item), Value::List(list)) => {
            Abi::List(list.iter().map(|node| to_abi(item, node)).collect::<Vec<_>>().into())
        }
        (_, Value::Bool(flag)) => Abi::Bool(*flag),
        (_, Value::Integer(number)) => Abi::Integer(*number),
        (_, Value::Float(number)) => Abi::Float(*number),
        (_, Value::String(text)) => Abi::String(text.as_str().into()),
        // Checked values do not get here; a wrong one is refused by the module.
        _ => Abi::List(Vec::new().into()),
    }
}
