//! The exit codes, on which scripts rely. Each error type maps its errors to these codes.

use std::process::ExitCode;

/// The exit code of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Success.
    Done = 0,
    /// The key does not exist.
    NotFound = 1,
    /// The command line, a value or a key is invalid: a retry changes nothing.
    Usage = 2,
    /// No server could be reached.
    Unreachable = 3,
    /// No leader, or no outcome in time. For a write the outcome is unknown, unless no leader was
    /// known.
    NoOutcome = 4,
    /// A compare-and-swap found another value, or a session has expired.
    Precondition = 5,
    /// The server, its disk or a file failed.
    Failure = 6,
    /// The client has not proven who it is, or is not allowed what it asks for; or the server has
    /// not proven who it is.
    Denied = 7,
    /// An interrupt, such as Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
