//! Reads on a replica: read-your-writes for eventual reads, and ReadIndex for linearizable ones.
//!
//! The naive way is to answer at once from the local map. That fails in three ways. A client that
//! wrote through the leader and reads at a follower may miss its own write. A node that has just
//! restarted has not applied all of its log, and would return older values than before. And a
//! leader that was deposed without noticing would return values that its successor has overwritten.
//!
//! So a read waits until enough of the log is applied. The index to wait for depends on the read:
//!
//! - eventual: `at_least`, the highest index that the client's connection has seen;
//! - linearizable: the read index that `raft` returns once the leadership is confirmed (thesis,
//!   §6.4);
//! - any read after a restart: in addition `reads_from`, the end of the log that was on the disk.
//!
//! A read never waits long: after [`READ_TIMEOUT`], or when no leader is known, it is rejected
//! without effect, and the proxy retries it at another node.

use super::interface::{Answer, Output, RequestId, RequestRefusal};
use super::{LOOK_UPS_MAX, READ_TIMEOUT, Replica};
use crate::kv::{Found, Level, Query};
use crate::mutant::{self, Mutant};
use crate::raft::{LogIndex, ReadBatch};
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct WaitingRead {
    pub(super) request: RequestId,
    pub(super) query: Query,
    pub(super) since: Instant,
}

impl Replica {
    /// Returns whether enough is applied for a read by a client that has seen `at_least`. On a
    /// removed node the answer is always no, because its map is no longer updated. A node that
    /// joined must first apply what was committed by then: otherwise it would answer "not found"
    /// for keys that exist.
    pub(super) fn may_answer(&self, at_least: LogIndex) -> bool {
        let is_member = self.node.serves_from().is_some_and(|from| self.last_applied >= from);
        let has_caught_up =
            self.last_applied >= self.reads_from || mutant::is_active(Mutant::ReadBeforeCatchUp);
        let has_seen_as_much = self.last_applied >= at_least || mutant::is_active(Mutant::ReadIgnoresSeen);
        let is_dismissed = self.is_dismissed && !mutant::is_active(Mutant::DismissedNodeServes);
        is_member && !is_dismissed && has_caught_up && has_seen_as_much
    }

    pub(super) fn look_up(&mut self, query: &Query) -> Answer {
        /// Counting a key is as much work as a fraction of a look-up.
        const COUNTED_PER_LOOK_UP: u64 = 16;
        if query.wants_meta() && self.level() < Level::REVISIONS {
            return Answer::Refused(RequestRefusal::NotYet);
        }
        let found = self.state.store().answer(query);
        let work = match &found {
            Found::Value(_) | Found::Entry(_) => 1,
            Found::Page(page) => page.items.len() + 1,
            Found::Count(keys) => {
                usize::try_from(keys / COUNTED_PER_LOOK_UP).unwrap_or(usize::MAX).saturating_add(1)
            }
        };
        self.looked_up = self.looked_up.saturating_add(work);
        Answer::Read { index: self.last_applied, found }
    }

    /// Answers the waiting reads that are ready. Rejects those that have waited too long or have no
    /// leader to catch up with.
    pub(super) fn answer_reads(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        if self.waiting_reads.is_empty() {
            return;
        }
        while let Some(&at_least) = self.waiting_reads.keys().next()
            && self.may_answer(at_least)
        {
            let mut reads = self.waiting_reads.remove(&at_least).unwrap_or_default().into_iter();
            while self.looked_up < LOOK_UPS_MAX
                && let Some(WaitingRead { request, query, .. }) = reads.next()
            {
                outputs.push(Output::Answer(request, self.look_up(&query)));
            }
            if reads.len() > 0 {
                self.waiting_reads.insert(at_least, reads.collect());
                break;
            }
        }
        let has_leader = self.node.leader().is_some();
        let is_in_vain = |read: &mut WaitingRead| !has_leader || now.since(read.since) > READ_TIMEOUT;
        let is_blocked = !self.may_answer(LogIndex::ORIGIN);
        let first_blocked = if is_blocked { LogIndex::ORIGIN } else { self.last_applied.next() };
        for (_, reads) in self.waiting_reads.range_mut(first_blocked..) {
            for read in reads.extract_if(.., is_in_vain) {
                outputs.push(Output::Answer(read.request, Answer::Refused(RequestRefusal::CatchingUp)));
            }
        }
        self.waiting_reads.retain(|_, reads| !reads.is_empty());
    }

    /// Continues the linearizable reads of `batch`: they wait until `index` is applied, or are
    /// rejected if there is none.
    pub(super) fn learn_read_index(
        &mut self,
        batch: ReadBatch,
        index: Option<LogIndex>,
        now: Instant,
        outputs: &mut Vec<Output>,
    ) {
        let reads = self.unconfirmed_reads.remove(&batch).unwrap_or_default();
        let Some(index) = index else {
            let is_full = self.active_leader() == Some(self.node.id());
            let refused = if is_full { RequestRefusal::Overloaded } else { self.not_leader() };
            self.learn_backup_index(batch, Err(refused), now, outputs);
            let refusals = reads.into_iter().map(|(id, _)| Output::Answer(id, Answer::Refused(refused)));
            return outputs.extend(refusals);
        };
        self.learn_backup_index(batch, Ok(index), now, outputs);
        let waiting = reads.into_iter().map(|(request, query)| WaitingRead { request, query, since: now });
        let index = unawaited_by_mutant().unwrap_or(index);
        self.waiting_reads.entry(index).or_default().extend(waiting);
    }
}

/// Deliberate bug: a read waits for no entry.
fn unawaited_by_mutant() -> Option<LogIndex> {
    mutant::is_active(Mutant::ReadIndexNotAwaited).then_some(LogIndex::ORIGIN)
}
