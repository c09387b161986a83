//! Monotonic indexes: terms, commit indexes and applied indexes never decrease, a node votes once
//! per term, and purged ≤ snapshot ≤ applied ≤ commit ≤ last (S6). Across a restart, this applies
//! to the durable state only: each check starts again from what the disk holds.

use coracle_core::Replica;
use coracle_core::raft::{LogIndex, NodeId, Term};

use super::{ByNode, Verdict, require};

/// The highest values that each node has reached.
#[derive(Debug, Default)]
pub(super) struct Monotonic {
    commit: ByNode<LogIndex>,
    applied: ByNode<LogIndex>,
    snapshot: ByNode<LogIndex>,
    term: ByNode<Term>,
    vote: ByNode<(Term, NodeId)>,
}

impl Monotonic {
    pub(super) fn check(&mut self, id: NodeId, replica: &Replica) -> Verdict {
        let node = replica.node();
        let status = replica.status();
        let say = |what: &str| format!("node {id}: {what}");
        let in_order =
            status.last_applied <= status.commit_index && status.commit_index <= status.last_log_index;
        require(in_order, "monotonic", || say("applied ≤ commit ≤ last does not hold"))?;
        let purged = node.log().start().index;
        let in_order = purged <= status.snapshot_index && status.snapshot_index <= status.last_applied;
        require(in_order, "monotonic", || say("purged ≤ snapshot ≤ applied does not hold"))?;
        let snapshot = self.snapshot.insert(id, status.snapshot_index);
        require(snapshot.is_none_or(|before| before <= status.snapshot_index), "monotonic", || {
            say("an older snapshot took a newer one's place")
        })?;
        let commit = self.commit.insert(id, status.commit_index);
        require(commit.is_none_or(|before| before <= status.commit_index), "monotonic", || {
            say("the commit index fell")
        })?;
        let applied = self.applied.insert(id, status.last_applied);
        require(applied.is_none_or(|before| before <= status.last_applied), "monotonic", || {
            say("the applied index fell")
        })?;
        let term = self.term.insert(id, status.term);
        require(term.is_none_or(|before| before <= status.term), "monotonic", || say("the term fell"))?;
        let Some(vote) = node.voted_for() else { return Ok(()) };
        let before = self.vote.insert(id, (status.term, vote));
        let is_same = before.is_none_or(|(term, candidate)| term < status.term || candidate == vote);
        require(is_same, "monotonic", || say("it voted twice in a term"))
    }

    /// Forgets the values of a node that restarts: what was not durable may be lost, including a
    /// term or a vote that no other node has learned.
    pub(super) fn restarted(&mut self, id: NodeId) {
        self.commit.remove(&id);
        self.applied.remove(&id);
        self.snapshot.remove(&id);
        self.term.remove(&id);
        self.vote.remove(&id);
    }
}
