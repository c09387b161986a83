//! Waits for a channel or for a time, whichever comes first.

use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError};

use coracle_core::Instant;

use crate::clock::Clock;

/// The next item of `channel`, or `None` once `deadline` has passed.
///
/// # Errors
///
/// When the channel is empty and all its senders are gone.
pub(crate) fn receive<T>(
    channel: &Receiver<T>,
    deadline: Option<Instant>,
    clock: Clock,
) -> Result<Option<T>, RecvError> {
    let Some(deadline) = deadline else { return channel.recv().map(Some) };
    if let Ok(item) = channel.try_recv() {
        return Ok(Some(item));
    }
    match channel.recv_timeout(clock.until(deadline)) {
        Ok(item) => Ok(Some(item)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err(RecvError),
    }
}
