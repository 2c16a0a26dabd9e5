//! The walk over the tree that makes a [`Config`]: http, its upstreams, its servers, their locations.
//!
//! Each level is checked once, when the walk enters it, and merged with the levels around it. What is not valid is
//! reported and left out, so that the walk always comes to its end and finds all errors.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use super::address::Listen;
use super::check::{Checker, Level, missing};
use super::core_directives::find;
use super::diagnostic::{Diagnostics, join_key, quote};
use super::directive::Contexts;
use super::listen::ListenConf;
use super::location_path::{LocationKind, LocationPath};
use super::merge;
use super::model::{self, Config, Http, HttpCore, Location, LogFormat, Main, Scope, Server, Upstream};
use super::schema::ModuleSchema;
use super::server_name::ServerName;
use super::source::Origin;
use super::tree::{Node, Table};

/// How deep locations may be nested.
pub const MAX_LOCATION_DEPTH: usize = 32;

/// Checks everything but the `[[module]]`s. Without any server there is no configuration.
pub(super) fn build(
    main: &Table,
    schemas: &[ModuleSchema],
    declared: HashSet<String>,
    errors: Diagnostics,
) -> (Option<Config>, Diagnostics) {
    let mut builder = Builder { checker: Checker::new(schemas, declared, errors) };
    let config = builder.config(main);
    let mut errors = builder.checker.errors;
    errors.sort();
    (config, errors)
}

struct Builder<'a> {
    checker: Checker<'a>,
}

impl<'a> Builder<'a> {
    fn config(&mut self, table: &'a Table) -> Option<Config> {
        let level = self.checker.level(table, Origin::whole_file(0), Contexts::MAIN, "");
        let mut main = Main::default();
        for (name, node) in model::defaults(Contexts::MAIN) {
            main.set(name, &node);
        }
        for (directive, entry) in &level.core {
            main.set(directive.name, &merge::filled(&directive.ty, &entry.node));
            main.origins.push((directive.name, entry.node.origin));
        }
        let http = level.core("http").and_then(|node| Some((node, node.as_table()?)));
        let Some((node, table)) = http else {
            if table.get("http").is_none() {
                self.no_server(level.origin);
            }
            return None;
        };
        let http = self.http(node, table, &main);
        if http.servers.is_empty() {
            // An array of tables that is not one has been reported already.
            if table.get("server").is_none_or(|node| node.as_list().is_some_and(<[Node]>::is_empty)) {
                self.no_server(node.origin);
            }
            return None;
        }
        Some(Config { main, http })
    }

    fn no_server(&mut self, origin: Origin) {
        self.checker.errors.push(origin, "http.server", "no server is configured; add [[http.server]]");
    }

    fn http(&mut self, node: &'a Node, table: &'a Table, main: &Main) -> Http {
        let level = self.checker.level(table, node.origin, Contexts::HTTP, "http");
        let mut core = HttpCore::default();
        for (name, node) in model::defaults(Contexts::HTTP) {
            core.set(name, &node);
        }
        core.error_log.clone_from(&main.error_log);
        let defaults = Scope { core, modules: Vec::new(), origin: node.origin, origins: Vec::new() };
        let outer = self.scope(&defaults, &[&level]);
        let upstreams = level.core("upstream").and_then(Node::as_table).into_iter().flat_map(Table::iter);
        let upstreams = upstreams.filter_map(|entry| self.upstream(&entry.key, &entry.node)).collect();
        let servers: Vec<Server> =
            level.tables("server").map(|(node, table)| self.server(node, table, &level, &outer)).collect();
        self.check_default_servers(&servers);
        let log_format = level.core("log_format").map(LogFormat::list).unwrap_or_default();
        Http { log_format, upstreams, servers }
    }

    /// Merges the innermost of `levels` into what holds around it.
    fn scope(&mut self, outer: &Scope, levels: &[&Level<'a>]) -> Scope {
        let mut core = outer.core.clone();
        let mut origins = outer.origins.clone();
        let own = levels.last();
        for (directive, entry) in own.into_iter().flat_map(|level| &level.core) {
            if core.set(directive.name, &merge::filled(&directive.ty, &entry.node)) {
                origins.retain(|(name, _)| *name != directive.name);
                origins.push((directive.name, entry.node.origin));
            }
        }
        let modules = merge::modules(self.checker.schemas, levels, &outer.modules, &mut self.checker.errors);
        Scope { core, modules, origin: own.map_or(outer.origin, |level| level.origin), origins }
    }

    fn upstream(&mut self, name: &str, node: &'a Node) -> Option<Upstream> {
        let prefix = join_key("http.upstream", name);
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
            let message = "the name of an upstream cannot be empty or hold a space or a slash";
            self.checker.errors.push(node.origin, prefix, message);
            return None;
        }
        let level = self.checker.level(node.as_table()?, node.origin, Contexts::UPSTREAM, &prefix);
        let modules = merge::modules(self.checker.schemas, &[&level], &[], &mut self.checker.errors);
        let mut upstream = Upstream {
            name: name.to_owned(),
            balancer: Vec::new(),
            balancer_origins: Vec::new(),
            server: Vec::new(),
            keepalive: 0,
            keepalive_timeout: Default::default(),
            keepalive_requests: 0,
            modules,
            origin: node.origin,
        };
        for (name, node) in model::defaults(Contexts::UPSTREAM) {
            upstream.set(name, &node);
        }
        for (directive, entry) in &level.core {
            let filled = merge::filled(&directive.ty, &entry.node);
            upstream.set(directive.name, &filled);
            if filled.as_list().is_some_and(<[Node]>::is_empty) {
                let message = "found an empty list, expected at least one element";
                self.checker.errors.push(filled.origin, join_key(&prefix, directive.name), message);
            }
        }
        if level.table.get("server").is_none()
            && let Some(directive) = find("server", Contexts::UPSTREAM)
        {
            self.checker.errors.push(node.origin, join_key(&prefix, "server"), missing(&directive.ty));
        }
        Some(upstream)
    }

    fn server(&mut self, node: &'a Node, table: &'a Table, http: &Level<'a>, outer: &Scope) -> Server {
        let level = self.checker.level(table, node.origin, Contexts::SERVER, "http.server");
        let levels = [http, &level];
        let scope = self.scope(outer, &levels);
        let listen = self.listen(&level);
        let server_name = self.server_names(&level);
        let locations = self.locations(&levels, &scope, None);
        self.check_named(outer, &scope, &locations, &locations);
        Server { listen, server_name, scope, locations }
    }

    /// Error pages that lead to a named location which the server does not have. Those of `outer` are for all servers, of
    /// which not each has it, and are looked at when they are needed.
    fn check_named(&mut self, outer: &Scope, scope: &Scope, inside: &[Location], all: &[Location]) {
        if !Arc::ptr_eq(&scope.core.error_page, &outer.core.error_page) {
            for page in scope.core.error_page.iter() {
                let is_there = || all.iter().any(|location| location.path.to_string() == page.uri);
                if page.uri.starts_with('@') && !page.uri.contains('$') && !is_there() {
                    let message = format!("found {}, but the server has no location of this name", quote(&page.uri));
                    self.checker.errors.push(page.origin, "error_page.uri", message);
                }
            }
        }
        for location in inside {
            self.check_named(scope, &location.scope, &location.locations, all);
        }
    }

    fn listen(&mut self, level: &Level<'a>) -> Vec<ListenConf> {
        let Some(node) = level.core("listen") else {
            let port = if runs_as_root() { "80" } else { "8000" };
            return Listen::parse(port).map(|address| ListenConf::plain(address, level.origin)).into_iter().collect();
        };
        let ty = find("listen", Contexts::SERVER).map(|directive| &directive.ty);
        let filled = ty.map_or_else(|| node.clone(), |ty| merge::filled(ty, node));
        let nodes = filled.as_list().unwrap_or(&[]);
        if nodes.is_empty() {
            self.checker.errors.push(
                node.origin,
                "http.server.listen",
                "found an empty list, expected at least one address",
            );
        }
        let mut listen: Vec<ListenConf> = Vec::new();
        let mut first = HashMap::new();
        for (index, node) in nodes.iter().enumerate() {
            let mut fault = |origin, key: &str, message| {
                self.checker.errors.push(origin, format!("http.server.listen[{index}].{key}"), message);
            };
            let Some(conf) = ListenConf::of(node, &mut fault) else { continue };
            if let Some(other) = first.insert(conf.address.clone(), conf.origin) {
                let place = self.place(other);
                let message = format!("{} stands twice in this server; first at {place}", conf.address);
                self.checker.errors.push(conf.origin, "http.server.listen", message);
                continue;
            }
            listen.push(conf);
        }
        listen
    }

    fn server_names(&mut self, level: &Level<'a>) -> Vec<ServerName> {
        let mut names = Vec::new();
        let list = level.core("server_name").and_then(Node::as_list).unwrap_or(&[]);
        for (index, node) in list.iter().enumerate() {
            let Some(name) = node.as_str() else { continue };
            match ServerName::parse(name, node.origin) {
                Ok(name) => names.push(name),
                Err(message) => {
                    let key = format!("http.server.server_name[{index}]");
                    self.checker.errors.push(node.origin, key, message);
                }
            }
        }
        if names.is_empty() {
            names.push(ServerName::none(level.origin));
        }
        names
    }

    /// The locations in the innermost of `levels`, which is a server, or the location with the path `parent`.
    fn locations(&mut self, levels: &[&Level<'a>], outer: &Scope, parent: Option<&LocationPath>) -> Vec<Location> {
        let Some(own) = levels.last() else { return Vec::new() };
        let prefix = join_key(&own.prefix, "location");
        let mut locations: Vec<Location> = Vec::new();
        let mut first: HashMap<(String, LocationKind, bool), Origin> = HashMap::new();
        for (node, table) in own.tables("location") {
            // http and server are levels as well.
            if levels.len() >= MAX_LOCATION_DEPTH + 2 {
                let message = format!("locations are nested deeper than {MAX_LOCATION_DEPTH}");
                self.checker.errors.push(node.origin, prefix.as_str(), message);
                break;
            }
            let level = self.checker.level(table, node.origin, Contexts::LOCATION, &prefix);
            let levels: Vec<&Level<'a>> = levels.iter().copied().chain([&level]).collect();
            let path = self.location_path(&level, parent);
            if let Some((path, origin)) = &path {
                let key = path.identity();
                if let Some(other) = first.get(&key) {
                    let message = format!("there is a location \"{path}\" already, at {}", self.place(*other));
                    self.checker.errors.push(*origin, join_key(&prefix, "path"), message);
                }
                first.entry(key).or_insert(*origin);
            }
            let mut scope = self.scope(outer, &levels);
            self.alias(&level, path.as_ref().map(|(path, _)| path), &mut scope);
            let inner = self.locations(&levels, &scope, path.as_ref().map(|(path, _)| path));
            if let Some((path, origin)) = path {
                locations.push(Location { path, origin, scope, locations: inner });
            }
        }
        locations
    }

    /// `alias` belongs to the location in which it is written, and to those inside it.
    fn alias(&mut self, level: &Level<'a>, path: Option<&LocationPath>, scope: &mut Scope) {
        let Some(alias) = level.core("alias") else { return };
        if let Some(root) = level.core("root") {
            let message =
                format!("root stands in this location already, at {}; write one of the two", self.place(root.origin));
            self.checker.errors.push(alias.origin, join_key(&level.prefix, "alias"), message);
        }
        if let Some(root) = &mut scope.core.root {
            root.alias = path.map(|path| Arc::new(path.clone()));
        }
    }

    fn location_path(&mut self, level: &Level<'a>, parent: Option<&LocationPath>) -> Option<(LocationPath, Origin)> {
        let key = join_key(&level.prefix, "path");
        let Some(node) = level.core("path") else {
            if level.table.get("path").is_none()
                && let Some(directive) = find("path", Contexts::LOCATION)
            {
                self.checker.errors.push(level.origin, key, missing(&directive.ty));
            }
            return None;
        };
        let path = LocationPath::parse(node.as_str()?);
        let path = path.and_then(|path| parent.map_or(Ok(()), |parent| parent.may_hold(&path)).map(|()| path));
        match path {
            Ok(path) => Some((path, node.origin)),
            Err(message) => {
                self.checker.errors.push(node.origin, key, message);
                None
            }
        }
    }

    fn check_default_servers(&mut self, servers: &[Server]) {
        let mut first: HashMap<&Listen, Origin> = HashMap::new();
        for conf in servers.iter().flat_map(|server| &server.listen).filter(|conf| conf.default_server) {
            match first.get(&conf.address) {
                None => drop(first.insert(&conf.address, conf.origin)),
                Some(other) => {
                    let message = format!("{} has a default server already, at {}", conf.address, self.place(*other));
                    self.checker.errors.push(conf.origin, "http.server.listen.default_server", message);
                }
            }
        }
    }

    fn place(&self, origin: Origin) -> String {
        self.checker.errors.files().place(origin).to_string()
    }
}

/// Whether the process runs as root: on Linux, whether the folder of the process in /proc belongs to root.
fn runs_as_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
