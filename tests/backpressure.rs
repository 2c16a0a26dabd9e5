//! What happens to data that cannot go on at once: held by a filter, waiting for the disk, or too small to be sent alone.

mod support;

use std::{io::Read, path::Path};

use support::{Client, Folder, Server, eventually, files, peer::Peer};

/// `/n` tells how many connections are open, the asking one included, and how many bufs are in use.
fn site(server: &str) -> String {
    format!(
        "worker_threads = 1\nmodule = [{{ name = \"return\" }}, {{ name = \"static\" }}, {{ name = \"not_modified\" }}, \
         {{ name = \"gzip\" }}, {{ name = \"limit_rate\" }}, {{ name = \"proxy\" }}, {{ name = \"round_robin\" }}]\n\
         [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nroot = \"html\"\n{server}\n\
         [[http.server.location]]\npath = \"= /n\"\nlimit_rate.rate = 0\n\
         return = {{ code = 200, text = \"$connections_active $live_bufs\" }}\n"
    )
}

#[test]
fn clients_that_go_away_while_a_filter_holds_their_response_leave_nothing_behind() {
    let noise = files::noise(3_000_000);
    let server = Server::with(&[("html/a", &noise)], &site("limit_rate.rate = 3000"));
    let clients: Vec<Client> = (0..10)
        .map(|_| {
            let mut client = server.connect();
            client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
            client.head().unwrap();
            client
        })
        .collect();
    clients.into_iter().for_each(Client::reset);
    eventually("no connection stays", || server.get("/n").text().starts_with("1 "));
}

#[test]
fn gzip_behind_limit_rate_comes_to_its_end_at_any_rate() {
    let text = files::text(200_000);
    for rate in [7_700, 9_400, 15_400, 22_200, 25_600] {
        let config = site(&format!(
            "limit_rate = {{ rate = {rate}, after = 30000 }}\ngzip = {{ enabled = true, types = [\"*\"] }}"
        ));
        let server = Server::with(&[("html/a.txt", &text)], &config);
        let response = server.get_with("/a.txt", "Accept-Encoding: gzip\r\n").expect(200);
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&response.body[..]).read_to_end(&mut plain).unwrap();
        assert!(plain == text, "rate {rate}");
    }
}

#[test]
fn files_on_a_file_system_that_cannot_tell_whether_a_read_would_block() {
    // tmpfs refuses RWF_NOWAIT on many kernels.
    let Some(folder) = Folder::below(Path::new("/dev/shm")) else {
        return support::skip("there is no tmpfs at /dev/shm");
    };
    for (size, sendfile) in [(3_000, true), (3_000_000, true), (3_000, false), (3_000_000, false)] {
        let noise = files::noise(size);
        folder.write("a", &noise);
        let root = folder.path("").display().to_string();
        let server =
            Server::start(&site("").replace("root = \"html\"", &format!("root = \"{root}\"\nsendfile = {sendfile}")));
        let response = server.get("/a").expect(200);
        assert!(response.body == noise, "{size} bytes, sendfile = {sendfile}");
    }
}

#[test]
fn a_body_in_tiny_chunks_costs_its_size() {
    let server = Server::with(
        &[("html/a", b"a")],
        &site(
            "[[http.server.location]]\npath = \"/up\"\nproxy.pass = \"http://127.0.0.1:1\"\nclient_body_timeout = \"30s\"\n\
             client_body_buffer_size = \"1m\"\n",
        ),
    );
    let before = server.memory_kb();
    let mut client = server.connect();
    client.send("POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("1\r\nx\r\n".repeat(300_000) + "0\r\n\r\n");
    // Nobody listens on port 1: the answer comes when all of the body is there.
    client.response().expect(502);
    // A buffer for each chunk would be 20 MB.
    let kib = server.peak_memory_kb() - before;
    assert!(kib < 8_000, "{kib} KiB of memory for 300,000 bytes of body");
}

#[test]
fn an_error_page_after_a_filter_has_prepared_itself() {
    let text = files::text(50_000);
    let config = site("gzip = { enabled = true, types = [\"*\"] }");
    let config = config
        .replace("{ name = \"not_modified\" }, ", "")
        .replace("{ name = \"gzip\" }", "{ name = \"gzip\" }, { name = \"not_modified\" }");
    let server = Server::with(&[("html/a.txt", &text)], &config);
    let response = server.get_with("/a.txt", "Accept-Encoding: gzip\r\nIf-Match: \"no\"\r\n").expect(412);
    let mut page = String::new();
    match response.field("Content-Encoding") {
        Some("gzip") => flate2::read::GzDecoder::new(&response.body[..]).read_to_string(&mut page).map(|_| ()).unwrap(),
        _ => page.push_str(response.text()),
    }
    assert!(page.contains("412 Precondition Failed"), "{page}");
}

#[test]
fn clients_that_stop_reading_stop_the_disk_and_the_filters() {
    let noise = files::noise(8 << 20);
    let ways = [
        "sendfile = false",
        "sendfile = false\nopen_file_cache = { max = 10 }",
        "gzip = { enabled = true, types = [\"*\"] }\noutput_buffers = { number = 8, size = \"64k\" }",
    ];
    for way in ways {
        let server = Server::with(&[("html/a", &noise)], &site(way));
        let before = server.memory_kb();
        let mut clients: Vec<Client> = (0..4).map(|_| Client::slow(server.address())).collect();
        for client in &mut clients {
            client.send("GET /a HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n");
            client.head().unwrap();
            client.take(1 << 20).unwrap();
        }
        // Answered on the one thread there is, after all that came before.
        server.get("/n").expect(200);
        let more = server.memory_kb().saturating_sub(before);
        assert!(more < 12_000, "{way:?}: {more} KiB more for 4 clients of 8 MiB each that do not read");
        let mut last = clients.pop().unwrap();
        clients.into_iter().for_each(Client::reset);
        let (_, ending) = last.rest_and_end();
        assert_eq!(ending, support::Ending::Closed, "{way:?}: the last one goes on to its end");
        eventually("no connection stays", || server.get("/n").text().starts_with("1 "));
    }
}

/// What has been sent of a stream of small pieces is not kept until all of it has been sent.
#[test]
fn a_client_that_is_always_a_little_late_costs_no_more_than_it_is_late() {
    let peer = Peer::new();
    let site =
        site(&format!("[[http.server.location]]\npath = \"/up\"\nproxy.pass = \"http://127.0.0.1:{}\"\n", peer.port));
    let small = "listen = [{ address = \"127.0.0.1:PORT\", sndbuf = \"64k\" }]";
    let server = Server::with(&[("html/a", b"a")], &site.replace("listen = [\"127.0.0.1:PORT\"]", small));
    let mut client = Client::slow(server.address());
    client.send("GET /up HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = peer.accept();
    upstream.head();
    upstream.reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.head().unwrap();
    let piece = format!("3e8\r\n{}\r\n", "x".repeat(1000));
    let round = piece.repeat(100);
    // More than the sockets on the way to the client hold: some is always queued in the server.
    for _ in 0..5 {
        upstream.reply(&round);
    }
    let before = server.memory_kb();
    for _ in 0..300 {
        client.take(round.len()).unwrap();
        upstream.reply(&round);
    }
    let grown = server.memory_kb().saturating_sub(before);
    assert!(grown < 6_000, "{grown} KiB more after 30 MB");
}
