//! The fingerprints of forgotten clients, by which a write of such a client is rejected and not
//! applied a second time.
//!
//! A fingerprint cannot be kept forever. The naive way keeps a number of them: then a flood of
//! other names pushes a fingerprint out within seconds, and a client that retries its write is
//! taken for a new one. So a fingerprint is kept for a *time*: at least
//! [`SessionLimits::kept_for`](super::SessionLimits::kept_for) after the client was forgotten, in
//! log time, on which all nodes agree. While there is no room for more, new clients are rejected.
//!
//! Log time advances by ticks, and a tick *marks* fingerprints: they were forgotten at this log
//! time or before. So a mark is a time and a position in the queue, and a fingerprint is stored
//! without a time. A tick may be committed long after it was proposed, together with writes that
//! were proposed before it. So it marks only the fingerprints that were there at the tick before,
//! which its leader had applied. While more than half of the room is in use, leaders propose ticks
//! for this purpose ([`SessionTable::next_tick_after`](super::SessionTable::next_tick_after)).

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::kv::ttl::LogTime;
use crate::mutant::{self, Mutant};

/// The number of marks in the time for which a fingerprint is kept. Arbitrary: one is kept longer
/// by at most this part of the time.
pub(super) const MARKS_PER_TIME: u32 = 60;
/// The most fingerprints that one tick removes: about a millisecond.
const REMOVED_PER_TICK_MAX: usize = 10_000;

/// The fingerprints, in the order in which their clients were forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Forgotten {
    queue: VecDeque<u64>,
    /// The same fingerprints, for look-ups.
    set: BTreeSet<u64>,
    marks: VecDeque<Mark>,
    /// How many of the fingerprints were there at the last tick.
    at_tick: usize,
}

/// The first `len` fingerprints were forgotten at this time or before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) time: LogTime,
    pub(super) len: usize,
}

impl Forgotten {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn contains(&self, fingerprint: u64) -> bool {
        self.set.contains(&fingerprint)
    }

    /// Adds a fingerprint. Returns whether it was not there.
    pub(super) fn add(&mut self, fingerprint: u64) -> bool {
        let is_new = self.set.insert(fingerprint);
        if is_new {
            self.queue.push_back(fingerprint);
        }
        is_new
    }

    /// Adds a mark, if it is a possible next one.
    fn add_mark(&mut self, mark: Mark) -> bool {
        let is_next = self.marks.back().is_none_or(|last| last.len < mark.len && last.time < mark.time);
        let is_possible = is_next && (1..=self.queue.len()).contains(&mark.len);
        if is_possible {
            self.marks.push_back(mark);
        }
        is_possible
    }

    /// Sets the marks, and how many fingerprints were there at the last tick. Returns whether that
    /// is possible.
    pub(super) fn restore_marks(&mut self, marks: &[Mark], at_tick: usize) -> bool {
        self.at_tick = at_tick;
        at_tick <= self.queue.len()
            && marks.iter().all(|mark| self.add_mark(*mark))
            && marks.last().is_none_or(|last| last.len <= at_tick)
    }

    /// Marks fingerprints at this log time, and removes those that have been kept for long enough
    /// until `len_max` are left. `is_settled`: the leader had applied the tick before.
    pub(super) fn ticked(&mut self, time: LogTime, is_settled: bool, kept_for: Duration, len_max: usize) {
        let interval = kept_for / MARKS_PER_TIME;
        let is_due = self.marks.back().is_none_or(|last| time >= last.time.after(interval));
        if is_due && is_settled {
            self.add_mark(Mark { time, len: unsettled_by_mutant(self.queue.len()).unwrap_or(self.at_tick) });
        }
        let kept_for = shorter_by_mutant(kept_for);
        let is_old = |mark: &Mark| time.since(mark.time) >= kept_for;
        let old = self.marks.iter().take_while(|mark| is_old(mark)).last().map_or(0, |mark| mark.len);
        let excess = self.queue.len().saturating_sub(len_max);
        self.remove(old.min(excess).min(REMOVED_PER_TICK_MAX));
        // Of several old marks, the last one says everything.
        while self.marks.get(1).is_some_and(is_old) {
            self.marks.pop_front();
        }
        self.at_tick = self.queue.len();
    }

    /// Removes the first `count` fingerprints, or all.
    pub(super) fn remove(&mut self, count: usize) {
        for fingerprint in self.queue.drain(..count.min(self.queue.len())) {
            self.set.remove(&fingerprint);
        }
        for mark in &mut self.marks {
            mark.len = mark.len.saturating_sub(count);
        }
        self.at_tick = self.at_tick.saturating_sub(count);
        while self.marks.front().is_some_and(|mark| mark.len == 0) {
            self.marks.pop_front();
        }
    }

    pub(super) fn fingerprints(&self) -> &VecDeque<u64> {
        &self.queue
    }

    pub(super) fn marks(&self) -> &VecDeque<Mark> {
        &self.marks
    }

    pub(super) fn at_tick(&self) -> usize {
        self.at_tick
    }
}

/// Deliberate bug: a tick marks all fingerprints that are there, not only those that were there at
/// the tick before.
fn unsettled_by_mutant(len: usize) -> Option<usize> {
    mutant::is_active(Mutant::UnsettledMarked).then_some(len)
}

/// Deliberate bug: fingerprints are removed before their time.
fn shorter_by_mutant(kept_for: Duration) -> Duration {
    if mutant::is_active(Mutant::FingerprintsRemovedEarly) { kept_for / 8 } else { kept_for }
}
