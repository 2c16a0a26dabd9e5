//! Lists folders: for URIs that end in a slash, where no index file was found (nginx: the autoindex module).
//!
//! ```toml
//! [[http.server.location]]
//! path = "/pub/"
//! autoindex = { enabled = true, exact_size = false, localtime = true }
//!
//! [[http.server.location]]
//! path = "/api/files/"
//! autoindex = { enabled = true, format = "json" }
//! ```
//!
//! Folders come first, then the others, by the bytes of their names. Names that begin with a dot are left out, and links are
//! shown as what they lead to, or as links where `disable_symlinks` forbids to follow them. What is sent is what nginx sends, but JSON and XML are valid also where a name is not UTF-8.
//!
//! The host opens the folder, and the thread pool reads it, a few folders at once. Its entries are kept for as long as the client takes, about 60 bytes each, but not the
//! text, which is made as it is sent. A folder of more than 24 megabytes of entries, some 300,000, is answered with 500.

#![forbid(unsafe_code)]

mod page;
mod read;
mod turns;

use std::sync::Arc;

use jiff::tz::TimeZone;
use topnext_module_api::prelude::*;

use page::{Form, Page};
use read::{Failed, Listing};
pub use turns::Turns;
use turns::{Taken, Ticket, Turn};

/// The table `autoindex`.
#[derive(Config)]
pub struct Table {
    /// Whether folders are listed.
    #[config(default = false)]
    enabled: bool,
    /// Whether sizes are to the byte, rather than rounded to K, M and G. For HTML.
    #[config(default = true)]
    exact_size: bool,
    /// The form: html, json, jsonp (in a call of the function that the argument `callback` names), xml.
    #[config(default = "html")]
    format: Format,
    /// Whether times are of the server's time zone, rather than UTC. For HTML.
    #[config(default = false)]
    localtime: bool,
}

/// The form of a listing.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A page for people.
    Html,
    /// An array of objects.
    Json,
    /// The same in a call of a function, for pages of other sites.
    Jsonp,
    /// A list of elements.
    Xml,
}

/// How folders of a location are listed.
pub struct Autoindex {
    format: Format,
    exact_size: bool,
    zone: TimeZone,
    turns: Arc<Turns>,
}

/// How far a request is.
enum Context {
    /// Other folders are read.
    Waiting(File, Arc<Ticket>),
    /// The pool reads the folder.
    Reading(Job<Result<Listing, Failed>>),
    /// The client takes the page.
    Sending(Page),
}

/// The longest name of a callback.
const MAX_CALLBACK: usize = 128;

export_module! {
    name: "autoindex",
    module: Autoindex,
    provides: [phases],
    state: Turns,
    // An index file comes in place of a listing.
    after: ["index"],
}

impl PhaseHandler for Autoindex {
    const PHASES: &'static [Phase] = &[Phase::Content];

    fn handler(&self, r: &mut Request<'_>, _: Phase) -> Code {
        if let Some(mut context) = r.context::<Context>() {
            return match &mut *context {
                Context::Sending(page) => send(r, page),
                Context::Waiting(folder, ticket) => match ticket.turn() {
                    None => Code::AGAIN,
                    Some(turn) => match read(r, folder.clone(), turn) {
                        Ok(job) => {
                            *context = Context::Reading(job);
                            Code::AGAIN
                        }
                        Err(code) => code,
                    },
                },
                Context::Reading(job) => match job.poll() {
                    None => Code::AGAIN,
                    Some(Ok(Ok(listing))) => {
                        let Some(form) = self.form(r) else { return Code::status(400) };
                        report_hidden(r, &listing);
                        let mut page = Page::new(form, listing);
                        let code = begin(r, &mut page);
                        *context = Context::Sending(page);
                        code
                    }
                    Some(Ok(Err(failed))) => fail(r, &failed),
                    Some(Err(_)) => Code::status(500),
                },
            };
        }

        if !r.uri().ends_with(b"/") || !matches!(r.method(), b"GET" | b"HEAD") || r.filename().is_empty() {
            return Code::DECLINED;
        }
        if self.form(r).is_none() {
            log!(r, Level::Info, "client sent invalid callback name: {:?}", String::from_utf8_lossy(r.args()));
            return Code::status(400);
        }
        let folder = match r.open_file(r.filename()) {
            Opened::File(file) if file.kind() == FileKind::Directory => file,
            Opened::File(_) => return Code::DECLINED,
            Opened::Pending => return Code::AGAIN,
            Opened::NotFound => return cannot_open(r, 404),
            Opened::Forbidden => return cannot_open(r, 403),
            // The host has logged it.
            Opened::Failed => return Code::status(500),
        };
        if r.method() == b"HEAD" {
            let Some(form) = self.form(r) else { return Code::status(400) };
            return begin(r, &mut Page::new(form, Listing::default()));
        }
        let taken = self.turns.take(|| {
            let waker = r.waker();
            move || waker.wake()
        });
        let context = match taken {
            Taken::Now(turn) => match read(r, folder, turn) {
                Ok(job) => Context::Reading(job),
                Err(code) => return code,
            },
            Taken::Later(ticket) => Context::Waiting(folder, ticket),
            Taken::Never => {
                log!(r, Level::Error, "too many requests wait for folders to be read");
                return Code::status(503);
            }
        };
        r.set_context(context);
        Code::AGAIN
    }
}

/// Has the pool read the folder.
fn read(r: &mut Request<'_>, folder: File, turn: Turn) -> Result<Job<Result<Listing, Failed>>, Code> {
    let follows_links = r.follows_symlinks();
    let job = r.offload_while_wanted(move |wanted| {
        let _turn = turn;
        Listing::read(&folder, follows_links, wanted)
    });
    job.ok_or_else(|| {
        log!(r, Level::Error, "the thread pool's queue is full");
        Code::status(503)
    })
}

fn cannot_open(r: &Request<'_>, status: u16) -> Code {
    let path = String::from_utf8_lossy(r.filename());
    log!(r, Level::Error, "opendir() {path:?} failed ({})", r.open_error());
    Code::status(status)
}

/// Sends the header, and begins with the page.
fn begin(r: &mut Request<'_>, page: &mut Page) -> Code {
    r.set_status(200);
    r.set_header_out("Content-Type", page.content_type());
    match r.send_header() {
        Code::OK | Code::AGAIN => {}
        other => return other,
    }
    if r.method() == b"HEAD" {
        return r.output(Buf::last());
    }
    send(r, page)
}

/// Sends as much as is taken at once.
fn send(r: &mut Request<'_>, page: &mut Page) -> Code {
    while !page.is_ended() {
        let mut piece = Buf::from(page.piece(r.uri()));
        piece.set_last(page.is_ended());
        match r.output(piece) {
            Code::OK => {}
            other => return other,
        }
    }
    Code::OK
}

/// Tells the log why there is no listing, and answers the client.
fn fail(r: &Request<'_>, failed: &Failed) -> Code {
    let path = String::from_utf8_lossy(r.filename());
    let (level, status, text) = match failed {
        Failed::Open(error) => (Level::Crit, 500, format!("opendir() {path:?} failed ({error})")),
        Failed::Unwanted => return Code::ERROR,
        Failed::Read(error) => (Level::Crit, 500, format!("readdir() {path:?} failed ({error})")),
        Failed::Stat(name, error) => {
            (Level::Crit, 500, format!("stat() of {:?} in {path:?} failed ({error})", String::from_utf8_lossy(name)))
        }
        Failed::TooMany => (Level::Error, 500, format!("{path:?} has too many entries to be listed")),
    };
    log!(r, level, "{text}");
    Code::status(status)
}

fn report_hidden(r: &Request<'_>, listing: &Listing) {
    if let Some((count, first)) = &listing.hidden {
        let (path, first) = (String::from_utf8_lossy(r.filename()), String::from_utf8_lossy(first));
        log!(r, Level::Crit, "stat() of {first:?} in {path:?} failed (13: Permission denied): {count} are left out");
    }
}

impl Autoindex {
    /// The form that this request gets; `None` for a callback that is no name.
    fn form(&self, r: &Request<'_>) -> Option<Form> {
        Some(match self.format {
            Format::Html => Form::Html { exact_size: self.exact_size, zone: self.zone.clone() },
            Format::Json => Form::Json,
            Format::Xml => Form::Xml,
            Format::Jsonp => match callback(r.args()) {
                b"" => Form::Json,
                name if is_callback(name) => Form::Jsonp(name.to_vec()),
                _ => return None,
            },
        })
    }
}

/// The value of the argument `callback`; empty if there is none.
fn callback(args: &[u8]) -> &[u8] {
    const NAME: &[u8] = b"callback=";
    let mut args = args.split(|&byte| byte == b'&');
    let value = args.find_map(|arg| {
        let (name, value) = arg.split_at_checked(NAME.len())?;
        name.eq_ignore_ascii_case(NAME).then_some(value)
    });
    value.unwrap_or_default()
}

/// Letters, digits, `_` and `.`, so that nothing but a function of the page can be called.
fn is_callback(name: &[u8]) -> bool {
    name.len() <= MAX_CALLBACK && name.iter().all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
}

impl Module for Autoindex {
    type Config = Table;

    fn new(table: Table, setup: &Setup<'_>) -> Result<Autoindex, ConfigErrors> {
        let zone = if table.localtime { TimeZone::system() } else { TimeZone::UTC };
        Ok(Autoindex { format: table.format, exact_size: table.exact_size, zone, turns: setup.state() })
    }
}

#[cfg(test)]
mod tests {
    use super::{callback, is_callback};

    #[test]
    fn the_callback_is_an_argument() {
        assert_eq!(callback(b"a=b&callback=f.g&callback=h"), b"f.g");
        assert_eq!(callback(b"CALLBACK=x"), b"x");
        for none in [&b""[..], b"callback", b"callback=", b"xcallback=f"] {
            assert_eq!(callback(none), b"", "{}", none.escape_ascii());
        }
    }

    #[test]
    fn a_callback_is_a_name() {
        assert!(is_callback(b"jQuery_1.f") && is_callback(&[b'a'; 128]));
        for wrong in [&b"a-b"[..], b"alert(1)", b"a%2eb", b"a b", b"\xc3\xa9", &[b'a'; 129]] {
            assert!(!is_callback(wrong), "{}", wrong.escape_ascii());
        }
    }
}
