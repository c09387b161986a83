//! What a node's disk holds for sure, as numbers: kept by the world, invisible to the node.
//!
//! A durable snapshot stands for all entries up to its last one, whatever the log beside it holds:
//! what a snapshot covers is committed. So the two may be of different moments, and a start makes
//! one of them (see `recover/snapshot` of the storage).

use coracle_core::raft::{Compaction, Entries, HardState, LogIndex, LogPoint, Persist, Restored};

/// What the disk of a node holds durably.
#[derive(Clone, Debug, Default)]
pub struct DurableState {
    /// Term and vote.
    pub hard_state: HardState,
    /// The end of the latest snapshot.
    pub snapshot: Option<LogPoint>,
    /// The point that the log starts after.
    pub log_start: LogPoint,
    /// The points of the log's entries, in order.
    pub log: Vec<LogPoint>,
}

impl DurableState {
    /// What a start has found.
    #[must_use]
    pub fn found(restored: &Restored) -> Self {
        Self {
            hard_state: restored.hard_state,
            snapshot: restored.snapshot.as_ref().map(|snapshot| snapshot.meta.last),
            log_start: restored.log_start,
            log: points(&restored.log),
        }
    }

    /// How far the latest snapshot reaches; the origin without one.
    #[must_use]
    pub fn snapshot_index(&self) -> LogIndex {
        self.snapshot.map_or(LogIndex::ORIGIN, |last| last.index)
    }

    /// The log's point at `index`; also known for its start.
    #[must_use]
    pub fn point_at(&self, index: LogIndex) -> Option<LogPoint> {
        match usize::try_from(index.0.checked_sub(self.log_start.index.0)?).ok()?.checked_sub(1) {
            None => Some(self.log_start),
            Some(position) => self.log.get(position).copied(),
        }
    }

    /// Whether there is an entry at `index`, in the log or in the snapshot.
    #[must_use]
    pub fn reaches(&self, index: LogIndex) -> bool {
        index <= self.snapshot_index() || self.point_at(index).is_some()
    }

    /// Whether this entry is there, in the log or in the snapshot.
    #[must_use]
    pub fn holds(&self, point: LogPoint) -> bool {
        match self.snapshot {
            Some(last) if last.index == point.index => last == point,
            Some(last) if last.index > point.index => true,
            _ => self.point_at(point.index) == Some(point),
        }
    }

    /// Where the log would end after a start.
    #[must_use]
    pub fn end(&self) -> LogPoint {
        let agreeing = self.snapshot.filter(|last| self.point_at(last.index) != Some(*last));
        agreeing.unwrap_or_else(|| self.log.last().copied().unwrap_or(self.log_start))
    }

    /// A persist is durable.
    pub fn apply(&mut self, persist: &Persist) {
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(compaction) = &persist.compaction {
            self.log_start = compaction.after;
            self.log = points(&compaction.entries);
        }
        if let Some(from) = persist.cut_from {
            self.cut(from);
        }
        self.log.extend(points(&persist.entries));
    }

    /// The power fails with this persist under way: what it was to take need not be there any more.
    pub fn lose(&mut self, persist: &Persist) {
        if let Some(Compaction { after, entries }) = &persist.compaction {
            let kept = points(entries);
            let stays = |point: &LogPoint| point.index <= after.index || kept.contains(point);
            let first_lost = self.log.iter().position(|point| !stays(point));
            self.log.truncate(first_lost.unwrap_or(self.log.len()));
        }
        if let Some(from) = persist.cut_from {
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
