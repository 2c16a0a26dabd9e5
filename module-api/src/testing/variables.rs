//! Variables and templates of the kit: literal text, `$name` and `${name}`.

/// A piece of a template.
enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
}

/// Whether the text is a template. The names are not checked: a test may provide any variable.
pub(crate) fn check(text: &str) -> Result<(), String> {
    pieces(text).map(|_| ())
}

/// The text with its variables replaced; one without a value is empty.
pub(crate) fn expand(text: &str, value: impl Fn(&str) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces(text).unwrap_or_default() {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Variable(name) => out.extend(value(name).unwrap_or_default()),
        }
    }
    out
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        pieces.push(Piece::Text(&rest[..at]));
        let behind = &rest[at + 1..];
        let (name, after) = match behind.strip_prefix('{') {
            Some(inner) => inner.split_once('}').ok_or_else(|| format!("\"}}\" is missing in {text:?}"))?,
            None => behind.split_at(behind.bytes().take_while(|&b| b == b'_' || b.is_ascii_alphanumeric()).count()),
        };
        if name.is_empty() || !name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
            return Err(format!("no name of a variable behind \"$\" in {text:?}"));
        }
        pieces.push(Piece::Variable(name));
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands() {
        let value = |name: &str| (name == "uri").then(|| b"/x".to_vec());
        assert_eq!(expand("a$uri-${uri}b$none.", value), b"a/x-/xb.");
        assert_eq!(expand("", value), b"");
        assert!(check("$").is_err() && check("${uri").is_err() && check("${u i}").is_err());
    }
}
