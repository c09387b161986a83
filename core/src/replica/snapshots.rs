//! Snapshots of the state (§7): takes one without blocking, and installs one that a leader sends.
//!
//! When the log has grown enough, the current state is frozen and read part by part while new
//! entries are applied. Each part is written before the next one is read, so the disk sets the
//! pace, and a step processes at most one part. When the whole snapshot is durable and was read
//! back, the log before it is dropped.
//!
//! A leader's snapshot arrives in parts as well. A new state is built from them as they arrive,
//! beside the old one. When the whole snapshot is durable, the new state replaces the old one in
//! one step.

use std::sync::Arc;
use std::time::Duration;

use super::Replica;
use super::interface::{Answer, Output};
use super::schedule::{Applied, Schedule};
use crate::kv::{SessionLimits, State};
use crate::mutant::{self, Mutant};
use crate::raft::{
    Checksum, Event, LogIndex, LogPoint, MessageRefusal, Node, SnapshotEnd, SnapshotMeta, SnapshotPart,
};
use crate::time::Instant;

/// How long to wait after a snapshot found no disk space before the next one begins. Arbitrary:
/// long enough that the attempts cost nothing.
const ROOM_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The state of a replica's snapshots.
#[derive(Debug)]
pub(super) struct Snapshots {
    pub(super) schedule: Schedule,
    session_limits: SessionLimits,
    /// The hash seed for states that are built.
    seed: u64,
    taking: Option<Taking>,
    building: Option<Building>,
    /// No snapshot begins before this time, because there was no disk space.
    retry_at: Instant,
    /// Whether the lack of disk space was reported since the last snapshot.
    put_off_is_told: bool,
}

/// A snapshot of this replica's own state that is being taken.
#[derive(Debug)]
struct Taking {
    meta: SnapshotMeta,
    /// The number of bytes of content that were handed out for writing.
    bytes: u64,
    hasher: crc32fast::Hasher,
    is_writing: bool,
    is_whole: bool,
    /// The last part, while it waits for the log to be durable up to the snapshot's end, or for a
    /// transfer to a follower.
    last_part: Option<SnapshotPart>,
    /// Whether the last part waits for a transfer of the previous snapshot to a follower, if one
    /// began after this snapshot did.
    gives_way: bool,
    /// The amount of log that it covers, which counts again if the snapshot is aborted.
    applied: Applied,
}

/// A state that is being built from a leader's snapshot.
#[derive(Debug)]
struct Building {
    last: LogPoint,
    state: State,
    bytes: u64,
    /// Whether all parts have arrived, so that the snapshot is read back from the disk.
    is_whole: bool,
}

impl Snapshots {
    pub(super) fn new(schedule: Schedule, session_limits: SessionLimits, seed: u64) -> Self {
        Self {
            schedule,
            session_limits,
            seed,
            taking: None,
            building: None,
            retry_at: Instant::default(),
            put_off_is_told: false,
        }
    }

    /// The memory of snapshots that are assembled or read back, in bytes. A state that is being
    /// built counts like its text.
    pub(super) fn text_bytes(&self) -> usize {
        let is_read_back = |taking: &&Taking| taking.is_whole && taking.is_writing;
        let taken = self.taking.as_ref().filter(is_read_back).map_or(0, |taking| taking.bytes);
        let of_building = |building: &Building| building.bytes * if building.is_whole { 2 } else { 1 };
        let built = self.building.as_ref().map_or(0, of_building);
        usize::try_from(taken.saturating_add(built)).unwrap_or(usize::MAX)
    }

    /// The last log index of the own snapshot that is being taken.
    pub(super) fn under_way(&self) -> Option<LogIndex> {
        self.taking.as_ref().map(|taking| taking.meta.last.index)
    }
}

impl Replica {
    /// Freezes the state for a snapshot, if one is due and nothing holds it back.
    fn begin_snapshot(&mut self, now: Instant) {
        let latest = self.snapshot_index();
        let schedule = &self.snapshots.schedule;
        let is_due = schedule.is_due() || (self.memory_is_short && schedule.makes_room());
        if now < self.snapshots.retry_at {
            return;
        }
        if !is_due && !self.backups.want_beyond(latest) {
            return;
        }
        // A removed node stops soon. A snapshot after its removal would not name it, and the log
        // that names it would be dropped. At its next start, it would take itself for a node that
        // was not added yet, and wait forever.
        if self.node.removed_at().is_some() && !mutant::is_active(Mutant::RemovedNodeCompacts) {
            return;
        }
        // A new snapshot would make a follower that is receiving the last one begin again, under
        // load so often that it never receives a complete one. So the log grows while that follower
        // makes progress, up to a limit; then the follower begins again.
        let is_sent = self.node.sends_snapshot(now);
        let is_wanted = is_sent || self.backups.hold_back(latest, now);
        let is_held = is_wanted && !self.snapshots.schedule.is_overdue();
        if self.node.receives_snapshot() || is_held {
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
            gives_way: !is_sent,
            // A snapshot that only a backup needs does not change the turns.
            applied: if is_due { self.snapshots.schedule.begin() } else { Applied::default() },
        });
    }

    /// Begins a snapshot if one is due, and hands out the next part of the current one.
    pub(super) fn take_snapshot(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        if self.snapshots.taking.is_none() {
            self.begin_snapshot(now);
        }
        let Some(taking) = &mut self.snapshots.taking else { return };
        // Entries that are not durable yet could be missing from the log below the snapshot after a
        // crash.
        let is_durable = taking.meta.last.index <= self.node.durable_index();
        let is_held =
            taking.gives_way && self.node.sends_snapshot(now) && !self.snapshots.schedule.is_overdue();
        let may_end = is_durable && !is_held;
        if may_end && let Some(part) = taking.last_part.take() {
            taking.is_writing = true;
            return outputs.push(Output::WriteSnapshot(part));
        }
        if taking.is_writing || taking.is_whole {
            return;
        }
        let part_bytes = self.snapshots.schedule.part_bytes();
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
        compact_early_by_mutant(&mut self.node, taking);
        if taking.is_whole && !may_end {
            taking.last_part = Some(part);
        } else {
            taking.is_writing = true;
            outputs.push(Output::WriteSnapshot(part));
        }
    }

    /// Handles the report that a part is written.
    pub(super) fn snapshot_written(&mut self, last: LogPoint, bytes: u64, now: Instant) {
        let before = self.snapshot_index();
        let is_own = |taking: &Taking| taking.meta.last == last && taking.bytes == bytes;
        let Some(taking) = self.snapshots.taking.as_mut().filter(|taking| is_own(taking)) else {
            return self.node.snapshot_written(last, bytes);
        };
        taking.is_writing = false;
        if taking.is_whole {
            self.node.compact(taking.meta.clone());
            self.snapshots.schedule.taken(bytes);
            self.snapshots.put_off_is_told = false;
            self.keep_for_backup(before, last, now);
            self.stop_taking();
        }
    }

    /// Handles the report that there is no disk space for a snapshot. An own snapshot is retried
    /// after a while; a leader sends its snapshot again.
    pub(super) fn snapshot_put_off(
        &mut self,
        last: LogPoint,
        why: Arc<str>,
        now: Instant,
        outputs: &mut Vec<Output>,
    ) {
        if let Some(taking) = self.snapshots.taking.take_if(|taking| taking.meta.last == last) {
            self.snapshots.schedule.give_up(taking.applied);
            self.state.thaw();
        }
        if self.snapshots.building.take_if(|building| building.last == last).is_some() {
            self.node.refuse_snapshot();
        }
        self.snapshots.retry_at = now + ROOM_RETRY_AFTER;
        if !std::mem::replace(&mut self.snapshots.put_off_is_told, true) {
            outputs.push(Output::Event(Event::SnapshotPutOff { why }));
        }
    }

    fn stop_taking(&mut self) {
        self.snapshots.taking = None;
        self.state.thaw();
    }

    /// Aborts the own snapshot, because a leader's snapshot is going to be written in its place. If
    /// all its parts were handed out, it is not aborted: it becomes durable before the leader's,
    /// and its report still arrives.
    fn give_way(&mut self) {
        if let Some(taking) =
            self.snapshots.taking.take_if(|taking| !taking.is_whole || taking.last_part.is_some())
        {
            self.snapshots.schedule.give_up(taking.applied);
            self.state.thaw();
        }
    }

    /// Drops the state that is being built if the node no longer receives a snapshot.
    pub(super) fn drop_unused_state(&mut self) {
        if !self.node.receives_snapshot() {
            self.snapshots.building = None;
        }
    }

    /// Adds a part of the leader's snapshot to the state that is being built.
    pub(super) fn receive_part(&mut self, part: SnapshotPart, outputs: &mut Vec<Output>) {
        let snapshots = &mut self.snapshots;
        if part.offset == 0 {
            let state = State::seeded(snapshots.session_limits, snapshots.seed);
            snapshots.building = Some(Building { last: part.meta.last, state, bytes: 0, is_whole: false });
            self.give_way();
        }
        let Some(building) = &mut self.snapshots.building else { return self.node.refuse_snapshot() };
        building.bytes += part.text.len() as u64;
        building.is_whole = part.end.is_some();
        let is_understood = part.text.lines().all(|line| building.state.restore(line).is_ok());
        if is_understood {
            outputs.push(Output::WriteSnapshot(part));
        } else {
            self.snapshots.building = None;
            self.node.refuse_snapshot();
            if let Some(from) = self.node.leader() {
                let because = MessageRefusal::SnapshotNotUnderstood;
                outputs.push(Output::Event(Event::MessageRefused { from, because }));
            }
        }
    }

    /// Installs the leader's snapshot, which is durable, as the state.
    pub(super) fn install_snapshot(&mut self, meta: &SnapshotMeta, outputs: &mut Vec<Output>) {
        let building = self.snapshots.building.take().expect("a snapshot is built before it is installed");
        assert_eq!(building.last, meta.last, "the snapshot that was built is the one that is installed");
        if meta.last.index <= self.last_applied {
            // The log was applied further meanwhile.
            return;
        }
        // The entries that the snapshot replaced may have added and removed members.
        self.handshakes.clear();
        self.stop_taking();
        self.state = building.state;
        self.restart_history(meta.last.index, outputs);
        self.move_applied_unless_mutant(meta.last.index);
        let (node, leader) = (self.node.id(), self.node.leader());
        self.snapshots.schedule.installed(building.bytes, node, leader, &meta.configuration);
        // The snapshot may or may not include these writes: at their indexes, it may cover
        // different entries.
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.index <= meta.last.index) {
            outputs.push(Output::Answer(waiting.request, Answer::OutcomeUnknown));
        }
    }

    /// The last log index of the latest durable snapshot.
    pub(super) fn snapshot_index(&self) -> LogIndex {
        self.node.snapshot().map_or(LogIndex::ORIGIN, |meta| meta.last.index)
    }

    /// Moves the applied index to the end of an installed snapshot; deliberate bug: does not.
    fn move_applied_unless_mutant(&mut self, last: LogIndex) {
        if !mutant::is_active(Mutant::AppliedNotMoved) {
            self.last_applied = last;
        }
    }
}

/// Deliberate bug: drops the entries that a snapshot covers before it is durable.
fn compact_early_by_mutant(node: &mut Node, taking: &Taking) {
    if taking.is_whole && mutant::is_active(Mutant::LogTrimmedEarly) {
        node.compact(taking.meta.clone());
    }
}
