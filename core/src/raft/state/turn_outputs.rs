//! The outputs of the turn under way: changes for the disk, messages, events, and results of reads.

use crate::mutant::{self, Mutant};
use crate::raft::batch::Entries;
use crate::raft::durability::Promise;
use crate::raft::event::Event;
use crate::raft::message::{Message, ReadBatch};
use crate::raft::runs::Runs;
use crate::raft::snapshot::{SnapshotMeta, SnapshotPart};
use crate::raft::types::{LogIndex, LogPoint};

/// The outputs that the turn under way has collected.
#[derive(Clone, Debug)]
pub(in crate::raft) struct Turn {
    pub(in crate::raft) hard_state_changed: bool,
    pub(in crate::raft) cut_from: Option<LogIndex>,
    pub(in crate::raft) appended: Runs,
    pub(in crate::raft) messages: Vec<(Promise, Message)>,
    pub(in crate::raft) events: Vec<Event>,
    /// Whether the whole log is to be rewritten, starting after the snapshot.
    pub(in crate::raft) is_compaction_due: bool,
    /// The parts of a snapshot to be written, the parts to be read, and the snapshot that was
    /// installed.
    pub(in crate::raft) snapshot_writes: Vec<SnapshotPart>,
    pub(in crate::raft) snapshot_reads: Vec<(LogPoint, u64)>,
    pub(in crate::raft) installed: Option<SnapshotMeta>,
    /// Whether the removal of this node was reported.
    pub(in crate::raft) removal_is_reported: bool,
    /// The results of reads.
    pub(in crate::raft) reads: Vec<(ReadBatch, Option<LogIndex>)>,
    /// The last index of the log that was handed to the disk, lowered by later cuts.
    pub(in crate::raft) handed_out: LogIndex,
}

impl Turn {
    pub(in crate::raft) fn new(last_index: LogIndex) -> Self {
        Self {
            hard_state_changed: false,
            cut_from: None,
            appended: Runs::new(),
            messages: Vec::new(),
            events: Vec::new(),
            reads: Vec::new(),
            is_compaction_due: false,
            snapshot_writes: Vec::new(),
            snapshot_reads: Vec::new(),
            installed: None,
            removal_is_reported: false,
            handed_out: last_index,
        }
    }

    /// Returns whether the turn has outputs that concern snapshots. Nearly always it has none.
    pub(in crate::raft) fn concerns_snapshots(&self) -> bool {
        self.installed.is_some() || !self.snapshot_writes.is_empty() || !self.snapshot_reads.is_empty()
    }

    /// Handles a cut of the log from `from` on: some of the removed entries are on the disk, others
    /// were not handed to it yet.
    pub(in crate::raft) fn cut(&mut self, from: LogIndex) {
        let kept = |entries: Entries| {
            if entries.first_index() < from { entries.ending_at(from.previous()) } else { None }
        };
        self.appended = std::mem::take(&mut self.appended).into_iter().filter_map(kept).collect();
        if from <= self.handed_out && !mutant::is_active(Mutant::CutNotPersisted) {
            self.handed_out = from.previous();
            self.cut_from = Some(self.cut_from.map_or(from, |earlier| earlier.min(from)));
        }
    }
}
