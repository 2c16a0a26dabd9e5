//! What the host's event loop does for one request: calls hooks, and calls them again when something has happened.

use super::{
    Output,
    event::PATIENCE,
    host::{self, MODULE},
    kit::{INJECTED, Kit},
    plan::{Counts, Plan, Round},
    request::{Links, Spec, State, is_filter},
};
use crate::{
    Buf, Chain, Code, Phase, Request,
    running::{Hook, Running},
};

/// More steps than any module needs: one that takes more goes around in circles.
const MAX_STEPS: u32 = 200_000;

/// Continuations without any effect before the module counts as stuck.
const MAX_IDLE: u32 = 100;

/// What happened next.
enum Step {
    /// There is room again, or a filter holds data: the chain is continued.
    Continue,
    /// A hook is called again.
    Hook(Running),
    /// Nothing ever will.
    Stuck,
}

/// Runs a request from its making to its end, and says what came of it and what broke the contract.
pub(crate) fn run(spec: &Spec, links: &Links, plan: &Plan, drive: impl FnOnce(&State) -> Code) -> Round<Output> {
    let (kit, _guard) = Kit::start();
    kit.set_panic_at(plan.module_panics_at);
    let again = plan.random().filter(|_| plan.again);
    let mut state = State::new(spec, &kit, again, links.clone());
    state.close_after = plan.close_after;
    state.end.panic_at.set(plan.end_panics_at);
    state.end.fail_at.set(plan.end_fails_at);
    let code = drive(&state);
    let counts = Counts { hooks: state.calls.get(), end: state.end.calls.get(), points: kit.points() };
    let shared = state.shared.clone();
    for hook in shared.join_jobs(PATIENCE) {
        state.fault(format!("a job that {} has posted does not come to an end", hook.hook.name()));
    }
    let mut output = Output::of(&state, code);
    if !state.given_up() {
        state.check_end(&output);
    }
    let disturbed = state.given_up();
    let mut faults = state.faults.take();
    drop(state);
    shared.join_wakers();
    output.log = kit.lines();
    output.panics = kit.panics();
    let module_panics = output.panics.iter().filter(|panic| panic.message != INJECTED);
    faults.extend(module_panics.filter(|_| plan.seed.is_some()).map(|panic| panic.to_string()));
    faults.extend(kit.faults());
    faults.extend(kit.leaks());
    Round { faults, panics: output.panics.clone(), failed: kit.failed(), counts, disturbed, output }
}

impl State {
    /// Whether the client has gone.
    pub(crate) fn closed(&self) -> bool {
        self.close_after.is_some_and(|after| self.calls.get() >= after)
    }

    /// Whether the request is over before its time.
    pub(crate) fn given_up(&self) -> bool {
        self.closed() || self.kit.panicked() || self.end.has_failed()
    }

    /// A handle for one hook.
    fn with_handle<T>(&self, run: impl FnOnce(&mut Request<'_>) -> T) -> T {
        // SAFETY: the state outlives this call, and the handle does not; this is the thread's cell.
        let mut r = unsafe { Request::new(std::ptr::from_ref(self).cast(), host::requests(), host::cell()) };
        run(&mut r)
    }

    /// Calls a hook from the event loop, and looks after it.
    pub(crate) fn call<T>(&self, hook: impl FnOnce(&mut Request<'_>) -> T) -> T {
        self.calls.set(self.calls.get() + 1);
        let answer = self.with_handle(hook);
        self.pool.borrow_mut().clear();
        if host::cell().get() != Running::HOST {
            self.fault("the cell that says who runs was not restored");
        }
        answer
    }

    // ---- the chains

    /// Runs the header filters.
    pub(crate) fn send_header(&self) -> Code {
        let link = self.links.header().clone();
        // SAFETY: the link's function is called with the link, which `links` keeps alive.
        self.with_handle(|r| unsafe { (link.call)(&link, r) })
    }

    /// Runs the body filters.
    pub(crate) fn output(&self, chain: Chain) -> Code {
        if !self.header_sent.get() {
            let hook = host::cell().get().hook.name();
            self.fault(format!("output() in {hook} before send_header() answered Ok or Again"));
        }
        if chain.has_last() {
            self.last_sent.set(true);
        }
        if self.spec.header_only(self.status.get()) {
            return Code::OK;
        }
        self.pass(chain)
    }

    fn pass(&self, chain: Chain) -> Code {
        let chain = if self.need_memory.get() { chain.map(|buf| self.to_memory(buf)).collect() } else { chain };
        let link = self.links.body().clone();
        // SAFETY: as in `send_header`.
        self.with_handle(|r| unsafe { (link.call)(&link, r, chain) })
    }

    /// Reads a file buf, as the host's copy step does.
    pub(crate) fn to_memory(&self, buf: Buf) -> Buf {
        let Some((file, pos, len)) = buf.file() else { return buf };
        let mut memory = Buf::from_other_image(&host::read(file, pos, len).unwrap_or_default());
        memory.set_last(buf.is_last());
        memory.set_flush(buf.is_flush());
        memory.set_last_in_chain(buf.is_last_in_chain());
        memory
    }

    // ---- the loop

    /// Lets things happen until the response is complete, or `handler` (a hook that is not a filter's) has answered
    /// something else than Again and nothing is left to be sent.
    pub(crate) fn settle(&self, mut handler: impl FnMut(Running) -> Code, mut code: Code) -> Code {
        let (mut idle, mut before) = (0, self.progress());
        for _ in 0..MAX_STEPS {
            if self.given_up() || code == Code::ERROR || self.is_complete(code) {
                return code;
            }
            match self.next_step() {
                Step::Continue => {
                    let answer = self.go_on();
                    if answer == Code::ERROR {
                        return answer;
                    }
                    // There is room again: a handler that has more to send is called again.
                    if waits(code) && !self.end.is_pending() && !self.last_sent.get() && self.links.handler.is_some() {
                        code = handler(Running { module: MODULE, hook: Hook::CONTENT });
                    } else if self.last_sent.get() && matches!(code, Code::OK | Code::AGAIN | Code::DONE) {
                        code = answer;
                    }
                }
                Step::Hook(hook) if is_filter(hook) => {
                    let answer = self.call(|_| self.pass(Chain::new()));
                    if answer == Code::ERROR {
                        return answer;
                    }
                }
                Step::Hook(hook) if self.last_sent.get() => self
                    .kit
                    .note(crate::Level::Debug, &format!("{} was woken after it had sent everything", hook.hook.name())),
                Step::Hook(hook) => code = handler(hook),
                Step::Stuck => {
                    self.fault(self.why_stuck(code));
                    return code;
                }
            }
            let now = self.progress();
            (idle, before) = if now == before { (idle + 1, before) } else { (0, now) };
            if idle > MAX_IDLE {
                self.fault(self.why_stuck(code));
                return code;
            }
        }
        self.fault("the module goes around in circles");
        code
    }

    /// Lets what the end has accepted leave: for a producer that has nothing more to send.
    pub(crate) fn drain(&self) -> Code {
        let mut code = Code::OK;
        for _ in 0..MAX_STEPS {
            if self.given_up() || code == Code::ERROR || !self.end.is_pending() {
                return code;
            }
            code = self.go_on();
        }
        self.fault(self.why_stuck(code));
        code
    }

    /// One step, if there is one: for tests that send the next part of the body before all of the last has left.
    pub(crate) fn step(&self) -> Code {
        match self.next_step() {
            Step::Stuck => Code::OK,
            Step::Continue => self.go_on(),
            Step::Hook(_) => self.call(|_| self.pass(Chain::new())),
        }
    }

    /// There is room: what waits at the end leaves, and filters go on with what they hold.
    fn go_on(&self) -> Code {
        if self.end.flush_header() && self.holds.borrow().is_empty() {
            return Code::OK;
        }
        self.call(|_| self.pass(Chain::new()))
    }

    fn next_step(&self) -> Step {
        if let Some(hook) = self.ready.borrow_mut().pop().or_else(|| self.shared.woken()) {
            return Step::Hook(hook);
        }
        if self.end.is_pending() {
            return Step::Continue;
        }
        if let Some(hook) = self.shared.wait_for_job() {
            return Step::Hook(hook);
        }
        let mut timers = self.timers.borrow_mut();
        let first = (0..timers.len()).min_by_key(|&at| timers[at].1);
        if let Some(first) = first {
            let (hook, due) = timers.swap_remove(first);
            self.now.set(self.now.get().max(due));
            return Step::Hook(hook);
        }
        drop(timers);
        if let Some(hook) = self.shared.wait_for_waker() {
            return Step::Hook(hook);
        }
        if self.holds.borrow().is_empty() { Step::Stuck } else { Step::Continue }
    }

    /// What changes when something useful happens.
    fn progress(&self) -> (usize, u32, usize, u64, u64) {
        let end = &self.end;
        (end.body.borrow().len(), end.last.get(), self.holds.borrow().len(), end.unsent.get(), self.now.get())
    }

    fn is_complete(&self, code: Code) -> bool {
        let waiting = waits(code) && !self.last_sent.get() && self.redirect.borrow().is_none();
        let idle = !self.end.is_pending() && self.holds.borrow().is_empty();
        let through = !self.last_sent.get() || self.end.last.get() > 0 || self.spec.header_only(self.status.get());
        idle && !waiting && through
    }

    fn why_stuck(&self, code: Code) -> String {
        if self.end.is_pending() {
            return "the end of the chain waits to be continued, but a body_filter does not pass an empty chain on"
                .to_string();
        }
        let holders = self.holds.borrow();
        if !holders.is_empty() {
            return format!("a filter holds data for ever: hold(true) in body_filter of module {}", holders[0]);
        }
        if self.last_sent.get() {
            return "last_buf went into the chain of filters, but did not come out of body_filter, and nobody holds data"
                .to_string();
        }
        format!("{} answered {code:?}, but nothing will ever call it again", self.producer.get())
    }

    /// What must hold when a response has come to its end. A timer that still runs is no fault, since none can be taken
    /// back; it is noted.
    fn check_end(&self, output: &Output) {
        for (hook, _) in &*self.timers.borrow() {
            self.kit.note(crate::Level::Debug, &format!("a timer of {} still ran at the end", hook.hook.name()));
        }
        if output.failed() || !output.header_sent || self.spec.header_only(output.status) {
            return;
        }
        let hook = self.producer.get();
        if self.last_sent.get() && self.end.last.get() != 1 {
            self.fault(format!("last_buf came {} times, see {hook}", self.end.last.get()));
        }
        if !self.holds.borrow().is_empty() {
            self.fault("hold() is still set at the end, see body_filter");
        }
        if let Some(length) = output.content_length
            && self.end.last.get() == 1
            && length != output.body.len() as u64
        {
            let len = output.body.len();
            self.fault(format!("the content length is {length}, but the body has {len} bytes, see {hook}"));
        }
    }

    /// Asks the handler.
    pub(crate) fn call_handler(&self, phase: Phase) -> Code {
        let Some(link) = self.links.handler else {
            return Code::DECLINED;
        };
        self.producer.set(if phase == Phase::Content { "content" } else { "handler" });
        self.log_phase.set(phase == Phase::Log);
        // SAFETY: the link's data are borrowed by the test that made the links.
        self.call(|r| unsafe { link.call(r, phase) })
    }
}

/// Whether a handler that answered this is called again.
pub(crate) fn waits(code: Code) -> bool {
    code == Code::AGAIN || code == Code::DONE
}
