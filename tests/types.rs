//! Types of files, and what is told of the server and of what is not found.

mod support;

use support::files::SITE;
use support::{Folder, Server};

const FILES: &[(&str, &[u8])] = &[
    ("html/a.html", b"x"),
    ("html/a.foo", b"x"),
    ("html/a.FOO", b"x"),
    ("html/in/a.foo", b"x"),
    ("html/in/a.html", b"x"),
    ("html/.html", b"x"),
];

fn with(lines: &str, behind: &str) -> Server {
    Server::with(FILES, &format!("{}{behind}", SITE.replace("root =", &format!("{lines}\nroot ="))))
}

#[test]
fn types_take_the_place_of_the_usual_ones() {
    let server = with(
        "default_type = \"x/default\"\ntypes = { \"application/x-foo\" = [\"foo\", \"bar\"], \"text/x-html\" = [] }",
        "[[http.server.location]]\npath = \"/in/\"\ntypes = { \"text/inner\" = [\"HTML\"] }\n",
    );
    for (path, expected) in [
        ("/a.foo", "application/x-foo"),
        ("/a.FOO", "application/x-foo"),
        ("/a.html", "x/default"),
        ("/in/a.html", "text/inner"),
        ("/in/a.foo", "x/default"),
    ] {
        assert_eq!(server.get(path).expect(200).field("Content-Type"), Some(expected), "{path}");
    }
    let server = with("", "");
    assert_eq!(
        server.get("/.html").expect(200).field("Content-Type"),
        Some("text/plain"),
        "a hidden file has no extension"
    );
}

#[test]
fn an_extension_has_one_type() {
    let folder = Folder::with(FILES);
    let config = SITE.replace("root =", "types = { \"a/b\" = [\"x\"], \"c/d\" = [\"y\", \"X\"] }\nroot =");
    let errors = Server::fails_in(&folder, &config);
    assert!(errors.contains("types: the extension \"x\" is of two types, \"a/b\" and \"c/d\""), "{errors}");
}

#[test]
fn server_tokens() {
    for (value, in_field) in
        [("true", true), ("\"on\"", true), ("\"build\"", true), ("false", false), ("\"off\"", false)]
    {
        let server = with(&format!("server_tokens = {value}"), "");
        for path in ["/a.html", "/none"] {
            let response = server.get(path);
            let field = response.field("Server").unwrap();
            assert_eq!(field.starts_with("topnext/"), in_field, "{value}: {response:?}");
            assert!(field.starts_with("topnext"), "{value}: {response:?}");
            assert_eq!(response.text().contains("topnext/"), in_field && path == "/none", "{value}: {response:?}");
        }
    }
}

#[test]
fn log_not_found() {
    let server = with("", "[[http.server.location]]\npath = \"/in/\"\nlog_not_found = false\n");
    for path in ["/in/none", "/in/none/", "/logged", "/logged/"] {
        server.get(path).expect(404);
    }
    let log = server.stderr(|log| log.contains("/logged/\" is not found"));
    assert!(log.contains("/logged\" failed (2: No such file or directory)"), "{log}");
    assert!(!log.contains("/in/none"), "{log}");
}
