//! Ghost state of a node's disk: term, vote, snapshot and log points that are certainly durable.
//! The world keeps it, and no node sees it.
//!
//! A durable snapshot covers all entries up to its last one, whatever the log beside it holds,
//! because the entries that a snapshot covers are committed. So the snapshot and the log may be of
//! different moments, and a start combines them (see `recover/snapshot` of the storage).

use coracle_core::raft::{Compaction, Entries, HardState, LogIndex, LogPoint, Persist, Restored};

/// The durable state of a node's disk.
#[derive(Clone, Debug, Default)]
pub struct DurableState {
    /// Term and vote.
    pub hard_state: HardState,
    /// The last log point of the latest snapshot.
    pub snapshot: Option<LogPoint>,
    /// The point after which the log starts.
    pub log_start: LogPoint,
    /// The points of the log's entries, in order.
    pub log: Vec<LogPoint>,
}

impl DurableState {
    /// The state that a start has recovered.
    #[must_use]
    pub fn found(restored: &Restored) -> Self {
        Self {
            hard_state: restored.hard_state,
            snapshot: restored.snapshot.as_ref().map(|snapshot| snapshot.meta.last),
            log_start: restored.log_start,
            log: points(&restored.log),
        }
    }

    /// The last index of the latest snapshot; the origin without one.
    #[must_use]
    pub fn snapshot_index(&self) -> LogIndex {
        self.snapshot.map_or(LogIndex::ORIGIN, |last| last.index)
    }

    /// The log's point at `index`, including the point at which the log starts.
    #[must_use]
    pub fn point_at(&self, index: LogIndex) -> Option<LogPoint> {
        match usize::try_from(index.0.checked_sub(self.log_start.index.0)?).ok()?.checked_sub(1) {
            None => Some(self.log_start),
            Some(position) => self.log.get(position).copied(),
        }
    }

    /// Returns whether the log or the snapshot has an entry at `index`.
    #[must_use]
    pub fn reaches(&self, index: LogIndex) -> bool {
        index <= self.snapshot_index() || self.point_at(index).is_some()
    }

    /// Returns whether this entry is in the log or in the snapshot.
    #[must_use]
    pub fn holds(&self, point: LogPoint) -> bool {
        match self.snapshot {
            Some(last) if last.index == point.index => last == point,
            Some(last) if last.index > point.index => true,
            _ => self.point_at(point.index) == Some(point),
        }
    }

    /// The point at which the log would end after a start.
    #[must_use]
    pub fn end(&self) -> LogPoint {
        let agreeing = self.snapshot.filter(|last| self.point_at(last.index) != Some(*last));
        agreeing.unwrap_or_else(|| self.log.last().copied().unwrap_or(self.log_start))
    }

    /// Applies a persist that became durable.
    pub fn apply(&mut self, persist: &Persist) {
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(compaction) = persist.compaction() {
            self.log_start = compaction.after;
            self.log = points(&compaction.entries);
        }
        if let Some(from) = persist.cut_from() {
            self.cut(from);
        }
        self.log.extend(points(persist.entries()));
    }

    /// Applies a power failure during this persist: the entries that it was to remove may be gone.
    pub fn lose(&mut self, persist: &Persist) {
        if let Some(Compaction { after, entries }) = persist.compaction() {
            let kept = points(entries);
            let stays = |point: &LogPoint| point.index <= after.index || kept.contains(point);
            let first_lost = self.log.iter().position(|point| !stays(point));
            self.log.truncate(first_lost.unwrap_or(self.log.len()));
        }
        if let Some(from) = persist.cut_from() {
            self.cut(from);
        }
    }

    fn cut(&mut self, from: LogIndex) {
        let kept = from.previous().0.saturating_sub(self.log_start.index.0);
        self.log.truncate(usize::try_from(kept).expect("a simulated log is short"));
    }
}

fn points(runs: &[Entries]) -> Vec<LogPoint> {
    runs.iter().flat_map(|run| run.iter().map(|entry| entry.point).collect::<Vec<_>>()).collect()
}
