//! Opening one listening socket.
//!
//! On an address of IP somebody else may listen already. With SO_REUSEPORT, which sockets of several threads need, the
//! kernel would let us in, and share the connections between two servers that know nothing of each other. So it is tried
//! without first, unless `reuseport` says that this is meant.
//!
//! A socket file outlives its server. One that nobody listens on any more is replaced; ours are removed in the end. While a
//! file is looked at, replaced and listened on, its folder is locked, so that of two servers that start at once neither
//! removes what the other has just made. That keeps off only those who take the lock, which are topnext's.

use std::{
    ffi::OsStr,
    fs,
    io::{self, ErrorKind},
    net::SocketAddr,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
    pipe::PipeFlags,
    time::Timespec,
};
use socket2::{Domain, Protocol, SockAddr, TcpKeepalive, Type};

use super::sockopt;
use crate::{
    config::{Listen, ListenOptions, SoKeepalive},
    error_text::ErrorText,
    log::error::Level,
    log_line,
    socket::Socket,
};

/// Everybody may connect to a socket file, as in nginx; who should not is kept out by the folder.
pub const SOCKET_MODE: u32 = 0o666;
/// Why a socket file cannot be had: somebody has it, or it is something else.
pub const IN_USE: &str = "another process listens on this socket";
pub const NO_SOCKET: &str = "there is a file that is not a socket";
/// How often a folder that is locked is tried, and the time between. Anybody can lock a public folder, so that the lock is
/// done without at last.
const LOCK_TRIES: u32 = 100;
const LOCK_WAIT: Duration = Duration::from_millis(20);
/// How long a close is waited for: usually it is done at once, and whoever asked for it sees no address that is open still.
const CLOSE_WAIT: Duration = Duration::from_millis(100);
/// What nginx asks of the kernel where connections are accepted with their first bytes.
const DEFER_ACCEPT: i32 = 1;

/// Whether an address can be had, before anything is bound: the reason, if not.
pub fn check(address: &Listen, options: &ListenOptions) -> Result<(), String> {
    match address {
        Listen::Tcp(_) if options.reuseport => Ok(()),
        Listen::Tcp(ip) => tcp(*ip, options, false).map(drop),
        Listen::Unix(path) => {
            let _lock = lock_folder(path);
            make_way(path)
        }
    }
}

/// A socket of TCP that is bound, and does not listen yet. With `reuse_port` others of this user can be bound beside it.
pub fn tcp(address: SocketAddr, options: &ListenOptions, reuse_port: bool) -> Result<Socket, String> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP));
    let socket = socket.map_err(|error| plain(&error))?;
    socket.set_reuse_address(true).map_err(|error| plain(&error))?;
    if reuse_port {
        socket.set_reuse_port(true).map_err(|error| plain(&error))?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(options.ipv6only).map_err(of("ipv6only"))?;
    }
    set_options(&socket, options)?;
    socket.bind(&address.into()).map_err(|error| plain(&error))?;
    Ok(Socket::from(OwnedFd::from(socket)))
}

/// Has a socket listen. On one that listens already it changes the length of the queue.
pub fn listen(socket: impl AsFd, options: &ListenOptions) -> Result<(), String> {
    let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
    rustix::net::listen(socket, backlog).map_err(io::Error::from).map_err(|error| plain(&error))
}

/// Undoes what a worker before this one may have done to a socket that all of them share: they are its users like the master. A
/// worker does it with what it receives, the last moment before it is used; what cannot be undone the master replaces
/// ([`is_spoiled`]), since only it can bind.
pub fn restore(socket: impl AsFd) -> io::Result<()> {
    rustix::io::ioctl_fionbio(&socket, true)?;
    sockopt::detach_programs(&socket)
}

/// Whether a socket that should listen does not, or its filter cannot be taken away (SO_LOCK_FILTER; those of files obey none).
pub fn is_spoiled(socket: impl AsFd, address: &Listen) -> bool {
    // One of a file that was shut down counts as listening still.
    let mut polled = [PollFd::new(&socket, PollFlags::RDHUP)];
    let is_shut = poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
        && polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::RDHUP);
    let is_filtered = matches!(address, Listen::Tcp(_)) && sockopt::is_filter_locked(&socket);
    is_shut || is_filtered || !socket2::SockRef::from(&socket).is_listener().unwrap_or(false)
}

/// Closes listening sockets on a thread of its own. Workers have the same ones: one that was taken over can make a connection of
/// such a socket, whose close then lingers as long as it likes (SO_LINGER), and nothing in the master may wait for that.
pub fn close_elsewhere(sockets: Vec<Socket>) {
    if sockets.is_empty() {
        return;
    }
    sockets.iter().for_each(close_at_once);
    let (closed, is_closed) = mpsc::channel();
    let close = move || {
        drop(sockets);
        let _ = closed.send(());
    };
    // Without a thread they are closed here.
    if thread::Builder::new().name("topnext-close".to_string()).spawn(close).is_ok() {
        let _ = is_closed.recv_timeout(CLOSE_WAIT);
    }
}

/// Has the close of a listening socket not wait, unless a worker changes it meanwhile. Of those that listen, connections would
/// inherit the option.
fn close_at_once(socket: &Socket) {
    let of_socket = socket2::SockRef::from(socket);
    if !of_socket.is_listener().unwrap_or(true) {
        let _ = of_socket.set_linger(Some(Duration::ZERO));
    }
}

/// Puts options that are configured no more back to what a fresh socket has: a line for each that cannot be.
pub fn unset_options(socket: impl AsFd, address: &Listen, before: &ListenOptions, now: &ListenOptions) -> Vec<String> {
    let of_socket = socket2::SockRef::from(&socket);
    let mut failed = Vec::new();
    let mut note = |option: &str, result: io::Result<()>| {
        if let Err(error) = result {
            failed.push(format!("{option} cannot be taken back ({}); start the server again", ErrorText(&error)));
        }
    };
    let domain = match address {
        Listen::Tcp(ip) => Domain::for_address(*ip),
        Listen::Unix(_) => Domain::UNIX,
    };
    let fresh = || socket2::Socket::new(domain, Type::STREAM, None);
    let (receive, send) =
        (before.rcvbuf.is_some() && now.rcvbuf.is_none(), before.sndbuf.is_some() && now.sndbuf.is_none());
    // The kernel doubles what it is given (socket(7)).
    if receive {
        note("rcvbuf", fresh().and_then(|fresh| of_socket.set_recv_buffer_size(fresh.recv_buffer_size()? / 2)));
    }
    if send {
        note("sndbuf", fresh().and_then(|fresh| of_socket.set_send_buffer_size(fresh.send_buffer_size()? / 2)));
    }
    if receive || send {
        let option = if receive { "rcvbuf" } else { "sndbuf" };
        note(option, sockopt::lock_buffers(&socket, now.rcvbuf.is_some(), now.sndbuf.is_some()));
    }
    if before.so_keepalive.is_some() && before.so_keepalive != now.so_keepalive {
        note("so_keepalive", fresh().and_then(|fresh| unset_keepalive(&of_socket, &fresh)));
    }
    if before.fastopen.is_some() && now.fastopen.is_none() {
        note("fastopen", sockopt::set_fastopen(&socket, 0));
    }
    if before.deferred && !now.deferred {
        note("deferred", sockopt::set_defer_accept(&socket, 0));
    }
    failed
}

fn unset_keepalive(socket: &socket2::Socket, fresh: &socket2::Socket) -> io::Result<()> {
    let parameters = TcpKeepalive::new()
        .with_time(fresh.tcp_keepalive_time()?)
        .with_interval(fresh.tcp_keepalive_interval()?)
        .with_retries(fresh.tcp_keepalive_retries()?);
    socket.set_tcp_keepalive(&parameters)?;
    socket.set_keepalive(fresh.keepalive()?)
}

/// Sets the options of a socket of TCP that can be set at any time.
pub fn set_options(socket: impl AsFd, options: &ListenOptions) -> Result<(), String> {
    let of_socket = socket2::SockRef::from(&socket);
    set_buffers(&of_socket, options)?;
    if let Some(keepalive) = options.so_keepalive {
        set_keepalive(&of_socket, keepalive).map_err(of("so_keepalive"))?;
    }
    if let Some(queue) = options.fastopen {
        sockopt::set_fastopen(&socket, queue).map_err(of("fastopen"))?;
    }
    if options.deferred {
        sockopt::set_defer_accept(&socket, DEFER_ACCEPT).map_err(of("deferred"))?;
    }
    Ok(())
}

/// The reason, in parentheses as in nginx's log.
fn plain(error: &io::Error) -> String {
    format!("({})", ErrorText(error))
}

/// The reason that an option could not be set. Nobody would miss an option that is ignored before it is too late.
fn of(option: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("{option} cannot be set ({})", ErrorText(&error))
}

fn set_buffers(socket: &socket2::Socket, options: &ListenOptions) -> Result<(), String> {
    // Before the socket listens: TCP agrees on the scale of its window with the first packet.
    if let Some(size) = options.rcvbuf {
        socket.set_recv_buffer_size(size as usize).map_err(of("rcvbuf"))?;
    }
    if let Some(size) = options.sndbuf {
        socket.set_send_buffer_size(size as usize).map_err(of("sndbuf"))?;
    }
    Ok(())
}

/// Connections inherit it.
fn set_keepalive(socket: &socket2::Socket, keepalive: SoKeepalive) -> io::Result<()> {
    socket.set_keepalive(keepalive.enabled)?;
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let mut parameters = TcpKeepalive::new();
    if let Some(idle) = keepalive.idle {
        parameters = parameters.with_time(seconds(idle));
    }
    if let Some(interval) = keepalive.interval {
        parameters = parameters.with_interval(seconds(interval));
    }
    if let Some(count) = keepalive.count {
        parameters = parameters.with_retries(count);
    }
    if keepalive.enabled { socket.set_tcp_keepalive(&parameters) } else { Ok(()) }
}

/// A socket file with these permissions, and what listens on it.
pub fn unix(path: &Path, options: &ListenOptions, mode: u32) -> Result<(Socket, SocketFile), String> {
    let socket = without_file(options)?;
    let file = make_file(&socket, path, options, mode)?;
    Ok((socket, file))
}

/// A socket that gets its file later.
pub fn without_file(options: &ListenOptions) -> Result<Socket, String> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(|error| plain(&error))?;
    set_buffers(&socket, options)?;
    Ok(Socket::from(OwnedFd::from(socket)))
}

/// Makes the file of a socket, which listens from then on: others take a file that nobody listens on for left behind.
pub fn make_file(socket: &Socket, path: &Path, options: &ListenOptions, mode: u32) -> Result<SocketFile, String> {
    let _lock = lock_folder(path);
    make_way(path)?;
    let address = SockAddr::unix(path).map_err(|error| plain(&error))?;
    socket2::SockRef::from(socket).bind(&address).map_err(|error| plain(&error))?;
    let file = SocketFile::new(path).map_err(|error| plain(&error))?;
    set_mode(path, mode).map_err(|error| plain(&error))?;
    listen(socket, options)?;
    Ok(file)
}

/// Locks the folder of a socket file, until what this returns is dropped. None if that cannot be.
pub fn lock_folder(path: &Path) -> Option<OwnedFd> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty()).ok()?;
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(folder),
            Err(Errno::WOULDBLOCK) => thread::sleep(LOCK_WAIT),
            Err(_) => return None,
        }
    }
    None
}

/// Says who may connect to a socket file. What the path leads to is looked at first: it may be a link by now, to
/// something that nobody wants to be open to all.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.file_type().is_socket() {
        return Err(io::Error::other("its file has been replaced by something else"));
    }
    // Without /proc there is no other way than by the path.
    let this = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let path = if this.exists() { &this } else { path };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Removes a socket file that nobody listens on any more. An error if somebody does, or if the file is something else.
pub fn make_way(path: &Path) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(NO_SOCKET.into()),
        Ok(_) => (),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(plain(&error)),
    }
    let connect = || {
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    match connect() {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(|error| {
            format!("nobody listens on this socket, but it cannot be removed ({})", ErrorText(&error))
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // The queue of whoever listens is full; or the socket is one of datagrams.
        Err(error)
            if [Errno::AGAIN, Errno::PROTOTYPE].iter().any(|of| error.raw_os_error() == Some(of.raw_os_error())) =>
        {
            Err(IN_USE.into())
        }
        Err(error) => {
            Err(format!("whether somebody listens on this socket cannot be found out ({})", ErrorText(&error)))
        }
        Ok(()) => Err(IN_USE.into()),
    }
}

/// A socket file of ours, removed when this is dropped, unless another one has taken its place, or another process has it too.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: Identity,
    holders: Option<Holders>,
}

/// Two ends of a pipe that each process has to which a file was handed over. When all that write are closed, nobody else has it:
/// the kernel counts them, however a process ends.
#[derive(Debug)]
struct Holders {
    read: OwnedFd,
    write: OwnedFd,
}

impl Holders {
    /// Leaves them: whether nobody is left.
    fn leave(self) -> bool {
        drop(self.write);
        let mut polled = [PollFd::new(&self.read, PollFlags::empty())];
        poll(&mut polled, Some(&Timespec::default())).is_ok() && polled[0].revents().contains(PollFlags::HUP)
    }
}

impl SocketFile {
    /// The file that is there now.
    pub fn new(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile { path: path.to_path_buf(), identity: identity(path)?, holders: None })
    }

    /// One that can be handed over: the last process that has it removes it.
    pub fn shared(mut self) -> io::Result<SocketFile> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        self.holders = Some(Holders { read, write });
        Ok(self)
    }

    /// What another process needs for [`SocketFile::of_other`].
    pub fn to_hand_over(&self) -> Option<(Identity, [BorrowedFd<'_>; 2])> {
        self.holders.as_ref().map(|Holders { read, write }| (self.identity, [read.as_fd(), write.as_fd()]))
    }

    /// Whether it is there still.
    pub fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|identity| identity == self.identity)
    }

    /// The file of another process, which has handed it over.
    pub fn of_other(path: &Path, identity: Identity, [read, write]: [OwnedFd; 2]) -> SocketFile {
        SocketFile { path: path.to_path_buf(), identity, holders: Some(Holders { read, write }) }
    }

    /// Gives it another name, in the same folder.
    pub fn rename(&mut self, name: &OsStr) -> io::Result<()> {
        let path = self.path.with_file_name(name);
        fs::rename(&self.path, &path)?;
        self.path = path;
        Ok(())
    }
}

/// Device, inode, and since file systems use inodes again, the time at which it was made.
pub type Identity = (u64, u64, i64, i64);

fn identity(path: &Path) -> io::Result<Identity> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.holders.take().is_none_or(Holders::leave)
            && self.is_there()
            && let Err(error) = fs::remove_file(&self.path)
        {
            log_line!(Level::Alert, "unlink() {} failed ({})", self.path.display(), ErrorText(&error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_start_at_once_one_listens() {
        let folder = std::env::temp_dir().join(format!("topnext-bind-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for files");
        let path = folder.join("a.sock");
        for _ in 0..100 {
            // Somebody has left one behind.
            drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
            let start = || unix(&path, &ListenOptions::default(), SOCKET_MODE);
            let (one, other) = thread::scope(|scope| {
                let one = scope.spawn(start);
                let other = start();
                (one.join().expect("no panic"), other)
            });
            assert!(one.is_ok() != other.is_ok(), "{:?} {:?}", one.err(), other.err());
            std::os::unix::net::UnixStream::connect(&path).expect("somebody listens");
            drop((one, other));
            assert!(!path.exists());
        }
        fs::remove_dir_all(folder).expect("removed");
    }

    fn any() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn the_options_are_on_the_socket() {
        let keepalive = SoKeepalive { enabled: true, idle: Some(1800), interval: Some(11), count: Some(4) };
        let options = ListenOptions {
            rcvbuf: Some(30_000),
            sndbuf: Some(20_000),
            deferred: true,
            fastopen: Some(7),
            so_keepalive: Some(keepalive),
            ..ListenOptions::default()
        };
        let socket = tcp(any(), &options, false).expect("a socket");
        listen(&socket, &options).expect("listens");
        let of = socket2::SockRef::from(&socket);
        // The kernel doubles the sizes, for its own needs (socket(7)).
        assert_eq!(of.recv_buffer_size().unwrap(), 60_000);
        assert_eq!(of.send_buffer_size().unwrap(), 40_000);
        assert!(of.keepalive().unwrap() && of.is_listener().unwrap() && of.nonblocking().unwrap());
        assert_eq!(of.tcp_keepalive_time().unwrap(), Duration::from_secs(1800));
        assert_eq!(of.tcp_keepalive_interval().unwrap(), Duration::from_secs(11));
        assert_eq!(of.tcp_keepalive_retries().unwrap(), 4);
        assert_eq!(sockopt::get(&socket, libc::TCP_FASTOPEN).unwrap(), 7);
        assert_eq!(sockopt::get(&socket, libc::TCP_DEFER_ACCEPT).unwrap(), 1);
        assert!(!of.reuse_port().unwrap());
    }

    #[test]
    fn without_options_they_are_the_systems() {
        let socket = tcp(any(), &ListenOptions::default(), true).expect("a socket");
        let of = socket2::SockRef::from(&socket);
        assert!(!of.keepalive().unwrap() && of.reuse_port().unwrap());
        assert_eq!(sockopt::get(&socket, libc::TCP_FASTOPEN).unwrap(), 0);
        assert_eq!(sockopt::get(&socket, libc::TCP_DEFER_ACCEPT).unwrap(), 0);
    }
}
