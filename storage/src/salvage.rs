//! Salvage: makes a backup from the files of a cluster in one process that is not running and may
//! have lost some of its nodes.
//!
//! It uses the node that [`Surveyor::most_up_to_date`](crate::Surveyor::most_up_to_date) has found:
//! its snapshot, and all of its log behind it. Uncommitted entries are applied as well: no client
//! was told that they failed, and the next leader might have committed them.
//!
//! This module does no I/O: it returns the pieces of the file, and the caller writes them.

use coracle_core::kv::{Revision, SessionLimits, State, StateLineError, Write};
use coracle_core::raft::{Checksum, Entry};
use coracle_core::raft::{
    Configuration, Entries, EntryKind, LogPoint, Restored, SnapshotEnd, SnapshotMeta, Voters,
};

use crate::backup::backup_header;
use crate::recover::Recovery;
use crate::snapshot::encode_end;

/// The bytes of content in a piece, except for a line that is longer. An arbitrary value.
const PIECE_BYTES: usize = 256 << 10;

/// A backup that is being made: an iterator over the pieces of its file, in order.
#[derive(Debug)]
pub struct Salvage {
    state: State,
    last: LogPoint,
    /// The metadata, until the first piece is made.
    meta: Option<SnapshotMeta>,
    bytes: u64,
    hasher: crc32fast::Hasher,
    is_whole: bool,
}

impl Salvage {
    /// Applies the node's snapshot and log to a state machine.
    ///
    /// # Panics
    ///
    /// When the node's recovery was changed: its content was validated then.
    #[must_use]
    pub fn new(recovery: &Recovery) -> Self {
        let Restored { snapshot, log, log_start, .. } = &recovery.restored;
        let mut state = State::new(SessionLimits::default());
        let mut covered = *log_start;
        if let Some(snapshot) = snapshot {
            covered = snapshot.meta.last;
            let restored: Result<(), StateLineError> =
                snapshot.text.lines().try_for_each(|line| state.restore(line));
            restored.expect("a snapshot is checked when a node is recovered");
        }
        let behind =
            |entry: &Entry<'_>| entry.point.index > covered.index && entry.kind() == EntryKind::Command;
        for entry in log.iter().flat_map(Entries::iter).filter(behind) {
            let write = Write::checked(entry.payload).expect("a log is checked when a node is recovered");
            state.apply(&write, Revision(entry.point.index.0));
        }
        let last = log.last().map_or(covered, Entries::last);
        let founders = Voters::new(recovery.identity.voters.iter().copied());
        let configuration = Configuration::of_voters(founders.expect("a header names one to nine voters"));
        let meta = SnapshotMeta { last, configuration };
        state.freeze();
        Self { state, last, meta: Some(meta), bytes: 0, hasher: crc32fast::Hasher::new(), is_whole: false }
    }

    /// The last entry in the backup.
    #[must_use]
    pub fn reaches(&self) -> LogPoint {
        self.last
    }

    /// The bytes of content returned so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Iterator for Salvage {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.is_whole {
            return None;
        }
        let mut text = String::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
        self.is_whole = self.state.read_frozen(&mut text, PIECE_BYTES);
        self.hasher.update(text.as_bytes());
        self.bytes += text.len() as u64;
        let header = self.meta.take().map(|meta| backup_header(meta, &text));
        let mut piece = header.unwrap_or_default();
        piece.extend_from_slice(text.as_bytes());
        if self.is_whole {
            let checksum = Checksum(self.hasher.clone().finalize());
            piece.extend(encode_end(SnapshotEnd { bytes: self.bytes, checksum }));
        }
        Some(piece)
    }
}
