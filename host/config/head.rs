//! The part of the configuration that is needed before the modules are known: which modules there are.
//!
//! ```toml
//! module_path = ["modules"]
//!
//! [[module]]
//! name = "gzip"
//! version = "^1.2"
//! ```

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::check::{self, is_module_name};
use super::core_directives;
use super::diagnostic::{Diagnostics, quote};
use super::directive::{Block, Contexts, Type};
use super::source::Origin;
use super::tree::{Node, Table};

/// The modules of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Folders to look in first, relative to the prefix; empty if none was written.
    pub module_path: Vec<PathBuf>,
    /// In the order declared.
    pub modules: Vec<ModuleDecl>,
}

/// One `[[module]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleDecl {
    /// The module's name.
    pub name: String,
    /// The file to load.
    pub path: Option<PathBuf>,
    /// The versions that are accepted.
    pub version: Option<semver::VersionReq>,
    /// The SHA-256 of the file.
    pub sha256: Option<[u8; 32]>,
    /// Key `as`: the name of its table, if not the module's.
    pub alias: Option<String>,
    /// Modules whose order constraints with this one are waived.
    pub ignore_order: Vec<String>,
    /// The header.
    pub origin: Origin,
    /// The values that were written: key and place.
    pub origins: Vec<(String, Origin)>,
}

impl ModuleDecl {
    /// The name of its table in the configuration.
    pub fn table_name(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.name)
    }

    /// Where the value of a key was written; the header if it was not.
    pub fn origin_of(&self, key: &str) -> Origin {
        self.origins.iter().find(|(name, _)| name == key).map_or(self.origin, |(_, origin)| *origin)
    }
}

/// Reads and checks the modules' declarations.
pub(super) fn read(main: &Table, errors: &mut Diagnostics) -> Head {
    let mut head = Head { module_path: Vec::new(), modules: Vec::new() };
    if let Some(node) = main.get("module_path")
        && core_directives::find("module_path", Contexts::MAIN)
            .is_some_and(|directive| check::check(&directive.ty, node, "module_path", errors))
    {
        head.module_path = strings(node).map(PathBuf::from).collect();
    }
    let Some(node) = main.get("module") else { return head };
    if !check::check(&Type::Block(Block::Tables), node, "module", errors) {
        return head;
    }
    let ty = Type::Table(core_directives::module_fields());
    let mut first: HashMap<String, Origin> = HashMap::new();
    for node in node.as_list().unwrap_or(&[]) {
        if !check::check(&ty, node, "module", errors) {
            continue;
        }
        let Some(module) = declaration(node, errors) else {
            continue;
        };
        let key = if module.alias.is_some() { "as" } else { "name" };
        let at = module.origin_of(key);
        match first.get(module.table_name()) {
            Some(other) => {
                let place = errors.files().place(*other).to_string();
                let advice = "give one of the two another name with \"as\"";
                let message =
                    format!("{:?} is already the name of the module at {place}; {advice}", module.table_name());
                errors.push(at, format!("module.{key}"), message);
            }
            None => {
                first.insert(module.table_name().to_owned(), at);
                head.modules.push(module);
            }
        }
    }
    head
}

/// The names of the tables of all modules that are declared, as far as they can be read. No errors: `read` has those.
pub(super) fn table_names(main: &Table) -> HashSet<String> {
    let nodes = main.get("module").and_then(Node::as_list).unwrap_or(&[]);
    let tables = nodes.iter().filter_map(Node::as_table);
    tables.filter_map(|table| table.get("as").or(table.get("name"))?.as_str()).map(str::to_owned).collect()
}

/// Reads one declaration whose types have been checked.
fn declaration(node: &Node, errors: &mut Diagnostics) -> Option<ModuleDecl> {
    let table = node.as_table()?;
    let before = errors.len();
    let mut name_of = |key: &str| {
        let node = table.get(key)?;
        let name = node.as_str()?;
        let message = if !is_module_name(name) {
            let expected = "a name of a lower-case letter, then at most 63 of a-z, 0-9 and _";
            format!("found {}, expected {expected}", quote(name))
        } else if core_directives::contexts_of(name) != Contexts::NONE {
            format!("{name:?} is the name of a directive of the server, and so cannot be that of a module's table")
        } else {
            return Some(name.to_owned());
        };
        errors.push(node.origin, format!("module.{key}"), message);
        None
    };
    let (name, alias) = (name_of("name"), name_of("as"));
    let version = table.get("version").and_then(|node| {
        let text = node.as_str()?;
        semver::VersionReq::parse(text)
            .map_err(|error| {
                let message = format!("found {}, expected a requirement such as \"^1.2\": {error}", quote(text));
                errors.push(node.origin, "module.version", message);
            })
            .ok()
    });
    let sha256 = table.get("sha256").and_then(|node| {
        let digest = parse_sha256(node.as_str()?);
        if digest.is_none() {
            let message = format!("found {}, expected 64 hexadecimal digits", check::found(node));
            errors.push(node.origin, "module.sha256", message);
        }
        digest
    });
    if errors.len() > before {
        return None;
    }
    Some(ModuleDecl {
        name: name?,
        path: table.get("path").and_then(Node::as_str).map(PathBuf::from),
        version,
        sha256,
        alias,
        ignore_order: table.get("ignore_order").into_iter().flat_map(strings).map(str::to_owned).collect(),
        origin: node.origin,
        origins: table.iter().map(|entry| (entry.key.clone(), entry.node.origin)).collect(),
    })
}

fn strings(node: &Node) -> impl Iterator<Item = &str> {
    node.as_list().unwrap_or(&[]).iter().filter_map(Node::as_str)
}

fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::super::Document;

    fn errors(text: &str) -> String {
        Document::from_text("t.toml", text).unwrap().head().unwrap_err().to_string()
    }

    #[test]
    fn declarations_are_read_in_order() {
        let sha = "0123456789abcdefABCDEF".repeat(3)[..64].to_owned();
        let text = format!(
            "module_path = [\"m\"]\n[[module]]\nname = \"ssi\"\n[[module]]\nname = \"gzip\"\nas = \"gzip2\"\n\
             version = \">=1.2, <2\"\nsha256 = \"{sha}\"\npath = \"x.so\"\nignore_order = [\"ssi\"]\n[[module]]\nname = \"gzip\"\n"
        );
        let head = Document::from_text("t.toml", &text).unwrap().head().unwrap();
        let names: Vec<&str> = head.modules.iter().map(|module| module.table_name()).collect();
        assert_eq!(names, ["ssi", "gzip2", "gzip"]);
        let gzip = &head.modules[1];
        assert_eq!(gzip.sha256.unwrap()[..3], [0x01, 0x23, 0x45]);
        assert!(gzip.version.as_ref().unwrap().matches(&semver::Version::new(1, 9, 0)));
        assert_eq!((gzip.origin_of("version").line, gzip.origin_of("version").column), (7, 11));
        assert_eq!(gzip.origin_of("none").line, 4);
        assert_eq!(gzip.ignore_order, ["ssi"]);
        assert_eq!(head.module_path, [std::path::PathBuf::from("m")]);
    }

    #[test]
    fn all_faults_come_at_once() {
        let text = "module_path = \"m\"\n[[module]]\nname = \"gzip\"\n[[module]]\nname = \"gzip\"\n[[module]]\nname = \"Gzip\"\n\
                    [[module]]\nname = \"root\"\n[[module]]\nname = \"b\"\nversion = \"1.q\"\nsha256 = \"12\"\n\
                    [[module]]\nname = \"c\"\nas = \"gzip\"\n[[module]]\n";
        assert_eq!(
            errors(text),
            "t.toml:1:15: module_path: found \"m\", expected a list, each element a string; write [\"m\"]\n\
             t.toml:5:8: module.name: \"gzip\" is already the name of the module at t.toml:3:8; \
             give one of the two another name with \"as\"\n\
             t.toml:7:8: module.name: found \"Gzip\", expected a name of a lower-case letter, then at most 63 of a-z, 0-9 and _\n\
             t.toml:9:8: module.name: \"root\" is the name of a directive of the server, and so cannot be that of a module's table\n\
             t.toml:12:11: module.version: found \"1.q\", expected a requirement such as \"^1.2\": \
             unexpected character 'q' while parsing minor version number\n\
             t.toml:13:10: module.sha256: found \"12\", expected 64 hexadecimal digits\n\
             t.toml:16:6: module.as: \"gzip\" is already the name of the module at t.toml:3:8; \
             give one of the two another name with \"as\"\n\
             t.toml:17:1: module.name: missing, but required: a string"
        );
    }

    #[test]
    fn module_is_an_array_of_tables() {
        assert_eq!(
            errors("[module]\nname = \"gzip\"\n"),
            "t.toml:1:1: module: found a table, expected an array of tables; write [[module]]"
        );
    }
}
