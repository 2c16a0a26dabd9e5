//! Variables, as templates and modules see them. Lines of logs with most of them are compared in log_format.rs.

#[path = "support/build.rs"]
mod build;
mod support;

use std::collections::HashSet;

use support::Server;
use support::peer::{Peer, Reserved};
use support::proxied::{GET, OK, at, at_peer_with_head, balanced};

/// A server that answers with the text of this template.
fn answering(template: &str) -> Server {
    Server::start(&format!(
        "module = [{{ name = \"return\" }}, {{ name = \"headers\" }}]\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n\
         server_name = [\"a.example\"]\naccess_log = \"off\"\nroot = \".\"\nreturn = {{ code = 200, text = '{template}' }}\n\
         headers.add_header = [{{ name = \"X-Id\", value = \"$request_id\" }}, {{ name = \"X-Id2\", value = \"$request_id\" }}]\n"
    ))
}

#[test]
fn of_a_request() {
    let server = answering(
        "$request_method $uri $document_uri $request_uri $args $query_string $is_args $arg_b $arg_none $scheme \
         $server_protocol $host $server_name $server_port $remote_addr $document_root $request_filename $https.",
    );
    let response = server.get("/a%20b?a=1&B=2").expect(200);
    let port = server.port.to_string();
    let expected = "GET /a b /a b /a%20b?a=1&B=2 a=1&B=2 a=1&B=2 ? 2  http HTTP/1.1 localhost a.example PORT 127.0.0.1 DIR/. DIR/./a b .";
    assert_eq!(server.folder.hide(response.text()), expected.replace("PORT", &port));
}

#[test]
fn several_fields_of_a_name_are_joined() {
    let server = answering("$http_x_a; $http_cookie; $cookie_b; $cookie_A; $http_none;");
    let fields = "X-A: 1\r\nCookie: a=1; c=3\r\nx-a: 2\r\nCookie: b=2\r\nX-A:\r\n";
    assert_eq!(server.get_with("/", fields).expect(200).text(), "1, 2, ; a=1; c=3; b=2; 2; 1; ;");
}

#[test]
fn an_underscore_in_a_name_is_one_in_the_variable() {
    let server = Server::start(
        r#"
module = [{ name = "return" }, { name = "headers" }]
[http.log_format]
sent = "$sent_http_x_a_b $sent_http_x_c"
[[http.server]]
listen = ["127.0.0.1:PORT"]
underscores_in_headers = true
access_log = { format = "sent" }
return = { code = 200, text = "$http_x_a_b; $http_x_c; $http_user_agent;" }
headers.add_header = [{ name = "X_A-b", value = "1" }, { name = "x-a-b", value = "2" }, { name = "X-C", value = "3" }]
"#,
    );
    let fields = "X_A_B: 1\r\nx-a_b: 2\r\nX-A-B: 3\r\nX-C: 4\r\nUser_Agent: 5\r\n";
    assert_eq!(server.get_with("/", fields).expect(200).text(), "1, 2, 3; 4; ;");
    assert_eq!(server.stdout(|log| log.ends_with('\n')), "1, 2 3\n");
}

#[test]
fn the_connection_field_as_it_was_sent() {
    let server = Server::start(
        r#"
module = [{ name = "return" }]
[http.log_format]
sent = "$sent_http_connection $sent_http_keep_alive"
[[http.server]]
listen = ["127.0.0.1:PORT"]
access_log = { format = "sent" }
[[http.server.location]]
path = "/"
return = { code = 200, text = "x" }
[[http.server.location]]
path = "/told"
return = { code = 200, text = "x" }
keepalive_timeout = { timeout = "60s", header = "50s" }
"#,
    );
    let mut expected = String::new();
    for (path, version, asked, line) in [
        ("/", "1.1", "", "- -"),
        ("/", "1.1", "Connection: close\r\n", "close -"),
        ("/", "1.0", "", "close -"),
        ("/", "1.0", "Connection: keep-alive\r\n", "keep-alive -"),
        ("/told", "1.1", "", "keep-alive timeout=50"),
    ] {
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/{version}\r\nHost: a\r\n{asked}\r\n"));
        let response = client.response();
        let field = |name| response.field(name).unwrap_or("-");
        assert_eq!(format!("{} {}", field("Connection"), field("Keep-Alive")), line);
        expected += &format!("{line}\n");
        server.stdout(|log| log == expected);
    }
}

#[test]
fn a_request_has_one_id_and_each_another() {
    let server = answering("$request_id");
    let mut seen = HashSet::new();
    for _ in 0..50 {
        let response = server.get("/").expect(200);
        let id = response.text().to_string();
        assert!(id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
        assert_eq!(response.field("x-id"), Some(id.as_str()));
        assert_eq!(response.field("x-id2"), Some(id.as_str()));
        assert!(seen.insert(id));
    }
}

#[test]
fn of_the_connection_and_the_process() {
    let server = answering("$connection $connection_requests $pid $hostname $topnext_version $nginx_version $pipe");
    let mut client = server.connect();
    let mut ask = || {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.response().expect(200).text().split(' ').map(str::to_string).collect::<Vec<_>>()
    };
    let (first, second) = (ask(), ask());
    assert_eq!((first[1].as_str(), second[1].as_str()), ("1", "2"));
    assert_eq!(first[0], second[0]);
    assert_eq!(first[2], server.worker().to_string());
    assert_eq!(first[3], rustix::system::uname().nodename().to_str().unwrap());
    assert_eq!((first[4].as_str(), first[5].as_str()), (env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_VERSION")));
    assert_eq!(first[6], ".");
}

#[test]
fn times() {
    let server = answering("$msec $time_iso8601 $request_time $connection_time");
    let text = server.get("/").expect(200).text().to_string();
    let [msec, iso, request, connection] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - msec.parse::<f64>().unwrap()).abs() < 60.0, "{text}");
    assert!(iso.len() == 25 && iso.as_bytes()[10] == b'T' && iso.as_bytes()[22] == b':', "{text}");
    for time in [request, connection] {
        assert!(time.parse::<f64>().unwrap() < 60.0 && time.split_once('.').unwrap().1.len() == 3, "{text}");
    }
}

#[test]
fn what_a_client_sends_in_a_body() {
    let server = Server::start(
        r#"
module = [{ name = "return" }]
[http.log_format]
body = "$request_method $request_length $request_body|$sent_http_date|$sent_http_server|$sent_http_transfer_encoding"
[[http.server]]
listen = ["127.0.0.1:PORT"]
access_log = { format = "body" }
return = { code = 200, text = "hello" }
"#,
    );
    let response = server.get("/").expect(200);
    let log = server.stdout(|log| log.ends_with('\n'));
    let server_field = concat!("topnext/", env!("CARGO_PKG_VERSION"));
    let date = response.field("date").unwrap();
    assert_eq!(log, format!("GET 54 -|{date}|{server_field}|-\n"));
}

#[test]
fn those_of_modules_are_evaluated_once_or_each_time() {
    let server = Server::start(&format!(
        r#"
[[module]]
name = "return"
[[module]]
name = "variables"
path = {:?}
[[http.server]]
listen = ["127.0.0.1:PORT"]
access_log = "off"
[[http.server.location]]
path = "/count"
return = {{ code = 200, text = "$once $once $always $always $nothing$nothing$nothings" }}
[[http.server.location]]
path = "/large"
variables.template = "$large$large"
"#,
        build::module("variables")
    ));
    assert_eq!(server.get("/count").expect(200).text(), "1 1 1 2 1");
    assert_eq!(server.get("/count").expect(200).text(), "2 2 3 4 2");
    // 19 MB in all: strings live until the hook returns, and not as long as the request.
    assert_eq!(server.get("/large").expect(200).text(), format!("{} bytes\n", 100 * 3 * 64 * 1024));
}

#[test]
fn of_upstreams_that_were_tried() {
    let (dead, peer) = (Reserved::new(), Peer::new());
    let format = "$upstream_addr|$upstream_status|$upstream_response_length|$upstream_bytes_received|$upstream_bytes_sent|\
                  $upstream_connect_time|$upstream_header_time|$upstream_response_time";
    let server = balanced(
        &[at(dead.port, ""), at(peer.port, "")],
        &format!("keepalive = 0\n[http.log_format]\nup = \"{format}\""),
        "access_log = { format = \"up\" }",
    );
    let (mut client, (head, mut connection)) = at_peer_with_head(&peer, &server, GET);
    connection.reply(OK);
    client.response().expect(200);
    let log = server.stdout(|log| log.ends_with('\n'));
    let fields: Vec<&str> = log.trim_end().split('|').collect();
    let ports = format!("127.0.0.1:{}, 127.0.0.1:{}", dead.port, peer.port);
    let (received, sent) = (format!("0, {}", OK.len()), format!("0, {}", head.len()));
    assert_eq!(fields[..5], [ports.as_str(), "502, 200", "0, 5", &received, &sent], "{log}");
    let [connect, header, response] = fields[5..] else { panic!("{log}") };
    for time in [connect, header] {
        let (first, second) = time.split_once(", ").unwrap();
        assert!(first == "-" && second.parse::<f64>().is_ok_and(|time| time < 60.0), "{log}");
    }
    assert!(response.split(", ").all(|time| time.parse::<f64>().is_ok()), "{log}");
    // None, where there was no upstream.
    let server = Server::start(
        "module = [{ name = \"return\" }]\n[http.log_format]\nup = \"$upstream_addr $upstream_status\"\n[[http.server]]\n\
         listen = [\"127.0.0.1:PORT\"]\naccess_log = { format = \"up\" }\nreturn = { code = 204 }\n",
    );
    server.get("/").expect(204);
    assert_eq!(server.stdout(|log| log.ends_with('\n')), "- -\n");
}

#[test]
fn of_tcp() {
    let server = answering("$tcpinfo_rtt $tcpinfo_rttvar $tcpinfo_snd_cwnd $tcpinfo_rcv_space");
    let response = server.get("/").expect(200);
    let numbers: Vec<u64> = response.text().split(' ').map(|number| number.parse().unwrap()).collect();
    assert!(numbers.len() == 4 && numbers[2] > 0 && numbers[3] > 0, "{numbers:?}");
}
