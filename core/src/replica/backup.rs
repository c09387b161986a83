//! Backups: a node's snapshot, handed out in parts to whoever asks.
//!
//! A backup has to hold everything that was acknowledged before it was asked for. So a new one
//! begins as a linearizable read does, by learning how far the log has to be covered; a snapshot
//! that covers as much is taken unless there is one; and its parts are read from the disk one at a
//! time, as for a follower that is sent it. Nothing of it is kept in memory.
//!
//! Why not pages of the state as it is frozen for a snapshot: there is one such moment at a time,
//! and a reader who is slow, or gone, would keep it from the snapshots that the log waits for. A
//! file waits for nobody.
//!
//! While parts are asked for the next snapshot of this node's own is held back, within limits: it
//! would take the place of the one that is read, and the reader would have to begin anew. A
//! leader's snapshot is not.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Replica;
use super::face::{Answer, Output, Refused, RequestId};
use crate::raft::{LogIndex, LogPoint, ReadBatch, SnapshotPart};
use crate::time::Instant;

/// How many readers may wait for a part at once: each is some hundred kilobytes in memory, and a
/// read of the disk.
pub(super) const READERS_MAX: usize = 16;

/// How long the next snapshot is held back after a part was asked for: the time that a slow reader
/// takes for one.
pub const BACKUP_PATIENCE: Duration = Duration::from_secs(10);

/// How long it is held back in all, whatever is asked for. Arbitrary: the log grows meanwhile.
pub const BACKUP_HOLD_MAX: Duration = Duration::from_secs(600);

/// What of a backup is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupPiece {
    /// The beginning of one that holds all that anybody had an answer to when this was asked.
    New,
    /// The beginning of one that covers this much of the log: asked again after
    /// [`Answer::BackupPending`].
    Covering(LogIndex),
    /// What follows in one that was begun.
    At {
        /// The last entry that it covers.
        last: LogPoint,
        /// Bytes of content that came before.
        offset: u64,
    },
}

/// A replica's backups.
#[derive(Debug, Default)]
pub(super) struct Backups {
    /// New ones that wait until it is known how much they have to cover.
    unconfirmed: BTreeMap<ReadBatch, Vec<RequestId>>,
    /// A snapshot that covers this, which is applied, is asked for.
    wanted: LogIndex,
    readers: Vec<Reader>,
    held: Option<Hold>,
}

/// Somebody who waits for a part.
#[derive(Debug)]
struct Reader {
    request: RequestId,
    last: LogPoint,
    offset: u64,
}

/// Why the next snapshot is held back.
#[derive(Clone, Copy, Debug)]
struct Hold {
    last: LogPoint,
    since: Instant,
    asked: Instant,
}

impl Backups {
    /// Whether a snapshot that takes the place of the one at `last` has to wait.
    pub(super) fn hold_back(&self, last: LogIndex, now: Instant) -> bool {
        self.held.is_some_and(|held| {
            let is_recent = now.since(held.asked) < BACKUP_PATIENCE;
            held.last.index == last && is_recent && now.since(held.since) < BACKUP_HOLD_MAX
        })
    }

    /// Whether a snapshot beyond the one at `last` is asked for.
    pub(super) fn want_beyond(&self, last: LogIndex) -> bool {
        self.wanted > last
    }

    fn hold(&mut self, last: LogPoint, now: Instant) {
        let since = self.held.filter(|held| held.last == last).map_or(now, |held| held.since);
        self.held = Some(Hold { last, since, asked: now });
    }
}

impl Replica {
    /// Takes a request for a piece of a backup. `None`: it is answered later.
    pub(super) fn back_up(
        &mut self,
        request: RequestId,
        piece: BackupPiece,
        now: Instant,
        outputs: &mut Vec<Output>,
    ) -> Option<Answer> {
        match piece {
            BackupPiece::New => {
                let batch = self.node.read_index();
                self.backups.unconfirmed.entry(batch).or_default().push(request);
                None
            }
            BackupPiece::Covering(index) => self.begin_backup(request, index, now, outputs),
            BackupPiece::At { last, offset } => self.read_backup(request, last, offset, now, outputs),
        }
    }

    /// It is known how much of the log the new backups of `batch` have to cover, or that it cannot
    /// be known here.
    pub(super) fn learn_backup_index(
        &mut self,
        batch: ReadBatch,
        index: Result<LogIndex, Refused>,
        now: Instant,
        outputs: &mut Vec<Output>,
    ) {
        for request in self.backups.unconfirmed.remove(&batch).unwrap_or_default() {
            let answer = match index {
                Ok(index) => self.begin_backup(request, index, now, outputs),
                Err(refused) => Some(Answer::Refused(refused)),
            };
            outputs.extend(answer.map(|answer| Output::Answer(request, answer)));
        }
    }

    fn begin_backup(
        &mut self,
        request: RequestId,
        index: LogIndex,
        now: Instant,
        outputs: &mut Vec<Output>,
    ) -> Option<Answer> {
        // The latest one would be replaced while it is read if another is on its way already.
        let index = self.snapshots.under_way().map_or(index, |last| last.max(index));
        let latest = self.node.snapshot().map(|meta| meta.last).filter(|last| last.index >= index);
        if let Some(last) = latest {
            return self.read_backup(request, last, 0, now, outputs);
        }
        // What is not applied yet cannot be had now, and an index that nobody will ever reach must
        // not stand for it.
        if index <= self.last_applied {
            self.backups.wanted = self.backups.wanted.max(index);
        }
        Some(Answer::BackupPending(index))
    }

    fn read_backup(
        &mut self,
        request: RequestId,
        last: LogPoint,
        offset: u64,
        now: Instant,
        outputs: &mut Vec<Output>,
    ) -> Option<Answer> {
        if self.node.snapshot().is_none_or(|meta| meta.last != last) {
            return Some(Answer::Refused(Refused::BackupGone));
        }
        if self.backups.readers.len() >= READERS_MAX {
            return Some(Answer::Refused(Refused::Overloaded));
        }
        self.backups.hold(last, now);
        self.backups.readers.push(Reader { request, last, offset });
        outputs.push(Output::ReadSnapshot { last, offset });
        None
    }

    /// A snapshot of this replica's own is durable. If somebody waits for it, the next one must not
    /// begin before they are back.
    pub(super) fn keep_for_backup(&mut self, before: LogIndex, last: LogPoint, now: Instant) {
        if self.backups.want_beyond(before) && !self.backups.want_beyond(last.index) {
            self.backups.hold(last, now);
        }
    }

    /// A part of a snapshot was read, for a reader of a backup or for a follower.
    pub(super) fn give_backup_part(
        &mut self,
        last: LogPoint,
        offset: u64,
        part: Option<&SnapshotPart>,
        outputs: &mut Vec<Output>,
    ) {
        let waits = |reader: &mut Reader| (reader.last, reader.offset) == (last, offset);
        let answer = match part {
            Some(part) => Answer::BackupPart(Box::new(part.clone())),
            None => Answer::Refused(Refused::BackupGone),
        };
        let readers = self.backups.readers.extract_if(.., waits);
        outputs.extend(readers.map(|reader| Output::Answer(reader.request, answer.clone())));
        // Who has the end has no need of it any more.
        if part.is_none_or(|part| part.end.is_some()) {
            self.backups.held.take_if(|held| held.last == last);
        }
    }
}
