//! Whether the operating system lets this process wait for sockets and timers.
//!
//! The executor of the smol runtime needs an epoll instance, and the library that makes it panics where there is none to be had: all
//! files of the machine are open, or the kernel has no memory for it. So the same is asked for once before, where it can be told.

use std::io;

use thiserror::Error;

use super::options::Runtime;

/// There is nothing to wait with.
#[derive(Debug, Error)]
#[error(
    "the operating system does not let this process wait for sockets and timers: {0}. Is there a limit of open files, or of memory?"
)]
pub(crate) struct NoPoller(#[from] io::Error);

/// Makes what the executor is going to make, and drops it.
///
/// # Errors
///
/// [`NoPoller`].
pub(crate) fn check(runtime: Runtime) -> Result<(), NoPoller> {
    match runtime {
        Runtime::Smol => Ok(polling::Poller::new().map(drop)?),
        Runtime::Threads => Ok(()),
    }
}
