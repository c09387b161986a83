//! An incoming snapshot on a follower (§7): how much of it is written, and whether its content
//! matches the length and checksum of its sender.

use crate::mutant::{self, Mutant};
use crate::raft::snapshot::{SnapshotEnd, SnapshotMeta, SnapshotPart};
use crate::raft::types::Checksum;

/// A snapshot that this node is receiving.
#[derive(Clone, Debug)]
pub(in crate::raft) struct Receiving {
    pub(in crate::raft) meta: SnapshotMeta,
    /// The bytes of content that are written.
    pub(in crate::raft) bytes: u64,
    /// The part that is being written: its number of bytes, and whether it is the last one.
    pub(in crate::raft) writing: Option<(u64, bool)>,
    hasher: crc32fast::Hasher,
}

impl Receiving {
    pub(in crate::raft) fn new(meta: SnapshotMeta) -> Self {
        Self { meta, bytes: 0, writing: None, hasher: crc32fast::Hasher::new() }
    }

    /// Returns whether a part of it is being written.
    pub(in crate::raft) fn is_written(&self) -> bool {
        self.writing.is_some()
    }

    /// Adds a part, which is to be written next. Returns `false` if the content is complete with it
    /// and does not match the length and checksum of its sender.
    pub(in crate::raft) fn add(&mut self, part: &SnapshotPart) -> bool {
        self.hasher.update(part.text.as_bytes());
        let len = part.text.len() as u64;
        self.writing = Some((len, part.end.is_some()));
        let found =
            SnapshotEnd { bytes: self.bytes + len, checksum: Checksum(self.hasher.clone().finalize()) };
        part.end.is_none_or(|end| end == found) || mutant::is_active(Mutant::DamagedSnapshotTaken)
    }
}
