//! TOML text to a tree in which every key and value knows where it stands.
//!
//! ```text
//! [http]                 Table { http: Table { gzip: Table { types: List ["text/css"] } } }
//! gzip.types = ["text/css"]
//! ```
//!
//! The parser recovers from syntax errors, so that those of a whole file come at once; since one slip often leads to
//! more on the same line, only the first error of a line is reported.

use std::collections::HashSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, quote};
use super::source::{Files, LineIndex, Origin};

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What was written.
    pub value: Value,
    /// Where: the value itself; for a `[table]` its header; for a table made by a dotted key that key.
    pub origin: Origin,
}

/// A TOML value. Dates are kept as text only to say that they are not expected anywhere.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// An integer of 64 bits.
    Integer(i64),
    /// A number with a fraction, or inf or nan.
    Float(f64),
    /// A string.
    String(String),
    /// A date or time, as written; no key takes one.
    Datetime(String),
    /// An array, or an array of tables.
    List(Vec<Node>),
    /// A table of any form.
    Table(Table),
}

/// A table; its keys in the order in which they stand in the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    entries: Vec<Entry>,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key, unquoted.
    pub key: String,
    /// Where the key stands (the last time, if tables repeat it).
    pub key_origin: Origin,
    /// The value.
    pub node: Node,
}

impl Table {
    /// An empty table.
    pub fn new() -> Self {
        Table::default()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// The entry of a key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node)
    }

    /// Adds an entry at the end. The caller sees to it that the key is new; with a repeated key the first one counts.
    pub fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        let index = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(index))
    }

    /// The entries in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Entry> {
        self.entries.iter()
    }

    /// The entries in order, to be changed.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Entry> {
        self.entries.iter_mut()
    }

    /// True without any key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

impl IntoIterator for Table {
    type Item = Entry;
    type IntoIter = std::vec::IntoIter<Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl Node {
    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self.value {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The integer, if it is one.
    pub fn as_integer(&self) -> Option<i64> {
        match self.value {
            Value::Integer(value) => Some(value),
            _ => None,
        }
    }

    /// The elements, if it is a list.
    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(nodes) => Some(nodes),
            _ => None,
        }
    }

    /// The table, if it is one.
    pub fn as_table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Gives the node and all below it one origin (a built-in default gets the place that makes it apply).
    pub fn set_origin(&mut self, origin: Origin) {
        self.origin = origin;
        match &mut self.value {
            Value::List(nodes) => nodes.iter_mut().for_each(|node| node.set_origin(origin)),
            Value::Table(table) => {
                for entry in table.iter_mut() {
                    entry.key_origin = origin;
                    entry.node.set_origin(origin);
                }
            }
            _ => {}
        }
    }
}

/// Parses a file. Errors are added to `errors`; the table is what could be understood.
pub fn parse(text: &str, file: u16, files: &Files, errors: &mut Vec<Diagnostic>) -> Table {
    let index = LineIndex::new(text, file);
    let (document, faults) = DeTable::parse_recoverable(text);
    let mut syntax = Vec::new();
    report_syntax(&document, faults, text, &index, files, &mut syntax);
    let mut refused = Vec::new();
    let table = Converter { index, errors: &mut refused }.table(document.into_inner());
    let lines: HashSet<u32> = syntax.iter().map(|error| error.origin.line).collect();
    refused.retain(|error| !lines.contains(&error.origin.line));
    errors.append(&mut syntax);
    errors.append(&mut refused);
    table
}

/// Parses the text of one value, such as the default of a directive: `"75s"` with its quotes, `[1, 2]`.
pub fn parse_value(text: &str) -> Result<Node, String> {
    let value = DeValue::parse(text).map_err(|error| error.message().to_owned())?;
    let mut errors = Vec::new();
    let mut node = Converter { index: LineIndex::new(text, 0), errors: &mut errors }.node(value);
    match errors.pop() {
        Some(error) => Err(error.message),
        None => {
            node.set_origin(Origin::BUILT_IN);
            Ok(node)
        }
    }
}

struct Converter<'a, 'e> {
    index: LineIndex<'a>,
    errors: &'e mut Vec<Diagnostic>,
}

impl Converter<'_, '_> {
    fn table(&mut self, table: DeTable<'_>) -> Table {
        let mut pairs: Vec<_> = table.into_iter().collect();
        pairs.sort_by_key(|(key, _)| key.span().start);
        let entries = pairs.into_iter().map(|(key, value)| Entry {
            key_origin: self.index.origin(key.span().start),
            key: key.into_inner().into_owned(),
            node: self.node(value),
        });
        Table { entries: entries.collect() }
    }

    fn node(&mut self, value: Spanned<DeValue<'_>>) -> Node {
        let origin = self.index.origin(value.span().start);
        let value = match value.into_inner() {
            DeValue::String(text) => Value::String(text.into_owned()),
            DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => self.refused(origin, format!("found {digits}, expected an integer of at most 64 bits")),
            },
            DeValue::Float(digits) => match digits.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() || digits.as_str().contains(['i', 'n']) => Value::Float(number),
                _ => self.refused(origin, format!("found {}, which is too great a number", digits.as_str())),
            },
            DeValue::Boolean(value) => Value::Bool(value),
            DeValue::Datetime(date) => Value::Datetime(date.to_string()),
            DeValue::Array(nodes) => Value::List(nodes.into_iter().map(|node| self.node(node)).collect()),
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Node { value, origin }
    }

    fn refused(&mut self, origin: Origin, message: String) -> Value {
        self.errors.push(Diagnostic { origin, key: String::new(), message });
        Value::Integer(0)
    }
}

/// How the faults begin that a bracket that is not closed causes. If one stands at the start of a line, the rest of the
/// file has been taken for what is in the brackets, and none of the faults found there can be believed.
const BRACKET_FAULTS: [&str; 4] = ["missing comma", "missing key for inline table", "unclosed", "unexpected `=`"];

/// Turns the parser's errors into ours: one a line, in our words where the parser's are hard to understand.
fn report_syntax(
    document: &Spanned<DeTable<'_>>,
    mut faults: Vec<toml::de::Error>,
    text: &str,
    index: &LineIndex<'_>,
    files: &Files,
    errors: &mut Vec<Diagnostic>,
) {
    faults.sort_by_key(|fault| fault.span().map_or(0, |span| span.start));
    let mut duplicates = 0;
    let mut report = |fault: &toml::de::Error, origin: Origin| {
        let span = fault.span().unwrap_or(0..0);
        let found = text.get(span.clone()).unwrap_or("");
        let (key, message) = match fault.message() {
            "duplicate key" => {
                // To look for the first place takes a walk over the file, so not for thousands of them.
                duplicates += 1;
                let first =
                    (duplicates <= 100).then(|| first_place(document.get_ref(), text, span.start, found, index));
                let first =
                    first.flatten().map(|first| format!("; first set at {}", files.place(first))).unwrap_or_default();
                (found.to_owned(), format!("duplicate key{first}"))
            }
            other if other.starts_with("string values must be quoted") => match found {
                "" => (String::new(), "a value is missing".to_owned()),
                _ => {
                    (String::new(), format!("found {found}, expected a value; a string needs quotes: {}", quote(found)))
                }
            },
            other => (String::new(), other.to_owned()),
        };
        errors.push(Diagnostic { origin, key: key.chars().filter(|c| !c.is_control()).collect(), message });
    };
    let mut last_line = 0;
    let mut in_string = false;
    for fault in faults {
        let span = fault.span().unwrap_or(0..0);
        let origin = index.origin(span.start);
        if origin.line == last_line {
            continue;
        }
        let line_start = text.get(..span.start).map_or("", |before| before.rsplit('\n').next().unwrap_or(""));
        let runs_on =
            BRACKET_FAULTS.iter().any(|start| fault.message().starts_with(start)) && line_start.trim().is_empty();
        if !(runs_on && in_string) {
            report(&fault, origin);
        }
        if runs_on {
            break;
        }
        last_line = origin.line;
        in_string = fault.message().contains("invalid") && fault.message().contains("string");
    }
}

/// The place where a key that stands again at `offset` was set first, as far as it can be told.
fn first_place(document: &DeTable<'_>, text: &str, offset: usize, key: &str, index: &LineIndex<'_>) -> Option<Origin> {
    let line_start = text.get(..offset)?.rfind('\n').map_or(0, |at| at + 1);
    let line = text.get(line_start..)?.lines().next()?.trim();
    if line.starts_with('[') {
        let header = line.get(..=line.rfind(']')?)?;
        let mut start = 0;
        for earlier in text.get(..line_start)?.split_inclusive('\n') {
            if let Some(at) = earlier.find('[').filter(|_| earlier.trim().starts_with(header)) {
                return Some(index.origin(start + at));
            }
            start += earlier.len();
        }
        return None;
    }
    let mut section = (0, document);
    enclosing_section(document, text, offset, &mut section);
    // A header between the two belongs to a table that the parser could not keep.
    if text.get(section.0..offset)?.lines().skip(1).any(|line| line.trim_start().starts_with('[')) {
        return None;
    }
    let key = key.trim_matches(['"', '\'']);
    let (first, _) = section.1.iter().find(|(first, _)| first.get_ref() == key)?;
    Some(first.span().start).filter(|first| *first < offset).map(|first| index.origin(first))
}

/// Finds the `[table]` whose header is the last one before `offset`.
fn enclosing_section<'t, 'i>(table: &'t DeTable<'i>, text: &str, offset: usize, best: &mut (usize, &'t DeTable<'i>)) {
    for (_, value) in table.iter() {
        let below: &mut dyn Iterator<Item = &'t Spanned<DeValue<'i>>> = match value.get_ref() {
            DeValue::Array(nodes) => &mut nodes.iter(),
            _ => &mut std::iter::once(value),
        };
        for value in below {
            let DeValue::Table(inner) = value.get_ref() else {
                continue;
            };
            let start = value.span().start;
            if text.as_bytes().get(start) == Some(&b'[') && start < offset && start >= best.0 {
                *best = (start, inner);
            }
            enclosing_section(inner, text, offset, best);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Table, Vec<String>) {
        let mut files = Files::default();
        let file = files.add("t.toml").unwrap();
        let mut errors = Vec::new();
        let table = parse(text, file, &files, &mut errors);
        let lines = errors.iter().map(|e| format!("{}: {}: {}", files.place(e.origin), e.key, e.message)).collect();
        (table, lines)
    }

    #[test]
    fn keys_keep_their_order_and_places() {
        let (table, errors) = parsed("z = 1\r\na.b = \"x\"\r\n\r\n[[s]]\r\nl = [1,\r\n 2.5]\r\n[[s]]\r\n");
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(table.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["z", "a", "s"]);
        let place = |origin: Origin| (origin.line, origin.column);
        let b = table.get("a").unwrap().as_table().unwrap().entry("b").unwrap();
        assert_eq!((place(b.key_origin), place(b.node.origin)), ((2, 3), (2, 7)));
        let s = table.get("s").unwrap().as_list().unwrap();
        assert_eq!((place(s[0].origin), place(s[1].origin)), ((4, 1), (7, 1)));
        let l = s[0].as_table().unwrap().get("l").unwrap().as_list().unwrap();
        assert_eq!((place(l[1].origin), &l[1].value), ((6, 2), &Value::Float(2.5)));
    }

    #[test]
    fn syntax_errors_come_together() {
        let (_, errors) = parsed("a = 1\na = 2\n[x]\ny =\ny = up\n[z]\nq = 99999999999999999999\nq = 1e999\n[x]\n");
        assert_eq!(
            errors,
            [
                "t.toml:2:1: a: duplicate key; first set at t.toml:1:1",
                "t.toml:4:4: : a value is missing",
                "t.toml:5:1: y: duplicate key",
                "t.toml:8:1: q: duplicate key; first set at t.toml:7:1",
                "t.toml:9:2: x: duplicate key; first set at t.toml:3:1",
                "t.toml:7:5: : found 99999999999999999999, expected an integer of at most 64 bits",
            ]
        );
        let (_, errors) = parsed("y = 1\n[x]\ny = 1\ny = 2\n[[z]]\n");
        assert_eq!(errors, ["t.toml:4:1: y: duplicate key; first set at t.toml:3:1"]);
        let (_, errors) = parsed("y = up\nf = 1e999\n");
        assert_eq!(
            errors,
            [
                "t.toml:1:5: : found up, expected a value; a string needs quotes: \"up\"",
                "t.toml:2:5: : found 1e999, which is too great a number",
            ]
        );
    }

    #[test]
    fn a_missing_quote_or_bracket_is_one_error() {
        let (_, errors) = parsed("a = { b = \"x }\nc = 1\n\n[d]\ne = 2\n");
        assert_eq!(errors, ["t.toml:1:15: : invalid basic string, expected `\"`"]);
        let (_, errors) = parsed("a = [1, 2\nc = 1\n[d]\ne = 2\n");
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with("t.toml:2:1: : missing comma"), "{errors:?}");
    }

    #[test]
    fn single_values() {
        assert_eq!(parse_value("\"75s\"").unwrap().as_str(), Some("75s"));
        assert_eq!(parse_value("[1]").unwrap().as_list().unwrap()[0].origin, Origin::BUILT_IN);
        assert!(parse_value("75s").is_err());
        assert!(parse_value("99999999999999999999").is_err());
        assert!(parse_value("").is_err());
    }
}
