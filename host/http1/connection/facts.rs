//! What a head says beyond its syntax.

use std::cell::RefCell;

use crate::{
    http1::{BadRequest, Framing, Head, Normalized, Seen, Span, Target, body_framing, host, normalize},
    listen::Address,
    server_name::Chosen,
};

/// The Host field of the last request on this thread, and what it led to: nearly always the next one is the same. (Kept for
/// each connection it would be found more often, but an idle connection would cost more memory.)
#[derive(Default)]
struct Asked {
    /// Where it came to.
    address: Option<&'static Address>,
    /// The value as received.
    value: Vec<u8>,
    /// The length of the name in it, which is at its start.
    name_len: u32,
    /// None before the first.
    server: Option<Chosen<'static>>,
}

thread_local! {
    static ASKED: RefCell<Asked> = RefCell::default();
}

/// A longer Host field is not remembered.
const MAX_ASKED: usize = 256;

/// Remembers which server the Host of this head names.
pub(super) fn note(address: &'static Address, head: &Head, bytes: &[u8], name_len: usize, server: Chosen<'static>) {
    let value = head.value(head.facts().host, bytes).unwrap_or_default();
    if head.plain_target().is_some() && !value.is_empty() && value.len() <= MAX_ASKED {
        ASKED.with_borrow_mut(|asked| {
            asked.value.clear();
            asked.value.extend_from_slice(value);
            (asked.address, asked.name_len, asked.server) = (Some(address), name_len as u32, Some(server));
        });
    }
}

impl Asked {
    /// The name that `head` asks for and its server, if it asks for the same.
    fn find(&self, address: &'static Address, head: &Head, bytes: &[u8]) -> Option<(Span, Chosen<'static>)> {
        let server = self.server.filter(|_| self.address.is_some_and(|known| std::ptr::eq(known, address)))?;
        let Seen::One(index) = head.facts().host else { return None };
        let value = head.fields().get(usize::from(index))?.value;
        let same = value.of(bytes) == &*self.value;
        same.then_some((Span { start: value.start, end: value.start + self.name_len }, server))
    }
}

/// What a head says beyond its syntax.
pub(super) struct Facts {
    pub(super) host: Option<Span>,
    /// The server that the host names, if that is known already.
    pub(super) server: Option<Chosen<'static>>,
    pub(super) raw_path: Span,
    pub(super) path: Normalized,
    pub(super) args: Option<Span>,
    pub(super) framing: Framing,
}

impl Facts {
    pub(super) fn of(
        head: &Head,
        bytes: &[u8],
        address: &'static Address,
        merge_slashes: bool,
    ) -> Result<Facts, BadRequest> {
        let framing = body_framing(head, bytes)?;
        if let Some((raw_path, args)) = head.plain_target() {
            let (host, server) = match ASKED.with_borrow(|asked| asked.find(address, head, bytes)) {
                Some((host, server)) => (Some(host), Some(server)),
                None => (host(head, bytes, &Target::Origin { path: raw_path, args })?.map(|host| host.name), None),
            };
            return Ok(Facts { host, server, raw_path, path: Normalized::Same, args, framing });
        }
        let target = Target::parse(head, bytes)?;
        let host = host(head, bytes, &target)?.map(|host| host.name);
        let (path, args) = match target {
            Target::Origin { path, args } | Target::Absolute { path, args, .. } => (path, args),
            // As nginx has it: no location is for the server as a whole.
            Target::Asterisk => return Err(BadRequest { status: 400, reason: "the request target \"*\"" }),
            Target::Authority(_) => {
                return Err(BadRequest { status: 405, reason: "CONNECT, which this server does not do" });
            }
        };
        let normalized = match normalize(target.path(bytes), merge_slashes)? {
            // `http://host` has no path, and means "/".
            Normalized::Same if path.start == path.end => Normalized::Changed(b"/".to_vec()),
            normalized => normalized,
        };
        Ok(Facts { host, server: None, raw_path: path, path: normalized, args, framing })
    }
}
