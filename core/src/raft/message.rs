//! What nodes say to one another: the calls of the paper's Figure 2, and the heartbeat as a message
//! of its own.
//!
//! Responses name what they answer (`round`, `sequence`), so that a late, doubled or reordered one
//! is recognised by its name and never by comparing indexes alone.

use super::runs::Runs;
use super::snapshot::SnapshotPart;
use super::types::{Checksum, LogIndex, LogPoint, NodeId, Term};
use crate::identity::Incarnation;

/// A message from one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub from: NodeId,
    /// The sender's incarnation, where nodes have one. It does not travel with the message: the
    /// receiving transport puts in the one that it learnt in the handshake of the connection.
    pub incarnation: Option<Incarnation>,
    /// To whom.
    pub to: NodeId,
    /// The sender's `current_term`. Pre-votes, too, carry it: the term they ask about stands in the
    /// call.
    pub term: Term,
    /// What is said.
    pub body: Body,
}

impl Message {
    /// Whether it answers a call, so that it counts towards a majority.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        matches!(
            self.body,
            Body::RequestPreVoteResponse(_)
                | Body::RequestVoteResponse(_)
                | Body::AppendEntriesResponse(_)
                | Body::HeartbeatResponse(_)
                | Body::InstallSnapshotResponse(_)
        )
    }

    /// Whether it says that the entry at `index` is durable.
    pub(super) fn acknowledges(&self, index: LogIndex) -> bool {
        let Body::AppendEntriesResponse(response) = &self.body else { return false };
        matches!(response.outcome, AppendOutcome::Accepted { match_index } if match_index >= index)
    }
}

/// The kinds of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// "Would you vote for me?" (thesis, §9.6). Changes nothing on the receiver.
    RequestPreVote(RequestVote),
    /// The answer to [`Body::RequestPreVote`].
    RequestPreVoteResponse(RequestVoteResponse),
    /// "Vote for me" (§5.2).
    RequestVote(RequestVote),
    /// The answer to [`Body::RequestVote`].
    RequestVoteResponse(RequestVoteResponse),
    /// New entries, or none, and the proof that the logs agree before them (§5.3).
    AppendEntries(AppendEntries),
    /// The answer to [`Body::AppendEntries`].
    AppendEntriesResponse(AppendEntriesResponse),
    /// "I lead": keeps followers from campaigning. It is not an empty AppendEntries, because that
    /// one's acknowledgement waits for the disk and a heartbeat never does.
    Heartbeat(Heartbeat),
    /// The answer to [`Body::Heartbeat`]: "you lead, and we are connected".
    HeartbeatResponse(HeartbeatResponse),
    /// The answer to any call of a leader of an older term: "there is a newer one", the message's
    /// own.
    NewerTerm,
    /// A follower's "how far must I apply before I may answer a linearizable read?" (thesis, §6.4).
    ReadIndex(ReadIndex),
    /// The answer to [`Body::ReadIndex`].
    ReadIndexResponse(ReadIndexResponse),
    /// A part of the leader's snapshot, or the question how much of it the follower has (§7).
    InstallSnapshot(SnapshotPart),
    /// The answer to [`Body::InstallSnapshot`].
    InstallSnapshotResponse(InstallSnapshotResponse),
    /// "Stand for election now": the leader hands leadership over (thesis, §3.10).
    TimeoutNow,
}

/// A candidate's call, in earnest or before the vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestVote {
    /// The term of the election: the sender's own in earnest, the one after it before the vote.
    pub election_term: Term,
    /// The sender's number for this campaign; the response repeats it.
    pub round: u64,
    /// Index of the candidate's last entry (§5.4.1).
    pub last_log_index: LogIndex,
    /// Term of the candidate's last entry (§5.4.1).
    pub last_log_term: Term,
    /// Whether the leader itself wants this election (thesis, §3.10): then voters do not spare it.
    pub is_transfer: bool,
}

/// A voter's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestVoteResponse {
    /// The campaign that it answers.
    pub round: u64,
    /// Whether the candidate has the vote.
    pub granted: bool,
}

/// The leader's call with entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendEntries {
    /// The leader's number for this call, growing by one per follower and call; the response
    /// repeats it.
    pub sequence: u64,
    /// Index of the entry right before the new ones.
    pub prev_log_index: LogIndex,
    /// Its term.
    pub prev_log_term: Term,
    /// Its checksum: logs that agree in index and term and differ here are two histories. `None`:
    /// from a program that does not send it with a call without entries.
    pub prev_log_checksum: Option<Checksum>,
    /// The new entries in order; runs follow one another. Empty to ask whether the logs agree.
    pub entries: Runs,
    /// The leader's commit index.
    pub leader_commit: LogIndex,
}

/// A follower's answer to [`AppendEntries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendEntriesResponse {
    /// The call that it answers.
    pub sequence: u64,
    /// Taken or refused.
    pub outcome: AppendOutcome,
}

/// What became of an [`AppendEntries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The follower's log equals the leader's up to here, durably.
    Accepted {
        /// The last index known to be equal.
        match_index: LogIndex,
    },
    /// The follower has no entry of `prev_log_term` at `prev_log_index`.
    Rejected {
        /// Where the logs may still agree: the follower's last index at or before `prev_log_index`
        /// whose term is not above `prev_log_term`. Lets the leader skip a whole term at a time
        /// (end of §5.3).
        hint_index: LogIndex,
        /// The term of the follower's entry there.
        hint_term: Term,
    },
}

/// The leader's sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The leader's commit index, but never beyond what the follower is known to hold: a follower
    /// with a divergent tail must not take its own entries for committed ones.
    pub leader_commit: LogIndex,
    /// The checksum of the leader's entry there, if it knows it: a follower whose own entry has
    /// another one continues another history, and must not take it for committed.
    pub commit_checksum: Option<Checksum>,
    /// The round that the leader has begun last.
    pub round: ReadRound,
}

/// A follower's answer to a [`Heartbeat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatResponse {
    /// The heartbeat's round.
    pub round: ReadRound,
}

/// Numbers the rounds in which a leader asks whether it still leads: how many it has begun in its
/// term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadRound(pub u64);

/// Names the reads that were asked for in one turn of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadBatch(pub u64);

/// A follower's question for a read index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadIndex {
    /// The follower's name for the reads that wait for it; the response repeats it.
    pub batch: ReadBatch,
}

/// The answer to [`ReadIndex`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadIndexResponse {
    /// The question that it answers.
    pub batch: ReadBatch,
    /// The read index; `None`: the asked node does not lead, or stopped leading before it knew.
    pub index: Option<LogIndex>,
}

/// A follower's answer to a part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstallSnapshotResponse {
    /// The snapshot that it is about.
    pub last: LogPoint,
    /// What the follower has of it.
    pub outcome: InstallOutcome,
}

/// How far an installation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallOutcome {
    /// So much of the content is on the follower's disk; it takes the next part from there.
    Holds {
        /// Bytes of content.
        bytes: u64,
    },
    /// The follower's log, durably, equals the leader's up to the snapshot's last entry.
    Installed,
}
