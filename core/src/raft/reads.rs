//! Linearizable reads without a log entry: ReadIndex and leases (thesis, §6.4).
//!
//! To answer a linearizable read, a node needs a *read index*: an index at or above every entry
//! that was acknowledged to any client before. Once the log is applied that far, the read may be
//! answered.
//!
//! The leader's commit index is such an index, if the node still leads, which it cannot be sure of.
//! So it begins a *round*: its next heartbeats carry the number of the round, and once a majority
//! has answered that number, the node was leader when the round began. One round serves all reads
//! that wait when it begins; there is one round at a time, and reads that arrive meanwhile wait for
//! the next one. The regular heartbeats repeat a round that was lost.
//!
//! Three rules, each of which prevents a stale read that another library had:
//!
//! 1. The leader gives no read index before it has committed an entry of its term: until then it
//!    may not know what its predecessors committed (§8).
//! 2. The leader, not the asker, numbers the rounds, and never repeats a number within a term: late
//!    answers to an old round cannot confirm a new one.
//! 3. A node that loses leadership fails all reads that wait.
//!
//! A follower forwards the request to its leader, and applies its own log up to the index in the
//! answer.
//!
//! With [`Config::read_lease`](super::Config::read_lease) a leader need not begin a round for each
//! read (thesis, §6.4.1): it has a lease for as long as its followers refuse to vote for another
//! node. A lease is safe only if all clocks run at nearly the same speed, so it is off by default.

use std::time::Duration;

use super::durability::Promise;
use super::message::{Body, ReadBatch, ReadIndex, ReadIndexResponse, ReadRound};
use super::output::Output;
use super::settings::ClockDrift;
use super::state::{Asker, LeaderReads, Node, Part, READ_BATCHES_MAX};
use super::types::{LogIndex, NodeId};
use crate::mutant::{self, Mutant};
use crate::time::Instant;

impl Node {
    /// Requests a read index. All calls within one turn share a batch; its result is exactly one
    /// [`Output::ReadIndex`], in this turn or a later one.
    pub fn read_index(&mut self) -> ReadBatch {
        let reads = &mut self.own_reads;
        *reads.open.get_or_insert_with(|| {
            reads.next += 1;
            ReadBatch(reads.next)
        })
    }

    /// Routes the reads of this turn: a leader queues them for a round, a follower forwards them to
    /// its leader; in all other cases they fail.
    pub(super) fn route_reads(&mut self, now: Instant) {
        self.give_up_on_leader(now);
        let Some(batch) = self.own_reads.open.take() else { return };
        match &mut self.part {
            Part::Leader(leadership) if leadership.takes_reads() => {
                leadership.reads.waiting.push(Asker::Own(batch));
            }
            Part::Follower { leader: Some(leader) } if self.own_reads.forwarded.len() < READ_BATCHES_MAX => {
                let leader = *leader;
                self.own_reads.forwarded.push_back((batch, now));
                self.send(leader, Promise::Nothing, Body::ReadIndex(ReadIndex { batch }));
            }
            _ => self.turn.reads.push((batch, None)),
        }
    }

    /// Handles the request of a follower. A node that does not lead answers so: the request may be
    /// old, or its sender may be wrong about the leader.
    pub(super) fn on_read_index(&mut self, from: NodeId, question: ReadIndex) {
        match &mut self.part {
            Part::Leader(leadership) if leadership.takes_reads() => {
                leadership.reads.waiting.push(Asker::Peer(from, question.batch));
            }
            _ => self.answer_read(Asker::Peer(from, question.batch), None),
        }
    }

    pub(super) fn on_read_index_response(&mut self, response: ReadIndexResponse) {
        let forwarded = &mut self.own_reads.forwarded;
        let position = forwarded.iter().position(|(batch, _)| *batch == response.batch);
        if position.and_then(|position| forwarded.remove(position)).is_some() {
            self.turn.reads.push((response.batch, response.index));
        }
    }

    /// The leader's part of the end of a turn: confirms rounds that a majority has answered, and
    /// begins a round for the reads that wait.
    pub(super) fn lead_reads(&mut self, now: Instant) {
        self.count_round();
        let commits_own_term = self.commits_own_term() || mutant::is_active(Mutant::ReadBeforeOwnCommit);
        let Part::Leader(leadership) = &mut self.part else { return };
        let reads = &mut leadership.reads;
        if reads.waiting.is_empty() || !commits_own_term {
            return;
        }
        let is_leased = reads.lease_end.is_some_and(|end| now < end);
        if is_leased || mutant::is_active(Mutant::ReadWithoutQuorum) {
            let askers = std::mem::take(&mut reads.waiting);
            let index = self.commit_index;
            return askers.into_iter().for_each(|asker| self.answer_read(asker, Some(index)));
        }
        if reads.confirming.is_some() {
            return;
        }
        begin_round_unless_mutant(reads, now);
        reads.confirming = Some((reads.round, self.commit_index));
        reads.confirmed_with = std::mem::take(&mut reads.waiting);
        self.send_heartbeats();
        // A leader that is the only voter has its majority already.
        self.count_round();
    }

    /// Begins a round for a regular heartbeat, to renew the lease.
    pub(super) fn renew_lease(&mut self, now: Instant) {
        if self.config.read_lease.is_some()
            && let Part::Leader(leadership) = &mut self.part
        {
            leadership.reads.begin_round(now);
        }
    }

    /// Finds the rounds that a majority has answered by now: renews the lease, and answers the
    /// reads of a confirmed round.
    fn count_round(&mut self) {
        let Part::Leader(leadership) = &mut self.part else { return };
        if !leadership.reads.is_counting() {
            return;
        }
        let (followers, latest) = (&leadership.followers, leadership.reads.round());
        let own = self.config.id;
        let answered = self.membership.current().majority_reached(|node| match followers.of(node) {
            Some(progress) => progress.answered_round(),
            // The leader answers its own rounds at once.
            None if node == own => latest,
            None => ReadRound::default(),
        });
        let reads = &mut leadership.reads;
        let mut begun_at = None;
        while let Some((_, at)) = reads.begun.pop_front_if(|(round, _)| *round <= answered) {
            begun_at = Some(at);
        }
        if let (Some(begun_at), Some(drift)) = (begun_at, self.config.read_lease)
            && (!leadership.has_called_election || mutant::is_active(Mutant::LeaseRenewedAfterCall))
        {
            let lease = lease(self.config.election_timeout_min, drift);
            let lease = too_long_by_mutant(self.config.election_timeout_max).unwrap_or(lease);
            reads.lease_end = reads.lease_end.max(Some(begun_at + lease));
        }
        if let Some((_, index)) = reads.confirming.take_if(|(round, _)| *round <= answered) {
            for asker in std::mem::take(&mut reads.confirmed_with) {
                self.answer_read(asker, Some(index));
            }
        }
    }

    /// Fails all reads that wait, because they cannot be confirmed after a change of leadership.
    pub(super) fn fail_reads(&mut self) {
        if let Part::Leader(leadership) = &mut self.part {
            for asker in leadership.reads.take_all() {
                self.answer_read(asker, None);
            }
        }
        for (batch, _) in std::mem::take(&mut self.own_reads.forwarded) {
            self.turn.reads.push((batch, None));
        }
    }

    /// Fails forwarded reads that have waited too long: the request or its answer may be lost. The
    /// asker can retry.
    fn give_up_on_leader(&mut self, now: Instant) {
        let patience = self.config.election_timeout_min;
        let forwarded = &mut self.own_reads.forwarded;
        while let Some((batch, _)) = forwarded.pop_front_if(|(_, since)| now.since(*since) >= patience) {
            self.turn.reads.push((batch, None));
        }
    }

    fn answer_read(&mut self, asker: Asker, index: Option<LogIndex>) {
        match asker {
            Asker::Own(batch) => self.turn.reads.push((batch, index)),
            Asker::Peer(peer, batch) => {
                let response = ReadIndexResponse { batch, index };
                self.send(peer, Promise::HardState, Body::ReadIndexResponse(response));
            }
        }
    }

    /// The results for reads of this turn.
    pub(super) fn take_reads(&mut self) -> impl Iterator<Item = Output> {
        self.turn.reads.drain(..).map(|(batch, index)| Output::ReadIndex { batch, index })
    }
}

/// The length of a lease by the leader's own clock, when followers promise `shortest` by their
/// clocks, and clocks may drift apart by `drift`.
fn lease(shortest: Duration, drift: ClockDrift) -> Duration {
    // Both clocks may be off: the leader's slow, a follower's fast.
    shortest * (1000 - drift.per_mille) / (1000 + drift.per_mille)
}

/// Begins a round for reads; deliberate bug: uses the last one again.
fn begin_round_unless_mutant(reads: &mut LeaderReads, now: Instant) {
    if reads.round == ReadRound::default() || !mutant::is_active(Mutant::ReadRoundUsedAgain) {
        reads.begin_round(now);
    }
}

/// Deliberate bug: a lease as long as the longest election timeout.
fn too_long_by_mutant(election_timeout_max: Duration) -> Option<Duration> {
    mutant::is_active(Mutant::LeaseTooLong).then_some(election_timeout_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_before_the_slowest_leader_can_be_replaced_by_the_fastest_followers() {
        let shortest = Duration::from_millis(300);
        assert_eq!(lease(shortest, ClockDrift { per_mille: 0 }), shortest);
        for per_mille in [1, 10, 100, 499] {
            let lease = lease(shortest, ClockDrift { per_mille }).as_secs_f64();
            let true_time_of_lease = lease * 1000.0 / f64::from(1000 - per_mille);
            let true_time_of_promise = shortest.as_secs_f64() * 1000.0 / f64::from(1000 + per_mille);
            assert!(true_time_of_lease <= true_time_of_promise + 1e-9, "{per_mille}");
        }
    }
}
