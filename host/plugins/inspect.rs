//! `topnext inspect FILE.so`: what a module says about itself, and whether this host would load it.
//!
//! Nothing of the file is run, and it is not loaded.

use std::fmt::Write as _;
use std::path::Path;

use toml::{Table, Value};

use super::check;
use super::description::{Description, hex};
use super::report::{Refusal, RefusalKind, printable};

/// How deep tables and lists of the schema are followed.
const MAX_NESTING: usize = 16;

/// The text for the file, which ends in a line end. An error: it has no description that can be read.
pub fn inspect(path: &Path) -> Result<String, Refusal> {
    let description = Description::read(path)?;
    let digest = description.sha256().map_err(|error| {
        super::description::refusal(path, RefusalKind::NotReadable)
            .line("found", error.to_string())
            .line("fix", "make it a file that this user may read")
    })?;
    let mut out = String::new();
    let about = if description.about.is_empty() { String::new() } else { format!(": {}", description.about) };
    put(&mut out, &format!("module {} {}{about}", description.name, description.version));
    for (label, text) in facts(&description, &hex(&digest)) {
        put(&mut out, &format!("  {label:<11}  {text}"));
    }
    put(&mut out, "");
    keys(&mut out, &description);
    put(&mut out, "");
    let host = format!("this host ({}, {})", check::host_api(), topnext_module_api::TARGET);
    match check::host(&description) {
        Ok(()) => {
            put(&mut out, &format!("{host} would load it"));
            put(&mut out, "  the layout of its types and its start are checked when it is loaded");
        }
        Err(refusal) => {
            put(&mut out, &format!("{host} would refuse it: {}", refusal.kind.headline()));
            // Its first line is the file again.
            let rest = Refusal { lines: refusal.lines.into_iter().skip(1).collect(), ..Refusal::new("", refusal.kind) };
            let _ = writeln!(out, "{}", rest.details().to_string().trim_start_matches('\n'));
        }
    }
    Ok(out)
}

fn facts(description: &Description, digest: &str) -> Vec<(&'static str, String)> {
    let list = |words: &[String]| words.join(", ");
    let mut facts = vec![
        ("file", description.file.display().to_string()),
        ("size", format!("{} bytes", description.size)),
        ("sha256", digest.to_owned()),
        ("built with", check::module_api(description)),
        ("target", format!("{}, panic = {:?}", description.target, description.panic)),
        ("provides", list(&description.provides.iter().cloned().collect::<Vec<_>>())),
    ];
    for (label, words) in [
        ("phases", &description.phases),
        ("parameters", &description.server_parameters),
        ("variables", &description.variables),
        ("after", &description.after),
        ("before", &description.before),
    ] {
        if !words.is_empty() {
            facts.push((label, list(words)));
        }
    }
    let active = if description.always { "wherever it can be" } else { "where it is configured" };
    facts.push(("active", active.to_owned()));
    facts
}

/// The keys as a table: key, type, default, doc.
fn keys(out: &mut String, description: &Description) {
    let table = description.text.parse::<Table>().unwrap_or_default();
    let mut rows = Vec::new();
    if let Some(Value::Array(fields)) = table.get("config") {
        collect(fields, "", 0, &mut rows);
    }
    if rows.is_empty() {
        put(out, &format!("the table {} has no keys", description.name));
        return;
    }
    put(out, &format!("keys of the table {}", description.name));
    rows.insert(0, ["key", "type", "default", ""].map(str::to_owned));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (key_width, type_width, default_width) = (width(0), width(1), width(2));
    for [key, ty, default, doc] in &rows {
        let row = format!("  {key:<key_width$}  {ty:<type_width$}  {default:<default_width$}  {doc}");
        put(out, row.trim_end());
    }
}

/// Adds the rows of these fields, and below each table or list of tables those of its own fields.
fn collect(fields: &[Value], prefix: &str, depth: usize, rows: &mut Vec<[String; 4]>) {
    for field in fields {
        let text = |key: &str| field.get(key).and_then(Value::as_str).unwrap_or("");
        let flag = |key: &str| field.get(key).and_then(Value::as_bool).unwrap_or(false);
        let key = format!("{prefix}{}", text("key"));
        let default = if flag("required") {
            "(required)"
        } else if flag("optional") {
            "(none)"
        } else {
            text("default")
        };
        let ty = field.get("type");
        let mut shown = ty.map_or_else(String::new, |ty| type_name(ty, depth));
        if flag("merge") {
            shown.push_str(", of all levels");
        }
        if field.get("inherit").and_then(toml::Value::as_bool) == Some(false) {
            shown.push_str(", not inherited");
        }
        rows.push([key.clone(), shown, default.to_owned(), text("doc").to_owned()].map(|cell| printable(&cell)));
        if let Some((inner, steps)) = ty.and_then(|ty| inner_fields(ty, depth)) {
            collect(inner, &format!("{key}{steps}."), depth + 1, rows);
        }
    }
}

/// The fields of a table, or of the tables of a list, and how a path goes on to them.
fn inner_fields(ty: &Value, depth: usize) -> Option<(&[Value], String)> {
    let (mut ty, mut steps) = (ty, String::new());
    for _ in depth..MAX_NESTING {
        match ty.get("list") {
            Some(item) => ty = item,
            None => return Some((ty.get("table")?.as_array()?, steps)),
        }
        steps.push_str("[]");
    }
    None
}

/// A type in words: `integer 1 to 9`, `list of string`, `"on" | "off"`.
fn type_name(ty: &Value, depth: usize) -> String {
    let Some((name, parameters)) = ty.as_table().and_then(|table| table.iter().next()) else {
        return "(unknown)".to_owned();
    };
    match name.as_str() {
        "list" if depth < MAX_NESTING => format!("list of {}", type_name(parameters, depth + 1)),
        "choice" => {
            let words = parameters.as_array().map_or(&[][..], Vec::as_slice).iter().filter_map(Value::as_str);
            words.map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" | ")
        }
        "integer" => {
            let bound = |key: &str, none: i64| parameters.get(key).and_then(Value::as_integer).filter(|at| *at != none);
            match (bound("min", i64::MIN), bound("max", i64::MAX)) {
                (Some(min), Some(max)) => format!("integer {min} to {max}"),
                (Some(min), None) => format!("integer from {min}"),
                (None, Some(max)) => format!("integer up to {max}"),
                (None, None) => "integer".to_owned(),
            }
        }
        other => other.to_owned(),
    }
}

/// Adds a line, without what could command a terminal.
fn put(out: &mut String, line: &str) {
    out.push_str(&printable(line));
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Folder, module};
    use super::*;

    #[test]
    fn shows_all_that_is_known() {
        let folder = Folder::new("inspect_all");
        let path = folder.file(
            "libx.so",
            &module(&[
                "after = [\"ssi\", ]",
                "variables = [\"x_ratio\", ]",
                r#"config = [
                { key = "enabled", type = { bool = {} }, default = "false", doc = "Switches it." },
                { key = "level", type = { integer = { min = 1, max = 9 } }, default = "6", doc = "" },
                { key = "mode", type = { choice = ["on", "off", ] }, optional = true, doc = "How." },
                { key = "set", type = { list = { table = [
                    { key = "name", type = { string = {} }, required = true, doc = "The\u001b[1m name." },
                ] } }, default = "[]", merge = true, doc = "Fields." },
                ]"#,
            ]),
        );
        let size = std::fs::metadata(&path).unwrap().len();
        let digest = hex(&Description::read(&path).unwrap().sha256().unwrap());
        let (api, epoch, target) =
            (topnext_module_api::API_VERSION, topnext_module_api::ABI_EPOCH, topnext_module_api::TARGET);
        let expected = format!(
            r#"module x 0.1.0: A test
  file         {path}
  size         {size} bytes
  sha256       {digest}
  built with   module-api {api} (abi {epoch}), built by rustc 1.2.3
  target       {target}, panic = "unwind"
  provides     filter
  variables    x_ratio
  after        ssi
  active       where it is configured

keys of the table x
  key         type                          default
  enabled     bool                          false       Switches it.
  level       integer 1 to 9                6
  mode        "on" | "off"                  (none)      How.
  set         list of table, of all levels  []          Fields.
  set[].name  string                        (required)  The\u{{1b}}[1m name.

this host (module-api {api} (abi {epoch}), {target}) would load it
  the layout of its types and its start are checked when it is loaded
"#,
            path = path.display()
        );
        assert_eq!(inspect(&path).unwrap(), expected);
    }

    #[test]
    fn says_why_this_host_would_refuse_it() {
        let folder = Folder::new("inspect_refused");
        let path = folder.file("libx.so", &module(&["panic = \"abort\""]));
        let text = inspect(&path).unwrap();
        assert!(text.contains("\nthe table x has no keys\n"), "{text}");
        let end = "would refuse it: its panics would end the worker\n  host    panic = \"unwind\": a panic costs one request\n  module  panic = \"abort\"\n  fix     remove panic = \"abort\" from its profile in Cargo.toml, and from RUSTFLAGS\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn a_file_without_description_is_an_error() {
        let folder = Folder::new("inspect_none");
        let path = folder.file("libx.so", b"no");
        assert_eq!(inspect(&path).unwrap_err().kind, RefusalKind::NotElf);
    }
}
