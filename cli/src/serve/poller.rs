//! Checks that the operating system lets this process wait for sockets and timers.
//!
//! The smol executor needs an epoll instance. The library that creates it panics when the operating
//! system refuses, for instance because too many files are open on the machine. So the server
//! creates one itself first, and a refusal becomes an error message.

use std::io;

use thiserror::Error;

use super::options::Runtime;

/// The error for an operating system that refuses an epoll instance.
#[derive(Debug, Error)]
#[error(
    "this process cannot wait for sockets and timers: {0}. Is there a limit of open files, or of memory?"
)]
pub(crate) struct NoPoller(#[from] io::Error);

/// Creates the same kind of poller as the executor, and drops it.
///
/// # Errors
///
/// [`NoPoller`] if the operating system refuses.
pub(crate) fn check(runtime: Runtime) -> Result<(), NoPoller> {
    match runtime {
        Runtime::Smol => Ok(polling::Poller::new().map(drop)?),
        Runtime::Threads => Ok(()),
    }
}
