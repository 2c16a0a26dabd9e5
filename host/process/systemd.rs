//! systemd: sockets that it has opened (sd_listen_fds(3)), and what it is told (sd_notify(3)). Without systemd nothing happens.

use std::{io, os::fd::OwnedFd};

use sd_notify::NotifyState;

use crate::{
    config::{Listen, ListenOptions},
    error_text::ErrorText,
    listen::sockets::{Kind, Sockets, Wanted},
    log::error::Level,
    log_line,
    socket::Socket,
};

/// Variables of systemd, which are for the master only.
pub const VARIABLES: [&str; 4] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"];

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log_line!(Level::Warn, "systemd cannot be told ({})", ErrorText(&error));
    }
}

/// The server serves. Its main process is this one, which after an upgrade is another one than before.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::MainPid(std::process::id())]);
}

/// A reload has begun; [`ready`] ends it.
pub fn reloading() {
    let now = NotifyState::monotonic_usec_now();
    tell(&std::iter::once(NotifyState::Reloading).chain(now.ok()).collect::<Vec<_>>());
}

/// The server ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// This process ends, and another one is the server again.
pub fn hand_back(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// Takes over the listening sockets that systemd has opened.
pub fn adopt(sockets: &mut Sockets) -> io::Result<()> {
    for fd in sd_notify::listen_fds()? {
        let socket = super::inherited::take(fd)?;
        match listening_on(&socket) {
            Ok(wanted) => {
                rustix::io::ioctl_fionbio(&socket, true)?;
                sockets.adopt(wanted, vec![Socket::from(socket)], Kind { is_single: true, is_foreign: true }, None);
            }
            Err(error) => {
                let text =
                    format!("descriptor {fd} of LISTEN_FDS is no listening stream socket ({})", ErrorText(&error));
                return Err(io::Error::other(text));
            }
        }
    }
    Ok(())
}

/// What a socket listens on.
fn listening_on(socket: &OwnedFd) -> io::Result<Wanted> {
    let of = socket2::SockRef::from(socket);
    if of.r#type()? != socket2::Type::STREAM || !of.is_listener()? {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let address = of.local_addr()?;
    let ipv6only = address.is_ipv6() && of.only_v6()?;
    let options = ListenOptions { ipv6only, ..ListenOptions::default() };
    let address = match (address.as_socket(), address.as_pathname()) {
        (Some(ip), _) => Listen::Tcp(ip),
        (None, Some(path)) => Listen::Unix(path.to_path_buf()),
        (None, None) => return Err(io::ErrorKind::Unsupported.into()),
    };
    Ok(Wanted { address, options })
}
