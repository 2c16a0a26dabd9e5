//! A module's table from TOML text, checked against its schema the way the host does it.

use abi_stable::std_types::Tuple2;
use toml::Value as Toml;

use crate::config::{Config, Field, Presence, Size, Table, Type, Value};

/// Reads the table, fills in the defaults and builds the configuration. Everything that is wrong, one line each.
pub(crate) fn read<C: Config>(text: &str) -> Result<C, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let mut wrong = Vec::new();
    let value = convert_table(table, C::FIELDS, "", &mut wrong);
    if !wrong.is_empty() {
        return Err(wrong.join("\n"));
    }
    let mut errors = crate::ConfigErrors::new();
    let config = C::from_table(&mut Table::new(value), &mut errors);
    config.filter(|_| errors.is_empty()).ok_or_else(|| errors_text(errors))
}

/// The errors of a module as text: `path: message`, one a line.
pub(crate) fn errors_text(errors: crate::ConfigErrors) -> String {
    let lines = errors.into_vec().into_iter().map(|error| match error.path.as_str() {
        "" => error.message.to_string(),
        path => format!("{path}: {}", error.message),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn convert_table(mut table: toml::Table, fields: &[Field], path: &str, wrong: &mut Vec<String>) -> Value {
    let mut entries = Vec::new();
    for field in fields {
        let at = join(path, field.key);
        let value = match (table.remove(field.key), field.presence) {
            (Some(value), _) => value,
            (None, Presence::Default(text)) => match format!("x = {text}").parse::<toml::Table>() {
                Ok(mut default) => default.remove("x").unwrap_or(Toml::Boolean(false)),
                Err(error) => {
                    wrong.push(format!("{at}: the default in the schema is not TOML: {error}"));
                    continue;
                }
            },
            (None, _) => continue,
        };
        if let Some(value) = convert(value, field.ty, field, &at, wrong) {
            let value = if field.merge { Value::List(vec![value].into()) } else { value };
            entries.push(Tuple2(field.key.into(), value));
        }
    }
    wrong.extend(table.keys().map(|key| format!("{}: unknown key", join(path, key))));
    Value::Table(entries.into())
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}

fn convert(value: Toml, ty: &Type, field: &Field, at: &str, wrong: &mut Vec<String>) -> Option<Value> {
    let found = value.to_string();
    let mut refuse = |expected: String| {
        wrong.push(format!("{at}: found {}, expected {expected}", found.trim()));
        None
    };
    match (ty, value) {
        (Type::Bool, Toml::Boolean(flag)) => Some(Value::Bool(flag)),
        (Type::Integer(min, max), Toml::Integer(number)) => {
            let (min, max) = (field.min.unwrap_or(*min), field.max.unwrap_or(*max));
            if (min..=max).contains(&number) {
                Some(Value::Integer(number))
            } else {
                refuse(format!("an integer from {min} to {max}"))
            }
        }
        (Type::Number, Toml::Float(number)) => Some(Value::Float(number)),
        (Type::Number, Toml::Integer(number)) => Some(Value::Integer(number)),
        (Type::String | Type::Template, Toml::String(text)) => Some(Value::String(text.into())),
        (Type::Duration, Toml::Integer(seconds)) if seconds >= 0 => Some(Value::Integer(seconds.checked_mul(1000)?)),
        (Type::Duration, Toml::String(text)) => match duration(&text) {
            Some(ms) => Some(Value::Integer(ms)),
            None => refuse("a duration such as \"75s\"".to_string()),
        },
        (Type::SizeTemplate, Toml::String(text)) if text.contains('$') => Some(Value::String(text.into())),
        (Type::Size | Type::SizeTemplate, Toml::Integer(bytes)) if bytes >= 0 => Some(Value::Integer(bytes)),
        (Type::Size | Type::SizeTemplate, Toml::String(text)) => match Size::parse(&text) {
            Some(Size(bytes)) => Some(Value::Integer(i64::try_from(bytes).ok()?)),
            None => refuse("a size such as \"8k\"".to_string()),
        },
        (Type::Choice(words), Toml::String(text)) if words.contains(&text.as_str()) => Some(Value::String(text.into())),
        (Type::Choice(words), _) => refuse(format!("one of {}", words.join(", "))),
        (Type::List(item), Toml::Array(list)) => {
            let items = list.into_iter().enumerate();
            let items = items.filter_map(|(i, value)| convert(value, item, field, &format!("{at}[{i}]"), wrong));
            Some(Value::List(items.collect()))
        }
        (Type::Table(fields), Toml::Table(table)) => Some(convert_table(table, fields, at, wrong)),
        (Type::Bool, _) => refuse("true or false".to_string()),
        (Type::Integer(..), _) => refuse("an integer".to_string()),
        (Type::Number, _) => refuse("a number".to_string()),
        (Type::String | Type::Template, _) => refuse("a string".to_string()),
        (Type::Duration, _) => refuse("a duration".to_string()),
        (Type::Size | Type::SizeTemplate, _) => refuse("a size".to_string()),
        (Type::List(_), _) => refuse("a list".to_string()),
        (Type::Table(_), _) => refuse("a table".to_string()),
    }
}

/// A number in front of a unit.
fn number(text: &str) -> Option<(i64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    Some((number.parse().ok()?, rest))
}

/// "1m30s" in milliseconds; the last number may lack its unit, and is then seconds.
fn duration(text: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 8] = [
        ("ms", 1),
        ("s", 1000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
        ("w", 604_800_000),
        ("M", 2_592_000_000),
        ("y", 31_536_000_000),
    ];
    let (mut rest, mut total) = (text, 0_i64);
    while total == 0 || !rest.is_empty() {
        let (count, behind) = number(rest)?;
        let letters = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, behind) = behind.split_at(letters);
        let unit = if unit.is_empty() && behind.is_empty() { "s" } else { unit };
        let (_, ms) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(count.checked_mul(*ms)?)?;
        rest = behind.trim_start_matches(' ');
        if rest.is_empty() {
            break;
        }
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Choice, Config, Merged, Size};

    #[derive(Choice, Debug, PartialEq)]
    enum Mode {
        Off,
        VeryFast,
    }

    #[derive(Config, Debug)]
    struct Item {
        name: String,
        #[config(default = 3, min = 1, max = 9)]
        count: u8,
    }

    #[derive(Config, Debug)]
    struct Whole {
        #[config(default = "off")]
        mode: Mode,
        #[config(default = "1m30s")]
        wait: Duration,
        #[config(default = "8k")]
        bound: Size,
        #[config(default = ["a", "b"])]
        words: Vec<String>,
        ratio: Option<f64>,
        #[config(key = "type")]
        kind: Option<String>,
        item: Option<Vec<Item>>,
        extra: Merged<Vec<String>>,
    }

    #[test]
    fn fills_in_defaults() {
        let whole: Whole = read("").expect("all keys may be absent");
        assert_eq!((whole.mode, whole.wait, whole.bound), (Mode::Off, Duration::from_secs(90), Size(8192)));
        assert_eq!(whole.words, ["a", "b"]);
        assert!(whole.ratio.is_none() && whole.kind.is_none() && whole.item.is_none() && whole.extra.0.is_empty());
    }

    #[test]
    fn reads_every_type() {
        let text = "mode = \"very_fast\"\nwait = 2\nbound = \"1m\"\nratio = 2\ntype = \"x\"\nextra = [\"e\"]\n\
                    item = [{ name = \"n\" }, { name = \"m\", count = 9 }]";
        let whole: Whole = read(text).expect("valid");
        assert_eq!((whole.mode, whole.wait, whole.bound), (Mode::VeryFast, Duration::from_secs(2), Size(1 << 20)));
        assert_eq!((whole.ratio, whole.kind.as_deref()), (Some(2.0), Some("x")));
        let items: Vec<_> = whole.item.iter().flatten().map(|item| (item.name.as_str(), item.count)).collect();
        assert_eq!(items, [("n", 3), ("m", 9)]);
        assert_eq!(whole.extra.0, [["e"]]);
    }

    #[test]
    fn says_everything_that_is_wrong() {
        let text = "mode = \"on\"\nwait = \"2x\"\nwords = [1]\nitem = [{ name = \"n\", count = 10 }]\nmoed = 1";
        let errors = read::<Whole>(text).expect_err("wrong");
        assert_eq!(
            errors.lines().collect::<Vec<_>>(),
            [
                "mode: found \"on\", expected one of off, very_fast",
                "wait: found \"2x\", expected a duration such as \"75s\"",
                "words[0]: found 1, expected a string",
                "item[0].count: found 10, expected an integer from 1 to 9",
                "moed: unknown key",
            ]
        );
        assert_eq!(read::<Item>("").expect_err("required"), "name: required, but not set");
    }

    #[test]
    fn durations_and_sizes() {
        assert_eq!(["75", "1m30s", "500ms", "1h 5", "0"].map(duration), [75_000, 90_000, 500, 3_605_000, 0].map(Some));
        assert_eq!(["", "x", "1x", "1m1"].map(duration), [None, None, None, Some(61_000)]);
    }
}
