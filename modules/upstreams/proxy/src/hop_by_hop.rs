//! Fields that hold for one connection only, and are passed on in neither direction (RFC 9110, 7.6.1).

/// The most options of Connection fields that a message may have. Each costs a comparison per field.
pub const MAX_OPTIONS: usize = 64;

/// Whether a field is hop-by-hop: by its name, or because one of the `options` of Connection names it.
pub fn is_hop_by_hop(name: &[u8], options: &[&[u8]]) -> bool {
    const NAMES: [&[u8]; 6] = [b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"];
    NAMES.iter().any(|hop| name.eq_ignore_ascii_case(hop))
        || name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case(b"proxy-"))
        || options.iter().any(|option| name.eq_ignore_ascii_case(option))
}

/// The options in the values of all Connection fields; `None` if there are more than [`MAX_OPTIONS`].
pub fn options<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Vec<&'a [u8]>> {
    let mut options = Vec::new();
    for option in values.flat_map(|value| value.split(|&byte| byte == b',')) {
        let option = option.trim_ascii();
        if option.is_empty() {
            continue;
        }
        if options.len() == MAX_OPTIONS {
            return None;
        }
        options.push(option);
    }
    Some(options)
}

/// Whether this is a token, as names of fields are (RFC 9110, 5.6.2).
pub fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_names_further_fields() {
        let options = options([&b"close, X-One"[..], b",,x-two ,"].into_iter()).expect("few");
        assert_eq!(options, [&b"close"[..], b"X-One", b"x-two"]);
        assert!(is_hop_by_hop(b"x-one", &options) && is_hop_by_hop(b"X-TWO", &options));
        assert!(!is_hop_by_hop(b"X-Three", &options));
    }

    #[test]
    fn proxy_fields_are_hop_by_hop_but_not_proxy() {
        assert!(is_hop_by_hop(b"Proxy-Authorization", &[]) && is_hop_by_hop(b"TE", &[]));
        assert!(!is_hop_by_hop(b"Proxy", &[]) && !is_hop_by_hop(b"Content-Type", &[]));
    }

    #[test]
    fn options_are_bounded() {
        let most = vec!["a"; MAX_OPTIONS].join(",");
        assert_eq!(options([most.as_bytes()].into_iter()).map(|options| options.len()), Some(MAX_OPTIONS));
        let one_more = format!("{most},a");
        assert_eq!(options([one_more.as_bytes()].into_iter()), None);
    }

    #[test]
    fn tokens() {
        assert!(is_token(b"X-A_b"));
        assert!(!is_token(b"") && !is_token(b"a b") && !is_token(b"a:") && !is_token("ä".as_bytes()));
    }
}
