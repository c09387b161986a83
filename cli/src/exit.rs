//! The exit codes, which scripts rely on. Which error leads to which code stands beside each error.

use std::process::ExitCode;

/// How the program ended, as its caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what it was asked to.
    Done = 0,
    /// The key is not there.
    NotFound = 1,
    /// The command line, a value or a key is wrong: trying again changes nothing.
    Usage = 2,
    /// No server could be reached.
    Unreachable = 3,
    /// No leader, or no outcome in time. For a write the outcome is unknown, unless no leader was
    /// known.
    NoOutcome = 4,
    /// A compare-and-swap found another value, or a session is no longer remembered.
    Precondition = 5,
    /// The server, its disk or a file failed.
    Failure = 6,
    /// Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
