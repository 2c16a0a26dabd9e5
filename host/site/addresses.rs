//! What the servers listen on: one socket for each address, with the options that its servers write for it.

use std::{collections::HashMap, path::Path, sync::Arc};

use super::Server;
use crate::{
    config::{
        self, Diagnostics, HttpCore, Listen, ListenConf, ListenOption, ListenOptions, Origin, ServerName,
        address::unix_socket_path,
    },
    http1::Limits,
    listen::Address,
    regex::RegexLists,
    server_name::{self, Names},
};

/// What is known of one address.
#[derive(Default)]
struct Listening<'c> {
    /// Its servers with their names, and whether each is the default.
    servers: Vec<(Arc<Server>, &'c [ServerName], bool)>,
    options: Vec<(ListenOption, Origin)>,
    /// Where a default server says that it is one.
    default: Option<Origin>,
}

/// The addresses of all servers, in the order of the configuration.
pub fn of(
    servers: &[Arc<Server>],
    confs: &[config::Server],
    prefix: &Path,
    regexes: &mut RegexLists,
    errors: &mut Diagnostics,
    warnings: &mut Diagnostics,
) -> Vec<Arc<Address>> {
    let mut order: Vec<Listen> = Vec::new();
    let mut found: HashMap<Listen, Listening> = HashMap::new();
    for (server, server_conf) in servers.iter().zip(confs) {
        for conf in &server_conf.listen {
            let Some(address) = absolute(conf, prefix, errors) else { continue };
            let listening = found.entry(address.clone()).or_insert_with(|| {
                order.push(address.clone());
                Listening::default()
            });
            listening.add(server, &server_conf.server_name, conf, errors);
        }
    }
    let make = |address: Listen| {
        let listening = found.remove(&address)?;
        let mut options = ListenOptions::default();
        listening.options.iter().for_each(|(option, _)| option.set(&mut options));
        let names = names(&listening.servers, &address, regexes, errors, warnings)?;
        let head_limits = head_limits(&names.default_server().place.core);
        Some(Arc::new(Address { address, options, names, head_limits }))
    };
    order.into_iter().filter_map(make).collect()
}

/// nginx: client_header_buffer_size, large_client_header_buffers.
fn head_limits(core: &HttpCore) -> Limits {
    let large = core.large_client_header_buffers;
    let buffer = usize::try_from(large.size.max(core.client_header_buffer_size)).unwrap_or(usize::MAX);
    // A line lies in one buffer, with its CRLF.
    let line = buffer.saturating_sub(2);
    Limits {
        request_line: line,
        header_line: line,
        total: buffer.saturating_mul(large.number.max(1) as usize),
        underscores: core.underscores_in_headers,
    }
}

/// The names of the servers of an address. Of two equal ones the first counts, and there is a warning about the other.
fn names(
    servers: &[(Arc<Server>, &[ServerName], bool)],
    address: &Listen,
    regexes: &mut RegexLists,
    errors: &mut Diagnostics,
    warnings: &mut Diagnostics,
) -> Option<Names> {
    const KEY: &str = "http.server.server_name";
    let patterns = server_name::patterns(servers.iter().flat_map(|(_, names, _)| *names));
    let list = regexes.list(&patterns).unwrap_or_else(|message| {
        let name = servers.iter().flat_map(|(_, names, _)| *names).find(|name| name.regex().is_some());
        errors.push(name.map_or(Origin::BUILT_IN, |name| name.origin), KEY, message);
        None
    });
    Names::new(servers, list, |name| {
        let text = format!("conflicting server name {:?} on {address}, ignored: another server has it", name.text);
        warnings.push(name.origin, KEY, text);
    })
}

/// The address, with the path of a socket file from the prefix on.
fn absolute(conf: &ListenConf, prefix: &Path, errors: &mut Diagnostics) -> Option<Listen> {
    let Listen::Unix(path) = &conf.address else { return Some(conf.address.clone()) };
    match unix_socket_path(prefix, path) {
        Ok(path) => Some(Listen::Unix(path)),
        Err(message) => {
            errors.push(conf.origin, "http.server.listen", message);
            None
        }
    }
}

impl<'c> Listening<'c> {
    fn add(&mut self, server: &Arc<Server>, names: &'c [ServerName], conf: &ListenConf, errors: &mut Diagnostics) {
        if self.servers.iter().any(|(known, ..)| Arc::ptr_eq(known, server)) {
            // The same text twice has been found before; these are two spellings of one path.
            let message = format!("{} stands twice in this server", conf.address);
            errors.push(conf.origin, "http.server.listen", message);
        }
        self.servers.push((server.clone(), names, conf.default_server));
        if conf.default_server {
            match self.default {
                // Reported already, with these words, unless the path was spelled in two ways.
                Some(other) => {
                    let place = errors.files().place(other).to_string();
                    let message = format!("{} has a default server already, at {place}", conf.address);
                    errors.push(conf.origin, "http.server.listen.default_server", message);
                }
                None => self.default = Some(conf.origin),
            }
        }
        for (option, origin) in &conf.options {
            let same = |(known, _): &&(ListenOption, Origin)| known.name() == option.name();
            match self.options.iter().find(same) {
                None => self.options.push((*option, *origin)),
                Some((known, _)) if known == option => (),
                Some((known, other)) => {
                    let place = errors.files().place(*other).to_string();
                    let message = format!(
                        "found {option} for {}, which has {known} already, at {place}; its socket is one, so write it once",
                        conf.address
                    );
                    errors.push(*origin, format!("http.server.listen.{}", option.name()), message);
                }
            }
        }
    }
}
