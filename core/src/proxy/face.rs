//! What a proxy is told and asked, and what it wants done.

use std::fmt;
use std::time::Duration;

use crate::memory::{Holder, MemoryReport};
use crate::raft::{ChangeError, NodeId, Term};
use crate::replica::{Answer, Request, RequestId, Status};

/// Names a request on the side of whoever asks. The proxy only repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    /// Which connection, or caller.
    pub connection: u64,
    /// Which of its requests.
    pub slot: u64,
}

/// The proxy's settings.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The nodes of the cluster.
    pub nodes: Vec<NodeId>,
    /// The only one that is in this process; `None`: all are.
    pub local: Option<NodeId>,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// The most requests under way; more are refused as [`Failure::Busy`].
    pub pending_max: usize,
    /// The most bytes of keys and values in requests under way; one request may pass it.
    pub pending_bytes_max: usize,
    /// The most pages that nodes look up at once. One takes a thousand times as long as a value:
    /// what waits for more of them would wait behind all.
    pub scans_max: usize,
}

/// What may happen to a proxy.
#[derive(Clone, Debug)]
pub enum ProxyInput {
    /// A client asks.
    Ask(Ticket, Request),
    /// A node answers.
    Answer(NodeId, RequestId, Answer),
    /// A node's term or its idea of the leader has changed.
    LeaderChanged {
        /// The node that says so.
        node: NodeId,
        /// Its term.
        term: Term,
        /// The leader, if it knows one.
        leader: Option<NodeId>,
    },
    /// A node has stopped and will answer nothing more.
    NodeStopped(NodeId),
    /// The own node has started, or there is a connection to one of another process, whose clients
    /// connect at this address.
    Reachable(NodeId, Option<Box<str>>),
    /// There is none any more: what was sent to the node may have arrived or not.
    Unreachable(NodeId),
    /// These are the nodes of the cluster.
    Nodes(Vec<NodeId>),
    /// Take nothing new, and refuse what is not at a node yet.
    Stop,
}

/// What a proxy wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyOutput {
    /// Ask this node; its answer carries the same id.
    Ask(NodeId, RequestId, Request),
    /// Give this to the client.
    Reply(Ticket, Reply),
}

/// What a client is told.
pub type Reply = Result<Answered, Failure>;

/// A request that had an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// A node's answer; never [`Answer::Refused`] or [`Answer::Status`].
    ByNode(Answer),
    /// How the nodes and this server are doing.
    Status(ClusterReport),
}

/// How the nodes of a cluster are doing, and the server that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterReport {
    /// Every node, ascending by id.
    pub nodes: Vec<NodeReport>,
    /// The memory of the server, if it has a budget.
    pub memory: Option<Box<MemoryReport>>,
}

/// How a node is doing, as far as it can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// The node.
    pub node: NodeId,
    /// How it is doing; `None`: it has stopped, or cannot be reached.
    pub status: Option<Status>,
    /// Whether it is in this process.
    pub is_here: bool,
    /// Where its clients connect, if it is elsewhere and has said so.
    pub client_address: Option<Box<str>>,
}

/// How the message of a failure ends that leaves the outcome of a write open.
const A_WRITE_MAY_FOLLOW: &str = "; a write may still take effect";

/// A request that had none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No leader became known in time. Nothing happened.
    NoLeader,
    /// The outcome is not known; a write may still take effect.
    Timeout,
    /// Over a limit. Nothing happened.
    Busy,
    /// The server holds as much memory as it may, most of it for this. Nothing happened.
    NoMemory(Holder),
    /// The server is stopping. Nothing happened.
    ShuttingDown,
    /// The node that had the request lost its disk. A write may still take effect.
    Storage,
    /// Leadership was not handed over, because the node meant for it does not vote.
    NotVoter,
    /// The members were not changed. Nothing happened.
    Change(ChangeError),
    /// All nodes live in one process, and nobody can join them. Nothing happened.
    MembersAreFixed,
    /// The backup that is being read is not there any more. Nothing happened.
    BackupGone,
    /// Leadership was not handed over in time; it may still go to the node meant for it.
    TransferFailed,
}

impl Failure {
    /// Whether nothing happened and nothing will.
    #[must_use]
    pub fn is_definite(self) -> bool {
        !matches!(self, Self::Timeout | Self::Storage | Self::TransferFailed)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::NoMemory(holder) => {
                return write!(
                    f,
                    "the server holds as much memory as it may (--memory-max), most of it for {holder}; nothing happened"
                );
            }
            Self::Change(error) => return write!(f, "the members are not changed: {error}"),
            Self::MembersAreFixed => {
                "all nodes of this cluster live in one process: its members are what --nodes says; nothing happened"
            }
            Self::NoLeader => "no leader became known in time; nothing happened",
            Self::Timeout => "no outcome became known in time; a write may still take effect",
            Self::Busy => "too many requests are under way; nothing happened",
            Self::ShuttingDown => "the server is stopping; nothing happened",
            Self::BackupGone => {
                "this backup is not there any more: a newer one has taken its place; begin anew"
            }
            Self::NotVoter => "no voter has that id; nothing happened",
            Self::TransferFailed => "the node did not take leadership over in time; it may still do so",
            Self::Storage => "the node that had the request lost its disk; a write may still take effect",
        };
        f.write_str(text)
    }
}

impl Failure {
    /// The message for whoever has asked for nothing that changes anything: without a word about a
    /// write.
    #[must_use]
    pub fn message_of_read(self) -> String {
        let mut message = self.to_string();
        message.truncate(message.trim_end_matches(A_WRITE_MAY_FOLLOW).len());
        message
    }
}

impl std::error::Error for Failure {}
