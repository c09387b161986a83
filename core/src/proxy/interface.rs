//! The proxy's interface: its inputs and outputs, its settings, and the replies to clients.

use std::fmt;
use std::time::Duration;

use crate::kv::Level;
use crate::memory::{Holder, MemoryReport};
use crate::raft::{ChangeError, NodeId, Term};
use crate::replica::{Answer, Request, RequestId, Status};

/// Identifies a request on the side of the client that asks. The proxy returns it with the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    /// The connection, or the caller.
    pub connection: u64,
    /// The request of that connection.
    pub slot: u64,
}

/// The proxy's settings.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The nodes of the cluster.
    pub nodes: Vec<NodeId>,
    /// The only node in this process; `None`: all nodes are in this process.
    pub local: Option<NodeId>,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// The most requests under way; more are rejected as [`RequestError::Busy`].
    pub pending_max: usize,
    /// The most bytes of keys and values in requests under way; one request may exceed it.
    pub pending_bytes_max: usize,
    /// The most pages that nodes read at once. One page takes a thousand times as long as a value,
    /// and requests behind several pages would wait for all of them.
    pub scans_max: usize,
}

/// An input of the proxy.
#[derive(Clone, Debug)]
pub enum ProxyInput {
    /// A request of a client.
    Ask(Ticket, Request),
    /// The answer of a node.
    Answer(NodeId, RequestId, Answer),
    /// A node's term has changed, or the leader that it knows.
    LeaderChanged {
        /// The node that reports it.
        node: NodeId,
        /// Its term.
        term: Term,
        /// The leader, if it knows one.
        leader: Option<NodeId>,
    },
    /// A node has stopped and sends no more answers.
    NodeStopped(NodeId),
    /// The local node has started, or there is a connection to a node of another process, whose
    /// clients connect at this address.
    Reachable(NodeId, Option<Box<str>>),
    /// The connection to this node is gone: requests that were sent to it may have arrived or not.
    Unreachable(NodeId),
    /// The level of the cluster. The local node has caught up, so it knows it.
    Level(Level),
    /// The nodes of the cluster.
    Nodes(Vec<NodeId>),
    /// Accept no new requests, and reject those that no node has yet.
    Stop,
}

/// An action that the proxy requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyOutput {
    /// Send this request to this node; the answer carries the same id.
    Ask(NodeId, RequestId, Request),
    /// Send this reply to the client.
    Reply(Ticket, Reply),
}

/// The reply to a client's request.
pub type Reply = Result<Answered, RequestError>;

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// A node's answer; never [`Answer::Refused`] or [`Answer::Status`].
    ByNode(Answer),
    /// The status of the nodes and of this server.
    Status(ClusterReport),
}

/// The status of the nodes of a cluster, and of the server that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterReport {
    /// Every node, ascending by id.
    pub nodes: Vec<NodeReport>,
    /// The memory report of the server, if it has a budget.
    pub memory: Option<Box<MemoryReport>>,
}

/// The status of a node, as far as it can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// The node.
    pub node: NodeId,
    /// Its status; `None`: it has stopped, or cannot be reached.
    pub status: Option<Status>,
    /// Whether it is in this process.
    pub is_here: bool,
    /// The address at which its clients connect, if it is in another process and has stated one.
    pub client_address: Option<Box<str>>,
}

/// The end of the message of a failure that leaves the outcome of a write open.
const A_WRITE_MAY_FOLLOW: &str = "; a write may still take effect";

/// The reason why a request has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// No leader became known in time. The request had no effect.
    NoLeader,
    /// The outcome is unknown; a write may still take effect.
    Timeout,
    /// A limit is exceeded. The request had no effect.
    Busy,
    /// The server has reached its memory limit, most of it held for this. The request had no
    /// effect.
    NoMemory(Holder),
    /// The server is stopping. The request had no effect.
    ShuttingDown,
    /// The node that had the request stopped, for instance because its disk failed. A write may
    /// still take effect.
    Storage,
    /// Leadership was not transferred, because the target node is not a voter.
    NotVoter,
    /// The members were not changed. The request had no effect.
    Change(ChangeError),
    /// All nodes run in one process, and no other node can join them. The request had no effect.
    MembersAreFixed,
    /// Not all members of the cluster run a version that supports the request. It had no effect.
    NotYet,
    /// The backup that is being read does not exist any more. The request had no effect.
    BackupGone,
    /// Leadership was not transferred in time; it may still go to the target node.
    TransferFailed,
}

impl RequestError {
    /// Returns whether the error is definite: the request had no effect and never will.
    #[must_use]
    pub fn is_definite(self) -> bool {
        !matches!(self, Self::Timeout | Self::Storage | Self::TransferFailed)
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::NoMemory(holder) => {
                return write!(
                    f,
                    "the server has reached its memory limit (--memory-max), mostly for {holder}; the \
                     request had no effect"
                );
            }
            Self::Change(error) => return write!(f, "the members were not changed: {error}"),
            Self::MembersAreFixed => {
                "all nodes of this cluster run in one process, so its members are fixed (--nodes); the \
                 request had no effect"
            }
            Self::NoLeader => "no leader was found before the timeout; the request had no effect",
            Self::Timeout => {
                "the timeout expired before the outcome was known; a write may still take effect"
            }
            Self::Busy => "too many requests are in flight; the request had no effect",
            Self::ShuttingDown => "the server is stopping; the request had no effect",
            Self::BackupGone => {
                "this backup no longer exists, because a newer one replaced it; start the backup again"
            }
            Self::NotYet => {
                "not all members of the cluster run a version that supports this request yet; it had no effect"
            }
            Self::NotVoter => "no voter has that id; the request had no effect",
            Self::TransferFailed => "the node was not elected in time; it may still become leader",
            Self::Storage => "the node that had the request stopped; a write may still take effect",
        };
        f.write_str(text)
    }
}

impl RequestError {
    /// Returns the message for a request that changes nothing, without the remark about a write.
    #[must_use]
    pub fn message_of_read(self) -> String {
        let mut message = self.to_string();
        message.truncate(message.trim_end_matches(A_WRITE_MAY_FOLLOW).len());
        message
    }
}

impl std::error::Error for RequestError {}
