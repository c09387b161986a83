//! Memory use by purpose: the names of the purposes, and the bytes used for each.

use std::fmt;

/// A purpose for which memory is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Keys, values and the log.
    Data,
    /// The session table.
    Sessions,
    /// Snapshots that are being assembled or read back, and the log that is kept for followers.
    Snapshots,
    /// Links to other nodes, inboxes, and incomplete frames.
    Peers,
    /// Connections, whatever is sent over them.
    Connections,
    /// Incomplete lines.
    HalfLines,
    /// Requests in flight.
    Requests,
    /// Replies that clients have not read.
    Replies,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "keys, values and the log",
            Self::Sessions => "sessions",
            Self::Snapshots => "snapshots and the log that is kept for followers",
            Self::Peers => "frames to and from other nodes",
            Self::Connections => "connections",
            Self::HalfLines => "incomplete request lines",
            Self::Requests => "requests in flight",
            Self::Replies => "replies that clients have not read",
        })
    }
}

/// The bytes used for each purpose. See [`Holder`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// See [`Holder::Data`].
    pub data: usize,
    /// See [`Holder::Sessions`].
    pub sessions: usize,
    /// See [`Holder::Snapshots`].
    pub snapshots: usize,
    /// See [`Holder::Peers`].
    pub peers: usize,
    /// See [`Holder::Connections`].
    pub connections: usize,
    /// See [`Holder::HalfLines`].
    pub half_lines: usize,
    /// See [`Holder::Requests`].
    pub requests: usize,
    /// See [`Holder::Replies`].
    pub replies: usize,
}

impl MemoryUse {
    pub(super) fn of_clients(&self) -> usize {
        self.connections + self.half_lines + self.requests + self.replies
    }

    /// The memory of the nodes, and of the connections between them.
    pub(super) fn of_nodes(&self) -> usize {
        self.data.saturating_add(self.sessions).saturating_add(self.snapshots).saturating_add(self.peers)
    }

    /// The largest of the purposes that compete for memory: clients, other nodes and snapshots. The
    /// data is left out: it is permanent, so naming it would not help a client whose request is
    /// rejected.
    pub(super) fn largest(&self) -> Holder {
        let all = [
            (self.sessions, Holder::Sessions),
            (self.snapshots, Holder::Snapshots),
            (self.peers, Holder::Peers),
            (self.connections, Holder::Connections),
            (self.half_lines, Holder::HalfLines),
            (self.requests, Holder::Requests),
            (self.replies, Holder::Replies),
        ];
        all.into_iter().max_by_key(|(bytes, _)| *bytes).map_or(Holder::Requests, |(_, holder)| holder)
    }

    /// The purpose that uses most of the state's memory.
    pub(super) fn largest_of_state(&self) -> Holder {
        let all = [
            (self.snapshots, Holder::Snapshots),
            (self.sessions, Holder::Sessions),
            (self.data, Holder::Data),
        ];
        all.into_iter().max_by_key(|(bytes, _)| *bytes).map_or(Holder::Data, |(_, holder)| holder)
    }
}

/// The size and the current use of a memory budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryReport {
    /// The limit in bytes; `None`: there is none.
    pub max: Option<usize>,
    /// The current use.
    pub in_use: MemoryUse,
}

/// The memory use of one node, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeMemory {
    /// Keys, values, and the log after the latest snapshot. The nodes of one process share this
    /// text.
    pub text: usize,
    /// The data structures around the text, which nodes do not share.
    pub structures: usize,
    /// The session table.
    pub sessions: usize,
    /// The log up to the latest snapshot, which is kept for followers. The nodes of one process
    /// share its text, too.
    pub kept_log: usize,
    /// The text of snapshots: those that are assembled or read back, and those of a node that keeps
    /// them in memory.
    pub copies: usize,
    /// Keys and values alone: the size of a snapshot when it is read back, or at the next start.
    pub state_text: usize,
}
