//! Compares what two servers answer, before they are measured: else they might not do the same work.

use std::io::Read;

use crate::cases::{Case, Request, Same};
use crate::client::Client;
use crate::server::Server;

/// How much longer than nginx's topnext's compressed output may be.
const MAX_GZIP_RATIO: f64 = 1.1;

/// Asks both for the first request of the case: 200, and the same as far as the case wants it. To the others both must
/// answer the same status and body, whatever they are.
pub fn same(case: &Case, topnext: &Server, nginx: &Server) -> Result<(), String> {
    let requests = (case.requests)();
    let first = requests.first().ok_or("the case asks for nothing")?;
    let (ours, theirs) = (answer(topnext, first)?, answer(nginx, first)?);
    for (server, answer) in [(topnext, &ours), (nginx, &theirs)] {
        if answer.0 != 200 {
            return Err(server.explain(&format!("answers {} with status {} instead of 200", first.path, answer.0)));
        }
    }
    compare(case.same, &ours.1, &theirs.1).map_err(|difference| format!("{}: {difference}", first.path))?;
    for request in requests.iter().skip(1) {
        let (ours, theirs) = (answer(topnext, request)?, answer(nginx, request)?);
        if ours != theirs {
            let text = |answer: &(u16, Vec<u8>)| format!("{} {}", answer.0, String::from_utf8_lossy(&answer.1));
            return Err(format!("{request:?}: topnext answers {:?}, nginx {:?}", text(&ours), text(&theirs)));
        }
    }
    Ok(())
}

fn answer(server: &Server, request: &Request) -> Result<(u16, Vec<u8>), String> {
    let answer = Client::connect(server.address()).and_then(|mut client| client.ask(request));
    answer.map(|answer| (answer.status, answer.body)).map_err(|message| server.explain(&message))
}

/// What is different, if it matters.
fn compare(same: Same, ours: &[u8], theirs: &[u8]) -> Result<(), String> {
    match same {
        Same::Body => equal(ours, theirs),
        Same::Gzip => {
            let ratio = ours.len() as f64 / theirs.len() as f64;
            eprintln!("compressed: topnext {} bytes, nginx {}", ours.len(), theirs.len());
            if ratio > MAX_GZIP_RATIO {
                return Err(format!("topnext's output is {ratio:.2} times nginx's, more than {MAX_GZIP_RATIO}"));
            }
            equal(&unzip(ours)?, &unzip(theirs)?)
        }
        Same::Links => {
            let (ours, theirs) = (links(ours), links(theirs));
            if theirs.len() < crate::files::LISTED {
                return Err(format!("only {} links", theirs.len()));
            }
            match ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs) {
                Some((ours, theirs)) => Err(format!("topnext links to {ours:?}, nginx to {theirs:?}")),
                None if ours.len() != theirs.len() => {
                    Err(format!("topnext has {} links, nginx {}", ours.len(), theirs.len()))
                }
                None => Ok(()),
            }
        }
    }
}

fn equal(ours: &[u8], theirs: &[u8]) -> Result<(), String> {
    if ours == theirs {
        return Ok(());
    }
    let at = ours.iter().zip(theirs).take_while(|(ours, theirs)| ours == theirs).count();
    Err(format!("the bodies differ from byte {at} on: topnext sends {} bytes, nginx {}", ours.len(), theirs.len()))
}

fn unzip(body: &[u8]) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let read = flate2::read::GzDecoder::new(body).read_to_end(&mut content);
    read.map(|_| content).map_err(|error| format!("a body is not gzip: {error}"))
}

/// What the links of a page lead to, with escapes in one case.
fn links(page: &[u8]) -> Vec<String> {
    let page = String::from_utf8_lossy(page);
    page.split("href=\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_ascii_lowercase())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(content: &[u8], level: u32) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        gzip.write_all(content).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn bodies_differ_at_a_place() {
        assert_eq!(compare(Same::Body, b"abc", b"abc"), Ok(()));
        assert_eq!(
            compare(Same::Body, b"abcd", b"abx"),
            Err("the bodies differ from byte 2 on: topnext sends 4 bytes, nginx 3".into())
        );
    }

    #[test]
    fn gzip_may_differ_but_not_its_content_nor_much_in_length() {
        let page = crate::files::page(30_000);
        assert_eq!(compare(Same::Gzip, &gzip(&page, 6), &gzip(&page, 1)), Ok(()));
        assert!(compare(Same::Gzip, &gzip(&page, 0), &gzip(&page, 1)).unwrap_err().contains("more than 1.1"));
        assert!(compare(Same::Gzip, &gzip(&page[1..], 1), &gzip(&page, 1)).unwrap_err().contains("from byte 0"));
        assert!(compare(Same::Gzip, b"x", b"xx").unwrap_err().contains("not gzip"));
    }

    #[test]
    fn lists_link_to_the_same() {
        let list = |names: &[&str]| {
            let fill = (0..crate::files::LISTED).map(|number| format!("<a href=\"{number}\">"));
            fill.chain(names.iter().map(|name| format!("<a href=\"{name}\">{name}</a>")))
                .collect::<String>()
                .into_bytes()
        };
        assert_eq!(compare(Same::Links, &list(&["%C3%A9"]), &list(&["%c3%a9"])), Ok(()));
        assert!(compare(Same::Links, &list(&["a"]), &list(&["b"])).unwrap_err().contains("links to \"a\""));
        assert!(compare(Same::Links, &list(&["a"]), &list(&[])).unwrap_err().contains("1001 links"));
        assert!(compare(Same::Links, b"", b"").unwrap_err().contains("only 0 links"));
    }
}
