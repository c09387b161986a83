//! Applies committed entries to the state, and answers the requests that waited for them.

use std::collections::VecDeque;

use super::interface::{Answer, Output, RequestRefusal};
use super::{APPLY_BYTES_MAX, APPLY_KEYS_MAX, APPLY_LATER_MIN, Replica, Waiting};
use crate::kv::{Applied, Revision};
use crate::mutant::{self, Mutant};
use crate::raft::{EntryKind, LogIndex, Node, Term};
use crate::time::Instant;

impl Replica {
    /// Fig. 2, all servers 1: while `commit_index > last_applied`, apply the next entry.
    pub(super) fn apply(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        let commit_index = uncommitted_by_mutant(&self.node).unwrap_or(self.node.commit_index());
        let behind = commit_index.0.saturating_sub(self.last_applied.0);
        let may_wait = self.waiting.is_empty() && self.waiting_reads.is_empty();
        self.left_to_apply = behind >= APPLY_LATER_MIN && may_wait && !self.left_to_apply;
        if behind == 0 || self.left_to_apply {
            return;
        }
        // A snapshot may have replaced the state in this step, and times to live count from the
        // moment at which they are applied.
        self.state.advance(now);
        let mut work = 0;
        for run in self.node.log().entries_from(self.last_applied.next(), APPLY_BYTES_MAX) {
            let Some(committed) = run.ending_at(commit_index) else { break };
            let writes = self.readings.read(&committed);
            for entry in committed.iter() {
                let at = Revision(entry.point.index.0);
                let applied = writes.at(entry.point.index).map(|write| self.state.apply(write, at));
                assert!(
                    applied.is_some() || entry.kind() != EntryKind::Command,
                    "the log holds only commands of this version"
                );
                self.last_applied = entry.point.index;
                self.note_changes(at);
                work += applied.as_ref().map_or(0, |applied| applied.outcome.work());
                if self.waiting.front().is_some_and(|request| request.index <= self.last_applied) {
                    resolve(&mut self.waiting, entry.point.index, entry.point.term, applied, outputs);
                }
                if work >= APPLY_KEYS_MAX {
                    break;
                }
            }
            let Some(applied) = committed.ending_at(self.last_applied) else { break };
            self.snapshots.schedule.applied(applied.len() as u64, applied.text().len() as u64);
            if work >= APPLY_KEYS_MAX {
                break;
            }
        }
    }
}

/// Answers the requests that waited for `index`, after its entry was applied.
///
/// A request whose command was proposed there in another term is answered as well: another entry
/// was committed at its index, so it can never take effect.
pub(super) fn resolve(
    waiting: &mut VecDeque<Waiting>,
    index: LogIndex,
    term: Term,
    mut applied: Option<Applied>,
    outputs: &mut Vec<Output>,
) {
    while let Some(done) = waiting.pop_front_if(|request| request.index <= index) {
        let is_its_own =
            (done.index, done.term) == (index, term) || mutant::is_active(Mutant::AnsweredByIndex);
        let answer = match applied.take_if(|_| is_its_own) {
            Some(Applied { outcome, meta }) => Answer::Applied { index, outcome, meta },
            None => Answer::Refused(RequestRefusal::Superseded),
        };
        outputs.push(Output::Answer(done.request, answer));
    }
}

/// Deliberate bug: the whole log is applied.
fn uncommitted_by_mutant(node: &Node) -> Option<LogIndex> {
    mutant::is_active(Mutant::AppliedBeforeCommit).then(|| node.log().last().index)
}
