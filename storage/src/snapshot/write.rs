//! Snapshot planner: turns the parts of a snapshot into file operations.
//!
//! ```text
//! part ─► plan_part ─► FileOp ─► snap0.txt.tmp ─► read back ─► publish ─► FileOp ─► snap0.txt
//! ```
//!
//! A snapshot is written beside the previous one, under a temporary name. It replaces that only
//! once it is on disk, was read back, and matches the parts that arrived:
//! [`SnapshotPlanner::publish`] requires the bytes that were read back, so that no runtime can skip
//! the check. Until then a crash leaves the previous snapshot untouched.
//!
//! A snapshot is large and no client waits for it, unlike the log. So another thread may write it
//! through another `Folder`, concurrently with the log. At most [`SNAPSHOT_SYNC_BYTES`] wait for
//! one sync, so that a sync of the log never waits behind a long one on the same disk.
//!
//! Deliberately not here: when the log is rewritten behind the snapshot. The core orders that after
//! it was notified that the snapshot is durable, and [`Planner`](crate::Planner) does it.

use std::time::Duration;

use coracle_core::raft::{Checksum, LogIndex, SnapshotEnd, SnapshotMeta, SnapshotPart};
use crc32fast::Hasher;

use super::{SnapshotError, SnapshotFile, SnapshotHeader, encode_end};
use crate::files::{FileKind, FileName, FileOp, SyncPolicy};
use crate::identity::Identity;

/// The most bytes of a snapshot that wait for one sync, except for a single part that is longer: a
/// part of the usual size. Chosen because a disk of 200 MB/s writes it in little more than a
/// millisecond, and each sync of a log may have to wait as long.
pub const SNAPSHOT_SYNC_BYTES: usize = 256 * 1024;

/// The pause after each part of a snapshot, as a multiple of the time it took to write the part.
/// Chosen because five nodes in turn are then still done long before the first is due again.
const RESTS: u32 = 3;
/// The longest pause. A disk that is slower than this has other problems, and the snapshot has to
/// end eventually.
const REST_MAX: Duration = Duration::from_millis(100);

/// Returns the pause after a part of a snapshot that took `took` to write. It leaves a log on the
/// same disk most of the disk's time, however fast the disk is, and spreads the load of a snapshot
/// over some seconds.
#[must_use]
pub fn rest_after(took: Duration) -> Duration {
    (took * RESTS).min(REST_MAX)
}

/// Plans the snapshot files of one node, one snapshot at a time. See the module.
#[derive(Clone, Debug)]
pub struct SnapshotPlanner {
    identity: Identity,
    sync: SyncPolicy,
    /// The last entry of the snapshot that has the final name; the origin if there is none.
    published: LogIndex,
    begun: Option<Begun>,
}

/// The snapshot in progress.
#[derive(Clone, Debug)]
struct Begun {
    meta: SnapshotMeta,
    has_level: bool,
    bytes: u64,
    content: Hasher,
    /// The bytes that no planned sync covers yet.
    unsynced: usize,
    /// Whether every part so far consists of whole lines.
    has_whole_lines: bool,
    /// The end that the last part stated.
    end: Option<SnapshotEnd>,
}

/// Why a written snapshot cannot be used. The previous one, if there is one, stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The parts do not match what their sender stated: the sender or the network has corrupted
    /// them. The disk is intact.
    #[error(
        "the received snapshot up to entry {last} is damaged: {} bytes of content with the checksum {}, \
         where {} bytes with the checksum {} were announced", .found.bytes, .found.checksum, .stated.bytes, .stated.checksum
    )]
    Content {
        /// The last entry that it should cover.
        last: LogIndex,
        /// The size and checksum that the last part stated.
        stated: SnapshotEnd,
        /// The size and checksum of the parts.
        found: SnapshotEnd,
    },
    /// A part did not end in a line break. The disk is intact.
    #[error(
        "the received snapshot up to entry {last} is damaged: a part of it does not consist of whole lines"
    )]
    PartOfALine {
        /// The last entry that it should cover.
        last: LogIndex,
    },
    /// The bytes read back are broken: the disk does not hold what was written. The node should
    /// stop.
    #[error("{file} was written and cannot be read back: {fault}")]
    Damaged {
        /// The temporary file.
        file: FileName,
        /// The fault.
        fault: SnapshotError,
    },
    /// The bytes read back are another whole snapshot. The node should stop.
    #[error("{file} was written, but another snapshot was read back")]
    Other {
        /// The temporary file.
        file: FileName,
    },
}

impl SnapshotPlanner {
    /// Creates a planner for a node whose latest snapshot covers entries up to `published`; the
    /// origin if it has none.
    pub(crate) fn new(identity: Identity, published: LogIndex, sync: SyncPolicy) -> Self {
        Self { identity, sync, published, begun: None }
    }

    /// The file that is written, and that has to be read back after the last part.
    #[must_use]
    pub fn temporary(&self) -> FileName {
        FileName::new(self.identity.node, FileKind::SnapshotTemporary)
    }

    /// Returns the file operations that write the next part, in order. A part at offset 0 begins a
    /// snapshot and abandons one that was in progress.
    ///
    /// After the operations of the last part, the caller has to call [`SnapshotPlanner::publish`].
    ///
    /// # Panics
    ///
    /// When a part neither begins a snapshot nor follows the previous part, or begins a snapshot
    /// that is older than the published one: each is a bug that would otherwise destroy a snapshot.
    #[must_use]
    pub fn plan_part(&mut self, part: &SnapshotPart) -> Vec<FileOp> {
        let file = self.temporary();
        let mut ops = Vec::new();
        if part.offset == 0 {
            let last = part.meta.last.index;
            assert!(last >= self.published, "a snapshot up to {last} after one up to {}", self.published);
            let header = SnapshotHeader::new(&self.identity, part.meta.clone(), &part.text);
            ops.push(FileOp::Create { file, bytes: header.encode() });
            self.begun = Some(Begun::new(part.meta.clone(), header.has_level));
        }
        let begun = self.begun.as_mut().expect("a snapshot begins with its first part");
        let follows = (&begun.meta, begun.bytes, begun.end) == (&part.meta, part.offset, None);
        assert!(follows, "parts of a snapshot follow one another");
        begun.append(part, file, &mut ops);
        if let Some(end) = part.end {
            begun.end = Some(end);
            let last_line = String::from_utf8(encode_end(end)).expect("JSON is UTF-8");
            ops.extend([FileOp::AppendText { file, text: last_line.into() }, FileOp::Sync { file }]);
        }
        self.sync.apply(ops)
    }

    /// Returns the file operations that make the snapshot the node's latest, once its last part is
    /// written. `read_back` is the content of [`SnapshotPlanner::temporary`]. When the operations
    /// are carried out, the snapshot is durable.
    ///
    /// # Errors
    ///
    /// [`PublishError`] says what is wrong with the snapshot, and whether the disk is at fault. The
    /// snapshot is abandoned.
    ///
    /// # Panics
    ///
    /// When the last part was not planned yet.
    pub fn publish(&mut self, read_back: &[u8]) -> Result<Vec<FileOp>, PublishError> {
        let file = self.temporary();
        let begun = self.begun.take().expect("a snapshot was begun");
        let last = begun.meta.last.index;
        let stated = begun.end.expect("the last part comes before the end");
        let found = SnapshotEnd { bytes: begun.bytes, checksum: Checksum(begun.content.finalize()) };
        if found != stated {
            return Err(PublishError::Content { last, stated, found });
        }
        if !begun.has_whole_lines {
            return Err(PublishError::PartOfALine { last });
        }
        let header = SnapshotHeader::new(&self.identity, begun.meta, "");
        let header = SnapshotHeader { has_level: begun.has_level, ..header };
        let read = SnapshotFile::decode(read_back).map_err(|fault| PublishError::Damaged { file, fault })?;
        if (read.header, read.end) != (header, stated) {
            return Err(PublishError::Other { file });
        }
        self.published = last;
        let to = FileName::new(self.identity.node, FileKind::Snapshot);
        Ok(self.sync.apply(vec![FileOp::Rename { from: file, to }, FileOp::SyncFolder]))
    }
}

impl Begun {
    fn new(meta: SnapshotMeta, has_level: bool) -> Self {
        Self {
            meta,
            has_level,
            bytes: 0,
            content: Hasher::new(),
            unsynced: 0,
            has_whole_lines: true,
            end: None,
        }
    }

    fn append(&mut self, part: &SnapshotPart, file: FileName, ops: &mut Vec<FileOp>) {
        let text = &part.text;
        if text.is_empty() {
            return;
        }
        if self.unsynced > 0 && self.unsynced + text.len() > SNAPSHOT_SYNC_BYTES {
            ops.push(FileOp::Sync { file });
            self.unsynced = 0;
        }
        self.unsynced += text.len();
        self.bytes += text.len() as u64;
        self.content.update(text.as_bytes());
        self.has_whole_lines &= text.ends_with('\n');
        ops.push(FileOp::AppendText { file, text: text.clone() });
    }
}
