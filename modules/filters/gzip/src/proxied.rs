//! Which responses are compressed for requests that came through a proxy (nginx: gzip_proxied).
//!
//! A proxy may give a compressed response to a client that does not accept it, unless it may not keep the response.

use std::time::SystemTime;

use topnext_module_api::prelude::*;

/// The words of the key `proxied`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proxied {
    any: bool,
    expired: bool,
    no_cache: bool,
    no_store: bool,
    private: bool,
    no_last_modified: bool,
    no_etag: bool,
    auth: bool,
}

/// What there is to know about a request and its response.
#[derive(Clone, Debug, Default)]
pub struct Response<'a> {
    /// The request has a field Authorization.
    pub authorization: bool,
    /// Expires, if there is one.
    pub expires: Option<&'a [u8]>,
    /// The values of all fields Cache-Control.
    pub cache_control: Vec<&'a [u8]>,
    /// There is a Last-Modified.
    pub last_modified: bool,
    /// There is an ETag.
    pub etag: bool,
}

impl<'a> Response<'a> {
    /// Of a request whose header is about to be sent.
    pub fn of(r: &Request<'a>) -> Response<'a> {
        let cache_control = r.headers_out().filter(|(name, _)| name.eq_ignore_ascii_case(b"Cache-Control"));
        Response {
            authorization: r.header_in("Authorization").is_some(),
            expires: r.header_out("Expires"),
            cache_control: cache_control.map(|(_, value)| value).collect(),
            last_modified: r.header_out("Last-Modified").is_some(),
            etag: r.header_out("ETag").is_some(),
        }
    }
}

impl Proxied {
    const WORDS: [&'static str; 9] =
        ["off", "any", "expired", "no-cache", "no-store", "private", "no_last_modified", "no_etag", "auth"];

    /// Reads the words; `None` if one is wrong, which `errors` then says.
    pub fn read(words: &[String], errors: &mut ConfigErrors) -> Option<Proxied> {
        let mut proxied = Proxied::default();
        let mut valid = true;
        for (i, word) in words.iter().enumerate() {
            match word.as_str() {
                "off" if words.len() > 1 => {
                    let _: Option<()> = errors.add(&format!("proxied[{i}]"), "\"off\" stands alone");
                    valid = false;
                }
                "off" => {}
                "any" => proxied.any = true,
                "expired" => proxied.expired = true,
                "no-cache" => proxied.no_cache = true,
                "no-store" => proxied.no_store = true,
                "private" => proxied.private = true,
                "no_last_modified" => proxied.no_last_modified = true,
                "no_etag" => proxied.no_etag = true,
                "auth" => proxied.auth = true,
                other => {
                    let refuse = |errors: &mut ConfigErrors| errors.refuse::<()>(&Proxied::WORDS, other);
                    let _: Option<()> = errors.within(format!(".proxied[{i}]"), refuse);
                    valid = false;
                }
            }
        }
        valid.then_some(proxied)
    }

    /// Whether the response is compressed. In nginx's order: an Expires decides alone, then a Cache-Control.
    pub fn allows(&self, response: &Response<'_>) -> bool {
        if self.any || (self.auth && response.authorization) {
            return true;
        }
        if let Some(expires) = response.expires {
            return self.expired && is_past(expires);
        }
        if !response.cache_control.is_empty() {
            return (self.no_cache && has(&response.cache_control, b"no-cache"))
                || (self.no_store && has(&response.cache_control, b"no-store"))
                || (self.private && has(&response.cache_control, b"private"));
        }
        (self.no_last_modified || self.no_etag)
            && !(self.no_last_modified && response.last_modified)
            && !(self.no_etag && response.etag)
    }
}

/// Whether one of the fields has this directive.
fn has(fields: &[&[u8]], directive: &[u8]) -> bool {
    let mut words = fields.iter().flat_map(|field| field.split(|byte| matches!(byte, b',' | b'=')));
    words.any(|word| word.trim_ascii().eq_ignore_ascii_case(directive))
}

/// Whether a date is past. What is no date (such as 0) is past, too (RFC 9111, section 5.3).
fn is_past(date: &[u8]) -> bool {
    let date = std::str::from_utf8(date).ok().and_then(|text| httpdate::parse_http_date(text.trim()).ok());
    date.is_none_or(|date| date < SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxied(words: &[&str]) -> Result<Proxied, Vec<String>> {
        let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
        let mut errors = ConfigErrors::new();
        let proxied = Proxied::read(&words, &mut errors);
        proxied.ok_or_else(|| errors.into_vec().iter().map(|e| format!("{}: {}", e.path, e.message)).collect())
    }

    fn allows(words: &[&str], response: &Response<'_>) -> bool {
        proxied(words).expect("valid").allows(response)
    }

    #[test]
    fn names_a_wrong_word() {
        let errors = proxied(&["any", "expire"]).expect_err("wrong");
        assert!(errors[0].starts_with("proxied[1]: found \"expire\", expected one of \"off\""), "{errors:?}");
        assert_eq!(proxied(&["off", "any"]), Err(vec!["proxied[0]: \"off\" stands alone".to_string()]));
    }

    #[test]
    fn off_allows_nothing_and_any_everything() {
        let plain = Response::default();
        assert!(!allows(&["off"], &plain));
        assert!(allows(&["any"], &plain));
        assert!(!allows(&["auth"], &plain));
        assert!(allows(&["auth"], &Response { authorization: true, ..plain }));
    }

    #[test]
    fn what_may_not_be_kept_may_be_compressed() {
        let with = |value: &'static [u8]| Response { cache_control: vec![value], ..Response::default() };
        assert!(allows(&["private"], &with(b"max-age=0, Private")));
        assert!(allows(&["no-cache"], &with(b"no-cache=\"x\"")));
        assert!(!allows(&["no-store"], &with(b"private")));
        assert!(!allows(&["no_etag"], &with(b"private")));
        let past = Response { expires: Some(b"Sun, 06 Nov 1994 08:49:37 GMT"), ..with(b"private") };
        assert!(allows(&["expired"], &past));
        assert!(!allows(&["private"], &past));
        assert!(!allows(&["expired"], &Response { expires: Some(b"Fri, 31 Dec 9999 00:00:00 GMT"), ..past }));
    }

    #[test]
    fn what_has_no_validator_may_be_compressed() {
        let plain = Response::default();
        assert!(allows(&["no_etag", "no_last_modified"], &plain));
        assert!(!allows(&["no_etag"], &Response { etag: true, ..plain.clone() }));
        assert!(!allows(&["no_etag", "no_last_modified"], &Response { last_modified: true, ..plain.clone() }));
        assert!(allows(&["no_etag"], &Response { last_modified: true, ..plain }));
    }
}
