//! Snapshots (§7): the state machine's state in place of the log that led to it.

use std::sync::Arc;

use super::batch::Entries;
use super::configuration::Configuration;
use super::node::Node;
use super::types::{Checksum, LogPoint};
use crate::mutant::{self, Mutant};

/// What a snapshot stands for.
///
/// Its content is a function of the log up to `last`, so equal points mean equal content, whichever node took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry that the snapshot covers.
    pub last: LogPoint,
    /// Who took part at that point.
    pub configuration: Configuration,
}

/// A piece of a snapshot's content, on its way to a disk or to a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPart {
    /// Which snapshot it is a part of.
    pub meta: SnapshotMeta,
    /// Bytes of content before it.
    pub offset: u64,
    /// Some of the content: whole lines, each with its line break. Only the last part may be empty.
    pub text: Arc<str>,
    /// In the last part: what all of the content adds up to.
    pub end: Option<SnapshotEnd>,
}

/// What tells whole content from broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotEnd {
    /// Bytes of content.
    pub bytes: u64,
    /// CRC-32 of all of it.
    pub checksum: Checksum,
}

/// A snapshot as it was found on the disk, whole and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredSnapshot {
    /// What it stands for.
    pub meta: SnapshotMeta,
    /// Its content.
    pub text: Arc<str>,
}

/// The log after a snapshot took the place of its beginning: exactly this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// The point that the log starts after: the end of a snapshot that is durable on this node.
    pub after: LogPoint,
    /// All entries after it.
    pub entries: Vec<Entries>,
}

impl Node {
    /// The latest snapshot that is durable on this node.
    #[must_use]
    pub fn snapshot(&self) -> Option<&SnapshotMeta> {
        self.snapshot.as_ref()
    }

    /// What a snapshot that ends at `last` stands for. `last` is not before this node's latest snapshot.
    #[must_use]
    pub fn snapshot_meta(&self, last: LogPoint) -> SnapshotMeta {
        SnapshotMeta { last, configuration: self.membership.at(last.index).clone() }
    }

    /// A snapshot is durable on this node, and was read back: the log before its end is no longer needed. Some of it stays
    /// in memory for followers that are nearly up to date ([`Config::retained_bytes`](super::Config::retained_bytes)).
    ///
    /// # Panics
    ///
    /// When the snapshot ends beyond what is committed, or with another entry than the log has there.
    pub fn compact(&mut self, meta: SnapshotMeta) {
        if self.snapshot.as_ref().is_some_and(|newer| newer.last.index >= meta.last.index) {
            return;
        }
        assert!(meta.last.index <= self.commit_index, "a snapshot of what is not committed");
        let is_of_this_log = self.log.point_at(meta.last.index) == Some(meta.last);
        assert!(is_of_this_log || mutant::is_active(Mutant::ConflictingLogKept), "a snapshot of another log");
        self.log.compact(meta.last.index, self.config.retained_bytes);
        self.membership.forget_before(meta.last.index);
        self.snapshot = Some(meta);
        self.turn.is_compaction_due = true;
    }

    /// The log as it is to stand on the disk from now on.
    pub(super) fn compaction(&self) -> Option<Compaction> {
        let after = self.snapshot.as_ref()?.last;
        Some(Compaction { after, entries: self.log.entries_from(after.index.next(), usize::MAX).into() })
    }
}
