//! Whether a client accepts gzip (RFC 9110, section 12.5.3: Accept-Encoding).
//!
//! ```text
//! Accept-Encoding: gzip, deflate, br      yes
//! Accept-Encoding: *;q=0.5, gzip;q=0      no
//! ```

/// Whether gzip is accepted by the fields, which together make one list. `*` stands for gzip if it is not named.
///
/// Parsed strictly: what is malformed does not count as accepted.
pub fn accepts_gzip<'a>(fields: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut any = false;
    let mut gzip = None;
    for member in fields.flat_map(|field| field.split(|&byte| byte == b',')) {
        let Some((coding, accepted)) = coding(member) else {
            continue;
        };
        if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") {
            gzip = Some(gzip.unwrap_or(true) && accepted);
        } else if coding == b"*" {
            any = accepted;
        }
    }
    gzip.unwrap_or(any)
}

/// A member of the list: the coding, and whether its weight is valid and more than zero. `None` for an empty member.
fn coding(member: &[u8]) -> Option<(&[u8], bool)> {
    let member = member.trim_ascii();
    let Some(semicolon) = member.iter().position(|&byte| byte == b';') else {
        return (!member.is_empty()).then_some((member, true));
    };
    let coding = member[..semicolon].trim_ascii_end();
    let weight = member[semicolon + 1..].trim_ascii_start();
    let value = weight.strip_prefix(b"q=").or_else(|| weight.strip_prefix(b"Q="));
    Some((coding, value.is_some_and(is_positive_weight)))
}

/// `0.001` to `1`, with three digits at most behind the point (RFC 9110, section 12.4.2: qvalue).
fn is_positive_weight(value: &[u8]) -> bool {
    let (digit, fraction) = match value {
        [digit] => (digit, &[][..]),
        [digit, b'.', fraction @ ..] => (digit, fraction),
        _ => return false,
    };
    if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let zero = fraction.iter().all(|&digit| digit == b'0');
    match digit {
        b'1' => zero,
        b'0' => !zero,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::accepts_gzip;

    fn accepts(field: &str) -> bool {
        accepts_gzip(std::iter::once(field.as_bytes()))
    }

    #[test]
    fn accepts_what_is_named() {
        for field in [
            "gzip",
            "GZIP",
            "x-gzip",
            "gzip, deflate",
            "deflate,gzip",
            "br;q=1.0, gzip;q=0.001",
            "gzip;q=1",
            "gzip;q=1.",
            "gzip ; q=1.000",
            "gzip;Q=0.5",
            "*",
            "identity;q=0, *;q=0.1",
            ",,gzip",
        ] {
            assert!(accepts(field), "{field}");
        }
    }

    #[test]
    fn does_not_accept_the_rest() {
        for field in [
            "",
            "deflate",
            "gzipx",
            "xgzip",
            "gzip;q=0",
            "gzip;q=0.",
            "gzip;q=0.000",
            "*;q=0",
            "*, gzip;q=0",
            "gzip;q=0, *",
            "gzip, gzip;q=0",
            "gzip;q=2",
            "gzip;q=1.001",
            "gzip;q=0.0001",
            "gzip;q=",
            "gzip;q=x",
            "gzip;",
            "gzip;q=-1",
            "gzip;x=1",
            "gzip;q=0.5;x",
            "g zip",
        ] {
            assert!(!accepts(field), "{field}");
        }
        assert!(!accepts_gzip(std::iter::empty()));
    }

    #[test]
    fn fields_make_one_list() {
        let fields = |list: &[&'static str]| accepts_gzip(list.iter().map(|field| field.as_bytes()));
        assert!(fields(&["br", "gzip"]));
        assert!(!fields(&["*", "gzip;q=0"]));
    }
}
