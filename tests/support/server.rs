//! The server as a process: started with a configuration, its output collected, and ended when it is dropped.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

use super::PATIENCE;
use super::client::{Client, Response};
use super::files::{self, Folder};

/// A running server.
pub struct Server {
    /// Its prefix: the folder of plugins.toml.
    pub folder: Folder,
    /// The port that stands for `PORT` in its configuration.
    pub port: u16,
    ports: Vec<Port>,
    child: Child,
    stdout: Collected,
    stderr: Collected,
    ended: bool,
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub struct Answer {
    /// Its exit status; none if a signal ended it.
    pub code: Option<i32>,
    /// The text of its standard output.
    pub stdout: String,
    /// And of its standard error.
    pub stderr: String,
}

impl Server {
    /// Starts it with this text as plugins.toml, and waits until it is ready. `PORT` and `PORT2` stand for free ports.
    pub fn start(config: &str) -> Server {
        Server::start_in(Folder::new(), config)
    }

    /// With these files beside plugins.toml.
    pub fn with(files: &[(&str, &[u8])], config: &str) -> Server {
        Server::start_in(Folder::with(files), config)
    }

    /// In this folder.
    pub fn start_in(folder: Folder, config: &str) -> Server {
        Server::start_program(files::binary(), folder, config)
    }

    /// Another build of it, in this folder.
    pub fn start_program(program: &Path, folder: Folder, config: &str) -> Server {
        let (config, ports) = with_ports(config);
        folder.write("plugins.toml", config.as_bytes());
        let mut child = command_of(program, &folder, &[]).spawn().unwrap();
        let stdout = Collected::of(child.stdout.take().unwrap());
        let stderr = Collected::of(child.stderr.take().unwrap());
        let mut server = Server { folder, port: ports[0].number, ports, child, stdout, stderr, ended: false };
        let ready = |text: &str| text.lines().any(|line| line.starts_with("  modules: "));
        if server.stderr.wait(ready).is_err() {
            server.ended = true;
            let _ = server.child.kill();
            let _ = server.child.wait();
            panic!("the server does not start:\n{}\nwith the configuration\n{config}", server.stderr.text());
        }
        server
    }

    /// The errors that `topnext -t` finds in this configuration, which must have some; folders are hidden as
    /// [`Folder::hide`] says.
    pub fn fails(config: &str) -> String {
        Server::fails_in(&Folder::new(), config)
    }

    /// In this folder.
    pub fn fails_in(folder: &Folder, config: &str) -> String {
        let answer = Server::tests(folder, config);
        assert_eq!(answer.code, Some(1), "{answer:#?}");
        assert_eq!(answer.stdout, "", "{answer:#?}");
        let last = "topnext: configuration file plugins.toml test failed\n";
        let errors = answer.stderr.strip_suffix(last).unwrap_or_else(|| panic!("{answer:#?}"));
        folder.hide(errors)
    }

    /// What `topnext -t` says to this configuration.
    pub fn tests(folder: &Folder, config: &str) -> Answer {
        let (config, _ports) = with_ports(config);
        folder.write("plugins.toml", config.as_bytes());
        answer(command(folder, &["-t"]))
    }

    /// A new connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The URL of a path, as redirects of the requests below have it.
    pub fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.port)
    }

    /// The address that `PORT2` stands for.
    pub fn address2(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[1].number))
    }

    /// The process: the master.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its worker, of which it has one; the process itself if it has none.
    pub fn worker(&self) -> u32 {
        let workers = self.workers();
        assert!(workers.len() <= 1, "{workers:?}");
        workers.first().copied().unwrap_or(self.pid())
    }

    /// The processes that it has started.
    pub fn workers(&self) -> Vec<u32> {
        let is_child = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // Behind the name, which is in parentheses: the state, and the parent.
            let mut behind = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
            behind.nth(1) == Some(&self.pid().to_string())
        };
        let entries = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        entries.filter(is_child).collect()
    }

    /// Its memory, in kilobytes.
    pub fn memory_kb(&self) -> u64 {
        self.status_kb("VmRSS:")
    }

    /// The most memory that it has had so far, in kilobytes.
    pub fn peak_memory_kb(&self) -> u64 {
        self.status_kb("VmHWM:")
    }

    fn status_kb(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.worker())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Its open files and sockets.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.worker())).unwrap().count()
    }

    /// The response to GET, on a connection of its own.
    pub fn get(&self, path: &str) -> Response {
        self.get_with(path, "")
    }

    /// With these header lines, each with its CRLF.
    pub fn get_with(&self, path: &str, fields: &str) -> Response {
        self.request("GET", path, fields)
    }

    /// The response to a request without a body, on a connection of its own that the server closes.
    pub fn request(&self, method: &str, path: &str, fields: &str) -> Response {
        let mut client = self.connect();
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n"));
        let response = client.response_to(method);
        assert_eq!(client.end(), super::Ending::Closed, "behind {response:?}");
        response
    }

    /// The answer to these bytes until the connection is closed, each request on a connection of its own.
    pub fn raw(&self, request: &str) -> String {
        let mut client = self.connect();
        client.send(request);
        client.rest()
    }

    /// What it has written to standard output so far, as soon as `enough` says so.
    pub fn stdout(&self, enough: impl Fn(&str) -> bool) -> String {
        self.stdout.wait(enough).unwrap_or_else(|text| panic!("stdout of the server:\n{text}"))
    }

    /// What it has written to standard error so far, as soon as `enough` says so.
    pub fn stderr(&self, enough: impl Fn(&str) -> bool) -> String {
        self.stderr.wait(enough).unwrap_or_else(|text| panic!("stderr of the server:\n{text}"))
    }

    /// What `topnext` with these arguments, in its folder, says.
    pub fn ask(&self, arguments: &[&str]) -> Answer {
        answer(command(&self.folder, arguments))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Ends it with this signal: what it has said in all.
    pub fn stop(mut self, signal: Signal) -> Answer {
        self.end(signal)
    }

    /// Waits until it has ended by itself: its exit status.
    pub fn ended(&mut self) -> Option<i32> {
        self.ended = true;
        code(wait(&mut self.child))
    }

    /// Ends it with this signal, though others go on with its output: its exit status.
    pub fn end_alone(&mut self, signal: Signal) -> Option<i32> {
        self.ended = true;
        self.signal(signal);
        code(wait(&mut self.child))
    }

    fn end(&mut self, signal: Signal) -> Answer {
        self.ended = true;
        self.signal(signal);
        let status = wait(&mut self.child);
        Answer { code: code(status), stdout: self.stdout.all(), stderr: self.stderr.all() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Ok(Some(status)) = self.child.try_wait() {
            let text = self.stderr.text();
            assert!(thread::panicking(), "the server has ended by itself ({status}):\n{text}");
            eprintln!("the server has ended by itself ({status}):\n{text}");
            return;
        }
        let answer = self.end(Signal::TERM);
        if thread::panicking() {
            eprintln!("stderr of the server:\n{}", answer.stderr);
        } else {
            assert_eq!(answer.code, Some(0), "{answer:#?}");
        }
    }
}

/// The program in a folder, where plugins.toml is, with its output piped.
pub fn command(folder: &Folder, arguments: &[&str]) -> Command {
    command_of(files::binary(), folder, arguments)
}

/// Another build of the program, likewise.
pub fn command_of(program: &Path, folder: &Folder, arguments: &[&str]) -> Command {
    files::modules();
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder.path(""));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a program that ends by itself.
pub fn answer(mut command: Command) -> Answer {
    let mut child = command.spawn().unwrap();
    let stdout = Collected::of(child.stdout.take().unwrap());
    let stderr = Collected::of(child.stderr.take().unwrap());
    let status = wait(&mut child);
    Answer { code: code(status), stdout: stdout.all(), stderr: stderr.all() }
}

/// Waits for its end; what does not end in time is killed.
fn wait(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return status,
            None if start.elapsed() > PATIENCE => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the program does not end");
            }
            None => thread::sleep(std::time::Duration::from_millis(2)),
        }
    }
}

fn code(status: ExitStatus) -> Option<i32> {
    if let Some(signal) = status.signal() {
        eprintln!("signal {signal} has ended the program");
    }
    status.code()
}

/// A port that nobody else gets while this lives: a socket is bound to it that does not listen, so that another one with
/// SO_REUSEADDR, the server's, can.
pub struct Port {
    /// Its number.
    pub number: u16,
    _socket: Socket,
}

/// A port of 127.0.0.1 that is free, as long as nobody takes it on purpose.
pub fn free_port() -> Port {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let number = socket.local_addr().unwrap().as_socket().unwrap().port();
    Port { number, _socket: socket }
}

fn with_ports(config: &str) -> (String, Vec<Port>) {
    let ports = vec![free_port(), free_port()];
    let config = config.replace("PORT2", &ports[1].number.to_string()).replace("PORT", &ports[0].number.to_string());
    (config, ports)
}

/// What a pipe brings, collected by a thread.
struct Collected(Arc<(Mutex<Text>, Condvar)>);

#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    closed: bool,
}

impl Collected {
    fn of(mut pipe: impl Read + Send + 'static) -> Collected {
        let shared = Arc::new((Mutex::new(Text::default()), Condvar::new()));
        let theirs = shared.clone();
        thread::spawn(move || {
            let (text, more) = &*theirs;
            let mut buffer = [0; 4096];
            loop {
                let n = pipe.read(&mut buffer).unwrap_or(0);
                let text = &mut *text.lock().unwrap();
                text.bytes.extend_from_slice(&buffer[..n]);
                text.closed = n == 0;
                more.notify_all();
                if n == 0 {
                    return;
                }
            }
        });
        Collected(shared)
    }

    /// The text so far.
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().unwrap().bytes).into_owned()
    }

    /// The text as soon as `enough` says so; an error with the text if that does not come.
    fn wait(&self, enough: impl Fn(&str) -> bool) -> Result<String, String> {
        let (start, (text, more)) = (Instant::now(), &*self.0);
        let mut text = text.lock().unwrap();
        loop {
            let now = String::from_utf8_lossy(&text.bytes).into_owned();
            if enough(&now) {
                return Ok(now);
            }
            let left = PATIENCE.checked_sub(start.elapsed());
            let Some(left) = left.filter(|_| !text.closed) else { return Err(now) };
            text = more.wait_timeout(text, left).unwrap().0;
        }
    }

    /// All of it, once the pipe is closed.
    fn all(&self) -> String {
        let (start, (text, more)) = (Instant::now(), &*self.0);
        let mut text = text.lock().unwrap();
        while !text.closed && start.elapsed() < PATIENCE {
            text = more.wait_timeout(text, PATIENCE).unwrap().0;
        }
        String::from_utf8_lossy(&text.bytes).into_owned()
    }
}
