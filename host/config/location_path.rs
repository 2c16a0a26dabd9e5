//! The path of a location, in nginx's forms.
//!
//! ```text
//! "/x"        paths that start with /x; the longest such location wins
//! "= /x"      the path /x and no other
//! "^~ /x"     as the first, and no regular expression is tried
//! '~ \.php$'  paths in which the regular expression matches
//! '~* \.gif$' the same, with upper and lower case being the same
//! "@name"     no path at all: error pages, try_files and internal redirects go there by its name
//! ```
//!
//! See nginx's directive "location", and [`location`](crate::location) for how one is chosen.

use std::fmt;

use super::diagnostic::quote;
use super::directive::Type;
use crate::regex::Pattern;

/// How a location's path is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LocationKind {
    /// `/x`
    Prefix,
    /// `= /x`
    Exact,
    /// `^~ /x`
    PrefixNoRegex,
    /// `~ x` and `~* x`
    Regex,
    /// `@x`
    Named,
}

/// The path of a location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocationPath {
    /// How it is compared.
    pub kind: LocationKind,
    /// What it is compared with: a path, which starts with `/`, the text of a regular expression, or a name with its `@`.
    pub text: String,
    /// The regular expression of the kind that has one.
    pub regex: Option<Pattern>,
}

impl LocationPath {
    /// Parses a path; the error is a message for the operator.
    pub fn parse(text: &str) -> Result<LocationPath, String> {
        if let Some(regex) = text.strip_prefix('~') {
            let (caseless, regex) = regex.strip_prefix('*').map_or((false, regex), |regex| (true, regex));
            let regex = regex.trim_start_matches(' ');
            if regex.is_empty() {
                return Err(format!("found {}, in which no regular expression follows", quote(text)));
            }
            let pattern = Pattern::parse(regex, caseless).map_err(|error| format!("found {}; {error}", quote(text)))?;
            return Ok(LocationPath { kind: LocationKind::Regex, text: regex.to_owned(), regex: Some(pattern) });
        }
        let (kind, path) = if let Some(rest) = text.strip_prefix("^~") {
            (LocationKind::PrefixNoRegex, rest.trim_start_matches(' '))
        } else if let Some(rest) = text.strip_prefix('=') {
            (LocationKind::Exact, rest.trim_start_matches(' '))
        } else if text.starts_with('@') {
            (LocationKind::Named, text)
        } else {
            (LocationKind::Prefix, text)
        };
        let valid = if kind == LocationKind::Named { path.len() > 1 } else { path.starts_with('/') };
        if !valid || path.contains(char::is_control) {
            let expected = Type::LocationPath.expected();
            return Err(format!("found {}, expected {expected}", quote(text)));
        }
        Ok(LocationPath { kind, text: path.to_owned(), regex: None })
    }

    /// What two locations side by side must not share: the text, and whether it is an exact path or a regular expression
    /// (nginx keeps exact paths and prefixes apart).
    pub fn identity(&self) -> (String, LocationKind, bool) {
        let kind = match self.kind {
            LocationKind::PrefixNoRegex => LocationKind::Prefix,
            kind => kind,
        };
        (self.text.clone(), kind, self.regex.as_ref().is_some_and(Pattern::is_caseless))
    }

    /// Whether a location may stand inside this one; the error is a message for the operator.
    pub fn may_hold(&self, inner: &LocationPath) -> Result<(), String> {
        let literal = matches!(inner.kind, LocationKind::Prefix | LocationKind::PrefixNoRegex | LocationKind::Exact);
        match self.kind {
            _ if inner.kind == LocationKind::Named => Err(format!(
                "\"{inner}\" cannot stand inside \"{self}\"; a named location stands directly in its server"
            )),
            LocationKind::Exact => {
                Err(format!("\"{inner}\" cannot stand inside \"{self}\", which matches one path only"))
            }
            LocationKind::Named => {
                Err(format!("\"{inner}\" cannot stand inside \"{self}\", which is gone to by its name, not by a path"))
            }
            LocationKind::Prefix | LocationKind::PrefixNoRegex if literal && !inner.text.starts_with(&self.text) => {
                Err(format!("\"{inner}\" does not lie below \"{self}\", inside which it stands"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for LocationPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            LocationKind::Prefix | LocationKind::Named => "",
            LocationKind::Exact => "= ",
            LocationKind::PrefixNoRegex => "^~ ",
            LocationKind::Regex if self.regex.as_ref().is_some_and(Pattern::is_caseless) => "~* ",
            LocationKind::Regex => "~ ",
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
        assert_eq!(shown("~ \\.php$"), Ok((LocationKind::Regex, "~ \\.php$".into())));
        assert_eq!(shown("~* x"), Ok((LocationKind::Regex, "~* x".into())));
        assert_eq!(shown("~x"), Ok((LocationKind::Regex, "~ x".into())));
        assert_eq!(shown("@a"), Ok((LocationKind::Named, "@a".into())));
        for bad in ["", "x", "= x", "=", "^~", "/a\n", "@"] {
            assert!(shown(bad).unwrap_err().contains("expected a path such as"), "{bad:?}");
        }
        assert_eq!(shown("~ "), Err("found \"~ \", in which no regular expression follows".into()));
        let expected = "found \"~* (a\"; the regular expression \"(a\" is not valid at its character 1: unclosed group";
        assert_eq!(shown("~* (a"), Err(expected.into()));
    }

    #[test]
    fn relations() {
        let path = |text| LocationPath::parse(text).unwrap();
        assert_eq!(path("/x").identity(), path("^~ /x").identity());
        assert_ne!(path("/x").identity(), path("= /x").identity());
        assert!(path("/x/").may_hold(&path("= /x/y")).is_ok());
        assert!(path("/x/").may_hold(&path("/y")).is_err());
        assert!(path("= /x").may_hold(&path("/x/y")).is_err());
        assert_eq!(path("~ x").identity(), path("~x").identity());
        assert_ne!(path("~ x").identity(), path("~* x").identity());
        assert!(path("/x/").may_hold(&path("~ y")).is_ok());
        assert!(path("~ y").may_hold(&path("/x")).is_ok());
        assert!(path("/x/").may_hold(&path("@y")).is_err());
        assert!(path("@y").may_hold(&path("/x")).is_err());
    }
}
