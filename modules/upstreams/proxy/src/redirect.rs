//! Location and Refresh of a response that names the peer's own URL, rewritten to the location's (nginx:
//! `proxy_redirect default`).
//!
//! With `pass = "http://backend/v1/"` in the location `/api/`, `Location: http://backend/v1/x` becomes `/api/x`.
//! Without a URI part, `http://backend/x` becomes `/x`.

use crate::pass::Pass;

/// The field's new value; `None` if it stays as it is.
pub fn rewrite(pass: &Pass, location: &[u8], uri: &[u8], name: &str, value: &[u8]) -> Option<Vec<u8>> {
    if name.eq_ignore_ascii_case("location") {
        return replace(pass, location, uri, value);
    }
    if !name.eq_ignore_ascii_case("refresh") {
        return None;
    }
    let at = value.windows(4).position(|word| word.eq_ignore_ascii_case(b"url="))? + 4;
    let (before, url) = value.split_at_checked(at)?;
    Some([before, &replace(pass, location, uri, url)?].concat())
}

/// Replaces the URL of `pass` at the start.
fn replace(pass: &Pass, location: &[u8], uri: &[u8], url: &[u8]) -> Option<Vec<u8>> {
    let rest = url.strip_prefix(pass.url().as_bytes())?;
    if pass.uri().is_none() {
        return rest.starts_with(b"/").then(|| rest.to_vec());
    }
    // The URI may have been changed so that the location's path is not in it.
    uri.starts_with(location).then(|| [location, rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(pass: &str, name: &str, value: &str) -> Option<String> {
        let pass = Pass::parse(pass).expect("valid");
        rewrite(&pass, b"/api/", b"/api/x", name, value.as_bytes()).map(|new| String::from_utf8(new).expect("text"))
    }

    #[test]
    fn location_of_the_peer_becomes_ours() {
        assert_eq!(rewritten("http://b", "Location", "http://b/x?y").as_deref(), Some("/x?y"));
        assert_eq!(rewritten("http://b/v1/", "location", "http://b/v1/x").as_deref(), Some("/api/x"));
    }

    #[test]
    fn others_stay() {
        assert_eq!(rewritten("http://b", "Location", "http://bb/x"), None);
        assert_eq!(rewritten("http://b", "Location", "http://b"), None);
        assert_eq!(rewritten("http://b/v1/", "Location", "http://b/v2/x"), None);
        assert_eq!(rewritten("http://b", "Link", "http://b/x"), None);
        let pass = Pass::parse("http://b/v1/").expect("valid");
        assert_eq!(rewrite(&pass, b"/api/", b"/changed", "Location", b"http://b/v1/x"), None);
    }

    #[test]
    fn refresh() {
        assert_eq!(rewritten("http://b", "Refresh", "5; URL=http://b/x").as_deref(), Some("5; URL=/x"));
        assert_eq!(rewritten("http://b", "Refresh", "5"), None);
    }
}
