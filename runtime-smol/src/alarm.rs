//! Waits for a channel or for a time, whichever comes first.

use std::time::{Duration, Instant as SystemInstant};

use async_channel::{Receiver, RecvError};
use coracle_core::Instant;
use futures_lite::future;
use smol::Timer;

use crate::clock::Clock;

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

    /// The next item of `channel`, or `None` once `deadline` has passed.
    ///
    /// # Errors
    ///
    /// When the channel is empty and all its senders are gone.
    pub(crate) async fn receive<T>(
        &mut self,
        channel: &Receiver<T>,
        deadline: Option<Instant>,
    ) -> Result<Option<T>, RecvError> {
        if let Ok(item) = channel.try_recv() {
            return Ok(Some(item));
        }
        let Some(deadline) = deadline else { return channel.recv().await.map(Some) };
        let deadline = self.clock.system_instant(deadline);
        let receive = async { channel.recv().await.map(Some) };
        let wait = async {
            self.wait_until(deadline).await;
            Ok(None)
        };
        future::or(receive, wait).await
    }

    async fn wait_until(&mut self, deadline: SystemInstant) {
        if deadline < self.set_to {
            self.set(deadline);
        }
        while SystemInstant::now() < deadline {
            if self.set_to <= SystemInstant::now() {
                self.set(deadline);
            }
            (&mut self.timer).await;
        }
    }

    fn set(&mut self, to: SystemInstant) {
        // Timers have the operating system's grain; a moment later costs nothing, a moment too early a turn.
        self.set_to = to + Duration::from_micros(1);
        self.timer.set_at(self.set_to);
    }
}
