//! Timed receive: waits for an item in a channel or for a deadline, whichever comes first.

use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError};

use coracle_core::Instant;

use crate::clock::Clock;

/// Returns the next item of `channel`, `None` once `deadline` has passed, or an error when the
/// channel is empty and all its senders are gone.
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    const BRIEF: Duration = Duration::from_millis(3);
    const NEVER: Duration = Duration::from_secs(60);

    #[test]
    fn a_pause_over_two_deadlines_does_not_end_the_wait() {
        let (sender, receiver) = channel();
        let clock = Clock::start();
        let first = clock.now() + BRIEF;
        sender.send(1).unwrap();
        assert_eq!(receive(&receiver, Some(first), clock), Ok(Some(1)));
        std::thread::sleep(3 * BRIEF);
        assert_eq!(receive(&receiver, Some(first + BRIEF), clock), Ok(None));
        assert_eq!(receive(&receiver, Some(clock.now() + BRIEF), clock), Ok(None));
        assert!(clock.now() >= first + 2 * BRIEF);
    }

    #[test]
    fn an_item_before_the_deadline_comes_at_once_and_the_deadline_after_it() {
        let (sender, receiver) = channel();
        let clock = Clock::start();
        sender.send(1).unwrap();
        assert_eq!(receive(&receiver, Some(clock.now() + NEVER), clock), Ok(Some(1)));
        let deadline = clock.now() + BRIEF;
        assert_eq!(receive(&receiver, Some(deadline), clock), Ok(None));
        assert!(clock.now() + Duration::from_micros(1) >= deadline, "not before its time");
        sender.send(2).unwrap();
        assert_eq!(receive(&receiver, Some(clock.now()), clock), Ok(Some(2)), "items come first");
    }

    #[test]
    fn a_channel_without_senders_ends_the_wait() {
        let (sender, receiver) = channel::<u32>();
        drop(sender);
        assert_eq!(receive(&receiver, None, Clock::start()), Err(RecvError));
    }
}
