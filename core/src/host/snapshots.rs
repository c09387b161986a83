//! Snapshots in memory: the latest snapshot of a node without files, and the one being received or
//! written.
//!
//! No I/O is needed, so each order is answered at once, as an input of the node's next turn. With
//! files, the orders go to the snapshot work of the storage.

use crate::raft::{LogPoint, SnapshotPart};
use crate::replica::Input;

/// An order of a node about its snapshots.
#[derive(Clone, Debug)]
pub enum SnapshotOrder {
    /// Write this part; after the last part, make the snapshot the latest.
    Write(SnapshotPart),
    /// Read the part of the snapshot up to `last` that begins at byte `offset` of its content.
    Read {
        /// The snapshot's last entry.
        last: LogPoint,
        /// The byte offset of the part in its content.
        offset: u64,
    },
}

/// Returns the input that reports that `part` was written.
#[must_use]
pub fn snapshot_written(part: &SnapshotPart) -> Input {
    Input::SnapshotWritten { last: part.meta.last, bytes: part.offset + part.text.len() as u64 }
}

/// The snapshots of a node without files. See the module.
#[derive(Debug, Default)]
pub(super) struct MemorySnapshots {
    latest: Vec<SnapshotPart>,
    begun: Vec<SnapshotPart>,
    /// The bytes of text in both.
    bytes: usize,
}

impl MemorySnapshots {
    /// Returns the bytes of their text.
    pub(super) fn text_bytes(&self) -> usize {
        self.bytes
    }

    /// Carries an order out, and returns the input that reports it.
    pub(super) fn carry_out(&mut self, order: SnapshotOrder) -> Input {
        match order {
            SnapshotOrder::Write(part) => {
                let (is_first, is_last) = (part.offset == 0, part.end.is_some());
                let written = snapshot_written(&part);
                if is_first {
                    self.bytes -= bytes_of(&self.begun);
                    self.begun.clear();
                }
                self.bytes += part.text.len();
                self.begun.push(part);
                if is_last {
                    self.bytes -= bytes_of(&self.latest);
                    self.latest = std::mem::take(&mut self.begun);
                }
                written
            }
            SnapshotOrder::Read { last, offset } => {
                // All nodes of this process cut a snapshot at the same offsets, so a requested part
                // is one of the stored parts.
                let is_it = |part: &&SnapshotPart| (part.meta.last, part.offset) == (last, offset);
                Input::SnapshotRead { last, offset, part: self.latest.iter().find(is_it).cloned() }
            }
        }
    }
}

fn bytes_of(parts: &[SnapshotPart]) -> usize {
    parts.iter().map(|part| part.text.len()).sum()
}
