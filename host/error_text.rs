//! How errors of the system are written, in logs and in what the command line says.

use std::{fmt, io};

use topnext_module_api::file::OpenError;

/// An error of the system as nginx's log shows it: `13: Permission denied`.
pub struct ErrorText<'a>(pub &'a io::Error);

impl fmt::Display for ErrorText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.raw_os_error() {
            Some(number) => OpenError(number).fmt(f),
            None => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn errors_are_written_as_in_nginxs_log() {
        let error = io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        assert_eq!(ErrorText(&error).to_string(), "24: Too many open files");
        assert_eq!(ErrorText(&io::Error::other("why")).to_string(), "why");
    }
}
