//! The index file of a folder.

mod support;

use support::Server;
use support::files::SITE;

#[test]
fn index_html_by_itself() {
    let server = Server::with(&[("html/index.html", b"top"), ("html/a/index.html", b"below"), ("html/b/x", b"")], SITE);
    let response = server.get("/").expect(200);
    assert_eq!((response.text(), response.field("Content-Type")), ("top", Some("text/html")), "{response:?}");
    assert_eq!(server.get("/a/?x=1").expect(200).text(), "below");
    assert_eq!(server.get("/a/../a//").expect(200).text(), "below");
    assert_eq!(server.get("/a").expect(301).field("Location"), Some(server.url("/a/").as_str()));
    server.get("/b/").expect(403);
    server.get("/none/").expect(404);
    let head = server.request("HEAD", "/", "").expect(200);
    assert_eq!(head.field("Content-Length"), Some("3"), "{head:?}");
    server.request("POST", "/", "").expect(405);
}

#[test]
fn the_first_file_that_exists() {
    let server = Server::with(
        &[
            ("html/a/index.txt", b"text"),
            ("html/b/index.htm", b"htm"),
            ("html/b/index.txt", b"text"),
            ("html/c/x", b""),
        ],
        &(SITE.to_owned() + "index.files = [\"index.htm\", \"index.txt\", \"/default.html\"]\n"),
    );
    assert_eq!(server.get("/a/").expect(200).text(), "text");
    assert_eq!(server.get("/b/").expect(200).text(), "htm");
    // The last one is a URI.
    server.get("/c/").expect(404);
    server.folder.write("html/default.html", b"default");
    assert_eq!(server.get("/c/").expect(200).text(), "default");
}

#[test]
fn a_folder_named_index_html_is_no_index() {
    let server = Server::with(&[("html/a/index.html/x", b"")], SITE);
    server.get("/a/").expect(403);
}

#[test]
fn variables_in_the_name() {
    let server = Server::with(
        &[("html/one.example.html", b"one"), ("html/index.html", b"other")],
        &(SITE.to_owned() + "index.files = [\"$host.html\", \"$arg_none\", \"index.html\"]\n"),
    );
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: one.example\r\n\r\nGET / HTTP/1.1\r\nHost: two.example\r\n\r\n");
    assert_eq!(client.response().expect(200).text(), "one");
    assert_eq!(client.response().expect(200).text(), "other");
}

#[test]
fn a_variable_cannot_lead_out_of_the_root() {
    let server = Server::with(
        &[("secret", b"SECRET"), ("html/index.html", b"inside")],
        &(SITE.to_owned() + "index.files = [\"$arg_file\", \"index.html\"]\n"),
    );
    for path in ["/?file=../secret", "/?file=/../secret", "/?file=..%2fsecret", "/?file=x/../../secret"] {
        let response = server.get(path);
        assert!(!response.text().contains("SECRET"), "{path}: {response:?}");
    }
    assert_eq!(server.get("/?file=").expect(200).text(), "inside");
}

#[test]
fn the_redirect_finds_a_new_location() {
    let server = Server::with(
        &[("html/a/index.html", b"x")],
        &(SITE.replace("{ name = \"index\" }", "{ name = \"return\" }, { name = \"index\" }")
            + "[[http.server.location]]\npath = \"= /a/index.html\"\nreturn = { code = 200, text = \"found $uri $args\" }\n"),
    );
    assert_eq!(server.get("/a/?q").expect(200).text(), "found /a/index.html q");
}

#[test]
fn redirects_in_a_circle_end() {
    let server = Server::with(&[("html/x", b"")], &(SITE.to_owned() + "index.files = [\"/\"]\n"));
    server.get("/").expect(500);
    server.stderr(|log| log.contains("rewrite or internal redirection cycle while internally redirecting to \"/\""));
}
