//! Reads the header of the PROXY protocol, with which a connection begins where `listen` says so.

use std::rc::Rc;

use bytes::Buf as _;

use super::{Http1, State};
use crate::{
    log::error::Level,
    log_line,
    proxy_protocol::{self, Progress},
};

/// What is read at once: nearly always the header, with the first request behind it.
const READ_SIZE: usize = 1024;
/// What is logged of bytes that are no header.
const MAX_SHOWN: usize = 128;

impl Http1 {
    /// Reads until the header is complete, then on with the first request. A connection without a good one is closed
    /// without an answer: whoever is there does not expect to speak HTTP yet.
    pub(super) fn read_proxy_header(self: &Rc<Self>) {
        loop {
            match self.read(READ_SIZE) {
                Ok(0) if self.eof.get() => {
                    let text = "client prematurely closed connection";
                    log_line!(Level::Info, "*{} {text}{}", self.number, self.while_reading());
                    return self.close();
                }
                Ok(0) => return,
                Ok(_) => (),
                Err(error) => return self.recv_failed(&error, self.while_reading()),
            }
            let parsed = proxy_protocol::parse(&self.input.borrow());
            match parsed {
                Ok(Progress::Incomplete) => (),
                Ok(Progress::Complete(header)) => {
                    self.input.borrow_mut().advance(header.len);
                    // A connection that waits for its first request costs no buffer.
                    self.release_input();
                    if let Some(addresses) = header.addresses {
                        self.ends.announce(addresses);
                    }
                    self.state.set(State::Idle);
                    return self.read_head();
                }
                Err(reason) => {
                    let shown = {
                        let input = self.input.borrow();
                        // The first line only: a client without a proxy sends its request, and that has secrets.
                        let line = input[..].split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
                        line[..line.len().min(MAX_SHOWN)].escape_ascii().to_string()
                    };
                    log_line!(
                        Level::Error,
                        "*{} broken header: \"{shown}\" ({}){}",
                        self.number,
                        reason.describe(),
                        self.while_reading()
                    );
                    return self.close();
                }
            }
        }
    }

    /// No header in time.
    pub(super) fn proxy_header_timed_out(self: &Rc<Self>) {
        log_line!(Level::Info, "*{} client timed out{}", self.number, self.while_reading());
        self.close();
    }

    fn while_reading(&self) -> String {
        format!(" while reading PROXY protocol{}", self.log_tail())
    }
}
