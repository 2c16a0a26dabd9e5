//! `headers.add_header` and `headers.expires`.

mod support;

use std::fs::File;
use std::time::{Duration, SystemTime};

use support::{Folder, Response, Server};

#[test]
fn inner_levels_replace_and_merge() {
    let server = Server::start(
        r#"
module = [{ name = "return" }, { name = "headers" }]
[http]
headers.add_header = [{ name = "X-Http", value = "1" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
headers.add_header = [{ name = "X-Server", value = "2" }, { name = "X-Two", value = "a" }, { name = "X-Two", value = "b" }]
[[http.server.location]]
path = "/inherits"
return = { code = 200, text = "" }
[[http.server.location]]
path = "/replaces"
return = { code = 200, text = "" }
headers.add_header = [{ name = "X-Location", value = "3" }]
[[http.server.location]]
path = "/merges"
return = { code = 200, text = "" }
headers = { add_header = [{ name = "X-Location", value = "3" }], add_header_inherit = "merge" }
[[http.server.location]]
path = "/drops"
return = { code = 200, text = "" }
headers.add_header = []
[[http.server.location]]
path = "/outer/"
headers.add_header = [{ name = "X-Outer", value = "4" }]
[[http.server.location.location]]
path = "/outer/inner"
return = { code = 200, text = "" }
[[http.server]]
listen = ["127.0.0.1:PORT2"]
return = { code = 200, text = "" }
"#,
    );
    let added = |response: Response| {
        let ours = response.fields.iter().filter(|(name, _)| name.starts_with("X-"));
        ours.map(|(name, value)| format!("{}={value}", &name[2..])).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(added(server.get("/inherits")), "Server=2 Two=a Two=b");
    assert_eq!(added(server.get("/replaces")), "Location=3");
    assert_eq!(added(server.get("/merges")), "Http=1 Server=2 Two=a Two=b Location=3");
    assert_eq!(added(server.get("/drops")), "");
    assert_eq!(added(server.get("/outer/inner")), "Outer=4");
    let mut client = support::Client::connect(server.address2());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(added(client.response()), "Http=1");
}

#[test]
fn always_is_for_errors_too() {
    let server = Server::start(
        r#"
module = [{ name = "return" }, { name = "headers" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
headers.add_header = [{ name = "X-Good", value = "1" }, { name = "X-Always", value = "$status", always = true }]
[[http.server.location]]
path = "/good"
return = { code = 200, text = "" }
[[http.server.location]]
path = "/redirect"
return = { code = 302, url = "/" }
[[http.server.location]]
path = "/bad"
return = { code = 500 }
"#,
    );
    for (path, good, always) in
        [("/good", Some("1"), "200"), ("/redirect", Some("1"), "302"), ("/bad", None, "500"), ("/none", None, "404")]
    {
        let response = server.get(path);
        assert_eq!(
            (response.field("X-Good"), response.field("X-Always")),
            (good, Some(always)),
            "{path}: {response:?}"
        );
    }
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(client.response().expect(400).field("X-Always"), Some("400"));
}

#[test]
fn values_with_variables() {
    let server = Server::with(
        &[("html/a", b"x")],
        r#"
module = [{ name = "static" }, { name = "headers" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
root = "html"
headers.add_header = [
    { name = "X-Uri", value = "<$uri?$args>" },
    { name = "X-Empty", value = "$arg_none" },
    { name = "X-Type", value = "$sent_http_content_type" },
    { name = "ETag", value = "" },
    { name = "Last-Modified", value = "$arg_date" },
]
"#,
    );
    let response = server.get("/a?b=c").expect(200);
    assert_eq!(response.field("X-Uri"), Some("</a?b=c>"), "{response:?}");
    assert_eq!(response.field("X-Type"), Some("text/plain"), "{response:?}");
    for name in ["X-Empty", "ETag", "Last-Modified"] {
        assert_eq!(response.field(name), None, "{response:?}");
    }
    let response = server.get("/a?date=never").expect(200);
    assert_eq!(response.field("Last-Modified"), Some("never"), "{response:?}");
}

#[test]
fn a_line_break_in_a_value_adds_nothing() {
    let server = Server::with(
        &[("html/a", b"x")],
        r#"
module = [{ name = "return" }, { name = "headers" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
return = { code = 200, text = "" }
headers.add_header = [{ name = "X-Uri", value = "$uri" }]
"#,
    );
    let response = server.get("/a%0d%0aSet-Cookie:%20evil=1");
    assert!(!response.head.contains("evil=1\r\n") && response.field("Set-Cookie").is_none(), "{response:?}");
}

#[test]
fn expires_in_all_forms() {
    let mut config = r#"
module = [{ name = "static" }, { name = "headers" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
root = "html"
headers.expires = "1h"
"#
    .to_owned();
    let forms = [
        ("inherited", ""),
        ("off", "off"),
        ("epoch", "epoch"),
        ("max", "max"),
        ("day", "1d"),
        ("past", "-1"),
        ("zero", "0"),
        ("modified", "modified +24h"),
    ];
    let folder = Folder::new();
    for (name, expires) in forms {
        let path = folder.write(&format!("html/{name}/a"), b"x");
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(SystemTime::now() - Duration::from_secs(3600))
            .unwrap();
        config += &format!("[[http.server.location]]\npath = \"/{name}/\"\n");
        if !expires.is_empty() {
            config += &format!("headers.expires = \"{expires}\"\n");
        }
    }
    let server = Server::start_in(folder, &config);
    // Expires as seconds from Date on, and Cache-Control.
    let fields = |name: &str| {
        let response = server.get(&format!("/{name}/a")).expect(200);
        let date = |field: &str| response.field(field).map(|text| httpdate::parse_http_date(text).unwrap());
        let now = date("Date").unwrap();
        let seconds = date("Expires").map(|time| match time.duration_since(now) {
            Ok(after) => i64::try_from(after.as_secs()).unwrap(),
            Err(before) => -i64::try_from(before.duration().as_secs()).unwrap(),
        });
        (seconds, response.field("Cache-Control").map(str::to_owned), response.field("Expires").map(str::to_owned))
    };
    let near = |seconds: Option<i64>, expected: i64| seconds.is_some_and(|seconds| (seconds - expected).abs() <= 2);
    for (name, expected) in [("inherited", 3600), ("day", 86_400), ("zero", 0)] {
        let (seconds, cache, _) = fields(name);
        assert!(
            near(seconds, expected) && cache == Some(format!("max-age={expected}")),
            "{name}: {seconds:?} {cache:?}"
        );
    }
    assert_eq!(fields("off"), (None, None, None));
    let (seconds, cache, _) = fields("past");
    assert!(near(seconds, -1) && cache.as_deref() == Some("no-cache"), "{seconds:?} {cache:?}");
    let (_, cache, expires) = fields("epoch");
    assert_eq!((expires.as_deref(), cache.as_deref()), (Some("Thu, 01 Jan 1970 00:00:01 GMT"), Some("no-cache")));
    let (_, cache, expires) = fields("max");
    let max = (Some("Thu, 31 Dec 2037 23:55:55 GMT"), Some("max-age=315360000"));
    assert_eq!((expires.as_deref(), cache.as_deref()), max);
    let (seconds, cache, _) = fields("modified");
    assert!(near(seconds, 23 * 3600) && cache.is_some_and(|cache| cache.starts_with("max-age=82")), "{seconds:?}");
    let response = server.get("/day/none").expect(404);
    assert_eq!(response.field("Expires"), None, "{response:?}");
}
