//! Strings with `$variables`, compiled when the configuration is read (nginx: complex values).

use std::rc::Rc;

use crate::{
    request::{self, Request, Text},
    variables::{self, Added, Variable},
};

/// The templates of a configuration.
#[derive(Debug, Default)]
pub struct Templates {
    list: Vec<Template>,
    added: Added,
}

#[derive(Debug)]
struct Template {
    parts: Vec<Part>,
    /// The text, if there is no variable in it.
    constant: Option<Vec<u8>>,
}

/// A piece of a template.
#[derive(Clone, Debug)]
pub enum Part {
    /// Text as it was written.
    Literal(Vec<u8>),
    /// The value of a variable.
    Variable(Variable),
}

/// Reads a text with `$name` and `${name}` in it; these variables are known beside the host's.
pub fn parse(text: &str, added: &Added) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        literal.extend_from_slice(&rest.as_bytes()[..dollar]);
        let behind = &rest[dollar + 1..];
        let (name, after) = match behind.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or_else(|| {
                format!("found {text:?}, in which the brace of \"${{\" at byte {dollar} is not closed")
            })?,
            // As in nginx "$10" is "$1" and a zero.
            None if behind.starts_with(|c: char| c.is_ascii_digit() && c != '0') => behind.split_at(1),
            None => {
                let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
                behind.split_at(behind.find(word).unwrap_or(behind.len()))
            }
        };
        if name.is_empty() {
            return Err(format!("found {text:?}, in which a \"$\" is not followed by the name of a variable"));
        }
        let variable = variables::find(name, added).ok_or_else(|| variables::unknown(name, added))?;
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal)));
        }
        parts.push(Part::Variable(variable));
        rest = after;
    }
    literal.extend_from_slice(rest.as_bytes());
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

/// Writes the text of a template for this request behind what is in `out`.
pub fn write(parts: &[Part], r: &Rc<Request>, out: &mut Vec<u8>) {
    for part in parts {
        match part {
            Part::Literal(literal) => out.extend_from_slice(literal),
            Part::Variable(variable) => {
                variables::write(r, variable, out);
            }
        }
    }
}

impl Templates {
    /// No templates; these variables are known beside the host's.
    pub fn new(added: Added) -> Templates {
        Templates { list: Vec::new(), added }
    }

    /// Compiles a template, and numbers it.
    pub fn compile(&mut self, text: &str) -> Result<u32, String> {
        let parts = parse(text, &self.added)?;
        let constant = match parts.as_slice() {
            [] => Some(Vec::new()),
            [Part::Literal(text)] => Some(text.clone()),
            _ => None,
        };
        self.list.push(Template { parts, constant });
        u32::try_from(self.list.len() - 1).map_err(|_| "too many templates".to_string())
    }

    /// The text of a template that has no variables.
    pub fn constant(&self, template: u32) -> Option<&[u8]> {
        self.list.get(template as usize)?.constant.as_deref()
    }

    /// The text of a template for this request, stored for as long as the request lives.
    pub fn eval(&self, template: u32, r: &Rc<Request>) -> Text {
        request::with_buffer(|text| {
            self.write(template, r, text);
            r.store(&[text])
        })
    }

    /// Writes the text of a template for this request behind what is in `out`.
    pub fn write(&self, template: u32, r: &Rc<Request>, out: &mut Vec<u8>) {
        if let Some(template) = self.list.get(template as usize) {
            write(&template.parts, r, out);
        }
    }

    /// The variables beside the host's.
    pub fn added(&self) -> &Added {
        &self.added
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiles_text_and_variables() {
        let mut templates = Templates::default();
        let plain = templates.compile("plain text").expect("valid");
        assert_eq!(templates.constant(plain), Some(&b"plain text"[..]));
        let mixed = templates.compile("a $uri ${args}b $http_x_y").expect("valid");
        assert_eq!(templates.constant(mixed), None);
        assert_eq!(templates.list[mixed as usize].parts.len(), 6);
        let group = templates.compile("$10${2}").expect("valid");
        let parts = &templates.list[group as usize].parts;
        assert!(matches!(
            parts[..],
            [Part::Variable(Variable::Numbered(1)), Part::Literal(_), Part::Variable(Variable::Numbered(2))]
        ));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let mut templates = Templates::default();
        let error = templates.compile("x $urj").expect_err("unknown");
        assert_eq!(error, "unknown variable \"$urj\"; did you mean \"$uri\"?");
        let error = templates.compile("${uri\n\0}").expect_err("unknown");
        assert_eq!(error, "unknown variable \"$uri\\n\\0\"; did you mean \"$uri\"?");
        assert!(templates.compile("${uri").expect_err("open brace").contains("not closed"));
        assert!(templates.compile("5$").expect_err("no name").contains("name of a variable"));
    }
}
