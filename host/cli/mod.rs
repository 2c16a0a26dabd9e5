//! The command line.

mod modules;

mod status;

use std::{
    ffi::{OsStr, OsString},
    fmt::{Display, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use lexopt::prelude::*;

use crate::{
    config::Document,
    error_text::ErrorText,
    log::{
        self,
        error::{self, Level},
        say,
    },
    log_line, plugins,
    process::{
        alone, control, greeting,
        master::{self, Options},
        pid_file,
        upgrade::{self, Beginning},
        worker,
    },
    site::{self, Loaded, Site, VERSION},
};

const HELP: &str = "\
Usage: topnext [-c FILE] [-p PREFIX] [-t | -T | -V]
       topnext [-c FILE] [-p PREFIX] -s reload|reopen|quit|stop
       topnext [-c FILE] [-p PREFIX] status [--json]
       topnext [-c FILE] [-p PREFIX] modules
       topnext inspect FILE.so

Commands:
  (none)         run, in the foreground unless the configuration says daemon = true
  status         show the workers of the server that runs with this prefix, and what their modules do
  modules        show the modules in the order in which a response meets them, and where each is active
  inspect FILE   show what a module says about itself, without running any of its code

Options:
  -c FILE        the configuration (default: plugins.toml in the PREFIX of -p, else here, else in /etc/topnext)
  -p PREFIX      where relative paths start (default: the folder of the configuration)
  -s SIGNAL      have the server that runs with this prefix reload its configuration, reopen its logs, quit when its
                 requests have ended, or stop at once; and wait for the outcome
  -t             test the configuration and exit
  -T             test the configuration, show it and exit
  -V             show version and build, and exit
  -v             show the version, and exit
  -h             show this help
";

/// What -s takes.
const SIGNALS: [&str; 4] = ["reload", "reopen", "quit", "stop"];

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Run,
    Test,
    Dump,
    Modules,
    /// One of [`SIGNALS`].
    Signal(&'static str),
    Status {
        json: bool,
    },
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

/// Runs the program with these arguments, the first of which is its name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    if std::env::var_os(worker::VARIABLE).is_some() {
        return worker::main();
    }
    let mut words = arguments.into_iter();
    let program = PathBuf::from(words.next().unwrap_or_default());
    let words: Vec<OsString> = words.collect();
    let arguments = match parse(lexopt::Parser::from_args(&words)) {
        Ok(arguments) => arguments,
        Err(error) => {
            say(&format!("topnext: {error}\n\n{HELP}\n"));
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
        Command::Signal(signal) => ask(&arguments, signal).and_then(|text| print(&text)),
        Command::Status { json } => status::show(&arguments, *json).and_then(|text| print(&text)),
        Command::Run => run(&arguments, program, words),
        Command::Test | Command::Dump | Command::Modules => with_configuration(&arguments),
    };
    log::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            say(&format!("{}\n", text.trim_end()));
            ExitCode::FAILURE
        }
    }
}

fn parse(mut parser: lexopt::Parser) -> Result<Arguments, lexopt::Error> {
    let mut arguments = Arguments { command: Command::Run, config: None, prefix: None };
    while let Some(argument) = parser.next()? {
        let command = match argument {
            Short('c') => {
                arguments.config = Some(parser.value()?.into());
                continue;
            }
            Short('p') => {
                arguments.prefix = Some(parser.value()?.into());
                continue;
            }
            Long("json") if matches!(arguments.command, Command::Status { .. }) => {
                arguments.command = Command::Status { json: true };
                continue;
            }
            Short('s') => Command::Signal(signal(&parser.value()?)?),
            Short('t') => Command::Test,
            Short('T') => Command::Dump,
            Short('v') => Command::Version,
            Short('V') | Long("version") => Command::Build,
            Short('h') | Short('?') | Long("help") => Command::Help,
            Value(word) if word == "modules" => Command::Modules,
            Value(word) if word == "status" => Command::Status { json: false },
            Value(word) if word == "inspect" => Command::Inspect(parser.value()?.into()),
            other => return Err(other.unexpected()),
        };
        arguments.command = match (arguments.command, command) {
            (Command::Run, command) => command,
            // As in nginx, -T tests too.
            (Command::Test | Command::Dump, Command::Dump) | (Command::Dump, Command::Test) => Command::Dump,
            (before, command) if before == command => command,
            _ => return Err("found two commands; give one at a time".into()),
        };
    }
    Ok(arguments)
}

fn signal(word: &OsStr) -> Result<&'static str, lexopt::Error> {
    let found = SIGNALS.into_iter().find(|signal| word == *signal);
    found.ok_or_else(|| format!("found -s {}, expected {}", word.display(), SIGNALS.join(", ")).into())
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
    let path = configuration_path(arguments)?;
    let prefix = prefix(arguments.prefix.as_deref(), &path)?;
    let loaded = load(&path, &prefix)?;
    if arguments.command != Command::Modules {
        check_pid(&loaded, &path, &prefix)?;
    }
    for warning in loaded.warnings.to_string().lines() {
        say(&format!("topnext: [warn] {warning}\n"));
    }
    match arguments.command {
        Command::Test => {
            let path = path.display();
            say(&format!(
                "topnext: the configuration file {path} syntax is ok\ntopnext: configuration file {path} test is successful\n"
            ));
            Ok(())
        }
        Command::Dump => dump(&loaded),
        _ => print(&modules::show(&loaded)),
    }
}

fn load(path: &Path, prefix: &Path) -> Result<Loaded, String> {
    site::load(path, prefix)
        .map_err(|report| format!("{report}topnext: configuration file {} test failed", path.display()))
}

/// What a start would find out.
fn check_pid(loaded: &Loaded, path: &Path, prefix: &Path) -> Result<(), String> {
    let main = &loaded.site.main;
    pid_file::check(&prefix.join(&main.pid), &log::files()).map_err(|error| {
        let place = loaded.files.place(main.origin_of("pid"));
        format!("{place}: pid: {error}\ntopnext: configuration file {} test failed", path.display())
    })
}

/// `-c`, else that of the prefix that is given (as in nginx), else the first of the defaults.
fn configuration_path(arguments: &Arguments) -> Result<PathBuf, String> {
    if let Some(path) = &arguments.config {
        return Ok(path.clone());
    }
    let of_prefix = arguments.prefix.iter().map(|prefix| prefix.join("plugins.toml"));
    let places: Vec<PathBuf> =
        of_prefix.chain(["plugins.toml", "/etc/topnext/plugins.toml"].map(PathBuf::from)).collect();
    places.iter().find(|path| path.exists()).cloned().ok_or_else(|| {
        let places: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
        format!("topnext: there is no {}; name a configuration with -c FILE", places.join(" and no "))
    })
}

/// Where relative paths start, absolute: `-p`, else the folder of the configuration.
fn prefix(given: Option<&Path>, config: &Path) -> Result<PathBuf, String> {
    let folder = given.or(config.parent()).filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    folder.canonicalize().map_err(|error| {
        let what = match given {
            Some(_) => "prefix".to_string(),
            None => format!("{}: the prefix would be its folder,", config.display()),
        };
        format!("topnext: {what} {} ({})", folder.display(), ErrorText(&error))
    })
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

/// The paths that a running server has to know.
fn options(arguments: &Arguments, program: &Path, words: Vec<OsString>) -> Result<Options, String> {
    let config = configuration_path(arguments)?;
    let prefix = prefix(arguments.prefix.as_deref(), &config)?;
    for path in [&config, &prefix] {
        if path.to_str().is_none() {
            return Err(format!("topnext: the path {} is not UTF-8; a server cannot run there", path.display()));
        }
    }
    // The configuration as it was written: that is how errors name it.
    Ok(Options { config, prefix, program: master::program(program), arguments: words })
}

fn run(arguments: &Arguments, program: PathBuf, words: Vec<OsString>) -> Result<(), String> {
    let options = options(arguments, &program, words)?;
    let beginning = Beginning::of_process().map_err(|error| format!("topnext: {error}"))?;
    // The two directives that come before everything else. Whether they are right, and all others, a worker says.
    let flag = |name: &str| {
        let document = Document::read(&options.config).ok()?;
        document.tree().get(name)?.as_bool()
    };
    if flag("master_process") == Some(false) {
        return run_alone(&options);
    }
    let is_daemon = flag("daemon") == Some(true);
    match beginning {
        Beginning::Foreground if is_daemon => upgrade::start_daemon(&options).map(|greeting| say(&greeting)),
        Beginning::Daemon(_) => {
            let entered = upgrade::enter_background();
            entered.map_err(|error| format!("topnext: cannot go into the background ({})", ErrorText(&error)))?;
            master::run(options, beginning)
        }
        beginning => master::run(options, beginning),
    }
}

fn run_alone(options: &Options) -> Result<(), String> {
    let Loaded { site, places, warnings, .. } = load(&options.config, &options.prefix)?;
    error::open(site.error_log.clone(), places.iter().map(|place| &place.error_log));
    log::start();
    drop(places);
    warnings.to_string().lines().for_each(|warning| log_line!(Level::Warn, "{warning}"));
    alone::run(site, greet).map_err(|error| format!("topnext: {}", error.replace('\n', "\ntopnext: ")))
}

fn greet(site: &Site) {
    let addresses = site.addresses.iter().map(|address| &address.address);
    let modules = site.modules.iter().map(|module| (&*module.name, &module.description.version as &dyn Display));
    // At once, so that whoever reads it does not see a part.
    say(&greeting::of("without a master", addresses, modules));
}

/// Asks the server that runs with this prefix. Its configuration need not be there, and may be broken.
fn ask(arguments: &Arguments, question: &str) -> Result<String, String> {
    let prefix = match (&arguments.prefix, &arguments.config) {
        (Some(given), _) => prefix(Some(given), Path::new(""))?,
        (None, Some(config)) => prefix(None, config)?,
        (None, None) => match configuration_path(arguments) {
            // The one here may be gone, and the server that has read it not.
            Ok(config) if !Path::new(control::NAME).exists() => prefix(None, &config)?,
            _ => prefix(None, Path::new(""))?,
        },
    };
    let otherwise = || without_socket(arguments.config.as_deref(), &prefix);
    let answer = control::ask(&prefix, question, otherwise).map_err(|error| format!("topnext: {error}"))?;
    if answer.ok { Ok(answer.text) } else { Err(answer.text) }
}

/// Why a server may run in this prefix that has no control socket, as far as its configuration can be read.
fn without_socket(config: Option<&Path>, prefix: &Path) -> Option<String> {
    let config = config.map_or_else(|| prefix.join("plugins.toml"), Path::to_path_buf);
    let document = Document::read(&config).ok();
    let value = |name: &str| document.as_ref().and_then(|document| document.tree().get(name));
    let pid = value("pid").and_then(|pid| pid.as_str()).unwrap_or("topnext.pid");
    let pid = prefix.join(pid);
    if let Some(process) = pid_file::holder(&pid) {
        return Some(format!(
            "the control socket {} is not there, but its server runs: process {process}, as {} says; `kill -HUP {process}` has it \
             make the socket again, and reload",
            prefix.join(control::NAME).display(),
            pid.display()
        ));
    }
    let is_alone = value("master_process").and_then(|value| value.as_bool()) == Some(false);
    is_alone.then(|| {
        format!(
            "{} says master_process = false: such a server has neither control socket nor pid file; send it signals",
            config.display()
        )
    })
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
