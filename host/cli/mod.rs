//! The command line.

mod modules;

use std::{
    ffi::OsString,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use lexopt::prelude::*;

use crate::{
    config::Listen,
    error_text::ErrorText,
    log::{
        self,
        error::{self, Level},
    },
    log_line, plugins,
    process::worker,
    site::{self, Loaded, Site, VERSION},
};

const HELP: &str = "\
Usage: topnext [-c FILE] [-p PREFIX] [-t | -T | -V]
       topnext [-c FILE] [-p PREFIX] modules
       topnext inspect FILE.so

Commands:
  (none)         run in the foreground; Ctrl-C ends it
  modules        show the modules in the order in which a response meets them, and where each is active
  inspect FILE   show what a module says about itself, without running any of its code

Options:
  -c FILE        the configuration (default: ./plugins.toml, else /etc/topnext/plugins.toml)
  -p PREFIX      where relative paths start (default: the folder of the configuration)
  -t             test the configuration and exit
  -T             test the configuration, show it and exit
  -V             show version and build, and exit
  -v             show the version, and exit
  -h             show this help
";

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Run,
    Test,
    Dump,
    Modules,
    Inspect(PathBuf),
    Version,
    Build,
    Help,
}

#[derive(Debug, PartialEq, Eq)]
struct Arguments {
    command: Command,
    config: Option<PathBuf>,
    prefix: Option<PathBuf>,
}

/// Runs the program with these arguments, the first of which is not its name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match parse(lexopt::Parser::from_args(arguments)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("topnext: {error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let result = match &arguments.command {
        Command::Help => print(HELP),
        Command::Version => print(&format!("topnext {VERSION}\n")),
        Command::Build => print(&build_info()),
        Command::Inspect(file) => match plugins::inspect(file) {
            Ok(text) => print(&text),
            Err(refusal) => Err(refusal.to_string()),
        },
        Command::Run | Command::Test | Command::Dump | Command::Modules => with_configuration(&arguments),
    };
    log::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{}", text.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn parse(mut parser: lexopt::Parser) -> Result<Arguments, lexopt::Error> {
    let mut arguments = Arguments { command: Command::Run, config: None, prefix: None };
    while let Some(argument) = parser.next()? {
        match argument {
            Short('c') => arguments.config = Some(parser.value()?.into()),
            Short('p') => arguments.prefix = Some(parser.value()?.into()),
            Short('t') => arguments.command = Command::Test,
            Short('T') => arguments.command = Command::Dump,
            Short('v') => arguments.command = Command::Version,
            Short('V') | Long("version") => arguments.command = Command::Build,
            Short('h') | Short('?') | Long("help") => arguments.command = Command::Help,
            Value(word) if word == "modules" => arguments.command = Command::Modules,
            Value(word) if word == "inspect" => arguments.command = Command::Inspect(parser.value()?.into()),
            other => return Err(other.unexpected()),
        }
    }
    Ok(arguments)
}

fn print(text: &str) -> Result<(), String> {
    use std::io::Write;
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| format!("cannot write to stdout ({})", ErrorText(&error)))
}

fn build_info() -> String {
    let mut text = format!("topnext {VERSION}\n");
    let bundled = env!("TOPNEXT_BUNDLED");
    let _ = writeln!(text, "module-api {} (abi {})", topnext_module_api::API_VERSION, topnext_module_api::ABI_EPOCH);
    let _ = writeln!(
        text,
        "built by {} for {}, profile {}",
        env!("TOPNEXT_RUSTC"),
        env!("TOPNEXT_TARGET"),
        env!("TOPNEXT_PROFILE")
    );
    let _ = writeln!(text, "bundled modules: {bundled}");
    text
}

fn with_configuration(arguments: &Arguments) -> Result<(), String> {
    let path = configuration_path(arguments.config.as_deref())?;
    let prefix = prefix(arguments.prefix.as_deref(), &path)?;
    let loaded = site::load(&path, &prefix).map_err(|report| {
        let mut text = report.to_string();
        let _ = write!(text, "topnext: configuration file {} test failed", path.display());
        text
    })?;
    for warning in loaded.warnings.to_string().lines() {
        eprintln!("topnext: [warn] {warning}");
    }
    match arguments.command {
        Command::Test => {
            eprintln!("topnext: the configuration file {} syntax is ok", path.display());
            eprintln!("topnext: configuration file {} test is successful", path.display());
            Ok(())
        }
        Command::Dump => dump(&loaded),
        Command::Modules => print(&modules::show(&loaded)),
        _ => run(loaded),
    }
}

fn configuration_path(given: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = given {
        return Ok(path.to_path_buf());
    }
    let defaults = ["plugins.toml", "/etc/topnext/plugins.toml"];
    let found = defaults.iter().map(PathBuf::from).find(|path| path.exists());
    found
        .ok_or_else(|| format!("topnext: there is no {}; name a configuration with -c FILE", defaults.join(" and no ")))
}

/// Where relative paths start, absolute: `-p`, else the folder of the configuration.
fn prefix(given: Option<&Path>, config: &Path) -> Result<PathBuf, String> {
    let folder = given.or(config.parent()).filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    folder.canonicalize().map_err(|error| format!("topnext: prefix {} ({})", folder.display(), ErrorText(&error)))
}

fn dump(loaded: &Loaded) -> Result<(), String> {
    let mut text = String::new();
    for file in 0..loaded.files.len() {
        let name = loaded.files.name(file as u16);
        let content =
            std::fs::read_to_string(name).map_err(|error| format!("topnext: {name} ({})", ErrorText(&error)))?;
        let _ = writeln!(text, "# configuration file {name}:\n{content}");
    }
    print(&text)
}

fn run(loaded: Loaded) -> Result<(), String> {
    let Loaded { site, places, warnings, .. } = loaded;
    error::open(site.error_log.clone(), places.iter().map(|place| &place.error_log));
    log::start();
    drop(places);
    if site.main.error_log.iter().any(|log| log.path != "stderr") {
        // Standard error has them already, and may not be kept.
        warnings.to_string().lines().for_each(|warning| log_line!(Level::Warn, "{warning}"));
    }
    worker::run(site, greet).map_err(|error| format!("topnext: {}", error.replace('\n', "\ntopnext: ")))
}

/// Says where to look, and what was loaded.
fn greet(site: &Site) {
    let threads = if site.threads == 1 { "1 thread".to_string() } else { format!("{} threads", site.threads) };
    let mut text = format!("topnext {VERSION} is ready, pid {}, {threads}\n", std::process::id());
    for address in &site.addresses {
        let _ = match &address.address {
            Listen::Tcp(address) => writeln!(text, "  http://{address}/"),
            // As proxy.pass would name it.
            unix => writeln!(text, "  http://{unix}:/"),
        };
    }
    let modules: Vec<String> =
        site.modules.iter().map(|module| format!("{} {}", module.name, module.description.version)).collect();
    let _ = writeln!(text, "  modules: {}", if modules.is_empty() { "none".to_string() } else { modules.join(", ") });
    // At once, so that whoever reads it does not see a part.
    eprint!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Arguments, String> {
        parse(lexopt::Parser::from_args(words)).map_err(|error| error.to_string())
    }

    #[test]
    fn nginx_options_and_commands() {
        let test = parsed(&["-t", "-c", "a.toml", "-p", "/x"]).expect("valid");
        assert_eq!(test.command, Command::Test);
        assert_eq!((test.config, test.prefix), (Some("a.toml".into()), Some("/x".into())));
        assert_eq!(parsed(&["inspect", "x.so"]).expect("valid").command, Command::Inspect("x.so".into()));
        assert_eq!(parsed(&["-c", "a", "modules"]).expect("valid").command, Command::Modules);
        assert!(parsed(&["-x"]).is_err());
        assert!(parsed(&["inspect"]).is_err());
        assert!(parsed(&["moduls"]).is_err());
    }
}
