//! The handler as the server calls it.

use std::{fs, path::PathBuf, sync::Arc};

use topnext_autoindex::{Autoindex, Turns};
use topnext_module_api::{Code, Phase, State, testing};

/// A folder with some files, for one test.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("autoindex_{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("sub")).expect("a folder");
    for (name, text) in [("b.txt", "12345"), ("a.txt", ""), (".hidden", "")] {
        fs::write(folder.join(name), text).expect("a file");
    }
    folder
}

fn make(table: &str) -> Result<Autoindex, String> {
    testing::with_state(table, &Arc::new(Turns::create()?))
}

fn autoindex(table: &str) -> Autoindex {
    make(&format!("enabled = true\n{table}")).expect("a valid table")
}

fn of<'a>(handler: &'a Autoindex, line: &str, folder: &str) -> testing::HandlerTest<'a> {
    let request = format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
    testing::handler(handler, Phase::Content).request(&request).filename(folder).on_disk(folder)
}

fn path(folder: &std::path::Path) -> String {
    format!("{}/", folder.display())
}

#[test]
fn lists_a_folder() {
    let folder = folder("lists");
    let handler = autoindex("");
    let test = of(&handler, "GET /pub/", &path(&folder));
    let out = test.run();
    assert_eq!((out.status, out.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(out.content_length, None);
    let text = out.text();
    let names: Vec<&str> = text.split("<a href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(names, ["../", "sub/", "a.txt", "b.txt"]);
    assert!(text.contains("<h1>Index of /pub/</h1>"), "{text}");
    test.check();
    fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn a_large_folder_is_sent_as_the_client_takes_it() {
    let folder = folder("large");
    for i in 0..1500 {
        fs::write(folder.join(format!("a_file_with_a_name_of_some_length_{i}.txt")), "").expect("a file");
    }
    let handler = autoindex("format = \"json\"");
    let out = of(&handler, "GET /", &path(&folder)).run();
    assert_eq!((out.status, out.text().matches("\"type\":\"file\"").count()), (200, 1502));
    assert!(out.sent.len() > 1, "{:?}", out.sent);
    of(&handler, "GET /", &path(&folder)).rounds(20).check();
    fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn the_forms() {
    let folder = folder("forms");
    for (format, line, content_type, start) in [
        ("json", "GET /", "application/json", "[\r\n{ \"name\":\"sub\", \"type\":\"directory\""),
        ("jsonp", "GET /?callback=f.g", "application/javascript", "/* callback */\r\nf.g([\r\n{ \"name\":\"sub\""),
        ("jsonp", "GET /", "application/json", "[\r\n{ \"name\":\"sub\""),
        ("xml", "GET /", "text/xml; charset=utf-8", "<?xml version=\"1.0\"?>\r\n<list>\r\n<directory mtime=\""),
    ] {
        let handler = autoindex(&format!("format = \"{format}\""));
        let out = of(&handler, line, &path(&folder)).run();
        assert_eq!((out.status, out.header("Content-Type")), (200, Some(content_type)), "{format}");
        assert!(out.text().starts_with(start), "{}", out.text());
    }
    let handler = autoindex("format = \"jsonp\"");
    assert_eq!(of(&handler, "GET /?callback=alert(1)", &path(&folder)).run().code, Some(Code::status(400)));
    fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn head_gets_the_header_only() {
    let folder = folder("head");
    let handler = autoindex("");
    let out = of(&handler, "HEAD /", &path(&folder)).run();
    assert_eq!((out.status, out.body.len()), (200, 0));
    of(&handler, "HEAD /", &path(&folder)).check();
    fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn what_is_no_folder_is_not_found() {
    let folder = folder("none");
    let handler = autoindex("");
    for name in ["none/", "a.txt/", &format!("{}/", "n".repeat(300))] {
        let test = of(&handler, "GET /", &format!("{}{name}", path(&folder)));
        let out = test.run();
        assert_eq!(out.code, Some(Code::status(404)), "{name}");
        assert!(out.logged("opendir()"), "{:?}", out.log);
        test.check();
    }
    fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn leaves_other_requests_alone() {
    let handler = autoindex("");
    for line in ["GET /pub", "POST /pub/", "DELETE /pub/"] {
        assert_eq!(of(&handler, line, "none/").run().code, Some(Code::DECLINED), "{line}");
    }
    assert_eq!(of(&handler, "GET /", "").run().code, Some(Code::DECLINED), "no root");
}

#[test]
fn a_wrong_table_is_refused() {
    let errors = make("enabled = true\nformat = \"yaml\"").err().expect("wrong");
    assert_eq!(errors, "format: found \"yaml\", expected one of html, json, jsonp, xml");
}
