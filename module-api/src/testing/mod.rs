//! The author's kit: runs a module's hooks in a unit test, without the server (feature `testing`).
//!
//! ```
//! use topnext_module_api::{prelude::*, testing};
//!
//! #[derive(Config)]
//! struct Upper {
//!     /// The text of the X-Upper field.
//!     #[config(default = "yes")]
//!     text: String,
//! }
//!
//! impl Filter for Upper {
//!     fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
//!         r.set_header_out("X-Upper", &self.text);
//!         r.need_memory();
//!         next.call(r)
//!     }
//!
//!     fn body_filter(&self, r: &mut Request<'_>, chain: Chain, next: BodyNext<'_>) -> Code {
//!         let upper = chain.map(|buf| {
//!             let mut out = Buf::from(buf.bytes().to_ascii_uppercase());
//!             out.set_last(buf.is_last());
//!             out.set_flush(buf.is_flush());
//!             out
//!         });
//!         next.call(r, upper.collect::<Chain>())
//!     }
//! }
//!
//! let filter = testing::module::<Upper>("text = \"very\"").unwrap();
//! let test = testing::filter(&filter).request("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
//! let test = test.response(200, &[("Content-Type", "text/plain")], "hello");
//! let out = test.run();
//! assert_eq!((out.header("x-upper"), out.text()), (Some("very"), "HELLO".into()));
//! test.check(); // the same in many pieces, with Again, with clients that leave and with panics
//! ```
//!
//! | to test | start with |
//! |---|---|
//! | a filter | [`filter`] |
//! | a phase handler, a content handler | [`handler`], [`content`] |
//! | an upstream protocol | [`upstream`] |
//! | a balancer | [`balancer`] |
//! | variables | [`FilterTest::variables`], [`HandlerTest::variables`] |
//! | what it keeps in a zone | [`zone`], and one of the above |
//!
//! `run` runs once, with nothing unusual. `check` is the torture: it runs whole but disturbed at every place, then many
//! times at random, each with a seed of its own. It panics with hook and seed if the outcome differs, if the contract is
//! broken or if anything leaks (bufs, files, contexts, wakers, jobs). Run that one again with `.seed(SEED).rounds(1)`.
//!
//! Panics are injected behind the module and in its own hooks, where it uses its handle or calls the next: what it holds
//! then must be released, and the request after that must be as ever.
//!
//! The clock is virtual: [`Request::wake_after`](crate::Request::wake_after) does not make a test wait. Jobs run on real
//! threads. Tests may run in parallel.

mod balancer;
mod config;
mod drive;
mod end;
mod event;
mod filter;
mod handler;
mod host;
mod inject;
mod kit;
mod plan;
mod random;
mod request;
mod services;
mod upstream;
mod variables;
mod zone;

use std::{any::Any, borrow::Cow, fmt, sync::Arc, time::Duration};

use abi_stable::std_types::{ROption, RVec};

pub use balancer::{BalancerTest, Choosing, FirstAvailable, balancer};
pub use filter::{FilterTest, filter};
pub use handler::{HandlerTest, content, handler};
pub use upstream::{UpstreamTest, upstream};
pub use zone::{TestZone, zone};

// What the crate itself tells the kit: what is alive, and where a module may panic.
pub(crate) use kit::{Counted, Kind, point};

use crate::{Code, Level, Module, Setup, State, config::Config};

/// Makes a module from the TOML text of its table, as the host would: defaults filled in, keys and types checked.
///
/// The error has one line for each thing that is wrong.
pub fn module<M: Module>(table: &str) -> Result<M, String> {
    with_state::<M, ()>(table, &Arc::new(()))
}

/// [`module`] for one that has a [`State`], which the test makes and may keep a share of.
pub fn with_state<M: Module, S: State>(table: &str, state: &Arc<S>) -> Result<M, String> {
    host::set_up();
    let config = config::read::<M::Config>(table)?;
    if !config.enabled() {
        return Err("`enabled` is false: the module would not act".to_string());
    }
    let state: Arc<dyn Any + Send + Sync> = state.clone();
    Setup::with_state(state, |setup| M::new(config, setup)).map_err(config::errors_text)
}

/// Makes this process a host, for tests that make bufs before anything else. Any other function here does it too.
pub fn set_up() {
    host::set_up();
}

/// A line that was logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its level.
    pub level: Level,
    /// Its text.
    pub text: String,
}

/// A panic that was caught at the border of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    /// The slot: 1 for the module under test.
    pub module: u32,
    /// The name of the hook.
    pub hook: String,
    /// The panic's message.
    pub message: String,
    /// The source file.
    pub file: String,
    /// The line in it; 0 if unknown.
    pub line: u32,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Panic { module, hook, message, file, line } = self;
        write!(f, "module {module} panicked in {hook}, at {file}:{line}: {message}")
    }
}

/// What came of a request.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The status that the client would see: that of the header, else the status that the hook answered, else 500 for
    /// Error, else 0.
    pub status: u16,
    /// The response header fields, as they were when the header was sent.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body as it would be sent, before chunked or HTTP/2 framing.
    pub body: Vec<u8>,
    /// The length in the header; `None` if it is not known.
    pub content_length: Option<u64>,
    /// Whether a part of the body might have been sent in its place, when the header came to the end of the chain.
    pub allow_ranges: bool,
    /// Whether the header came to the end of the chain.
    pub header_sent: bool,
    /// What the hook answered in the end (for a filter: its last answer).
    pub code: Option<Code>,
    /// What was logged, and at which level.
    pub log: Vec<Line>,
    /// Panics that were caught.
    pub panics: Vec<Panic>,
    /// Where in the body a flush came out.
    pub flushes: Vec<usize>,
    /// At which (virtual) time since the start how many bytes left.
    pub sent: Vec<(Duration, usize)>,
    /// Where the request was redirected to internally: URI and arguments.
    pub redirect: Option<(String, String)>,
    /// The URI that the module has set.
    pub uri: Option<String>,
    /// The values of the module's variables at the end, if the test asked for them.
    pub variables: Vec<(String, Option<Vec<u8>>)>,
    /// The virtual time that it took.
    pub time: Duration,
}

impl Output {
    /// A response header field, by name in any case; the first if there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        request::find(&self.headers, name, 0).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The body as text.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// Whether the request failed: a hook panicked or answered Error.
    pub fn failed(&self) -> bool {
        !self.panics.is_empty() || self.code == Some(Code::ERROR)
    }

    /// Whether a line was logged that contains this text.
    pub fn logged(&self, text: &str) -> bool {
        self.log.iter().any(|line| line.text.contains(text))
    }

    /// What `check` compares: all of it in a readable form, with this for the body.
    fn outcome(&self, body: &[u8]) -> Outcome {
        let field = |(name, value): &(String, Vec<u8>)| format!("{name}: {}", value.escape_ascii());
        Outcome {
            status: self.status,
            headers: self.headers.iter().map(field).collect(),
            content_length: self.content_length,
            body: body.escape_ascii().to_string(),
            // Ok and Again mean the same once everything has left.
            code: self.code.filter(|code| ![Code::OK, Code::AGAIN].contains(code)),
            redirect: self.redirect.clone(),
            uri: self.uri.clone(),
            failed: self.failed(),
        }
    }

    fn of(state: &request::State, code: Code) -> Output {
        const START: u64 = 1_000_000;
        let since = |now: u64| Duration::from_millis(now - START);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let head = state.end.head.borrow().clone();
        let answered = code.as_status().unwrap_or(if code == Code::ERROR { 500 } else { 0 });
        let header_sent = head.is_some();
        let allow_ranges = head.as_ref().is_some_and(|head| head.allow_ranges);
        let panics = state.kit.panics();
        let (status, headers, content_length) = match head {
            Some(head) => (head.status, head.headers, head.content_length),
            None if !panics.is_empty() => (500, Vec::new(), None),
            None => (answered, state.headers_out.borrow().clone(), None),
        };
        Output {
            status,
            headers,
            content_length,
            allow_ranges,
            header_sent,
            panics,
            body: state.end.body.borrow().clone(),
            code: Some(code),
            log: Vec::new(),
            flushes: state.end.flushes.borrow().clone(),
            sent: state.end.sent.borrow().iter().map(|(now, len)| (since(*now), *len)).collect(),
            redirect: state.redirect.borrow().as_ref().map(|(uri, args)| (text(uri), text(args))),
            uri: state.set_uri.borrow().as_deref().map(text),
            variables: state.values.borrow().clone(),
            time: since(state.now.get()),
        }
    }
}

/// What must be the same in all rounds.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: u16,
    headers: Vec<String>,
    content_length: Option<u64>,
    body: String,
    code: Option<Code>,
    redirect: Option<(String, String)>,
    uri: Option<String>,
    failed: bool,
}

impl Outcome {
    /// Which of two hooks to look at, if this differs from the other outcome: the one for the header, or for the body.
    fn blame(&self, other: &Outcome, header: &'static str, body: &'static str) -> &'static str {
        let head = |outcome: &Outcome| (outcome.status, outcome.headers.clone(), outcome.content_length);
        if head(self) == head(other) { body } else { header }
    }
}

/// A variable of the module: its name, its function and its index.
type VariableOf = (String, unsafe extern "C" fn(u32, &mut crate::Request<'_>, u32) -> ROption<RVec<u8>>, u32);

/// What the tests of filters, handlers and upstreams have in common.
#[derive(Clone)]
struct Common {
    spec: request::Spec,
    variables: Vec<VariableOf>,
    seed: u64,
    rounds: u64,
}

impl Default for Common {
    fn default() -> Common {
        host::set_up();
        Common { spec: request::Spec::default(), variables: Vec::new(), seed: 1, rounds: 120 }
    }
}

impl Common {
    fn add_variables<V: crate::Variables>(&mut self) {
        for name in V::NOCACHEABLE {
            assert!(V::NAMES.contains(name), "NOCACHEABLE has {name:?}, which is not one of NAMES");
        }
        let hooks = crate::variables::VariableHooks::of::<inject::Injected<V>>();
        for (index, name) in V::NAMES.iter().enumerate() {
            self.variables.push((name.to_string(), hooks.get, index as u32));
        }
    }

    /// Evaluates the variables, as the log would.
    fn evaluate(&self, state: &request::State) {
        for (name, get, index) in &self.variables {
            // SAFETY: the function is the module's, and the handle valid.
            let value = state.call(|r| unsafe { get(host::MODULE, r, *index) });
            state.values.borrow_mut().push((name.clone(), value.into_option().map(RVec::into_vec)));
        }
    }
}

/// The methods of the tests of filters, handlers and upstreams that say what the request is like.
macro_rules! common {
    () => {
        /// The request's line and header, as a client would send them. Without: `GET / HTTP/1.1`, `Host: localhost`.
        ///
        /// # Panics
        /// If that is not a request.
        #[track_caller]
        pub fn request(mut self, text: &str) -> Self {
            self.common.spec.parse(text);
            self
        }

        /// The request's body, in the pieces in which it comes.
        pub fn body<B: AsRef<[u8]>>(mut self, pieces: &[B]) -> Self {
            let copy = |piece: &B| $crate::Bytes::copy_from_slice(piece.as_ref());
            self.common.spec.body = pieces.iter().map(copy).collect();
            self
        }

        /// The client's address; 127.0.0.1 without.
        pub fn remote_addr(mut self, address: &str) -> Self {
            self.common.spec.remote_addr = address.to_string();
            self
        }

        /// The path of the location; "/" without.
        pub fn location(mut self, path: &str) -> Self {
            self.common.spec.location = path.to_string();
            self
        }

        /// Makes it a subrequest.
        pub fn subrequest(mut self) -> Self {
            self.common.spec.main = false;
            self
        }

        /// The value of a variable, which may be one of the host's (without `$`).
        pub fn variable(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
            self.common.spec.variables.push((name.to_string(), value.as_ref().to_vec()));
            self
        }

        /// Evaluates the module's own variables at the end, as a log would: see [`Output::variables`].
        pub fn variables<V: $crate::Variables>(mut self) -> Self {
            self.common.add_variables::<V>();
            self
        }

        /// The seed of the first round of `check`; 1 without.
        pub fn seed(mut self, seed: u64) -> Self {
            self.common.seed = seed;
            self
        }

        /// How many rounds `check` runs; 120 without.
        pub fn rounds(mut self, rounds: u64) -> Self {
            self.common.rounds = rounds;
            self
        }
    };
}
use common;

/// Panics with what is wrong, if anything is.
#[track_caller]
fn expect_none(faults: &[String], when: &str) {
    assert!(faults.is_empty(), "{when}:\n  {}", faults.join("\n  "));
}

/// What the unit tests of bufs and chains need of the kit.
#[cfg(test)]
pub(crate) mod host_tests {
    use super::{Panic, host};
    use crate::{Bytes, File, FileKind};

    /// Runs a test, after which no buf and no file may be left. The panics that were caught.
    #[track_caller]
    pub(crate) fn counted(test: impl FnOnce()) -> Vec<Panic> {
        let (kit, guard) = super::kit::Kit::start();
        test();
        drop(guard);
        super::expect_none(&kit.leaks(), "something leaks");
        kit.panics()
    }

    /// An open file with these bytes.
    pub(crate) fn open(bytes: &'static [u8], kind: FileKind) -> File {
        host::open(Bytes::from_static(bytes), 0, kind)
    }
}
