//! The entry point of a Raft node: starting it, its inputs, and the dispatch of messages to
//! handlers. The state is in `state`.
//!
//! Every public method is one of four kinds:
//!
//! - **inputs** ([`Node::receive`], [`Node::propose`], [`Node::persisted`],
//!   [`Node::peer_unreachable`]) may be called in any order and any number of times within a turn;
//! - **[`Node::end_turn`]** ends the turn: it acts on timers that are due and returns all outputs;
//! - **[`Node::deadline`]** says when the next turn is due if nothing arrives;
//! - all others read the state and change nothing.
//!
//! There is one ordering rule: the outputs of a turn are carried out in the order in which they are
//! returned, and persists strictly one after the other. The runtime need not wait for anything
//! else: an output that depends on a disk write is returned only after [`Node::persisted`] was
//! called for that write.

use std::fmt;

use super::batch_builder::BatchBuilder;
use super::configuration::Configuration;
use super::durability::{Durability, HardState, PersistId, Promise, Restored};
use super::event::{Event, StepDown};
use super::log::Log;
use super::message::{Body, Message, RequestVoteResponse};
use super::settings::{Config, ConfigError};
use super::state::{Membership, Node, OwnReads, Part, Turn};
use super::types::{LogIndex, NodeId, Term};
use crate::mutant::{self, Mutant};
use crate::time::Instant;

/// Why a proposal was rejected. A rejected proposal has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeError {
    /// This node does not lead; the payload is the leader of its term, if it knows one.
    NotLeader(Option<NodeId>),
    /// Too many bytes wait to be committed ([`Config::uncommitted_bytes_max`]).
    TooManyUncommitted,
    /// This node leads, but a leadership transfer is under way.
    TransferPending,
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader(Some(leader)) => write!(f, "node {leader} is the leader, not this one"),
            Self::NotLeader(None) => f.write_str("this node is not the leader"),
            Self::TooManyUncommitted => f.write_str("too many bytes wait to be committed"),
            Self::TransferPending => f.write_str("a leadership transfer is under way"),
        }
    }
}

impl std::error::Error for ProposeError {}

impl Node {
    /// Starts a node with the state `restored` from its disk, as a follower (§5.2).
    ///
    /// `seed` determines its random draws: give each node a different one, or their elections tie.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when the settings are inconsistent.
    ///
    /// # Panics
    ///
    /// When the runs of the restored log are not consecutive, or its last term is above the
    /// restored `current_term`: the storage has not kept the order of writes.
    pub fn new(config: Config, restored: Restored, seed: u64, now: Instant) -> Result<Self, ConfigError> {
        config.check()?;
        let log = Log::new(restored.log_start, restored.log);
        let HardState { current_term, voted_for } = restored.hard_state;
        assert!(log.last().term <= current_term, "the log on disk is ahead of the term on disk");
        let last = log.last();
        let snapshot = restored.snapshot.map(|snapshot| snapshot.meta);
        let own = (config.id, config.incarnation);
        let membership = match &snapshot {
            Some(meta) => Membership::new(own, meta.last.index, meta.configuration.clone()),
            None => Membership::new(
                own,
                LogIndex::ORIGIN,
                Configuration::of_voters(config.voters.clone()).with_roster(&config.roster),
            ),
        };
        let covered = snapshot.as_ref().map_or(restored.log_start.index, |meta| meta.last.index);
        assert!(
            log.start().index <= covered && covered <= last.index,
            "the snapshot on disk does not fit the log"
        );
        let mut rng = fastrand::Rng::with_seed(seed);
        // Rounds do not start from zero: a late answer to a campaign from before a restart must not
        // count for one after it.
        let round = u64::from(rng.u32(..)) << 16;
        let mut node = Self {
            config,
            rng,
            current_term,
            voted_for: voted_for.filter(is_remembered_unless_mutant),
            voted_for_incarnation: None,
            log,
            membership,
            commit_index: covered,
            part: Part::Follower { leader: None },
            election_deadline: now,
            last_turn: now,
            sleep_was_discounted: false,
            leader_contact: None,
            vote_is_promised_from: Some(now),
            own_reads: OwnReads::new(round),
            round,
            durability: Durability::new(last.index),
            snapshot,
            receiving: None,
            proposals: BatchBuilder::new(last),
            turn: Turn::new(last.index),
            elapsed: None,
            heard_elapsed: None,
        };
        for run in node.log.entries_from(covered.next(), usize::MAX) {
            for (index, configuration) in run.configurations() {
                node.membership.append(index, configuration);
            }
        }
        // The node stopped before the log was rewritten after its snapshot.
        node.turn.is_compaction_due = restored.log_start.index < covered;
        node.reset_election_timer(now);
        if node.is_only_voter() && node.config.read_lease.is_none() {
            // No other node can lead, so there is no leader to wait for. With leases there may be
            // one: a leader which this node's last configuration has removed as a voter.
            node.election_deadline = now;
        }
        Ok(node)
    }

    /// Handles a message of a peer.
    pub fn receive(&mut self, message: Message, now: Instant) {
        if let Err(because) = self.check_message(&message) {
            return self.report(Event::MessageRefused { from: message.from, because });
        }
        let Message { from, incarnation, term, body, .. } = message;
        if !self.compare_terms(from, term, &body, now) {
            return;
        }
        match body {
            Body::RequestPreVote(request) => self.on_request_pre_vote(from, request, now),
            Body::RequestPreVoteResponse(response) => self.on_pre_vote_response(from, response, now),
            Body::RequestVote(request) => self.on_request_vote((from, incarnation), request, now),
            Body::RequestVoteResponse(response) => self.on_vote_response(from, response, now),
            Body::AppendEntries(append) => self.on_append_entries(from, append, now),
            Body::AppendEntriesResponse(response) => self.on_append_response(from, response, now),
            Body::Heartbeat(heartbeat) => self.on_heartbeat(from, heartbeat, now),
            Body::HeartbeatResponse(response) => self.on_heartbeat_response(from, response, now),
            // `compare_terms` has done all that this message asks for.
            Body::NewerTerm => {}
            Body::ReadIndex(question) => self.on_read_index(from, question),
            Body::ReadIndexResponse(response) => self.on_read_index_response(response),
            Body::InstallSnapshot(part) => self.on_install_snapshot(from, part, now),
            Body::InstallSnapshotResponse(response) => self.on_install_snapshot_response(from, response, now),
            Body::TimeoutNow => self.on_timeout_now(from, now),
        }
    }

    /// Proposes an entry: appends it to the log if this node leads. `write_payload` appends the
    /// payload to the line: the members of a JSON object, one or more, without a line break.
    ///
    /// Returns the index and term that the entry has if it is ever committed: only an entry with
    /// this index *and* term is this one.
    ///
    /// # Errors
    ///
    /// [`ProposeError`], in which case nothing was appended.
    ///
    /// # Panics
    ///
    /// When the payload is empty.
    pub fn propose(
        &mut self,
        write_payload: impl FnOnce(&mut String),
    ) -> Result<(LogIndex, Term), ProposeError> {
        let Part::Leader(leadership) = &self.part else {
            return Err(ProposeError::NotLeader(self.leader()));
        };
        if leadership.transfer.is_some() {
            return Err(ProposeError::TransferPending);
        }
        let unfinished = leadership.uncommitted_bytes().max(self.durability.undurable_bytes());
        let waiting = unfinished + self.proposals.bytes();
        if waiting >= self.config.uncommitted_bytes_max {
            return Err(ProposeError::TooManyUncommitted);
        }
        let point = self.proposals.seal(self.current_term, write_payload);
        Ok((point.index, point.term))
    }

    /// Reports that the persist `id`, and every one before it, is durable.
    ///
    /// # Panics
    ///
    /// When no persist with this id was returned.
    pub fn persisted(&mut self, id: PersistId, now: Instant) {
        self.durability.report(id, now);
        if self.durability.hard_state_is_durable() {
            self.count_own_vote(now);
        }
    }

    /// Reports that messages to `peer` may have been lost, for instance because a connection broke.
    pub fn peer_unreachable(&mut self, peer: NodeId) {
        if let Part::Leader(leadership) = &mut self.part {
            leadership.unreachable(peer);
        }
    }

    /// Compares terms (Fig. 2, all servers). Returns whether the message goes to its handler.
    fn compare_terms(&mut self, from: NodeId, term: Term, body: &Body, now: Instant) -> bool {
        if term < self.current_term {
            // A voter grants a pre-vote in its own term, which may be older: the round shows which
            // request it answers.
            let is_pre_vote =
                matches!(body, Body::RequestPreVoteResponse(RequestVoteResponse { granted: true, .. }));
            let is_other_answer =
                matches!(body, Body::RequestVoteResponse(_) | Body::AppendEntriesResponse(_));
            if is_pre_vote || (is_other_answer && mutant::is_active(Mutant::OldAnswersAccepted)) {
                return true;
            }
            self.answer_older_term(from, body);
            return false;
        }
        match body {
            // A pre-vote asks about a term that no node is in yet. It changes no term here.
            Body::RequestPreVote(_) => true,
            // Thesis, §4.2.3: a node that hears from a leader does not let another node start a new
            // term. The exception is an election that the leader itself wants (thesis, §3.10).
            Body::RequestVote(request) if term > self.current_term => {
                let is_spared = self.hears_leader(now) || self.vote_is_promised(now);
                let is_open = request.is_transfer || !is_spared;
                if is_open {
                    self.become_follower(term, None, StepDown::HigherTerm, now);
                }
                is_open
            }
            _ => {
                // Fig. 2, all servers 2: a higher term in any message turns a node into a follower
                // of that term.
                if term > self.current_term {
                    self.become_follower(term, None, StepDown::HigherTerm, now);
                }
                true
            }
        }
    }

    /// Rejects a call of an older term, and reports the newer term to its sender (Fig. 2, receivers
    /// 1). Without that answer a node with a higher term and the leader of a lower one would ignore
    /// each other permanently.
    fn answer_older_term(&mut self, from: NodeId, body: &Body) {
        let (promise, answer) = match body {
            Body::RequestPreVote(request) => self.refused_pre_vote(request),
            Body::RequestVote(request) => self.refused_vote(request),
            Body::AppendEntries(_) | Body::Heartbeat(_) | Body::InstallSnapshot(_) => {
                (Promise::HardState, Body::NewerTerm)
            }
            // An answer to an earlier campaign or an earlier term: nothing waits for it.
            Body::RequestPreVoteResponse(_)
            | Body::RequestVoteResponse(_)
            | Body::AppendEntriesResponse(_)
            | Body::HeartbeatResponse(_)
            | Body::InstallSnapshotResponse(_)
            | Body::NewerTerm
            | Body::ReadIndexResponse(_)
            // The request of a follower that has not heard of this term yet, or the call of an
            // earlier leader to start an election.
            | Body::ReadIndex(_)
            | Body::TimeoutNow => return,
        };
        self.send(from, promise, answer);
    }
}

/// Returns whether a vote survives a restart; deliberate bug: none does.
fn is_remembered_unless_mutant(_voted_for: &NodeId) -> bool {
    !mutant::is_active(Mutant::VoteForgotten)
}
