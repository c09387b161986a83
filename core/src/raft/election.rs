//! Leader election: pre-vote, RequestVote, winning and losing.
//!
//! A node that does not hear from its leader first runs a pre-vote, without a new term (thesis,
//! §9.6). Only when a majority grants it does the node raise its term and start an election (§5.2).
//! So a node that was partitioned away rejoins without deposing the leader. The other half is
//! check-quorum (thesis, §6.2): a leader without a majority steps down, which also ends its
//! heartbeats, so that they no longer keep its followers from electing another leader. Each half
//! alone can block a cluster permanently; both together cannot.

use super::durability::Promise;
use super::event::{Event, StepDown};
use super::message::{Body, RequestVote, RequestVoteResponse};
use super::quorum::VoteResult;
use super::state::{Campaign, Leadership, Node, Part, Role};
use super::types::{LogPoint, NodeId, Term};
use crate::identity::Incarnation;
use crate::mutant::{self, Mutant};
use crate::time::Instant;

impl Node {
    /// Returns whether a leader was heard so recently that no node should campaign. A leader hears
    /// itself.
    pub(super) fn hears_leader(&self, now: Instant) -> bool {
        match &self.part {
            Part::Leader(_) => true,
            Part::Follower { leader: Some(_) } => self
                .leader_contact
                .is_some_and(|contact| now.since(contact) < self.config.election_timeout_min),
            _ => false,
        }
    }

    /// Returns whether a leader may rely on this node not to vote for another candidate, whatever
    /// the node has learnt since it last heard from that leader (needed for leases). After a
    /// restart a node does not remember its promises, so it starts with one.
    pub(super) fn vote_is_promised(&self, now: Instant) -> bool {
        let lasts = |since: Instant| now.since(since) < self.config.election_timeout_min;
        self.config.read_lease.is_some() && self.vote_is_promised_from.is_some_and(lasts)
    }

    /// Handles an election timeout: no message of a leader came in time, or a campaign had no
    /// result.
    ///
    /// Fig. 2, followers 2 and candidates 4: start an election, beginning with a pre-vote.
    pub(super) fn on_election_timeout(&mut self, now: Instant) {
        let is_voter = self.may_campaign();
        let votes_at_last = self.role() == Role::Candidate && !self.durability.hard_state_is_durable();
        if !is_voter || votes_at_last || self.disk_is_stalled(now) {
            // The node could not lead: its vote does not count, or its disk makes nothing durable.
            // Or its RequestVote calls have not left yet, because its own vote is still being
            // written: a restart of the campaign at each timeout would never end on a slow disk.
            if !is_voter && matches!(self.part, Part::Follower { leader: Some(_) }) {
                self.fail_reads();
                self.part = Part::Follower { leader: None };
            }
            return self.reset_election_timer(now);
        }
        self.fail_reads();
        self.round += 1;
        self.part = Part::PreCandidate(Campaign::new(self.round));
        self.leader_contact = None;
        self.reset_election_timer(now);
        self.report(Event::BecamePreCandidate { term: self.current_term });
        self.call_for_votes(self.current_term.next(), false, Body::RequestPreVote);
        // A pre-vote promises nothing, so the candidate's vote for itself needs no disk.
        let own_yes = RequestVoteResponse { round: self.round, granted: true };
        self.on_pre_vote_response(self.config.id, own_yes, now);
    }

    /// Starts an election (Fig. 2, candidates 1): raise the term, vote for oneself, reset the
    /// timer, ask all others.
    pub(super) fn stand_for_election(&mut self, is_transfer: bool, now: Instant) {
        self.current_term = self.current_term.next();
        self.voted_for = Some(self.config.id);
        self.turn.hard_state_changed = true;
        self.round += 1;
        self.part = Part::Candidate(Campaign::new(self.round));
        self.reset_election_timer(now);
        self.report(Event::BecameCandidate { term: self.current_term });
        // The calls wait until the vote for oneself is durable, and that vote counts only then
        // (`count_own_vote`): a candidate that wins, crashes and forgets that it voted could vote
        // for another one in the same term.
        self.call_for_votes(self.current_term, is_transfer, Body::RequestVote);
    }

    fn call_for_votes(&mut self, election_term: Term, is_transfer: bool, body: fn(RequestVote) -> Body) {
        let last = self.last_entry();
        let request = RequestVote {
            election_term,
            round: self.round,
            last_log_index: last.index,
            last_log_term: last.term,
            is_transfer,
        };
        for peer in self.peers() {
            self.send(peer, Promise::HardState, body(request));
        }
    }

    /// Counts the candidate's own vote, now that its term and vote are durable.
    pub(super) fn count_own_vote(&mut self, now: Instant) {
        // Before the end of the turn, the vote may not even have been handed to the disk.
        if self.turn.hard_state_changed {
            return;
        }
        let Part::Candidate(campaign) = &self.part else { return };
        if campaign.votes.contains_key(&self.config.id) {
            return;
        }
        // The calls leave only now, so the timeout for their answers starts now.
        self.reset_election_timer(now);
        let own_yes = RequestVoteResponse { round: self.round, granted: true };
        self.on_vote_response(self.config.id, own_yes, now);
    }

    /// Handles a pre-vote request: answers whether this node would vote for the sender, without
    /// changing any state.
    pub(super) fn on_request_pre_vote(&mut self, from: NodeId, request: RequestVote, now: Instant) {
        let is_new_term = request.election_term > self.current_term;
        let hears_leader = self.hears_leader(now) && !mutant::is_active(Mutant::PreVoteDespiteLeader);
        let is_open = !hears_leader && !self.vote_is_promised(now) && self.may_vote();
        if is_new_term && self.candidate_is_up_to_date(&request) && is_open {
            let response = RequestVoteResponse { round: request.round, granted: true };
            self.send(from, Promise::HardState, Body::RequestPreVoteResponse(response));
        } else {
            let (promise, answer) = self.refused_pre_vote(&request);
            self.send(from, promise, answer);
        }
    }

    pub(super) fn on_pre_vote_response(&mut self, from: NodeId, response: RequestVoteResponse, now: Instant) {
        let Part::PreCandidate(campaign) = &mut self.part else { return };
        campaign.record(from, response);
        match self.membership.current().tally(|voter| campaign.votes.get(&voter).copied()) {
            VoteResult::Won => self.stand_for_election(false, now),
            VoteResult::Lost => self.lose_election(),
            VoteResult::Pending => {}
        }
    }

    /// Handles a RequestVote call (Fig. 2, RequestVote receiver).
    pub(super) fn on_request_vote(
        &mut self,
        (from, incarnation): (NodeId, Option<Incarnation>),
        request: RequestVote,
        now: Instant,
    ) {
        // Fig. 2, RequestVote receiver 2: grant if the vote of this term is unused or went to the
        // same candidate, and the candidate's log is at least as up to date. A node that came back
        // under the same id without its memory is another candidate.
        let is_same = self.voted_for == Some(from) && self.voted_for_incarnation == incarnation;
        let is_free = self.voted_for.is_none() || is_same || mutant::is_active(Mutant::VoteGivenTwice);
        let is_promised = self.vote_is_promised(now) && !request.is_transfer;
        if !is_free || is_promised || !self.may_vote() || !self.candidate_is_up_to_date(&request) {
            let (promise, answer) = self.refused_vote(&request);
            return self.send(from, promise, answer);
        }
        if self.voted_for.is_none() {
            self.voted_for = Some(from);
            self.voted_for_incarnation = incarnation;
            self.turn.hard_state_changed = true;
        }
        // Fig. 2, followers 2: granting a vote resets the election timeout.
        self.reset_election_timer(now);
        if self.role() == Role::PreCandidate {
            // Late answers to its own pre-vote must not make this node compete with the candidate
            // that it votes for.
            self.become_follower(self.current_term, None, StepDown::VoteGiven, now);
        }
        let response = RequestVoteResponse { round: request.round, granted: true };
        self.send(from, Promise::HardState, Body::RequestVoteResponse(response));
    }

    pub(super) fn on_vote_response(&mut self, from: NodeId, response: RequestVoteResponse, now: Instant) {
        let Part::Candidate(campaign) = &mut self.part else { return };
        campaign.record(from, of_this_round_by_mutant(campaign, &response).unwrap_or(response));
        let votes = campaign.votes.values().filter(|&&granted| granted).count();
        match self.membership.current().tally(|voter| campaign.votes.get(&voter).copied()) {
            // Fig. 2, candidates 2: become leader with the votes of a majority.
            VoteResult::Won => self.become_leader(votes, now),
            VoteResult::Lost => self.lose_election(),
            VoteResult::Pending => {}
        }
    }

    pub(super) fn refused_pre_vote(&self, request: &RequestVote) -> (Promise, Body) {
        // The answer's term is this node's own. A candidate with a good log and an old term learns
        // the newer term from it, and can win the next round. Otherwise a node with {long log, old
        // term} and one with {short log, new term} would block each other permanently.
        let response = RequestVoteResponse { round: request.round, granted: false };
        (Promise::HardState, Body::RequestPreVoteResponse(response))
    }

    pub(super) fn refused_vote(&self, request: &RequestVote) -> (Promise, Body) {
        let response = RequestVoteResponse { round: request.round, granted: false };
        (Promise::HardState, Body::RequestVoteResponse(response))
    }

    /// Returns whether this node's log is not more up to date than the candidate's (§5.4.1): the
    /// later last term is more up to date; with equal terms, the longer log.
    fn candidate_is_up_to_date(&self, request: &RequestVote) -> bool {
        let last = self.last_entry();
        let is_up_to_date = (last.term, last.index) <= (request.last_log_term, request.last_log_index)
            || mutant::is_active(Mutant::CandidateLogUnchecked);
        is_longer_by_mutant(last, request).unwrap_or(is_up_to_date)
    }

    /// Ends a campaign that cannot be won any more. The election timer keeps running.
    fn lose_election(&mut self) {
        self.part = Part::Follower { leader: None };
        self.report(Event::BecameFollower { term: self.current_term, because: StepDown::ElectionLost });
    }

    fn become_leader(&mut self, votes: usize, now: Instant) {
        self.part = Part::Leader(Leadership::new(self.log.last().index, now));
        self.follow_membership(now);
        self.report(Event::BecameLeader { term: self.current_term, votes });
        // §8: append an entry of the new term. Without it the leader could not commit entries of
        // older terms (§5.4.2).
        self.append_noop_unless_mutant();
        // Fig. 2, leaders 1: send heartbeats to all peers at once.
        self.on_heartbeat_timeout(now);
    }

    /// Appends the entry of the new term; deliberate bug: appends nothing.
    fn append_noop_unless_mutant(&mut self) {
        if !mutant::is_active(Mutant::NoopSkipped) {
            self.append_noop();
        }
    }
}

/// Deliberate bug: the answer counts, whatever round it answers.
fn of_this_round_by_mutant(campaign: &Campaign, answer: &RequestVoteResponse) -> Option<RequestVoteResponse> {
    let round = campaign.round;
    mutant::is_active(Mutant::OldAnswersAccepted).then_some(RequestVoteResponse { round, ..*answer })
}

/// Deliberate bug: the longer log is more up to date, whatever its last term.
fn is_longer_by_mutant(last: LogPoint, request: &RequestVote) -> Option<bool> {
    let is_longer = (last.index, last.term) <= (request.last_log_index, request.last_log_term);
    mutant::is_active(Mutant::LongerLogPreferred).then_some(is_longer)
}
