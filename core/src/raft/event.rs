//! Events: typed facts that a node reports, for operators, metrics, traces and tests.
//!
//! The core writes no log lines; the program that drives it decides what to do with events.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::configuration::Configuration;
use super::types::{LogIndex, NodeId, Term};

/// An event of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node started a pre-vote: it asks whether it would be elected, without a new term
    /// (thesis, §9.6).
    BecamePreCandidate {
        /// The term it is in.
        term: Term,
    },
    /// The node started an election (§5.2).
    BecameCandidate {
        /// The term of the election.
        term: Term,
    },
    /// The node won an election.
    BecameLeader {
        /// The term that it leads.
        term: Term,
        /// The number of votes when it won, its own included.
        votes: usize,
    },
    /// The node became a follower.
    BecameFollower {
        /// The term it is in now.
        term: Term,
        /// Why it no longer campaigns or leads.
        because: StepDown,
    },
    /// The node heard from the leader of its term for the first time.
    LeaderFound {
        /// The term.
        term: Term,
        /// Its leader.
        leader: NodeId,
    },
    /// The node, as leader, started a leadership transfer (thesis, §3.10).
    TransferStarted {
        /// The target of the transfer.
        to: NodeId,
    },
    /// The leadership transfer did not finish in time: the node continues to lead.
    TransferFailed {
        /// The target of the transfer.
        to: NodeId,
    },
    /// Another configuration came into force: it was appended, or a later one was cut (§6).
    MembershipChanged {
        /// Its index in the log.
        index: LogIndex,
        /// The configuration: the members of the cluster.
        configuration: Configuration,
    },
    /// By a committed configuration this node is no longer a member; in its incarnation it never
    /// becomes one again.
    Removed {
        /// The index of the configuration in the log.
        index: LogIndex,
    },
    /// A snapshot of the leader replaced the log (§7).
    SnapshotInstalled {
        /// The last entry that it covers.
        last: LogIndex,
    },
    /// Uncommitted entries were removed, because the leader has others at their indexes (§5.3).
    LogCut {
        /// The first index that was removed.
        from: LogIndex,
        /// The last index that was removed.
        to: LogIndex,
    },
    /// For the first time since its start the node knows a leader and has applied enough of its
    /// log: it can answer requests now.
    Ready,
    /// A snapshot was put off because the disk had no room; it will be retried.
    SnapshotPutOff {
        /// The file that could not be written, and why.
        why: Arc<str>,
    },
    /// The disk has finished no write for [`DISK_TIMEOUT`](super::DISK_TIMEOUT), although writes
    /// are waiting.
    DiskHangs {
        /// How long the node has waited.
        waited: Duration,
    },
    /// A disk that hung has finished a write.
    DiskRecovered,
    /// A peer's message was invalid and was dropped.
    MessageRefused {
        /// The sender.
        from: NodeId,
        /// The reason.
        because: MessageRefusal,
    },
}

/// Why a node ended a campaign or stepped down as leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepDown {
    /// A message with a higher term arrived (§5.1).
    HigherTerm,
    /// A message of the leader of this term arrived (§5.2).
    LeaderElected,
    /// It cannot win any more: half of the voters or more rejected its request.
    ElectionLost,
    /// It voted for another candidate.
    VoteGiven,
    /// As leader it did not hear from a majority for an election timeout (thesis, §6.2).
    QuorumLost,
    /// As leader it waited longer than an election timeout for its own disk.
    DiskStalled,
    /// As leader it committed its own removal (§6).
    Removed,
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageRefusal {
    /// It is for another node.
    WrongAddress,
    /// The sender is not a member of the cluster, or is the node itself.
    UnknownSender,
    /// Its term is far above any that an election could have reached.
    TermTooHigh,
    /// Its sender claims to lead a term that has another leader.
    SecondLeader,
    /// It would remove committed entries.
    ContradictsCommitted,
    /// It is an answer from another incarnation of the member.
    OtherIncarnation,
    /// Its entries do not follow `prev_log_index` or one another, or are of a term above the
    /// leader's.
    EntriesOutOfOrder,
    /// Its entries continue another history than this log, although indexes and terms agree.
    ChecksumMismatch,
    /// It acknowledges entries that were never sent.
    UnknownEntries,
    /// It completes a snapshot whose content does not match the leader's length and checksum.
    SnapshotDamaged,
    /// It is a part of a snapshot that this version cannot parse: it is damaged, or written by a
    /// later version.
    SnapshotNotUnderstood,
    /// Its sender lacks entries that it had acknowledged: its disk has lost them.
    LostEntries,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BecamePreCandidate { term } => write!(f, "started a pre-vote in term {term}"),
            Self::BecameCandidate { term } => write!(f, "started an election in term {term}"),
            Self::BecameLeader { term, votes } => {
                write!(f, "became leader in term {term} with {votes} votes")
            }
            Self::BecameFollower { term, because } => write!(f, "became follower in term {term}: {because}"),
            Self::LeaderFound { term, leader } => write!(f, "follows leader {leader} in term {term}"),
            Self::TransferStarted { to } => write!(f, "started a leadership transfer to node {to}"),
            Self::TransferFailed { to } => {
                write!(f, "aborted the leadership transfer: node {to} was not elected in time")
            }
            Self::MembershipChanged { index, configuration } => {
                write!(f, "uses the configuration of entry {index}: {configuration}")
            }
            Self::Removed { index } => {
                write!(f, "is no longer a member of the cluster since entry {index}")
            }
            Self::SnapshotInstalled { last } => write!(f, "installed a snapshot up to entry {last}"),
            Self::LogCut { from, to } => {
                write!(f, "removed the uncommitted entries {from} to {to}: the leader has others")
            }
            Self::Ready => f.write_str("is ready: it knows the leader, and has caught up"),
            Self::SnapshotPutOff { why } => write!(
                f,
                "postponed a snapshot because the disk is full: {why}. The log grows until it can be \
                 written: free space on the disk of the data folder"
            ),
            Self::DiskHangs { waited } => write!(
                f,
                "its disk hangs: no write or sync has finished for {:.1} s; the node acknowledges nothing \
                 until one does",
                waited.as_secs_f64()
            ),
            Self::DiskRecovered => f.write_str("its disk has recovered: a write finished"),
            Self::MessageRefused { from, because } => {
                write!(f, "dropped a message of node {from}: {because}")
            }
        }
    }
}

impl fmt::Display for StepDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HigherTerm => "a higher term was seen",
            Self::LeaderElected => "another leader was elected",
            Self::ElectionLost => "too many voters rejected it to win",
            Self::VoteGiven => "it voted for another candidate",
            Self::QuorumLost => "no majority answered for an election timeout",
            Self::Removed => "it is no longer a member",
            Self::DiskStalled => "its disk did not finish a write for an election timeout",
        })
    }
}

impl fmt::Display for MessageRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongAddress => "it is for another node",
            Self::UnknownSender => "its sender is not a member",
            Self::TermTooHigh => "its term is higher than any election could have reached",
            Self::SecondLeader => "it claims to lead a term that another node leads",
            Self::ContradictsCommitted => "it would remove committed entries",
            Self::OtherIncarnation => "it comes from another incarnation of the member",
            Self::EntriesOutOfOrder => "its entries are out of order",
            Self::ChecksumMismatch => "its entries continue another history than this log",
            Self::SnapshotDamaged => "the snapshot that it completes is damaged",
            Self::SnapshotNotUnderstood => {
                "its snapshot part cannot be parsed: it is damaged, or written by a later version of the \
                 program"
            }
            Self::UnknownEntries => "it acknowledges entries that were never sent",
            Self::LostEntries => "it lacks entries that it had acknowledged: its disk has lost them",
        })
    }
}

impl std::error::Error for MessageRefusal {}
