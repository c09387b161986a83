//! The leader's side of replication: sending entries, counting acknowledgements, advancing the
//! commit index, and stepping down when no majority answers (check-quorum) or its own disk stalls.

use super::batch::Entries;
use super::durability::Promise;
use super::entry::NOOP_PAYLOAD;
use super::event::{Event, MessageRefusal, StepDown};
use super::log::Log;
use super::message::{AppendEntries, AppendEntriesResponse, AppendOutcome, Body, HeartbeatResponse};
use super::runs::Runs;
use super::state::{Node, Part};
use super::types::{LogIndex, NodeId};
use crate::mutant::{self, Mutant};
use crate::time::Instant;

/// Which updates a follower has not been sent yet.
struct News {
    entries: bool,
    commit: bool,
}

impl Node {
    pub(super) fn append_noop(&mut self) {
        self.proposals.seal(self.current_term, |line| line.push_str(NOOP_PAYLOAD));
    }

    /// Handles the heartbeat timer: sends heartbeats, or steps down if a majority is silent or its
    /// own disk stalls.
    pub(super) fn on_heartbeat_timeout(&mut self, now: Instant) {
        if !self.hears_majority(now) && !mutant::is_active(Mutant::QuorumUnchecked) {
            return self.become_follower(self.current_term, None, StepDown::QuorumLost, now);
        }
        if self.disk_is_stalled(now) {
            return self.become_follower(self.current_term, None, StepDown::DiskStalled, now);
        }
        let next_heartbeat = now + self.config.heartbeat_interval;
        if let Part::Leader(leadership) = &mut self.part {
            leadership.next_heartbeat = next_heartbeat;
            let patience = self.config.election_timeout_max;
            leadership.followers.let_go(self.commit_index, now, patience);
        }
        // Fig. 2, leaders 1: heartbeats in idle times. They are sent in busy times as well: an
        // AppendEntries may be queued behind others, and its answer may wait for a disk.
        self.renew_lease(now);
        self.send_heartbeats();
    }

    /// Returns whether this node's disk, with writes to do, has finished none for longer than the
    /// longest election timeout.
    pub(super) fn disk_is_stalled(&self, now: Instant) -> bool {
        let patience = self.config.election_timeout_max;
        self.durability.waiting_since().is_some_and(|since| now.since(since) > patience)
    }

    /// Check-quorum (thesis, §6.2): returns whether a majority has answered within an election
    /// timeout. A leader without one is cut off.
    fn hears_majority(&self, now: Instant) -> bool {
        let Part::Leader(leadership) = &self.part else { return false };
        let own = self.config.id;
        let never = Instant::default();
        let last_heard = |node: NodeId| match leadership.followers.of(node) {
            Some(progress) => progress.last_heard(),
            None if node == own => now,
            None => never,
        };
        let heard = self.configuration().majority_reached(last_heard);
        now.since(heard) <= self.config.election_timeout_max
    }

    /// Sends to each follower the entries that it has not been sent yet, or the new commit index.
    pub(super) fn send_news(&mut self, now: Instant) {
        let mut place = 0;
        while let Some((peer, news)) = self.news_for(place) {
            place += 1;
            let was_told = news.entries && self.send_new_entries(peer, now);
            if news.commit && !was_told {
                self.send_heartbeat(peer);
            }
        }
    }

    /// The follower at this position of the list, and the updates to send to it. A new commit index
    /// is sent at once, because followers should not answer reads with old values until the next
    /// heartbeat.
    fn news_for(&mut self, place: usize) -> Option<(NodeId, News)> {
        let Part::Leader(leadership) = &mut self.part else { return None };
        let (follower, progress) = leadership.followers.at_mut(place)?;
        let entries = progress.next_index() <= self.log.last().index;
        let commit = progress.commit_news(self.commit_index).is_some();
        Some((follower, News { entries, commit }))
    }

    /// Sends a follower the entries that it lacks, as far as its window allows (Fig. 2, leaders 3).
    /// Returns whether anything was sent.
    fn send_new_entries(&mut self, to: NodeId, now: Instant) -> bool {
        let mut was_told = false;
        while let Part::Leader(leadership) = &self.part {
            let Some(progress) = leadership.followers.of(to) else { break };
            if progress.next_index() > self.log.last().index || !progress.may_send(&self.config) {
                break;
            }
            let entries = self.log.entries_from(progress.next_index(), self.config.append_bytes_max);
            was_told |= self.send_append(to, entries, now);
        }
        was_told
    }

    /// Sends `entries`, which start at the follower's `next_index`, or none to ask whether the logs
    /// agree there. Where the log no longer reaches back so far, begins to send a snapshot instead,
    /// and returns `false`.
    fn send_append(&mut self, to: NodeId, entries: Runs, now: Instant) -> bool {
        let Part::Leader(leadership) = &mut self.part else { return false };
        let Some(progress) = leadership.followers.of_mut(to) else { return false };
        let prev_log_index = progress.next_index().previous();
        let before = entries.first().map(Entries::before);
        let Some(prev) = before.or_else(|| self.log.point_at(prev_log_index)) else {
            self.begin_snapshot(to, now);
            return false;
        };
        let sequence = progress.next_sequence();
        let bytes = entries.iter().map(Entries::bytes).sum();
        progress.sent(entries.last().map(|run| run.last().index), bytes, now);
        let append = AppendEntries {
            sequence,
            prev_log_index,
            prev_log_term: prev.term,
            prev_log_checksum: Some(prev.checksum),
            entries,
            leader_commit: self.commit_index,
        };
        // The leader may send entries that are not on its own disk yet (thesis, §10.2.1): it counts
        // itself only when they are.
        self.send(to, Promise::Nothing, Body::AppendEntries(append));
        true
    }

    pub(super) fn on_append_response(&mut self, from: NodeId, response: AppendEntriesResponse, now: Instant) {
        let last_index = self.log.last().index;
        let Part::Leader(leadership) = &mut self.part else { return };
        let Some(progress) = leadership.followers.of_mut(from) else { return };
        progress.heard(now);
        match response.outcome {
            AppendOutcome::Accepted { match_index } if match_index > last_index => {
                self.report(Event::MessageRefused { from, because: MessageRefusal::UnknownEntries });
            }
            AppendOutcome::Accepted { match_index } => {
                // While a snapshot is being sent, an acknowledgement below the start of this log
                // does not help.
                if !progress.is_sent_snapshot() || self.log.point_at(match_index).is_some() {
                    progress.accepted(match_index);
                }
            }
            AppendOutcome::Rejected { .. } if progress.is_sent_snapshot() => {}
            AppendOutcome::Rejected { hint_index, hint_term } => {
                if progress.is_current(response.sequence) {
                    // The same rule as at the end of §5.3, on the side of the leader: no entry
                    // after `common` can agree, because the follower's terms up to the hint are at
                    // most `hint_term`.
                    let common = self.log.last_index_of_term_up_to(hint_index, hint_term);
                    // If not even the start of the log can agree, there is no index left to ask
                    // about: the follower may hold another entry there, and would return the same
                    // hint again and again.
                    if common.index > hint_index || common.term > hint_term {
                        return self.begin_snapshot(from, now);
                    }
                    let agrees = common.index == hint_index || mutant::is_active(Mutant::HintTermIgnored);
                    let common = if agrees { hint_index } else { common.index };
                    if !progress.rejected(common, now) {
                        self.report(Event::MessageRefused { from, because: MessageRefusal::LostEntries });
                    }
                }
            }
        }
    }

    pub(super) fn on_heartbeat_response(&mut self, from: NodeId, response: HeartbeatResponse, now: Instant) {
        let last_index = self.log.last().index;
        let Part::Leader(leadership) = &mut self.part else { return };
        let Some(progress) = leadership.followers.of_mut(from) else { return };
        progress.heard(now);
        progress.answered(response.round);
        if progress.is_sent_snapshot() {
            return self.repeat_snapshot_question(from, now);
        }
        if progress.match_index() >= last_index {
            return;
        }
        // The follower is alive but lags. Either its acknowledgement is on the way, or a call was
        // lost: a call without entries distinguishes the two, whatever the window says. New entries
        // would do so as well.
        let will_be_sent_more = progress.next_index() <= last_index && progress.may_send(&self.config);
        if !will_be_sent_more && progress.is_overdue(now, self.config.heartbeat_interval) {
            self.send_append(from, Runs::new(), now);
        }
    }

    /// Advances the commit index to the highest index that a majority holds, if that entry is of
    /// the leader's own term (Fig. 2, leaders 4; §5.4.2: an older entry may be overwritten although
    /// a majority holds it, so it is committed only together with an entry of this term).
    pub(super) fn advance_commit_index(&mut self) {
        let Part::Leader(leadership) = &mut self.part else { return };
        if self.commit_index >= self.log.last().index {
            return;
        }
        let durable_index = self.durability.durable_index();
        let durable_index = unsynced_by_mutant(&self.log).unwrap_or(durable_index);
        let own = self.config.id;
        let reached =
            self.membership.current().majority_reached(|node| match leadership.followers.of(node) {
                Some(progress) => progress.match_index(),
                None if node == own => durable_index,
                None => LogIndex::ORIGIN,
            });
        let is_own = leadership.is_own(reached) || mutant::is_active(Mutant::OldTermsCommitted);
        if reached > self.commit_index && is_own {
            self.commit_index = reached;
            leadership.committed(reached);
        }
    }
}

/// Deliberate bug: the leader counts itself for its whole log.
fn unsynced_by_mutant(log: &Log) -> Option<LogIndex> {
    mutant::is_active(Mutant::LeaderCountsUnsynced).then(|| log.last().index)
}
