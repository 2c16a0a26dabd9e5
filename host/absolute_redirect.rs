//! Redirects of the server's own become absolute URLs (nginx: absolute_redirect).
//!
//! ```text
//! Location: /dir/    ->    Location: http://example.com:8080/dir/
//! ```
//!
//! The host is the one that the client asked for; the server's name with `server_name_in_redirect`; the address that the
//! client came to if it asked for none. The port is that of the connection, unless it is the usual one.

use std::rc::Rc;

use crate::{
    config::Listen,
    http1::Seen,
    request::{Request, headers_out::Refused},
};

/// The port that a URL need not name.
const USUAL_PORT: u16 = 80;

/// Makes the Location of a redirect absolute, if it is a path.
pub fn complete(r: &Rc<Request>) -> Result<(), Refused> {
    if !r.place().core.absolute_redirect {
        return Ok(());
    }
    let path = {
        let parts = r.parts.borrow();
        match parts.headers_out.get(&parts.pool, b"Location", 0) {
            Some(location) if location.starts_with(b"/") => location.to_vec(),
            _ => return Ok(()),
        }
    };
    let mut url = b"http://".to_vec();
    url.extend_from_slice(&host(r));
    if let Some(port) = port(r) {
        url.push(b':');
        url.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
    }
    url.extend_from_slice(&path);
    let parts = &mut **r.parts.borrow_mut();
    parts.headers_out.set(&mut parts.pool, b"Location", &url, false)
}

fn host(r: &Rc<Request>) -> Vec<u8> {
    let name = r.server.name().as_bytes();
    if r.place().core.server_name_in_redirect && !name.is_empty() {
        return name.to_vec();
    }
    // The name of the server stands in $host where there is no Host, but not here.
    let asked = {
        let parts = r.parts.borrow();
        parts.head.facts().host != Seen::None
            || !parts.text(crate::request::Text::Head(parts.head.target())).starts_with(b"/")
    };
    match r.conn.local_addr() {
        Listen::Tcp(address) if !asked => match address.ip() {
            std::net::IpAddr::V4(ip) => ip.to_string().into_bytes(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]").into_bytes(),
        },
        _ => r.text_owned(r.host.get()),
    }
}

fn port(r: &Rc<Request>) -> Option<u16> {
    match r.conn.local_addr() {
        Listen::Tcp(address) if r.place().core.port_in_redirect && address.port() != USUAL_PORT => Some(address.port()),
        _ => None,
    }
}
