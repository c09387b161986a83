//! The interface of a replica: requests and answers, inputs and outputs.

use std::fmt;
use std::sync::Arc;

use super::backup::BackupPiece;
use super::watch::{WatchAnswer, WatchRequest};
use crate::identity::Incarnation;
use crate::kv::{Command, Found, KeyMeta, Level, Outcome, Query, Session};
use crate::raft::{
    Addition, ChangeError, ConfigError, Configuration, Event, LogIndex, LogPoint, Message, NodeId, Persist,
    PersistId, Role, SnapshotPart, Term,
};

/// The id of a request: chosen by the caller, repeated in the answer. A caller counts from 0; the
/// upper half of the numbers belongs to the node's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

impl RequestId {
    const FIRST_OF_HOST: u64 = 1 << 63;

    /// The id of a request that the node's host hands to its replica: one that another node has
    /// forwarded, or the host's own. At a million ids per second the numbers last for a quarter of
    /// a million years.
    pub(crate) const fn of_host(number: u64) -> Self {
        Self(Self::FIRST_OF_HOST + number)
    }

    /// Returns whether the node's host has assigned this id, and not the local proxy.
    pub(crate) const fn is_of_host(self) -> bool {
        self.0 >= Self::FIRST_OF_HOST
    }
}

/// A request to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Replicates and applies a command. Only a leader accepts it.
    Write {
        /// The command.
        command: Command,
        /// The session, if the client may retry the write.
        session: Option<Session>,
        /// Whether the client needs the revisions of the key.
        wants_meta: bool,
    },
    /// An eventual read: answered from this replica's state, which may be stale.
    Read {
        /// The query.
        query: Query,
        /// The log index that must be applied before the read, because the client has already seen
        /// it.
        at_least: LogIndex,
    },
    /// A linearizable read: reflects everything that was acknowledged before the request.
    LinearizableRead(Query),
    /// Transfers leadership to this node. Only a leader accepts it.
    Transfer(NodeId),
    /// Changes the members. Only a leader accepts it.
    ChangeMembers(MemberOrder),
    /// Asks for the members. Only a leader knows the configuration in force.
    Members,
    /// Asks for a part of a backup: all keys and sessions in this replica's snapshot.
    Backup(BackupPiece),
    /// Asks for the next part of a watch. It is never sent to a node in another process.
    Watch(WatchRequest),
    /// Transfers leadership to the most up-to-date voter, because this node is about to stop. Only
    /// a leader accepts it.
    Resign,
    /// Asks for the replica's status.
    Status,
}

/// An order to change the members, with the conditions for its execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberOrder {
    /// The change.
    pub change: MemberChange,
    /// The log index of the configuration that the caller knew ([`Answer::Members`]). The order is
    /// rejected if the members have changed since, unless they already are as ordered. So an order
    /// that is delayed or delivered again never undoes a later one. `None`: no condition.
    pub given_for: Option<LogIndex>,
    /// Executes the order even if a majority of the remaining voters does not answer.
    pub insists: bool,
}

impl From<MemberChange> for MemberOrder {
    /// An order without conditions.
    fn from(change: MemberChange) -> Self {
        Self { change, given_for: None, insists: false }
    }
}

/// A change of the members (§6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Adds this node as a learner: it receives the log and does not vote.
    AddLearner(NodeId),
    /// Adds this node as a learner with the address where peers reach it. If it is already a member
    /// with another address, the address changes, and its role and incarnation stay. 1 to
    /// [`ADDRESS_BYTES_MAX`](crate::raft::ADDRESS_BYTES_MAX) bytes.
    AddLearnerAt(NodeId, Box<str>),
    /// Makes this learner a voter, as soon as it has caught up.
    Promote(NodeId),
    /// Removes this member.
    Remove(NodeId),
    /// Replaces all members. New voters must have caught up as learners.
    Set {
        /// The voters.
        voters: Vec<NodeId>,
        /// The learners.
        learners: Vec<NodeId>,
    },
}

impl Request {
    /// Returns whether the request is a scan.
    #[must_use]
    pub fn is_scan(&self) -> bool {
        matches!(self, Self::Read { query, .. } | Self::LinearizableRead(query) if query.is_scan())
    }

    /// The lowest level of a cluster in which every node understands the request.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Write { wants_meta: true, .. } => Level::REVISIONS,
            Self::Write { command, .. } => command.level(),
            Self::Read { query, .. } | Self::LinearizableRead(query) => query.level(),
            Self::Watch(_) => Level::REVISIONS,
            _ => Level::FIRST,
        }
    }

    /// A write without a session.
    #[must_use]
    pub fn write(command: Command) -> Self {
        Self::Write { command, session: None, wants_meta: false }
    }

    /// The number of bytes of keys, values and names in the request.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Write { command, session, .. } => {
                command.bytes() + session.as_ref().map_or(0, |session| session.client().as_str().len())
            }
            Self::Read { query, .. } | Self::LinearizableRead(query) => query.bytes(),
            Self::Watch(request) => request.selection.bytes(),
            Self::Transfer(_)
            | Self::ChangeMembers(_)
            | Self::Members
            | Self::Backup(_)
            | Self::Resign
            | Self::Status => 0,
        }
    }
}

/// A replica's answer to a request. Large answers are boxed, because nearly all answers are small
/// and each is moved several times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The command is committed and applied, either now or by an earlier attempt with the same
    /// session.
    Applied {
        /// The log index of this attempt, not of an earlier one.
        index: LogIndex,
        /// The outcome when the command was first applied.
        outcome: Outcome,
        /// The revisions of the key at that time, if they are known; see
        /// [`Applied`](crate::kv::Applied).
        meta: KeyMeta,
    },
    /// The result of a read.
    Read {
        /// The replica's applied index at the read.
        index: LogIndex,
        /// The result.
        found: Found,
    },
    /// Leadership was transferred.
    Transferred {
        /// The new leader.
        to: NodeId,
    },
    /// The membership change is complete, or nothing had to change: the members, as of this log
    /// index.
    MembershipChanged(LogIndex, Configuration),
    /// The members, as of this log index.
    Members(LogIndex, Configuration),
    /// The replica's status.
    Status(Box<Status>),
    /// The requested part of a backup: a part of the replica's snapshot.
    BackupPart(Box<SnapshotPart>),
    /// The backup must cover this log index, and no snapshot does yet: the client must ask again.
    BackupPending(LogIndex),
    /// The next part of a watch.
    Watch(Box<WatchAnswer>),
    /// The request may or may not have taken effect: a snapshot replaced the log entries that would
    /// show it, or this node lost its leadership or was removed before it was known.
    OutcomeUnknown,
    /// The request was rejected: it had no effect and never will.
    Refused(RequestRefusal),
}

impl Answer {
    /// Returns whether this can be the answer to `request`. A proxy accepts no other answer, from
    /// whatever source.
    #[must_use]
    pub fn fits(&self, request: &Request) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::OutcomeUnknown => matches!(request, Request::Write { .. } | Request::ChangeMembers(_)),
            Self::Applied { .. } => matches!(request, Request::Write { .. }),
            Self::Read { found, .. } => match request {
                Request::Read { query, .. } | Request::LinearizableRead(query) => found.fits(query),
                _ => false,
            },
            Self::Transferred { .. } => matches!(request, Request::Transfer(_) | Request::Resign),
            Self::MembershipChanged(..) => matches!(request, Request::ChangeMembers(_)),
            Self::Members(..) => matches!(request, Request::Members),
            Self::Status(_) => matches!(request, Request::Status),
            Self::Watch(answer) => matches!(request, Request::Watch(watch) if answer.fits(&watch.part)),
            Self::BackupPart(_) | Self::BackupPending(_) => matches!(request, Request::Backup(_)),
        }
    }
}

/// The reason why a request was rejected without effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestRefusal {
    /// The replica is not the leader.
    NotLeader {
        /// The replica's term.
        term: Term,
        /// The leader of that term, if known.
        leader: Option<NodeId>,
    },
    /// Another leader's entry was committed at the command's log index.
    Superseded,
    /// There is no connection to the node that was to get the request. A host says so in that
    /// node's place; a replica never does.
    NotConnected,
    /// Too many entries wait to be committed, or too many reads are pending.
    Overloaded,
    /// The target of a leadership transfer is not a voter.
    NotVoter,
    /// The target did not become leader: another node or this one leads, or a later order replaced
    /// this one.
    TransferFailed,
    /// The members cannot be changed like this now.
    Change(ChangeError),
    /// Not all members support this kind of request, or this node does not know yet that they do.
    NotYet,
    /// The backup no longer exists, or has no line that starts at the offset.
    BackupGone,
    /// The replica cannot answer the read in time: it has not applied the log index that the read
    /// needs, or the log that was on its disk at the restart, or it knows no leader to catch up
    /// with. A removed node never catches up.
    CatchingUp,
}

impl fmt::Display for RequestRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { leader: Some(leader), .. } => {
                write!(f, "node {leader} is the leader, not this one")
            }
            Self::NotLeader { leader: None, .. } => f.write_str("this node is not the leader"),
            Self::Superseded => f.write_str("another leader's entry was committed in its place"),
            Self::NotConnected => f.write_str("there is no connection to the node"),
            Self::Overloaded => f.write_str("too many requests wait"),
            Self::NotVoter => f.write_str("the target of the transfer is not a voter"),
            Self::TransferFailed => f.write_str("the target of the transfer did not become leader"),
            Self::Change(error) => error.fmt(f),
            Self::NotYet => f.write_str("not all members support the request yet"),
            Self::BackupGone => f.write_str("the backup no longer exists"),
            Self::CatchingUp => f.write_str("the node has not applied enough of the log to answer"),
        }
    }
}

impl std::error::Error for RequestRefusal {}

/// The status of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The node's id.
    pub id: NodeId,
    /// The node's role.
    pub role: Role,
    /// Whether it is a follower without a vote, according to its own log.
    pub is_learner: bool,
    /// The current term.
    pub term: Term,
    /// The highest log index that it knows to be committed.
    pub commit_index: LogIndex,
    /// The highest log index that it has applied.
    pub last_applied: LogIndex,
    /// The last index of its log.
    pub last_log_index: LogIndex,
    /// The last log index of its latest snapshot; the origin if it has none.
    pub snapshot_index: LogIndex,
    /// The leader of its term, if known.
    pub leader: Option<NodeId>,
    /// The last log index that is durable on its disk.
    pub durable_index: LogIndex,
    /// How long a busy disk has finished no write, in milliseconds; 0 if it is idle or makes
    /// progress.
    pub disk_waiting_ms: u64,
}

/// An event for a replica. The passage of time is not one: every step gets the current time.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message from a peer.
    Message(Message),
    /// A request from a client or the runtime.
    Request(RequestId, Request),
    /// All persists up to this one are durable.
    Persisted(PersistId),
    /// Messages to this peer may have been lost.
    PeerUnreachable(NodeId),
    /// The transport completed a handshake with a node. The node's incarnation is bound to the
    /// member with its id, unless that member already has one.
    HandshakeCompleted {
        /// The node's id.
        peer: NodeId,
        /// Its incarnation.
        incarnation: Incarnation,
        /// The addition under which it was admitted. If its id was removed and added again since
        /// then, the new member is another node.
        addition: Addition,
        /// The highest level that it supports.
        supports: Level,
    },
    /// There was no disk space for a part of a snapshot. The parts written so far were discarded,
    /// and the snapshot may be retried.
    SnapshotPutOff {
        /// The last entry that the snapshot covers.
        last: LogPoint,
        /// The reason, for the operator.
        why: Arc<str>,
    },
    /// Another node reports that this node was removed from the cluster, or runs twice. It is about
    /// to stop, and until then answers no read from its own map.
    Dismissed,
    /// The snapshot at `last` is written up to byte `bytes`. If that part had an end, the whole
    /// snapshot is durable, was read back, and is the node's latest.
    SnapshotWritten {
        /// The snapshot's last entry.
        last: LogPoint,
        /// The number of bytes of content.
        bytes: u64,
    },
    /// The answer to [`Output::ReadSnapshot`].
    SnapshotRead {
        /// The snapshot's last entry.
        last: LogPoint,
        /// The offset of the requested part.
        offset: u64,
        /// The part; `None`: the node has a newer snapshot by now.
        part: Option<SnapshotPart>,
    },
}

/// An action that a replica requests. All actions may be done at once, in their order; persists
/// wait only for one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Writes this and reports it with [`Input::Persisted`].
    Persist(Persist),
    /// Writes this part of a snapshot and reports it with [`Input::SnapshotWritten`]. Only one part
    /// is written at a time, possibly concurrently with persists. A part at offset 0 begins a new
    /// snapshot; an unfinished earlier one is discarded.
    WriteSnapshot(SnapshotPart),
    /// Reads a part of the node's snapshot, of about
    /// [`SNAPSHOT_PART_BYTES`](super::SNAPSHOT_PART_BYTES), and returns it with
    /// [`Input::SnapshotRead`].
    ReadSnapshot {
        /// The snapshot's last entry.
        last: LogPoint,
        /// The offset of the part in the content.
        offset: u64,
    },
    /// Sends this message to a peer. It may be lost.
    Send(Message),
    /// Delivers this answer.
    Answer(RequestId, Answer),
    /// The replica's term or its known leader has changed.
    LeaderChanged {
        /// The replica's term.
        term: Term,
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// This node was removed from the cluster by the committed configuration at this index. It has
    /// nothing more to do, and serves no reads.
    Removed(LogIndex),
    /// Reports this event to the operator or the embedding program.
    Event(Event),
}

/// The reason why a replica cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplicaError {
    /// The settings contradict one another.
    Config(ConfigError),
    /// The entry at this index is intact, but not a command that this version knows.
    UnknownCommand(LogIndex),
    /// The snapshot up to this index is intact, but this version does not know all of it.
    UnknownSnapshot(LogIndex),
}

impl fmt::Display for ReplicaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::UnknownCommand(index) => write!(
                f,
                "the log's entry {index} is a command that this version does not support: start a newer \
                 version"
            ),
            Self::UnknownSnapshot(index) => write!(
                f,
                "the snapshot up to entry {index} has a line that this version does not support: start a \
                 newer version"
            ),
        }
    }
}

impl std::error::Error for ReplicaError {}
