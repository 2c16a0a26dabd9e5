//! The phases of a request, in nginx's order, and how handlers are asked in them.
//!
//! ```text
//!                                +------ changed URI ------+
//!                                v                         |
//! post-read -> server-rewrite -> FIND CONFIG -> rewrite -> POST REWRITE -> preaccess -> access -> POST ACCESS
//!                    ^                             ^                                                   |
//!                    |                             +--- redirect to @name ---+                         v
//!                    +----------------- redirect to /uri --------------------+-- content <- precontent-+
//! ```

use std::rc::Rc;

use topnext_module_api::{Code, Phase, handler::HandlerLink, running::Hook, uri::escape_path};

use crate::{
    config::Satisfy,
    finalize::{self, finalize},
    log::error::Level,
    log_line, map_uri, output,
    plugins::link,
    redirect,
    request::{Request, Wait, captures},
    site::Place,
    upstream,
};

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// In a phase with handlers.
    Handlers(Phase),
    /// The location is looked up; here and in the next two nothing but the host takes part.
    FindConfig,
    /// Whether the rewrite phase has changed the URI.
    PostRewrite,
    /// Whether the access phase has refused the request.
    PostAccess,
}

impl Step {
    /// The first step of a request.
    pub const FIRST: Step = Step::Handlers(Phase::PostRead);

    fn next(self) -> Step {
        match self {
            Step::Handlers(Phase::PostRead) => Step::Handlers(Phase::ServerRewrite),
            Step::Handlers(Phase::ServerRewrite) => Step::FindConfig,
            Step::FindConfig => Step::Handlers(Phase::Rewrite),
            Step::Handlers(Phase::Rewrite) => Step::PostRewrite,
            Step::PostRewrite => Step::Handlers(Phase::Preaccess),
            Step::Handlers(Phase::Preaccess) => Step::Handlers(Phase::Access),
            Step::Handlers(Phase::Access) => Step::PostAccess,
            Step::PostAccess => Step::Handlers(Phase::Precontent),
            Step::Handlers(_) => Step::Handlers(Phase::Content),
        }
    }
}

/// Runs the phases from where the request is, until it waits or is finalized.
pub fn run(r: &Rc<Request>) {
    r.wait.set(Wait::Nothing);
    loop {
        let (step, index) = r.at.get();
        let phase = match step {
            Step::Handlers(phase) if index == 0 => r.place().phase_from(phase),
            Step::Handlers(phase) => phase,
            own => {
                let next = match own {
                    Step::FindConfig => find_config(r),
                    Step::PostRewrite => post_rewrite(r),
                    _ => post_access(r),
                };
                match next {
                    Ok(next) => r.at.set((next, 0)),
                    Err(code) => return finalize(r, code),
                }
                continue;
            }
        };
        let step = Step::Handlers(phase);
        let place = r.place();
        r.at.set((step, index));
        if phase == Phase::Content {
            if place.upstream.is_some() {
                return upstream::start(r);
            }
            if let Some(handler) = &place.content {
                let code = ask(r, handler, Phase::Content);
                return content_answer(r, code);
            }
        }
        let Some(handler) = place.handlers(phase).get(index) else {
            if phase == Phase::Content {
                return finalize(r, nobody(r));
            }
            r.at.set((step.next(), 0));
            continue;
        };
        let code = ask(r, handler, phase);
        if r.failed.get() {
            return finalize(r, Code::ERROR);
        }
        if r.redirect.get() {
            if !redirect::start_over(r) {
                return finalize(r, Code::status(500));
            }
            continue;
        }
        match check(r, phase, code) {
            Next::Handler => r.at.set((step, index + 1)),
            Next::Phase => r.at.set((step.next(), 0)),
            Next::Wait => return wait(r, Wait::HandlerOrRoom),
            Next::Finalize => return finalize(r, code),
        }
    }
}

/// What follows the answer of a handler.
enum Next {
    /// The next handler of the phase.
    Handler,
    /// The next phase.
    Phase,
    /// The same handler, when it is woken.
    Wait,
    /// The end, with the answer.
    Finalize,
}

/// What an answer means in a phase (nginx: the checkers of the phases).
fn check(r: &Request, phase: Phase, code: Code) -> Next {
    match code {
        Code::DECLINED => Next::Handler,
        Code::AGAIN | Code::DONE if !r.last_in.get() => Next::Wait,
        _ if r.header_started.get() => Next::Finalize,
        Code::OK => match phase {
            Phase::PostRead | Phase::Preaccess | Phase::Precontent => Next::Phase,
            Phase::Access if r.place().core.satisfy == Satisfy::All => Next::Handler,
            Phase::Access => {
                if let Some(extra) = r.extra.get() {
                    extra.refused.set(0);
                }
                let parts = &mut **r.parts.borrow_mut();
                parts.headers_out.remove(&parts.pool, b"WWW-Authenticate");
                Next::Phase
            }
            // A handler that rewrites has nothing to say Ok to: it has answered.
            _ => Next::Finalize,
        },
        code => match code.as_status() {
            // Another handler may let it in.
            Some(status @ (401 | 403)) if phase == Phase::Access && r.place().core.satisfy == Satisfy::Any => {
                let refused = &r.extra().refused;
                if refused.get() != 401 {
                    refused.set(status);
                }
                Next::Handler
            }
            _ => Next::Finalize,
        },
    }
}

/// A URI that was changed in the rewrite phase finds its location anew.
fn post_rewrite(r: &Rc<Request>) -> Result<Step, Code> {
    if !r.extra.get().is_some_and(|extra| extra.uri_changed.take()) {
        return Ok(Step::PostRewrite.next());
    }
    if !redirect::count_change(r, "processing", &r.text_owned(r.uri.get())) {
        return Err(Code::status(500));
    }
    Ok(Step::FindConfig)
}

/// Nobody has let a request in that some handler of the access phase has refused (satisfy = "any").
fn post_access(r: &Rc<Request>) -> Result<Step, Code> {
    match r.extra.get().map_or(0, |extra| extra.refused.take()) {
        0 => Ok(Step::PostAccess.next()),
        status => {
            if status == 403 {
                log_line!(Level::Error, "*{} access forbidden by rule{}", r.conn.number, r.log_tail());
            }
            Err(Code::status(status))
        }
    }
}

fn ask(r: &Rc<Request>, handler: &HandlerLink, phase: Phase) -> Code {
    r.guarded(|| link::call_handler(r, handler, phase))
}

fn content_answer(r: &Rc<Request>, code: Code) {
    if !r.failed.get() && r.redirect.get() {
        return if redirect::start_over(r) { run(r) } else { finalize(r, Code::status(500)) };
    }
    match code {
        Code::AGAIN | Code::DONE if !r.last_in.get() && !r.failed.get() => wait(r, Wait::HandlerOrRoom),
        Code::DECLINED => finalize(r, nobody(r)),
        code => finalize(r, code),
    }
}

/// A handler answered Again. What woke it while it ran is not lost.
fn wait(r: &Rc<Request>, wait: Wait) {
    r.wait.set(wait);
    let mut woken = false;
    while let Some(code) = r.extra().late_wakes.borrow_mut().pop_front() {
        woken = true;
        r.conn.lp.post(r.clone(), code);
    }
    if r.conn.unsent() > 0 && r.header_sent.get() {
        match r.conn.flush_request(r) {
            // It has all left by now: that is the room that the handler waits for.
            Code::OK => return r.conn.room_later(),
            Code::AGAIN => return,
            _ => return finalize::client_closed(r),
        }
    }
    if !woken && !r.is_awaited() && r.conn.unsent() == 0 && !output::is_held(r) {
        let text =
            "its handler answered Again, but nothing will wake it: no timer, waker, job, body or output is pending";
        log_line!(Level::Alert, "*{} {text}{}", r.conn.number, r.log_tail());
        finalize(r, Code::ERROR);
    }
}

/// No handler has taken the request (nginx: the end of the content phase).
fn nobody(r: &Rc<Request>) -> Code {
    let is_folder = r.parts.borrow().text(r.uri.get()).ends_with(b"/");
    // No name: there is no root, or the URI leads out of it.
    let name = if is_folder { r.text_owned(map_uri::filename(r)) } else { Vec::new() };
    if !name.is_empty() {
        log_line!(
            Level::Error,
            "*{} directory index of \"{}\" is forbidden{}",
            r.conn.number,
            String::from_utf8_lossy(&name),
            r.log_tail()
        );
        return Code::status(403);
    }
    Code::status(404)
}

/// The location of the URI, and what it bounds.
fn find_config(r: &Rc<Request>) -> Result<Step, Code> {
    let server = r.server;
    let found = {
        let uri = r.uri.get();
        server.locations.find(r.parts.borrow().text(uri), &mut |regex| captures::note(r, regex, uri))
    };
    let place = found.place.unwrap_or(&server.place);
    let max = place.core.client_max_body_size;
    r.place.set(place);
    r.filename.set(None);
    if let Some(extra) = r.extra.get() {
        // A change before this, in server-rewrite, has had its effect.
        extra.uri_changed.set(false);
        extra.uri_behind_alias.set(false);
    }
    if place.core.internal && !r.internal.get() {
        return Err(Code::status(404));
    }
    if let crate::http1::Framing::Length(length) = r.framing
        && max > 0
        && length > max
        && !r.extra.get().is_some_and(|extra| extra.body_refused.get())
    {
        log_line!(
            Level::Error,
            "*{} client intended to send too large body: {length} bytes{}",
            r.conn.number,
            r.log_tail()
        );
        r.extra().body_refused.set(true);
        return Err(Code::status(413));
    }
    if found.redirect {
        return Err(redirect_to_slash(r, place));
    }
    Ok(Step::FindConfig.next())
}

/// Tells the client that its URI lacks the slash at the end (nginx: auto_redirect).
#[cold]
fn redirect_to_slash(r: &Request, place: &Place) -> Code {
    let mut location = Vec::new();
    escape_path(place.path.as_bytes(), &mut location);
    let args = r.text_owned(r.args.get());
    if !args.is_empty() {
        location.push(b'?');
        location.extend_from_slice(&args);
    }
    let parts = &mut **r.parts.borrow_mut();
    match parts.headers_out.set(&mut parts.pool, b"Location", &location, false) {
        Ok(()) => Code::status(301),
        Err(_) => Code::status(500),
    }
}

/// Something that a hook has asked to be woken for has happened.
pub fn wake(r: &Rc<Request>, code: u64) {
    if r.wait.get() == Wait::Ended {
        return;
    }
    if r.depth.get() > 0 {
        r.extra().late_wakes.borrow_mut().push_back(code);
        return;
    }
    let (module, hook) = ((code >> 32) as u32, Hook(code as u32));
    match hook {
        Hook::BODY_FILTER | Hook::HEADER_FILTER => output::continue_filter(r, module),
        Hook::HANDLER | Hook::CONTENT => {
            if matches!(r.wait.get(), Wait::Handler | Wait::HandlerOrRoom) {
                run(r);
            } else if r.wait.get() == Wait::Nothing {
                r.extra().late_wakes.borrow_mut().push_back(code);
            }
        }
        _ => (),
    }
}

/// The connection has room again.
pub fn room(r: &Rc<Request>) {
    output::continue_all(r);
    if output::is_held(r) && r.wait.get() != Wait::Flush {
        // What is on its way has not left: more would only pile up.
        return;
    }
    match r.wait.get() {
        Wait::HandlerOrRoom => run(r),
        Wait::Upstream => upstream::room(r),
        Wait::Flush => finalize::flush(r),
        _ => (),
    }
}
