//! Which location of a server a URI belongs to (nginx: location, the find-config phase).
//!
//! On each level, from the server inwards:
//!
//! 1. An exact location (`= /x`) of the URI: it is the one.
//! 2. The longest prefix (`/x`, `^~ /x`) is remembered, and the locations inside it are searched.
//! 3. Unless that prefix was written with `^~`: the regular expressions of this level, in the order of the configuration.
//!    The first that matches is the one, or a location inside it.
//! 4. The prefix that was remembered.
//!
//! So the expressions of an inner level come before those around it, and `^~` counts for its own level only.

use std::{fmt, sync::Arc};

use rustc_hash::FxHashMap;

use crate::{
    config::{LocationKind, LocationPath},
    regex::{Regex, RegexList},
    site::Place,
};

/// The locations on one level: of a server, or inside a location.
pub struct Locations<P = Arc<Place>> {
    /// Exact ones and prefixes, by their text.
    literals: Vec<Literal<P>>,
    /// The [`key`] of each: most comparisons need no more.
    keys: Vec<u64>,
    /// Whether a literal redirects to itself: see [`Literal::redirects`].
    redirects: bool,
    /// The regular expressions, in the order of the configuration, and what belongs to each.
    regexes: Option<(Arc<RegexList>, Vec<Inner<P>>)>,
    /// Named ones, with the `@`.
    named: FxHashMap<Box<[u8]>, P>,
}

/// A text, and the exact location and the prefix with it.
struct Literal<P> {
    text: Box<[u8]>,
    exact: Option<P>,
    prefix: Option<Inner<P>>,
    /// The prefix is `^~`.
    no_regex: bool,
    /// The URI without the slash at the end of the text is redirected to it (nginx: auto_redirect).
    redirects: bool,
    /// The longest prefix that this text begins with, beside itself.
    shorter: Option<u32>,
}

/// A location, and those inside it.
struct Inner<P> {
    place: P,
    locations: Locations<P>,
}

/// A location of a level, as [`Locations::new`] takes it.
pub struct Entry<P = Arc<Place>> {
    /// What it matches.
    pub path: LocationPath,
    /// What holds in it.
    pub place: P,
    /// Whether a URI that lacks only the slash at the end of the path is redirected to it.
    pub redirects: bool,
    /// The locations inside it.
    pub locations: Locations<P>,
}

/// What [`Locations::find`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a, P = Arc<Place>> {
    /// The location; None: the URI belongs to the server itself.
    pub place: Option<&'a P>,
    /// The URI lacks a slash at its end, and the client is to be told so.
    pub redirect: bool,
}

/// How the search of a level ended.
enum Outcome {
    /// With the location that the URI belongs to.
    Final,
    /// With one that the client is redirected to.
    Redirect,
    /// With a prefix at most: levels around it have their say.
    Open,
}

impl<P> Default for Locations<P> {
    fn default() -> Locations<P> {
        Locations {
            literals: Vec::new(),
            keys: Vec::new(),
            redirects: false,
            regexes: None,
            named: FxHashMap::default(),
        }
    }
}

impl<P> Locations<P> {
    /// The locations of a level. `regexes` are those of the entries that have one, in the same order.
    pub fn new(entries: Vec<Entry<P>>, regexes: Option<Arc<RegexList>>) -> Locations<P> {
        let (mut level, mut by_regex) = (Locations::default(), Vec::new());
        for Entry { path, place, redirects, locations } in entries {
            let inner = |place| Inner { place, locations };
            match path.kind {
                LocationKind::Named => drop(level.named.insert(path.text.into_bytes().into(), place)),
                LocationKind::Regex => by_regex.push(inner(place)),
                LocationKind::Exact => {
                    let literal = level.literal(path.text);
                    (literal.exact, literal.redirects) = (Some(place), literal.redirects || redirects);
                }
                LocationKind::Prefix | LocationKind::PrefixNoRegex => {
                    let no_regex = path.kind == LocationKind::PrefixNoRegex;
                    let literal = level.literal(path.text);
                    (literal.prefix, literal.redirects) = (Some(inner(place)), literal.redirects || redirects);
                    literal.no_regex = no_regex;
                }
            }
        }
        level.redirects = level.literals.iter().any(|literal| literal.redirects);
        level.keys = level.literals.iter().map(|literal| key(&literal.text)).collect();
        level.link();
        level.regexes = regexes.map(|regexes| (regexes, by_regex));
        level
    }

    /// The literal with this text, made if there is none.
    fn literal(&mut self, text: String) -> &mut Literal<P> {
        let text = text.into_bytes().into_boxed_slice();
        let at = self.literals.partition_point(|literal| literal.text < text);
        if self.literals.get(at).is_none_or(|literal| literal.text != text) {
            let new = Literal { text, exact: None, prefix: None, no_regex: false, redirects: false, shorter: None };
            self.literals.insert(at, new);
        }
        &mut self.literals[at]
    }

    /// Finds for each literal the prefix that it begins with. The texts are in order, so that one stands behind all that
    /// it begins with, with only others between that begin with those too.
    fn link(&mut self) {
        let mut open: Vec<usize> = Vec::new();
        for at in 0..self.literals.len() {
            while open.pop_if(|outer| !self.literals[at].text.starts_with(&self.literals[*outer].text)).is_some() {}
            self.literals[at].shorter = open.last().map(|outer| *outer as u32);
            if self.literals[at].prefix.is_some() {
                open.push(at);
            }
        }
    }

    /// The named location of this name, which starts with its `@`. There are some on the level of a server only.
    pub fn named(&self, name: &[u8]) -> Option<&P> {
        self.named.get(name)
    }

    /// The location of a normalized path. Each regular expression that matches on the way is given to `matched`, the one
    /// that counts at last.
    pub fn find<'a>(&'a self, uri: &[u8], matched: &mut dyn FnMut(&'a Regex)) -> Found<'a, P> {
        let mut found = Found { place: None, redirect: false };
        found.redirect = matches!(self.search(uri, &mut found.place, matched), Outcome::Redirect);
        found
    }

    fn search<'a>(&'a self, uri: &[u8], place: &mut Option<&'a P>, matched: &mut dyn FnMut(&'a Regex)) -> Outcome {
        let mut no_regex = false;
        // The one before `at` is the URI, or begins as the URI does, or none does.
        let (at, same) = self.place_of(uri);
        let before = at.checked_sub(1).map(|at| &self.literals[at]);
        if same && let Some(exact) = before.and_then(|literal| literal.exact.as_ref()) {
            *place = Some(exact);
            return Outcome::Final;
        }
        if self.redirects
            && !same
            && let Some(literal) = self.with_slash(at, uri)
        {
            *place = literal.exact.as_ref().or(literal.prefix.as_ref().map(|inner| &inner.place));
            return Outcome::Redirect;
        }
        if let Some((literal, inner)) = before.and_then(|literal| self.longest_prefix(literal, uri)) {
            *place = Some(&inner.place);
            no_regex = literal.no_regex;
            if !inner.locations.is_empty() {
                match inner.locations.search(uri, place, matched) {
                    Outcome::Open => (),
                    outcome => return outcome,
                }
            }
        }
        if !no_regex
            && let Some((list, places)) = &self.regexes
            && let Some(index) = list.find(uri)
            && let (Some(regex), Some(inner)) = (list.get(index), places.get(index))
        {
            matched(regex);
            *place = Some(&inner.place);
            // Whatever is found inside: the regular expression has decided (nginx does not redirect from there either).
            inner.locations.search(uri, place, matched);
            return Outcome::Final;
        }
        Outcome::Open
    }

    /// How many texts are not greater than the URI, and whether the last of those is the URI.
    fn place_of(&self, uri: &[u8]) -> (usize, bool) {
        let wanted = key(uri);
        let start = self.keys.partition_point(|key| *key < wanted);
        if self.keys.get(start) != Some(&wanted) {
            return (start, false);
        }
        let same_key = self.keys[start..].partition_point(|key| *key == wanted);
        match self.literals[start..start + same_key].binary_search_by(|literal| (*literal.text).cmp(uri)) {
            Ok(at) => (start + at + 1, true),
            Err(at) => (start + at, false),
        }
    }

    /// The longest prefix of the URI, from `literal` on, which shares most with it.
    fn longest_prefix<'a>(&'a self, literal: &'a Literal<P>, uri: &[u8]) -> Option<(&'a Literal<P>, &'a Inner<P>)> {
        let mut next = literal;
        loop {
            if let Some(inner) = &next.prefix
                && uri.starts_with(&next.text)
            {
                return Some((next, inner));
            }
            next = &self.literals[next.shorter? as usize];
        }
    }

    /// The literal that is the URI and a slash, and redirects.
    #[cold]
    fn with_slash(&self, at: usize, uri: &[u8]) -> Option<&Literal<P>> {
        let behind = &self.literals[at..];
        // Usually nothing begins so, and nothing is allocated.
        behind.first().filter(|literal| literal.text.starts_with(uri))?;
        let text: Vec<u8> = [uri, b"/"].concat();
        let found = behind.binary_search_by(|literal| (*literal.text).cmp(&text)).ok()?;
        behind.get(found).filter(|literal| literal.redirects)
    }

    fn is_empty(&self) -> bool {
        self.literals.is_empty() && self.regexes.is_none()
    }

    /// Gives each location to `each`, those inside others too.
    pub fn for_each(&self, each: &mut dyn FnMut(&P)) {
        let mut inner = |inner: &Inner<P>| {
            each(&inner.place);
            inner.locations.for_each(each);
        };
        self.literals.iter().filter_map(|literal| literal.prefix.as_ref()).for_each(&mut inner);
        self.regexes.iter().flat_map(|(_, places)| places).for_each(&mut inner);
        self.literals.iter().filter_map(|literal| literal.exact.as_ref()).for_each(&mut *each);
        self.named.values().for_each(each);
    }
}

/// The first bytes of a text as a number: two numbers that differ are in the order of their texts.
#[inline]
fn key(text: &[u8]) -> u64 {
    match text.first_chunk::<8>() {
        Some(first) => u64::from_be_bytes(*first),
        None => text.iter().fold(0, |key, byte| key << 8 | u64::from(*byte)) << (8 * (8 - text.len()) as u32 % 64),
    }
}

impl<P> fmt::Debug for Locations<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self.literals.iter().map(|literal| String::from_utf8_lossy(&literal.text));
        f.debug_list().entries(texts).entries(self.regexes.iter().map(|(list, _)| list)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regex::Pattern;

    type Level = Locations<String>;

    fn level(list: Vec<(&str, Level)>) -> Level {
        let paths: Vec<LocationPath> = list.iter().map(|(path, _)| LocationPath::parse(path).expect("valid")).collect();
        let patterns: Vec<&Pattern> = paths.iter().filter_map(|path| path.regex.as_ref()).collect();
        let regexes = (!patterns.is_empty()).then(|| Arc::new(RegexList::new(&patterns, &[]).expect("compiles")));
        let entry = |(path, (text, locations)): (&LocationPath, (&str, Level))| {
            let redirects = text.ends_with("up/");
            Entry { path: path.clone(), place: text.to_string(), redirects, locations }
        };
        Locations::new(paths.iter().zip(list).map(entry).collect(), regexes)
    }

    fn flat(list: &[&str]) -> Level {
        level(list.iter().map(|path| (*path, Level::default())).collect())
    }

    fn find(level: &Level, uri: &str) -> String {
        let found = level.find(uri.as_bytes(), &mut |_| ());
        let place = found.place.map_or("-", String::as_str);
        if found.redirect { format!("to {place}") } else { place.to_string() }
    }

    #[test]
    fn exact_then_regex_then_longest_prefix() {
        let level =
            flat(&["/", "/a", "= /a", "/a/b/", "^~ /img/", "~ \\.gif$", "~* \\.GIF$", "/a/b/c", "= /only", "/x.gif"]);
        for (uri, expected) in [
            ("/", "/"),
            ("/a", "= /a"),
            ("/a/", "/a"),
            ("/a/b", "/a"),
            ("/a/b/", "/a/b/"),
            ("/a/b/c/d", "/a/b/c"),
            ("/a/b/d", "/a/b/"),
            ("/img/x.gif", "^~ /img/"),
            ("/x.gif", "~ \\.gif$"),
            ("/a/b/c.Gif", "~* \\.GIF$"),
            ("/only", "= /only"),
            ("/only/x", "/"),
            ("*", "-"),
        ] {
            assert_eq!(find(&level, uri), expected, "{uri}");
        }
        assert_eq!(find(&Level::default(), "/"), "-");
    }

    #[test]
    fn nested_ones_and_their_expressions_come_first() {
        let deep = flat(&["/a/b/", "~ deep", "^~ /a/c/"]);
        let in_regex = flat(&["/x/y", "~ z$"]);
        let level =
            level(vec![("^~ /a/", deep), ("~ ^/x", in_regex), ("~ e", Level::default()), ("/b/", flat(&["~ in"]))]);
        for (uri, expected) in [
            ("/a/q", "^~ /a/"),
            ("/a/e", "^~ /a/"),
            ("/a/b/e", "/a/b/"),
            ("/a/b/deep", "~ deep"),
            // The inner ^~ is about the inner expressions, the outer one about the outer ones.
            ("/a/c/deep", "^~ /a/c/"),
            ("/b/in/e", "~ in"),
            ("/b/e", "~ e"),
            ("/x/", "~ ^/x"),
            ("/x/y/1", "/x/y"),
            ("/x/y/z", "~ z$"),
            ("/", "-"),
        ] {
            assert_eq!(find(&level, uri), expected, "{uri}");
        }
    }

    #[test]
    fn a_missing_slash_is_redirected_unless_there_is_a_location_without_it() {
        let level = level(vec![
            ("/", Level::default()),
            ("/up/", flat(&["/up/up/"])),
            ("= /2/up/", Level::default()),
            ("/3/up/", Level::default()),
            ("= /3/up", Level::default()),
            ("/4/up/", Level::default()),
            ("/4/up", Level::default()),
            ("/up!", Level::default()),
            ("~ u", Level::default()),
        ]);
        for (uri, expected) in [
            ("/up", "to /up/"),
            ("/up/", "~ u"),
            ("/up/up", "to /up/up/"),
            ("/2/up", "to = /2/up/"),
            ("/3/up", "= /3/up"),
            ("/4/up", "~ u"),
            ("/4/", "/"),
        ] {
            assert_eq!(find(&level, uri), expected, "{uri}");
        }
    }

    #[test]
    fn named_ones_have_no_path() {
        let level = flat(&["@a", "/"]);
        assert_eq!(level.named(b"@a").map(String::as_str), Some("@a"));
        assert_eq!((level.named(b"a"), level.named(b"@b")), (None, None));
        assert_eq!(find(&level, "@a"), "-");
        let mut all = Vec::new();
        level.for_each(&mut |place| all.push(place.clone()));
        assert_eq!(all, ["/", "@a"]);
    }

    /// Beside a search that looks at every location, over all paths of a few letters.
    #[test]
    fn the_longest_prefix_is_found_among_many() {
        let alphabet = ["/", "a", "b", "~"];
        let texts = |base: &'static str, len: u32| {
            (0..4_usize.pow(len)).map(move |mut number| {
                let mut text = base.to_string();
                for _ in 0..len {
                    text.push_str(alphabet[number % 4]);
                    number /= 4;
                }
                text
            })
        };
        let mut state = 7_u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        // Also with a beginning that fills the keys, so that they say nothing, and nearly fills them.
        for base in ["/", "/", "/", "/", "/common", "/common", "/common/", "/common/beginning", "/com", "/"] {
            let texts = |len| texts(base, len);
            let prefixes: Vec<String> = (0..5).flat_map(texts).filter(|_| random() % 8 == 0).collect();
            let level = flat(&prefixes.iter().map(String::as_str).collect::<Vec<_>>());
            for uri in (0..6).flat_map(texts) {
                let longest =
                    prefixes.iter().filter(|prefix| uri.starts_with(*prefix)).max_by_key(|prefix| prefix.len());
                assert_eq!(find(&level, &uri), longest.map_or("-", String::as_str), "{uri} in {prefixes:?}");
            }
        }
    }
}
