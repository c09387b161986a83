//! Waits for a channel or for a time, whichever comes first.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant as SystemInstant};

use coracle_core::Instant;
use smol::Timer;

use crate::clock::Clock;
use crate::mailbox::{Closed, Receiver};

/// A timer that is set anew as rarely as possible.
///
/// Deadlines move back all the time (every heartbeat moves an election's), and setting a timer costs more than the
/// rest of a turn. So the timer may go off too early, and is only then set to the deadline of that moment.
#[derive(Debug)]
pub(crate) struct Alarm {
    clock: Clock,
    timer: Timer,
    set_to: SystemInstant,
}

impl Alarm {
    pub(crate) fn new(clock: Clock) -> Self {
        let set_to = SystemInstant::now();
        Self { clock, timer: Timer::at(set_to), set_to }
    }

    /// The next item of `mailbox`, or `None` once `deadline` has passed.
    ///
    /// # Errors
    ///
    /// When the mailbox is empty and all its senders are gone.
    pub(crate) async fn receive<T>(
        &mut self,
        mailbox: &Receiver<T>,
        deadline: Option<Instant>,
    ) -> Result<Option<T>, Closed> {
        if let Some(item) = mailbox.take() {
            return Ok(Some(item));
        }
        let deadline = deadline.map(|deadline| self.clock.system_instant(deadline));
        poll_fn(|context| match (mailbox.poll(context), deadline) {
            (Poll::Ready(received), _) => Poll::Ready(received.map(Some)),
            (Poll::Pending, None) => Poll::Pending,
            (Poll::Pending, Some(deadline)) => self.poll_deadline(deadline, context).map(|()| Ok(None)),
        })
        .await
    }

    fn poll_deadline(&mut self, deadline: SystemInstant, context: &mut Context<'_>) -> Poll<()> {
        if deadline < self.set_to {
            if SystemInstant::now() >= deadline {
                return Poll::Ready(());
            }
            self.set(deadline);
        }
        while Pin::new(&mut self.timer).poll(context).is_ready() {
            if SystemInstant::now() >= deadline {
                return Poll::Ready(());
            }
            self.set(deadline);
        }
        Poll::Pending
    }

    fn set(&mut self, to: SystemInstant) {
        // Timers have the operating system's grain; a moment later costs nothing, a moment too early a turn.
        self.set_to = to + Duration::from_micros(1);
        self.timer.set_at(self.set_to);
    }
}
