//! What a replica is asked and told, and what it answers and wants done.

use std::fmt;
use std::sync::Arc;

use super::backup::BackupPiece;
use crate::identity::Incarnation;
use crate::kv::{Command, Found, Outcome, Query, Session};
use crate::raft::{
    Addition, ChangeError, ConfigError, Configuration, Event, LogIndex, LogPoint, Message, NodeId, Persist,
    PersistId, Role, SnapshotPart, Term,
};

/// A request's name: chosen by the asker, repeated in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What a replica can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Replicate and apply a command. Only a leader can.
    Write {
        /// What to do.
        command: Command,
        /// Which of the client's writes it is, if the client may send it again.
        session: Option<Session>,
    },
    /// Look something up, as this replica sees it: it may be behind.
    Read {
        /// What to look up.
        query: Query,
        /// Not before the replica has applied this much: what the asker has seen already.
        at_least: LogIndex,
    },
    /// Look something up that is at least as new as everything that anybody had an answer to when
    /// this was asked.
    LinearizableRead(Query),
    /// Hand leadership over to this node. Only a leader can.
    Transfer(NodeId),
    /// Change who takes part. Only a leader can.
    ChangeMembers(MemberOrder),
    /// Who takes part. Only a leader knows what is in force.
    Members,
    /// A piece of a backup: of all keys and sessions, as this replica's snapshot has them.
    Backup(BackupPiece),
    /// Hand leadership over to whoever is closest, because this node is about to stop. Only a
    /// leader can.
    Resign,
    /// How it is doing.
    Status,
}

/// An order to change who takes part, with the conditions under which it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberOrder {
    /// What is ordered.
    pub change: MemberChange,
    /// The log index up to which the giver knew the members ([`Answer::Members`]). The order is
    /// refused when they were changed since, unless they are as it wants them: so an order that is
    /// delivered late, or again, never undoes a later one. `None`: carry it out whatever the
    /// members are.
    pub given_for: Option<LogIndex>,
    /// Carry it out although a majority of the voters that would be left does not answer.
    pub insists: bool,
}

impl From<MemberChange> for MemberOrder {
    /// The order without conditions.
    fn from(change: MemberChange) -> Self {
        Self { change, given_for: None, insists: false }
    }
}

/// A change of who takes part (§6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// This node gets the log from now on, and does not vote.
    AddLearner(NodeId),
    /// The same, found at this address by its peers; a member that has another address moves to
    /// this one, and keeps its role and its incarnation. 1 to
    /// [`ADDRESS_BYTES_MAX`](crate::raft::ADDRESS_BYTES_MAX) bytes.
    AddLearnerAt(NodeId, Box<str>),
    /// This learner votes, as soon as it has caught up.
    Promote(NodeId),
    /// This node takes part no longer.
    Remove(NodeId),
    /// Exactly these take part. New voters must have caught up as learners.
    Set {
        /// Those who vote.
        voters: Vec<NodeId>,
        /// Those who do not.
        learners: Vec<NodeId>,
    },
}

impl Request {
    /// Whether it asks for a page of keys.
    #[must_use]
    pub fn is_scan(&self) -> bool {
        matches!(self, Self::Read { query, .. } | Self::LinearizableRead(query) if query.is_scan())
    }

    /// A write without a session.
    #[must_use]
    pub fn write(command: Command) -> Self {
        Self::Write { command, session: None }
    }

    /// Bytes of keys, values and names in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Write { command, session } => {
                command.bytes() + session.as_ref().map_or(0, |session| session.client().as_str().len())
            }
            Self::Read { query, .. } | Self::LinearizableRead(query) => query.bytes(),
            Self::Transfer(_)
            | Self::ChangeMembers(_)
            | Self::Members
            | Self::Backup(_)
            | Self::Resign
            | Self::Status => 0,
        }
    }
}

/// What a replica answers. Large parts are in boxes: nearly all answers are small, and each is
/// moved several times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The command is committed and applied, now or, as the same write of its session, before.
    Applied {
        /// Its place in the log: of several that are the same write, the one that was asked for.
        index: LogIndex,
        /// What it did, when it was first applied.
        outcome: Outcome,
    },
    /// What was found.
    Read {
        /// How far the replica had applied the log.
        index: LogIndex,
        /// It.
        found: Found,
    },
    /// Leadership was handed over.
    Transferred {
        /// The new leader.
        to: NodeId,
    },
    /// The change of members is finished, or there was nothing to change: the members now, by the
    /// log up to this index.
    MembershipChanged(LogIndex, Configuration),
    /// Who takes part, by the log up to this index.
    Members(LogIndex, Configuration),
    /// How the replica is doing.
    Status(Box<Status>),
    /// The piece of a backup that was asked for: a part of the replica's snapshot.
    BackupPart(Box<SnapshotPart>),
    /// A backup has to cover this much of the log, and a snapshot that does is on its way: it is to
    /// be asked for again.
    BackupPending(LogIndex),
    /// The write was decided, and nobody knows how: a snapshot took the place of the log that would
    /// tell.
    OutcomeUnknown,
    /// The request had no effect and never will.
    Refused(Refused),
}

impl Answer {
    /// Whether this can be the answer to `request`. A proxy believes no other, wherever it comes
    /// from.
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
            Self::BackupPart(_) | Self::BackupPending(_) => matches!(request, Request::Backup(_)),
        }
    }
}

/// Why a request had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The replica does not lead.
    NotLeader {
        /// Its term.
        term: Term,
        /// The leader of that term, if it knows one.
        leader: Option<NodeId>,
    },
    /// Another leader's entry was committed in the command's place.
    Superseded,
    /// Too much waits to be committed, or to be read.
    Overloaded,
    /// The node to hand leadership over to does not vote.
    NotVoter,
    /// Nobody took leadership over in time: the replica leads on.
    TransferFailed,
    /// The members cannot be changed like that now.
    Change(ChangeError),
    /// The backup that the piece belongs to is not there any more, or has no line that starts
    /// there.
    BackupGone,
    /// The replica is behind what the asker has seen, or behind what it had on its disk when it was
    /// restarted, and knows no leader to learn more from.
    CatchingUp,
}

/// How a replica is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which node it is.
    pub id: NodeId,
    /// The part that it plays.
    pub role: Role,
    /// Whether it follows without a vote, as far as its own log says.
    pub is_learner: bool,
    /// Its term.
    pub term: Term,
    /// The highest index that it knows to be committed.
    pub commit_index: LogIndex,
    /// The highest index that it applied.
    pub last_applied: LogIndex,
    /// The end of its log.
    pub last_log_index: LogIndex,
    /// How far its latest snapshot reaches; the origin without one.
    pub snapshot_index: LogIndex,
    /// The leader of its term, if it knows one.
    pub leader: Option<NodeId>,
    /// How much of its log is on its disk.
    pub durable_index: LogIndex,
    /// For how long its disk, with work to do, has finished none, in milliseconds; 0: it is idle,
    /// or gets on.
    pub disk_waiting_ms: u64,
}

/// What may happen to a replica. Time passing is no input: every step is told the time.
#[derive(Clone, Debug)]
pub enum Input {
    /// A peer's message.
    Message(Message),
    /// A request.
    Request(RequestId, Request),
    /// All persists up to this one are durable.
    Persisted(PersistId),
    /// Messages to this peer may have been lost.
    PeerUnreachable(NodeId),
    /// The transport has met a node: it becomes the member of its id, if that member was never met.
    PeerMet {
        /// The node's id.
        peer: NodeId,
        /// Its incarnation.
        incarnation: Incarnation,
        /// The addition that it was let in as. When its id was removed and added again since, it
        /// does not become that member.
        addition: Addition,
    },
    /// There was no room for a part of a snapshot. What was written of it is gone, and may be tried
    /// again.
    SnapshotPutOff {
        /// The last entry that the snapshot covers.
        last: LogPoint,
        /// Why, for the operator.
        why: Arc<str>,
    },
    /// Another node says that this one was removed from the cluster, or runs twice: it is going to
    /// end, and until then it answers no read from its own map.
    Dismissed,
    /// The content of the snapshot up to `last` is written up to byte `bytes`; if the part that was
    /// written had an end, the whole snapshot is durable, was read back, and is the node's latest.
    SnapshotWritten {
        /// The snapshot's last entry.
        last: LogPoint,
        /// Bytes of content.
        bytes: u64,
    },
    /// The answer to [`Output::ReadSnapshot`].
    SnapshotRead {
        /// The snapshot's last entry.
        last: LogPoint,
        /// Where the part was to begin.
        offset: u64,
        /// The part; `None`: the node's snapshot is another one by now.
        part: Option<SnapshotPart>,
    },
}

/// What a replica wants done. All of it may be done at once, in the order in which it stands;
/// persists wait only for one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write this and report it with [`Input::Persisted`].
    Persist(Persist),
    /// Write this part of a snapshot and report it with [`Input::SnapshotWritten`]. There is one at
    /// a time, and it may be written beside the persists. A part at offset 0 begins a new snapshot;
    /// what was begun before is given up.
    WriteSnapshot(SnapshotPart),
    /// Read a part of the node's snapshot, of some
    /// [`SNAPSHOT_PART_BYTES`](super::SNAPSHOT_PART_BYTES), and hand it over with
    /// [`Input::SnapshotRead`].
    ReadSnapshot {
        /// The snapshot's last entry.
        last: LogPoint,
        /// Where in its content the part begins.
        offset: u64,
    },
    /// Send this to a peer. It may be lost.
    Send(Message),
    /// Give this answer.
    Answer(RequestId, Answer),
    /// The replica's term or its idea of the leader has changed.
    LeaderChanged {
        /// Its term.
        term: Term,
        /// The leader, if it knows one.
        leader: Option<NodeId>,
    },
    /// This node was removed from the cluster: by the committed configuration at this index it is
    /// no longer a member. It has nothing more to do, and serves no reads.
    Removed(LogIndex),
    /// Tell whoever wants to know.
    Event(Event),
}

/// Why a replica cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaError {
    /// The settings do not fit one another.
    Config(ConfigError),
    /// The entry at this index is whole, but no command that this version knows.
    UnknownCommand(LogIndex),
    /// The snapshot up to this index is whole, but not all of it is known to this version.
    UnknownSnapshot(LogIndex),
}

impl fmt::Display for ReplicaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::UnknownCommand(index) => write!(
                f,
                "the log's entry {index} is a command that this version does not know: start a version that does"
            ),
            Self::UnknownSnapshot(index) => write!(
                f,
                "the snapshot up to entry {index} has a line that this version does not know: start a version that does"
            ),
        }
    }
}

impl std::error::Error for ReplicaError {}
