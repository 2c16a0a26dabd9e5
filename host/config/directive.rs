//! What a key is: one definition that feeds the parser, the errors, the reference manual and the tests.
//!
//! A [`Directive`] is a key of the server's own (see `core_directives`); a [`Field`] is a key inside a table, or a key of
//! a module (see `schema`). Both have a [`Type`], and checks, error texts and documentation come from that alone.

use super::tree::Node;

/// The places in which a directive or a module's table may stand; a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contexts(u8);

impl Contexts {
    /// Nowhere.
    pub const NONE: Contexts = Contexts(0);
    /// Top level of the file.
    pub const MAIN: Contexts = Contexts(1);
    /// `[http]`
    pub const HTTP: Contexts = Contexts(2);
    /// `[[http.server]]`
    pub const SERVER: Contexts = Contexts(4);
    /// `[[http.server.location]]`, nested ones included
    pub const LOCATION: Contexts = Contexts(8);
    /// `[http.upstream.NAME]`
    pub const UPSTREAM: Contexts = Contexts(16);

    const NAMES: [(Contexts, &'static str); 5] = [
        (Contexts::MAIN, "main"),
        (Contexts::HTTP, "http"),
        (Contexts::SERVER, "server"),
        (Contexts::LOCATION, "location"),
        (Contexts::UPSTREAM, "upstream"),
    ];

    /// Both sets together.
    pub const fn or(self, other: Contexts) -> Contexts {
        Contexts(self.0 | other.0)
    }

    /// True if the sets meet.
    pub const fn meets(self, other: Contexts) -> bool {
        self.0 & other.0 != 0
    }

    /// The names, such as `http, server, location`.
    pub fn names(self) -> String {
        let names: Vec<&str> = Self::NAMES.iter().filter(|(set, _)| self.meets(*set)).map(|(_, name)| *name).collect();
        names.join(", ")
    }
}

/// A key of the server's own.
#[derive(Clone, Debug)]
pub struct Directive {
    /// nginx's name.
    pub name: &'static str,
    /// Where it may stand.
    pub contexts: Contexts,
    /// What it takes.
    pub ty: Type,
    /// TOML text of the value that applies if it is not written; empty if there is none.
    pub default: &'static str,
    /// One or two sentences for the reference manual.
    pub doc: &'static str,
}

/// A key of a table, or of a module.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The key.
    pub key: String,
    /// What it takes.
    pub ty: Type,
    /// Whether it must, may, or need not be written.
    pub presence: Presence,
    /// Instead of the value of the innermost level: the list of the values of all levels, outermost first.
    pub merge: bool,
    /// Whether the value holds inside the level in which it is written. Else it may not stand at the top, where it would
    /// hold nowhere.
    pub inherit: bool,
    /// For the reference manual.
    pub doc: String,
}

/// What holds if a key is not written.
#[derive(Clone, Debug, PartialEq)]
pub enum Presence {
    /// It is an error.
    Required,
    /// The table does not have the key.
    Optional,
    /// The table has this value.
    Default {
        /// As TOML text.
        text: String,
        /// The same, parsed.
        node: Node,
    },
}

/// What a key takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// An integer in a range, both ends included.
    Integer {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// An integer or a number with a fraction; finite.
    Number,
    /// Any string.
    String,
    /// See [`parse_duration`](super::units::parse_duration).
    Duration,
    /// See [`Size::parse`](topnext_module_api::Size::parse).
    Size,
    /// The same, or a string with `$variables`.
    SizeTemplate,
    /// A string that may hold `$variables`; here any string.
    Template,
    /// An address to listen on.
    Listen,
    /// The address of a peer.
    Peer,
    /// The path of a location.
    LocationPath,
    /// One of these strings.
    Choice(Vec<String>),
    /// This string, which says how it is and cannot be changed: a directive of nginx whose other values are refused, with
    /// the reason.
    Fixed {
        /// The string.
        value: &'static str,
        /// Why it is so.
        why: &'static str,
    },
    /// A list of such values.
    List(Box<Type>),
    /// A table with these keys and no others.
    Table(Vec<Field>),
    /// A table with any keys, each with such a value.
    Map(Box<Type>),
    /// One of these types.
    OneOf(Vec<Type>),
    /// A block with directives of its own: `[http]`, `[[http.server]]`. The walk over the tree checks it.
    Block(Block),
}

/// How a block is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// `[name]`
    Table,
    /// `[[name]]`
    Tables,
    /// `[name.ANY]`
    Named,
}

impl Type {
    /// What is valid, as it stands behind "expected": `an integer from 1 to 9`.
    pub fn expected(&self) -> String {
        match self {
            Type::Bool => "true or false".to_owned(),
            Type::Integer { min: i64::MIN, max: i64::MAX } => "an integer".to_owned(),
            Type::Integer { min, max: i64::MAX } => format!("an integer of at least {min}"),
            Type::Integer { min: i64::MIN, max } => format!("an integer of at most {max}"),
            Type::Integer { min, max } => format!("an integer from {min} to {max}"),
            Type::Number => "a number".to_owned(),
            Type::String | Type::Template => "a string".to_owned(),
            Type::Duration => "a duration such as \"75s\", \"1m30s\" or \"500ms\"".to_owned(),
            Type::Size => "a size such as \"8k\", \"1m\" or \"2g\"".to_owned(),
            Type::SizeTemplate => "a size such as \"8k\", or a string with a variable such as \"$rate\"".to_owned(),
            Type::Listen => {
                "an address to listen on such as \"8080\", \"127.0.0.1:8080\", \"[::1]:80\" or \"unix:/path\""
                    .to_owned()
            }
            Type::Peer => {
                "an address such as \"127.0.0.1:8080\", \"[::1]:80\", \"name:8080\" or \"unix:/path\"".to_owned()
            }
            Type::LocationPath => {
                "a path such as \"/x\", \"= /x\", \"^~ /x\", '~ regex', '~* regex' or \"@name\"".to_owned()
            }
            Type::Choice(names) => any_of(names.iter().map(|name| format!("{name:?}")).collect()),
            Type::Fixed { value, why } => format!("{value:?} and nothing else: {why}"),
            Type::List(element) => format!("a list, each element {}", element.expected()),
            Type::Table(fields) => {
                let keys: Vec<&str> = fields.iter().map(|field| field.key.as_str()).collect();
                format!("a table with the keys {}", keys.join(", "))
            }
            Type::Map(element) => format!("a table, each key with {}", element.expected()),
            Type::OneOf(types) => any_of(types.iter().map(Type::expected).collect()),
            Type::Block(Block::Table | Block::Named) => "a table".to_owned(),
            Type::Block(Block::Tables) => "an array of tables".to_owned(),
        }
    }

    /// The type in a word or two, for the reference manual.
    pub fn short(&self) -> String {
        match self {
            Type::Bool => "bool".to_owned(),
            Type::Integer { .. } => self.expected().trim_start_matches("an ").to_owned(),
            Type::Number => "number".to_owned(),
            Type::String => "string".to_owned(),
            Type::Duration => "duration".to_owned(),
            Type::Size => "size".to_owned(),
            Type::SizeTemplate => "size or string with variables".to_owned(),
            Type::Template => "string with variables".to_owned(),
            Type::Listen | Type::Peer => "address".to_owned(),
            Type::LocationPath => "path".to_owned(),
            Type::Choice(_) => self.expected(),
            Type::Fixed { value, .. } => format!("{value:?}"),
            Type::List(element) => format!("list of {}", element.short()),
            Type::Table(fields) => {
                let keys: Vec<String> =
                    fields.iter().map(|field| format!("{} = {}", field.key, field.ty.short())).collect();
                format!("table {{ {} }}", keys.join(", "))
            }
            Type::Map(element) => format!("table {{ NAME = {} }}", element.short()),
            Type::OneOf(types) => any_of(types.iter().map(Type::short).collect()),
            Type::Block(Block::Table) => "block".to_owned(),
            Type::Block(Block::Tables) => "array of blocks".to_owned(),
            Type::Block(Block::Named) => "named blocks".to_owned(),
        }
    }
}

/// `a, b or c`
fn any_of(mut names: Vec<String>) -> String {
    match (names.pop(), names.is_empty()) {
        (None, _) => "nothing".to_owned(),
        (Some(last), true) => last,
        (Some(last), false) => format!("{} or {last}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_are_readable() {
        let choice = |names: &[&str]| Type::Choice(names.iter().map(|name| name.to_string()).collect());
        assert_eq!(Type::Integer { min: 1, max: 9 }.expected(), "an integer from 1 to 9");
        assert_eq!(Type::Integer { min: 0, max: i64::MAX }.expected(), "an integer of at least 0");
        assert_eq!(Type::Integer { min: i64::MIN, max: 0 }.expected(), "an integer of at most 0");
        assert_eq!(choice(&["a", "b", "c"]).expected(), "\"a\", \"b\" or \"c\"");
        assert_eq!(Type::List(Box::new(Type::String)).expected(), "a list, each element a string");
        let either = Type::OneOf(vec![choice(&["auto"]), Type::Integer { min: 1, max: 1024 }]);
        assert_eq!(either.expected(), "\"auto\" or an integer from 1 to 1024");
        assert_eq!(either.short(), "\"auto\" or integer from 1 to 1024");
    }

    #[test]
    fn contexts_are_sets() {
        let both = Contexts::HTTP.or(Contexts::LOCATION);
        assert!(both.meets(Contexts::HTTP) && !both.meets(Contexts::SERVER.or(Contexts::MAIN)));
        assert_eq!(both.names(), "http, location");
    }
}
