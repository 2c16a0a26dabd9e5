//! What lines of access logs say: formats, escaping, conditions; beside nginx, which gets the same format and requests.

mod support;

use rustix::process::Signal;
use support::nginx::Nginx;
use support::{Client, Folder, Server, eventually};

/// The lines of standard output after these requests, each on a connection of its own.
fn lines(formats: &str, log: &str, requests: &[&str]) -> Vec<String> {
    let server = Server::start(&format!(
        "module = [{{ name = \"return\" }}]\nerror_log = {{ level = \"crit\" }}\n[http.log_format]\n{formats}\n\
         [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nserver_name = [\"a.example\"]\naccess_log = {log}\n\
         return = {{ code = 200, text = \"hello\" }}\n"
    ));
    for request in requests {
        server.raw(request);
    }
    server.stop(Signal::TERM).stdout.lines().map(str::to_string).collect()
}

const GET: &str = "GET /a%20b?x=1 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
#[test]
fn a_format_of_its_own() {
    let formats = r#"main = "$remote_addr $request_method ${uri} $arg_x $status $body_bytes_sent $none_at_all""#;
    let text =
        Server::fails(&format!("[http.log_format]\n{formats}\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n"));
    assert!(text.starts_with("plugins.toml:2:8: http.log_format.main: unknown variable \"$none_at_all\""), "{text}");
    let formats = formats.replace(" $none_at_all", "");
    let log = r#"{ path = "stdout", format = "main" }"#;
    assert_eq!(lines(&formats, log, &[GET]), ["127.0.0.1 GET /a b 1 200 5"]);
}

#[test]
fn strings_of_a_list_are_joined() {
    let formats = r#"main = ["$status ", "$uri", "|$args"]"#;
    assert_eq!(lines(formats, r#"{ path = "stdout", format = "main" }"#, &[GET]), ["200 /a b|x=1"]);
}

#[test]
fn the_three_ways_of_escaping() {
    let format = |escape: &str| {
        let formats = format!(r#"f = {{ format = '[$http_x_a] [$http_x_b] [$arg_a]', escape = "{escape}" }}"#);
        let evil = "GET /?a=\"b\" HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-A: \"q\"\\ \t\u{e4}!\r\n\r\n";
        lines(&formats, r#"{ path = "stdout", format = "f" }"#, &[evil]).join("\n")
    };
    assert_eq!(format("default"), r"[\x22q\x22\x5C \x09\xC3\xA4!] [-] [\x22b\x22]");
    assert_eq!(format("json"), "[\\\"q\\\"\\\\ \\t\u{e4}!] [] [\\\"b\\\"]");
    assert_eq!(format("none"), "[\"q\"\\ \t\u{e4}!] [] [\"b\"]");
}

#[test]
fn json_lines_parse() {
    let formats =
        r#"json = { format = '{"uri":"$request_uri","agent":"$http_user_agent","status":$status}', escape = "json" }"#;
    let request = "GET /\"\\ HTTP/1.1\r\nHost: a\r\nUser-Agent: \"\\\tx\r\nConnection: close\r\n\r\n";
    let lines = lines(formats, r#"{ path = "stdout", format = "json" }"#, &[request]);
    assert_eq!(lines, [r#"{"uri":"/\"\\","agent":"\"\\\tx","status":200}"#]);
}

#[test]
fn a_condition_of_one_log() {
    let formats = r#"short = "$uri""#;
    let log = r#"[{ path = "stdout", format = "short", if = "$arg_log" }, "/dev/null"]"#;
    let request = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    let requests = ["/a?log=1", "/b?log=0", "/c", "/d?log=", "/e?log=00"].map(request);
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    assert_eq!(lines(formats, log, &requests), ["/a", "/e"]);
}

#[test]
fn what_cannot_be_a_log() {
    let fails = |line: &str| {
        let text = Server::fails(&format!(
            "[http]\nlog_format = {{ main = \"$uri\" }}\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n{line}\n"
        ));
        text.trim_end().to_string()
    };
    assert_eq!(
        fails(r#"access_log = { format = "mian" }"#),
        "plugins.toml:5:25: access_log.format: found \"mian\", expected the name of a log_format: combined, main; did you mean \
         \"main\"?"
    );
    assert_eq!(
        fails(r#"access_log = { path = "a.log", flush = "1s" }"#),
        "plugins.toml:5:40: access_log.flush: there is no buffer to flush; add buffer"
    );
    assert_eq!(
        fails(r#"access_log = { path = "a.log", buffer = 0 }"#),
        "plugins.toml:5:41: access_log.buffer: found 0 bytes, expected a size from 1 byte to 64m"
    );
    assert_eq!(
        fails(r#"access_log = [{ path = "a.log", buffer = "1k" }, { path = "./a.log", buffer = "2k" }]"#),
        "plugins.toml:5:79: access_log.buffer: \"./a.log\" has another buffer or flush elsewhere; a log can have one"
    );
    assert!(fails(r#"access_log = "logs/$host.log""#).contains("a path with variables is not supported"));
    assert!(fails(r#"access_log = ["a.log", "off"]"#).contains("found \"off\", which cannot stand beside other logs"));
    assert_eq!(
        fails(r#"access_log = { path = "syslog:server=127.0.0.1" }"#),
        "plugins.toml:5:23: access_log: found \"syslog:server=127.0.0.1\"; \"syslog:\" is not supported, expected a file"
    );
    assert_eq!(
        fails(r#"access_log = { if = "$urj" }"#),
        "plugins.toml:5:21: access_log.if: unknown variable \"$urj\"; did you mean \"$uri\"?"
    );
    let text =
        Server::fails("[http]\nlog_format = { combined = \"\" }\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n");
    assert!(text.contains("http.log_format.combined: this format is there already"), "{text}");
}

/// Each of these lines is the same in nginx's log, for every request below. What is left out differs for a reason: the
/// headers of the two servers have different lengths, and their times and connections are their own. (nginx says `close` for
/// each $sent_http_connection, since it has let go of the connection when it logs.)
const VARIABLES: &str = "$remote_addr|$remote_user|$request|$status|$body_bytes_sent|$request_length|$http_referer|\
                         $http_user_agent|$http_x_a|$cookie_a|$cookie_b|$arg_q|$args|$is_args|$uri|$request_uri|$document_uri|\
                         $query_string|$request_method|$scheme|$server_protocol|$host|$server_name|$content_length|\
                         $content_type|$pipe|$connection_requests|$request_completion|$sent_http_content_type|\
                         $sent_http_content_length|$sent_http_location|$https|$http_none|$http_cookie";

#[test]
fn lines_are_those_of_nginx() {
    let requests: [&str; 12] = [
        "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET /a%20b/../c?q=%20\"x\"&Q=2 HTTP/1.1\r\nHost: A.example:80\r\nUser-Agent: t\"\\\t\u{e4}\r\nReferer: http://x/\r\n\r\n",
        "HEAD /h HTTP/1.1\r\nHost: a.example\r\nX-A: 1\r\n\r\n",
        "GET /c HTTP/1.1\r\nHost: a.example\r\nCookie: a=1; b=\"2\"\r\n\r\n",
        "GET /auth HTTP/1.1\r\nHost: a.example\r\nAuthorization: Basic am9lOnNlY3JldA==\r\n\r\n",
        "GET /auth HTTP/1.1\r\nHost: a.example\r\nAuthorization: Basic ???\r\n\r\n",
        "GET /? HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET /old HTTP/1.0\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: a.example\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n",
        // Two at once.
        "GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        "GET /moved HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET /none-such HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
    ];
    for escape in ["default", "json", "none"] {
        let http = format!("log_format all escape={escape} '{VARIABLES}'; default_type text/plain;");
        let location = "access_log all.log all; server_name a.example; location / { return 200 \"hello\\n\"; } location /moved { return 302 http://b/; }";
        let Some(nginx) = Nginx::configured(&http, location) else { return };
        let server = Server::start(&format!(
            r#"
module = [{{ name = "return" }}]
error_log = {{ level = "crit" }}
[http.log_format]
all = {{ format = '{VARIABLES}', escape = "{escape}" }}
[[http.server]]
listen = ["127.0.0.1:PORT"]
server_name = ["a.example"]
access_log = {{ path = "all.log", format = "all" }}
[[http.server.location]]
path = "/"
return = {{ code = 200, text = "hello\n" }}
[[http.server.location]]
path = "/moved"
return = {{ code = 302, url = "http://b/" }}
"#
        ));
        for (number, request) in requests.iter().enumerate() {
            for address in [server.address(), nginx.address()] {
                let mut client = Client::connect(address);
                client.send(request);
                let responses = request.matches(" HTTP/1.").count();
                let method = request.split(' ').next().unwrap();
                (0..responses).for_each(|_| drop(client.response_to(method)));
            }
            let count = number + 1 + usize::from(number >= 9);
            let text = |folder: &Folder| {
                eventually("a line for each request", || folder.read("all.log").lines().count() >= count);
                folder.read("all.log")
            };
            let (ours, theirs) = (text(&server.folder), text(&nginx.folder));
            let (ours, theirs) = (ours.lines().last().unwrap(), theirs.lines().last().unwrap());
            // The page of a redirect is each server's own.
            let same = |line: &str| {
                let fields = line.split('|').enumerate();
                let skipped = |at: usize| request.contains("/moved") && matches!(at, 4 | 29);
                fields.filter(|(at, _)| !skipped(*at)).map(|(_, field)| field.to_string()).collect::<Vec<_>>()
            };
            assert_eq!(same(ours), same(theirs), "{escape}, {request:?}");
        }
    }
}
