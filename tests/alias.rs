//! Where files are: `root` and `alias`, with variables and captures.

mod support;

use std::os::unix::fs::symlink;

use support::{Folder, Server};

const HEAD: &str = r#"
module = [{ name = "return" }, { name = "try_files" }, { name = "index" }, { name = "static" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
root = "html"
"#;

fn site(files: &[(&str, &[u8])], config: &str) -> Server {
    Server::with(files, &format!("{HEAD}{config}"))
}

const FILES: &[(&str, &[u8])] = &[
    ("html/i/a.gif", b"in the root"),
    ("data/a.gif", b"in data"),
    ("data/sub/index.html", b"index"),
    ("data/x/a.gif", b"in x"),
    ("one.txt", b"one"),
];

#[test]
fn alias_takes_the_place_of_the_path() {
    let server = site(
        FILES,
        r#"
[[http.server.location]]
path = "/i/"
alias = "data/"
[[http.server.location]]
path = "/noslash"
alias = "data"
[[http.server.location]]
path = "= /one"
alias = "one.txt"
[[http.server.location]]
path = "/outer/"
alias = "data/"
[[http.server.location.location]]
path = "/outer/x/"
default_type = "x/inner"
[[http.server.location.location]]
path = "/outer/y/"
root = "html"
"#,
    );
    for (path, expected) in [
        ("/i/a.gif", "in data"),
        ("/i/sub/", "index"),
        ("/i/x/../a.gif", "in data"),
        ("/noslash/a.gif", "in data"),
        ("/one", "one"),
        ("/outer/a.gif", "in data"),
        // The alias belongs to the location around.
        ("/outer/x/a.gif", "in x"),
    ] {
        assert_eq!(server.get(path).expect(200).text(), expected, "{path}");
    }
    assert_eq!(server.get("/i/sub").expect(301).field("Location").map(|to| to.ends_with("/i/sub/")), Some(true));
    server.get("/outer/y/a.gif").expect(404);
    server.stderr(|log| log.contains("html/outer/y/a.gif\" failed"));
    for path in ["/i../one.txt", "/i/../one.txt", "/noslash../one.txt", "/i/%2e%2e/one.txt"] {
        assert!(!server.get(path).expect(404).text().contains("one"), "{path}");
    }
}

#[test]
fn alias_of_a_regex_is_made_of_its_captures() {
    let server = site(
        FILES,
        r#"
[[http.server.location]]
path = '~ ^/r/(?<dir>[^/]+)/(.+)$'
alias = "data/$dir/$2"
[[http.server.location]]
path = '~ ^/all/'
alias = "one.txt"
"#,
    );
    assert_eq!(server.get("/r/x/a.gif").expect(200).text(), "in x");
    assert_eq!(server.get("/all/whatever").expect(200).text(), "one");
    server.get("/r/none/a.gif").expect(404);
    // A capture cannot lead out: the path is normalized, and what is left is refused.
    server.get("/r/x/%2e%2e%2f%2e%2e/one.txt").expect(404);
}

#[test]
fn root_with_variables() {
    let server = site(
        &[("sites/one.example/a", b"one"), ("sites/two.example/a", b"two"), ("html/a", b"html"), ("a", b"SECRET")],
        r#"
[[http.server.location]]
path = "/"
root = "sites/$host"
[[http.server.location]]
path = "/arg/"
alias = "sites/$arg_x/"
"#,
    );
    let mut client = server.connect();
    for (host, expected) in [("one.example", "one"), ("TWO.example:80", "two")] {
        client.send(format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.response().expect(200).text(), expected);
    }
    client.send("GET /a HTTP/1.1\r\nHost: three.example\r\n\r\n");
    client.response().expect(404);
    assert_eq!(server.get("/arg/a?x=two.example").expect(200).text(), "two");
    for path in ["/arg/a?x=..", "/arg/a?x=one.example/../.."] {
        assert!(!server.get(path).expect(404).text().contains("SECRET"), "{path}");
    }
    server.stderr(|log| log.contains("unsafe path \"sites/../\" of variables"));
}

#[test]
fn what_is_behind_a_path_without_a_slash_cannot_lead_out() {
    let server = site(
        FILES,
        r#"
[[http.server.location]]
path = "/i"
alias = "data/"
[[http.server.location]]
path = "/t"
alias = "data/"
try_files = { files = ["$uri", "$arg_f"], fallback = "=404" }
[[http.server.location]]
path = "/dot"
alias = "data/."
[[http.server.location]]
path = "/x"
try_files = { files = ["/none"], fallback = "/dot./$arg_f" }
"#,
    );
    for path in ["/i/a.gif", "/ia.gif", "/t/a.gif", "/t?f=a.gif", "/dot/a.gif"] {
        assert_eq!(server.get(path).expect(200).text(), "in data", "{path}");
    }
    // Two dots that are not alone are a name like any other.
    server.get("/i..a.gif").expect(404);
    for path in ["/i../one.txt", "/t../one.txt", "/t?f=../one.txt", "/dot./one.txt", "/x?f=one.txt", "/i..", "/i../"] {
        assert!(!server.get(path).expect(404).text().contains("one"), "{path}");
    }
    server.stderr(|log| log.contains("unsafe URI \"/i../one.txt\" was detected"));
}

#[test]
fn a_folder_for_a_path_without_a_slash_is_warned_of() {
    let folder = Folder::with(FILES);
    let answer = Server::tests(
        &folder,
        &format!(
            "{HEAD}[[http.server.location]]\npath = \"/i\"\nalias = \"data/\"\n\
             [[http.server.location.location]]\npath = \"/i/in\"\n\
             [[http.server.location]]\npath = \"/j/\"\nalias = \"data/\"\n\
             [[http.server.location]]\npath = \"/k\"\nalias = \"data\"\n\
             [[http.server.location]]\npath = \"= /l\"\nalias = \"data/\"\n"
        ),
    );
    assert_eq!(answer.code, Some(0), "{answer:#?}");
    let warnings: Vec<&str> = answer.stderr.lines().filter(|line| line.contains("[warn]")).collect();
    let text = "alias: it ends with a slash, and the path of the location \"/i\" does not, so that \"/ix\" is in it as well \
                as \"/i/x\"; give both a slash at the end, or none";
    assert!(warnings.len() == 1 && warnings[0].ends_with(text), "{answer:#?}");
}

#[test]
fn dots_of_the_operator_are_no_leave_for_those_of_a_variable() {
    let server = site(
        &[("html/a", b"html"), ("sub/a", b"sub"), ("sub/x/a", b"in x"), ("a", b"SECRET")],
        r#"
[[http.server.location]]
path = "/d/"
alias = "html/../sub/$arg_x/"
[[http.server.location]]
path = "/j/"
alias = "html/../sub/.$arg_x/"
"#,
    );
    assert_eq!(server.get("/d/a?x=x").expect(200).text(), "in x");
    assert_eq!(server.get("/d/a").expect(200).text(), "sub");
    for path in ["/d/a?x=..", "/d/a?x=../", "/d/a?x=x/../..", "/j/a?x=."] {
        assert!(!server.get(path).expect(404).text().contains("SECRET"), "{path}");
    }
}

#[test]
fn variables_of_the_folder() {
    let folder = Folder::with(FILES);
    symlink("data", folder.path("link")).unwrap();
    let dir = folder.path("").canonicalize().unwrap().display().to_string();
    let text = "$document_root|$realpath_root|$request_filename";
    let server = Server::start_in(
        folder,
        &format!(
            "{HEAD}[[http.server.location]]\npath = \"/l/\"\nalias = \"link/\"\nreturn = {{ code = 200, text = \"{text}\" }}\n\
             [[http.server.location]]\npath = \"/v/\"\nroot = \"link/$arg_d\"\nreturn = {{ code = 200, text = \"{text}\" }}\n\
             [[http.server.location]]\npath = \"/gone/\"\nroot = \"$arg_none/gone\"\nreturn = {{ code = 200, text = \"{text}\" }}\n"
        ),
    );
    let seen = |path: &str| server.get(path).expect(200).text().replace(&dir, "DIR");
    // The prefix is as it was given, which need not be absolute.
    let l = seen("/l/a.gif");
    assert!(l.ends_with("link/|DIR/data|DIR/link/a.gif") || l.ends_with("|DIR/data|link/a.gif"), "{l}");
    let v = seen("/v/a.gif?d=x");
    assert!(v.contains("link/x|DIR/data/x|") && v.ends_with("link/x/v/a.gif"), "{v}");
    assert_eq!(seen("/gone/a"), "/gone||/gone/gone/a");
    server.stderr(|log| log.contains("realpath() \"/gone\" failed"));
}

#[test]
fn wrong_folders_are_refused() {
    let folder = Folder::with(FILES);
    let errors = Server::fails_in(
        &folder,
        &format!(
            "{HEAD}error_page = []\n\
             [[http.server.location]]\npath = \"/a/\"\nroot = \"html\"\nalias = \"data/\"\n\
             [[http.server.location]]\npath = \"/b/\"\nalias = \"none/\"\n\
             [[http.server.location]]\npath = \"/c/\"\nroot = \"$document_root/x\"\n\
             [[http.server.location]]\npath = \"/d/\"\nalias = \"${{realpath_root}}/$nothing\"\n\
             [[http.server.location]]\npath = \"@e\"\nalias = \"data/\"\n\
             [[http.server.location]]\npath = \"/f/\"\nroot = \"$nothing\"\n\
             [[http.server.location]]\npath = \"/g/\"\nroot = \"none/$host\"\n"
        ),
    );
    for part in [
        "http.server.location.alias: root stands in this location already",
        "none/\", which is not a folder",
        "found \"$document_root/x\", in which \"$document_root\" cannot stand",
        "in which \"$realpath_root\" cannot stand",
        "alias: cannot stand in the named location \"@e\"",
        "root: unknown variable \"$nothing\"",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    assert_eq!(errors.lines().count(), 6, "what has variables is not looked for: {errors}");
}
