//! The order of modules: `before` and `after` of their descriptions, against the order in which they are declared.
//!
//! ```text
//! plugins.toml:14:1: module "gzip": it stands in the wrong order
//!   chain   top -> [gzip] -> addition -> [ssi] -> write
//!   rule    gzip says after = ["ssi"]: a response must meet ssi before gzip
//!   fix     move gzip (plugins.toml:14:1) behind ssi (plugins.toml:20:1), or write ignore_order = ["ssi"] at gzip
//! ```
//!
//! A rule about a module that is not declared is ignored.

use super::report::{Refusal, RefusalKind};
use super::{Candidate, Declared};

/// The chain is broken into lines of about so many characters.
const CHAIN_WIDTH: usize = 90;

/// Checks the rules of all candidates, and that `ignore_order` names modules among those that are declared.
///
/// `declared` holds also those that were refused, so that one error does not bring forth another.
pub fn check(candidates: &[Candidate], declared: &[Declared]) -> Result<(), Vec<Refusal>> {
    let mut refusals = unknown_names(declared);
    for module in candidates {
        for other in candidates.iter().filter(|other| other.slot != module.slot) {
            if let Some(rule) = broken_rule(module, other)
                && !waives(module, other)
                && !waives(other, module)
            {
                refusals.push(refusal(candidates, module, other, rule));
            }
        }
    }
    if refusals.is_empty() { Ok(()) } else { Err(refusals) }
}

/// The two rules that a module can make about another one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The other one must come first.
    After,
    /// The other one must come later.
    Before,
}

fn unknown_names(declared: &[Declared]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for module in declared {
        let known = |name: &str| declared.iter().any(|other| other.name == name || other.table_name() == name);
        for name in module.ignore_order.iter().filter(|name| !known(name)) {
            let near = declared
                .iter()
                .map(Declared::table_name)
                .filter(|other| *other != module.table_name())
                .min_by_key(|other| strsim::damerau_levenshtein(name, other))
                .filter(|other| strsim::damerau_levenshtein(name, other) <= 2);
            let fix = match near {
                Some(near) => format!("write {near:?}, or remove {name:?} from ignore_order"),
                None => format!("remove {name:?} from ignore_order, or declare the module"),
            };
            refusals.push(
                Refusal::new(module.table_name(), RefusalKind::IgnoreOrder)
                    .line("found", format!("ignore_order has {name:?}, and no module of that name is declared"))
                    .line("fix", fix)
                    .at(&module.place, module.table_name()),
            );
        }
    }
    refusals
}

/// Which rule of `module` about `other` the declared order breaks.
fn broken_rule(module: &Candidate, other: &Candidate) -> Option<Rule> {
    if other.slot > module.slot && has_rule(module, Rule::After, other) {
        Some(Rule::After)
    } else if other.slot < module.slot && has_rule(module, Rule::Before, other) {
        Some(Rule::Before)
    } else {
        None
    }
}

fn has_rule(module: &Candidate, rule: Rule, other: &Candidate) -> bool {
    let names = match rule {
        Rule::After => &module.description.after,
        Rule::Before => &module.description.before,
    };
    names.contains(&other.description.name)
}

/// Whether the operator waived, at `module`, the rules between the two.
fn waives(module: &Candidate, other: &Candidate) -> bool {
    module.ignore_order.iter().any(|name| *name == other.name || *name == other.description.name)
}

fn refusal(candidates: &[Candidate], module: &Candidate, other: &Candidate, rule: Rule) -> Refusal {
    let (name, theirs) = (&module.name, &other.description.name);
    let says = match rule {
        Rule::After => format!("{name} says after = [{theirs:?}]: a response must meet {theirs} before {name}"),
        Rule::Before => format!("{name} says before = [{theirs:?}]: a response must meet {theirs} after {name}"),
    };
    let behind = match rule {
        Rule::After => "behind",
        Rule::Before => "in front of",
    };
    let waive = format!("write ignore_order = [{:?}] at {name}", other.name);
    let fix = if has_rule(other, rule, module) {
        format!("{waive}: {} says the opposite, so no order satisfies both", other.name)
    } else {
        format!("move {name} ({}) {behind} {} ({}), or {waive}", module.place, other.name, other.place)
    };
    Refusal::new(name, RefusalKind::Order)
        .line("chain", chain(candidates, module, other))
        .line("rule", says)
        .line("fix", fix)
        .at(&module.place, name)
}

/// The filters from the top to the end, and the two offenders, which are marked.
fn chain(candidates: &[Candidate], one: &Candidate, two: &Candidate) -> String {
    let mut lines = vec!["top".to_owned()];
    let mut add = |step: &str| {
        let last = lines.last_mut().filter(|line| line.chars().count() + step.chars().count() + 4 <= CHAIN_WIDTH);
        match last {
            Some(line) => {
                line.push_str(" -> ");
                line.push_str(step);
            }
            None => lines.push(format!("-> {step}")),
        }
    };
    for module in candidates {
        if module.slot == one.slot || module.slot == two.slot {
            add(&format!("[{}]", module.name));
        } else if module.description.provides("filter") {
            add(&module.name);
        }
    }
    add("write");
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::candidates;
    use super::super::testing::{Folder, module};
    use super::*;

    /// The refusals of modules declared so: name, more of the description, and `ignore_order`.
    fn check_of(test: &str, modules: &[(&str, &[&str], &[&str])]) -> Vec<String> {
        let folder = Folder::new(&format!("order_{test}"));
        let mut declared = Vec::new();
        for (i, (name, changed, ignore_order)) in modules.iter().enumerate() {
            let name_line = format!("name = \"{name}\"");
            let changed: Vec<&str> = changed.iter().copied().chain([name_line.as_str()]).collect();
            folder.file(&format!("lib{name}.so"), &module(&changed));
            let ignore_order = ignore_order.iter().map(|name| name.to_string()).collect();
            let place = format!("p:{}:1", i + 1);
            declared.push(Declared { name: name.to_string(), ignore_order, place, ..Declared::default() });
        }
        let (found, refusals) = candidates(&declared, &[folder.path().to_owned()]);
        assert_eq!(refusals, []);
        let refusals = check(&found, &declared).err().unwrap_or_default();
        refusals.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_order_passes() {
        let modules: &[(&str, &[&str], &[&str])] =
            &[("a", &["before = [\"b\", \"absent\"]"], &[]), ("b", &["after = [\"a\", \"other\"]"], &[])];
        assert_eq!(check_of("good", modules), [""; 0]);
    }

    #[test]
    fn draws_the_chain_and_names_the_rule() {
        let modules: &[(&str, &[&str], &[&str])] = &[
            ("gzip", &["after = [\"ssi\"]"], &[]),
            ("return", &["provides = [\"phases\"]"], &[]),
            ("addition", &[], &[]),
            ("ssi", &[], &[]),
        ];
        assert_eq!(
            check_of("after", modules),
            [
                "p:1:1: module \"gzip\": it stands in the wrong order\n  chain   top -> [gzip] -> addition -> [ssi] -> write\n  rule    gzip says after = [\"ssi\"]: a response must meet ssi before gzip\n  fix     move gzip (p:1:1) behind ssi (p:4:1), or write ignore_order = [\"ssi\"] at gzip"
            ]
        );
        let modules: &[(&str, &[&str], &[&str])] = &[("gzip", &[], &[]), ("ssi", &["before = [\"gzip\"]"], &[])];
        assert_eq!(
            check_of("before", modules),
            [
                "p:2:1: module \"ssi\": it stands in the wrong order\n  chain   top -> [gzip] -> [ssi] -> write\n  rule    ssi says before = [\"gzip\"]: a response must meet gzip after ssi\n  fix     move ssi (p:2:1) in front of gzip (p:1:1), or write ignore_order = [\"gzip\"] at ssi"
            ]
        );
    }

    #[test]
    fn either_side_can_waive_a_rule() {
        let rule: &[&str] = &["after = [\"b\"]"];
        assert_eq!(check_of("waived_here", &[("a", rule, &["b"]), ("b", &[], &[])]), [""; 0]);
        assert_eq!(check_of("waived_there", &[("a", rule, &[]), ("b", &[], &["a"])]), [""; 0]);
        assert_eq!(check_of("not_waived", &[("a", rule, &["c"]), ("b", &[], &[]), ("c", &[], &[])]).len(), 1);
    }

    #[test]
    fn an_unknown_name_in_ignore_order_is_an_error() {
        let modules: &[(&str, &[&str], &[&str])] = &[("gzip", &[], &["sis", "charset"]), ("ssi", &[], &[])];
        assert_eq!(
            check_of("unknown", modules),
            [
                "p:1:1: module \"gzip\": ignore_order names an unknown module\n  found   ignore_order has \"sis\", and no module of that name is declared\n  fix     write \"ssi\", or remove \"sis\" from ignore_order",
                "p:1:1: module \"gzip\": ignore_order names an unknown module\n  found   ignore_order has \"charset\", and no module of that name is declared\n  fix     remove \"charset\" from ignore_order, or declare the module"
            ]
        );
    }

    #[test]
    fn a_contradiction_can_only_be_waived() {
        let modules: &[(&str, &[&str], &[&str])] =
            &[("a", &["after = [\"b\"]"], &[]), ("b", &["after = [\"a\"]"], &[])];
        let found = check_of("contradiction", modules);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].ends_with("write ignore_order = [\"b\"] at a: b says the opposite, so no order satisfies both")
        );
    }

    #[test]
    fn a_long_chain_is_broken_into_lines() {
        let names: Vec<String> = (0..30).map(|i| format!("filter{i:02}")).collect();
        let rule: &[&str] = &["after = [\"filter29\"]"];
        let modules: Vec<(&str, &[&str], &[&str])> = names
            .iter()
            .enumerate()
            .map(|(i, name)| (name.as_str(), if i == 0 { rule } else { &[] }, &[][..]))
            .collect();
        let found = check_of("long", &modules);
        assert!(found[0].lines().all(|line| line.chars().count() <= 110 || line.starts_with("  fix")), "{}", found[0]);
        assert!(found[0].contains("[filter29] -> write"), "{}", found[0]);
    }
}
