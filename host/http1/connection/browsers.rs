//! Browsers that cannot be trusted with kept connections (keepalive_disable), told by their User-Agent as nginx does.

use memchr::memmem;

/// Internet Explorer up to 6, unless it has Service Pack 2 of Windows XP ("SV1").
pub(super) fn is_msie6(user_agent: &[u8]) -> bool {
    let Some(at) = memmem::find(user_agent, b"MSIE ") else { return false };
    match user_agent.get(at + 5..).unwrap_or_default() {
        [b'4' | b'5', b'.', _, ..] => true,
        [b'6', b'.', rest @ ..] => !rest.is_empty() && memmem::find(rest, b"SV1").is_none(),
        _ => false,
    }
}

/// Safari on macOS; Chrome and others only say that they are like it.
pub(super) fn is_safari(user_agent: &[u8]) -> bool {
    let has = |text: &str| memmem::find(user_agent, text.as_bytes()).is_some();
    has("Safari/") && has("Mac OS X") && !["Opera", "Gecko/", "Chrome/"].into_iter().any(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_explorers() {
        for (agent, old) in [
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)", true),
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)", false),
            ("Mozilla/4.0 (compatible; MSIE 5.5; Windows 98)", true),
            ("Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 6.0)", false),
            ("Mozilla/5.0 MSIE ", false),
            ("", false),
        ] {
            assert_eq!(is_msie6(agent.as_bytes()), old, "{agent}");
        }
    }

    #[test]
    fn safari_and_what_calls_itself_so() {
        const MAC: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) AppleWebKit/605.1 (KHTML, like Gecko)";
        assert!(is_safari(format!("{MAC} Version/16.1 Safari/605.1").as_bytes()));
        assert!(!is_safari(format!("{MAC} Chrome/107.0 Safari/537.36").as_bytes()));
        assert!(!is_safari(b"Mozilla/5.0 (Windows) AppleWebKit/534 Version/5.1 Safari/534"));
    }
}
