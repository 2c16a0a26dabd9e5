//! Error pages: what a client gets for a status that has no response of its own (nginx: special responses).

use std::rc::Rc;

use topnext_module_api::{Buf, Chain, Code};

use crate::{
    finalize, output,
    request::{Request, Wait},
};

/// The reason phrase of a status (RFC 9110, 15; RFC 6585; nginx's 444 to 499 are never sent).
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
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

/// A small page that says the status.
pub fn page(status: u16, tokens: bool) -> String {
    let server = if tokens { concat!("topnext/", env!("CARGO_PKG_VERSION")) } else { "topnext" };
    let (reason, space) = (reason(status), if reason(status).is_empty() { "" } else { " " });
    format!(
        "<!DOCTYPE html>\n<html>\n<head><title>{status}{space}{reason}</title></head>\n<body>\n\
         <h1>{status}{space}{reason}</h1>\n<hr><p>{server}</p>\n</body>\n</html>\n"
    )
}

/// Sends the page through the filters, and finalizes.
pub fn send(r: &Rc<Request>, status: u16) {
    if r.error_page.replace(true) {
        // A filter has refused the error page too: the client gets one that no filter sees.
        send_bare(r, status);
        return finalize::flush(r);
    }
    // Filters that prepared themselves for the response that is given up begin anew (nginx clears r->ctx here).
    r.guarded(|| r.drop_contexts());
    r.need_memory.set(false);
    r.allow_ranges.set(false);
    r.holding.set(0);
    r.stop_copying();
    {
        let parts = &mut **r.parts.borrow_mut();
        for name in ["Content-Type", "Content-Encoding", "Accept-Ranges", "ETag", "Last-Modified"] {
            parts.headers_out.remove(&parts.pool, name.as_bytes());
        }
        if status >= 400 {
            parts.headers_out.remove(&parts.pool, b"Location");
        }
        let set = parts.headers_out.set(&mut parts.pool, b"Content-Type", b"text/html", false);
        r.failed.set(r.failed.get() || set.is_err());
    }
    if closes(status) {
        r.conn.keep.set(false);
    }
    r.wait.set(Wait::Nothing);
    r.status.set(status);
    let place = r.place();
    let body = match status {
        201 | 204 | 304 => String::new(),
        _ => page(status, place.core.server_tokens),
    };
    r.content_length.set(Some(body.len() as u64));
    let mut code = output::send_header(r);
    if matches!(code, Code::OK | Code::AGAIN) {
        let mut last = if body.is_empty() { Buf::last() } else { Buf::from(body) };
        last.set_last(true);
        code = output::output(r, Chain::from(last));
    }
    match code {
        Code::OK | Code::AGAIN | Code::DONE => finalize::flush(r),
        code => finalize::finalize(r, code),
    }
}

/// Queues the page without any module: the last resort.
pub fn send_bare(r: &Rc<Request>, status: u16) {
    {
        let parts = &mut **r.parts.borrow_mut();
        parts.headers_out.clear();
        // A failure leaves a response without a type, which is still one.
        let _ = parts.headers_out.set(&mut parts.pool, b"Content-Type", b"text/html", false);
    }
    let body = page(status, r.place().core.server_tokens);
    r.status.set(status);
    r.content_length.set(Some(body.len() as u64));
    r.conn.keep.set(false);
    r.bare.set(true);
    r.holding.set(0);
    r.last_in.set(true);
    r.header_started.set(true);
    r.conn.write_header(r);
    let mut last = Buf::from(body);
    last.set_last(true);
    r.last_out.set(true);
    // What cannot be written shows when it is flushed.
    let _ = r.conn.write_body(r, Chain::from(last));
}

/// Statuses after which nginx closes the connection: where the next request starts is not known, or not wanted.
fn closes(status: u16) -> bool {
    matches!(status, 400 | 413 | 414 | 431 | 497 | 500 | 501)
}
