//! The clock of the runtime: the only file that reads the time.

use std::time::{Duration, Instant as SystemInstant};

use coracle_core::Instant;

/// A monotonic clock that starts at zero with the cluster. All parts of a cluster share it.
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

    /// Returns the time until `moment`; zero when it has passed.
    pub(crate) fn until(self, moment: Instant) -> Duration {
        moment.since(self.now())
    }
}
