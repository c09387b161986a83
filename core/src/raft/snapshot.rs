//! Snapshots (§7): the state of the state machine at one log index, which replaces the log up to
//! it.

use std::sync::Arc;

use super::batch::Entries;
use super::configuration::Configuration;
use super::types::{Checksum, LogPoint};

/// The number of election timeouts without any answer after which the log is no longer kept for a
/// follower. Arbitrary: to lose a connection and make it again takes one or two.
pub(super) const SILENCE_TIMEOUTS_MAX: u32 = 10;

/// The metadata of a snapshot.
///
/// The content of a snapshot is a function of the log up to `last`, so equal points mean equal
/// content, whichever node took the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry that the snapshot covers.
    pub last: LogPoint,
    /// The configuration at that point.
    pub configuration: Configuration,
}

/// A part of the content of a snapshot, on its way to a disk or to a follower; or the
/// [question](Self::question) to a follower how much of the content it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPart {
    /// The snapshot that it belongs to.
    pub meta: SnapshotMeta,
    /// Its offset: the bytes of content before it.
    pub offset: u64,
    /// Its share of the content: whole lines, each with its line break. Only the last part and the
    /// question may be empty.
    pub text: Arc<str>,
    /// In the last part: the length and checksum of the whole content.
    pub end: Option<SnapshotEnd>,
}

impl SnapshotPart {
    /// The question to a follower, how much of this snapshot it already has: a part without text
    /// that is not the last one. It is written to no disk.
    #[must_use]
    pub fn question(meta: SnapshotMeta) -> Self {
        Self { meta, offset: 0, text: "".into(), end: None }
    }

    /// Returns whether this is the question to a follower, and not a share of the content.
    #[must_use]
    pub fn is_question(&self) -> bool {
        self.text.is_empty() && self.end.is_none()
    }
}

/// The length and checksum by which complete content is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotEnd {
    /// The length of the content in bytes.
    pub bytes: u64,
    /// The CRC-32 of the whole content.
    pub checksum: Checksum,
}

/// A snapshot from the disk, complete and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredSnapshot {
    /// Its metadata.
    pub meta: SnapshotMeta,
    /// The whole content.
    pub text: Arc<str>,
}

/// The log in the form that replaces the one on disk once a snapshot covers its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// The point that the log starts after: the end of a snapshot that is durable on this node.
    pub after: LogPoint,
    /// All entries after that point.
    pub entries: Vec<Entries>,
}
