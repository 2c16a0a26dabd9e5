//! The one way out of a request: every answer of every handler, filter, upstream and timer ends here.
//!
//! ```text
//! finalize(code) -> an error page, or nothing    -> flush: until no filter holds data and all has left
//!                                                -> complete: log phase, access log, contexts
//!                                                -> the connection: keep it, or close it
//! ```

use std::rc::Rc;

use topnext_module_api::{Code, Phase};

use crate::{
    error_page,
    log::error::Level,
    log_line, output,
    plugins::link,
    request::{Request, Wait},
    status::CLOSE,
    upstream,
};

pub use crate::status::CLIENT_CLOSED;

/// Ends a request with the answer of a handler. Calling it again is harmless.
pub fn finalize(r: &Rc<Request>, code: Code) {
    if r.wait.get() == Wait::Ended {
        return;
    }
    upstream::detach(r);
    r.conn.stop_reading_body(r);
    if r.failed.get() && !r.bare.get() {
        return fail(r);
    }
    if r.conn.is_broken() || code == Code::status(CLIENT_CLOSED) {
        return client_closed(r);
    }
    let status = match code {
        Code::ERROR => Some(500),
        code => code.as_status(),
    };
    if status == Some(CLOSE) {
        return close_unanswered(r, status);
    }
    // A status is no news once the response is complete, nor one of success once it has begun.
    let is_news = |status: &u16| !r.last_out.get() && (*status >= 400 || !r.header_started.get()) || r.has_panicked();
    let Some(status) = status.filter(is_news) else {
        return respond(r, code);
    };
    if r.header_started.get() {
        // The header is out with another status: the client must learn that the body is not complete.
        log_line!(
            Level::Error,
            "*{} response failed with {status} after its header was sent: the connection is reset{}",
            r.conn.number,
            r.log_tail()
        );
        return abort(r);
    }
    error_page::answer(r, status);
}

/// A handler says that it is done: was it?
fn respond(r: &Rc<Request>, code: Code) {
    if !r.header_started.get() {
        let text = "was finalized by its handler without a response";
        log_line!(Level::Error, "*{} the request {text} ({code:?}){}", r.conn.number, r.log_tail());
        return error_page::answer(r, 500);
    }
    if !r.last_in.get() && !r.header_only.get() {
        let text = "the handler ended the response without its last buf: the connection is reset";
        log_line!(Level::Error, "*{} {text}{}", r.conn.number, r.log_tail());
        return abort(r);
    }
    flush(r);
}

/// Completes the request as soon as nothing is held or queued.
pub fn flush(r: &Rc<Request>) {
    if r.failed.get() && !r.bare.get() {
        return fail(r);
    }
    r.wait.set(Wait::Flush);
    if output::is_held(r) {
        // What is not held leaves meanwhile.
        if output::flush_beside_held(r) == Code::ERROR {
            client_closed(r);
        }
        return;
    }
    if !r.last_out.get() && !r.header_only.get() {
        let text = "a filter has swallowed the end of the response: the connection is reset";
        log_line!(Level::Error, "*{} {text}{}", r.conn.number, r.log_tail());
        return abort(r);
    }
    match r.conn.flush_request(r) {
        Code::OK => complete(r),
        Code::AGAIN => (),
        _ => abort(r),
    }
}

/// A module has failed the request: an answer without modules, or a reset.
#[cold]
fn fail(r: &Rc<Request>) {
    log_line!(
        Level::Error,
        "*{} the request failed (see above): {}{}",
        r.conn.number,
        if r.header_sent.get() { "the connection is reset" } else { "answered 500 without module filters" },
        r.log_tail()
    );
    if r.header_sent.get() {
        return abort(r);
    }
    r.stop_copying();
    error_page::send_bare(r, 500);
    // What the bare answer writes has passed no module.
    r.wait.set(Wait::Flush);
    match r.conn.flush_request(r) {
        Code::OK => complete(r),
        Code::AGAIN => (),
        _ => abort(r),
    }
}

/// Gives the request up, and its connection with it.
#[cold]
pub fn abort(r: &Rc<Request>) {
    if r.wait.get() == Wait::Ended {
        return;
    }
    upstream::detach(r);
    end(r);
    r.conn.abort();
}

/// The client has gone.
#[cold]
pub fn client_closed(r: &Rc<Request>) {
    if r.wait.get() == Wait::Ended {
        return;
    }
    if r.failed.get() && !r.conn.is_broken() {
        return fail(r);
    }
    if !r.last_out.get() {
        // As nginx logs them: 400 if its body is not whole.
        r.status.set(if r.is_body_cut_short() { 400 } else { CLIENT_CLOSED });
    }
    log_line!(Level::Info, "*{} client prematurely closed connection{}", r.conn.number, r.log_tail());
    if r.header_sent.get() {
        return abort(r);
    }
    upstream::detach(r);
    end(r);
    r.conn.close();
}

/// Ends a request whose client did not keep its time, has gone in the middle of its head, or is to get no answer: nothing
/// more is sent. The status is only logged, and only if no other has been sent.
#[cold]
pub fn close_unanswered(r: &Rc<Request>, status: Option<u16>) {
    if r.wait.get() == Wait::Ended {
        return;
    }
    upstream::detach(r);
    if let Some(status) = status.filter(|_| !r.header_sent.get()) {
        r.status.set(status);
    }
    end(r);
    r.conn.close_timed_out(r);
}

/// Everything has left.
fn complete(r: &Rc<Request>) {
    end(r);
    r.conn.request_done(r);
}

/// The log phase, and the end of everything that belongs to the request.
fn end(r: &Rc<Request>) {
    r.wait.set(Wait::Ended);
    if !r.logged.replace(true) {
        let place = r.place();
        for handler in place.handlers(Phase::Log) {
            r.guarded(|| link::call_handler(r, handler, Phase::Log));
        }
        place.access_logs.iter().for_each(|log| log.write(r));
    }
    r.release();
}
