//! Log compaction (§7): a durable snapshot replaces the beginning of the log.

use super::snapshot::{Compaction, SILENCE_TIMEOUTS_MAX, SnapshotMeta};
use super::state::{Node, Part, Progress};
use super::types::{LogIndex, LogPoint};
use crate::mutant::{self, Mutant};

impl Node {
    /// The latest snapshot that is durable on this node.
    #[must_use]
    pub fn snapshot(&self) -> Option<&SnapshotMeta> {
        self.snapshot.as_ref()
    }

    /// The metadata of a snapshot that ends at `last`, which must not be before this node's latest
    /// snapshot.
    #[must_use]
    pub fn snapshot_meta(&self, last: LogPoint) -> SnapshotMeta {
        SnapshotMeta { last, configuration: self.membership.at(last.index).clone() }
    }

    /// Compacts the log up to the end of `meta`, a snapshot that is durable on this node and was
    /// read back. Some of the entries stay in memory for followers that are nearly up to date
    /// ([`Config::retained_bytes`](super::Config::retained_bytes)) or are catching up
    /// ([`Config::held_bytes_max`](super::Config::held_bytes_max)).
    ///
    /// # Panics
    ///
    /// When the snapshot ends beyond the commit index, or with another entry than the log has
    /// there.
    pub fn compact(&mut self, meta: SnapshotMeta) {
        if self.snapshot.as_ref().is_some_and(|newer| newer.last.index >= meta.last.index) {
            return;
        }
        assert!(meta.last.index <= self.commit_index, "a snapshot of what is not committed");
        let is_of_this_log = self.log.point_at(meta.last.index) == Some(meta.last);
        assert!(is_of_this_log || mutant::is_active(Mutant::ConflictingLogKept), "a snapshot of another log");
        self.snapshot = Some(meta);
        self.trim_log();
        self.turn.is_compaction_due = true;
    }

    /// Drops the entries that are still in memory although the latest snapshot covers them, as far
    /// as no follower needs them any more.
    pub fn trim_log(&mut self) {
        let Some(last) = self.snapshot.as_ref().map(|meta| meta.last.index) else { return };
        let held_max = unlimited_by_mutant().unwrap_or(self.config.held_bytes_max);
        let held = (self.held_from().unwrap_or(last), held_max);
        self.log.compact(last, self.config.retained_bytes, held);
        // As far back as the log is kept, a joiner may still be sent its configurations.
        self.membership.forget_before(self.log.start().index);
    }

    /// The lowest match index among the followers that answer and may still be sent entries; `None`
    /// if there is no such follower. Entries after it are held for them.
    fn held_from(&self) -> Option<LogIndex> {
        let Part::Leader(leadership) = &self.part else { return None };
        let (now, patience) = (self.last_turn, self.config.election_timeout_max * SILENCE_TIMEOUTS_MAX);
        let needs_log = |progress: &Progress| {
            let is_reached = progress.match_index() >= self.log.start().index && !progress.is_sent_snapshot();
            (is_reached && progress.is_there(now, patience)).then(|| progress.match_index())
        };
        leadership.followers.iter().filter_map(|(_, progress)| needs_log(progress)).min()
    }

    /// The compacted log, which is to replace the log on the disk.
    pub(super) fn compaction(&self) -> Option<Compaction> {
        let after = self.snapshot.as_ref()?.last;
        Some(Compaction { after, entries: self.log.entries_from(after.index.next(), usize::MAX).into() })
    }
}

/// Deliberate bug: the log that is held for a follower has no limit.
fn unlimited_by_mutant() -> Option<usize> {
    mutant::is_active(Mutant::HeldLogUnlimited).then_some(usize::MAX)
}
