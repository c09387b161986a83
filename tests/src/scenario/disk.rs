//! Model of one node's disk: its durable content, and the writes that it has accepted and not
//! completed.
//!
//! Only the writes completed by [`Disk::carry_out`] survive a crash, and with [`Disk::tear`] a part
//! of the write after them. The disk also checks the writes: they are numbered without a gap,
//! continue the log on disk, and never cut below the floor that an earlier one has set.

use std::collections::VecDeque;

use coracle_core::Instant;
use coracle_core::raft::{
    Checksum, Compaction, Entries, HardState, Log, LogChange, LogIndex, LogPoint, Persist, PersistId,
    Restored, RestoredSnapshot, SnapshotEnd, SnapshotMeta, SnapshotPart,
};

/// The disk of one node.
#[derive(Debug)]
pub struct Disk {
    hard_state: HardState,
    log: Log,
    floor: LogIndex,
    /// The latest complete snapshot, and below it the text and metadata of the next one as far as
    /// it is written.
    snapshot: Option<RestoredSnapshot>,
    begun: Option<(SnapshotMeta, String)>,
    /// Snapshot parts that wait for a disk that hangs.
    parts: VecDeque<SnapshotPart>,
    last_id: PersistId,
    pending: VecDeque<(Instant, Persist)>,
    is_held: bool,
}

impl Disk {
    /// Creates a disk with these contents.
    #[must_use]
    pub fn new(restored: Restored) -> Self {
        Self {
            hard_state: restored.hard_state,
            log: Log::new(restored.log_start, restored.log),
            floor: LogIndex::ORIGIN,
            snapshot: restored.snapshot,
            begun: None,
            parts: VecDeque::new(),
            last_id: PersistId(0),
            pending: VecDeque::new(),
            is_held: false,
        }
    }

    /// The state from which a node would start now.
    #[must_use]
    pub fn restored(&self) -> Restored {
        // More bytes than any scenario writes.
        let all = 1 << 40;
        let log: Vec<_> = self.log.entries_from(self.log.first_index(), all).into();
        let snapshot = self.snapshot.clone();
        let last = snapshot.as_ref().map(|snapshot| snapshot.meta.last);
        // As in the real recovery: a log that does not agree with the snapshot was not committed.
        let agrees = last.is_none_or(|last| self.log.point_at(last.index) == Some(last));
        let (log_start, log) = match last.filter(|_| !agrees) {
            Some(last) => (last, Vec::new()),
            None => (self.log.start(), log),
        };
        Restored { hard_state: self.hard_state, snapshot, log_start, log }
    }

    /// The term and vote that would survive a crash now.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Returns whether this entry would survive a crash now.
    #[must_use]
    pub fn holds(&self, point: LogPoint) -> bool {
        self.covers(point.index) || self.log.point_at(point.index) == Some(point)
    }

    /// Returns whether a snapshot that would survive a crash now reaches this index.
    #[must_use]
    pub fn covers(&self, index: LogIndex) -> bool {
        self.snapshot.as_ref().is_some_and(|snapshot| snapshot.meta.last.index >= index)
    }

    /// Queues a part of a snapshot.
    pub(super) fn take_part(&mut self, part: SnapshotPart) {
        self.parts.push_back(part);
    }

    /// Writes the next waiting part, unless the disk hangs. Returns the snapshot's last entry and
    /// the number of bytes written.
    pub(super) fn write_part(&mut self) -> Option<(LogPoint, u64)> {
        if self.is_held {
            return None;
        }
        let part = self.parts.pop_front()?;
        if part.offset == 0 {
            self.begun = Some((part.meta.clone(), String::new()));
        }
        let (meta, text) = self.begun.as_mut().expect("a snapshot begins with its first part");
        assert_eq!((&*meta, text.len() as u64), (&part.meta, part.offset), "parts follow one another");
        text.push_str(&part.text);
        let report = (meta.last, text.len() as u64);
        if part.end.is_some()
            && let Some((meta, text)) = self.begun.take()
        {
            assert!(meta.last.term <= self.hard_state.current_term, "the snapshot is ahead of the term");
            self.snapshot = Some(RestoredSnapshot { meta, text: text.into() });
        }
        Some(report)
    }

    /// Reads a part of the snapshot, which is one or two lines.
    pub(super) fn read_part(&self, last: LogPoint, offset: u64) -> Option<SnapshotPart> {
        let snapshot = self.snapshot.as_ref().filter(|snapshot| snapshot.meta.last == last)?;
        let rest = snapshot.text.get(usize::try_from(offset).ok()?..)?;
        let len = rest.match_indices('\n').map(|(at, _)| at + 1).find(|len| *len >= 40).unwrap_or(rest.len());
        let end = (len == rest.len()).then(|| SnapshotEnd {
            bytes: snapshot.text.len() as u64,
            checksum: Checksum(crc32fast::hash(snapshot.text.as_bytes())),
        });
        Some(SnapshotPart { meta: snapshot.meta.clone(), offset, text: rest[..len].into(), end })
    }

    /// The number of waiting writes.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn hold(&mut self) {
        self.is_held = true;
    }

    pub(super) fn let_go(&mut self) {
        self.is_held = false;
    }

    /// The time when the oldest waiting write completes; `None` when there is none, or the disk
    /// hangs.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let oldest = self.pending.front()?;
        (!self.is_held).then_some(oldest.0)
    }

    /// Queues a write that will complete at `due`.
    pub(super) fn ask(&mut self, persist: Persist, due: Instant) {
        assert_eq!(persist.id.0, self.last_id.0 + 1, "persists are numbered one by one");
        self.last_id = persist.id;
        self.pending.push_back((due, persist));
    }

    /// Completes the oldest waiting write.
    pub(super) fn carry_out(&mut self) -> Option<PersistId> {
        let (_, persist) = self.pending.pop_front()?;
        let id = persist.id;
        self.write(persist, usize::MAX);
        Some(id)
    }

    /// Crashes the node: of the waiting writes, the first `whole` complete, and of the next one
    /// everything except the entries after the first `entries`. With `None`, nothing of that one
    /// survives.
    pub(super) fn tear(&mut self, whole: usize, entries: Option<usize>) {
        for _ in 0..whole {
            self.carry_out();
        }
        if let (Some(count), Some((_, torn))) = (entries, self.pending.pop_front()) {
            self.write(torn, count);
        }
        self.pending.clear();
        self.parts.clear();
        self.begun = None;
        self.last_id = PersistId(0);
    }

    fn write(&mut self, persist: Persist, mut entries_left: usize) {
        self.floor = self.floor.max(persist.floor);
        if let Some(hard_state) = persist.hard_state {
            let terms = (self.hard_state.current_term, hard_state.current_term);
            assert!(terms.0 <= terms.1, "a term falls on disk");
            let first_vote = terms.0 < terms.1 || self.hard_state.voted_for.is_none();
            assert!(first_vote || self.hard_state == hard_state, "a vote changes on disk");
            self.hard_state = hard_state;
        }
        match persist.log {
            LogChange::Compact(Compaction { after, entries }) => {
                assert!(self.covers(after.index), "a log is cut behind a durable snapshot");
                self.log = Log::new(after, entries);
            }
            LogChange::Append { cut_from, entries } => {
                if let Some(from) = cut_from {
                    assert!(from > self.floor, "a cut below the floor: {from} is committed and was durable");
                    self.log.cut(from);
                }
                for run in entries {
                    let Some(kept) = first_entries(&run, entries_left) else { break };
                    entries_left -= kept.len();
                    assert!(kept.last().term <= self.hard_state.current_term, "the log is ahead of the term");
                    self.log.append(kept);
                }
            }
        }
        assert!(self.log.last().index >= self.floor || entries_left == 0, "the floor is above the log");
    }
}

fn first_entries(run: &Entries, count: usize) -> Option<Entries> {
    let before = run.before().index.0;
    let last = before.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    if count == 0 { None } else { run.ending_at(LogIndex(last)) }
}
