//! Turns the parts of a snapshot into file operations.
//!
//! ```text
//! part ─► plan_part ─► FileOp ─► snap0.txt.tmp ─► read back ─► publish ─► FileOp ─► snap0.txt
//! ```
//!
//! A snapshot is written beside the one before, under a temporary name, and takes its place only
//! once all of it is on disk, was read back, and is what arrived: [`SnapshotPlanner::publish`] asks
//! for the bytes that were read, so that no runtime can leave that out. Until then a crash leaves
//! the snapshot before as it was.
//!
//! A snapshot is large and nobody waits for it, unlike the log: so it may be written by another
//! thread, through another `Folder`, while the log is written; and never more than
//! [`SNAPSHOT_SYNC_BYTES`] wait for one sync, so that no sync of the log has to wait behind a long
//! one on the same disk.
//!
//! Deliberately not here: when the log is made anew behind the snapshot. That is the core's order,
//! after it was told that the snapshot is durable, and [`Planner`](crate::Planner)'s work.

use std::time::Duration;

use coracle_core::raft::{Checksum, LogIndex, SnapshotEnd, SnapshotMeta, SnapshotPart};
use crc32fast::Hasher;

use super::{SnapshotFault, SnapshotFile, SnapshotHeader, encode_end};
use crate::files::{FileKind, FileName, FileOp, SyncPolicy};
use crate::identity::Identity;

/// The most bytes of a snapshot that wait for one sync, but for a single part that is longer: a
/// part of the usual size. Chosen because a disk of 200 MB/s writes it in little more than a
/// millisecond, and every sync of a log may have to wait so long.
pub const SNAPSHOT_SYNC_BYTES: usize = 256 * 1024;

/// How many times as long as it took to write a part of a snapshot is rested before the next one.
/// Chosen because five nodes in turn are then still done long before the first is due again.
const RESTS: u32 = 3;
/// The longest rest. A disk that takes so long has other troubles, and the snapshot should end some
/// time.
const REST_MAX: Duration = Duration::from_millis(100);

/// How long to rest after a part of a snapshot that took `took` to write: so that a log on the same
/// disk has most of it, however fast that is, and a snapshot is a murmur for some seconds rather
/// than a bang.
#[must_use]
pub fn rest_after(took: Duration) -> Duration {
    (took * RESTS).min(REST_MAX)
}

/// Plans the snapshots of one node, one at a time. See the module.
#[derive(Clone, Debug)]
pub struct SnapshotPlanner {
    identity: Identity,
    sync: SyncPolicy,
    /// Where the snapshot ends that has the final name; the origin when there is none.
    published: LogIndex,
    begun: Option<Begun>,
}

/// The snapshot under way.
#[derive(Clone, Debug)]
struct Begun {
    meta: SnapshotMeta,
    bytes: u64,
    content: Hasher,
    /// Bytes that no sync was planned for.
    unsynced: usize,
    /// Whether every part so far was made of whole lines.
    has_whole_lines: bool,
    /// What the last part stated.
    end: Option<SnapshotEnd>,
}

/// Why a snapshot that was written does not count. The one before, if there is one, stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The parts are not what their sender says: it, or the way here, has broken them. Nothing is
    /// wrong with the disk.
    #[error(
        "the snapshot up to entry {last} arrived broken: {} bytes of content with the checksum {}, where {} bytes with \
         the checksum {} were announced", .found.bytes, .found.checksum, .stated.bytes, .stated.checksum
    )]
    Content {
        /// The last entry that it was to cover.
        last: LogIndex,
        /// What the last part stated.
        stated: SnapshotEnd,
        /// What the parts add up to.
        found: SnapshotEnd,
    },
    /// A part did not end in a line break. Nothing is wrong with the disk.
    #[error("the snapshot up to entry {last} arrived broken: a part of it is not made of whole lines")]
    PartOfALine {
        /// The last entry that it was to cover.
        last: LogIndex,
    },
    /// What was read back is broken: the disk does not hold what was written. The node should stop.
    #[error("{file} was written and cannot be read back: {fault}")]
    Damaged {
        /// The temporary file.
        file: FileName,
        /// What is wrong with it.
        fault: SnapshotFault,
    },
    /// What was read back is a whole snapshot, and another one. The node should stop.
    #[error("{file} was written, and what is read back is another snapshot")]
    Other {
        /// The temporary file.
        file: FileName,
    },
}

impl SnapshotPlanner {
    /// A planner for a node whose latest snapshot covers entries up to `published`; the origin when
    /// it has none.
    pub(crate) fn new(identity: Identity, published: LogIndex, sync: SyncPolicy) -> Self {
        Self { identity, sync, published, begun: None }
    }

    /// The file that is written, and to be read back after the last part.
    #[must_use]
    pub fn temporary(&self) -> FileName {
        FileName::new(self.identity.node, FileKind::SnapshotTemporary)
    }

    /// The file operations that write the next part, in order. A part at offset 0 begins a
    /// snapshot, and whatever was begun before is given up.
    ///
    /// After those of the last part, [`SnapshotPlanner::publish`] is due.
    ///
    /// # Panics
    ///
    /// When a part neither begins a snapshot nor follows the one before, or begins one that is
    /// older than the one that is published: each is a bug that would otherwise destroy a snapshot.
    #[must_use]
    pub fn plan_part(&mut self, part: &SnapshotPart) -> Vec<FileOp> {
        let file = self.temporary();
        let mut ops = Vec::new();
        if part.offset == 0 {
            let last = part.meta.last.index;
            assert!(last >= self.published, "a snapshot up to {last} after one up to {}", self.published);
            let header = SnapshotHeader::new(&self.identity, part.meta.clone());
            ops.push(FileOp::Create { file, bytes: header.encode() });
            self.begun = Some(Begun::new(part.meta.clone()));
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

    /// The file operations that make the snapshot the node's latest, once its last part is written:
    /// `read_back` is what [`SnapshotPlanner::temporary`] then holds. When they are carried out the
    /// snapshot is durable.
    ///
    /// # Errors
    ///
    /// [`PublishError`] says what is wrong with the snapshot, and whose fault it is. It is given
    /// up.
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
        let read = SnapshotFile::decode(read_back).map_err(|fault| PublishError::Damaged { file, fault })?;
        if (read.header, read.end) != (SnapshotHeader::new(&self.identity, begun.meta), stated) {
            return Err(PublishError::Other { file });
        }
        self.published = last;
        let to = FileName::new(self.identity.node, FileKind::Snapshot);
        Ok(self.sync.apply(vec![FileOp::Rename { from: file, to }, FileOp::SyncFolder]))
    }
}

impl Begun {
    fn new(meta: SnapshotMeta) -> Self {
        Self { meta, bytes: 0, content: Hasher::new(), unsynced: 0, has_whole_lines: true, end: None }
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
