//! Refusals: why a module is not loaded, with both sides' values and the mend.
//!
//! ```text
//! plugins.toml:14:1: module "addition": built for another module-api
//!   file    modules/libtopnext_addition.so
//!   host    module-api 1.3.0 (abi 1)
//!   module  module-api 2.0.0 (abi 2), built by rustc 1.97.0-nightly
//!   fix     rebuild it against module-api 1.x, or upgrade topnext
//! ```

use std::fmt;

/// Why a module is refused. Displays as several lines, without a line end behind the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where the module is declared: `plugins.toml:14:1`. Empty if it is not declared anywhere (`topnext inspect`).
    pub place: String,
    /// The module's name in the configuration; for a file outside of it, the file's name.
    pub module: String,
    /// What is wrong.
    pub kind: RefusalKind,
    /// Label and text. A text of several lines is continued under its first line.
    pub lines: Vec<(&'static str, String)>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $headline:literal;)*) => {
        /// The kinds of refusals, in the order of the checks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum RefusalKind {
            $($(#[$doc])* $kind,)*
        }

        impl RefusalKind {
            /// Every kind.
            pub const ALL: &'static [RefusalKind] = &[$(RefusalKind::$kind),*];

            /// A short name that stays the same from version to version.
            pub const fn name(self) -> &'static str {
                match self {
                    $(RefusalKind::$kind => $name,)*
                }
            }

            /// What the first line of the refusal says.
            pub const fn headline(self) -> &'static str {
                match self {
                    $(RefusalKind::$kind => $headline,)*
                }
            }
        }
    };
}
kinds! {
    /// No file of that name. Likely: a wrong name, not built, or not installed in `module_path`.
    NotFound = "not_found", "there is no such file";
    /// The file cannot be read, is no ordinary file, or is too large.
    NotReadable = "not_readable", "its file cannot be read";
    /// Not an ELF file, or a damaged one. Likely: a text file, or a copy that was cut off.
    NotElf = "not_elf", "its file is not a shared library";
    /// Built for another processor.
    Architecture = "architecture", "built for another processor";
    /// An ELF file, but not a shared object. Likely: a program or an object file.
    NotShared = "not_shared", "its file is not a shared library";
    /// A shared library without a description. Likely: not a topnext module, or stripped of its sections.
    NoDescription = "no_description", "its file is not a topnext module";
    /// More than one description. Likely: two modules were linked into one file.
    SeveralDescriptions = "several_descriptions", "its file holds several modules";
    /// The description is of a format that this host does not know.
    Format = "format", "its description is of another format";
    /// The description cannot be understood.
    BadDescription = "bad_description", "its description cannot be understood";
    /// Another major version of module-api.
    Major = "major", "built for another module-api";
    /// Another ABI epoch of the same major version.
    Epoch = "epoch", "built for another state of module-api";
    /// The same processor, but another system or C library.
    Target = "target", "built for another target";
    /// Its panics would end the worker.
    PanicStrategy = "panic_strategy", "its panics would end the worker";
    /// The file holds a module of another name.
    Name = "name", "its file holds another module";
    /// The version does not meet the requirement of the configuration.
    Version = "version", "its version is not the one that is required";
    /// The file is not the one that the configuration pins.
    Sha256 = "sha256", "its file is not the one that is pinned";
    /// Two declarations lead to one file, which would have to hold the state of both.
    SameFileTwice = "same_file_twice", "its file is loaded already, under another name";
    /// The file was replaced between its check and its loading.
    Changed = "changed", "its file changed while it was loaded";
    /// The dynamic linker refuses the file. Likely: a library it needs is missing.
    Open = "open", "the dynamic linker cannot load it";
    /// The symbol of abi_stable is missing, or is of another abi_stable.
    AbiHeader = "abi_header", "built with another abi_stable";
    /// A type of the ABI differs. Likely: built with an altered module-api.
    Layout = "layout", "its types differ from the host's";
    /// The code says something else than the description.
    Root = "root", "its code does not fit its description";
    /// The module's own start answered with an error.
    Init = "init", "it cannot start";
    /// The module's own start panicked.
    InitPanic = "init_panic", "it panicked when it was started";
    /// Declared before a module that has to come first, or after one that has to come later.
    Order = "order", "it stands in the wrong order";
    /// `ignore_order` names no module of the configuration.
    IgnoreOrder = "ignore_order", "ignore_order names an unknown module";
}

impl Refusal {
    /// A refusal of the module, without lines yet.
    pub fn new(module: impl Into<String>, kind: RefusalKind) -> Refusal {
        Refusal { place: String::new(), module: module.into(), kind, lines: Vec::new() }
    }

    /// Adds a line.
    pub fn line(mut self, label: &'static str, text: impl Into<String>) -> Refusal {
        self.lines.push((label, text.into()));
        self
    }

    /// Sets the declaration that it is about: its place, and the module's name there.
    pub fn at(mut self, place: &str, module: &str) -> Refusal {
        self.place = place.to_owned();
        self.module = module.to_owned();
        self
    }

    /// The lines below the first, as Display shows them.
    pub fn details(&self) -> impl fmt::Display + '_ {
        Details(&self.lines)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", printable(&self.place))?;
        }
        write!(f, "module \"{}\": {}{}", printable(&self.module), self.kind.headline(), Details(&self.lines))
    }
}

impl std::error::Error for Refusal {}

struct Details<'a>(&'a [(&'static str, String)]);

impl fmt::Display for Details<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (label, text) in self.0 {
            for (i, line) in text.lines().enumerate() {
                let label = if i == 0 { label } else { "" };
                write!(f, "\n  {label:<6}  {}", printable(line))?;
            }
        }
        Ok(())
    }
}

/// Text from a module or a file name, which must not command the terminal.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_place_module_and_aligned_lines() {
        let refusal = Refusal::new("libx.so", RefusalKind::Major)
            .line("file", "modules/libx.so")
            .line("looked", "a\nb")
            .line("fix", "rebuild it")
            .at("plugins.toml:14:1", "x");
        assert_eq!(
            refusal.to_string(),
            "plugins.toml:14:1: module \"x\": built for another module-api\n  file    modules/libx.so\n  looked  a\n          b\n  fix     rebuild it"
        );
    }

    #[test]
    fn without_a_place_it_starts_with_the_module_and_escapes_control_characters() {
        let refusal = Refusal::new("x", RefusalKind::Init).line("error", "\x1b[2J");
        assert_eq!(refusal.to_string(), "module \"x\": it cannot start\n  error   \\u{1b}[2J");
    }

    #[test]
    fn names_are_unique() {
        for (i, kind) in RefusalKind::ALL.iter().enumerate() {
            assert!(!RefusalKind::ALL[..i].iter().any(|other| other.name() == kind.name()), "{kind:?}");
        }
    }
}
