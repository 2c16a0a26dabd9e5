//! What a server says when it serves: where to look, and what was loaded.

use std::fmt::{Display, Write as _};

use crate::{config::Listen, site::VERSION};

/// The text. `how` says how it runs.
pub fn of<'a>(
    how: &str,
    addresses: impl IntoIterator<Item = &'a Listen>,
    modules: impl IntoIterator<Item = (&'a str, &'a dyn Display)>,
) -> String {
    let mut text = format!("topnext {VERSION} is ready, pid {}, {how}\n", std::process::id());
    for address in addresses {
        let _ = match address {
            Listen::Tcp(address) => writeln!(text, "  http://{address}/"),
            // As proxy.pass would name it.
            unix => writeln!(text, "  http://{unix}:/"),
        };
    }
    let modules: Vec<String> = modules.into_iter().map(|(name, version)| format!("{name} {version}")).collect();
    let _ = writeln!(text, "  modules: {}", if modules.is_empty() { "none".to_string() } else { modules.join(", ") });
    text
}
