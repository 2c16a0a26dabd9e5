//! Which server answers: by the address that the connection came to, and the name in Host (nginx: server_name).
//!
//! The first of these that fits, as in nginx: the name itself, the longest `*.example.com`, the longest `www.example.*`,
//! the first regular expression in the order of the configuration, the default server. Names are looked up, not
//! compared one by one: the cost depends on the name in Host, not on the number of servers.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::{
    config::{NameForm, ServerName},
    regex::{Pattern, Regex, RegexList},
    site::Server,
};

/// The servers of one listening address.
#[derive(Debug)]
pub struct Names<S = Arc<Server>> {
    exact: FxHashMap<Box<[u8]>, S>,
    /// `*.example.com`, by what follows the `*.`
    leading: Wildcards<S>,
    /// `www.example.*`, by what precedes the `.*`
    trailing: Wildcards<S>,
    /// The regular expressions in the order of the configuration, and the server of each.
    regexes: Option<(Arc<RegexList>, Vec<S>)>,
    /// No name leads to another server than the default.
    only_default: bool,
    default: S,
}

/// The parts of names that an asterisk stands beside.
#[derive(Debug)]
struct Wildcards<S> {
    by_part: FxHashMap<Box<[u8]>, S>,
    /// The length of the longest part: longer ones need not be looked up, however many labels a client sends.
    longest: usize,
}

/// A server that was found.
#[derive(Debug)]
pub struct Chosen<'a, S = Arc<Server>> {
    /// The server.
    pub server: &'a S,
    /// The regular expression that its name is: whatever its groups match belongs to the request.
    pub regex: Option<&'a Regex>,
}

impl<S> Clone for Chosen<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Chosen<'_, S> {}

impl<S: Clone> Names<S> {
    /// The servers of an address with their names, in the order of the configuration; the default is the one that says
    /// so, else the first. `regexes` are the expressions among the names, in order. A name that another server has is
    /// given to `conflict`, and has no effect.
    pub fn new<'c>(
        servers: &[(S, &'c [ServerName], bool)],
        regexes: Option<Arc<RegexList>>,
        mut conflict: impl FnMut(&'c ServerName),
    ) -> Option<Names<S>> {
        let (default, own, _) = servers.iter().find(|(.., default)| *default).or(servers.first())?;
        let mut names = Names {
            exact: FxHashMap::default(),
            leading: Wildcards::default(),
            trailing: Wildcards::default(),
            regexes: None,
            // A regular expression of the default server still has its groups.
            only_default: servers.len() == 1 && own.iter().all(|name| name.regex().is_none()),
            default: default.clone(),
        };
        let mut by_regex = Vec::new();
        for (server, list, _) in servers {
            for name in *list {
                let added = match &name.form {
                    NameForm::Exact(text) => insert(&mut names.exact, text, server),
                    NameForm::Leading(part) => names.leading.insert(part, server),
                    NameForm::Trailing(part) => names.trailing.insert(part, server),
                    // One of its two forms is taken: then it has neither, as in nginx.
                    NameForm::ExactOrLeading(text) => {
                        let free = !names.exact.contains_key(text.as_bytes())
                            && !names.leading.by_part.contains_key(text.as_bytes());
                        free && insert(&mut names.exact, text, server) && names.leading.insert(text, server)
                    }
                    NameForm::Regex(_) => {
                        by_regex.push(server.clone());
                        true
                    }
                };
                if !added && servers.len() > 1 {
                    conflict(name);
                }
            }
        }
        names.regexes = regexes.map(|list| (list, by_regex));
        Some(names)
    }

    /// The server for a name in lower case; `""` for a request without Host.
    pub fn find(&self, host: &[u8]) -> Chosen<'_, S> {
        let chosen = |server| Chosen { server, regex: None };
        if self.only_default {
            return chosen(&self.default);
        }
        if let Some(server) = self.exact.get(host) {
            return chosen(server);
        }
        if !self.leading.by_part.is_empty()
            && let Some(server) = memchr::memchr_iter(b'.', host)
                .find_map(|dot| self.leading.get(host.get(dot + 1..).unwrap_or_default()))
        {
            return chosen(server);
        }
        if !self.trailing.by_part.is_empty()
            && let Some(server) = memchr::memrchr_iter(b'.', host).find_map(|dot| self.trailing.get(&host[..dot]))
        {
            return chosen(server);
        }
        if let Some((list, servers)) = &self.regexes
            && !host.is_empty()
            && let Some(index) = list.find(host)
            && let Some(server) = servers.get(index)
        {
            return Chosen { server, regex: list.get(index) };
        }
        chosen(&self.default)
    }

    /// The server for requests that name none.
    pub fn default_server(&self) -> &S {
        &self.default
    }
}

/// The regular expressions among names.
pub fn patterns<'c>(names: impl IntoIterator<Item = &'c ServerName>) -> Vec<&'c Pattern> {
    names.into_iter().filter_map(ServerName::regex).collect()
}

/// False if the text is there already.
fn insert<S: Clone>(map: &mut FxHashMap<Box<[u8]>, S>, text: &str, server: &S) -> bool {
    let free = !map.contains_key(text.as_bytes());
    if free {
        map.insert(text.as_bytes().into(), server.clone());
    }
    free
}

impl<S: Clone> Wildcards<S> {
    fn insert(&mut self, part: &str, server: &S) -> bool {
        self.longest = self.longest.max(part.len());
        insert(&mut self.by_part, part, server)
    }

    fn get(&self, part: &[u8]) -> Option<&S> {
        if part.len() > self.longest { None } else { self.by_part.get(part) }
    }
}

impl<S> Default for Wildcards<S> {
    fn default() -> Wildcards<S> {
        Wildcards { by_part: FxHashMap::default(), longest: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    /// The servers, each shown by its number, and the names that conflict.
    fn names(servers: &[&[&str]]) -> (Names<usize>, Vec<String>) {
        let parsed: Vec<Vec<ServerName>> = servers
            .iter()
            .map(|names| names.iter().map(|name| ServerName::parse(name, Origin::BUILT_IN).expect("valid")).collect())
            .collect();
        let list: Vec<(usize, &[ServerName], bool)> =
            parsed.iter().enumerate().map(|(number, names)| (number, &names[..], false)).collect();
        let patterns = patterns(parsed.iter().flatten());
        let regexes = (!patterns.is_empty()).then(|| Arc::new(RegexList::new(&patterns, &[]).expect("compiles")));
        let mut conflicts = Vec::new();
        let names = Names::new(&list, regexes, |name| conflicts.push(name.text.clone()));
        (names.expect("there are servers"), conflicts)
    }

    #[test]
    fn in_nginxs_order() {
        let (names, conflicts) = names(&[
            &["default"],
            &["~^www\\."],
            &["~example"],
            &["*.example.com", "*.b.example.com"],
            &[".example.org"],
            &["www.example.com"],
            &["www.*", "www.example.*"],
            &["*.a.b.example.com", ""],
            &["*.com"],
        ]);
        assert!(conflicts.is_empty(), "{conflicts:?}");
        for (host, expected) in [
            ("www.example.com", 5),
            ("x.example.com", 3),
            ("x.y.example.com", 3),
            ("x.a.b.example.com", 7),
            ("a.b.example.com", 3),
            ("example.com", 8),
            ("example.org", 4),
            ("x.example.org", 4),
            ("www.example.org", 4),
            ("www.example.net", 6),
            ("www.example.co.uk", 6),
            ("www.x", 6),
            ("www.", 6),
            ("www", 0),
            ("wwwx.x", 0),
            ("example", 2),
            ("other", 0),
            ("", 7),
            (".example.com", 3),
            ("com", 0),
        ] {
            assert_eq!(*names.find(host.as_bytes()).server, expected, "{host}");
        }
        assert!(names.find(b"www.x").regex.is_none());
        assert!(names.find(b"example").regex.is_some());
    }

    #[test]
    fn the_first_of_two_equal_names_wins() {
        let (list, conflicts) =
            names(&[&["a", "*.x"], &["a", ".x", "b.*", ""], &["b.*", "x", "~a", ""], &["~a", ".y", "y", "*.y"]]);
        assert_eq!(conflicts, ["a", ".x", "b.*", "", "y", "*.y"]);
        let found = |host: &str| *list.find(host.as_bytes()).server;
        assert_eq!((found("a"), found("w.x"), found("x"), found("b.c"), found("")), (0, 0, 2, 1, 1));
        assert_eq!((found("ca"), found("y"), found("z.y")), (2, 3, 3));
        assert_eq!(names(&[&["a", "a"]]).1, [""; 0], "one server alone has no conflicts");
    }

    #[test]
    fn one_server_needs_no_lookup_unless_it_has_groups() {
        assert!(names(&[&["a", "*.b"]]).0.only_default);
        let (one, _) = names(&[&["~^(.)"]]);
        assert!(one.find(b"x").regex.is_some_and(Regex::has_groups));
    }

    #[test]
    fn a_host_of_nothing_but_dots_is_looked_up_in_no_time() {
        let list: Vec<String> = (0..1000).map(|n| format!("*.{n}.example.com")).collect();
        let servers: Vec<[&str; 1]> = list.iter().map(|name| [name.as_str()]).collect();
        let servers: Vec<&[&str]> = servers.iter().map(|names| &names[..]).collect();
        let (names, _) = names(&servers);
        assert_eq!(*names.find(b"x.999.example.com").server, 999);
        // Each part is bounded by the longest that there is, so this is linear.
        let dots = vec![b'.'; 1_000_000];
        assert_eq!(*names.find(&dots).server, 0);
    }
}
