//! One name of a server, in nginx's forms (directive "server_name").
//!
//! ```text
//! "www.example.com"    this name
//! "*.example.com"      names that end in .example.com
//! ".example.com"       example.com, and names that end in .example.com
//! "www.example.*"      names that start with www.example.
//! '~^(?<user>.+)\.x$'  names in which the regular expression matches
//! "$hostname"          the name of the machine
//! ""                   a request without a Host field
//! ```

use super::diagnostic::quote;
use super::source::Origin;
use crate::regex::Pattern;

/// A name, and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerName {
    /// As it is shown: in lower case, but for a regular expression, which starts with its `~`.
    pub text: String,
    /// What it is compared with.
    pub form: NameForm,
    /// Where it was written; the server's header if it was not.
    pub origin: Origin,
}

/// What a name is compared with. All texts are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameForm {
    /// The name itself, or `""`.
    Exact(String),
    /// `*.example.com`, without the `*.`
    Leading(String),
    /// `.example.com`, without the dot: as both of the above.
    ExactOrLeading(String),
    /// `www.example.*`, without the `.*`
    Trailing(String),
    /// `~re`
    Regex(Pattern),
}

impl ServerName {
    /// A server without a name.
    pub fn none(origin: Origin) -> ServerName {
        ServerName { text: String::new(), form: NameForm::Exact(String::new()), origin }
    }

    /// Parses a name; the error is a message for the operator.
    pub fn parse(text: &str, origin: Origin) -> Result<ServerName, String> {
        let name = |text: String, form| Ok(ServerName { text, form, origin });
        if let Some(regex) = text.strip_prefix('~') {
            if regex.is_empty() {
                return Err(format!("found {}, in which no regular expression follows", quote(text)));
            }
            // Names are in lower case when they are compared (nginx does the same).
            let caseless = regex.bytes().any(|byte| byte.is_ascii_uppercase());
            let pattern = Pattern::parse(regex, caseless).map_err(|error| format!("found {}; {error}", quote(text)))?;
            return name(text.to_owned(), NameForm::Regex(pattern));
        }
        if text == "$hostname" {
            let machine = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
            return name(machine.clone(), NameForm::Exact(machine));
        }
        if !text.is_ascii() {
            return Err(format!(
                "found {}, which no Host field can have: write the name as it is in the DNS, in the punycode form \
                 \"xn--...\"",
                quote(text)
            ));
        }
        let lower = text.to_ascii_lowercase();
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == '*';
        let form = if let Some(rest) = lower.strip_prefix("*.") {
            NameForm::Leading(rest.to_owned())
        } else if let Some(rest) = lower.strip_prefix('.') {
            NameForm::ExactOrLeading(rest.to_owned())
        } else if let Some(rest) = lower.strip_suffix(".*") {
            NameForm::Trailing(rest.to_owned())
        } else {
            NameForm::Exact(lower.clone())
        };
        let valid = match &form {
            NameForm::Exact(name) => !name.contains(bad),
            NameForm::Leading(part) | NameForm::ExactOrLeading(part) | NameForm::Trailing(part) => {
                !part.is_empty() && !part.starts_with('.') && !part.contains(bad)
            }
            NameForm::Regex(_) => true,
        };
        if !valid || lower.contains("..") {
            return Err(format!(
                "found {}, expected a name such as \"www.example.com\", \"*.example.com\", \".example.com\", \
                 \"www.example.*\" or '~^www\\d+\\.example\\.com$'",
                quote(text)
            ));
        }
        name(lower, form)
    }

    /// Its regular expression, if it is one.
    pub fn regex(&self) -> Option<&Pattern> {
        match &self.form {
            NameForm::Regex(pattern) => Some(pattern),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Result<NameForm, String> {
        ServerName::parse(text, Origin::BUILT_IN).map(|name| name.form)
    }

    #[test]
    fn forms() {
        for (text, expected) in [
            ("WWW.Example.com", NameForm::Exact("www.example.com".into())),
            ("", NameForm::Exact(String::new())),
            ("localhost", NameForm::Exact("localhost".into())),
            ("127.0.0.1", NameForm::Exact("127.0.0.1".into())),
            ("[::1]", NameForm::Exact("[::1]".into())),
            ("*.Example.com", NameForm::Leading("example.com".into())),
            ("*.com", NameForm::Leading("com".into())),
            (".example.com", NameForm::ExactOrLeading("example.com".into())),
            ("www.example.*", NameForm::Trailing("www.example".into())),
            ("www.*", NameForm::Trailing("www".into())),
        ] {
            assert_eq!(form(text), Ok(expected), "{text}");
        }
        let Ok(NameForm::Exact(machine)) = form("$hostname") else { panic!("{:?}", form("$hostname")) };
        assert!(!machine.is_empty() && !machine.contains('$'), "{machine}");
    }

    #[test]
    fn expressions_ignore_case_if_they_have_any() {
        let caseless =
            |text| ServerName::parse(text, Origin::BUILT_IN).map(|name| name.regex().map(Pattern::is_caseless));
        assert_eq!(caseless("~^www\\d+\\.example\\.com$"), Ok(Some(false)));
        assert_eq!(caseless("~^WWW"), Ok(Some(true)));
        let error = form("~^(a").unwrap_err();
        assert!(
            error.starts_with("found \"~^(a\"; the regular expression \"^(a\" is not valid at its char"),
            "{error}"
        );
        assert!(form("~").unwrap_err().contains("no regular expression follows"));
    }

    #[test]
    fn names_in_other_letters_are_written_in_punycode() {
        for text in ["t\u{e9}st.test", "*.t\u{e9}st.test", "t\u{e9}st.*"] {
            let error = form(text).expect_err(text);
            assert!(error.contains("which no Host field can have") && error.contains("xn--"), "{error}");
        }
        assert!(form("xn--tst-bma.test").is_ok());
    }

    #[test]
    fn other_places_of_an_asterisk_are_refused() {
        for text in [
            "*",
            "*.",
            ".",
            ".*",
            "*.*",
            "www.*.com",
            "w*.example.org",
            "*example.com",
            "www.example*",
            "*.a.*",
            "a..b",
            "..a",
            "*..a",
            "a..*",
            "a b",
            "a/b",
            "a\n",
            "**.a",
            ".a.*",
        ] {
            let error = form(text).expect_err(text);
            assert!(
                error.contains("expected a name such as \"www.example.com\", \"*.example.com\""),
                "{text}: {error}"
            );
        }
    }
}
