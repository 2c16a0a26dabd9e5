//! The first file that exists: `try_files`.

mod support;

use support::{Folder, Server};

const HEAD: &str = r#"
module = [{ name = "return" }, { name = "try_files" }, { name = "index" }, { name = "static" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
root = "html"
"#;

const FILES: &[(&str, &[u8])] = &[
    ("html/a.css", b"body {}"),
    ("html/dir/index.html", b"index"),
    ("html/dir/x", b"x"),
    ("html/default.html", b"default"),
    ("data/b.txt", b"in data"),
    ("data/sub/index.html", b"sub"),
    ("secret", b"SECRET"),
];

fn site(config: &str) -> Server {
    Server::with(FILES, &format!("{HEAD}{config}"))
}

#[test]
fn try_files_uri_then_folder_then_named() {
    let server = site(
        r#"
[[http.server.location]]
path = "/"
try_files = { files = ["$uri", "$uri/"], fallback = "@app" }
[[http.server.location]]
path = "@app"
return = { code = 200, text = "app: $request_method $uri?$args" }
"#,
    );
    let response = server.get("/a.css").expect(200);
    assert_eq!((response.text(), response.field("Content-Type")), ("body {}", Some("text/css")), "{response:?}");
    assert_eq!(server.get("/dir/").expect(200).text(), "index");
    assert!(server.get("/dir").expect(301).field("Location").unwrap().ends_with("/dir/"));
    assert_eq!(server.get("/none/x?y=1").expect(200).text(), "app: GET /none/x?y=1");
    assert_eq!(server.request("PUT", "/none", "").expect(200).text(), "app: PUT /none?");
}

#[test]
fn the_uri_that_was_found_is_served() {
    let server = site(
        r#"
[[http.server.location]]
path = "/"
try_files = { files = ["$uri", "/default.html"], fallback = "=404" }
[[http.server.location]]
path = "/status/"
try_files = { files = ["$uri"], fallback = "=418" }
[[http.server.location]]
path = "/php/"
try_files = { files = ["$uri"], fallback = "/index.php?q=$uri&$args" }
[[http.server.location]]
path = "= /index.php"
return = { code = 200, text = "$uri $args $request_uri" }
[[http.server.location]]
path = "/out/"
try_files = { files = ["$arg_f", "/../secret"], fallback = "/$arg_g" }
"#,
    );
    let response = server.get("/none.css").expect(200);
    assert_eq!((response.text(), response.field("Content-Type")), ("default", Some("text/html")), "{response:?}");
    let response = server.get("/status/x").expect(418);
    assert!(response.text().contains("<h1>418"), "{response:?}");
    assert_eq!(server.get("/php/x?a=b").expect(200).text(), "/index.php q=/php/x&a=b /php/x?a=b");
    assert_eq!(server.get("/out/?f=/a.css").expect(200).text(), "body {}");
    assert_eq!(server.get("/out/?f=a.css").expect(200).text(), "body {}");
    for path in ["/out/?f=/../secret", "/out/?f=../secret&g=../secret"] {
        assert!(!server.get(path).text().contains("SECRET"), "{path}");
    }
}

#[test]
fn with_alias() {
    let server = site(
        r#"
[[http.server.location]]
path = "/d/"
alias = "data/"
try_files = { files = ["$uri", "$uri/", "b.txt"], fallback = "=404" }
[[http.server.location]]
path = '~ ^/r/'
alias = "data"
try_files = { files = ["/$arg_f"], fallback = "=404" }
"#,
    );
    assert_eq!(server.get("/d/b.txt").expect(200).text(), "in data");
    assert_eq!(server.get("/d/sub/").expect(200).text(), "sub");
    assert!(server.get("/d/sub").expect(301).field("Location").unwrap().ends_with("/d/sub/"));
    assert_eq!(server.get("/d/none").expect(200).text(), "in data", "the last name is below the alias");
    assert_eq!(server.get("/r/x?f=b.txt").expect(200).text(), "in data");
    server.get("/r/x?f=none").expect(404);
}

#[test]
fn it_is_not_inherited() {
    let server = site(
        r#"
try_files = { files = ["$uri"], fallback = "@app" }
[[http.server.location]]
path = "/dir/"
[[http.server.location]]
path = "@app"
root = "data"
"#,
    );
    assert_eq!(server.get("/a.css").expect(200).text(), "body {}");
    // In the named location it does not start anew.
    assert_eq!(server.get("/b.txt").expect(200).text(), "in data");
    server.get("/none").expect(404);
    server.get("/dir/none").expect(404);
    let folder = Folder::with(FILES);
    let errors =
        Server::fails_in(&folder, &format!("{HEAD}try_files = {{ files = [\"/a\"] }}\n[http.try_files]\nfiles = []\n"));
    assert!(errors.contains("http.server.try_files.fallback: missing, but required"), "{errors}");
    assert!(errors.contains("http.try_files: not valid here; this module is valid in server, location"), "{errors}");
}

#[test]
fn a_fallback_that_leads_back_ends() {
    let server =
        site("[[http.server.location]]\npath = \"/\"\ntry_files = { files = [\"$uri\"], fallback = \"/none\" }\n");
    server.get("/x").expect(500);
    server.stderr(|log| log.contains("internal redirection cycle while internally redirecting to \"/none\""));
}
