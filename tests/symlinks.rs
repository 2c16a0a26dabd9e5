//! `disable_symlinks`: paths with symbolic links in them.

mod support;

use std::{fs, os::unix::fs::symlink};

use support::{Folder, Server, eventually};

/// A site with these lines in its server.
fn site(lines: &str) -> String {
    format!(
        "worker_threads = 1\nmodule = [{{ name = \"index\" }}, {{ name = \"static\" }}]\n\
         [[http.server]]\nlisten = [\"127.0.0.1:PORT\"]\nroot = \"html\"\n{lines}\n"
    )
}

/// A file, links to it and to its folder, one that leads nowhere, and a root that is reached by a link.
fn folder() -> Folder {
    let folder = Folder::with(&[("html/real/a", b"inside"), ("elsewhere/a", b"outside")]);
    for (target, name) in [
        ("real/a", "html/link"),
        ("real", "html/dir"),
        ("../elsewhere/a", "html/out"),
        ("nowhere", "html/broken"),
        ("html", "linked_root"),
    ] {
        symlink(target, folder.path(name)).unwrap();
    }
    folder
}

const FROM: &str = "from = \"$document_root\"";

#[test]
fn off_follows_them() {
    for lines in ["", "disable_symlinks = \"off\""] {
        let server = Server::start_in(folder(), &site(lines));
        assert_eq!(server.get("/link").expect(200).text(), "inside");
        assert_eq!(server.get("/dir/a").expect(200).text(), "inside");
        assert_eq!(server.get("/out").expect(200).text(), "outside");
    }
}

#[test]
fn on_forbids_them_and_says_so() {
    let server = Server::start_in(folder(), &site(&format!("disable_symlinks = {{ mode = \"on\", {FROM} }}")));
    assert_eq!(server.get("/real/a").expect(200).text(), "inside");
    server.get("/real").expect(301);
    // (nginx answers 404 if a folder on the way is a link.)
    for path in ["/link", "/dir/a", "/dir", "/out", "/broken"] {
        server.get(path).expect(403);
    }
    server.stderr(|log| log.contains("html/link\" failed (40: Too many levels of symbolic links)"));
    server.get("/none").expect(404);
    server.get("/real/a/b").expect(404);
}

#[test]
fn on_holds_for_the_whole_path_without_from() {
    let lines = "disable_symlinks = \"on\"\n[[http.server.location]]\npath = \"/linked/\"\nroot = \"linked_root/\"";
    let folder = folder();
    folder.write("html/linked/a", b"behind a link");
    let server = Server::start_in(folder, &site(lines));
    // The folder of the test is not reached by a link itself.
    assert_eq!(server.get("/real/a").expect(200).text(), "inside");
    server.get("/linked/a").expect(403);
}

#[test]
fn from_is_trusted_and_nothing_behind_it() {
    for mode in ["on", "if_not_owner"] {
        let lines = format!(
            "root = \"linked_root\"\ndisable_symlinks = {{ mode = \"{mode}\", {FROM} }}\n\
             [[http.server.location]]\npath = \"/dir/\"\n\
             disable_symlinks = {{ mode = \"{mode}\", from = \"$document_root/dir/\" }}"
        );
        let server = Server::start_in(folder(), &site(&lines).replace("root = \"html\"\n", ""));
        assert_eq!(server.get("/real/a").expect(200).text(), "inside", "{mode}");
        assert_eq!(server.get("/dir/a").expect(200).text(), "inside", "{mode}");
        if mode == "on" {
            server.get("/link").expect(403);
        }
    }
}

#[test]
fn from_that_is_no_start_of_the_path_trusts_nothing() {
    let lines = "root = \"linked_root\"\ndisable_symlinks = { mode = \"on\", from = \"/nowhere\" }";
    let server = Server::start_in(folder(), &site(lines).replace("root = \"html\"\n", ""));
    server.get("/real/a").expect(403);
}

#[test]
fn if_not_owner_follows_links_of_the_same_owner() {
    let lines = "disable_symlinks = \"if_not_owner\"";
    let server = Server::start_in(folder(), &site(lines));
    for (path, text) in [("/link", "inside"), ("/dir/a", "inside"), ("/out", "outside"), ("/real/a", "inside")] {
        assert_eq!(server.get(path).expect(200).text(), text);
    }
    server.get("/dir").expect(301);
    server.get("/broken").expect(404);
    server.get("/link/a").expect(404);
}

#[test]
fn if_not_owner_forbids_links_of_another_owner() {
    let folder = folder();
    let of_other = |name: &str| std::os::unix::fs::lchown(folder.path(name), Some(12345), None);
    if of_other("html/link").is_err() {
        return support::skip("only root can give a file to another");
    }
    of_other("html/dir").unwrap();
    let server = Server::start_in(folder, &site("disable_symlinks = \"if_not_owner\""));
    for path in ["/link", "/dir/a", "/dir"] {
        server.get(path).expect(403);
    }
    assert_eq!(server.get("/out").expect(200).text(), "outside");
}

#[test]
fn an_open_file_is_not_served_under_a_stricter_rule() {
    let location = |path: &str, mode: &str| {
        format!("[[http.server.location]]\npath = \"{path}\"\ndisable_symlinks = \"{mode}\"\n")
    };
    let lines = "open_file_cache = { max = 100 }\nopen_file_cache_errors = true\n".to_owned()
        + &location("= /dir/", "off")
        + &location("/dir/", "on");
    let folder = folder();
    folder.write("html/real/index.html", b"inside");
    let server = Server::start_in(folder, &site(&lines));
    for _ in 0..3 {
        // The module index opens the file in the first place, and redirects to the second.
        server.get("/dir/").expect(403);
        server.get("/dir/index.html").expect(403);
        server.get("/real/index.html").expect(200);
    }
}

#[test]
fn a_file_that_becomes_a_link_is_forbidden_when_it_is_checked() {
    let lines = format!(
        "open_file_cache = {{ max = 100 }}\nopen_file_cache_valid = \"1ms\"\n\
         disable_symlinks = {{ mode = \"on\", {FROM} }}"
    );
    let server = Server::start_in(folder(), &site(&lines));
    server.get("/real/a").expect(200);
    fs::remove_file(server.folder.path("html/real/a")).unwrap();
    symlink("../../elsewhere/a", server.folder.path("html/real/a")).unwrap();
    eventually("it is checked", || server.get("/real/a").status == 403);
}

#[test]
fn wrong_values_are_refused_with_what_is_valid() {
    let found = Server::fails(&site("disable_symlinks = \"of\"").replace("root = \"html\"\n", ""));
    assert!(found.contains("http.server.disable_symlinks: found \"of\""), "{found}");
    assert!(found.contains("did you mean \"off\"?"), "{found}");
    let found = Server::fails(
        &site("disable_symlinks = { mode = \"on\", from = \"$document_rot\" }").replace("root = \"html\"\n", ""),
    );
    assert!(found.contains("disable_symlinks.from: unknown variable \"$document_rot\"; did you mean"), "{found}");
}

/// nginx: a link is then as good as no file.
#[test]
fn try_files_goes_on_behind_a_link() {
    let lines = format!(
        "disable_symlinks = {{ mode = \"on\", {FROM} }}\n[[http.server.location]]\npath = \"/\"\n\
         try_files = {{ files = [\"$uri\", \"/real/a\"], fallback = \"=404\" }}\n\
         [[http.server.location]]\npath = \"/out\"\ntry_files = {{ files = [\"$uri\"], fallback = \"=410\" }}\n"
    );
    let config = site(&lines).replace("{ name = \"static\" }", "{ name = \"static\" }, { name = \"try_files\" }");
    let server = Server::start_in(folder(), &config);
    assert_eq!(server.get("/link").expect(200).text(), "inside");
    server.get("/out").expect(410);
}
