//! What an operator reads when a configuration is wrong, and that order and inclusion do what they say.

mod support;

use support::{Folder, Server};

/// The errors, line by line.
fn errors(config: &str) -> Vec<String> {
    Server::fails(config).lines().map(str::to_owned).collect()
}

#[test]
fn twenty_mistakes_at_once() {
    let config = r#"worker_thread = 2
error_log = { path = "stderr", level = "verbose" }

[[module]]
name = "return"
[[module]]
name = "static"
[[module]]
name = "headers"
[[module]]
name = "gzip"
[[module]]
name = "proxy"
[[module]]
name = "round_robin"

[http]
gzip_types = ["text/css"]
keepalive_timeout = "75 sec"
gzip = { enabled = "on", comp_level = 11, level = 3 }

[[http.server]]
listen = ["127.0.0.1:8000", "localhost"]
root = "no-such-folder"
sendfile = "on"
brotli.enabled = true
headers.add_header = [{ name = "Content-Length", value = "1" }, { name = "X", value = "$hots" }]

[[http.server.location]]
path = "api/"
[[http.server.location]]
path = '~ \.(php$'
[[http.server.location]]
path = "/a"
return = { code = 302 }
headers.expires = "1 hour"
[[http.server.location]]
path = "/b"
proxy.pass = "backend"
proxy.read_timeout = -1
[[http.server.location]]
path = "/b"
sendfil = true
[[http.server.location]]
path = "/c"
listen = ["80"]

[http.upstream.backend]
balancer = ["round_robbin"]
server = ["127.0.0.1:9001", { address = "127.0.0.1:9002", wait = 2 }]
[http.upstream.empty]
"#;
    let expected = [
        "1:1: worker_thread: unknown key; did you mean \"worker_threads\"?$",
        "2:40: error_log.level: found \"verbose\", expected \"debug\", \"info\", \"notice\", \"warn\", \"error\", \"crit\", \"alert\" or \"emerg\"$",
        "18:1: http.gzip_types: unknown key; did you mean \"gzip.types\"?$",
        "19:21: http.keepalive_timeout: found \"75 sec\", expected a duration such as \"75s\", \"1m30s\" or \"500ms\" or a table with the keys timeout, header$",
        "20:20: http.gzip.enabled: found \"on\", expected true or false; write true$",
        "20:39: http.gzip.comp_level: found 11, expected an integer from 1 to 9$",
        "20:43: http.gzip.level: unknown key; valid here: buffers, comp_level, disable, enabled, http_version, min_length, proxied, types, vary$",
        "23:29: http.server.listen[1]: found \"localhost\", expected an address to listen on such as \"8080\", \"127.0.0.1:8080\", \"[::1]:80\" or \"unix:/path\" or a table with the keys address, default_server, backlog, reuseport, rcvbuf, sndbuf, deferred, fastopen, so_keepalive, ipv6only, proxy_protocol$",
        "24:8: root: found \"DIR/no-such-folder\", which is not a folder$",
        "25:12: http.server.sendfile: found \"on\", expected true or false; write true$",
        "26:1: http.server.brotli: no module of this name is declared; add [[module]] name = \"brotli\"$",
        "27:87: http.server.headers.add_header[1].value: unknown variable \"$hots\"; did you mean \"$host\"?$",
        "30:8: http.server.location.path: found \"api/\", expected a path such as \"/x\", \"= /x\", \"^~ /x\", '~ regex', '~* regex' or \"@name\"$",
        "32:8: http.server.location.path: found \"~ \\\\.(php$\"; the regular expression \"\\\\.(php$\" is not valid at its character 3: unclosed group$",
        "35:19: http.server.location.return.code: found 302, which needs a url to redirect to$",
        "40:22: http.server.location.proxy.read_timeout: found -1, expected a duration such as \"75s\", \"1m30s\" or \"500ms\"$",
        "42:8: http.server.location.path: there is a location \"/b\" already, at plugins.toml:38:8$",
        "43:1: http.server.location.sendfil: unknown key; did you mean \"sendfile\"?$",
        "46:1: http.server.location.listen: not valid here; valid in server$",
        "49:13: http.upstream.backend.balancer[0]: found \"round_robbin\", expected the name of a loaded balancer: round_robin; did you mean \"round_robin\"?$",
        "50:59: http.upstream.backend.server[1].wait: unknown key; valid here: address, backup, down, fail_timeout, max_conns, max_fails, weight$",
        "51:1: http.upstream.empty.server: missing, but required: a list, each element an address such as ",
    ];
    let found = errors(config);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        let same = match expected.strip_suffix('$') {
            Some(whole) => found.strip_prefix("plugins.toml:") == Some(whole),
            None => found.strip_prefix("plugins.toml:").is_some_and(|found| found.starts_with(expected)),
        };
        assert!(same, "found    {found}\nexpected {expected}");
    }
}

/// A server with these modules and these lines in it, from line 4 on.
fn server(modules: &[&str], lines: &str) -> String {
    let modules: Vec<String> = modules.iter().map(|name| format!("{{ name = \"{name}\" }}")).collect();
    format!("module = [{}]\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n{lines}", modules.join(", "))
}

#[test]
fn what_modules_find_stands_at_its_line() {
    let config = server(
        &["headers", "return", "gzip", "index"],
        "headers.add_header = [{ name = \"A\", value = \"a\" }, { name = \"Content-Length\", value = \"1\" }]\n\
         headers.expires = \"soon\"\n\
         return = { code = 200, url = \"/\" }\n\
         gzip = { enabled = true, types = [\"text/css\", \"css\"], http_version = \"2.0\", proxied = [\"all\"] }\n\
         index.files = [\"a.html\",\n    \"../a.html\"]\n",
    );
    let expected = [
        "4:61: http.server.headers.add_header[1].name: found \"Content-Length\", which the server writes itself",
        "5:19: http.server.headers.expires: found \"soon\", expected \"off\", \"epoch\", \"max\", a time such as \"30d\" or \"-1\", or \"modified +1h\"",
        "6:30: http.server.return.url: found code 200; a url goes with code 301, 302, 303, 307 or 308",
        "7:47: http.server.gzip.types[1]: found \"css\", expected a media type such as text/css, or \"*\"",
        "7:70: http.server.gzip.http_version: found \"2.0\", expected one of \"1.0\", \"1.1\"",
    ];
    let found = errors(&config);
    for expected in expected {
        let line = format!("plugins.toml:{expected}");
        assert!(found.contains(&line) || found.iter().any(|found| found.starts_with(&line)), "{line}\nin {found:#?}");
    }
    assert!(
        found.iter().any(|line| line.starts_with("plugins.toml:7:88: http.server.gzip.proxied[0]: ")),
        "{found:#?}"
    );
    assert!(
        found.iter().any(|line| line.starts_with("plugins.toml:9:5: http.server.index.files[1]: \"..\" ")),
        "{found:#?}"
    );
    assert_eq!(found.len(), 7, "{found:#?}");
}

#[test]
fn two_content_handlers_for_one_location() {
    let found = errors(&server(
        &["welcome", "proxy", "round_robin"],
        "[[http.server.location]]\npath = \"/x\"\nproxy.pass = \"http://127.0.0.1:1\"\nwelcome.enabled = true\n",
    ));
    let [line] = &found[..] else { panic!("{found:#?}") };
    let text = "location /x has two content handlers, \"welcome\" and \"proxy\"; a place can have one: switch one of them off there";
    assert!(line.starts_with("plugins.toml:6:1: http.server.location.proxy: ") && line.ends_with(text), "{line}");
    // Switched off, it is none.
    let off = server(
        &["welcome", "proxy", "round_robin"],
        "[[http.server.location]]\npath = \"/x\"\nproxy.pass = \"http://127.0.0.1:1\"\nwelcome.enabled = false\n",
    );
    assert_eq!(Server::tests(&Folder::new(), &off).code, Some(0));
}

#[test]
fn unknown_variables() {
    let found = errors(&server(
        &["return"],
        "[[http.server.location]]\npath = \"/a\"\nreturn = { code = 200, text = \"x $urj\" }\n\
         [[http.server.location]]\npath = \"/b\"\nreturn = { code = 200, text = \"${host\" }\n\
         [[http.server.location]]\npath = \"/c\"\nreturn = { code = 200, text = \"5 $\" }\n\
         [[http.server.location]]\npath = \"/d\"\nreturn = { code = 200, text = \"$gzip_ratio\" }\n",
    ));
    let at = |line: usize, text: &str| format!("plugins.toml:{line}:31: http.server.location.return.text: {text}");
    assert_eq!(
        found,
        [
            at(6, "unknown variable \"$urj\"; did you mean \"$uri\"?"),
            at(9, "found \"${host\", in which the brace of \"${\" at byte 0 is not closed"),
            at(12, "found \"5 $\", in which a \"$\" is not followed by the name of a variable"),
            at(15, "unknown variable \"$gzip_ratio\""),
        ]
    );
}

#[test]
fn upstreams_and_balancers() {
    let found = errors(&server(
        &["proxy", "round_robin", "ip_hash"],
        "[[http.server.location]]\npath = \"/a\"\nproxy.pass = \"http://bakend.invalid\"\n\
         [http.upstream.\"backend.invalid\"]\nserver = [\"127.0.0.1:1\"]\nbalancer = [\"least_conn\"]\n\
         [http.upstream.hash]\nbalancer = [\"ip_hash\"]\nserver = [{ address = \"127.0.0.1:1\", backup = true }]\n",
    ));
    let [pass, balancer, backup] = &found[..] else { panic!("{found:#?}") };
    assert!(
        pass.starts_with(
            "plugins.toml:6:14: http.server.location.proxy.pass: found \"bakend.invalid\", which cannot be resolved ("
        ),
        "{pass}"
    );
    assert!(pass.ends_with("); is the upstream \"backend.invalid\" meant?"), "{pass}");
    assert_eq!(
        balancer,
        "plugins.toml:9:13: http.upstream.\"backend.invalid\".balancer[0]: found \"least_conn\", expected the name of a loaded balancer: round_robin, ip_hash; add [[module]] name = \"least_conn\""
    );
    assert_eq!(
        backup,
        "plugins.toml:12:38: http.upstream.hash.server.backup: the balancer \"ip_hash\" does not support this parameter; it supports weight, max_fails, fail_timeout, max_conns, down"
    );
}

#[test]
fn modules_that_cannot_be_loaded_are_all_named() {
    let folder = Folder::with(&[("modules/libtopnext_text.so", b"no library"), ("modules/libtopnext_gzip.so", b"")]);
    let text = Server::fails_in(
        &folder,
        r#"module_path = ["modules"]
[[module]]
name = "gzpi"
[[module]]
name = "text"
[[module]]
name = "elsewhere"
path = "elsewhere.so"
[[http.server]]
listen = ["127.0.0.1:PORT"]
lisen = []
"#,
    );
    for expected in [
        "plugins.toml:2:1: module \"gzpi\": there is no such file\n  looked  DIR/modules/libgzpi.so\n          DIR/modules/libtopnext_gzpi.so\n  near    gzip (DIR/modules/libtopnext_gzip.so)\n  fix     write name = \"gzip\", or say where gzpi is with path or module_path\n",
        "plugins.toml:4:1: module \"text\": its file is not a shared library\n  file    DIR/modules/libtopnext_text.so\n  found   a file that does not start as an ELF file does\n  fix     name the .so file of a module\n",
        "plugins.toml:6:1: module \"elsewhere\": there is no such file\n  looked  DIR/elsewhere.so\n  fix     correct path, or install the module there\n",
        "plugins.toml:11:1: http.server.lisen: unknown key; did you mean \"listen\"?",
    ] {
        assert!(text.contains(expected), "{expected}\nin {text}");
    }
}

#[test]
fn versions_pins_and_names() {
    let text = Server::fails(
        r#"[[module]]
name = "gzip"
version = "^9"
[[module]]
name = "headers"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
[[http.server]]
listen = ["127.0.0.1:PORT"]
"#,
    );
    assert!(
        text.contains("plugins.toml:1:1: module \"gzip\": its version is not the one that is required\n"),
        "{text}"
    );
    assert!(text.contains("  wanted  version = \"^9\"\n  module  version 0.1.0\n"), "{text}");
    assert!(text.contains("plugins.toml:4:1: module \"headers\": its file is not the one that is pinned\n"), "{text}");
    let twice = errors("[[module]]\nname = \"gzip\"\n[[module]]\nname = \"gzip\"\n[[http.server]]\n");
    assert_eq!(
        twice,
        [
            "plugins.toml:4:8: module.name: \"gzip\" is already the name of the module at plugins.toml:2:8; give one of the two another name with \"as\""
        ]
    );
}

/// A declaration that is wrong hides neither the other modules nor the rest of the file.
#[test]
fn a_name_twice_hides_nothing() {
    let found = errors(
        r#"[[module]]
name = "gzip"
[[module]]
name = "gzip"
[[module]]
name = "nothere"
[[http.server]]
listen = ["127.0.0.1:PORT"]
rot = "x"
gzip.comp_level = 11
"#,
    );
    let text = found.join("\n");
    for part in [
        "plugins.toml:4:8: module.name: \"gzip\" is already the name",
        "plugins.toml:5:1: module \"nothere\": there is no such file",
        "plugins.toml:9:1: http.server.rot: unknown key; did you mean \"root\"?",
        "plugins.toml:10:19: http.server.gzip.comp_level: found 11",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn syntax_errors_have_a_place() {
    let found = errors("[[http.server]]\nlisten = [\"127.0.0.1:8999\"\nroot = \"x\"\n");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("plugins.toml:3:1: "), "{found:#?}");
    let found = errors("[[http.server]]\nroot = \"a\"\nroot = \"b\"\n");
    assert!(found[0].starts_with("plugins.toml:3:1: "), "{found:#?}");
    let found = errors("[[http.server]]\nroot = \"\u{e4}\u{f6}\" x\n");
    assert!(found[0].starts_with("plugins.toml:2:13: "), "{found:#?}");
}

#[test]
fn no_server_and_nothing_at_all() {
    assert_eq!(errors(""), ["plugins.toml: http.server: no server is configured; add [[http.server]]"]);
    assert_eq!(errors("[http]\n"), ["plugins.toml:1:1: http.server: no server is configured; add [[http.server]]"]);
}

// ---- include

#[test]
fn errors_in_included_files_name_that_file() {
    let folder = Folder::with(&[
        ("conf.d/a.toml", b"[[http.server]]\nlisten = [\"127.0.0.1:8000\"]\ninclude = \"../parts/*.toml\"\n"),
        ("parts/one.toml", b"\nsendfil = true\n"),
        ("parts/two.toml", b"root = \"gone\"\n"),
    ]);
    let text = Server::fails_in(&folder, "include = \"conf.d/*.toml\"\nworker_threads = 0\n");
    let lines: Vec<&str> = text.lines().collect();
    let [main, one, two] = &lines[..] else { panic!("{text}") };
    assert_eq!(*main, "plugins.toml:2:18: worker_threads: found 0, expected \"auto\" or an integer from 1 to 1024");
    assert!(one.contains("parts/one.toml:2:1: http.server.sendfil: unknown key; did you mean \"sendfile\"?"), "{text}");
    assert!(two.contains("parts/two.toml:1:8: root: found \"DIR/gone\", which is not a folder"), "{text}");
}

#[test]
fn what_is_included_works() {
    let server = Server::with(
        &[
            ("conf.d/b.toml", b"[[http.server.location]]\npath = \"/b\"\nreturn = { code = 200, text = \"b\" }\n"),
            ("conf.d/a.toml", b"[[http.server.location]]\npath = \"/a\"\nreturn = { code = 200, text = \"a\" }\n"),
            ("modules.toml", b"[[module]]\nname = \"return\"\n"),
        ],
        "include = \"modules.toml\"\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\ninclude = \"server/*.toml\"\n",
    );
    // Nothing matches server/*.toml, which is no error; the files in conf.d are of another form.
    server.get("/a").expect(404);
    let server = Server::with(
        &[
            ("server/b.toml", b"[[location]]\npath = \"/b\"\nreturn = { code = 200, text = \"b\" }\n"),
            ("server/a.toml", b"[[location]]\npath = \"/a\"\nreturn = { code = 200, text = \"a\" }\n"),
            ("modules.toml", b"[[module]]\nname = \"return\"\n"),
        ],
        "include = \"modules.toml\"\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\ninclude = \"server/*.toml\"\n",
    );
    assert_eq!(server.get("/a").expect(200).text(), "a");
    assert_eq!(server.get("/b").expect(200).text(), "b");
}

#[test]
fn includes_that_cannot_be() {
    let folder = Folder::with(&[("a.toml", b"include = \"plugins.toml\"\n")]);
    let text = Server::fails_in(&folder, "include = [\"none.toml\", \"a.toml\"]\n[[http.server]]\n");
    assert!(
        text.contains("plugins.toml:1:12: include: none.toml: cannot read the file (2: No such file or directory)"),
        "{text}"
    );
    assert!(text.contains("include: the files include one another: plugins.toml -> a.toml -> plugins.toml"), "{text}");
}

// ---- the order of modules

#[test]
fn two_filters_swapped_change_the_response() {
    let answer = |filters: &str| {
        let server = Server::with(
            &[("html/a", b"hello")],
            &format!(
                "module = [{{ name = \"static\" }}, {filters}]\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n\
                 root = \"html\"\nheaders.add_header = [{{ name = \"ETag\", value = '\"fixed\"' }}]\n"
            ),
        );
        server.get_with("/a", "If-None-Match: \"fixed\"\r\n").status
    };
    // The tag that headers sets is known to the filters behind it only.
    assert_eq!(answer("{ name = \"headers\" }, { name = \"not_modified\" }"), 304);
    assert_eq!(answer("{ name = \"not_modified\" }, { name = \"headers\" }"), 200);
}

#[test]
fn a_header_from_before_or_behind_gzip() {
    let answer = |filters: &str| {
        let server = Server::with(
            &[("html/a.html", &[b'a'; 1000])],
            &format!(
                "module = [{{ name = \"static\" }}, {filters}]\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n\
                 root = \"html\"\ngzip.enabled = true\n\
                 headers.add_header = [{{ name = \"X-Seen\", value = \"<$sent_http_content_encoding>\" }}]\n"
            ),
        );
        let response = server.get_with("/a.html", "Accept-Encoding: gzip\r\n").expect(200);
        response.field("X-Seen").map(str::to_owned)
    };
    assert_eq!(answer("{ name = \"headers\" }, { name = \"gzip\" }").as_deref(), Some("<>"));
    assert_eq!(answer("{ name = \"gzip\" }, { name = \"headers\" }").as_deref(), Some("<gzip>"));
}

#[test]
fn an_order_that_a_module_forbids_is_drawn() {
    let text = Server::fails(
        "[[module]]\nname = \"limit_rate\"\n[[module]]\nname = \"static\"\n[[module]]\nname = \"headers\"\n[[module]]\nname = \"gzip\"\n\
         [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n",
    );
    assert_eq!(
        text,
        "plugins.toml:1:1: module \"limit_rate\": it stands in the wrong order\n  \
         chain   top -> [limit_rate] -> headers -> [gzip] -> write\n  \
         rule    limit_rate says after = [\"gzip\"]: a response must meet gzip before limit_rate\n  \
         fix     move limit_rate (plugins.toml:1:1) behind gzip (plugins.toml:7:1), or write ignore_order = [\"gzip\"] at limit_rate\n"
    );
}

#[test]
fn an_order_that_a_module_forbids_works_if_the_operator_wants_it() {
    let text = support::files::text(100_000);
    let server = Server::with(
        &[("html/a.html", &text)],
        r#"
[[module]]
name = "static"
[[module]]
name = "limit_rate"
ignore_order = ["gzip"]
[[module]]
name = "gzip"
[[http.server]]
listen = ["127.0.0.1:PORT"]
root = "html"
gzip.enabled = true
limit_rate = { rate = "50k" }
"#,
    );
    // Now what is not compressed yet is counted: the text takes a second, though it is sent as a tenth of it.
    let start = std::time::Instant::now();
    let response = server.get_with("/a.html", "Accept-Encoding: gzip\r\n").expect(200);
    assert!(start.elapsed() >= std::time::Duration::from_millis(900), "{:?}", start.elapsed());
    assert!(response.body.len() < 50 * 1024, "{} bytes", response.body.len());
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&response.body[..]), &mut out).unwrap();
    assert!(out == text);
}

#[test]
fn what_an_operator_of_nginx_types() {
    let modules = ["headers", "try_files", "gzip", "limit_rate", "autoindex", "static"];
    let lines = "add_header = []\ntry_files = [\"$uri\", \"=404\"]\ngzip = true\nlimit_rate = \"100k\"\nlimit_rate_after = \"1m\"\n\
                 autoindex = true\nmax_ranges = 1\nresolver = \"127.0.0.1\"\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:1\"]\n";
    let config = server(&modules, lines).replace("listen = [\"127.0.0.1:PORT\"]\n", "");
    let errors = errors(&config);
    for (error, (start, end)) in errors.iter().zip([
        ("3:1: http.server.add_header: unknown key; did you mean \"headers.add_header\"?", ""),
        (
            "4:13: http.server.try_files: found a list, expected a table",
            "; write try_files = { files = ..., fallback = ... }",
        ),
        ("5:8: http.server.gzip: found true, expected a table", "; write gzip.enabled = true"),
        ("6:14: http.server.limit_rate: found \"100k\", expected a table", "; write limit_rate.rate = \"100k\""),
        ("7:1: http.server.limit_rate_after: unknown key; did you mean \"limit_rate.after\"?", ""),
        ("8:13: http.server.autoindex: found true, expected a table", "; write autoindex.enabled = true"),
        ("9:1: http.server.max_ranges: a directive of the module range; add [[module]] name = \"range\"", ""),
        (
            "10:1: http.server.resolver: not a directive here: the names of peers are resolved by the system",
            "; remove it",
        ),
        ("11:26: http.server.listen: 127.0.0.1:1 stands twice in this server; first at plugins.toml:11:11", ""),
    ]) {
        assert!(error.starts_with(&format!("plugins.toml:{start}")) && error.ends_with(end), "{error}");
    }
    assert_eq!(errors.len(), 9, "{errors:#?}");
}

#[test]
fn what_the_system_does_not_give_is_said_with_its_place_and_all_at_once() {
    let folder = Folder::with(&[("noise.log", b"GET /\n"), ("run/x", b"")]);
    let test = |top: &str| {
        let answer = Server::tests(&folder, &format!("{top}\n[[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\n"));
        (answer.code, answer.stderr)
    };
    let (code, said) = test("worker_threads = 900\nthread_pool.threads = 200");
    assert_eq!(code, Some(1));
    let text = "worker_threads: found 900 event loops, which are 1100 threads with the 200 of thread_pool, expected at most 1000";
    assert!(said.contains(&format!("plugins.toml:1:18: {text}")), "{said}");
    for (pid, why) in [
        ("run", "is no regular file"),
        ("noise.log", "is there, and no pid file"),
        ("nowhere/topnext.pid", "its folder is not there"),
        ("fresh.log", "is a log of this configuration"),
    ] {
        let (code, said) = test(&format!("pid = {pid:?}\nerror_log = \"fresh.log\""));
        assert!(code == Some(1) && said.contains("plugins.toml:1:7: pid: ") && said.contains(why), "{said}");
    }
    let (code, said) = test("worker_threads = 2\nworker_rlimit_nofile = 64\nworker_connections = 64");
    let text = "worker_connections: 128 connections of 2 threads exceed worker_rlimit_nofile, which is 64";
    assert!(code == Some(0) && said.contains(text), "{said}");
    assert_eq!(folder.read("noise.log"), "GET /\n");
    if rustix::process::geteuid().is_root() {
        return;
    }
    let (code, said) = test("worker_priority = -5\nworker_rlimit_nofile = 900000000");
    assert!(
        code == Some(1) && said.contains("plugins.toml:1:19: worker_priority: found -5, expected 0 to 19"),
        "{said}"
    );
    assert!(said.contains("plugins.toml:2:24: worker_rlimit_nofile: found 900000000, expected at most "), "{said}");
}
