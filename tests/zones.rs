//! Zones: shared memory that outlives reloads and deaths, and is seen by all workers.

#[path = "support/build.rs"]
mod build;
mod support;

use rustix::process::{Pid, Signal, kill_process};
use support::{Server, eventually};

fn site(top: &str, counter: &str) -> String {
    format!(
        "module = [{{ name = \"counter\", path = {:?} }}]\nworker_threads = 2\n{top}\n[[http.server]]\n\
         listen = [\"127.0.0.1:PORT\"]\n[[http.server.location]]\npath = \"/\"\ncounter = {{ {counter} }}\n",
        build::module("counter")
    )
}

fn reload(server: &Server, config: &str) -> (Option<i32>, String) {
    server.folder.write("plugins.toml", config.replace("PORT", &server.port.to_string()).as_bytes());
    let answer = server.ask(&["-s", "reload"]);
    (answer.code, answer.stdout + &answer.stderr)
}

#[test]
fn a_count_goes_on_across_twenty_reloads_a_death_and_several_workers() {
    let zone = "zone.hits = { size = \"64k\" }";
    let server = Server::start(&site(zone, "zone = \"hits\""));
    let mut count = 0;
    let mut next = |server: &Server| {
        count += 1;
        assert_eq!(server.get("/").expect(200).text(), count.to_string());
    };
    for number in 0..20 {
        next(&server);
        let top = format!("worker_processes = {}\n{zone}", 1 + number % 2);
        assert_eq!(reload(&server, &site(&top, "zone = \"hits\"")).0, Some(0));
        (0..5).for_each(|_| next(&server));
    }
    eventually("old workers have ended", || server.workers().len() == 2);
    let victim = server.workers()[0];
    kill_process(Pid::from_raw(victim.cast_signed()).unwrap(), Signal::KILL).unwrap();
    eventually("another worker", || server.workers().len() == 2 && !server.workers().contains(&victim));
    (0..10).for_each(|_| next(&server));
    // Of another size it is another zone.
    assert_eq!(reload(&server, &site("zone.hits = { size = \"128k\" }", "zone = \"hits\"")).0, Some(0));
    assert_eq!(server.get("/").expect(200).text(), "1");
}

#[test]
fn a_zone_lives_as_long_as_the_workers_that_have_it() {
    let zone = "error_log = { level = \"notice\" }\nzone.hits = { size = \"64k\" }";
    let with = site(zone, "zone = \"hits\"");
    let without = site("error_log = { level = \"notice\" }", "").replace("counter = {  }", "");
    let server = Server::start(&with);
    let count = || server.get("/").expect(200).text().to_string();
    assert_eq!(count(), "1");
    // A client that keeps a worker of it, and so the zone.
    let mut slow = server.connect();
    slow.send("GET / HTTP/1.1\r\n");
    let before = server.worker();
    eventually("it is accepted", || server.ask(&["status"]).stdout.contains(": 1 connections ("));
    let (code, said) = reload(&server, &without);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(reload(&server, &with).0, Some(0));
    assert_eq!(count(), "2", "worker {before} has it still");
    assert_eq!(reload(&server, &without).0, Some(0));
    slow.send("Host: a\r\n\r\n");
    slow.response().expect(200);
    eventually("all that had it have ended", || server.workers().len() == 1);
    assert_eq!(reload(&server, &with).0, Some(0));
    assert_eq!(count(), "1");
}

#[test]
fn a_zone_of_a_reload_that_failed_is_given_up() {
    let server = Server::start(&site("error_log = { level = \"notice\" }", "").replace("counter = {  }", ""));
    let zone = "error_log = { level = \"notice\" }\nzone.new = { size = \"64k\" }";
    let worker = server.worker();
    let broken = site(zone, "zone = \"new\", layout = 2") + "broken = 1\n";
    let (code, said) = reload(&server, &broken);
    assert!(code == Some(1) && said.contains("broken: "), "{said}");
    eventually("it has ended", || server.workers() == [worker]);
    let (code, said) = reload(&server, &site(zone, "zone = \"new\""));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(server.get("/").expect(200).text(), "1");
}

#[test]
fn a_zone_that_is_not_there() {
    let errors = Server::fails(&site("zone.hits = { size = \"64k\" }", "zone = \"hist\""));
    assert!(
        errors.contains("zone: found \"hist\", which is not the name of a zone; did you mean \"hits\"?"),
        "{errors}"
    );
    let errors = Server::fails(&site("zone.hits = { size = 100 }", "zone = \"hits\""));
    assert!(errors.contains("zone.hits.size: found 100 bytes, expected a size from 4k to 1024g"), "{errors}");
}

#[test]
fn all_words_are_the_module_s() {
    let at = |at| site("zone.hits = { size = \"60k\" }", &format!("zone = \"hits\", layout = 0, at = {at}"));
    // Whole pages.
    assert_eq!(Server::start(&at(60 * 128 - 1)).get("/").expect(200).text(), "1");
    let errors = Server::fails(&at(60 * 128));
    assert!(errors.contains("at: found 7680, but the zone has 7680 words"), "{errors}");
}

#[test]
fn a_zone_keeps_its_layout_as_long_as_workers_have_it() {
    let zone = "error_log = { level = \"notice\" }\nzone.hits = { size = \"64k\" }";
    let with = |layout| site(zone, &format!("zone = \"hits\", layout = {layout}"));
    let without = site("error_log = { level = \"notice\" }", "").replace("counter = {  }", "");
    let server = Server::start(&with(0));
    assert_eq!(server.get("/").expect(200).text(), "1");
    let refused = || {
        let (code, said) = reload(&server, &with(1));
        let text = "zone \"hits\" holds something else (layout 0x0, not 0x1): generation 1 uses it ";
        assert!(code == Some(1) && said.contains(text), "{said}");
    };
    refused();
    // What a worker writes into the zone says nothing of who may have it.
    assert_eq!(server.get("/?in=wild").expect(200).text(), "42");
    refused();
    let mut slow = server.connect();
    slow.send("GET / HTTP/1.1\r\n");
    eventually("it is accepted", || server.ask(&["status"]).stdout.contains(": 1 connections ("));
    assert_eq!(reload(&server, &without).0, Some(0));
    refused();
    slow.send("Host: a\r\n\r\n");
    assert_eq!(slow.response().expect(200).text(), "43");
    eventually("all that had it have ended", || server.workers().len() == 1);
    let (code, said) = reload(&server, &with(1));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(server.get("/").expect(200).text(), "1");
}

#[test]
fn a_zone_and_its_layout_are_handed_over_in_an_upgrade() {
    let with = |layout| {
        let zone = "error_log = { level = \"notice\" }\nzone.hits = { size = \"64k\" }";
        site(zone, &format!("zone = \"hits\", layout = {layout}"))
    };
    let server = Server::start(&with(1));
    assert_eq!(server.get("/").expect(200).text(), "1");
    let write = |config: &str| {
        server.folder.write("plugins.toml", config.replace("PORT", &server.port.to_string()).as_bytes());
    };
    write(&with(2));
    server.signal(Signal::USR2);
    let text = "zone \"hits\" holds something else (layout 0x1, not 0x2): the server before the upgrade uses it ";
    server.stderr(|log| log.contains(text) && log.contains("this one goes on"));
    write(&with(1));
    let worker = server.worker();
    server.signal(Signal::USR2);
    server.stderr(|log| log.contains("the new master serves"));
    server.signal(Signal::WINCH);
    eventually("the old worker has ended", || !server.workers().contains(&worker));
    assert_eq!(server.get("/").expect(200).text(), "2");
    // The way back.
    server.signal(Signal::HUP);
    server.stderr(|log| log.contains("generation 2 serves"));
    assert_eq!(server.ask(&["-s", "quit"]).code, Some(0));
    assert_eq!(server.get("/").expect(200).text(), "3");
}

#[test]
fn two_layouts_in_one_configuration() {
    let both = |top: &str| {
        let one = site(&format!("{top}\nzone.hits = {{ size = \"64k\" }}"), "zone = \"hits\"");
        format!("{one}[[http.server.location]]\npath = \"/other\"\ncounter = {{ zone = \"hits\", layout = 2 }}\n")
    };
    for top in ["", "master_process = false"] {
        let errors = Server::fails(&both(top));
        let text =
            "zone \"hits\" holds something else (layout 0x1, not 0x2): another module of this configuration uses it; ";
        assert!(errors.contains(text), "{errors}");
    }
}
