//! Snapshots of the state: taking one without standing still, and taking over a leader's.
//!
//! When the log has grown enough, the state's present moment is frozen and read off a part at a time, while entries go on
//! being applied. Each part is written before the next one is read, so the disk sets the pace and a step does a part's work at
//! the most. When all of it is durable and was read back, the log's beginning goes.
//!
//! A leader's snapshot arrives in parts as well. A new state is built from them as they arrive, beside the old one, which
//! it replaces in one step when the whole snapshot is durable.

use super::Replica;
use super::face::{Answer, Output};
use crate::kv::{SessionLimits, State};
use crate::mutant::{self, Mutant};
use crate::raft::{Checksum, LogIndex, LogPoint, SnapshotEnd, SnapshotMeta, SnapshotPart};
use crate::time::Instant;

/// How many bytes of content a part of a snapshot has if nothing else is said ([`SnapshotPolicy::part_bytes`]), or a line
/// more: a step encodes or decodes as much. Chosen because that takes less than a millisecond.
pub const SNAPSHOT_PART_BYTES: usize = 256 << 10;

/// When a snapshot is taken, at the first of two thresholds, and in which pieces. May differ from node to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// When so many bytes of log lines were applied since the last one, and at least as many as that one has: so that the
    /// disk never writes more in snapshots than in log, however large the state is.
    pub log_bytes: u64,
    /// When so many entries were applied since the last one, whatever their size.
    pub log_entries: u64,
    /// How many bytes of content a part has, or a line more.
    pub part_bytes: usize,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        // A start reads a log of that size in some tens of milliseconds.
        Self { log_bytes: 16 << 20, log_entries: 1_000_000, part_bytes: SNAPSHOT_PART_BYTES }
    }
}

/// A replica's snapshots.
#[derive(Debug)]
pub(super) struct Snapshots {
    policy: SnapshotPolicy,
    session_limits: SessionLimits,
    /// What was applied since the moment of the last one.
    log_bytes: u64,
    log_entries: u64,
    /// Bytes of content of the last one.
    last_bytes: u64,
    taking: Option<Taking>,
    building: Option<Building>,
}

/// A snapshot of this replica's own state.
#[derive(Debug)]
struct Taking {
    meta: SnapshotMeta,
    /// Bytes of content that were handed out.
    bytes: u64,
    hasher: crc32fast::Hasher,
    is_writing: bool,
    is_whole: bool,
    /// The last part, while it waits for the log to be durable up to the snapshot's end.
    last_part: Option<SnapshotPart>,
    /// What it was taken for: counted again if it is given up.
    log_bytes: u64,
    log_entries: u64,
}

/// A state that a leader's snapshot is going to be.
#[derive(Debug)]
struct Building {
    last: LogPoint,
    state: State,
    bytes: u64,
}

impl Snapshots {
    pub(super) fn new(policy: SnapshotPolicy, session_limits: SessionLimits, last_bytes: u64) -> Self {
        Self {
            policy,
            session_limits,
            log_bytes: 0,
            log_entries: 0,
            last_bytes,
            taking: None,
            building: None,
        }
    }

    /// Entries were applied, `bytes` bytes of lines.
    pub(super) fn applied(&mut self, entries: u64, bytes: u64) {
        self.log_entries += entries;
        self.log_bytes += bytes;
    }

    fn is_due(&self) -> bool {
        self.log_bytes >= self.policy.log_bytes.max(self.last_bytes)
            || self.log_entries >= self.policy.log_entries
    }
}

impl Replica {
    /// Begins a snapshot if one is due, and hands out the next part of the one that is being taken.
    pub(super) fn take_snapshot(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        if self.snapshots.taking.is_none() {
            // A new snapshot would make a follower who is being sent the last one begin again, and under load so often that
            // it never had a whole one. So the log grows on for as long as that follower gets on.
            let is_free = !self.node.receives_snapshot() && !self.node.sends_snapshot(now);
            if !is_free || !self.snapshots.is_due() {
                return;
            }
            let Some(last) = self.node.log().point_at(self.last_applied) else { return };
            self.state.freeze();
            self.snapshots.taking = Some(Taking {
                meta: self.node.snapshot_meta(last),
                bytes: 0,
                hasher: crc32fast::Hasher::new(),
                is_writing: false,
                is_whole: false,
                last_part: None,
                log_bytes: self.snapshots.log_bytes,
                log_entries: self.snapshots.log_entries,
            });
            (self.snapshots.log_bytes, self.snapshots.log_entries) = (0, 0);
        }
        let Some(taking) = &mut self.snapshots.taking else { return };
        // What is not on this disk yet could be missing behind the snapshot after a crash.
        let is_durable = taking.meta.last.index <= self.node.durable_index();
        if is_durable && let Some(part) = taking.last_part.take() {
            taking.is_writing = true;
            return outputs.push(Output::WriteSnapshot(part));
        }
        if taking.is_writing || taking.is_whole {
            return;
        }
        let part_bytes = self.snapshots.policy.part_bytes;
        let mut text = String::with_capacity(part_bytes + part_bytes / 8);
        taking.is_whole = self.state.read_frozen(&mut text, part_bytes);
        taking.hasher.update(text.as_bytes());
        let offset = taking.bytes;
        taking.bytes += text.len() as u64;
        let end = taking.is_whole.then(|| SnapshotEnd {
            bytes: taking.bytes,
            checksum: Checksum(taking.hasher.clone().finalize()),
        });
        let part = SnapshotPart { meta: taking.meta.clone(), offset, text: text.into(), end };
        if taking.is_whole && mutant::is_active(Mutant::LogTrimmedEarly) {
            self.node.compact(taking.meta.clone());
        }
        if taking.is_whole && !is_durable {
            taking.last_part = Some(part);
        } else {
            taking.is_writing = true;
            outputs.push(Output::WriteSnapshot(part));
        }
    }

    /// A part is written.
    pub(super) fn snapshot_written(&mut self, last: LogPoint, bytes: u64) {
        let is_own = |taking: &Taking| taking.meta.last == last && taking.bytes == bytes;
        let Some(taking) = self.snapshots.taking.as_mut().filter(|taking| is_own(taking)) else {
            return self.node.snapshot_written(last, bytes);
        };
        taking.is_writing = false;
        if taking.is_whole {
            self.node.compact(taking.meta.clone());
            self.snapshots.last_bytes = bytes;
            self.stop_taking();
        }
    }

    fn stop_taking(&mut self) {
        self.snapshots.taking = None;
        self.state.thaw();
    }

    /// A leader's snapshot is going to be written in the place of this replica's own, unless all of that was handed out: then
    /// it is the node's latest before the leader's is, and its report is waited for.
    fn give_way(&mut self) {
        if let Some(taking) =
            self.snapshots.taking.take_if(|taking| !taking.is_whole || taking.last_part.is_some())
        {
            self.snapshots.log_bytes += taking.log_bytes;
            self.snapshots.log_entries += taking.log_entries;
            self.state.thaw();
        }
    }

    /// The node may have dropped the snapshot that was on its way: then nobody needs what was built of it.
    pub(super) fn drop_unused_state(&mut self) {
        if !self.node.receives_snapshot() {
            self.snapshots.building = None;
        }
    }

    /// A part of the leader's snapshot has arrived.
    pub(super) fn receive_part(&mut self, part: SnapshotPart, outputs: &mut Vec<Output>) {
        let snapshots = &mut self.snapshots;
        if part.offset == 0 {
            let state = State::new(snapshots.session_limits);
            snapshots.building = Some(Building { last: part.meta.last, state, bytes: 0 });
            self.give_way();
        }
        let Some(building) = &mut self.snapshots.building else { return self.node.refuse_snapshot() };
        building.bytes += part.text.len() as u64;
        let is_understood = part.text.lines().all(|line| building.state.restore(line).is_ok());
        if is_understood {
            outputs.push(Output::WriteSnapshot(part));
        } else {
            self.snapshots.building = None;
            self.node.refuse_snapshot();
        }
    }

    /// The leader's snapshot is durable: it is the state from now on.
    pub(super) fn install_snapshot(&mut self, meta: &SnapshotMeta, outputs: &mut Vec<Output>) {
        let building = self.snapshots.building.take().expect("a snapshot is built before it is installed");
        assert_eq!(building.last, meta.last, "the snapshot that was built is the one that is installed");
        if meta.last.index <= self.last_applied {
            // The log was faster.
            return;
        }
        self.stop_taking();
        self.state = building.state;
        if !mutant::is_active(Mutant::AppliedNotMoved) {
            self.last_applied = meta.last.index;
        }
        self.snapshots.last_bytes = building.bytes;
        (self.snapshots.log_bytes, self.snapshots.log_entries) = (0, 0);
        // Whether the snapshot has these writes in it or others in their places cannot be told.
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.index <= meta.last.index) {
            outputs.push(Output::Answer(waiting.request, Answer::OutcomeUnknown));
        }
    }

    /// How far the latest durable snapshot reaches.
    pub(super) fn snapshot_index(&self) -> LogIndex {
        self.node.snapshot().map_or(LogIndex::ORIGIN, |meta| meta.last.index)
    }
}
