//! Handlers, upstreams and balancers in the kit: waiting for files, bodies, jobs, wakers and timers.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use topnext_module_api::{prelude::*, testing};

fn failure(test: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(test)).expect_err("the kit noticed nothing");
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}

/// Waits for something, then answers.
#[derive(Config)]
struct Waits {
    what: What,
}

#[derive(Choice, PartialEq)]
enum What {
    File,
    Body,
    Job,
    FailingJob,
    Waker,
    Timer,
    Nothing,
}

impl Content for Waits {
    fn content(&self, r: &mut Request<'_>) -> Code {
        match self.what {
            What::File => self.file(r),
            What::Body => match r.read_body_in_memory(1 << 20) {
                Code::OK => {
                    let body: Vec<u8> = r.body().flat_map(|buf| buf.into_bytes()).collect();
                    r.send(200, "text/plain", body)
                }
                other => other,
            },
            What::Job | What::FailingJob => self.job(r),
            What::Waker => match r.context::<()>() {
                Some(_) => r.send(200, "text/plain", "woken".to_string()),
                None => {
                    r.set_context(());
                    let waker = r.waker();
                    drop(waker.clone());
                    thread::spawn(move || waker.wake());
                    Code::AGAIN
                }
            },
            What::Timer => match r.context::<u64>() {
                Some(start) => r.send(200, "text/plain", format!("{} ms", r.now_ms() - *start)),
                None => {
                    r.set_context(r.now_ms());
                    r.wake_after(Duration::from_millis(5));
                    r.wake_after(Duration::from_secs(3600));
                    Code::AGAIN
                }
            },
            What::Nothing => Code::AGAIN,
        }
    }
}

impl Waits {
    fn file(&self, r: &mut Request<'_>) -> Code {
        let path = r.filename();
        match r.open_file(path) {
            Opened::File(file) if file.kind() == FileKind::Regular => {
                let len = file.size();
                r.send(200, "text/plain", Buf::from_file(file, 0, len))
            }
            Opened::File(_) => r.internal_redirect(b"/index.html", b"x=1"),
            Opened::Pending => Code::AGAIN,
            Opened::NotFound => Code::status(404),
            Opened::Forbidden => Code::status(403),
            Opened::Failed => Code::ERROR,
        }
    }

    fn job(&self, r: &mut Request<'_>) -> Code {
        if let Some(mut job) = r.context::<Job<String>>() {
            return match job.poll() {
                Some(Ok(text)) => {
                    assert!(job.poll().is_some_and(|again| again.is_err()), "a result is taken once");
                    r.send(200, "text/plain", text)
                }
                Some(Err(_)) => Code::status(503),
                None => Code::AGAIN,
            };
        }
        let fails = self.what == What::FailingJob;
        let work = move || {
            if fails { panic!("in the job") } else { "worked".to_string() }
        };
        let Some(job) = r.offload(work) else {
            return Code::status(503);
        };
        r.set_context(job);
        Code::AGAIN
    }
}

fn waits(what: &str) -> Waits {
    testing::module::<Waits>(&format!("what = \"{what}\"")).expect("valid")
}

#[test]
fn a_handler_waits_for_a_file() {
    let handler = waits("file");
    let test = || testing::content(&handler).request("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    let found = test().file("html/x", "of the file", 1_000);
    assert_eq!((found.run().text(), found.run().content_length), ("of the file".into(), Some(11)));
    found.check();
    assert_eq!(test().run().status, 404);
    assert_eq!(test().forbidden("html/x").run().status, 403);
    let redirected = test().directory("html/x");
    assert_eq!(redirected.run().redirect, Some(("/index.html".to_string(), "x=1".to_string())));
    redirected.check();
    assert_eq!(test().filename("/other").file("/other", "o", 0).run().text(), "o");
}

#[test]
fn a_handler_waits_for_the_body() {
    let handler = waits("body");
    let test = || testing::content(&handler).request("POST / HTTP/1.1\r\nHost: a\r\n\r\n").body(&["one", "", "two"]);
    assert_eq!(test().run().text(), "onetwo");
    test().check();
    assert_eq!(test().body_refused(413).run().status, 413);
}

#[test]
fn a_handler_waits_for_a_job() {
    let handler = waits("job");
    assert_eq!(testing::content(&handler).run().text(), "worked");
    testing::content(&handler).check();
}

#[test]
fn a_job_that_panics_is_reported_and_told() {
    let handler = waits("failing_job");
    let out = testing::content(&handler).run();
    let [panic] = &out.panics[..] else { panic!("{:?}", out.panics) };
    assert_eq!((panic.hook.as_str(), panic.message.as_str()), ("job", "in the job"));
    assert!(panic.file.ends_with("tests/handlers.rs"), "{panic}");
}

#[test]
fn a_handler_waits_for_a_waker_and_for_time() {
    let handler = waits("waker");
    assert_eq!(testing::content(&handler).run().text(), "woken");
    testing::content(&handler).rounds(20).check();
    let handler = waits("timer");
    let out = testing::content(&handler).run();
    assert_eq!((out.text(), out.time), ("3600000 ms".into(), Duration::from_secs(3600)));
    testing::content(&handler).check();
}

#[test]
fn a_handler_that_waits_for_nothing_is_caught() {
    let handler = waits("nothing");
    let said = failure(|| drop(testing::content(&handler).run()));
    assert!(said.contains("nothing will ever call it again"), "{said}");
}

/// Lets some in.
#[derive(Config)]
struct Door {
    #[config(default = "127.0.0.1")]
    friend: String,
}

impl PhaseHandler for Door {
    const PHASES: &'static [Phase] = &[Phase::Access, Phase::Log];

    fn handler(&self, r: &mut Request<'_>, phase: Phase) -> Code {
        log!(r, Level::Info, "asked in {}", phase.name());
        if r.remote_addr() == self.friend.as_bytes() { Code::OK } else { Code::status(403) }
    }
}

#[test]
fn a_phase_handler_is_asked_in_its_phases() {
    let door = testing::module::<Door>("").expect("valid");
    let out = testing::handler(&door, Phase::Access).run();
    assert_eq!((out.code, out.logged("asked in access"), out.status), (Some(Code::OK), true, 0));
    assert_eq!(testing::handler(&door, Phase::Log).remote_addr("::1").run().status, 403);
    testing::handler(&door, Phase::Access).check();
    let said = failure(|| drop(testing::handler(&door, Phase::Rewrite)));
    assert!(said.contains("not asked in the phase rewrite"), "{said}");
}

/// State is made by the test.
struct Shared(AtomicUsize);

impl State for Shared {
    fn create() -> Result<Shared, String> {
        Ok(Shared(AtomicUsize::new(0)))
    }
}

struct Counts(Arc<Shared>);

#[derive(Config)]
struct CountsTable {
    enabled: bool,
}

impl Module for Counts {
    type Config = CountsTable;

    fn new(_: CountsTable, setup: &Setup<'_>) -> Result<Counts, ConfigErrors> {
        Ok(Counts(setup.state::<Shared>()))
    }
}

impl Content for Counts {
    fn content(&self, _: &mut Request<'_>) -> Code {
        self.0.0.fetch_add(1, Ordering::SeqCst);
        Code::status(204)
    }
}

#[test]
fn a_module_shares_its_state() {
    let state = Arc::new(Shared::create().expect("makes it"));
    let counts = testing::with_state::<Counts, Shared>("enabled = true", &state).expect("valid");
    assert_eq!(testing::content(&counts).run().status, 204);
    assert_eq!(state.0.load(Ordering::SeqCst), 1);
    assert!(testing::with_state::<Counts, Shared>("enabled = false", &state).is_err());
}

/// A line each: the request; the answer's status; its body, up to a dot on a line of its own.
struct Lines {
    upstream: UpstreamId,
}

#[derive(Config)]
struct LinesTable {
    pass: String,
}

impl Module for Lines {
    type Config = LinesTable;

    fn new(table: LinesTable, _: &Setup<'_>) -> Result<Lines, ConfigErrors> {
        let upstream = UpstreamId::find(&table.pass, 7, &UpstreamOptions::default())?;
        Ok(Lines { upstream })
    }
}

impl Upstream for Lines {
    fn upstream(&self) -> UpstreamId {
        self.upstream
    }

    fn create_request(&self, r: &mut Request<'_>, request: &mut Chain) -> Code {
        request.push(Buf::copy_from(&[b"get ", r.uri(), b"\n"].concat()));
        request.append(r.body());
        Code::OK
    }

    fn reinit_request(&self, r: &mut Request<'_>) -> Code {
        drop(r.context::<Vec<u8>>().map(Context::remove));
        Code::OK
    }

    fn process_header(&self, r: &mut Request<'_>, input: &[u8]) -> Progress {
        let Some(end) = input.iter().position(|&b| b == b'\n') else {
            return Progress::Incomplete;
        };
        let status = std::str::from_utf8(&input[..end]).ok().and_then(|text| text.parse().ok());
        let Some(status @ 200..=599) = status else {
            return Progress::Invalid;
        };
        r.set_status(status);
        r.set_context(Vec::<u8>::new());
        Progress::Complete(end + 1)
    }

    fn input_filter(&self, r: &mut Request<'_>, input: Chain, output: &mut Chain) -> Code {
        let Some(mut seen) = r.context::<Vec<u8>>() else {
            return Code::ERROR;
        };
        let closed = input.has_last();
        input.for_each(|buf| seen.extend_from_slice(buf.bytes()));
        if let Some(end) = seen.windows(3).position(|three| three == b"\n.\n") {
            output.push(Buf::copy_from(&seen[..=end]));
            r.set_upstream_keepalive(!closed);
            return Code::DONE;
        }
        if closed { Code::ERROR } else { Code::OK }
    }
}

#[test]
fn an_upstream_makes_a_request_and_reads_the_answer() {
    let lines = testing::module::<Lines>("pass = \"peer\"").expect("valid");
    let test = || testing::upstream(&lines).request("GET /u HTTP/1.1\r\nHost: a\r\n\r\n").body(&["more"]);
    let out = test().run("201\nline\n.\n");
    assert_eq!(
        (out.request.as_slice(), out.response.status, out.response.text()),
        (&b"get /u\nmore"[..], 201, "line\n".into())
    );
    assert!(out.keepalive && out.complete);
    test().check("201\nline\n.\n");
    // Answers that are cut off or not valid.
    let cut = test().peer_closes().run("200\nline");
    assert_eq!((cut.response.code, cut.complete), (Some(Code::status(502)), false));
    test().peer_closes().check("200\nline");
    assert_eq!(test().run("99\n").response.status, 502);
    test().check("99\n");
    assert!(testing::module::<Lines>("pass = \"\"").is_err());
}

/// Chooses by the last byte of the client's address, and delegates for others.
#[derive(Config)]
struct ByAddress {}

impl Balancer for ByAddress {
    fn init_upstream(&mut self, peers: &Selection<'_>) -> Result<(), ConfigErrors> {
        if peers.is_empty() { Err(ConfigErrors::from("no peers".to_string())) } else { Ok(()) }
    }

    fn get(&self, s: &mut Selection<'_>, next: BalancerNext<'_>) -> Option<usize> {
        s.set_state(s.state() + 1);
        log!(s, Level::Info, "try {} of {}", s.state(), s.len());
        match s.client_address() {
            Some(std::net::IpAddr::V4(v4)) => {
                let peer = usize::from(v4.octets()[3]) % s.len();
                if s.is_available(peer) && !s.is_backup(peer) { Some(peer) } else { next.get(s) }
            }
            Some(_) => panic!("what is this"),
            None => next.get(s),
        }
    }
}

#[test]
fn a_balancer_chooses_and_delegates() {
    let mut by_address = testing::module::<ByAddress>("").expect("valid");
    let mut first = testing::FirstAvailable;
    let peers = [("127.0.0.1:1", 5), ("127.0.0.1:2", 1), ("127.0.0.1:3", 1)];
    let test = testing::balancer(&mut by_address, &peers).then(&mut first);
    assert_eq!(test.select("10.0.0.4"), Some(1));
    assert_eq!(test.count(3, "10.0.0.5"), [0, 0, 3]);
    assert_eq!(test.select("a unix socket"), Some(0));
    test.set_down(1, true);
    assert_eq!(test.select("10.0.0.4"), Some(0));
    let choosing = test.choose("10.0.0.3");
    assert_eq!((choosing.get(), test.connections(0)), (Some(0), 1));
    assert_eq!((choosing.get(), test.connections(0)), (Some(2), 0));
    assert_eq!(choosing.get(), None);
    drop(choosing);
    assert!(test.log().iter().any(|line| line.text == "try 3 of 3"));
    assert_eq!(test.select("::1"), None);
    assert_eq!((test.panics()[0].hook.as_str(), test.panics()[0].message.as_str()), ("get", "what is this"));
    let mut alone = testing::module::<ByAddress>("").expect("valid");
    let refused = testing::BalancerTest::try_new(&mut alone, &[], &[]).err();
    assert_eq!(refused.as_deref(), Some("no peers"));
}
