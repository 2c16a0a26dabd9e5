//! Handlers that lose count of what they sent, leak, or swallow errors.

use std::{collections::BTreeSet, mem::forget, sync::Mutex};

use topnext_module_api::{prelude::*, testing};

use crate::{Noted, failure, noted, says};

/// Sends a text in two parts.
#[derive(Config)]
struct Handles {
    #[config(default = "not")]
    how: Fault,
}

#[derive(Choice, Clone, Copy, PartialEq)]
enum Fault {
    Not,
    TakesHeaderAgainForAnEnd,
    SwallowsHeaderError,
    SwallowsBodyError,
    SendsAfterError,
    LeaksContext,
    LeaksWaker,
    LeaksJob,
    SendsTwiceAfterAgain,
    WakesInTheLog,
}

static HANDLER_PANICS: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());

impl Handles {
    fn respond(&self, r: &mut Request<'_>) -> Code {
        if !r.header_sent() {
            r.set_status(200);
            match r.send_header() {
                Code::OK => {}
                Code::AGAIN if self.how == Fault::TakesHeaderAgainForAnEnd => return Code::DONE,
                Code::AGAIN => {}
                _ if self.how == Fault::SwallowsHeaderError => return Code::OK,
                code if self.how == Fault::SendsAfterError => {
                    r.output(Buf::last());
                    return code;
                }
                code => return code,
            }
            match self.how {
                Fault::LeaksContext => forget(r.set_context(1_u8)),
                Fault::LeaksWaker => forget(r.waker()),
                Fault::LeaksJob => forget(r.offload(|| 1)),
                _ => {}
            }
            match r.output(Buf::from_static(b"one")) {
                Code::OK => {}
                code => return code,
            }
            if self.how == Fault::SendsTwiceAfterAgain {
                r.set_context(());
            }
        } else if self.how == Fault::SendsTwiceAfterAgain && r.context::<()>().is_none() {
            r.output(Buf::from_static(b"one"));
        }
        match r.output(Buf::last()) {
            Code::ERROR if self.how == Fault::SwallowsBodyError => Code::OK,
            code => code,
        }
    }
}

impl Content for Handles {
    fn content(&self, r: &mut Request<'_>) -> Code {
        let _noted = Noted(&HANDLER_PANICS, "content");
        self.respond(r)
    }
}

impl PhaseHandler for Handles {
    const PHASES: &'static [Phase] = &[Phase::Access, Phase::Log];

    fn handler(&self, r: &mut Request<'_>, phase: Phase) -> Code {
        let _noted = Noted(&HANDLER_PANICS, "handler");
        if phase == Phase::Log && self.how == Fault::WakesInTheLog {
            r.wake_after(Duration::from_secs(1));
            return Code::OK;
        }
        self.respond(r)
    }
}

fn handles(how: &str) -> Handles {
    testing::module(&format!("how = \"{how}\"")).expect("valid")
}

#[test]
fn a_broken_handler_is_told_with_hook_and_seed() {
    for (how, texts) in [
        ("takes_header_again_for_an_end", &["seed ", "content"][..]),
        ("swallows_header_error", &["seed ", "answers Error from call 1", "content of module 1 swallowed an Error"]),
        ("swallows_body_error", &["seed ", "content of module 1 swallowed an Error"]),
        ("sends_after_error", &["seed ", "output() in content before send_header() answered Ok or Again"]),
        ("leaks_context", &["seed ", "1 contexts are still alive: content of module 1"]),
        ("leaks_waker", &["seed ", "1 wakers are still alive: content of module 1"]),
        ("leaks_job", &["seed ", "1 jobs are still alive: content of module 1"]),
        ("sends_twice_after_again", &["seed ", "with Again", "another outcome than when run whole, see content"]),
    ] {
        let handler = handles(how);
        let said = failure(|| testing::content(&handler).check());
        says(how, &said, texts);
    }
    let handler = handles("swallows_header_error");
    let said = failure(|| testing::handler(&handler, Phase::Access).check());
    says("as a phase handler", &said, &["seed ", "handler of module 1 swallowed an Error"]);
    let handler = handles("wakes_in_the_log");
    let said = failure(|| testing::handler(&handler, Phase::Log).check());
    says("in the log phase", &said, &["seed ", "handler in the log phase asks to be woken, which it never is"]);
}

#[test]
fn panics_come_within_the_hooks_of_a_handler() {
    let handler = handles("not");
    testing::content(&handler).check();
    testing::handler(&handler, Phase::Access).check();
    assert_eq!(noted(&HANDLER_PANICS), ["content", "handler"]);
}
