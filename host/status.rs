//! Statuses: what the status line says of each, and what its page says. The texts are nginx's where it has one.

/// nginx's status for "close the connection without an answer".
pub const CLOSE: u16 = 444;
/// A request head, or a field in it, that is too large (RFC 6585, 5).
pub const FIELDS_TOO_LARGE: u16 = 431;
/// nginx's status for a request head that is too large. It is shown as 400, as are the next three.
pub const HEAD_TOO_LARGE: u16 = 494;
/// nginx's status for an error in the client's certificate.
pub const CERTIFICATE_ERROR: u16 = 495;
/// nginx's status for a client without the certificate that is required.
pub const NO_CERTIFICATE: u16 = 496;
/// nginx's status for an HTTP request on a port for HTTPS.
pub const HTTP_TO_HTTPS: u16 = 497;
/// nginx's status for "the client has closed the connection", in logs only.
pub const CLIENT_CLOSED: u16 = 499;

/// The status that the client sees: those of nginx's own that tell apart what HTTP calls 400 are that.
pub fn shown(status: u16) -> u16 {
    if (HEAD_TOO_LARGE..=HTTP_TO_HTTPS).contains(&status) { 400 } else { status }
}

/// Whether a response of this status never has a body (RFC 9110, 6.4.1).
pub fn is_bodyless(status: u16) -> bool {
    matches!(status, 100..=199 | 204 | 304)
}

/// The reason phrase in the status line.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Time-out",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Large",
        415 => "Unsupported Media Type",
        416 => "Requested Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        FIELDS_TOO_LARGE => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Time-out",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

/// The title of its page: `404 Not Found`.
pub fn title(status: u16) -> String {
    let text = match status {
        302 => "Found",
        401 => "Authorization Required",
        HEAD_TOO_LARGE => "Request Header Or Cookie Too Large",
        CERTIFICATE_ERROR => "The SSL certificate error",
        NO_CERTIFICATE => "No required SSL certificate was sent",
        HTTP_TO_HTTPS => "The plain HTTP request was sent to HTTPS port",
        _ => reason(status),
    };
    let status = shown(status);
    if text.is_empty() { status.to_string() } else { format!("{status} {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nginx_tells_apart_is_one_status_to_a_client() {
        assert_eq!(title(HEAD_TOO_LARGE), "400 Request Header Or Cookie Too Large");
        assert_eq!((shown(493), shown(494), shown(497), shown(498)), (493, 400, 400, 498));
        assert_eq!(title(299), "299");
    }
}
