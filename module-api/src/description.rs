//! The description of a module: TOML text in an ELF section of its own, readable without loading anything.
//!
//! It is rendered at compile time from what `export_module!` is given and from the configuration's schema.

use crate::config::{Field, Presence, Type};

/// The ELF section. Not `.note.*`, which the linker treats as notes.
pub const SECTION: &str = ".topnext";

/// The format of the description. A host refuses formats that it does not know.
pub const FORMAT: u32 = 1;

/// What a module says about itself.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// Its name: crate `topnext_NAME`, file `libtopnext_NAME.so`, configuration table `NAME`.
    pub name: &'static str,
    /// The crate's version.
    pub version: &'static str,
    /// The crate's description.
    pub about: &'static str,
    /// `unwind` or `abort`.
    pub panic: &'static str,
    /// Active wherever it can be, without configuration.
    pub always: bool,
    /// Its table holds for the servers and locations inside that in which it stands.
    pub inherit: bool,
    /// Modules that a response must meet before this one.
    pub after: &'static [&'static str],
    /// Modules that a response must meet after this one.
    pub before: &'static [&'static str],
    /// What it provides, and what belongs to that.
    pub provides: Provides,
    /// The keys of its table.
    pub config: &'static [Field],
}

/// The kinds that a module provides.
#[derive(Clone, Copy, Debug)]
pub struct Provides {
    /// A header filter, and perhaps a body filter.
    pub filter: bool,
    /// Phase handlers, in these phases.
    pub phases: &'static [crate::Phase],
    /// A content handler.
    pub content: bool,
    /// An upstream protocol.
    pub upstream: bool,
    /// A balancer.
    pub balancer: bool,
    /// The server parameters that the balancer honours.
    pub server_parameters: &'static [&'static str],
    /// Variables.
    pub variables: &'static [&'static str],
}

impl Provides {
    /// Nothing.
    pub const NONE: Provides = Provides {
        filter: false,
        phases: &[],
        content: false,
        upstream: false,
        balancer: false,
        server_parameters: &[],
        variables: &[],
    };
}

impl Description {
    /// The length of the text in bytes.
    pub const fn len(&self) -> usize {
        let mut out = Text::<0> { bytes: [], len: 0 };
        self.write(&mut out);
        out.len
    }

    /// Never empty.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The text. `N` is [`Description::len`].
    pub const fn render<const N: usize>(&self) -> [u8; N] {
        let mut out = Text { bytes: [0; N], len: 0 };
        self.write(&mut out);
        assert!(out.len == N);
        out.bytes
    }

    const fn write<const N: usize>(&self, out: &mut Text<N>) {
        out.key("format");
        out.number(FORMAT as i64);
        out.line_of("name", self.name);
        out.line_of("version", self.version);
        out.line_of("about", self.about);
        out.line_of("api", crate::API_VERSION);
        out.raw("\n");
        out.key("epoch");
        out.number(crate::ABI_EPOCH as i64);
        out.line_of("rustc", crate::RUSTC);
        out.line_of("target", crate::TARGET);
        out.line_of("panic", self.panic);
        out.raw("\n");
        out.key("always");
        out.flag(self.always);
        out.raw("\n");
        out.key("inherit");
        out.flag(self.inherit);
        out.raw("\n");
        out.key("after");
        out.words(self.after);
        out.raw("\n");
        out.key("before");
        out.words(self.before);
        out.raw("\n");
        let provides = &self.provides;
        out.key("provides");
        out.raw("[");
        out.kind("filter", provides.filter);
        out.kind("phases", !provides.phases.is_empty());
        out.kind("content", provides.content);
        out.kind("upstream", provides.upstream);
        out.kind("balancer", provides.balancer);
        out.kind("variables", !provides.variables.is_empty());
        out.raw("]\n");
        out.key("phases");
        out.raw("[");
        let mut i = 0;
        while i < provides.phases.len() {
            out.kind(provides.phases[i].name(), true);
            i += 1;
        }
        out.raw("]\n");
        out.key("server_parameters");
        out.words(provides.server_parameters);
        out.raw("\n");
        out.key("variables");
        out.words(provides.variables);
        out.raw("\n");
        out.key("config");
        out.fields(self.config);
        out.raw("\n");
    }
}

/// Text that is written at compile time. With `N` = 0 it only counts.
struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    const fn byte(&mut self, byte: u8) {
        if N > 0 {
            self.bytes[self.len] = byte;
        }
        self.len += 1;
    }

    const fn raw(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let mut i = 0;
        while i < bytes.len() {
            self.byte(bytes[i]);
            i += 1;
        }
    }

    const fn key(&mut self, key: &str) {
        self.raw(key);
        self.raw(" = ");
    }

    /// A TOML basic string.
    const fn string(&mut self, text: &str) {
        self.byte(b'"');
        let bytes = text.as_bytes();
        let mut i = 0;
        while i < bytes.len() {
            match bytes[i] {
                b'"' => self.raw("\\\""),
                b'\\' => self.raw("\\\\"),
                b'\n' => self.raw("\\n"),
                b'\t' => self.raw("\\t"),
                // Other control characters have no place in names and docs.
                0..=31 | 127 => self.byte(b' '),
                byte => self.byte(byte),
            }
            i += 1;
        }
        self.byte(b'"');
    }

    const fn line_of(&mut self, key: &str, text: &str) {
        self.raw("\n");
        self.key(key);
        self.string(text);
    }

    const fn flag(&mut self, flag: bool) {
        self.raw(if flag { "true" } else { "false" });
    }

    const fn number(&mut self, number: i64) {
        if number < 0 {
            self.byte(b'-');
        }
        let mut rest = number.unsigned_abs();
        let mut digits = [0; 20];
        let mut count = 0;
        while count == 0 || rest > 0 {
            digits[count] = b'0' + (rest % 10) as u8;
            rest /= 10;
            count += 1;
        }
        while count > 0 {
            count -= 1;
            self.byte(digits[count]);
        }
    }

    const fn words(&mut self, words: &[&str]) {
        self.raw("[");
        let mut i = 0;
        while i < words.len() {
            self.kind(words[i], true);
            i += 1;
        }
        self.raw("]");
    }

    /// A word of a list, if it is to be there. TOML allows the comma behind the last.
    const fn kind(&mut self, word: &str, there: bool) {
        if there {
            self.string(word);
            self.raw(", ");
        }
    }

    const fn fields(&mut self, fields: &[Field]) {
        self.raw("[\n");
        let mut i = 0;
        while i < fields.len() {
            let field = &fields[i];
            self.raw("{ ");
            self.key("key");
            self.string(field.key);
            self.raw(", ");
            self.key("type");
            self.ty(field.ty, field);
            match field.presence {
                Presence::Required => self.raw(", required = true"),
                Presence::Optional => self.raw(", optional = true"),
                Presence::Default(text) => {
                    self.raw(", ");
                    self.key("default");
                    self.string(text);
                }
            }
            if field.merge {
                self.raw(", merge = true");
            }
            if !field.inherit {
                self.raw(", inherit = false");
            }
            self.raw(", ");
            self.key("doc");
            self.string(field.doc);
            self.raw(" },\n");
            i += 1;
        }
        self.raw("]");
    }

    const fn ty(&mut self, ty: &Type, field: &Field) {
        match ty {
            Type::Bool => self.raw("{ bool = {} }"),
            Type::Integer(min, max) => {
                let min = match field.min {
                    Some(value) => value,
                    None => *min,
                };
                let max = match field.max {
                    Some(value) => value,
                    None => *max,
                };
                self.raw("{ integer = { min = ");
                self.number(min);
                self.raw(", max = ");
                self.number(max);
                self.raw(" } }");
            }
            Type::Number => self.raw("{ number = {} }"),
            Type::String => self.raw("{ string = {} }"),
            Type::Duration => self.raw("{ duration = {} }"),
            Type::Size => self.raw("{ size = {} }"),
            Type::SizeTemplate => self.raw("{ size_template = {} }"),
            Type::Template => self.raw("{ template = {} }"),
            Type::Choice(words) => {
                self.raw("{ choice = ");
                self.words(words);
                self.raw(" }");
            }
            Type::List(item) => {
                self.raw("{ list = ");
                self.ty(item, field);
                self.raw(" }");
            }
            Type::Table(fields) => {
                self.raw("{ table = ");
                self.fields(fields);
                self.raw(" }");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[Field] = &[Field {
        key: "level",
        ty: &Type::List(&Type::Integer(-5, 255)),
        presence: Presence::Default("[1, 2]"),
        merge: false,
        inherit: true,
        min: Some(1),
        max: None,
        doc: "How \"much\"\\.",
    }];
    const DESCRIPTION: Description = Description {
        name: "x",
        version: "0.1.0",
        about: "",
        panic: "unwind",
        always: false,
        inherit: true,
        after: &["a", "b"],
        before: &[],
        provides: Provides { filter: true, ..Provides::NONE },
        config: FIELDS,
    };

    #[test]
    fn renders_at_compile_time() {
        const LEN: usize = DESCRIPTION.len();
        static TEXT: [u8; LEN] = DESCRIPTION.render();
        let text = std::str::from_utf8(&TEXT).expect("UTF-8");
        assert!(text.starts_with("format = 1\nname = \"x\"\n"), "{text}");
        assert!(text.contains("after = [\"a\", \"b\", ]\n"), "{text}");
        assert!(
            text.contains("type = { list = { integer = { min = 1, max = 255 } } }, default = \"[1, 2]\""),
            "{text}"
        );
        assert!(text.contains(r#"doc = "How \"much\"\\.""#), "{text}");
    }
}
