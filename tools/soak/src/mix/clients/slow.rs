//! Clients that take their time.

use std::thread::sleep;
use std::time::Duration;

use super::{failed, same};
use crate::http::{Connection, Target};
use crate::mix::site;
use crate::random::{Random, noise};

/// A receive buffer that is soon full.
const SMALL_WINDOW: usize = 8 * 1024;

/// Reads a large file slowly, but never as slowly as `send_timeout`: all of it comes.
pub fn reader(target: &Target, random: &mut Random) -> Result<u64, String> {
    let mut connection = Connection::with_window(target, Some(SMALL_WINDOW)).map_err(failed("connect"))?;
    let content = site::content("1m");
    let path = if random.one_in(2) { "/1m".to_owned() } else { "/origin/length/1000000/4".to_owned() };
    let expected = if path == "/1m" { content } else { noise(4, 1_000_000) };
    let request = format!("GET {path} HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n");
    connection.send(request.as_bytes()).map_err(failed("send"))?;
    let mut all = Vec::new();
    let mut buf = vec![0; random.between(4_000, 100_000)];
    loop {
        match connection.read_some(&mut buf).map_err(failed(&request))? {
            0 => break,
            read => all.extend_from_slice(&buf[..read]),
        }
        sleep(Duration::from_millis(random.below(8) as u64));
    }
    let body = all.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
    same(&request, &all[body..], &expected)?;
    Ok(1)
}

/// Asks for a large file, and reads nothing until the server has given up.
pub fn stalled(target: &Target, random: &mut Random) -> Result<u64, String> {
    let mut connection = Connection::with_window(target, Some(SMALL_WINDOW)).map_err(failed("connect"))?;
    let path = *random.pick(&["/1m", "/origin/length/4000000/1", "/origin/chunked/4000000/1"]);
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: soak\r\n\r\n").as_bytes()).map_err(failed("send"))?;
    sleep(Duration::from_millis(2000 + random.below(2000) as u64));
    if random.one_in(2) {
        connection.reset().map_err(failed("reset"))?;
    }
    Ok(0)
}

/// Sends a head byte by byte. In time it is answered, else the connection is closed, without an answer (nginx).
pub fn sender(target: &Target, random: &mut Random) -> Result<u64, String> {
    let mut connection = Connection::open(target).map_err(failed("connect"))?;
    let head = b"GET /ok HTTP/1.1\r\nHost: soak\r\nX-Slow: 1234567890\r\nConnection: close\r\n\r\n";
    // Together about 1 s, or 6 s: client_header_timeout is 2 s for the whole head.
    let (pause, late) = if random.one_in(2) { (10, false) } else { (90, true) };
    for byte in head {
        if connection.send(&[*byte]).is_err() {
            break;
        }
        sleep(Duration::from_millis(random.between(pause / 2, pause) as u64));
    }
    match (connection.answer(false), late) {
        (Ok(answer), false) if answer.status == 200 => same("a slow head", &answer.body, b"ok").map(|()| 1),
        // Closed without an answer, or with a reset because of what came too late.
        (Err(_), true) => Ok(0),
        (Ok(answer), _) => Err(format!("a head sent in pieces, late {late}: status {}", answer.status)),
        (Err(error), false) => Err(format!("a head sent in pieces: {error}")),
    }
}

/// Asks once, or not at all, and stays until the server closes.
pub fn idle(target: &Target, random: &mut Random) -> Result<u64, String> {
    let mut connection = Connection::open(target).map_err(failed("connect"))?;
    let asks = random.one_in(2);
    if asks {
        connection.send(b"GET /ok HTTP/1.1\r\nHost: soak\r\n\r\n").map_err(failed("send"))?;
        let answer = connection.answer(false).map_err(failed("an answer"))?;
        same("/ok", &answer.body, b"ok")?;
    }
    if random.one_in(2) {
        sleep(Duration::from_millis(random.below(1000) as u64));
        return Ok(u64::from(asks));
    }
    let rest = connection.rest().map_err(failed("an idle connection is to be closed"))?;
    match rest.is_empty() {
        true => Ok(u64::from(asks)),
        false => Err(format!("an idle connection got {:?}", String::from_utf8_lossy(&rest))),
    }
}
