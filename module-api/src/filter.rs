//! Filters: a pair of hooks that a response passes through, first its header, then its body, each calling the next.

use std::ptr;

use abi_stable::StableAbi;

use crate::{Request, chain::Chain, code::Code, module::Module, panic::enter_for_code, running::Hook};

/// A link of the chain of header filters. The host makes one per filter and location, and sets `next`.
///
/// Its layout never changes within a major version; the reserved words are for later.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct HeaderLink {
    /// The filter's function. Called with the link itself.
    pub call: unsafe extern "C" fn(link: &HeaderLink, r: &mut Request<'_>) -> Code,
    /// The filter's configuration for the location.
    pub data: *const (),
    /// The next link; never null in a link of a module, for the host's own link ends the chain.
    pub next: *const HeaderLink,
    /// The slot of the module.
    pub module: u32,
    /// The hook: with the slot, what the running-module cell says meanwhile.
    pub hook: Hook,
    /// For later; 0.
    pub reserved: [usize; 2],
}

impl HeaderLink {
    /// The link of a filter, or of the host's end of the chain (slot 0). What `next` points to is set afterwards.
    pub const fn new(
        call: unsafe extern "C" fn(link: &HeaderLink, r: &mut Request<'_>) -> Code,
        data: *const (),
        module: u32,
    ) -> HeaderLink {
        HeaderLink { call, data, next: ptr::null(), module, hook: Hook::HEADER_FILTER, reserved: [0; 2] }
    }
}

/// A link of the chain of body filters. See [`HeaderLink`].
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct BodyLink {
    /// The filter's function. It owns `chain` from here on, whatever it answers.
    pub call: unsafe extern "C" fn(link: &BodyLink, r: &mut Request<'_>, chain: Chain) -> Code,
    /// The filter's configuration for the location.
    pub data: *const (),
    /// The next link.
    pub next: *const BodyLink,
    /// The slot of the module.
    pub module: u32,
    /// The hook: with the slot, what the running-module cell says meanwhile.
    pub hook: Hook,
    /// For later; 0.
    pub reserved: [usize; 2],
}

impl BodyLink {
    /// The link of a filter, or of the host's end of the chain (slot 0). What `next` points to is set afterwards.
    pub const fn new(
        call: unsafe extern "C" fn(link: &BodyLink, r: &mut Request<'_>, chain: Chain) -> Code,
        data: *const (),
        module: u32,
    ) -> BodyLink {
        BodyLink { call, data, next: ptr::null(), module, hook: Hook::BODY_FILTER, reserved: [0; 2] }
    }
}

// SAFETY: the data are a module's configuration, which is Sync by the bound on Module; links are not changed once made.
unsafe impl Send for HeaderLink {}
// SAFETY: as above.
unsafe impl Sync for HeaderLink {}
// SAFETY: as above.
unsafe impl Send for BodyLink {}
// SAFETY: as above.
unsafe impl Sync for BodyLink {}

/// The rest of the chain of header filters.
#[derive(Clone, Copy)]
pub struct HeaderNext<'a>(&'a HeaderLink);

impl<'a> HeaderNext<'a> {
    /// A chain that starts with `link`.
    ///
    /// # Safety
    /// The link, and all that follow, are alive during 'a and end in a link that calls no further.
    pub unsafe fn new(link: &'a HeaderLink) -> HeaderNext<'a> {
        HeaderNext(link)
    }

    /// Passes the header on.
    #[inline(always)]
    #[track_caller]
    pub fn call(self, r: &mut Request<'_>) -> Code {
        #[cfg(feature = "testing")]
        crate::testing::point();
        // SAFETY: the link is alive, and its function is called with the link that it belongs to.
        unsafe { (self.0.call)(self.0, r) }
    }
}

/// The rest of the chain of body filters.
#[derive(Clone, Copy)]
pub struct BodyNext<'a>(&'a BodyLink);

impl<'a> BodyNext<'a> {
    /// A chain that starts with `link`.
    ///
    /// # Safety
    /// As for [`HeaderNext::new`].
    pub unsafe fn new(link: &'a BodyLink) -> BodyNext<'a> {
        BodyNext(link)
    }

    /// Passes a part of the body on. An empty chain means "continue with what you hold".
    #[inline(always)]
    #[track_caller]
    pub fn call(self, r: &mut Request<'_>, chain: impl Into<Chain>) -> Code {
        let chain = chain.into();
        #[cfg(feature = "testing")]
        crate::testing::point();
        // SAFETY: as in `HeaderNext::call`.
        unsafe { (self.0.call)(self.0, r, chain) }
    }
}

/// A header and body filter. The methods' defaults pass on.
///
/// Hooks run on the thread of the request. `self` is the configuration of the location that the request is in.
pub trait Filter: Module {
    /// Whether the module wants body hooks. Without, its filter is not in the body chain at all.
    const BODY: bool = true;

    /// The header is about to be sent: change it, or not, and pass it on.
    ///
    /// Answer what the next filter answers. Error or a status (400 to 599) gives up this response in favour of an error
    /// page, as long as the header has not been passed on.
    fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
        next.call(r)
    }

    /// A part of the body: change it, or not, and pass it on.
    ///
    /// The chain is yours, also if you answer Error. An empty one means "continue with what you hold". If you keep
    /// something back, say so by [`Request::hold`], and answer Again; the end of the body carries `is_last`.
    fn body_filter(&self, r: &mut Request<'_>, chain: Chain, next: BodyNext<'_>) -> Code {
        next.call(r, chain)
    }
}

/// The filter hooks of a module.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = FilterHooksRef, prefix_fields = FilterHooksPrefix)))]
#[sabi(missing_field(option))]
pub struct FilterHooks {
    /// Goes into [`HeaderLink::call`].
    pub header: unsafe extern "C" fn(link: &HeaderLink, r: &mut Request<'_>) -> Code,
    /// Goes into [`BodyLink::call`], if `has_body`.
    pub body: unsafe extern "C" fn(link: &BodyLink, r: &mut Request<'_>, chain: Chain) -> Code,
    /// Whether the filter is in the body chain.
    #[sabi(last_prefix_field)]
    pub has_body: bool,
}

impl FilterHooks {
    /// The hooks of a filter, with their guards.
    pub const fn of<F: Filter>() -> FilterHooks {
        FilterHooks { header: header::<F>, body: body::<F>, has_body: F::BODY }
    }
}

unsafe extern "C" fn header<F: Filter>(link: &HeaderLink, r: &mut Request<'_>) -> Code {
    let cell = r.cell();
    let run = || {
        // SAFETY: the host made `data` by this module's `configure`, and keeps it and the chain while a request uses them.
        let (filter, next) = unsafe { (&*link.data.cast::<F>(), HeaderNext::new(&*link.next)) };
        filter.header_filter(r, next)
    };
    enter_for_code(cell, link.module, link.hook, run)
}

unsafe extern "C" fn body<F: Filter>(link: &BodyLink, r: &mut Request<'_>, chain: Chain) -> Code {
    let cell = r.cell();
    let run = || {
        // SAFETY: as in `header`.
        let (filter, next) = unsafe { (&*link.data.cast::<F>(), BodyNext::new(&*link.next)) };
        filter.body_filter(r, chain, next)
    };
    enter_for_code(cell, link.module, link.hook, run)
}
