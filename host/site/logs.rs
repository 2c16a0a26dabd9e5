//! The logs of places, made of what the configuration says: files are opened, formats and conditions compiled. Places that
//! inherit their logs share them.

use std::{path::Path, sync::Arc};

use crate::{
    config::{self, Diagnostics, LogLevel, Origin, diagnostic::did_you_mean},
    error_text::ErrorText,
    log::{
        Buffering, Sink,
        access::AccessLog,
        error::{ErrorLog, Level},
        format::{COMBINED, Format},
    },
    template,
    variables::Added,
};

/// The largest buffer of an access log.
const MAX_BUFFER: u64 = 64 * 1024 * 1024;

/// Makes logs.
pub struct Logs<'a> {
    prefix: &'a Path,
    added: Added,
    formats: Vec<(&'a str, Arc<Format>)>,
    /// Those that have been made, with what they were made of.
    access: Vec<(&'a [config::AccessLog], Arc<[AccessLog]>)>,
    error: Vec<(&'a [config::ErrorLog], Arc<ErrorLog>)>,
}

impl<'a> Logs<'a> {
    /// Compiles the formats.
    pub fn new(prefix: &'a Path, added: Added, formats: &'a [config::LogFormat], errors: &mut Diagnostics) -> Logs<'a> {
        let mut compiled = vec![(COMBINED, Arc::new(Format::combined()))];
        for format in formats {
            let key = format!("http.log_format.{}", format.name);
            if format.name == COMBINED {
                errors.push(format.origin, key, "this format is there already, and cannot be another");
                continue;
            }
            match Format::compile(&format.text, format.escape, &added) {
                Ok(made) => compiled.push((&format.name, Arc::new(made))),
                Err(text) => {
                    errors.push(format.origin, key, text);
                    // So that who uses it is not told that there is none.
                    compiled.push((&format.name, Arc::new(Format::combined())));
                }
            }
        }
        Logs { prefix, added, formats: compiled, access: Vec::new(), error: Vec::new() }
    }

    /// The logs of errors that these are.
    pub fn error(
        &mut self,
        conf: &'a [config::ErrorLog],
        errors: &mut Diagnostics,
        missing: &mut Diagnostics,
    ) -> Arc<ErrorLog> {
        if let Some((_, known)) = self.error.iter().find(|(known, _)| *known == conf) {
            return known.clone();
        }
        let mut outputs = Vec::new();
        for log in conf {
            let sink = match log.path.as_str() {
                "stderr" => Some(Sink::stderr()),
                "off" => {
                    let text = "found \"off\", which is not a log; \"/dev/null\" is one that keeps nothing";
                    errors.push(log.origin, "error_log", text);
                    None
                }
                path => self.file("error_log", path, log.origin, errors, missing),
            };
            outputs.extend(sink.map(|sink| (sink, Level::from(log.level))));
        }
        if conf.is_empty() {
            errors.push(Origin::whole_file(0), "error_log", "found an empty list, expected at least one log");
        }
        let made = Arc::new(ErrorLog::new(outputs));
        self.error.push((conf, made.clone()));
        made
    }

    /// The access logs that these are.
    pub fn access(
        &mut self,
        conf: &'a [config::AccessLog],
        errors: &mut Diagnostics,
        missing: &mut Diagnostics,
    ) -> Arc<[AccessLog]> {
        if let Some((_, known)) = self.access.iter().find(|(known, _)| *known == conf) {
            return known.clone();
        }
        let made: Arc<[AccessLog]> = conf.iter().filter_map(|log| self.access_log(log, errors, missing)).collect();
        self.access.push((conf, made.clone()));
        made
    }

    fn access_log(
        &self,
        log: &config::AccessLog,
        errors: &mut Diagnostics,
        missing: &mut Diagnostics,
    ) -> Option<AccessLog> {
        let format = self.format(log, errors);
        let condition = log.condition.as_deref().and_then(|text| match template::parse(text, &self.added) {
            Ok(parts) => Some(parts),
            Err(text) => {
                errors.push(log.origin_of("if"), "access_log.if", text);
                None
            }
        });
        let sink = match log.path.as_str() {
            "stdout" => Sink::stdout(),
            "off" => {
                errors.push(log.origin, "access_log", "found \"off\", which cannot stand beside other logs");
                return None;
            }
            path => self.file("access_log", path, log.origin, errors, missing)?,
        };
        self.buffer(log, &sink, errors);
        Some(AccessLog { sink, format: format?, condition })
    }

    fn format(&self, log: &config::AccessLog, errors: &mut Diagnostics) -> Option<Arc<Format>> {
        if let Some((_, format)) = self.formats.iter().find(|(name, _)| *name == log.format) {
            return Some(format.clone());
        }
        let known: Vec<&str> = self.formats.iter().map(|(name, _)| *name).collect();
        let advice = match did_you_mean(&log.format, known.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "add it to http.log_format".to_string(),
        };
        let text = format!("found {:?}, expected the name of a log_format: {}; {advice}", log.format, known.join(", "));
        errors.push(log.origin_of("format"), "access_log.format", text);
        None
    }

    fn buffer(&self, log: &config::AccessLog, sink: &Sink, errors: &mut Diagnostics) {
        let Some(size) = log.buffer else {
            if log.flush.is_some() {
                errors.push(log.origin_of("flush"), "access_log.flush", "there is no buffer to flush; add buffer");
            }
            return;
        };
        let origin = log.origin_of("buffer");
        if size == 0 || size > MAX_BUFFER {
            let text = format!("found {size} bytes, expected a size from 1 byte to 64m");
            return errors.push(origin, "access_log.buffer", text);
        }
        // Fits, since it is at most MAX_BUFFER.
        let buffering = Buffering { size: size as usize, flush: log.flush };
        if sink.set_buffering(buffering).is_err() {
            let text = format!("{:?} has another buffer or flush elsewhere; a log can have one", log.path);
            errors.push(origin, "access_log.buffer", text);
        }
    }

    /// What cannot be opened is missing, and opened when there is something to write, if it can be by then.
    fn file(
        &self,
        key: &str,
        path: &str,
        origin: Origin,
        errors: &mut Diagnostics,
        missing: &mut Diagnostics,
    ) -> Option<Arc<Sink>> {
        for other in ["syslog:", "memory:"] {
            if path.starts_with(other) {
                let text = format!("found {path:?}; \"{other}\" is not supported, expected a file");
                errors.push(origin, key, text);
                return None;
            }
        }
        if path.contains('$') {
            let text = format!(
                "found {path:?}; a path with variables is not supported, since requests could open any number of files; \
                 write a log for each server or location, or several with \"if\""
            );
            errors.push(origin, key, text);
            return None;
        }
        let path = self.prefix.join(path);
        Some(Sink::file(&path).unwrap_or_else(|error| {
            let text =
                format!("found {:?}, which cannot be opened for writing ({})", path.display(), ErrorText(&error));
            missing.push(origin, key, text);
            Sink::unopened(&path)
        }))
    }
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Level {
        match level {
            LogLevel::Debug => Level::Debug,
            LogLevel::Info => Level::Info,
            LogLevel::Notice => Level::Notice,
            LogLevel::Warn => Level::Warn,
            LogLevel::Error => Level::Error,
            LogLevel::Crit => Level::Crit,
            LogLevel::Alert => Level::Alert,
            LogLevel::Emerg => Level::Emerg,
        }
    }
}
