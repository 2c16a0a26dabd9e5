//! The repository checks itself: what reviews would have to look for again and again.
//!
//! `UPDATE=1 cargo test --test tidy` rewrites what is generated: the reference in docs/configuration.md.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use topnext::config::reference::{module_reference, reference};
use topnext::config::{Contexts, ModuleSchema};
use topnext::plugins::{Description, RefusalKind};
use topnext::variables;

/// Longer files hold more than one subject.
const MAX_LINES: usize = 1200;

/// In docs/configuration.md, what follows this line is generated.
const GENERATED: &str = "<!-- Generated from here on: UPDATE=1 cargo test --test tidy -->\n";

/// Where unsafe code may be, and why.
const UNSAFE: &[(&str, &str)] = &[
    ("module-api/", "the ABI itself, so that no module needs any"),
    ("host/plugins/", "the host's side of the ABI"),
    ("host/process/scoreboard.rs", "words of shared memory as module-api's cells and accounts"),
    ("host/process/shared_memory.rs", "mmap(2)"),
    ("host/process/inherited.rs", "descriptors that the process was started with"),
    ("host/tcp_info.rs", "a call of the system that no library has a safe name for"),
    ("host/listen/sockopt.rs", "two socket options that no library has"),
    ("tests/modules/", "modules that are made to be refused, or to do what module-api prevents"),
    ("tests/refusals.rs", "calls into such modules"),
    ("tests/support/host.rs", "a host for such modules"),
];

/// The folder of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All text files, by their path from the root, with what is in them.
fn files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name == ".git" {
                // A folder, or in a further working tree a file that says where it is.
                continue;
            }
            if path.is_dir() {
                if !name.starts_with("target") {
                    folders.push(path);
                }
            } else if name != "Cargo.lock"
                && let Ok(text) = fs::read_to_string(&path)
            {
                files.push((path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(), text));
            }
        }
    }
    files.sort();
    assert!(files.len() > 150, "only {} files", files.len());
    files
}

/// Lines that a check finds, as `FILE:LINE: text`.
fn lines(wanted: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (file, text) in files() {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| wanted(&file, line)) {
            found.push(format!("{file}:{}: {}", number + 1, line.trim()));
        }
    }
    found
}

/// The folders of the bundled modules: `modules/filters/gzip`.
fn modules() -> Vec<PathBuf> {
    let below = |path: PathBuf| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).filter(|p| p.is_dir());
    let mut modules: Vec<PathBuf> = below(root().join("modules")).flat_map(below).collect();
    modules.sort();
    assert!(modules.len() > 5, "{modules:?}");
    modules
}

fn name_of(module: &Path) -> &str {
    module.file_name().and_then(|name| name.to_str()).unwrap()
}

#[track_caller]
fn none(found: &[String], what: &str) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn every_module_has_docs_a_description_tests_and_no_unsafe_code() {
    let mut missing = Vec::new();
    for module in modules() {
        let name = name_of(&module);
        let manifest = read(module.join("Cargo.toml")).parse::<toml::Table>().unwrap();
        let lib = read(module.join("src/lib.rs"));
        let package = &manifest["package"];
        let mut check = |ok: bool, what: &str| {
            if !ok {
                missing.push(format!("{}: {what}", module.strip_prefix(root()).unwrap().display()));
            }
        };
        check(package["name"].as_str() == Some(&format!("topnext_{name}")), "the package is named topnext_FOLDER");
        check(lib.contains(&format!("    name: \"{name}\",\n")), "export_module! names it as its folder");
        check(package.get("description").is_some_and(|text| text.as_str().is_some()), "a description in Cargo.toml");
        check(lib.starts_with("//! "), "docs at the head of src/lib.rs");
        check(lib.contains("\n//! ```toml\n"), "an example of its configuration in them");
        check(lib.contains("\n#![forbid(unsafe_code)]\n"), "#![forbid(unsafe_code)]");
        let tests = read(module.join(format!("tests/{name}.rs")));
        check(tests.contains("#[test]"), "a test in tests/NAME.rs");
        let kinds = manifest["lib"]["crate-type"].as_array().unwrap();
        check(kinds.iter().any(|kind| kind.as_str() == Some("cdylib")), "crate-type cdylib");
    }
    none(&missing, "missing");
}

#[test]
fn every_module_is_declared_in_plugins_toml_and_nothing_else_is() {
    let config = read("plugins.toml").parse::<toml::Table>().unwrap();
    let declared = config["module"].as_array().unwrap();
    let mut declared: Vec<&str> = declared.iter().map(|module| module["name"].as_str().unwrap()).collect();
    declared.sort_unstable();
    let modules = modules();
    let mut built: Vec<&str> = modules.iter().map(|module| name_of(module)).collect();
    built.sort_unstable();
    assert_eq!(declared, built);
}

#[test]
fn in_plugins_toml_the_key_name_stands_below_module_only() {
    // A name is the first thing that one looks for; elsewhere it would look like another module.
    let mut block = "";
    let text = read("plugins.toml");
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            block = line.split('#').next().unwrap().trim();
        }
        let is_name = line.split('=').next().is_some_and(|key| key.trim() == "name");
        assert!(!is_name || block == "[[module]]", "plugins.toml:{}: {line}, in {block}", number + 1);
    }
}

#[test]
fn unsafe_code_is_where_the_abi_is() {
    let starts =
        ["unsafe {", "unsafe fn", "unsafe extern", "unsafe impl", "unsafe trait", "#[unsafe(", "allow(unsafe_code"];
    let found = lines(|file, line| {
        let code = line.split("//").next().unwrap_or_default();
        // This file names them.
        let is_here = file == "tests/tidy.rs";
        let allowed = UNSAFE.iter().any(|(place, _)| file.starts_with(place));
        file.ends_with(".rs") && !is_here && !allowed && starts.iter().any(|start| code.contains(start))
    });
    none(&found, "unsafe code elsewhere");
    for (place, why) in UNSAFE {
        assert!(root().join(place).exists(), "{place} ({why}) is gone: remove it from the list");
    }
}

#[test]
fn nothing_is_left_to_be_done() {
    // In two parts, so that this file does not hold them.
    let marks = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("FIX", "ME"),
        concat!("X", "XX:"),
        concat!("TO", "DO"),
    ];
    none(&lines(|_, line| marks.iter().any(|mark| line.contains(mark))), "left to be done");
}

#[test]
fn no_file_mentions_the_folders_of_a_machine() {
    let folders = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tm", "p/"), concat!("/ho", "me/")];
    let found = lines(|_, line| {
        folders.iter().any(|folder| {
            line.match_indices(folder).any(|(at, _)| {
                // A part of another path or address is not one.
                let before = line[..at].chars().next_back();
                before.is_none_or(|c| !c.is_ascii_alphanumeric() && !matches!(c, '/' | '.' | '}' | '_' | '-' | '$'))
            })
        })
    });
    none(&found, "paths of a machine");
}

#[test]
fn a_file_has_at_most_1200_lines() {
    let is_data = |file: &str| file.starts_with("html/");
    // The reference is as long as there are directives.
    let written = |text: &str| text.split(GENERATED).next().unwrap_or_default().lines().count();
    let long: Vec<String> = files()
        .into_iter()
        .map(|(file, text)| if file.ends_with(".md") { (file, written(&text)) } else { (file, text.lines().count()) })
        .filter(|(file, count)| *count > MAX_LINES && !is_data(file))
        .map(|(file, count)| format!("{file}: {count} lines"))
        .collect();
    none(&long, "too long");
}

#[test]
fn the_readme_shows_the_example_as_it_is() {
    let (readme, example) = (read("README.md"), read("examples/hello_filter/src/lib.rs"));
    let core = &example[example.find("use topnext_module_api").unwrap()..];
    let shown = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap_or_default();
    assert_eq!(
        shown, core,
        "the first block of Rust in README.md is examples/hello_filter/src/lib.rs from its `use` on"
    );
}

#[test]
fn links_in_documents_lead_to_files() {
    let mut broken = Vec::new();
    for (file, text) in files().into_iter().filter(|(file, _)| file.ends_with(".md")) {
        let folder = root().join(&file).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            let is_elsewhere = path.contains("://") || path.is_empty() || path.contains(' ');
            if !is_elsewhere && !folder.join(path).exists() {
                broken.push(format!("{file}: {link}"));
            }
        }
    }
    none(&broken, "links to nothing");
}

#[test]
fn every_refusal_is_in_docs_abi_md() {
    let text = read("docs/abi.md");
    let row = |kind: &RefusalKind| format!("| `{}` | {} | ", kind.name(), kind.headline());
    let missing: Vec<String> = RefusalKind::ALL.iter().map(row).filter(|row| !text.contains(row)).collect();
    none(&missing, "no rows in docs/abi.md");
}

#[test]
fn the_reference_in_docs_is_up_to_date() {
    let file = "docs/configuration.md";
    let text = read(file);
    let (written, old) = text.split_once(GENERATED).unwrap_or_else(|| panic!("{file} has no line {GENERATED}"));
    let new = generated();
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        fs::write(root().join(file), format!("{written}{GENERATED}{new}")).unwrap();
        return;
    }
    let differs = old.lines().zip(new.lines()).position(|(old, new)| old != new);
    let differs = differs.or_else(|| (old != new).then(|| old.lines().count().min(new.lines().count())));
    if let Some(at) = differs {
        let line = |text: &str| text.lines().nth(at).unwrap_or("(the end)").to_owned();
        let number = written.lines().count() + 2 + at;
        let command = "UPDATE=1 cargo test --test tidy";
        panic!("{file}:{number} is not up to date; run {command}\n  is:      {}\n  must be: {}", line(old), line(&new));
    }
}

/// The directives and variables of the server, and the keys of each bundled module.
fn generated() -> String {
    // Under the document's own title.
    let below = |text: String| format!("\n{text}").replace("\n#", "\n##");
    let mut text = below(reference()) + &below(variables::reference());
    text.push_str(
        "\n## Keys of the bundled modules\n\nBy kind. `topnext inspect FILE.so` shows the same of any module.\n",
    );
    for module in modules() {
        let name = name_of(&module);
        let file = support::files::modules().join(format!("libtopnext_{name}.so"));
        let description = Description::read(&file).unwrap_or_else(|refusal| panic!("{refusal}"));
        let schema = ModuleSchema::parse(&description.text, name, contexts(&description)).unwrap();
        let keys = below(module_reference(&schema)).replacen("\n## ", "\n### ", 1);
        // Its title, what it is, and then its keys.
        let (title, keys) = keys.split_once("\n\n").unwrap();
        text.push_str(&format!("{title}\n\n{}.\n\n{}{keys}", description.about, facts(&description)));
    }
    text
}

fn facts(description: &Description) -> String {
    let mut facts = String::new();
    let mut fact = |label: &str, words: Vec<String>| {
        if !words.is_empty() {
            facts.push_str(&format!("- {label}: {}\n", words.join(", ")));
        }
    };
    let code = |words: &[String]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>();
    fact("Provides", description.provides.iter().cloned().collect());
    fact("Phases", description.phases.clone());
    fact("Parameters of servers", code(&description.server_parameters));
    fact("Variables", description.variables.iter().map(|name| format!("`${name}`")).collect());
    fact("A response meets it after", code(&description.after));
    fact("A response meets it before", code(&description.before));
    let active = if description.always { "wherever it can be" } else { "where it is configured" };
    fact("Active", vec![active.to_owned()]);
    facts + "- "
}

/// Where the module's table may stand, as the server sees it.
fn contexts(description: &Description) -> Contexts {
    let in_http =
        ["filter", "phases", "content", "upstream", "variables"].into_iter().any(|kind| description.provides(kind));
    let inside = Contexts::SERVER.or(Contexts::LOCATION);
    let http = if description.inherit { Contexts::HTTP.or(inside) } else { inside };
    match (in_http, description.provides("balancer")) {
        (true, true) => http.or(Contexts::UPSTREAM),
        (true, false) => http,
        (false, _) => Contexts::UPSTREAM,
    }
}
