//! The outputs of a node: the requests to its runtime at the end of a turn.

use super::durability::Persist;
use super::event::Event;
use super::message::{Message, ReadBatch};
use super::snapshot::{SnapshotMeta, SnapshotPart};
use super::types::{LogIndex, LogPoint};

/// A request to the runtime. All outputs of a turn may be carried out at once, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write this, and report its id with [`Node::persisted`](super::Node::persisted) when it is
    /// durable.
    Persist(Persist),
    /// Send this message. It may be lost, delayed, repeated or reordered.
    Send(Message),
    /// Write this part of a snapshot, and build the state from it. Report it with
    /// [`Node::snapshot_written`](super::Node::snapshot_written): each part when it is written, the
    /// last one when the whole snapshot is durable. A part at offset 0 starts from scratch.
    WriteSnapshot(SnapshotPart),
    /// Read a part of this node's snapshot, and pass it to
    /// [`Node::snapshot_read`](super::Node::snapshot_read).
    ReadSnapshot {
        /// The snapshot's last entry.
        last: LogPoint,
        /// The offset in its content at which the part begins.
        offset: u64,
    },
    /// Replace the state with the one that was built from the parts.
    SnapshotInstalled(SnapshotMeta),
    /// The result of [`Node::read_index`](super::Node::read_index).
    ReadIndex {
        /// The reads that it is for.
        batch: ReadBatch,
        /// The reads may be answered once the log is applied up to this index. `None`: this node
        /// cannot find out; ask again or ask another node.
        index: Option<LogIndex>,
    },
    /// Report this event to anyone who listens.
    Event(Event),
}
