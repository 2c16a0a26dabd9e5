//! What the host's event loop does for one request: calls hooks, and calls them again when something has happened.

use super::{
    Output,
    end::INJECTED,
    host::{self, Kit},
    random::Random,
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

/// How a request is run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plan {
    /// The seed of what is random; nothing is without one.
    pub(crate) seed: Option<u64>,
    /// Whether services and the end answer Again at random.
    pub(crate) again: bool,
    /// After how many hooks the client goes away.
    pub(crate) close_after: Option<u32>,
    /// At which call the end of the chain panics.
    pub(crate) panic_at: Option<u32>,
}

impl Plan {
    pub(crate) fn random(&self) -> Option<Random> {
        self.seed.map(Random::new)
    }

    /// Whether the response comes out as if nothing had happened.
    pub(crate) fn is_kind(&self) -> bool {
        self.close_after.is_none() && self.panic_at.is_none()
    }
}

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
pub(crate) fn run(
    spec: &Spec,
    links: &Links,
    plan: &Plan,
    drive: impl FnOnce(&State) -> Code,
) -> (Output, Vec<String>) {
    let (kit, _guard) = Kit::start();
    let again = plan.random().filter(|_| plan.again);
    let mut state = State::new(spec, &kit, again, links.clone());
    state.close_after = plan.close_after;
    state.end.panic_at.set(plan.panic_at);
    let code = drive(&state);
    let mut output = Output::of(&state, code);
    if !state.closed() {
        state.check_end(&output);
    }
    let mut faults = state.faults.take();
    drop(state);
    output.log = kit.lines();
    output.panics = kit.panics();
    let module_panics = output.panics.iter().filter(|panic| panic.message != INJECTED);
    faults.extend(module_panics.filter(|_| plan.seed.is_some()).map(|panic| panic.to_string()));
    faults.extend(kit.leaks());
    (output, faults)
}

impl State {
    /// Whether the client has gone.
    pub(crate) fn closed(&self) -> bool {
        self.close_after.is_some_and(|after| self.calls.get() >= after)
    }

    /// Whether the request is over before its time.
    pub(crate) fn given_up(&self) -> bool {
        self.closed() || self.kit.panicked()
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
            self.fault("output() before send_header() answered Ok or Again");
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
    fn to_memory(&self, buf: Buf) -> Buf {
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
                    let answer = self.call(|_| self.pass(Chain::new()));
                    if answer == Code::ERROR {
                        return answer;
                    }
                    // There is room again: a handler that has more to send is called again.
                    if waits(code) && !self.end.is_pending() && !self.last_sent.get() && self.links.handler.is_some() {
                        code = handler(Running { module: host::MODULE, hook: Hook::CONTENT });
                    } else if !waits(code) || self.last_sent.get() {
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

    /// One step, if there is one: for tests that send the next part of the body before all of the last has left.
    pub(crate) fn step(&self) -> Code {
        match self.next_step() {
            Step::Stuck => Code::OK,
            _ => self.call(|_| self.pass(Chain::new())),
        }
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
            return "the end of the chain waits to be continued, but a filter does not pass an empty chain on"
                .to_string();
        }
        let holders = self.holds.borrow();
        if !holders.is_empty() {
            return format!("a filter holds data for ever: hold(true) of module {}", holders[0]);
        }
        if self.last_sent.get() {
            return "last_buf went into the chain of filters, but did not come out, and nobody holds data".to_string();
        }
        format!("the module answered {code:?}, but nothing will ever call it again")
    }

    /// What must hold when a response has come to its end.
    fn check_end(&self, output: &Output) {
        if output.failed() || !output.header_sent || self.spec.header_only(output.status) {
            return;
        }
        if self.last_sent.get() && self.end.last.get() != 1 {
            self.fault(format!("last_buf came {} times", self.end.last.get()));
        }
        if !self.holds.borrow().is_empty() {
            self.fault("hold() is still set at the end");
        }
        if let Some(length) = output.content_length
            && self.end.last.get() == 1
            && length != output.body.len() as u64
        {
            self.fault(format!("the content length is {length}, but the body has {} bytes", output.body.len()));
        }
    }

    /// Asks the handler.
    pub(crate) fn call_handler(&self, phase: Phase) -> Code {
        let Some(link) = self.links.handler else {
            return Code::DECLINED;
        };
        // SAFETY: the link's data are borrowed by the test that made the links.
        self.call(|r| unsafe { link.call(r, phase) })
    }
}

/// Whether a handler that answered this is called again.
pub(crate) fn waits(code: Code) -> bool {
    code == Code::AGAIN || code == Code::DONE
}
