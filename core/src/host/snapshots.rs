//! Snapshots in memory: the latest one of a node without files, and the one that is on its way.
//!
//! There is nothing to wait for, so an order is answered at once, for the node's next turn. With
//! files, the orders go to the storage's snapshot work.

use crate::raft::{LogPoint, SnapshotPart};
use crate::replica::Input;

/// What a node wants done with its snapshots.
#[derive(Clone, Debug)]
pub enum SnapshotOrder {
    /// Write this part; with its end, make the snapshot the latest.
    Write(SnapshotPart),
    /// Read the part of the snapshot up to `last` that begins at byte `offset` of its content.
    Read {
        /// The snapshot's last entry.
        last: LogPoint,
        /// Where in its content the part begins.
        offset: u64,
    },
}

/// What to report when `part` is written.
#[must_use]
pub fn snapshot_written(part: &SnapshotPart) -> Input {
    Input::SnapshotWritten { last: part.meta.last, bytes: part.offset + part.text.len() as u64 }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct MemorySnapshots {
    latest: Vec<SnapshotPart>,
    begun: Vec<SnapshotPart>,
    /// Of the text of both.
    bytes: usize,
}

impl MemorySnapshots {
    /// Bytes of their text.
    pub(super) fn text_bytes(&self) -> usize {
        self.bytes
    }

    /// Carries an order out.
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
                // Every node of this process cuts a snapshot at the same places, so a part that is
                // asked for is a part.
                let is_it = |part: &&SnapshotPart| (part.meta.last, part.offset) == (last, offset);
                Input::SnapshotRead { last, offset, part: self.latest.iter().find(is_it).cloned() }
            }
        }
    }
}

fn bytes_of(parts: &[SnapshotPart]) -> usize {
    parts.iter().map(|part| part.text.len()).sum()
}
