//! The path of a location, in nginx's forms.
//!
//! ```text
//! "/x"      paths that start with /x; the longest such location wins
//! "= /x"    the path /x and no other
//! "^~ /x"   as the first, and no regular expression is tried
//! ```
//!
//! Regular expressions (`~ re`, `~* re`) and named locations (`@name`) are refused for now. See nginx's directive
//! "location".

use std::fmt;

use super::diagnostic::quote;
use super::directive::Type;

/// How a location's path is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LocationKind {
    /// `/x`
    Prefix,
    /// `= /x`
    Exact,
    /// `^~ /x`
    PrefixNoRegex,
}

/// The path of a location.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LocationPath {
    /// How it is compared.
    pub kind: LocationKind,
    /// What it is compared with; starts with `/`.
    pub text: String,
}

impl LocationPath {
    /// Parses a path; the error is a message for the operator.
    pub fn parse(text: &str) -> Result<LocationPath, String> {
        if text.starts_with('~') {
            return Err(format!("found {}; regex locations are not supported yet", quote(text)));
        }
        if text.starts_with('@') {
            return Err(format!("found {}; named locations are not supported yet", quote(text)));
        }
        let (kind, path) = if let Some(rest) = text.strip_prefix("^~") {
            (LocationKind::PrefixNoRegex, rest.trim_start_matches(' '))
        } else if let Some(rest) = text.strip_prefix('=') {
            (LocationKind::Exact, rest.trim_start_matches(' '))
        } else {
            (LocationKind::Prefix, text)
        };
        if !path.starts_with('/') || path.contains(char::is_control) {
            let expected = Type::LocationPath.expected();
            return Err(format!("found {}, expected {expected}", quote(text)));
        }
        Ok(LocationPath { kind, text: path.to_owned() })
    }

    /// What two locations side by side must not share: the text, and whether it is an exact path (nginx keeps exact
    /// paths and prefixes apart).
    pub fn identity(&self) -> (String, bool) {
        (self.text.clone(), self.kind == LocationKind::Exact)
    }

    /// Whether a location may stand inside this one; the error is a message for the operator.
    pub fn may_hold(&self, inner: &LocationPath) -> Result<(), String> {
        if self.kind == LocationKind::Exact {
            return Err(format!("\"{inner}\" cannot stand inside \"{self}\", which matches one path only"));
        }
        if !inner.text.starts_with(&self.text) {
            return Err(format!("\"{inner}\" does not lie below \"{self}\", inside which it stands"));
        }
        Ok(())
    }
}

impl fmt::Display for LocationPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            LocationKind::Prefix => "",
            LocationKind::Exact => "= ",
            LocationKind::PrefixNoRegex => "^~ ",
        })?;
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let shown = |text| LocationPath::parse(text).map(|path| (path.kind, path.to_string()));
        assert_eq!(shown("/x"), Ok((LocationKind::Prefix, "/x".into())));
        assert_eq!(shown("= /x"), Ok((LocationKind::Exact, "= /x".into())));
        assert_eq!(shown("=/x"), Ok((LocationKind::Exact, "= /x".into())));
        assert_eq!(shown("^~ /x"), Ok((LocationKind::PrefixNoRegex, "^~ /x".into())));
        assert_eq!(shown("~ \\.php$"), Err("found \"~ \\\\.php$\"; regex locations are not supported yet".into()));
        assert_eq!(shown("~* x"), Err("found \"~* x\"; regex locations are not supported yet".into()));
        assert_eq!(shown("@a"), Err("found \"@a\"; named locations are not supported yet".into()));
        for bad in ["", "x", "= x", "=", "^~", "/a\n"] {
            assert!(shown(bad).unwrap_err().contains("expected a path such as"), "{bad:?}");
        }
    }

    #[test]
    fn relations() {
        let path = |text| LocationPath::parse(text).unwrap();
        assert_eq!(path("/x").identity(), path("^~ /x").identity());
        assert_ne!(path("/x").identity(), path("= /x").identity());
        assert!(path("/x/").may_hold(&path("= /x/y")).is_ok());
        assert!(path("/x/").may_hold(&path("/y")).is_err());
        assert!(path("= /x").may_hold(&path("/x/y")).is_err());
    }
}
