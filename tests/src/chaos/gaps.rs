//! How long clients wait after a leader's death: from its end to the first acknowledgement of a
//! write that was sent after it. What was under way at the time may be acknowledged by whoever is
//! left, and does not count.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Writes that were acknowledged, and leaders that died.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// Sent and returned, in nanoseconds of the run.
    acknowledged: Mutex<Vec<(u64, u64)>>,
    deaths: Mutex<Vec<u64>>,
}

/// The gaps of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GapSummary {
    /// How many deaths were followed by an acknowledgement.
    pub count: usize,
    /// Half of them were no longer than this.
    pub p50: Duration,
    /// 99 of a hundred.
    pub p99: Duration,
    /// All of them.
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
        // The earliest return among a write and all that were sent after it.
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
        // Under way at the first death; then one that waits long, and one that is quicker.
        for (sent, returned) in [(90, 101), (110, 600), (300, 450), (1200, 1300)] {
            gaps.acknowledge(sent, returned);
        }
        let summary = gaps.summary();
        assert_eq!((summary.count, summary.p50.as_nanos(), summary.max.as_nanos()), (2, 350, 350));
    }

    #[test]
    fn no_death_no_gap() {
        assert_eq!(Gaps::default().summary(), GapSummary::default());
    }
}
