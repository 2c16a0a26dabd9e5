//! The facts as plain text, in columns.

use std::fmt::Write;

use crate::facts::{Facts, chain};

/// The text.
pub fn render(facts: &Facts<'_>) -> String {
    let mut out = format!("topnext {} is running.\n", facts.version);
    table(&mut out, "Process", &facts.process);
    table(&mut out, "Traffic", &facts.traffic);
    let _ = write!(out, "\nA response passes\n  {}\n\nModules, in declared order\n", chain(facts.modules).join(" -> "));
    let width = |column: fn(&crate::facts::Loaded) -> &str| {
        facts.modules.iter().map(|module| column(module).chars().count()).max().unwrap_or(0)
    };
    let (name, version) = (width(|module| &module.name), width(|module| &module.version));
    let provides = width(|module| &module.provides);
    for module in facts.modules {
        let line = format!(
            "  {:name$}  {:version$}  {:provides$}  {}",
            module.name, module.version, module.provides, module.about
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
    table(&mut out, "Your request", &facts.request);
    out
}

/// A title, and names and values in two columns. Writing to a String cannot fail.
fn table(out: &mut String, title: &str, rows: &[(&str, String)]) {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let _ = write!(out, "\n{title}\n");
    for (name, value) in rows {
        let _ = writeln!(out, "  {name:width$}  {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Loaded;

    #[test]
    fn draws_chain_and_columns() {
        let module = |name: &str, provides: &str| Loaded {
            name: name.to_string(),
            version: "0.1.0".to_string(),
            provides: provides.to_string(),
            about: "Does it".to_string(),
        };
        let modules = [module("static", "phases"), module("gzip", "filter")];
        let facts = Facts {
            version: "0.1.0".to_string(),
            process: vec![("host", "a".to_string()), ("process", "1".to_string())],
            traffic: vec![],
            modules: &modules,
            request: vec![("path", "/".to_string())],
        };
        let text = render(&facts);
        assert!(text.contains("  top -> gzip -> write\n"), "{text}");
        assert!(text.contains("\n  host     a\n  process  1\n"), "{text}");
        assert!(text.contains("\n  static  0.1.0  phases  Does it\n  gzip    0.1.0  filter  Does it\n"), "{text}");
    }
}
