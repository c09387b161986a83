//! The messages between nodes: the calls of the paper's Figure 2, with heartbeats as a separate
//! message.
//!
//! A response repeats the number of its call (`round`, `sequence`), so that a late, repeated or
//! reordered response is recognised by this number and never by indexes alone.

use std::time::Duration;

use super::runs::Runs;
use super::snapshot::SnapshotPart;
use super::types::{Checksum, LogIndex, LogPoint, NodeId, Term};
use crate::identity::Incarnation;

/// A message from one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender.
    pub from: NodeId,
    /// The sender's incarnation, where nodes have one. It is not part of the encoded message: the
    /// receiving transport fills in the incarnation from the connection's handshake.
    pub incarnation: Option<Incarnation>,
    /// The receiver.
    pub to: NodeId,
    /// The sender's `current_term`, for pre-votes as well: the term of the election that they ask
    /// about is in the call.
    pub term: Term,
    /// The content.
    pub body: Body,
}

impl Message {
    /// Returns whether the message acknowledges that the entry at `index` is durable.
    pub(super) fn acknowledges(&self, index: LogIndex) -> bool {
        let Body::AppendEntriesResponse(response) = &self.body else { return false };
        matches!(response.outcome, AppendOutcome::Accepted { match_index } if match_index >= index)
    }
}

/// The kinds of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A pre-vote request (thesis, §9.6): "would you vote for me?" It changes nothing on the
    /// receiver.
    RequestPreVote(RequestVote),
    /// The answer to [`Body::RequestPreVote`].
    RequestPreVoteResponse(RequestVoteResponse),
    /// A vote request: "vote for me" (§5.2).
    RequestVote(RequestVote),
    /// The answer to [`Body::RequestVote`].
    RequestVoteResponse(RequestVoteResponse),
    /// New entries, or none, with the check that the logs agree before them (§5.3).
    AppendEntries(AppendEntries),
    /// The answer to [`Body::AppendEntries`].
    AppendEntriesResponse(AppendEntriesResponse),
    /// "I lead": keeps followers from campaigning. It is not an empty AppendEntries, because the
    /// acknowledgement of an AppendEntries waits for the disk, and a heartbeat never does.
    Heartbeat(Heartbeat),
    /// The answer to [`Body::Heartbeat`]: "you lead, and we are connected".
    HeartbeatResponse(HeartbeatResponse),
    /// The answer to any call of a leader of an older term: "there is a newer term", namely the
    /// message's own.
    NewerTerm,
    /// A follower's request for a read index: "how far must I apply before I may answer a
    /// linearizable read?" (thesis, §6.4).
    ReadIndex(ReadIndex),
    /// The answer to [`Body::ReadIndex`].
    ReadIndexResponse(ReadIndexResponse),
    /// A part of the leader's snapshot, or the question how much of it the follower already has
    /// (§7).
    InstallSnapshot(SnapshotPart),
    /// The answer to [`Body::InstallSnapshot`].
    InstallSnapshotResponse(InstallSnapshotResponse),
    /// The last step of a leadership transfer: "start an election now" (thesis, §3.10).
    TimeoutNow,
}

/// A candidate's request for a vote or a pre-vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestVote {
    /// The term of the election: for a vote the sender's own, for a pre-vote the one after it.
    pub election_term: Term,
    /// The sender's number for this campaign; the response repeats it.
    pub round: u64,
    /// Index of the candidate's last entry (§5.4.1).
    pub last_log_index: LogIndex,
    /// Term of the candidate's last entry (§5.4.1).
    pub last_log_term: Term,
    /// Whether the election is part of a leadership transfer (thesis, §3.10): then voters grant it
    /// although they hear from the leader.
    pub is_transfer: bool,
}

/// A voter's answer to a request for a vote or a pre-vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestVoteResponse {
    /// The campaign whose request it answers.
    pub round: u64,
    /// Whether the vote is granted.
    pub granted: bool,
}

/// The leader's call that replicates entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendEntries {
    /// The leader's number for this call, which grows by one per call to a follower; the response
    /// repeats it.
    pub sequence: u64,
    /// Index of the entry immediately before the new ones.
    pub prev_log_index: LogIndex,
    /// The term of that entry.
    pub prev_log_term: Term,
    /// The checksum of that entry: logs that agree in index and term and differ here hold two
    /// histories. `None`: the sender is a program that leaves it out of calls without entries.
    pub prev_log_checksum: Option<Checksum>,
    /// The new entries in order, in consecutive runs. Empty in a call that asks whether the logs
    /// agree.
    pub entries: Runs,
    /// The leader's commit index.
    pub leader_commit: LogIndex,
}

/// A follower's answer to [`AppendEntries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendEntriesResponse {
    /// The sequence number of the call that it answers.
    pub sequence: u64,
    /// Whether the call was accepted or rejected.
    pub outcome: AppendOutcome,
}

/// The result of an [`AppendEntries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The follower's log is durable and equal to the leader's up to `match_index`.
    Accepted {
        /// The last index known to be equal.
        match_index: LogIndex,
    },
    /// The follower has no entry of `prev_log_term` at `prev_log_index`.
    Rejected {
        /// The index at which the logs may still agree: the follower's last index at or before
        /// `prev_log_index` whose term is not above `prev_log_term`. Lets the leader skip a whole
        /// term at a time (end of §5.3).
        hint_index: LogIndex,
        /// The term of the follower's entry at `hint_index`.
        hint_term: Term,
    },
}

/// The leader's heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The leader's commit index, limited to the index up to which the follower's log is known to
    /// match: a follower with a divergent tail must not take its own entries for committed ones.
    pub leader_commit: LogIndex,
    /// The checksum of the leader's entry at `leader_commit`, if it knows it: a follower whose own
    /// entry there has another checksum continues another history, and must not take it for
    /// committed.
    pub commit_checksum: Option<Checksum>,
    /// The latest round that the leader has begun.
    pub round: ReadRound,
    /// How much time has passed at the leader since it applied an entry; see
    /// [`Node::set_elapsed`](super::Node::set_elapsed).
    pub elapsed: Option<Elapsed>,
}

/// The time that has passed at a leader since it applied an entry, of which its state machine needs
/// to know the age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed {
    /// The entry.
    pub since: LogIndex,
    /// The time, at most [`ELAPSED_MAX`].
    pub time: Duration,
}

/// The longest time that a leader states: far longer than any runs. A longer one is an error of its
/// sender.
pub const ELAPSED_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A follower's answer to a [`Heartbeat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatResponse {
    /// The round of the heartbeat that it answers.
    pub round: ReadRound,
}

/// The number of a round of heartbeats by which a leader confirms that it still leads; counted from
/// 1 in each term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadRound(pub u64);

/// Identifies the reads that were requested in one turn of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadBatch(pub u64);

/// A follower's request for a read index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadIndex {
    /// The follower's number for the reads that wait for it; the response repeats it.
    pub batch: ReadBatch,
}

/// The answer to [`ReadIndex`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadIndexResponse {
    /// The batch of the request that it answers.
    pub batch: ReadBatch,
    /// The read index; `None` when the node that was asked does not lead, or stopped leading before
    /// the index was confirmed.
    pub index: Option<LogIndex>,
}

/// A follower's answer to a part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstallSnapshotResponse {
    /// The last entry of the snapshot that it is about.
    pub last: LogPoint,
    /// How much of the snapshot the follower has.
    pub outcome: InstallOutcome,
}

/// The progress of an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallOutcome {
    /// This many bytes of the content are on the follower's disk; the next part must start there.
    Holds {
        /// Bytes of content.
        bytes: u64,
    },
    /// The follower's log is durable and equal to the leader's up to the snapshot's last entry.
    Installed,
}
