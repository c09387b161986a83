//! What memory is held for: the names of the consumers, and how much each of them holds.

use std::fmt;

/// What memory is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Keys, values and the log.
    Data,
    /// What is remembered of sessions.
    Sessions,
    /// Snapshots that are being assembled or read back, and the log behind the latest one.
    Snapshots,
    /// Links to other nodes, inboxes, and frames that have not ended.
    Peers,
    /// Connections, whatever goes over them.
    Connections,
    /// Lines whose end has not arrived.
    HalfLines,
    /// Requests that have no reply yet.
    Requests,
    /// Replies that their clients have not read.
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
            Self::HalfLines => "lines whose end has not arrived",
            Self::Requests => "requests under way",
            Self::Replies => "replies that clients have not read",
        })
    }
}

/// How many bytes are held for what. See [`Holder`].
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

    /// What nodes hold, and what they hold for one another.
    pub(super) fn of_nodes(&self) -> usize {
        self.data.saturating_add(self.sessions).saturating_add(self.snapshots).saturating_add(self.peers)
    }

    /// What most of the memory is held for that clients, other nodes and snapshots take from one
    /// another. The data is not among it: it is there to stay, and no news to anybody who is
    /// refused a page.
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

    /// What most of the state's memory is held for.
    pub(super) fn largest_of_state(&self) -> Holder {
        let all = [
            (self.snapshots, Holder::Snapshots),
            (self.sessions, Holder::Sessions),
            (self.data, Holder::Data),
        ];
        all.into_iter().max_by_key(|(bytes, _)| *bytes).map_or(Holder::Data, |(_, holder)| holder)
    }
}

/// How much of a budget is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryReport {
    /// The most bytes that may be held; `None`: there is no limit.
    pub max: Option<usize>,
    /// What is held now.
    pub in_use: MemoryUse,
}

/// What one node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeMemory {
    /// Keys, values, and the log after the latest snapshot. The nodes of one process share their
    /// text.
    pub text: usize,
    /// What holds the text, which each node has for itself.
    pub structures: usize,
    /// The session table.
    pub sessions: usize,
    /// The log behind the latest snapshot. Its text is shared as well.
    pub kept_log: usize,
    /// Text of snapshots: those that are assembled or read back, and those of a node that keeps
    /// them in memory.
    pub copies: usize,
    /// Keys and values alone: what a snapshot takes when it is read back, or at the next start.
    pub state_text: usize,
}
