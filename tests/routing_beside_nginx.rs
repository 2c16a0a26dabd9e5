//! Servers and locations are chosen as nginx does it: one configuration, in both languages, with names and locations of
//! all kinds, and many requests, all made by chance, but the same on each run.

mod support;

use std::collections::HashSet;
use std::fmt::Write as _;

use support::nginx::Nginx;
use support::{Client, Server};

/// A location of the configuration.
struct Location {
    path: String,
    /// What is answered starts with it.
    id: String,
    /// It passes to a peer that is not there, in place of an answer.
    passes: bool,
    inner: Vec<Location>,
}

/// Numbers that are the same on each run (Knuth's MMIX generator).
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

const SEGMENTS: &[&str] = &["", "a", "b", "ab", "img", "a.php", "x.gif", "X.GIF", "api", "12", "345", "a-b", "up"];
const REGEXES: &[&str] = &[
    r"~ \.php$",
    r"~* \.(gif|jpg)$",
    r"~ ^/a",
    r"~* ^/A/",
    r"~ ^/api/(?<n>[0-9]+)",
    r"~ /img/(.*)\.gif$",
    r"~ b",
    r"~ ^/(a|b)/(.*)$",
    r"~ ^/$",
    r"~ (?<n>[a-z]+)\.php",
    r"~ [0-9]{2}",
    r"~ /(?:a|img)/",
    r"~ ^/([^/]*)/([^/]*)/([^/]*)",
    r"~ ^/.(x)?",
];
const NAMES: &[&str] = &[
    "example.com",
    "www.example.com",
    "a.example.com",
    "*.example.com",
    "*.com",
    "*.a.example.com",
    ".example.org",
    "*.example.org",
    "example.org",
    "www.example.*",
    "www.*",
    "a.*",
    "localhost",
    r"~^(?<user>[a-z]+)\.example\.net$",
    r"~^www(\d+)\.",
    r"~net$",
    r"~^(?<user>.)\.(?<n>.)\.",
];
const LABELS: &[&str] = &["www", "www1", "a", "b", "example", "com", "org", "net", "localhost", "WWW", "Example"];

/// A path below `base` that is not in `taken`.
fn path(chance: &mut Chance, base: &str, taken: &mut HashSet<String>) -> Option<String> {
    let mut text = base.to_string();
    for _ in 0..1 + chance.below(3) {
        if !text.ends_with('/') {
            text.push('/');
        }
        text.push_str(chance.of(SEGMENTS));
    }
    // nginx keeps exact paths and prefixes apart, and so does the caller: by a text of its own for each.
    (!text.contains("//") && taken.insert(text.clone())).then_some(text)
}

fn locations(chance: &mut Chance, id: &str, base: &str, depth: usize) -> Vec<Location> {
    let (mut list, mut prefixes, mut exact, mut regexes) = (Vec::new(), HashSet::new(), HashSet::new(), HashSet::new());
    for number in 0..if depth == 0 { 14 } else { 4 } {
        let kind = chance.below(8);
        let (modifier, text, base) = match kind {
            0..3 => {
                let regex = chance.of(REGEXES);
                if !regexes.insert(regex) {
                    continue;
                }
                ("", regex.to_string(), "/".to_string())
            }
            3 => match path(chance, base, &mut exact) {
                Some(text) => ("= ", text, String::new()),
                None => continue,
            },
            _ => match path(chance, base, &mut prefixes) {
                Some(text) => (if kind == 4 { "^~ " } else { "" }, text.clone(), text),
                None => continue,
            },
        };
        let passes = depth == 0 && kind > 2 && text.ends_with("/up/") || text == "/up/";
        let id = format!("{id}.{number}");
        // nginx accepts a path inside of a regular expression, but never chooses it; topnext does.
        let mut inner = if depth < 2 && !passes && !base.is_empty() && chance.below(2) == 0 {
            locations(chance, &id, &base, depth + 1)
        } else {
            Vec::new()
        };
        if text.starts_with('~') {
            inner.retain(|location| location.path.starts_with('~'));
        }
        list.push(Location { path: format!("{modifier}{text}"), id, passes, inner });
    }
    if depth == 0 {
        list.push(Location { path: "/up/".into(), id: format!("{id}.up"), passes: true, inner: Vec::new() });
        list.retain({
            let mut seen = HashSet::new();
            move |location| seen.insert(location.path.trim_start_matches("^~ ").to_string())
        });
    }
    list
}

/// What a location answers, in both languages.
const TEXT: &str = " user=$user n=$n 1=$1 2=$2 3=$3 name=$server_name";

fn ours(list: &[Location], key: &str, out: &mut String) {
    for Location { path, id, passes, inner } in list {
        let key = format!("{key}.location");
        writeln!(out, "[[{key}]]\npath = '{path}'").unwrap();
        match passes {
            true => writeln!(out, "proxy.pass = \"http://127.0.0.1:1\"").unwrap(),
            false => writeln!(out, "return = {{ code = 200, text = '{id}{TEXT}' }}").unwrap(),
        }
        ours(inner, &key, out);
    }
}

fn nginxs(list: &[Location], out: &mut String) {
    for Location { path, id, passes, inner } in list {
        let (modifier, text) = path.split_once(' ').unwrap_or(("", path));
        writeln!(out, "location {modifier} \"{text}\" {{").unwrap();
        match passes {
            true => writeln!(out, "proxy_pass http://127.0.0.1:1;").unwrap(),
            false => writeln!(out, "return 200 \"{id}{TEXT}\";").unwrap(),
        }
        nginxs(inner, out);
        out.push_str("}\n");
    }
}

/// Status, text if it is a location's, and where to a redirect leads.
fn answer(client: &mut Client, host: &str, uri: &str) -> String {
    client.send(format!("GET {uri} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    let response = client.response();
    let to = response.field("Location").unwrap_or_default();
    let to = to.split_once("://").map_or(to, |(_, rest)| rest.find('/').map_or("", |at| &rest[at..]));
    let text = if response.status == 200 { response.text() } else { "" };
    format!("{} {text} {to}", response.status)
}

#[test]
fn the_same_server_location_and_captures() {
    let mut chance = Chance(20_261_126);
    let mut toml = "module = [{ name = \"return\" }, { name = \"proxy\" }, { name = \"round_robin\" }]\n".to_string();
    let mut conf = "root /none;\n".to_string();
    for number in 0..12 {
        let list = locations(&mut chance, &number.to_string(), "/", 0);
        let mut names: Vec<&str> = (0..2 + chance.below(2)).map(|_| chance.of(NAMES)).collect();
        if number == 0 {
            // Both languages need to know the variables.
            names.push(NAMES[NAMES.len() - 1]);
        }
        let quoted = |quote: char| names.iter().map(move |name| format!("{quote}{name}{quote}"));
        writeln!(
            toml,
            "[[http.server]]\nlisten = [{{ address = \"127.0.0.1:PORT\", default_server = {} }}]\nserver_name = [{}]",
            number == 4,
            quoted('\'').collect::<Vec<_>>().join(", ")
        )
        .unwrap();
        ours(&list, "http.server", &mut toml);
        let default = if number == 4 { "default_server" } else { "" };
        let quoted = quoted('"').collect::<Vec<_>>().join(" ");
        writeln!(conf, "server {{ listen 127.0.0.1:PORT {default}; server_name {quoted};").unwrap();
        nginxs(&list, &mut conf);
        conf.push_str("}\n");
    }
    let Some(nginx) = Nginx::with_servers(&conf) else { return };
    let server = Server::start(&toml);
    let (mut one, mut other) = (server.connect(), nginx.connect());
    let (mut seen, mut redirects) = (HashSet::new(), 0);
    for _ in 0..1500 {
        if chance.below(100) == 0 {
            (one, other) = (server.connect(), nginx.connect());
        }
        let host: Vec<&str> = (0..1 + chance.below(4)).map(|_| chance.of(LABELS)).collect();
        let host = host.join(".");
        let mut uri = String::new();
        for _ in 0..1 + chance.below(4) {
            uri.push('/');
            uri.push_str(chance.of(SEGMENTS));
        }
        uri.push_str(chance.of(&["", "", "/", "?a=b", "%61", "/."]));
        let (ours, theirs) = (answer(&mut one, &host, &uri), answer(&mut other, &host, &uri));
        assert_eq!(ours, theirs, "topnext and nginx, {host} {uri}\n{toml}");
        redirects += usize::from(ours.starts_with("301"));
        seen.insert(ours.split(' ').nth(1).unwrap_or_default().to_string());
    }
    assert!(seen.len() > 60 && redirects > 10, "too few were seen: {} locations, {redirects} redirects", seen.len());
}
