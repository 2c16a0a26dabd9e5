//! What a listing looks like: HTML, JSON, JSONP and XML, byte by byte as nginx writes them.
//!
//! It is made in pieces, so that a large folder is not in memory as text.

use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{Offset, TimeZone},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::read::{Entry, Kind, Listing};

/// A name has so many columns in HTML.
const COLUMNS: usize = 50;

/// A piece ends when it is as long as this.
const PIECE: usize = 64 * 1024;

/// What is encoded in a link: all but the unreserved characters (RFC 3986, section 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// The form of a page.
#[derive(Clone, Debug)]
pub enum Form {
    /// A page for people.
    Html {
        /// Sizes to the byte, rather than in K, M and G.
        exact_size: bool,
        /// Times in this zone.
        zone: TimeZone,
    },
    /// For programs.
    Json,
    /// JSON in a call of this function.
    Jsonp(Vec<u8>),
    Xml,
}

impl Form {
    /// Its media type.
    pub fn content_type(&self) -> &'static str {
        match self {
            Form::Html { .. } => "text/html; charset=utf-8",
            Form::Json => "application/json",
            Form::Jsonp(_) => "application/javascript",
            Form::Xml => "text/xml; charset=utf-8",
        }
    }
}

/// A page that is being made.
pub struct Page {
    form: Form,
    listing: Listing,
    /// The next entry.
    at: usize,
    /// What comes before the entries is made.
    begun: bool,
    ended: bool,
}

impl Page {
    pub fn new(form: Form, listing: Listing) -> Page {
        Page { form, listing, at: 0, begun: false, ended: false }
    }

    /// Its media type.
    pub fn content_type(&self) -> &'static str {
        self.form.content_type()
    }

    /// Whether all of it is made.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// The next piece. `uri` is that of the folder, as it is shown.
    pub fn piece(&mut self, uri: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(PIECE.min(1024 + (self.listing.len() - self.at) * 160));
        if !self.begun {
            self.begun = true;
            start(&self.form, uri, &mut out);
        }
        for (name, entry) in self.listing.from(self.at) {
            if out.len() >= PIECE {
                return out;
            }
            match &self.form {
                Form::Html { exact_size, zone } => html(name, entry, *exact_size, zone, &mut out),
                Form::Json | Form::Jsonp(_) => json(name, entry, self.at == 0, &mut out),
                Form::Xml => xml(name, entry, &mut out),
            }
            self.at += 1;
        }
        end(&self.form, &mut out);
        self.ended = true;
        out
    }
}

fn start(form: &Form, uri: &[u8], out: &mut Vec<u8>) {
    match form {
        Form::Html { .. } => {
            out.extend_from_slice(b"<html>\r\n<head><title>Index of ");
            escape_html(uri, out);
            out.extend_from_slice(b"</title></head>\r\n<body>\r\n<h1>Index of ");
            escape_html(uri, out);
            out.extend_from_slice(b"</h1><hr><pre><a href=\"../\">../</a>\r\n");
        }
        Form::Json => out.push(b'['),
        Form::Jsonp(callback) => {
            // The comment keeps what is taken for something else than a script from starting with the callback.
            out.extend_from_slice(b"/* callback */\r\n");
            out.extend_from_slice(callback);
            out.extend_from_slice(b"([");
        }
        Form::Xml => out.extend_from_slice(b"<?xml version=\"1.0\"?>\r\n<list>\r\n"),
    }
}

fn end(form: &Form, out: &mut Vec<u8>) {
    out.extend_from_slice(match form {
        Form::Html { .. } => b"</pre><hr></body>\r\n</html>\r\n",
        Form::Json => b"\r\n]",
        Form::Jsonp(_) => b"\r\n]);",
        Form::Xml => b"</list>\r\n",
    });
}

/// `<a href="name">name</a>      26-Nov-2026 01:50      123`
fn html(name: &[u8], entry: &Entry, exact_size: bool, zone: &TimeZone, out: &mut Vec<u8>) {
    let is_folder = entry.kind == Kind::Folder;
    out.extend_from_slice(b"<a href=\"");
    percent_encode(name, ENCODED).for_each(|part| out.extend_from_slice(part.as_bytes()));
    out.extend_from_slice(if is_folder { b"/\">" } else { b"\">" });
    let shown = Shown::of(name);
    escape_html(shown.text, out);
    let mut columns = shown.columns;
    if columns > COLUMNS {
        out.extend_from_slice(b"..&gt;</a>");
    } else {
        if is_folder && columns < COLUMNS {
            out.push(b'/');
            columns += 1;
        }
        out.extend_from_slice(b"</a>");
        fill(COLUMNS - columns, out);
    }
    out.push(b' ');
    let time = local(entry.mtime, zone);
    two_digits(time.day(), b'-', out);
    out.extend_from_slice(month(time).as_bytes());
    out.push(b'-');
    number(i64::from(time.year()), out);
    out.push(b' ');
    two_digits(time.hour(), b':', out);
    two_digits(time.minute(), b' ', out);
    size(entry, exact_size, out);
    out.extend_from_slice(b"\r\n");
}

/// What is shown of a name.
struct Shown<'n> {
    /// All of it, or so much that dots behind it fill the columns.
    text: &'n [u8],
    /// How many columns all of it takes.
    columns: usize,
}

impl Shown<'_> {
    /// By characters; by bytes if it is not UTF-8.
    fn of(name: &[u8]) -> Shown<'_> {
        const CUT: usize = COLUMNS - 3;
        // Bytes are never fewer than characters.
        if name.len() <= COLUMNS && name.is_ascii() {
            return Shown { text: name, columns: name.len() };
        }
        let (columns, cut) = match std::str::from_utf8(name) {
            Ok(text) => (text.chars().count(), text.char_indices().nth(CUT).map_or(name.len(), |(at, _)| at)),
            Err(_) => (name.len(), CUT.min(name.len())),
        };
        let text = if columns > COLUMNS { &name[..cut] } else { name };
        Shown { text, columns }
    }
}

/// The size in HTML: 19 columns for bytes, 7 if it is rounded.
fn size(entry: &Entry, exact: bool, out: &mut Vec<u8>) {
    const K: u64 = 1 << 10;
    const M: u64 = 1 << 20;
    const G: u64 = 1 << 30;
    if entry.kind == Kind::Folder {
        fill(if exact { 18 } else { 6 }, out);
        return out.push(b'-');
    }
    let rounded = |unit: u64| entry.size / unit + u64::from(entry.size % unit > unit / 2 - 1);
    let (width, value, unit): (usize, u64, _) = match entry.size {
        size if exact => (19, size, None),
        size if size >= G => (6, rounded(G), Some(b'G')),
        size if size >= M => (6, rounded(M), Some(b'M')),
        size if size > 9999 => (6, rounded(K), Some(b'K')),
        size => (7, size, None),
    };
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value).as_bytes();
    fill(width.saturating_sub(digits.len()), out);
    out.extend_from_slice(digits);
    out.extend(unit);
}

/// `{ "name":"x", "type":"file", "mtime":"Thu, 26 Nov 2026 01:50:17 GMT", "size":0 }`
fn json(name: &[u8], entry: &Entry, first: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if first { b"\r\n{ \"name\":\"" } else { b",\r\n{ \"name\":\"" });
    // JSON is UTF-8 (RFC 8259, section 8.1). nginx writes what is not as it is, which no parser takes.
    escape_json(&String::from_utf8_lossy(name), out);
    out.extend_from_slice(b"\", \"type\":\"");
    out.extend_from_slice(kind(entry.kind).as_bytes());
    out.extend_from_slice(b"\", \"mtime\":\"");
    let time = utc(entry.mtime);
    out.extend_from_slice(DAYS[time.weekday().to_monday_zero_offset() as usize % 7].as_bytes());
    out.extend_from_slice(b", ");
    two_digits(time.day(), b' ', out);
    out.extend_from_slice(month(time).as_bytes());
    out.push(b' ');
    number(i64::from(time.year()), out);
    out.push(b' ');
    two_digits(time.hour(), b':', out);
    two_digits(time.minute(), b':', out);
    two_digits(time.second(), b' ', out);
    out.extend_from_slice(b"GMT\"");
    if entry.kind == Kind::File {
        out.extend_from_slice(b", \"size\":");
        out.extend_from_slice(itoa::Buffer::new().format(entry.size).as_bytes());
    }
    out.extend_from_slice(b" }");
}

/// `<file mtime="2026-11-26T01:50:17Z" size="0">x</file>`
fn xml(name: &[u8], entry: &Entry, out: &mut Vec<u8>) {
    let kind = kind(entry.kind).as_bytes();
    out.push(b'<');
    out.extend_from_slice(kind);
    out.extend_from_slice(b" mtime=\"");
    let time = utc(entry.mtime);
    let year = time.year();
    if (0..1000).contains(&year) {
        fill(4 - itoa::Buffer::new().format(year).len(), out);
    }
    number(i64::from(year), out);
    out.push(b'-');
    two_digits(time.month(), b'-', out);
    two_digits(time.day(), b'T', out);
    two_digits(time.hour(), b':', out);
    two_digits(time.minute(), b':', out);
    two_digits(time.second(), b'Z', out);
    out.push(b'"');
    if entry.kind == Kind::File {
        out.extend_from_slice(b" size=\"");
        out.extend_from_slice(itoa::Buffer::new().format(entry.size).as_bytes());
        out.push(b'"');
    }
    out.push(b'>');
    // What is not UTF-8, or a character that XML has not (XML 1.0, section 2.2), would make all of it no XML.
    let text = String::from_utf8_lossy(name);
    let is_none = |c: char| c < ' ' && !matches!(c, '\t' | '\n' | '\r') || matches!(c, '\u{fffe}' | '\u{ffff}');
    if text.contains(is_none) {
        escape_html(text.replace(is_none, "\u{fffd}").as_bytes(), out);
    } else {
        escape_html(text.as_bytes(), out);
    }
    out.extend_from_slice(b"</");
    out.extend_from_slice(kind);
    out.extend_from_slice(b">\r\n");
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Folder => "directory",
        Kind::File => "file",
        Kind::Other => "other",
    }
}

fn utc(seconds: i64) -> DateTime {
    Offset::UTC.to_datetime(timestamp(seconds))
}

fn local(seconds: i64, zone: &TimeZone) -> DateTime {
    zone.to_datetime(timestamp(seconds))
}

/// What is before or behind all that can be written (the years -9999 to 9999) becomes the first or last of that.
fn timestamp(seconds: i64) -> Timestamp {
    let end = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(seconds).unwrap_or(end)
}

fn month(time: DateTime) -> &'static str {
    MONTHS.get(usize::try_from(time.month() - 1).unwrap_or(0)).copied().unwrap_or_default()
}

fn number(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// A number of two digits, and what follows it.
fn two_digits(value: i8, behind: u8, out: &mut Vec<u8>) {
    let value = value.unsigned_abs();
    out.extend_from_slice(&[b'0' + value / 10 % 10, b'0' + value % 10, behind]);
}

fn fill(columns: usize, out: &mut Vec<u8>) {
    out.resize(out.len() + columns, b' ');
}

fn escape_html(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| b"<>&\"".contains(byte)) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(match rest[at] {
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            b'&' => b"&amp;",
            _ => b"&quot;",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// RFC 8259, section 7.
fn escape_json(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => {
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: i64 = 784_111_777;

    fn page(form: Form, entries: &[(&[u8], Kind, i64, u64)]) -> String {
        let mut page = Page::new(form, Listing::of(entries));
        let mut out = Vec::new();
        while !page.is_ended() {
            out.extend(page.piece(b"/a&b/"));
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    fn lines(exact_size: bool, entries: &[(&[u8], Kind, i64, u64)]) -> Vec<String> {
        let page = page(Form::Html { exact_size, zone: TimeZone::UTC }, entries);
        page.split("\r\n").skip(4).take(entries.len()).map(str::to_owned).collect()
    }

    #[test]
    fn html_has_a_line_for_each_entry() {
        let entries: &[(&[u8], Kind, i64, u64)] =
            &[(b"sub", Kind::Folder, TIME, 4096), (b"a b<.txt", Kind::File, TIME, 12), (b"x", Kind::Other, TIME, 7)];
        let spaces = |n| " ".repeat(n);
        let time = "06-Nov-1994 08:49";
        assert_eq!(
            page(Form::Html { exact_size: true, zone: TimeZone::UTC }, entries),
            format!(
                "<html>\r\n<head><title>Index of /a&amp;b/</title></head>\r\n<body>\r\n<h1>Index of /a&amp;b/</h1><hr><pre>\
                 <a href=\"../\">../</a>\r\n\
                 <a href=\"sub/\">sub/</a>{} {time} {}-\r\n\
                 <a href=\"a%20b%3C.txt\">a b&lt;.txt</a>{} {time} {}12\r\n\
                 <a href=\"x\">x</a>{} {time} {}7\r\n</pre><hr></body>\r\n</html>\r\n",
                spaces(46),
                spaces(18),
                spaces(42),
                spaces(17),
                spaces(49),
                spaces(18),
            )
        );
    }

    #[test]
    fn sizes_are_rounded_as_by_nginx() {
        let sizes = |sizes: &[u64]| {
            let entries: Vec<_> = sizes.iter().map(|&size| (&b"x"[..], Kind::File, TIME, size)).collect();
            let lines = lines(false, &entries);
            lines.iter().map(|line| line[line.len() - 8..].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            sizes(&[0, 9999, 10_000, 10_751, 10_752, 1_048_575, 1_048_576, 1_572_863, 1_572_864]),
            [
                "       0", "    9999", "     10K", "     10K", "     11K", "   1024K", "      1M", "      1M",
                "      2M"
            ]
        );
        assert_eq!(
            sizes(&[(1 << 30) - 1, 1 << 30, (3 << 29) - 1, 3 << 29, 5 << 40]),
            ["   1024M", "      1G", "      1G", "      2G", "   5120G"]
        );
        assert!(lines(false, &[(b"x", Kind::Folder, TIME, 0)])[0].ends_with(" 08:49       -"));
    }

    #[test]
    fn long_names_are_cut_by_characters() {
        let shown = |name: &str| {
            let line = lines(true, &[(name.as_bytes(), Kind::File, TIME, 0)]).remove(0);
            line.split_once("\">").and_then(|(_, rest)| rest.split_once(" 06-Nov")).expect("a line").0.to_owned()
        };
        assert_eq!(shown(&"n".repeat(50)), "n".repeat(50) + "</a>");
        assert_eq!(shown(&"n".repeat(51)), "n".repeat(47) + "..&gt;</a>");
        assert_eq!(shown(&"\u{e9}".repeat(50)), "\u{e9}".repeat(50) + "</a>");
        assert_eq!(shown(&"\u{e9}".repeat(51)), "\u{e9}".repeat(47) + "..&gt;</a>");
        assert_eq!(shown("\u{e9}"), "\u{e9}</a>".to_owned() + &" ".repeat(49));
        let folder = |len: usize| lines(true, &[("d".repeat(len).as_bytes(), Kind::Folder, TIME, 0)]).remove(0);
        assert!(
            folder(49).contains("d/</a> 06")
                && folder(50).contains("d</a> 06")
                && folder(51).contains("d..&gt;</a> 06")
        );
    }

    #[test]
    fn json_is_valid_whatever_a_name_is() {
        let entries: &[(&[u8], Kind, i64, u64)] = &[
            (b"sub", Kind::Folder, TIME, 4096),
            (b"a\"\\\x01\n\xffb", Kind::File, TIME, 12),
            (b"broken", Kind::Other, TIME, 7),
        ];
        let mtime = "\"mtime\":\"Sun, 06 Nov 1994 08:49:37 GMT\"";
        let json = format!(
            "[\r\n{{ \"name\":\"sub\", \"type\":\"directory\", {mtime} }},\r\n\
             {{ \"name\":\"a\\\"\\\\\\u0001\\n\u{fffd}b\", \"type\":\"file\", {mtime}, \"size\":12 }},\r\n\
             {{ \"name\":\"broken\", \"type\":\"other\", {mtime} }}\r\n]"
        );
        assert_eq!(page(Form::Json, entries), json);
        assert_eq!(page(Form::Jsonp(b"f.g".to_vec()), entries), format!("/* callback */\r\nf.g({json});"));
        assert_eq!(page(Form::Json, &[]), "[\r\n]");
    }

    #[test]
    fn xml_is_valid_whatever_a_name_is() {
        let entries: &[(&[u8], Kind, i64, u64)] =
            &[(b"a<&\x01\xff\t", Kind::File, TIME, 12), (b"sub", Kind::Folder, -1, 0)];
        assert_eq!(
            page(Form::Xml, entries),
            "<?xml version=\"1.0\"?>\r\n<list>\r\n\
             <file mtime=\"1994-11-06T08:49:37Z\" size=\"12\">a&lt;&amp;\u{fffd}\u{fffd}\t</file>\r\n\
             <directory mtime=\"1969-12-31T23:59:59Z\">sub</directory>\r\n</list>\r\n"
        );
    }

    #[test]
    fn times_that_no_calendar_has_do_no_harm() {
        for time in [i64::MIN, -1, 0, i64::MAX] {
            for form in [Form::Json, Form::Xml, Form::Html { exact_size: true, zone: TimeZone::UTC }] {
                assert!(page(form, &[(b"x", Kind::File, time, u64::MAX)]).contains("18446744073709551615"));
            }
        }
    }

    #[test]
    fn a_large_folder_comes_in_pieces() {
        let names: Vec<String> = (0..5000).map(|i| format!("file{i:05}.txt")).collect();
        let entries: Vec<_> = names.iter().map(|name| (name.as_bytes(), Kind::File, TIME, 1)).collect();
        let mut page = Page::new(Form::Json, Listing::of(&entries));
        let (mut pieces, mut longest) = (0, 0);
        while !page.is_ended() {
            longest = longest.max(page.piece(b"/").len());
            pieces += 1;
        }
        assert!(pieces > 5 && longest < PIECE + 1024, "{pieces} pieces, the longest of {longest}");
    }
}
