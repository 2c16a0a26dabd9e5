//! How a location is chosen, and what its regular expression captures: `path`.

mod support;

use support::proxied::proxy_to;
use support::{Folder, Server};

/// A server whose locations answer with their own path; `{}` in their texts stands for more.
fn server(locations: &[(&str, &str)]) -> Server {
    let mut config = "module = [{ name = \"return\" }]\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n".to_string();
    for (path, text) in locations {
        config.push_str(&format!(
            "[[http.server.location]]\npath = '{path}'\nreturn = {{ code = 200, text = '{text}' }}\n"
        ));
    }
    Server::start(&config)
}

#[track_caller]
fn answers(server: &Server, expected: &[(&str, &str)]) {
    let mut client = server.connect();
    for (uri, text) in expected {
        client.send(format!("GET {uri} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(client.response().expect(200).text(), *text, "{uri}");
    }
}

#[test]
fn the_kinds_of_paths_in_nginxs_order() {
    let server = server(&[
        ("= /", "A"),
        ("/", "B"),
        ("/documents/", "C"),
        ("^~ /images/", "D"),
        ("~* \\.(gif|jpg|jpeg)$", "E"),
        ("~ \\.PHP$", "F"),
        ("@named", "G"),
    ]);
    answers(
        &server,
        &[
            ("/", "A"),
            ("/index.html", "B"),
            ("/documents/document.html", "C"),
            ("/images/1.gif", "D"),
            ("/documents/1.jpg", "E"),
            ("/documents/1.JPG?x=1", "E"),
            ("/documents/1.j%70g", "E"),
            ("/x.PHP", "F"),
            ("/x.php", "B"),
            ("/@named", "B"),
        ],
    );
}

#[test]
fn captures_are_variables() {
    let server = server(&[
        ("~ ^/user/(?<user>[^/]+)/(.+)?$", "user=$user 1=$1 2=$2 3=$3"),
        ("~ ^/pair/(?P<left>.)(?P<right>.)", "$left$right 12=${1}2 $12"),
        ("~ ^/none/", "user=$user 1=$1"),
        ("/", "user=$user 1=$1"),
    ]);
    answers(
        &server,
        &[
            ("/user/joe/a/b", "user=joe 1=joe 2=a/b 3="),
            ("/user/j%6fe%20x/", "user=joe x 1=joe x 2= 3="),
            ("/pair/xy", "xy 12=x2 x2"),
            ("/none/", "user= 1="),
            ("/", "user= 1="),
        ],
    );
}

#[test]
fn nested_locations() {
    let server = Server::start(
        r#"
module = [{ name = "return" }]
[[http.server]]
listen = ["127.0.0.1:PORT"]
[[http.server.location]]
path = "^~ /a/"
return = { code = 200, text = "a" }
  [[http.server.location.location]]
  path = '~ ^/a/(\d+)(x)?'
  return = { code = 200, text = "number $1$2" }
    [[http.server.location.location.location]]
    path = '~ (?<end>z)$'
    return = { code = 200, text = "z $1 $2 $end" }
  [[http.server.location.location]]
  path = "/a/b/"
  return = { code = 200, text = "a/b" }
[[http.server.location]]
path = "~ b"
return = { code = 200, text = "regex" }
[[http.server.location]]
path = "/c"
return = { code = 200, text = "c" }
"#,
    );
    answers(
        &server,
        &[
            ("/a/", "a"),
            ("/a/12", "number 12"),
            ("/a/12x", "number 12x"),
            ("/a/12xz", "z z  z"),
            ("/a/b/", "a/b"),
            ("/a/xb", "a"),
            ("/cb", "regex"),
            ("/c", "c"),
        ],
    );
    assert_eq!(server.get("/other").status, 404);
}

#[test]
fn what_passes_to_an_upstream_redirects_to_its_slash() {
    let upstream = server(&[("/", "$uri")]);
    let server = proxy_to(
        upstream.port,
        "[[http.server.location]]\npath = \"/u p/\"\nproxy.pass = \"http://127.0.0.1:1\"\n\
         [[http.server.location]]\npath = \"= /up\"\nreturn = { code = 200, text = \"here\" }\n\
         [[http.server.location]]\npath = \"/up/\"\nproxy.pass = \"http://127.0.0.1:1\"\n",
    );
    let response = server.get("/u%20p?a=b%20c").expect(301);
    assert_eq!(response.field("Location"), Some(server.url("/u%20p/?a=b%20c").as_str()), "{response:?}");
    assert_eq!(server.get("/u%20p").expect(301).field("Location"), Some(server.url("/u%20p/").as_str()));
    assert_eq!(server.get("/u%20p/").status, 502);
    assert_eq!(server.get("/up").expect(200).text(), "here");
}

#[test]
fn what_is_wrong_with_a_path() {
    let config = r#"
module = [{ name = "return" }]
[[http.server]]
return = { code = 200, text = "$unheard_of" }
[[http.server.location]]
path = '~ ^/(?<user>.)(?=x)'
[[http.server.location]]
path = '~ ^/(.)\1'
[[http.server.location]]
path = '~* ^/(?<host>.)'
[[http.server.location]]
path = '~ (a{1000}){1000}'
[[http.server.location]]
path = '/a'
[[http.server.location]]
path = '^~ /a'
"#;
    let linear = "; an expression is matched in one pass, in time linear in the length of the text, so that no request \
                  can make it slow, and this would need backtracking";
    let expected = [
        "4:31: http.server.return.text: unknown variable \"$unheard_of\"".to_string(),
        format!(
            "6:8: http.server.location.path: found \"~ ^/(?<user>.)(?=x)\"; the regular expression \"^/(?<user>.)(?=x)\" is \
             not valid at its character 13: look-around, including look-ahead and look-behind, is not supported{linear}"
        ),
        format!(
            "8:8: http.server.location.path: found \"~ ^/(.)\\\\1\"; the regular expression \"^/(.)\\\\1\" is not valid at \
             its character 6: backreferences are not supported{linear}"
        ),
        "10:8: http.server.location.path: the group \"host\" of the regular expression \"^/(?<host>.)\" has the name of a \
         variable of the server; give it another"
            .to_string(),
        "12:8: http.server.location.path: found \"~ (a{1000}){1000}\"; the regular expression \"(a{1000}){1000}\" needs \
         more than 128 kB of memory, and might take long for each request; write smaller numbers in {...}, + or * in their \
         place, or several expressions"
            .to_string(),
        "16:8: http.server.location.path: there is a location \"^~ /a\" already, at plugins.toml:14:8".to_string(),
    ];
    let found = Server::fails(config);
    let found: Vec<&str> = found.lines().map(|line| line.trim_start_matches("plugins.toml:")).collect();
    assert_eq!(found, expected);
}

#[test]
fn an_expression_that_a_long_path_can_make_slow_is_warned_of() {
    let config = r#"
module = [{ name = "return" }]
[[http.server]]
return = { code = 404 }
[[http.server.location]]
path = '~ ^/q/[ab]*a[ab]{1000}c'
[[http.server.location]]
path = '~ ^/q/[ab]{1000}c'
"#;
    let answer = Server::tests(&Folder::new(), config);
    assert_eq!(answer.code, Some(0), "{answer:#?}");
    let warnings: Vec<&str> = answer.stderr.lines().filter(|line| line.contains("[warn]")).collect();
    let text =
        "plugins.toml:6:8: http.server.location.path: the regular expression \"^/q/[ab]*a[ab]{1000}c\" counts far from";
    assert!(warnings.len() == 1 && warnings[0].contains(text), "{answer:#?}");
}
