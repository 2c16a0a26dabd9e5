//! Reads heads, and begins requests.

use std::{cell::RefCell, fmt::Display, io, rc::Rc};

use bytes::Buf as _;
use topnext_module_api::Code;

use super::{
    Http1, SCRATCH, State,
    body::BodyReader,
    facts::{self, Facts},
};
use crate::{
    error_text::ErrorText,
    finalize,
    http1::{BadRequest, Framing, Head, HeadParser, Limits, Method, Normalized, Progress, persistent},
    log::error::Level,
    log_line, phases,
    request::{BadHead, Lent, Request, Text, captures},
    site::Server,
    stats,
};

/// What is read at once of a head.
const HEAD_READ_SIZE: usize = 16 * 1024;
/// What is read at once of the rest of a head that came in pieces.
const READ_SIZE: usize = 4096;

thread_local! {
    /// The parser of heads that come in one piece, as most do: an idle connection needs none.
    static PARSER: RefCell<HeadParser> = RefCell::new(HeadParser::new(Limits::default()));
}

/// What came of parsing what was read.
enum Parsed {
    /// A head.
    Head(Lent),
    /// More is needed.
    Incomplete,
    /// Nothing was read: there is nothing now, or the end.
    Nothing,
}

impl Http1 {
    /// Reads until a head is complete, and makes a request of it.
    pub(super) fn read_head(self: &Rc<Self>) {
        loop {
            let parsed = match self.parse_input() {
                Ok(Parsed::Incomplete) => match self.read_and_parse() {
                    Ok(parsed) => parsed,
                    Err(error) => return self.recv_failed(&error, self.log_tail()),
                },
                parsed => parsed,
            };
            match parsed {
                Ok(Parsed::Head(parts)) => return self.begin(parts),
                Ok(Parsed::Incomplete) => (),
                Ok(Parsed::Nothing) if self.eof.get() => return self.end_of_input(),
                Ok(Parsed::Nothing) => return,
                Err(bad) => return self.refuse(bad),
            }
        }
    }

    /// Closes a connection that cannot be read, before it has a request.
    pub(super) fn recv_failed(self: &Rc<Self>, error: &io::Error, tail: impl Display) {
        log_line!(Level::Info, "*{} recv() failed ({}){tail}", self.number, ErrorText(error));
        self.close();
    }

    /// Parses what has been read before.
    fn parse_input(&self) -> Result<Parsed, BadRequest> {
        let input = &mut *self.input.borrow_mut();
        if input.is_empty() {
            return Ok(Parsed::Incomplete);
        }
        let parsed = self.parse(input)?;
        if let Parsed::Head(parts) = &parsed {
            input.advance(parts.bytes.len());
        }
        Ok(parsed)
    }

    /// Reads once, and parses. A head that comes in one piece is parsed where it was read, and only copied to where it
    /// stays; so an idle connection has no buffer.
    fn read_and_parse(&self) -> io::Result<Result<Parsed, BadRequest>> {
        if !self.input.borrow().is_empty() {
            return Ok(match self.read(READ_SIZE)? {
                0 => Ok(Parsed::Nothing),
                _ => Ok(Parsed::Incomplete),
            });
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let n = self.receive(&mut scratch[..HEAD_READ_SIZE])?;
            if n == 0 {
                return Ok(Ok(Parsed::Nothing));
            }
            let parsed = self.parse(&scratch[..n]);
            let used = match &parsed {
                Ok(Parsed::Head(parts)) => parts.bytes.len(),
                _ => 0,
            };
            if used < n {
                self.input.borrow_mut().extend_from_slice(&scratch[used..n]);
            }
            Ok(parsed)
        })
    }

    fn parse(&self, bytes: &[u8]) -> Result<Parsed, BadRequest> {
        let first = self.state.replace(State::Head) == State::Idle;
        let mut parts = Lent::new();
        if self.parse_with(bytes, &mut parts.head)? == Progress::Incomplete {
            // Before the first request it counts from the start of the connection.
            if first && self.requests.get() > 0 {
                self.start_read_timer(self.address.names.default_server().place.core.client_header_timeout);
            }
            return Ok(Parsed::Incomplete);
        }
        let head = parts.head.head_len();
        parts.bytes.extend_from_slice(&bytes[..head]);
        Ok(Parsed::Head(parts))
    }

    /// Parses with the parser that has seen the start of the head, else with that of the thread.
    fn parse_with(&self, bytes: &[u8], head: &mut Head) -> Result<Progress, BadRequest> {
        let own = &mut *self.parser.borrow_mut();
        if let Some(parser) = own {
            let progress = parser.parse(bytes, head)?;
            if progress == Progress::Complete {
                *own = None;
            }
            return Ok(progress);
        }
        let limits = self.address.head_limits;
        PARSER.with_borrow_mut(|parser| {
            parser.set_limits(limits);
            let progress = parser.parse(bytes, head);
            if progress != Ok(Progress::Complete) {
                // The rest of the head is for this one.
                *own = Some(Box::new(std::mem::replace(parser, HeadParser::new(limits))));
            }
            progress
        })
    }

    /// The client has closed where a head could have begun, or within one.
    fn end_of_input(self: &Rc<Self>) {
        if self.state.get() == State::Head {
            let text = "client closed the connection while sending a request head";
            log_line!(Level::Info, "*{} {text}{}", self.number, self.log_tail());
            return self.give_up_head(400);
        }
        self.close();
    }

    /// Makes a request of a complete head, and runs it.
    fn begin(self: &Rc<Self>, parts: Lent) {
        self.stop_read_timer();
        let default = &self.address.names.default_server().place.core;
        let facts = Facts::of(&parts.head, &parts.bytes, self.address, default.merge_slashes);
        let host = facts.as_ref().ok().and_then(|facts| facts.host);
        let name = host.map_or(&b""[..], |span| span.of(&parts.bytes));
        let mut lower = None;
        let chosen = match facts.as_ref().ok().and_then(|facts| facts.server) {
            Some(chosen) => chosen,
            None => {
                lower = name.iter().any(u8::is_ascii_uppercase).then(|| name.to_ascii_lowercase());
                let chosen = self.address.names.find(lower.as_deref().unwrap_or(name));
                if lower.is_none() && facts.is_ok() {
                    facts::note(self.address, &parts.head, &parts.bytes, name.len(), chosen);
                }
                chosen
            }
        };
        let server: &'static Server = chosen.server;
        self.requests.set(self.requests.get() + 1);
        self.queue.borrow_mut().begin_count();
        stats::add(stats::Counter::Requests, 1);
        stats::add(stats::Counter::Running, 1);
        // It would send the client's fields back, those that a page must not see among them (nginx: before any phase, too).
        let is_trace = parts.head.method() == Method::Trace;
        self.keep.set(facts.is_ok() && !is_trace && persistent(&parts.head));
        let framing = facts.as_ref().map_or(Framing::None, |facts| facts.framing);
        let is_head = parts.head.method() == Method::Head;
        self.reader.replace(match framing {
            Framing::None => BodyReader::Nothing,
            Framing::Length(length) => BodyReader::Length(length),
            Framing::Chunked => BodyReader::Chunked(Box::default()),
        });
        self.state.set(State::Busy);
        self.discarding.set(false);
        let request = Rc::new(Request::new(self.clone(), self.site, server, parts, framing, is_head));
        request.host.set(match (&lower, host) {
            (Some(lower), _) => request.store(&[lower]),
            (None, Some(span)) => Text::Head(span),
            // HTTP/1.0 may do without Host (nginx: the server's name stands in).
            (None, None) => request.store(&[server.name().as_bytes()]),
        });
        if let Some(regex) = chosen.regex {
            captures::note(&request, regex, request.host.get());
        }
        if framing == Framing::None || framing == Framing::Length(0) {
            request.body_complete.set(true);
        }
        self.request.replace(Some(request.clone()));
        if request.parts.borrow().head.facts().dropped > 0 {
            self.log_dropped(&request);
        }
        let refused = match facts {
            Ok(facts) => {
                let uri = match facts.path {
                    Normalized::Same => Text::Head(facts.raw_path),
                    Normalized::Changed(path) => request.store(&[&path]),
                };
                request.uri.set(uri);
                request.args.set(facts.args.map_or_else(Text::default, Text::Head));
                is_trace.then_some(BadRequest { status: 405, reason: "TRACE" })
            }
            Err(bad) => Some(bad),
        };
        match refused {
            None => phases::run(&request),
            Some(bad) => {
                log_line!(Level::Info, "*{} {bad}{}", self.number, request.log_tail());
                finalize::finalize(&request, Code::status(bad.status));
            }
        }
    }

    #[cold]
    fn log_dropped(&self, r: &Request) {
        let dropped = r.parts.borrow().head.facts().dropped;
        let text = "header fields with an underscore in their names (underscores_in_headers): they are dropped";
        log_line!(Level::Info, "*{} client sent {dropped} {text}{}", self.number, r.log_tail());
    }

    /// Answers a head that cannot be parsed.
    #[cold]
    pub(super) fn refuse(self: &Rc<Self>, bad: BadRequest) {
        let request = self.without_head();
        log_line!(Level::Info, "*{} {bad}{}", self.number, request.log_tail());
        finalize::finalize(&request, Code::status(bad.status));
    }

    /// Closes in the middle of a head, without an answer: nginx only logs the status.
    #[cold]
    pub(super) fn give_up_head(self: &Rc<Self>, status: u16) {
        finalize::close_unanswered(&self.without_head(), Some(status));
    }

    /// A request of which only the start of its head is known.
    fn without_head(self: &Rc<Self>) -> Rc<Request> {
        let mut parts = Lent::new();
        // What was parsed so far means nothing.
        parts.head = Head::default();
        let bad = {
            let input = self.input.borrow();
            let start = input.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(input.len());
            let line = input[start..].split(|&byte| byte == b'\n').next().unwrap_or_default();
            BadHead { line: line[..line.len().min(256)].trim_ascii_end().to_vec(), read: input.len() as u64 }
        };
        // Whatever else is wrong with it, a client that has sent HEAD takes what follows the head for the next response.
        let is_head = bad.line.starts_with(b"HEAD ");
        let server = self.address.names.default_server();
        self.keep.set(false);
        self.requests.set(self.requests.get() + 1);
        self.queue.borrow_mut().begin_count();
        stats::add(stats::Counter::Requests, 1);
        stats::add(stats::Counter::Running, 1);
        self.state.set(State::Busy);
        self.reader.replace(BodyReader::Nothing);
        let request = Rc::new(Request::new(self.clone(), self.site, server, parts, Framing::None, is_head));
        request.host.set(request.store(&[server.name().as_bytes()]));
        request.extra().bad_head.replace(bad);
        request.body_complete.set(true);
        self.request.replace(Some(request.clone()));
        request
    }
}
