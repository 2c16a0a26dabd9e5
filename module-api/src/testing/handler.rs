//! Tests of handlers.

use std::{marker::PhantomData, ptr};

use super::{
    Common, Output, common,
    drive::run,
    expect_none,
    host::MODULE,
    inject::Injected,
    plan::{Plan, Round, torture},
    request::{Links, Source},
};
use crate::{
    Bytes, Code, Content, Phase, PhaseHandler,
    handler::{HandlerHooks, HandlerLink},
};

/// Starts a test of a content handler.
pub fn content<H: Content>(handler: &H) -> HandlerTest<'_> {
    HandlerTest::new(HandlerHooks::of_content::<Injected<H>>(), ptr::from_ref(handler).cast(), Phase::Content)
}

/// Starts a test of a phase handler, in one of its phases.
///
/// # Panics
/// If it is not one of its phases.
#[track_caller]
pub fn handler<H: PhaseHandler>(handler: &H, phase: Phase) -> HandlerTest<'_> {
    assert!(H::PHASES.contains(&phase), "the handler is not asked in the phase {}", phase.name());
    HandlerTest::new(HandlerHooks::of_phases::<Injected<H>>(), ptr::from_ref(handler).cast(), phase)
}

/// A test of a handler: see [`content`] and [`handler`].
pub struct HandlerTest<'a> {
    common: Common,
    link: HandlerLink,
    phase: Phase,
    lifetime: PhantomData<&'a ()>,
}

impl HandlerTest<'_> {
    fn new(hooks: HandlerHooks, data: *const (), phase: Phase) -> Self {
        let link = HandlerLink { call: hooks.call, data, module: MODULE, reserved: [0; 2] };
        HandlerTest { common: Common::default(), link, phase, lifetime: PhantomData }
    }

    common!();

    /// What `read_body` answers, instead of reading the body: 413, for example.
    pub fn body_refused(mut self, status: u16) -> Self {
        self.common.spec.body_answer = Code::status(status);
        self
    }

    /// The path of the file that the URI maps to; without, `html` and the URI. Empty: there is no root.
    pub fn filename(mut self, path: &str) -> Self {
        self.common.spec.filename = Some(path.into());
        self
    }

    /// The media type for the URI; without, a guess by a few extensions, or `text/plain`.
    pub fn mime_type(mut self, mime_type: &str) -> Self {
        self.common.spec.mime_type = Some(mime_type.to_string());
        self
    }

    /// The operator does not want files logged that are not found.
    pub fn without_log_of_not_found(mut self) -> Self {
        self.common.spec.log_not_found = false;
        self
    }

    /// A file that the module can open, last modified at `mtime` (seconds since 1970). Other paths are not found.
    pub fn file(mut self, path: &str, bytes: impl AsRef<[u8]>, mtime: i64) -> Self {
        let source = Source::File(Bytes::copy_from_slice(bytes.as_ref()), mtime);
        self.common.spec.files.insert(path.into(), source);
        self
    }

    /// A path that is a directory.
    pub fn directory(mut self, path: &str) -> Self {
        self.common.spec.files.insert(path.into(), Source::Directory);
        self
    }

    /// A file or directory of the disk, for a module that reads it by itself ([`File::as_fd`](crate::File::as_fd)).
    pub fn on_disk(mut self, path: &str) -> Self {
        self.common.spec.files.insert(path.into(), Source::OnDisk);
        self
    }

    /// A path that may not be opened.
    pub fn forbidden(mut self, path: &str) -> Self {
        self.common.spec.files.insert(path.into(), Source::Forbidden);
        self
    }

    /// Asks the handler, and again as long as it waits. Files and body are there at once.
    ///
    /// # Panics
    /// If the contract is broken or something leaks. A module that panics does not make it panic: see `panics`.
    #[track_caller]
    pub fn run(&self) -> Output {
        let round = self.run_plan(&Plan::default());
        expect_none(&round.faults, "the handler broke the contract");
        round.output
    }

    /// The torture: files that are not there at once, a body that comes piece by piece, header and body that answer Again
    /// or Error, clients that leave, panics in the filters and in the handler itself. Everything that is complete must be
    /// as [`HandlerTest::run`] has it, also in the request after.
    ///
    /// # Panics
    /// If it is not, with the seed.
    #[track_caller]
    pub fn check(&self) {
        let hook = if self.phase == Phase::Content { "content" } else { "handler" };
        torture(&self.common, |plan| self.run_plan(plan), |output| output.outcome(&output.body), |_, _| hook);
    }

    fn run_plan(&self, plan: &Plan) -> Round<Output> {
        let mut links = Links::new();
        links.handler = Some(self.link);
        run(&self.common.spec, &links, plan, |state| {
            let first = state.call_handler(self.phase);
            let code = state.settle(|_| state.call_handler(self.phase), first);
            self.common.evaluate(state);
            code
        })
    }
}
