//! `topnext modules`: the chain from top to write.

use std::fmt::Write;

use crate::{plugins::LoadedModule, site::Loaded};

/// The text of the command.
pub fn show(loaded: &Loaded) -> String {
    let mut text = String::from("A response meets the filters in this order:\n\n  top\n");
    let modules = &loaded.site.modules;
    for module in modules.iter().filter(|module| module.description.provides("filter")) {
        let _ = writeln!(text, "   |  {} {}", module.name, module.description.version);
    }
    text.push_str("  write\n\nModules, as declared:\n");
    for module in modules {
        describe(&mut text, loaded, module);
    }
    if modules.is_empty() {
        text.push_str("\n  none\n");
    }
    text
}

fn describe(text: &mut String, loaded: &Loaded, module: &LoadedModule) {
    let description = &module.description;
    let kinds: Vec<&str> = description.provides.iter().map(String::as_str).collect();
    let _ = writeln!(text, "\n{} {}", module.name, description.version);
    let mut line = |label: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(text, "  {label:<9} {value}");
        }
    };
    line("about", description.about.clone());
    line("file", module.file.display().to_string());
    line("provides", kinds.join(", "));
    line("phases", description.phases.join(", "));
    line("after", description.after.join(", "));
    line("before", description.before.join(", "));
    let active = |place: &&std::sync::Arc<crate::site::Place>| {
        place.prepared.iter().any(|prepared| prepared.module().slot == module.slot)
    };
    let mut places: Vec<String> = loaded.places.iter().filter(active).map(|place| place.title.clone()).collect();
    for upstream in &loaded.site.upstreams {
        if upstream.balancers.modules().any(|slot| slot == module.slot) {
            places.push(format!("upstream {}", upstream.name));
        }
    }
    line("active in", if places.is_empty() { "nothing".to_string() } else { places.join("\n            ") });
}
