//! One request to one or two peers: calls the protocol's hooks in the order of the host.

use super::{Arrival, UpstreamTest};
use crate::{
    Buf, Bytes, Chain, Code,
    testing::{host, random::Random, request::State},
};

/// One request to one or two peers.
pub(super) struct Exchange<'a> {
    pub(super) test: &'a UpstreamTest<'a>,
    pub(super) state: &'a State,
    pub(super) random: &'a Random,
    /// Whether parts of the body come in several bufs.
    pub(super) split: bool,
}

/// What a part of the answer led to.
enum Fed {
    More,
    Complete,
    Failed(Code),
    /// The client has gone.
    Left,
}

/// How far the answer of one peer has been read.
struct Reading {
    /// All that has come of the header; `None` behind it.
    header: Option<Vec<u8>>,
    /// The bound of the header.
    bound: u64,
}

impl Exchange<'_> {
    pub(super) fn run(&self, answer: &[u8], arrival: Arrival, request: &mut Vec<u8>, complete: &mut bool) -> Code {
        let (state, hooks, link) = (self.state, &self.test.hooks, &self.test.link);
        // The host has read the body before it calls the module.
        state.body_read.set(true);
        state.producer.set("input_filter");
        // SAFETY: the link's data are borrowed by the test. So in all calls below.
        let id = state.call(|_| unsafe { (hooks.upstream)(link) });
        let Some(bound) = host::upstream_buffer_size(id) else {
            if !state.given_up() {
                state.fault("upstream() is not what UpstreamId::find gave");
            }
            return Code::status(500);
        };
        let mut chain = Chain::new();
        // SAFETY: as above.
        let created = state.call(|r| unsafe { (hooks.create_request)(link, r, &mut chain) });
        request.extend(chain.flat_map(|buf| state.to_memory(buf).into_bytes()));
        if created != Code::OK {
            // No peer was asked: the host does not call `finalize_request`.
            return if created == Code::ERROR { Code::status(500) } else { created };
        }
        let reading = || Reading { header: Some(Vec::new()), bound };
        let fed = match arrival {
            Arrival::Retried(at) => self.retry(&answer[..at.min(answer.len())]),
            _ => Fed::More,
        };
        let fed = match fed {
            Fed::More => self.feed(reading(), &arrival.split(answer, self.random)),
            over => over,
        };
        *complete = matches!(fed, Fed::Complete);
        let code = match fed {
            Fed::Failed(code) => code,
            Fed::More | Fed::Complete => Code::OK,
            Fed::Left => {
                // SAFETY: as above.
                state.call(|r| unsafe { (hooks.abort_request)(link, r) });
                Code::status(499)
            }
        };
        // SAFETY: as above.
        state.call(|r| unsafe { (hooks.finalize_request)(link, r, code) });
        if state.drain() == Code::ERROR { Code::ERROR } else { code }
    }

    /// The first peer fails within its header.
    fn retry(&self, part: &[u8]) -> Fed {
        let (state, hooks, link) = (self.state, &self.test.hooks, &self.test.link);
        if !part.is_empty() {
            let mut taken = 0;
            // SAFETY: as above.
            let code = state.call(|r| unsafe { (hooks.process_header)(link, r, part.into(), &mut taken) });
            if state.kit.panicked() {
                return Fed::Failed(Code::status(500));
            }
            if code != Code::AGAIN {
                // Not valid, whatever follows: no other peer is asked.
                return Fed::Failed(Code::status(502));
            }
        }
        if state.closed() {
            return Fed::Left;
        }
        state.status.set(0);
        state.headers_out.borrow_mut().clear();
        state.content_length.set(None);
        state.keepalive.set(false);
        // SAFETY: as above.
        let code = state.call(|r| unsafe { (hooks.reinit_request)(link, r) });
        if code == Code::OK { Fed::More } else { Fed::Failed(Code::status(500)) }
    }

    fn feed(&self, mut reading: Reading, parts: &[&[u8]]) -> Fed {
        for part in parts.iter().filter(|part| !part.is_empty()) {
            if self.state.closed() {
                return Fed::Left;
            }
            match self.part(&mut reading, part) {
                Fed::More => {}
                other => return other,
            }
        }
        if self.state.closed() {
            return Fed::Left;
        }
        if !self.test.closes {
            return Fed::More;
        }
        match reading.header {
            Some(_) => Fed::Failed(Code::status(502)),
            None => match self.body(Chain::from(Buf::last())) {
                Fed::More => {
                    self.state
                        .fault("input_filter answered Ok to the end of the connection, rather than Done or Error");
                    Fed::More
                }
                other => other,
            },
        }
    }

    fn part(&self, reading: &mut Reading, part: &[u8]) -> Fed {
        let (state, hooks, link) = (self.state, &self.test.hooks, &self.test.link);
        let Some(header) = &mut reading.header else {
            return self.body(self.bufs(part));
        };
        header.extend_from_slice(part);
        let mut taken = 0;
        // SAFETY: as above.
        match state.call(|r| unsafe { (hooks.process_header)(link, r, header.as_slice().into(), &mut taken) }) {
            Code::OK if taken <= header.len() => {}
            Code::OK => {
                state.fault(format!("process_header took {taken} bytes of {}", header.len()));
                return Fed::Failed(Code::status(502));
            }
            Code::AGAIN if header.len() as u64 >= reading.bound => return Fed::Failed(Code::status(502)),
            Code::AGAIN => return Fed::More,
            _ => return Fed::Failed(Code::status(502)),
        }
        self.test.header_length.set(taken);
        let body = header.split_off(taken);
        reading.header = None;
        let code = state.send_header();
        if !matches!(code, Code::OK | Code::AGAIN) {
            return Fed::Failed(code);
        }
        // SAFETY: as above.
        match state.call(|r| unsafe { (hooks.input_filter_init)(link, r) }) {
            Code::OK if body.is_empty() => Fed::More,
            Code::OK if state.closed() => Fed::Left,
            Code::OK => self.body(self.bufs(&body)),
            Code::DONE => match self.send(Chain::from(Buf::last())) {
                Fed::More => Fed::Complete,
                other => other,
            },
            _ => Fed::Failed(Code::status(502)),
        }
    }

    /// A part of the body, in one buf or several, of this image and of another.
    fn bufs(&self, mut part: &[u8]) -> Chain {
        let mut chain = Chain::new();
        while !part.is_empty() {
            let len = if self.split { 1 + self.random.below(part.len()) } else { part.len() };
            let (piece, rest) = part.split_at(len);
            let own = self.split && self.random.one_in(2);
            chain.push(if own { Buf::from(Bytes::copy_from_slice(piece)) } else { Buf::from_other_image(piece) });
            part = rest;
        }
        chain
    }

    fn body(&self, input: Chain) -> Fed {
        let (state, hooks, link) = (self.state, &self.test.hooks, &self.test.link);
        let mut output = Chain::new();
        // SAFETY: as above.
        let code = state.call(|r| unsafe { (hooks.input_filter)(link, r, input, &mut output) });
        if state.kit.panicked() {
            return Fed::Failed(Code::status(502));
        }
        // The end of the body is what Done says; the flag of the buf that told of the close may have been moved along.
        let output = output.map(|mut buf| {
            buf.set_last(false);
            buf
        });
        let mut output: Chain = output.filter(|buf| !buf.is_empty()).collect();
        if code == Code::DONE {
            output.push(Buf::last());
        }
        match (self.send(output), code) {
            (Fed::More, Code::OK) => Fed::More,
            (Fed::More, Code::DONE) => Fed::Complete,
            (Fed::More, _) => Fed::Failed(Code::status(502)),
            (over, _) => over,
        }
    }

    /// Passes content on. When the client takes no more, the peer is at times asked for more before it does.
    fn send(&self, chain: Chain) -> Fed {
        if chain.is_empty() {
            return Fed::More;
        }
        let mut code = self.state.output(chain);
        while code == Code::AGAIN && !self.state.given_up() && self.random.one_in(2) {
            code = self.state.step();
        }
        if matches!(code, Code::OK | Code::AGAIN) { Fed::More } else { Fed::Failed(Code::ERROR) }
    }
}
