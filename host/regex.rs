//! Regular expressions of the configuration (server_name, location): read, compiled, and many of them matched at once.
//!
//! ```text
//! Pattern::parse("^/(?<user>[^/]+)/", false)    what an operator wrote; errors say what is wrong with it, and where
//!   -> RegexList::new(&[&pattern, ..], names)   compiled, with the number of each named group
//!   -> list.find(text)                          the first that matches: one pass over the text, however many there are
//!   -> regex.groups(text)                       what the groups of that one hold
//! ```
//!
//! They are matched with bytes, in time linear in the length of the text: a request cannot make one slow (nginx: PCRE,
//! which backtracks). That is why look-around and backreferences, which need backtracking, are refused.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::Arc,
};

use regex_automata::{
    Input, MatchKind, PatternSet,
    meta::Regex as Automaton,
    nfa::thompson::{NFA, WhichCaptures},
    util::primitives::NonMaxUsize,
};
use regex_syntax::{
    ParserBuilder, ast,
    hir::{self, Hir},
};

/// The most memory that an expression may need, in bytes: a counted repetition can ask for any amount, and the larger an
/// expression is, the longer a byte of a text can take. What routes requests needs a few kB; a list of 500 names 100 kB.
const MAX_SIZE: usize = 128 * 1024;
/// A repetition that is counted this far may be warned of: see [`Pattern::is_slow`].
const SLOW_COUNT: u32 = 100;
/// The groups that can be used, group 0, the whole match, included. `$1` to `$9` are among them; a named group must be.
pub const MAX_GROUPS: usize = 32;

/// An expression as it was written, read and checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    caseless: bool,
    hir: Hir,
    /// The number of its groups, without group 0.
    groups: usize,
    /// Named groups: number and name.
    names: Vec<(usize, String)>,
    slow: bool,
}

impl Pattern {
    /// Reads an expression; the error is a message for the operator.
    pub fn parse(text: &str, caseless: bool) -> Result<Pattern, String> {
        let mut parser = ParserBuilder::new().unicode(false).utf8(false).case_insensitive(caseless).build();
        let hir = parser.parse(text).map_err(|error| explain(text, &error))?;
        let nfa = NFA::config().utf8(false).nfa_size_limit(Some(MAX_SIZE)).which_captures(WhichCaptures::None);
        NFA::compiler().configure(nfa).build_from_hir(&hir).map_err(|error| match error.size_limit() {
            Some(limit) => format!(
                "the regular expression {text:?} needs more than {} kB of memory, and might take long for each request; write \
                 smaller numbers in {{...}}, + or * in their place, or several expressions",
                limit / 1024
            ),
            None => format!("the regular expression {text:?} cannot be compiled: {error}"),
        })?;
        let mut names = Vec::new();
        names_of(&hir, &mut names);
        if let Some((_, name)) = names.iter().find(|(group, _)| *group >= MAX_GROUPS) {
            let most = MAX_GROUPS - 1;
            return Err(format!(
                "in the regular expression {text:?} the group {name:?} comes after {most} others; write (?:...) where \
                 what is matched is not used"
            ));
        }
        let groups = hir.properties().explicit_captures_len();
        let slow = counts_floating(&hir, &mut true);
        Ok(Pattern { text: text.to_owned(), caseless, hir, groups, names, slow })
    }

    /// The expression.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether upper and lower case are the same (of ASCII letters).
    pub fn is_caseless(&self) -> bool {
        self.caseless
    }

    /// Whether a text can make it slow: it counts far from many places of the text at once. `^/[ab]*a[ab]{1000}c` needs tens
    /// of milliseconds for a path of 8 kB, since each `a` may be the one that is counted from; `^/[ab]{1000}c` does not.
    pub fn is_slow(&self) -> bool {
        self.slow
    }

    /// The names of its groups.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(_, name)| name.as_str())
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?}, caseless: {})", self.text, self.caseless)
    }
}

/// One line: what is wrong, and at which character.
fn explain(text: &str, error: &regex_syntax::Error) -> String {
    use ast::ErrorKind::{UnsupportedBackreference, UnsupportedLookAround};
    let (what, offset, advice) = match error {
        regex_syntax::Error::Parse(error) => {
            let advice = match error.kind() {
                UnsupportedBackreference | UnsupportedLookAround => {
                    "; an expression is matched in one pass, in time linear in the length of the text, so that no request \
                     can make it slow, and this would need backtracking"
                }
                _ => "",
            };
            (error.kind().to_string(), error.span().start.offset, advice)
        }
        regex_syntax::Error::Translate(error) => {
            let advice = match error.kind() {
                hir::ErrorKind::UnicodeNotAllowed => {
                    "; an expression is matched with bytes: write (?:ä|ö) in place of [äö], and (?-i:ä) where case is ignored"
                }
                _ => "",
            };
            (error.kind().to_string(), error.span().start.offset, advice)
        }
        error => (error.to_string(), 0, ""),
    };
    let character = text.get(..offset).unwrap_or(text).chars().count() + 1;
    format!("the regular expression {text:?} is not valid at its character {character}: {what}{advice}")
}

/// Whether a counted repetition can begin at many places of a text. `floating`: whether what comes next can.
fn counts_floating(hir: &Hir, floating: &mut bool) -> bool {
    // As deep as the parser's limit on nesting allows.
    match hir.kind() {
        hir::HirKind::Look(hir::Look::Start) => {
            *floating = false;
            false
        }
        hir::HirKind::Capture(capture) => counts_floating(&capture.sub, floating),
        hir::HirKind::Repetition(repetition) => {
            let many = repetition.max.unwrap_or(repetition.min) >= SLOW_COUNT;
            let slow = (*floating && many) | counts_floating(&repetition.sub, floating);
            *floating |= repetition.max.is_none();
            slow
        }
        hir::HirKind::Concat(list) => list.iter().fold(false, |slow, hir| slow | counts_floating(hir, floating)),
        hir::HirKind::Alternation(list) => {
            let before = *floating;
            *floating = false;
            list.iter().fold(false, |slow, hir| {
                let mut of_it = before;
                let slow = slow | counts_floating(hir, &mut of_it);
                *floating |= of_it;
                slow
            })
        }
        _ => false,
    }
}

/// The named groups, in the order in which they open.
fn names_of(hir: &Hir, names: &mut Vec<(usize, String)>) {
    // As deep as the parser's limit on nesting allows.
    match hir.kind() {
        hir::HirKind::Capture(capture) => {
            if let Some(name) = &capture.name {
                names.push((capture.index as usize, name.to_string()));
            }
            names_of(&capture.sub, names);
        }
        hir::HirKind::Repetition(repetition) => names_of(&repetition.sub, names),
        hir::HirKind::Concat(list) | hir::HirKind::Alternation(list) => {
            list.iter().for_each(|hir| names_of(hir, names))
        }
        _ => (),
    }
}

/// Where groups start and end in a text, by number; None: it took no part.
pub type Groups = [Option<(u32, u32)>; MAX_GROUPS];

/// A compiled expression.
pub struct Regex {
    text: String,
    /// None if none of its groups is of interest: then only whether it matches is, and the list knows.
    automaton: Option<Automaton>,
    /// The number of its groups, group 0 included, as far as they can be used.
    slots: usize,
    /// Named groups: the number of the group, and that of the name in the list of all names.
    names: Vec<(usize, usize)>,
}

impl Regex {
    /// Whether it has groups.
    pub fn has_groups(&self) -> bool {
        self.slots > 1
    }

    /// The number of the group with this name, which is a number in the list of all names.
    pub fn group_of(&self, name: usize) -> Option<usize> {
        self.names.iter().find(|(_, known)| *known == name).map(|(group, _)| *group)
    }

    /// Matches `text`, which it is known to match, again: where each group that took part is, group 0 being the whole.
    pub fn groups(&self, text: &[u8]) -> Groups {
        let mut groups = [None; MAX_GROUPS];
        let Some(automaton) = &self.automaton else { return groups };
        let mut slots: [Option<NonMaxUsize>; 2 * MAX_GROUPS] = [None; 2 * MAX_GROUPS];
        automaton.search_slots(&Input::new(text), &mut slots[..2 * self.slots]);
        for (group, ends) in groups.iter_mut().zip(slots.chunks_exact(2)) {
            // A text of a request is far shorter than 4 GiB.
            *group = ends[0].zip(ends[1]).map(|(start, end)| (start.get() as u32, end.get() as u32));
        }
        groups
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regex({:?})", self.text)
    }
}

/// Expressions of which the first that matches counts.
#[derive(Debug)]
pub struct RegexList {
    list: Vec<Regex>,
    /// All of them in one; None if there is only one.
    set: Option<Automaton>,
}

impl RegexList {
    /// Compiles expressions. `names` are those of the groups of all expressions of the configuration.
    pub fn new(patterns: &[&Pattern], names: &[String]) -> Result<RegexList, String> {
        let one = patterns.len() == 1;
        let list = patterns.iter().map(|pattern| Regex::new(pattern, one, names)).collect::<Result<_, _>>()?;
        let set = if one {
            None
        } else {
            let hirs: Vec<&Hir> = patterns.iter().map(|pattern| &pattern.hir).collect();
            let config = config().match_kind(MatchKind::All).which_captures(WhichCaptures::None);
            Some(Automaton::builder().configure(config).build_many_from_hir(&hirs).map_err(|error| error.to_string())?)
        };
        Ok(RegexList { list, set })
    }

    /// The number of the first that matches.
    pub fn find(&self, text: &[u8]) -> Option<usize> {
        let Some(set) = &self.set else {
            let automaton = self.list.first()?.automaton.as_ref()?;
            return automaton.is_match(Input::new(text).earliest(true)).then_some(0);
        };
        let mut matching = PatternSet::new(self.list.len());
        set.which_overlapping_matches(&Input::new(text), &mut matching);
        matching.iter().next().map(|pattern| pattern.as_usize())
    }

    /// The expression of this number.
    pub fn get(&self, index: usize) -> Option<&Regex> {
        self.list.get(index)
    }
}

impl Regex {
    fn new(pattern: &Pattern, alone: bool, names: &[String]) -> Result<Regex, String> {
        let slots = (pattern.groups + 1).min(MAX_GROUPS);
        let automaton = if slots > 1 || alone {
            let built = Automaton::builder().configure(config()).build_from_hir(&pattern.hir);
            let fault = |error| format!("the regular expression {:?} cannot be compiled: {error}", pattern.text);
            Some(built.map_err(fault)?)
        } else {
            None
        };
        let number = |(group, name): &(usize, String)| Some((*group, names.iter().position(|known| known == name)?));
        let names = pattern.names.iter().filter_map(number).collect();
        Ok(Regex { text: pattern.text.clone(), automaton, slots, names })
    }
}

/// The lists of a configuration. Those of many servers are often the same, from a file that all include, so that each is
/// compiled once.
#[derive(Default)]
pub struct RegexLists {
    /// The names of all named groups.
    names: Vec<String>,
    /// By texts, and whether case is ignored.
    known: HashMap<Vec<(String, bool)>, Arc<RegexList>>,
}

impl RegexLists {
    /// No lists yet; `names` are those of the groups of all expressions.
    pub fn new(names: Vec<String>) -> RegexLists {
        RegexLists { names, known: HashMap::new() }
    }

    /// The list of these expressions; None if there are none.
    pub fn list(&mut self, patterns: &[&Pattern]) -> Result<Option<Arc<RegexList>>, String> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let key = patterns.iter().map(|pattern| (pattern.text.clone(), pattern.caseless)).collect();
        match self.known.entry(key) {
            Entry::Occupied(known) => Ok(Some(known.get().clone())),
            Entry::Vacant(new) => Ok(Some(new.insert(Arc::new(RegexList::new(patterns, &self.names)?)).clone())),
        }
    }
}

fn config() -> regex_automata::meta::Config {
    Automaton::config().utf8_empty(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str], names: &[&str]) -> RegexList {
        let patterns: Vec<Pattern> = texts.iter().map(|text| Pattern::parse(text, false).expect("valid")).collect();
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        RegexList::new(&patterns.iter().collect::<Vec<_>>(), &names).expect("compiles")
    }

    /// The groups that took part, by number.
    fn groups(list: &RegexList, text: &str) -> Vec<(usize, String)> {
        let index = list.find(text.as_bytes()).expect("matches");
        let groups = list.get(index).expect("there").groups(text.as_bytes());
        let text = |(start, end): (u32, u32)| text[start as usize..end as usize].to_string();
        groups.iter().enumerate().skip(1).filter_map(|(number, ends)| Some((number, text((*ends)?)))).collect()
    }

    #[test]
    fn the_first_that_matches_counts_wherever_it_does() {
        let several = list(&["b$", "^/a", "\\.php$", "a"], &[]);
        for (text, expected) in [("/ab", Some(0)), ("/a", Some(1)), ("/x.php", Some(2)), ("xxa", Some(3)), ("/x", None)]
        {
            assert_eq!(several.find(text.as_bytes()), expected, "{text}");
        }
        let one = list(&["\\.php$"], &[]);
        assert_eq!((one.find(b"/x.php"), one.find(b"/x.php5")), (Some(0), None));
        assert_eq!(list(&["^/\\xff$", "x"], &[]).find(b"/\xff"), Some(0));
        assert_eq!(list(&["^.$", "x"], &[]).find("é".as_bytes()), None, "bytes, not characters");
    }

    #[test]
    fn groups_have_numbers_and_names() {
        let list = list(&["^/(?<user>[a-z]+)(/(?P<rest>.*))?$", "^no", "(b)"], &["other", "rest", "user"]);
        let found = |text| groups(&list, text);
        let text = |number: usize, text: &str| (number, text.to_string());
        assert_eq!(found("/joe"), [text(1, "joe")]);
        assert_eq!(found("/joe/x"), [text(1, "joe"), text(2, "/x"), text(3, "x")]);
        assert_eq!(found("nob"), []);
        assert_eq!(found("xb"), [text(1, "b")]);
        let first = list.get(0).expect("there");
        assert_eq!((first.group_of(0), first.group_of(1), first.group_of(2)), (None, Some(3), Some(1)));
        assert!(first.has_groups() && !list.get(1).expect("there").has_groups());
    }

    #[test]
    fn many_groups_and_many_expressions() {
        let one = list(&[&"(a)".repeat(100)], &[]);
        assert_eq!(groups(&one, &"a".repeat(100)).len(), MAX_GROUPS - 1);
        let texts: Vec<String> = (0..1000).map(|n| format!("^/{n}/(.)")).collect();
        let many = list(&texts.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        assert_eq!((many.find(b"/999/x"), many.find(b"/1000/x"), many.find(b"/0/")), (Some(999), None, None));
    }

    #[test]
    fn what_a_text_can_make_slow() {
        let is_slow = |text: &str| Pattern::parse(text, false).expect("valid").is_slow();
        for text in ["^/[ab]*a[ab]{1000}c", "[ab]{1000}", "^/(a|.+b)[ab]{100}", "^/.*(x[ab]{100,})", "(^a|b)[ab]{200}"]
        {
            assert!(is_slow(text), "{text}");
        }
        for text in [
            "^/[ab]{1000}c",
            "^/[^/]{1,255}/.*\\.php$",
            "\\.(jpe?g|png)$",
            "^/(a|b)[ab]{100}",
            "[0-9a-f]{64}",
            "^(a|bc){300}",
        ] {
            assert!(!is_slow(text), "{text}");
        }
    }

    #[test]
    fn errors_say_what_and_where() {
        let error = |text: &str| Pattern::parse(text, false).expect_err("not valid");
        assert_eq!(error("^/(a"), "the regular expression \"^/(a\" is not valid at its character 3: unclosed group");
        assert!(error("é[").contains("character 2: unclosed character class"), "{}", error("é["));
        assert!(error("(?=a)b").contains("look-around"), "{}", error("(?=a)b"));
        assert!(error("(?=a)b").ends_with("and this would need backtracking"), "{}", error("(?=a)b"));
        assert!(
            error("(a)\\1").contains("character 4: backreferences are not supported; an expression is matched in one")
        );
        assert!(error("(?<a>.)(?<a>.)").contains("duplicate capture group name"));
        assert!(error("[é]").contains("write (?:ä|ö) in place of"), "{}", error("[é]"));
        assert!(error("((a{1000}){1000}){1000}").contains("needs more than 128 kB of memory, and might take"));
        assert!(error("[ab]{9000}").contains("; write smaller numbers in {...}, + or"));
        assert!(error(&format!("{}(?<n>.)", "(.)".repeat(40))).contains("the group \"n\" comes after 31 others"));
    }
}
