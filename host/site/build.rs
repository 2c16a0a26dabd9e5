//! From a configuration file to a [`Site`]: reads, loads modules, prepares and links them. Every error of every step is
//! reported, as far as the steps before allow to find it.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fmt,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use topnext_module_api::{
    Phase,
    handler::{HandlerHooksRef, HandlerLink},
};

use super::{
    Place, Server, Site, addresses, facts,
    files::FileRules,
    kept::{Kept, KeptModule},
    limits::Demands,
    logs::Logs,
};
use crate::{
    config::{
        self, Config, Contexts, Diagnostics, Document, ErrorPage, Files, HttpCore, Location, LocationKind,
        LocationPath, Main, ModuleDecl, ModuleSchema, ModuleTable, NameForm, Node, Origin, PeerAddress, Scope,
        ServerName, User,
        address::unix_socket_path,
        diagnostic::{did_you_mean, join_key},
    },
    error_page,
    event::thread_pool::ThreadPool,
    location::{Entry, Locations},
    map_uri::Root,
    open_file,
    plugins::{
        self, Candidate, Declared, Description, LoadedModule, Refusal,
        link::{self, Balancers, Chains, Protocol},
        prepare::{Prepared, Preparer},
        running,
        services::main::{self, Configuring},
    },
    process::{privileges::Account, zones},
    regex::{Pattern, RegexLists},
    socket::Endpoint,
    template::Templates,
    upstream::{
        Upstream,
        names::Names,
        peers::{Keepalive, Peer, Peers},
        registry::Registry,
    },
    variables::{self, Added, ModuleVariable},
};

/// A configuration that is ready to run, and where it came from.
pub struct Loaded {
    /// What runs.
    pub site: Site,
    /// The files that were read, the main one first.
    pub files: Arc<Files>,
    /// What another worker with this configuration starts from.
    pub kept: Kept,
    /// All places, in the order of the configuration.
    pub places: Vec<Arc<Place>>,
    /// The modules as the configuration declares them.
    pub declared: Vec<Declared>,
    /// What is not wrong, but has no effect.
    pub warnings: Diagnostics,
    /// What was there when the configuration was first read, and is not any more.
    pub missing: Diagnostics,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Default)]
pub struct Report {
    /// Modules that were refused.
    pub refusals: Vec<Refusal>,
    /// Errors with file, line and column.
    pub errors: Option<Diagnostics>,
}

impl Report {
    fn of(errors: Diagnostics) -> Report {
        Report { refusals: Vec::new(), errors: Some(errors) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for refusal in &self.refusals {
            writeln!(f, "{}", refusal.to_string().trim_end())?;
        }
        match &self.errors {
            Some(errors) if !errors.is_empty() => writeln!(f, "{}", errors.to_string().trim_end()),
            _ => Ok(()),
        }
    }
}

/// Reads a configuration, loads its modules, and makes it ready to run. Relative paths start from `prefix`.
pub fn load(path: &Path, prefix: &Path) -> Result<Loaded, Report> {
    load_kept(path, prefix, None)
}

/// As [`load`]: from what is kept of it, if the configuration was read before. Then a folder or log that is missing is no error.
pub fn load_kept(path: &Path, prefix: &Path, kept: Option<Kept>) -> Result<Loaded, Report> {
    let is_kept = kept.is_some();
    let Kept { texts, names, account, modules: known } = kept.unwrap_or_default();
    let document = Document::read_kept(path, is_kept.then_some(texts)).map_err(Report::of)?;
    let (head, errors_of_head) = document.head_partial();
    let declared: Vec<Declared> =
        head.modules.iter().map(|module| declare(module, document.files(), prefix, &known)).collect();
    let (candidates, mut refusals) = plugins::candidates(&declared, &module_dirs(&head.module_path, prefix));
    if let Err(order) = plugins::order::check(&candidates, &declared) {
        refusals.extend(order);
    }
    let (modules, schemas, refused) = load_modules(candidates);
    refusals.extend(refused);
    let (config, mut errors) = document.check_partial(&schemas);
    errors.append(errors_of_head);
    if modules.len() > running::MAX_MODULES {
        let text = format!("found {} modules, at most {} can be loaded", modules.len(), running::MAX_MODULES);
        errors.push(head.modules[running::MAX_MODULES].origin, "module", text);
    }
    let Some(config) = config else { return Err(Report { refusals, errors: Some(errors) }) };
    let builder = Builder::new(&modules, &schemas, prefix, &config, &mut errors, document.diagnostics());
    let Built { site, places, names, warnings, missing } = builder.build(&config, names, account);
    if !is_kept {
        errors.append(missing.clone());
    }
    errors.sort();
    if !refusals.is_empty() || !errors.is_empty() {
        return Err(Report { refusals, errors: Some(errors) });
    }
    let (files, modules) = (document.files().clone(), modules.iter().map(|module| KeptModule::of(module)).collect());
    let kept = Kept { texts: document.into_texts(), names, account: site.account.clone(), modules };
    Ok(Loaded { site, files, kept, places, declared, warnings, missing })
}

fn declare(module: &ModuleDecl, files: &Files, prefix: &Path, known: &[KeptModule]) -> Declared {
    let name = module.alias.as_ref().unwrap_or(&module.name);
    let known = known.iter().find(|known| known.name == *name);
    Declared {
        known: known.and_then(|known| Some((known.file.clone(), known.source()?))),
        name: module.name.clone(),
        alias: module.alias.clone(),
        path: module.path.as_ref().map(|path| prefix.join(path)),
        version: module.version.clone(),
        sha256: module.sha256,
        ignore_order: module.ignore_order.clone(),
        place: files.place(module.origin).to_string(),
    }
}

/// Where modules are looked for: module_path, or the folder of the binary and the system's.
fn module_dirs(configured: &[PathBuf], prefix: &Path) -> Vec<PathBuf> {
    if !configured.is_empty() {
        return configured.iter().map(|dir| prefix.join(dir).components().collect()).collect();
    }
    let binary = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    binary.into_iter().chain([PathBuf::from("/usr/lib/topnext/modules")]).collect()
}

type Modules = (Vec<Arc<LoadedModule>>, Vec<ModuleSchema>, Vec<Refusal>);

/// Loads what can be loaded. Schemas and modules have the same order.
fn load_modules(candidates: Vec<Candidate>) -> Modules {
    main::set_for_host();
    let mut names: Vec<String> = Vec::new();
    for candidate in &candidates {
        names.resize(names.len().max(candidate.slot as usize), "refused module".to_string());
        names[candidate.slot as usize - 1] = candidate.name.clone();
    }
    running::name_modules(names);
    // The schema first: a module that is refused for it is not loaded.
    let (mut schemas, mut good, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
    for candidate in candidates {
        match ModuleSchema::parse(&candidate.description.text, &candidate.name, contexts(&candidate.description)) {
            Ok(schema) => {
                schemas.push((candidate.slot, schema));
                good.push(candidate);
            }
            Err(message) => {
                let refusal = plugins::description::refusal(&candidate.file, plugins::RefusalKind::BadDescription);
                let refusal = refusal.line("found", message).line(
                    "fix",
                    "if the module is newer than this server, upgrade topnext; else rebuild it with a current module-api",
                );
                refusals.push(refusal.at(&candidate.place, &candidate.name));
            }
        }
    }
    let (modules, refused) = plugins::load_all(good, main::api(), running::last_panic);
    refusals.extend(refused);
    let kept: Vec<Arc<LoadedModule>> = modules.into_iter().map(Arc::new).collect();
    schemas.retain(|(slot, _)| kept.iter().any(|module| module.slot == *slot));
    let schemas = schemas.into_iter().map(|(_, schema)| schema).collect();
    facts::set(kept.iter().map(Arc::as_ref));
    (kept, schemas, refusals)
}

fn contexts(description: &Description) -> Contexts {
    let provides = |kind| description.provides(kind);
    let http = ["filter", "phases", "content", "upstream", "variables"].into_iter().any(provides);
    let inside = Contexts::SERVER.or(Contexts::LOCATION);
    let http = match http {
        // At the top it would hold nowhere.
        true if !description.inherit => inside,
        true => Contexts::HTTP.or(inside),
        false => Contexts::NONE,
    };
    if provides("balancer") { http.or(Contexts::UPSTREAM) } else { http }
}

/// The variables that modules provide.
fn variables_of(modules: &[Arc<LoadedModule>]) -> Vec<ModuleVariable> {
    let of = |module: &Arc<LoadedModule>| {
        let slot = module.slot;
        link::variables(module).into_iter().enumerate().map(move |(index, (name, cacheable))| ModuleVariable {
            name,
            module: slot,
            index: index as u32,
            cacheable,
        })
    };
    modules.iter().flat_map(of).collect()
}

/// A regular expression of the configuration: where it is written, and under which key.
type Written<'p> = (&'p Pattern, Origin, &'static str);

/// All regular expressions.
fn patterns(config: &Config) -> Vec<Written<'_>> {
    const PATH: &str = "http.server.location.path";
    fn collect<'p>(locations: &'p [Location], into: &mut Vec<Written<'p>>) {
        for location in locations {
            into.extend(location.path.regex.as_ref().map(|pattern| (pattern, location.origin, PATH)));
            collect(&location.locations, into);
        }
    }
    let mut patterns = Vec::new();
    for server in &config.http.servers {
        for name in &server.server_name {
            patterns.extend(name.regex().map(|pattern| (pattern, name.origin, "http.server.server_name")));
        }
        collect(&server.locations, &mut patterns);
    }
    patterns
}

/// Warns of those that a request can make slow.
fn warn_of_slow(patterns: &[Written<'_>], warnings: &mut Diagnostics) {
    for (pattern, origin, key) in patterns.iter().filter(|(pattern, ..)| pattern.is_slow()) {
        let text = format!(
            "the regular expression {:?} counts far from many places of a text, so that a long one takes milliseconds; write \
             a smaller number in {{...}}, + or * in its place, or ^ at its start and no + or * before",
            pattern.text()
        );
        warnings.push(*origin, *key, text);
    }
}

/// The names of all named groups of regular expressions: variables, which must not hide others.
fn captures(patterns: &[Written<'_>], modules: &[ModuleVariable], errors: &mut Diagnostics) -> Vec<String> {
    let (mut names, mut seen) = (Vec::new(), HashSet::new());
    for &(pattern, origin, key) in patterns {
        for name in pattern.names() {
            if let Some(owner) = variables::owner(name, modules) {
                let text = format!(
                    "the group {name:?} of the regular expression {:?} has the name of a variable of {owner}; give it \
                     another",
                    pattern.text()
                );
                errors.push(origin, key, text);
            } else if seen.insert(name) {
                names.push(name.to_string());
            }
        }
    }
    names
}

struct Builder<'a> {
    modules: &'a [Arc<LoadedModule>],
    preparer: Preparer<'a>,
    prefix: &'a Path,
    /// The variables that the configuration adds, until templates have them.
    added: Added,
    logs: Logs<'a>,
    errors: &'a mut Diagnostics,
    places: Vec<Arc<Place>>,
    error_pages: Vec<CompiledPages>,
    regexes: RegexLists,
    warnings: Diagnostics,
    /// What the system does not have, though the configuration names it.
    missing: Diagnostics,
    files: FileRules,
}

/// What is made of a configuration.
struct Built {
    site: Site,
    places: Vec<Arc<Place>>,
    names: Names,
    warnings: Diagnostics,
    missing: Diagnostics,
}

/// Error pages as they were written, and compiled.
type CompiledPages = (Arc<[ErrorPage]>, Arc<[error_page::Page]>);

impl<'a> Builder<'a> {
    fn new(
        modules: &'a [Arc<LoadedModule>],
        schemas: &'a [ModuleSchema],
        prefix: &'a Path,
        config: &'a Config,
        errors: &'a mut Diagnostics,
        mut warnings: Diagnostics,
    ) -> Builder<'a> {
        let missing = warnings.clone();
        let of_modules = variables_of(modules);
        let patterns = patterns(config);
        warn_of_slow(&patterns, &mut warnings);
        let captures = captures(&patterns, &of_modules, errors);
        let added = Added { modules: of_modules, captures: captures.clone() };
        let logs = Logs::new(prefix, added.clone(), &config.http.log_format, errors);
        Builder {
            modules,
            preparer: Preparer::new(modules, schemas),
            prefix,
            added,
            logs,
            errors,
            places: Vec::new(),
            error_pages: Vec::new(),
            regexes: RegexLists::new(captures),
            warnings,
            missing,
            files: FileRules::default(),
        }
    }

    /// With these names and this account, which were found before.
    fn build(mut self, config: &'a Config, names: Names, account: Option<Account>) -> Built {
        let named = config.http.upstreams.iter().map(|upstream| upstream.name.clone()).collect();
        main::begin_configuring(Configuring {
            templates: Templates::new(std::mem::take(&mut self.added)),
            upstreams: Registry::new(named, self.prefix, names),
            zones: self.zones(&config.main),
        });
        let error_log = self.logs.error(&config.main.error_log, self.errors, &mut self.missing);
        let servers: Vec<Arc<Server>> = config.http.servers.iter().map(|server| self.server(server)).collect();
        let mut upstreams: Vec<Arc<Upstream>> = Vec::new();
        for upstream in &config.http.upstreams {
            upstreams.push(Arc::new(self.upstream(upstream)));
        }
        let Configuring { templates, upstreams: mut registry, .. } = main::done_configuring();
        for (name, peers) in std::mem::take(&mut registry.implied) {
            upstreams.push(Arc::new(self.implied(name, peers)));
        }
        let addresses = addresses::of(
            &servers,
            &config.http.servers,
            self.prefix,
            &mut self.regexes,
            self.errors,
            &mut self.warnings,
        );
        let pool = &config.main.thread_pool;
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let processes = config.main.worker_processes.map_or(processors, |number| number as usize);
        let threads = config.main.worker_threads.map_or((processors / processes).max(1), |number| number as usize);
        let demands = Demands { main: &config.main, threads, addresses: addresses.len() };
        demands.check(&mut self.missing, &mut self.warnings);
        let site = Site {
            main: config.main.clone(),
            servers,
            addresses,
            error_log,
            templates,
            upstreams,
            targets: registry.targets,
            pool: ThreadPool::new(pool.threads as usize, pool.max_queue as usize),
            processes,
            threads,
            modules: self.modules.to_vec(),
            account: account.or_else(|| self.account(config.main.user.as_ref())),
            working_directory: self.working_directory(&config.main),
        };
        if let Some(origin) = config.main.daemon
            && config.main.error_log.iter().all(|log| log.path == "stderr")
        {
            let text = "in the background nobody sees stderr, where the error log goes: give error_log a file";
            self.warnings.push(origin, "daemon", text);
        }
        self.warnings.sort();
        let Builder { places, warnings, missing, .. } = self;
        Built { site, places, names: registry.names, warnings, missing }
    }

    // ---- the process

    /// Whom the workers run as.
    fn account(&mut self, user: Option<&User>) -> Option<Account> {
        let user = user?;
        match Account::find(user) {
            Ok(Some(account)) => Some(account),
            Ok(None) => {
                self.warnings.push(user.origin, "user", "has no effect, since the server is not started by root");
                None
            }
            Err(message) => {
                self.errors.push(user.origin, "user", message);
                None
            }
        }
    }

    fn working_directory(&mut self, main: &Main) -> Option<PathBuf> {
        let (path, origin) = main.working_directory.as_ref()?;
        let path = self.prefix.join(path);
        if !path.is_dir() {
            self.missing.push(*origin, "working_directory", format!("{} is not a folder", path.display()));
            return None;
        }
        Some(path)
    }

    /// Those whose size is right.
    fn zones(&mut self, main: &Main) -> Vec<config::Zone> {
        const PAGE: u64 = 4096;
        for zone in main.zones.iter().filter(|zone| !(PAGE..=zones::MAX_SIZE).contains(&zone.size)) {
            let text = format!("found {} bytes, expected a size from 4k to 1024g", zone.size);
            self.errors.push(zone.origin, format!("zone.{}.size", zone.name), text);
        }
        main.zones.clone()
    }

    // ---- servers and places

    fn server(&mut self, server: &'a crate::config::Server) -> Arc<Server> {
        let name = match server.server_name.first() {
            Some(ServerName { form: NameForm::ExactOrLeading(name), .. }) => name.clone(),
            Some(name) => name.text.clone(),
            None => String::new(),
        };
        let title = if name.is_empty() { "server".to_string() } else { format!("server {name}") };
        let place = self.place(None, title.clone(), &server.scope);
        let locations = self.locations(&server.locations, &title);
        Arc::new(Server { name, place, locations })
    }

    fn locations(&mut self, list: &'a [Location], server: &str) -> Locations {
        let mut entries = Vec::new();
        for location in list {
            let path = &location.path;
            let place = self.place(Some(path), format!("{server}, location {path}"), &location.scope);
            // nginx: locations that pass to an upstream, auto_redirect.
            let redirects = path.text.ends_with('/') && place.upstream.is_some();
            let locations = self.locations(&location.locations, server);
            entries.push(Entry { path: path.clone(), place, redirects, locations });
        }
        let patterns: Vec<&Pattern> = list.iter().filter_map(|location| location.path.regex.as_ref()).collect();
        let regexes = self.regexes.list(&patterns).unwrap_or_else(|message| {
            let origin = list.first().map_or(Origin::BUILT_IN, |location| location.origin);
            self.errors.push(origin, "http.server.location.path", message);
            None
        });
        Locations::new(entries, regexes)
    }

    /// `path` is that of the location; none for a server outside of its locations.
    fn place(&mut self, path: Option<&LocationPath>, title: String, scope: &'a Scope) -> Arc<Place> {
        let mut prepared: Vec<Arc<Prepared>> = Vec::new();
        let mut filters = Vec::new();
        let mut handlers: [Vec<HandlerLink>; 8] = Default::default();
        let mut content: Vec<(&ModuleTable, &LoadedModule, Option<HandlerLink>, Option<Protocol>)> = Vec::new();
        for table in &scope.modules {
            let module = &self.modules[table.module];
            if !contexts(&module.description).meets(Contexts::LOCATION) {
                continue;
            }
            let Some(active) = self.preparer.prepare(table, self.errors) else { continue };
            let (data, slot, root) = (active.data(), module.slot, &module.root);
            if let Some(hooks) = root.filter().into_option() {
                filters.push((hooks, data, slot));
            }
            if let Some(hooks) = root.phases().into_option() {
                for phase in phases_of(hooks) {
                    handlers[phase as usize].push(HandlerLink {
                        call: hooks.call(),
                        data,
                        module: slot,
                        reserved: [0; 2],
                    });
                }
            }
            if let Some(hooks) = root.content().into_option() {
                let link = HandlerLink { call: hooks.call(), data, module: slot, reserved: [0; 2] };
                content.push((table, module, Some(link), None));
            }
            if let Some(hooks) = root.upstream().into_option() {
                content.push((table, module, None, Some(Protocol::new(hooks, data, slot))));
            }
            prepared.push(active);
        }
        if let [(_, first, ..), rest @ ..] = content.as_slice() {
            for (table, other, ..) in rest {
                let text = format!(
                    "{title} has two content handlers, {:?} and {:?}; a place can have one: switch one of them off there",
                    first.name, other.name
                );
                self.errors.push(table.origin, table.key_prefix.clone(), text);
            }
        }
        let (content, upstream) = match content.into_iter().next() {
            Some((table, _, content, upstream)) => {
                if let (Some(path), Some(protocol)) = (path, &upstream) {
                    check_prefix(path, protocol, table, self.errors, &mut self.warnings);
                }
                (content, upstream)
            }
            None => (None, None),
        };
        for (extension, one, other) in scope.core.types.iter().flat_map(|types| &types.repeated) {
            let text = format!("the extension {extension:?} is of two types, {one:?} and {other:?}");
            self.errors.push(scope.origin_of("types"), "types", text);
        }
        let place = Arc::new(Place {
            path: path.map(|path| path.text.clone()).unwrap_or_default(),
            title,
            root: self.root(path, scope),
            error_pages: self.error_pages(scope),
            files: self.files.rules(scope, self.errors),
            access_logs: self.logs.access(&scope.core.access_log, self.errors, &mut self.missing),
            error_log: self.logs.error(&scope.core.error_log, self.errors, &mut self.missing),
            core: self.core(scope),
            chains: Chains::new(&filters),
            next_phase: next_phases(&handlers),
            handlers,
            content,
            upstream,
            prepared,
        });
        self.places.push(place.clone());
        place
    }

    /// The host's directives, with paths from the prefix on.
    fn core(&self, scope: &Scope) -> HttpCore {
        let mut core = scope.core.clone();
        core.client_body_temp_path.path = self.prefix.join(&core.client_body_temp_path.path);
        core
    }

    fn root(&mut self, path: Option<&LocationPath>, scope: &Scope) -> Option<Root> {
        let conf = scope.core.root.as_ref()?;
        // In the location where it is written, not in those inside.
        if let Some(path) = path.filter(|path| conf.alias.as_deref() == Some(path))
            && conf.folder.ends_with('/')
            && let Some(text) = without_slash(path)
        {
            self.warnings.push(scope.origin_of("alias"), "alias", text);
        }
        let key = if conf.alias.is_some() { "alias" } else { "root" };
        let root = match Root::new(conf, self.prefix) {
            Ok(root) => root,
            Err(text) => {
                self.errors.push(scope.origin_of(key), key, text);
                return None;
            }
        };
        if let Some(folder) = root.constant_folder().map(|folder| Path::new(OsStr::from_bytes(folder)))
            // The root of the file system has lost its slash.
            && !folder.as_os_str().is_empty()
            && !open_file::is_directory(folder)
        {
            let text = format!("found {:?}, which is not a folder", folder.display());
            self.missing.push(scope.origin_of(key), key, text);
        }
        Some(root)
    }

    /// The error pages of a scope, compiled once for all that share them.
    fn error_pages(&mut self, scope: &Scope) -> Arc<[error_page::Page]> {
        let list = &scope.core.error_page;
        if let Some((_, pages)) = self.error_pages.iter().find(|(known, _)| Arc::ptr_eq(known, list)) {
            return pages.clone();
        }
        let mut pages = Vec::new();
        for page in list.iter() {
            match error_page::Page::new(page) {
                Ok(page) => pages.push(page),
                Err(text) => self.errors.push(page.origin, "error_page", text),
            }
        }
        let pages: Arc<[error_page::Page]> = pages.into();
        self.error_pages.push((list.clone(), pages.clone()));
        pages
    }

    // ---- upstreams

    fn upstream(&mut self, upstream: &crate::config::Upstream) -> Upstream {
        let mut list = Vec::new();
        for server in &upstream.server {
            let addresses = match &server.address {
                PeerAddress::Ip(address) => Ok(vec![Endpoint::Ip(*address)]),
                PeerAddress::Name { host, port } => {
                    main::resolve(host, *port).map(|list| list.into_iter().map(Endpoint::Ip).collect())
                }
                PeerAddress::Unix(path) => unix_socket_path(self.prefix, path).map(|path| vec![Endpoint::Unix(path)]),
            };
            let addresses = addresses.unwrap_or_else(|text| {
                self.errors.push(server.origin, format!("http.upstream.{}.server", upstream.name), text);
                Vec::new()
            });
            list.extend(addresses.into_iter().map(|address| {
                let mut peer = Peer::new(address);
                (peer.weight, peer.max_fails, peer.fail_timeout) =
                    (server.weight, server.max_fails, server.fail_timeout);
                (peer.max_conns, peer.backup, peer.down) = (server.max_conns, server.backup, server.down);
                peer
            }));
        }
        let peers = Arc::new(Peers { list });
        let key = join_key(&join_key("http.upstream", &upstream.name), "balancer");
        let (mut links, mut found) = (Vec::new(), Vec::new());
        for (index, name) in upstream.balancer.iter().enumerate() {
            // Not written: the default, which is part of no file.
            let origin = upstream.balancer_origins.get(index).copied().filter(|origin| *origin != Origin::BUILT_IN);
            let origin = origin.unwrap_or(upstream.origin);
            let Some(at) = self.balancer(name) else {
                let known: Vec<&str> = self.balancers().map(|module| module.name.as_str()).collect();
                let advice = match did_you_mean(name, known.iter().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("add [[module]] name = {name:?}"),
                };
                let known = if known.is_empty() { "there is none".to_string() } else { known.join(", ") };
                let text = format!("found {name:?}, expected the name of a loaded balancer: {known}; {advice}");
                self.errors.push(origin, format!("{key}[{index}]"), text);
                continue;
            };
            found.push(at);
            links.extend(self.link_balancer(at, upstream.modules.get(at), &peers, origin, &key));
        }
        if found.len() == upstream.balancer.len() {
            self.check_parameters(upstream, &found);
        }
        let keepalive =
            Keepalive::new(upstream.keepalive as usize, upstream.keepalive_timeout, upstream.keepalive_requests);
        Upstream { name: upstream.name.clone(), peers, balancers: Balancers::new(links), keepalive }
    }

    /// An upstream of one address: round robin, with nginx's defaults.
    fn implied(&mut self, name: String, list: Vec<Peer>) -> Upstream {
        let peers = Arc::new(Peers { list });
        let here = Origin::BUILT_IN;
        let links = match self.balancer("round_robin") {
            Some(at) => self.link_balancer(at, None, &peers, here, "balancer"),
            None => {
                let text = format!(
                    "the upstream {name:?} needs the balancer \"round_robin\", which is not loaded; add [[module]] name = \
                     \"round_robin\""
                );
                self.errors.push(Origin::whole_file(0), "module", text);
                None
            }
        };
        let keepalive = Keepalive::new(32, std::time::Duration::from_secs(60), 1000);
        Upstream { name, peers, balancers: Balancers::new(links.into_iter().collect()), keepalive }
    }

    fn balancers(&self) -> impl Iterator<Item = &'a Arc<LoadedModule>> + use<'a> {
        let modules = self.modules;
        modules.iter().filter(|module| module.description.provides("balancer"))
    }

    fn balancer(&self, name: &str) -> Option<usize> {
        self.modules.iter().position(|module| module.name == name && module.description.provides("balancer"))
    }

    /// A parameter of a server must mean something to one balancer of the chain at least: a balancer leaves what it does
    /// not know to those that it delegates to (`backup` of ip_hash before round_robin).
    fn check_parameters(&mut self, upstream: &crate::config::Upstream, balancers: &[usize]) {
        let described = |at: &usize| &self.modules[*at].description;
        let known: Vec<&str> =
            balancers.iter().flat_map(|at| described(at).server_parameters.iter().map(String::as_str)).collect();
        let names: Vec<String> = balancers.iter().map(|at| format!("{:?}", self.modules[*at].name)).collect();
        let who = match names.as_slice() {
            [one] => format!("the balancer {one} does not support"),
            many => format!("none of the balancers {} supports", many.join(", ")),
        };
        let mut valid: Vec<&str> = Vec::new();
        known.iter().for_each(|name| {
            if !valid.contains(name) {
                valid.push(name)
            }
        });
        for (parameter, origin) in upstream.server.iter().flat_map(|server| &server.set) {
            if !known.contains(parameter) {
                let key = format!("http.upstream.{}.server.{parameter}", upstream.name);
                let verb = if names.len() == 1 { "it supports" } else { "they support" };
                self.errors.push(*origin, key, format!("{who} this parameter; {verb} {}", valid.join(", ")));
            }
        }
    }

    fn link_balancer(
        &mut self,
        at: usize,
        table: Option<&Arc<crate::config::ModuleTable>>,
        peers: &Arc<Peers>,
        origin: Origin,
        key: &str,
    ) -> Option<link::Balancer> {
        let module = self.modules[at].clone();
        let prepared = self.preparer.prepare_own(at, table, self.errors)?;
        match link::init_balancer(&module, prepared, peers) {
            Ok(balancer) => Some(balancer),
            Err(errors) => {
                for error in errors {
                    self.errors.push(origin, key, format!("{}: {}", module.name, error.message));
                }
                None
            }
        }
    }
}

/// What goes to the peer in place of the location's path needs one that the URI begins with. What a module prepared may
/// serve many places, so that only the host knows.
fn check_prefix(
    path: &LocationPath,
    protocol: &Protocol,
    table: &ModuleTable,
    errors: &mut Diagnostics,
    warnings: &mut Diagnostics,
) {
    let what = match path.kind {
        LocationKind::Prefix | LocationKind::PrefixNoRegex | LocationKind::Exact => {
            if let Some(key) = protocol.replaces_prefix()
                && table.table.get(key).and_then(Node::as_str).is_some_and(|value| value.ends_with('/'))
                && let Some(text) = without_slash(path)
            {
                warnings.push(table.origin_of(key), table.key_of(key), text);
            }
            return;
        }
        LocationKind::Regex => "regular expression",
        LocationKind::Named => "name",
    };
    if let Some(key) = protocol.replaces_prefix() {
        let text = format!(
            "its URI part replaces the path of the location, but \"{path}\" is a {what}, which no URI begins with; \
             expected a value without a URI part"
        );
        errors.push(table.origin_of(key), table.key_of(key), text);
    }
}

/// What to say where a folder with a slash at its end stands for a path without: `/i../a` is in `/i` as well. (Such URIs
/// get 404, so that this is a warning.)
fn without_slash(path: &LocationPath) -> Option<String> {
    let is_prefix = matches!(path.kind, LocationKind::Prefix | LocationKind::PrefixNoRegex);
    (is_prefix && !path.text.ends_with('/')).then(|| {
        format!(
            "it ends with a slash, and the path of the location \"{path}\" does not, so that \"{0}x\" is in it as well as \
             \"{0}/x\"; give both a slash at the end, or none",
            path.text
        )
    })
}

/// For each phase: itself if it has handlers, else the next one that has, or content. Content and log stand for
/// themselves, and the two phases before find-config are not skipped over.
fn next_phases(handlers: &[Vec<HandlerLink>; 8]) -> [Phase; 8] {
    let content = Phase::Content as usize;
    Phase::ALL.map(|phase| match phase {
        Phase::Rewrite | Phase::Preaccess | Phase::Access | Phase::Precontent => {
            let has = |at: &usize| *at == content || !handlers[*at].is_empty();
            (phase as usize..=content).find(has).map_or(Phase::Content, |at| Phase::ALL[at])
        }
        phase => phase,
    })
}

fn phases_of(hooks: HandlerHooksRef) -> Vec<Phase> {
    hooks.phases().iter().filter_map(|number| Phase::ALL.get(*number as usize).copied()).collect()
}
