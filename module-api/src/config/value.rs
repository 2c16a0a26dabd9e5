//! Values as the host hands them over, and the Rust types that a field can have.

use std::{fmt, time::Duration};

use abi_stable::{
    StableAbi,
    std_types::{RString, RVec, Tuple2},
};

use super::{Config, ConfigErrors, Type};
use crate::{Request, log::Level, template::Template};

/// A checked value of the configuration. Durations come in milliseconds, sizes in bytes, both as integers.
#[repr(u8)]
#[derive(StableAbi, Clone, Debug, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number, a duration or a size.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// A string, a choice or a template.
    String(RString),
    /// A list.
    List(RVec<Value>),
    /// A table: keys and values in the order of the file.
    Table(RVec<Tuple2<RString, Value>>),
}

/// A table that is being read.
#[derive(Debug)]
pub struct Table(RVec<Tuple2<RString, Value>>);

impl Table {
    /// The entries of a table; anything else is a table without entries.
    pub fn new(value: Value) -> Table {
        match value {
            Value::Table(entries) => Table(entries),
            _ => Table(RVec::new()),
        }
    }

    /// Takes a field out. An absent one is read as its type reads absence: `None`, or an error.
    pub fn take<T: ConfigValue>(&mut self, key: &str, errors: &mut ConfigErrors) -> Option<T> {
        let at = self.0.iter().position(|Tuple2(name, _)| name.as_str() == key);
        let value = at.map(|at| self.0.swap_remove(at).1);
        errors.within(format!(".{key}"), |errors| match value {
            Some(value) => T::from_value(value, errors),
            None => T::absent(errors),
        })
    }
}

/// A type that a field of a configuration can have.
pub trait ConfigValue: Sized {
    /// Its schema.
    const TYPE: &'static Type;
    /// Whether it takes the values of all levels.
    const MERGE: bool = false;

    /// Reads the value; `None` if it is wrong, which `errors` then says.
    fn from_value(value: Value, errors: &mut ConfigErrors) -> Option<Self>;

    /// What an absent key means. The host fills in defaults, so this is a required key that is missing.
    fn absent(errors: &mut ConfigErrors) -> Option<Self> {
        errors.add("", "required, but not set")
    }
}

fn wrong<T>(value: &Value, expected: &str, errors: &mut ConfigErrors) -> Option<T> {
    let found = match value {
        Value::Bool(flag) => flag.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::String(text) => format!("{:?}", text.as_str()),
        Value::List(_) => "a list".to_string(),
        Value::Table(_) => "a table".to_string(),
    };
    errors.add("", format!("found {found}, expected {expected}"))
}

impl ConfigValue for bool {
    const TYPE: &'static Type = &Type::Bool;

    fn from_value(value: Value, errors: &mut ConfigErrors) -> Option<bool> {
        match value {
            Value::Bool(flag) => Some(flag),
            other => wrong(&other, "true or false", errors),
        }
    }
}

macro_rules! integers {
    ($($ty:ident: $min:expr, $max:expr;)*) => {$(
        impl ConfigValue for $ty {
            const TYPE: &'static Type = &Type::Integer($min, $max);

            fn from_value(value: Value, errors: &mut ConfigErrors) -> Option<$ty> {
                match value {
                    Value::Integer(number) if $ty::try_from(number).is_ok() => $ty::try_from(number).ok(),
                    other => wrong(&other, concat!("an integer that fits ", stringify!($ty)), errors),
                }
            }
        }
    )*};
}
integers! {
    u8: 0, u8::MAX as i64;
    u16: 0, u16::MAX as i64;
    u32: 0, u32::MAX as i64;
    u64: 0, i64::MAX;
    usize: 0, i64::MAX;
    i32: i32::MIN as i64, i32::MAX as i64;
    i64: i64::MIN, i64::MAX;
}

impl ConfigValue for f64 {
    const TYPE: &'static Type = &Type::Number;

    fn from_value(value: Value, errors: &mut ConfigErrors) -> Option<f64> {
        match value {
            Value::Float(number) => Some(number),
            Value::Integer(number) => Some(number as f64),
            other => wrong(&other, "a number", errors),
        }
    }
}

impl ConfigValue for String {
    const TYPE: &'static Type = &Type::String;

    fn from_value(value: Value, errors: &mut ConfigErrors) -> Option<String> {
        match value {
            Value::String(text) => Some(text.into()),
            other => wrong(&other, "a string", errors),
        }
    }
}

impl ConfigValue for Duration {
    const TYPE: &'static Type = &Type::Duration;

    fn from_value(value: Value, errors: &mut ConfigErrors) -> Option<Duration> {
        match value {
            Value::Integer(ms) if ms >= 0 => Some(Duration::from_millis(ms.unsigned_abs())),
            other => wrong(&other, "a duration", errors),
        }
    }
}

/// A number of bytes, which the operator may write as "8k" or "1m" (nginx's units).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// Parses a size: a number with the unit k, m or g (either case), or none for bytes. At most `i64::MAX`. `None` if it is
    /// no size.
    pub fn parse(text: &str) -> Option<Size> {
        let (digits, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let shift = match unit {
            "" => 0,
            "k" | "K" => 10,
            "m" | "M" => 20,
            "g" | "G" => 30,
            _ => return None,
        };
        let bytes = digits.parse::<u64>().ok()?.checked_mul(1 << shift)?;
        i64::try_from(bytes).is_ok().then_some(Size(bytes))
    }
}

impl ConfigValue for Size {
    const TYPE: &'static Type = &Type::Size;

    fn from_value(value: Value, errors: &mut ConfigErrors) -> Option<Size> {
        match value {
            Value::Integer(bytes) if bytes >= 0 => Some(Size(bytes.unsigned_abs())),
            other => wrong(&other, "a size", errors),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A number of bytes, which the operator may also make of `$variables` (nginx: ngx_http_complex_value_size).
#[derive(Clone, Debug)]
pub enum SizeTemplate {
    /// The same for all requests.
    Constant(Size),
    /// As its variables say.
    Template(Template),
}

impl SizeTemplate {
    /// The number for this request; `None` if what the variables hold is no size, which is logged as the module's line.
    pub fn eval(&self, r: &Request<'_>) -> Option<Size> {
        let template = match self {
            SizeTemplate::Constant(size) => return Some(*size),
            SizeTemplate::Template(template) => template,
        };
        let text = template.eval(r);
        let size = std::str::from_utf8(text).ok().and_then(Size::parse);
        if size.is_none() {
            r.log(Level::Error, format_args!("invalid size {:?}", String::from_utf8_lossy(text)));
        }
        size
    }
}

impl ConfigValue for SizeTemplate {
    const TYPE: &'static Type = &Type::SizeTemplate;

    fn from_value(value: Value, errors: &mut ConfigErrors) -> Option<SizeTemplate> {
        match value {
            Value::String(_) => Template::from_value(value, errors).map(SizeTemplate::Template),
            value => Size::from_value(value, errors).map(SizeTemplate::Constant),
        }
    }
}

impl ConfigValue for Template {
    const TYPE: &'static Type = &Type::Template;

    fn from_value(value: Value, errors: &mut ConfigErrors) -> Option<Template> {
        let text = String::from_value(value, errors)?;
        Template::compile(&text).map_err(|message| errors.add::<()>("", message)).ok()
    }
}

impl<T: ConfigValue> ConfigValue for Vec<T> {
    const TYPE: &'static Type = &Type::List(T::TYPE);

    fn from_value(value: Value, errors: &mut ConfigErrors) -> Option<Vec<T>> {
        let list = match value {
            Value::List(list) => list,
            other => return wrong(&other, "a list", errors),
        };
        let count = list.len();
        let items: Vec<T> = list
            .into_iter()
            .enumerate()
            .filter_map(|(i, item)| errors.within(format!("[{i}]"), |errors| T::from_value(item, errors)))
            .collect();
        (items.len() == count).then_some(items)
    }
}

impl<T: ConfigValue> ConfigValue for Option<T> {
    const TYPE: &'static Type = T::TYPE;

    fn from_value(value: Value, errors: &mut ConfigErrors) -> Option<Option<T>> {
        T::from_value(value, errors).map(Some)
    }

    fn absent(_: &mut ConfigErrors) -> Option<Option<T>> {
        Some(None)
    }
}

/// The values of every level that sets the key, outermost (`http`) first: the module merges them itself.
#[derive(Clone, Debug, Default)]
pub struct Merged<T>(pub Vec<T>);

impl<T: ConfigValue> ConfigValue for Merged<T> {
    const TYPE: &'static Type = T::TYPE;
    const MERGE: bool = true;

    fn from_value(value: Value, errors: &mut ConfigErrors) -> Option<Merged<T>> {
        Vec::<T>::from_value(value, errors).map(Merged)
    }

    fn absent(_: &mut ConfigErrors) -> Option<Merged<T>> {
        Some(Merged(Vec::new()))
    }
}

/// Reads a struct that derives `Config` as a table within a table.
pub fn table_from_value<T: Config>(value: Value, errors: &mut ConfigErrors) -> Option<T> {
    match value {
        Value::Table(_) => T::from_table(&mut Table::new(value), errors),
        other => wrong(&other, "a table", errors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: Vec<(&str, Value)>) -> Value {
        Value::Table(entries.into_iter().map(|(key, value)| Tuple2(key.into(), value)).collect())
    }

    #[derive(crate::Config, Debug)]
    struct Inner {
        name: String,
        #[config(default = 3)]
        count: u8,
    }

    #[derive(crate::Config, Debug)]
    struct Outer {
        items: Vec<Inner>,
        wait: Option<Duration>,
        texts: Merged<Vec<String>>,
    }

    #[test]
    fn reads_nested_tables_and_lists() {
        let item = table(vec![("name", Value::String("a".into())), ("count", Value::Integer(7))]);
        let value = table(vec![("items", Value::List(vec![item].into())), ("wait", Value::Integer(1500))]);
        let mut errors = ConfigErrors::new();
        let outer = table_from_value::<Outer>(value, &mut errors).expect("valid");
        assert_eq!((outer.items[0].name.as_str(), outer.items[0].count), ("a", 7));
        assert_eq!(outer.wait, Some(Duration::from_millis(1500)));
        assert!(outer.texts.0.is_empty());
    }

    #[test]
    fn sizes() {
        let parse = |text| Size::parse(text).map(|size| size.0);
        assert_eq!(parse("8k"), Some(8192));
        assert_eq!(parse("1m"), Some(1 << 20));
        assert_eq!(parse("2G"), Some(2 << 30));
        assert_eq!(parse("17"), Some(17));
        assert_eq!(parse("8589934591g"), Some(8589934591 << 30));
        for bad in ["", "k", "8kb", "8 k", "-8k", "1.5m", "8589934592g", "17179869184g", "99999999999999999999"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn names_the_path_of_every_error() {
        let bad = table(vec![("name", Value::Integer(1)), ("count", Value::Integer(700))]);
        let value = table(vec![("items", Value::List(vec![bad].into())), ("wait", Value::Bool(true))]);
        let mut errors = ConfigErrors::new();
        assert!(table_from_value::<Outer>(value, &mut errors).is_none());
        let found: Vec<String> =
            errors.into_vec().iter().map(|error| format!("{}: {}", error.path, error.message)).collect();
        assert_eq!(
            found,
            [
                "items[0].name: found 1, expected a string",
                "items[0].count: found 700, expected an integer that fits u8",
                "wait: found true, expected a duration"
            ]
        );
    }
}
