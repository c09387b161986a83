//! Invariants of the scenario tests, checked after every step: the paper's safety properties
//! (Figure 3), and the rule that no promise leaves a node before it is durable.

use std::collections::{BTreeMap, VecDeque};

use coracle_core::raft::{
    AppendOutcome, Body, Event, HardState, InstallOutcome, LogIndex, LogPoint, Message, Node, NodeId,
    Persist, Role, Term,
};

use super::disk::Disk;

/// The number of latest events that a failure shows.
const STORY_LINES: usize = 60;

/// Watches every step and panics, with the end of the trace, when an invariant is broken.
#[derive(Debug, Default)]
pub struct Auditor {
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// Every committed entry, with the term of the first node that was seen to have committed it.
    /// The first entry has index 1.
    committed: Vec<(LogPoint, Term)>,
    commit_seen: BTreeMap<NodeId, LogIndex>,
    term_seen: BTreeMap<NodeId, Term>,
    story: VecDeque<String>,
    /// Whether the other nodes exist only as messages, so that none of their entries is on a disk.
    pub(super) peers_are_imagined: bool,
}

impl Auditor {
    /// Adds a line to the trace that a failure shows.
    pub(super) fn note(&mut self, line: String) {
        if self.story.len() == STORY_LINES {
            self.story.pop_front();
        }
        self.story.push_back(line);
    }

    fn require(&self, is_true: bool, invariant: &str, node: NodeId) {
        if !is_true {
            let story: Vec<&str> = self.story.iter().map(String::as_str).collect();
            panic!("{invariant}: broken at node {node}. What happened before:\n{}", story.join("\n"));
        }
    }

    pub(super) fn restarted(&mut self, node: NodeId) {
        self.commit_seen.remove(&node);
        self.term_seen.remove(&node);
    }

    /// Forgets the promises of a node: another incarnation, which has promised nothing, has taken
    /// its id.
    pub(super) fn replaced(&mut self, node: NodeId) {
        self.votes.retain(|(voter, _), _| *voter != node);
        self.restarted(node);
    }

    /// Election Safety: at most one leader in a term (§5.2).
    pub(super) fn event(&mut self, node: NodeId, event: &Event) {
        if let Event::BecameLeader { term, .. } = *event {
            let leader = *self.leaders.entry(term).or_insert(node);
            self.require(leader == node, "one leader in a term", node);
        }
    }

    /// Leader Append-Only: a leader never cuts its log (§5.3).
    pub(super) fn persist(&mut self, node: &Node, persist: &Persist) {
        let is_leader = node.role() == Role::Leader;
        let is_own_term = |from| node.log().term_at(from) == Some(node.current_term());
        // A node may cut and then win an election in the same turn. That cut does not concern its
        // leadership.
        let cuts_own_reign = is_leader && persist.cut_from().is_some_and(is_own_term);
        self.require(!cuts_own_reign, "a leader never cuts its log", node.id());
        self.require(persist.floor <= node.durable_index(), "the floor is durable", node.id());
    }

    /// Checks that the promises of a message are durable when it is sent.
    pub(super) fn sent(&mut self, node: &Node, disk: &Disk, message: &Message) {
        let own = node.id();
        let HardState { current_term, voted_for } = disk.hard_state();
        self.require(message.term <= current_term, "a term is durable before it is told", own);
        let vote = match &message.body {
            Body::RequestVoteResponse(response) if response.granted => Some(message.to),
            Body::RequestVote(_) => Some(own),
            _ => None,
        };
        if let Some(candidate) = vote {
            let is_durable = current_term > message.term || voted_for == Some(candidate);
            self.require(is_durable, "a vote is durable before it is told", own);
            let first = *self.votes.entry((own, message.term)).or_insert(candidate);
            self.require(first == candidate, "one vote in a term", own);
        }
        if let Body::InstallSnapshotResponse(response) = &message.body
            && response.outcome == InstallOutcome::Installed
        {
            self.require(disk.holds(response.last), "a snapshot is durable before it is acknowledged", own);
        }
        // An acknowledgement of an older term may concern entries that were cut since. It was true
        // in that term.
        if let Body::AppendEntriesResponse(response) = &message.body
            && let AppendOutcome::Accepted { match_index } = response.outcome
            && message.term == node.current_term()
        {
            let is_durable = disk.covers(match_index)
                || node.log().point_at(match_index).is_some_and(|point| disk.holds(point));
            self.require(is_durable, "entries are durable before they are acknowledged", own);
        }
    }

    /// Checks the state of a node after a step. `holds` returns whether a node's disk holds an
    /// entry.
    pub(super) fn observe(&mut self, node: &Node, holds: impl Fn(NodeId, LogPoint) -> bool) {
        let id = node.id();
        let earlier_term = self.term_seen.insert(id, node.current_term()).unwrap_or_default();
        self.require(earlier_term <= node.current_term(), "a term never falls", id);
        let commit_index = node.commit_index();
        self.require(commit_index <= node.log().last().index, "what is committed is in the log", id);
        self.require(node.durable_index() <= node.log().last().index, "what is durable is in the log", id);
        let earlier_commit = self.commit_seen.insert(id, commit_index).unwrap_or_default();
        self.require(earlier_commit <= commit_index, "a commit index never falls", id);
        let known = u64::try_from(self.committed.len()).unwrap_or(u64::MAX);
        for index in earlier_commit.0 + 1..=commit_index.0 {
            self.commit(node, LogIndex(index));
        }
        if commit_index.0 > known && !self.peers_are_imagined {
            let last = node.log().point_at(commit_index).expect("checked above");
            // A configuration that was appended since may require other disks than the one that
            // committed this entry.
            let is_settled = node.membership_is_settled();
            let is_on_majority =
                !is_settled || node.configuration().majority_reached(|member| holds(member, last));
            self.require(is_on_majority, "what is committed is on a majority of disks", id);
        }
        if node.role() == Role::Leader {
            self.completeness(node);
        }
    }

    /// State Machine Safety: no two nodes ever commit different entries at one index (§5.4.3).
    fn commit(&mut self, node: &Node, index: LogIndex) {
        let Some(point) = node.log().point_at(index) else {
            let is_covered = node.snapshot().is_some_and(|meta| meta.last.index >= index);
            return self.require(is_covered, "a committed entry is in the log or in a snapshot", node.id());
        };
        let position = usize::try_from(index.0 - 1).expect("scenario logs are short");
        match self.committed.get(position) {
            Some(&(first, _)) => {
                self.require(first == point, "a committed entry never changes", node.id());
            }
            None => self.committed.push((point, node.current_term())),
        }
    }

    /// Leader Completeness: entries that were committed in earlier terms are in every later
    /// leader's log (§5.4).
    fn completeness(&self, leader: &Node) {
        let earlier = |entry: &&(LogPoint, Term)| entry.1 < leader.current_term();
        let is_complete = self.committed.iter().rev().find(earlier).is_none_or(|(point, _)| {
            let is_covered = point.index < leader.log().first_index();
            is_covered || leader.log().point_at(point.index) == Some(*point)
        });
        self.require(is_complete, "a leader has every entry that was committed before", leader.id());
    }

    /// Log Matching: if two logs have an entry with the same index and term, they are identical up
    /// to it (§5.3).
    pub(super) fn compare(&self, one: &Node, other: &Node) {
        let common = one.log().last().index.min(other.log().last().index);
        let points = (one.log().point_at(common), other.log().point_at(common));
        let same_term = points.0.map(|point| point.term) == points.1.map(|point| point.term);
        self.require(!same_term || points.0 == points.1, "logs that share an entry agree up to it", one.id());
    }
}
