//! Unavailability after a leader's death: the time from its end to the first acknowledgement of a
//! write that was sent after it. Writes that were in flight at that time do not count, because the
//! remaining nodes may acknowledge them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The acknowledged writes, and the deaths of leaders.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// When each was sent and when it returned, in nanoseconds of the run.
    acknowledged: Mutex<Vec<(u64, u64)>>,
    deaths: Mutex<Vec<u64>>,
}

/// The gaps of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GapSummary {
    /// The number of deaths that were followed by an acknowledgement.
    pub count: usize,
    /// The median.
    pub p50: Duration,
    /// The 99th percentile.
    pub p99: Duration,
    /// The maximum.
    pub max: Duration,
}

impl Gaps {
    pub(super) fn acknowledge(&self, sent: u64, returned: u64) {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push((sent, returned));
    }

    pub(super) fn leader_died(&self, at: u64) {
        self.deaths.lock().unwrap_or_else(PoisonError::into_inner).push(at);
    }

    pub(super) fn summary(&self) -> GapSummary {
        let mut writes = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        writes.sort_unstable();
        // Replace each return by the earliest return of this write and all that were sent after it.
        let mut earliest = u64::MAX;
        for (_, returned) in writes.iter_mut().rev() {
            earliest = earliest.min(*returned);
            *returned = earliest;
        }
        let deaths = self.deaths.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let gap = |death: &u64| {
            let first = writes.partition_point(|(sent, _)| sent < death);
            writes.get(first).map(|(_, returned)| returned - death)
        };
        let mut gaps: Vec<u64> = deaths.iter().filter_map(gap).collect();
        gaps.sort_unstable();
        let Some(last) = gaps.len().checked_sub(1) else { return GapSummary::default() };
        let at = |per_cent: usize| Duration::from_nanos(gaps[(gaps.len() * per_cent / 100).min(last)]);
        GapSummary { count: gaps.len(), p50: at(50), p99: at(99), max: at(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_ends_with_the_first_answer_to_a_later_write() {
        let gaps = Gaps::default();
        gaps.leader_died(100);
        gaps.leader_died(1000);
        // One write in flight at the first death, then one that waits long, and one that is
        // quicker.
        for (sent, returned) in [(90, 101), (110, 600), (300, 450), (1200, 1300)] {
            gaps.acknowledge(sent, returned);
        }
        let summary = gaps.summary();
        assert_eq!((summary.count, summary.p50.as_nanos(), summary.max.as_nanos()), (2, 350, 350));
    }

    #[test]
    fn without_a_death_there_is_no_gap() {
        assert_eq!(Gaps::default().summary(), GapSummary::default());
    }
}
