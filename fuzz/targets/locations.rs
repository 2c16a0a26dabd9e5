//! Which location a path belongs to.
//!
//! The first line of the input is the path, each of the others a location as the configuration writes it. The search is
//! held against the rule as nginx's manual states it, one location after the other.

#![no_main]

use libfuzzer_sys::fuzz_target;
use topnext::config::{LocationKind, LocationPath};
use topnext::location::{Entry, Locations};
use topnext::regex::RegexList;

fuzz_target!(|data: &[u8]| {
    let Some((path, lines)) = data.split_at_checked(data.iter().position(|&byte| byte == b'\n').unwrap_or(0)) else {
        return;
    };
    let Ok(lines) = str::from_utf8(lines) else { return };
    if !path.starts_with(b"/") {
        return;
    }
    let mut paths: Vec<LocationPath> = Vec::new();
    for line in lines.split('\n').take(20) {
        // The regular expressions of a configuration are not a client's; long ones only take time.
        let Ok(location) = LocationPath::parse(line) else { continue };
        if line.len() <= 40 && !paths.iter().any(|other| other.identity() == location.identity()) {
            paths.push(location);
        }
    }
    let patterns: Vec<_> = paths.iter().filter_map(|path| path.regex.as_ref()).collect();
    let Ok(regexes) = RegexList::new(&patterns, &[]) else { return };
    let entry = |(place, path): (usize, &LocationPath)| Entry {
        path: path.clone(),
        place,
        redirects: false,
        locations: Locations::default(),
    };
    let entries = paths.iter().enumerate().map(entry).collect();
    let locations = Locations::new(entries, (!patterns.is_empty()).then(|| regexes.into()));
    let found = locations.find(path, &mut |_| {});
    assert!(!found.redirect);
    assert_eq!(found.place.copied(), simple(&paths, path), "{paths:?}");
});

/// The rule, read from <https://nginx.org/en/docs/http/ngx_http_core_module.html#location>.
fn simple(paths: &[LocationPath], path: &[u8]) -> Option<usize> {
    let of = |kind: LocationKind| paths.iter().enumerate().filter(move |(_, location)| location.kind == kind);
    if let Some((exact, _)) = of(LocationKind::Exact).find(|(_, location)| location.text.as_bytes() == path) {
        return Some(exact);
    }
    let prefixes = of(LocationKind::Prefix).chain(of(LocationKind::PrefixNoRegex));
    let longest = prefixes
        .filter(|(_, location)| path.starts_with(location.text.as_bytes()))
        .max_by_key(|(_, location)| location.text.len());
    if let Some((prefix, location)) = longest
        && location.kind == LocationKind::PrefixNoRegex
    {
        return Some(prefix);
    }
    let matches = |location: &LocationPath| {
        let alone = location.regex.as_ref().map(|pattern| RegexList::new(&[pattern], &[]));
        alone.is_some_and(|list| list.is_ok_and(|list| list.find(path).is_some()))
    };
    let regex = of(LocationKind::Regex).find(|(_, location)| matches(location));
    regex.or(longest).map(|(place, _)| place)
}
