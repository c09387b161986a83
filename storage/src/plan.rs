//! Log planner: turns the core's persists into file operations.
//!
//! A runtime takes all waiting persists as a group, hands them to [`Planner::plan`], carries the
//! operations out in order, and reports the last persist of the group. The common group, which only
//! has new entries, becomes one append and one sync, however many persists it has.
//!
//! The operations follow the order of the persists, and within a persist the order of its fields. A
//! new term is on disk before any log change that comes with it or after it. A cut is on disk
//! before its replacement is appended, so that a crash never leaves new lines followed by old ones.
//! A crash at any point leaves the state after some prefix of the group.
//!
//! A compaction rewrites the log beside the old one, under a temporary name, and then replaces the
//! old one atomically. So a crash leaves the old log or the new one, each whole, and both are
//! valid, because the snapshot that covers the missing entries is on disk before. If the log
//! continues after the snapshot, the rewrite is no part of the persist and is done in pieces
//! between groups (see `renewal`). If a leader's snapshot replaces the log, it is done before
//! anything else.
//!
//! The planner reads nothing back. It knows the length of the log and the offsets of the entries
//! that may still be cut, those above the floor.

use std::collections::VecDeque;

use coracle_core::mutant::{self, Mutant};
use coracle_core::raft::{Compaction, Entries, HardState, LogIndex, LogPoint, NodeId, Persist};

use crate::files::{FileKind, FileName, FileOp, SyncPolicy, replace_meta};
use crate::header::LogHeader;
use crate::identity::Identity;
use crate::meta::Meta;

mod log_rewrite;

pub use log_rewrite::REWRITE_PIECE_BYTES;

use log_rewrite::{LogRewrite, Moved};

/// The most bytes of entries that wait for one sync, except for a single entry that is longer. A
/// planner never appends more before a sync, and a runtime should not add more persists to a group.
/// Chosen because a disk of 200 MB/s writes it in some 40 ms, well below an election timeout.
pub const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Plans the file operations of one node's log and metadata. See the module.
#[derive(Debug)]
pub struct Planner {
    identity: Identity,
    sync: SyncPolicy,
    hard_state: HardState,
    /// The floor in the metadata file. It may lie below the start of the log, if that was rewritten
    /// since.
    noted_floor: LogPoint,
    /// Entries up to here are never cut. At least the point that the log starts after, which a
    /// snapshot covers.
    floor: LogPoint,
    /// The offset in the file at which the line of `floor` ends.
    floor_end: u64,
    /// The entries above the floor.
    runs: VecDeque<Run>,
    last: LogPoint,
    len: u64,
    /// The rewrite of the log that is in progress.
    renewal: Option<LogRewrite>,
    /// The last piece of work was the last of a rewrite, which replaced the log.
    moved: Option<Moved>,
    renewal_bytes: usize,
}

#[derive(Debug)]
struct Run {
    /// The offset in the file at which the first of the entries starts.
    offset: u64,
    entries: Entries,
}

impl Run {
    fn end(&self) -> u64 {
        self.offset + self.entries.text().len() as u64
    }
}

/// A group of persists while it is turned into operations.
struct Group {
    ops: Vec<FileOp>,
    meta_is_due: bool,
    /// The file that entries are appended to: the log, or the one that is about to replace it.
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
    /// Creates a planner for a log that has only a header of `header_len` bytes and starts after
    /// `after`.
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
            renewal_bytes: REWRITE_PIECE_BYTES,
        }
    }

    /// Registers entries that the file holds already.
    pub(crate) fn resume_with(&mut self, entries: Entries) {
        self.add(entries);
    }

    /// Registers the floor that the metadata holds already; it may lie below the start of the log.
    pub(crate) fn resume_at(&mut self, floor: LogPoint) {
        self.raise_floor(floor.index);
        let is_right = self.floor == floor || floor.index < self.floor.index;
        assert!(is_right, "the log was checked against the floor");
        self.noted_floor = floor;
    }

    /// The node whose files this plans.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.identity.node
    }

    /// Returns the file operations that make a group of consecutive persists durable, in order.
    ///
    /// # Panics
    ///
    /// When a persist contradicts what was planned before: entries that do not continue the log or
    /// are of a term that was never persisted, a cut at or below a floor, a floor above the log, or
    /// a compaction that drops committed entries that its snapshot does not cover. Each is a bug
    /// that would otherwise destroy a log.
    #[must_use]
    pub fn plan(&mut self, persists: &[Persist]) -> Vec<FileOp> {
        let mut group = Group::new(self.log());
        self.moved = None;
        for persist in persists {
            if persist.compaction().is_none() {
                self.raise_floor(persist.floor);
            }
            if let Some(hard_state) = persist.hard_state {
                // Log changes of earlier persists come first. This term replaces a metadata write
                // that no log change has followed.
                group.flush();
                assert!(hard_state.current_term >= self.hard_state.current_term, "a term never falls");
                self.hard_state = hard_state;
                group.meta_is_due = true;
            }
            if group.meta_is_due && !persist.log.is_none() && !mutant::is_active(Mutant::TermAfterLog) {
                self.write_meta(&mut group);
            }
            if let Some(compaction) = persist.compaction()
                && !self.begin_renewal(compaction, persist.floor, &mut group)
            {
                // The floor is one of the new log; metadata written before still belongs to the old
                // log.
                self.compact(compaction, &mut group);
                self.raise_floor(persist.floor);
            }
            if let Some(from) = persist.cut_from() {
                group.flush();
                self.cut(from, &mut group);
            }
            for entries in persist.entries() {
                self.add(entries.clone());
                group.append(entries);
            }
        }
        write_log_first_by_mutant(&mut group);
        if group.meta_is_due {
            self.write_meta(&mut group);
        }
        group.flush();
        self.sync.apply(group.ops)
    }

    /// Returns the file operations of an orderly shutdown: they note the floor, so that the next
    /// start knows how much of the log must exist.
    #[must_use]
    pub fn close(&mut self) -> Vec<FileOp> {
        let mut group = Group::new(self.log());
        self.note_floor(&mut group);
        group.ops
    }

    /// Writes the metadata if the floor in it is out of date.
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

    /// Rewrites the log with the entries of the compaction and no others.
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

    /// Resets the planner to an empty log that starts after this point.
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

/// Deliberate bug: entries are written before their term is.
fn write_log_first_by_mutant(group: &mut Group) {
    if mutant::is_active(Mutant::TermAfterLog) {
        group.flush();
    }
}

#[cfg(test)]
mod tests;
