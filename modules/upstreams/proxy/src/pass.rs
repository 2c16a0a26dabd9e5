//! The value of `pass`: which upstream requests go to, and the URI part that replaces the location's path.

/// `http://AUTHORITY` or `http://AUTHORITY/URI`, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Pass {
    url: String,
    /// Where the authority ends in `url`.
    end: usize,
}

const SCHEME: &str = "http://";

impl Pass {
    /// Takes the value apart, or says what is wrong with it.
    pub fn parse(url: &str) -> Result<Pass, String> {
        if url.contains('$') {
            return Err("variables in pass are not supported yet".to_string());
        }
        if url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
            return Err("https:// is not supported yet; expected http://NAME or http://HOST:PORT".to_string());
        }
        let Some(rest) = url.strip_prefix(SCHEME) else {
            return Err(format!("found {url:?}, expected a URL: http://NAME or http://HOST:PORT"));
        };
        if rest.starts_with("unix:") {
            return Err("unix sockets in pass are not supported yet".to_string());
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, uri) = rest.split_at(end);
        if authority.is_empty() {
            return Err(format!("found {url:?}, which names no host; expected http://NAME or http://HOST:PORT"));
        }
        if let Some(bad) = authority.chars().find(|c| !c.is_ascii_alphanumeric() && !"-._:[]".contains(*c)) {
            return Err(format!("found {bad:?} in the host {authority:?}, which cannot be there"));
        }
        if uri.contains('#') || uri.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) || uri.starts_with('?') {
            return Err(format!("found {uri:?} behind the host, expected a URI that starts with a slash, escaped"));
        }
        Ok(Pass { url: url.to_string(), end: SCHEME.len() + end })
    }

    /// The name of the upstream, or host and port: also the request's Host ($proxy_host).
    pub fn authority(&self) -> &str {
        self.url.get(SCHEME.len()..self.end).unwrap_or_default()
    }

    /// The URI part, if there is one.
    pub fn uri(&self) -> Option<&str> {
        self.url.get(self.end..).filter(|uri| !uri.is_empty())
    }

    /// The whole value.
    pub fn url(&self) -> &str {
        &self.url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> (String, Option<String>) {
        let pass = Pass::parse(url).expect("valid");
        (pass.authority().to_string(), pass.uri().map(str::to_string))
    }

    #[test]
    fn name_port_and_uri() {
        assert_eq!(parts("http://backend"), ("backend".into(), None));
        assert_eq!(parts("http://127.0.0.1:9001"), ("127.0.0.1:9001".into(), None));
        assert_eq!(parts("http://[::1]:80/"), ("[::1]:80".into(), Some("/".into())));
        assert_eq!(parts("http://backend/v1/?k=1"), ("backend".into(), Some("/v1/?k=1".into())));
    }

    #[test]
    fn refuses_what_it_does_not_do() {
        for (url, why) in [
            ("https://backend", "https:// is not supported yet"),
            ("HTTPS://backend", "https:// is not supported yet"),
            ("http://$host", "variables"),
            ("backend", "expected a URL"),
            ("", "expected a URL"),
            ("http://", "names no host"),
            ("http:///x", "names no host"),
            ("http://unix:/run/a.sock", "unix sockets"),
            ("http://user@host", "'@'"),
            ("http://a b/", "' '"),
            ("http://host/a b", "escaped"),
            ("http://host?x", "starts with a slash"),
            ("http://host/#f", "escaped"),
        ] {
            let message = Pass::parse(url).expect_err(url);
            assert!(message.contains(why), "{url}: {message}");
        }
    }
}
