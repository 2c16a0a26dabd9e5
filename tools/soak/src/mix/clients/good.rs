//! Clients that do what they should: each answer is checked byte by byte.

use std::io::Read;

use super::{failed, same};
use crate::http::{Answer, Connection, Target};
use crate::mix::origin;
use crate::mix::site::{self, FILES, LISTED, MAX_BODY};
use crate::random::{Random, noise};

/// Something to ask for, and what has to come back.
struct Wanted {
    request: String,
    status: u16,
    body: Vec<u8>,
    head: bool,
}

impl Wanted {
    fn get(path: &str, status: u16, body: Vec<u8>) -> Wanted {
        Wanted { request: format!("GET {path} HTTP/1.1\r\nHost: soak\r\n\r\n"), status, body, head: false }
    }

    /// Anything cheap: a file, its head, a fixed answer, one that is not there.
    fn any(random: &mut Random) -> Wanted {
        let (name, ..) = FILES[random.below(FILES.len() - 2)];
        match random.below(8) {
            0 => Wanted::get("/ok", 200, b"ok".to_vec()),
            1 => Wanted::head(name),
            2 => Wanted::get("/not/there", 404, Vec::new()),
            3 => Wanted::get(&format!("/cached/{name}"), 200, site::content(name)),
            _ => Wanted::get(&format!("/{name}"), 200, site::content(name)),
        }
    }

    fn head(name: &str) -> Wanted {
        let request = format!("HEAD /{name} HTTP/1.1\r\nHost: soak\r\n\r\n");
        Wanted { request, status: 200, body: Vec::new(), head: true }
    }

    fn check(&self, answer: &Answer) -> Result<(), String> {
        let what = self.request.lines().next().unwrap_or_default();
        if answer.status != self.status {
            return Err(format!("{what}: status {} instead of {}", answer.status, self.status));
        }
        // An error page is the server's own.
        if self.status == 200 { same(what, &answer.body, &self.body) } else { Ok(()) }
    }
}

/// One request after the other.
pub fn keepalive(target: &Target, random: &mut Random) -> Result<u64, String> {
    let mut connection = Connection::open(target).map_err(failed("connect"))?;
    let number = random.between(1, 20);
    for _ in 0..number {
        let wanted = Wanted::any(random);
        connection.send(wanted.request.as_bytes()).map_err(failed("send"))?;
        let answer = connection.answer(wanted.head).map_err(failed(&wanted.request))?;
        wanted.check(&answer)?;
    }
    Ok(number as u64)
}

/// Many requests at once, cut anywhere; answers in order.
pub fn pipelined(target: &Target, random: &mut Random) -> Result<u64, String> {
    let mut connection = Connection::open(target).map_err(failed("connect"))?;
    let all: Vec<Wanted> = (0..random.between(2, 12)).map(|_| Wanted::any(random)).collect();
    let text: String = all.iter().map(|wanted| &*wanted.request).collect();
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(random.between(1, rest.len()));
        connection.send(piece).map_err(failed("send"))?;
        rest = after;
    }
    for wanted in &all {
        wanted.check(&connection.answer(wanted.head).map_err(failed(&wanted.request))?)?;
    }
    Ok(all.len() as u64)
}

/// Parts of files.
pub fn ranges(target: &Target, random: &mut Random) -> Result<u64, String> {
    let mut connection = Connection::open(target).map_err(failed("connect"))?;
    let name = *random.pick(&["10k", "100k", "1m"]);
    let content = site::content(name);
    let number = random.between(1, 5);
    for _ in 0..number {
        let start = random.below(content.len());
        let end = random.between(start, content.len() - 1);
        let request = format!("GET /{name} HTTP/1.1\r\nHost: soak\r\nRange: bytes={start}-{end}\r\n\r\n");
        connection.send(request.as_bytes()).map_err(failed("send"))?;
        let answer = connection.answer(false).map_err(failed(&request))?;
        let said = answer.field("content-range");
        if answer.status != 206 || said != Some(&*format!("bytes {start}-{end}/{}", content.len())) {
            return Err(format!("{request}: status {}, Content-Range {said:?}", answer.status));
        }
        same(&request, &answer.body, &content[start..=end])?;
    }
    Ok(number as u64)
}

/// The list of a folder.
pub fn listing(target: &Target, random: &mut Random) -> Result<u64, String> {
    let mut connection = Connection::open(target).map_err(failed("connect"))?;
    let number = random.between(1, 3);
    for _ in 0..number {
        let wanted = Wanted::get("/list/", 200, Vec::new());
        connection.send(wanted.request.as_bytes()).map_err(failed("send"))?;
        let answer = connection.answer(false).map_err(failed("a list"))?;
        let page = String::from_utf8_lossy(&answer.body);
        let missing = (0..LISTED).find(|number| !page.contains(&format!("<a href=\"file-{number}.txt\">")));
        if answer.status != 200 || missing.is_some() {
            return Err(format!("/list/: status {}, first file that is missing: {missing:?}", answer.status));
        }
    }
    Ok(number as u64)
}

/// Text that comes compressed.
pub fn compressed(target: &Target, random: &mut Random) -> Result<u64, String> {
    let mut connection = Connection::open(target).map_err(failed("connect"))?;
    let number = random.between(1, 5);
    for _ in 0..number {
        let request = "GET /page.html HTTP/1.1\r\nHost: soak\r\nAccept-Encoding: gzip\r\n\r\n";
        connection.send(request.as_bytes()).map_err(failed("send"))?;
        let answer = connection.answer(false).map_err(failed("a compressed answer"))?;
        if (answer.status, answer.field("content-encoding")) != (200, Some("gzip")) {
            return Err(format!("status {}, Content-Encoding {:?}", answer.status, answer.field("content-encoding")));
        }
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&*answer.body).read_to_end(&mut text).map_err(failed("gunzip"))?;
        same("/page.html, compressed", &text, &site::content("page.html"))?;
    }
    Ok(number as u64)
}

/// What the origin answers, in each of its ways.
pub fn proxied(target: &Target, random: &mut Random) -> Result<u64, String> {
    let mut connection = Connection::open(target).map_err(failed("connect"))?;
    let number = random.between(1, 8);
    for _ in 0..number {
        let kind = *random.pick(&["length", "chunked", "close"]);
        let most = *random.pick(&[10, 1000, 50_000, 1_000_000]);
        let (size, seed) = (random.below(most), random.below(1000));
        let wanted = Wanted::get(&format!("/origin/{kind}/{size}/{seed}"), 200, noise(seed as u64, size));
        connection.send(wanted.request.as_bytes()).map_err(failed("send"))?;
        wanted.check(&connection.answer(false).map_err(failed(&wanted.request))?)?;
    }
    Ok(number as u64)
}

/// Bodies that go to the origin, with a length or in chunks; some are too large.
pub fn bodies(target: &Target, random: &mut Random) -> Result<u64, String> {
    let mut connection = Connection::open(target).map_err(failed("connect"))?;
    let number = random.between(1, 4);
    for done in 1..=number {
        let most = *random.pick(&[10, 1000, 100_000, MAX_BODY, 2 * MAX_BODY]);
        let body = noise(done as u64, random.below(most));
        let chunked = random.one_in(2);
        let expects = if random.one_in(4) { "Expect: 100-continue\r\n" } else { "" };
        let framing = match chunked {
            true => "Transfer-Encoding: chunked".to_owned(),
            false => format!("Content-Length: {}", body.len()),
        };
        let head = format!("POST /origin/echo HTTP/1.1\r\nHost: soak\r\n{expects}{framing}\r\n\r\n");
        let mut message = head.clone().into_bytes();
        if chunked {
            for piece in body.chunks(random.between(100, 50_000)) {
                message.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                message.extend_from_slice(piece);
                message.extend_from_slice(b"\r\n");
            }
            message.extend_from_slice(b"0\r\n\r\n");
        } else {
            message.extend_from_slice(&body);
        }
        let what = format!("request {done}, {head}({} bytes)", body.len());
        // Refused, it is read to its end all the same, so that the answer is not lost.
        connection.send(&message).map_err(failed(&what))?;
        let answer = connection.answer(false).map_err(failed(&what))?;
        let too_large = body.len() > MAX_BODY;
        let expected = if too_large { 413 } else { 200 };
        if (answer.status, answer.closes) != (expected, too_large) {
            let connection = answer.field("connection");
            return Err(format!("{what}: status {} instead of {expected}, Connection {connection:?}", answer.status));
        }
        if too_large {
            return Ok(done as u64);
        }
        same(&head, &answer.body, origin::echo(&body).as_bytes())?;
    }
    Ok(number as u64)
}
