//! Links modules to each other: the chains of a location, and the calls into them. `unsafe` meets safe Rust here.
//!
//! The chains are made once, when the configuration is read, in the declared order; the host's own link ends each. What
//! they point to is owned by the [`Place`] that has the chains, and a request holds its place while it runs.

#![allow(unsafe_code)]

use std::{ptr, rc::Rc, sync::Arc};

use abi_stable::std_types::RVec;
use topnext_module_api::{
    BalancerNext, BodyNext, Chain, Code, HeaderNext, Outcome, Phase, Request as Handle,
    balancer::{BalancerHooksRef, BalancerLink, Selection},
    config::ConfigError,
    filter::{BodyLink, FilterHooksRef, HeaderLink},
    handler::HandlerLink,
    host::HostData,
    upstream::{UpstreamHooksRef, UpstreamLink},
};

use super::{
    LoadedModule,
    prepare::Prepared,
    running,
    services::{self, selections::Choice},
};
use crate::{output, request::Request, site::Place, upstream::peers::Peers};

/// The filter chains of a location.
pub struct Chains {
    /// In the order in which a response meets them; the host's link last. Boxed, since links point to each other.
    header: Box<[HeaderLink]>,
    body: Box<[BodyLink]>,
}

impl Chains {
    /// Links filters: hooks, prepared configuration, and slot of each, in declared order.
    pub fn new(filters: &[(FilterHooksRef, *const (), u32)]) -> Chains {
        let mut header: Vec<HeaderLink> = Vec::new();
        let mut body: Vec<BodyLink> = Vec::new();
        for &(hooks, data, module) in filters {
            header.push(HeaderLink::new(hooks.header(), data, module));
            if hooks.has_body() {
                body.push(BodyLink::new(hooks.body(), data, module));
            }
        }
        header.push(HeaderLink::new(header_end, ptr::null(), 0));
        body.push(BodyLink::new(body_end, ptr::null(), 0));
        let (mut header, mut body) = (header.into_boxed_slice(), body.into_boxed_slice());
        for i in 1..header.len() {
            header[i - 1].next = &raw const header[i];
        }
        for i in 1..body.len() {
            body[i - 1].next = &raw const body[i];
        }
        Chains { header, body }
    }

    /// The slots of the filters in the chain of headers.
    pub fn modules(&self) -> impl Iterator<Item = u32> + '_ {
        self.header.iter().map(|link| link.module).filter(|slot| *slot != 0)
    }
}

/// The handle of a request, for one call.
fn handle(r: &Rc<Request>) -> Handle<'static> {
    // SAFETY: the pointer is the one that `request` below turns back; the caller holds an Rc during the call; the cell is
    // this thread's.
    unsafe { Handle::new(Rc::as_ptr(r).cast(), services::requests::api(), running::cell()) }
}

/// The request behind a handle.
///
/// # Safety
/// `data` is the pointer of a handle that [`handle`] made, within its call.
pub(super) unsafe fn request(data: HostData) -> Rc<Request> {
    let ptr = data.cast::<Request>();
    // SAFETY: the pointer came from Rc::as_ptr, and whoever made the handle holds an Rc during the call.
    unsafe {
        Rc::increment_strong_count(ptr);
        Rc::from_raw(ptr)
    }
}

/// The request behind a handle, borrowed.
///
/// # Safety
/// As for [`request`]; the borrow ends with the call.
pub(super) unsafe fn request_ref(data: &HostData) -> &Request {
    // SAFETY: the pointer came from Rc::as_ptr, and whoever made the handle holds an Rc during the call; a request is
    // never borrowed exclusively.
    unsafe { &*data.cast::<Request>() }
}

/// Runs the header filters of a place.
pub fn call_header_filters(r: &Rc<Request>, place: &Place) -> Code {
    // SAFETY: the links are alive as long as the place, which the caller holds, and the last one calls no further.
    unsafe { HeaderNext::new(&place.chains.header[0]) }.call(&mut handle(r))
}

/// Runs the body filters of a place.
pub fn call_body_filters(r: &Rc<Request>, place: &Place, chain: Chain) -> Code {
    // SAFETY: as above.
    unsafe { BodyNext::new(&place.chains.body[0]) }.call(&mut handle(r), chain)
}

/// Has one module's body filter go on with what it holds.
pub fn call_one_body_filter(r: &Rc<Request>, place: &Place, module: u32) -> Code {
    match place.chains.body.iter().find(|link| link.module == module) {
        // SAFETY: as above.
        Some(link) => unsafe { BodyNext::new(link) }.call(&mut handle(r), Chain::new()),
        None => Code::OK,
    }
}

/// Asks a handler.
pub fn call_handler(r: &Rc<Request>, handler: &HandlerLink, phase: Phase) -> Code {
    // SAFETY: the link's data are alive as long as the place that has the link, which the request holds.
    unsafe { handler.call(&mut handle(r), phase) }
}

/// The names of the variables that a module provides, by number, and whether each is evaluated once for each request.
pub fn variables(module: &LoadedModule) -> Vec<(String, bool)> {
    let Some(hooks) = module.root.variables().into_option() else { return Vec::new() };
    // SAFETY: callable at any time after `init`; the index is one of a name.
    let cacheable = |index: usize| unsafe { hooks.cacheable()(index as u32) };
    // SAFETY: as above.
    let names = unsafe { hooks.names()() };
    names.iter().enumerate().map(|(index, name)| (name.to_string(), cacheable(index))).collect()
}

/// The value of a module's variable.
pub fn call_variable(r: &Rc<Request>, slot: u32, index: u32) -> Option<RVec<u8>> {
    let module = r.site.modules.iter().find(|module| module.slot == slot)?;
    let hooks = module.root.variables().into_option()?;
    // SAFETY: the module is loaded, and the handle is made for this call.
    unsafe { hooks.get()(slot, &mut handle(r), index) }.into_option()
}

unsafe extern "C" fn header_end(_: &HeaderLink, r: &mut Handle<'_>) -> Code {
    // SAFETY: this is the call that the handle was made for.
    of_host(services::guarded(Code::ERROR, || output::header_end(&unsafe { request(r.data()) })))
}

unsafe extern "C" fn body_end(_: &BodyLink, r: &mut Handle<'_>, chain: Chain) -> Code {
    // SAFETY: as above.
    of_host(services::guarded(Code::ERROR, || output::body_end(&unsafe { request(r.data()) }, chain)))
}

/// An error of the host is not one of the filters that pass it on.
fn of_host(code: Code) -> Code {
    if code.is_failure() {
        running::cell().count_error();
    }
    code
}

/// An upstream protocol, as a location has it.
pub struct Protocol {
    hooks: UpstreamHooksRef,
    link: UpstreamLink,
}

impl Protocol {
    /// Hooks, prepared configuration and slot.
    pub fn new(hooks: UpstreamHooksRef, data: *const (), module: u32) -> Protocol {
        Protocol { hooks, link: UpstreamLink { data, module, reserved: [0; 2] } }
    }

    /// The slot of its module.
    pub fn module(&self) -> u32 {
        self.link.module
    }

    // SAFETY, of all calls below: the hooks belong to the link's data, which are alive as long as the place that has
    // them, which the request holds.

    /// Which upstream its requests go to.
    pub fn upstream(&self) -> u32 {
        // SAFETY: see above.
        unsafe { self.hooks.upstream()(&self.link) }
    }

    /// See `Upstream::replaces_prefix`.
    pub fn replaces_prefix(&self) -> Option<&'static str> {
        // SAFETY: see above. Libraries are never unloaded, so that the text stays.
        unsafe { self.hooks.replaces_prefix()(&self.link) }.into_option().map(|key| key.as_str())
    }

    /// See `Upstream::create_request`.
    pub fn create_request(&self, r: &Rc<Request>) -> (Code, Chain) {
        let mut chain = Chain::new();
        // SAFETY: see above.
        let code = r.guarded(|| unsafe { self.hooks.create_request()(&self.link, &mut handle(r), &mut chain) });
        (code, chain)
    }

    /// See `Upstream::reinit_request`.
    pub fn reinit_request(&self, r: &Rc<Request>) -> Code {
        // SAFETY: see above.
        r.guarded(|| unsafe { self.hooks.reinit_request()(&self.link, &mut handle(r)) })
    }

    /// See `Upstream::process_header`: Ok with the length of the header, Again, or Error.
    pub fn process_header(&self, r: &Rc<Request>, input: &[u8]) -> (Code, usize) {
        let mut taken = 0;
        // SAFETY: see above.
        let call = || unsafe { self.hooks.process_header()(&self.link, &mut handle(r), input.into(), &mut taken) };
        let code = r.guarded(call);
        (code, taken)
    }

    /// See `Upstream::input_filter_init`.
    pub fn input_filter_init(&self, r: &Rc<Request>) -> Code {
        // SAFETY: see above.
        r.guarded(|| unsafe { self.hooks.input_filter_init()(&self.link, &mut handle(r)) })
    }

    /// See `Upstream::input_filter`.
    pub fn input_filter(&self, r: &Rc<Request>, input: Chain) -> (Code, Chain) {
        let mut output = Chain::new();
        // SAFETY: see above.
        let code = r.guarded(|| unsafe { self.hooks.input_filter()(&self.link, &mut handle(r), input, &mut output) });
        (code, output)
    }

    /// See `Upstream::abort_request`.
    pub fn abort_request(&self, r: &Rc<Request>) {
        // SAFETY: see above.
        r.guarded(|| unsafe { self.hooks.abort_request()(&self.link, &mut handle(r)) });
    }

    /// See `Upstream::finalize_request`.
    pub fn finalize_request(&self, r: &Rc<Request>, code: Code) {
        // SAFETY: see above.
        r.guarded(|| unsafe { self.hooks.finalize_request()(&self.link, &mut handle(r), code) });
    }
}

/// A balancer of one upstream, ready to be linked.
pub struct Balancer {
    hooks: BalancerHooksRef,
    prepared: Arc<Prepared>,
}

/// Shows a balancer the peers of its upstream.
pub fn init_balancer(
    module: &LoadedModule,
    prepared: Arc<Prepared>,
    peers: &Arc<Peers>,
) -> Result<Balancer, Vec<ConfigError>> {
    let Some(hooks) = module.root.balancer().into_option() else { return Err(Vec::new()) };
    if prepared.data().is_null() {
        return Err(Vec::new());
    }
    let choice = Choice::new(peers.clone(), None, 0);
    // SAFETY: the data were made for this upstream alone and are not shared yet.
    let errors = unsafe { hooks.init_upstream()(module.slot, prepared.data().cast_mut(), &selection(&choice)) };
    if errors.is_empty() { Ok(Balancer { hooks, prepared }) } else { Err(errors.into_iter().collect()) }
}

/// The balancers of an upstream, linked top/next.
pub struct Balancers {
    links: Box<[BalancerLink]>,
    /// What the links point to.
    prepared: Vec<Arc<Prepared>>,
}

impl Balancers {
    /// Links balancers, outermost first.
    pub fn new(balancers: Vec<Balancer>) -> Balancers {
        let link = |balancer: &Balancer| BalancerLink {
            hooks: balancer.hooks,
            data: balancer.prepared.data(),
            next: ptr::null(),
            module: balancer.prepared.module().slot,
            reserved: [0; 2],
        };
        let mut links: Box<[BalancerLink]> = balancers.iter().map(link).collect();
        for i in 1..links.len() {
            links[i - 1].next = &raw const links[i];
        }
        Balancers { links, prepared: balancers.into_iter().map(|balancer| balancer.prepared).collect() }
    }

    /// Gives the balancers back to their modules: no request uses them any more.
    pub fn end(&self) {
        self.prepared.iter().for_each(|prepared| prepared.end());
    }

    /// The slots of the balancers.
    pub fn modules(&self) -> impl Iterator<Item = u32> + '_ {
        self.links.iter().map(|link| link.module)
    }

    fn top(&self) -> BalancerNext<'_> {
        // SAFETY: the links are alive as long as self, which the borrow covers, as are their data.
        unsafe { BalancerNext::new(self.links.first()) }
    }

    /// See `Balancer::init_peer`.
    pub fn init_peer(&self, choice: &Choice) -> Code {
        self.top().init_peer(&mut selection(choice))
    }

    /// See `Balancer::get`.
    pub fn get(&self, choice: &Choice) -> Option<usize> {
        self.top().get(&mut selection(choice))
    }

    /// See `Balancer::free`.
    pub fn free(&self, choice: &Choice, peer: usize, outcome: Outcome) {
        self.top().free(&mut selection(choice), peer, outcome);
    }
}

/// The handle of a choice, for one call.
pub(super) fn selection(choice: &Choice) -> Selection<'_> {
    // SAFETY: the functions of the table turn the pointer back into this reference, within its borrow.
    unsafe { Selection::new(ptr::from_ref(choice).cast(), services::selections::api(), running::cell()) }
}
