//! Expiry: no key goes before its time to live has passed since the commit, by true time, except
//! for the speed of the fastest clock; and once the cluster is healthy, no key stays much longer.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_core::raft::LogIndex;

use super::linearizability::Model;
use super::{Verdict, require};
use crate::reference::{EntryText, Expiry as TimeToLive};

/// How much longer a key may stay on a healthy cluster: until keys are dated, and some ticks.
const LATE_MAX: Duration = Duration::from_secs(3);
/// The rounding of clocks and of their sum, in microseconds.
const ROUNDING: u64 = 50;

/// When entries were committed that set a time to live.
#[derive(Debug)]
pub(super) struct Expiry {
    /// True time in microseconds, by the index of the entry.
    committed_at: BTreeMap<u64, u64>,
    /// The speeds of the slowest and the fastest clock, in thousandths.
    rates: (u64, u64),
}

impl Default for Expiry {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Expiry {
    /// Creates the property for a cluster with clocks of these speeds.
    pub(super) fn new(rates: &[u64]) -> Self {
        let slowest = rates.iter().min().copied().unwrap_or(1000);
        let fastest = rates.iter().max().copied().unwrap_or(1000);
        Self { committed_at: BTreeMap::new(), rates: (slowest, fastest) }
    }

    /// Checks an entry that was committed at `now`, before the model executes it.
    pub(super) fn committed(&mut self, index: LogIndex, payload: &str, now: u64, model: &Model) -> Verdict {
        let object = ["{", payload, "}"].concat();
        let entry = EntryText::parse(&object);
        if payload.contains("\"ttl_ms\":") {
            self.committed_at.insert(index.0, now);
        }
        for (key, expiry) in entry.expires(model.map()) {
            let (since, due) = self.due(expiry, self.rates.1);
            require(now + ROUNDING >= due, "expiry", || {
                format!("{key} expires by {index} at {now}, {expiry:?} was committed at {since}")
            })?;
        }
        Ok(())
    }

    /// When the time to live was committed, and when it has passed by a clock of this speed.
    fn due(&self, expiry: TimeToLive, rate: u64) -> (u64, u64) {
        let since = expiry.since.and_then(|since| self.committed_at.get(&since)).copied().unwrap_or_default();
        (since, since + expiry.ttl_ms * 1_000_000 / rate)
    }

    /// Checks that no key is overdue at `now`, on a cluster that has been healthy since
    /// `healthy_at`. A restart before that may have begun the time to live again.
    pub(super) fn check_at_rest(&self, now: u64, healthy_at: u64, model: &Model) -> Verdict {
        for (key, expiry) in model.map().expiring() {
            let (since, due) = self.due(expiry, self.rates.0);
            let last =
                due + healthy_at.saturating_sub(since) + u64::try_from(LATE_MAX.as_micros()).unwrap_or(0);
            require(now <= last, "expiry", || {
                format!("{key} is still there at {now}, {expiry:?} was committed at {since}")
            })?;
        }
        Ok(())
    }
}
