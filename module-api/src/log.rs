//! Logging into the host's error log, with nginx's eight levels.

/// A level of the error log (nginx: error_log). Lower is graver.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Level {
    /// The system is unusable.
    Emerg = 1,
    /// Somebody must act at once.
    Alert = 2,
    /// A critical condition.
    Crit = 3,
    /// Something failed.
    Error = 4,
    /// Something is odd.
    Warn = 5,
    /// Normal, but worth a note.
    Notice = 6,
    /// For information.
    Info = 7,
    /// For debugging.
    Debug = 8,
}

impl Level {
    /// The level of this number; the nearest one if there is none.
    pub const fn from_number(number: u32) -> Level {
        match number {
            0 | 1 => Level::Emerg,
            2 => Level::Alert,
            3 => Level::Crit,
            4 => Level::Error,
            5 => Level::Warn,
            6 => Level::Notice,
            7 => Level::Info,
            _ => Level::Debug,
        }
    }

    /// Its name in the log and in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Emerg => "emerg",
            Level::Alert => "alert",
            Level::Crit => "crit",
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Notice => "notice",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

/// Logs a line about a request: `log!(r, Level::Warn, "no peer for {name}")`. The host adds the module's name.
///
/// Nothing is formatted if the level is not logged.
#[macro_export]
macro_rules! log {
    ($r:expr, $level:expr, $($text:tt)+) => {
        if $r.logs($level) {
            $r.log($level, ::core::format_args!($($text)+));
        }
    };
}
