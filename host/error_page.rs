//! Error pages: what a client gets for a status that has no response of its own (nginx: special responses).
//!
//! ```text
//! answer(status) --- the place has an error_page for it ---> /uri     internal redirect, as GET
//!       |                                                    @name    the named location, as it is
//!       |                                                    URL      a redirect of the client
//!       v
//! send(status)   a page of the server's own, through the filters
//!       |  a filter refuses that too
//!       v
//! send_bare      the page without any module
//! ```

use std::{cell::Cell, rc::Rc};

use topnext_module_api::{Buf, Chain, Code};

use crate::{
    absolute_redirect,
    config::{self, ErrorResponse, ServerTokens},
    finalize, output, phases,
    plugins::services::main::compile,
    redirect,
    request::{Request, Text, Wait},
    status,
};

/// One `error_page` of the configuration, compiled.
#[derive(Debug)]
pub struct Page {
    /// The statuses that it is for.
    pub codes: Vec<u16>,
    /// The template of the URI, `@name` or URL.
    pub uri: u32,
    /// The status of the response.
    pub response: ErrorResponse,
}

impl Page {
    /// Checks and compiles one.
    pub fn new(conf: &config::ErrorPage) -> Result<Page, String> {
        if let Some(code) = conf.code.iter().find(|code| matches!(**code, status::CLOSE | status::CLIENT_CLOSED)) {
            return Err(format!("found code {code}, which closes the connection without a response"));
        }
        if conf.code.is_empty() {
            return Err("found an empty list of codes, expected at least one".to_string());
        }
        let uri = &conf.uri;
        let is_place = ["/", "@", "$"].iter().any(|start| uri.starts_with(start));
        if !is_place && !uri.contains("://") {
            return Err(format!(
                "found {uri:?}, expected \"/path\", \"@name\" or a URL such as \"https://example.com/\""
            ));
        }
        Ok(Page { codes: conf.code.clone(), uri: compile(uri)?, response: conf.response })
    }

    /// What is 431 here has the pages of 494 too, as nginx names it.
    fn is_for(&self, status: u16) -> bool {
        self.codes.contains(&status)
            || (status == status::FIELDS_TOO_LARGE && self.codes.contains(&status::HEAD_TOO_LARGE))
    }
}

/// What a request keeps that was redirected to an error page of the configuration.
#[derive(Debug, Default)]
pub struct Redirected {
    /// The status of the response, whatever its handler says; 0: the handler's.
    pub status: Cell<u16>,
    /// Another error gets the server's own page (nginx: recursive_error_pages off).
    pub once: Cell<bool>,
    /// GET or HEAD, in place of the method that the client sent.
    pub method: Cell<Option<Text>>,
}

/// Answers with an error page: that of the configuration, or the server's own.
pub fn answer(r: &Rc<Request>, status: u16) {
    let is_good = r.conn.is_unread_body_good(r);
    // What is wrong in the server remains so, whatever the client has sent.
    let status = if is_good || status >= 500 { status } else { 400 };
    if closes(status) {
        r.conn.keep.set(false);
    }
    match configured(r, status) {
        Some(page) => redirect_to(r, page, status),
        None => send(r, status),
    }
}

/// The page that the configuration has for this status, if the request may still be redirected to it.
fn configured(r: &Request, status: u16) -> Option<&'static Page> {
    let place = r.place();
    if place.error_pages.is_empty() || r.error_page.get() || r.redirects.get() > redirect::MAX_URI_CHANGES {
        return None;
    }
    let once = &r.extra().error.once;
    if once.get() {
        return None;
    }
    once.set(!place.core.recursive_error_pages);
    place.error_pages.iter().find(|page| page.is_for(status))
}

fn redirect_to(r: &Rc<Request>, page: &'static Page, status: u16) {
    let error = &r.extra().error;
    error.status.set(match page.response {
        ErrorResponse::Original => status::shown(status),
        ErrorResponse::Status(status) => status,
        ErrorResponse::OfUri => 0,
    });
    let text = r.site.templates.eval(page.uri, r);
    let target = r.text_owned(text);
    if error.status.get() != 405 || !matches!(target.first(), Some(b'/' | b'@')) {
        // RFC 9110, section 15.5.6: what belongs to a 405 says nothing in the response that takes its place.
        let parts = &mut **r.parts.borrow_mut();
        parts.headers_out.remove(&parts.pool, b"Allow");
    }
    let code = match target.first() {
        Some(b'/') => {
            // Set for HEAD as well: a head that could not be parsed has no method.
            let method: &[u8] = if r.is_head.get() { b"HEAD" } else { b"GET" };
            error.method.set(Some(r.store(&[method])));
            let (uri, args) = redirect::split_args(&target);
            redirect::post(r, uri, args)
        }
        Some(b'@') => redirect::post(r, &target, b""),
        _ => return redirect_client(r, page, &target),
    };
    if r.failed.get() {
        return finalize::finalize(r, Code::ERROR);
    }
    if code != Code::DONE {
        // The page's own fault, so that there is no page for it either.
        return send(r, code.as_status().unwrap_or(500));
    }
    r.forget_response();
    if !redirect::start_over(r) {
        return finalize::finalize(r, Code::status(500));
    }
    phases::run(r);
}

/// Sends the client to a URL.
fn redirect_client(r: &Rc<Request>, page: &Page, url: &[u8]) {
    let set = {
        let parts = &mut **r.parts.borrow_mut();
        parts.headers_out.set(&mut parts.pool, b"Location", url, false)
    };
    let status = match page.response {
        ErrorResponse::Status(status @ (301 | 302 | 303 | 307 | 308)) => status,
        _ => 302,
    };
    // What variables hold may not be fit for a header field.
    send(r, if set.is_ok() { status } else { 500 });
}

/// A small page that says the status.
pub fn page(status: u16, tokens: ServerTokens) -> String {
    let server = tokens.server();
    let title = status::title(status);
    format!(
        "<!DOCTYPE html>\n<html>\n<head><title>{title}</title></head>\n<body>\n\
         <h1>{title}</h1>\n<hr><p>{server}</p>\n</body>\n</html>\n"
    )
}

/// Sends the server's own page through the filters, and finalizes.
pub fn send(r: &Rc<Request>, status: u16) {
    if r.error_page.replace(true) {
        // A filter has refused the error page too: the client gets one that no filter sees.
        send_bare(r, status);
        return finalize::flush(r);
    }
    if let Some(extra) = r.extra.get() {
        extra.error.status.set(0);
    }
    // Filters that prepared themselves for the response that is given up begin anew (nginx clears r->ctx here).
    r.guarded(|| r.drop_contexts());
    r.forget_response();
    {
        let parts = &mut **r.parts.borrow_mut();
        if status >= 400 {
            parts.headers_out.remove(&parts.pool, b"Location");
        }
        let set = parts.headers_out.set(&mut parts.pool, b"Content-Type", b"text/html", false);
        r.failed.set(r.failed.get() || set.is_err());
    }
    if status < 400 && absolute_redirect::complete(r).is_err() {
        r.failed.set(true);
    }
    r.wait.set(Wait::Nothing);
    r.status.set(status::shown(status));
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
    r.status.set(status::shown(status));
    r.content_length.set(Some(body.len() as u64).filter(|_| !status::is_bodyless(status)));
    r.header_only.set(r.is_head.get() || status::is_bodyless(status));
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
    matches!(status, 400 | 413 | 414 | 431 | 494..=497 | 500 | 501)
}
