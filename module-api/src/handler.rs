//! Handlers: phase handlers, asked in turn in a phase, and the content handler, which makes the response.

use abi_stable::{StableAbi, std_types::RSlice};

use crate::{Request, code::Code, module::Module, panic::enter_for_code, running::Hook};

/// The phases in which modules can have handlers, in the order in which a request passes them (nginx: ngx_http_phases).
#[repr(u32)]
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Phase {
    /// The header has been read.
    PostRead = 0,
    /// URI rewriting on the level of the server.
    ServerRewrite = 1,
    /// URI rewriting on the level of the location.
    Rewrite = 2,
    /// Before access: limits.
    Preaccess = 3,
    /// Who may.
    Access = 4,
    /// Before content.
    Precontent = 5,
    /// Content, where the location has no content handler of its own.
    Content = 6,
    /// After the response.
    Log = 7,
}

impl Phase {
    /// All, in order.
    pub const ALL: [Phase; 8] = [
        Phase::PostRead,
        Phase::ServerRewrite,
        Phase::Rewrite,
        Phase::Preaccess,
        Phase::Access,
        Phase::Precontent,
        Phase::Content,
        Phase::Log,
    ];

    /// Its name in descriptions and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::PostRead => "post-read",
            Phase::ServerRewrite => "server-rewrite",
            Phase::Rewrite => "rewrite",
            Phase::Preaccess => "preaccess",
            Phase::Access => "access",
            Phase::Precontent => "precontent",
            Phase::Content => "content",
            Phase::Log => "log",
        }
    }
}

/// A handler that is asked in one or more phases.
///
/// Declined: the next handler of the phase. Ok: the next phase (in the content phase: the response has been sent). Again
/// or Done: not finished; it is asked again when it is woken. Error or a status: the request is finalized with it.
pub trait PhaseHandler: Module {
    /// The phases in which it is asked.
    const PHASES: &'static [Phase];

    /// Handles the request, in one of those phases.
    fn handler(&self, r: &mut Request<'_>, phase: Phase) -> Code;
}

/// The content handler of a location. There is at most one.
pub trait Content: Module {
    /// Makes the response: sends header and body, and answers what the last output answered, or a status.
    ///
    /// It is called again, from its start, when what it waited for has happened: keep a context to know where you were.
    fn content(&self, r: &mut Request<'_>) -> Code;
}

/// A handler in the ABI: a function and what it is called with.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct HandlerLink {
    /// The handler's function; `phase` is a [`Phase`].
    pub call: unsafe extern "C" fn(link: &HandlerLink, r: &mut Request<'_>, phase: u32) -> Code,
    /// The module's configuration for the location.
    pub data: *const (),
    /// The slot of the module.
    pub module: u32,
    /// For later; 0.
    pub reserved: [usize; 2],
}

// SAFETY: the data are a module's configuration, which is Sync by the bound on Module; links are not changed once made.
unsafe impl Send for HandlerLink {}
// SAFETY: as above.
unsafe impl Sync for HandlerLink {}

impl HandlerLink {
    /// Asks the handler.
    ///
    /// # Safety
    /// `data` was made by the same module's `configure` and is alive.
    pub unsafe fn call(&self, r: &mut Request<'_>, phase: Phase) -> Code {
        // SAFETY: as above.
        unsafe { (self.call)(self, r, phase as u32) }
    }
}

/// The handler hooks of a module.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HandlerHooksRef, prefix_fields = HandlerHooksPrefix)))]
#[sabi(missing_field(option))]
pub struct HandlerHooks {
    /// Goes into [`HandlerLink::call`].
    pub call: unsafe extern "C" fn(link: &HandlerLink, r: &mut Request<'_>, phase: u32) -> Code,
    /// The phases, as numbers of [`Phase`]; a host ignores those it does not know. Empty for a content handler.
    #[sabi(last_prefix_field)]
    pub phases: RSlice<'static, u32>,
}

impl HandlerHooks {
    /// The hooks of a phase handler.
    pub const fn of_phases<H: PhaseHandler>() -> HandlerHooks {
        HandlerHooks { call: handler::<H>, phases: RSlice::from_slice(PhaseNumbers::<H>::SLICE) }
    }

    /// The hook of a content handler.
    pub const fn of_content<H: Content>() -> HandlerHooks {
        HandlerHooks { call: content::<H>, phases: RSlice::EMPTY }
    }
}

/// The phases of a handler as numbers, computed at compile time.
struct PhaseNumbers<H>(std::marker::PhantomData<H>);

impl<H: PhaseHandler> PhaseNumbers<H> {
    const ALL: [u32; 8] = {
        let mut numbers = [0; 8];
        let mut i = 0;
        while i < H::PHASES.len() {
            numbers[i] = H::PHASES[i] as u32;
            i += 1;
        }
        numbers
    };
    const SLICE: &'static [u32] = Self::ALL.split_at(H::PHASES.len()).0;
}

unsafe extern "C" fn handler<H: PhaseHandler>(link: &HandlerLink, r: &mut Request<'_>, phase: u32) -> Code {
    let cell = r.cell();
    let run = || {
        // SAFETY: the host made `data` by this module's `configure`, and keeps it while a request uses it.
        let handler = unsafe { &*link.data.cast::<H>() };
        let Some(phase) = Phase::ALL.get(phase as usize) else { return Code::DECLINED };
        handler.handler(r, *phase)
    };
    enter_for_code(cell, link.module, Hook::HANDLER, run)
}

unsafe extern "C" fn content<H: Content>(link: &HandlerLink, r: &mut Request<'_>, _: u32) -> Code {
    let cell = r.cell();
    let run = || {
        // SAFETY: as in `handler`.
        let handler = unsafe { &*link.data.cast::<H>() };
        handler.content(r)
    };
    enter_for_code(cell, link.module, Hook::CONTENT, run)
}
