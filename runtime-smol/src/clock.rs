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

    /// Converts `moment` to the time of the operating system.
    pub(crate) fn system_instant(self, moment: Instant) -> SystemInstant {
        self.start + Duration::from_micros(moment.as_micros())
    }
}
