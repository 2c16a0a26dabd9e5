//! The text of a configuration, up to typed values or errors.
//!
//! It is checked without panic, twice with the same outcome. An error is one line, says something, and points into the
//! text; and what has no errors has a server.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use topnext::config::{Contexts, Diagnostics, Document, ModuleSchema};

/// A module that has a key of each type.
const DESCRIPTION: &str = r#"
config = [
  { key = "enabled", type = { bool = {} }, default = 'true', doc = "" },
  { key = "level", type = { integer = { min = 1, max = 9 } }, default = '1', doc = "" },
  { key = "ratio", type = { number = {} }, default = '0.5', doc = "" },
  { key = "pass", type = { string = {} }, required = true, doc = "" },
  { key = "timeout", type = { duration = {} }, default = '"60s"', doc = "" },
  { key = "buffer", type = { size = {} }, default = '"8k"', doc = "" },
  { key = "text", type = { template = {} }, optional = true, doc = "" },
  { key = "mode", type = { choice = ["on", "off"] }, default = '"on"', doc = "" },
  { key = "types", type = { list = { string = {} } }, default = '[]', merge = true, doc = "" },
  { key = "set", type = { list = { table = [
      { key = "name", type = { string = {} }, required = true, doc = "" },
      { key = "value", type = { string = {} }, optional = true, doc = "" },
  ] } }, default = '[]', doc = "" },
]
"#;

static SCHEMAS: LazyLock<Vec<ModuleSchema>> = LazyLock::new(|| {
    let contexts = Contexts::HTTP.or(Contexts::SERVER).or(Contexts::LOCATION);
    vec![ModuleSchema::parse(DESCRIPTION, "m", contexts).expect("a valid description")]
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    // Files of this machine are no part of the input.
    if text.contains("include") || text.contains('\\') {
        return;
    }
    let errors = check(text);
    assert_eq!(check(text), errors);
});

/// The errors, as they are printed.
fn check(text: &str) -> String {
    let document = match Document::from_text("fuzzed.toml", text) {
        Ok(document) => document,
        Err(errors) => return checked(&errors, text),
    };
    let (_, mut errors) = document.head_partial();
    let (config, more) = document.check_partial(&SCHEMAS);
    assert!(config.is_some() || !more.is_empty());
    if let Some(config) = config.filter(|_| more.is_empty()) {
        assert!(!config.http.servers.is_empty());
    }
    errors.extend(more);
    if errors.is_empty() { String::new() } else { checked(&errors, text) }
}

fn checked(errors: &Diagnostics, text: &str) -> String {
    assert!(!errors.is_empty());
    let lines: Vec<&str> = text.split('\n').collect();
    for error in errors.iter() {
        assert!(!error.message.is_empty() && !error.message.contains(['\n', '\r']), "{error:?}");
        let origin = error.origin;
        assert_eq!(errors.files().name(origin.file), "fuzzed.toml", "{error:?}");
        if origin.line > 0 {
            let line = lines.get(origin.line as usize - 1).unwrap_or_else(|| panic!("{error:?} is behind the end"));
            assert!((1..=line.chars().count() + 1).contains(&(origin.column as usize)), "{error:?}");
        }
    }
    errors.to_string()
}
