//! What came of each peer that a request was sent to, for the variables `$upstream_...` (nginx: upstream_states).
//!
//! Values of several peers are joined by `, `, and by ` : ` where an internal redirect led to another upstream; `-` stands
//! for what an attempt did not come to.

use crate::request::Request;

/// One peer, asked once. Times are in milliseconds since the attempt began.
#[derive(Debug)]
pub struct Attempt {
    /// The address of the peer; the name of the upstream if it had no live one.
    peer: &'static str,
    /// It is the first of its upstream.
    is_first: bool,
    /// On the loop's clock.
    started_ms: u64,
    status: u16,
    connect_ms: Option<u64>,
    header_ms: Option<u64>,
    response_ms: Option<u64>,
    sent: u64,
    received: u64,
    /// Of what was received.
    header_size: u64,
}

impl Attempt {
    /// An attempt that begins now.
    pub fn new(peer: &'static str, is_first: bool, now_ms: u64) -> Attempt {
        Attempt {
            peer,
            is_first,
            started_ms: now_ms,
            status: 0,
            connect_ms: None,
            header_ms: None,
            response_ms: None,
            sent: 0,
            received: 0,
            header_size: 0,
        }
    }

    fn since_start(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.started_ms)
    }

    /// There is a connection; one that was kept is there at once.
    pub fn connected(&mut self, now_ms: u64) {
        self.connect_ms = self.connect_ms.or(Some(self.since_start(now_ms)));
    }

    /// Bytes have come.
    pub fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// The header has come, and with it `rest` bytes of the body.
    pub fn header_done(&mut self, status: u16, rest: usize, now_ms: u64) {
        self.status = status;
        self.header_ms = Some(self.since_start(now_ms));
        self.header_size = self.received.saturating_sub(rest as u64);
    }

    /// It is over, in vain if a status is given. Only the first end counts.
    pub fn end(&mut self, failed: Option<u16>, sent: u64, now_ms: u64) {
        if self.response_ms.is_none() {
            self.status = failed.unwrap_or(self.status);
            self.sent = sent;
            self.response_ms = Some(self.since_start(now_ms));
        }
    }

    /// Address of the peer.
    pub fn write_addr(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.peer.as_bytes());
    }

    /// Status of its response.
    pub fn write_status(&self, out: &mut Vec<u8>) {
        write_number((self.status > 0).then_some(u64::from(self.status)), out);
    }

    /// Time until there was a connection.
    pub fn write_connect_time(&self, out: &mut Vec<u8>) {
        write_seconds(self.connect_ms, out);
    }

    /// Time until its header was there.
    pub fn write_header_time(&self, out: &mut Vec<u8>) {
        write_seconds(self.header_ms, out);
    }

    /// Time until the end of its response.
    pub fn write_response_time(&self, out: &mut Vec<u8>) {
        write_seconds(self.response_ms, out);
    }

    /// Bytes of the body that it sent, framing included.
    pub fn write_response_length(&self, out: &mut Vec<u8>) {
        write_number(Some(if self.header_ms.is_some() { self.received - self.header_size } else { 0 }), out);
    }

    /// Bytes received from it.
    pub fn write_bytes_received(&self, out: &mut Vec<u8>) {
        write_number(Some(self.received), out);
    }

    /// Bytes sent to it.
    pub fn write_bytes_sent(&self, out: &mut Vec<u8>) {
        write_number(Some(self.sent), out);
    }
}

fn write_number(number: Option<u64>, out: &mut Vec<u8>) {
    match number {
        Some(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        None => out.push(b'-'),
    }
}

fn write_seconds(ms: Option<u64>, out: &mut Vec<u8>) {
    match ms {
        Some(ms) => out.extend_from_slice(format!("{}.{:03}", ms / 1000, ms % 1000).as_bytes()),
        None => out.push(b'-'),
    }
}

/// Writes a value of all attempts of a request; false if there was none.
pub fn write(r: &Request, out: &mut Vec<u8>, value: fn(&Attempt, &mut Vec<u8>)) -> bool {
    let Some(extra) = r.extra.get() else { return false };
    let attempts = extra.attempts.borrow();
    for (number, attempt) in attempts.iter().enumerate() {
        if number > 0 {
            out.extend_from_slice(if attempt.is_first { b" : " } else { b", " });
        }
        value(attempt, out);
    }
    !attempts.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_told_as_far_as_it_came() {
        let mut attempt = Attempt::new("127.0.0.1:1", true, 1000);
        let texts = |attempt: &Attempt| {
            let values: [fn(&Attempt, &mut Vec<u8>); 8] = [
                Attempt::write_addr,
                Attempt::write_status,
                Attempt::write_connect_time,
                Attempt::write_header_time,
                Attempt::write_response_time,
                Attempt::write_response_length,
                Attempt::write_bytes_received,
                Attempt::write_bytes_sent,
            ];
            let mut out = Vec::new();
            values.iter().for_each(|value| {
                value(attempt, &mut out);
                out.push(b' ');
            });
            String::from_utf8(out).expect("ASCII")
        };
        assert_eq!(texts(&attempt), "127.0.0.1:1 - - - - 0 0 0 ");
        attempt.connected(1001);
        attempt.connected(1500);
        attempt.received(100);
        attempt.header_done(200, 20, 1050);
        attempt.received(30);
        attempt.end(None, 70, 3007);
        attempt.end(Some(502), 80, 4000);
        assert_eq!(texts(&attempt), "127.0.0.1:1 200 0.001 0.050 2.007 50 130 70 ");
    }
}
