//! Turns what the core wants persisted into file operations.
//!
//! A runtime takes all persists that are waiting, a group, hands them to [`Planner::plan`], carries
//! the operations out in order, and reports the last persist of the group. The common group, new
//! entries and nothing else, becomes one append and one sync, however many persists it has.
//!
//! The order is that of the persists, and within one that of its fields: a new term is on disk
//! before any change of the log that came with it or after it, and a cut is on disk before anything
//! is appended in its place, so that a crash never leaves new lines followed by old ones. A crash
//! anywhere leaves the state after some prefix of the group.
//!
//! A compaction makes the log anew: beside the old one, under a temporary name, which then takes
//! its place in one step. So a crash leaves the old log or the new, each whole, and both are good:
//! the snapshot that stands for what the new one lacks is on disk before. Where the log goes on,
//! that is no part of the persist and happens in pieces between groups (see `renewal`); where a
//! leader's snapshot takes the place of the log, it is done before anything else.
//!
//! Deliberately blind: the planner reads nothing back. It knows the log's length and the offsets of
//! the entries that may still be cut, those above the floor.

use std::collections::VecDeque;

use coracle_core::mutant::{self, Mutant};
use coracle_core::raft::{Compaction, Entries, HardState, LogIndex, LogPoint, NodeId, Persist};

use crate::files::{FileKind, FileName, FileOp, SyncPolicy, replace_meta};
use crate::header::LogHeader;
use crate::identity::Identity;
use crate::meta::Meta;

mod renewal;

pub use renewal::RENEWAL_BYTES;

use renewal::{Moved, Renewal};

/// The most bytes of entries that wait for one sync, but for a single entry that is longer. A
/// planner never appends more than that before a sync; a runtime should stop adding persists to a
/// group before it. Chosen because a disk of 200 MB/s writes it in some 40 ms, well below an
/// election timeout.
pub const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Plans the file operations of one node. See the module.
#[derive(Debug)]
pub struct Planner {
    identity: Identity,
    sync: SyncPolicy,
    hard_state: HardState,
    /// The floor that stands in the metadata. It may lie below the start of the log, when that was
    /// made anew since.
    noted_floor: LogPoint,
    /// Entries up to here are never cut. At least the point that the log starts after, which a
    /// snapshot covers.
    floor: LogPoint,
    /// Where in the file the line of `floor` ends.
    floor_end: u64,
    /// The entries above the floor.
    runs: VecDeque<Run>,
    last: LogPoint,
    len: u64,
    /// The log that is being made anew beside this one.
    renewal: Option<Renewal>,
    /// The last piece of work has put it in the place of this one.
    moved: Option<Moved>,
    renewal_bytes: usize,
}

#[derive(Debug)]
struct Run {
    /// Where in the file the first of the entries starts.
    offset: u64,
    entries: Entries,
}

impl Run {
    fn end(&self) -> u64 {
        self.offset + self.entries.text().len() as u64
    }
}

/// A group on its way to operations.
struct Group {
    ops: Vec<FileOp>,
    meta_is_due: bool,
    /// Where entries are appended to: the log, or the one that is about to take its place.
    log: FileName,
    appended: Vec<Entries>,
    appended_bytes: usize,
}

impl Group {
    fn new(log: FileName) -> Self {
        Self { ops: Vec::new(), meta_is_due: false, log, appended: Vec::new(), appended_bytes: 0 }
    }

    /// Appends in pieces of at most [`GROUP_BYTES_MAX`], each synced before the next.
    fn append(&mut self, entries: &Entries) {
        let mut rest = Some(entries.clone());
        while let Some(entries) = rest.take() {
            let room = GROUP_BYTES_MAX.saturating_sub(self.appended_bytes);
            if entries.text().len() > room && !self.appended.is_empty() {
                self.flush();
                rest = Some(entries);
                continue;
            }
            let piece = entries.fitting(room);
            rest = entries.starting_at(piece.last().index.next());
            self.appended_bytes += piece.text().len();
            self.appended.push(piece);
        }
    }

    fn flush(&mut self) {
        if !self.appended.is_empty() {
            let (file, entries) = (self.log, std::mem::take(&mut self.appended));
            self.ops.extend([FileOp::Append { file, entries }, FileOp::Sync { file }]);
            self.appended_bytes = 0;
        }
    }
}

impl Planner {
    /// A planner for a log that has only a header of `header_len` bytes and starts after `after`.
    pub(crate) fn new(
        identity: Identity,
        hard_state: HardState,
        after: LogPoint,
        header_len: u64,
        sync: SyncPolicy,
    ) -> Self {
        Self {
            identity,
            sync,
            hard_state,
            noted_floor: after,
            floor: after,
            floor_end: header_len,
            runs: VecDeque::new(),
            last: after,
            len: header_len,
            renewal: None,
            moved: None,
            renewal_bytes: RENEWAL_BYTES,
        }
    }

    /// Takes over entries that the file holds already.
    pub(crate) fn resume_with(&mut self, entries: Entries) {
        self.add(entries);
    }

    /// Takes over a floor that the metadata holds already; it may lie below the start of the log.
    pub(crate) fn resume_at(&mut self, floor: LogPoint) {
        self.raise_floor(floor.index);
        let is_right = self.floor == floor || floor.index < self.floor.index;
        assert!(is_right, "the log was checked against the floor");
        self.noted_floor = floor;
    }

    /// Whose files these are.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.identity.node
    }

    /// The file operations that make a group of consecutive persists durable, in order.
    ///
    /// # Panics
    ///
    /// When a persist does not follow what was planned before: entries that do not continue the log
    /// or are of a term that was never persisted, a cut at or below a floor, a floor above the log,
    /// a compaction that drops what is committed and not covered by its snapshot. Each is a bug
    /// that would otherwise destroy a log.
    #[must_use]
    pub fn plan(&mut self, persists: &[Persist]) -> Vec<FileOp> {
        let mut group = Group::new(self.log());
        self.moved = None;
        for persist in persists {
            if persist.compaction.is_none() {
                self.raise_floor(persist.floor);
            }
            if let Some(hard_state) = persist.hard_state {
                // Log changes of earlier persists come first; this one replaces a metadata write
                // that nothing has come after.
                group.flush();
                assert!(hard_state.current_term >= self.hard_state.current_term, "a term never falls");
                self.hard_state = hard_state;
                group.meta_is_due = true;
            }
            let log_changes =
                persist.compaction.is_some() || persist.cut_from.is_some() || !persist.entries.is_empty();
            if group.meta_is_due && log_changes && !mutant::is_active(Mutant::TermAfterLog) {
                self.write_meta(&mut group);
            }
            if let Some(compaction) = &persist.compaction
                && !self.begin_renewal(compaction, persist.floor, &mut group)
            {
                // Its floor is one of the new log; the metadata before it still goes with the old.
                self.compact(compaction, &mut group);
                self.raise_floor(persist.floor);
            }
            if let Some(from) = persist.cut_from {
                group.flush();
                self.cut(from, &mut group);
            }
            for entries in &persist.entries {
                self.add(entries.clone());
                group.append(entries);
            }
        }
        if mutant::is_active(Mutant::TermAfterLog) {
            group.flush();
        }
        if group.meta_is_due {
            self.write_meta(&mut group);
        }
        group.flush();
        self.sync.apply(group.ops)
    }

    /// The file operations of an orderly stop: notes the floor, so that the next start knows how
    /// much of the log must be there.
    #[must_use]
    pub fn close(&mut self) -> Vec<FileOp> {
        let mut group = Group::new(self.log());
        self.note_floor(&mut group);
        group.ops
    }

    /// Writes the metadata if its floor is an older one.
    fn note_floor(&mut self, group: &mut Group) {
        if self.sync == SyncPolicy::Always && self.floor != self.noted_floor {
            self.write_meta(group);
        }
    }

    fn log(&self) -> FileName {
        FileName::new(self.identity.node, FileKind::Log)
    }

    fn raise_floor(&mut self, floor: LogIndex) {
        assert!(floor <= self.last.index, "a floor above the log: {floor} above {}", self.last.index);
        while let Some(run) = self.runs.front_mut()
            && run.entries.first_index() <= floor
        {
            let below = run.entries.ending_at(floor).expect("the first entry is not above the floor");
            self.floor = below.last();
            self.floor_end = run.offset + below.text().len() as u64;
            match run.entries.starting_at(floor.next()) {
                Some(above) => *run = Run { offset: self.floor_end, entries: above },
                None => drop(self.runs.pop_front()),
            }
        }
    }

    fn add(&mut self, entries: Entries) {
        assert_eq!(entries.before(), self.last, "entries continue the log");
        assert!(entries.last().term <= self.hard_state.current_term, "the term is persisted first");
        self.last = entries.last();
        if let Some(renewal) = &mut self.renewal {
            renewal.add(entries.clone());
        }
        let run = Run { offset: self.len, entries };
        self.len = run.end();
        self.runs.push_back(run);
    }

    /// Makes the log anew: what is in the compaction and nothing else.
    fn compact(&mut self, compaction: &Compaction, group: &mut Group) {
        let Compaction { after, entries } = compaction;
        assert!(after.term <= self.hard_state.current_term, "the term is persisted first");
        group.flush();
        self.renewal = None;
        let header = LogHeader { identity: self.identity.clone(), after: *after }.encode();
        let (log, floor) = (self.log(), self.floor);
        self.start_after(*after, header.len() as u64);
        group.log = FileName::new(self.identity.node, FileKind::LogTemporary);
        group.ops.push(FileOp::Create { file: group.log, bytes: header });
        if entries.is_empty() {
            group.ops.push(FileOp::Sync { file: group.log });
        }
        for entries in entries {
            self.add(entries.clone());
            group.append(entries);
        }
        group.flush();
        let from = std::mem::replace(&mut group.log, log);
        group.ops.extend([FileOp::Rename { from, to: log }, FileOp::SyncFolder]);
        self.raise_floor(floor.index);
        let is_kept = self.floor == floor || floor.index < after.index;
        assert!(is_kept, "a compaction after {} that changes the floor {}", after.index, floor.index);
    }

    /// The log is empty, and starts after this point.
    fn start_after(&mut self, after: LogPoint, header_len: u64) {
        (self.floor, self.floor_end) = (after, header_len);
        self.runs.clear();
        (self.last, self.len) = (after, header_len);
    }

    fn cut(&mut self, from: LogIndex, group: &mut Group) {
        assert!(from > self.floor.index, "a cut from {from} at or below the floor {}", self.floor.index);
        if from > self.last.index {
            return;
        }
        if let Some(renewal) = &mut self.renewal {
            renewal.cut(from);
        }
        (self.last, self.len) = (self.floor, self.floor_end);
        while let Some(mut run) = self.runs.pop_back() {
            if run.entries.first_index() < from {
                run.entries = run.entries.ending_at(from.previous()).expect("the first entry stays");
                (self.last, self.len) = (run.entries.last(), run.end());
                self.runs.push_back(run);
                break;
            }
        }
        let file = self.log();
        group.ops.extend([FileOp::Truncate { file, len: self.len }, FileOp::Sync { file }]);
    }

    fn write_meta(&mut self, group: &mut Group) {
        if self.sync == SyncPolicy::Always {
            self.noted_floor = self.floor;
        }
        let meta = Meta::new(&self.identity, self.hard_state, self.noted_floor);
        group.ops.extend(replace_meta(self.identity.node, meta.encode()));
        group.meta_is_due = false;
    }
}

#[cfg(test)]
mod tests;
