//! Facts about the loaded modules, for modules that show them.

use std::sync::OnceLock;

use topnext_module_api::host::ModuleFact;

use crate::plugins::LoadedModule;

static FACTS: OnceLock<Vec<[String; 5]>> = OnceLock::new();

/// Makes the facts of these modules known. Once in a process.
pub fn set<'a>(modules: impl Iterator<Item = &'a LoadedModule>) {
    let facts = modules.map(|module| {
        let description = &module.description;
        let provides: Vec<&str> = description.provides.iter().map(String::as_str).collect();
        let mut facts = [const { String::new() }; 5];
        facts[ModuleFact::Name as usize] = module.name.clone();
        facts[ModuleFact::Version as usize] = description.version.to_string();
        facts[ModuleFact::Provides as usize] = provides.join(", ");
        facts[ModuleFact::File as usize] = module.file.display().to_string();
        facts[ModuleFact::About as usize] = description.about.clone();
        facts
    });
    let _ = FACTS.set(facts.collect());
}

/// A fact about module number `index`, in declared order from 0.
pub fn module_fact(index: u32, fact: u32) -> Option<&'static str> {
    FACTS.get()?.get(index as usize)?.get(fact as usize).map(String::as_str)
}
