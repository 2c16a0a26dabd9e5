//! How a server is chosen by the name in Host, and what its regular expression captures: `server_name`.

mod support;

use std::time::{Duration, Instant};

use support::{Client, Folder, Server};

/// One server for each list of names, on one port; each answers with its number and this text.
fn config(servers: &[&str], text: &str) -> String {
    let mut config = "module = [{ name = \"return\" }]\n".to_string();
    for (number, names) in servers.iter().enumerate() {
        config.push_str(&format!(
            "[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nserver_name = [{names}]\n\
             return = {{ code = 200, text = '{number}{text}' }}\n"
        ));
    }
    config
}

fn ask(client: &mut Client, host: &str) -> String {
    client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    client.response().expect(200).text().to_string()
}

#[test]
fn names_wildcards_and_expressions_in_nginxs_order() {
    let server = Server::start(&config(
        &[
            "'default'",
            "'~^www\\d+\\.example\\.com$'",
            "'*.example.com', '*.deep.example.com'",
            "'.example.org'",
            "'WWW.example.com'",
            "'www.example.*'",
            "''",
            "'~^(?-i:x)-[A-Z]+$'",
        ],
        "",
    ));
    let mut client = server.connect();
    for (host, expected) in [
        ("www.example.com", "4"),
        ("WWW.Example.Com:8080", "4"),
        ("www.example.com.", "4"),
        ("www1.example.com", "2"),
        ("a.deep.example.com", "2"),
        ("example.com", "0"),
        ("example.org", "3"),
        ("x.example.org", "3"),
        ("www.example.net", "5"),
        ("www.example", "0"),
        ("x-abc", "7"),
        ("X-ABC", "7"),
        ("nobody", "0"),
        ("[::1]", "0"),
    ] {
        assert_eq!(ask(&mut client, host), expected, "{host}");
    }
    assert!(server.raw("GET / HTTP/1.0\r\n\r\n").ends_with("\r\n\r\n6"));
}

#[test]
fn captures_of_a_name_are_those_of_the_request() {
    let text = " user=$user 1=$1 2=$2 $server_name $host";
    let server = Server::start(&config(&["'~^(?<user>.+)\\.(net|org)$'", "'.example.com'", "'*.sub'"], text));
    let mut client = server.connect();
    let regex = "~^(?<user>.+)\\.(net|org)$";
    // The second of two equal ones is answered from what the connection remembers of the first.
    for (host, expected) in [
        ("joe.net", format!("0 user=joe 1=joe 2=net {regex} joe.net")),
        ("joe.net", format!("0 user=joe 1=joe 2=net {regex} joe.net")),
        ("Ann.B.ORG:80", format!("0 user=ann.b 1=ann.b 2=org {regex} ann.b.org")),
        ("other", format!("0 user= 1= 2= {regex} other")),
        ("x.example.com", "1 user= 1= 2= example.com x.example.com".to_string()),
        ("x.sub", "2 user= 1= 2= *.sub x.sub".to_string()),
        ("joe.net", format!("0 user=joe 1=joe 2=net {regex} joe.net")),
    ] {
        assert_eq!(ask(&mut client, host), expected, "{host}");
    }
}

#[test]
fn the_captures_of_the_only_server() {
    let server = Server::start(&config(&["'~^(?<a>.)(?<b>.)'"], " $b$a"));
    assert_eq!(ask(&mut server.connect(), "xyz"), "0 yx");
}

#[test]
fn a_location_replaces_the_numbers_and_keeps_other_names() {
    let server = Server::start(
        r#"
module = [{ name = "return" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
server_name = ['~^(?<user>[a-z]+)\.(?<zone>.+)$']
[[http.server.location]]
path = '~ ^/as/(?<user>[a-z]+)'
return = { code = 200, text = "$user $zone $1 $2" }
[[http.server.location]]
path = '~ ^/plain'
return = { code = 200, text = "$user $zone $1 $2" }
[[http.server.location]]
path = '/'
return = { code = 200, text = "$user $zone $1 $2" }
"#,
    );
    let get = |path: &str| {
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: joe.x.y\r\n\r\n"));
        client.response().expect(200).text().to_string()
    };
    assert_eq!(get("/"), "joe x.y joe x.y");
    assert_eq!(get("/as/ann"), "ann x.y ann ");
    assert_eq!(get("/plain"), "joe x.y  ");
}

#[test]
fn the_name_of_the_machine() {
    let server = Server::start(&config(&["'default'", "'$hostname'"], " $server_name"));
    let name = rustix::system::uname().nodename().to_str().unwrap().to_ascii_lowercase();
    assert_eq!(ask(&mut server.connect(), &name), format!("1 {name}"));
}

#[test]
fn a_name_given_twice_is_warned_of_and_the_first_wins() {
    let text = config(&["'a', 'x.y'", "'b', 'A', '.y'", "'*.y'"], "");
    let warnings =
        ["topnext: [warn] plugins.toml:8:21: http.server.server_name: conflicting server name \"a\" on 127.0.0.1:", ""];
    let folder = Folder::new();
    let answer = Server::tests(&folder, &text);
    assert_eq!(answer.code, Some(0), "{answer:#?}");
    let lines: Vec<&str> = answer.stderr.lines().filter(|line| line.contains("[warn]")).collect();
    assert!(lines.len() == 2 && lines[0].starts_with(warnings[0]), "{answer:#?}");
    assert!(lines[0].ends_with(", ignored: another server has it"), "{answer:#?}");
    assert!(lines[1].contains("conflicting server name \"*.y\""), "{answer:#?}");
    let server = Server::start(&format!("error_log = {{ path = \"error.log\", level = \"warn\" }}\n{text}"));
    assert!(server.stderr(|text| text.contains("is ready")).contains("[warn] plugins.toml:9:21: "));
    let mut client = server.connect();
    let found: Vec<String> = ["a", "A", "x.y", "y", "z.y", "b"].iter().map(|host| ask(&mut client, host)).collect();
    assert_eq!(found, ["0", "0", "0", "1", "1", "1"]);
    support::eventually("the warning is in the log", || {
        server.folder.read("error.log").contains("[warn] ") && server.folder.read("error.log").contains("\"*.y\"")
    });
}

#[test]
fn what_is_wrong_with_a_name() {
    let found =
        Server::fails(&config(&["'www.*.com', 'ok', '*', 'w*.example.org', '~', '~(', '~(?<uri>.)', 'a..b'"], ""));
    let expected = "expected a name such as \"www.example.com\", \"*.example.com\", \".example.com\", \"www.example.*\" or \
                    '~^www\\d+\\.example\\.com$'";
    let line = |at: &str, text: &str| format!("plugins.toml:4:{at}: http.server.server_name{text}\n");
    let all = [
        line("16", &format!("[0]: found \"www.*.com\", {expected}")),
        line("35", &format!("[2]: found \"*\", {expected}")),
        line("40", &format!("[3]: found \"w*.example.org\", {expected}")),
        line("58", "[4]: found \"~\", in which no regular expression follows"),
        line("63", "[5]: found \"~(\"; the regular expression \"(\" is not valid at its character 1: unclosed group"),
        line(
            "69",
            ": the group \"uri\" of the regular expression \"(?<uri>.)\" has the name of a variable of the server; give it \
             another",
        ),
        line("83", &format!("[7]: found \"a..b\", {expected}")),
    ];
    assert_eq!(found, all.concat());
}

#[test]
fn a_thousand_servers() {
    let names: Vec<String> = (0..1000).map(|n| format!("'www{n}.example.com', '*.{n}.example.org'")).collect();
    let mut text = config(&names.iter().map(String::as_str).collect::<Vec<_>>(), "");
    let include = "include = \"locations.toml\"\n";
    text = text.replace("server_name", &format!("{include}server_name"));
    let locations: String = (0..20)
        .map(|n| format!("[[location]]\npath = '~ ^/{n}/(.*)\\.x$'\nreturn = {{ code = 200, text = '{n} $1' }}\n"))
        .collect();
    let folder = Folder::with(&[("locations.toml", locations.as_bytes())]);
    let start = Instant::now();
    let server = Server::start_in(folder, &text);
    // A build without optimizations takes a second or two on a busy machine.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let mut client = server.connect();
    for n in [0, 1, 500, 999] {
        assert_eq!(ask(&mut client, &format!("www{n}.example.com")), n.to_string());
        assert_eq!(ask(&mut client, &format!("a.b.{n}.example.org")), n.to_string());
    }
    assert_eq!(ask(&mut client, "www1000.example.com"), "0");
    assert_eq!(ask(&mut client, &"a.".repeat(2000)), "0");
}
