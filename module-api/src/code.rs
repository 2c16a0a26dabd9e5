//! What a hook answers: nginx's return codes, or an HTTP status.

use std::fmt;

use abi_stable::StableAbi;

/// The answer of a handler or filter: one of nginx's codes, or an HTTP status (100 to 599).
///
/// A plain integer in the ABI, so that any answer of a module in any language has a meaning; one that has none counts as
/// [`Code::ERROR`].
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(i32);

impl Code {
    /// Done, and everything that was passed on has left.
    pub const OK: Code = Code(0);
    /// It failed. If the header is not sent yet the client gets a 500, else its connection is reset.
    pub const ERROR: Code = Code(-1);
    /// Accepted, but not finished: the hook is called again when what it waits for happens. Never send it again.
    pub const AGAIN: Code = Code(-2);
    /// The hook has taken the request over, or the body is complete; nothing follows by itself.
    pub const DONE: Code = Code(-4);
    /// Not mine: the next handler of the phase is asked.
    pub const DECLINED: Code = Code(-5);

    /// An HTTP status (100 to 599) as an answer. Any other number is [`Code::ERROR`].
    pub const fn status(status: u16) -> Code {
        if status >= 100 && status <= 599 { Code(status as i32) } else { Code::ERROR }
    }

    /// The HTTP status, if the answer is one (100 to 599).
    pub const fn as_status(self) -> Option<u16> {
        if self.0 >= 100 && self.0 <= 599 { Some(self.0 as u16) } else { None }
    }

    /// Whether it says that something is wrong here: Error, or a status from 500 on.
    pub const fn is_failure(self) -> bool {
        self.0 == Code::ERROR.0 || self.0 >= 500
    }

    /// The integer of the ABI.
    pub const fn raw(self) -> i32 {
        self.0
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Code::OK => f.write_str("Ok"),
            Code::ERROR => f.write_str("Error"),
            Code::AGAIN => f.write_str("Again"),
            Code::DONE => f.write_str("Done"),
            Code::DECLINED => f.write_str("Declined"),
            Code(other) => write!(f, "{other}"),
        }
    }
}
