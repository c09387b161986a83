//! Log rewrite behind a snapshot of this node's log, one piece at a time (compaction).
//!
//! ```text
//! log00.txt      |■■■■■■■■■■■ in the snapshot ■■■■■■■■■■■|■■■ after it ■■■|■ new persists go on here ►
//! log00.txt.tmp                                          |■■■ copied ■■■►
//! ```
//!
//! The old log keeps every entry that is still needed, so no client waits: persists are appended to
//! the old log. Between two groups of persists, a piece of the entries after the snapshot is copied
//! to the new log and synced. When the rest is no longer than one piece, it is copied as well and
//! the new log replaces the old one, with no persist in between. Until then the old log is in use,
//! and a crash leaves it so, with a temporary file that is never read.
//!
//! Only entries above the floor can be cut, and only entries up to the floor are copied before the
//! last piece. So copied entries never change.

use std::collections::VecDeque;

use coracle_core::raft::{Compaction, Entries, LogIndex, LogPoint};

use super::{Group, Planner};
use crate::files::{FileKind, FileName, FileOp};
use crate::header::LogHeader;

/// The default for the least bytes that are copied between two groups of persists, if as much is
/// left. Chosen because the next group then waits for some milliseconds at most, on a disk of 100
/// MB/s.
pub const REWRITE_PIECE_BYTES: usize = 256 * 1024;

/// A log rewrite in progress.
#[derive(Debug)]
pub(super) struct LogRewrite {
    after: LogPoint,
    file: FileName,
    piece_bytes_min: usize,
    /// The bytes of the new log so far; 0 before it is created.
    len: u64,
    /// The entries that are not copied yet, in order.
    rest: VecDeque<Entries>,
    rest_bytes: usize,
    /// The bytes of entries that were added since the last piece.
    added_bytes: usize,
}

/// The changes that replacing the log made to the planner, so that they can be undone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    old_len: u64,
    new_len: u64,
    noted_floor: LogPoint,
}

impl LogRewrite {
    pub(super) fn new(compaction: &Compaction, file: FileName, piece_bytes_min: usize) -> Self {
        let Compaction { after, entries } = compaction;
        let rest_bytes = entries.iter().map(|run| run.text().len()).sum();
        let rest = entries.iter().cloned().collect();
        Self { after: *after, file, piece_bytes_min, len: 0, rest, rest_bytes, added_bytes: 0 }
    }

    /// Adds entries that were appended to the log.
    pub(super) fn add(&mut self, entries: Entries) {
        self.rest_bytes += entries.text().len();
        self.added_bytes += entries.text().len();
        self.rest.push_back(entries);
    }

    /// Removes the entries from `from` on, which were cut off the log.
    pub(super) fn cut(&mut self, from: LogIndex) {
        while let Some(run) = self.rest.pop_back_if(|run| run.last().index >= from) {
            self.rest_bytes -= run.text().len();
            if let Some(kept) = run.ending_at(from.previous()) {
                self.rest_bytes += kept.text().len();
                self.rest.push_back(kept);
                break;
            }
        }
    }

    /// The size of the next piece. It is more than was added since the last piece: otherwise the
    /// rewrite might never end.
    fn piece_bytes(&self) -> usize {
        self.piece_bytes_min.max(2 * self.added_bytes)
    }

    fn is_last_piece(&self) -> bool {
        self.rest_bytes <= self.piece_bytes()
    }

    /// Whether there are entries that can be copied now.
    fn can_go_on(&self, floor: LogIndex) -> bool {
        self.is_last_piece() || self.rest.front().is_some_and(|run| run.first_index() <= floor)
    }

    /// Removes entries up to `floor` from the rest, about `bytes_max` bytes but at least one entry
    /// if there is any.
    fn take(&mut self, floor: LogIndex, bytes_max: usize) -> Vec<Entries> {
        let mut taken = Vec::new();
        let mut room = bytes_max;
        while let Some(run) = self.rest.pop_front() {
            let fits = run.ending_at(floor).map(|run| run.fitting(room));
            let Some(piece) = fits.filter(|piece| taken.is_empty() || piece.text().len() <= room) else {
                self.rest.push_front(run);
                break;
            };
            room = room.saturating_sub(piece.text().len());
            self.rest_bytes -= piece.text().len();
            let above = run.starting_at(piece.last().index.next());
            taken.push(piece);
            if let Some(above) = above {
                self.rest.push_front(above);
                break;
            }
        }
        taken
    }
}

impl Planner {
    /// Begins a rewrite beside the old log, if that is possible: the log must only gain entries by
    /// it, and all entries that it will drop must be committed and in the snapshot.
    pub(super) fn begin_renewal(
        &mut self,
        compaction: &Compaction,
        floor: LogIndex,
        group: &mut Group,
    ) -> bool {
        let Compaction { after, entries } = compaction;
        let found = if after.index == self.last.index {
            Some(*after)
        } else {
            let later = entries.partition_point(|run| run.last().index < self.last.index);
            entries.get(later).and_then(|run| run.point_at(self.last.index))
        };
        if found != Some(self.last) || floor < after.index {
            return false;
        }
        self.raise_floor(floor);
        self.renewal = None;
        for run in entries {
            if let Some(new) = run.starting_at(self.last.index.next()) {
                self.add(new.clone());
                group.append(&new);
            }
        }
        let file = FileName::new(self.node(), FileKind::LogTemporary);
        self.renewal = Some(LogRewrite::new(compaction, file, self.renewal_bytes));
        true
    }

    /// Sets the least bytes that each piece of a log rewrite copies, instead of
    /// [`REWRITE_PIECE_BYTES`].
    pub fn set_renewal_bytes(&mut self, bytes: usize) {
        self.renewal_bytes = bytes;
    }

    /// Whether [`Planner::renew`] has work to return.
    #[must_use]
    pub fn can_renew(&self) -> bool {
        self.renewal.as_ref().is_some_and(|renewal| renewal.can_go_on(self.floor.index))
    }

    /// Returns the file operations of the next piece of a log rewrite, to be carried out between
    /// two groups of persists; empty if there is none.
    #[must_use]
    pub fn renew(&mut self) -> Vec<FileOp> {
        let floor = self.floor.index;
        self.moved = None;
        let Some(mut renewal) = self.renewal.take_if(|renewal| renewal.can_go_on(floor)) else {
            return Vec::new();
        };
        let file = renewal.file;
        let mut group = Group::new(file);
        if renewal.len == 0 {
            let header = LogHeader { identity: self.identity.clone(), after: renewal.after }.encode();
            renewal.len = header.len() as u64;
            group.ops.push(FileOp::Create { file, bytes: header });
        }
        let is_last = renewal.is_last_piece();
        let (up_to, bytes) =
            if is_last { (self.last.index, usize::MAX) } else { (floor, renewal.piece_bytes()) };
        let piece = renewal.take(up_to, bytes);
        renewal.added_bytes = 0;
        if piece.is_empty() {
            group.ops.push(FileOp::Sync { file });
        }
        for entries in piece {
            renewal.len += entries.text().len() as u64;
            group.append(&entries);
        }
        group.flush();
        if is_last {
            group.ops.extend([FileOp::Rename { from: file, to: self.log() }, FileOp::SyncFolder]);
            self.moved =
                Some(Moved { old_len: self.len, new_len: renewal.len, noted_floor: self.noted_floor });
            self.move_to(&renewal);
            // A floor below the start of the new log would prove nothing.
            self.note_floor(&mut group);
        } else {
            self.renewal = Some(renewal);
        }
        self.sync.apply(group.ops)
    }

    /// Abandons the rewrite, because its last piece failed before the new log replaced the old one.
    /// The next snapshot begins another.
    pub(crate) fn give_up_renewal(&mut self) {
        self.renewal = None;
        if let Some(Moved { old_len, new_len, noted_floor }) = self.moved.take() {
            self.noted_floor = noted_floor;
            self.len = old_len;
            let back = |offset: u64| offset + old_len - new_len;
            self.floor_end = back(self.floor_end);
            for run in &mut self.runs {
                run.offset = back(run.offset);
            }
        }
    }

    /// Moves the offsets to those of the new log, which has replaced the old one.
    fn move_to(&mut self, renewal: &LogRewrite) {
        assert!(renewal.rest.is_empty(), "the new log ends where the old one does");
        assert!(self.floor.index >= renewal.after.index, "a floor never falls");
        let old_len = std::mem::replace(&mut self.len, renewal.len);
        let moved = |offset: u64| offset + renewal.len - old_len;
        self.floor_end = moved(self.floor_end);
        for run in &mut self.runs {
            run.offset = moved(run.offset);
        }
    }
}
