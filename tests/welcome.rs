//! The welcome page.

mod support;

use support::Server;

const SITE: &str = r#"
module = [{ name = "welcome" }, { name = "headers" }, { name = "return" }, { name = "not_modified" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
[[http.server.location]]
path = "= /"
welcome.enabled = true
[[http.server.location]]
path = "= /off"
welcome.enabled = false
"#;

#[test]
fn curl_gets_text() {
    let server = Server::start(SITE);
    let response = server.get_with("/", "Accept: */*\r\n").expect(200);
    assert_eq!(response.field("Content-Type"), Some("text/plain; charset=utf-8"), "{response:?}");
    assert_eq!(response.field("Vary"), Some("Accept"), "{response:?}");
    let text = response.text();
    assert!(text.starts_with(concat!("topnext ", env!("CARGO_PKG_VERSION"), " is running.\n")), "{text}");
    assert!(text.contains("  top -> headers -> not_modified -> write\n"), "{text}");
    let places: Vec<usize> = ["  welcome ", "  headers ", "  return ", "  not_modified "]
        .iter()
        .map(|name| text.find(&format!("\n{name}")).unwrap_or_else(|| panic!("{name} in {text}")))
        .collect();
    assert!(places.is_sorted(), "{places:?} in {text}");
    assert!(text.contains(&format!("process                {}\n", server.worker())), "{text}");
}

#[test]
fn a_browser_gets_a_page() {
    let server = Server::start(SITE);
    let response = server.get_with("/", "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\n").expect(200);
    assert_eq!(response.field("Content-Type"), Some("text/html; charset=utf-8"), "{response:?}");
    let page = response.text();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"), "{page}");
    let chain = "<li class=\"end\">top</li>\n<li>headers</li>\n<li>not_modified</li>\n<li class=\"end\">write</li>\n";
    assert!(page.contains(chain), "{page}");
    let places: Vec<usize> = ["welcome", "headers", "return", "not_modified"]
        .iter()
        .map(|name| page.find(&format!("<td><code>{name}</code></td>")).unwrap_or_else(|| panic!("{name} in {page}")))
        .collect();
    assert!(places.is_sorted(), "{places:?} in {page}");
}

#[test]
fn what_the_client_says_is_escaped() {
    let server = Server::start(&SITE.replace("= /\"", "/\""));
    let response = server.get_with("/%3Cscript%3Ealert(1)%3C/script%3E", "Accept: text/html\r\n").expect(200);
    assert!(!response.text().contains("<script"), "{response:?}");
    assert!(response.text().contains("/&lt;script&gt;alert(1)&lt;/script&gt;"), "{response:?}");
}

#[test]
fn pages_are_counted() {
    let server = Server::start(SITE);
    for count in 1..=3 {
        let text = server.get("/").text().to_owned();
        assert!(text.contains(&format!("pages like this one  {count}\n")), "{text}");
    }
}

/// They share one reading of /proc, on whichever loops they are: who comes while it runs is woken by its end.
#[test]
fn many_who_ask_at_once_are_all_answered() {
    let server = Server::start(&format!("worker_threads = 2\n{SITE}"));
    let mut clients: Vec<_> = (0..64).map(|_| server.connect()).collect();
    for _ in 0..10 {
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }
        for client in &mut clients {
            let response = client.response().expect(200);
            let text = response.text();
            let line = text.lines().find(|line| line.trim_start().starts_with("resident memory")).unwrap_or_default();
            assert!(line.ends_with(" MiB"), "{text}");
        }
    }
    let text = server.get("/").text().to_owned();
    assert!(text.contains("pages like this one  641\n"), "{text}");
}

#[test]
fn other_methods_and_places() {
    let server = Server::start(SITE);
    assert_eq!(server.request("POST", "/", "").expect(405).field("Allow"), Some("GET, HEAD"));
    server.request("HEAD", "/", "").expect(200);
    server.get("/off").expect(404);
    server.get("/x").expect(404);
}
