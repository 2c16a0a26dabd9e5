//! The facts as a page: one file, with its style, without scripts.

use std::fmt::Write;

use crate::facts::{Facts, Loaded, chain};

/// The page.
pub fn render(facts: &Facts<'_>) -> String {
    let mut out = String::with_capacity(8192);
    out.push_str(HEAD);
    out.push_str(STYLE);
    out.push_str("</style>\n</head>\n<body>\n<header>\n");
    // Writing to a String cannot fail. So below.
    let _ = writeln!(out, "<h1>topnext <small>{}</small></h1>", escape(&facts.version));
    out.push_str(
        "<p>The server is running. This page is made by the module <code>welcome</code> from live data.</p>\n",
    );
    out.push_str("</header>\n<main>\n");
    chain_of(&mut out, facts.modules);
    out.push_str("<div class=\"columns\">\n");
    table(&mut out, "Process", &facts.process);
    table(&mut out, "Traffic", &facts.traffic);
    table(&mut out, "Your request", &facts.request);
    out.push_str("</div>\n");
    module_table(&mut out, facts.modules);
    out.push_str(
        "</main>\n<footer><p>Asked for without <code>Accept: text/html</code>, as curl does, this page is plain \
                  text.</p></footer>\n</body>\n</html>\n",
    );
    out
}

/// The filters as a row of boxes, in the order in which a response meets them.
fn chain_of(out: &mut String, modules: &[Loaded]) {
    out.push_str("<section>\n<h2>The way of a response</h2>\n<ol class=\"chain\">\n");
    let steps = chain(modules);
    for (i, step) in steps.iter().enumerate() {
        let class = if i == 0 || i + 1 == steps.len() { " class=\"end\"" } else { "" };
        let _ = writeln!(out, "<li{class}>{}</li>", escape(step));
    }
    out.push_str(
        "</ol>\n<p class=\"note\">Each filter calls the one declared after it in <code>plugins.toml</code>. Move a \
                  <code>[[module]]</code> to change the order.</p>\n</section>\n",
    );
}

fn table(out: &mut String, title: &str, rows: &[(&str, String)]) {
    let _ = writeln!(out, "<section>\n<h2>{}</h2>\n<table>", escape(title));
    for (name, value) in rows {
        let _ = writeln!(out, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escape(name), escape(value));
    }
    out.push_str("</table>\n</section>\n");
}

fn module_table(out: &mut String, modules: &[Loaded]) {
    out.push_str("<section>\n<h2>Modules, in declared order</h2>\n<div class=\"wide\"><table>\n<thead><tr><th>#</th>");
    out.push_str("<th>name</th><th>version</th><th>provides</th><th>about</th></tr></thead>\n<tbody>\n");
    for (i, module) in modules.iter().enumerate() {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td><code>{}</code></td><td>{}</td><td>{}</td><td>{}</td></tr>",
            i + 1,
            escape(&module.name),
            escape(&module.version),
            escape(&module.provides),
            escape(&module.about),
        );
    }
    out.push_str("</tbody>\n</table></div>\n</section>\n");
}

/// Text for the inside of an element or a quoted attribute.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>topnext is running</title>
<style>
"#;

const STYLE: &str = r#":root {
  --ink: #1c2430; --soft: #5b6675; --paper: #f6f7f9; --card: #fff; --line: #dde2e9; --mark: #0b7285; --on-mark: #fff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e9f0; --soft: #97a3b4; --paper: #12161c; --card: #1a2028; --line: #2c3541; --mark: #3bc9db; --on-mark: #0b1d21;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 70rem; padding: 2rem 1.25rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, sans-serif;
}
h1 { margin: 0; font-size: 2rem; letter-spacing: -0.02em; }
h1 small { color: var(--mark); font-size: 1.1rem; font-weight: 500; letter-spacing: 0; }
h2 { margin: 0 0 0.75rem; font-size: 1rem; }
p { margin: 0.25rem 0; }
header, section { margin-bottom: 1.25rem; }
header p, footer, .note { color: var(--soft); }
.note, footer { font-size: 0.875rem; }
section { padding: 1.1rem 1.25rem; background: var(--card); border: 1px solid var(--line); border-radius: 0.6rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 0 1.25rem; align-items: start; }
.wide { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.35rem 0.75rem 0.35rem 0; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
tr:first-child > * { border-top: 0; }
tbody tr:first-child > * { border-top: 1px solid var(--line); }
table:not(:has(thead)) tr:first-child > * { border-top: 0; }
th { color: var(--soft); font-weight: 500; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
code { font-family: ui-monospace, monospace; font-size: 0.9em; }
.chain { display: flex; flex-wrap: wrap; gap: 0.6rem 0; margin: 0 0 0.6rem; padding: 0; list-style: none; }
.chain li { display: flex; align-items: center; font: 0.9rem ui-monospace, monospace; }
.chain li + li::before { content: "\2192"; padding: 0 0.6rem; color: var(--soft); }
.chain li { white-space: nowrap; }
.chain li.end { color: var(--mark); font-weight: 700; }
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_everything() {
        let hostile = "<script>alert('1')</script>&\"";
        let module = Loaded {
            name: hostile.to_string(),
            version: hostile.to_string(),
            provides: format!("filter,{hostile}"),
            about: hostile.to_string(),
        };
        let modules = [module];
        let facts = Facts {
            version: hostile.to_string(),
            process: vec![("host", hostile.to_string())],
            traffic: vec![("requests", hostile.to_string())],
            modules: &modules,
            request: vec![("path", hostile.to_string())],
        };
        let page = render(&facts);
        assert!(!page.contains("<script") && !page.contains("('1')"), "{page}");
        assert_eq!(page.matches("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;&quot;").count(), 9);
    }

    #[test]
    fn draws_the_chain() {
        let filter =
            |name: &str| Loaded { name: name.to_string(), provides: "filter".to_string(), ..Loaded::default() };
        let mut out = String::new();
        chain_of(&mut out, &[filter("gzip"), filter("range")]);
        let steps = "<li class=\"end\">top</li>\n<li>gzip</li>\n<li>range</li>\n<li class=\"end\">write</li>\n";
        assert!(out.contains(steps), "{out}");
    }

    #[test]
    fn is_one_file() {
        let facts = Facts { version: String::new(), process: vec![], traffic: vec![], modules: &[], request: vec![] };
        let page = render(&facts);
        for outside in ["http:", "https:", "src=", "href=", "url(", "@import", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    }
}
