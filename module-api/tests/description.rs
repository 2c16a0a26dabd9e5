//! The description of a module: what `#[derive(Config)]` puts into it, read back as TOML by the kit's own parser.

use std::time::Duration;

use topnext_module_api::{
    API_VERSION, Choice, Config, Merged, Phase, RUSTC, Size, TARGET, Template,
    config::{Presence, Type},
    description::{Description, Provides},
    testing,
};

/// One field of each kind.
#[derive(Config)]
#[expect(dead_code, reason = "only the schema is looked at")]
struct Every {
    /// Whether it acts.
    #[config(default = false)]
    enabled: bool,
    /// How "much", in \ two
    /// lines.
    #[config(default = 6, min = 1, max = 9)]
    level: u32,
    #[config(default = -1)]
    signed: i32,
    #[config(default = 0.5)]
    ratio: f64,
    #[config(default = "say \"hi\"\n")]
    text: String,
    #[config(default = "1m30s")]
    wait: Duration,
    #[config(default = ["a", "b"])]
    words: Vec<String>,
    #[config(default = "on_top")]
    place: Place,
    bound: Option<Size>,
    value: Template,
    #[config(key = "type")]
    kind: Option<String>,
    r#match: Option<bool>,
    many: Merged<Vec<Inner>>,
}

#[derive(Choice)]
enum Place {
    OnTop,
    Below,
}

#[derive(Config)]
struct Inner {
    name: String,
}

const DESCRIPTION: Description = Description {
    name: "every",
    version: "1.2.3",
    about: "Tests",
    panic: "unwind",
    always: true,
    inherit: false,
    after: &["one", "two"],
    before: &["three"],
    provides: Provides {
        filter: true,
        phases: &[Phase::ServerRewrite, Phase::Log],
        balancer: true,
        server_parameters: &["weight"],
        variables: &["v"],
        ..Provides::NONE
    },
    config: Every::FIELDS,
};

const LEN: usize = DESCRIPTION.len();
static TEXT: [u8; LEN] = DESCRIPTION.render();

fn parsed() -> toml::Table {
    let text = std::str::from_utf8(&TEXT).expect("UTF-8");
    text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn words(table: &toml::Table, key: &str) -> Vec<String> {
    let list = table.get(key).and_then(toml::Value::as_array).cloned().unwrap_or_default();
    list.iter().filter_map(|word| word.as_str().map(str::to_string)).collect()
}

#[test]
fn says_what_the_module_is() {
    let table = parsed();
    let text = |key: &str| table.get(key).and_then(toml::Value::as_str).unwrap_or_default();
    assert_eq!(["name", "version", "about", "panic"].map(text), ["every", "1.2.3", "Tests", "unwind"]);
    assert_eq!(["api", "rustc", "target"].map(text), [API_VERSION, RUSTC, TARGET]);
    assert_eq!(table.get("always").and_then(toml::Value::as_bool), Some(true));
    assert_eq!(table.get("inherit").and_then(toml::Value::as_bool), Some(false));
    assert_eq!(
        (words(&table, "after"), words(&table, "before")),
        (vec!["one".into(), "two".into()], vec!["three".into()])
    );
    assert_eq!(words(&table, "provides"), ["filter", "phases", "balancer", "variables"]);
    assert_eq!(words(&table, "phases"), ["server-rewrite", "log"]);
    assert_eq!(
        (words(&table, "server_parameters"), words(&table, "variables")),
        (vec!["weight".into()], vec!["v".into()])
    );
}

#[test]
fn carries_the_schema() {
    let table = parsed();
    let fields = table.get("config").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let of = |key: &str| {
        let found = fields
            .iter()
            .filter_map(toml::Value::as_table)
            .find(|field| field.get("key").and_then(toml::Value::as_str) == Some(key));
        found.cloned().unwrap_or_else(|| panic!("no field {key}"))
    };
    let keys = "enabled level signed ratio text wait words place bound value type match many";
    assert_eq!(fields.len(), keys.split(' ').count());
    let default = |key: &str| of(key).get("default").and_then(toml::Value::as_str).unwrap_or("none").to_string();
    let defaults = ["enabled", "level", "signed", "ratio", "wait", "words", "place", "bound"].map(default);
    assert_eq!(defaults, ["false", "6", "-1", "0.5", "\"1m30s\"", "[\"a\", \"b\"]", "\"on_top\"", "none"]);
    // A default is TOML again.
    let text: toml::Table = format!("x = {}", default("text")).parse().expect("TOML");
    assert_eq!(text.get("x").and_then(toml::Value::as_str), Some("say \"hi\"\n"));
    assert_eq!(of("level").get("doc").and_then(toml::Value::as_str), Some("How \"much\", in \\ two lines."));
    assert_eq!(of("level").get("type").map(ToString::to_string).as_deref(), Some("{ integer = { max = 9, min = 1 } }"));
    assert_eq!(
        of("place").get("type").map(ToString::to_string).as_deref(),
        Some("{ choice = [\"on_top\", \"below\"] }")
    );
    assert_eq!(of("value").get("required"), Some(&toml::Value::Boolean(true)));
    assert_eq!(of("type").get("optional"), Some(&toml::Value::Boolean(true)));
    assert!(of("many").contains_key("merge") && !of("words").contains_key("merge"));
}

#[test]
fn the_derive_gives_the_same_schema_to_rust() {
    let level = &Every::FIELDS[1];
    assert_eq!((level.key, level.min, level.max), ("level", Some(1), Some(9)));
    assert!(matches!((level.ty, level.presence), (Type::Integer(0, 4_294_967_295), Presence::Default("6"))));
    let many = &Every::FIELDS[12];
    assert!(many.merge && matches!(many.ty, Type::List(Type::Table(fields)) if fields[0].key == "name"));
}

#[test]
fn the_derive_reads_what_it_describes() {
    let text =
        "enabled = true\nvalue = \"$uri\"\ntype = \"t\"\nmatch = true\nmany = [{ name = \"n\" }]\nplace = \"below\"";
    let every = testing::module::<Every>(text).expect("valid");
    assert!(every.enabled() && matches!(every.place, Place::Below) && every.r#match == Some(true));
    assert_eq!((every.level, every.signed, every.text.as_str()), (6, -1, "say \"hi\"\n"));
    assert_eq!(
        (every.value.source(), every.kind.as_deref(), every.many.0[0][0].name.as_str()),
        ("$uri", Some("t"), "n")
    );
    let errors = testing::module::<Every>("enabled = true\nlevel = 10\nwrong = 1").err().unwrap_or_default();
    assert_eq!(errors, "level: found 10, expected an integer from 1 to 9\nwrong: unknown key");
    assert_eq!(testing::module::<Every>("enabled = true").err().as_deref(), Some("value: required, but not set"));
}
