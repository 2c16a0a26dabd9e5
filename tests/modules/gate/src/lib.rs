//! Lets requests in or refuses them, as a module of the access phase does, and changes URIs, as one of the rewrite phase.
//!
//! `gate.answers` names the argument of the query that says what is answered in each phase: `?gate=access:403`.

#![forbid(unsafe_code)]

use topnext_module_api::prelude::*;

/// The table `gate`.
#[derive(Config)]
pub struct Gate {
    /// The variable with the answers, `PHASE:CODE` each, separated by commas.
    #[config(default = "arg_gate")]
    answers: String,
    /// In the phase of this name the URI is changed.
    rewrite_in: Option<String>,
    /// To this one.
    #[config(default = "/rewritten")]
    to: Template,
}

export_module! {
    name: "gate",
    module: Gate,
    provides: [phases],
}

impl PhaseHandler for Gate {
    const PHASES: &'static [Phase] = &[
        Phase::PostRead,
        Phase::ServerRewrite,
        Phase::Rewrite,
        Phase::Preaccess,
        Phase::Access,
        Phase::Precontent,
        Phase::Content,
    ];

    fn handler(&self, r: &mut Request<'_>, phase: Phase) -> Code {
        if self.rewrite_in.as_deref() == Some(phase.name()) {
            let to = self.to.eval(r);
            if to != r.uri() && !r.set_uri(to) {
                return Code::status(500);
            }
        }
        let answers = r.variable(&self.answers).unwrap_or_default();
        let mine = |answer: &[u8]| {
            let answer = std::str::from_utf8(answer).ok()?;
            let (name, code) = answer.split_once(':')?;
            (name == phase.name()).then(|| code.to_string())
        };
        match answers.split(|&byte| byte == b',').find_map(mine).as_deref() {
            Some("ok") => Code::OK,
            Some("error") => Code::ERROR,
            Some("401") => {
                r.set_header_out("WWW-Authenticate", "Basic realm=\"gate\"");
                Code::status(401)
            }
            Some(code) => code.parse().map_or(Code::ERROR, Code::status),
            None => Code::DECLINED,
        }
    }
}
