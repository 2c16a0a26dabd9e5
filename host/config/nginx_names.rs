//! Directives of nginx that have another name here, or none: what to say to an operator who writes one.

/// Directives that a module has under another key than `MODULE_KEY` says, with the module and its key.
const KEYS: &[(&str, &str, &str)] = &[
    ("add_header", "headers", "add_header"),
    ("expires", "headers", "expires"),
    ("if_modified_since", "not_modified", "if_modified_since"),
    ("max_ranges", "range", "max_ranges"),
];

/// Modules that come with the server, and have directives in nginx.
const MODULES: &[&str] =
    &["autoindex", "gzip", "headers", "index", "ip_hash", "limit_rate", "proxy", "return", "try_files"];

/// What nginx has in its core and this server has not, and what to do instead.
const NOT_HERE: &[(&str, &str)] = &[
    ("accept_mutex", "each event loop has a listening socket of its own; remove it"),
    ("client_body_in_single_buffer", "modules take a body as it lies in memory; remove it"),
    ("connection_pool_size", "memory is taken as it is needed; remove it"),
    ("debug_points", "a fault of the host ends a worker with a core dump, if worker_rlimit_core lets it; remove it"),
    ("env", "workers have the environment that the server was started with; remove it"),
    ("events", "write worker_connections at the top level"),
    ("if", "a location with a regular expression, or a module, decides instead"),
    ("ignore_invalid_headers", "a field whose name is not a token is always answered with 400; remove it"),
    ("limit_except", "not supported yet; no module lets requests in by their method"),
    ("load_module", "write [[module]] with its name"),
    ("lock_file", "workers share no lock; remove it"),
    ("msie_padding", "it was for browsers that are gone; remove it"),
    ("msie_refresh", "it was for browsers that are gone; remove it"),
    ("multi_accept", "all connections that wait are accepted, a bounded number in one turn; remove it"),
    ("pcre_jit", "regular expressions are compiled to automata; remove it"),
    ("request_pool_size", "memory is taken as it is needed; remove it"),
    ("resolver", "the names of peers are resolved by the system when the configuration is read; remove it"),
    ("resolver_timeout", "the names of peers are resolved by the system when the configuration is read; remove it"),
    ("rewrite", "not supported yet; return.url redirects the client"),
    ("send_lowat", "of BSD, and without effect on Linux; remove it"),
    ("server_names_hash_bucket_size", "tables have the size that they need; remove it"),
    ("server_names_hash_max_size", "tables have the size that they need; remove it"),
    ("ssl_engine", "not supported yet"),
    ("subrequest_output_buffer_size", "there are no subrequests; remove it"),
    ("tcp_nopush", "header and file leave in one write anyway; remove it"),
    ("timer_resolution", "a loop reads the clock once in each turn; remove it"),
    ("types_hash_bucket_size", "tables have the size that they need; remove it"),
    ("types_hash_max_size", "tables have the size that they need; remove it"),
    ("use", "the event method is always epoll; remove it"),
    ("variables_hash_bucket_size", "tables have the size that they need; remove it"),
    ("variables_hash_max_size", "tables have the size that they need; remove it"),
    ("worker_aio_requests", "files are read by the threads of thread_pool; remove it"),
    ("worker_cpu_affinity", "the system places the event loops; remove it"),
];

/// What to do in place of a directive that is not here.
pub fn not_here(name: &str) -> Option<&'static str> {
    NOT_HERE.iter().find(|(known, _)| *known == name).map(|(_, advice)| *advice)
}

/// The module that has this directive, and its key there; an empty key if the name is the module's own.
pub fn of_module(name: &str) -> Option<(&'static str, &str)> {
    if let Some((_, module, key)) = KEYS.iter().find(|(known, ..)| *known == name) {
        return Some((module, key));
    }
    let module = MODULES.iter().find(|module| {
        name.strip_prefix(**module).is_some_and(|rest| rest.is_empty() || (rest.starts_with('_') && rest.len() > 1))
    })?;
    Some((module, name.get(module.len() + 1..).unwrap_or("")))
}

#[cfg(test)]
mod tests {
    use super::super::core_directives;
    use super::*;

    #[test]
    fn names_are_sorted_and_not_those_of_directives() {
        assert!(NOT_HERE.is_sorted_by(|one, other| one.0 < other.0));
        for name in NOT_HERE.iter().map(|(name, _)| name).chain(KEYS.iter().map(|(name, ..)| name)) {
            assert!(core_directives::directives().iter().all(|directive| directive.name != *name), "{name}");
        }
    }

    #[test]
    fn a_directive_of_a_module_is_known_by_its_prefix() {
        assert_eq!(of_module("add_header"), Some(("headers", "add_header")));
        assert_eq!(of_module("gzip"), Some(("gzip", "")));
        assert_eq!(of_module("gzip_types"), Some(("gzip", "types")));
        assert_eq!(of_module("limit_rate_after"), Some(("limit_rate", "after")));
        assert_eq!(of_module("gzipped"), None);
        assert_eq!(of_module("gzip_"), None);
    }
}
