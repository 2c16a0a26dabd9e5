//! The filter as the server calls it.

use topnext_headers::Headers;
use topnext_module_api::testing;

fn headers(table: &str) -> Headers {
    testing::module(table).expect("a valid table")
}

#[test]
fn adds_fields_with_variables() {
    let filter = headers(
        "add_header = [{ name = \"X-Uri\", value = \"<$uri>\" }, { name = \"X-None\", value = \"$http_none\" },
         { name = \"Link\", value = \"b\" }, { name = \"ETag\", value = \"\" }]",
    );
    let present = [("Link", "a"), ("ETag", "\"x\"")];
    let out = testing::filter(&filter).request("GET /p HTTP/1.1\r\nHost: a\r\n\r\n").response(200, &present, "x").run();
    assert_eq!((out.header("x-uri"), out.header("x-none"), out.header("etag")), (Some("</p>"), None, None));
    let links: Vec<&[u8]> =
        out.headers.iter().filter(|(name, _)| name == "Link").map(|(_, value)| value.as_slice()).collect();
    assert_eq!(links, [b"a", b"b"]);
}

#[test]
fn errors_get_only_what_is_for_always() {
    let table = "expires = \"1h\"\nadd_header = [{ name = \"A\", value = \"1\" }, { name = \"B\", value = \"2\", always = true }]";
    let filter = headers(table);
    let out = testing::filter(&filter).response(404, &[], "x").run();
    assert_eq!((out.header("a"), out.header("b"), out.header("expires")), (None, Some("2"), None));
    let out = testing::filter(&filter).response(200, &[], "x").run();
    assert_eq!((out.header("a"), out.header("b")), (Some("1"), Some("2")));
    assert_eq!(out.header("cache-control"), Some("max-age=3600"));
    let out = testing::filter(&filter).subrequest().response(200, &[], "x").run();
    assert!(out.headers.is_empty());
}

#[test]
fn expires_replaces_what_is_there() {
    let filter = headers("expires = \"epoch\"");
    let there = [("Cache-Control", "private"), ("Expires", "0"), ("cache-control", "max-age=5")];
    let out = testing::filter(&filter).response(200, &there, "x").run();
    assert_eq!(out.headers.len(), 2);
    assert_eq!(out.header("expires"), Some("Thu, 01 Jan 1970 00:00:01 GMT"));
    assert_eq!(out.header("cache-control"), Some("no-cache"));
}

#[test]
fn a_wrong_table_is_refused_with_all_errors() {
    let table = "expires = \"soon\"\nadd_header = [{ name = \"A\", value = \"\" }, { name = \"B C\", value = \"\" }]";
    let errors = testing::module::<Headers>(table).err().expect("wrong");
    assert!(errors.contains("add_header[0][1].name: found \"B C\""), "{errors}");
    assert!(errors.contains("expires: found \"soon\""), "{errors}");
}

#[test]
fn keeps_the_contract_of_a_filter() {
    let filter = headers("add_header = [{ name = \"X-A\", value = \"$uri\" }]");
    testing::filter(&filter).response(200, &[("Content-Type", "text/plain")], "a body of some length").check();
}
