//! Which server a name in Host belongs to.
//!
//! The first line of the input is the name, each of the others the name of a server, in nginx's forms. The look-up is held
//! against the rule as nginx's manual states it, one server after the other.

#![no_main]

use libfuzzer_sys::fuzz_target;
use topnext::config::{NameForm, Origin, ServerName};
use topnext::regex::RegexList;
use topnext::server_name::{Names, patterns};

fuzz_target!(|data: &[u8]| {
    let (host, lines) = data.split_at(data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len()));
    let (host, Ok(lines)) = (host.to_ascii_lowercase(), str::from_utf8(lines)) else { return };
    // What the parser of Host refuses.
    if host.windows(2).any(|two| two == b"..") || host.starts_with(b".") {
        return;
    }
    let mut servers: Vec<ServerName> = vec![ServerName::none(Origin::BUILT_IN)];
    for line in lines.split('\n').skip(1).take(20).filter(|line| line.len() <= 40) {
        // Two servers of one name are a conflict, which is another matter.
        if let Ok(name) = ServerName::parse(line, Origin::BUILT_IN)
            && !servers.iter().any(|other| keys(&name).iter().any(|key| keys(other).contains(key)))
        {
            servers.push(name);
        }
    }
    let patterns = patterns(&servers);
    let Ok(regexes) = RegexList::new(&patterns, &[]) else { return };
    let regexes = (!patterns.is_empty()).then(|| regexes.into());
    let list: Vec<_> =
        servers.iter().enumerate().map(|(number, name)| (number, std::slice::from_ref(name), false)).collect();
    let names = Names::new(&list, regexes, |name| panic!("{name:?} is in conflict")).expect("there are servers");
    assert_eq!(*names.find(&host).server, simple(&servers, &host), "{servers:?}");
});

/// What no two names may share.
fn keys(name: &ServerName) -> Vec<(char, &str)> {
    match &name.form {
        NameForm::Exact(text) => vec![('=', text)],
        NameForm::Leading(part) => vec![('<', part)],
        NameForm::ExactOrLeading(part) => vec![('=', part), ('<', part)],
        NameForm::Trailing(part) => vec![('>', part)],
        NameForm::Regex(_) => vec![],
    }
}

/// The rule, read from <https://nginx.org/en/docs/http/server_names.html>.
fn simple(servers: &[ServerName], host: &[u8]) -> usize {
    let place = |fits: &dyn Fn(&NameForm) -> bool| servers.iter().position(|name| fits(&name.form));
    let exact = place(
        &|form| matches!(form, NameForm::Exact(text) | NameForm::ExactOrLeading(text) if text.as_bytes() == host),
    );
    // The longest part that stands behind a dot, or before one.
    let leading = (0..host.len()).filter(|&at| host[at] == b'.').find_map(|at| {
        let behind = &host[at + 1..];
        place(&|form| {
            matches!(form, NameForm::Leading(part) | NameForm::ExactOrLeading(part) if part.as_bytes() == behind)
        })
    });
    let trailing = (0..host.len())
        .rev()
        .filter(|&at| host[at] == b'.')
        .find_map(|at| place(&|form| matches!(form, NameForm::Trailing(part) if part.as_bytes() == &host[..at])));
    let regex = place(&|form| match form {
        NameForm::Regex(pattern) => {
            !host.is_empty() && RegexList::new(&[pattern], &[]).is_ok_and(|list| list.find(host).is_some())
        }
        _ => false,
    });
    exact.or(leading).or(trailing).or(regex).unwrap_or(0)
}
