//! Queries about the state of a scenario's cluster.

use coracle_core::kv::{LoggedWrite, Operation};
use coracle_core::raft::{EntryKind, LogIndex, Node, NodeId, Role};
use coracle_core::{Answer, Instant, RequestId};

use super::cluster::Cluster;
use super::disk::Disk;
use super::subject::Subject;

/// More bytes than any scenario's log.
const ALL: usize = 1 << 40;

impl<S: Subject> Cluster<S> {
    /// The subject that runs at a seat.
    ///
    /// # Panics
    ///
    /// When the node is down.
    #[must_use]
    pub fn subject(&self, node: u64) -> &S {
        self.seats[&NodeId(node)].subject.as_ref().expect("the node runs")
    }

    /// The Raft node with this number.
    #[must_use]
    pub fn node(&self, node: u64) -> &Node {
        self.subject(node).node()
    }

    /// The disk of a node.
    #[must_use]
    pub fn disk(&self, node: u64) -> &Disk {
        &self.seats[&NodeId(node)].disk
    }

    /// Returns whether a node runs.
    #[must_use]
    pub fn is_up(&self, node: u64) -> bool {
        self.seats[&NodeId(node)].subject.is_some()
    }

    /// The numbers of all nodes.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        self.seats.keys().map(|id| id.0).collect()
    }

    /// The reading of a node's clock.
    #[must_use]
    pub fn clock(&self, node: u64) -> Instant {
        self.now + self.seats[&NodeId(node)].ahead
    }

    /// The role of a node.
    #[must_use]
    pub fn role(&self, node: u64) -> Role {
        self.node(node).role()
    }

    /// The current term of a node.
    #[must_use]
    pub fn term(&self, node: u64) -> u64 {
        self.node(node).current_term().0
    }

    /// The candidate for which a node voted in its term.
    #[must_use]
    pub fn voted_for(&self, node: u64) -> Option<u64> {
        self.node(node).voted_for().map(|id| id.0)
    }

    /// The commit index of a node.
    #[must_use]
    pub fn commit(&self, node: u64) -> u64 {
        self.node(node).commit_index().0
    }

    /// The terms of a node's log entries, from the first on.
    #[must_use]
    pub fn log_terms(&self, node: u64) -> Vec<u64> {
        let runs = self.node(node).log().entries_from(LogIndex(1), ALL);
        runs.iter().flat_map(|run| run.iter().map(|entry| entry.point.term.0).collect::<Vec<_>>()).collect()
    }

    /// The proposed texts that a node knows to be committed, in order.
    #[must_use]
    pub fn texts(&self, node: u64) -> Vec<String> {
        let commit_index = self.node(node).commit_index();
        let runs = self.node(node).log().entries_from(LogIndex(1), ALL);
        let committed = runs.iter().filter_map(|run| run.ending_at(commit_index));
        let mut texts = Vec::new();
        for run in committed {
            for entry in run.iter().filter(|entry| entry.kind() == EntryKind::Command) {
                let write = LoggedWrite::read(entry.payload);
                if let Some(Operation::Put { key, .. }) = write.map(|write| write.operation) {
                    texts.push(key.into_owned());
                }
            }
        }
        texts
    }

    /// The running leader of the highest term, if any node leads.
    #[must_use]
    pub fn leader(&self) -> Option<u64> {
        let nodes = self.seats.values().filter_map(|seat| seat.subject.as_ref()).map(Subject::node);
        let leaders = nodes.filter(|node| node.role() == Role::Leader);
        leaders.max_by_key(|node| node.current_term()).map(|node| node.id().0)
    }

    /// The answer to a request, if there was one. A second answer to a request always panics.
    #[must_use]
    pub fn answer(&self, request: RequestId) -> Option<&Answer> {
        self.answers.get(&request)
    }

    /// The events of all nodes so far, one line each: the node's number and the event.
    #[must_use]
    pub fn trace(&self) -> &[String] {
        &self.trace
    }
}
