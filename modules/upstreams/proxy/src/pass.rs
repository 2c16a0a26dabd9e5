//! The value of `pass`: which upstream requests go to, and the URI part that replaces the location's path.

/// `http://AUTHORITY`, `http://AUTHORITY/URI`, `http://unix:PATH` or `http://unix:PATH:/URI`, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Pass {
    url: String,
    /// Where the upstream's name ends in `url`, and where the URI part starts.
    end: usize,
    uri: usize,
}

/// What stands in front of the authority.
pub const SCHEME: &str = "http://";
const UNIX: &str = "unix:";

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
        if let Some(path) = rest.strip_prefix(UNIX) {
            return Pass::parse_unix(url, path);
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, uri) = rest.split_at(end);
        if authority.is_empty() {
            return Err(format!("found {url:?}, which names no host; expected http://NAME or http://HOST:PORT"));
        }
        if let Some(bad) = authority.chars().find(|c| !c.is_ascii_alphanumeric() && !"-._:[]".contains(*c)) {
            return Err(format!("found {bad:?} in the host {authority:?}, which cannot be there"));
        }
        check_uri(uri)?;
        let end = SCHEME.len() + end;
        Ok(Pass { url: url.to_string(), end, uri: end })
    }

    /// The path of a socket file, and behind a colon a URI.
    fn parse_unix(url: &str, rest: &str) -> Result<Pass, String> {
        let (path, uri) = rest.split_once(':').unwrap_or((rest, ""));
        if path.is_empty() {
            return Err(format!(
                "found {url:?}, which names no socket; expected http://unix:PATH or http://unix:PATH:/URI"
            ));
        }
        check_uri(uri)?;
        if !uri.is_empty() && !uri.starts_with('/') {
            return Err(format!("found {uri:?} behind the socket, expected a URI that starts with a slash"));
        }
        Ok(Pass { url: url.to_string(), end: SCHEME.len() + UNIX.len() + path.len(), uri: url.len() - uri.len() })
    }

    /// The upstream: its name, host and port, or `unix:` and a path.
    pub fn upstream(&self) -> &str {
        self.url.get(SCHEME.len()..self.end).unwrap_or_default()
    }

    /// The request's Host ($proxy_host): as [`upstream`](Pass::upstream); of a socket file `localhost`, as in nginx.
    pub fn host(&self) -> &str {
        let upstream = self.upstream();
        if upstream.starts_with(UNIX) { "localhost" } else { upstream }
    }

    /// The URI part, if there is one.
    pub fn uri(&self) -> Option<&str> {
        self.url.get(self.uri..).filter(|uri| !uri.is_empty())
    }

    /// The whole value.
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn check_uri(uri: &str) -> Result<(), String> {
    if uri.contains('#') || uri.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) || uri.starts_with('?') {
        return Err(format!("found {uri:?} behind the host, expected a URI that starts with a slash, escaped"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> (String, Option<String>) {
        let pass = Pass::parse(url).expect("valid");
        (pass.upstream().to_string(), pass.uri().map(str::to_string))
    }

    #[test]
    fn name_port_and_uri() {
        assert_eq!(parts("http://backend"), ("backend".into(), None));
        assert_eq!(parts("http://127.0.0.1:9001"), ("127.0.0.1:9001".into(), None));
        assert_eq!(parts("http://[::1]:80/"), ("[::1]:80".into(), Some("/".into())));
        assert_eq!(parts("http://backend/v1/?k=1"), ("backend".into(), Some("/v1/?k=1".into())));
    }

    #[test]
    fn sockets() {
        assert_eq!(parts("http://unix:/run/a.sock"), ("unix:/run/a.sock".into(), None));
        assert_eq!(parts("http://unix:a.sock:"), ("unix:a.sock".into(), None));
        assert_eq!(parts("http://unix:/run/a.sock:/v1/"), ("unix:/run/a.sock".into(), Some("/v1/".into())));
        assert_eq!(Pass::parse("http://unix:/run/a.sock:/").expect("valid").host(), "localhost");
        assert_eq!(Pass::parse("http://a:81/").expect("valid").host(), "a:81");
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
            ("http://unix:", "names no socket"),
            ("http://unix::/x", "names no socket"),
            ("http://unix:/run/a:b", "starts with a slash"),
            ("http://unix:/run/a:/ b", "escaped"),
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
