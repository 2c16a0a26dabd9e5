//! Internal redirects: a request starts over at another URI, or goes on in a named location.
//!
//! ```text
//! post:        a module's hook asks for one
//!              (the outermost hook returns)
//! start_over:  /uri   -> server-rewrite, find-config, ...
//!              @name  -> the rewrite phase of that location, with URI and arguments as they are
//! ```
//!
//! A request can be redirected [`MAX_URI_CHANGES`] times, changes of its URI in the rewrite phase included (nginx:
//! NGX_HTTP_MAX_URI_CHANGES).

use std::rc::Rc;

use topnext_module_api::{Code, Phase};

use crate::{log::error::Level, log_line, phases::Step, request::Request};

/// How often the URI of a request may change.
pub const MAX_URI_CHANGES: u32 = 10;

/// Notes a redirect for when the outermost hook has returned. Done, or a status to answer instead.
pub fn post(r: &Rc<Request>, target: &[u8], args: &[u8]) -> Code {
    if r.header_started.get() {
        return Code::status(500);
    }
    match target {
        [b'/', ..] => post_uri(r, target, args),
        [b'@', ..] => post_named(r, target),
        _ => Code::status(500),
    }
}

fn post_uri(r: &Rc<Request>, uri: &[u8], args: &[u8]) -> Code {
    // It may have been made of variables: it must not lead out of the root (nginx: unsafe URI).
    if has_dot_dot(uri) {
        log_unsafe(r, uri);
        return Code::status(404);
    }
    let (uri, args) = (r.store(&[uri]), r.store(&[args]));
    r.uri.set(uri);
    r.args.set(args);
    r.redirect.set(true);
    if let Some(extra) = r.extra.get() {
        extra.named.set(None);
    }
    Code::DONE
}

fn post_named(r: &Rc<Request>, name: &[u8]) -> Code {
    let shown = String::from_utf8_lossy(name);
    if r.parts.borrow().text(r.uri.get()).is_empty() {
        // A head that could not be parsed has none.
        log_line!(
            Level::Error,
            "*{} empty URI in redirect to named location \"{shown}\"{}",
            r.conn.number,
            r.log_tail()
        );
        return Code::status(500);
    }
    let Some(place) = r.server.locations.named(name) else {
        log_line!(Level::Error, "*{} could not find named location \"{shown}\"{}", r.conn.number, r.log_tail());
        return Code::status(500);
    };
    r.extra().named.set(Some(place));
    r.redirect.set(true);
    Code::DONE
}

/// Whether a path has a segment `..`.
pub fn has_dot_dot(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/').any(|part| part == b"..")
}

/// Says that a URI leads out of where it should.
#[cold]
pub fn log_unsafe(r: &Request, uri: &[u8]) {
    let uri = String::from_utf8_lossy(uri);
    log_line!(Level::Error, "*{} unsafe URI \"{uri}\" was detected{}", r.conn.number, r.log_tail());
}

/// Begins what was posted. False if the request has been redirected too often, or a module has failed it.
pub fn start_over(r: &Rc<Request>) -> bool {
    r.redirect.set(false);
    let named = r.extra.get().and_then(|extra| extra.named.take());
    let allowed = match named {
        Some(place) => count_change(r, "redirect to named location", place.path.as_bytes()),
        None => count_change(r, "internally redirecting to", &r.text_owned(r.uri.get())),
    };
    if !allowed {
        return false;
    }
    r.internal.set(true);
    r.guarded(|| r.drop_contexts());
    if r.failed.get() {
        return false;
    }
    r.filename.set(None);
    if let Some(extra) = r.extra.get() {
        extra.uri_changed.set(false);
        extra.uri_behind_alias.set(false);
        extra.refused.set(0);
    }
    r.allow_ranges.set(false);
    match named {
        Some(place) => {
            r.place.set(place);
            r.at.set((Step::Handlers(Phase::Rewrite), 0));
        }
        None => {
            r.place.set(&r.server.place);
            r.at.set((Step::Handlers(Phase::ServerRewrite), 0));
        }
    }
    true
}

/// Counts a change of the URI; false, with a line in the log, if there were too many.
pub fn count_change(r: &Request, doing: &str, target: &[u8]) -> bool {
    r.redirects.set(r.redirects.get() + 1);
    if r.redirects.get() <= MAX_URI_CHANGES {
        return true;
    }
    let target = String::from_utf8_lossy(target);
    log_line!(
        Level::Error,
        "*{} rewrite or internal redirection cycle while {doing} \"{target}\"{}",
        r.conn.number,
        r.log_tail()
    );
    false
}

/// A URI with arguments behind a `?`, taken apart.
pub fn split_args(target: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, b""),
    }
}
