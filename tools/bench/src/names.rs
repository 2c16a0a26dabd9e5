//! The case `names`: 1,000 server names, and 20 locations with regular expressions, as a host of many small sites has them.
//!
//! ```text
//! site-0007.example          900 names that are exact
//! *.wild-0007.example        50 with a leading, and 50 with a trailing wildcard
//! ~ ^/part-07/([a-z]+)/      10 that begin with a literal
//! ~* \.kind07$               10 that look at the end
//! ```
//!
//! Requests go over names and locations evenly. A third of them matches none of the expressions.

use crate::cases::Request;

const NAMES: usize = 1000;
const EXPRESSIONS: usize = 20;
const REQUESTS: usize = 300;

/// The names of the server, as both servers write them.
fn names() -> impl Iterator<Item = String> {
    (0..NAMES).map(|number| match number % 20 {
        0 => format!("*.wild-{number:04}.example"),
        10 => format!("wild-{number:04}.*"),
        _ => format!("site-{number:04}.example"),
    })
}

/// Whether case counts, and the expression.
fn expressions() -> impl Iterator<Item = (bool, String)> {
    (0..EXPRESSIONS).map(|number| match number % 2 {
        0 => (true, format!("^/part-{number:02}/([a-z]+)/")),
        _ => (false, format!(r"\.kind{number:02}$")),
    })
}

pub fn nginx() -> String {
    let names: Vec<String> = names().collect();
    let locations = expressions().enumerate().map(|(number, (case, expression))| {
        let kind = if case { "~" } else { "~*" };
        format!("        location {kind} {expression} {{ return 200 \"{number}\"; }}\n")
    });
    format!(
        "server_name {};\n{}        location / {{ return 200 none; }}",
        names.join(" "),
        locations.collect::<String>()
    )
}

pub fn topnext() -> String {
    let names: Vec<String> = names().map(|name| format!("{name:?}")).collect();
    let locations = expressions().enumerate().map(|(number, (case, expression))| {
        let kind = if case { "~" } else { "~*" };
        format!(
            "[[http.server.location]]\npath = '{kind} {expression}'\nreturn = {{ code = 200, text = \"{number}\" }}\n"
        )
    });
    let all = "[[http.server.location]]\npath = \"/\"\nreturn = { code = 200, text = \"none\" }\n";
    format!("server_name = [{}]\n{}{all}", names.join(", "), locations.collect::<String>())
}

pub fn requests() -> Vec<Request> {
    let host = |number: usize| match number % 20 {
        0 => format!("www.wild-{number:04}.example"),
        10 => format!("wild-{number:04}.org"),
        _ => format!("site-{number:04}.example"),
    };
    let path = |number: usize| {
        let expression = number % EXPRESSIONS;
        match (number % 3, expression % 2) {
            (0, _) => format!("/plain/{number}/index.html"),
            (_, 0) => format!("/part-{expression:02}/abc/{number}.html"),
            (_, _) => format!("/a/b/{number}.KIND{expression:02}"),
        }
    };
    // 7 has no factor in common with the number of names, so that all kinds of names are asked for.
    (0..REQUESTS).map(|number| Request::get(&path(number)).field("Host", &host(number * 7 % NAMES))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_expressions_are_as_many_as_they_say() {
        assert_eq!((names().count(), expressions().count()), (1000, 20));
        assert_eq!(nginx().matches("location ~").count(), 20);
        assert_eq!(topnext().matches("[[http.server.location]]").count(), 21);
    }

    #[test]
    fn requests_go_to_each_expression_and_to_each_kind_of_name() {
        let requests = requests();
        let some = |text: &str| requests.iter().any(|request| request.path.contains(text));
        for number in 0..EXPRESSIONS {
            assert!(some(&format!("/part-{number:02}/")) || some(&format!(".KIND{number:02}")), "{number}");
        }
        assert!(some("/plain/"));
        let hosts = || requests.iter().map(|request| &*request.fields[0].1);
        assert!(hosts().any(|host| host.ends_with(".org")) && hosts().any(|host| host.starts_with("www.wild")));
    }
}
