//! A snapshot that a follower is being sent (§7): how much of it is written, and whether it adds up
//! to what was sent.

use crate::mutant::{self, Mutant};
use crate::raft::snapshot::{SnapshotEnd, SnapshotMeta, SnapshotPart};
use crate::raft::types::Checksum;

/// A snapshot that is on its way to this node.
#[derive(Clone, Debug)]
pub(in crate::raft) struct Receiving {
    pub(in crate::raft) meta: SnapshotMeta,
    /// Bytes of content that are written.
    pub(in crate::raft) bytes: u64,
    /// Of the part that is being written: how many bytes, and whether it is the last one.
    pub(in crate::raft) writing: Option<(u64, bool)>,
    hasher: crc32fast::Hasher,
}

impl Receiving {
    pub(in crate::raft) fn new(meta: SnapshotMeta) -> Self {
        Self { meta, bytes: 0, writing: None, hasher: crc32fast::Hasher::new() }
    }

    /// Whether a part of it is on its way to the disk.
    pub(in crate::raft) fn is_written(&self) -> bool {
        self.writing.is_some()
    }

    /// Adds a part to what will have been received. `false`: all of it together is not what was
    /// sent.
    pub(in crate::raft) fn add(&mut self, part: &SnapshotPart) -> bool {
        self.hasher.update(part.text.as_bytes());
        let len = part.text.len() as u64;
        self.writing = Some((len, part.end.is_some()));
        let found =
            SnapshotEnd { bytes: self.bytes + len, checksum: Checksum(self.hasher.clone().finalize()) };
        part.end.is_none_or(|end| end == found) || mutant::is_active(Mutant::DamagedSnapshotTaken)
    }
}
