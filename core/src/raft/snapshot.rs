//! Snapshots (§7): the state machine's state in place of the log that led to it.

use std::sync::Arc;

use super::batch::Entries;
use super::configuration::Configuration;
use super::types::{Checksum, LogPoint};

/// After how many election timeouts without any answer the log is no longer held for a follower.
/// Arbitrary: a connection that is lost and made anew takes one or two.
pub(super) const SILENCE_PATIENCE: u32 = 10;

/// What a snapshot stands for.
///
/// Its content is a function of the log up to `last`, so equal points mean equal content, whichever
/// node took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry that the snapshot covers.
    pub last: LogPoint,
    /// Who took part at that point.
    pub configuration: Configuration,
}

/// A piece of a snapshot's content, on its way to a disk or to a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPart {
    /// Which snapshot it is a part of.
    pub meta: SnapshotMeta,
    /// Bytes of content before it.
    pub offset: u64,
    /// Some of the content: whole lines, each with its line break. Only the last part may be empty.
    pub text: Arc<str>,
    /// In the last part: what all of the content adds up to.
    pub end: Option<SnapshotEnd>,
}

/// What tells whole content from broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotEnd {
    /// Bytes of content.
    pub bytes: u64,
    /// CRC-32 of all of it.
    pub checksum: Checksum,
}

/// A snapshot as it was found on the disk, whole and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredSnapshot {
    /// What it stands for.
    pub meta: SnapshotMeta,
    /// Its content.
    pub text: Arc<str>,
}

/// The log after a snapshot took the place of its beginning: exactly this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// The point that the log starts after: the end of a snapshot that is durable on this node.
    pub after: LogPoint,
    /// All entries after it.
    pub entries: Vec<Entries>,
}
