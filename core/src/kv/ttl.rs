//! Time to live (TTL), and log time: the clock by which keys expire.
//!
//! The naive way stores with each key the wall-clock time at which it expires. Then a key expires
//! early when the clock of a machine is set forward, and nodes disagree about which keys exist. So
//! no wall clock decides here. *Log time* counts microseconds, is written into the log by leaders
//! ([`Tick`]), and only grows. Between two ticks, it advances by each node's monotonic clock.
//! `expiry` says how keys expire by it.

use std::num::NonZeroU64;
use std::time::Duration;

use super::revision::Revision;
use super::text::{Key, push};
use crate::time::micros;

/// The longest time to live, in milliseconds: about ten years.
pub const TTL_MS_MAX: u64 = 315_360_000_000;
/// The most keys that expire by one entry of the log.
pub const TICK_KEYS_MAX: usize = 1000;
/// The latest log time, in microseconds: about 285 years, and the last number that no JSON library
/// rounds.
const LOG_TIME_MAX: u64 = 1 << 53;

/// A time to live: 1 to [`TTL_MS_MAX`] milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(NonZeroU64);

impl Ttl {
    /// A time to live of `ms` milliseconds; `None` if that is 0 or more than [`TTL_MS_MAX`].
    #[must_use]
    pub fn from_ms(ms: u64) -> Option<Self> {
        NonZeroU64::new(ms).filter(|ms| ms.get() <= TTL_MS_MAX).map(Self)
    }

    /// The milliseconds.
    #[must_use]
    pub fn ms(self) -> u64 {
        self.0.get()
    }

    /// The time as a duration.
    pub(super) fn duration(self) -> Duration {
        Duration::from_millis(self.ms())
    }

    /// The time that is left, at least one millisecond: the key exists until its entry is applied.
    pub(super) fn left(left: Duration) -> Self {
        let ms = u64::try_from(left.as_millis()).unwrap_or(TTL_MS_MAX).clamp(1, TTL_MS_MAX);
        Self(NonZeroU64::new(ms).unwrap_or(NonZeroU64::MIN))
    }
}

/// Log time: microseconds, from an arbitrary start, that only grow along the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogTime(pub u64);

impl LogTime {
    /// Returns whether this is a time that a log can reach.
    pub(super) fn is_plausible(self) -> bool {
        self.0 <= LOG_TIME_MAX
    }

    /// The time `later` after this one.
    pub(crate) fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(micros(later)).min(LOG_TIME_MAX))
    }

    /// The time from `earlier` to this one; zero if `earlier` is later.
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Appends a time to live, if there is one, as a member of an object.
pub(super) fn push_ttl(line: &mut String, ttl: Option<Ttl>) {
    if let Some(ttl) = ttl {
        push(line, format_args!(",\"ttl_ms\":{}", ttl.ms()));
    }
}

/// The entry by which keys expire. Only a leader proposes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// The leader's log time.
    pub time: LogTime,
    /// The last entry that the leader had applied. Everything up to it was committed at `time` or
    /// before.
    pub applied: Revision,
    /// The keys that expire, in the order of their time: at most [`TICK_KEYS_MAX`]. A key whose
    /// time to live was set, or taken away, by an entry after `applied` does not expire.
    pub expired: Vec<Key>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_has_limits() {
        assert_eq!(Ttl::from_ms(0), None);
        assert_eq!(Ttl::from_ms(TTL_MS_MAX + 1), None);
        assert_eq!(Ttl::from_ms(TTL_MS_MAX).map(Ttl::ms), Some(TTL_MS_MAX));
        assert_eq!(Ttl::left(Duration::ZERO).ms(), 1);
        assert_eq!(Ttl::left(Duration::MAX).ms(), TTL_MS_MAX);
    }

    #[test]
    fn log_time_saturates() {
        let end = LogTime(0).after(Duration::MAX);
        assert!(end.is_plausible() && !LogTime(end.0 + 1).is_plausible());
        assert_eq!(LogTime(5).since(LogTime(7)), Duration::ZERO);
        assert_eq!(LogTime(5).after(Duration::from_micros(2)), LogTime(7));
    }
}
