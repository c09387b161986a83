//! The only place that reads a clock.

use std::time::{Duration, Instant as SystemInstant};

use coracle_core::Instant;

/// A monotonic clock that starts when the cluster does. All parts of a cluster share one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: SystemInstant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: SystemInstant::now() }
    }

    pub(crate) fn now(self) -> Instant {
        Instant::from_micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// How long until `moment`; zero when it has passed.
    pub(crate) fn until(self, moment: Instant) -> Duration {
        moment.since(self.now())
    }
}
