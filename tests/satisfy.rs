//! The phases between the locations and the content: `satisfy`, changed URIs, and what an answer means in each.

#[path = "support/build.rs"]
mod build;
mod support;

use std::fs;

use support::{Folder, Server};

/// Two gates: the first does what `?gate=` says, the second what `?second=` says.
fn site(config: &str) -> Server {
    let file = build::module("gate");
    let folder = Folder::new();
    // A library is in a process only once: the second needs a file of its own.
    fs::copy(&file, folder.path("libgate_two.so")).unwrap();
    let head = format!(
        r#"
module = [
    {{ name = "gate", path = {file:?} }},
    {{ name = "gate", as = "second", path = {:?} }},
    {{ name = "return" }},
]
[[http.server]]
listen = ["127.0.0.1:PORT"]
GATE
second.answers = "arg_second"
"#,
        folder.path("libgate_two.so")
    );
    // A test may have a table of its own for the server.
    let gate = if config.starts_with("gate") { "" } else { "gate = {}" };
    Server::start_in(folder, &format!("{}\n{config}", head.replace("GATE", gate)))
}

const NAMED: &str = r#"
error_page = [{ code = [404], uri = "@content", response = 200 }]
[[http.server.location]]
path = "@content"
return = { code = 200, text = "in: $uri" }
"#;

#[test]
fn all_must_let_it_in_by_default() {
    let server = site(NAMED);
    for (query, status) in [
        ("", 200),
        ("gate=access:ok", 200),
        ("gate=access:ok&second=access:ok", 200),
        ("gate=access:403", 403),
        ("gate=access:ok&second=access:403", 403),
        ("gate=access:401&second=access:ok", 401),
        ("second=access:503", 503),
        ("gate=access:ok,precontent:ok", 200),
    ] {
        let response = server.get(&format!("/x?{query}")).expect(status);
        assert_eq!(response.field("WWW-Authenticate").is_some(), status == 401, "{query}: {response:?}");
    }
}

#[test]
fn any_is_enough_with_satisfy_any() {
    let server = site(&format!("satisfy = \"any\"\n{NAMED}"));
    for (query, status) in [
        ("", 200),
        ("gate=access:403&second=access:ok", 200),
        ("gate=access:401&second=access:ok", 200),
        ("gate=access:ok&second=access:403", 200),
        ("gate=access:403", 403),
        ("gate=access:401&second=access:403", 401),
        ("gate=access:403&second=access:401", 401),
        // Only these two wait for another's consent.
        ("gate=access:503&second=access:ok", 503),
    ] {
        let response = server.get(&format!("/x?{query}")).expect(status);
        let asks = response.field("WWW-Authenticate").is_some();
        assert_eq!(asks, status == 401, "{query}: {response:?}");
    }
    server.stderr(|log| log.contains("access forbidden by rule, client: 127.0.0.1"));
}

#[test]
fn what_ok_means_in_each_phase() {
    let server = site(NAMED);
    for (query, status) in [
        ("gate=post-read:ok", 200),
        ("gate=preaccess:ok", 200),
        ("gate=precontent:ok", 200),
        // A handler that answers for itself must have sent something.
        ("gate=rewrite:ok", 500),
        ("gate=server-rewrite:ok", 500),
        ("gate=content:ok", 500),
        ("gate=preaccess:403", 403),
        ("gate=precontent:404", 200),
        ("gate=rewrite:error", 500),
        // Ok of the first spares the request the second one.
        ("gate=preaccess:ok&second=preaccess:403", 200),
        ("second=preaccess:403", 403),
    ] {
        server.get(&format!("/x?{query}")).expect(status);
    }
    server.stderr(|log| log.contains("was finalized by its handler without a response"));
}

#[test]
fn a_changed_uri_finds_its_location() {
    let server = site(
        r#"
[[http.server.location]]
path = "/old"
gate = { rewrite_in = "rewrite", to = "/new" }
[[http.server.location]]
path = "/new"
internal = true
return = { code = 200, text = "new: $uri?$args $request_uri" }
[[http.server.location]]
path = "/late"
gate = { rewrite_in = "precontent", to = "/new" }
error_page = [{ code = [404], uri = "@late", response = 200 }]
[[http.server.location]]
path = "@late"
return = { code = 200, text = "late: $uri" }
[[http.server.location]]
path = "/round"
gate = { rewrite_in = "rewrite", to = "${uri}x" }
"#,
    );
    assert_eq!(server.get("/old?a=b").expect(200).text(), "new: /new?a=b /old?a=b");
    server.get("/new").expect(404);
    assert_eq!(server.get("/late").expect(200).text(), "late: /new", "behind the rewrite phase it stays where it is");
    server.get("/round").expect(500);
    server.stderr(|log| {
        log.contains("rewrite or internal redirection cycle while processing \"/roundxxxxxxxxxxx\", client: 127.0.0.1")
    });
}

#[test]
fn a_uri_changed_in_the_server_is_what_its_location_is_found_by() {
    let server = site(
        r#"
gate = { rewrite_in = "server-rewrite", to = "/b$arg_to" }
[[http.server.location]]
path = "/b"
return = { code = 200, text = "b: $uri" }
"#
        .trim_start(),
    );
    assert_eq!(server.get("/a?to=/x").expect(200).text(), "b: /b/x");
    server.get("/a?to=/../x").expect(500);
}
