//! The cases of `topnext-bench http`, and the files that they serve. A new case is a new entry of [`CASES`].
//!
//! ```text
//! Case { name: "1k", path: "/1k", nginx: "", topnext: "", connections: 64, floor: 1.35, goal: 1.5, .. }
//! ```
//!
//! Both servers stand on a `root` with [`FILES`] in it, so a case that serves one of them needs no configuration.

/// One kind of work that both servers do.
#[derive(Debug)]
pub struct Case {
    /// What `--case` takes.
    pub name: &'static str,
    /// One line for `--list`.
    pub about: &'static str,
    /// Goes into nginx's `server` block.
    pub nginx: &'static str,
    /// Follows the keys of topnext's `[[http.server]]`: keys of the server first, then tables. It may end with further
    /// `[[module]]` tables; the modules of [`MODULES`] are declared before them.
    pub topnext: &'static str,
    /// What the client asks for.
    pub path: &'static str,
    /// Connections that the client keeps open at once.
    pub connections: u32,
    /// The lowest ratio of requests per CPU second (topnext / nginx) that may be released.
    pub floor: f64,
    /// The ratio to reach.
    pub goal: f64,
}

/// Modules that topnext loads for every case, in declared order.
pub const MODULES: &[&str] = &["return", "static", "index", "not_modified"];

/// Names and sizes (bytes) of the files below `root`.
pub const FILES: &[(&str, usize)] = &[("1k", 1024), ("1m", 1024 * 1024)];

/// Every case, in the order in which they run.
pub static CASES: &[Case] = &[
    Case {
        name: "return",
        about: "status 200 with two bytes of text, by the directive `return`",
        nginx: "location = /return { return 200 ok; }",
        topnext: "[[http.server.location]]\npath = \"= /return\"\nreturn = { code = 200, text = \"ok\" }",
        path: "/return",
        connections: 64,
        floor: 1.08,
        goal: 1.15,
    },
    Case {
        name: "1k",
        about: "a file of 1 KB",
        nginx: "",
        topnext: "",
        path: "/1k",
        connections: 64,
        floor: 1.35,
        goal: 1.5,
    },
    Case {
        name: "1m",
        about: "a file of 1 MB",
        nginx: "",
        topnext: "",
        path: "/1m",
        connections: 16,
        floor: 0.95,
        goal: 1.0,
    },
];

/// The case of this name; the error lists the names that exist.
pub fn find(name: &str) -> Result<&'static Case, String> {
    CASES.iter().find(|case| case.name == name).ok_or_else(|| {
        let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        format!("no case is named {name:?}; there are: {}", names.join(", "))
    })
}

/// The bytes of a file of [`FILES`]: printable, and not the same at two places a small distance apart, so that a body
/// with a piece missing or doubled differs.
pub fn content(size: usize) -> Vec<u8> {
    let mut state: u32 = 1;
    let next = || {
        // A linear congruential generator (the constants of C's classic rand); its upper bits are the better ones.
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        b'!' + (state >> 16) as u8 % 94
    };
    std::iter::repeat_with(next).take(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_floors_lie_below_goals() {
        for (at, case) in CASES.iter().enumerate() {
            assert!(std::ptr::eq(find(case.name).unwrap(), case), "{}: entry {at} is hidden by another", case.name);
            assert!(0.0 < case.floor && case.floor <= case.goal, "{}", case.name);
            assert!(case.path.starts_with('/') && case.connections > 0, "{}", case.name);
        }
    }

    #[test]
    fn unknown_name_lists_the_known() {
        assert_eq!(find("2k").unwrap_err(), "no case is named \"2k\"; there are: return, 1k, 1m");
    }

    #[test]
    fn content_is_printable_and_does_not_repeat_early() {
        let bytes = content(4096);
        assert_eq!(bytes.len(), 4096);
        assert!(bytes.iter().all(u8::is_ascii_graphic));
        assert_ne!(bytes[..1024], bytes[1024..2048]);
    }
}
