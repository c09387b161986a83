//! The follower's side of replication: the receiver of AppendEntries and heartbeats (Fig. 2; §5.3).
//!
//! An AppendEntries names the index and term of the entry before its own (`prev_log_index`,
//! `prev_log_term`). If the follower has that entry, both logs are equal up to it (Log Matching,
//! §5.3), and the new entries continue the leader's history.
//!
//! The naive follower then cuts its log after `prev_log_index` and appends what came. That loses
//! acknowledged entries: calls can be delayed and overtaken, and an old, shorter call would cut off
//! a tail which the leader already counted for a commit. So this follower cuts only at the first
//! entry whose term differs from the leader's, and appends only what it lacks.
//!
//! For the same reason a call says nothing about entries beyond its last one, which may be an old
//! leader's: the follower acknowledges and commits up to the last entry of the call, and not up to
//! the end of the log. An acknowledgement waits until the log is durable; a heartbeat's answer
//! waits for the term alone, so that a slow disk does not cost the leader its followers.

use super::batch::Entries;
use super::durability::Promise;
use super::event::{Event, MessageRefusal, StepDown};
use super::message::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, Body, Heartbeat, HeartbeatResponse,
};
use super::state::{Node, Part};
use super::types::{Checksum, LogIndex, LogPoint, NodeId};
use crate::mutant::{self, Mutant};
use crate::time::Instant;

impl Node {
    /// Handles an AppendEntries call (Fig. 2, AppendEntries receiver). Rule 1, the older term, was
    /// handled before.
    pub(super) fn on_append_entries(&mut self, leader: NodeId, append: AppendEntries, now: Instant) {
        self.follow(leader, now);
        if let Err(because) = self.check_entries(&append) {
            return self.report(Event::MessageRefused { from: leader, because });
        }
        // An old call: everything up to the start of this log is committed, so the leader's log has
        // it as well.
        if append.prev_log_index < self.log.start().index {
            let outcome = AppendOutcome::Accepted { match_index: self.log.start().index };
            return self.answer_append(leader, append.sequence, Promise::Log, outcome);
        }
        // Fig. 2, AppendEntries receiver 2: reject the call when the log has no entry of that term
        // at that index. Committed entries are in every leader's log (§5.4), so the logs agree
        // there even where only the leader still has the entries.
        let known_term = self.log.term_at(append.prev_log_index);
        let agrees = known_term == Some(append.prev_log_term)
            || (known_term.is_some() && mutant::is_active(Mutant::PreviousTermUnchecked));
        if !agrees {
            return self.refuse_append(leader, &append);
        }
        if !self.continues(append.prev_log_index, append.prev_log_checksum) {
            let because = MessageRefusal::ChecksumMismatch;
            return self.report(Event::MessageRefused { from: leader, because });
        }
        let last_new = append.entries.last().map_or(append.prev_log_index, |run| run.last().index);
        for run in append.entries {
            if let Err(because) = self.append_run(run) {
                return self.report(Event::MessageRefused { from: leader, because });
            }
        }
        // Fig. 2, AppendEntries receiver 5: commit no further than the last entry that this call
        // vouches for.
        self.learn_commit(append.leader_commit.min(last_new));
        self.commit_more_by_mutant(append.leader_commit);
        let outcome = AppendOutcome::Accepted { match_index: last_new };
        let has_entries = last_new != append.prev_log_index;
        let promise = early_by_mutant(has_entries).unwrap_or(Promise::Log);
        self.answer_append(leader, append.sequence, promise, outcome);
    }

    pub(super) fn on_heartbeat(&mut self, leader: NodeId, heartbeat: Heartbeat, now: Instant) {
        self.follow(leader, now);
        self.heard_elapsed = heartbeat.elapsed.or(self.heard_elapsed);
        // The leader names only a commit index up to which it knows the log of this follower to
        // match. A log that is shorter belongs to another node: one that lost its disk, or a
        // removed one with the same id. The entries of such a log need not be committed.
        let last_index = self.log.last().index;
        let is_known = heartbeat.leader_commit <= last_index || mutant::is_active(Mutant::CommitBeyondOwnLog);
        if self.continues(heartbeat.leader_commit, heartbeat.commit_checksum) {
            if is_known {
                self.learn_commit(heartbeat.leader_commit.min(last_index));
            }
        } else {
            self.report(Event::MessageRefused { from: leader, because: MessageRefusal::ChecksumMismatch });
        }
        // The response waits until the term is durable, but never for entries that are being
        // written.
        let response = HeartbeatResponse { round: heartbeat.round };
        self.send(leader, Promise::HardState, Body::HeartbeatResponse(response));
    }

    /// Follows the leader of this term, from which a message came.
    pub(super) fn follow(&mut self, leader: NodeId, now: Instant) {
        match self.part {
            Part::Follower { leader: Some(known) } => {
                assert_eq!(known, leader, "two leaders in one term: the safety of Raft is broken");
            }
            Part::Leader(_) => panic!("two leaders in one term: the safety of Raft is broken"),
            // Fig. 2, candidates 3: a leader of this term ends the campaign.
            Part::Follower { leader: None } | Part::PreCandidate(_) | Part::Candidate(_) => {
                self.become_follower(self.current_term, Some(leader), StepDown::LeaderElected, now);
                self.report(Event::LeaderFound { term: self.current_term, leader });
            }
        }
        self.leader_contact = Some(now);
        self.vote_is_promised_from = Some(now);
        self.reset_timer_unless_mutant(now);
    }

    /// Returns whether this log equals the leader's up to `index`, as far as the checksum there
    /// shows: true where this log ends earlier or the leader names no checksum.
    fn continues(&self, index: LogIndex, checksum: Option<Checksum>) -> bool {
        let own = self.log.point_at(index).map(|point| point.checksum);
        let differs = matches!((own, checksum), (Some(own), Some(theirs)) if own != theirs);
        !differs || mutant::is_active(Mutant::CommitChecksumIgnored)
    }

    /// Rejects entries that could not come from a leader of this term, before they change anything.
    fn check_entries(&self, append: &AppendEntries) -> Result<(), MessageRefusal> {
        let mut index = append.prev_log_index;
        let mut term = append.prev_log_term;
        for run in &append.entries {
            let before = run.before();
            if before.index != index || before.term != term {
                return Err(MessageRefusal::EntriesOutOfOrder);
            }
            LogPoint { index, term, .. } = run.last();
        }
        if term > self.current_term { Err(MessageRefusal::EntriesOutOfOrder) } else { Ok(()) }
    }

    /// Appends the new entries of `run`, whose predecessor is in the log.
    fn append_run(&mut self, run: Entries) -> Result<(), MessageRefusal> {
        let Some(new) = self.first_difference(&run).and_then(|index| run.into_starting_at(index)) else {
            return Ok(());
        };
        let first_new = new.first_index();
        if self.log.point_at(first_new.previous()) != Some(new.before()) {
            // Same index, same term, other bytes: no leader sends that. A follower that stops here
            // is better than a log that mixes two histories.
            return Err(MessageRefusal::ChecksumMismatch);
        }
        // Fig. 2, AppendEntries receiver 3: cut the log at an entry whose term differs from that of
        // the entry at the same index. Only then: a shorter or older call must not cut a tail that
        // agrees with it. Committed entries are in the log of every leader (§5.4), so no leader
        // asks for a cut of those.
        if first_new <= self.commit_index && !mutant::is_active(Mutant::MatchingSuffixCut) {
            return Err(MessageRefusal::ContradictsCommitted);
        }
        if first_new <= self.log.last().index {
            self.cut_log(first_new);
        }
        // Fig. 2, AppendEntries receiver 4: append the entries that the log does not have.
        self.append(new);
        self.proposals.restart(self.log.last());
        Ok(())
    }

    /// The first index of `run` that the log lacks or holds with another term.
    fn first_difference(&self, run: &Entries) -> Option<LogIndex> {
        let last_common = self.log.last().index.min(run.last().index);
        // Two logs with an entry of the same index and term are equal up to it (§5.3, Log
        // Matching).
        let agrees = run.point_at(last_common).map(|point| point.term) == self.log.term_at(last_common);
        if agrees && !mutant::is_active(Mutant::MatchingSuffixCut) {
            return (last_common < run.last().index).then(|| last_common.next());
        }
        let differs = |point: &LogPoint| {
            self.log.term_at(point.index) != Some(point.term) || mutant::is_active(Mutant::MatchingSuffixCut)
        };
        run.iter().map(|entry| entry.point).find(differs).map(|point| point.index)
    }

    fn refuse_append(&mut self, leader: NodeId, append: &AppendEntries) {
        let hint = self.log.last_index_of_term_up_to(append.prev_log_index, append.prev_log_term);
        let outcome = AppendOutcome::Rejected { hint_index: hint.index, hint_term: hint.term };
        self.answer_append(leader, append.sequence, Promise::HardState, outcome);
    }

    fn answer_append(&mut self, leader: NodeId, sequence: u64, promise: Promise, outcome: AppendOutcome) {
        let response = AppendEntriesResponse { sequence, outcome };
        self.send(leader, promise, Body::AppendEntriesResponse(response));
    }

    /// Raises the commit index to `index` (Fig. 2, volatile state: `commit_index` only grows).
    pub(super) fn learn_commit(&mut self, index: LogIndex) {
        self.commit_index = self.commit_index.max(index);
    }

    /// Deliberate bug: commits entries that the call does not vouch for.
    fn commit_more_by_mutant(&mut self, leader_commit: LogIndex) {
        if mutant::is_active(Mutant::CommitBeyondNewEntries) {
            self.learn_commit(leader_commit.min(self.log.last().index));
        }
    }

    /// Resets the election timer; deliberate bug: leaves it running.
    fn reset_timer_unless_mutant(&mut self, now: Instant) {
        if !mutant::is_active(Mutant::HeartbeatKeepsTimer) {
            self.reset_election_timer(now);
        }
    }
}

/// Deliberate bug: the answer to a call without entries does not wait for those that it covers.
fn early_by_mutant(has_entries: bool) -> Option<Promise> {
    (!has_entries && mutant::is_active(Mutant::ProbeAckBeforeSync)).then_some(Promise::HardState)
}
