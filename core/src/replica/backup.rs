//! Backups: serves a node's snapshot to clients, part by part.
//!
//! A backup must hold everything that was acknowledged before it was requested. So a new backup
//! starts like a linearizable read, by learning the log index that it must cover. If the latest
//! snapshot does not cover that index, a new one is taken. Its parts are then read from the disk
//! one at a time, as for a follower that receives the snapshot. No part is kept in memory.
//!
//! Reading the frozen state page by page would be simpler, but only one frozen state can exist at a
//! time. A slow or vanished reader would block the snapshots that compact the log. A file does not
//! block them.
//!
//! While a client reads parts, this node takes no new snapshot of its state, within limits: it
//! would replace the one that is read, and the reader would have to begin again. A leader's
//! snapshot is accepted nevertheless.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Replica;
use super::interface::{Answer, Output, RequestId, RequestRefusal};
use crate::raft::{LogIndex, LogPoint, ReadBatch, SnapshotPart};
use crate::time::Instant;

/// The most readers that may wait for a part at once: each costs some hundred kilobytes of memory
/// and a read of the disk.
pub(super) const READERS_MAX: usize = 16;

/// How long the next snapshot is held back after a part was requested: the time that a slow reader
/// needs for one.
pub const BACKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the next snapshot is held back in total, even if parts are still requested. Arbitrary:
/// the log grows meanwhile.
pub const BACKUP_HOLD_MAX: Duration = Duration::from_secs(600);

/// The part of a backup that a client requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupPiece {
    /// The first part of a backup that holds everything that was acknowledged before this request.
    New,
    /// The first part of a backup that covers this log index: the retry after
    /// [`Answer::BackupPending`].
    Covering(LogIndex),
    /// A later part of a backup.
    At {
        /// The last entry that the backup covers.
        last: LogPoint,
        /// The number of bytes of content before the part.
        offset: u64,
    },
}

/// The state of a replica's backups.
#[derive(Debug, Default)]
pub(super) struct Backups {
    /// New backups that wait to learn the log index that they must cover, by read batch.
    unconfirmed: BTreeMap<ReadBatch, Vec<RequestId>>,
    /// The applied log index that a requested snapshot must cover.
    wanted: LogIndex,
    readers: Vec<Reader>,
    held: Option<Hold>,
}

/// A client that waits for a part.
#[derive(Debug)]
struct Reader {
    request: RequestId,
    last: LogPoint,
    offset: u64,
}

/// The reason to hold back the next snapshot: a backup of the one at `last`.
#[derive(Clone, Copy, Debug)]
struct Hold {
    last: LogPoint,
    since: Instant,
    asked: Instant,
}

impl Backups {
    /// Returns whether a snapshot that would replace the one at `last` must wait.
    pub(super) fn hold_back(&self, last: LogIndex, now: Instant) -> bool {
        self.held.is_some_and(|held| {
            let is_recent = now.since(held.asked) < BACKUP_TIMEOUT;
            held.last.index == last && is_recent && now.since(held.since) < BACKUP_HOLD_MAX
        })
    }

    /// Returns whether a backup requests a snapshot beyond the one at `last`.
    pub(super) fn want_beyond(&self, last: LogIndex) -> bool {
        self.wanted > last
    }

    fn hold(&mut self, last: LogPoint, now: Instant) {
        let since = self.held.filter(|held| held.last == last).map_or(now, |held| held.since);
        self.held = Some(Hold { last, since, asked: now });
    }
}

impl Replica {
    /// Handles a request for a part of a backup. `None`: the answer follows later.
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

    /// Continues the new backups of `batch`: the log index that they must cover is known, or cannot
    /// be learned on this node.
    pub(super) fn learn_backup_index(
        &mut self,
        batch: ReadBatch,
        index: Result<LogIndex, RequestRefusal>,
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
        // If a snapshot is being taken, it will replace the latest one, so the backup waits for it.
        let index = self.snapshots.under_way().map_or(index, |last| last.max(index));
        let latest = self.node.snapshot().map(|meta| meta.last).filter(|last| last.index >= index);
        if let Some(last) = latest {
            return self.read_backup(request, last, 0, now, outputs);
        }
        // A snapshot covers only applied entries. An index above that is not noted, because it may
        // never be reached, and would then request snapshots forever.
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
            return Some(Answer::Refused(RequestRefusal::BackupGone));
        }
        if self.backups.readers.len() >= READERS_MAX {
            return Some(Answer::Refused(RequestRefusal::Overloaded));
        }
        self.backups.hold(last, now);
        self.backups.readers.push(Reader { request, last, offset });
        outputs.push(Output::ReadSnapshot { last, offset });
        None
    }

    /// Notes that an own snapshot is durable. If a client waits for it, the next one must not begin
    /// before the client asks again.
    pub(super) fn keep_for_backup(&mut self, before: LogIndex, last: LogPoint, now: Instant) {
        if self.backups.want_beyond(before) && !self.backups.want_beyond(last.index) {
            self.backups.hold(last, now);
        }
    }

    /// Passes a part that was read to the backup readers that wait for it. The part may also have
    /// been read for a follower.
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
            None => Answer::Refused(RequestRefusal::BackupGone),
        };
        let readers = self.backups.readers.extract_if(.., waits);
        outputs.extend(readers.map(|reader| Output::Answer(reader.request, answer.clone())));
        // After the last part, or if the snapshot is gone, there is no reason to hold back the next
        // one.
        if part.is_none_or(|part| part.end.is_some()) {
            self.backups.held.take_if(|held| held.last == last);
        }
    }
}
