//! A content handler that answers with the body of its request, which it has in memory.

#![forbid(unsafe_code)]

use std::time::Duration;

use topnext_module_api::prelude::*;

/// The table `echo`.
#[derive(Config)]
pub struct Echo {
    /// The most bytes that it takes.
    #[config(default = "64k")]
    max: Size,
    /// It asks for the body as it is first, in memory or not, and then for it in memory.
    #[config(default = false)]
    twice: bool,
    /// It waits for so long before it answers.
    pause: Option<Duration>,
}

export_module! {
    name: "echo",
    module: Echo,
    provides: [content],
}

/// It has waited.
struct Paused;

impl Content for Echo {
    fn content(&self, r: &mut Request<'_>) -> Code {
        if self.twice {
            match r.read_body() {
                Code::OK => (),
                code => return code,
            }
        }
        match r.read_body_in_memory(self.max.0) {
            Code::OK => (),
            code => return code,
        }
        if let Some(pause) = self.pause
            && r.context::<Paused>().is_none()
        {
            drop(r.set_context(Paused));
            r.wake_after(pause);
            return Code::AGAIN;
        }
        let body: Vec<_> = r.body().map(|buf| buf.into_bytes()).collect();
        r.send(200, "application/octet-stream", body.concat())
    }
}
