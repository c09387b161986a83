//! Snapshots of the state: taking one without standing still, and taking over a leader's.
//!
//! When the log has grown enough, the state's present moment is frozen and read off a part at a
//! time, while entries go on being applied. Each part is written before the next one is read, so
//! the disk sets the pace and a step does a part's work at the most. When all of it is durable and
//! was read back, the log's beginning goes.
//!
//! A leader's snapshot arrives in parts as well. A new state is built from them as they arrive,
//! beside the old one, which it replaces in one step when the whole snapshot is durable.

use std::sync::Arc;
use std::time::Duration;

use super::Replica;
use super::face::{Answer, Output};
use super::schedule::{Applied, Schedule};
use crate::kv::{SessionLimits, State};
use crate::mutant::{self, Mutant};
use crate::raft::{Checksum, Event, LogIndex, LogPoint, Refusal, SnapshotEnd, SnapshotMeta, SnapshotPart};
use crate::time::Instant;

/// How long after a snapshot found no room the next one is begun. Arbitrary: long enough that
/// trying costs nothing.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);

/// A replica's snapshots.
#[derive(Debug)]
pub(super) struct Snapshots {
    pub(super) schedule: Schedule,
    session_limits: SessionLimits,
    /// The seed of the states that are built.
    seed: u64,
    taking: Option<Taking>,
    building: Option<Building>,
    /// Not before this, because there was no room.
    retry_at: Instant,
    /// It was reported that there was no room, since the last snapshot.
    put_off_is_told: bool,
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
    /// The last part, while it waits for the log to be durable up to the snapshot's end, or for a
    /// transfer.
    last_part: Option<SnapshotPart>,
    /// Whether it waits for the end of a transfer of the snapshot before, which began later than
    /// this.
    gives_way: bool,
    /// What it is taken for: counted again if it is given up.
    applied: Applied,
}

/// A state that a leader's snapshot is going to be.
#[derive(Debug)]
struct Building {
    last: LogPoint,
    state: State,
    bytes: u64,
    /// Whether all of it has arrived: then it is read back.
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

    /// The text of the snapshots that are assembled or read back. A state that is built holds as
    /// much, in its own way.
    pub(super) fn text_bytes(&self) -> usize {
        let is_read_back = |taking: &&Taking| taking.is_whole && taking.is_writing;
        let taken = self.taking.as_ref().filter(is_read_back).map_or(0, |taking| taking.bytes);
        let of_building = |building: &Building| building.bytes * if building.is_whole { 2 } else { 1 };
        let built = self.building.as_ref().map_or(0, of_building);
        usize::try_from(taken.saturating_add(built)).unwrap_or(usize::MAX)
    }

    /// Where the snapshot of this replica's own ends that is being taken.
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
        // A removed node ends soon. A snapshot behind its removal would name it nowhere, and the
        // log before it would be gone: at its next start it would take itself for a node that
        // nobody has added yet, and wait for ever.
        if self.node.removed_at().is_some() && !mutant::is_active(Mutant::RemovedNodeCompacts) {
            return;
        }
        // A new snapshot would make a follower that is being sent the last one begin again, and
        // under load so often that it never had a whole one. So the log grows on for as long as
        // that follower gets on, up to a limit: then the follower begins again.
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
            // One that only a backup asks for leaves the turns as they are.
            applied: if is_due { self.snapshots.schedule.begin() } else { Applied::default() },
        });
    }

    /// Begins a snapshot if one is due, and hands out the next part of the one that is being taken.
    pub(super) fn take_snapshot(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        if self.snapshots.taking.is_none() {
            self.begin_snapshot(now);
        }
        let Some(taking) = &mut self.snapshots.taking else { return };
        // What is not on this disk yet could be missing behind the snapshot after a crash.
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
        if taking.is_whole && mutant::is_active(Mutant::LogTrimmedEarly) {
            self.node.compact(taking.meta.clone());
        }
        if taking.is_whole && !may_end {
            taking.last_part = Some(part);
        } else {
            taking.is_writing = true;
            outputs.push(Output::WriteSnapshot(part));
        }
    }

    /// A part is written.
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

    /// There is no room for a snapshot. This replica's own is tried again after a while; a leader
    /// sends its one again by itself.
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
        self.snapshots.retry_at = now + ROOM_PATIENCE;
        if !std::mem::replace(&mut self.snapshots.put_off_is_told, true) {
            outputs.push(Output::Event(Event::SnapshotPutOff { why }));
        }
    }

    fn stop_taking(&mut self) {
        self.snapshots.taking = None;
        self.state.thaw();
    }

    /// A leader's snapshot is going to be written in the place of this replica's own, unless all of
    /// that was handed out: then it is the node's latest before the leader's is, and its report is
    /// waited for.
    fn give_way(&mut self) {
        if let Some(taking) =
            self.snapshots.taking.take_if(|taking| !taking.is_whole || taking.last_part.is_some())
        {
            self.snapshots.schedule.give_up(taking.applied);
            self.state.thaw();
        }
    }

    /// The node may have dropped the snapshot that was on its way: then nobody needs what was built
    /// of it.
    pub(super) fn drop_unused_state(&mut self) {
        if !self.node.receives_snapshot() {
            self.snapshots.building = None;
        }
    }

    /// A part of the leader's snapshot has arrived.
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
                let because = Refusal::SnapshotNotUnderstood;
                outputs.push(Output::Event(Event::MessageRefused { from, because }));
            }
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
        // Between the log that was and the snapshot, nodes may have become members and been removed
        // again.
        self.met.clear();
        self.stop_taking();
        self.state = building.state;
        if !mutant::is_active(Mutant::AppliedNotMoved) {
            self.last_applied = meta.last.index;
        }
        let (node, leader) = (self.node.id(), self.node.leader());
        self.snapshots.schedule.installed(building.bytes, node, leader, &meta.configuration);
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
