//! A stream socket, of TCP or of a file (unix), and the addresses of a connection's two ends.
//!
//! Once it is bound or connected, a socket of either family is used with the same system calls. So it is kept as a bare
//! descriptor, and nothing on the way of a request asks which family it is.

use std::{
    cell::OnceCell,
    fmt, io,
    net::{IpAddr, Shutdown, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use mio::{Interest, Registry, Token, unix::SourceFd};
use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType},
};

use crate::{config::Listen, listen::Address, proxy_protocol::Addresses};

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// TCP.
    Ip(SocketAddr),
    /// A socket file, by its absolute path.
    Unix(PathBuf),
}

/// `127.0.0.1:80`, or `unix:` with the path.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Ip(address) => address.fmt(f),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket, non-blocking: one that listens, or a connection.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Accepts a connection of this listening socket, with one system call. The address is that of the peer; `None` on
    /// a unix socket.
    pub fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (socket, peer) = rustix::net::acceptfrom_with(&self.0, flags)?;
        Ok((Socket(socket), peer.and_then(ip_address)))
    }

    /// Begins to connect: [`connected`](Socket::connected) tells when it is. On a unix socket that is at once, and a full
    /// queue of the listener is an error.
    pub fn connect(to: &Endpoint) -> io::Result<Socket> {
        let open = |family| {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            rustix::net::socket_with(family, SocketType::STREAM, flags, None)
        };
        let (socket, result) = match to {
            Endpoint::Ip(address) => {
                let socket = open(if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 })?;
                let result = rustix::net::connect(&socket, address);
                (socket, result)
            }
            Endpoint::Unix(path) => {
                let address = SocketAddrUnix::new(path.as_path())?;
                let socket = open(AddressFamily::UNIX)?;
                let result = rustix::net::connect(&socket, &address);
                (socket, result)
            }
        };
        match result {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(Socket(socket)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the connection is made; an error if it failed.
    pub fn connected(&self) -> io::Result<bool> {
        rustix::net::sockopt::socket_error(&self.0)??;
        match rustix::net::getpeername(&self.0) {
            Ok(_) => Ok(true),
            Err(Errno::NOTCONN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads once.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::net::recv(&self.0, &mut *buffer, RecvFlags::empty()) {
                Err(Errno::INTR) => (),
                result => return Ok(result?.1),
            }
        }
    }

    /// Whether there is nothing to read, neither a byte nor the end.
    pub fn is_silent(&self) -> bool {
        rustix::net::recv(&self.0, &mut [0], RecvFlags::PEEK) == Err(Errno::AGAIN)
    }

    /// Sets TCP_NODELAY, or not. Only a delay is lost if it cannot be set, so nobody is told.
    pub fn set_nodelay(&self, on: bool) {
        let _ = rustix::net::sockopt::set_tcp_nodelay(&self.0, on);
    }

    /// Ends one direction or both, at once and for all who hold the descriptor.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        Ok(rustix::net::shutdown(&self.0, how)?)
    }

    /// The same socket under another descriptor: for another loop that accepts its connections.
    pub fn try_clone(&self) -> io::Result<Socket> {
        Ok(Socket(self.0.try_clone()?))
    }

    /// The address of this end; `None` on a unix socket.
    pub fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        Ok(ip_address(rustix::net::getsockname(&self.0)?))
    }
}

/// The address, if it is one of IP.
fn ip_address(address: SocketAddrAny) -> Option<SocketAddr> {
    let address: Result<SocketAddr, Errno> = address.try_into();
    address.ok()
}

/// Writes an address as text. It may be in each line of a log, so it has to be quick.
pub fn write_ip(address: IpAddr, out: &mut Vec<u8>) {
    let address = match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => return out.extend_from_slice(address.to_string().as_bytes()),
    };
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
    }
}

/// The descriptor of a socket that does not block.
impl From<OwnedFd> for Socket {
    fn from(socket: OwnedFd) -> Socket {
        Socket(socket)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// By reference, since the descriptor is all that is registered.
impl mio::event::Source for &Socket {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).deregister(registry)
    }
}

/// The addresses of a client's connection.
#[derive(Debug)]
pub struct Ends {
    /// The client's; `None` on a unix socket.
    remote: Option<SocketAddr>,
    /// The server's, where it listens on all addresses of the machine: asked for when it is first needed.
    local: OnceCell<Box<SocketAddr>>,
    /// What a header of the PROXY protocol says.
    announced: OnceCell<Box<Addresses>>,
}

impl Ends {
    /// A connection of this client.
    pub fn new(remote: Option<SocketAddr>) -> Ends {
        Ends { remote, local: OnceCell::new(), announced: OnceCell::new() }
    }

    /// Writes the client's address as text; `unix:` on a unix socket, as in nginx. Made when it is asked for, since an idle
    /// connection would keep it for nobody.
    pub fn write_remote(&self, out: &mut Vec<u8>) {
        match self.remote {
            Some(address) => write_ip(address.ip(), out),
            None => out.extend_from_slice(b"unix:"),
        }
    }

    /// The client's IP address; `None` on a unix socket.
    pub fn remote_ip(&self) -> Option<IpAddr> {
        self.remote.map(|address| address.ip())
    }

    /// The client's port; `None` on a unix socket.
    pub fn remote_port(&self) -> Option<u16> {
        self.remote.map(|address| address.port())
    }

    /// Keeps what the header of the PROXY protocol says. It comes once.
    pub fn announce(&self, addresses: Addresses) {
        self.announced.get_or_init(|| Box::new(addresses));
    }

    /// What the header of the PROXY protocol said.
    pub fn announced(&self) -> Option<&Addresses> {
        self.announced.get().map(Box::as_ref)
    }

    /// The address that the client came to: that of the listening socket, or if that is a wildcard the connection's own.
    pub fn local(&self, listening: &Address, socket: &Socket) -> Listen {
        match &listening.address {
            Listen::Tcp(address) if address.ip().is_unspecified() => {
                if let Some(local) = self.local.get() {
                    return Listen::Tcp(**local);
                }
                let local = socket.local_addr().ok().flatten().unwrap_or(*address);
                Listen::Tcp(**self.local.get_or_init(|| Box::new(local)))
            }
            address => address.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_text() {
        for text in ["0.0.0.0", "127.0.0.1", "255.10.9.99", "::1", "2001:db8::a:b", "::ffff:1.2.3.4"] {
            let mut written = b"client=".to_vec();
            write_ip(text.parse().unwrap(), &mut written);
            assert_eq!(written, format!("client={text}").into_bytes());
        }
        let mut written = Vec::new();
        Ends::new(None).write_remote(&mut written);
        assert_eq!(written, b"unix:");
    }
}
