//! Linearizable reads without a log entry (ReadIndex; thesis, §6.4).
//!
//! Whoever wants to read asks its node for a *read index*: an index so high that everything
//! acknowledged to anybody before is at or below it. With that much applied, the answer is as fresh
//! as linearizability wants.
//!
//! A leader knows the index, its commit index, but not whether it still leads. So it begins a
//! *round*: its next heartbeats carry the round's number, and once a majority has answered that
//! number, it led when the round began. One round serves all reads that wait when it begins; there
//! is one at a time, and those that come meanwhile wait for the next. A lost round is repeated by
//! the ordinary heartbeats.
//!
//! Three rules, each the cure of a stale read that another library had:
//!
//! 1. No read index before the leader has committed an entry of its own term: until then it may not
//!    know what its predecessors committed (§8).
//! 2. Rounds are numbered here, never by the asker, and never again within a term: late answers to
//!    an old round cannot confirm a new one.
//! 3. Who loses leadership fails all reads that wait.
//!
//! A follower passes the question on to its leader, and applies up to the index that comes back by
//! itself.
//!
//! With [`Config::read_lease`](super::Config::read_lease) a leader need not ask each time (thesis,
//! §6.4.1): for as long as its followers refuse to vote for anybody else, it still leads. That
//! trusts every node's clock to run at nearly the same speed, so it is off by default.

use std::time::Duration;

use super::durability::Promise;
use super::message::{Body, ReadBatch, ReadIndex, ReadIndexResponse, ReadRound};
use super::output::Output;
use super::settings::ClockDrift;
use super::state::{Asker, Node, Part, READ_BATCHES_MAX};
use super::types::{LogIndex, NodeId};
use crate::mutant::{self, Mutant};
use crate::time::Instant;

impl Node {
    /// Asks for a read index. All calls of one turn get the same batch; its outcome is an
    /// [`Output::ReadIndex`] of this turn or a later one, exactly one per batch.
    pub fn read_index(&mut self) -> ReadBatch {
        let reads = &mut self.own_reads;
        *reads.open.get_or_insert_with(|| {
            reads.next += 1;
            ReadBatch(reads.next)
        })
    }

    /// The turn ends: what was asked for in it goes where it is answered.
    pub(super) fn route_reads(&mut self, now: Instant) {
        self.give_up_on_leader(now);
        let Some(batch) = self.own_reads.open.take() else { return };
        match &mut self.part {
            Part::Leader(leadership) if leadership.takes_reads() => {
                leadership.reads.waiting.push(Asker::Own(batch));
            }
            Part::Follower { leader: Some(leader) } if self.own_reads.passed_on.len() < READ_BATCHES_MAX => {
                let leader = *leader;
                self.own_reads.passed_on.push_back((batch, now));
                self.send(leader, Promise::Nothing, Body::ReadIndex(ReadIndex { batch }));
            }
            _ => self.turn.reads.push((batch, None)),
        }
    }

    /// A follower asks. Who does not lead says so: the question may be old, or its sender's idea of
    /// the leader.
    pub(super) fn on_read_index(&mut self, from: NodeId, question: ReadIndex) {
        match &mut self.part {
            Part::Leader(leadership) if leadership.takes_reads() => {
                leadership.reads.waiting.push(Asker::Peer(from, question.batch));
            }
            _ => self.answer_read(Asker::Peer(from, question.batch), None),
        }
    }

    pub(super) fn on_read_index_response(&mut self, response: ReadIndexResponse) {
        let passed_on = &mut self.own_reads.passed_on;
        let position = passed_on.iter().position(|(batch, _)| *batch == response.batch);
        if position.and_then(|position| passed_on.remove(position)).is_some() {
            self.turn.reads.push((response.batch, response.index));
        }
    }

    /// The leader's part of a turn's end: confirms what can be confirmed, and begins a round for
    /// what waits.
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
        if !mutant::is_active(Mutant::ReadRoundUsedAgain) || reads.round == ReadRound::default() {
            reads.begin_round(now);
        }
        reads.confirming = Some((reads.round, self.commit_index));
        reads.confirmed_with = std::mem::take(&mut reads.waiting);
        self.send_heartbeats();
        // A leader that needs nobody else has its majority already.
        self.count_round();
    }

    /// A regular heartbeat is due: with leases it is a round as well.
    pub(super) fn renew_lease(&mut self, now: Instant) {
        if self.config.read_lease.is_some()
            && let Part::Leader(leadership) = &mut self.part
        {
            leadership.reads.begin_round(now);
        }
    }

    /// Looks which rounds a majority has answered by now.
    fn count_round(&mut self) {
        let Part::Leader(leadership) = &mut self.part else { return };
        if !leadership.reads.is_counting() {
            return;
        }
        let followers = &leadership.followers;
        let own = self.config.id;
        let answered = self.membership.current().majority_reached(|node| match followers.of(node) {
            Some(progress) => progress.answered_round(),
            None if node == own => ReadRound(u64::MAX),
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
            let is_too_long = mutant::is_active(Mutant::LeaseTooLong);
            let lease = if is_too_long {
                self.config.election_timeout_max
            } else {
                lease(self.config.election_timeout_min, drift)
            };
            reads.lease_end = reads.lease_end.max(Some(begun_at + lease));
        }
        if let Some((_, index)) = reads.confirming.take_if(|(round, _)| *round <= answered) {
            for asker in std::mem::take(&mut reads.confirmed_with) {
                self.answer_read(asker, Some(index));
            }
        }
    }

    /// Leadership is over: nothing that waits can be confirmed any more.
    pub(super) fn fail_reads(&mut self) {
        if let Part::Leader(leadership) = &mut self.part {
            for asker in leadership.reads.take_all() {
                self.answer_read(asker, None);
            }
        }
        for (batch, _) in std::mem::take(&mut self.own_reads.passed_on) {
            self.turn.reads.push((batch, None));
        }
    }

    /// A question or its answer may be lost. Whoever asked knows what to do.
    fn give_up_on_leader(&mut self, now: Instant) {
        let patience = self.config.election_timeout_min;
        let passed_on = &mut self.own_reads.passed_on;
        while let Some((batch, _)) = passed_on.pop_front_if(|(_, since)| now.since(*since) >= patience) {
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

    /// What the turn found out about reads.
    pub(super) fn take_reads(&mut self) -> impl Iterator<Item = Output> {
        self.turn.reads.drain(..).map(|(batch, index)| Output::ReadIndex { batch, index })
    }
}

/// How long the leader may trust a majority's answers by its own clock, when their clocks promise
/// `shortest` and may run faster than its own by `drift`.
fn lease(shortest: Duration, drift: ClockDrift) -> Duration {
    // Both clocks may be off: the leader's slow, a follower's fast.
    shortest * (1000 - drift.per_mille) / (1000 + drift.per_mille)
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
