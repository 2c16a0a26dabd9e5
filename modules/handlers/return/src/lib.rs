//! Answers with a fixed status, text or redirect (nginx: return).
//!
//! ```toml
//! [[http.server.location]]
//! path = "= /health"
//! return = { code = 200, text = "ok" }
//!
//! [[http.server.location]]
//! path = "/old/"
//! return = { code = 301, url = "https://$host/new/" }
//! ```
//!
//! A `url` without a code is answered with 302. A bare code of 400 and more gets the server's error page; 444 closes the
//! connection without an answer.
//!
//! The table is not inherited. That of a server answers before any location is looked for.

#![forbid(unsafe_code)]

use topnext_module_api::prelude::*;

/// The table `return`.
#[derive(Config)]
pub struct Table {
    /// The status, 200 to 599. 444 closes the connection without an answer. Default: 302 with a url.
    #[config(min = 200, max = 599)]
    code: Option<u16>,
    /// The text of the response, which may contain variables.
    text: Option<Template>,
    /// Where to redirect to, which may contain variables; with code 301, 302, 303, 307 or 308.
    url: Option<Template>,
}

/// What is answered.
pub enum Return {
    /// A redirect: the code and its Location.
    Redirect(u16, Template),
    /// A text of the type that the URI has (types, default_type).
    Text(u16, Template),
    /// The same where there is no variable in it: all responses share its memory.
    Constant(u16, Bytes),
    /// A code of less than 400 without a text: a response without a body.
    Empty(u16),
    /// A code of 400 and more without a text: the host has a page for it.
    Page(u16),
}

export_module! {
    name: "return",
    module: Return,
    provides: [phases],
    inherit: false,
}

impl PhaseHandler for Return {
    // In ServerRewrite the host asks the server's table, in Rewrite the location's.
    const PHASES: &'static [Phase] = &[Phase::ServerRewrite, Phase::Rewrite];

    fn handler(&self, r: &mut Request<'_>, _: Phase) -> Code {
        match self {
            Return::Page(code) => Code::status(*code),
            Return::Redirect(code, url) => {
                // Before the variables: $status may be one of them.
                r.set_status(*code);
                let url = url.eval(r);
                // A variable may hold what is not allowed in a header field, such as a line break.
                if !r.set_header_out("Location", url) {
                    return Code::status(500);
                }
                Code::status(*code)
            }
            Return::Empty(code) => send_empty(r, *code),
            Return::Text(code, text) => {
                r.set_status(*code);
                let text = text.eval(r);
                send_text(r, *code, Buf::copy_from(text))
            }
            Return::Constant(code, text) => send_text(r, *code, Buf::from(text.clone())),
        }
    }
}

impl Module for Return {
    type Config = Table;

    fn new(table: Table, _: &Setup<'_>) -> Result<Return, ConfigErrors> {
        let mut errors = ConfigErrors::new();
        if let Some((key, message)) = wrong(table.code, table.text.is_some(), table.url.as_ref().map(Template::source))
        {
            let _: Option<()> = errors.add(key, message);
            return Err(errors);
        }
        Ok(match (table.code, table.text, table.url) {
            (code, _, Some(url)) => Return::Redirect(code.unwrap_or(302), url),
            (Some(code), Some(text), None) => match text.constant() {
                Some(text) => Return::Constant(code, Bytes::from(text.to_string())),
                None => Return::Text(code, text),
            },
            (Some(code), None, None) if code < 400 => Return::Empty(code),
            (Some(code), None, None) => Return::Page(code),
            (None, _, None) => return Err(ConfigErrors::from("needs a code".to_string())),
        })
    }
}

/// What is wrong with a combination of keys, if anything: the key and the message.
fn wrong(code: Option<u16>, text: bool, url: Option<&str>) -> Option<(&'static str, String)> {
    let redirects = code.is_some_and(is_redirect);
    Some(match (code, text, url) {
        (_, true, Some(_)) => ("text", "a redirect has a url and no text: write one of the two".to_string()),
        (_, _, Some("")) => ("url", "empty, expected a path or an absolute URL".to_string()),
        (Some(code), _, Some(_)) if !redirects => {
            ("url", format!("found code {code}; a url goes with code 301, 302, 303, 307 or 308"))
        }
        (Some(code), _, None) if redirects => ("code", format!("found {code}, which needs a url to redirect to")),
        (Some(code @ (204 | 205 | 304)), true, _) => ("text", format!("a response with code {code} has no body")),
        (None, true, None) => ("text", "needs a code, such as 200".to_string()),
        (None, false, None) => ("", "needs a code or a url".to_string()),
        _ => return None,
    })
}

/// The codes that nginx redirects with.
fn is_redirect(code: u16) -> bool {
    matches!(code, 301 | 302 | 303 | 307 | 308)
}

fn send_empty(r: &mut Request<'_>, code: u16) -> Code {
    r.set_status(code);
    // RFC 9110, section 8.6: none in a 204, and in a 304 it would be the length of another response.
    r.set_content_length(if matches!(code, 204 | 304) { None } else { Some(0) });
    finish(r, Buf::last())
}

fn send_text(r: &mut Request<'_>, code: u16, mut body: Buf) -> Code {
    r.set_status(code);
    r.set_content_type();
    r.set_content_length(Some(body.len()));
    body.set_last(true);
    finish(r, body)
}

fn finish(r: &mut Request<'_>, body: Buf) -> Code {
    match r.send_header() {
        Code::OK | Code::AGAIN => r.output(body),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::wrong;

    fn key(code: Option<u16>, text: bool, url: Option<&str>) -> Option<&'static str> {
        wrong(code, text, url).map(|(key, _)| key)
    }

    #[test]
    fn accepts_what_nginx_accepts() {
        for (code, text, url) in [
            (Some(200), true, None),
            (Some(204), false, None),
            (Some(444), false, None),
            (Some(503), true, None),
            (Some(301), false, Some("/x")),
            (Some(308), false, Some("https://$host/")),
            (None, false, Some("https://a/")),
        ] {
            assert_eq!(key(code, text, url), None, "{code:?} {text} {url:?}");
        }
    }

    #[test]
    fn names_the_key_that_does_not_fit() {
        for (code, text, url, expected) in [
            (None, false, None, ""),
            (None, true, None, "text"),
            (Some(302), false, None, "code"),
            (Some(302), true, None, "code"),
            (Some(200), false, Some("/x"), "url"),
            (Some(301), false, Some(""), "url"),
            (Some(301), true, Some("/x"), "text"),
            (Some(204), true, None, "text"),
            (Some(304), true, None, "text"),
        ] {
            assert_eq!(key(code, text, url), Some(expected), "{code:?} {text} {url:?}");
        }
    }
}
