//! What a node asks of its runtime when a turn ends.

use super::durability::Persist;
use super::event::Event;
use super::message::{Message, ReadBatch};
use super::snapshot::{SnapshotMeta, SnapshotPart};
use super::types::{LogIndex, LogPoint};

/// What a turn asks its runtime to do. All of it may be done at once, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write this and report its id with [`Node::persisted`](super::Node::persisted) when it is
    /// durable.
    Persist(Persist),
    /// Send this. It may be lost, late, doubled and overtaken.
    Send(Message),
    /// Write this part of a snapshot, and build the state from it. Report it with
    /// [`Node::snapshot_written`](super::Node::snapshot_written): the parts as they are written,
    /// the last one when the whole snapshot is durable. A part at offset 0 begins anew.
    WriteSnapshot(SnapshotPart),
    /// Hand over a part of this node's snapshot with
    /// [`Node::snapshot_read`](super::Node::snapshot_read).
    ReadSnapshot {
        /// The snapshot's last entry.
        last: LogPoint,
        /// Where in its content the part begins.
        offset: u64,
    },
    /// The state that was built from the parts is the state from now on.
    SnapshotInstalled(SnapshotMeta),
    /// The outcome of [`Node::read_index`](super::Node::read_index).
    ReadIndex {
        /// Which reads.
        batch: ReadBatch,
        /// They may be answered once this much is applied; `None`: this node cannot find out. Ask
        /// again, or elsewhere.
        index: Option<LogIndex>,
    },
    /// Tell whoever wants to know.
    Event(Event),
}
